"""What is asked of a model and what comes back: requests, completions and every setting that moves them."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import torch

from ..contrast import Contrast
from ..media.settings import FrameSettings
from ..text.messages import Message
from ..text.subtitles import Subtitle


Value = TypeVar("Value")
SubtitlesShown = Literal["sampled", "all"]


@dataclass
class GenerationRequest:
    """
    One prompt to complete.

    Args:
        key (`str`): names the request; it comes back with the completion, so no other request of a run may have it.
        prompt (`list[dict]`): conversational; its media are placed as in the trainer's `prompt` column.
        videos (`list`): sources that [`load_video`] takes.
        images (`list`): sources that [`load_image`] takes.
        contrast ([`Contrast`], *optional*): such as [`shuffle_frames`], applied to the frames of each video; times and
            everything else stay as they are.
        seed (`int`, defaults to `0`): of the contrast's generator.
        choices (`Sequence[str]`): what [`Backend.weigh`] weighs: texts of one token each, such as letters.
        subtitles (`Sequence[Subtitle]`): of its one video.
        subtitles_shown (`str`, *optional*): writes them into the prompt behind the video: `"sampled"`: those spoken at one of
            the sampled frames, `"all"`: all of them; `None`: none.
    """

    key: str
    prompt: list[Message]
    videos: Sequence[object] = ()
    images: Sequence[object] = ()
    contrast: Contrast | None = None
    seed: int = 0
    choices: Sequence[str] = ()
    subtitles: Sequence[Subtitle] = ()
    subtitles_shown: SubtitlesShown | None = None


@dataclass
class GeneratedCompletion:
    """
    What became of a request.

    Args:
        key (`str`): the request's.
        text (`str`, *optional*): without special tokens, together with what the prompt had opened of it (`<think>` of a thinking
            template, an answer of the assistant's that the prompt begins); `None` where `error` says why there is none.
        num_tokens (`int`, *optional*): tokens of the completion, the end token not counted (a server counts its way).
        finished (`bool`, *optional*): whether an end token came; `False`: cut off at `max_new_tokens`.
        num_prompt_tokens (`int`, *optional*): tokens of the prompt, those of its media included.
        error (`str`, *optional*): an unreadable video, a prompt that is too long, ...
        served_by (`str`, *optional*): the model, and the fingerprint of its system, that a server says have answered.
    """

    key: str
    text: str | None
    num_tokens: int | None = None
    finished: bool | None = None
    num_prompt_tokens: int | None = None
    error: str | None = None
    served_by: str | None = None


@dataclass
class WeighedChoices:
    """
    How likely a model is to go on with each choice of a request.

    Args:
        key (`str`): the request's.
        log_probs (`list[float]`, *optional*): of its choices, in their order, among all tokens (natural logarithm); `None` where
            `error` says why there are none.
        error (`str`, *optional*): an unreadable video, a choice of several tokens, ...
    """

    key: str
    log_probs: list[float] | None
    error: str | None = None


def _setting(default: Value, text: str) -> Value:
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

    def __post_init__(self) -> None:
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

    def weigh(self, requests: Iterable[GenerationRequest]) -> Iterator[WeighedChoices]:
        """How likely each choice of a request is to be the next token; in any order, as they come."""
        ...

    def describe(self) -> dict[str, object]:
        """What moved the completions, for a result file: backend, model, versions and all settings; JSON-able."""
        ...


def versions(*more: str) -> dict[str, str]:
    """The versions of the packages that a completion depends on."""
    from .. import __version__

    names = ("torch", "transformers", "av", *more)
    return {"videor1_trl": __version__, **{name: importlib.metadata.version(name) for name in names}}


_PLACES = ("media_stores", "media_cache_dir", "media_cache_gb")  # settings that move no completion


def identity_and_notes(description: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """
    What [`Backend.describe`] says, in two: what may not change within a run, and what may and is kept on record.

    A model whose weights are known may lie elsewhere the next time, and so may media and what is kept of them.
    """
    notes = ["device", "batch_size", "base_url", "versions", "engine_arguments", "attention"]
    if description.get("weights") is not None:
        notes += ["model", "revision"]
    identity = {key: value for key, value in description.items() if key not in notes}
    settings = identity.get("settings")
    if isinstance(settings, Mapping):
        identity["settings"] = {key: value for key, value in settings.items() if key not in _PLACES}
    return identity, {key: value for key, value in description.items() if key in notes}


def noting_choices(
    requests: Iterable[GenerationRequest], choices: dict[str, Sequence[str]]
) -> Iterator[GenerationRequest]:
    """The requests as they are asked for; the choices of each are written into `choices`, by its key."""
    for request in requests:
        choices[request.key] = request.choices
        yield request


def callable_name(function: Callable[..., object]) -> str:
    """A function with its module, for a result file."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', type(function).__module__)}.{name}"


def device_name(device: torch.device) -> str:
    """The device by its product's name where it has one."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
