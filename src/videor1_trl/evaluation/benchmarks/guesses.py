"""Where a benchmark's script guesses: what counts instead where it reads nothing, and the first capital letter of two of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..questions import Question
from .benchmark import Found
from .named_option import by_named_option


_LEADS = ("The best answer is", "The correct answer is", "The answer is", "The answer")


def letter_or_named(question: Question, answer: str, letter: str) -> Found:
    """
    The score of the letter that a script reads. Without one ("") it would guess, at random or an A; here the option counts that
    the answer names in one way, as in training, and an answer that names none is wrong.
    """
    if not letter:
        return by_named_option(question, answer)
    return read_letter(question, letter)


def read_letter(question: Question, letter: str) -> Found:
    """The score of a letter that was read; "" is wrong."""
    return Found(float(letter == question.gold), letter in letters_of(question))


def letters_of(question: Question) -> list[str]:
    """The letters of a question's options."""
    return [option[0] for option in question.options]


def first_capital(answer: str, more_leads: Sequence[str] = ()) -> str:
    """
    The first capital letter from A to E anywhere in an answer, even within a word, once its leads ("The answer is") are gone.

    >>> first_capital("The answer is B, not A"), first_capital("Because of C"), first_capital("b")
    ('B', 'B', '')
    """
    text = answer.strip()
    for lead in (*_LEADS, *more_leads):
        text = text.replace(lead, "")
    found = re.search("[A-E]", text)
    return found[0] if found else ""
