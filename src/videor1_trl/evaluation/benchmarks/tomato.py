"""TOMATO: six kinds of motion, asked on people, objects and simulations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from ..questions import Question
from .benchmark import Benchmark, Found, choice, first_field, letter_at, video_in
from .guesses import letter_or_named, letters_of


class TomatoRow(TypedDict):
    """A row of the official files; `video_path` of a mirror's."""

    question: str
    options: list[str]
    answer: int
    key: NotRequired[str]
    id: NotRequired[str]
    demonstration_type: NotRequired[str]
    motion_type: NotRequired[str]
    video_path: NotRequired[str]


def _question(row: TomatoRow, config: str, number: int, root: Path) -> Question:
    gold = letter_at(row["answer"], row["options"])
    asked = choice(config, f"{config}/{number}", row["question"], row["options"], gold)
    kind, folders = row.get("demonstration_type"), ("", "videos")
    name = row.get("video_path") or f"{kind or ''}/{first_field(row, 'key', 'id')}.mp4".strip("/")
    kinds: Mapping[str, str | None] = {"demonstration": kind, "motion": row.get("motion_type")}
    groups = {each: value for each, value in kinds.items() if value}
    return replace(asked, video=str(video_in(root, folders, name)), cluster=name, groups=groups)


def _rule(question: Question, answer: str) -> Found:
    """
    The option whose capital letter stands anywhere; of several the one that stands last in brackets, else the first in order.
    Without a letter, of an answer of more than five words, the option whose text stands in it last; else lmms-eval takes an A.
    """
    text = f" {_bare(answer)} "
    letters = [letter for letter in letters_of(question) if letter in text]
    if letters:
        return letter_or_named(question, answer, max(letters, key=lambda letter: text.rfind(f"({letter})")))
    if len(text.split()) > 5:
        places = {option[0]: text.lower().rfind(option[3:].lower()) for option in question.options}
        letter = max(places, key=lambda each: places[each])
        return letter_or_named(question, answer, letter if places[letter] >= 0 else "")
    return letter_or_named(question, answer, "")


def _bare(answer: str) -> str:
    for mark in ",.!?;:'":
        answer = answer.strip(mark)
    return answer


TOMATO = Benchmark(
    "tomato",
    "yale-nlp/TOMATO",
    configs=("count", "direction", "rotation", "shape_trend", "velocity_frequency", "visual_cues"),
    split="{config}",
    question=_question,
    rule=_rule,
    note="the official system prompt is not given; the official setting shows 16 frames",
)
