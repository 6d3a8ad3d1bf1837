"""Contrasts keep the shape and the frames they should, and follow from the generator alone."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.contrast import freeze_frame, reverse_frames, shuffle_frames


CONTRASTS = (shuffle_frames, reverse_frames, freeze_frame)


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
