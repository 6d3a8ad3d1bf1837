"""Shows what a model saw: the frames and images of an encoded prompt, out of its own inputs."""

from __future__ import annotations

import itertools
from typing import Any, Protocol

import torch

from .encoding import EncodedPrompt
from .families import Processor


class _Preprocessing(Protocol):
    """What a video or an image processor has been told to do with pictures."""

    merge_size: int
    patch_size: int
    temporal_patch_size: int
    do_normalize: bool
    image_mean: list[float]
    image_std: list[float]
    do_rescale: bool
    rescale_factor: float


def seen_media(processor: Processor, prompt: EncodedPrompt) -> list[torch.Tensor]:
    """
    The pictures of a prompt as the processor resized them, its normalisation and its patches undone.

    A video of an odd number of frames ends with its last frame twice in families that merge two frames into one patch.
    A family that cuts an image into tiles shows the tiles.

    Args:
        processor (`ProcessorMixin`): that encoded the prompt.
        prompt (`EncodedPrompt`): as from [`~families.encode_prompt`].

    Returns:
        `list[torch.Tensor]`: uint8 (T, 3, H, W) per video, then per image (of T copies or tiles).

    Raises:
        `NotImplementedError`: a family whose inputs are laid out in another way.
    """
    features = prompt.features
    videos = _pictures(processor, features, "pixel_values_videos", "video_grid_thw", "video_processor")
    videos_as_images = "video" in prompt.kinds and not videos
    if (
        videos_as_images and prompt.order and features["pixel_values"].ndim < 5
    ):  # InternVL, GLM-V; SmolVLM keeps them apart
        return _in_order(processor, prompt)
    part = "video_processor" if videos_as_images else "image_processor"
    images = _pictures(processor, features, "pixel_values", "image_grid_thw", part)
    if prompt.kinds and not (videos or images):
        raise NotImplementedError(
            f"{type(processor).__name__} lays its inputs out in a way that cannot be shown: "
            f"{ {key: tuple(value.shape) for key, value in features.items()} }."
        )
    return videos + images


def _pictures(
    processor: Processor, features: dict[str, torch.Tensor], pixels: str, grid: str, part: str
) -> list[torch.Tensor]:
    """Those of one kind of media; none where the prompt has none or they are laid out in another way."""
    if pixels not in features:
        return []
    values = features[pixels].float()
    settings = getattr(processor, part)
    if grid in features:
        grids = features[grid].tolist()
        parts = values.split([t * h * w for t, h, w in grids])
        found = [_unpatched(patches, sizes, settings) for patches, sizes in zip(parts, grids, strict=True)]
    elif values.ndim in (4, 5) and values.shape[-3] == 3:
        found = [each[~each[:, 0, 0, 0].isnan()] for each in values] if values.ndim == 5 else [values]
    else:
        return []
    return [_as_uint8(each, settings) for each in found]


def _in_order(processor: Any, prompt: EncodedPrompt) -> list[torch.Tensor]:
    """Videos, then images, of a prompt whose videos are pictures among its images, with a run of placeholder tokens for each."""
    values, grids = prompt.features["pixel_values"].float(), prompt.features.get("image_grid_thw")
    if grids is not None:
        sizes = grids.prod(-1).tolist()
    else:
        runs = itertools.groupby(token == processor.image_token_id for token in prompt.input_ids)
        sizes = [len(list(run)) // processor.image_seq_length for is_image, run in runs if is_image]
    entries, number = list(values.split(sizes)), 0
    seen: dict[str, list[torch.Tensor]] = {"video": [], "image": []}
    for kind, frames in prompt.order:
        settings = getattr(processor, f"{kind}_processor")
        own = range(number, number + -(-frames // settings.temporal_patch_size if grids is not None else -frames))
        number = own.stop
        found = [entries[n] if grids is None else _unpatched(entries[n], grids[n].tolist(), settings) for n in own]
        seen[kind].append(_as_uint8(torch.cat(found), settings))
    return seen["video"] + seen["image"]


def _unpatched(patches: torch.Tensor, sizes: list[int], settings: _Preprocessing) -> torch.Tensor:
    """Patches (t * h * w, C * tp * p * p) of the Qwen-VL families and their like as frames (t * tp, C, h * p, w * p)."""
    time, height, width = sizes
    merge, size, temporal = settings.merge_size, settings.patch_size, settings.temporal_patch_size
    blocks = patches.view(
        time, height // merge, width // merge, merge, merge, -1, temporal, size, size
    )  # a merged block's patches are beside each other
    return blocks.permute(0, 6, 5, 1, 3, 7, 2, 4, 8).reshape(time * temporal, -1, height * size, width * size)


def _as_uint8(frames: torch.Tensor, settings: _Preprocessing) -> torch.Tensor:
    if settings.do_normalize:
        mean, std = (torch.tensor(list(each)).view(-1, 1, 1) for each in (settings.image_mean, settings.image_std))
        frames = frames * std + mean
    if settings.do_rescale:
        frames = frames / settings.rescale_factor
    return frames.round().clamp(0, 255).to(torch.uint8)
