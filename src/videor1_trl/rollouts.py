"""One generation batch of a rank: its rows, their rollouts on ordered and on contrast frames, and what these are worth."""

import math
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather, gather_object
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from .data.batch import Row
from .data.placing import Record
from .media.columns import MEDIA_COLUMNS
from .models.encoding import EncodedPrompt
from .models.families import Processor
from .models.tokens import end_token_ids
from .models.tower import patched
from .objectives.groups import Gathered, contrast_advantages, group_bonuses
from .objectives.objective import Objective
from .rewards.reward import Completion, Reward
from .sharing.contrast_rows import LOGPS, SAMPLER, ContrastRow, importance_ratio, joined, pad_to
from .sharing.packing import MicroBatch
from .text.messages import Message, Named, with_opening


logger = get_logger(__name__)


def as_messages(processor: Processor, completion_ids: list[list[int]]) -> list[Completion]:
    """Completions as messages, each with its whole text; `processor` decodes them."""
    if not completion_ids:  # of which some tokenizers would make one empty text
        return []
    texts = processor.batch_decode(completion_ids, skip_special_tokens=True)
    return [[{"role": "assistant", "content": text}] for text in texts]


def restrict_sampling(trainer: GRPOTrainer, config: PreTrainedConfig, never: set[int]) -> None:
    """Never sample what is in `never`; take every end token of the model, and the pad token, for an end of rollouts."""
    own: Named = trainer.generation_kwargs
    ends = end_token_ids(config, None, trainer._tokenizer, trainer.eos_token_ids, own["eos_token_id"])
    suppressed = never.difference(ends).union(own.get("suppress_tokens") or [])
    settings = {"eos_token_id": ends, "suppress_tokens": sorted(suppressed) or None}
    trainer.eos_token_ids = ends
    own.update(settings)
    trainer.generation_config.update(**settings)


