"""Rewards right completions of a certain length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .accuracy import accuracy_reward
from .columns import needed
from .reward import Completion, Reward
from .verdicts import as_verdict, check_threshold


@dataclass(frozen=True)
class _LengthReward:
    bonus: float = 0.2
    min_tokens: int = 320
    max_tokens: int = 512
    threshold: float = 0.5
    accuracy_func: Reward = accuracy_reward
    __name__ = "length_reward"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bonus) and self.bonus >= 0):
            raise ValueError(f"bonus ({self.bonus}) must be a finite number >= 0. The paper's is 0.2.")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise ValueError(
                f"min_tokens ({self.min_tokens}) must be between 0 and max_tokens ({self.max_tokens}). The paper's are "
                "320 and 512."
            )
        check_threshold(self.threshold)

    def __call__(
        self, completions: list[Completion], completion_ids: Sequence[Sequence[int]] | None = None, **kwargs: object
    ) -> list[float | None]:
        completion_ids = needed(
            self.__name__, "completion_ids", completion_ids, len(completions), "the tokens of each completion"
        )
        accuracies = self.accuracy_func(completions=completions, completion_ids=completion_ids, **kwargs)
        return [
            None
            if math.isnan(verdict)
            else self.bonus * (verdict > self.threshold and self.min_tokens <= len(ids) <= self.max_tokens)
            for verdict, ids in zip(map(as_verdict, accuracies), completion_ids, strict=True)
        ]


def length_reward(
    completions: list[Completion], completion_ids: Sequence[Sequence[int]] | None = None, **kwargs: object
) -> list[float | None]:
    """
    0.2 for a correct completion of 320 to 512 tokens, else 0.0: long enough to think, short enough to end.

    Correct means `accuracy_reward` above 0.5. The released code asks besides that another rollout of the group be
    correct; a reward function sees the rows of one device, not groups, so this is the paper's rule. Range {0.0, 0.2}.
    Source: Video-R1 (arXiv 2503.21776).

    Args:
        completions (`list[str]` or `list[list[dict]]` of length B): TRL's two shapes.
        completion_ids (`list[list[int]]` of length B): the tokens counted, an end token among them.
        kwargs: the columns of `accuracy_reward`.

    Returns:
        `list[float | None]` of length B; `None` where the accuracy is.

    Raises:
        `ValueError`: no `completion_ids`, or another number of them; what `accuracy_reward` raises.

    >>> length_reward(["<answer>B</answer>"] * 2, [[0] * 320, [0] * 319], solution=["B"] * 2,
    ...               problem_type=["multiple choice"] * 2)
    [0.2, 0.0]
    """
    return _LengthReward()(completions, completion_ids, **kwargs)


def get_length_reward(
    bonus: float = 0.2,
    min_tokens: int = 320,
    max_tokens: int = 512,
    threshold: float = 0.5,
    accuracy_func: Reward = accuracy_reward,
) -> Reward:
    """
    `length_reward` with `bonus` (reward units, >= 0) for `min_tokens` to `max_tokens` (both included) where
    `accuracy_func` gives more than `threshold` ([0, 1)). It raises `ValueError` for parameters outside these ranges.
    """
    return _LengthReward(bonus, min_tokens, max_tokens, threshold, accuracy_func)
