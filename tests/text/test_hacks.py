"""Answers that were rewarded without knowing: what each earns by this package's rules, by the released ones, and what is open."""

import time
from typing import NamedTuple

import pytest

from videor1_trl import accuracy_reward, format_reward, get_accuracy_reward
from videor1_trl.cold_start.rationales import CotRules, judge_completion
from videor1_trl.text.answers import judge
from videor1_trl.text.words import EMPTY_WORDS


class Hack(NamedTuple):
    problem_type: str
    gold: str
    answer: str
    most: float  # that it earns
    released: float  # that it earns at least by the released rules
    is_open: bool = False  # not closed: an honest answer of that form cannot be told from it
    completion: str = "<think>?</think><answer>{}</answer>"


ON_THE_SOFA = "The man is in the kitchen and the dog is on the sofa"
HACKS = {
    "stop words": Hack("free-form", ON_THE_SOFA, "the is in the and the is on the", 0.0, 0.5),
    "articles": Hack("free-form", "the ball on the table", "the on the", 0.0, 0.5),
    "zero for a small number": Hack("numerical", "0.003", "0", 0.0, 0.0),
    "zero with decimals": Hack("numerical", "0.004", "0.00", 0.0, 1.0),
    "both letters": Hack("multiple choice", "B", "A or B", 0.0, 0.0),
    "all letters": Hack("multiple choice", "B", "A, B, C, D", 0.0, 0.0),
    "a letter taken back": Hack("multiple choice", "B", "B, or maybe A", 0.0, 0.0),
    "infinity": Hack("regression", "5", "inf", 0.0, 0.0),
    "a range": Hack("regression", "5", "4-6", 0.0, 0.0),
    "a list of numbers": Hack("numerical", "5", "4, 5, 6", 0.0, 0.0),
    "every word": Hack("free-form", "a red car", "red blue green car dog cat man woman left right up down", 0.0, 0.1),
    "every word and the empty ones": Hack(
        "free-form", "a red car", "a the red blue green car dog cat man woman left right up down is to", 0.0, 0.1
    ),
    "a word many times": Hack("free-form", "a red car", "car car car car car car", 0.3, 0.0),
    "an answer within thoughts": Hack(
        "multiple choice", "B", "B", 0.0, 1.0, completion="<think><answer>{}</answer></think>"
    ),
    "an answer within thoughts without end": Hack(
        "multiple choice", "B", "B", 0.0, 1.0, completion="<think>first I see <answer>{}</answer>"
    ),
    "each option in turn": Hack(
        "multiple choice", "B", "B", 0.0, 0.0, completion="<think>?</think><answer>A</answer><answer>{}</answer>"
    ),
    "a range in words": Hack("regression", "5", "between 4 and 6", 0.0, 0.0),
    "the gold's first word": Hack("OCR", "exit", "exit " * 3, 0.0, 0.0),
    "stop words and one word": Hack(
        "free-form", ON_THE_SOFA, "the man is in the and the is on the", 0.81, 0.5, is_open=True
    ),
    "a mean for every number": Hack("regression", "5", "6", 0.8, 0.7, is_open=True),
}


@pytest.mark.parametrize("name", HACKS)
def test_what_an_answer_that_knows_nothing_earns(name):
    hack = HACKS[name]
    answers = [hack.completion.format(hack.answer)]
    columns = {"solution": [f"<answer>{hack.gold}</answer>"], "problem_type": [hack.problem_type]}
    columns |= {"options": [["A. a", "B. b", "C. c", "D. d"]]} if hack.problem_type == "multiple choice" else {}
    [own], [released] = accuracy_reward(answers, **columns), get_accuracy_reward(strict=True)(answers, **columns)
    assert own <= hack.most + 1e-9 and released >= hack.released - 1e-9
    assert hack.is_open == (hack.most > 0.3)


@pytest.mark.parametrize(
    "gold, answer, least",
    [
        (ON_THE_SOFA, "The man is in the kitchen, the dog on the sofa", 0.8),
        ("to the left", "left", 0.2),
        ("on it", "on it", 1.0),
        ("he is", "he was", 0.3),  # a gold of such words alone is compared as before
        ("before", "before", 1.0),
        ("no", "not", 0.0),
        ("up", "it goes up", 0.3),
        ("a red car", "A man in a red car turns left at the crossing", 0.2),  # 7 words that tell something
        ("the man opens the door", "First the man walks in, then he turns and opens the door of the room", 0.3),
    ],
)
def test_honest_short_answers_keep_what_they_earned(gold, answer, least):
    assert judge(gold, answer, "free-form") >= least


@pytest.mark.parametrize(
    "word", ["before", "after", "up", "down", "left", "right", "no", "not", "yes", "out", "off", "two", "-", "5"]
)
def test_words_that_carry_answers_are_not_empty(word):
    assert word not in EMPTY_WORDS


@pytest.mark.parametrize(
    "gold, answer, expected",
    [
        ("0.003", "0.003", 1.0),
        ("0.003", "0.0030", 1.0),
        ("0.003", "3e-3", 1.0),
        ("0.0031", "0.003", 0.0),
        ("0.00312", "0.0031", 1.0),  # two digits that count
        ("-0.003", "0.003", 0.0),
        ("0.003", "text", 0.0),
        ("0", "0", 1.0),
        ("0", "0.004", 1.0),  # two decimals, as ever
        ("0.005", "0.01", 1.0),
        ("0.02", "0.019", 1.0),
    ],
)
def test_small_numbers_agree_in_two_digits(gold, answer, expected):
    assert judge(gold, answer, "numerical") == expected


@pytest.mark.parametrize(
    "unit",
    [
        "y",
        ",111",
        "1",
        "the ",
        "A ",
        "(",
        "**",
        "\\boxed{",
        "the answer is ",
        " or",
        "'",
        "ก",
        "左",
        ".",
        "²",
        "\u0301",
        " ",
    ],
)
def test_no_answer_takes_long(unit):
    """100,000 characters of what a loop writes, against short and long golds; each rule looks at them a few times."""
    answer = unit * (100_000 // len(unit))
    for problem_type in ("multiple choice", "numerical", "OCR", "free-form", "regression"):
        for gold in ("B", "5", "x " * 2000):
            for strict in (False, True):
                since = time.process_time()
                judge(gold, answer, problem_type, strict=strict, options=["A. left", "B. right"])
                assert time.process_time() - since < 5


@pytest.mark.parametrize("unit", ["<think>", "<think> <answer>", "</think>", "<answer>", "</answer><think>"])
def test_no_text_of_tags_takes_long(unit):
    """The search for a rationale began anew at every tag: 200,000 characters took 24 s."""
    text, since = unit * (200_000 // len(unit)), time.process_time()
    verdict = judge_completion({"text": text, "num_tokens": 1, "finished": True}, "B", "multiple choice", CotRules())
    assert verdict.reason == "no_rationale" and format_reward([text]) == [0.0]
    assert time.process_time() - since < 5
