"""One rank's batch: each video decoded once, contrasts that follow from seed, step and group, media in their places."""

import re

import pytest
import torch
from helpers import CountingLoader, loader, row
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.contrast import reverse_frames, shuffle_frames
from videor1_trl.data.batch import BatchLoader, owns_contrast
from videor1_trl.data.placing import PromptError, media_list, place_media
from videor1_trl.media.errors import ImageError, VideoError
from videor1_trl.media.video import load_video


def frames_of(encoded):
    """The order of the temporal patches' pixels, as something to compare."""
    return encoded.features["pixel_values_videos"]


def test_each_distinct_video_is_decoded_once_for_several_prompts_and_all_rows(models, media):
    counting = CountingLoader()
    one, two = media["videos"][:2]
    rows = [row("a?", video=one)] * 4 + [row("b?", video=one)] * 4 + [row("c?", video=two)] * 4
    loaded = loader(models(), load_video=counting).load(rows, 0, 4, 2, step=1)
    assert counting.sources == [one, two]
    assert loaded[0].encoded is loaded[3].encoded
    assert loaded[1].contrast is loaded[3].contrast
    assert torch.equal(frames_of(loaded[0].encoded), frames_of(loaded[4].encoded))


def test_rows_of_a_group_share_the_permutation_on_every_rank(models, media):
    rows = [row("a?", video=media["videos"][0])] * 4
    whole = loader(models()).load(rows, 0, 4, 4, step=3)
    halves = [loader(models()).load(rows[:2], first, 4, 4, step=3) for first in (0, 2)]
    for found, expected in zip([*halves[0], *halves[1]], whole, strict=True):
        assert torch.equal(frames_of(found.contrast), frames_of(expected.contrast))
        assert (found.group, found.place) == (expected.group, expected.place)


def test_the_permutation_changes_with_step_group_and_seed(models, media):
    rows = [row("a?", video=media["videos"][0])] * 2
    settings = [(0, 1, 0), (0, 2, 0), (2, 1, 0), (0, 1, 7)]  # first row, step, seed
    seen = [
        frames_of(loader(models(), seed=seed).load(rows, first, 2, 1, step=step)[1].contrast)
        for first, step, seed in settings
    ]
    assert not any(torch.equal(seen[0], other) for other in seen[1:])
    again = loader(models()).load(rows, 0, 2, 1, step=1)[1].contrast
    assert torch.equal(seen[0], frames_of(again))


@given(group=st.integers(1, 16), data=st.data())
def test_exactly_the_asked_number_of_rows_owns_a_contrast_evenly_spread(group, data):
    contrast = data.draw(st.integers(1, group))
    owners = [place for place in range(group) if owns_contrast(place, group, contrast)]
    assert len(owners) == contrast
    gaps = [after - before for before, after in zip(owners, owners[1:], strict=False)]
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


def test_text_and_image_rows_have_no_contrast(models, media):
    rows = [row("a?")] * 2 + [row("b?", image=media["image"])] * 2
    loaded = loader(models()).load(rows, 0, 2, 2, step=1)
    assert not any(each.has_contrast or each.contrast for each in loaded)
    assert "pixel_values" in loaded[2].encoded.features
    assert loaded[0].encoded.features == {}


def test_without_a_contrast_no_video_is_shuffled(models, media):
    loaded = loader(models(), contrast=None).load([row("a?", video=media["videos"][0])] * 2, 0, 2, 1, step=1)
    assert not any(each.has_contrast or each.contrast for each in loaded)


def test_several_videos_in_one_prompt_are_all_contrasted(models, media):
    prompt = {**row("a?"), "videos": media["videos"][:2]}
    loaded = loader(models(), contrast=reverse_frames).load([prompt] * 2, 0, 2, 1, step=1)
    ordered, contrast = loaded[1].encoded, loaded[1].contrast
    assert ordered.features["video_grid_thw"].tolist() == contrast.features["video_grid_thw"].tolist()
    per_video = ordered.features["pixel_values_videos"].shape[0] // 2
    for part in (slice(None, per_video), slice(per_video, None)):
        assert not torch.equal(frames_of(ordered)[part], frames_of(contrast)[part])


