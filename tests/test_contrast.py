"""Contrasts keep the shape and the frames they should, and follow from the generator alone."""

import functools
import re
from collections import Counter

import pytest
import torch
from helpers import loader, row
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.contrast import (
    contrasted,
    contrasted_videos,
    flip_frames,
    freeze_frame,
    get_contrast_by_column,
    get_shuffle_around,
    get_shuffle_clips,
    reverse_frames,
    shuffle_around,
    shuffle_clips,
    shuffle_frames,
    takes_row,
)


CONTRASTS = (shuffle_frames, reverse_frames, freeze_frame, flip_frames, shuffle_clips)


def numbered(num_frames: int) -> torch.Tensor:
    """Frames (T, 3, 2, 4) uint8; every value of frame t is t."""
    return torch.arange(num_frames, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 4)


def numbers(frames: torch.Tensor) -> list[int]:
    assert (frames == frames[:, :1, :1, :1]).all(), "a frame was mixed with another"
    return frames[:, 0, 0, 0].tolist()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(2, 20), st.integers(0, 2**32))
def test_shuffling_keeps_every_frame_and_never_the_order(num_frames, seed):
    order = numbers(shuffle_frames(numbered(num_frames), seeded(seed)))
    assert sorted(order) == list(range(num_frames))
    assert order != list(range(num_frames))


def test_shuffling_draws_every_other_order_equally_often():
    generator, frames = seeded(0), numbered(3)
    counts = Counter(tuple(numbers(shuffle_frames(frames, generator))) for _ in range(3000))
    # 3! - 1 = 5 orders, 600 times each; the standard deviation is sqrt(3000 * 0.2 * 0.8) = 22, so 5 of them is 110
    assert len(counts) == 5
    assert all(abs(count - 600) < 110 for count in counts.values())


