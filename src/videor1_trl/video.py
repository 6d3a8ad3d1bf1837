"""Reads videos and images: the frames a full PyAV decode gives at the sampled places, decoding as little as is exact."""

import io
import itertools
import math
import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from transformers.video_utils import VideoMetadata


# In these, every packet is exactly one frame, shown at the packet's own time: packets alone number the frames.
EXACT_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
EXACT_CODECS = ("h264", "hevc", "vp9", "av1")
# Only local data is opened: a playlist that calls itself a video must not reach the network.
OPEN_OPTIONS = {"protocol_whitelist": "file"}
# What a seek costs, in decoded frames: frames in flight are thrown away and the reordering delay is paid again.
SEEK_COST_FRAMES = 8
MAX_THREADS = 4
# How far `end` may lie behind the last frame: annotated clip ends are rounded, often up to the next second.
END_SLACK_SECONDS = 1.0
_READ_ERRORS = (av.FFmpegError, OSError, EOFError, ValueError, MemoryError)


class MediaError(ValueError):
    """A video or an image that cannot be read: `path` (`str`) says which one, `reason` (`str`) why."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)  # both in `args`, so that it can be pickled
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class VideoError(MediaError):
    """A video that cannot be read, or whose asked-for clip does not exist."""


class ImageError(MediaError):
    """An image that cannot be read."""


class _Inexact(Exception):
    """Seeking did not lead where the packets said; everything has to be decoded."""


# ----------------------------------------------------------------------------------------------------------- sampling


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


def clip_range(times: list[float], rate: float, start: float | None, end: float | None) -> tuple[int, int]:
    """
    The frames on screen during `[start, end)`, as a half-open range of indices.

    Args:
        times (`list[float]`): when each frame appears, in seconds after the first, increasing.
        rate (`float`): frames per second, which says how long the last frame stays.
        start, end (`float`, *optional*): as in [`load_video`].

    Raises `ValueError` with the reason where there is no such clip.

    >>> clip_range([0.0, 0.5, 1.0, 1.5], 2.0, 0.6, 1.5)
    (1, 3)
    """
    duration = times[-1] + 1 / rate
    first = 0.0 if start is None else float(start)
    last = max(duration, first) if end is None else float(end)
    if not (math.isfinite(first) and math.isfinite(last) and 0 <= first) or (end is not None and last <= first):
        raise ValueError(f"start ({start}) and end ({end}) must be seconds with 0 <= start < end. Correct the clip.")
    if first >= duration or last > duration + END_SLACK_SECONDS:
        raise ValueError(f"start ({start}) or end ({end}) lies behind the video's {duration:.3f} s. Correct the clip.")
    begin = max(bisect_right(times, first + 1e-6) - 1, 0)
    return begin, max(bisect_left(times, last - 1e-6), begin + 1)


def _check_sampling(fps: float, min_frames: int, max_frames: int, num_frames: int | None) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps ({fps}) must be positive. Set how many frames to take per second, 2.0 by default.")
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames ({num_frames}) must be at least 1. Raise it, or unset it to sample by fps.")
    if num_frames is None and not 2 <= max(min_frames + min_frames % 2, 2) <= max_frames:
        raise ValueError(
            f"min_frames ({min_frames}) and max_frames ({max_frames}) must leave room for an even count of at least "
            "2 between them. Change them, or set num_frames."
        )


# -------------------------------------------------------------------------------------------------------- the loaders


def load_video(
    source: Any,
    *,
    fps: float = 2.0,
    min_frames: int = 4,
    max_frames: int = 16,
    num_frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
) -> tuple[torch.Tensor, VideoMetadata]:
    """
    The sampled frames of a video, or of a clip of it.

    Of a file, the frames equal those of a full decode at the same places, turned upright by its rotation metadata. It
    seeks only where the packets number the frames reliably, and decodes straight through elsewhere.

    Args:
        source: a local file as `str` or `pathlib.Path`; a `dict` with `path` or `bytes` and optionally `start` and
            `end`, used where the arguments of that name are `None`; a `torchcodec` decoder, as `datasets.Video`
            yields; or frames that were sampled at `fps`: a uint8 tensor or array (T, 3, H, W), or a list of images
            (PIL or paths). Such frames are taken as they are, all of them, unless `num_frames` is set.
        fps (`float`, defaults to `2.0`): frames to take per second, > 0.
        min_frames (`int`, defaults to `4`), max_frames (`int`, defaults to `16`): bounds of the count by `fps`.
        num_frames (`int`, *optional*): take exactly this many, or all where there are fewer, whatever `fps` says.
        start, end (`float`, *optional*): the clip, in seconds after the first frame: what is on screen during
            `[start, end)`. `end` may lie up to one second behind the end of the video, as rounded ends do.

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

    def choose(total: int, rate: float) -> list[int]:
        return sample_indices(
            total, rate, fps=fps, min_frames=min_frames, max_frames=max_frames, num_frames=num_frames
        )

    if isinstance(source, dict):
        clip = source
        start, end = clip.get("start") if start is None else start, clip.get("end") if end is None else end
    if isinstance(source, (str, Path, dict)):
        return _load_file(*_unpack(source, VideoError), start, end, choose)
    if hasattr(source, "metadata") and hasattr(source, "get_frames_at"):
        return _load_decoder(source, start, end, choose)
    frames, name = _given_frames(source)
    if start is not None or end is not None:
        raise VideoError(name, "frames have no times to cut a clip by. Unset start and end, or pass the video itself.")
    indices = list(range(len(frames))) if num_frames is None else choose(len(frames), fps)
    return frames[indices], _metadata(frames, len(frames), fps, indices, None)


