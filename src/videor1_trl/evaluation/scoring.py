"""How right an answer to a benchmark's question is: by the benchmark's own rule, and by that of Video-R1's released script."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..text.answers import judge, read_number, read_released_number
from ..text.choices import labelled, read_choice
from ..text.messages import THINK_CLOSE, THINK_OPEN
from ..text.prompts import extract_answer
from .benchmarks import BENCHMARKS
from .benchmarks.benchmark import Found
from .benchmarks.grounding import by_overlap
from .benchmarks.videommmu import open_rule
from .benchmarks.vsibench import first_number, mean_relative_accuracy, states_several
from .questions import Question


@dataclass(frozen=True)
class Score:
    """
    What a completion is worth.

    Args:
        answer (`str`): what it answers: the first `<answer>...</answer>` behind its thoughts, else all that follows them.
        tagged (`bool`): whether it has such a pair.
        score (`float`): in [0, 1]; by the benchmark's own rule.
        released (`float`): in [0, 1]; by the rules of Video-R1's released script, which without tags takes all of it.
        names_one (`bool`): whether the answer names an option, a number or a text at all, by the benchmark's rule.
    """

    answer: str
    tagged: bool
    score: float
    released: float
    names_one: bool


NOTHING = Score("", False, 0.0, 0.0, False)  # of a question whose video cannot be read


def score(question: Question, completion: str, verdict: float | None = None) -> Score:
    """
    The score of a completion, by the rule of the question's benchmark ([`by_rule`]) and by that of Video-R1's released script.

    Args:
        verdict (`float`, *optional*): of a judge, in [0, 1], on a question of the metric `"judged"`; both scores are then its.

    >>> question = Question("1", "count", "How many?", "regression", "10", metric="mra")
    >>> score(question, "<think>Nine?</think><answer>9 chairs</answer>")
    Score(answer='9 chairs', tagged=True, score=0.9, released=0.0, names_one=True)
    """
    found = extract_answer(completion)
    answer = answer_of(completion)
    if question.metric == "judged":
        return Score(answer, found is not None, float(verdict or 0), float(verdict or 0), bool(answer))
    released = extract_answer(completion, strict=True)
    whole = completion.strip() if released is None else released  # the released script reads the first pair of tags
    by_benchmark = by_rule(question, answer)
    if question.metric == "mra":
        value = mean_relative_accuracy(read_released_number(whole), read_number(question.gold)[0], strict=True)
    elif question.metric in ("open", "overlap"):  # the script knows no intervals
        value = by_benchmark.score
    else:
        value = judge(f"<answer>{question.gold}</answer>", whole, question.problem_type, strict=True) or 0.0
    return Score(answer, found is not None, by_benchmark.score, value, by_benchmark.names_one)


def answer_of(completion: str) -> str:
    """What a completion answers: the first `<answer>...</answer>` behind its thoughts, else all that follows them."""
    found = extract_answer(completion)
    return _after_thoughts(completion) if found is None else found


def by_rule(question: Question, answer: str) -> Found:
    """The score of an answer by the rule of the question's benchmark, else (of records) by that of its metric."""
    if question.benchmark in BENCHMARKS:
        return BENCHMARKS[question.benchmark].rule(question, answer)
    rules = {"accuracy": _as_in_training, "mra": _relative, "open": open_rule, "overlap": by_overlap}
    return rules[question.metric](question, answer)


def _as_in_training(question: Question, answer: str) -> Found:
    """By [`accuracy_reward`]'s rules."""
    value = judge(question.gold, answer, question.problem_type, options=question.options) or 0.0
    if question.problem_type != "multiple choice" or not question.options:
        return Found(value, bool(answer))
    letters = [letter for letter, _ in labelled(question.options)]
    return Found(value, read_choice(answer, question.options) in letters)


def _relative(question: Question, answer: str) -> Found:
    """By VSI-Bench's relative accuracy, of one number that may have commas and units; a range is none, as in training."""
    whole = read_number(answer)[0]
    several = math.isnan(whole) and states_several(answer)
    number = math.nan if several else first_number(answer) if math.isnan(whole) else whole
    return Found(mean_relative_accuracy(number, read_number(question.gold)[0]), not math.isnan(number))


def _after_thoughts(text: str) -> str:
    """What a completion without `<answer>` says once it has thought; nothing where it never ended to think."""
    if THINK_CLOSE in text:
        return text.rpartition(THINK_CLOSE)[2].strip()
    return "" if THINK_OPEN in text else text.strip()
