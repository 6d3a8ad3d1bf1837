"""MVBench: twenty tasks on what happens in short videos of eleven data sets, some of them clips or folders of frames."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from ..questions import Question
from .benchmark import Benchmark, Found, choice, letter_of
from .letters import LONE_A_TO_E


_BOUND = ("action_sequence", "action_prediction", "object_interaction", "action_localization", "episodic_reasoning")

# Part -> folder of the original videos, folder of the cut clips of the Hub's branch `video`
_FOLDERS = {
    "action_sequence": ("star/Charades_v1_480", "star/Charades_segment"),
    "action_prediction": ("star/Charades_v1_480", "star/Charades_segment"),
    "object_interaction": ("star/Charades_v1_480", "star/Charades_segment"),
    "action_localization": ("sta/sta_video", "sta/sta_video_segment"),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment"),
    "action_antonym": ("ssv2_video", "ssv2_video_mp4"),
    "fine_grained_pose": ("nturgbd", "nturgbd_convert"),
    **dict.fromkeys(
        (
            "object_existence",
            "moving_direction",
            "moving_count",
            "moving_attribute",
            "counterfactual_inference",
        ),
        ("clevrer/video_validation",) * 2,
    ),
    **dict.fromkeys(("object_shuffle", "action_count", "state_change", "character_order"), ("perception/videos",) * 2),
    "fine_grained_action": ("Moments_in_Time_Raw/videos",) * 2,
    "unexpected_action": ("FunQA_test/test",) * 2,
    "scene_transition": ("scene_qa/video",) * 2,
    "egocentric_navigation": ("vlnqa",) * 2,
}
_MARKS = ';/[]"{}()=+\\_-><@`,?!'


class MvbenchRow(TypedDict):
    """A row of the official files; `start` and `end`, in seconds, where the video is a clip of another."""

    video: str
    question: str
    candidates: list[str]
    answer: str
    start: NotRequired[float | None]
    end: NotRequired[float | None]


def _question(row: MvbenchRow, config: str, number: int, root: Path) -> Question:
    gold = letter_of(row["answer"], row["candidates"])
    asked = choice(config, f"{config}/{number}", row["question"], row["candidates"], gold)
    cluster = f"{_FOLDERS[config][0]}/{row['video']}"  # two folders share base names
    return replace(asked, video=_video(row, config, root), cluster=cluster)


def _video(row: MvbenchRow, config: str, root: Path) -> str | dict[str, object]:
    """The clip's source: within the original video, a folder of its frames, or a file that was cut already."""
    original, cut = _FOLDERS[config]
    name, bounds = row["video"], bounds_of(row)
    for folder in (f"{original}", f"data0613/{original}"):
        path = root / folder / name
        if not path.exists():
            continue
        if config in _BOUND and not bounds:
            raise ValueError(f"start and end are missing, of which {path} is asked about a part")
        if path.is_dir():  # TVQA: the frames of a video, 3 a second
            return {"frames": str(path), "fps": 3.0, **bounds}
        return {"path": str(path), **bounds} if bounds else str(path)
    # of the Hub's branch `video`, whose clips are cut, and written anew as mp4
    clips = [root / cut / each for each in (name, f"{Path(name).stem}.mp4", f"{name}.mp4")]
    return str(next((clip for clip in clips if clip.exists()), root / original / name))


def bounds_of(row: MvbenchRow) -> dict[str, object]:
    """
    The `start` and `end` of a row, in seconds; nothing where it has neither.

    Raises:
        `ValueError`: one without the other, or an end that is not behind its start.
    """
    start, end = row.get("start"), row.get("end")
    if start is None and end is None:
        return {}
    if start is None or end is None or not float(start) < float(end):
        raise ValueError(f"start ({start}) and end ({end}) bound no clip")
    return {"start": float(start), "end": float(end)}


def _rule(question: Question, answer: str) -> Found:
    """The letter before a period, else the first of A to E that stands alone, in capitals or not, once marks are removed."""
    letter = _letter(answer)
    right = letter == _letter(question.gold)
    return Found(float(right), right or letter in [option[0] for option in question.options])


def _letter(answer: str) -> str:
    text = answer.strip()
    if found := re.match(r"([A-E])\.\s*(.+)$", text, re.IGNORECASE):
        return found[1].upper()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    between_digits = re.search(r"\d,\d", text) is not None
    without = text
    for mark in _MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        without = without.replace(mark, "" if beside_space or between_digits else " ")
    # lmms-eval hands re.UNICODE (32) to `sub` where the number of replacements stands: so many periods go
    text = re.sub(r"\.(?!\d)", "", without, count=32)
    text = text.strip("'").strip('"').strip(")").strip("(").strip().lower()
    found = LONE_A_TO_E.search(text)
    return found[1].upper() if found else text


MVBENCH = Benchmark(
    "mvbench", "OpenGVLab/MVBench", configs=tuple(_FOLDERS), split="train", question=_question, rule=_rule
)
