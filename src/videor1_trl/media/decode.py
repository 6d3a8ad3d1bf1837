"""Reads video files: the frames a full PyAV decode gives, decoding as little as is exact, or a reason why not."""

import contextlib
import gc
import io
import itertools
import math
import os
import struct
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from av import VideoFrame, VideoStream
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from .blobs import Blob
from .containers import check_announced, check_gif_ends, dropped_frames, elements_end, opened, segment_of, size_of
from .layers import layer_reader
from .limits import PROTOCOLS, VIDEO_FORMATS, TooMuch, meter
from .shrink import current_shrink


# In these, every packet is exactly one frame, shown at the packet's own time: packets alone number the frames.
EXACT_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
EXACT_CODECS = ("h264", "hevc", "vp9", "av1")
# A playlist that calls itself a video must reach neither other files nor the network.
OPEN_OPTIONS = {"format_whitelist": ",".join(VIDEO_FORMATS), "protocol_whitelist": ",".join(PROTOCOLS)}
# What a seek costs, in decoded frames: the decoder is emptied and the reordering delay is paid again.
SEEK_COST_FRAMES = 8
MAX_THREADS = 4
# A gap between pictures of a Matroska file, in frames, from which on its elements are looked at one by one
HOLE_FRAMES = 8


_left_over = threading.Event()  # a container was opened since the last look for cycles before a fork


class MediaError(ValueError):
    """A video or an image that cannot be read: `path` (`str`) says which one, `reason` (`str`) why."""

    def __init__(self, path: str, reason: str):
        super().__init__(path, reason)  # both in `args`, so that it can be pickled
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.reason}")


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
    last_length: int = 0  # how long the last frame is shown, in units of time_base; 0 where that is not known
    skips: bool = False  # a packet that calls itself no reference is needed by no other

    def seconds(self) -> list[float]:
        """When each frame appears, in seconds after the first."""
        units, seconds = self.time_base.denominator, self.time_base.numerator
        return [(time - self.times[0]) * seconds / units for time in self.times]

    def length(self) -> float:
        """When the last frame ends, in seconds after the first appears."""
        known = (self.times[-1] - self.times[0] + self.last_length) * self.time_base
        return float(max(known, (self.times[-1] - self.times[0]) * self.time_base + 1 / self.mean_rate()))

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
    data: str | bytes | Blob, name: str, choose: Callable[[Index], Clip], *, by_time: bool
) -> tuple[torch.Tensor, Clip]:
    """
    The chosen frames of a video file, equal to those of a full decode and turned upright.

    Args:
        data (`str`, `bytes` or `Blob`): its path, what it contains, or a way to read it.
        name (`str`): what messages call it.
        choose: says by the index of the frames which to take; asked again where the index proves to be wrong. A
            `ValueError` of its own ends the reading with that reason.
        by_time (`bool`): whether `choose` goes by the frames' times, for which no guess is good enough.

    Returns:
        frames (`torch.Tensor`): uint8 (T, 3, H, W), RGB; a view of (T, H, W, 3).
        clip ([`Clip`]): what `choose` chose.

    Raises `VideoError` if the file cannot be read, whatever PyAV and the decoders stumble over.
    """
    try:
        with open_container(data) as container:
            stream = video_stream(container, name)
            index = read_index(container, stream, name, data, by_time)
            if container.format.name == "gif":
                check_gif_ends(data)
            if index.seekable:
                clip = choose(index)
                wanted = [index.times[clip.first + i] for i in clip.indices]
                with contextlib.suppress(Inexact):
                    return decode_seeking(container, stream, index, wanted).tensor(name), clip
        return _read_straight(data, name, index, choose, by_time)
    except VideoError:
        raise
    except Exception as error:  # RuntimeError, IndexError, MemoryError, OverflowError ...: the file's, whatever it is
        raise VideoError(name, reason(error)) from error


