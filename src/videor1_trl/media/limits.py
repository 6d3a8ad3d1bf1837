"""Which kinds of files are read, and what reading one may take: time, pixels, packets, memory."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from .addresses import checked_store


# Only kinds that hold their pictures themselves: those that name other files (playlists, ffconcat, patterns of names), start
# programs (EPS, WMF) or read text as pictures are none. Names of FFmpeg's demuxers, and of Pillow's formats.
VIDEO_FORMATS = (
    *(
        "mov",
        "mp4",
        "matroska",
        "webm",
        "avi",
        "flv",
        "mpegts",
        "mpeg",
        "mpegvideo",
        "ogg",
        "asf",
        "mxf",
        "nut",
        "dv",
        "rm",
    ),
    *("gif", "apng", "webp", "h261", "h263", "h264", "hevc", "m4v", "mjpeg", "vc1", "obu", "ivf", "yuv4mpegpipe"),
)
IMAGE_FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "TGA",
    "TIFF",
    "WEBP",
)
PROTOCOLS = ("file",)

Item = TypeVar("Item")
_ended = threading.Event()
_at_end: list[Callable[[], None]] = []


def end_readings() -> None:
    """
    The process is about to end: every reading stops at its next packet, frame or read of its file, as if it were interrupted by
    Ctrl-C itself, so that no file is said to be bad for it. Safe in a signal handler.
    """
    _ended.set()
    for function in _at_end:
        function()


def begin_readings() -> None:
    """A new command begins in this process: an interruption of the one before it is over."""
    _ended.clear()


def at_end_of_readings(function: Callable[[], None]) -> Callable[[], None]:
    """Has a function called where readings are to end; a decorator."""
    _at_end.append(function)
    return function


def readings_ended() -> bool:
    return _ended.is_set()


def check_not_interrupted() -> None:
    """Raises `KeyboardInterrupt` where the process is about to end: the one of the signal may have been lost."""
    if _ended.is_set():
        raise KeyboardInterrupt


@dataclass(frozen=True)
class Limits:
    """
    What reading one file may take; ordinary files stay far below. Beyond it the file counts as one that cannot be read.

    Args:
        seconds (`float`, defaults to `600.0`): until its frames or its image are there. Looked at between any two packets and
            frames and at every read of the file; a decoder that hangs within itself is ended only with `isolation="process"`.
        frame_pixels (`int`, defaults to `2**25`): of a frame; 8K (7680 x 4320) has 33.2 million.
        image_pixels (`int`, defaults to `178956970`): of an image, Pillow's own bound.
        image_bytes (`int`, defaults to `2**30`): of the file of an image.
        packets (`int`, defaults to `3_000_000`): of its stream, and frames; 24 hours at 30 a second are 2.6 million.
        frames_bytes (`int`, defaults to `8 * 2**30`): of the frames taken, as RGB.
        process_bytes (`int`, defaults to `16 * 2**30`): of memory that a process may take beyond what it began with, where
            `isolation="process"`.
        fetched_bytes (`int`, defaults to `8 * 2**30`): of a file that has to be taken whole: a deflated member of an archive, or
            what a store holds in a form whose frames cannot be found without all of it.
        stores (`tuple[str, ...]`, defaults to none): addresses of stores, such as `s3://bucket/videos`, in which files may be
            read; no other is ever asked.
    """

    seconds: float = 600.0
    frame_pixels: int = 2**25
    image_pixels: int = 178_956_970
    image_bytes: int = 2**30
    packets: int = 3_000_000
    frames_bytes: int = 8 * 2**30
    process_bytes: int = 16 * 2**30
    fetched_bytes: int = 8 * 2**30
    stores: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stores", tuple(map(checked_store, self.stores)))
        for name, value in vars(self).items():
            if name != "stores" and not value > 0:
                raise ValueError(f"{name} ({value}) of the limits must be above 0.")

    def check_pixels(self, width: int, height: int, *, of: str = "frame") -> None:
        """Raises a `ValueError` with the reason where a frame or an image is too large."""
        most = self.frame_pixels if of == "frame" else self.image_pixels
        if width * height > most:
            raise ValueError(f"its {of} of {width} x {height} has more than {most:,} pixels. Scale it down.")


class TooMuch(Exception):
    """A file takes more than its limits allow."""


class Meter:
    """What the reading of one file has taken so far."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._end = time.monotonic() + limits.seconds

    def left(self) -> float:
        """Seconds that are left; at least a little, since zero would mean: no limit."""
        return max(self._end - time.monotonic(), 0.001)

    def check(self) -> None:
        check_not_interrupted()
        if time.monotonic() > self._end:
            raise TooMuch(
                f"reading it takes more than {self.limits.seconds:g} s. Encode it anew, or raise the limit in seconds"
            )

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """The packets or frames of a stream, as long as time and number allow."""
        number = 0
        for number, item in enumerate(items, start=1):
            self.check()
            if number > self.limits.packets:
                self.refuse(number)
            yield item
        self.check()  # a demuxer that is interrupted may say that the file has ended

    def refuse(self, number: int) -> None:
        """Raises where a stream has so many packets that it is not walked through."""
        if number > self.limits.packets:
            raise TooMuch(f"it has more than {self.limits.packets:,} packets. Cut it into shorter files")


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered(limits: Limits | None) -> Iterator[Meter]:
    """All that is read within, in this thread, is of one file and within its limits; `None`: those of the reading around it."""
    found = Meter(limits) if limits is not None else meter()
    token = _METER.set(found)
    try:
        yield found
    finally:
        _METER.reset(token)


def meter() -> Meter:
    """The meter of the file that this thread reads."""
    return _METER.get() or Meter(Limits())
