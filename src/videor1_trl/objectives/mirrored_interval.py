"""ArrowGEV: in a video that runs backwards an event lies at the mirrored time, if it is the same event at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..text.intervals import Interval, boundaries_iou, length_of, merged, read_intervals, video_seconds, within
from .dynamics import Router, RouterKind, answer_of
from .objective import Objective
from .relation import check_weight


Reference = Literal["gold", "prediction"]
REFERENCES: tuple[Reference, ...] = ("gold", "prediction")


@dataclass(frozen=True)
class _MirroredInterval:
    weight: float = 0.5
    router: Router = field(default_factory=lambda: Router("none"))
    reference: Reference = "gold"
    __name__ = "mirrored_interval_reward"
    needs_contrast = "reverse_frames"

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if self.reference not in REFERENCES:
            raise ValueError(f"reference ({self.reference!r}) must be one of {', '.join(map(repr, REFERENCES))}.")
        if self.router.kind in ("self", "gap"):
            raise ValueError(
                f"router ({self.router.kind!r}) needs shares of right answers, which intervals have not. Use 'labels' or 'none'."
            )

    @property
    def needs_columns(self) -> tuple[str, ...]:
        return ("solution", "duration", *self.router.needs_columns)

    @property
    def value_checks(self) -> dict[str, Callable[[object], object]]:
        """Beside those of the router: a duration is a number of seconds."""
        return {"duration": video_seconds}

    def __call__(
        self, accuracies: Sequence[float | None], contrast_accuracies: Sequence[float | None], **group: Any
    ) -> list[float | None]:
        sensitive = self.router(0.0, 0.0, group)
        duration = video_seconds(group.get("duration"))
        is_grounding = group.get("problem_type") in (None, "temporal grounding")  # "2, 3, 1" is an order elsewhere
        if sensitive is None or duration is None or not is_grounding:
            return [None] * len(accuracies)
        gold = _mirrored(group.get("solution"), duration)
        if not length_of(gold):
            return [None] * len(accuracies)
        said = [
            merged(read_intervals(each)) for each in map(answer_of, group["contrast_completions"]) if each is not None
        ]
        if not said:  # nothing was said of the reversed video, so nothing was said to differ
            return [0.0] * len(accuracies)
        if self.reference == "gold":
            return [self._bonus(gold, said, duration, sensitive)] * len(accuracies)
        own = [_mirrored(answer_of(completion), duration) for completion in group["completions"]]
        return [self._bonus(each, said, duration, sensitive) for each in own]

    def _bonus(
        self, mirrored: Sequence[Interval], said: Sequence[Sequence[Interval]], duration: float, sensitive: bool
    ) -> float:
        """By how well the answers to the reversed video meet the mirrored intervals; 0.0 where there are none to be met."""
        if not length_of(mirrored):
            return 0.0
        found = [boundaries_iou(intervals, mirrored, duration) if intervals else 0.0 for intervals in said]
        met = sum(found) / len(found)
        return self.weight * (1 - met if sensitive else met)


def _mirrored(text: object, duration: float) -> list[Interval]:
    """Where the intervals of a text lie in the reversed video, in order; what is beyond its end is cut off."""
    seen = within(read_intervals(text), duration)
    return [(duration - end, duration - start) for start, end in reversed(seen) if start < end]


def get_mirrored_interval_reward(
    weight: float = 0.5, router: RouterKind = "none", column: str | None = None, reference: Reference = "gold"
) -> Objective:
    """
    For temporal grounding with `contrast=reverse_frames`: with b = IoU' of the answer to the reversed video and the mirrored
    interval [D - end, D - start], the mean over the contrast rollouts,

        weight * (1 - b) where the event is another one backwards (opening a door), weight * b where it is the same one

    beside IoU' itself, `get_temporal_iou_reward(boundaries=True)`, among the reward functions. Groups without an interval in
    `solution`, without a `duration` (seconds) or of another `problem_type` than temporal grounding have none; what lies beyond
    the video's end is cut off. A contrast rollout without an answer is left out, and 0.0 where none is left: what was not
    answered is never "different". Of several intervals the union counts.

    Source: ArrowGEV (arXiv 2601.06559). Its released code (one greedy answer to the reversed video) mirrors what each rollout
    itself answers, `reference="prediction"`, though it writes the mirrored solution into its log; with it a rollout far from both
    has the largest bonus where the event is time-sensitive, so that IoU' must outweigh it. One difference: a rollout
    without an interval has 0.0, where the code has 1 - b = 1.

    Args:
        weight (`float`, defaults to `0.5`): in reward units, >= 0.
        router, column: which events are time-sensitive (`"dynamic"`); see [`Router`].
        reference (`str`, defaults to `"gold"`): whose interval is mirrored. `"gold"`: the solution's; the bonus is then the same for
            all rollouts of a group, so that every mean of a group takes it out again: it moves advantages with
            `temporal_bonus="advantage"` only. `"prediction"`: that of each rollout's own answer.

    Returns:
        An [`Objective`].

    Raises:
        `ValueError`: a parameter out of range; when called, a label that is none, a `duration` that is no number of seconds.

    >>> group = {"solution": "2 - 4", "duration": 10.0, "contrast_completions": ["<answer>6 - 8</answer>"]}
    >>> get_mirrored_interval_reward()([1.0, 0.0], [0.0], **group)  # found where the mirrored event lies: b = 1
    [0.0, 0.0]
    >>> own = {**group, "completions": ["<answer>2 - 4</answer>", "<answer>7 - 9</answer>"]}  # mirrored: 6 - 8, 1 - 3
    >>> get_mirrored_interval_reward(reference="prediction")([1.0, 0.0], [0.0], **own)
    [0.0, 0.5]
    """
    return _MirroredInterval(weight, Router(router, column), reference)
