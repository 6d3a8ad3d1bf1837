"""What a question of a benchmark is, and the questions of any file of Video-R1's records."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from ..data.records import load_video_r1
from ..data.selection import record_key
from ..text.prompts import PromptTemplate, as_template, extract_answer, make_prompt
from ..text.subtitles import Subtitle


@dataclass(frozen=True)
class Question:
    """
    One question of a benchmark.

    Args:
        key (`str`): names it within its benchmark.
        task (`str`): the part of the benchmark that it belongs to.
        problem (`str`): what is asked, without its options.
        problem_type (`str`): one of `PROBLEM_TYPES`; says how the answer should look.
        gold (`str`): the right answer: a letter, a number or a text.
        options (`tuple[str, ...]`): texts such as `"A. left"`.
        metric (`str`): `"accuracy"` (by problem type), `"mra"` (mean relative accuracy), `"open"` (equal numbers or words),
            `"overlap"` (of intervals of seconds: intersection over union) or `"judged"` (by a model, see [`~judging.judge`]).
        video, image (*optional*): sources that [`load_video`] and [`load_image`] take.
        clips (`tuple`): sources of several videos that are shown one after the other, in place of `video`.
        cluster (`str`): the video that it is about: questions on one video are not independent.
        groups (`dict`): further parts that figures are given for, such as `{"duration": "short"}`, or several of a kind.
        together (`dict[str, str]`): measures that count a set of questions where all of it is right: each with the set that
            this one is in, such as `{"P-Acc": "pair 7"}`.
        unfit_controls (`dict[str, str]`): controls that mean nothing for it, each with the reason.
        benchmark (`str`): whose rule says what is right, one of `BENCHMARKS`; "": that of the metric.
        template ([`PromptTemplate`], *optional*): how it is worded; `None`: as this package does.
        marking (`str`): how a judge marks it, one of `MARKINGS`: whether the answer agrees with the gold, which option it leads to,
            by points, or as a summary.
        rubric (`str`): what the judge has besides: the question with its options, or the points.
        shown (`tuple[str, ...]`): the options as the benchmark itself writes them, where it labels them otherwise.
        subtitles (`tuple[Subtitle, ...]`, *optional*): of its video, where they are to be shown; empty for a video without any.
    """

    key: str
    task: str
    problem: str
    problem_type: str
    gold: str
    options: tuple[str, ...] = ()
    metric: Literal["accuracy", "mra", "open", "overlap", "judged"] = "accuracy"
    video: object = None
    image: object = None
    clips: tuple[object, ...] = ()
    cluster: str = ""
    groups: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    together: Mapping[str, str] = field(default_factory=dict)
    unfit_controls: Mapping[str, str] = field(default_factory=dict)
    benchmark: str = ""
    template: PromptTemplate | None = None
    marking: Literal["agreement", "choice", "points", "summary"] = "agreement"
    rubric: str = ""
    shown: tuple[str, ...] = ()
    subtitles: tuple[Subtitle, ...] | None = None

    @property
    def videos(self) -> list[object]:
        """The sources of all that is shown as video."""
        return list(self.clips) or ([] if self.video is None else [self.video])

    @property
    def prompt(self) -> list[dict]:
        """The question as in training."""
        return make_prompt(self.problem, self.problem_type, self.options, self.template)

    @property
    def chance(self) -> float:
        """Expected score of a guess: one over the number of options, 0 where a number or a text is asked for."""
        return 1 / len(self.options) if self.problem_type == "multiple choice" and self.options else 0.0


class _Row(TypedDict):
    """What is read of a record in the form that [`load_video_r1`] gives it."""

    problem: str
    problem_type: str
    solution: str
    options: NotRequired[list[str] | None]
    video: str | None
    image: str | None
    videos: NotRequired[list[dict[str, object]] | None]
    path: NotRequired[str | None]
    problem_id: NotRequired[int | str | None]
    data_source: NotRequired[str | None]
    original_question_type: NotRequired[str | None]


def load_record_questions(
    source: str | Path | Sequence[str | Path],
    root: str | Path | None = None,
    *,
    prompt_template: PromptTemplate | str | Path | None = None,
    judged: bool = False,
    **options: Any,
) -> list[Question]:
    """
    Questions from Video-R1's records, its evaluation files (`eval_mvbench.json`, ...) among them.

    A question's task is its `original_question_type` where it has one, else its `data_source`, else its problem type. Problems
    of type "regression" are scored by mean relative accuracy, others as in training.

    Args:
        source, root, prompt_template, **options: as of [`load_video_r1`].
        judged (`bool`, defaults to `False`): leave the verdict on free-form answers to a judge model.

    Raises:
        What `load_video_r1` raises; `ValueError`: two questions of one key.
    """
    template = as_template(prompt_template)
    rows = load_video_r1(source, root, **options)
    questions = [_record_question(row, number) for number, row in enumerate(rows)]
    if judged:
        questions = [replace(q, metric="judged") if q.problem_type == "free-form" else q for q in questions]
    return checked_keys([replace(question, template=template) for question in questions], "")


def questions_fingerprint(questions: Sequence[Question]) -> str:
    """A checksum of all that is asked and of all right answers. Videos are known by `cluster`: their folder may move."""
    digest = hashlib.sha256()
    for each in questions:
        clip = [each.video.get("start"), each.video.get("end")] if isinstance(each.video, dict) else []
        asked = [each.key, each.problem, each.problem_type, each.gold, list(each.options), each.metric]
        digest.update(json.dumps([*asked, each.cluster, clip, each.video is None, each.image is None]).encode())
        if each.clips:
            shown = [
                {name: value for name, value in clip.items() if name != "path"}
                for clip in each.clips
                if isinstance(clip, dict)
            ]
            digest.update(json.dumps([len(each.clips), shown]).encode())
        if each.template is not None:
            digest.update(each.prompt[0]["content"].encode())
        if each.rubric:
            digest.update(json.dumps([each.marking, each.rubric]).encode())
        if each.subtitles is not None:
            digest.update(json.dumps(each.subtitles).encode())
    return digest.hexdigest()[:16]


def checked_keys(questions: list[Question], name: str) -> list[Question]:
    """
    The questions, of which there are some, each with a key of its own; `name` is what the message calls them.

    Raises:
        `ValueError`: there is none, or two have one key.
    """
    if not questions:
        raise ValueError(f"{name or 'the file'} holds no question.")
    key, count = Counter(question.key for question in questions).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{name}: {count} questions have the key {key!r}. Correct the file.")
    return questions


def _record_question(row: _Row, number: int) -> Question:
    problem_type, gold = row["problem_type"], extract_answer(row["solution"])
    assert gold is not None  # load_video_r1 checks it
    task = row.get("original_question_type") or row.get("data_source") or problem_type
    return Question(
        key=record_key(number, row.get("problem_id")),
        task=str(task),
        problem=row["problem"],
        problem_type=problem_type,
        gold=gold,
        options=tuple(row.get("options") or ()),
        metric="mra" if problem_type == "regression" else "accuracy",
        video=row["video"],
        image=row["image"],
        clips=tuple(row.get("videos") or ()),
        cluster=os.path.normpath(path) if (path := row.get("path")) else str(number),
    )
