"""TimeBlind: two questions on two videos that differ in time alone; all four are right, or time was not seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from ..questions import Question
from .benchmark import Benchmark, bare_letter, choice, letter_of, video_in
from .named_option import by_named_option
from .options_in_text import split_options


_YES_NO = ["Yes", "No"]


class TimeBlindRow(TypedDict):
    """A row of the official file; four of an instance stand in the order q0v0, q0v1, q1v0, q1v1."""

    index: int
    video_path: str
    question: str
    answer: str
    type: str


def _question(row: TimeBlindRow, config: str, number: int, root: Path) -> Question:
    instance, place = divmod(int(row["index"]), 4)
    problem, kind, key = row["question"].strip(), row["type"], str(row["index"])
    if kind == "yes_no":
        asked = choice(kind, key, problem, _YES_NO, letter_of(row["answer"].strip().capitalize(), _YES_NO))
    elif kind == "multiple_choice":
        problem, options = split_options(problem)
        asked = choice(kind, key, problem, options, bare_letter(row["answer"]))
    else:
        raise ValueError(f"the type {kind!r} is neither 'yes_no' nor 'multiple_choice'")
    sets = {"Q_Acc": f"{instance}/q{place // 2}", "V_Acc": f"{instance}/v{place % 2}", "I_Acc": str(instance)}
    name = row["video_path"]
    return replace(asked, video=str(video_in(root, ("", "videos"), name)), cluster=name, together=sets)


def _check(questions: Sequence[Question]) -> None:
    """Two of a question ask the same, two of a video are on it: else the rows stand in another order than is known."""
    for measure, what in (("Q_Acc", "problem"), ("V_Acc", "cluster")):
        found: dict[str, set[str]] = defaultdict(set)
        for question in questions:
            found[question.together.get(measure, question.key)].add(getattr(question, what))
        for which, values in found.items():
            if len(values) > 1:
                kind = "question" if what == "problem" else "video"
                raise ValueError(
                    f"timeblind: rows of instance {which.split('/')[0]} that should share a {kind} have {sorted(values)}. "
                    "The rows are not in the order q0v0, q0v1, q1v0, q1v1 by their index."
                )


TIMEBLIND = Benchmark(
    "timeblind",
    "BaiqiL/TimeBlind",
    configs=("default",),
    split="test",
    question=_question,
    rule=by_named_option,
    data_files="data.jsonl",
    together={"Q_Acc": 2, "V_Acc": 2, "I_Acc": 4},
    check=_check,
)
