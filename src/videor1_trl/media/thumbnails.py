"""Small JPEGs of what a prompt shows, for people who look at a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image


MAX_FRAMES = 32  # of a prompt; of more, so many evenly spread ones
QUALITY = 70  # of a JPEG, in [1, 95]; a frame of 160 x 90 takes 2 to 4 kB


@dataclass(frozen=True)
class Shown:
    """
    What a prompt shows, small; its videos one behind the other, then its images.

    Args:
        ordered (`list[bytes]`): JPEGs of the frames in order.
        contrast (`list[bytes]`): of the contrast frames at the same places; empty without contrast rollouts.
        seconds (`list[float | None]`): where each frame lies in its video; `None` where that is not known, and of images.
    """

    ordered: list[bytes] = field(default_factory=list)
    contrast: list[bytes] = field(default_factory=list)
    seconds: list[float | None] = field(default_factory=list)


def show(
    videos: Sequence[torch.Tensor],
    contrasts: Sequence[torch.Tensor],
    seconds: Sequence[Sequence[float] | None],
    images: Sequence[Image.Image],
    side: int,
) -> Shown:
    """
    Args:
        videos, contrasts (`Sequence[torch.Tensor]`): uint8 (T, 3, H, W) each; as many contrasts as videos, or none.
        seconds: of each video's frames, where known.
        images (`Sequence[PIL.Image.Image]`): stand unchanged on both sides.
        side (`int`): most pixels of the longer side of a frame.

    >>> video = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 4, 8)
    >>> found = show([video], [video.flip(0)], [[0.0, 0.5, 1.0]], [], side=160)
    >>> found.contrast == found.ordered[::-1], found.seconds
    (True, [0.0, 0.5, 1.0])
    """
    ordered, contrast, times = [], [], []
    room = max(1, MAX_FRAMES // max(1, len(videos)))
    for place, frames in enumerate(videos):
        chosen = np.linspace(0, len(frames) - 1, min(len(frames), room)).round().astype(int).tolist()
        ordered += [_of_frame(frames[index], side) for index in chosen]
        contrast += [_of_frame(contrasts[place][index], side) for index in chosen] if contrasts else []
        known = seconds[place]
        times += [None if known is None else round(float(known[index]), 3) for index in chosen]
    pictures = [jpeg(image, side) for image in images[:MAX_FRAMES]]
    return Shown(ordered + pictures, contrast + (pictures if contrast else []), times + [None] * len(pictures))


def _of_frame(frame: torch.Tensor, side: int) -> bytes:
    return jpeg(Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()), side)


def jpeg(image: Image.Image, side: int) -> bytes:
    """A JPEG of an image whose longer side has at most `side` pixels."""
    small = image.convert("RGB")
    if small is image:
        small = image.copy()
    small.thumbnail((side, side))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