def load_image(source: Any) -> PIL.Image.Image:
    """
    An image as RGB, turned upright by its EXIF orientation.

    Args:
        source: a local file as `str` or `pathlib.Path`, a PIL image, or a `dict` with `path` or `bytes`.

    Raises `ImageError` whatever is wrong with it.
    """
    data: Any
    if isinstance(source, (str, Path, dict)):
        data, name = _unpack(source, ImageError)
    elif isinstance(source, PIL.Image.Image):
        data, name = source, "<image>"
    else:
        raise ImageError(f"<{type(source).__name__}>", "not an image. Pass a path, a PIL image or a dict with a path.")
    try:
        if isinstance(data, PIL.Image.Image):
            return PIL.ImageOps.exif_transpose(data).convert("RGB")
        with PIL.Image.open(_openable(data)) as image:
            return PIL.ImageOps.exif_transpose(image).convert("RGB")
    except (*_READ_ERRORS, SyntaxError, struct.error, PIL.Image.DecompressionBombError) as error:
        raise ImageError(name, _reason(error)) from error


def _unpack(source: Any, error: type[MediaError]) -> tuple[str | bytes, str]:
    """A path (`str`) or the bytes, and the name for messages, of a path or a dict; its file is seen to be a file."""
    data, path = None, source
    if isinstance(source, dict):
        data, path = source.get("bytes"), source.get("path")
        unknown = sorted(map(str, set(source) - {"path", "bytes", "start", "end"}))
        if unknown or (data is None and path is None):
            what = f"has unknown keys {unknown}" if unknown else "has neither path nor bytes"
            raise error(str(path or "<dict>"), f"the dict {what}. Its keys are path, bytes, start and end.")
    if data is not None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise error(str(path or "<bytes>"), f"bytes is of type {type(data).__name__}. Pass a bytes object.")
        return bytes(data), str(path or "<bytes>")
    if not isinstance(path, (str, Path)):
        raise error(f"<{type(path).__name__}>", "path is neither a str nor a pathlib.Path. Pass one of them.")
    name = str(path)
    if "://" in name:
        raise error(name, "a URL, and only local files are read. Download it first.")
    if "\0" in name or not os.path.exists(name):
        raise error(name, "no such file")
    if not os.path.isfile(name):  # a pipe or a device would be waited on for ever
        raise error(name, "a directory" if os.path.isdir(name) else "not a regular file")
    return name, name


def _openable(data: str | bytes) -> str | io.BytesIO:
    # An absolute path cannot be taken for a protocol: FFmpeg would read "clip:1.mp4" as the protocol "clip".
    return io.BytesIO(data) if isinstance(data, bytes) else os.path.abspath(data)


def _reason(error: BaseException) -> str:
    return f"cannot be read ({type(error).__name__}: {getattr(error, 'strerror', None) or error})"


def _metadata(frames, total: int, rate: float, indices: list[int], backend: str | None) -> VideoMetadata:
    height, width = frames.shape[-2:]
    return VideoMetadata(
        total_num_frames=total,
        fps=float(rate),
        width=int(width),
        height=int(height),
        duration=float(total / rate),
        video_backend=backend,
        frames_indices=indices,
    )


