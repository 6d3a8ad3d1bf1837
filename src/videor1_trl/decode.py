"""Reads video files: the frames a full PyAV decode gives, decoding as little as is exact, or a reason why not."""

import contextlib
import io
import itertools
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import torch


# In these, every packet is exactly one frame, shown at the packet's own time: packets alone number the frames.
EXACT_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
EXACT_CODECS = ("h264", "hevc", "vp9", "av1")
# Only local data is opened: a playlist that calls itself a video must not reach the network.
OPEN_OPTIONS = {"protocol_whitelist": "file"}
# What a seek costs, in decoded frames: the decoder is emptied and the reordering delay is paid again.
SEEK_COST_FRAMES = 8
MAX_THREADS = 4
READ_ERRORS = (av.FFmpegError, OSError, EOFError, ValueError, MemoryError)


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


class Inexact(Exception):
    """Seeking did not lead where the packets said; everything has to be decoded."""


@dataclass(frozen=True)
class Index:
    """The frames of a video stream in the order in which they are shown, and how their packets are stored."""

    times: list[int]  # per frame, in display order, in units of time_base
    time_base: Fraction  # seconds
    nominal_rate: Fraction  # frames per second, by the header
    positions: dict[int, int] = field(default_factory=dict)  # packet's time -> its place in the stored order
    key_times: list[int] = field(default_factory=list)  # packets from which decoding can begin, in stored order
    seekable: bool = False  # the packets number the frames, and times and key frames are in order

    def seconds(self) -> list[float]:
        """When each frame appears, in seconds after the first."""
        units, seconds = self.time_base.denominator, self.time_base.numerator
        return [(time - self.times[0]) * seconds / units for time in self.times]

    def mean_rate(self, first: int = 0, stop: int | None = None) -> Fraction:
        """Frames per second of the range; of all frames where that holds one; nominal where there is but one."""
        times = self.times[first:stop]
        if len(times) < 2:
            times = self.times
        return (len(times) - 1) / ((times[-1] - times[0]) * self.time_base) if len(times) > 1 else self.nominal_rate


class Clip(NamedTuple):
    """What to take of a video: the frames `indices` of the `total` ones that begin with number `first`."""

    first: int
    total: int
    rate: float  # frames per second, the mean
    indices: list[int]  # increasing, counted from `first`


def read_frames(
    data: str | bytes, name: str, choose: Callable[[Index], Clip], *, by_time: bool
) -> tuple[torch.Tensor, Clip]:
    """
    The chosen frames of a video file, equal to those of a full decode and turned upright.

    Args:
        data (`str` or `bytes`): its path, or what it contains.
        name (`str`): what messages call it.
        choose: says by the index of the frames which to take; asked again where the index proves to be wrong. A
            `ValueError` of its own ends the reading with that reason.
        by_time (`bool`): whether `choose` goes by the frames' times, for which no guess is good enough.

    Returns:
        frames (`torch.Tensor`): uint8 (T, 3, H, W), RGB; a view of (T, H, W, 3).
        clip ([`Clip`]): what `choose` chose.

    Raises `VideoError` if the file cannot be read.
    """
    try:
        with open_container(data) as container:
            stream = video_stream(container, name)
            index = _read_index(container, stream, name)
            if container.format.name == "gif":
                _check_gif_ends(data, name)
            if index.seekable:
                clip = choose(index)
                wanted = [index.times[clip.first + i] for i in clip.indices]
                with contextlib.suppress(Inexact):
                    return _stack(_decode_seeking(container, stream, index, wanted), name), clip
        return _read_straight(data, name, index, choose, by_time)
    except VideoError:
        raise
    except READ_ERRORS as error:
        own = type(error) is ValueError  # raised here or by `choose`, not by PyAV: it is a reason by itself
        raise VideoError(name, str(error) if own else reason(error)) from error


def _read_straight(data, name: str, index: Index, choose: Callable, by_time: bool) -> tuple[torch.Tensor, Clip]:
    """Decodes everything; again, once, where the packets had promised other frames than there are."""
    if by_time:
        index, _ = _decode_all(data, name, index, set())
    for _ in range(2):
        clip = choose(index)
        decoded, frames = _decode_all(data, name, index, {clip.first + i for i in clip.indices})
        if decoded.times == index.times:
            return _stack(frames, name), clip
        index = decoded
    raise VideoError(name, f"decoding it again gave other frames, {len(index.times)} of them, than the time before")


