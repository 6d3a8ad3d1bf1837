"""Brings the media of many generation requests: decoded ahead in threads, each video once in a window, bounded in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import PIL.Image
import torch
from trl.data_utils import is_conversational

from .batch import PromptError, checked_video, place_media
from .families import takes_videos
from .generation_requests import GenerationRequest, GenerationSettings
from .inputs import media_key
from .video import MediaError, load_image


Prepared = TypeVar("Prepared")
VideoLoader = Callable[..., tuple[torch.Tensor, Any]]
THREADS = min(8, (os.cpu_count() or 1) + 1)  # that decode, and requests that they are ahead


@dataclass
class LoadedRequest:
    """
    A request with its media.

    Args:
        request (`GenerationRequest`): as it came.
        messages (`list[dict]`): its prompt, media as empty placeholders.
        videos (`list` of `(frames, VideoMetadata)`): what the model sees: contrast frames where the request has a
            contrast.
        images (`list[PIL.Image.Image]`): in the order of the placeholders.
        ordered (`list` of `(frames, VideoMetadata)`): the videos before the contrast.
        error (`ValueError`, *optional*): why the request cannot be answered; it then has no media.
    """

    request: GenerationRequest
    messages: list[dict] = field(default_factory=list)
    videos: list[tuple[torch.Tensor, Any]] = field(default_factory=list)
    images: list[PIL.Image.Image] = field(default_factory=list)
    ordered: list[tuple[torch.Tensor, Any]] = field(default_factory=list)
    error: ValueError | None = None


def windows_ahead(
    requests: Iterable[GenerationRequest], size: int, prepare: Callable[[list[GenerationRequest]], Prepared]
) -> Iterator[Prepared]:
    """
    What `prepare` makes of every `size` requests, in order. The next window is prepared, in a thread, while the caller
    works on this one; requests are read in the caller's thread, two windows ahead at most.

    Raises:
        `ValueError`: a key that came before.
    """
    keys: set[str] = set()
    waiting = iter(requests)
    ready: Future[Prepared] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
        while window := list(islice(waiting, size)):
            for request in window:
                if request.key in keys:
                    raise ValueError(f"key ({request.key!r}) names two requests. Give each request a key of its own.")
                keys.add(request.key)
            following = pool.submit(prepare, window)
            if ready is not None:
                yield ready.result()
            ready = following
        if ready is not None:
            yield ready.result()


def load_requests(
    requests: list[GenerationRequest], settings: GenerationSettings, video_loader: VideoLoader
) -> Iterator[LoadedRequest]:
    """
    The requests of a window with their media, those on the same videos one after the other.

    Videos are decoded in threads for the next few requests, and let go after their last use.
    """
    placed = [_placed(request) for request in requests]
    first: dict[tuple, int] = {}
    order = sorted(range(len(placed)), key=lambda i: first.setdefault(_keys(placed[i][1]), i))  # stable
    uses = Counter(key for _, sources, _ in placed for key in set(_keys(sources)))
    decoding: dict[Any, Future] = {}

    def decode(source: Any) -> tuple[torch.Tensor, Any]:
        return checked_video(video_loader(source, **settings.video_settings), source)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="decode") as pool:
        for place, index in enumerate(order):
            near = [source for each in order[place : place + THREADS] for source in placed[each][1]]
            for source in near:
                if media_key(source) not in decoding:
                    decoding[media_key(source)] = pool.submit(decode, source)
            loaded, sources, image_sources = placed[index]
            yield _with_media(loaded, [decoding[key] for key in _keys(sources)], image_sources)
            uses.subtract(set(_keys(sources)))
            for key in set(_keys(sources)):
                if not uses[key]:
                    del decoding[key]


def _keys(sources: list[Any]) -> tuple:
    return tuple(media_key(source) for source in sources)


def _placed(request: GenerationRequest) -> tuple[LoadedRequest, list[Any], list[Any]]:
    """The request with its placeholders, and the sources of its videos and images."""
    try:
        if not request.prompt or not is_conversational({"prompt": request.prompt}):
            raise PromptError(
                'its prompt is not conversational. Pass messages such as [{"role": "user", "content": "..."}].'
            )
        messages, videos, images = place_media(request.prompt, request.videos, request.images)
    except PromptError as error:
        return LoadedRequest(request, error=error), [], []
    return LoadedRequest(request, messages), videos, images


def _with_media(placed: LoadedRequest, decoding: list[Future], image_sources: list[Any]) -> LoadedRequest:
    """The placed request (which the window keeps, and so must not hold frames) with its media."""
    if placed.error is not None:
        return placed
    try:
        ordered = [future.result() for future in decoding]
        images = [load_image(source) for source in image_sources]
    except MediaError as error:
        return replace(placed, error=error)
    videos = ordered
    if placed.request.contrast is not None:
        generator = torch.Generator().manual_seed(placed.request.seed)
        videos = [(_contrasted(placed.request, frames, generator), metadata) for frames, metadata in ordered]
    return replace(placed, videos=videos, images=images, ordered=ordered)


def _contrasted(request: GenerationRequest, frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    assert request.contrast is not None
    contrasted = request.contrast(frames.clone(), generator)  # others share the frames
    if contrasted.shape != frames.shape or contrasted.dtype != frames.dtype:
        raise RuntimeError(
            f"The contrast turned frames {tuple(frames.shape)} {frames.dtype} into {tuple(contrasted.shape)} "
            f"{contrasted.dtype}. It must return frames of the same shape and dtype."
        )
    return contrasted


def check_taken(processor: Any, loaded: LoadedRequest) -> None:
    """Raises a `PromptError` where the request has media that the processor does not take."""
    takes_images = getattr(processor, "image_processor", None) is not None
    for kind, media, taken in (
        ("a video", loaded.videos, takes_videos(processor)),
        ("an image", loaded.images, takes_images),
    ):
        if media and not taken:
            raise PromptError(
                f"its prompt has {kind}, but {type(processor).__name__} takes none. Use a video-language model."
            )
