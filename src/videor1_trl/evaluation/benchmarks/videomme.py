"""Video-MME: videos of seconds to an hour, of six domains, without their subtitles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from ..questions import Question
from .benchmark import VIDEO_SUFFIXES, Benchmark, SubtitleFile, choice, first_there
from .letters import by_letter_in_text


class VideoMmeRow(TypedDict):
    """A row of the official files."""

    videoID: str
    question_id: str
    task_type: str
    duration: str
    domain: str
    question: str
    options: list[str]
    answer: str


def _question(row: VideoMmeRow, config: str, number: int, root: Path) -> Question:
    folder = root / "data" if (root / "data").is_dir() else root
    video = first_there([folder / f"{row['videoID']}{suffix}" for suffix in VIDEO_SUFFIXES])
    groups = {"duration": row["duration"], "domain": row["domain"]}
    key, gold = str(row["question_id"]), row["answer"].strip()
    asked = choice(row["task_type"], key, row["question"], row["options"], gold)
    return replace(asked, video=str(video), cluster=row["videoID"], groups=groups)


def _subtitles(row: VideoMmeRow, root: Path) -> SubtitleFile | None:
    """`subtitle/VIDEO.srt`, of most videos; the others have none."""
    folder = next((root / name for name in ("subtitle", "subtitles") if (root / name).is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"{root / 'subtitle'}: there is no such folder. Unpack subtitle.zip into media_root.")
    path = folder / f"{row['videoID']}.srt"
    return SubtitleFile(path) if path.is_file() else None


VIDEOMME = Benchmark(
    "videomme",
    "lmms-lab/Video-MME",
    configs=("videomme",),
    split="test",
    question=_question,
    rule=by_letter_in_text,
    subtitles=_subtitles,
)
