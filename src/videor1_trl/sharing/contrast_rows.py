"""Rows as TRL's loss takes them: completions behind their prompts, and below them the contrast rollouts that are trained."""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn.utils.rnn import pad_sequence
from trl.trainer.utils import pad

from ..models.encoding import EncodedPrompt
from .packing import MicroBatch


ROW_MEANS = ("grpo", "sapo", "dr_grpo", "luspo")  # loss types that divide by the number of rows
SAMPLER = ("importance_sampling_ratio", "sampling_per_token_logps")  # what TRL adds of rollouts by vLLM
LOGPS: dict[str, int] = {"old_per_token_logps": 0, "ref_per_token_logps": -1}  # which of TRL's passes before the loss


def joined(
    prompts: list[EncodedPrompt], completion_ids: list[list[int]], pad_token_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Prompts and completions as TRL calls models with them: `(ids, mask, C)`, (B, P + C) padded on the left and right."""
    before = [torch.tensor(prompt.input_ids) for prompt in prompts]
    behind = [torch.tensor(ids, dtype=torch.long) for ids in completion_ids]
    ids, masks = [], []
    for parts, side in ((before, "left"), (behind, "right")):
        ids.append(pad(parts, padding_value=pad_token_id, padding_side=side))
        masks.append(pad([torch.ones_like(part) for part in parts], padding_value=0, padding_side=side))
    return torch.cat(ids, dim=1).to(device), torch.cat(masks, dim=1).to(device), ids[1].shape[1]


@dataclass
class ContrastRow:
    """
    A contrast rollout on its way to the loss, at the row that owns it: TRL shuffles and splits it with that one.

    Args:
        encoded (`EncodedPrompt`): the prompt on the contrast frames.
        ids (`torch.Tensor` of shape (C,)): the completion. mask (`torch.Tensor` of shape (C,)): 1, or 0 where it is not trained.
        advantage (`float`): within the contrast rollouts of its prompt.
        logps (`dict[str, torch.Tensor]`): per token, of shape (C,), under the names that TRL has for those of the rows; of
            rollouts by vLLM also those of `SAMPLER`, the ratio of shape (1,) where it is one of the whole completion.
    """

    encoded: EncodedPrompt
    ids: torch.Tensor
    mask: torch.Tensor
    advantage: float
    logps: dict[str, torch.Tensor]


def pad_to(values: torch.Tensor, width: int, value: int | float) -> torch.Tensor:
    """(B, C) padded on the right to (B, `width`)."""
    return torch.nn.functional.pad(values, (0, width - values.shape[1]), value=value)


def with_contrast(inputs: MicroBatch, pad_token_id: int, accelerator: Accelerator) -> MicroBatch:
    """
    A micro-batch with the contrast rollouts of its rows below them, as further rows. All ranks have as many, since TRL gathers
    what it knows of each: empty ones fill up where a rank has fewer.
    """
    if "contrast" not in inputs:
        return inputs
    owners = [(index, row) for index, row in enumerate(inputs["contrast"]) if row is not None]
    most = int(accelerator.gather(torch.tensor(len(owners), device=accelerator.device)).max())
    if most == 0:
        return inputs
    while len(owners) < most:
        no_token = torch.zeros(1, dtype=torch.long, device=accelerator.device)
        logps = {name: no_token.float() for name in (*LOGPS, *SAMPLER) if name in inputs}
        owners.append((0, ContrastRow(inputs["encoded"][0], no_token, no_token, 0.0, logps)))
    above, rows = [index for index, _ in owners], [row for _, row in owners]
    width = max(inputs["completion_ids"].shape[1], *(len(row.ids) for row in rows))

    def below(name: str, values: list[torch.Tensor], value: int) -> torch.Tensor:
        tensor = pad_sequence(values, batch_first=True, padding_value=value)
        return torch.cat([pad_to(each, width, value) for each in (inputs[name], tensor)])

    found = {**inputs, "encoded": [*inputs["encoded"], *(row.encoded for row in rows)]}
    for name in ("prompt_ids", "prompt_mask"):
        found[name] = torch.cat([inputs[name], inputs[name][above]])
    found["completion_ids"] = below("completion_ids", [row.ids for row in rows], pad_token_id)
    found["completion_mask"] = below("completion_mask", [row.mask for row in rows], 0)
    for name in rows[0].logps:
        values = [row.logps[name] for row in rows]
        of_whole = name == SAMPLER[0] and inputs[name].shape[1] == 1 and all(len(each) == 1 for each in values)
        found[name] = torch.cat([inputs[name], torch.stack(values)]) if of_whole else below(name, values, 0)
    advantages = inputs["advantages"]
    found["advantages"] = torch.cat([advantages, advantages.new_tensor([row.advantage for row in rows])])
    return found


def importance_ratio(trainer: Any, learner: torch.Tensor, sampler: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    TRL's weight of a completion that vLLM sampled, which TRL computes amid the ordered rows.

    Args:
        trainer (`GRPOTrainer`): whose `vllm_importance_sampling_mode` and bounds apply.
        learner, sampler (`torch.Tensor` of shape (C,)): log-probabilities; NaN where vLLM has none. mask (C,).

    Returns:
        `torch.Tensor` of shape (C,), or (1,) in the modes of whole completions.
    """
    level, bounds = trainer.vllm_importance_sampling_mode.split("_")
    apart = ((learner - sampler) * mask).nan_to_num(nan=0.0)
    ratio = (apart.sum(dim=0, keepdim=True) if level == "sequence" else apart).exp()
    least, most = trainer.vllm_importance_sampling_clip_min, trainer.vllm_importance_sampling_clip_max
    if bounds == "truncate":
        return ratio if least is most is None else ratio.clamp(min=least, max=most)
    outside = torch.zeros_like(ratio, dtype=torch.bool)
    if least is not None:
        outside |= ratio < least
    if most is not None:
        outside |= ratio > most
    return ratio.masked_fill(outside, 0.0)


def as_mean_of_rows(loss: torch.Tensor, inputs: MicroBatch, before: int, loss_type: str) -> torch.Tensor:
    """
    A loss that TRL has divided by the number of all rows, as the mean over those that count.

    Args:
        inputs (`MicroBatch`): with contrast rollouts below its rows, if any; `kept_share`: rows that count, in parts of
            those that TRL knows of, over all ranks and micro-batches.
        before (`int`): rows without the contrast rollouts.
    """
    kept = inputs.get("kept_share")
    if kept is None or loss_type not in ROW_MEANS:
        return loss
    return loss * len(inputs["encoded"]) / before / kept.clamp(min=1 / before)  # nothing is kept: the loss is zero
