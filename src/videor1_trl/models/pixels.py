"""How many pixels a processor makes of a frame or an image: the settings that keep a budget, and the check that it is kept."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from ..media.settings import DefaultPixels


logger = logging.getLogger(__name__)  # also where no trainer has set accelerate up

LARGE, SMALL = 1024, 28  # sides of the pictures that a processor is tried with
FRAMES = 2


def pixel_budget(part: Any, max_pixels: int | None, min_pixels: int | None, num_frames: int) -> dict[str, object]:
    """
    The settings that keep a frame within the budget, for processors that count pixels (`size`: Qwen2-VL and its descendants), or
    tokens of so many pixels (`max_soft_tokens`: Gemma 4).

    Some of them count the pixels of one frame, others those of the whole video: [`counted_frames`]. Processors of a fixed
    resolution (SmolVLM, InternVL, the LLaVAs) get no argument; see [`check_pixels`].
    """
    if max_pixels is None and min_pixels is None:
        return {}
    if hasattr(part, "max_soft_tokens"):
        return _soft_tokens(part, max_pixels, min_pixels)
    if getattr(part, "crop_to_patches", False) and max_pixels is not None:  # InternVL's images
        tiles = max_pixels // (part.size.height * part.size.width) - 1  # beside one of the whole image
        return {"max_patches": min(tiles, part.max_patches)} if tiles > 1 else {"crop_to_patches": False}
    resize = getattr(inspect.getmodule(type(part)), "smart_resize", None)
    size = getattr(part, "size", None)
    if resize is None or size is None or not size.longest_edge:
        return {}
    most, least = counted_frames(part, num_frames)
    longest = size.longest_edge if max_pixels is None else max_pixels * most
    shortest = size.shortest_edge if min_pixels is None else min_pixels * least
    budget: dict[str, object] = {
        "size": {"shortest_edge": min(shortest, longest * least // most), "longest_edge": longest}
    }
    if "cap_pixels_per_frame" in getattr(getattr(type(part), "valid_kwargs", None), "__annotations__", {}):
        budget["cap_pixels_per_frame"] = False  # this budget is the cap
    return budget


def counted_frames(part: Any, num_frames: int) -> tuple[int, int]:
    """
    How many frames a processor's most and least pixels are those of, for a video of `num_frames`: 1, or all of them, as it counts
    them. Its own `get_num_of_video_patches` tells; without one its `smart_resize` does, which then has the number of frames.
    """
    step = getattr(part, "temporal_patch_size", 2)
    every = num_frames + -num_frames % step
    count = getattr(part, "get_num_of_video_patches", None)
    if count is None:
        resize = getattr(inspect.getmodule(type(part)), "smart_resize", None)
        whole = resize is not None and "num_frames" in inspect.signature(resize).parameters
        return (every, every) if whole else (1, 1)
    side = part.patch_size * part.merge_size
    limit = 1024 * side**2  # pixels: of the larger pictures too few, of the smaller ones too many

    def by_video(pixels: int, size: dict[str, int]) -> bool:
        eight, sixteen = (count(number * step, pixels, pixels, {"size": size}) for number in (8, 16))
        return bool(sixteen < 1.5 * eight)  # as many patches for twice the frames

    most = by_video(64 * side, {"shortest_edge": side**2, "longest_edge": limit})
    least = by_video(side, {"shortest_edge": limit, "longest_edge": 64 * limit})
    return every if most else 1, every if least else 1


def _soft_tokens(part: Any, max_pixels: int | None, min_pixels: int | None) -> dict[str, object]:
    """The number of tokens that keeps the budget, the processor's own where that does: it makes pictures as large as they allow."""
    own = part.max_soft_tokens
    known = getattr(inspect.getmodule(type(part)), "_SUPPORTED_SOFT_TOKENS", (own,))
    of_one = (part.pooling_kernel_size * part.patch_size) ** 2
    least = own if min_pixels is None else max(own, min((n for n in known if n * of_one >= min_pixels), default=own))
    fits = [n for n in known if n <= least and (max_pixels is None or n * of_one <= max_pixels)]
    return {"max_soft_tokens": max(fits) if fits else min(known)}


def check_pixels(processor: ProcessorMixin | PreTrainedTokenizerBase, budget: Any) -> None:
    """
    Try the budget for frames and images on a large and a small picture, so that none is ever ignored.

    Args:
        budget (`dict`): with `video_max_pixels`, `video_min_pixels` and `image_max_pixels`, as of
            [`~media.settings.FrameSettings`]; those left out or `None` are not tried.

    Raises:
        `ValueError`: the processor cannot keep one that was chosen. Of a default one the log tells, and the processor decides.
    """
    video, image = (getattr(processor, f"{kind}_processor", None) for kind in ("video", "image"))
    video = getattr(video, "uncached", video)
    most, least = budget.get("video_max_pixels"), budget.get("video_min_pixels")
    if video is not None and most is not None:
        found = _of_frame(video, LARGE, pixel_budget(video, most, least, FRAMES))
        if found > most:
            _refuse("video_max_pixels", most, video, f"a large frame {found} pixels", f"at least {found}")
    if video is not None and least is not None:
        found = _of_frame(video, SMALL, pixel_budget(video, most, least, FRAMES))
        if found < least:
            _refuse("video_min_pixels", least, video, f"a small frame {found} pixels", f"at most {found}")
    most = budget.get("image_max_pixels")
    if image is not None and most is not None:
        found = _of_image(image, pixel_budget(image, most, None, 1))
        if found > most:
            _refuse("image_max_pixels", most, image, f"a large image {found} pixels", f"at least {found}")


def _refuse(name: str, value: int, part: object, what: str, remedy: str) -> None:
    found = f"{name} ({int(value)}) cannot be kept: {type(part).__name__} gives {what}, whatever is asked of it"
    if isinstance(value, DefaultPixels):
        logger.warning(f"{found}. It is the default, so the processor decides; set {name} to None, or to {remedy}.")
        return
    raise ValueError(f"{found}. Set {name} to {remedy}, or to None: the processor decides.")


def _of_frame(part: Any, side: int, options: dict[str, object]) -> int:
    frames = torch.zeros(FRAMES, 3, side, side, dtype=torch.uint8)
    found = part([[frames]], do_sample_frames=False, return_tensors="pt", **options)
    return _pixels(found) // FRAMES


def _of_image(part: Any, options: dict[str, object]) -> int:
    found = part([[Image.fromarray(np.zeros((LARGE, LARGE, 3), np.uint8))]], return_tensors="pt", **options)
    repeated = getattr(part, "temporal_patch_size", 1) if "image_grid_thw" in found else 1  # as frames of a video
    return _pixels(found) // repeated


def _pixels(found: Any) -> int:
    """Of all frames together, from their values in three colours."""
    values = found["pixel_values_videos"] if "pixel_values_videos" in found else found["pixel_values"]
    return sum(each.numel() for each in values) // 3
