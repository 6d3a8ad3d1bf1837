"""LVBench: videos of an hour on average; a question may be of several types, and counts for each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from ...text.messages import Columns
from ..questions import Question
from .benchmark import VIDEO_SUFFIXES, Benchmark, Fields, bare_letter, choice, video_in
from .letters import by_letter_in_text
from .options_in_text import split_options


class LvBenchRow(TypedDict):
    """A line of the official file: a video, known by its address on YouTube, with its questions."""

    key: str
    type: NotRequired[str | None]
    qa: list[Columns]


def _questions(row: LvBenchRow, config: str, number: int, root: Path) -> list[Question]:
    name, kind = row["key"], row.get("type")
    video = str(video_in(root, ("", "videos", "all_videos"), name, VIDEO_SUFFIXES))
    found = []
    for each in map(Fields, row["qa"]):
        problem, options = split_options(each["question"])
        types = each["question_type"]
        types = (types,) if isinstance(types, str) else tuple(types)
        asked = choice(kind or "all", f"{name}/{each['uid']}", problem, options, bare_letter(each["answer"]))
        found.append(replace(asked, video=video, cluster=name, groups={"question type": types}))
    return found


LVBENCH = Benchmark(
    "lvbench",
    "zai-org/LVBench",
    configs=("default",),
    split="test",
    question=_questions,
    rule=by_letter_in_text,
    data_files="video_info.meta.jsonl",
    note="the videos are not hosted: say how many you had",
)
