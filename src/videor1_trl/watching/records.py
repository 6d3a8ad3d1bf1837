"""What is recorded of each rollout: one flat record, whose fields are those of the manual's table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch

from ..data.batch import Row
from ..rollouts import Rollouts
from ..text.completion_table import prompt_text
from ..text.messages import Named, content
from ..text.prompts import extract_answer
from .store import frame_name


# The fields of a record, in their order; no text is `None`, so that readers find one type for each
FIELDS = {
    "step": "optimizer step that trains on it first; of an evaluation the last step before it",
    "mode": "`train` or `eval`",
    "generation": "which batch of rollouts of this step, from 0",
    "group": "which prompt of that batch, over all ranks, from 0",
    "place": "which rollout of the group, from 0; a contrast rollout has the place of the ordered one beside it",
    "kind": "`ordered` or `contrast`: the frames that it saw",
    "contrast": "of a contrast rollout: what was done to the frames, such as `shuffle_frames`",
    "rank": "process that made it",
    "problem_id": "column of the row, as text; empty without one",
    "problem_type": "column of the row",
    "data_source": "column of the row",
    "prompt": "text of the prompt, `[video]` and `[image]` where its media stand",
    "gold": "the right answer, without its tags",
    "completion": "the whole completion, with what its prompt had opened of it",
    "answer": "what stands in its answer tags; empty where nothing does",
    "answered": "whether it has an answer",
    "num_tokens": "tokens of the completion",
    "cut_off": "whether it ended at `max_completion_length`, not by itself",
    "accuracy": "what the accuracy reward gave it; `null`: no verdict",
    "rewards": "name of each reward function -> its value; `null`: does not apply",
    "reward": "weighted sum; of a contrast rollout only where it is trained",
    "bonus": "temporal reward; `null`: none applies",
    "advantage": "what the loss weighs it by; `null` of a contrast rollout",
    "group_accuracy": "mean accuracy of the group's ordered rollouts",
    "group_contrast_accuracy": "mean accuracy of its contrast rollouts",
    "group_taught": "whether its ordered rollouts differ in what they are worth; without that it has no gradient",
    "frames": "the pictures that it saw, in that order: paths in the run's folder",
    "frame_seconds": "where the ordered frames lie in the video, place by place; `null`: not known",
    "error": 'why the prompt was skipped (`on_bad_video="skip"`); else empty',
}


class Scores:
    """
    What is known of the rollouts of all ranks when a generation batch is scored.

    Args:
        batch ([`Rollouts`]): with its `rewards`.
        trainer (`TGRPOTrainer`): that made it.
        size (`int`): G.
    """

    def __init__(self, batch: Rollouts, trainer: Any, size: int):
        assert batch.rewards is not None
        self.names: list[str] = trainer.reward_func_names
        self.size, self.accuracy_name = size, self.names[trainer._accuracy_index]
        weights = trainer.reward_weights.to(batch.rewards.device)
        totals = (batch.rewards * weights).nansum(dim=1)
        totals[batch.rewards.isnan().all(dim=1)] = torch.nan
        none = torch.full_like(totals, torch.nan)
        self.rewards, self.totals = batch.rewards.tolist(), totals.tolist()  # by row, of all ranks
        self.bonuses = (none if batch.bonuses is None else batch.bonuses).tolist()
        contrast = none if batch.contrast_accuracies is None else batch.contrast_accuracies
        self.contrast_accuracies, self.accuracies = (
            contrast.tolist(),
            batch.rewards[:, trainer._accuracy_index].tolist(),
        )
        self.contrast_rewards = (none if batch.contrast_rewards is None else batch.contrast_rewards).tolist()
        self._in_advantage = trainer.args.temporal_bonus == "advantage"

    def taught(self, group: int) -> bool:
        """Whether the rollouts of a group differ in what they are worth: without that it has no gradient."""
        rows = slice(group * self.size, (group + 1) * self.size)
        found = [value for value in self.totals[rows] if value == value]
        bonuses = [value for value in self.bonuses[rows] if value == value]
        return bool(found) and (max(found) - min(found) > 1e-6 or (self._in_advantage and any(bonuses)))

    def of_group(self, group: int) -> Named:
        """The fields that all rollouts of a group share."""
        rows = slice(group * self.size, (group + 1) * self.size)
        return {
            "group_accuracy": _mean(self.accuracies[rows]),
            "group_contrast_accuracy": _mean(self.contrast_accuracies[rows]),
            "group_taught": self.taught(group),
        }


def records_of(
    batch: Rollouts, advantages: Sequence[float], trainer: Any, scores: Scores, wanted: set[int], place: Named
) -> tuple[list[Named], dict[str, bytes]]:
    """
    The records of this rank's rollouts, and the pictures that they name.

    Args:
        batch ([`Rollouts`]): of this rank. advantages (`Sequence[float]` of length B): of its rows.
        wanted (`set[int]`): the groups that are recorded.
        place (`dict`): `step`, `mode`, `generation`, `contrast` and `rank`, the same for all.
    """
    ends = {*trainer.eos_token_ids, trainer._tokenizer.pad_token_id}
    first, contrast = place["rank"] * len(batch.rows), dict(zip(batch.owners, range(len(batch.owners)), strict=True))
    records: list[Named] = []
    frames: dict[str, bytes] = {}
    for index, row in enumerate(batch.rows):
        if row.group not in wanted:
            continue
        all_ranks = first + index
        shared = {**place, **_question(row), **scores.of_group(row.group), "group": row.group, "place": row.place}
        shown = row.shown.ordered if row.shown else []
        records.append(
            {
                **shared,
                **_completion(content(batch.completions[index]), batch.completion_ids[index], ends),
                **_frames(row, shown, place["rank"], frames),
                "kind": "ordered",
                "contrast": "",
                "accuracy": _figure(scores.accuracies[all_ranks]),
                "rewards": dict(zip(scores.names, map(_figure, scores.rewards[all_ranks]), strict=True)),
                "reward": _figure(scores.totals[all_ranks]),
                "bonus": _figure(scores.bonuses[all_ranks]),
                "advantage": _figure(advantages[index]),
            }
        )
        if index in contrast:
            number = contrast[index]
            accuracy = _figure(scores.contrast_accuracies[all_ranks])
            records.append(
                {
                    **shared,
                    **_completion(content(batch.contrast_completions[number]), batch.contrast_ids[number], ends),
                    **_frames(row, row.shown.contrast if row.shown else [], place["rank"], frames),
                    "kind": "contrast",
                    "accuracy": accuracy,
                    "rewards": {name: accuracy if name == scores.accuracy_name else None for name in scores.names},
                    "reward": _figure(scores.contrast_rewards[all_ranks]),
                    "bonus": None,
                    "advantage": None,
                }
            )
    return [{name: record[name] for name in FIELDS} for record in records], frames


def _question(row: Row) -> Named:
    inputs = row.inputs
    gold = inputs.get("solution")
    return {
        "problem_id": _text(inputs.get("problem_id")),
        "problem_type": _text(inputs.get("problem_type")),
        "data_source": _text(inputs.get("data_source")),
        "prompt": prompt_text(row.messages),
        "gold": (extract_answer(gold, strict=True) or gold) if isinstance(gold, str) else _text(gold),
        "error": "" if row.error is None else str(row.error),
    }


def _completion(text: str, ids: list[int], ends: set[int]) -> Named:
    answer = extract_answer(text)
    return {
        "completion": text,
        "answer": answer or "",
        "answered": answer is not None,
        "num_tokens": len(ids),
        "cut_off": not ids or ids[-1] not in ends,  # as TRL has it
    }


def _frames(row: Row, pictures: Sequence[bytes], rank: int, frames: dict[str, bytes]) -> Named:
    names = [frame_name(picture, rank) for picture in pictures]
    frames.update(zip(names, pictures, strict=True))
    return {"frames": names, "frame_seconds": row.shown.seconds if row.shown and pictures else []}


def _text(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def _figure(value: float) -> float | None:
    """A float32 as it is read, `None` for none."""
    return round(value, 6) if math.isfinite(value) else None


def _mean(values: Sequence[float]) -> float | None:
    found = [value for value in values if value == value]
    return round(sum(found) / len(found), 6) if found else None
