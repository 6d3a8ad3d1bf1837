"""Where a letter stands in an answer of free text: the search that lmms-eval uses for several benchmarks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..questions import Question
from .benchmark import Found


LONE_A_TO_E = re.compile(r"\b([A-E])\b", re.IGNORECASE)

# Phrases behind which the answer's letter stands, in the languages that lmms-eval knows
_KINDS = ("answer", "correct answer", "best answer", "correct option", "best option", "choice", "correct choice")
_PHRASES = (
    *(f"{lead}{kind} is" for lead in ("", "the ") for kind in _KINDS),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
_START, _END, _PHRASE, _BRACKETS, _PERIOD, _COLON, _PARENTHESIS, _SPACE = 10, 9, 7, 6, 5, 4, 3, 2
_FORMS = ((_BRACKETS, "({})"), (_PERIOD, "{}."), (_COLON, "{}:"), (_PARENTHESIS, "{})"), (_SPACE, "{} "))


def letter_in_text(answer: str, letters: Sequence[str]) -> str:
    """
    The letter that an answer names, by lmms-eval's search for one in free text; "" without any.

    Of all the places in which a letter stands the one in the most telling form counts (alone at the beginning, alone at the
    end, behind a phrase, in brackets, before a period, a colon, a parenthesis, a space), and of several in that form the last.
    A capital letter anywhere is the last resort.
    """
    text = answer.strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    text = f" {text} "
    if not text.strip():
        return ""
    places = _places(text, letters)
    if not places:
        places = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    if not places:
        return ""
    weight, place, _ = max(places, key=lambda found: found[:2])
    return next(letter for *found, letter in places if found == [weight, place])


def _places(text: str, letters: Sequence[str]) -> list[tuple[int, int, str]]:
    """How telling, where, and which letter, for each form in which one stands."""
    places: list[tuple[int, int, str]] = []
    for letter in letters:
        for weight, form in _FORMS:
            place = text.rfind(form.format(letter))
            if place >= 0:
                places.append((weight, place, letter))
    lowered = text.lower()
    for phrase in _PHRASES:
        begin = lowered.find(phrase)
        for letter in letters if begin >= 0 else ():
            place = text.find(letter, begin + len(phrase))
            if place >= 0:
                places.append((_PHRASE, place, letter))
    inner = text.strip()
    for letter in letters:
        if inner.startswith(letter) and not inner[1:2].isalpha():
            places.append((_START, 0, letter))
        if inner.endswith(letter) and not inner[-2:-1].isalpha():
            places.append((_END, len(text) - 1, letter))
    return places


def by_letter_in_text(question: Question, answer: str) -> Found:
    """The rule of Video-MME, and of VideoMMMU's choices."""
    letter = letter_in_text(answer, [option[0] for option in question.options])
    return Found(float(letter == question.gold), bool(letter))