def _read_straight(
    data: str | bytes | Blob, name: str, index: Index, choose: Callable[[Index], Clip], by_time: bool
) -> tuple[torch.Tensor, Clip]:
    """Decodes everything; again, once, where the packets had promised other frames than there are."""
    if by_time:
        index, _ = _decode_all(data, name, index, set())
    for _ in range(2):
        clip = choose(index)
        decoded, frames = _decode_all(data, name, index, {clip.first + i for i in clip.indices})
        if decoded.times == index.times:
            return frames.tensor(name), clip
        index = decoded
    raise VideoError(name, f"decoding it again gave other frames, {len(index.times)} of them, than the time before")


class Frames:
    """
    The frames taken, each written into its place as it comes, in the size that it will be resized to: what they were decoded to
    is never held twice, nor all of it at full size.
    """

    def __init__(self, most: int):
        self._most, self._count = most, 0
        self._stack: np.ndarray | None = None
        self._shrink = current_shrink()
        self._smaller: tuple[int, int] | None = None  # height and width, once the first picture is there
        self.sizes: set[tuple[int, ...]] = set()

    def add(self, picture: np.ndarray) -> None:
        """A picture (H, W, 3) behind those that are there."""
        self.sizes.add(picture.shape[1::-1])
        if self._shrink is not None and self._stack is None:
            self._smaller = self._shrink.size(self._most, *picture.shape[:2])
        if self._shrink is not None and self._smaller is not None:
            picture = self._shrink.resize(picture, self._smaller)
        if self._stack is None:
            taken, most = self._most * picture.nbytes, meter().limits.frames_bytes
            if taken > most:
                raise TooMuch(
                    f"{self._most} frames of {picture.shape[1]} x {picture.shape[0]} take {taken / 2**30:.1f} GiB, more than "
                    f"{most / 2**30:.1f}. Take fewer frames, or scale it down"
                )
            self._stack = np.empty((self._most, *picture.shape), np.uint8)
        if len(self.sizes) == 1:
            self._stack[self._count] = picture
        self._count += 1

    def tensor(self, name: str) -> torch.Tensor:
        """uint8 (T, 3, H, W)."""
        if len(self.sizes) > 1:
            sizes = sorted(self.sizes)
            raise VideoError(name, f"its frames change size (width, height): {sizes}. Encode it anew with one size.")
        if self._stack is None:
            raise VideoError(name, "none of its frames could be taken")
        return torch.from_numpy(self._stack[: self._count]).permute(0, 3, 1, 2)


# --------------------------------------------------------------------------------------------------- opening the file


def open_container(data: str | bytes | Blob) -> InputContainer:
    """The PyAV container of a file, by its path, by what it contains or by a way to read it; to be closed by the caller."""
    check_announced(data)
    _left_over.set()
    options = OPEN_OPTIONS | _codec_options()
    # An absolute path cannot be taken for a protocol: FFmpeg would read "clip:1.mp4" as the protocol "clip".
    file = Timed(data) if isinstance(data, bytes) else data.open() if isinstance(data, Blob) else os.path.abspath(data)
    return av.open(file, "r", metadata_errors="replace", options=options, timeout=meter().left())


def _free_decoders() -> None:
    """
    Frees decoders that wait for Python to look for cycles: a forked process has none of their threads, and would stand still as
    soon as it frees one.
    """
    if _left_over.is_set():
        _left_over.clear()
        gc.collect()


os.register_at_fork(before=_free_decoders)


def _codec_options() -> dict[str, str]:
    """A frame may be larger than announced: decoders refuse it. They count what they allocate, which is rounded up."""
    return {"max_pixels": str(2 * meter().limits.frame_pixels + 2**20)}


class Timed(io.BytesIO):
    """Bytes as a file that stops to be read when its time is over: a demuxer may go round in it without end, a decoder too."""

    def read(self, size: int | None = -1, /) -> bytes:
        meter().check()
        return super().read(size)


