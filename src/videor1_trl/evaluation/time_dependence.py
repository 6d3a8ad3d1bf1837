"""How much of an answer depends on the order of the frames: option probabilities on ordered against reversed and shuffled frames."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..generation.journal import Journal
from ..generation.requests import Backend, GenerationRequest, SubtitlesShown
from ..text.messages import ANSWER_OPEN
from .questions import Question
from .run import by_video, request_of, run_identity, work_off
from .summary import ORDERED


ORDERS = ("reversed", "shuffled")  # of CONTROLS, each against the frames in order
_PREFIX = "options-"  # of the keys in the journal: they are no answers


@dataclass(frozen=True)
class TimeDependence:
    """
    How the options of one question weigh under each order of the frames.

    Args:
        probabilities (`dict[str, list[float]]`): by order, `"ordered"` among them: of each option, in its place, among the
            options; they sum to 1.
        mass (`dict[str, float]`): by order: what all options have among all tokens. Where it is small, the model was not about
            to answer with a letter, and its probabilities say little.
        divergence (`dict[str, float]`): by order but the ordered one: KL(ordered || order) in nats, at least 0. Against
            `"reversed"` it is the TDS of seeAoT, of one model.
    """

    probabilities: Mapping[str, list[float]]
    mass: Mapping[str, float]
    divergence: Mapping[str, float]


def orders_of(question: Question) -> tuple[str, ...]:
    """The orders that its options are weighed under: none without a video or options, or where another order means nothing."""
    if not question.videos or question.problem_type != "multiple choice" or len(question.options) < 2:
        return ()
    return tuple(order for order in ORDERS if order not in question.unfit_controls)


def weigh_options(
    questions: Sequence[Question],
    backend: Backend,
    folder: str | Path,
    *,
    subtitles: SubtitlesShown | None = None,
    identity: Mapping[str, object] | None = None,
    retry_errors: bool = False,
    progress: bool = True,
) -> Journal:
    """
    Weigh the options of questions on a video under each order, where that was not done yet; in the run's own [`Journal`].

    The model is given `<answer>` as the beginning of its answer, without thoughts before it, and the letters of the options
    are weighed as the next token. Arguments and errors as of [`~run.ask`].
    """
    settled, notes = run_identity(questions, backend, subtitles, identity)
    requests = _requests(questions, backend, subtitles)
    with Journal(folder, settled, notes) as journal:
        work_off(journal, requests, backend.weigh, "options", retry_errors=retry_errors, progress=progress)
    return journal


def _requests(
    questions: Sequence[Question], backend: Backend, subtitles: SubtitlesShown | None
) -> Iterator[GenerationRequest]:
    for question in by_video(questions):
        orders = orders_of(question)
        for order in (ORDERED, *orders) if orders else ():
            asked = request_of(question, order, backend, subtitles)
            begun = [*asked.prompt, {"role": "assistant", "content": ANSWER_OPEN}]
            letters = [option[0] for option in question.options]
            yield dataclasses.replace(asked, key=f"{_PREFIX}{asked.key}", prompt=begun, choices=letters)


@dataclass(frozen=True)
class Weighed:
    """
    What was weighed, by the key of the question.

    Args:
        found (`dict[str, TimeDependence]`): of those whose options were weighed under all their orders.
        errors (`dict[str, str]`): of those where that failed, why.
    """

    found: Mapping[str, TimeDependence]
    errors: Mapping[str, str]


def read_time_dependence(questions: Sequence[Question], journal: Journal) -> Weighed:
    """What a run has weighed of these questions."""
    entries = journal.entries()
    found: dict[str, TimeDependence] = {}
    errors: dict[str, str] = {}
    for question in questions:
        orders = orders_of(question)
        weighed = {order: entries.get(f"{_PREFIX}{order}:{question.key}") for order in (ORDERED, *orders) if orders}
        failed = [entry["error"] for entry in weighed.values() if entry is not None and entry["log_probs"] is None]
        if failed:
            errors[question.key] = failed[0]
        elif weighed and all(entry is not None for entry in weighed.values()):
            found[question.key] = compare_orders(
                {order: entry["log_probs"] for order, entry in weighed.items() if entry is not None}
            )
    return Weighed(found, errors)


def count_missing(questions: Sequence[Question], weighed: Weighed) -> int:
    """How many of the questions whose options can be weighed were not yet."""
    return sum(
        bool(orders_of(each)) and each.key not in weighed.found and each.key not in weighed.errors
        for each in questions
    )


def summarise(weighed: Weighed) -> dict[str, object] | None:
    """The means over questions and what failed, for the summary; `None` where nothing was weighed."""
    found = list(weighed.found.values())
    if not found and not weighed.errors:
        return None
    by_order = {order: [each.divergence[order] for each in found if order in each.divergence] for order in ORDERS}
    masses = [min(each.mass.values()) for each in found]
    return {
        "questions": len(found),
        "mean": {order: sum(each) / len(each) for order, each in by_order.items() if each},
        "share_of_0.1_or_more": {
            order: sum(value >= 0.1 for value in each) / len(each) for order, each in by_order.items() if each
        },
        "mean_mass": sum(masses) / len(masses) if masses else None,
        "errors": len(weighed.errors),
        "first_errors": [f"{key}: {reason}" for key, reason in list(weighed.errors.items())[:10]],
    }


def compare_orders(log_probs: Mapping[str, Sequence[float]]) -> TimeDependence:
    """
    Args:
        log_probs (`dict[str, Sequence[float]]`): by order, of each option among all tokens.

    >>> one = compare_orders({"ordered": [math.log(0.6), math.log(0.2)], "reversed": [math.log(0.2), math.log(0.2)]})
    >>> one.probabilities["ordered"][0], one.mass["reversed"], round(one.divergence["reversed"], 4)  # .75 log 1.5 + .25 log .5
    (0.75, 0.4, 0.1308)
    """
    logs = {order: [each - _log_sum(values) for each in values] for order, values in log_probs.items()}
    return TimeDependence(
        {order: [round(math.exp(each), 12) for each in values] for order, values in logs.items()},
        {order: round(math.exp(_log_sum(values)), 12) for order, values in log_probs.items()},
        {order: divergence(logs[ORDERED], values) for order, values in logs.items() if order != ORDERED},
    )


def divergence(first: Sequence[float], second: Sequence[float]) -> float:
    """KL(first || second), in nats, of two distributions given by their logarithms."""
    terms = (math.exp(p) * (p - q) for p, q in zip(first, second, strict=True) if math.exp(p) > 0)
    return max(0.0, math.fsum(terms))


def _log_sum(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(each - largest) for each in values))


def as_columns(found: Mapping[str, TimeDependence]) -> dict[str, dict[str, object]]:
    """What is written to a question's line of `results.jsonl`, by its key."""
    return {
        key: {
            **each.divergence,
            "probabilities": dict(each.probabilities),
            "mass": dict(each.mass),
        }
        for key, each in found.items()
    }
