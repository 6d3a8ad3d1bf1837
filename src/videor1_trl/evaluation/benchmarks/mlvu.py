"""MLVU: nine tasks on long videos, seven of them in the dev set, scored by the mean of the tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NotRequired, TypedDict

from ..questions import Question
from .benchmark import Benchmark, bare_letter, choice, letter_of, video_in
from .letters import by_letter_in_text
from .options_in_text import split_options


_DEV = ("1_plotQA", "2_needle", "3_ego", "4_count", "5_order", "6_anomaly_reco", "7_topic_reasoning")
_OPEN_TASKS = ("8_sub_scene", "9_summary")
_OPEN = "the open tasks (sub_scene, summary), which need a model as judge (mlvu-open)"


class DevRow(TypedDict):
    """A row of the official files of the dev set, whose answer is the text of a candidate."""

    video: str
    question: str
    candidates: list[str]
    answer: str
    question_type: NotRequired[str]


class TestRow(TypedDict):
    """A row of the test set, and of a mirror of the dev set: the options stand in the question, the answer is a letter."""

    video_name: str
    question: str
    answer: str
    task_type: str


def _dev_question(row: DevRow, config: str, number: int, root: Path) -> Question:
    task, name = config.partition("_")[2], row["video"]
    asked = choice(
        task, f"{config}/{number}", row["question"], row["candidates"], letter_of(row["answer"], row["candidates"])
    )
    return replace(asked, video=str(video_in(root, _folders(config), name)), cluster=f"{config}/{name}")


def _test_question(row: TestRow, config: str, number: int, root: Path) -> Question:
    problem, options = split_options(row["question"])
    asked = choice(row["task_type"], str(number), problem, options, bare_letter(row["answer"]))
    name = row["video_name"]
    return replace(asked, video=str(video_in(root, ("", "video", "videos"), name)), cluster=name)


class OpenRow(TypedDict):
    """A row of the official files of the open tasks; `scoring_points` of sub_scene, a text or a list of them."""

    video: str
    question: str
    answer: str
    scoring_points: NotRequired[str | list[str]]


def _open_question(row: OpenRow, config: str, number: int, root: Path) -> Question:
    task, name = config.partition("_")[2], row["video"]
    points = row["scoring_points"] if task == "sub_scene" else ""
    return Question(
        f"{config}/{number}",
        task,
        row["question"],
        "free-form",
        row["answer"],
        metric="judged",
        marking="points" if points else "summary",
        rubric=points if isinstance(points, str) else "\n".join(f"- {point}" for point in points),
        video=str(video_in(root, _folders(config), name)),
        cluster=f"{config}/{name}",
    )


def _folders(config: str) -> tuple[str, ...]:
    return (f"video/{config}", config, f"MLVU/video/{config}", "")


MLVU = Benchmark(
    "mlvu",
    "MLVU/MVLU",
    configs=_DEV,
    split="test",
    question=_dev_question,
    rule=by_letter_in_text,
    data_files="json/{config}.json",
    left_out=_OPEN,
    average="tasks",
)
MLVU_TEST = Benchmark(
    "mlvu-test",
    "sy1998/MLVU_Test",
    configs=("default",),
    split="test",
    question=_test_question,
    rule=by_letter_in_text,
    left_out=_OPEN,
    note="letters up to F count, where lmms-eval 0.7.3 knows A to D",
    average="tasks",
)
MLVU_OPEN = Benchmark(
    "mlvu-open",
    "MLVU/MVLU",
    configs=(),
    split="test",
    question=_open_question,
    rule=by_letter_in_text,
    data_files="json/{config}.json",
    judged_configs=_OPEN_TASKS,
    note="two marks from 1 to 5 over the 10 that they can be: ten times its score is G-Avg, whose official judge has another prompt",
    average="tasks",
)