def reason(error: BaseException) -> str:
    """What a reader raised, as the reason of a `MediaError`."""
    if type(error) in (ValueError, TooMuch):  # raised here, not by PyAV or Pillow: a reason by itself
        return printable(str(error))
    said = printable(str(getattr(error, "strerror", None) or error))[:500]
    if isinstance(error, av.ArgumentError):  # of a file that is on no list, or too large
        said += f"; read are {', '.join(VIDEO_FORMATS)}, with frames of up to {meter().limits.frame_pixels:,} pixels"
    if isinstance(error, av.ExitError):
        return (
            f"reading it takes more than {meter().limits.seconds:g} s. Encode it anew, or raise the limit in seconds"
        )
    return f"cannot be read ({type(error).__name__}: {said})"


def printable(text: str) -> str:
    """A text that every log and file takes: half characters, as broken file names have them, are written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """
    The film among the video streams: the only one that is no cover picture; of several with more than one frame the default
    one, else the longest. `VideoError` if there is none or nothing decodes it.
    """
    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        raise VideoError(name, f"no video stream (it holds: {', '.join(kinds) or 'nothing'})")
    stream = streams[0] if len(streams) == 1 else _film(container, streams)
    if stream.codec_context is None:
        raise VideoError(name, "no decoder for its video stream")
    meter().limits.check_pixels(stream.codec_context.width, stream.codec_context.height)
    stream.codec_context.options = _codec_options()
    stream.thread_type = "SLICE"  # threads over whole frames gain nothing here, and lose at every seek
    stream.codec_context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
    return stream


def _film(container: InputContainer, streams: list[VideoStream]) -> VideoStream:
    """Of several video streams the one to read, by their packets: an empty one, or a still before the film, is none."""
    counts: dict[VideoStream, int] = dict.fromkeys(streams, 0)
    times: dict[VideoStream, list[float]] = {each: [] for each in streams}  # packets' begin and end, in seconds
    by_index = {stream.index: stream for stream in streams}
    for packet in meter().each(container.demux(streams)):
        stream = by_index[packet.stream.index]
        if packet.size:
            counts[stream] += 1
            if packet.pts is not None:
                begin, end = packet.pts, packet.pts + (packet.duration or 0)
                found = [float(begin * _unit(stream)), float(end * _unit(stream))]
                times[stream] = [min(times[stream][:1] + found), max(times[stream][1:] + found)]
    container.seek(0)
    moving = [stream for stream in streams if counts[stream] > 1 and stream.codec_context is not None] or streams
    defaults = [stream for stream in moving if stream.disposition & Disposition.default]
    candidates = defaults if len(defaults) == 1 else moving
    # programs of a broadcast have clocks of their own; the first of equal ones
    return max(
        candidates, key=lambda stream: (times[stream][1] - times[stream][0] if times[stream] else 0, counts[stream])
    )


def _unit(stream: VideoStream) -> Fraction:
    """The seconds of a unit of a stream's times."""
    if stream.time_base is None:
        raise ValueError("its video stream has no unit of time")
    return stream.time_base


def _nominal_rate(stream: VideoStream) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or 1)


def _numbers_its_frames(container: InputContainer, stream: VideoStream) -> bool:
    return container.format.name in EXACT_CONTAINERS and stream.codec.canonical_name in EXACT_CODECS


# -------------------------------------------------------------------------------------------------------- the packets


class _Packet(NamedTuple):
    """What the index needs of a packet; never the packet itself, which holds its data."""

    time: int | None  # in units of the stream's time base; `None` where the container has none
    length: int
    is_key: bool
    is_hidden: bool  # decoded, but not shown: an edit list leaves it out
    is_damaged: bool
    stands_alone: bool  # if it calls itself no reference, no other picture needs it


