"""AoTBench: the arrow of time, in clips shown forward and reversed side by side, and in questions on one clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from ..questions import Question
from .benchmark import Benchmark, bare_letter, choice, video_in
from .named_option import by_named_option
from .options_in_text import split_options


_PARTS = ("ReverseFilm", "UCF101", "Rtime_t2v", "Rtime_v2t", "AoTBench_QA")
_BOTH_WAYS = _PARTS[:3]
_WHY = "its videos show a clip forward and reversed, one behind the other, so that one order is as good as the other"


class AotRow(TypedDict):
    """A row of the official files."""

    qa_idx: int | str
    video_name: str
    question: str
    ans: str
    question_type: NotRequired[str | None]


def _question(row: AotRow, config: str, number: int, root: Path) -> Question:
    problem, options = split_options(row["question"])
    name = row["video_name"]
    asked = choice(config, f"{config}/{row['qa_idx']}", problem, options, bare_letter(row["ans"]))
    folders = [f"{above}{inner}" for above in ("", "videos/", "data_files/") for inner in ("", config)]
    return replace(
        asked,
        video=str(video_in(root, folders, name, ("", ".mp4"))),
        cluster=f"{config}/{name}",
        groups={"question type": kind} if (kind := row.get("question_type")) else {},
        unfit_controls=dict.fromkeys(("shuffled", "reversed"), _WHY) if config in _BOTH_WAYS else {},
    )


AOTBENCH = Benchmark(
    "aotbench",
    "sherryxzh/AoTBench",
    configs=_PARTS,
    split="test",
    question=_question,
    rule=by_named_option,
    data_files="data_files/input/{config}.json",
    note="options are read out of the question's text; the official setting shows 16 frames",
)