def _stack(frames: list[np.ndarray], name: str) -> torch.Tensor:
    sizes = sorted({frame.shape[1::-1] for frame in frames})
    if len(sizes) > 1:
        raise VideoError(name, f"its frames change size (width, height): {sizes}. Encode it anew with one size.")
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)  # (T, 3, H, W)


# --------------------------------------------------------------------------------------------------- opening the file


def open_container(data: str | bytes) -> Any:
    """The PyAV container of a file, by its path or by what it contains; to be closed by the caller."""
    return av.open(openable(data), metadata_errors="replace", options=OPEN_OPTIONS)


def openable(data: str | bytes) -> str | io.BytesIO:
    """What PyAV and PIL open: a path made absolute, or the bytes as a file."""
    # An absolute path cannot be taken for a protocol: FFmpeg would read "clip:1.mp4" as the protocol "clip".
    return io.BytesIO(data) if isinstance(data, bytes) else os.path.abspath(data)


def reason(error: BaseException) -> str:
    """An error of `READ_ERRORS`, as the reason of a `MediaError`."""
    return f"cannot be read ({type(error).__name__}: {getattr(error, 'strerror', None) or error})"


def video_stream(container: Any, name: str) -> Any:
    """The first video stream that is not a cover picture; `VideoError` if there is none or nothing decodes it."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoError(name, "no decoder for its video stream")
            stream.thread_type = "SLICE"  # threads over whole frames gain nothing here, and lose at every seek
            stream.codec_context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise VideoError(name, f"no video stream (it holds: {', '.join(kinds) or 'nothing'})")


def _nominal_rate(stream) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or 1)


def _numbers_its_frames(container, stream) -> bool:
    return container.format.name in EXACT_CONTAINERS and stream.codec.canonical_name in EXACT_CODECS


# -------------------------------------------------------------------------------------------------------- the packets


class _Packet(NamedTuple):
    """What the index needs of a packet; never the packet itself, which holds its data."""

    time: Any  # `int`, in units of the stream's time base, or `None` where the container has none
    length: int
    is_key: bool
    is_hidden: bool  # decoded, but not shown: an edit list leaves it out
    is_damaged: bool


def _read_index(container, stream, name: str) -> Index:
    """Numbers the frames by the packets, without decoding, and sees that the file is all there."""
    # An edit list of an mp4 may leave out frames that `stream.frames` counts; its index has the ones that are read.
    promised = len(stream.index_entries)  # now, since reading adds to it
    if container.format.name != EXACT_CONTAINERS[0]:
        promised = max(promised, stream.frames)
    packets = [
        _Packet(p.pts, p.duration or 0, p.is_keyframe, p.is_discard, p.is_corrupt or not p.size)
        for p in container.demux(stream)
        if p.size or p.pts is not None
    ]
    _check_complete(container, stream, packets, promised, name)
    stored = [packet.time for packet in packets]
    times = [packet.time for packet in packets if not packet.is_hidden]
    rate = _nominal_rate(stream)
    if not times or None in stored or len(set(stored)) < len(stored):
        return Index(list(range(max(len(times), 1))), 1 / rate, rate)  # a guess
    key_times = [packet.time for packet in packets if packet.is_key]
    seekable = (
        _numbers_its_frames(container, stream)
        and key_times == sorted(key_times)
        and packets[0].is_key
        and min(times) >= stored[0]  # else the stream begins with frames that need some from before its beginning
        and not any(packet.is_damaged for packet in packets)
    )
    positions = {time: place for place, time in enumerate(stored)}
    return Index(sorted(times), stream.time_base, rate, positions, key_times, seekable)


def _check_complete(container, stream, packets: list[_Packet], promised: int, name: str) -> None:
    """Raises where the container announces more than it holds; one missing frame is a common miscount of writers."""
    if not packets:
        raise VideoError(name, "its video stream is empty, or the file is truncated")
    if len(packets) < promised - 1:
        raise VideoError(name, f"truncated: it announces {promised} frames and holds {len(packets)}. Fetch it again.")
    if packets[-1].is_damaged:
        raise VideoError(name, f"truncated: the last of its {len(packets)} frames is incomplete. Fetch it again.")
    if container.format.name == EXACT_CONTAINERS[1] and container.duration:  # matroska counts no frames
        length = container.duration / av.time_base
        due = length - 2 / _nominal_rate(stream) - 0.1
        last = max((packet.time or 0) + packet.length for packet in packets) * stream.time_base
        if last < due and len(container.streams) > 1:  # the sound may go on after the pictures
            container.seek(0)
            ends = (((p.pts or 0) + (p.duration or 0)) * p.time_base for p in container.demux() if p.size)
            last = max(ends, default=last)
        if last < due:
            raise VideoError(name, f"truncated: it announces {length:.2f} s and ends after {float(last):.2f} s.")


def _check_gif_ends(data: str | bytes, name: str) -> None:
    """A GIF counts nothing, but its last byte is a semicolon."""
    if isinstance(data, str):
        with open(data, "rb") as file:
            file.seek(max(os.path.getsize(data) - 64, 0))
            data = file.read()
    if not data[-64:].rstrip(b"\0\r\n ").endswith(b";"):
        raise VideoError(name, "truncated: a GIF ends with a trailer byte, and this one has none. Fetch it again.")


# --------------------------------------------------------------------------------------------------------- the frames


def _decode_seeking(container, stream, index: Index, wanted: list[int]) -> list[np.ndarray]:
    """
    The frames shown at the times `wanted` (ascending), each decoded from the last key frame before it at the latest.

    It goes on decoding where the next key frame is not worth a seek, so that no packet is decoded twice.

    Raises `Inexact` as soon as packets or frames come otherwise than in the index.
    """
    found: list[np.ndarray] = []
    shown, last = set(index.times), float("-inf")
    frames, place, frame = None, -1, None
    for target in wanted:
        key_time = index.key_times[bisect_right(index.key_times, target) - 1]
        if frames is None or index.positions[key_time] - place > SEEK_COST_FRAMES:
            frames = _frames_from(container, stream, index, key_time, set(wanted))
        while last < target:
            place, frame = next(frames, (place, None))
            if frame is None or frame.pts not in shown or frame.pts <= last:
                raise Inexact
            if frame.is_corrupt or frame.interlaced_frame:
                raise Inexact
            last = frame.pts
        if last > target:
            raise Inexact
        found.append(_pixels(frame))
    return found


def _frames_from(container, stream, index: Index, key_time: int, wanted: set[int]) -> Iterator[tuple[int, Any]]:
    """
    Yields the frames from the key frame shown at `key_time` on, or from where else the seek leads, each with the place
    in the stored order of the last packet that went into the decoder.

    Raises `Inexact` unless the packets come in that order and a key frame is the first to be shown.
    """
    container.seek(key_time, stream=stream)
    place, landing, key_due = -1, None, True
    for packet in container.demux(stream):
        if packet.size:  # the last one has none: it empties the decoder
            before, place = place, index.positions.get(packet.pts, -1)
            if place < 0 or (before >= 0 and place != before + 1):
                raise Inexact
            if landing is None:
                landing, key_due = packet.pts, place > 0  # from the very beginning, any start is a full decode's
        if stream.codec.canonical_name == "h264":  # there, "not a reference" means: no other frame needs it
            needed = not packet.size or packet.pts in wanted
            stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
        for frame in packet.decode():
            if frame.pts is not None and frame.pts < landing:
                continue  # shown before the key frame, stored after it: it may need frames from before the seek
            if key_due and not (frame.key_frame and frame.pts == landing):
                raise Inexact  # a gradual refresh: the first frames differ from those of a full decode
            key_due = False
            yield place, frame


def _decode_all(data: str | bytes, name: str, index: Index, wanted: set[int]) -> tuple[Index, list[np.ndarray]]:
    """The index by the frames that do decode, and the `wanted` ones (numbers in display order) of them, in order."""
    found, stamps, interlaced = [], [], False
    with open_container(data) as container:
        stream = video_stream(container, name)
        for number, frame in enumerate(container.decode(stream)):
            stamps.append(frame.pts)
            interlaced |= frame.interlaced_frame
            if number in wanted:
                if frame.is_corrupt:
                    raise VideoError(name, f"frame {number} is damaged. Fetch the file again.")
                found.append(_pixels(frame))
        rate, time_base = _nominal_rate(stream), stream.time_base
        # What is shown before the first key frame may be unusable, and two interlaced fields may be two packets.
        due = [time for time in index.times if not index.key_times or time >= index.key_times[0]]
        exact = _numbers_its_frames(container, stream) and not interlaced
    if not stamps or (exact and len(stamps) < len(due) - 1):
        raise VideoError(name, f"damaged: only {len(stamps)} of its {len(due)} frames decode. Fetch it again.")
    if None in stamps or any(b <= a for a, b in itertools.pairwise(stamps)):
        stamps, time_base = list(range(len(stamps))), 1 / rate
    return Index(stamps, time_base, rate), found


def _pixels(frame) -> np.ndarray:
    """RGB, uint8 (H, W, 3), upright."""
    if frame.rotation % 90:
        raise ValueError(f"its frames are to be turned by {frame.rotation} degrees, not by a multiple of 90")
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
