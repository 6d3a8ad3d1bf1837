"""Brings the media of many generation requests: decoded ahead in threads, each video once in a window, bounded in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TypeVar

import PIL.Image
import torch
from trl.data_utils import is_conversational

from ..contrast import contrasted, picks_frames
from ..data.placing import PromptError, place_media, read_video
from ..media.errors import MediaError
from ..media.frame_cache import FrameCache
from ..media.images import load_image
from ..media.limits import check_not_interrupted
from ..media.loader import Video, VideoLoader
from ..media.readahead import VideoStore, media_key
from ..media.settings import Bounds
from ..media.shrink import Shrink
from ..media.video import load_video
from ..text.messages import Message
from ..text.subtitles import subtitles_text
from .requests import GenerationRequest, GenerationSettings


Prepared = TypeVar("Prepared")
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
    messages: list[Message] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)
    images: list[PIL.Image.Image] = field(default_factory=list)
    ordered: list[Video] = field(default_factory=list)
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
            check_not_interrupted()
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
    requests: list[GenerationRequest],
    settings: GenerationSettings,
    video_loader: VideoLoader,
    shrink: Shrink | None = None,
) -> Iterator[LoadedRequest]:
    """
    The requests of a window with their media, those on the same videos one after the other.

    Videos are decoded in threads for the next few requests, and let go after their last use. Where every request leaves room
    for it, [`load_video`] resizes their frames by `shrink` as it decodes them.
    """
    if shrink is not None and (
        video_loader is not load_video or not all(_may_shrink(each, shrink) for each in requests)
    ):
        shrink = None
    placed = [_placed(request) for request in requests]
    first: dict[tuple[Hashable, ...], int] = {}
    order = sorted(range(len(placed)), key=lambda i: first.setdefault(_keys(placed[i][1]), i))  # stable
    store = VideoStore(
        partial(_read, settings, video_loader, shrink, settings.frame_cache()), num_workers=THREADS, max_ahead=THREADS
    )
    store.announce(source for index in order for source in placed[index][1])
    for index in order:
        yield _with_media(store, settings.bounds_of(settings.video_settings), *placed[index])


def _read(
    settings: GenerationSettings,
    video_loader: VideoLoader,
    shrink: Shrink | None,
    cache: FrameCache | None,
    source: object,
) -> Video:
    return read_video(source, settings.video_settings, video_loader, shrink, cache)


def _may_shrink(request: GenerationRequest, shrink: Shrink) -> bool:
    """Whether a request comes out the same: its contrast picks frames, and no other video decides on the size of one."""
    picks = request.contrast is None or picks_frames(request.contrast)
    return picks and not (shrink.by_video and len(request.videos) > 1)


def _keys(sources: list[object]) -> tuple[Hashable, ...]:
    return tuple(media_key(source) for source in sources)


def _placed(request: GenerationRequest) -> tuple[LoadedRequest, list[object], list[object]]:
    """The request with its placeholders, and the sources of its videos and images."""
    try:
        if not request.prompt or not is_conversational({"prompt": request.prompt}):
            raise PromptError(
                'its prompt is not conversational. Pass messages such as [{"role": "user", "content": "..."}].'
            )
        messages, videos, images = place_media(request.prompt, list(request.videos), list(request.images))
    except PromptError as error:
        return LoadedRequest(request, error=error), [], []
    return LoadedRequest(request, messages), videos, images


def _with_media(
    store: VideoStore, bounds: Bounds, placed: LoadedRequest, sources: list[object], image_sources: list[object]
) -> LoadedRequest:
    """The placed request (which the window keeps, and so must not hold frames) with its media."""
    if placed.error is not None:
        return placed
    asked = iter(sources)
    try:
        ordered = [store.get(source) for source in asked]
        images = [load_image(source, **bounds) for source in image_sources]
    except MediaError as error:
        store.forget(asked)  # those behind the bad one
        return replace(placed, error=error)
    videos = ordered
    if placed.request.contrast is not None:
        generator = torch.Generator().manual_seed(placed.request.seed)
        videos = [(contrasted(placed.request.contrast, frames, generator), metadata) for frames, metadata in ordered]
    messages = placed.messages
    if placed.request.subtitles_shown is not None:
        messages = _with_subtitles(placed.request, messages, ordered)
    return replace(placed, messages=messages, videos=videos, images=images, ordered=ordered)


def _with_subtitles(request: GenerationRequest, messages: list[Message], ordered: list[Video]) -> list[Message]:
    """The messages with the subtitles before the first user text, behind the video; as the frames in order show them."""
    seconds = None
    if request.subtitles_shown == "sampled":
        seconds = [float(second) for _, metadata in ordered for second in metadata.timestamps]
    said = {"type": "text", "text": subtitles_text(request.subtitles, seconds) + "\n"}
    messages = [{**message, "content": [*message["content"]]} for message in messages]
    user = next(message for message in messages if message["role"] == "user")
    is_text = [part["type"] == "text" for part in user["content"]]
    user["content"].insert(is_text.index(True) if True in is_text else len(is_text), said)
    return messages
