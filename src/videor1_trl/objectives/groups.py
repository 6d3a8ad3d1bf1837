"""The temporal reward of whole groups, whatever rank their rows sit on, and what it does to the advantages."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from trl.trainer.utils import nanstd

from ..rewards.checked import as_floats
from ..rewards.reward import Completion
from ..text.messages import Named
from .objective import Needs, Objective, TrainsContrast


class Gathered(TypedDict):
    """What is gathered over the ranks of each row, for the rank that values its group."""

    rank: int
    has_contrast: bool
    columns: dict[str, object] | None  # in the first row of each group that a rank holds
    draw: float  # in [0, 1), of the group
    completion: Completion
    completion_ids: list[int]
    contrast: tuple[Completion, list[int]] | None  # the contrast rollout and its tokens, where the row owns one
    logps: tuple[list[float], list[float]] | None  # of the completion, behind ordered and behind contrast frames


def group_bonuses(
    objective: Objective,
    name: str,
    gathered: list[Gathered],
    accuracies: torch.Tensor,
    contrast_accuracies: torch.Tensor,
    size: int,
    rank: int,
) -> torch.Tensor:
    """
    The temporal reward of the groups whose first row this rank holds, and that of their contrast rollouts.

    Args:
        objective (`Objective`), name (`str`): the temporal reward, and its name for errors.
        gathered (`list[Gathered]` of length W * B): the rows of all ranks, see [`~rollouts.Rollouts.for_objective`].
        accuracies (`torch.Tensor` of shape (W * B,)): of the ordered rollouts, NaN for no verdict.
        contrast_accuracies (`torch.Tensor` of shape (W * B,)): of the contrast rollouts, NaN where a row owns none.
        size (`int`): G. rank (`int`): index of this process.

    Returns:
        `torch.Tensor` of shape (2, W * B): the bonuses, and the rewards of the contrast rollouts at the rows that own them.
        NaN where none applies, 0 for the groups of other ranks.

    Raises:
        `ValueError`: the function does not return one finite bonus per ordered rollout, or one reward per contrast rollout.
    """
    needs, found = Needs.of(objective), torch.zeros(2, *accuracies.shape, device=accuracies.device)
    for start in range(0, len(accuracies), size):
        rows = slice(start, start + size)
        group = gathered[rows]
        if group[0]["rank"] != rank:
            continue
        found[:, rows] = torch.nan
        owners = [start + place for place, row in enumerate(group) if row["contrast"] is not None]
        blind = bool(contrast_accuracies[owners].isnan().all()) and needs.contrast_rollouts
        if not group[0]["has_contrast"] or blind:
            continue
        arguments = _floats(accuracies[rows]), _floats(contrast_accuracies[owners])
        seen = _seen(group)
        bonuses = objective(*arguments, **seen)
        found[0, rows] = _as_tensor(bonuses, name, "bonuses", size, "ordered").to(found)
        if isinstance(objective, TrainsContrast):
            rewards = objective.contrast_rewards(*arguments, **seen)
            found[1, owners] = _as_tensor(rewards, name, "contrast rewards", len(owners), "contrast").to(found)
    return found


def _seen(group: list[Gathered]) -> Named:
    """What the objective is told of a group beside accuracies, by name."""
    contrast = [row["contrast"] for row in group if row["contrast"] is not None]
    logps = [row["logps"] for row in group if row["logps"] is not None]
    return {
        **(group[0]["columns"] or {}),
        "completions": [row["completion"] for row in group],
        "completion_ids": [row["completion_ids"] for row in group],
        "contrast_completions": [completion for completion, _ in contrast],
        "contrast_completion_ids": [ids for _, ids in contrast],
        "group_draw": group[0]["draw"],
        **({"logps": [each for each, _ in logps], "contrast_logps": [each for _, each in logps]} if logps else {}),
    }


def _as_tensor(values: Sequence[float | None], name: str, what: str, number: int, kind: str) -> torch.Tensor:
    """What an objective returned, NaN for `None`."""
    said = f"The temporal reward function {name!r}, asked for {what},"
    return torch.tensor(as_floats(values, number, said, f"{kind} rollout"), dtype=torch.float32)


def contrast_advantages(rewards: torch.Tensor, size: int, scale_rewards: str) -> torch.Tensor:
    """
    Advantages of the contrast rollouts, each within those of its prompt, by `GRPOTrainer`'s formula.

    Args:
        rewards (`torch.Tensor` of shape (W * B,)): at the rows that own a contrast rollout; NaN elsewhere, and where one is not
            trained.
        size (`int`): G. scale_rewards (`str`): as in [`~trl.GRPOConfig`].

    Returns:
        `torch.Tensor` of shape (W * B,): 0 where there is no reward, or only one in its group.

    >>> nan = float("nan")
    >>> contrast_advantages(torch.tensor([nan, 1.0, nan, 0.0]), 4, "none").tolist()
    [0.0, 0.5, 0.0, -0.5]
    """
    grouped = rewards.view(-1, size)
    advantages = grouped - torch.nanmean(grouped, dim=1, keepdim=True)
    if scale_rewards == "group":
        advantages = advantages / (nanstd(grouped, dim=1, keepdim=True) + 1e-4)
    elif scale_rewards == "batch":
        advantages = advantages / (nanstd(rewards) + 1e-4)
    return advantages.flatten().nan_to_num(nan=0.0)


def temporal_metrics(
    rewards: torch.Tensor,
    weights: torch.Tensor,
    accuracies: torch.Tensor,
    contrast_accuracies: torch.Tensor,
    bonuses: torch.Tensor,
    *,
    size: int,
    scale_rewards: str,
    in_reward: bool,
) -> dict[str, float]:
    """
    How well the ordered and the contrast rollouts did, and how far the bonuses moved the advantages.

    Args:
        rewards (`torch.Tensor` of shape (W * B, F)): of the reward functions but the temporal one.
        weights (`torch.Tensor` of shape (F,)): their weights.
        accuracies, contrast_accuracies, bonuses (`torch.Tensor` of shape (W * B,)): as in [`group_bonuses`].
        size (`int`): G. scale_rewards (`str`): as in [`~trl.GRPOConfig`].
        in_reward (`bool`): whether the bonus is part of the reward, or added to the advantage.

    Returns:
        `dict[str, float]`: empty where no group has a temporal reward.
    """
    applies = ~torch.isnan(bonuses)
    if not applies.any():
        return {}
    moved = bonuses
    if in_reward:
        without = (rewards * weights).nansum(dim=1)
        without[torch.isnan(rewards).all(dim=1)] = torch.nan
        with_bonus = without + bonuses.nan_to_num(nan=0.0)
        moved = standardised(with_bonus, size, scale_rewards) - standardised(without, size, scale_rewards)
    groups = applies.view(-1, size).any(dim=1).repeat_interleave(size)  # both sides of the gap from the same prompts
    accuracy, contrast_accuracy = accuracies[groups].nanmean().item(), contrast_accuracies[groups].nanmean().item()
    gap = {"temporal/contrast_accuracy": contrast_accuracy, "temporal/gap": accuracy - contrast_accuracy}
    return {
        "temporal/accuracy": accuracy,
        **(gap if contrast_accuracy == contrast_accuracy else {}),  # an objective may do without contrast rollouts
        "temporal/bonus_rate": (bonuses[applies] > 0).float().mean().item(),
        "temporal/effect": round(moved[applies].abs().nanmean().item(), 6),
    }


def standardised(rewards: torch.Tensor, size: int, scale_rewards: str) -> torch.Tensor:
    """
    Advantages (N,) of rewards (N,) in groups of `size`, as `GRPOTrainer` computes them but for the 1e-4 that it adds to
    the standard deviation, so that a bonus that cancels has no effect at all; 0 where the rewards are equal.

    >>> standardised(torch.tensor([1.0, 0.0, 0.0, 1.0]), 2, "none").tolist()
    [0.5, -0.5, -0.5, 0.5]
    """
    grouped = rewards.view(-1, size)
    advantages = grouped - torch.nanmean(grouped, dim=1, keepdim=True)
    if scale_rewards == "group" and size > 1:
        advantages = _divided(advantages, nanstd(grouped, dim=1, keepdim=True))
    elif scale_rewards == "batch":
        advantages = _divided(advantages, nanstd(rewards))
    return advantages.flatten()


def _divided(advantages: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    return torch.where(std > 1e-6, advantages / std, torch.zeros_like(advantages))


def _floats(values: torch.Tensor) -> list[float | None]:
    """A float32 vector as the floats it was made from (0.8, not 0.800000012), NaN as `None`."""
    return [None if value != value else round(value, 6) for value in values.tolist()]
