"""Orders and boxes in texts: "2, 3, 1" and "[10, 20, 110, 220]"; how near two orders are, and how far two boxes overlap."""

from __future__ import annotations

import re

from .prompts import extract_answer


Box = tuple[float, float, float, float]  # left, top, right, bottom

_NUMBER = re.compile(r"(?<![\w.])[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?![\w])")  # not the 2 of "bbox_2d" or of "x2"
_LONGEST = 2_000  # characters of an answer that is looked into


def _inner(text: str | None) -> str:
    """What a text answers, or all of it where it has no tags."""
    tagged = extract_answer(text or "")
    return ((text or "") if tagged is None else tagged)[:_LONGEST]


def read_order(text: str | None) -> list[str]:
    """
    The parts that a text lists, in its order: numbers, whatever words stand between them; else letters or words; or digits or
    letters without marks between them.

    >>> read_order("<answer>3, 1, 2</answer>"), read_order("312"), read_order("(B), (a)"), read_order("clip 2, then clip 1")
    (['3', '1', '2'], ['3', '1', '2'], ['B', 'A'], ['2', '1'])
    """
    inner = _inner(text)
    words = re.findall(r"\d+", inner) or re.findall(r"[A-Za-z]+", inner)
    if len(words) == 1 and len(words[0]) > 1:
        words = list(words[0])
    return [_digits(word) if word.isdecimal() else word.upper() for word in words]


def _digits(word: str) -> str:
    """A number in the digits 0 to 9, whatever script it is in, without leading zeros."""
    return "".join(str(int(digit)) for digit in word).lstrip("0") or "0"


def is_order(parts: list[str]) -> bool:
    """Whether these are two or more parts, each once."""
    return len(parts) > 1 and len(set(parts)) == len(parts)


def order_score(found: list[str], gold: list[str]) -> float:
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


def read_box(text: str | None) -> Box | None:
    """
    The one box that a text names by its corners, `x1, y1, x2, y2`: left, top, right, bottom, from the upper left of the picture,
    in whatever brackets and with whatever names. `None` where there are more or fewer than four numbers, or the second corner
    is not below and right of the first: a corner with width and height, or two boxes, would be guessed at.

    >>> read_box('{"bbox_2d": [10, 20, 110, 220]}'), read_box("x1=1, y1=2, x2=3, y2=4"), read_box("[10, 20, 5, 5]")
    ((10.0, 20.0, 110.0, 220.0), (1.0, 2.0, 3.0, 4.0), None)
    """
    numbers = [float(number) for number in _NUMBER.findall(_inner(text))]
    if len(numbers) != 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]


def names_numbers(text: str | None) -> bool:
    """Whether a text that is no box may have been meant as one."""
    return bool(_NUMBER.search(_inner(text)))


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