def read_index(
    container: InputContainer,
    stream: VideoStream,
    name: str,
    data: str | bytes | Blob | None = None,
    by_time: bool = False,
) -> Index:
    """Numbers the frames by the packets, without decoding, and sees that the file is all there."""
    # An edit list of an mp4 may leave out frames that `stream.frames` counts; its index has the ones that are read.
    promised = len(stream.index_entries)  # now, since reading adds to it
    if container.format.name != EXACT_CONTAINERS[0]:
        promised = max(promised, stream.frames)
    meter().refuse(promised)
    stands_alone = layer_reader(stream)
    packets = [
        _Packet(p.pts, p.duration or 0, p.is_keyframe, p.is_discard, _is_flagged(p) or not p.size, stands_alone(p))
        for p in meter().each(container.demux(stream))
        if p.size or p.pts is not None
    ]
    _check_complete(container, stream, packets, promised, container.name if data is None else data, name)
    shown = [packet for packet in packets if not packet.is_hidden]
    stored = [packet.time for packet in packets if packet.time is not None]
    rate = _nominal_rate(stream)
    if not shown or len(set(stored)) < len(packets):
        return Index(list(range(max(len(shown), 1))), 1 / rate, rate)  # a guess
    lengths = {packet.time: packet.length for packet in shown if packet.time is not None}
    key_times = [packet.time for packet in packets if packet.is_key and packet.time is not None]
    seekable = (
        _numbers_its_frames(container, stream)
        and key_times == sorted(key_times)
        and packets[0].is_key
        and min(lengths) >= stored[0]  # else the stream begins with frames that need some from before its beginning
        and not any(packet.is_damaged for packet in packets)
    )
    positions = {time: place for place, time in enumerate(stored)}
    unit, last = _unit(stream), max(lengths)
    length = lengths[last]
    if by_time and container.format.name == EXACT_CONTAINERS[1] and container.duration:
        # Its blocks need not say how long they are shown. What the file announces beyond all of them is the last picture's.
        announced = int(container.duration / av.time_base / unit)
        if announced > last + length and _ends_before(container, stream, announced * unit):
            length = announced - last
    skips = all(packet.stands_alone for packet in packets)
    return Index(sorted(lengths), unit, rate, positions, key_times, seekable, length, skips)


def _ends_before(container: InputContainer, stream: VideoStream, seconds: Fraction) -> bool:
    """Whether all other streams end before so many seconds, by more than a tenth."""
    if len(container.streams) == 1:
        return True
    others = [each for each in container.streams if each.index != stream.index and each.type in ("audio", "video")]
    container.seek(0)
    packets = (packet for packet in meter().each(container.demux(others)) if packet.size)
    ends = ((p.pts + (p.duration or 0)) * p.time_base for p in packets if p.pts is not None)
    return all(end < seconds - Fraction(1, 10) for end in ends)


def _is_flagged(packet: av.Packet) -> bool:
    """Whether the container says that a packet is damaged."""
    return packet.is_corrupt


def _check_complete(
    container: InputContainer,
    stream: VideoStream,
    packets: list[_Packet],
    promised: int,
    data: str | bytes | Blob,
    name: str,
) -> None:
    """Raises where the container announces more than it holds; one missing frame is a common miscount of writers."""
    if not packets:
        raise VideoError(name, "its video stream is empty, or the file is truncated")
    if len(packets) < promised - 1 and container.format.name == "avi":
        promised -= dropped_frames(data, stream.index)  # the header counts them too
    if len(packets) < promised - 1:
        raise VideoError(name, f"truncated: it announces {promised} frames and holds {len(packets)}. Fetch it again.")
    if packets[-1].is_damaged:
        raise VideoError(name, f"truncated: the last of its {len(packets)} frames is incomplete. Fetch it again.")
    if container.format.name == EXACT_CONTAINERS[1]:  # which counts no frames
        _check_matroska(container, stream, packets, data, name)


