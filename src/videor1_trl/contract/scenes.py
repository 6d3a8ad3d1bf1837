"""The small videos, images and prompts that a model is checked on, made in memory."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from transformers.video_utils import VideoMetadata

from ..data.placing import Record
from ..media.loader import Video


FPS = 2.0
SIDE = 28  # of the blocks that a picture is made of, and the unit of its sides
TEXT = (
    "The square moves to the left, then it stops and moves back again. First it is left, then right, and then it is gone. "
    "So the answer is A, because the square was on the left before it was on the right."
)


def blocks(seed: int, rows: int, columns: int) -> np.ndarray:
    """A picture (H, W, 3) uint8 of blocks in random colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return colours.repeat(SIDE, axis=0).repeat(SIDE, axis=1)


def video(pictures: list[np.ndarray]) -> Video:
    """Pictures (H, W, 3) as the frames of a whole video at 2 frames a second."""
    frames = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return frames, VideoMetadata(
        total_num_frames=len(frames),
        fps=FPS,
        duration=len(frames) / FPS,
        frames_indices=list(range(len(frames))),
        height=frames.shape[2],
        width=frames.shape[3],
    )


def scenes() -> dict[str, Video]:
    """
    The videos by name: `"moving"`, `"other"` and `"third"` (every frame another, 4 of one size), `"longer"` and `"longer still"` (6 of
    another size), `"slow"` (pairs of equal frames), `"still"` (all equal), `"large"` (8 frames, for pixel budgets).
    """
    return {
        "moving": video([blocks(seed, 2, 3) for seed in range(4)]),
        "other": video([blocks(seed, 2, 3) for seed in range(10, 14)]),
        "third": video([blocks(seed, 2, 3) for seed in range(15, 19)]),
        "longer": video([blocks(seed, 3, 2) for seed in range(20, 26)]),
        "longer still": video([blocks(seed, 3, 2) for seed in range(80, 86)]),
        "slow": video([blocks(30 + seed // 2, 2, 3) for seed in range(4)]),
        "still": video([blocks(40, 2, 3)] * 4),
        "large": video([blocks(seed, 16, 16) for seed in range(50, 58)]),
    }


class Scenes:
    """A video loader whose sources are the names of [`scenes`]."""

    def __init__(self) -> None:
        self._videos = scenes()

    def __call__(self, source: object, **settings: object) -> Video:
        return self._videos[str(source)]


def record(text: str, *videos: str, images: str = "", completion: str = TEXT[:66]) -> Record:
    """A row of a dataset: what is asked about videos and images, by the names that they have here."""
    pictures = [Image.fromarray(PICTURES[name]) for name in images]
    row: Record = {"prompt": [{"role": "user", "content": text}], "completion": completion}
    row["videos"], row["images"] = list(videos) or None, pictures or None
    return row


PICTURES = {
    "a": blocks(60, 2, 2),
    "A": blocks(61, 2, 2),
    "b": blocks(62, 2, 3),
    "B": blocks(63, 2, 3),
    "l": blocks(64, 16, 16),
}
WHICH, FASTER, WHEN = (
    "Which way does the square move?",
    "In which of the two is it faster?",
    "When is this picture seen?",
)
RECORDS = {
    "video": record(WHICH, "moving"),
    "other video": record(WHICH, "other"),
    "longer video": record("And here, what is seen first, and what is seen last?", "longer"),
    "slow video": record(WHICH, "slow"),
    "still video": record(WHICH, "still"),
    "large video": record(WHICH, "large"),
    "image": record("What is this?", images="a"),
    "other image": record("What is this?", images="b"),
    "large image": record("What is this?", images="l"),
    "text": record("Is left the opposite of right?"),
    # two media in a prompt, and beside it the same with another first and with another last one
    "two videos": record(FASTER, "moving", "longer"),
    "two videos, other first": record(FASTER, "other", "longer"),
    "two videos, other last": record(FASTER, "moving", "longer still"),
    "equal videos": record(FASTER, "moving", "other"),
    "equal videos, other first": record(FASTER, "third", "other"),
    "equal videos, other last": record(FASTER, "moving", "third"),
    "two images": record("What do both show?", images="ab"),
    "two images, other first": record("What do both show?", images="Ab"),
    "two images, other last": record("What do both show?", images="aB"),
    "video and image": record(WHEN, "moving", images="a"),
    "video and image, other first": record(WHEN, "other", images="a"),
    "video and image, other last": record(WHEN, "moving", images="A"),
}
KINDS = {"video": "videos", "image": "images"}  # of media, and the columns that they stand in
