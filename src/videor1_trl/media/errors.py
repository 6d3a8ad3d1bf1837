"""What is raised where a video or an image cannot be read, and how a reader's own error reads as a reason."""

import av

from .limits import VIDEO_FORMATS, TooMuch, meter


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
