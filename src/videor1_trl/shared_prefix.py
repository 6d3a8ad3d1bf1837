"""One prompt, many completions: a group packed behind its prompt for log-probabilities, and prefilled once to generate."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from trl.trainer.utils import split_tensor_dict

from .families import (
    EncodedPrompt,
    collate_features,
    collate_token_types,
    prompt_positions,
    remember_positions,
)


@dataclass
class PackedGroups:
    """
    The rows of a micro-batch packed behind their distinct prompts, one sequence per prompt.

    A sequence is `prompt[:-1]`, then for each of its completions `[prompt[-1]] + completion`, so that the usual shift by
    one scores every completion token. A completion sees its prompt and itself; positions go on from the prompt's.

    Args:
        inputs (`dict[str, torch.Tensor]`):
            Arguments of the model: `input_ids` (N, L), `attention_mask` (N, 1, L, L) bool, `position_ids`, token types
            and media, for N distinct prompts.
        labels (`torch.Tensor` of shape (N, L)):
            The completions' tokens at their places, -100 elsewhere.
        places (`torch.Tensor` of shape (B, C)):
            Where each row's completion tokens are scored in the flattened (N, L - 1) output; 0 where `scored` is False.
        scored (`torch.Tensor` of shape (B, C), bool):
            Which completion tokens exist.
    """

    inputs: dict[str, torch.Tensor]
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
) -> PackedGroups:
    """
    Pack the rows of a micro-batch behind their distinct prompts.

    Args:
        model (`nn.Module`): the unwrapped model, whose own rule gives the positions of a prompt.
        rows (`list[EncodedPrompt]` of length B): rows that share a prompt share the object.
        completion_ids (`torch.Tensor` of shape (B, C)): right-padded completions.
        completion_mask (`torch.Tensor` of shape (B, C)): 1 for a completion's tokens, a row of zeros leaves it out.
    """
    device = completion_ids.device
    prompts, owners = distinct(rows)
    lengths = completion_mask.sum(1).tolist()
    prefixes = [len(prompt.input_ids) - 1 for prompt in prompts]
    ends = list(prefixes)
    starts = []  # of each row's segment, which opens with a copy of the prompt's last token
    for owner, length in zip(owners, lengths, strict=True):
        starts.append(ends[owner])
        ends[owner] += length + 1 if length else 0
    longest = max(*ends, 2)

    ids = torch.full((len(prompts), longest), pad_token_id)
    labels = torch.full((len(prompts), longest), -100)
    segments = torch.full((len(prompts), longest), -1)  # -1: padding, 0: the prompt, 1 and up: its completions
    axes = [prompt_positions(model, prompt) for prompt in prompts]  # each (A, P)
    positions = torch.zeros(axes[0].shape[0], len(prompts), longest, dtype=torch.long)
    for index, prompt in enumerate(prompts):
        ids[index, : prefixes[index]] = torch.tensor(prompt.input_ids[:-1])
        segments[index, : prefixes[index]] = 0
        positions[:, index, : prefixes[index]] = axes[index][:, :-1]
    places = torch.zeros(completion_ids.shape, dtype=torch.long)
    scored = torch.zeros(completion_ids.shape, dtype=torch.bool)
    on_cpu = completion_ids.cpu()
    for row, (owner, start, length) in enumerate(zip(owners, starts, lengths, strict=True)):
        if not length:
            continue
        tokens = slice(start + 1, start + 1 + length)
        ids[owner, start] = prompts[owner].input_ids[-1]
        ids[owner, tokens] = labels[owner, tokens] = on_cpu[row, :length]
        segments[owner, start : start + 1 + length] = row + 1
        positions[:, owner, start : start + 1 + length] = axes[owner][:, -1:] + torch.arange(length + 1)
        places[row, :length] = owner * (longest - 1) + torch.arange(start, start + length)
        scored[row, :length] = True

    inputs = {
        "input_ids": ids.to(device),
        "attention_mask": visible(segments.to(device)),
        "position_ids": (positions if len(positions) > 1 else positions[0]).to(device),
    }
    for key, values in collate_token_types(prompts).items():
        types = torch.zeros_like(ids)
        for index, value in enumerate(values):
            types[index, : prefixes[index]] = torch.tensor(value[:-1])
        inputs[key] = types.to(device)
    media = {key: value.to(device, non_blocking=True) for key, value in collate_features(prompts).items()}
    return PackedGroups({**inputs, **media}, labels.to(device), places.to(device), scored.to(device))


def visible(segments: torch.Tensor) -> torch.Tensor:
    """
    Which token sees which: causally, its own segment and segment 0. Padding sees itself, so that no row is empty.

    Args:
        segments (`torch.Tensor` of shape (N, L)): 0 for the prompt, another number for each completion, -1 for padding.

    Returns:
        `torch.Tensor` of shape (N, 1, L, L), bool, queries before keys.

    >>> visible(torch.tensor([[0, 1, 2, -1]]))[0, 0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    """
    queries, keys = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    return (causal & (((keys == 0) & (queries >= 0)) | (keys == queries)))[:, None]


class PackedCall:
    """
    The model as TRL's row-by-row code sees it: called with (B, P + C) padded rows, it computes packed groups in one
    ordinary call of the real model and returns the rows' log-probabilities and entropies (B, C).
    """

    def __init__(self, model: nn.Module, packed: PackedGroups, dtype: torch.dtype | None):
        self.model, self.packed = model, packed
        if dtype is not None:  # eager attention adds its mask
            mask = packed.inputs["attention_mask"]
            added = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
            packed.inputs["attention_mask"] = added

    def __call__(self, fused_lm_head: bool = True, **rows: Any) -> Any:
        outputs = self.model(**self.packed.inputs, labels=self.packed.labels, fused_lm_head=fused_lm_head)
        outputs.log_probs = self.packed.unpack(outputs.log_probs)
        if outputs.entropy is not None:
            outputs.entropy = self.packed.unpack(outputs.entropy)
        return outputs


def packed_call(
    model: nn.Module,
    unwrapped: Any,
    rows: list[EncodedPrompt],
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    pad_token_id: int,
) -> PackedCall:
    """The packed call of the (possibly wrapped) model for these rows; arguments as in [`pack`]."""
    packed = pack(unwrapped, rows, completion_ids, completion_mask, pad_token_id)
    eager = unwrapped.config.get_text_config()._attn_implementation == "eager"
    return PackedCall(model, packed, unwrapped.dtype if eager else None)


@contextlib.contextmanager
def prefilled_once(model: Any, rows: list[EncodedPrompt]) -> Iterator[None]:
    """
    Within the context `model.generate` prefills each distinct prompt once and expands the cache to the rows.

    Args:
        model (`nn.Module`): the unwrapped model that `generate` is called on.
        rows (`list[EncodedPrompt]` of length B): whose prompts `generate` gets, left-padded, as `input_ids` (B, P). Media
            are those of the distinct prompts, in their order, and so are no longer arguments of the decoding.
    """
    original = model.generate
    prompts, owners = distinct(rows)
    first_rows = [owners.index(prompt) for prompt in range(len(prompts))]

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: Any, **inputs: Any) -> Any:
        per_token = {key: inputs.pop(key)[first_rows] for key in list(inputs) if key.endswith("token_type_ids")}
        positions = [prompt_positions(model, prompt) for prompt in prompts]  # each (A, P)
        padded = torch.zeros(len(positions[0]), len(prompts), input_ids.shape[1], dtype=torch.long)
        for prompt, found in enumerate(positions):
            padded[:, prompt, -found.shape[1] :] = found
        cache = model(
            input_ids=input_ids[first_rows],
            attention_mask=attention_mask[first_rows],
            position_ids=(padded if len(padded) > 1 else padded[0]).to(input_ids.device),
            use_cache=True,
            logits_to_keep=1,
            **per_token,
            **inputs,
        ).past_key_values
        cache.crop(-1)  # `generate` needs one token to start from
        cache.batch_select_indices(torch.tensor(owners, device=input_ids.device))
        remember_positions(model, rows)
        return original(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            generation_config=generation_config,
        )

    model.generate = generate
    try:
        yield
    finally:
        del model.generate


def regrouped(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    The same micro-batches' rows, cut anew with the rows of a prompt beside each other, prompts in the order in which
    they first came: where TRL has shuffled rows, their prompts end up shuffled instead.

    Args:
        batches (`list[dict]`): of equal size; tensors and lists with one entry per row, `encoded` among them, or scalars.
    """
    rows = [encoded for batch in batches for encoded in batch["encoded"]]
    _, owners = distinct(rows)
    order = sorted(range(len(rows)), key=owners.__getitem__)  # stable
    whole: dict[str, Any] = {}
    for key, value in batches[0].items():
        if isinstance(value, torch.Tensor) and value.ndim:
            whole[key] = torch.cat([batch[key] for batch in batches])[order]
        elif isinstance(value, list):
            flat = [each for batch in batches for each in batch[key]]
            whole[key] = [flat[index] for index in order]
        else:
            whole[key] = value
    return split_tensor_dict(whole, len(batches))