@dataclass
class Rollouts:
    """
    What one override of [`TGRPOTrainer`] finds out and the next one needs: of a generation batch, from its prompts to its
    bonuses; of a micro-batch, whose log-probabilities are computed, the prompts alone.

    Args:
        encoded (`list[EncodedPrompt]` of length B): the prompts on ordered frames.
        keep_outputs (`bool`): whether the prompts keep what a frozen vision tower makes of their media.
        rows (`list[Row]` of length B): the rows of a generation batch.
        contrast_ids (`list[list[int]]`), contrast_completions (`list`): the contrast rollouts, in the order of the rows that
            own one. contrast_sampled (`list[list]`, *optional*): of their tokens, what vLLM says; `None` for no number.
        bonuses (`torch.Tensor` of shape (W * B,), *optional*): what the objective made of the groups of all ranks, NaN for none.
        contrast_rewards (`torch.Tensor` of shape (W * B,), *optional*): what it made of the contrast rollouts.
        completions, completion_ids (`list` of length B): the ordered rollouts, with what their prompts have opened.
        rewards (`torch.Tensor` of shape (W * B, F), *optional*): of all ranks, by reward function, NaN for no verdict.
        contrast_accuracies (`torch.Tensor` of shape (W * B,), *optional*): of all ranks, NaN where a row owns no contrast rollout.
        idle (`torch.Tensor` of shape (groups,), *optional*): bool, of the groups of all ranks: nothing in it has an advantage.
        divisors, contrast_divisors (`torch.Tensor` of shape (W * B,), *optional*): of the centred rewards, and of those of the
            contrast rollouts at the rows that own them, with `scale_rewards="task"`.
        logps (`list[tuple]` of length B): of the completions' tokens, behind ordered and behind contrast frames; `None` for none.
        draws (`tuple[int, int]`): run and step, which decide what objectives draw.
        trains_contrast (`bool`): whether the contrast rollouts join the loss.
        spare (`list[bool]` of length B or 0): rows that are there for the sake of the other ranks, and of no use.
        pass_logps (`list[torch.Tensor]`): what each pass that TRL makes before the loss gives the completions, (B, C).
        contrast_logps (`list` of lists): of each of these passes, those of the contrast rollouts that are trained, (C,) each.
    """

    encoded: list[EncodedPrompt]
    keep_outputs: bool = False
    rows: list[Row] = field(default_factory=list)
    contrast_ids: list[list[int]] = field(default_factory=list)
    contrast_completions: list[Completion] = field(default_factory=list)
    contrast_sampled: list[list[float | None]] | None = None
    bonuses: torch.Tensor | None = None
    contrast_rewards: torch.Tensor | None = None
    completions: list[Completion] = field(default_factory=list)
    completion_ids: list[list[int]] = field(default_factory=list)
    rewards: torch.Tensor | None = None
    idle: torch.Tensor | None = None
    divisors: torch.Tensor | None = None
    contrast_divisors: torch.Tensor | None = None
    contrast_accuracies: torch.Tensor | None = None
    logps: list[tuple[list[float], list[float]] | None] = field(default_factory=list)
    draws: tuple[int, int] = (0, 0)
    trains_contrast: bool = False
    spare: Sequence[bool] = ()
    pass_logps: list[torch.Tensor] = field(default_factory=list)
    contrast_logps: list[list[torch.Tensor]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        rows: list[Row],
        keep_outputs: bool,
        draws: tuple[int, int],
        trains_contrast: bool,
        spare: Sequence[bool] = (),
    ) -> "Rollouts":
        """Those of a generation batch, before anything is generated; spare rows without contrast."""
        if spare:
            bare: Named = {"contrast": None, "counterpart": None, "has_contrast": False}
            rows = [replace(row, **bare) if is_spare else row for row, is_spare in zip(rows, spare, strict=True)]
        prompts = [row.encoded for row in rows]
        return cls(prompts, keep_outputs, rows, draws=draws, trains_contrast=trains_contrast, spare=spare)

    @property
    def owners(self) -> list[int]:
        """Indices of the rows that own a contrast rollout."""
        return [index for index, row in enumerate(self.rows) if row.contrast is not None]

    @property
    def to_generate(self) -> list[EncodedPrompt]:
        """The prompts of all rollouts: the rows on ordered frames, then the contrast rollouts."""
        return self.encoded + [row.contrast for row in self.rows if row.contrast is not None]

    def inputs_for_parent(self, as_parts: bool) -> list[Record]:
        """The rows without their media, which TRL must not handle, their prompts as messages of parts or as they came."""
        return [
            {
                **{key: value for key, value in row.inputs.items() if key not in MEDIA_COLUMNS},
                "prompt": row.messages if as_parts else row.inputs["prompt"],
            }
            for row in self.rows
        ]

    def skipped(self, device: torch.device) -> torch.Tensor:
        """Which rows have a prompt that could not be used; (B,) bool."""
        return torch.tensor([row.error is not None for row in self.rows], device=device)

    def without_rewards(self, device: torch.device) -> torch.Tensor:
        """Which rows have no rewards, whatever is said of their rollouts: the skipped and the spare ones; (B,) bool."""
        return self.skipped(device) | torch.tensor(self.spare or [False] * len(self.rows), device=device)

    def take_ordered(self, completion_ids: list[list[int]], completions: list[Completion]) -> list[Completion]:
        """Note the ordered rollouts; gives them, each together with what its prompt has written of it."""
        self.completion_ids = completion_ids
        self.completions = [
            with_opening(each, row.opened) for each, row in zip(completions, self.encoded, strict=True)
        ]
        return self.completions

    def take_contrast(self, completion_ids: list[list[int]], completions: list[Completion]) -> None:
        """Note the contrast rollouts, in the order of `to_generate`."""
        openings = [self.encoded[index].opened for index in self.owners]
        self.contrast_ids = completion_ids
        self.contrast_completions = list(map(with_opening, completions, openings))

    def contrast_values(
        self, reward: Reward, prompts: list[list[Message]], trainer_state: object, accelerator: Accelerator
    ) -> torch.Tensor:
        """
        A reward function on the contrast rollouts, with the columns of the rows that own them, on all ranks.

        Returns:
            `torch.Tensor` of shape (W * B,), float32; NaN for rows without a contrast rollout and for no verdict.
        """
        found = torch.full((len(self.rows),), torch.nan, device=accelerator.device)
        if owners := self.owners:
            columns = [key for key in self.rows[0].inputs if key not in ("prompt", "completion", "completion_ids")]
            values = reward(
                prompts=[prompts[index] for index in owners],
                completions=self.contrast_completions,
                completion_ids=self.contrast_ids,
                **{key: [self.rows[index].inputs[key] for index in owners] for key in columns},
                trainer_state=trainer_state,
                log_extra=lambda column, values: None,  # the tables and metrics are those of the ordered rollouts
                log_metric=lambda name, value: None,
            )
            floats = [torch.nan if value is None else value for value in values]
            found[owners] = torch.tensor(floats, dtype=torch.float32, device=accelerator.device)
        return gather(found)

    def value_order(
        self,
        objective: Objective,
        name: str,
        accuracies: torch.Tensor,
        contrast_accuracies: torch.Tensor,
        seen: list[Gathered],
        size: int,
        accelerator: Accelerator,
    ) -> torch.Tensor:
        """
        What the objective makes of every group: each is computed on one rank, the one that holds its first row.

        Args:
            objective, name, accuracies, contrast_accuracies, size: as in [`~groups.group_bonuses`].
            seen (`list[Gathered]` of length B): of this rank, by [`for_objective`].

        Returns:
            `torch.Tensor` of shape (W * B,), the same on all ranks; NaN where no bonus applies.
        """
        gathered, rank, self.contrast_accuracies = gather_object(seen), accelerator.process_index, contrast_accuracies
        own = group_bonuses(objective, name, gathered, accuracies, contrast_accuracies, size, rank)
        bonuses, self.contrast_rewards = accelerator.reduce(own, reduction="sum")  # only one rank wrote each group
        return bonuses

    def for_objective(
        self,
        prompts: Sequence[list[Message]],
        completions: Sequence[Completion],
        completion_ids: Sequence[list[int]],
        rank: int,
    ) -> list[Gathered]:
        """
        What the objective gets to see of this rank's rows, to be gathered over the ranks; see [`~groups.group_bonuses`].

        Returns:
            `list[Gathered]` of length B; the columns, which may be large, stand in the first row of each group only.
        """
        contrast = iter(zip(self.contrast_completions, self.contrast_ids, strict=True))
        found: list[Gathered] = []
        seen = set()
        logps = self.logps or [None] * len(self.rows)
        for row, prompt, completion, ids, of_tokens in zip(
            self.rows, prompts, completions, completion_ids, logps, strict=True
        ):
            found.append(
                {
                    "rank": rank,
                    "has_contrast": row.has_contrast,
                    "columns": None if row.group in seen else {**row.inputs, "prompt": prompt},
                    "draw": np.random.default_rng([*self.draws, row.group]).random(),
                    "completion": completion,
                    "completion_ids": ids,
                    "logps": of_tokens,
                    "contrast": next(contrast) if row.contrast is not None else None,
                }
            )
            seen.add(row.group)
        return found

    def scale_advantages(self, output: MicroBatch, logged: MutableSequence[float], rank: int) -> None:
        """Divide the centred rewards of this rank's rows, and those of the log, by what `scale_rewards="task"` found, if it is set."""
        if self.divisors is None:
            return
        size = len(self.rows)
        output["advantages"] = output["advantages"] / self.divisors[rank * size : (rank + 1) * size]
        for offset, divisor in enumerate(
            self.divisors.tolist()[-len(logged) :], -min(len(self.divisors), len(logged))
        ):
            logged[offset] /= divisor

    def add_bonuses(self, output: MicroBatch, logged: MutableSequence[float], rank: int) -> None:
        """Add the bonuses, if any, to the standardised advantages of this rank's rows, and to those of the log."""
        if self.bonuses is None:
            return
        bonuses, size = self.bonuses.nan_to_num(nan=0.0), len(self.rows)
        output["advantages"] = output["advantages"] + bonuses[rank * size : (rank + 1) * size]
        for offset, bonus in enumerate(bonuses.tolist()[-len(logged) :], start=-min(len(bonuses), len(logged))):
            logged[offset] += bonus

    def mask_skipped(self, output: MicroBatch, accelerator: Accelerator) -> float:
        """
        Take the rows of unusable prompts out of the loss: their mask is zero, and so is their KL. Their number on all ranks.

        `output` gets `kept_share`: a mean over rows would count the skipped ones as zeros; one number for all ranks.
        """
        skipped = self.skipped(output["completion_mask"].device)
        output["completion_mask"][skipped] = 0
        output["num_items_in_batch"] = accelerator.gather(output["completion_mask"].sum()).sum()
        count = accelerator.gather(skipped.sum().to(accelerator.device)).sum().item()
        share = 1 - count / (len(skipped) * accelerator.num_processes)
        output["kept_share"] = torch.tensor(share, device=accelerator.device)
        for error in {row.group: row.error for row in self.rows if row.error is not None}.values():
            logger.warning(f"Skipped (on_bad_video='skip'): {error}")
        return count

    def note_pass(self, logps: torch.Tensor, contrast: list[torch.Tensor]) -> None:
        """Note what a pass gives the completions (B, C), and the contrast rollouts below them."""
        self.pass_logps.append(logps.detach())
        self.contrast_logps.append(contrast)

    def read_behind_both(self, trainer: Any, completion_ids: list[list[int]]) -> None:
        """
        Note what the policy gives the ordered completions (`list` of length B) behind the ordered and behind the contrast
        frames, in `logps`; the former is TRL's own pass, where it has made one. On several ranks rows without contrast frames
        are read too, since all must call alike.
        """
        everywhere = trainer.accelerator.num_processes > 1
        chosen = [index for index, row in enumerate(self.rows) if everywhere or row.counterpart is not None]
        self.logps = [None] * len(self.rows)
        if not chosen:
            return
        completions, rows = [completion_ids[index] for index in chosen], [self.rows[index] for index in chosen]
        if len(self.pass_logps) > (trainer.beta != 0.0):  # the last one is the reference's
            ordered = self.pass_logps[LOGPS["old_per_token_logps"]][chosen]
        else:
            ordered = _read_behind(trainer, [row.encoded for row in rows], completions, self.keep_outputs)
        contrast = _read_behind(
            trainer, [row.counterpart or row.encoded for row in rows], completions, self.keep_outputs
        )
        for index, ids, *of_both in zip(chosen, completions, ordered.tolist(), contrast.tolist(), strict=True):
            if self.rows[index].counterpart is not None:
                before, behind = (values[: len(ids)] for values in of_both)
                self.logps[index] = before, behind

    def add_rewards(self, trainer: Any, prompts: list[list[Message]], accuracy_index: int) -> None:
        """
        The rewards of the contrast rollouts: the objective's, in the place and with the weight of the accuracy, and those of the
        other reward functions, with their weights.
        """
        assert self.contrast_rewards is not None
        weights = trainer.reward_weights[:-1].tolist()
        rewards = self.contrast_rewards * weights[accuracy_index]
        for index, (function, weight) in enumerate(zip(trainer.reward_funcs[:-1], weights, strict=True)):
            if index != accuracy_index:
                values = self.contrast_values(function, prompts, trainer.state, trainer.accelerator)
                rewards = rewards + weight * values.nan_to_num(nan=0.0)
        self.contrast_rewards = rewards

    def with_contrast_rows(
        self, part: slice, ids: torch.Tensor, mask: torch.Tensor, length: int, pad_token_id: int
    ) -> tuple[list[EncodedPrompt], torch.Tensor, torch.Tensor, int]:
        """
        The rows of a call, and below them the contrast rollouts that they own, where these are trained.

        Args:
            part (`slice`): of this batch's rows. ids, mask (`torch.Tensor` of shape (B, P + C)): of these. length (`int`): C.

        Returns:
            `(rows, ids, mask, length)`: with K more rows, and C as long as the longest of all.
        """
        rows, owners = self.encoded[part], self.owners if self.trains_contrast else []
        places = [place for place, owner in enumerate(owners) if owner in range(*part.indices(len(self.rows)))]
        if not places:
            return rows, ids, mask, length
        below = [torch.tensor(self.contrast_ids[place], device=ids.device) for place in places]
        above = [owners[place] - part.start for place in places]
        longest = max(length, *map(len, below))
        below_ids = pad_to(pad_sequence(below, True, pad_token_id), longest, pad_token_id)
        below_mask = pad_to(pad_sequence([torch.ones_like(each) for each in below], True), longest, 0)
        prompt_ids, prompt_mask = ids[above, :-length], mask[above, :-length]  # of which only the pixels differ
        width = ids.shape[1] - length + longest
        ids = torch.cat([pad_to(ids, width, pad_token_id), torch.cat([prompt_ids, below_ids], dim=1)])
        mask = torch.cat([pad_to(mask, width, 0), torch.cat([prompt_mask, below_mask], dim=1)])
        contrast = [self.rows[owners[place]].contrast for place in places]
        return [*rows, *(each for each in contrast if each is not None)], ids, mask, longest

    def join_contrast(self, output: MicroBatch, trainer: Any) -> dict[str, float]:
        """
        Give the rows of `output` the contrast rollouts that they own (`contrast`, a list), for the loss.

        Returns:
            `dict[str, float]`: metrics, of all ranks.
        """
        accelerator, size = trainer.accelerator, trainer.num_generations
        ends = (*trainer.eos_token_ids, trainer._tokenizer.pad_token_id)
        rewards = self.contrast_rewards
        assert rewards is not None
        trained = ~rewards.isnan()
        own = slice(accelerator.process_index * len(self.rows), (accelerator.process_index + 1) * len(self.rows))
        advantages = contrast_advantages(rewards, size, trainer.scale_rewards)
        if self.contrast_divisors is not None:
            advantages = advantages / self.contrast_divisors
        found: list[ContrastRow | None] = [None] * len(self.rows)
        for place, (index, ids) in enumerate(zip(self.owners, self.contrast_ids, strict=True)):
            prompt = self.rows[index].contrast
            if prompt is None or not trained[own][index]:
                continue
            tokens = torch.tensor(ids, device=accelerator.device)
            is_cut = trainer.mask_truncated_completions and ids[-1] not in ends  # as TRL has it
            mask = torch.zeros_like(tokens) if is_cut else torch.ones_like(tokens)
            logps = {
                name: self.contrast_logps[call][place][: len(ids)] * mask
                for name, call in LOGPS.items()
                if name in output
            }
            if self.contrast_sampled is not None and SAMPLER[1] in output:
                said = [math.nan if value is None else value for value in self.contrast_sampled[place]]
                logps[SAMPLER[1]] = torch.tensor(said, device=accelerator.device)
            if SAMPLER[0] in output:
                logps[SAMPLER[0]] = importance_ratio(trainer, logps["old_per_token_logps"], logps[SAMPLER[1]], mask)
            found[index] = ContrastRow(prompt, tokens, mask, advantages[own][index].item(), logps)
        output["contrast"] = found
        count = torch.tensor(sum(int(row.mask.sum()) for row in found if row is not None), device=accelerator.device)
        output["num_items_in_batch"] = output["num_items_in_batch"] + accelerator.gather(count).sum()
        share = output.get("kept_share", torch.ones((), device=accelerator.device))
        output["kept_share"] = share + trained.float().mean()
        if not trained.any():
            return {}
        groups = trained.view(-1, size).any(dim=1)
        still = (advantages.view(-1, size)[groups].abs() < 1e-3).all(dim=1).float().mean().item()  # but for rounding
        return {"temporal/contrast_reward": rewards.nanmean().item(), "temporal/contrast_zero_std": still}


def _read_behind(
    trainer: Any, prompts: list[EncodedPrompt], completion_ids: list[list[int]], keep_outputs: bool
) -> torch.Tensor:
    """What the policy gives the tokens of completions behind these prompts, (B, C)."""
    ids, mask, length = joined(prompts, completion_ids, trainer._tokenizer.pad_token_id, trainer.accelerator.device)
    checkpointing = disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs)
    batch: Any = Rollouts(prompts, keep_outputs)
    with patched(trainer, _batch=batch), torch.no_grad(), checkpointing:
        size = trainer.args.per_device_train_batch_size
        logps: torch.Tensor = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, length, size)[0]
    return logps
