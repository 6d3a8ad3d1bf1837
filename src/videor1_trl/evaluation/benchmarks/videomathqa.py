"""VideoMathQA: mathematics explained in videos; five options, or a choice of two for each wrong option, all to be right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from ..questions import Question
from .benchmark import VIDEO_SUFFIXES, Benchmark, Found, SubtitleFile, bare_letter, choice, video_in
from .guesses import first_capital, read_letter


class VideoMathRow(TypedDict):
    """A row of the official files."""

    videoID: str
    question_id: int | str
    question: str
    options: list[str]
    answer: str
    category: str
    length: NotRequired[str | None]


def _question(row: VideoMathRow, config: str, number: int, root: Path) -> Question:
    name, which = str(row["videoID"]), str(row["question_id"])
    key = f"{config}/{number}/{which}"  # the binary rows of a question share its id
    asked = choice(row["category"], key, row["question"], row["options"], bare_letter(row["answer"]))
    return replace(
        asked,
        video=str(video_in(root, ("videos", ""), name, VIDEO_SUFFIXES)),
        cluster=name,
        groups={"length": length} if (length := row.get("length")) else {},
        together={"MBin": which} if config == "multi_binary" else {},
    )


def _subtitles(row: VideoMathRow, root: Path) -> SubtitleFile | None:
    """`subtitles/VIDEO.srt`; a video without speech has none."""
    if not (root / "subtitles").is_dir():
        raise FileNotFoundError(
            f"{root / 'subtitles'}: there is no such folder. Unpack subtitles.zip into media_root."
        )
    path = root / "subtitles" / f"{row['videoID']}.srt"
    return SubtitleFile(path) if path.is_file() else None


def _rule(question: Question, answer: str) -> Found:
    """The first capital letter; nothing is wrong. lmms-eval's other two leads are joined to one, which no answer has."""
    return read_letter(question, first_capital(answer))


VIDEOMATHQA = Benchmark(
    "videomathqa",
    "MBZUAI/VideoMathQA",
    configs=("mcq", "multi_binary"),
    split="test",
    question=_question,
    rule=_rule,
    default=("mcq",),
    subtitles=_subtitles,
    together={"MBin": None},
    one_part=True,
)