def _check_matroska(
    container: InputContainer, stream: VideoStream, packets: list[_Packet], data: str | bytes | Blob, name: str
) -> None:
    """Raises where a Matroska file is cut, by the lengths of its elements, or where its pictures end before it says."""
    with opened(data) as file:
        known = segment_of(file)
        if known is None or known[1] is None:  # written live: only its last element can tell
            if elements_end(file) == "cut":
                raise VideoError(name, "truncated: its last element is incomplete. Fetch it again.")
        elif known[1] > size_of(file):
            raise VideoError(
                name, f"truncated: it announces {known[1]:,} bytes and has {size_of(file):,}. Fetch it again."
            )
        rate = _nominal_rate(stream)
        times = sorted(packet.time for packet in packets if packet.time is not None)
        widest = max((b - a for a, b in itertools.pairwise(times)), default=0) * _unit(stream)
        if widest > HOLE_FRAMES / rate and elements_end(file) == "broken":
            raise VideoError(name, f"damaged: {float(widest):.2f} s of it are missing. Fetch it again.")
        if not container.duration:
            return
        length = container.duration / av.time_base
        due = length - 2 / rate - 0.1
        last = max((packet.time or 0) + packet.length for packet in packets) * _unit(stream)
        if last < due and len(container.streams) > 1:  # the sound may go on after the pictures
            container.seek(0)
            ends = (
                ((p.pts or 0) + (p.duration or 0)) * p.time_base for p in meter().each(container.demux()) if p.size
            )
            last = max(ends, default=last)
        # the last picture may be shown for long, and its block need not say so: then all elements are there
        if last < due and (known is None or known[1] is None or elements_end(file) != "whole"):
            raise VideoError(name, f"truncated: it announces {length:.2f} s and ends after {float(last):.2f} s.")


# --------------------------------------------------------------------------------------------------------- the frames


def decode_seeking(container: InputContainer, stream: VideoStream, index: Index, wanted: list[int]) -> Frames:
    """
    The frames shown at the times `wanted` (ascending), each decoded from the last key frame before it at the latest.

    It goes on decoding where the next key frame is not worth a seek, so that no packet is decoded twice.

    Raises `Inexact` as soon as packets or frames come otherwise than in the index.
    """
    found = Frames(len(wanted))
    shown, last = set(index.times), float("-inf")
    orientation = _Orientation()
    # A display matrix within the pictures (H.264, HEVC) stands at the first one, and holds for all
    if wanted[0] > index.times[0] and stream.codec.canonical_name in ("h264", "hevc"):
        _see_first(container, stream, index, orientation)
    # What is stored before a frame may be shown after it, and be damaged: the latest time of all that is stored so far
    horizons = list(
        itertools.accumulate((time for time in index.positions), lambda a, b: max(a, b if b in shown else a))
    )
    frames: Iterator[tuple[int, VideoFrame]] = iter(())
    frame: VideoFrame | None = None
    place, horizon = -1, float("-inf")

    def read_to(time: float) -> None:
        nonlocal place, frame, last
        while last < time:
            place, frame = next(frames, (place, None))
            if frame is None or frame.pts is None or frame.pts not in shown or frame.pts <= last:
                raise Inexact
            if frame.is_corrupt or frame.interlaced_frame:
                raise Inexact
            last = frame.pts

    for target in wanted:
        key_time = index.key_times[bisect_right(index.key_times, target) - 1]
        if place < 0 or index.positions[key_time] - place > SEEK_COST_FRAMES:
            read_to(horizon)
            frames = _frames_from(container, stream, index, key_time, set(wanted))
        read_to(target)
        if frame is None or last > target:
            raise Inexact
        orientation.see(frame)
        found.add(_upright(_pixels(frame), orientation.matrix))
        horizon = horizons[index.positions[target]]
    read_to(horizon)
    return found


def _see_first(container: InputContainer, stream: VideoStream, index: Index, orientation: "_Orientation") -> None:
    """Takes note of the orientation of a stream's first frame."""
    container.seek(index.times[0], stream=stream)
    frame = next((frame for packet in meter().each(container.demux(stream)) for frame in packet.decode()), None)
    stream.codec_context.flush_buffers()
    if frame is not None:
        orientation.see(frame)