@pytest.mark.parametrize("contrast", CONTRASTS)
@given(num_frames=st.integers(0, 9), seed=st.integers(0, 2**32))
def test_a_contrast_follows_from_the_generator_and_leaves_its_input(contrast, num_frames, seed):
    frames = numbered(num_frames)
    first, second = contrast(frames, seeded(seed)), contrast(frames, seeded(seed))
    assert torch.equal(first, second)
    assert first.shape == frames.shape and first.dtype == torch.uint8
    assert torch.equal(frames, numbered(num_frames))


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_a_contrast_leaves_the_global_random_state_alone(contrast):
    before = torch.get_rng_state()
    contrast(numbered(4), seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("num_frames", [0, 1])
def test_without_two_frames_nothing_changes(contrast, num_frames):
    assert torch.equal(contrast(numbered(num_frames), seeded(0)), numbered(num_frames))


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_a_still_video_stays_as_it_is(contrast):
    still = torch.full((5, 3, 2, 2), 7, dtype=torch.uint8)
    assert torch.equal(contrast(still, seeded(0)), still)


def test_reversing_runs_from_last_to_first():
    assert numbers(reverse_frames(numbered(4), seeded(0))) == [3, 2, 1, 0]


def test_freezing_shows_one_frame_and_any_of_them_over_time():
    generator, seen = seeded(0), set()
    for _ in range(200):  # a given frame of 4 is missed 200 times with probability 0.75 ** 200 = 1e-25
        frozen = freeze_frame(numbered(4), generator)
        assert len(set(numbers(frozen))) == 1 and frozen.is_contiguous()
        seen.update(numbers(frozen))
    assert seen == {0, 1, 2, 3}


# Mirrored, by clips, around given seconds, by the row


def test_flipping_mirrors_every_frame_and_keeps_their_order():
    frames = torch.arange(2 * 3 * 2 * 4, dtype=torch.uint8).view(2, 3, 2, 4)
    flipped = flip_frames(frames, seeded(0))
    assert torch.equal(flipped[1, 2, 1], torch.tensor([47, 46, 45, 44], dtype=torch.uint8))
    assert torch.equal(flip_frames(flipped, seeded(0)), frames)


@given(st.integers(2, 20), st.integers(2, 6), st.integers(0, 2**32))
def test_clips_keep_what_is_near_together_and_never_the_order(num_frames, num_clips, seed):
    order = numbers(get_shuffle_clips(num_clips)(numbered(num_frames), seeded(seed)))
    assert sorted(order) == list(range(num_frames)) != order
    clips = min(num_clips, num_frames)
    borders = {round(clip * num_frames / clips) for clip in range(1, clips)}
    assert all(b == a + 1 or a + 1 in borders | {num_frames} for a, b in zip(order, order[1:], strict=False))


def test_fewer_than_two_clips_are_refused():
    with pytest.raises(ValueError, match=re.escape("num_clips (1) must be at least 2")):
        get_shuffle_clips(1)
    for number in (2.5, "4", True):
        with pytest.raises(ValueError, match=re.escape(f"num_clips ({number!r}) must be a whole number")):
            get_shuffle_clips(number)
    assert shuffle_clips(numbered(1), seeded(0)).shape[0] == 1


def test_only_frames_near_the_borders_of_the_event_are_shuffled():
    """Two frames a second, an event of 4 to 12 s, 1 s around: frames 6 to 10 and 22 to 26."""
    row = {"solution": "<answer>4 - 12</answer>", "frame_seconds": [index / 2 for index in range(32)]}
    order = numbers(get_shuffle_around(radius=1.0)(numbered(32), seeded(0), row))
    moved = {place for place, number in enumerate(order) if place != number}
    assert moved & set(range(6, 11)) and moved & set(range(22, 27))
    assert moved <= {*range(6, 11), *range(22, 27)}
    assert sorted(order[6:11]) == list(range(6, 11)) and sorted(order[22:27]) == list(range(22, 27))


def test_stretches_that_meet_are_shuffled_as_one_so_that_the_order_never_comes_back():
    """An event of 4 to 5 s, 3 s around, a frame a second: 1 to 8, in which the second shuffle could undo the first."""
    row = {"solution": "4 - 5", "frame_seconds": [float(second) for second in range(16)]}
    for seed in range(40):
        order = numbers(shuffle_around(numbered(16), seeded(seed), row))
        assert order[:1] + order[9:] == [0, *range(9, 16)]
        assert sorted(order[1:9]) == list(range(1, 9)) != order[1:9]


def test_sparse_frames_swap_across_the_border():
    """Ten seconds apart, none lies within 3 s of 44 s or of 71 s: the two nearest of each change places."""
    row = {"solution": "44 - 71", "frame_seconds": [10.0 * place for place in range(10)]}
    assert numbers(shuffle_around(numbered(10), seeded(0), row)) == [0, 1, 2, 3, 5, 4, 6, 8, 7, 9]


def test_columns_that_a_contrast_takes_and_the_data_lack_are_named():
    for contrast in (get_contrast_by_column("about", {}), get_shuffle_around(column="about")):
        with pytest.raises(ValueError, match=re.escape("The data has no column 'about', which the contrast")):
            contrast(numbered(3), seeded(0), {"solution": "B", "frame_seconds": [0.0, 1.0, 2.0]})
    with pytest.raises(ValueError, match=re.escape("about (['time']) is no single value")):
        get_contrast_by_column("about", {})(numbered(3), seeded(0), {"about": ["time"]})


@pytest.mark.parametrize(
    "row", [{}, {"solution": "B", "frame_seconds": [0.0] * 9}, {"solution": "1 - 2", "frame_seconds": None}]
)
def test_without_an_interval_all_frames_are_shuffled(row):
    assert numbers(shuffle_around(numbered(9), seeded(3), row)) == numbers(shuffle_frames(numbered(9), seeded(3)))


def test_a_solution_of_another_problem_type_is_no_time():
    """ "2, 3, 1" would be an event of 2 to 3 s, and only frames 0 to 6 be shuffled; another column says what it says."""
    row = {"solution": "<answer>2, 3, 1</answer>", "frame_seconds": [float(second) for second in range(40)]}
    own = {**row, "problem_type": "permutation"}
    assert numbers(shuffle_around(numbered(40), seeded(0), own)) == numbers(shuffle_frames(numbered(40), seeded(0)))
    for kind in ("temporal grounding", None):
        order = numbers(shuffle_around(numbered(40), seeded(0), {**row, "problem_type": kind}))
        assert order[7:] == list(range(7, 40))
    when = {**own, "when": "2 - 3"}
    assert numbers(get_shuffle_around(column="when")(numbered(40), seeded(0), when))[7:] == list(range(7, 40))


def test_a_contrast_is_chosen_by_a_column():
    routed = get_contrast_by_column("about", {"space": flip_frames, "time": reverse_frames, "event": shuffle_around})
    frames = torch.arange(8, dtype=torch.uint8).view(4, 1, 1, 2)
    assert torch.equal(routed(frames, seeded(0), {"about": "space"}), frames.flip(-1))
    assert torch.equal(routed(frames, seeded(0), {"about": "time"}), frames.flip(0))
    for about in (None, "event"):
        assert torch.equal(routed(frames, seeded(0), {"about": about}), shuffle_frames(frames, seeded(0)))


def test_a_contrast_sees_the_row_if_it_has_a_place_for_it():
    def two(frames, generator):
        return frames

    def with_a_setting(frames, generator, strength=2):
        assert strength == 2
        return frames

    def three(frames, generator, columns):
        assert columns == {"a": 1}
        return frames.flip(0)

    def named(frames, generator, row=None):
        assert row == {"a": 1}
        return frames.flip(0)

    found = {
        each.__name__: contrasted(each, numbered(3), seeded(0), {"a": 1})
        for each in (two, with_a_setting, three, named)
    }
    assert {name: numbers(frames) for name, frames in found.items()} == {
        "two": [0, 1, 2], "with_a_setting": [0, 1, 2], "three": [2, 1, 0], "named": [2, 1, 0],
    }  # fmt: skip
    assert numbers(contrasted(functools.partial(with_a_setting, strength=2), numbered(2), seeded(0), {"a": 1})) == [
        0,
        1,
    ]


def test_the_row_goes_where_a_contrast_has_it():
    """By keyword where a parameter has that name, and not in the place of another one; as the third one otherwise."""
    seen = []

    def behind_a_setting(frames, generator, strength=2, row=None):
        seen.append((strength, row))
        return frames

    def keyword_only(frames, generator, *, row):
        seen.append((None, row))
        return frames

    def keyword_only_with_default(frames, generator, *, row=None):
        seen.append((None, row))
        return frames

    def rest(frames, generator, *rest, **others):
        seen.append((rest, others))
        return frames

    def both(frames, generator, strength, row):
        seen.append((strength, row))
        return frames

    class Method:
        def contrast(self, frames, generator, columns):
            seen.append((None, columns))
            return frames

    found = [
        behind_a_setting, functools.partial(behind_a_setting, strength=5), keyword_only, keyword_only_with_default, rest,
        functools.partial(both, strength=3), Method().contrast, functools.partial(keyword_only, row={"b": 2}),
    ]  # fmt: skip
    for contrast in found:
        contrasted(contrast, numbered(2), seeded(0), {"a": 1})
    one = {"a": 1}
    assert seen == [(2, one), (5, one), (None, one), (None, one), ((), {}), (3, one), (None, one), (None, {"b": 2})]
    with pytest.raises(
        TypeError, match=re.escape("contrast (both) cannot be called with frames and generator, and row")
    ):
        contrasted(both, numbered(2), seeded(0), {"a": 1})
    with pytest.raises(
        TypeError, match=re.escape("contrast (<lambda>) cannot be called with frames and generator: too many")
    ):
        takes_row(lambda frames: frames)


def test_a_contrast_by_column_takes_the_columns_of_those_it_chooses_among():
    around = get_shuffle_around(column="when")
    inner = get_contrast_by_column("kind", {"event": around})
    assert get_contrast_by_column("about", {"event": around}).needs_columns == ("about", "when")
    assert get_contrast_by_column("about", {"time": inner}).needs_columns == ("about", "kind", "when")
    assert get_contrast_by_column("about", {}, otherwise=around).needs_columns == ("about", "when")
    assert get_contrast_by_column("about", {"a": reverse_frames}).needs_columns == ("about",)


# Several videos in a row


def of_clips(contrast, clips, seed=0, **columns):
    """The numbers of the frames of each clip that a contrast makes of clips."""
    seconds = [[float(number) for number in numbers(clip)] for clip in clips]
    return [numbers(clip) for clip in contrasted_videos(contrast, clips, seconds, seeded(seed), columns)]


def three_clips():
    """Of 4, 3 and 5 frames."""
    return list(numbered(12).split([4, 3, 5]))


@pytest.mark.parametrize("contrast", [shuffle_frames, shuffle_clips, get_shuffle_clips(3), shuffle_around])
def test_clips_whose_order_is_asked_for_are_mixed_with_each_other(contrast):
    """Within themselves alone they would keep the order that is the answer."""
    apart = [set(numbers(clip)) for clip in three_clips()]
    for seed in range(20):
        found = of_clips(contrast, three_clips(), seed, problem_type="permutation", solution="2, 3, 1")
        assert [len(clip) for clip in found] == [4, 3, 5] and sorted(sum(found, [])) == list(range(12))
        assert [set(clip) for clip in found] != apart
    whole = numbers(contrasted(contrast, numbered(12), seeded(3), {"problem_type": "permutation"}))
    assert sum(of_clips(contrast, three_clips(), 3, problem_type="permutation"), []) == whole


@pytest.mark.parametrize("kind", ["multiple choice", None])
def test_videos_whose_order_is_not_asked_for_are_contrasted_each_for_itself(kind):
    for contrast in (shuffle_frames, shuffle_clips):
        found = of_clips(contrast, three_clips(), problem_type=kind)
        assert [sorted(clip) for clip in found] == [list(range(4)), list(range(4, 7)), list(range(7, 12))]


def test_reversed_and_frozen_clips_stay_where_they_are():
    """What runs backwards in each of its clips has the opposite order."""
    found = of_clips(reverse_frames, three_clips(), problem_type="permutation")
    assert found == [[3, 2, 1, 0], [6, 5, 4], [11, 10, 9, 8, 7]]
    frozen = of_clips(freeze_frame, three_clips(), problem_type="permutation")
    assert [len(set(clip)) for clip in frozen] == [1, 1, 1] and frozen[0][0] < 4 <= frozen[1][0] < 7 <= frozen[2][0]


def test_a_contrast_of_ones_own_may_go_across_clips_and_one_by_column_does_as_the_chosen_one():
    seen = []

    def halves(frames, generator, row):
        seen.append(row["frame_seconds"])
        return frames.roll(6, dims=0)

    rolled = [[6, 7, 8, 9], [10, 11, 0], [1, 2, 3, 4, 5]]
    with pytest.warns(UserWarning, match="The contrast halves sees clips whose order is asked for"):
        assert of_clips(halves, three_clips(), problem_type="permutation") != rolled and len(seen) == 3
    halves.across_clips = True
    assert of_clips(halves, three_clips(), problem_type="permutation") == rolled
    assert seen[-1] == [float(number) for number in range(12)]
    routed = get_contrast_by_column("about", {"halves": halves, "time": reverse_frames})
    assert of_clips(routed, three_clips(), problem_type="permutation", about="halves") == rolled
    assert of_clips(routed, three_clips(), problem_type="permutation", about="time")[1] == [6, 5, 4]


def test_clips_of_several_sizes_are_contrasted_each_for_itself_with_a_warning():
    clips = [numbered(4), torch.zeros(4, 1, 1, 2, dtype=torch.uint8)]
    with pytest.warns(UserWarning, match="Clips of several sizes whose order is asked for"):
        contrasted_videos(shuffle_frames, clips, [None, None], seeded(0), {"problem_type": "permutation"})


def test_in_training_the_contrast_of_a_question_of_order_does_not_have_the_order(models, media):
    """Three clips of a video: the frames of each are those of several; as many tokens, in the same places."""
    clips = [{"path": media["videos"][0], "start": start, "end": start + 1.0} for start in (1.0, 0.0, 2.0)]
    rows = {}
    for kind in ("permutation", "multiple choice"):
        inputs = {key: value for key, value in row(problem_type=kind).items() if key not in ("video", "image")}
        settings = {**loader(models()).video_settings, "num_frames": 4}
        showing = loader(models(), shown_side=lambda step, group: 32, video_settings=settings)
        rows[kind] = showing.load([{**inputs, "videos": clips}] * 4, 0, 4, 2, step=1)[1]
    for kind, found in rows.items():
        assert found.contrast.input_ids == found.encoded.input_ids
        shown = found.shown.ordered, found.shown.contrast
        ordered, contrast = ([set(frames[place : place + 4]) for place in (0, 4, 8)] for frames in shown)
        assert (ordered == contrast) == (kind == "multiple choice")


def test_in_training_the_row_has_its_columns_and_the_seconds_of_its_frames(models, media):
    seen = []

    def noting(frames, generator, row):
        seen.append((row["about"], list(row["frame_seconds"]), len(frames)))
        return frames.flip(0)

    rows = [row(video=media["videos"][0], about="time")] * 4
    loaded = loader(models(), contrast=noting).load(rows, 0, 4, 2, step=1)
    [(about, seconds, num_frames)] = seen
    assert about == "time" and len(seconds) == num_frames == len(set(seconds)) and seconds == sorted(seconds)
    assert [each.counterpart for each in loaded] == [None] * 4
    everyone = loader(models(), contrast=noting, contrast_for_all=True).load(rows, 0, 4, 0, step=1)
    assert all(each.contrast is None and each.counterpart is everyone[0].counterpart is not None for each in everyone)


def test_rows_that_were_prepared_ahead_are_told_apart_by_the_columns_that_the_contrast_sees(models, media):
    def by_column(frames, generator, row):
        return frames if row["about"] == "static" else frames.flip(0)

    ahead = loader(models(), contrast=by_column, num_workers=1)
    one, other = ([row(video=media["videos"][0], about=about)] * 4 for about in ("static", "dynamic"))
    features = []
    for rows in (one, other):
        features.append(ahead.load(rows, 0, 4, 2, step=1)[1].contrast.features)
        ahead.expect(one)  # and the other comes
    expected = loader(models(), contrast=by_column).load(other, 0, 4, 2, step=1)[1].contrast.features
    assert torch.equal(features[1]["pixel_values_videos"], expected["pixel_values_videos"])
    assert not torch.equal(features[0]["pixel_values_videos"], expected["pixel_values_videos"])
