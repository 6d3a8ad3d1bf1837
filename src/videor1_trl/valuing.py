"""What the rollouts of a generation batch are worth once their rewards are gathered: bonuses, spread, advantages by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from .objectives.groups import Gathered, temporal_metrics
from .objectives.spread import contrast_task, equal_groups, zero_std_by_kind
from .rewards.reward import Completion
from .text.messages import Message


def add_bonuses(
    trainer: Any,
    rewards: torch.Tensor,
    prompts: list[list[Message]],
    completions: Sequence[Completion],
    completion_ids: list[list[int]],
) -> None:
    """
    Fill the last column of `rewards` (W * B, F) with what the objective makes of every group, NaN for none, and log what that did.
    """
    batch, accuracies = trainer._batch, rewards[:, trainer._accuracy_index]
    accuracy = trainer.reward_funcs[trainer._accuracy_index]
    contrast = batch.contrast_values(accuracy, prompts, trainer.state, trainer.accelerator)
    if trainer._needs.logps:
        batch.read_behind_both(trainer, completion_ids)
    seen = batch.for_objective(prompts, completions, completion_ids, trainer.accelerator.process_index)
    bonuses = trainer._temporal_bonuses(seen, accuracies, contrast)
    # A rollout that no reward function scored stays without a reward, and so without an advantage
    bonuses[torch.isnan(rewards[:, :-1]).all(dim=1)] = torch.nan
    trainer._log_temporal(rewards[:, :-1], accuracies, contrast, bonuses)
    rewards[:, -1] = batch.bonuses = bonuses
    if batch.trains_contrast:
        batch.add_rewards(trainer, prompts, trainer._accuracy_index)


def bonuses_of(trainer: Any, seen: list[Gathered], accuracies: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
    """What the objective makes of every group (W * B,), NaN for none; see [`~rollouts.Rollouts.value_order`]."""
    objective, name = trainer.temporal_reward_func, trainer.reward_func_names[-1]
    found: torch.Tensor = trainer._batch.value_order(
        objective, name, accuracies, contrast, seen, trainer._group_size, trainer.accelerator
    )
    return found


def log_temporal(trainer: Any, rewards: torch.Tensor, *of_rollouts: torch.Tensor) -> None:
    """Log what the bonuses did: rewards (W * B, F - 1), accuracies, contrast accuracies and bonuses (W * B,)."""
    size, scale, in_reward = trainer._group_size, trainer.scale_rewards, trainer.args.temporal_bonus == "reward"
    weights = trainer.reward_weights[:-1].to(rewards.device)
    found = temporal_metrics(rewards, weights, *of_rollouts, size=size, scale_rewards=scale, in_reward=in_reward)
    trainer._log_metrics(found)


def note_spread(trainer: Any, rewards: torch.Tensor) -> None:
    """
    Note which groups of all ranks teach nothing, log the share of those without variance by kind, and, with
    `scale_rewards="task"`, what their advantages are divided by.

    Args:
        rewards (`torch.Tensor` of shape (W * B, F)): of all reward functions, the same on every rank.
    """
    batch, size = trainer._batch, trainer._group_size
    total = (rewards * trainer.reward_weights.to(rewards.device)).nansum(dim=1)
    total[torch.isnan(rewards).all(dim=1)] = torch.nan
    equal = equal_groups(total, size)
    own = [_kind(row.inputs, set(row.encoded.kinds)) for row in batch.rows]
    if batch.spare:
        own = [("", "") if is_spare else kind for kind, is_spare in zip(own, batch.spare, strict=True)]
    kinds: list[tuple[str, str]] = gather_object(own)
    trainer._log_metrics(zero_std_by_kind(equal, kinds[::size]))
    batch.idle = equal
    if batch.bonuses is not None and trainer.args.temporal_bonus == "advantage":
        batch.idle = batch.idle & (batch.bonuses.nan_to_num(nan=0.0) == 0).view(-1, size).all(dim=1)
    if batch.trains_contrast and batch.contrast_rewards is not None:
        batch.idle = batch.idle & equal_groups(batch.contrast_rewards, size)
    if trainer.task_spread is not None:
        tasks = [problem_type for problem_type, _ in kinds]
        batch.divisors = _task_divisors(trainer, total, tasks)
        if batch.trains_contrast and batch.contrast_rewards is not None:
            batch.contrast_divisors = _task_divisors(trainer, batch.contrast_rewards, list(map(contrast_task, tasks)))


def _task_divisors(trainer: Any, rewards: torch.Tensor, tasks: Sequence[str]) -> torch.Tensor:
    """What centred rewards (W * B,) are divided by, once their tasks' running means have taken note of them."""
    if trainer.model.training:
        trainer.task_spread.update(rewards, tasks)
    divisors: torch.Tensor = trainer.task_spread.divisors(rewards, tasks, trainer._group_size)
    return divisors


def _kind(inputs: dict[str, object], kinds: set[str]) -> tuple[str, str]:
    """Problem type, where a row has one, and kind of media."""
    problem_type = inputs.get("problem_type")
    media = next((kind for kind in ("video", "image") if kind in kinds), "text")
    return "" if problem_type is None else str(problem_type), media
