"""Charades-STA: when a sentence happens in a video of half a minute at home."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..questions import Question
from .benchmark import Benchmark, Found, first_field, video_in
from .grounding import overlap_of, seconds_of, when


_EXAMPLE = "a specific example is : 20.8 - 30.0 seconds"  # of lmms-eval's prompt, which a model may repeat
_TOLD = ("start", "end", "happen")
_CLOCK = re.compile(r"\b(\d{1,2}:\d{2}(?::\d{2})?)\b")
_CLOCKS = re.compile(r"\b(\d{1,2}:\d{2}(?::\d{2})?)\s*[–-]\s*(\d{1,2}:\d{2}(?::\d{2})?)\b")
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*[–-]\s*(\d+(?:\.\d+)?)")
_SPACED = re.compile(r"(\d+(?:\.\d+)?)\s*s?\s*[–-]\s*(\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"\b(\d+(?:\.\d+)?)\b")


def _question(row: Mapping[str, object], config: str, number: int, root: Path) -> Question:
    """A row of lmms-eval's files (`video`, `caption`, `timestamp`), or of others (`video_file`, `query`, `relevant_windows`)."""
    query, span = first_field(row, "caption", "query"), first_field(row, "timestamp", "relevant_windows")
    asked = when("charades", str(number), str(query), span, row.get("duration"))
    name = str(first_field(row, "video", "video_file"))
    return replace(asked, video=str(video_in(root, ("Charades_v1_480", ""), name)), cluster=name)


def _rule(question: Question, answer: str) -> Found:
    """
    The overlap of the first interval that the lines tell which speak of a start, an end or a happening, else of all: two times
    by the clock with a dash ("to" is one), two numbers with a dash, any two times by the clock, the first numbers of two lines,
    two numbers of which an s may stand behind the first. One that ends before it begins is turned.
    """
    lines = re.split(r"[!?\n]", answer.lower().replace(_EXAMPLE, "").replace("to", "-"))
    found = _first_interval([line for line in lines if any(word in line for word in _TOLD)] or lines)
    return overlap_of(question, None if found is None else (min(found), max(found)))


def _first_interval(lines: Sequence[str]) -> tuple[float, float] | None:
    for line in lines:
        if found := _CLOCKS.search(line):
            return seconds_of(found[1]), seconds_of(found[2])
    if found := next(filter(None, map(_SECONDS.search, lines)), None):
        return float(found[1]), float(found[2])
    times = [seconds_of(clock) for line in lines for clock in _CLOCK.findall(line)]
    if len(times) > 1:
        return times[0], times[1]
    numbers = [float(found[1]) for line in lines if (found := _NUMBER.search(line))]
    if len(numbers) > 1:
        return numbers[0], numbers[1]
    if found := next(filter(None, map(_SPACED.search, lines)), None):
        return float(found[1]), float(found[2])
    return None


CHARADES_STA = Benchmark(
    "charades-sta",
    "lmms-eval/charades_sta",
    configs=("default",),
    split="test",
    question=_question,
    rule=_rule,
    note="labels are noisy: TimeLens finds a third of them imprecise; report timelens-bench beside it",
)
