"""VideoMMMU: lectures of 30 subjects, whose questions ask what was seen, understood, and learnt from them."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from ..questions import Question
from .benchmark import Benchmark, Found, choice
from .letters import by_letter_in_text


_SUBJECTS = {
    "Art": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Medicine": "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy Public_Health",
    "Humanities": "History Literature Sociology Psychology",
    "Engineering": "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power Materials "
    "Mechanical_Engineering",
}
# Subject of MMMU, as in a question's id -> folder of its videos
_FOLDERS = {subject: folder for folder, subjects in _SUBJECTS.items() for subject in subjects.split()}

# What the official prompts say of the video's end, by track
_AT_END = {
    "Adaptation": "\nThe image that this question refers to is what the video shows last.",
    "Perception": "\nA quiz that the video shows at its end is not what is asked here.",
}
_AT_END["Comprehension"] = _AT_END["Perception"]

# Behind which an open answer's conclusion stands
_LEADS = (
    *("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ", "are ", "in total ", "total "),
    *("identify ", "recognize ", "calculated as ", "counted as ", "measured as ", "observed as ", "concluded as "),
    *("found to be ", "equals ", "determined to be ", "number of ", "value is ", "adds up to ", "have ", "has "),
)
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)


class VideoMmmuRow(TypedDict):
    """A row of the official files; some write the list of options as Python does."""

    id: str
    question: str
    question_type: str
    options: list[str] | str | None
    answer: object


def _question(row: VideoMmmuRow, config: str, number: int, root: Path) -> Question:
    subject = "_".join(row["id"].split("_")[1:-1])
    folder = _FOLDERS.get(subject)
    if folder is None:
        raise ValueError(f"id {row['id']!r} names no subject of MMMU")
    video = f"{folder}/{row['id']}.mp4"
    key, answer = f"{config}/{row['id']}", str(row["answer"]).strip()
    options, kind = _options(row.get("options") or []), row["question_type"]
    problem = row["question"] + _AT_END[config]
    if (kind in ("multiple-choice", "perception")) != bool(options):
        raise ValueError(f"a question of the type {kind!r} with the options {options!r} is neither a choice nor open")
    if options:
        asked = choice(config, key, problem, options, answer)
    else:
        asked = Question(key, config, problem, "free-form", answer, metric="open")
    return replace(asked, video=str(root / video), cluster=video, groups={"discipline": folder})


def _options(given: list[str] | str) -> list[str]:
    """A list, also one that is written as Python does."""
    try:
        return ast.literal_eval(given) if isinstance(given, str) else given
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the options {given!r} are no list") from error


def _rule(question: Question, answer: str) -> Found:
    return open_rule(question, answer) if question.metric == "open" else by_letter_in_text(question, answer)


def open_rule(question: Question, answer: str) -> Found:
    """
    What stands behind the last word that leads to an answer ("is", "so", "=" in the last line, ...), line by line, and the
    numbers in it: right where it holds the gold's text, or has its number after rounding to 2 decimals.
    """
    if not answer:
        return Found(0.0, False)
    golds = [each for gold in golds_of(question.gold) for each in _normalised(gold)]
    said = _conclusions(answer)
    said += [number for each in said for number in _numbers_in(each)]
    found = [each for text in said for each in _normalised(text)]
    texts = [each for each in found if isinstance(each, str)]
    right = any(gold in text for gold in golds if isinstance(gold, str) for text in texts)
    right = right or any(each in golds for each in found if not isinstance(each, str))
    return Found(float(right), True)


def _numbers_in(text: str) -> list[str]:
    """What the patterns find; run by run, since the second looks for an exponent behind every digit of a long number."""
    found = [number for pattern in (_NUMBERS[0], _NUMBERS[2]) for number in pattern.findall(text)]
    return found + [
        number for run in re.findall(r"[-+.\deE]+", text) if len(run) <= 400 for number in _NUMBERS[1].findall(run)
    ]


def _conclusions(answer: str) -> list[str]:
    """The shortest end of each line behind a lead; the whole answer where no line has one."""
    whole = answer.strip().strip(".").lower()
    lines, found = whole.split("\n"), []
    for place, line in enumerate(lines):
        leads = (*_LEADS, "=") if place == len(lines) - 1 else _LEADS
        ends = [line.rpartition(lead)[2].strip() for lead in leads if lead in line]
        shortest = ""
        for end in ends:  # an empty end gives way to the next, as in lmms-eval
            if not shortest or len(end) < len(shortest):
                shortest = end
        if shortest and shortest not in (":", ",", ".", "!", "?", ";", "'"):
            found.append(shortest)
    return found or [whole]


def _normalised(text: str) -> list[str | float]:
    """A number rounded to 2 decimals, else the text in small letters; a single character with a space on either side."""
    text = text.strip()
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        number = math.nan
    if not math.isnan(number):
        return [round(number, 2)]
    text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def golds_of(gold: str) -> list[str]:
    """The right answers: one, or those of a list."""
    if gold.startswith("["):
        try:
            several = ast.literal_eval(gold)
        except (SyntaxError, ValueError):
            return [gold]
        if isinstance(several, list) and several:
            return [str(each) for each in several]
    return [gold]


VIDEOMMMU = Benchmark(
    "videommmu",
    "lmms-lab/VideoMMMU",
    configs=("Perception", "Comprehension", "Adaptation"),
    split="test",
    question=_question,
    rule=_rule,
)