def _given_frames(source: Any) -> tuple[torch.Tensor, str]:
    """Frames given as a tensor, an array or a list of images, as uint8 (T, 3, H, W), and their name for messages."""
    name = f"<{type(source).__name__}>"
    if isinstance(source, (list, tuple)) and source:
        try:
            images = [load_image(frame) for frame in source]
        except ImageError as error:
            raise VideoError(error.path, f"a frame of the video: {error.reason}") from error
        sizes = sorted({image.size for image in images})
        if len(sizes) > 1:
            raise VideoError(name, f"frames of different sizes (width, height): {sizes}. Make them equal.")
        return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2), name
    if isinstance(source, np.ndarray) and source.dtype == np.uint8:
        source = torch.from_numpy(np.ascontiguousarray(source))
    if not isinstance(source, torch.Tensor):
        rule = "a path, a dict, a torchcodec decoder, a uint8 tensor or array, or a non-empty list of images"
        raise VideoError(name, f"not a video ({getattr(source, 'dtype', 'of this type or empty')}). Pass {rule}.")
    if source.dtype != torch.uint8 or source.ndim != 4 or source.shape[1] != 3 or 0 in source.shape:
        found = f"{source.dtype} of shape {tuple(source.shape)}"
        raise VideoError(name, f"frames must be uint8 of shape (T, 3, H, W), found {found}. Convert or permute them.")
    return source, name


def _load_decoder(decoder: Any, start, end, choose: Callable) -> tuple[torch.Tensor, VideoMetadata]:
    """From a `torchcodec` decoder. A clip is cut at its mean frame rate, since it does not list the frames' times."""
    header = decoder.metadata
    name = str(getattr(header, "path", None) or f"<{type(decoder).__name__}>")
    total, rate = header.num_frames, header.average_fps
    if not total or not rate:
        raise VideoError(name, f"the decoder has no frames or no rate (num_frames {total}, average_fps {rate})")
    try:
        first, stop = clip_range([number / rate for number in range(total)], rate, start, end)
        indices = choose(stop - first, rate)
        frames = decoder.get_frames_at(indices=[first + index for index in indices]).data.cpu()
    except (RuntimeError, IndexError, *_READ_ERRORS) as error:
        raise VideoError(name, str(error)) from error
    frames = frames if frames.shape[1] == 3 else frames.permute(0, 3, 1, 2)  # dimension_order="NHWC"
    return frames, _metadata(frames, stop - first, rate, indices, "torchcodec")


# ---------------------------------------------------------------------------------------------------------- the files


@dataclass(frozen=True)
class _Index:
    """The frames of a video stream in the order in which they are shown, and how their packets are stored."""

    times: list[int]  # per frame, in display order, in units of time_base
    time_base: Fraction  # seconds
    rate: Fraction  # frames per second, the mean
    positions: dict[int, int]  # packet's time -> its place in the stored order
    key_times: list[int]  # the packets from which decoding can begin, in stored order
    seekable: bool  # the packets number the frames, and times and key frames are in order


def _load_file(data: str | bytes, name: str, start, end, choose: Callable) -> tuple[torch.Tensor, VideoMetadata]:
    try:
        with _open(data) as container:
            stream = _video_stream(container, name)
            index = _read_index(container, stream, name)
            if container.format.name == "gif":
                _check_gif_ends(data, name)
            if index.seekable:
                first, total, rate, indices = _pick(index, start, end, choose)
                wanted = [index.times[first + i] for i in indices]
                try:
                    frames = _stack(_decode_seeking(container, stream, index, wanted), wanted, name)
                    return frames, _metadata(frames, total, float(rate), indices, "pyav")
                except _Inexact:
                    pass
        return _load_straight(data, name, index, start, end, choose)
    except VideoError:
        raise
    except _READ_ERRORS as error:
        raise VideoError(name, str(error) if type(error) is ValueError else _reason(error)) from error


def _load_straight(data, name, index, start, end, choose) -> tuple[torch.Tensor, VideoMetadata]:
    """Decodes everything; again, once, where the packets had promised other frames than there are."""
    if start is not None or end is not None:  # a guess at the frames' times is not good enough to cut by
        index, _ = _decode_all(data, name, index, set())
    for _ in range(2):
        first, total, rate, indices = _pick(index, start, end, choose)
        wanted = [first + i for i in indices]
        decoded, found = _decode_all(data, name, index, set(wanted))
        if decoded.times == index.times:
            frames = _stack(found, wanted, name)
            return frames, _metadata(frames, total, float(rate), indices, "pyav")
        index = decoded
    raise VideoError(name, f"decoding it again gave other frames, {len(index.times)} of them, than the time before")


