"""ArrowGEV: in a video that runs backwards an event lies at the mirrored time, if it is the same event at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..text.intervals import Interval, boundaries_iou, length_of, merged, read_intervals, video_seconds
from .dynamics import Router, RouterKind, answer_of
from .objective import Objective
from .relation import check_weight


@dataclass(frozen=True)
class _MirroredInterval:
    weight: float = 0.5
    router: Router = field(default_factory=lambda: Router("none"))
    __name__ = "mirrored_interval_reward"
    needs_contrast = "reverse_frames"

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if self.router.kind in ("self", "gap"):
            raise ValueError(
                f"router ({self.router.kind!r}) needs shares of right answers, which intervals have not. Use 'labels' or 'none'."
            )

    @property
    def needs_columns(self) -> tuple[str, ...]:
        return ("solution", "duration", *self.router.needs_columns)

    def __call__(
        self, accuracies: Sequence[float | None], contrast_accuracies: Sequence[float | None], **group: Any
    ) -> list[float | None]:
        sensitive = self.router(0.0, 0.0, group)
        gold, duration = merged(read_intervals(group.get("solution"))), video_seconds(group.get("duration"))
        if sensitive is None or not length_of(gold) or duration is None:
            return [None] * len(accuracies)
        mirrored_gold = [(duration - end, duration - start) for start, end in reversed(gold)]
        answers = [answer for answer in map(answer_of, group["contrast_completions"]) if answer is not None]
        if not answers:  # nothing was said of the reversed video, so nothing was said to differ
            return [0.0] * len(accuracies)
        found = [_met(answer, mirrored_gold, duration) for answer in answers]
        mirrored = sum(found) / len(found)
        return [self.weight * (1 - mirrored if sensitive else mirrored)] * len(accuracies)


def _met(answer: str, gold: Sequence[Interval], duration: float) -> float:
    """b: how well an answer to the reversed video meets the mirrored intervals; 0 for an answer that names none."""
    found = merged(read_intervals(answer))
    return boundaries_iou(found, gold, duration) if found else 0.0


def get_mirrored_interval_reward(
    weight: float = 0.5, router: RouterKind = "none", column: str | None = None
) -> Objective:
    """
    For temporal grounding with `contrast=reverse_frames`: with b = IoU' of the answer to the reversed video and the mirrored
    interval [D - end, D - start], the mean over the contrast rollouts,

        weight * (1 - b) where the event is another one backwards (opening a door), weight * b where it is the same one

    beside IoU' itself, `get_temporal_iou_reward(boundaries=True)`, among the reward functions. It is the same for all rollouts
    of a group, so every mean of a group takes it out again: it moves advantages with `temporal_bonus="advantage"` only. Groups
    without an interval in `solution` or without a `duration` (seconds) have none; a contrast rollout without an answer is left
    out, and 0.0 where none is left: what was not answered is never "different". Of several intervals the union counts. Source: ArrowGEV (arXiv 2601.06559) and its released code, with one reversed rollout.

    Args:
        weight (`float`, defaults to `0.5`): in reward units, >= 0.
        router, column: which events are time-sensitive (`"dynamic"`); see [`Router`].

    Returns:
        An [`Objective`].

    Raises:
        `ValueError`: a parameter out of range; when called, a label that is none, a `duration` that is no number of seconds.

    >>> group = {"solution": "2 - 4", "duration": 10.0, "contrast_completions": ["<answer>6 - 8</answer>"]}
    >>> get_mirrored_interval_reward()([1.0, 0.0], [0.0], **group)  # found where the mirrored event lies: b = 1
    [0.0, 0.0]
    """
    return _MirroredInterval(weight, Router(router, column))
