"""CRPO: ordered and contrast rollouts must differ where a question is about time, and agree where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..rewards.verdicts import as_verdict, check_threshold
from ..text.messages import Named
from .dynamics import Router, RouterKind, answer_of, behaving_share, share_right
from .objective import Objective


@dataclass(frozen=True)
class _Relation:
    """The ordered half: `weight` times the share of contrast rollouts that behave, for each right rollout."""

    weight: float = 1.0
    threshold: float = 0.5
    router: Router = field(default_factory=lambda: Router("none"))
    __name__ = "relation_reward"

    def __post_init__(self) -> None:
        check_weight(self.weight)
        check_threshold(self.threshold)

    @property
    def needs_columns(self) -> tuple[str, ...]:
        return self.router.needs_columns

    def __call__(
        self, accuracies: Sequence[float | None], contrast_accuracies: Sequence[float | None], **group: Any
    ) -> list[float | None]:
        dynamic = self._dynamic(accuracies, contrast_accuracies, group)
        if dynamic is None:
            return [None] * len(accuracies)
        contrasts = group["contrast_completions"]
        return [
            self.weight * behaving_share(completion, contrasts, dynamic, group)
            if as_verdict(accuracy) > self.threshold
            else 0.0
            for completion, accuracy in zip(group["completions"], accuracies, strict=True)
        ]

    def _dynamic(
        self, accuracies: Sequence[float | None], contrast_accuracies: Sequence[float | None], group: Named
    ) -> bool | None:
        p, contrast_p = share_right(accuracies, self.threshold), share_right(contrast_accuracies, self.threshold)
        return self.router(p, contrast_p, group)


@dataclass(frozen=True)
class _Crpo(_Relation):
    """Both halves: the contrast rollouts are trained too."""

    __name__ = "crpo_reward"

    def contrast_rewards(
        self, accuracies: Sequence[float | None], contrast_accuracies: Sequence[float | None], **group: Any
    ) -> list[float | None]:
        dynamic = self._dynamic(accuracies, contrast_accuracies, group)
        if dynamic is None:
            return [None] * len(contrast_accuracies)
        p = share_right(accuracies, self.threshold)
        found: list[float | None] = []
        for completion, accuracy in zip(group["contrast_completions"], contrast_accuracies, strict=True):
            right, answered = as_verdict(accuracy) > self.threshold, answer_of(completion, group) is not None
            behaves = float(answered and right != dynamic)
            found.append(None if accuracy is None else behaves * (1 + self.weight * (p if p == p else 0.0)))
        return found


def get_relation_reward(
    weight: float = 1.0,
    threshold: float = 0.5,
    router: RouterKind = "none",
    column: str | None = None,
    explore: float = 0.0,
    margin: float = 0.0,
) -> Objective:
    """
    The relation of each right ordered rollout to the contrast rollouts: `weight` times the share of these that answer
    otherwise where the question is about the order of time, or the same where it is not.

    Source: the ordered half of CRPO (arXiv 2605.21988), `CRR_i`; with `reverse_frames` close to ArrowRL (2506.03340). A
    contrast rollout without an answer is left out: it is never "different". Punctuation alone is none, nor what names none of the
    options of a choice.

    Args:
        weight (`float`, defaults to `1.0`): in reward units, >= 0. threshold (`float`, defaults to `0.5`): right is an accuracy
            above it.
        router, column, explore, margin: which questions are about the order of time; see [`Router`].

    Returns:
        An [`Objective`].

    Raises:
        `ValueError`: a parameter out of range; when called, a label that is none.

    >>> said = [f"<answer>{letter}</answer>" for letter in "AABC"]
    >>> relation = get_relation_reward(router="labels", column="about")
    >>> group = {"completions": said[:2], "contrast_completions": said, "problem_type": "multiple choice"}
    >>> relation([1.0, 0.0], [1.0, 1.0, 0.0, 0.0], about="dynamic", **group)
    [0.5, 0.0]
    """
    return _Relation(weight, threshold, Router(router, column, explore, margin))


def get_crpo_reward(
    weight: float = 1.0,
    threshold: float = 0.5,
    router: RouterKind = "labels",
    column: str | None = None,
    explore: float = 0.0,
    margin: float = 0.0,
) -> Objective:
    """
    CRPO: `get_relation_reward` for the ordered rollouts, and the contrast rollouts trained in a group of their own. Such a
    rollout behaves if it answers, and is wrong where the question is about the order of time, right where it is not:

        behave_j = [wrong] or [right];    R_j = behave_j + weight * behave_j * p + the other reward functions

    Source: CRPO (arXiv 2605.21988); its project page leaves open the weights of the terms, and whether a changed answer is one
    other than the key (as here) or than the ordered rollouts'. The option "none of the above" that it adds to every question is
    the data's to have. Beside `length_reward`, which pays right answers, contrast rollouts are paid for both.

    Args:
        weight, threshold, router, column, explore, margin: as in [`get_relation_reward`].

    Returns:
        An [`Objective`] that is a [`TrainsContrast`].

    Raises:
        `ValueError`: a parameter out of range; when called, a label that is none.

    >>> said = [f"<answer>{letter}</answer>" for letter in "AB"]
    >>> group = {"completions": said, "contrast_completions": [*said, "B"], "problem_type": "multiple choice"}
    >>> get_crpo_reward(router="none").contrast_rewards([1.0, 0.0], [1.0, 0.0, 0.0], **group)
    [0.0, 1.5, 0.0]
    """
    return _Crpo(weight, threshold, Router(router, column, explore, margin))


def check_weight(weight: float) -> None:
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight ({weight}) must be a finite number >= 0, in reward units.")
