"""Single times in texts, in seconds: "12.5", "12.5 sec.", "1:05", "1 min 5 s", "minute 2"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


# Seconds of a unit by how it is written; anything else that is counted or measured is no time
_UNITS = {
    r"ms|msecs?|milliseconds?": 0.001,
    r"s|secs?|seconds?": 1.0,
    r"m|mins?|minutes?": 60.0,
    r"h|hrs?|hours?": 3600.0,
}
_FOREIGN = (
    r"%|‰|°|per\s?cent\w*|pct|frames?|fps|hz|px|pixels?|clips?|scenes?|shots?|steps?|times|days?|weeks?|months?|years?|[ap]\.?m"
    r"|mm|cm|km|met(?:er|re)s?"
)
_UNIT = "|".join(_UNITS)
_H, _M = (rf"\s*(?:{unit})(?:\s+and)?\s*" for unit in (r"h|hrs?|hours?", r"m|mins?|minutes?"))
_NUMBER = r"(?:\d++(?:\.\d*+)?|\.\d++)"
# A decimal comma, or commas before groups of three and a decimal point
_COMMA_NUMBER = rf"(?:\d{{1,3}}(?:,\d{{3}})++\.\d++|\d++,\d++|{_NUMBER})"


def _form(number: str) -> re.Pattern[str]:
    """A time whose plain numbers have that form."""
    return re.compile(
        rf"(?<![\w.:/])(?:(?:(?P<lead>secs?|seconds?|mins?|minutes?|hours?|frames?)[.:]?\s+|t(?:ime)?\s*[:=]\s*))?"
        r"(?:(?:(?P<hours>\d{1,3}):)?(?P<minutes>\d{1,3}):(?P<seconds>\d{1,2}(?:[.,]\d+)?)(?![\d:])"  # 1:05, 00:01:05,500
        rf"|(?:(?P<own_hours>\d{{1,3}}){_H})?(?P<own_minutes>\d{{1,3}}){_M}(?P<own_seconds>\d{{1,2}}(?:\.\d+)?)(?=\s*s)"  # 1m05s
        rf"|(?P<whole_hours>\d{{1,3}}){_H}(?P<rest_minutes>\d{{1,3}})(?=\s*m)"  # 1 h 5 min
        rf"|(?P<plain>{number})(?![.:]?\d))"
        rf"(?:[\])}}\"']{{0,3}}\s*(?P<unit>{_UNIT})(?!\w)\.?)?(?P<foreign>\w+|[\])}}\"']{{0,3}}\s*(?:{_FOREIGN})(?!\w))?",
        re.IGNORECASE,
    )


_TIME, _COMMA_TIME = _form(_NUMBER), _form(_COMMA_NUMBER)
_GROUPS = re.compile(r"[1-9]\d{0,2},\d{3}")  # 1,005: a thousand and five, or one and five thousandths
_MINUS = re.compile(r"(?:^|[\s(\[,;:])[-−]$")


@dataclass(frozen=True)
class Time:
    """
    A time where it stands in a text.

    Args:
        start, end (`int`): its characters, with unit.
        value (`float`, *optional*): the number, in `unit` where that is known; by the clock in seconds. `None`: no time, or one that may
            be read in several ways.
        unit (`float`, *optional*): the seconds of its unit, 1.0 by the clock; `None` where it names none.
        is_led (`bool`): that the unit stands before it ("minutes 2 - 3"), and then holds for the next one, too.
        is_negative (`bool`): with a minus sign, unless that joins it to the time before it.
        has_comma (`bool`): that a comma was read as a part of the number.
    """

    start: int
    end: int
    value: float | None
    unit: float | None
    is_led: bool = False
    is_negative: bool = False
    has_comma: bool = False


def read_times(text: str, *, commas: bool = False) -> list[Time]:
    """
    The times that a text names, in its order.

    Args:
        commas (`bool`, defaults to `False`): read a comma between digits as a part of their number.

    >>> [(each.value, each.unit) for each in read_times("from 12.5 sec. to 1:05, then 2 min")]
    [(12.5, 1.0), (65.0, 1.0), (2.0, 60.0)]
    """
    form = _COMMA_TIME if commas else _TIME
    found = list(form.finditer(text))
    marked = [match["plain"] for match in found if "," in (match["plain"] or "")]
    is_unclear = bool(marked) and all(_GROUPS.fullmatch(number) for number in marked)
    return [_time(match, is_unclear) for match in found]


def _time(match: re.Match[str], is_unclear: bool) -> Time:
    plain, unit, lead = match["plain"], match["unit"], match["lead"]
    comma = plain is not None and "," in plain
    value: float | None
    seconds: float | None
    if plain is None:
        value, seconds = _by_the_clock(match), 1.0
    else:
        value, seconds = float(plain.replace(",", "" if "." in plain else ".")), _seconds_of(unit or lead)
    if match["foreign"] or (comma and is_unclear) or (lead and lead.lower().startswith("frame")):
        value = None
    is_negative = _MINUS.search(match.string, max(0, match.start() - 2), match.start()) is not None
    return Time(match.start(), match.end(), value, seconds, bool(lead and not unit), is_negative, comma)


def _by_the_clock(match: re.Match[str]) -> float:
    parts: Sequence[str | None]
    for parts in (
        match.group("hours", "minutes", "seconds"),
        match.group("own_hours", "own_minutes", "own_seconds"),
        (match["whole_hours"], match["rest_minutes"], None),
    ):
        if any(parts):
            break
    hours, minutes, seconds = (part or "0" for part in parts)
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds.replace(",", "."))


def _seconds_of(unit: str | None) -> float | None:
    if unit is None:
        return None
    return next((seconds for form, seconds in _UNITS.items() if re.fullmatch(form, unit, re.IGNORECASE)), None)
