"""Video-Holmes: suspense films whose clues lie apart, with six options a question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from ..questions import Question
from .benchmark import VIDEO_SUFFIXES, Benchmark, Found, choice, first_there


_FOLDERS = ("videos_cropped/", "videos/", "")

# A row of the official file, whose fields have capitals and spaces
HolmesRow = TypedDict(
    "HolmesRow",
    {
        "video ID": str | int,
        "Question ID": str | int,
        "Question Type": str,
        "Question": str,
        "Options": dict[str, str | None],
        "Answer": str,
    },
)


def _question(row: HolmesRow, config: str, number: int, root: Path) -> Question:
    name = str(row["video ID"])
    names = [f"{folder}{name}{suffix}" for folder in _FOLDERS for suffix in VIDEO_SUFFIXES]
    video = first_there([*(root / each for each in names), *(root / "Benchmark" / each for each in names)])
    key, gold = f"{name}/{row['Question ID']}", row["Answer"].strip()
    asked = choice(row["Question Type"], key, row["Question"], row["Options"], gold)
    return replace(asked, video=str(video), cluster=name)


def _rule(question: Question, answer: str) -> Found:
    """
    The last letter in brackets, else the last before a space, else one before a period; else, in an answer of more than five
    words, the last option whose text stands in it. lmms-eval draws at random where nothing is found; here that is wrong.
    """
    text = answer
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    texts = {option[0]: option[2:].strip() for option in question.options}
    named = [letter for letter in texts if f"({letter})" in text]
    form = "({})"
    for form_ in ("{} ", "{}."):
        if not named:
            named, form = [letter for letter in texts if form_.format(letter) in text], " {} "
    places = {letter: text.rfind(form.format(letter)) for letter in named}
    if not named and len(text.split()) > 5:
        places = {
            letter: text.lower().rfind(words.lower())
            for letter, words in texts.items()
            if words.lower() in text.lower()
        }
    if not places:
        return Found(0.0, False)
    return Found(float(max(places, key=lambda letter: places[letter]) == question.gold), True)


VIDEO_HOLMES = Benchmark(
    "video-holmes",
    "TencentARC/Video-Holmes",
    configs=("default",),
    split="test",
    question=_question,
    rule=_rule,
    data_files="test_Video-Holmes.json",
)
