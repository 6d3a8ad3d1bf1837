"""How close an answer is to the gold, by problem type: this package's rules and those of Video-R1's released code."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import jiwer
from nltk.stem.porter import PorterStemmer
from rapidfuzz.distance import LCSseq
from rouge_score.rouge_scorer import RougeScorer

from .prompts import extract_answer


_ROUGE = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
_stem = lru_cache(maxsize=100_000)(PorterStemmer().stem)
_MAX_NUMBER_CHARS = 1_000
_MAX_ROUGE_CHARS = 2_000  # gold and answer together, for rouge-score itself

# A letter alone, in brackets, or before one of ". : )"; what follows the mark is the option's text.
_CHOICE = re.compile(r"(?:\(([a-z])\)[.:]?|([a-z])(?:[.:)]|$))(.*)", re.IGNORECASE | re.DOTALL)
# A letter that stands alone in that text names a second option, unless it is the word "a" or "I" before another word.
_LONE_LETTER = re.compile(r"(?<![\w'’])(?![aI]\s+(?!or\b|and\b)\w|A\s+(?!or\b|and\b)\w)([A-Za-z])(?![\w'’])")
# sign, currency sign, digits with or without commas that set off groups, then a unit without digits
_NUMBER = re.compile(
    r"([+-]?)([$€£¥]?)((?:(?:\d{1,3}(?:,\d{2,3})*,\d{3}|\d+)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(\D*)", re.DOTALL
)
_OPTIONAL_UNITS = ("%", "$", "€", "£", "¥")  # an answer may leave these out


def judge(
    gold, answer: str | None, problem_type: str, *, strict: bool = False, options: Sequence[str] = ()
) -> float | None:
    """
    Accuracy of one answer by the rule of its problem type.

    Args:
        gold (`str`, a number or `None`): the right answer in `<answer>` tags; without tags it is taken whole.
        answer (`str`, *optional*): what the completion answers; `None`, no answer, counts as an empty one.
        problem_type (`str`): one of `PROBLEM_TYPES`.
        strict (`bool`, defaults to `False`): the released rules, for which a gold without tags is empty.
        options (`Sequence[str]`, defaults to none): of a choice, such as `"A. left"`: an answer may repeat the whole of one.

    Returns:
        `float` in [0, 1]; `None` where the gold gives nothing to compare with.

    >>> judge("<answer>B</answer>", "(b) left", "multiple choice"), judge("3", "3.0", "OCR"), judge(None, "3", "OCR")
    (1.0, 0.0, None)
    """
    if gold is None:
        return None
    gold, answer = str(gold), answer or ""
    tagged = extract_answer(gold)
    if strict:
        return _RELEASED_RULES[problem_type](tagged or "", answer)
    gold = gold.strip() if tagged is None else tagged
    if gold and problem_type == "multiple choice":
        return float(_choice(gold, options) == _choice(answer, options))
    return _RULES[problem_type](gold, answer) if gold else None


# --- choices -----------------------------------------------------------------------------------------------------


def _choice(text: str, options: Sequence[str] = ()) -> str:
    """
    The letter an answer names, in upper case; else its text without regard to case and white space.

    What follows the letter may be the text of that option, whatever it holds; in other text a lone letter is another choice.
    """
    letter, rest = _label(text)
    if letter:
        repeated = [(label, words.casefold()) for label, words in map(_label, options)]
        if (letter, rest.casefold()) in repeated:
            return letter
        if all(other.upper() == letter for other in _LONE_LETTER.findall(rest)):
            return letter
    return " ".join(text.split()).casefold()


def _label(text: str) -> tuple[str, str]:
    """The letter that a text begins with, in upper case, and what follows it; no letter where there is none."""
    text = " ".join(text.split())
    label = _CHOICE.fullmatch(text)
    return ((label[1] or label[2]).upper(), label[3].strip()) if label else ("", text)


def _released_same_choice(gold: str, answer: str) -> float:
    return float(gold == answer)


# --- numbers: NaN stands for what is no number -------------------------------------------------------------------


def _same_number(gold: str, answer: str) -> float | None:
    expected, found = _numbers(gold, answer)
    return None if math.isnan(expected) else _equal(expected, found)


def _closeness(gold: str, answer: str) -> float | None:
    expected, found = _numbers(gold, answer)
    return None if math.isnan(expected) else _near(expected, found)


def _released_same_number(gold: str, answer: str) -> float:
    if bool({".", ","} & set(gold)) != bool({".", ","} & set(answer)):
        return 0.0
    return _equal(read_released_number(gold), read_released_number(answer))


def _released_closeness(gold: str, answer: str) -> float:
    return _near(read_released_number(gold), read_released_number(answer), excess=1e-9)


def _equal(expected: float, found: float) -> float:
    """1.0 if both agree after rounding to 2 decimals; NaN equals nothing."""
    return float(round(expected, 2) == round(found, 2))


def _near(expected: float, found: float, excess: float = 0.0) -> float:
    """1 - relative error, at least 0, which NaN earns too; the released rule has an `excess` on every error."""
    error = (abs(found - expected) + excess) / (abs(expected) + 1e-9)
    return 1.0 - error if error < 1 else 0.0


def _numbers(gold: str, answer: str) -> tuple[float, float]:
    """Gold and answer as numbers; an answer in another unit than the gold is none."""
    (expected, unit), (found, found_unit) = read_number(gold), read_number(answer)
    same_unit = found_unit == unit or (found_unit == "" and unit in _OPTIONAL_UNITS)
    return expected, found if same_unit else math.nan


def read_number(text: str) -> tuple[float, str]:
    """The finite number a text states and its unit, "" for none."""
    if len(text) > _MAX_NUMBER_CHARS or not (match := _NUMBER.fullmatch(text.replace("−", "-"))):
        return math.nan, ""
    sign, currency, digits, unit = match.groups()
    value = float(sign + digits.replace(",", ""))
    if math.isinf(value) or unit[:1].isnumeric():  # 5½ is not 5
        return math.nan, ""
    return value, currency + unit.rstrip(" .")


def read_released_number(text: str) -> float:
    """The finite number that Python's `float` reads once commas are removed."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return math.nan
    return math.nan if math.isinf(value) else value


