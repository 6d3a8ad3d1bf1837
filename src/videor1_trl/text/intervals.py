"""Intervals of seconds in texts: "12.5 - 20.1", "from 0:12 to 1:05", "[3, 7]", several of them; and how far two overlap."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Real

from .prompts import extract_answer


Interval = tuple[float, float]

_LONGEST = 2_000  # characters of an answer that is looked into
_PLAIN = r"(\d+(?:\.\d*)?|\.\d+)\s*(?:s|secs?|seconds?)?(?![\w:])"
_CLOCK = (
    r"(?:(?:(\d{1,3}):)?(\d{1,3}):(\d{1,2}(?:[.,]\d+)?)"  # 1:05, 0:01:05.5, and 00:01:05,500 of subtitles
    r"|(\d{1,3})\s*(?:m|mins?|minutes?)\s*(?:and\s+)?(\d{1,2}(?:\.\d+)?)\s*(?:s|secs?|seconds?)(?!\w)"  # 1m05s
    rf"|{_PLAIN})"
)
_DASH = r"(?:-->|->|[-–—~]|[,;]|to|until|till|and|through)"
_NAMED_END = (
    r"[\"')\]]*\s*(?:[,;]|and|to)?\s*[\"']?(?:it\s+)?(?:ends?|ending|end[ _]time)[\"']?\s*(?:at|:|=|is)?\s*[\"']?"
)
_NO_MINUS = r"(?<!^[-−])(?<![\s(\[,;:][-−])"  # "-3 - 7" begins before the video
_INTERVAL = re.compile(rf"(?<![\w.:]){_NO_MINUS}{_CLOCK}(?:\s*{_DASH}\s*|{_NAMED_END}){_CLOCK}", re.IGNORECASE)
_DECIMAL_COMMAS = re.compile(r"\W*\d+,\d+\s*s?\s*(?:-->|->|[-–—~]|to|until|till|and)\s*\d+,\d+\s*s?\W*", re.IGNORECASE)


def read_intervals(text: object) -> list[Interval]:
    """
    The intervals that a text states, in seconds, in its order; of an `<answer>` where it has one. Empty for none.

    Two times joined by a dash, an arrow, a comma or a word ("to", "until", "and"), or the second led in by "end" ("start: 3, end: 7");
    as seconds ("12.5", "12.5 s"), by the clock ("1:05", "0:01:05", "00:01:05,500") or in minutes ("1m05s", "1 min 5 s"). An
    interval that ends before it begins is none. Of one interval decimals may stand behind commas ("1,5 - 20,1").

    >>> read_intervals("<answer>12.5 - 20.1</answer>"), read_intervals("from 0:12 to 1:05"), read_intervals([3, 7])
    ([(12.5, 20.1)], [(12.0, 65.0)], [(3.0, 7.0)])
    >>> read_intervals("[[1, 2], [5s, 7s]]"), read_intervals("between 9 and 4"), read_intervals("at 5")
    ([(1.0, 2.0), (5.0, 7.0)], [], [])
    >>> read_intervals('{"start": 3, "end": 7.5}'), read_intervals("1m05s - 1m20s")
    ([(3.0, 7.5)], [(65.0, 80.0)])
    """
    if text is None:
        return []
    text = str(text)
    answer = extract_answer(text)
    text = (text if answer is None else answer)[:_LONGEST]
    if _DECIMAL_COMMAS.fullmatch(text):
        text = text.replace(",", ".")
    found = _INTERVAL.finditer(text)
    read = [(_seconds(*match.groups()[:6]), _seconds(*match.groups()[6:])) for match in found]
    return [(start, end) for start, end in read if start <= end]


def _seconds(
    hours: str | None,
    minutes: str | None,
    seconds: str | None,
    own_minutes: str | None,
    own: str | None,
    plain: str | None,
) -> float:
    if plain is not None:
        return float(plain)
    if own is not None:
        return 60 * int(own_minutes or 0) + float(own)
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float((seconds or "0").replace(",", "."))


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """
    The same time without overlaps, in order.

    >>> merged([(5, 7), (1, 3), (2, 4)])
    [(1, 4), (5, 7)]
    """
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def length_of(intervals: Sequence[Interval]) -> float:
    """
    Seconds in their union.

    >>> length_of([(1, 3), (2, 4)]), length_of([(4, 4)]), length_of([])
    (3.0, 0.0, 0.0)
    """
    return math.fsum(end - start for start, end in merged(intervals))


def video_seconds(duration: object) -> float | None:
    """
    The value of a column `duration`: the seconds of a row's video; `None` where it is not known (`None`, NaN or 0).

    Raises:
        `ValueError`: no number, or one below 0.

    >>> video_seconds(12), video_seconds(None)
    (12.0, None)
    """
    if duration is None:
        return None
    if isinstance(duration, bool) or not isinstance(duration, Real) or float(duration) < 0:
        raise ValueError(f"duration ({duration!r:.40}) must be the video's length in seconds, above 0, or nothing.")
    return float(duration) if float(duration) > 0 else None  # NaN is not


def temporal_iou(found: Sequence[Interval], gold: Sequence[Interval]) -> float:
    """
    Time in both, over time in either, of the unions of intervals; in [0, 1]. 0.0 where there is no time in either.

    >>> temporal_iou([(0, 4)], [(2, 6)]), temporal_iou([(0, 1), (5, 6)], [(0, 6)])
    (0.3333333333333333, 0.3333333333333333)
    """
    found, gold = merged(found), merged(gold)
    both = math.fsum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in found for b in gold)
    either = math.fsum(end - start for start, end in [*found, *gold]) - both
    return both / either if either > 0 else 0.0


def boundary_iou(found: Interval, gold: Interval, duration: float) -> float:
    """
    [`temporal_iou`] times (1 - ds / D) (1 - de / D), ds and de being how far start and end are off, D the video's duration in
    seconds (> 0).

    Source: Time-R1 (`iou_v2` of its released code), ArrowGEV (arXiv 2601.06559), TaRO (2606.09248).

    >>> boundary_iou((0, 4), (0, 8), 8)  # 1/2 * 1 * 1/2
    0.25
    """
    return temporal_iou([found], [gold]) * boundary_factor(found, gold, duration)


def boundaries_iou(found: Sequence[Interval], gold: Sequence[Interval], duration: float) -> float:
    """
    [`boundary_iou`] of unions: their IoU, and the factors of the first start and the last end. Neither may be empty.

    >>> boundaries_iou([(0, 2), (4, 6)], [(0, 6)], 8)  # 4/6 * 1 * 1
    0.6666666666666666
    """
    found, gold = merged(found), merged(gold)
    return temporal_iou(found, gold) * boundary_factor(
        (found[0][0], found[-1][1]), (gold[0][0], gold[-1][1]), duration
    )


def boundary_factor(found: Interval, gold: Interval, duration: float) -> float:
    """
    (1 - ds / D) (1 - de / D), neither below 0.

    >>> boundary_factor((0, 4), (2, 8), 8)  # 3/4 * 1/2
    0.375
    """
    start, end = (max(0.0, 1 - abs(a - b) / duration) for a, b in zip(found, gold, strict=True))
    return start * end
