"""TaRO: a bonus where the completion itself becomes unlikely once the order of the frames is spoiled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..rewards.verdicts import as_verdict, check_threshold
from .objective import Objective
from .relation import check_weight


@dataclass(frozen=True)
class _LogProbDrop:
    weight: float = 0.3
    threshold: float = 0.5
    margin: float = 0.0
    fixed: float | None = None
    __name__ = "log_prob_drop_reward"
    needs_contrast_rollouts = False
    needs_logps = True

    def __post_init__(self) -> None:
        check_weight(self.weight)
        check_threshold(self.threshold)
        if not 0 <= self.margin < math.inf:
            raise ValueError(f"margin ({self.margin}) must be a finite number >= 0, in nats a token.")
        if self.fixed is not None and not math.isfinite(self.fixed):
            raise ValueError(
                f"fixed ({self.fixed}) must be a finite number, in nats a token, or None for the group's mean."
            )

    def __call__(
        self, accuracies: Sequence[float | None], contrast_accuracies: Sequence[float | None], **group: Any
    ) -> list[float]:
        both = zip(group["logps"], group["contrast_logps"], strict=True)
        drops = [_mean(ordered) - _mean(contrast) for ordered, contrast in both]
        bar = self.margin + (_mean(drops) if self.fixed is None else self.fixed)
        return [
            self.weight if drop > bar + 1e-9 and as_verdict(accuracy) > self.threshold else 0.0
            for drop, accuracy in zip(drops, accuracies, strict=True)
        ]


def get_log_prob_drop_reward(
    weight: float = 0.3, threshold: float = 0.5, margin: float = 0.0, fixed: float | None = None
) -> Objective:
    """
    `weight` for each right rollout whose log-probability falls by more than the group's mean on the contrast frames:

        drop_i = mean_t log pi(o_it | ordered) - mean_t log pi(o_it | contrast)

    Makes no contrast rollouts; the completions are read behind both prompts, packed. Source: TaRO (arXiv
    2606.09248) and its released code, whose contrast is [`shuffle_around`], whose margin is 0 and whose rollouts are right from an
    IoU of 0.7 on, 0.7 itself included: here right is above the threshold, so it is `threshold=0.6999`.

    Args:
        weight (`float`, defaults to `0.3`): in reward units, >= 0. threshold (`float`, defaults to `0.5`): right is an accuracy
            above it.
        margin (`float`, defaults to `0.0`): by how much the mean, or `fixed`, is to be exceeded, in nats a token, >= 0.
        fixed (`float`, *optional*): a drop in the place of the group's mean, in nats a token.

    Returns:
        An [`Objective`] with `needs_logps`.

    Raises:
        `ValueError`: a parameter out of range.

    >>> logps = {"logps": [[-1.0, -1.0], [-2.0]], "contrast_logps": [[-3.0, -2.0], [-2.5]]}  # drops 1.5 and 0.5
    >>> get_log_prob_drop_reward()([1.0, 1.0], [], **logps)
    [0.3, 0.0]
    """
    return _LogProbDrop(weight, threshold, margin, fixed)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
