"""MMVU: questions of experts in 27 subjects on specialised videos, of which the multiple-choice ones are asked."""

from __future__ import annotations

import re
import string
from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from ..questions import Question
from .benchmark import Benchmark, Found, LeftOut, choice, first_field
from .letters import LONE_A_TO_E


class MmvuRow(TypedDict):
    """A row of the official file, or of a mirror."""

    id: str
    video: NotRequired[str]
    video_path: NotRequired[str]
    question_type: str
    question: str
    choices: dict[str, str | None]
    answer: str


def _question(row: MmvuRow, config: str, number: int, root: Path) -> Question | LeftOut:
    kind = row["question_type"]
    if kind == "open-ended":
        return LeftOut("open-ended, which needs a model as judge (--judge_model)")
    if kind != "multiple-choice":
        raise ValueError(f"the question_type {kind!r} is neither 'multiple-choice' nor 'open-ended'")
    video = _video(row)
    asked = choice(Path(video).parent.name, str(row["id"]), row["question"], row["choices"], row["answer"].strip())
    return replace(asked, video=str(root / video), cluster=video)


def _open_question(row: MmvuRow, config: str, number: int, root: Path) -> Question:
    video, gold = _video(row), row["answer"].strip()
    task, kind = Path(video).parent.name, "free-form"
    return Question(
        str(row["id"]), task, row["question"], kind, gold, metric="judged", video=str(root / video), cluster=video
    )


def _video(row: MmvuRow) -> str:
    """`videos/SUBJECT/NUMBER.mp4`; the column may be a URL, and is `video_path` in lmms-eval's mirror."""
    named = str(first_field(row, "video", "video_path"))
    found = re.search(r"videos/.+", named)
    path = found[0] if found else named
    if not Path(path).parent.name:
        raise ValueError(f"the video {named!r} lies in no folder of a subject")
    return path


def _rule(question: Question, answer: str) -> Found:
    """The gold's letter alone anywhere, in capitals or not, or the text of its option; so an answer of all letters is right."""
    texts = {option[0]: option[2:].strip().lower() for option in question.options}
    text, gold = answer.strip(), question.gold
    names_one = LONE_A_TO_E.search(text) is not None or any(each in text.lower() for each in texts.values() if each)
    right = re.search(rf"\b{re.escape(gold)}\b", text, re.IGNORECASE) is not None or texts[gold] in text.lower()
    if not right and gold in text.upper():  # a letter within a word, and a word of the option
        words = [word.strip(string.punctuation) for word in texts[gold].split()]
        right = any(word in text.lower() for word in words if len(word) > 2)
    return Found(float(right), names_one or right)


MMVU = Benchmark(
    "mmvu",
    "yale-nlp/MMVU",
    configs=("default",),
    split="validation",
    question=_question,
    rule=_rule,
    judged=_open_question,
    left_out="open-ended questions, which need a model as judge (--judge_model)",
)
