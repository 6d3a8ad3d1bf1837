"""What a processor makes of a rendered prompt and its media, also where its videos are of unequal length."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from PIL.Image import Image
from transformers import BatchFeature

from ..media.loader import Video
from .families import Processor, takes_videos
from .lengths import FRAMES, padded


def processed(
    processor: Processor, text: str, videos: list[Video], images: list[Image], kwargs: dict[str, Any]
) -> BatchFeature:
    """
    Tokens and features of one prompt.

    Args:
        text (`str`): the prompt as its template writes it.
        videos, images: in the order of their placeholders.
        kwargs (`dict`): of the processor; `videos_kwargs` and `images_kwargs` where there are some.
    """
    if takes_videos(processor) and len({len(frames) for frames, _ in videos}) > 1 and _stacks_frames(processor):
        return _of_unequal_videos(processor, text, videos, images, kwargs)
    return _processed(processor, text, videos, images, {**kwargs, "return_tensors": "pt"})


def media_order(processor: Any, text: str, lengths: list[int]) -> list[tuple[str, int]]:
    """
    The media of a rendered prompt in their order, `("video", frames)` and `("image", 1)`; none where its placeholders are not told.

    Args:
        lengths (`list[int]`): frames of each video.
    """
    tokens = {str(getattr(processor, f"{kind}_token", "")): kind for kind in ("image", "video")}
    found = re.findall("|".join(re.escape(token) for token in tokens if token), text) if all(tokens) else []
    kinds, rest = [tokens[token] for token in found], iter(lengths)
    if len(tokens) < 2 or kinds.count("video") != len(lengths):
        return []
    return [(kind, next(rest) if kind == "video" else 1) for kind in kinds]


def _processed(
    processor: Processor, text: str, videos: list[Video], images: list[Image], kwargs: dict[str, Any]
) -> BatchFeature:
    """What the processor makes of a rendered prompt, or of a piece of one, with its media."""
    media: dict[str, Any] = {}
    if videos:
        media["videos"] = [
            [frames for frames, _ in videos]
        ]  # those of one prompt: some processors count them by prompt
        metadata = [copy.deepcopy(metadata) for _, metadata in videos]  # processors write into it
        kwargs = {**kwargs, "videos_kwargs": {**kwargs["videos_kwargs"], "video_metadata": metadata}}
    else:
        kwargs = {key: value for key, value in kwargs.items() if key != "videos_kwargs"}
    if images:
        media["images"] = [images]
    else:
        kwargs = {key: value for key, value in kwargs.items() if key != "images_kwargs"}
    found: BatchFeature = processor(text=[text], **media, **kwargs)
    return found


def _of_unequal_videos(
    processor: Any, text: str, videos: list[Video], images: list[Image], kwargs: dict[str, Any]
) -> BatchFeature:
    """A prompt with videos of unequal length, for a processor that would stack them: not stacked, or one after the other."""
    if not _shows_as_images(processor):
        apart = {
            "videos_kwargs": {**kwargs["videos_kwargs"], "return_tensors": None},
            "text_kwargs": {"return_tensors": None},
        }
        if images:
            apart["images_kwargs"] = {**kwargs["images_kwargs"], "return_tensors": "pt"}
        encoded = _processed(processor, text, videos, images, {**kwargs, **apart})
        longest = max(len(frames) for frames, _ in videos)
        encoded[FRAMES] = torch.cat([padded(torch.as_tensor(each)[None], longest) for each in encoded[FRAMES]])
        return encoded
    remaining, found = list(images), []
    for number, (piece, video) in enumerate(zip(_pieces(processor, text), videos, strict=True)):
        count = piece.count(str(processor.image_token))
        own, remaining = remaining[:count], remaining[count:]
        options = {**kwargs, "return_tensors": "pt", **({"add_special_tokens": False} if number else {})}
        found.append(_processed(processor, piece, [video], own, options))
    keys = dict.fromkeys(key for each in found for key in each)
    along = {key: 1 if key == "input_ids" or key.endswith(("_mask", "token_type_ids")) else 0 for key in keys}
    return BatchFeature({key: torch.cat([each[key] for each in found], dim=along[key]) for key in keys})


def _stacks_frames(processor: Any) -> bool:
    """Whether a processor stacks its videos, so that several of a prompt must be of one length (InternVL, the LLaVAs)."""
    part = getattr(processor.video_processor, "uncached", processor.video_processor)
    return list(part.model_input_names) == ["pixel_values_videos"]


def _shows_as_images(processor: Any) -> bool:
    """Whether a processor hands videos to its model as images, frame by frame (InternVL)."""
    return "pixel_values_videos" not in processor.model_input_names


def _pieces(processor: Any, text: str) -> list[str]:
    """A rendered prompt, cut before each of its videos but the first."""
    token = str(processor.video_token)
    first, *rest = text.split(token)
    if not rest:
        return [text]
    return [first + token + rest[0], *(token + each for each in rest[1:])]
