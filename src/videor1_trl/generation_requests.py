"""What is asked of a model and what comes back: requests, completions and every setting that moves them."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from .video_arguments import FrameSettings


@dataclass
class GenerationRequest:
    """
    One prompt to complete.

    Args:
        key (`str`): names the request; it comes back with the completion, so no other request of a run may have it.
        prompt (`list[dict]`): conversational; its media are placed as in the trainer's `prompt` column.
        videos (`list`): sources that [`load_video`] takes.
        images (`list`): sources that [`load_image`] takes.
        contrast (`Callable`, *optional*): `(frames, generator) -> frames` of the same shape, such as
            [`shuffle_frames`], applied to the frames of each video; times and everything else stay as they are.
        seed (`int`, defaults to `0`): of the contrast's generator.
    """

    key: str
    prompt: list[dict]
    videos: list[Any] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    contrast: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None = None
    seed: int = 0


@dataclass
class GeneratedCompletion:
    """
    What became of a request.

    Args:
        key (`str`): the request's.
        text (`str`, *optional*): without special tokens; `None` where `error` says why there is none.
        num_tokens (`int`, *optional*): tokens of the completion, the end token not counted (a server counts its way).
        finished (`bool`, *optional*): whether an end token came; `False`: cut off at `max_new_tokens`.
        num_prompt_tokens (`int`, *optional*): tokens of the prompt, those of its media included.
        error (`str`, *optional*): an unreadable video, a prompt that is too long, ...
    """

    key: str
    text: str | None
    num_tokens: int | None = None
    finished: bool | None = None
    num_prompt_tokens: int | None = None
    error: str | None = None


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class GenerationSettings(FrameSettings):
    """
    Every setting that moves a completion; what each means is in its `help`, so that scripts can have them as flags.

    Frames and pixels mean, and default to, what they do in [`TGRPOConfig`].

    Raises:
        `ValueError`: a value out of its range.
    """

    max_new_tokens: int = _setting(1024, "Most tokens of a completion (>= 1).")
    temperature: float = _setting(0.0, "Temperature of sampling (>= 0). 0: greedy.")
    top_p: float = _setting(1.0, "Sample from the likeliest tokens of this total probability, in (0, 1]. 1: all.")
    top_k: int = _setting(0, "Sample from this many likeliest tokens. 0: all.")
    repetition_penalty: float = _setting(
        1.0, "Penalty (> 0) on tokens that the prompt or the completion has already. 1: none."
    )
    seed: int = _setting(0, "A request's sampled tokens follow from it and from the request's key.")
    video_fps: float = _setting(2.0, "Frames sampled per second of video (> 0).")
    video_min_frames: int = _setting(4, "Fewest frames sampled from a video (>= 1).")
    video_max_frames: int = _setting(16, "Most frames sampled from a video (>= video_min_frames).")
    video_num_frames: int | None = _setting(
        None, "Exact number of frames of every video, instead of the three above. None: they decide."
    )
    video_max_pixels: int | None = _setting(
        128 * 28 * 28, "Most pixels of one frame after resizing. None: the processor decides."
    )
    video_min_pixels: int | None = _setting(
        None, "Fewest pixels of one frame after resizing. None: the processor decides."
    )
    image_max_pixels: int | None = _setting(
        None, "Most pixels of an image after resizing. None: the processor decides."
    )
    max_prompt_length: int | None = _setting(
        16384, "Most tokens of a prompt, media included. A longer one is an error, it is never cut. None: no limit."
    )

    def __post_init__(self):
        for name, valid, rule in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (all tokens)"),
            ("top_k", self.top_k >= 0, "at least 1, or 0 for all tokens"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above 0; 1 is no penalty"),
        ):
            if not valid:
                raise ValueError(f"{name} ({getattr(self, name)}) must be {rule}.")
        self.check_frames()

    def sampling_seed(self, key: str) -> int:
        """The seed of one request's tokens: 31 bits that follow from `seed` and the request's key alone."""
        digest = hashlib.sha256(f"{self.seed}:{key}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1


class Backend(Protocol):
    """What completes requests. One request's fault is its `error`; a backend that breaks as a whole raises."""

    settings: GenerationSettings

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GeneratedCompletion]:
        """One completion per request, in any order, as they come."""
        ...

    def describe(self) -> dict[str, Any]:
        """What moved the completions, for a result file: backend, model, versions and all settings; JSON-able."""
        ...


def too_long(length: int, longest: int) -> str:
    """Why a prompt of `length` tokens is refused."""
    return (
        f"its prompt has {length} tokens, more than max_prompt_length ({longest}). Lower video_max_frames or "
        "video_max_pixels, or raise max_prompt_length."
    )


def versions(*more: str) -> dict[str, str]:
    """The versions of the packages that a completion depends on."""
    from . import __version__

    names = ("torch", "transformers", "av", *more)
    return {"videor1_trl": __version__, **{name: importlib.metadata.version(name) for name in names}}


def identity_and_notes(description: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    What [`Backend.describe`] says, in two: what may not change within a run, and what may and is kept on record.

    A model whose weights are known may lie elsewhere the next time.
    """
    notes = ["device", "batch_size", "base_url", "versions", "engine_arguments", "attention"]
    if description.get("weights") is not None:
        notes += ["model", "revision"]
    return (
        {key: value for key, value in description.items() if key not in notes},
        {key: value for key, value in description.items() if key in notes},
    )


def callable_name(function: Any) -> str:
    """A function with its module, for a result file."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', type(function).__module__)}.{name}"
