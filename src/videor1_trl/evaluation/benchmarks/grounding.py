"""When something happens in a video: the question of the benchmarks of grounding, and the overlap of an answer with the gold."""

from __future__ import annotations

from ...text.intervals import Interval, merged, read_intervals, temporal_iou
from ..questions import Question
from .benchmark import Found


_WHY = "the right answer is a place in time, which another order of the frames moves"
_ASKED = (
    "When in the video does this happen: {query}\nThe answer is its start and its end in seconds, such as 12.5 - 20.1."
)


def when(task: str, key: str, query: str, span: object, duration: object = None) -> Question:
    """
    The question when a query happens, its video still to come.

    Args:
        span: the right interval, `[start, end]` in seconds, or several.
        duration: of the video in seconds, if known: what of the span lies beyond it is cut off.

    Raises:
        `ValueError`: a span that holds no interval, or none within the video.
    """
    gold = merged(read_intervals(span))
    if duration is not None:
        length = float(str(duration))
        gold = [(start, min(end, length)) for start, end in gold if start < length]
    gold = [(start, end) for start, end in gold if end > start]
    if not gold:
        within = "" if duration is None else f" within {duration} seconds"
        raise ValueError(f"the span {span!r} holds no interval of seconds{within}")
    text = ", ".join(f"{round(start, 3)} - {round(end, 3)}" for start, end in gold)
    return Question(
        key,
        task,
        _ASKED.format(query=query.strip().rstrip(".") + "."),
        "free-form",
        text,
        metric="overlap",
        unfit_controls=dict.fromkeys(("shuffled", "reversed"), _WHY),
    )


def by_overlap(question: Question, answer: str) -> Found:
    """As [`overlap_of`], of the first interval that an answer states, as this package reads them."""
    return overlap_of(question, next(iter(read_intervals(answer)), None))


def seconds_of(clock: str) -> float:
    """
    A time by the clock in seconds.

    >>> seconds_of("1:05"), seconds_of("0:01:05.5")
    (65.0, 65.5)
    """
    hours, minutes, seconds = ["0", *clock.split(":")][-3:]
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def overlap_of(question: Question, found: Interval | None) -> Found:
    """The intersection over union, in seconds, of an interval with the gold; 0 without one, or of one that ends before it begins."""
    if found is None or found[1] < found[0]:
        return Found(0.0, found is not None)
    return Found(temporal_iou([found], read_intervals(question.gold)), True)
