"""MINERVA: questions that take several steps over a long video, with five options each."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ...text.messages import Columns
from ..questions import Question
from .benchmark import VIDEO_SUFFIXES, Benchmark, Found, choice, first_field, letter_at, letter_of, video_in
from .guesses import letter_or_named


_STATED = re.compile(r"(?:answer|option)\s*(?:is|:)\s*([A-E])", re.IGNORECASE)
_LEADS = ("The best answer is", "The correct answer is", "The answer is", "Answer:", "Option:")


def _question(row: Columns, config: str, number: int, root: Path) -> Question:
    """A row of the official file: `answer_choice_0` to `_4`, and `answer_id`, counted from 0, or the answer's text."""
    options = [str(row[f"answer_choice_{place}"]) for place in range(5)]
    place = row.get("answer_id")
    gold = letter_of(str(row["answer"]), options) if place is None else letter_at(place, options)
    name = str(row["video_id"])
    kind = first_field(row, "question_type", "question type")
    kinds = (kind,) if isinstance(kind, str) else tuple(kind)
    asked = choice("+".join(kinds), str(row["key"]), row["question"], options, gold)
    groups = {each: str(row[each]) for each in ("split", "category") if row.get(each)}
    video = video_in(root, ("", "videos"), name, VIDEO_SUFFIXES)
    return replace(asked, video=str(video), cluster=name, groups=groups)


def _rule(question: Question, answer: str) -> Found:
    """The last letter that "answer is" or "option:" leads in, else the last capital from A to E; its script draws one without."""
    letters = _STATED.findall(answer)
    if not letters:
        for lead in _LEADS:
            answer = answer.replace(lead, "")
        letters = re.findall("[A-E]", answer)
    return letter_or_named(question, answer, letters[-1].upper() if letters else "")


MINERVA = Benchmark(
    "minerva",
    "lmms-lab-eval/minerva",
    configs=("default",),
    split="test",
    question=_question,
    rule=_rule,
    data_files="minerva.json",
    note="the videos are not hosted: say how many you had",
)
