"""Orders and boxes in texts: "2, 3, 1" and "[10, 20, 110, 220]"; how near two orders are, and how far two boxes overlap."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .choices import LETTERS
from .prompts import extract_answer
from .words import plain_signs


Box = tuple[float, float, float, float]  # left, top, right, bottom

_LONGEST = 2_000  # characters of an answer that is looked into
_COORDINATE = (
    r"(?<![\w.])[+-]?(?:\d++(?:\.\d*+)?|\.\d++)\s*(?:px|pixels?|%)?(?!\w|\.\d)"  # not the 2 of "bbox_2d" or of "x2"
)
_NUMBER = re.compile(_COORDINATE, re.IGNORECASE)
_BEGUN = re.compile(r"(?<![\w.])[+-]?\.?\d")  # where a number begins, whether or not it can be read
# What a corner with width and height, or a centre, is called
_OTHER_BOX = re.compile(
    r"(?<![^\W\d_])(?:w|h|width|height|cx|cy|x_?c|y_?c|(?:x_?|y_?)?cent(?:er|re)(?:_?[xy])?|(?:c?xy|lt|tl)wh)(?![^\W\d_])",
    re.IGNORECASE,
)
_CORNERS = ("x_?1|x_?min|left", "y_?1|y_?min|top", "x_?2|x_?max|right", "y_?2|y_?max|bottom")
_NAMED = re.compile(
    "|".join(rf"(?P<c{place}>{names})" for place, names in enumerate(_CORNERS)).join(("(?<![^\\W_])(?:", ")"))
    + rf"[\"']?\s*[:=]?\s*[\"']?(?P<value>{_COORDINATE})",
    re.IGNORECASE,
)


def _inner(text: object) -> str:
    """What a text answers, or all of it where it has no tags."""
    text = "" if text is None else str(text)
    tagged = extract_answer(text)
    return plain_signs((text if tagged is None else tagged)[:_LONGEST]).replace("\u2212", "-")


def read_order(text: object, like: Sequence[str] = ()) -> list[str]:
    """
    The parts that a text lists, in its order: numbers, or digits without marks between them, whatever words stand between; else
    letters that stand alone, or one word that is nothing but the first letters of the alphabet, each once.

    Args:
        like (`Sequence[str]`, defaults to none): an order of the kind of parts that are looked for, numbers or letters.

    >>> read_order("<answer>3, 1, 2</answer>"), read_order("312"), read_order("(B), (a)"), read_order("clip 2, then clip 1")
    (['3', '1', '2'], ['3', '1', '2'], ['B', 'A'], ['2', '1'])
    >>> read_order("B, then A, then C"), read_order("the order is BAC"), read_order("left"), read_order("1. B 2. A", like="AB")
    (['B', 'A', 'C'], ['B', 'A', 'C'], [], ['B', 'A'])
    """
    inner = _inner(text)
    numbers = re.findall(r"\d+", inner)
    if like[:1] and like[0].isalpha() or not (numbers or like):
        return _letters(inner)
    if len(numbers) == 1 and len(numbers[0]) > 1:
        numbers = list(numbers[0])
    return [_digits(number) for number in numbers]


def _letters(inner: str) -> list[str]:
    words = [word.upper() for word in re.findall(r"[A-Za-z]+", inner)]
    alone = [word for word in words if len(word) == 1]
    if not is_order(alone):
        alone = [word for word in alone if word != "I"]  # who answers
    if len(alone) > 1:
        return alone
    runs = [word for word in words if is_order(list(word))]
    return list(runs[0]) if len(runs) == 1 else []


def _digits(number: str) -> str:
    """A number in the digits 0 to 9, whatever script it is in, without leading zeros."""
    return "".join(str(int(digit)) for digit in number).lstrip("0") or "0"


def is_order(parts: Sequence[str]) -> bool:
    """
    Whether these are two or more parts, each once: the numbers from 1, or from 0, or the letters from A.

    >>> is_order(["2", "1"]), is_order("BCA"), is_order(["2", "3"]), is_order(["A"])
    (True, True, False, False)
    """
    number = len(parts)
    numbers = [[str(first + place) for place in range(number)] for first in (0, 1)]
    return number > 1 and any(sorted(parts) == sorted(each) for each in (*numbers, LETTERS[:number]))


def order_score(found: Sequence[str], gold: Sequence[str]) -> float:
    """
    1.0 for the right order of K parts; 0.2 times the share of parts in their place for another order of the same parts, where
    K > 4; else 0.0.

    >>> order_score(["2", "1"], ["1", "2"]), order_score([*"21345"], [*"12345"])
    (0.0, 0.12)
    """
    if found == gold:
        return 1.0
    if len(gold) > 4 and sorted(found) == sorted(gold):
        return sum(a == b for a, b in zip(found, gold, strict=True)) / len(gold) / 5
    return 0.0


def read_box(text: object) -> Box | None:
    """
    The one box that a text names by its corners, `x1, y1, x2, y2`: left, top, right, bottom, from the upper left of the picture,
    in whatever brackets, with "px" or "%" behind its numbers or without, and in the order of their names where all four have one.
    `None` where there are more or fewer than four numbers, one that cannot be read, or the second corner is not below and right of
    the first; and where width, height or a centre is named: a corner with width and height, or two boxes, would be guessed at.

    >>> read_box('{"bbox_2d": [10, 20, 110, 220]}'), read_box("x1=1, x2=3, y1=2, y2=4"), read_box("[10, 20, 5, 5]")
    ((10.0, 20.0, 110.0, 220.0), (1.0, 2.0, 3.0, 4.0), None)
    >>> read_box("[10.5px, 20.5px, 110.5px, 220.5px]"), read_box("x: 10, y: 20, width: 110, height: 220")
    ((10.5, 20.5, 110.5, 220.5), None)
    """
    inner = _inner(text)
    found = _NUMBER.findall(inner)
    units = [re.sub(r"[^a-z%]", "", each.lower()).removesuffix("s") for each in found]
    alike = len(set(units)) == 1 or not any(units[:-1])  # "10, 20, 110, 220 px" too
    if len(found) != 4 or len(_BEGUN.findall(inner)) != 4 or not alike or _OTHER_BOX.search(inner):
        return None
    numbers = [_value(each) for each in found]
    starts = [each.start() for each in _NUMBER.finditer(inner)]
    named = {starts.index(each.start("value")): _corner(each) for each in _NAMED.finditer(inner)}
    if sorted(named.values()) == [0, 1, 2, 3]:
        numbers = [numbers[place] for place in sorted(named, key=lambda place: named[place])]
    elif any(place != corner for place, corner in named.items()):
        return None
    left, top, right, bottom = numbers
    return (left, top, right, bottom) if left < right and top < bottom else None


def _value(number: str) -> float:
    return float(re.sub(r"[^\d.+-]", "", number))


def _corner(match: re.Match[str]) -> int:
    return next(place for place in range(4) if match[f"c{place}"])


def box_iou(one: Box, other: Box) -> float:
    """
    Area in both boxes over area in either.

    >>> box_iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    sides = [max(0.0, min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis])) for axis in (0, 1)]
    both = sides[0] * sides[1]
    either = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - both
    return both / either if either > 0 else 0.0
