"""Dynamic sampling: groups that teach nothing give their place to groups of further prompts, alike on every rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from .data.placing import Record
from .rollouts import Rollouts
from .sharing.packing import MicroBatch


# rows of this rank, the index of each in the step, which are spare -> scored
Score = Callable[[list[Record], list[int], list[bool]], MicroBatch]


@dataclass
class _Layout:
    """How groups lie on ranks, and which of them teach nothing; the same on every rank."""

    size: int
    rows: int  # of a rank
    ranks: int
    idle: list[bool]

    @property
    def holes(self) -> list[int]:
        return [group for group, is_idle in enumerate(self.idle) if is_idle]

    def round_of(self, rank: int) -> list[int]:
        """
        Rows of the batch that a round makes anew on a rank: of its idle groups and, since all ranks must call alike, of as many
        others as it has fewer of them than another rank; all of its rows, where a group lies on several ranks.
        """
        if self.rows % self.size:
            return list(range(rank * self.rows, (rank + 1) * self.rows))
        each = self.rows // self.size
        idle = [self.idle[start : start + each] for start in range(0, len(self.idle), each)]
        own = sorted(range(each), key=lambda group: not idle[rank][group])[: max(map(sum, idle))]  # idle ones first
        return [(rank * each + group) * self.size + place for group in sorted(own) for place in range(self.size)]

    def fill(self, fresh: list[bool]) -> list[int]:
        """The groups that a round replaces, where `fresh` says which of its groups teach nothing; notes them."""
        rows = [row for rank in range(self.ranks) for row in self.round_of(rank)]
        of_group = dict(zip((row // self.size for row in rows[:: self.size]), fresh, strict=True))
        filled = [group for group in self.holes if not of_group[group]]
        for group in filled:
            self.idle[group] = False
        return filled


def with_further_prompts(trainer: Any, output: MicroBatch, score: Score, step: int) -> MicroBatch:
    """
    A scored generation batch with its idle groups replaced, where at most `dynamic_sampling` rounds of further prompts bring others.

    Prompts are drawn from the training data by seed and step alone, one for each idle group, in their order, so that a
    resumed run draws the same, and so does one on another number of ranks. Logs what it cost.

    Args:
        output (`MicroBatch`): of this rank, as `_generate_and_score_completions` returns it.
        score (`Callable`): scores further rows; `trainer._batch` is then theirs.
        step (`int`): what the draws depend on.
    """
    batch, rank = trainer._batch, trainer.accelerator.process_index
    assert batch.idle is not None
    layout = _Layout(trainer.num_generations, len(batch.rows), trainer.accelerator.num_processes, batch.idle.tolist())
    parts, sources = [(output, batch)], [(0, row) for row in range(layout.rows)]
    draws = _draws(len(trainer.train_dataset), (trainer.args.seed, step))
    rounds = extra = replaced = 0
    while layout.holes and rounds < trainer.args.dynamic_sampling:
        rounds += 1
        prompts = dict(zip(layout.holes, draws, strict=False))
        own = layout.round_of(rank)
        groups = [row // layout.size for row in own]
        records = [dict(trainer.train_dataset[prompts.get(group, prompts[layout.holes[0]])]) for group in groups]
        base = rounds * layout.ranks * layout.rows
        found = score(records, [base + row for row in own], [group not in prompts for group in groups])
        batch = trainer._batch
        assert batch.idle is not None
        parts.append((found, batch))
        extra += _on_all(trainer, len(batch.rows) + len(batch.contrast_ids))
        filled = layout.fill(batch.idle.tolist())
        replaced += len(filled)
        for place, row in enumerate(own):
            if row // layout.size in filled:
                sources[row - rank * layout.rows] = rounds, place
    trainer._log_metrics(
        {
            "dynamic_sampling/rounds": rounds,
            "dynamic_sampling/replaced": replaced / len(layout.idle),
            "dynamic_sampling/left": sum(layout.idle) / len(layout.idle),
            "dynamic_sampling/extra_completions": extra,
        }
    )
    return joined_parts(trainer, parts, sources) if replaced else output


def _draws(number: int, seed: tuple[int, int]) -> Iterator[int]:
    """Rows of the data in a random order, all of them before any comes again."""
    rng = np.random.default_rng([*seed, 13])  # another sequence than the objectives' draws
    while True:
        yield from rng.permutation(number).tolist()


def _on_all(trainer: Any, count: int) -> int:
    return int(trainer.accelerator.gather(torch.tensor(count, device=trainer.accelerator.device)).sum())


def joined_parts(trainer: Any, parts: list[tuple[MicroBatch, Rollouts]], sources: list[tuple[int, int]]) -> MicroBatch:
    """
    One batch of rows of several, padded alike.

    Args:
        parts: scored batches and their rollouts. sources: of each row, (index of its part, index in it).
    """
    outputs, joined = [output for output, _ in parts], dict(parts[0][0])
    for key, value in outputs[0].items():
        if isinstance(value, list):
            joined[key] = [outputs[part][key][row] for part, row in sources]
        elif value.ndim == 1:
            joined[key] = torch.stack([outputs[part][key][row] for part, row in sources])
        elif value.ndim == 2:
            width = max(output[key].shape[1] for output in outputs)
            fill = trainer._tokenizer.pad_token_id if key in ("prompt_ids", "completion_ids") else 0
            joined[key] = torch.stack([_wide(outputs[part][key][row], width, key, fill) for part, row in sources])
    contrast = [each for each in joined.get("contrast", []) if each is not None]
    tokens = joined["completion_mask"].sum() + sum(each.mask.sum() for each in contrast)
    joined["num_items_in_batch"] = trainer.accelerator.gather(tokens).sum()
    if "kept_share" in joined:
        kept = len(contrast) + sum(parts[part][1].rows[row].error is None for part, row in sources)
        share = _on_all(trainer, kept) / (len(sources) * trainer.accelerator.num_processes)
        joined["kept_share"] = torch.tensor(share, device=trainer.accelerator.device)
    return joined


def _wide(values: torch.Tensor, width: int, key: str, fill: int) -> torch.Tensor:
    """A row (L,) padded to (`width`,), prompts on the left as TRL has them."""
    room = width - len(values)
    return pad(values, (room, 0) if key.startswith("prompt") else (0, room), value=fill)
