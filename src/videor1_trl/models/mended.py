"""What a processor gives, mended to what its model reads: by what is found in it, never by a family's name."""

from __future__ import annotations

import itertools

import torch
from transformers import BatchFeature
from transformers.video_utils import VideoMetadata


SECONDS = ("second_per_grid_ts", "video_second_per_grid")  # seconds between grids: of the positions, not of the tower
IMAGE, VIDEO = 1, 2  # in `mm_token_type_ids`


def encode_options(part: object) -> dict[str, object]:
    """
    Keywords of a video processor that keep its prompts from telling more than they must: VideoLLaMA3 leaves out what hardly changes from
    a frame to the next, so that the number of tokens would follow from the order of the frames.
    """
    known = getattr(getattr(type(part), "valid_kwargs", None), "__annotations__", {})
    return {"use_token_compression": False} if "use_token_compression" in known else {}


def mend_seconds(features: dict[str, torch.Tensor], processor: object, clips: list[VideoMetadata]) -> None:
    """
    Where a processor takes all videos for such of two frames a second (Qwen2.5-Omni), the seconds between grids by the videos' own
    metadata, in place.
    """
    found = features.get("video_second_per_grid")
    step = getattr(getattr(processor, "video_processor", None), "temporal_patch_size", None)
    if found is None or step is None or len(found) != len(clips):
        return
    rates = [clip.sampled_fps if clip.fps else None for clip in clips]
    seconds = [old if not rate else step / rate for old, rate in zip(found.tolist(), rates, strict=True)]
    features["video_second_per_grid"] = torch.tensor(seconds, dtype=found.dtype)


def drop_full_mask(features: dict[str, torch.Tensor]) -> None:
    """A mask that leaves no token of the videos out says nothing, and would hold the features together; in place."""
    mask = features.get("video_compression_mask")
    if mask is not None and bool(mask.all()):
        del features["video_compression_mask"]


def videos_as_pictures(
    processor: object, ids: list[int], types: dict[str, list[int]], features: dict[str, torch.Tensor]
) -> None:
    """
    Where a prompt has the image's token for its videos too (GLM-V), the model would count it for both: each grid of frames is handed
    over as the picture that it is to the model, among the images in the order of the prompt; in place.
    """
    kinds, token = types.get("mm_token_type_ids"), getattr(processor, "image_token_id", None)
    videos, pixels = features.get("video_grid_thw"), features.get("pixel_values_videos")
    if kinds is None or videos is None or pixels is None:
        return
    if {each for each, kind in zip(ids, kinds, strict=True) if kind == VIDEO} != {token}:
        return
    frames = torch.cat([grid.new_tensor([[1, *grid[1:].tolist()]] * int(grid[0])) for grid in videos])
    pictures = {VIDEO: _one_by_one(pixels, frames)}
    if "image_grid_thw" in features:
        pictures[IMAGE] = _one_by_one(features["pixel_values"], features["image_grid_thw"])
    rest = {kind: iter(each) for kind, each in pictures.items()}
    order = [next(rest[kind]) for kind, _ in itertools.groupby(kinds) if kind in rest]
    assert len(order) == sum(map(len, pictures.values())), "each grid of frames stands by itself in the prompt"
    del features["pixel_values_videos"], features["video_grid_thw"]
    features["pixel_values"] = torch.cat([picture for picture, _ in order])
    features["image_grid_thw"] = torch.stack([grid for _, grid in order])
    types["mm_token_type_ids"] = [IMAGE if kind == VIDEO else kind for kind in kinds]


def _one_by_one(pixels: torch.Tensor, grids: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(pixels.split(grids.prod(-1).tolist()), grids, strict=True))


def lacks_images(encoded: BatchFeature, num_frames: int) -> bool:
    """Whether the pixels of a prompt's videos took the place of its images' (SmolVLM)."""
    pixels = encoded.get("pixel_values")
    if "pixel_values_videos" in encoded or "video_grid_thw" in encoded or pixels is None:
        return False
    pictures = pixels.shape[:-3].numel() if isinstance(pixels, torch.Tensor) else len(pixels)
    return pictures <= num_frames
