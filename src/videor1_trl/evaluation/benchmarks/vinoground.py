"""Vinoground: two captions of the same words and their two videos; which caption, and which video, belongs to which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from ..questions import Question
from .benchmark import Benchmark, Found, bare_letter, choice, video_in
from .guesses import read_letter
from .options_in_text import split_options


_WHY = "its videos show both clips, one behind the other, and the question asks which of them it is"


class VinogroundRow(TypedDict):
    """A row of `vinoground_textscore.json` or `vinoground_videoscore.json`; `idx` is such as "12_pos" or "12_neg"."""

    idx: str
    video_name: str
    question: str
    GT: str


def _question(row: VinogroundRow, config: str, number: int, root: Path) -> Question:
    pair, _, side = row["idx"].rpartition("_")
    if side not in ("pos", "neg") or not pair:
        raise ValueError(f"idx {row['idx']!r} is not such as '12_pos' or '12_neg'")
    problem, options = split_options(row["question"])
    asked = choice(config, f"{config}/{row['idx']}", problem, options, bare_letter(row["GT"]))
    name = row["video_name"]
    folders = ("", "vinoground_videos" if config == "text" else "vinoground_videos_concated")
    return replace(
        asked,
        video=str(video_in(root, folders, name)),
        cluster=name,
        together={f"{config} score": pair, "group score": pair},
        unfit_controls={} if config == "text" else dict.fromkeys(("shuffled", "reversed"), _WHY),
    )


def _rule(question: Question, answer: str) -> Found:
    """The first character, in capitals or not, and nothing else: "(A)" and "It is A" are wrong."""
    return read_letter(question, answer[:1].upper())


VINOGROUND = Benchmark(
    "vinoground",
    "HanSolo9682/Vinoground",
    configs=("text", "video"),
    split="test",
    question=_question,
    rule=_rule,
    data_files="vinoground_{config}score.json",
    together={"text score": 2, "video score": 2, "group score": 4},
)
