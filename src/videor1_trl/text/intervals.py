"""Intervals of seconds in texts: "12.5 - 20.1", "from 0:12 to 1:05", "[3, 7]", several of them; and how far two overlap."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from numbers import Real

from .prompts import extract_answer
from .times import Time, read_times
from .words import plain_signs


Interval = tuple[float, float]

_LONGEST = 2_000  # characters of an answer that is looked into
_DASHES = (
    r"[-\u2010-\u2015\u2043\u2212~\u223c\u301c]+>?|=+>|[\u2192\u21d2\u27f6\u27f9\u2794\u279c]"  # and tildes and arrows
)
_ABOUT = r"(?:\s*[~≈])?(?:\s*(?:about|around|approximately|roughly|the)\b)*"
_NAMED_END = r"[\"')\]]*\s*(?:[,;]|and|to)?\s*[\"']?(?:it\s+)?(?:end(?:s|ing)?(?:[ _](?:time|s|secs?|seconds?))?)[\"']?\s*(?:at|:|=|is)?\s*[\"']?"
_JOINED = re.compile(
    rf"[\"']?\s*(?:{_DASHES}|(?<!\w)(?:(?:up\s+)?to|until|till|through|thru)){_ABOUT}\s*[\"']?|{_NAMED_END}",
    re.IGNORECASE,
)
_BESIDE = re.compile(r"\W*(?:(?:and|from|between)\W+)*", re.IGNORECASE)
_LISTED = re.compile(r"[\"']?\s*(?:[,;]|(?<!\w)and(?!\w)|&)\s*[\"']?", re.IGNORECASE)


def read_intervals(text: object) -> list[Interval]:
    """
    The intervals that a text states, in seconds, in its order; of an `<answer>` where it has one. Empty for none.

    Two times joined by a dash, an arrow or a word ("to", "until"), or the second led in by "end" ("start: 3, end: 7"); or, where
    neither is joined to another time in this way, by a comma or "and". As seconds ("12.5", "12.5 s"), in another unit (ms, min, h;
    one behind the last of several holds for those before it that have none), by the clock ("1:05", "0:01:05", "00:01:05,500") or
    in minutes ("1m05s", "1 min 5 s"). An interval that ends before it begins is none, nor is one of frames, percent and the like, and one
    whose numbers may be read in two ways ("1,000 - 1,005"). Decimals may stand behind commas ("1,5 - 20,1; 30,5 - 40,2").

    >>> read_intervals("<answer>12.5 - 20.1</answer>"), read_intervals("from 0:12 to 1:05"), read_intervals([3, 7])
    ([(12.5, 20.1)], [(12.0, 65.0)], [(3.0, 7.0)])
    >>> read_intervals("[[1, 2], [5s, 7s]]"), read_intervals("between 9 and 4"), read_intervals("at 5")
    ([(1.0, 2.0), (5.0, 7.0)], [], [])
    >>> read_intervals('{"start": 3, "end": 7.5}'), read_intervals("2 to 3 minutes"), read_intervals("clip 3, 5 → 9 s")
    ([(3.0, 7.5)], [(120.0, 180.0)], [(5.0, 9.0)])
    """
    if text is None:
        return []
    text = str(text)
    answer = extract_answer(text)
    text = plain_signs((text if answer is None else answer)[:_LONGEST])
    times = read_times(text, commas=True)
    joined = _joined(text, times)
    if not _are_decimal(times, joined):
        times = read_times(text)
        joined = _joined(text, times)
    return list(_pairs(text, _with_units(text, times, joined), joined))


def _joined(text: str, times: Sequence[Time]) -> list[bool]:
    """Whether each time but the last is joined to the next one by more than a comma."""
    return [_JOINED.fullmatch(text, one.end, other.start) is not None for one, other in pairwise(times)]


def _are_decimal(times: Sequence[Time], joined: Sequence[bool]) -> bool:
    """Whether commas belong to their numbers: there are some, and all in pairs; in "1-2,3-4" three are joined, so they separate."""
    number = [before + behind for before, behind in zip([False, *joined], [*joined, False], strict=True)]
    paired = {
        place + k
        for place, is_joined in enumerate(joined)
        for k in (0, 1)
        if is_joined and number[place] == 1 == number[place + 1]
    }
    marked = {place for place, time in enumerate(times) if time.has_comma}
    return bool(marked) and marked <= paired


def _pairs(text: str, times: Sequence[Time], joined: Sequence[bool]) -> Iterator[Interval]:
    place = 0
    while place + 1 < len(times):
        one, other = times[place], times[place + 1]
        near = [joined[k] for k in (place - 1, place + 1) if 0 <= k < len(joined)]
        listed = not any(near) and _LISTED.fullmatch(text, one.end, other.start) is not None
        interval = _interval(one, other) if joined[place] or listed else None
        if interval is not None:
            yield interval
        place += 2 if joined[place] or interval is not None else 1


def _interval(one: Time, other: Time) -> Interval | None:
    """Both times in seconds; `None` where they are none, or run backwards."""
    if one.value is None or other.value is None or one.is_negative:
        return None
    if other.unit is None and one.unit not in (None, 1.0):  # "1 min - 75"
        return None
    start, end = one.value * (one.unit or 1.0), other.value * (other.unit or 1.0)
    return (start, end) if start <= end else None


def _with_units(text: str, times: Sequence[Time], joined: Sequence[bool]) -> list[Time]:
    """The times, with the unit that stands behind the last of several, or before the first ("minutes 2 - 3"), for all of them."""
    beside = [
        each or _BESIDE.fullmatch(text, a.end, b.start) for each, (a, b) in zip(joined, pairwise(times), strict=True)
    ]
    found = list(times)
    for place, near in enumerate(beside, start=1):
        if near and found[place].unit is None and found[place - 1].is_led:
            found[place] = replace(found[place], unit=found[place - 1].unit, is_led=True)
    for place in reversed(range(len(beside))):
        if beside[place] and found[place].unit is None:
            found[place] = replace(found[place], unit=found[place + 1].unit)
    return found


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


def within(intervals: Sequence[Interval], duration: float) -> list[Interval]:
    """
    The union of intervals, without what of it lies beyond a video's end (> 0 seconds).

    >>> within([(0, 10)], 8.0), within([(9, 10)], 8.0)
    ([(0, 8.0)], [])
    """
    return [(start, min(end, duration)) for start, end in merged(intervals) if start < duration]


def video_seconds(duration: object) -> float | None:
    """
    The value of a column `duration`: the seconds of a row's video; `None` where it is not known (`None`, 0, or NaN, as
    tables of numbers have it).

    Raises:
        `ValueError`: no number, one below 0, or infinity.

    >>> video_seconds(12), video_seconds(None)
    (12.0, None)
    """
    if duration is None or duration != duration:
        return None
    if isinstance(duration, bool) or not isinstance(duration, Real) or not 0 <= float(duration) < math.inf:
        raise ValueError(
            f"duration ({duration!r:.40}) must be the video's length in seconds, above 0, or nothing. Correct the column."
        )
    return float(duration) or None


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