def test_metadata_stays_in_order_under_the_contrast(models, media):
    """Qwen3-VL writes time stamps into the prompt: with equal ids they are those of the ordered frames."""
    loaded = loader(models("qwen3_vl")).load([row("a?", video=media["videos"][0])] * 2, 0, 2, 1, step=1)
    text = models("qwen3_vl").processor.tokenizer.decode(loaded[1].contrast.input_ids)
    stamps = [float(stamp) for stamp in re.findall(r"<([\d.]+) seconds>", text)]
    assert len(stamps) == 4
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("kind, error", [("video", VideoError), ("image", ImageError)])
def test_unreadable_media_raise_with_file_reason_and_record(models, tmp_path, kind, error):
    missing = str(tmp_path / "missing.mp4")
    with pytest.raises(error, match=re.escape(missing)) as caught:
        loader(models()).load([row("a?", **{kind: missing}, problem_id=42)] * 2, 0, 2, 1, step=1)
    assert "problem_id 42" in str(caught.value)


def test_skipped_rows_keep_their_place_without_media_and_say_why(models, media, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    rows = [row("a?", video=str(bad))] * 2 + [row("b?", video=media["videos"][0])] * 2
    loaded = loader(models(), on_bad_video="skip").load(rows, 0, 2, 2, step=1)
    assert [each.error is None for each in loaded] == [False, False, True, True]
    assert str(bad) in str(loaded[0].error)
    assert loaded[0].encoded.features == {} and loaded[0].contrast is None and not loaded[0].has_contrast


@pytest.mark.parametrize("text", ["which way " * 300, "what is <|video_pad|>?"])
def test_a_skipped_prompt_costs_next_to_nothing_whatever_its_text(models, media, text):
    rows = [row(text, video=media["videos"][0])] * 2
    loaded = loader(models(), on_bad_video="skip", max_prompt_length=200).load(rows, 0, 2, 1, step=1)
    assert loaded[0].error is not None
    assert len(loaded[0].encoded.input_ids) < 40


@pytest.mark.parametrize(
    "loaded, found",
    [
        (lambda frames, metadata: (frames.float() / 255, metadata), "torch.float32 (8, 3, 56, 56), VideoMetadata"),
        (lambda frames, metadata: (frames.permute(0, 2, 3, 1), metadata), "torch.uint8 (8, 56, 56, 3), VideoMetadata"),
        (lambda frames, metadata: (frames, None), "torch.uint8 (8, 3, 56, 56), NoneType"),
        (lambda frames, metadata: frames, "Tensor"),
    ],
)
def test_a_loader_that_returns_something_else_is_refused_even_where_videos_are_skipped(models, media, loaded, found):
    def wrong(source, **settings):
        return loaded(*load_video(source, **settings))

    with pytest.raises(RuntimeError, match=re.escape(found)):
        loader(models(), load_video=wrong, on_bad_video="skip").load(
            [row("a?", video=media["videos"][0])] * 2, 0, 2, 1, step=1
        )


def test_a_mistake_in_the_users_contrast_is_no_bad_video(models, media):
    def wrong(frames, generator):
        raise ValueError("mistake")

    with pytest.raises(ValueError, match="mistake"):
        loader(models(), contrast=wrong, on_bad_video="skip").load(
            [row("a?", video=media["videos"][0])] * 2, 0, 2, 1, step=1
        )


def test_the_pixel_budget_reaches_the_rows(models, media):
    """112 x 112 pixels a frame are allowed by the processor, 28 x 28 by the budget."""
    wide, narrow = (
        loader(models(), encode_settings={"video_max_pixels": pixels}).load(
            [row("a?", video=media["videos"][0])] * 2, 0, 2, 1, step=1
        )
        for pixels in (56 * 56, 28 * 28)
    )
    assert wide[0].encoded.features["video_grid_thw"].tolist() == [[4, 4, 4]]
    assert narrow[0].encoded.features["video_grid_thw"].tolist() == [[4, 2, 2]]


def test_a_column_that_trl_takes_for_a_prompt_is_just_a_column(models):
    rows = [row("a?", completion="x", chosen="y", messages="z")] * 2
    assert loader(models()).load(rows, 0, 2, 1, step=1)[0].error is None


def test_a_mixture_that_the_processor_loses_is_an_error(models, media):
    rows = [row("a?", video=media["videos"][0], image=media["image"], problem_id=3)] * 2
    with pytest.raises(PromptError, match="problem_id 3.*mixes videos and images"):
        loader(models("smolvlm")).load(rows, 0, 2, 1, step=1)


def test_a_prompt_that_is_too_long_is_an_error_and_never_cut(models, media):
    rows = [row("a?", video=media["videos"][0], problem_id="x")] * 2
    with pytest.raises(ValueError, match=r"problem_id 'x'.*tokens, more than max_prompt_length \(10\)"):
        loader(models(), max_prompt_length=10).load(rows, 0, 2, 1, step=1)


def test_a_prompt_that_is_not_conversational_is_named(models):
    with pytest.raises(ValueError, match="not conversational"):
        loader(models()).load([{"prompt": "which way?"}] * 2, 0, 2, 1, step=1)


def test_rows_of_different_prompts_in_one_group_are_refused(models):
    with pytest.raises(RuntimeError, match="Row 1 of group 0 has another prompt"):
        loader(models()).load([row("a?"), row("b?")], 0, 2, 1, step=1)


def test_a_video_for_a_model_that_takes_none_is_named(models, media):
    text_only = BatchLoader(models().processor.tokenizer, load_video, shuffle_frames)
    with pytest.raises(ValueError, match="takes none"):
        text_only.load([row("a?", video=media["videos"][0])] * 2, 0, 2, 1, step=1)


def test_a_contrast_of_another_shape_is_refused(models, media):
    shorter = loader(models(), contrast=lambda frames, generator: frames[1:])
    with pytest.raises(RuntimeError, match="same shape and dtype"):
        shorter.load([row("a?", video=media["videos"][0])] * 2, 0, 2, 1, step=1)


def test_a_placeholder_token_in_the_question_is_an_error_that_names_the_record(models, media):
    with pytest.raises(ValueError, match="problem_id 7"):
        rows = [row("what is <|video_pad|>?", video=media["videos"][0], problem_id=7)] * 2
        loader(models()).load(rows, 0, 2, 1, step=1)


VIDEO, IMAGE = {"type": "video"}, {"type": "image"}


def text(value):
    return {"type": "text", "text": value}


def test_media_come_before_the_first_user_text():
    prompt = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a?"},
        {"role": "user", "content": "b"},
    ]
    messages, videos, images = place_media(prompt, ["v"], ["i", "j"])
    assert messages[0]["content"] == [text("be brief")]
    assert messages[1]["content"] == [VIDEO, IMAGE, IMAGE, text("a?")]
    assert messages[2]["content"] == [text("b")]
    assert (videos, images) == (["v"], ["i", "j"])


