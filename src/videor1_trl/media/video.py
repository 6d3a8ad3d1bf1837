"""Gives videos and images: the sampled frames of a file, of a clip of it, or of frames that were already taken."""

import contextlib
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from .addresses import is_remote, without_secrets
from .decode import Clip
from .errors import ImageError, VideoError, printable, reason
from .far import read_source
from .images import check_sides, load_image
from .index import Index
from .isolation import Isolation, check_isolation, is_of_files, load_in_process
from .limits import Limits, meter, metered
from .loader import Video
from .pictures import Frames
from .shrink import Shrink, shrinking
from .sources import opened_source


# How far `end` may lie behind the last frame: annotated clip ends are rounded, often up to the next second.
END_SLACK_SECONDS = 1.0


# ----------------------------------------------------------------------------------------------------------- sampling


Choose = Callable[[int, float], list[int]]  # which of so many frames, that come at so many a second


class Header(Protocol):
    """What a `torchcodec` decoder knows of its video."""

    num_frames: int | None
    average_fps: float | None


class Taken(Protocol):
    """Frames as `torchcodec` gives them."""

    data: torch.Tensor


@runtime_checkable
class Decoder(Protocol):
    """A `torchcodec` decoder, as `datasets.Video` yields; any version of it."""

    metadata: Header

    def get_frames_at(self, *, indices: list[int]) -> Taken: ...


class Sampling(TypedDict):
    """How frames are taken, as keywords of [`load_video`]."""

    fps: float
    min_frames: int
    max_frames: int
    num_frames: int | None