# --- texts -------------------------------------------------------------------------------------------------------


def _words_read(gold: str, answer: str) -> float:
    """1 - word error rate, at least 0. Twice the gold's words mean as many insertions or more: 0 without counting."""
    expected, found = gold.split(), answer.split()
    if not expected or len(found) >= 2 * len(expected):
        return float(expected == found)
    return max(0.0, 1.0 - jiwer.wer(" ".join(expected), " ".join(found)))


def _rouge(gold: str, answer: str) -> float:
    if gold.split() == answer.split():
        return 1.0
    return _released_rouge(gold, answer) if len(answer) <= max(4_096, 8 * len(gold)) else 0.0


def _released_rouge(gold: str, answer: str) -> float:
    """Mean of the ROUGE-1, ROUGE-2 and ROUGE-L F-measures of Porter stems."""
    if len(gold) + len(answer) > _MAX_ROUGE_CHARS:
        return _long_rouge(gold, answer)
    return sum(score.fmeasure for score in _ROUGE.score(gold, answer).values()) / 3


def _long_rouge(gold: str, answer: str) -> float:
    """What rouge-score gives, without its table of every pair of words, which takes minutes for a megabyte."""
    words = [[_stem(w) if len(w) > 3 else w for w in re.findall("[a-z0-9]+", t.lower())] for t in (gold, answer)]
    pairs = [list(pairwise(w)) for w in words]
    common_and_total = [
        *((sum((Counter(a) & Counter(b)).values()), len(a) + len(b)) for a, b in (words, pairs)),
        (LCSseq.similarity(*words), len(words[0]) + len(words[1])),
    ]
    return sum(2 * common / total for common, total in common_and_total if total) / 3


_RULES: dict[str, Callable[[str, str], float | None]] = {
    "numerical": _same_number,
    "OCR": _words_read,
    "free-form": _rouge,
    "regression": _closeness,
}
_RELEASED_RULES: dict[str, Callable[[str, str], float]] = {
    "multiple choice": _released_same_choice,
    "numerical": _released_same_number,
    "OCR": _words_read,
    "free-form": _released_rouge,
    "regression": _released_closeness,
}
