"""The gap as a bonus: right rollouts are worth as much more as the order of the frames helped their group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..rewards.verdicts import as_verdict, check_threshold
from .dynamics import share_right
from .objective import Objective
from .relation import check_weight


@dataclass(frozen=True)
class _Gap:
    weight: float = 1.0
    threshold: float = 0.5
    __name__ = "gap_reward"

    def __post_init__(self) -> None:
        check_weight(self.weight)
        check_threshold(self.threshold)

    def __call__(
        self, accuracies: Sequence[float | None], contrast_accuracies: Sequence[float | None], **group: object
    ) -> list[float]:
        gap = share_right(accuracies, self.threshold) - share_right(contrast_accuracies, self.threshold)
        bonus = 0.0 if math.isnan(gap) else self.weight * gap
        return [bonus if as_verdict(accuracy) > self.threshold else 0.0 for accuracy in accuracies]


def get_gap_reward(weight: float = 1.0, threshold: float = 0.5) -> Objective:
    """
    `weight * (p - p~)` for each right rollout, below 0 where the contrast rollouts did better.

    It is the same for all right rollouts of a group, so put it behind the standardisation (`temporal_bonus="advantage"`), or
    standardise over the batch (`scale_rewards="batch"`). Source: the idea of TGPO (arXiv 2603.27184, "globally normalised"),
    whose formula was not to be had.

    Args:
        weight (`float`, defaults to `1.0`): in reward units, >= 0. threshold (`float`, defaults to `0.5`): right is an accuracy
            above it.

    Returns:
        An [`Objective`].

    Raises:
        `ValueError`: a parameter out of range.

    >>> get_gap_reward()([1.0, 1.0, 1.0, 0.0], [1.0, 0.0])
    [0.25, 0.25, 0.25, 0.0]
    """
    return _Gap(weight, threshold)
