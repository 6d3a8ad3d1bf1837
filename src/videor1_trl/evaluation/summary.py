"""What the answers to a benchmark's questions are worth: scores, their parts, and what each control takes away."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from ..text.messages import Columns
from .benchmarks import BENCHMARKS
from .benchmarks.vsibench import task_of_type
from .estimates import Estimate, difference, mean
from .grouped import all_right, averages, intervals_found, joined, task_weights
from .questions import Question
from .scoring import Score


ORDERED = "ordered"


@dataclass(frozen=True)
class Answered:
    """A completion with its score; `entry` is its line of the journal, with the fields of a [`GeneratedCompletion`]."""

    entry: Columns
    score: Score


class Figures(TypedDict):
    """An [`Estimate`] in a summary."""

    value: float
    low: float | None
    high: float | None
    questions: int
    videos: int


class Part(Figures):
    """A task, or another part of the benchmark."""

    metric: str
    chance: float


class WholeSets(Figures):
    """A [`Whole`] in a summary; `questions` are sets."""

    chance: float
    sizes: list[int]
    incomplete: int


class Average(Figures):
    """One way to average, with its chance."""

    chance: float


class Control(TypedDict):
    """A control and the frames in order, on the same questions."""

    questions: int
    chance: dict[str, float]
    scores: dict[str, Figures]
    ordered_scores: dict[str, Figures]
    difference: dict[str, Figures]
    share_above_chance: float | None
    tasks: dict[str, Part]
    together: dict[str, WholeSets]


class Outputs(TypedDict):
    """What became of the completions under one condition; shares and means are `None` where there is nothing to count."""

    completions: int
    errors: int
    first_errors: list[str]
    cut_off: float | None
    no_answer: float | None
    names_none: float | None
    mean_tokens: float | None
    mean_prompt_tokens: float | None


class Summary(TypedDict):
    """All figures of a run; what each is says [`summarise`]."""

    questions: int
    videos: int
    chance: dict[str, float]
    scores: dict[str, Figures]
    averages: dict[str, Average]
    together: dict[str, WholeSets]
    intervals: dict[str, Figures]
    tasks: dict[str, Part]
    groups: dict[str, dict[str, Part]]
    outputs: dict[str, Outputs]
    controls: dict[str, Control]


Answers = Mapping[str, Mapping[str, Answered]]  # condition ("ordered" or a control) -> key of the question


def summarise(questions: Sequence[Question], answers: Answers) -> Summary:
    """
    All figures of a run, JSON-able.

    An answer that could not be had (`error`: a video that cannot be read, a prompt that is too long) counts as wrong.

    Args:
        questions (`Sequence[Question]`): of which those with an answer on ordered frames count.
        answers (`dict`): as from [`read_answers`].

    Returns:
        `dict` with `questions` and `videos` (how many), `chance`, `scores` (`official` and `video_r1`, see
        [`named_weights`]), by the benchmark's own rule `averages` (pooled, and the mean of tasks), `together` (sets that are
        right as a whole, see [`all_right`]), `intervals` (see [`intervals_found`]), `tasks` and `groups`; `outputs` per condition (`errors`, `cut_off`,
        `no_answer`: without tags; `names_none`: of which the rule reads no option, number or text; `mean_tokens`), and
        `controls`: per control its `scores` on the questions that it was asked, the ordered `scores` on the same, their
        paired `difference`, its sets `together`, and the `share_above_chance` of the official score that it takes away (`None` at or below chance).
    """
    asked = [question for question in questions if question.key in answers[ORDERED]]
    if not asked:
        raise ValueError("There is no answer yet: nothing to summarise.")
    official = _values(asked, answers[ORDERED], "official")
    return {
        "questions": len(asked),
        "videos": len({question.cluster for question in asked if question.videos}),
        "chance": _chance(asked),
        "scores": _all_figures(_scores(asked, answers[ORDERED])),
        "averages": {
            name: {**_figures(each), "chance": chance} for name, (each, chance) in averages(asked, official).items()
        },
        "together": _together(questions, answers[ORDERED]),
        "intervals": _all_figures(intervals_found(asked, official)),
        "tasks": _parts(asked, answers[ORDERED], [question.task for question in asked]),
        "groups": {
            name: _parts(asked, answers[ORDERED], [question.groups.get(name, "none") for question in asked])
            for name in sorted({name for question in asked for name in question.groups})
        },
        "outputs": {condition: _outputs(found.values()) for condition, found in answers.items() if found},
        "controls": {
            control: _control(asked, answers[ORDERED], found, _together(questions, found))
            for control, found in answers.items()
            if control != ORDERED and found
        },
    }


def named_weights(questions: Sequence[Question]) -> dict[str, list[tuple[str, float]]]:
    """
    The weight of every question in the two scores that a run is known by, as [`estimates.mean`] takes them.

    - `official`: all questions alike; of MLVU the unweighted mean of its tasks; of VSI-Bench, known by its question types, the unweighted mean of its eight tasks, of
      which `object_rel_direction` is the mean of its parts.
    - `video_r1`: all alike; where some are scored by mean relative accuracy, as in VSI-Bench, the mean of those and of the
      others, each pooled, as Video-R1's script has it.
    """
    kinds = Counter(question.metric == "mra" for question in questions)
    weights = {
        "official": [("", 1 / len(questions))] * len(questions),
        "video_r1": [(str(each.metric == "mra"), 1 / len(kinds) / kinds[each.metric == "mra"]) for each in questions],
    }
    benchmark = BENCHMARKS.get(questions[0].benchmark)
    if benchmark is not None and benchmark.average == "tasks":
        weights["official"] = task_weights(questions)
    if all(task_of_type(question.task) for question in questions):
        sizes = Counter(question.task for question in questions)
        parts = Counter(task_of_type(task) for task in sizes)
        weights["official"] = [
            (each.task, 1 / len(parts) / parts[task_of_type(each.task)] / sizes[each.task]) for each in questions
        ]
    return weights


def _scores(questions: Sequence[Question], answers: Mapping[str, Answered]) -> dict[str, Estimate]:
    clusters = joined(questions, videos=True)
    return {
        name: mean(_values(questions, answers, name), clusters, weights)
        for name, weights in named_weights(questions).items()
    }


def _values(questions: Sequence[Question], answers: Mapping[str, Answered], name: str) -> list[float]:
    found = [answers[question.key].score for question in questions]
    return [each.released if name == "video_r1" else each.score for each in found]


def _together(questions: Sequence[Question], answers: Mapping[str, Answered]) -> dict[str, WholeSets]:
    found = all_right(questions, {key: each.score.score for key, each in answers.items()})
    return {
        name: {
            **_figures(each.share),
            "chance": each.chance,
            "sizes": list(each.sizes),
            "incomplete": each.incomplete,
        }
        for name, each in found.items()
    }


def _parts(
    questions: Sequence[Question], answers: Mapping[str, Answered], parts: Sequence[str | tuple[str, ...]]
) -> dict[str, Part]:
    """The figures of each part by the benchmark's own rule; `parts` says which part, or parts, each question belongs to."""
    by_part: dict[str, list[Question]] = defaultdict(list)
    for question, part in zip(questions, parts, strict=True):
        for each in (part,) if isinstance(part, str) else part:
            by_part[each].append(question)
    return {
        part: {
            **_figures(mean(_values(each, answers, "official"), joined(each, videos=True))),
            "metric": "/".join(sorted({question.metric for question in each})),
            "chance": sum(question.chance for question in each) / len(each),
        }
        for part, each in sorted(by_part.items())
    }