def _open(data: str | bytes):
    return av.open(_openable(data), metadata_errors="replace", options=OPEN_OPTIONS)


def _video_stream(container, name: str):
    """The first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoError(name, "no decoder for its video stream")
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise VideoError(name, f"no video stream (it holds: {', '.join(kinds) or 'nothing'})")


def _pick(index: _Index, start, end, choose: Callable) -> tuple[int, int, Fraction, list[int]]:
    """The clip's first frame, its length in frames, its mean rate, and which of its frames to take."""
    times = index.times
    seconds = [float((time - times[0]) * index.time_base) for time in times]
    first, stop = clip_range(seconds, float(index.rate), start, end)
    rate = _mean_rate(times[first:stop], index.time_base, index.rate)
    return first, stop - first, rate, choose(stop - first, float(rate))


def _mean_rate(times: list[int], time_base: Fraction, otherwise: Fraction) -> Fraction:
    return (len(times) - 1) / ((times[-1] - times[0]) * time_base) if len(times) > 1 else otherwise


def _nominal_rate(stream) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or 1)


def _read_index(container, stream, name: str) -> _Index:
    """Numbers the frames by the packets, without decoding, and sees that the file is all there."""
    # An edit list of an mp4 may leave out frames that `stream.frames` counts; its index has the ones that are read.
    promised = len(stream.index_entries)
    if container.format.name != EXACT_CONTAINERS[0]:
        promised = max(promised, stream.frames)
    packets = [  # never the packets themselves, which hold their data
        (packet.pts, packet.duration or 0, packet.is_keyframe, packet.is_discard, packet.is_corrupt or not packet.size)
        for packet in container.demux(stream)
        if packet.size or packet.pts is not None
    ]
    _check_complete(container, stream, packets, promised, name)
    stored = [time for time, *_ in packets]
    times = [time for time, _, _, discard, _ in packets if not discard]
    rate, time_base = _nominal_rate(stream), stream.time_base
    if not times or None in stored or len(set(stored)) < len(stored):
        return _Index(list(range(max(len(times), 1))), 1 / rate, rate, {}, [], False)
    key_times = [time for time, _, key, *_ in packets if key]
    seekable = (
        _numbers_its_frames(container, stream)
        and key_times == sorted(key_times)
        and packets[0][2]
        and min(times) >= stored[0]  # else the stream begins with frames that need some from before its beginning
        and not any(damaged for *_, damaged in packets)
    )
    times.sort()
    positions = {time: place for place, time in enumerate(stored)}
    return _Index(times, time_base, _mean_rate(times, time_base, rate), positions, key_times, seekable)


def _numbers_its_frames(container, stream) -> bool:
    return container.format.name in EXACT_CONTAINERS and stream.codec.canonical_name in EXACT_CODECS


def _check_complete(container, stream, packets: list[tuple], promised: int, name: str) -> None:
    """Raises where the container announces more than it holds; one missing frame is a common miscount of writers."""
    if not packets:
        raise VideoError(name, "its video stream is empty, or the file is truncated")
    if len(packets) < promised - 1:
        raise VideoError(name, f"truncated: it announces {promised} frames and holds {len(packets)}. Fetch it again.")
    if packets[-1][4]:
        raise VideoError(name, f"truncated: the last of its {len(packets)} frames is incomplete. Fetch it again.")
    if container.format.name == EXACT_CONTAINERS[1] and container.duration:  # matroska counts no frames
        announced = container.duration / av.time_base - 2 / _nominal_rate(stream) - 0.1
        last = max(((time or 0) + length) * stream.time_base for time, length, *_ in packets)
        if last < announced and len(container.streams) > 1:  # the sound may go on after the pictures
            container.seek(0)
            ends = (((p.pts or 0) + (p.duration or 0)) * p.time_base for p in container.demux() if p.size)
            last = max(ends, default=last)
        if last < announced:
            length = container.duration / av.time_base
            raise VideoError(name, f"truncated: it announces {length:.2f} s and ends after {float(last):.2f} s.")


def _check_gif_ends(data: str | bytes, name: str) -> None:
    """A GIF counts nothing, but its last byte is a semicolon."""
    if isinstance(data, str):
        with open(data, "rb") as file:
            file.seek(max(os.path.getsize(data) - 64, 0))
            data = file.read()
    if not data[-64:].rstrip(b"\0\r\n ").endswith(b";"):
        raise VideoError(name, "truncated: a GIF ends with a trailer byte, and this one has none. Fetch it again.")


