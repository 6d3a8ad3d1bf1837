"""TimeLens-Bench: the queries of three data sets of grounding with their labels made anew."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from ..questions import Question
from .benchmark import Benchmark, Found, video_in
from .grounding import overlap_of, seconds_of, when


_CLOCK = re.compile(r"\b(?:\d{1,2}:\d{2}:\d{2}(?:\.\d+)?|\d{1,2}:\d{2}(?:\.\d+)?)\b")
_RANGES = (re.compile(r"(\d+\.?\d*)\s*-\s*(\d+\.?\d*)"), re.compile(r"(\d+\.?\d*)\s+to\s+(\d+\.?\d*)"))
_NUMBER = re.compile(r"\b\d+\.?\d*\b")


class TimeLensRow(TypedDict):
    """A row of the files as lmms-eval reads them; `span` is `[[start, end]]`, in seconds."""

    video_path: str
    query: str
    span: list[list[float]]


def _question(row: TimeLensRow, config: str, number: int, root: Path) -> Question:
    name = row["video_path"]
    asked = when(config, f"{config}/{number}", row["query"], row["span"])
    return replace(asked, video=str(video_in(root, ("", "videos", config), name)), cluster=f"{config}/{name}")


def _rule(question: Question, answer: str) -> Found:
    """
    The overlap of the first two times by the clock, else of the first two numbers joined by "-", else by "to", else of the first
    two that stand alone ("5s" does not).
    """
    return overlap_of(question, _first_interval(answer.lower()))


def _first_interval(text: str) -> tuple[float, float] | None:
    clock = [seconds_of(time) for time in _CLOCK.findall(text)]
    if len(clock) > 1:
        return clock[0], clock[1]
    for form in _RANGES:
        if found := form.search(text):
            return float(found[1]), float(found[2])
    numbers = [float(number) for number in _NUMBER.findall(text)]
    return (numbers[0], numbers[1]) if len(numbers) > 1 else None


TIMELENS_BENCH = Benchmark(
    "timelens-bench",
    "kcz358/timelens",
    configs=("activitynet", "charades", "qvhighlights"),
    split="{config}",
    question=_question,
    rule=_rule,
)
