"""MotionBench: fine-grained motion in short videos, six kinds of questions with their options in the text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from ..questions import Question
from .benchmark import Benchmark, Fields, Found, LeftOut, bare_letter, choice, video_in
from .options_in_text import split_options


_LEADS = ("THE BEST ANSWER IS", "THE CORRECT ANSWER IS", "THE ANSWER IS", "BEST ANSWER:", "ANSWER:")
_FORMS = (r"\b([A-F])\b", r"([A-F])[.):]", "([A-F])")  # alone, before a mark, anywhere


class MotionBenchRow(TypedDict):
    """A line of the official file: a video with its questions, whose answer is "NA" where the key is kept back."""

    key: str
    video_path: str
    question_type: str
    video_type: NotRequired[str | None]
    qa: list[Mapping[str, str]]


def _questions(row: MotionBenchRow, config: str, number: int, root: Path) -> list[Question | LeftOut]:
    name = row["video_path"]
    folders = ("", "videos", "public-dataset", "self-collected", "MotionBench")
    video = str(video_in(root, folders, name))
    found: list[Question | LeftOut] = []
    for place, each in enumerate(map(Fields, row["qa"])):
        gold = bare_letter(each["answer"])
        if gold == "NA":
            found.append(LeftOut("its key is kept back"))
            continue
        try:
            problem, options = split_options(each["question"])
        except ValueError:  # of one option, as the file has a few, or in another form than is known
            found.append(LeftOut("its text holds no two options"))
            continue
        asked = choice(row["question_type"], str(each.get("uid") or f"{row['key']}/{place}"), problem, options, gold)
        groups = {"video type": kind} if (kind := row.get("video_type")) else {}
        found.append(replace(asked, video=video, cluster=name, groups=groups))
    return found


def _rule(question: Question, answer: str) -> Found:
    """The first letter from A to F, in capitals or not: alone, else before a mark, else within a word. Nothing is wrong."""
    text = answer.upper()
    for lead in _LEADS:
        text = text.replace(lead, "")
    letters = (found[1] for form in _FORMS if (found := re.search(form, text)))
    letter = next(letters, "")
    return Found(float(letter == question.gold), bool(letter))


MOTIONBENCH = Benchmark(
    "motionbench",
    "zai-org/MotionBench",
    configs=("default",),
    split="test",
    question=_questions,
    rule=_rule,
    data_files="video_info.meta.jsonl",
    left_out="questions whose key is kept back, and those whose text holds no two options",
)
