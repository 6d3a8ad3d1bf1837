"""How rewards spread within groups and within tasks: groups that teach nothing, and advantages on the scale of their task."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch


STATE_FILE = "task_spread.json"  # in a checkpoint


def equal_groups(rewards: torch.Tensor, size: int) -> torch.Tensor:
    """
    Which groups have one reward for all their rollouts, or none: (N / size,) bool.

    >>> equal_groups(torch.tensor([1.0, 1.0, 0.0, 1.0, torch.nan, torch.nan]), 2).tolist()
    [True, False, True]
    """
    grouped = rewards.view(-1, size)
    highest = grouped.nan_to_num(nan=-math.inf).amax(dim=1)
    lowest = grouped.nan_to_num(nan=math.inf).amin(dim=1)
    return ~(highest - lowest > 1e-6)


def zero_std_by_kind(equal: torch.Tensor, kinds: Sequence[tuple[str, str]]) -> dict[str, float]:
    """
    `zero_std/<kind>`: of each problem type and each kind of media, the share of its groups without variance.

    >>> zero_std_by_kind(torch.tensor([True, False]), [("OCR", "image"), ("OCR", "video")])
    {'zero_std/OCR': 0.5, 'zero_std/image': 1.0, 'zero_std/video': 0.0}
    """
    found: dict[str, list[bool]] = {}
    for place in (0, 1):
        for kind, is_equal in sorted(zip((each[place] for each in kinds), equal.tolist(), strict=True)):
            if kind:
                found.setdefault(f"zero_std/{kind}", []).append(is_equal)
    return {name: sum(values) / len(values) for name, values in found.items()}


def contrast_task(task: str) -> str:
    """The name under which the contrast rollouts of a task have their running means."""
    return f"{task} (contrast)"


@dataclass
class TaskSpread:
    """
    Advantages by the spread of their task's rewards, kept as running means: `scale_rewards="task"`.

        sigma^2 = E[r^2] - E[r]^2;    A_i = (r_i - mean of the group) / (max(sigma, floor) + 1e-6)

    where the means of a task are moved by `1 - decay` towards those of each batch before they are used, the first batch being
    taken as it is. A group in which an |A| is above `most` is divided by its own standard deviation, that of a population.
    Contrast rollouts that are trained have rewards of another kind, and so means of their own: their task is
    [`contrast_task`] of that of their rows.

    Source: EMA-GRPO of OneThinker (arXiv 2512.03043) and its released code: decay 0.99, floor 1e-3, most 5; a task is a problem
    type.

    Args:
        moments (`dict[str, tuple[float, float]]`): E[r] and E[r^2] of each task.
    """

    decay: float = 0.99
    floor: float = 1e-3
    most: float = 5.0
    moments: dict[str, tuple[float, float]] = field(default_factory=dict)

    def update(self, rewards: torch.Tensor, tasks: Sequence[str]) -> None:
        """Take note of a batch: rewards (N,), NaN for none, and the task of each."""
        values = rewards.double().tolist()
        for task in dict.fromkeys(tasks):
            own = [value for value, each in zip(values, tasks, strict=True) if each == task and value == value]
            if not own:
                continue
            now = math.fsum(own) / len(own), math.fsum(value * value for value in own) / len(own)
            before = self.moments.get(task, now)
            self.moments[task] = (
                self.decay * before[0] + (1 - self.decay) * now[0],
                self.decay * before[1] + (1 - self.decay) * now[1],
            )

    def sigma(self, task: str) -> float:
        """Standard deviation of a task's rewards, at least the floor; that of a task not seen is 1."""
        if task not in self.moments:
            return 1.0
        mean, square = self.moments[task]
        return max(math.sqrt(max(square - mean * mean, 0.0)), self.floor)

    def divisors(self, rewards: torch.Tensor, tasks: Sequence[str], size: int) -> torch.Tensor:
        """
        What the centred rewards (N,) of groups of `size` are divided by, for each row.

        >>> TaskSpread(moments={"a": (0.5, 0.29)}).divisors(torch.tensor([1.0, 0.0]), ["a", "a"], 2).tolist()  # sigma 0.2
        [0.20000100135803223, 0.20000100135803223]
        """
        grouped = rewards.view(-1, size)
        own = torch.tensor([self.sigma(task) for task in tasks], device=rewards.device).view(-1, size) + 1e-6
        centred = grouped - torch.nanmean(grouped, dim=1, keepdim=True)
        beyond = ((centred / own).abs() > self.most).any(dim=1, keepdim=True)
        group_std = torch.nanmean(centred**2, dim=1, keepdim=True).sqrt()
        return torch.where(beyond, group_std + 1e-6, own).flatten()

    def save(self, folder: str | Path) -> None:
        """Write the running means into a checkpoint."""
        Path(folder, STATE_FILE).write_text(json.dumps(self.moments))

    def load(self, folder: str | Path) -> None:
        """
        Go on from those of a checkpoint.

        Raises:
            `ValueError`: it has none, since its run had other settings.
        """
        file = Path(folder, STATE_FILE)
        if not file.is_file():
            raise ValueError(
                f"scale_rewards='task' goes on from the running means of its tasks, and {folder} has none ({STATE_FILE}): its run had "
                "another scale_rewards. Set that, or start anew from its weights (model_name_or_path)."
            )
        self.moments = {task: (mean, square) for task, (mean, square) in json.loads(file.read_text()).items()}
