"""TempCompass: actions, directions, speeds and orders in pairs of videos that differ in nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from ...text.answers import judge
from ...text.choices import LETTERS
from ..questions import Question
from .benchmark import Benchmark, Found, choice, letter_of


_LABEL = re.compile(r"(?:(?:Caption|Sentence|Option)\s+(\w)\s*:|([A-Z])[.:)])\s*")


class TempCompassRow(TypedDict):
    """A row of the official files; the options stand in the question, but for yes and no."""

    video_id: str
    dim: str
    question: str
    answer: NotRequired[str]
    mc_question: NotRequired[str]
    mc_answer: NotRequired[str]


def _question(row: TempCompassRow, config: str, number: int, root: Path) -> Question:
    video = f"videos/{row['video_id']}.mp4"
    key, answer = f"{config}/{number}", row["mc_answer" if config == "captioning" else "answer"].strip()
    if config == "captioning":
        asked = _captioning(key, row["question"], row["mc_question"], answer)
    elif config == "yes_no":
        options = ["yes", "no"]
        asked = choice(config, key, row["question"], options, letter_of(answer.lower(), options))
    else:
        problem, options = _split(row["question"])
        texts = [_LABEL.sub("", line) for line in options]
        asked = choice(config, key, problem, texts, letter_of(answer, options), shown=options)
    return replace(asked, video=str(root / video), cluster=video, groups={"dimension": row["dim"]})


def _captioning(key: str, problem: str, choice_text: str, answer: str) -> Question:
    """A description is right that leads a judge, who has not seen the video, to the right option."""
    text, lines = _split(choice_text)
    of_choice = choice("captioning", key, text, [_LABEL.sub("", line) for line in lines], letter_of(answer, lines))
    rubric = "\n".join((text, *of_choice.options))
    return Question(
        key, "captioning", problem, "free-form", of_choice.gold, metric="judged", marking="choice", rubric=rubric
    )


def _split(text: str) -> tuple[str, list[str]]:
    """A question and its options, each with the label that it has there: "B. down", "Caption A: ...", "Option 2: ..."."""
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    places = [place for place, line in enumerate(lines) if _LABEL.match(line)]
    labels = "".join(found[1] or found[2] for place in places if (found := _LABEL.match(lines[place])))
    if places != list(range(places[0] if places else 0, len(lines))):
        raise ValueError(f"between or behind its options there are other lines: {lines}")
    if len(places) < 2 or labels not in (LETTERS[: len(places)], "123456789"[: len(places)]):
        raise ValueError(f"its options are not labelled A, B, ... or 1, 2, ...: {[lines[place] for place in places]}")
    return "\n".join(lines[: places[0]]), [lines[place] for place in places]


def _rule(question: Question, answer: str) -> Found:
    """By task; what these rules do not match a model judges in the benchmark, and here [`answers.judge`] does."""
    reads = {"yes_no": _yes_or_no, "caption_matching": _caption}.get(question.task, _labelled_choice)
    named = reads(question, answer)
    if named is not None:
        return Found(float(named == question.gold), True)
    value = judge(question.gold, answer, "multiple choice", options=question.options) or 0.0
    return Found(value, bool(value))


def _labelled_choice(question: Question, answer: str) -> str | None:
    if answer in question.shown:
        return question.options[question.shown.index(answer)][0]
    if answer in ("A", "B", "C", "D") or answer[:2] in [letter + mark for letter in "ABCD" for mark in ".)"]:
        return answer[0]
    return None


def _yes_or_no(question: Question, answer: str) -> str | None:
    said = next((word for word in ("yes", "no") if answer.lower().startswith(word)), None)
    return next((option[0] for option in question.options if option[2:].strip().lower() == said), None)


def _caption(question: Question, answer: str) -> str | None:
    """An option as it is shown ("Caption A: ..."), its sentence, or its label with or without the kind of thing it is."""
    found = None
    behind = answer.split(") ")[1] if ") " in answer else None
    for option, line in zip(question.options, question.shown, strict=True):
        label, _, sentence = line.partition(": ")
        labels = label, re.sub("Sentence |Option |Caption ", "", label)
        said = answer in (line, sentence) or behind == sentence
        if said or any(each in (answer, answer.replace(".", "")) for each in labels):
            found = option[0]
    return found


TEMPCOMPASS = Benchmark(
    "tempcompass",
    "lmms-lab/TempCompass",
    configs=("multi-choice", "yes_no", "caption_matching"),
    split="test",
    question=_question,
    rule=_rule,
    left_out="captioning, which needs a model as judge (--judge_model)",
    judged_configs=("captioning",),
)