def _chance(questions: Sequence[Question]) -> dict[str, float]:
    """What guesses would score: 1 over the options of a choice, 0 for a number or a text."""
    return {
        name: sum(question.chance * weight for question, (_, weight) in zip(questions, weights, strict=True))
        for name, weights in named_weights(questions).items()
    }


def _control(
    asked: Sequence[Question],
    ordered: Mapping[str, Answered],
    control: Mapping[str, Answered],
    together: dict[str, WholeSets],
) -> Control:
    """Ordered and control on the same questions."""
    paired = [question for question in asked if question.key in control]
    clusters = joined(paired, videos=True)
    differences = {
        name: difference(_values(paired, ordered, name), _values(paired, control, name), clusters, weights)
        for name, weights in named_weights(paired).items()
    }
    before, chance = _scores(paired, ordered), _chance(paired)
    above = before["official"].value - chance["official"]
    return {
        "questions": len(paired),
        "chance": chance,
        "scores": _all_figures(_scores(paired, control)),
        "ordered_scores": _all_figures(before),
        "difference": _all_figures(differences),
        "share_above_chance": differences["official"].value / above if above > 1e-9 else None,
        "tasks": _parts(paired, control, [question.task for question in paired]),
        "together": together,
    }


def _outputs(answers: Iterable[Answered]) -> Outputs:
    """What became of the completions: how many there are, and what is wrong with them."""
    answers = list(answers)
    texts = [each for each in answers if each.entry["text"] is not None]
    finished = [each.entry["finished"] for each in texts if each.entry["finished"] is not None]
    tokens = [each.entry["num_tokens"] for each in texts if each.entry["num_tokens"] is not None]
    prompts = [each.entry["num_prompt_tokens"] for each in texts if each.entry["num_prompt_tokens"] is not None]
    reasons = [f"{_question(each)}: {each.entry['error']}" for each in answers if each.entry["text"] is None]
    return {
        "completions": len(answers),
        "errors": len(reasons),
        "first_errors": reasons[:10],
        "cut_off": finished.count(False) / len(finished) if finished else None,
        "no_answer": sum(not each.score.tagged for each in texts) / len(texts) if texts else None,
        "names_none": sum(not each.score.names_one for each in texts) / len(texts) if texts else None,
        "mean_tokens": sum(tokens) / len(tokens) if tokens else None,
        "mean_prompt_tokens": sum(prompts) / len(prompts) if prompts else None,
    }


def _question(answered: Answered) -> str:
    """The key of the question that an answer is to."""
    return answered.entry["key"].partition(":")[2]


def _all_figures(estimates: Mapping[str, Estimate]) -> dict[str, Figures]:
    return {name: _figures(each) for name, each in estimates.items()}


def _figures(of: Estimate) -> Figures:
    return Figures(value=of.value, low=of.low, high=of.high, questions=of.questions, videos=of.videos)
