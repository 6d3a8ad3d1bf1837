"""Subtitles of videos: read from SubRip files and from lists of JSON, and written into a prompt, whole or as frames show them."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


_TIMES = re.compile(r"^\s*([\d:.,]+)\s*-->\s*([\d:.,]+)")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_HEADING = "Subtitles of the video:"
_NONE = "The video has no subtitles."
_NONE_SHOWN = "The video has subtitles, but none at these frames."


class Subtitle(NamedTuple):
    """What is said from `start` to `end`, in seconds of its video."""

    start: float
    end: float
    text: str


def read_subtitles(path: Path, first_second: float = 0.0) -> list[Subtitle]:
    """
    The subtitles of a file, in its order: SubRip (`.srt`), else JSON: a list of `{"start", "end", "line"}` or of `{"timestamp": [start,
    end], "text"}` (LongVideoBench's two forms). Tags such as `<font>` are left out, and so are lines without words.

    Args:
        first_second (`float`): where the video begins within what the times count from; it is taken off them.

    Raises:
        `ValueError`: a file that is not as it must be, with the place. `FileNotFoundError`: there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of subtitles.")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    try:
        found = _of_srt(text) if path.suffix.lower() == ".srt" else _of_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    moved = [Subtitle(start - first_second, end - first_second, _plain(said)) for start, end, said in found]
    return [each for each in moved if each.text]


def subtitles_text(subtitles: Sequence[Subtitle], frame_seconds: Sequence[float] | None) -> str:
    """
    Subtitles as they stand in a prompt, in the order of time, one a line.

    Args:
        frame_seconds (`Sequence[float]`, *optional*): where the frames that the model sees are in the video: only what is said
            at one of them counts; one of less than a second counts from half a second before its middle to half a second
            behind it, as in LongVideoBench's script. `None`: all of it.

    >>> said = [Subtitle(0, 2, "Hello."), Subtitle(5, 5.2, "A door.")]
    >>> subtitles_text(said, None).splitlines()
    ['Subtitles of the video:', 'Hello.', 'A door.']
    >>> subtitles_text(said, [1.0, 3.0]).splitlines()
    ['Subtitles of the video:', 'Hello.']
    """
    if not subtitles:
        return _NONE
    chosen = [each for each in subtitles if frame_seconds is None or _is_shown(each, frame_seconds)]
    if not chosen:
        return _NONE_SHOWN
    return "\n".join([_HEADING, *(each.text for each in sorted(chosen, key=lambda each: (each.start, each.end)))])


def _is_shown(subtitle: Subtitle, frame_seconds: Sequence[float]) -> bool:
    start, end = subtitle.start, subtitle.end
    if end - start < 1:
        start, end = (start + end) / 2 - 0.5, (start + end) / 2 + 0.5
    return any(start <= second < end for second in frame_seconds)


def _of_srt(text: str) -> list[tuple[float, float, str]]:
    """Blocks apart by empty lines: a number, which may be missing, the times, and the text."""
    found = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        place = next((index for index, line in enumerate(lines[:2]) if _TIMES.match(line)), None)
        if place is None:
            if block.strip():
                raise ValueError(
                    f"a block without a line of times such as '00:00:01,000 --> 00:00:02,500': {block[:80]!r}"
                )
            continue
        times = _TIMES.match(lines[place])
        assert times is not None
        found.append((_seconds(times[1]), _seconds(times[2]), " ".join(lines[place + 1 :])))
    return found


def _of_json(text: str) -> list[tuple[float, float, str]]:
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError(f"a list of subtitles is needed, not {type(rows).__name__}")
    found = []
    for place, row in enumerate(rows):
        match row:
            case {"timestamp": [start, end], "text": str(said)}:
                pass
            case {"start": start, "end": end, "line": str(said)}:
                pass
            case _:
                keys = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
                raise ValueError(f"subtitle {place} has neither start, end, line nor timestamp, text, but {keys}")
        begun = _seconds(start)
        found.append((begun, math.inf if end is None else _seconds(end), said))  # the last one may be without its end
    return found


def _seconds(time: object) -> float:
    """Seconds of a number, or of a text such as "01:02:03,450", "02:03.45" or "3.5"."""
    parts = str(time).replace(",", ".").split(":")
    try:
        seconds = [float(part) for part in parts]
    except ValueError as error:
        raise ValueError(f"{time!r} is no time such as 00:01:02,500") from error
    if len(parts) > 3 or not all(math.isfinite(each) for each in seconds):
        raise ValueError(f"{time!r} is no time such as 00:01:02,500")
    return sum(each * 60**place for place, each in enumerate(reversed(seconds)))


def _plain(text: str) -> str:
    """Without tags, and with one space between words."""
    return " ".join(html.unescape(_TAG.sub("", text)).split())
