"""TVBench: ten tasks of MVBench's form whose answers fall to chance once frames are shuffled."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ..questions import Question
from .benchmark import Benchmark, Found, choice, letter_of, video_in
from .guesses import letters_of, read_letter
from .mvbench import MvbenchRow, bounds_of


_TASKS = (
    *("action_antonym", "action_count", "action_localization", "action_sequence", "egocentric_sequence"),
    *("moving_direction", "object_count", "object_shuffle", "scene_transition", "unexpected_action"),
)


def _question(row: MvbenchRow, config: str, number: int, root: Path) -> Question:
    """`action_antonym` is of NTU RGB+D, which is downloaded apart, under its own licence."""
    gold = letter_of(row["answer"], row["candidates"])
    asked = choice(config, f"{config}/{number}", row["question"], row["candidates"], gold)
    path = str(video_in(root, (f"video/{config}", config, "video", ""), row["video"]))
    bounds = bounds_of(row)
    return replace(asked, video={"path": path, **bounds} if bounds else path, cluster=f"{config}/{row['video']}")


def _rule(question: Question, answer: str) -> Found:
    """
    The first letter that stands alone, in capitals or not, if an option has it; else the first character, if an option has it;
    else the option whose text alone stands in the answer.
    """
    text, letters = answer.strip().upper(), letters_of(question)
    for found in (re.search(r"\b([A-Z])\b", text), re.match(r"[(\[]?([A-Z])", text)):
        if found and found[1] in letters:
            return read_letter(question, found[1])
    words = " ".join(answer.lower().split())
    there = [option[0] for option in question.options if " ".join(option[3:].lower().split()) in words]
    return read_letter(question, there[0] if len(there) == 1 else "")


TVBENCH = Benchmark(
    "tvbench",
    "FunAILab/TVBench",
    configs=_TASKS,
    split="train",
    question=_question,
    rule=_rule,
)
