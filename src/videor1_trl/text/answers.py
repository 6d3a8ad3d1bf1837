"""How close an answer is to the gold, by problem type: this package's rules and those of Video-R1's released code."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import jiwer
from rapidfuzz.distance import LCSseq
from rouge_score.rouge_scorer import RougeScorer

from .choices import bare, read_choice
from .intervals import length_of, read_intervals, temporal_iou
from .places import box_iou, is_order, order_score, read_box, read_order
from .prompts import extract_answer
from .words import EMPTY_WORDS, spaced, stem, words_of


class _Words:
    """The tokenizer of `words_of` as rouge-score takes one."""

    tokenize = staticmethod(words_of)


_ROUGE = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())
_RELEASED_ROUGE = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
_MAX_NUMBER_CHARS = 1_000
_MAX_ROUGE_CHARS = 2_000  # gold and answer together, for rouge-score itself
_LISTED_WORDS = 8  # different words that tell something, from which on an answer may be a list of guesses

# sign, currency sign, digits with or without commas that set off groups, then a unit without digits
_NUMBER = re.compile(
    r"([+-]?)([$€£¥]?)((?:(?:\d{1,3}(?:,\d{2,3})*,\d{3}|\d+)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(\D*)", re.DOTALL
)
_ASSIGNED = re.compile(r"^(?:\\?[A-Za-z]+(?:_\{?\w+\}?)?)?\s*[=:]\s*(?=[-+−–]?\s*\W{0,2}[.\d\\])")
_OPTIONAL_UNITS = ("%", "$", "€", "£", "¥")  # an answer may leave these out


def judge(
    gold: str | float | None,
    answer: str | None,
    problem_type: str,
    *,
    strict: bool = False,
    options: Sequence[str] = (),
) -> float | None:
    """
    Accuracy of one answer by the rule of its problem type.

    Args:
        gold (`str`, a number or `None`): the right answer in `<answer>` tags; without tags it is taken whole.
        answer (`str`, *optional*): what the completion answers; `None`, no answer, counts as an empty one.
        problem_type (`str`): one of `PROBLEM_TYPES`.
        strict (`bool`, defaults to `False`): the released rules, for which a gold without tags is empty.
        options (`Sequence[str]`, defaults to none): of a choice, such as `"A. left"`: gold and answer may be the text of one.

    Returns:
        `float` in [0, 1]; `None` where the gold gives nothing to compare with.

    >>> judge("<answer>B</answer>", "(b) left", "multiple choice"), judge("3", "3.0", "OCR"), judge(None, "3", "OCR")
    (1.0, 0.0, None)
    >>> judge("right", "B", "multiple choice", options=["A. left", "B. right"]), judge("5", "x = 5", "numerical")
    (1.0, 1.0)
    """
    if gold is None:
        return None
    gold, answer = str(gold), answer or ""
    tagged = extract_answer(gold, strict=True)  # no thoughts stand in a gold
    if strict:
        return _RELEASED_RULES[problem_type](tagged or "", answer)
    gold = gold.strip() if tagged is None else tagged
    if gold and problem_type == "multiple choice":
        named = read_choice(gold, options)
        return float(named == read_choice(answer, options, is_letter=len(named) == 1 and named.isupper()))
    return _RULES[problem_type](gold, answer) if gold else None


def _released_same_choice(gold: str, answer: str) -> float:
    return float(gold == answer)


# --- numbers: NaN stands for what is no number -------------------------------------------------------------------


def _same_number(gold: str, answer: str) -> float | None:
    expected, found = _numbers(gold, answer)
    if 0 < abs(expected) < 0.005:  # two decimals leave nothing of it, and 0 would be right
        return float(f"{expected:.1e}" == f"{found:.1e}")
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
    (expected, unit), (found, found_unit) = read_number(_value(gold)), read_number(_value(answer))
    same_unit = found_unit == unit or (found_unit == "" and unit in _OPTIONAL_UNITS)
    return expected, found if same_unit else math.nan


def _value(text: str) -> str:
    """A number without what it is led in by, wrapped in, or said to be the value of: "x = 5" """
    if len(text) > _MAX_NUMBER_CHARS:
        return text
    inner = bare(_ASSIGNED.sub("", bare(text))).replace("\\%", "%").replace("\\$", "$").replace("{,}", ",")
    inner = re.sub(r"^\((.*)\)$", r"\1", inner.replace("–", "-"))
    return re.sub(r"^([-+])\s+(?=[.\d])", r"\1", inner)


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
    return _word_accuracy(spaced(gold), spaced(answer))


def _released_words_read(gold: str, answer: str) -> float:
    return _word_accuracy(gold.split(), answer.split())


def _word_accuracy(expected: list[str], found: list[str]) -> float:
    """1 - word error rate, at least 0. Twice the gold's words mean as many insertions or more: 0 without counting."""
    if not expected or len(found) >= 2 * len(expected):
        return float(expected == found)
    return max(0.0, 1.0 - jiwer.wer(" ".join(expected), " ".join(found)))