def sample_indices(
    total: int,
    rate: float,
    *,
    fps: float = 2.0,
    min_frames: int = 4,
    max_frames: int = 16,
    num_frames: int | None = None,
) -> list[int]:
    """
    Which of `total` frames to take: evenly spaced, the first and the last among them.

    By `fps` the count is even, since models merge two frames into one temporal patch: `total / rate * fps`, brought
    into `[min_frames, max_frames]` and to at most `total`, then rounded down to even (`min_frames` up to even). A
    single frame stays single. With `num_frames` the count is just that, or `total` where there are fewer; 1 takes
    the first frame.

    Source: 2 frames a second, 4 to 16 of them, are Video-R1's (PAPER.md, Training).

    Args:
        total (`int`): frames there are, >= 1.
        rate (`float`): frames per second of what is sampled, > 0.
        fps, min_frames, max_frames, num_frames: as in [`load_video`].

    Returns:
        `list[int]`: strictly increasing indices in `[0, total)`.

    >>> sample_indices(90, 30.0)
    [0, 18, 36, 53, 71, 89]
    """
    if num_frames is not None:
        count = min(num_frames, total)
    else:
        # 0.01 frames of tolerance: 5 s whose time stamps are rounded to milliseconds are still 10 frames, not 9.999.
        wanted = min(max(total / rate * fps + 0.01, min_frames + min_frames % 2), max_frames, total)
        count = max(int(wanted) // 2 * 2, 1)
    return np.linspace(0, total - 1, count).round().astype(int).tolist()


def clip_range(times: list[float], rate: float, start: object, end: object, length: float = 0.0) -> tuple[int, int]:
    """
    The frames on screen during `[start, end)`, as a half-open range of indices.

    Args:
        times (`list[float]`): when each frame appears, in seconds after the first, increasing.
        rate (`float`): frames per second, which says how long the last frame stays at least.
        start, end (`float`, *optional*): as in [`load_video`]; anything else than a number has no clip.
        length (`float`, *optional*): when the last frame ends, in seconds after the first appears, where that is known.

    Raises `ValueError` with the reason where there is no such clip.

    >>> clip_range([0.0, 0.5, 1.0, 1.5], 2.0, 0.6, 1.5)
    (1, 3)
    """
    duration = max(times[-1] + 1 / rate, length)
    first = 0.0 if start is None else _seconds("start", start)
    last = max(duration, first) if end is None else _seconds("end", end)
    if not (math.isfinite(first) and math.isfinite(last) and 0 <= first) or (end is not None and last <= first):
        raise ValueError(f"start ({start}) and end ({end}) must be seconds with 0 <= start < end. Correct the clip.")
    if first >= duration or last > duration + END_SLACK_SECONDS:
        raise ValueError(f"start ({start}) or end ({end}) lies behind the video's {duration:.3f} s. Correct the clip.")
    begin = max(bisect_right(times, first + 1e-6) - 1, 0)
    return begin, max(bisect_left(times, last - 1e-6), begin + 1)


def _seconds(name: str, value: object) -> float:
    """A bound of a clip; what a record holds there may be anything."""
    if isinstance(value, (int, float, np.number)):
        with contextlib.suppress(OverflowError):
            return float(value)
        raise ValueError(f"{name} is a number beyond all lengths. Correct the clip.")
    raise ValueError(f"{name} must be seconds, not {ascii(value)[:60]}. Correct the clip.")


def leaves_an_even_count(min_frames: int, max_frames: int) -> bool:
    """Whether an even number of frames, at least 2, lies between the two bounds."""
    return max(min_frames + min_frames % 2, 2) <= max_frames


def _check_sampling(fps: float, min_frames: int, max_frames: int, num_frames: int | None) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps ({fps}) must be positive. Set how many frames to take per second, 2.0 by default.")
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames ({num_frames}) must be at least 1. Raise it, or unset it to sample by fps.")
    if num_frames is None and not leaves_an_even_count(min_frames, max_frames):
        raise ValueError(
            f"min_frames ({min_frames}) and max_frames ({max_frames}) must leave room for an even count of at least "
            "2 between them. Change them, or set num_frames."
        )


# -------------------------------------------------------------------------------------------------------- the loaders


def load_video(
    source: object,
    *,
    fps: float = 2.0,
    min_frames: int = 4,
    max_frames: int = 16,
    num_frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
    limits: Limits | None = None,
    isolation: Isolation = "thread",
    shrink: Shrink | None = None,
) -> Video:
    """
    The sampled frames of a video, or of a clip of it.

    Of a file, the frames equal those of a full decode at the same places, turned and mirrored by its display matrix, white
    behind what is transparent. It seeks only where the packets number the frames reliably, and decodes straight through elsewhere.

    Args:
        source: a file as `str` or `pathlib.Path`, a member of an archive (`archive.zip::name`), an address in one of
            `limits.stores`, or `bytes`; a `dict` with `path` or `bytes` and optionally `start` and
            `end`, used where the arguments of that name are `None`, and `reverse`: whether it runs backwards; a `dict` with `frames`, a folder of pictures that
            are the video's frames in the order of the numbers in their names, and `fps`, their rate; a `torchcodec` decoder, as
            `datasets.Video` yields; or frames that were sampled at `fps`: a uint8 tensor or array (T, 3, H, W), or a list of images
            (PIL or paths). Such frames are taken as they are, all of them, unless `num_frames` is set.
        fps (`float`, defaults to `2.0`): frames to take per second, > 0.
        min_frames (`int`, defaults to `4`), max_frames (`int`, defaults to `16`): bounds of the count by `fps`.
        num_frames (`int`, *optional*): take exactly this many, or all where there are fewer, whatever `fps` says.
        start, end (`float`, *optional*): the clip, in seconds after the first frame: what is on screen during
            `[start, end)`. `end` may lie up to one second behind the end of the video, as rounded ends do.
        limits ([`~media.limits.Limits`], *optional*): what reading a file may take; beyond it, it cannot be read.
        isolation (`str`, defaults to `"thread"`): `"process"`: another process reads the files of this source, which is ended
            where a decoder hangs, and may crash. Frames that are passed are taken here.
        shrink ([`~media.shrink.Shrink`], *optional*): each frame of a file, or of a list of images, is resized by it as soon as
            it is decoded, so that all of them are never held at full size.

    Returns:
        frames (`torch.Tensor`): uint8 (T, 3, H, W), RGB; not contiguous in memory.
        metadata ([`~transformers.video_utils.VideoMetadata`]): of the *clip*: `total_num_frames`, `fps` (the mean over
            the clip), `duration` (seconds) and `frames_indices` (counted from the clip's first frame), so that the
            time stamps which processors derive begin at 0 with the clip; `width`, `height` of the returned frames.

    Raises:
        `VideoError`: whatever is wrong with `source`, or with the clip in it.
        `ValueError`: sampling arguments that no video could satisfy.
    """
    _check_sampling(fps, min_frames, max_frames, num_frames)
    check_isolation(isolation)
    if isolation == "process" and is_of_files(source):
        sampling = {"fps": fps, "min_frames": min_frames, "max_frames": max_frames, "num_frames": num_frames}
        options = sampling | {"start": start, "end": end, "shrink": shrink}
        return load_in_process(source, _name_of(source), options, limits or Limits())

    def choose(total: int, rate: float) -> list[int]:
        return sample_indices(
            total, rate, fps=fps, min_frames=min_frames, max_frames=max_frames, num_frames=num_frames
        )

    with metered(limits), shrinking(shrink):
        try:
            return _loaded(source, fps, num_frames, start, end, choose)
        except VideoError:
            raise
        except Exception as error:  # whatever a decoder stumbles over, or a record holds, is this video's
            raise VideoError(_name_of(source), reason(error)) from error


def _name_of(source: object) -> str:
    """What messages call a source."""
    named = source.get("path") or source.get("frames") if isinstance(source, dict) else source
    if not isinstance(named, (str, Path)):
        return f"<{type(source).__name__}>"
    return printable(without_secrets(str(named)) if is_remote(str(named)) else str(named))


def _loaded(source: object, fps: float, num_frames: int | None, start: object, end: object, choose: Choose) -> Video:
    """The video of a source of any kind."""
    if isinstance(source, dict) and "reverse" in source:
        forward = {key: value for key, value in source.items() if key != "reverse"}
        return _turned(_loaded(forward, fps, num_frames, start, end, choose), source["reverse"], _name_of(source))
    if isinstance(source, dict):
        start = source.get("start") if start is None else start
        end = source.get("end") if end is None else end
        if "frames" in source:
            return _load_folder(source, start, end, choose)
    if isinstance(source, (str, Path, bytes, dict)):
        by_time = start is not None or end is not None
        with opened_source(source, VideoError) as (data, name):
            frames, clip = read_source(data, name, lambda index: _cut(index, start, end, choose), by_time=by_time)
        return frames, _metadata(frames, clip, "pyav", name)
    if isinstance(source, Decoder):
        return _load_decoder(source, start, end, choose)
    with shrinking(None) if num_frames is not None else contextlib.nullcontext():  # of those that are taken
        frames, name = _given_frames(source)
    if start is not None or end is not None:
        raise VideoError(name, "frames have no times to cut a clip by. Unset start and end, or pass the video itself.")
    indices = list(range(len(frames))) if num_frames is None else choose(len(frames), fps)
    return frames[indices], _metadata(frames[indices], Clip(0, len(frames), fps, indices), None, name)


def _turned(video: Video, reverse: object, name: str) -> Video:
    """The video from its last frame to its first, if so; its times count from there."""
    if reverse not in (True, False, None):
        raise VideoError(name, f"reverse is {ascii(reverse)[:60]}. It must be true or false.")
    if not reverse:
        return video
    frames, metadata = video
    last = metadata.total_num_frames - 1
    indices = [last - index for index in reversed(metadata.frames_indices or [])]
    return frames.flip(0), replace(metadata, frames_indices=indices)


def _cut(index: Index, start: object, end: object, choose: Choose) -> Clip:
    """The frames of a file on screen during `[start, end)`, and which of them to take."""
    first, stop = clip_range(index.seconds(), float(index.mean_rate()), start, end, index.length())
    rate = float(index.mean_rate(first, stop))
    return Clip(first, stop - first, rate, choose(stop - first, rate))


def _metadata(frames: torch.Tensor, clip: Clip, backend: str | None, name: str) -> VideoMetadata:
    height, width = map(int, frames.shape[-2:])
    check_sides(width, height, VideoError, name)
    return VideoMetadata(
        total_num_frames=clip.total,
        fps=float(clip.rate),
        width=width,
        height=height,
        duration=float(clip.total / clip.rate),
        video_backend=backend,
        frames_indices=clip.indices,
    )


def _load_folder(source: dict, start: object, end: object, choose: Choose) -> Video:
    """From a folder of pictures, of which only those taken are read."""
    folder, rate = Path(source["frames"]), source.get("fps")
    name = str(folder)
    unknown = sorted(map(str, set(source) - {"frames", "fps", "start", "end"}))
    if unknown:
        raise VideoError(name, f"the dict has unknown keys {unknown}. Its keys are frames, fps, start and end.")
    if not isinstance(rate, (int, float)) or not 0 < rate < float("inf"):
        raise VideoError(name, f"a folder of frames needs their rate: fps is {rate!r}. Give it in frames a second.")
    if not folder.is_dir():
        raise VideoError(name, "not a folder" if folder.exists() else "no such folder")
    paths = _frames_of(folder)
    try:
        first, stop = clip_range([number / rate for number in range(len(paths))], rate, start, end)
    except ValueError as error:
        raise VideoError(name, str(error)) from error
    clip = Clip(first, stop - first, float(rate), choose(stop - first, rate))
    frames, _ = _given_frames([paths[first + index] for index in clip.indices])
    return frames, _metadata(frames, clip, None, name)


def _frames_of(folder: Path) -> list[Path]:
    """
    The pictures of a folder that are a video's frames, in their order: those whose names are alike but for their numbers, by
    these numbers. Hidden files (`._0001.jpg`) and pictures of other names (`cover.jpg`) are none; where no two names are alike,
    all pictures are frames, in the order of their names.
    """
    suffixes = (".jpg", ".jpeg", ".png", ".webp")
    paths = [each for each in folder.iterdir() if each.suffix.lower() in suffixes and not each.name.startswith(".")]
    if not paths:
        raise VideoError(str(folder), "the folder holds no jpg, png or webp pictures")
    series: dict[str, list[tuple[list[int], str, Path]]] = {}
    for path in paths:
        numbers = [int(each) for each in re.findall(r"\d+", path.stem)]
        if numbers:
            series.setdefault(re.sub(r"\d+", "#", path.stem).casefold(), []).append((numbers, path.name, path))
    longest, *others = sorted(map(sorted, series.values()), key=len, reverse=True) or [[]]
    if len(longest) < 2:
        return sorted(paths)
    if others and len(others[0]) > 1:
        raise VideoError(
            str(folder),
            f"the folder holds several series of frames, such as {longest[0][1]} and {others[0][0][1]}. Give each a folder.",
        )
    twice = [one[1:2] + other[1:2] for one, other in pairwise(longest) if one[0] == other[0]]
    if twice:
        raise VideoError(str(folder), f"two frames have one number: {' and '.join(twice[0])}. Remove one of them.")
    return [path for _, _, path in longest]


def _given_frames(source: object) -> tuple[torch.Tensor, str]:
    """Frames given as a tensor, an array or a list of images, as uint8 (T, 3, H, W), and their name for messages."""
    name = f"<{type(source).__name__}>"
    source = _as_uint8(source)
    if isinstance(source, (list, tuple)) and source:
        frames = Frames(len(source))
        try:
            for image in meter().each(source):
                frames.add(np.asarray(load_image(image)))
        except ImageError as error:
            raise VideoError(error.path, f"a frame of the video: {error.reason}") from error
        if len(frames.sizes) > 1:
            sizes = sorted(frames.sizes)
            raise VideoError(name, f"frames of different sizes (width, height): {sizes}. Make them equal.")
        return frames.tensor(name), name
    if not isinstance(source, torch.Tensor):
        rule = "a path, a dict, a torchcodec decoder, a uint8 tensor or array, or a non-empty list of images"
        raise VideoError(name, f"not a video ({getattr(source, 'dtype', 'of this type or empty')}). Pass {rule}.")
    if source.dtype != torch.uint8 or source.ndim != 4 or source.shape[1] != 3 or 0 in source.shape:
        found = f"{source.dtype} of shape {tuple(source.shape)}"
        raise VideoError(name, f"frames must be uint8 of shape (T, 3, H, W), found {found}. Convert or permute them.")
    return source, name


def _as_uint8(frames: object) -> object:
    """Arrays, and what `datasets` makes of them (nested lists, int64), as a uint8 tensor where no value is lost."""
    deepest = frames
    while isinstance(deepest, (list, tuple)) and len(deepest):
        deepest = deepest[0]
    if isinstance(frames, (list, tuple)) and isinstance(deepest, int):
        with contextlib.suppress(ValueError):  # ragged: no frames
            frames = np.asarray(frames)
    if isinstance(frames, torch.Tensor) and frames.dtype in (torch.int16, torch.int32, torch.int64):
        frames = frames.numpy(force=True)
    if isinstance(frames, np.ndarray) and frames.dtype.kind in "iu":
        if frames.dtype != np.uint8 and frames.size and frames.min() >= 0 and frames.max() <= 255:
            frames = frames.astype(np.uint8)
        if frames.dtype == np.uint8:
            return torch.from_numpy(np.ascontiguousarray(frames))
    return frames


def _load_decoder(decoder: Decoder, start: object, end: object, choose: Choose) -> Video:
    """From a `torchcodec` decoder. A clip is cut at its mean frame rate, since it does not list the frames' times."""
    header = decoder.metadata
    name = str(getattr(header, "path", None) or f"<{type(decoder).__name__}>")
    total, rate = header.num_frames, header.average_fps
    if not total or not rate:
        raise VideoError(name, f"the decoder has no frames or no rate (num_frames {total}, average_fps {rate})")
    try:
        first, stop = clip_range([number / rate for number in range(total)], rate, start, end)
        clip = Clip(first, stop - first, rate, choose(stop - first, rate))
        frames = decoder.get_frames_at(indices=[first + index for index in clip.indices]).data.cpu()
    except Exception as error:  # whatever torchcodec raises
        raise VideoError(name, printable(str(error))) from error
    frames = frames if frames.shape[1] == 3 else frames.permute(0, 3, 1, 2)  # dimension_order="NHWC"
    return frames, _metadata(frames, clip, "torchcodec", name)