def test_placeholders_in_the_prompt_are_used_where_they_stand():
    prompt = [{"role": "user", "content": [text("first"), VIDEO, text("then"), {"type": "video", "text": None}]}]
    messages, videos, _ = place_media(prompt, ["v", "w"], [])
    assert messages[0]["content"] == [text("first"), VIDEO, text("then"), VIDEO]
    assert videos == ["v", "w"]


def test_a_part_that_carries_its_own_video_keeps_it():
    prompt = [{"role": "user", "content": [{"type": "video", "video": "own"}, VIDEO, text("a?")]}]
    messages, videos, _ = place_media(prompt, ["column"], [])
    assert videos == ["own", "column"]
    assert place_media([{"role": "user", "content": [{"type": "video", "path": "p"}]}], [], [])[1] == ["p"]
    assert messages[0]["content"] == [VIDEO, VIDEO, text("a?")]


def test_the_prompt_itself_is_not_changed():
    prompt = [{"role": "user", "content": "a?"}]
    place_media(prompt, ["v"], [])
    assert prompt == [{"role": "user", "content": "a?"}]


@pytest.mark.parametrize("videos", [[], ["v", "w"]])
def test_placeholders_and_videos_that_differ_in_number_are_an_error(videos):
    with pytest.raises(ValueError, match=f"1 empty video placeholders for {len(videos)} videos"):
        place_media([{"role": "user", "content": [VIDEO, text("a?")]}], videos, [])


def test_media_without_a_user_message_are_an_error():
    with pytest.raises(ValueError, match="no user message"):
        place_media([{"role": "system", "content": "a"}], ["v"], [])


def test_the_plural_column_is_used_where_it_is_filled():
    assert media_list({"video": "v", "videos": None}, "video") == ["v"]
    assert media_list({"video": None, "videos": ["w", "x"]}, "video") == ["w", "x"]
    with pytest.raises(PromptError, match="both 'video' and 'videos' are filled"):
        media_list({"video": "v", "videos": ["w"]}, "video")
    assert media_list({"video": ["frame", "frame"]}, "video") == [["frame", "frame"]]
    assert media_list({"image": ["i", "j"]}, "image") == ["i", "j"]
    assert media_list({"image": None}, "image") == []