def _rouge(gold: str, answer: str) -> float:
    """
    Mean of the ROUGE-1, ROUGE-2 and ROUGE-L F-measures of `words_of` both texts; 1 where they say the same, 0 where they have
    nothing in common but articles, prepositions, auxiliaries and the like, unless the gold is made of these, and where less than
    a quarter of the words that an answer lists are the gold's.
    """
    if gold.split() == answer.split():
        return 1.0
    if len(answer) > max(4_096, 8 * len(gold)):
        return 0.0
    words = words_of(gold), words_of(answer)
    if words[0] == words[1] != []:
        return 1.0
    telling, said = set(words[0]) - EMPTY_WORDS, set(words[1]) - EMPTY_WORDS
    if telling and telling.isdisjoint(said):
        return 0.0
    if len(said) >= _LISTED_WORDS and 4 * len(telling & said) < len(said):
        return 0.0
    short = len(gold) + len(answer) <= _MAX_ROUGE_CHARS
    return _mean_measure(_ROUGE, gold, answer) if short else _long_rouge(*words)


def _released_rouge(gold: str, answer: str) -> float:
    """The same of rouge-score's own words: runs of a to z and 0 to 9."""
    if len(gold) + len(answer) <= _MAX_ROUGE_CHARS:
        return _mean_measure(_RELEASED_ROUGE, gold, answer)
    return _long_rouge(*([stem(w) for w in re.findall("[a-z0-9]+", text.lower())] for text in (gold, answer)))


def _mean_measure(scorer: RougeScorer, gold: str, answer: str) -> float:
    return sum(score.fmeasure for score in scorer.score(gold, answer).values()) / 3


def _long_rouge(gold: list[str], answer: list[str]) -> float:
    """What rouge-score gives for these words, without its table of every pair of them, which takes minutes for a megabyte."""
    words = [gold, answer]
    pairs = [list(pairwise(each)) for each in words]
    common_and_total = [
        *((sum((Counter(a) & Counter(b)).values()), len(a) + len(b)) for a, b in (words, pairs)),
        (LCSseq.similarity(*words), len(words[0]) + len(words[1])),
    ]
    return sum(2 * common / total for common, total in common_and_total if total) / 3


# --- times, orders and boxes ---------------------------------------------------------------------------------------


def _same_time(gold: str, answer: str) -> float | None:
    expected = read_intervals(gold)
    return temporal_iou(read_intervals(answer), expected) if length_of(expected) else None


def _same_order(gold: str, answer: str) -> float | None:
    expected = read_order(gold)
    return order_score(read_order(answer, like=expected), expected) if is_order(expected) else None


def _same_box(gold: str, answer: str) -> float | None:
    expected, found = read_box(gold), read_box(answer)
    return None if expected is None else box_iou(found, expected) if found else 0.0


_OTHER_RULES: dict[str, Callable[[str, str], float | None]] = {  # of problems that Video-R1 has not
    "temporal grounding": _same_time,
    "permutation": _same_order,
    "bounding box": _same_box,
}
_RULES: dict[str, Callable[[str, str], float | None]] = {
    "numerical": _same_number,
    "OCR": _words_read,
    "free-form": _rouge,
    "regression": _closeness,
    **_OTHER_RULES,
}
_RELEASED_RULES: dict[str, Callable[[str, str], float | None]] = {
    "multiple choice": _released_same_choice,
    "numerical": _released_same_number,
    "OCR": _released_words_read,
    "free-form": _released_rouge,
    "regression": _released_closeness,
    **_OTHER_RULES,
}
