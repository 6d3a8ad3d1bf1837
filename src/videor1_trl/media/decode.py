"""Decodes video files: the frames a full PyAV decode gives, decoding as little as is exact, or a reason why not."""

import contextlib
import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import av
import torch
from av import VideoFrame, VideoStream
from av.container import InputContainer

from .blobs import Blob
from .containers import check_gif_ends
from .errors import VideoError, reason
from .index import Index, is_marked_damaged, numbers_its_frames, read_index
from .limits import meter
from .opening import nominal_rate, open_container, unit_of, video_stream
from .pictures import Frames, Orientation, pixels_of, upright


# What a seek costs, in decoded frames: the decoder is emptied and the reordering delay is paid again.
SEEK_COST_FRAMES = 8


class Inexact(Exception):
    """Seeking did not lead where the packets said; everything has to be decoded."""


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


def decode_seeking(container: InputContainer, stream: VideoStream, index: Index, wanted: list[int]) -> Frames:
    """
    The frames shown at the times `wanted` (ascending), each decoded from the last key frame before it at the latest.

    It goes on decoding where the next key frame is not worth a seek, so that no packet is decoded twice.

    Raises `Inexact` as soon as packets or frames come otherwise than in the index.
    """
    found = Frames(len(wanted))
    shown, last = set(index.times), float("-inf")
    orientation = Orientation()
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
        found.add(upright(pixels_of(frame), orientation.matrix))
        horizon = horizons[index.positions[target]]
    read_to(horizon)
    return found


def _see_first(container: InputContainer, stream: VideoStream, index: Index, orientation: Orientation) -> None:
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
    orientation = Orientation()
    known: dict[int | None, int] = {}
    if index.positions:
        known = {time: number for number, time in enumerate(index.times)}
    with open_container(data) as container:
        stream = video_stream(container, name)
        for packet in meter().each(container.demux(stream)):
            if packet.size:
                packets.append((packet.pts, is_marked_damaged(packet)))
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
                    found.add(upright(pixels_of(frame), orientation.matrix))
                stamps.append(frame.pts)
                interlaced |= frame.interlaced_frame
                last_length = frame.duration or 0
        rate, time_base = nominal_rate(stream), unit_of(stream)
        # What is shown before the first key frame may be unusable, and two interlaced fields may be two packets.
        due = [time for time in index.times if not index.key_times or time >= index.key_times[0]]
        exact = numbers_its_frames(container, stream) and not interlaced
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