def _decode_seeking(container, stream, index: _Index, wanted: list[int]) -> dict[int, np.ndarray]:
    """
    The frames shown at the times `wanted` (ascending), each decoded from the last key frame before it at the latest.

    It goes on decoding where the next key frame is not worth a seek, so that no packet is decoded twice.

    Raises `_Inexact` as soon as packets or frames come otherwise than in the index.
    """
    found: dict[int, np.ndarray] = {}
    shown, wanted_set = set(index.times), set(wanted)
    position, packets, floor, key_due, last = -1, None, None, None, None
    for target in wanted:
        key_time = index.key_times[bisect_right(index.key_times, target) - 1]
        if packets is None or (target not in found and index.positions[key_time] - position > SEEK_COST_FRAMES):
            packets, floor = _packets_from(container, stream, index, key_time, position), None
        while target not in found:
            position, packet = next(packets, (0, None))
            if packet is None:
                raise _Inexact
            if floor is None:
                floor = packet.pts
                key_due = floor if position else None  # from the very beginning, any start is a full decode's
            if stream.codec.canonical_name == "h264":  # there, "not a reference" means: no other frame needs it
                needed = not packet.size or packet.pts in wanted_set
                stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
            for frame in packet.decode():
                if frame.pts is not None and frame.pts < floor:
                    continue  # shown before the key frame, stored after it: it may need frames from before the seek
                if key_due is not None and not (frame.key_frame and frame.pts == key_due):
                    raise _Inexact  # a gradual refresh: the first frames differ from those of a full decode
                out_of_order = frame.pts not in shown or (last is not None and frame.pts <= last)
                if out_of_order or frame.is_corrupt or frame.interlaced_frame:
                    raise _Inexact
                key_due, last = None, frame.pts
                if last in wanted_set:
                    found[last] = _pixels(frame)
            if last is not None and last > target and target not in found:
                raise _Inexact
    return found


def _packets_from(container, stream, index: _Index, key_time: int, position: int):
    """
    Yields each packet with its place in the stored order, from the key frame shown at `key_time` on, or from an earlier
    one, but only behind `position`. Raises `_Inexact` unless they come in that order.
    """
    container.seek(key_time, stream=stream)
    place, before = position, None
    for packet in container.demux(stream):
        if packet.size:
            place = index.positions.get(packet.pts, -1)
            landed = before is None and packet.is_keyframe and position < place <= index.positions[key_time]
            if not landed and place - 1 != before:
                raise _Inexact
            before = place
        yield place, packet


def _decode_all(data, name: str, index: _Index, wanted: set[int]) -> tuple[_Index, dict[int, np.ndarray]]:
    """The index by the frames that do decode, and the `wanted` ones (numbers in display order)."""
    found, stamps, interlaced = {}, [], False
    with _open(data) as container:
        stream = _video_stream(container, name)
        for number, frame in enumerate(container.decode(stream)):
            stamps.append(frame.pts)
            interlaced |= frame.interlaced_frame
            if number in wanted:
                if frame.is_corrupt:
                    raise VideoError(name, f"frame {number} is damaged. Fetch the file again.")
                found[number] = _pixels(frame)
        rate, time_base = _nominal_rate(stream), stream.time_base
        # What is shown before the first key frame may be unusable, and two interlaced fields may be two packets.
        due = [time for time in index.times if not index.key_times or time >= index.key_times[0]]
        exact = _numbers_its_frames(container, stream) and not interlaced
    if not stamps or (exact and len(stamps) < len(due) - 1):
        raise VideoError(name, f"damaged: only {len(stamps)} of its {len(due)} frames decode. Fetch it again.")
    if None in stamps or any(b <= a for a, b in itertools.pairwise(stamps)):
        stamps, time_base = list(range(len(stamps))), 1 / rate
    return _Index(stamps, time_base, _mean_rate(stamps, time_base, rate), {}, [], False), found


def _pixels(frame) -> np.ndarray:
    """RGB, uint8 (H, W, 3), upright."""
    if frame.rotation % 90:
        raise ValueError(f"its frames are to be turned by {frame.rotation} degrees, not by a multiple of 90")
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def _stack(found: dict[int, np.ndarray], order: list[int], name: str) -> torch.Tensor:
    """uint8 (T, 3, H, W), a view of (T, H, W, 3)."""
    sizes = sorted({found[key].shape[1::-1] for key in order})
    if len(sizes) > 1:
        raise VideoError(name, f"its frames change size (width, height): {sizes}. Encode it anew with one size.")
    return torch.from_numpy(np.stack([found[key] for key in order])).permute(0, 3, 1, 2)
