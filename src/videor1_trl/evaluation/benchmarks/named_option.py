"""The rule of benchmarks that lmms-eval has not, and where a script guesses: an answer names one option, or is wrong."""

from __future__ import annotations

from ...text.choices import read_choice
from ..questions import Question
from .benchmark import Found


def by_named_option(question: Question, answer: str) -> Found:
    """
    The option that an answer names in one way only, by its letter or its text, as [`accuracy_reward`] reads it in training.

    So are AoTBench, DyBench and TimeBlind read, and what the scripts of TOMATO, LongVideoBench and MINERVA would guess about, which
    lifts weak models.
    """
    letter = read_choice(answer, question.options, is_letter=True)
    return Found(float(letter == question.gold), letter in [option[0] for option in question.options])
