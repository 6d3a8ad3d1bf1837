"""What an objective is: a plain callable on one group, and what it may ask of the trainer beyond accuracies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


class Objective(Protocol):
    """
    Turns what is known of one group into a bonus for each of its G ordered rollouts; called after the gather over the ranks.

    An attribute `needs_contrast_rollouts = False` says that it does without contrast rollouts, which are then not made;
    `needs_logps = True` asks for log-probabilities; a method `contrast_rewards` trains the contrast rollouts too
    ([`TrainsContrast`]). Data without one of its `needs_columns` (a tuple of names) are refused before any weights are loaded, and
    so are rows with a value for which one of its `value_checks` (column -> a function of the value) raises a `ValueError`, and, with
    `needs_contrast`, another one of this package's contrasts than the one of that name.
    """

    def __call__(
        self, accuracies: list[float | None], contrast_accuracies: list[float | None], **group: Any
    ) -> Sequence[float | None]:
        """
        Args:
            accuracies (`list[float | None]` of length G): of the ordered rollouts; `None`: no verdict.
            contrast_accuracies (`list[float | None]` of length G~): of the contrast rollouts.
            **group: the group's `prompt`, `completions`, `completion_ids`, `contrast_completions`, `contrast_completion_ids`, and
                the prompt's other columns under their names; `group_draw`, a number in [0, 1) that run, step and group decide, the
                same however the group is spread over ranks. With `needs_logps` also `logps` and `contrast_logps`
                (`list[list[float]]` of length G): what the policy gives each token of the ordered completions, behind the
                ordered and behind the contrast frames.

        Returns:
            G bonuses in reward units; `None` where none applies.
        """
        ...


@runtime_checkable
class TrainsContrast(Protocol):
    """An objective whose contrast rollouts are trained: as rows of the loss, in a group of their own."""

    def contrast_rewards(
        self, accuracies: list[float | None], contrast_accuracies: list[float | None], **group: Any
    ) -> Sequence[float | None]:
        """
        Called behind the objective itself, with the same arguments.

        Returns:
            G~ rewards, which stand in the place of the accuracy; `None`: the rollout is left out of the loss.
        """
        ...


@dataclass(frozen=True)
class Needs:
    """What the trainer does for an objective."""

    contrast_rollouts: bool = False
    logps: bool = False
    trains_contrast: bool = False

    @classmethod
    def of(cls, objective: object | None) -> "Needs":
        """
        By its attributes; none of an objective that is `None`.

        >>> Needs.of(lambda accuracies, contrast_accuracies, **group: accuracies)
        Needs(contrast_rollouts=True, logps=False, trains_contrast=False)
        """
        if objective is None:
            return cls()
        trains = isinstance(objective, TrainsContrast)
        return cls(
            bool(getattr(objective, "needs_contrast_rollouts", True)) or trains,
            bool(getattr(objective, "needs_logps", False)),
            trains,
        )
