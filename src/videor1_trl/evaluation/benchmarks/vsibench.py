"""VSI-Bench: where things are, how many, how large, and in which order; choices, and numbers by their relative error."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from ..questions import Question
from .benchmark import Benchmark, Found, choice


# 0.50, 0.55, ..., 0.95 as each script computes them: on a bound the last bit decides
CONFIDENCES = np.linspace(0.5, 0.95, 10)
RELEASED_CONFIDENCES = torch.arange(0.5, 0.95 + 0.05 / 2, 0.05, dtype=torch.float32)

DIRECTIONS = "object_rel_direction"  # asked in three question types, easy to hard
CHOICES = ("obj_appearance_order", "object_rel_distance", "route_planning", DIRECTIONS)
TASKS = (
    *CHOICES,
    *("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation"),  # numbers
)

_DIGITS = re.compile(r"-?\d+(?:\.\d+)?")
_MOST = 10**15  # that is counted in words
_LONGEST = 2_000  # characters of an answer that is looked through for a range
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety hundred"
_NUMBER_WORDS = (
    {word: value for value, word in enumerate(_ONES.split())}
    | {word: 10 * tens for tens, word in enumerate(_TENS.split(), start=3)}
    | {"thousand": 1_000}
)


class VsiRow(TypedDict):
    """A row of the official files; `options` of choices alone."""

    id: int | str
    dataset: str
    scene_name: str
    question_type: str
    question: str
    options: list[str] | None
    ground_truth: str | float


def _question(row: VsiRow, config: str, number: int, root: Path) -> Question:
    video = f"{row['dataset']}/{row['scene_name']}.mp4"
    key, task, problem = f"{config}/{row['id']}", row["question_type"], row["question"]
    gold, options = str(row["ground_truth"]).strip(), row.get("options")
    kind = task_of_type(task)
    if kind is None:
        raise ValueError(f"the question_type {task!r} is of none of the tasks {', '.join(TASKS)}")
    if (kind in CHOICES) != bool(options):
        raise ValueError(f"a question of {task} with the options {options!r} is neither a choice nor a number")
    if options:
        asked = choice(task, key, problem, options, gold)
    elif not math.isfinite(_float(gold)):
        raise ValueError(f"the ground_truth {gold!r} of {task} is no number")
    else:
        asked = Question(key, task, problem, "regression", gold, metric="mra")
    return replace(asked, video=str(root / video), cluster=video, groups={"dataset": row["dataset"]})


def _rule(question: Question, answer: str) -> Found:
    """Choices: the first word, without its period. Numbers: the first in digits or English words, by relative accuracy."""
    if question.metric == "mra":
        number = first_number(answer)
        return Found(mean_relative_accuracy(number, _float(question.gold)), not math.isnan(number))
    word = answer.split(" ")[0].rstrip(".").strip()
    letters = [option[0].casefold() for option in question.options]
    return Found(float(word.lower() == question.gold.lower()), word.casefold() in letters)


def task_of_type(question_type: str) -> str | None:
    """
    The one of the eight `TASKS` that a question type belongs to; `None` for one that is not VSI-Bench's.

    >>> task_of_type("object_rel_direction_hard"), task_of_type("route_planning"), task_of_type("counting")
    ('object_rel_direction', 'route_planning', None)
    """
    task = DIRECTIONS if question_type.startswith(f"{DIRECTIONS}_") else question_type
    return task if task in TASKS else None


def first_number(answer: str) -> float:
    """
    The first number of an answer, in digits or English words, whichever comes first; NaN without any.

    >>> first_number("There are four chairs and 1 sofa."), first_number("three hundred and twenty-one"), first_number("~4-5")
    (4.0, 321.0, 4.0)
    """
    text = answer.strip().lower()
    digits = _DIGITS.search(text)
    words, begin = _first_words(text)
    if digits is not None and (begin is None or digits.start() < begin):
        return float(digits[0])
    total, current = 0, 0
    for word in words:
        if current > _MOST:  # no number that anyone means, and its digits would grow with every word
            return math.inf
        if word == "thousand":
            total, current = total + max(current, 1) * 1_000, 0
        else:
            current = max(current, 1) * 100 if word == "hundred" else current + _NUMBER_WORDS[word]
    return float(total + current) if words else math.nan


_WORD = rf"\b(?:{'|'.join(_NUMBER_WORDS)})\b"
_DIGIT = r"\d(?:[\d,]*\d)?(?:\.\d+)?"
# "and" and "-" stand within numbers that are written in words, too
_SEVERAL = re.compile(
    rf"{_DIGIT}\s*(?:[-–—~/,;]|(?:to|or|and|through)\b)\s*(?:\d|{_WORD})"
    rf"|{_WORD}\s*(?:[–—~/,;]|(?:to|or|through)\b)\s*(?:\d|{_WORD})|\bbetween\s+(?:\d|{_WORD})"
)


def states_several(answer: str) -> bool:
    """
    Whether an answer states a range or a list of numbers instead of one.

    >>> [states_several(each) for each in ("4-5", "between two and six", "3, 4 or 5", "twenty-one", "four chairs, 1 sofa")]
    [True, True, True, False, False]
    """
    return _SEVERAL.search(answer[:_LONGEST].lower()) is not None


def _first_words(text: str) -> tuple[list[str], int | None]:
    """The words of the first number that is written in words, and where it begins."""
    words: list[str] = []
    begin = None
    for found in re.finditer(r"[a-z]+", text):
        if found[0] in _NUMBER_WORDS:
            begin = found.start() if begin is None else begin
            words.append(found[0])
        elif begin is not None and found[0] != "and":
            break
    return words, begin


def mean_relative_accuracy(found: float, gold: float, *, strict: bool = False) -> float:
    """
    The share of the confidences 0.50, 0.55, ..., 0.95 that a number reaches: its relative error is at most one minus the
    confidence; with `strict`, below that.

    Source: VSI-Bench's script compares with <=, Video-R1's with <, in single precision: a relative error of one half earns
    0.1 or nothing.

    Args:
        found, gold (`float`): NaN is no number, and earns 0. With a gold of 0 only 0 is right.

    >>> mean_relative_accuracy(5.0, 10.0), mean_relative_accuracy(5.0, 10.0, strict=True)
    (0.1, 0.0)
    """
    if math.isnan(found) or math.isnan(gold):
        return 0.0
    if gold == 0:
        return float(found == 0)
    if strict:
        pair = torch.tensor([found, gold], dtype=torch.float32)
        return (abs(pair[0] - pair[1]) / (abs(pair[1]) + 1e-8) < 1 - RELEASED_CONFIDENCES).double().mean().item()
    return float((abs(found - gold) / abs(gold) <= 1 - CONFIDENCES).mean())


def _float(text: str) -> float:
    """NaN where a text is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


VSIBENCH = Benchmark(
    "vsibench",
    "nyu-visionx/VSI-Bench",
    configs=("full", "debiased", "pruned"),
    split="test",
    question=_question,
    rule=_rule,
    default=("full",),
)
