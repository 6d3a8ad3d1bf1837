"""LongVideoBench: videos of up to an hour, asked about a moment that the question describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...text.messages import Columns
from ..questions import Question
from .benchmark import Benchmark, Found, SubtitleFile, choice, letter_at, video_in
from .guesses import first_capital, letter_or_named


def _question(row: Columns, config: str, number: int, root: Path) -> Question:
    """A row of the official file: `option0` to `option4` ("N/A" for none), `correct_choice` counted from 0."""
    options = [row[f"option{place}"] for place in range(5) if row.get(f"option{place}") not in (None, "N/A", "")]
    behind_none = [row.get(f"option{place}") for place in range(len(options))]
    if behind_none != options:
        raise ValueError(f"an option that is 'N/A' stands before others: {behind_none}")
    gold = letter_at(row["correct_choice"], options)
    task = str(row.get("question_category") or "all")
    asked = choice(task, str(row["id"]), row["question"], options, gold)
    name = row["video_path"]
    duration = row.get("duration_group")
    return replace(
        asked,
        video=str(video_in(root, ("videos", ""), name)),
        cluster=name,
        groups={} if duration is None else {"duration group": str(duration)},
    )


def _subtitles(row: Columns, root: Path) -> SubtitleFile:
    """`subtitles/`, a file for each video; it counts from the beginning of the film that the video is a part of."""
    path = video_in(root, ("subtitles", ""), str(row["subtitle_path"]))
    return SubtitleFile(path, float(row.get("starting_timestamp_for_subtitles") or 0.0))


def _rule(question: Question, answer: str) -> Found:
    """The first capital letter; its script draws an option where there is none."""
    letter = first_capital(answer, ("The best option is", "The correct option is", "Best answer:", "Best option:"))
    return letter_or_named(question, answer, letter)


LONGVIDEOBENCH = Benchmark(
    "longvideobench",
    "longvideobench/LongVideoBench",
    configs=("default",),
    split="validation",
    question=_question,
    rule=_rule,
    data_files="lvb_val.json",
    subtitles=_subtitles,
    note="the official setting puts subtitles between the frames, and some questions speak of them; here they stand behind the "
    "video, with --subtitles",
)
