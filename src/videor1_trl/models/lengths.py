"""Videos of unequal length in one batch, for models that take them stacked, frame by frame: the LLaVAs."""

from __future__ import annotations

import inspect
import types
from typing import Any

import torch
from torch import nn


FRAMES = "pixel_values_videos"  # (B, F, C, H, W) of these models
KNOWN = {FRAMES, "vision_feature_layer", "vision_feature_select_strategy", "kwargs"}


class Parts(list):
    """What a tower makes of each video, (N_i, D), where the N_i differ; models ask a stacked tensor to `flatten`."""

    def flatten(self, *dims: int) -> torch.Tensor:
        """(sum of N_i, D)"""
        return torch.cat(list(self))


def padded(frames: torch.Tensor, length: int) -> torch.Tensor:
    """Stacked frames (B, F, C, H, W) with NaN up to `length` frames, which no frame is made of."""
    return nn.functional.pad(frames, [0, 0] * 3 + [0, length - frames.shape[1]], value=float("nan"))


def lengths_of(frames: torch.Tensor) -> list[int]:
    """How many of the frames (B, F, C, H, W) of each video are real."""
    return (~frames[:, :, 0, 0, 0].isnan()).sum(1).tolist()


def read_lengths_apart(model: nn.Module) -> None:
    """
    Let a model that takes its videos stacked read only their real frames, where they are [`padded`]: all of a batch in one call of the
    tower, which reads each frame by itself, then apart again. Other models are left alone. Idempotent.
    """
    for module in model.modules():
        method = getattr(type(module), "get_video_features", None)
        if method is None or not hasattr(module, "vision_tower") or "get_video_features" in vars(module):
            continue
        parameters = set(inspect.signature(method).parameters) - {"self"}
        if FRAMES in parameters and parameters <= KNOWN:
            # setattr: for mypy an attribute of a module is a tensor or a module
            setattr(module, "get_video_features", types.MethodType(_by_length, module))  # noqa: B010


def _by_length(self: Any, pixel_values_videos: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    original = type(self).get_video_features
    lengths = lengths_of(pixel_values_videos) if pixel_values_videos.ndim == 5 else []
    if not lengths or min(lengths) == pixel_values_videos.shape[1]:
        return original(self, pixel_values_videos, *args, **kwargs)
    videos = [video[:length] for video, length in zip(pixel_values_videos, lengths, strict=True)]
    found = original(self, torch.cat(videos)[None], *args, **{**kwargs, "return_dict": True})
    [tokens] = found.pooler_output  # (sum of lengths * N + M, D): M close each video (LLaVA-OneVision's newline)
    each, closing = divmod(len(tokens), sum(lengths))
    end = tokens[len(tokens) - closing :]
    parts = tokens[: len(tokens) - closing].split([length * each for length in lengths])
    found.pooler_output = Parts(torch.cat([part, end]) for part in parts)
    return found
