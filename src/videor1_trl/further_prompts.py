"""Dynamic sampling: groups that teach nothing give their place to groups of further prompts, alike on every rank."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from .data.placing import Record
from .rollouts import Rollouts
from .sharing.packing import MicroBatch


Score = Callable[[list[Record], int], MicroBatch]  # rows of this rank and the index of the first of them -> scored


@dataclass
class _Layout:
    """How groups lie on ranks, and which of them teach nothing; the same on every rank."""

    size: int
    rows: int  # of a rank
    ranks: int
    idle: list[bool]

    @property
    def whole(self) -> bool:
        """Whether no group lies on two ranks, so that each rank may replace its own."""
        return self.rows % self.size == 0

    def groups_of(self, rank: int, each: int) -> range:
        return range(rank * each, (rank + 1) * each)

    def holes_of(self, rank: int) -> list[int]:
        return [group for group in self.groups_of(rank, self.rows // self.size) if self.idle[group]]

    @property
    def asked(self) -> int:
        """Groups of the next round on all ranks; each rank has as many rows, since all must call alike."""
        if not self.whole:
            return len(self.idle)
        return self.ranks * max(len(self.holes_of(rank)) for rank in range(self.ranks))

    def filled(self, fresh: list[bool]) -> list[tuple[int, int]]:
        """(group that is replaced, group of the round) for every one that a round could fill, on all ranks; notes them."""
        if self.whole:
            each = len(fresh) // self.ranks
            pairs = [
                pair
                for rank in range(self.ranks)
                for pair in zip(
                    self.holes_of(rank),
                    [group for group in self.groups_of(rank, each) if not fresh[group]],
                    strict=False,
                )
            ]
        else:
            pairs = [(group, group) for group, is_idle in enumerate(self.idle) if is_idle and not fresh[group]]
        for hole, _ in pairs:
            self.idle[hole] = False
        return pairs


def with_further_prompts(trainer: Any, output: MicroBatch, score: Score, step: int) -> MicroBatch:
    """
    A scored generation batch with its idle groups replaced, where at most `dynamic_sampling` rounds of further prompts bring others.

    Prompts are drawn from the training data by seed and step alone, so that a resumed run draws the same. What is
    generated in a round beyond need is not used. Logs what it cost.

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
    while any(layout.idle) and rounds < trainer.args.dynamic_sampling:
        rounds += 1
        prompts = list(itertools.islice(draws, layout.asked))
        each = layout.size * layout.asked // layout.ranks  # rows of a rank
        own = [prompts[place // layout.size] for place in range(rank * each, (rank + 1) * each)]
        base = rounds * layout.ranks * layout.rows
        found = score([dict(trainer.train_dataset[index]) for index in own], base)
        batch = trainer._batch
        assert batch.idle is not None
        parts.append((found, batch))
        extra += _on_all(trainer, len(batch.rows) + len(batch.contrast_ids))
        fresh = batch.idle.tolist()
        for hole, group in layout.filled(fresh):
            replaced += 1
            for place in range(layout.size):
                row, new = hole * layout.size + place - rank * layout.rows, group * layout.size + place - rank * each
                if 0 <= row < layout.rows:
                    sources[row] = rounds, new
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
