"""One prompt, many completions: a group packed behind its prompt for log-probabilities, and prefilled once to generate."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from trl.trainer.utils import split_tensor_dict

from ..models.encoding import EncodedPrompt, collate_token_types
from ..models.positions import prompt_positions


MicroBatch = dict[str, Any]  # of rows, as TRL has it: tensors and lists with one entry per row, and scalars


@dataclass
class PackedGroups:
    """
    The rows of a micro-batch packed behind their distinct prompts.

    A prompt and its completions stand as `prompt[:-1]`, then for each completion `[prompt[-1]] + completion`, so that the
    usual shift by one scores every completion token. A completion sees its prompt and itself; positions go on from the
    prompt's. All prompts stand in one sequence (N = 1, no padding), or each in a sequence of its own (N prompts, padded).

    Args:
        inputs (`dict[str, torch.Tensor]`):
            Arguments of the model: `input_ids` (N, L), `position_ids`, token types and media.
        segments (`torch.Tensor` of shape (N, 1, 2, L), int64):
            Which prompt and which of its completions each token belongs to; see `packed_attention`.
        labels (`torch.Tensor` of shape (N, L)):
            The completions' tokens at their places, -100 elsewhere.
        places (`torch.Tensor` of shape (B, C)):
            Where each row's completion tokens are scored in the flattened (N, L - 1) output; 0 where `scored` is False.
        scored (`torch.Tensor` of shape (B, C), bool):
            Which completion tokens exist.
    """

    inputs: dict[str, torch.Tensor]
    segments: torch.Tensor
    labels: torch.Tensor
    places: torch.Tensor
    scored: torch.Tensor

    def unpack(self, per_token: torch.Tensor) -> torch.Tensor:
        """(N, L - 1) of the packed sequences as (B, C) of the rows, zeros where no token is scored."""
        return per_token.flatten()[self.places].masked_fill(~self.scored, 0.0)


def distinct(rows: list[EncodedPrompt]) -> tuple[list[EncodedPrompt], list[int]]:
    """The distinct prompts in the order of their first row, and for each row the index of its prompt."""
    prompts: dict[int, int] = {}
    owners = [prompts.setdefault(id(row), len(prompts)) for row in rows]
    return [rows[owners.index(prompt)] for prompt in range(len(prompts))], owners


def pack(
    model: nn.Module,
    rows: list[EncodedPrompt],
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    pad_token_id: int,
    *,
    one_sequence: bool = True,
) -> PackedGroups:
    """
    Pack the rows of a micro-batch behind their distinct prompts, without their media.

    Args:
        model (`nn.Module`): the unwrapped model, whose own rule gives the positions of a prompt.
        rows (`list[EncodedPrompt]` of length B): rows that share a prompt share the object.
        completion_ids (`torch.Tensor` of shape (B, C)): right-padded completions.
        completion_mask (`torch.Tensor` of shape (B, C)): 1 for a completion's tokens, a row of zeros leaves it out.
        one_sequence (`bool`, defaults to `True`): all prompts behind each other, else one sequence per prompt.
    """
    device = completion_ids.device
    prompts, owners = distinct(rows)
    lengths = completion_mask.sum(1).tolist()
    prefixes = [len(prompt.input_ids) - 1 for prompt in prompts]
    sizes = list(prefixes)
    for owner, length in zip(owners, lengths, strict=True):
        sizes[owner] += length + 1 if length else 0
    width = max(*sizes, sum(sizes) if one_sequence else 0, 2)
    starts = [sum(sizes[:n]) if one_sequence else n * width for n in range(len(prompts))]
    shape = (1 if one_sequence else len(prompts), width)

    ids = torch.full((shape[0] * width,), pad_token_id)
    labels = torch.full_like(ids, -100)
    segments = torch.stack([torch.full_like(ids, -1), torch.zeros_like(ids)])
    axes = [prompt_positions(model, prompt) for prompt in prompts]  # each (A, P)
    positions = torch.zeros(len(axes[0]), len(ids), dtype=torch.long)
    token_types = collate_token_types(prompts)
    types = {key: torch.zeros_like(ids) for key in token_types}
    for index, (prompt, start, size) in enumerate(zip(prompts, starts, sizes, strict=True)):
        prefix = slice(start, start + prefixes[index])
        ids[prefix] = torch.tensor(prompt.input_ids[:-1], dtype=torch.long)
        segments[0, start : start + size] = index
        positions[:, prefix] = axes[index][:, :-1]
        for key, values in token_types.items():
            types[key][prefix] = torch.tensor(values[index][:-1], dtype=torch.long)
    places = torch.zeros(completion_ids.shape, dtype=torch.long)
    scored = torch.zeros(completion_ids.shape, dtype=torch.bool)
    on_cpu = completion_ids.cpu()
    ends = [start + prefix for start, prefix in zip(starts, prefixes, strict=True)]
    for row, (owner, length) in enumerate(zip(owners, lengths, strict=True)):
        if not length:
            continue
        start, ends[owner] = ends[owner], ends[owner] + length + 1
        segment, tokens = slice(start, ends[owner]), slice(start + 1, ends[owner])
        ids[start] = prompts[owner].input_ids[-1]  # a copy of the prompt's last token opens each completion
        ids[tokens] = labels[tokens] = on_cpu[row, :length]
        segments[1, segment] = row + 1
        positions[:, segment] = axes[owner][:, -1:] + torch.arange(length + 1)
        places[row, :length] = torch.arange(start, start + length) - start // width  # one score fewer a sequence
        scored[row, :length] = True

    shaped = positions.view(-1, *shape)
    inputs = {"input_ids": ids.view(shape), "position_ids": shaped if len(shaped) > 1 else shaped[0]}
    inputs |= {key: value.view(shape) for key, value in types.items()}
    return PackedGroups(
        {key: value.to(device) for key, value in inputs.items()},
        segments.view(2, *shape).permute(1, 0, 2)[:, None].contiguous().to(device),
        labels.view(shape).to(device),
        places.to(device),
        scored.to(device),
    )


def regrouped(batches: list[MicroBatch]) -> list[MicroBatch]:
    """
    The same micro-batches' rows, cut anew with the rows of a prompt beside each other, prompts in the order in which
    they first came: where TRL has shuffled rows, their prompts end up shuffled instead.

    Args:
        batches (`list[MicroBatch]`): of equal size, with `encoded`.
    """
    rows = [encoded for batch in batches for encoded in batch["encoded"]]
    _, owners = distinct(rows)
    order = sorted(range(len(rows)), key=owners.__getitem__)  # stable
    whole: MicroBatch = {}
    for key, value in batches[0].items():
        if isinstance(value, torch.Tensor) and value.ndim:
            whole[key] = torch.cat([batch[key] for batch in batches])[order]
        elif isinstance(value, list):
            flat = [each for batch in batches for each in batch[key]]
            whole[key] = [flat[index] for index in order]
        else:
            whole[key] = value
    return split_tensor_dict(whole, len(batches))
