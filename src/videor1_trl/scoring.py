"""How right an answer to a benchmark's question is: by the benchmark's own rule, and by that of Video-R1's released script."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from text_to_num import alpha2digit

from .answers import judge, read_number, read_released_number
from .benchmarks import Question
from .prompts import THINK_CLOSE, THINK_OPEN, extract_answer


# 0.50, 0.55, ..., 0.95 as each script computes them: on a bound the last bit decides
_CONFIDENCE = np.linspace(0.5, 0.95, 10)
_RELEASED_CONFIDENCE = torch.arange(0.5, 0.95 + 0.05 / 2, 0.05, dtype=torch.float32)
_A_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


@dataclass(frozen=True)
class Score:
    """
    What a completion is worth.

    Args:
        answer (`str`): what it answers: the first `<answer>...</answer>`, else what follows its thoughts.
        tagged (`bool`): whether it has such a pair.
        score (`float`): in [0, 1]; the benchmark's own rule, answers read as in [`accuracy_reward`].
        released (`float`): in [0, 1]; by the rules of Video-R1's released script, which without tags takes all of it.
    """

    answer: str
    tagged: bool
    score: float
    released: float


NOTHING = Score("", False, 0.0, 0.0)  # of a question whose video cannot be read


def score(question: Question, completion: str) -> Score:
    """
    The score of a completion.

    - "accuracy": 0 or 1 for choices and numbers, [`answers.judge`] for other problem types.
    - "mra": [`mean_relative_accuracy`] of the first number in the answer, in digits or English words, whatever its unit.
    - "open": 1 if both are numbers that agree after rounding to 2 decimals, or the gold's words stand in the answer; of
      several golds, written as a list, one is enough.

    >>> question = Question("1", "count", "How many?", "regression", "10", metric="mra")
    >>> score(question, "<think>Nine?</think><answer>9 chairs</answer>")
    Score(answer='9 chairs', tagged=True, score=0.9, released=0.0)
    """
    found = extract_answer(completion)
    answer, whole = (_after_thoughts(completion), completion.strip()) if found is None else (found, found)
    if question.metric == "mra":
        gold = read_number(question.gold)[0]
        value = mean_relative_accuracy(_first_number(answer), gold)
        released = mean_relative_accuracy(read_released_number(whole), gold, strict=True)
    elif question.metric == "open":
        value = released = float(any(_says(gold, answer) for gold in _golds(question.gold)))
    else:
        value = judge(question.gold, answer, question.problem_type, options=question.options) or 0.0
        released = judge(f"<answer>{question.gold}</answer>", whole, question.problem_type, strict=True) or 0.0
    return Score(answer, found is not None, value, released)


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
        return (abs(pair[0] - pair[1]) / (abs(pair[1]) + 1e-8) < 1 - _RELEASED_CONFIDENCE).double().mean().item()
    return float((abs(found - gold) / abs(gold) <= 1 - _CONFIDENCE).mean())


def _after_thoughts(text: str) -> str:
    """What a completion without `<answer>` says once it has thought; nothing where it never ended to think."""
    if THINK_CLOSE in text:
        return text.rpartition(THINK_CLOSE)[2].strip()
    return "" if THINK_OPEN in text else text.strip()


def _first_number(answer: str) -> float:
    """The number that an answer is, else the first in it; NaN without any."""
    whole = read_number(answer)[0]
    if not math.isnan(whole):
        return whole
    found = _A_NUMBER.search(alpha2digit(answer, "en", threshold=0))
    return float(found[0].replace(",", "")) if found else math.nan


def _golds(gold: str) -> list[str]:
    """The right answers: one, or those of a list."""
    if gold.startswith("["):
        try:
            several = ast.literal_eval(gold)
        except (SyntaxError, ValueError):
            return [gold]
        if isinstance(several, list) and several:
            return [str(each) for each in several]
    return [gold]


def _says(gold: str, answer: str) -> bool:
    """Whether an open answer says the gold."""
    expected, found = read_number(gold)[0], read_number(answer)[0]
    if not math.isnan(expected):
        return round(expected, 2) == round(found, 2) if not math.isnan(found) else False
    words = r"\s+".join(map(re.escape, gold.casefold().split()))
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", answer.casefold()) is not None
