"""Numbers the frames of a video by its packets, without decoding, and sees whether the file is all there."""

import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import av
from av import VideoStream
from av.container import InputContainer

from .blobs import Blob
from .containers import dropped_frames, elements_end, opened, segment_of, size_of
from .errors import VideoError
from .layers import layer_reader
from .limits import meter
from .opening import nominal_rate, unit_of


# In these, every packet is exactly one frame, shown at the packet's own time: packets alone number the frames.
EXACT_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
EXACT_CODECS = ("h264", "hevc", "vp9", "av1")
# A gap between pictures of a Matroska file, in frames, from which on its elements are looked at one by one
HOLE_FRAMES = 8


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
        _Packet(
            p.pts, p.duration or 0, p.is_keyframe, p.is_discard, is_marked_damaged(p) or not p.size, stands_alone(p)
        )
        for p in meter().each(container.demux(stream))
        if p.size or p.pts is not None
    ]
    _check_complete(container, stream, packets, promised, container.name if data is None else data, name)
    shown = [packet for packet in packets if not packet.is_hidden]
    stored = [packet.time for packet in packets if packet.time is not None]
    rate = nominal_rate(stream)
    if not shown or len(set(stored)) < len(packets):
        return Index(list(range(max(len(shown), 1))), 1 / rate, rate)  # a guess
    lengths = {packet.time: packet.length for packet in shown if packet.time is not None}
    key_times = [packet.time for packet in packets if packet.is_key and packet.time is not None]
    seekable = (
        numbers_its_frames(container, stream)
        and key_times == sorted(key_times)
        and packets[0].is_key
        and min(lengths) >= stored[0]  # else the stream begins with frames that need some from before its beginning
        and not any(packet.is_damaged for packet in packets)
    )
    positions = {time: place for place, time in enumerate(stored)}
    unit, last = unit_of(stream), max(lengths)
    length = lengths[last]
    if by_time and container.format.name == EXACT_CONTAINERS[1] and container.duration:
        # Its blocks need not say how long they are shown. What the file announces beyond all of them is the last picture's.
        announced = int(container.duration / av.time_base / unit)
        if announced > last + length and _ends_before(container, stream, announced * unit):
            length = announced - last
    skips = all(packet.stands_alone for packet in packets)
    return Index(sorted(lengths), unit, rate, positions, key_times, seekable, length, skips)


def numbers_its_frames(container: InputContainer, stream: VideoStream) -> bool:
    return container.format.name in EXACT_CONTAINERS and stream.codec.canonical_name in EXACT_CODECS


def is_marked_damaged(packet: av.Packet) -> bool:
    """Whether the container says that a packet is damaged."""
    return packet.is_corrupt


def _ends_before(container: InputContainer, stream: VideoStream, seconds: Fraction) -> bool:
    """Whether all other streams end before so many seconds, by more than a tenth."""
    if len(container.streams) == 1:
        return True
    others = [each for each in container.streams if each.index != stream.index and each.type in ("audio", "video")]
    container.seek(0)
    packets = (packet for packet in meter().each(container.demux(others)) if packet.size)
    ends = ((p.pts + (p.duration or 0)) * p.time_base for p in packets if p.pts is not None)
    return all(end < seconds - Fraction(1, 10) for end in ends)


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
        rate = nominal_rate(stream)
        times = sorted(packet.time for packet in packets if packet.time is not None)
        widest = max((b - a for a, b in itertools.pairwise(times)), default=0) * unit_of(stream)
        if widest > HOLE_FRAMES / rate and elements_end(file) == "broken":
            raise VideoError(name, f"damaged: {float(widest):.2f} s of it are missing. Fetch it again.")
        if not container.duration:
            return
        length = container.duration / av.time_base
        due = length - 2 / rate - 0.1
        last = max((packet.time or 0) + packet.length for packet in packets) * unit_of(stream)
        if last < due and len(container.streams) > 1:  # the sound may go on after the pictures
            container.seek(0)
            ends = (
                ((p.pts or 0) + (p.duration or 0)) * p.time_base for p in meter().each(container.demux()) if p.size
            )
            last = max(ends, default=last)
        # the last picture may be shown for long, and its block need not say so: then all elements are there
        if last < due and (known is None or known[1] is None or elements_end(file) != "whole"):
            raise VideoError(name, f"truncated: it announces {length:.2f} s and ends after {float(last):.2f} s.")
