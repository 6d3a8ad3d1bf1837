"""T-GRPO's own objective (Video-R1): a bonus for right answers of a group that the order of the frames helped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..rewards.verdicts import as_verdict, check_threshold


def temporal_reward(
    accuracies: Sequence[float | None],
    contrast_accuracies: Sequence[float | None],
    *,
    alpha: float = 0.3,
    mu: float = 1.0,
    threshold: float = 0.5,
    **kwargs: object,
) -> list[float]:
    """
    Bonus for the correct completions of one group whose frame order helped: `alpha` for each if p >= mu * p~.

    p and p~ are the shares of correct rollouts, on ordered and on contrast frames. `None` and NaN are no verdict:
    they leave the shares and get 0.0; where a side has no verdict at all, nothing is compared and all get 0.0.
    Source: Video-R1 (arXiv 2503.21776) section 3.2; mu is 0.8 in the released code.

    Args:
        accuracies (`list[float | None]` of length G): accuracy in [0, 1] of the rollouts on ordered frames.
        contrast_accuracies (`list[float | None]` of length G~ > 0): the same on contrast frames.
        alpha (`float`, defaults to `0.3`): bonus in reward units, >= 0.
        mu (`float`, defaults to `1.0`): how far p must reach in parts of p~, >= 0. A tie earns the bonus.
        threshold (`float`, defaults to `0.5`): correct means an accuracy above it, in [0, 1).
        kwargs: what the trainer says about the group; not used.

    Returns:
        `list[float]` of length G: `alpha` or 0.0.

    Raises:
        `ValueError`: no contrast rollout, or a parameter out of range.

    >>> temporal_reward([1.0, 0.0], [0.0, 0.0])
    [0.3, 0.0]
    """
    return _TemporalReward(alpha, mu, threshold)(accuracies, contrast_accuracies)


@dataclass(frozen=True)
class _TemporalReward:
    alpha: float = 0.3
    mu: float = 1.0
    threshold: float = 0.5
    share: Literal["correct", "mean"] = "correct"
    __name__ = "temporal_reward"

    def __post_init__(self) -> None:
        for name in ("alpha", "mu"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be a finite number >= 0. The paper has alpha 0.3 and mu 1.0."
                )
        check_threshold(self.threshold)
        if self.share not in ("correct", "mean"):
            raise ValueError(f"share ({self.share!r}) must be 'correct' (the paper) or 'mean' (the released code).")

    def __call__(
        self, accuracies: Sequence[float | None], contrast_accuracies: Sequence[float | None], **kwargs: object
    ) -> list[float]:
        if len(contrast_accuracies) == 0:
            raise ValueError(
                "contrast_accuracies ([]) must hold at least one rollout, or there is nothing to compare with. Set "
                "num_contrast_generations to 1 or more, or temporal_reward_func to None."
            )
        verdicts = [as_verdict(accuracy) for accuracy in accuracies]
        p, contrast_p = self._share(verdicts), self._share([as_verdict(accuracy) for accuracy in contrast_accuracies])
        # NaN, a side without verdicts, compares as False. The margin lets ties pass that float arithmetic would
        # break: 0.8 * 0.75 > 0.6.
        earned = p >= self.mu * contrast_p - 1e-9
        return [self.alpha if earned and verdict > self.threshold else 0.0 for verdict in verdicts]

    def _share(self, verdicts: list[float]) -> float:
        known = [verdict for verdict in verdicts if not math.isnan(verdict)]
        if not known:
            return math.nan
        if self.share == "mean":
            return math.fsum(known) / len(known)
        return sum(verdict > self.threshold for verdict in known) / len(known)


def get_temporal_reward(
    alpha: float = 0.3, mu: float = 1.0, threshold: float = 0.5, share: Literal["correct", "mean"] = "correct"
) -> Callable[..., list[float]]:
    """
    `temporal_reward` with other parameters. `share="mean"` takes p and p~ as mean accuracies instead of the shares
    of correct rollouts; the released code is `get_temporal_reward(mu=0.8, threshold=0.1, share="mean")`.

    >>> get_temporal_reward(alpha=0.5)([1.0, 0.0], [0.0], alpha=["a column of that name"])
    [0.5, 0.0]

    Raises:
        `ValueError`: a parameter out of range.
    """
    return _TemporalReward(alpha, mu, threshold, share)
