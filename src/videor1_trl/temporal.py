"""The temporal reward of whole groups, whatever rank their rows sit on, and what it does to the advantages."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from trl.trainer.utils import nanstd

from .batch import Row


TemporalReward = Callable[..., Sequence[float | None]]


def rollouts(
    rows: list[Row],
    prompts: list,
    completions: list,
    completion_ids: list,
    contrast_completions: list,
    contrast_completion_ids: list,
    rank: int,
) -> list[dict[str, Any]]:
    """
    What the temporal reward gets to see of a rank's rows, to be gathered over the ranks.

    Args:
        rows (`list[Row]` of length B), prompts, completions, completion_ids (`list` of length B): the ordered rollouts.
        contrast_completions, contrast_completion_ids (`list`): the contrast rollouts, in the order of the rows that own
            them.
        rank (`int`): index of this process.

    Returns:
        `list[dict]` of length B; the columns, which may be large, stand in the first row of each group only.
    """
    contrast = iter(zip(contrast_completions, contrast_completion_ids, strict=True))
    found, seen = [], set()
    for row, prompt, completion, ids in zip(rows, prompts, completions, completion_ids, strict=True):
        found.append(
            {
                "rank": rank,
                "has_contrast": row.has_contrast,
                "columns": None if row.group in seen else {**row.inputs, "prompt": prompt},
                "completion": completion,
                "completion_ids": ids,
                "contrast": next(contrast) if row.contrast is not None else None,
            }
        )
        seen.add(row.group)
    return found


def group_bonuses(
    function: TemporalReward,
    name: str,
    gathered: list[dict[str, Any]],
    accuracies: torch.Tensor,
    contrast_accuracies: torch.Tensor,
    size: int,
    rank: int,
) -> torch.Tensor:
    """
    The temporal reward of the groups whose first row this rank holds.

    Args:
        function (`Callable`), name (`str`): the temporal reward, and its name for errors.
        gathered (`list[dict]` of length W * B): the [`rollouts`] of all ranks.
        accuracies (`torch.Tensor` of shape (W * B,)): of the ordered rollouts, NaN for no verdict.
        contrast_accuracies (`torch.Tensor` of shape (W * B,)): of the contrast rollouts, NaN where a row owns none.
        size (`int`): G. rank (`int`): index of this process.

    Returns:
        `torch.Tensor` of shape (W * B,): NaN where no temporal reward applies, 0 for the groups of other ranks.

    Raises:
        `ValueError`: the function does not return one bonus per ordered rollout.
    """
    bonuses = torch.zeros_like(accuracies)
    for start in range(0, len(accuracies), size):
        rows = slice(start, start + size)
        group = gathered[rows]
        if group[0]["rank"] != rank:
            continue
        owned = [
            (value, *row["contrast"])
            for value, row in zip(_floats(contrast_accuracies[rows]), group, strict=True)
            if row["contrast"] is not None
        ]
        if not group[0]["has_contrast"] or all(value is None for value, _, _ in owned):
            bonuses[rows] = torch.nan
            continue
        result = function(
            _floats(accuracies[rows]),
            [value for value, _, _ in owned],
            **{
                **group[0]["columns"],
                "completions": [row["completion"] for row in group],
                "completion_ids": [row["completion_ids"] for row in group],
                "contrast_completions": [completion for _, completion, _ in owned],
                "contrast_completion_ids": [ids for _, _, ids in owned],
            },
        )
        count = len(result) if isinstance(result, Sequence) else f"{type(result).__name__} and no"
        if count != size:
            raise ValueError(
                f"The temporal reward function {name!r} returned {count} bonuses for a group of {size} ordered "
                "rollouts. It must return one per ordered rollout."
            )
        values = [torch.nan if value is None else value for value in result]
        bonuses[rows] = torch.tensor(values, dtype=bonuses.dtype)
    return bonuses


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
    return {
        "temporal/accuracy": accuracy,
        "temporal/contrast_accuracy": contrast_accuracy,
        "temporal/gap": accuracy - contrast_accuracy,
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