def _frames_from(
    container: InputContainer, stream: VideoStream, index: Index, key_time: int, wanted: set[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """
    Yields the frames from the key frame shown at `key_time` on, or from where else the seek leads, each with the place
    in the stored order of the last packet that went into the decoder.

    Raises `Inexact` unless the packets come in that order and a key frame is the first to be shown.
    """
    container.seek(key_time, stream=stream)
    landing: int | None = None
    place, key_due = -1, True
    for packet in meter().each(container.demux(stream)):
        if packet.size:  # the last one has none: it empties the decoder
            before, place = place, -1 if packet.pts is None else index.positions.get(packet.pts, -1)
            if place < 0 or (before >= 0 and place != before + 1):
                raise Inexact
            if landing is None:
                landing, key_due = packet.pts, place > 0  # from the very beginning, any start is a full decode's
        if index.skips:
            needed = not packet.size or packet.pts in wanted
            stream.codec_context.skip_frame = "DEFAULT" if needed else "NONREF"
        for frame in packet.decode():
            if frame.pts is not None and landing is not None and frame.pts < landing:
                continue  # shown before the key frame, stored after it: it may need frames from before the seek
            if key_due and not (frame.key_frame and frame.pts == landing):
                raise Inexact  # a gradual refresh: the first frames differ from those of a full decode
            key_due = False
            yield place, frame


def _decode_all(data: str | bytes | Blob, name: str, index: Index, wanted: set[int]) -> tuple[Index, Frames]:
    """
    The index by the frames that do decode, and the `wanted` ones (numbers in display order) of them, in order. Where packets
    cannot be decoded and the index says what their frames are, it stays as it is.
    """
    found = Frames(len(wanted))
    stamps: list[int | None] = []
    packets: list[tuple[int | None, bool]] = []  # time, whether flagged as damaged
    damaged: set[int | tuple[str, int]] = set()  # times, or ("number", its number) of a frame without one
    keys: set[int | None] = set()
    undecodable: set[int] = set()
    interlaced, last_length = False, 0
    orientation = _Orientation()
    known: dict[int | None, int] = {}
    if index.positions:
        known = {time: number for number, time in enumerate(index.times)}
    with open_container(data) as container:
        stream = video_stream(container, name)
        for packet in meter().each(container.demux(stream)):
            if packet.size:
                packets.append((packet.pts, _is_flagged(packet)))
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if packet.pts is None or packet.pts not in known:
                    raise
                undecodable.add(packet.pts)
                continue
            for frame in frames:
                meter().refuse(len(stamps))
                number = known.get(frame.pts, -1) if undecodable else len(stamps)
                orientation.see(frame)
                if frame.is_corrupt:
                    damaged.add(("number", number) if frame.pts is None else frame.pts)
                if frame.key_frame:
                    keys.add(frame.pts)
                if number in wanted:
                    found.add(_upright(_pixels(frame), orientation.matrix))
                stamps.append(frame.pts)
                interlaced |= frame.interlaced_frame
                last_length = frame.duration or 0
        rate, time_base = _nominal_rate(stream), _unit(stream)
        # What is shown before the first key frame may be unusable, and two interlaced fields may be two packets.
        due = [time for time in index.times if not index.key_times or time >= index.key_times[0]]
        exact = _numbers_its_frames(container, stream) and not interlaced
    if not stamps or (exact and len(stamps) < len(due) - 1 - len(undecodable)):
        raise VideoError(name, f"damaged: only {len(stamps)} of its {len(due)} frames decode. Fetch it again.")
    spoiled = _spoiled(packets, damaged | undecodable, keys)
    times: Sequence[int | None] = index.times if undecodable else stamps
    for number in sorted(wanted):
        is_spoiled = number < len(times) and times[number] in spoiled
        if is_spoiled or ("number", number) in damaged:
            raise VideoError(name, f"frame {number} is damaged, or made of a damaged one. Fetch the file again.")
    if undecodable:
        return index, found
    shown = [time for time in stamps if time is not None]
    if len(shown) < len(stamps) or any(b <= a for a, b in itertools.pairwise(shown)):
        shown, time_base = list(range(len(stamps))), 1 / rate
    elif time_base == index.time_base:
        last_length = max(last_length, index.last_length)
    return Index(shown, time_base, rate, last_length=last_length), found


def _spoiled(
    packets: list[tuple[int | None, bool]], damaged: set[int | tuple[str, int]], keys: set[int | None]
) -> set[int]:
    """
    The times of all frames that a damaged one may have gone into: those stored after it up to the next key frame, and those
    stored after that which are shown before it. A point from which a picture is refreshed little by little is no key frame.
    """
    spoiled: set[int] = set()
    is_spoiled, key_time = False, None
    for time, is_flagged in packets:
        if time is None:
            continue
        if time in keys:
            key_time, is_spoiled = (time if is_spoiled else None), False
        is_spoiled = is_spoiled or is_flagged or time in damaged
        if is_spoiled or (key_time is not None and time < key_time):
            spoiled.add(time)
    return spoiled


def _pixels(frame: VideoFrame) -> np.ndarray:
    """RGB, uint8 (H, W, 3), as stored, white behind what is transparent."""
    meter().limits.check_pixels(frame.width, frame.height)
    has_alpha = any(part.is_alpha for part in frame.format.components) or frame.format.has_palette
    return on_white(frame.to_ndarray(format="rgba")) if has_alpha else frame.to_ndarray(format="rgb24")


class _Orientation:
    """
    The display matrix that holds for the frames of a stream, seen one after the other: row by row (ISO 14496-12, 8.3.2).

    A frame whose matrix is looked at is held until Python looks for cycles, since PyAV's side data points back at it: hundreds of
    large ones would be. So only the first one is, and those whose rotation differs from the last.
    """

    def __init__(self) -> None:
        self.matrix: tuple[int, ...] | None = None
        self._rotation: int | None = None

    def see(self, frame: VideoFrame) -> None:
        if frame.rotation == self._rotation:
            return
        self._rotation = frame.rotation
        side_data: Any = frame.side_data  # PyAV's stubs do not know that it goes by type
        found = side_data.get(SideDataType.DISPLAYMATRIX)
        if found is not None:
            self.matrix = struct.unpack("=9i", bytes(found)[:36])


def on_white(rgba: np.ndarray) -> np.ndarray:
    """RGBA, uint8 (H, W, 4), on a white ground: RGB, uint8 (H, W, 3)."""
    if rgba[..., 3].min(initial=255) == 255:
        return rgba[..., :3]
    white = np.empty((*rgba.shape[:-1], 3), np.uint8)
    for top in range(0, len(rgba), 64):  # the sums take several times the memory of the picture
        rows = rgba[top : top + 64]
        alpha = rows[..., 3:].astype(np.uint16)
        white[top : top + 64] = (rows[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return white


def _upright(picture: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """
    A picture (H, W, 3) turned and mirrored by a display matrix, exactly as ffmpeg does: all eight orientations, those of front
    cameras among them.
    """
    if matrix is None:
        return picture
    right, right_to_down, _, down_to_right, down, *_ = matrix
    if max(abs(right_to_down), abs(down_to_right)) * 100 < min(abs(right), abs(down)):
        picture = picture[:, ::-1] if right < 0 else picture
        return picture[::-1] if down < 0 else picture
    if max(abs(right), abs(down)) * 100 < min(abs(right_to_down), abs(down_to_right)):
        picture = picture.transpose(1, 0, 2)
        picture = picture[:, ::-1] if down_to_right < 0 else picture
        return picture[::-1] if right_to_down < 0 else picture
    turned = round(math.degrees(math.atan2(right_to_down, right)))
    raise ValueError(f"its frames are to be turned by {turned} degrees, not by a multiple of 90")
