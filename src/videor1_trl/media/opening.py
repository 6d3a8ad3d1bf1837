"""Opens video files, wherever they lie, within the limits on time and pixels, and finds the film among their streams."""

import gc
import io
import os
import threading
from fractions import Fraction

import av
from av import VideoStream
from av.container import InputContainer
from av.stream import Disposition

from .blobs import Blob
from .containers import check_announced
from .errors import VideoError
from .limits import PROTOCOLS, VIDEO_FORMATS, meter


# A playlist that calls itself a video must reach neither other files nor the network.
OPEN_OPTIONS = {"format_whitelist": ",".join(VIDEO_FORMATS), "protocol_whitelist": ",".join(PROTOCOLS)}
MAX_THREADS = 4

_left_over = threading.Event()  # a container was opened since the last look for cycles before a fork


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
                found = [float(begin * unit_of(stream)), float(end * unit_of(stream))]
                times[stream] = [min(times[stream][:1] + found), max(times[stream][1:] + found)]
    container.seek(0)
    moving = [stream for stream in streams if counts[stream] > 1 and stream.codec_context is not None] or streams
    defaults = [stream for stream in moving if stream.disposition & Disposition.default]
    candidates = defaults if len(defaults) == 1 else moving
    # programs of a broadcast have clocks of their own; the first of equal ones
    return max(
        candidates, key=lambda stream: (times[stream][1] - times[stream][0] if times[stream] else 0, counts[stream])
    )


def unit_of(stream: VideoStream) -> Fraction:
    """The seconds of a unit of a stream's times."""
    if stream.time_base is None:
        raise ValueError("its video stream has no unit of time")
    return stream.time_base


def nominal_rate(stream: VideoStream) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or 1)
