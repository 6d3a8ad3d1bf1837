"""Puts a row's videos and images where its prompt has their placeholders, and names the row where that cannot be."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers.video_utils import VideoMetadata
from trl.data_utils import is_conversational

from ..media.errors import MediaError
from ..media.frame_cache import FrameCache
from ..media.loader import Video, VideoLoader
from ..media.shrink import Shrink
from ..media.sources import version_of
from ..media.video import Sampling, load_video
from ..models.families import Processor, takes_videos
from ..text.messages import Message, parts_of


Record = dict[str, Any]  # a row of the dataset: its columns by name
Placed = tuple[list[Message], list[object], list[object]]  # a prompt, and its videos and images in their order


class PromptError(ValueError):
    """A prompt that cannot be used: placeholders and media differ, or it is too long."""


def place_media(prompt: Sequence[Message], videos: Sequence[object], images: Sequence[object]) -> Placed:
    """
    The prompt with its media as empty placeholders, and the media in the order of the placeholders.

    A part that carries its own media (`{"type": "video", "video": ...}`) keeps it; empty placeholders take the media
    of the columns in order; where the prompt has none, the columns' media come before the first user text, videos
    first.

    Args:
        prompt (`list[dict]`): messages whose content is a string or a list of parts.
        videos (`list`), images (`list`): the media of the columns.

    Returns:
        `(messages, videos, images)`; every content of the messages is a list of parts.

    Raises:
        `PromptError`: placeholders and media differ in number, or there is no user message to put the media in.

    >>> place_media([{"role": "user", "content": "What moves?"}], ["a.mp4"], [])
    ([{'role': 'user', 'content': [{'type': 'video'}, {'type': 'text', 'text': 'What moves?'}]}], ['a.mp4'], [])
    """
    messages = [{**message, "content": parts_of(message)} for message in prompt]
    parts = [part for message in messages for part in message["content"]]
    placed: dict[str, list[object]] = {"video": [], "image": []}
    front: list[Message] = []
    for kind, media in (("video", list(videos)), ("image", list(images))):
        own = [part for part in parts if part["type"] == kind]
        empty = [part for part in own if _own_media(part) is None]
        if media and not own:
            front += [{"type": kind}] * len(media)
            placed[kind] = media
        elif len(empty) != len(media):
            raise PromptError(f"its prompt has {len(empty)} empty {kind} placeholders for {len(media)} {kind}s.")
        else:
            placed[kind] = [media.pop(0) if _own_media(part) is None else _own_media(part) for part in own]
    users = [message for message in messages if message["role"] == "user"]
    if front and not users:
        raise PromptError("its prompt has no user message to put its media in.")
    if front:
        users[0]["content"] = front + users[0]["content"]
    for message in messages:
        message["content"] = without_media(message["content"])
    return messages, placed["video"], placed["image"]


def check_taken(processor: Processor, num_videos: int, num_images: int) -> None:
    """Raises a `PromptError` where a prompt has media that the processor does not take."""
    takes_images = getattr(processor, "image_processor", None) is not None
    for kind, count, taken in (
        ("a video", num_videos, takes_videos(processor)),
        ("an image", num_images, takes_images),
    ):
        if count and not taken:
            raise PromptError(
                f"its prompt has {kind}, but {type(processor).__name__} takes none. Use a video-language model."
            )


def too_long(length: int, longest: int) -> str:
    """Why a prompt of `length` tokens is refused."""
    return (
        f"its prompt has {length} tokens, more than max_prompt_length ({longest}). Lower video_max_frames or "
        "video_max_pixels, or raise max_prompt_length."
    )


def without_media(parts: list[Message]) -> list[Message]:
    """The parts, videos and images as empty placeholders."""
    return [{"type": part["type"]} if part["type"] in ("video", "image") else part for part in parts]


def _own_media(part: Message) -> object:
    """The video or image that a part carries itself, under its kind or as a path (both are transformers' forms)."""
    own = part.get(part["type"])
    return part.get("path") if own is None else own


def read_video(
    source: object, settings: Sampling, loader: VideoLoader, shrink: Shrink | None, cache: FrameCache | None
) -> Video:
    """
    What a loader gives, seen to be a video. That of [`load_video`], which alone resizes by `shrink`, is kept in `cache`; a loader of
    one's own may give anything at any time.
    """
    options: dict[str, Shrink] = {} if shrink is None else {"shrink": shrink}

    def read() -> Video:
        return checked_video(loader(source, **settings, **options), source)

    if cache is None or loader is not load_video:
        return read()
    limits: Any = dict(settings).get("limits")
    return cache.get(source, settings, shrink, partial(version_of, limits=limits), read)


def checked_video(loaded: object, source: object) -> Video:
    """What a loader returned, if it is what it must be: other frames would be preprocessed without a word."""
    if isinstance(loaded, tuple) and len(loaded) == 2:
        frames, metadata = loaded
        is_video = isinstance(frames, torch.Tensor) and frames.dtype == torch.uint8 and frames.ndim == 4
        if is_video and frames.shape[1] == 3 and isinstance(metadata, VideoMetadata):
            return frames, metadata
        found = f"({getattr(frames, 'dtype', type(frames).__name__)} {tuple(getattr(frames, 'shape', ()))}, "
        found += f"{type(metadata).__name__})"
    else:
        found = type(loaded).__name__
    raise RuntimeError(
        f"The video loader returned {found} for {str(source)[:200]}. It must return (frames, metadata): a uint8 tensor "
        "(T, 3, H, W) and a transformers VideoMetadata."
    )


def media_list(inputs: Record, kind: str) -> list[object]:
    """
    The row's videos or images: of the plural column where it is filled, else of the singular one. A list in `image` is
    several images; a list in `video` is one video, frame by frame.

    Raises:
        `PromptError`: both columns are filled.
    """
    several, one = inputs.get(kind + "s"), inputs.get(kind)
    if several is not None and len(several):
        if one is not None:
            raise PromptError(f"both {kind!r} and {kind + 's'!r} are filled. Use one of them in a row.")
        return list(several)
    if one is None:
        return []
    return list(one) if kind == "image" and isinstance(one, (list, tuple)) else [one]


def place_row(inputs: Record) -> Placed | Exception:
    """The row's prompt and media as [`place_media`] gives them, or what is wrong with them, to be raised in its turn."""
    if not inputs["prompt"] or not is_conversational({"prompt": inputs["prompt"]}):
        return ValueError(
            f"{record_name(inputs)}: its prompt is not conversational ({type(inputs['prompt']).__name__}). Pass a "
            'list of messages such as [{"role": "user", "content": "..."}].'
        )
    try:
        return place_media(inputs["prompt"], media_list(inputs, "video"), media_list(inputs, "image"))
    except PromptError as error:
        return error
    except (AttributeError, KeyError, TypeError) as error:  # a message or a part of another shape
        return PromptError(
            f"its prompt or media have a shape that none has ({type(error).__name__}: {str(error)[:200]}). Pass parts such as "
            '{"type": "text", "text": "..."}, and media as one or a list of them.'
        )


def record_name(inputs: Record) -> str:
    """How errors name a row of the dataset: its `problem_id`, else the beginning of its prompt."""
    if inputs.get("problem_id") is not None:
        return f"Record with problem_id {inputs['problem_id']!r}"
    return f"Record with prompt {str(inputs['prompt'])[:120]!r}"


def named(error: ValueError, inputs: Record) -> ValueError:
    """The error with its record named, of the same kind where it is a [`~video.MediaError`]."""
    if isinstance(error, MediaError):
        return type(error)(error.path, f"{error.reason} ({record_name(inputs)})")
    return PromptError(f"{record_name(inputs)}: {error}")
