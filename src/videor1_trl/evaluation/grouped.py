"""Figures that are no mean of single questions: sets that are right as a whole, means of tasks, and intervals found."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .estimates import Estimate, mean
from .questions import Question


THRESHOLDS = (0.3, 0.5, 0.7)  # of the overlap from which an interval counts as found


@dataclass(frozen=True)
class Whole:
    """
    How many sets of questions are right as a whole.

    Args:
        share ([`Estimate`]): of the sets all of whose questions were answered; its `questions` are sets.
        chance (`float`): what guesses would score: the mean over sets of the product of the chances of their questions.
        sizes (`tuple[int, ...]`): the sizes that these sets have.
        incomplete (`int`): sets left out because not all of their questions were asked yet.
    """

    share: Estimate
    chance: float
    sizes: tuple[int, ...]
    incomplete: int


def joined(questions: Sequence[Question], *, videos: bool) -> list[str]:
    """
    For each question a name that it shares with all that it stands in a set with, through others too; `videos`: or is on one
    video with. Where there are no sets these are the clusters, or the keys.

    >>> first, second = (Question(k, "", "", "OCR", "", together={"pair": "1"}, cluster=k) for k in "ab")
    >>> joined([first, second, Question("c", "", "", "OCR", "", cluster="c")], videos=True)
    ['a', 'a', 'c']
    """
    above: dict[str, str] = {}

    def root(name: str) -> str:
        while above.get(name, name) != name:
            above[name] = above.get(above[name], above[name])
            name = above[name]
        return name

    own = [each.cluster if videos else each.key for each in questions]
    holder: dict[tuple[str, str], str] = {}
    for name, question in zip(own, questions, strict=True):
        for each in question.together.items():
            first, second = root(holder.setdefault(each, name)), root(name)
            if first != second:
                above[second] = first
    return [root(name) for name in own]


def whole_sets(questions: Sequence[Question]) -> dict[str, list[list[Question]]]:
    """By measure: the sets that these questions make."""
    found: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        for name, which in question.together.items():
            found[name][which].append(question)
    return {name: list(sets.values()) for name, sets in found.items()}


def all_right(questions: Sequence[Question], scores: Mapping[str, float]) -> dict[str, Whole]:
    """
    The share of whole sets that are right, by measure; a set with a score missing is left out and counted.

    Sets that share a video, or a question, through others too, are one cluster: TimeBlind's two questions on the same two
    videos are not independent.

    Args:
        questions: all of the benchmark's.
        scores (`dict[str, float]`): of those answered, by key.
    """
    clusters = dict(zip([each.key for each in questions], joined(questions, videos=True), strict=True))
    found = {}
    for name, sets in whole_sets(questions).items():
        whole = [each for each in sets if all(question.key in scores for question in each)]
        if not whole:
            continue
        right = [float(all(scores[question.key] >= 1 for question in each)) for each in whole]
        found[name] = Whole(
            mean(right, [clusters[each[0].key] for each in whole]),
            math.fsum(math.prod(question.chance for question in each) for each in whole) / len(whole),
            tuple(sorted({len(each) for each in whole})),
            len(sets) - len(whole),
        )
    return found


def averages(questions: Sequence[Question], scores: Sequence[float]) -> dict[str, tuple[Estimate, float]]:
    """
    The mean of all questions and the unweighted mean of the tasks, each with its chance; empty with a single task.

    Papers differ: VLMEvalKit pools MLVU, lmms-eval averages its tasks.
    """
    sizes = Counter(question.task for question in questions)
    if len(sizes) < 2:
        return {}
    clusters = joined(questions, videos=True)
    weighted = {"pooled": [("", 1 / len(questions))] * len(questions), "mean of tasks": task_weights(questions)}
    return {
        name: (
            mean(scores, clusters, weights),
            math.fsum(question.chance * weight for question, (_, weight) in zip(questions, weights, strict=True)),
        )
        for name, weights in weighted.items()
    }


def task_weights(questions: Sequence[Question]) -> list[tuple[str, float]]:
    """Weights, as [`estimates.mean`] takes them, of the unweighted mean of tasks."""
    sizes = Counter(question.task for question in questions)
    return [(question.task, 1 / len(sizes) / sizes[question.task]) for question in questions]


def intervals_found(questions: Sequence[Question], scores: Sequence[float]) -> dict[str, Estimate]:
    """
    Of the questions for an interval: R1@t, the share whose first interval overlaps the gold by t or more, and mIoU, the mean
    overlap. Empty where there are none.
    """
    pairs = [(each.cluster, s) for each, s in zip(questions, scores, strict=True) if each.metric == "overlap"]
    if not pairs:
        return {}
    clusters, overlaps = [cluster for cluster, _ in pairs], [overlap for _, overlap in pairs]
    found = {f"R1@{bound}": mean([float(each >= bound) for each in overlaps], clusters) for bound in THRESHOLDS}
    return {**found, "mIoU": mean(overlaps, clusters)}
