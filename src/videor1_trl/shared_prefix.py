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
    collate_token_types,
    prompt_positions,
    remember_positions,
)
from .packed_attention import cannot_take_segments, mask_for, take_segments, takes_prompt_parts
from .shared_cache import expanded_layers, shared_layers
from .tower import Tower, patched


@dataclass
class PackedGroups:
    """
    The rows of a micro-batch packed behind their distinct prompts.

    A prompt and its completions stand as `prompt[:-1]`, then for each completion `[prompt[-1]] + completion`, so that the
    usual shift by one scores every completion token. A completion sees its prompt and itself; positions go on from the
    prompt's. All prompts stand in one sequence (N = 1, no padding), or each in a sequence of its own (N prompts, padded).

    Args:
        inputs (`dict[str, Any]`):
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

    inputs: dict[str, Any]
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


def attention_of(model: Any) -> str:
    """
    The attention implementation of a model's text layers, made ready for packed groups and shared prompts.

    Raises:
        `NotImplementedError`: it has been changed to one that cannot compute them.
    """
    name = model.config.get_text_config()._attn_implementation
    if (reason := cannot_take_segments(name)) is not None:
        raise NotImplementedError(f"Prompts can no longer be shared: {reason}. Set share_prefix=False.")
    take_segments(name)
    return name


class PackedCall:
    """
    The model as TRL's row-by-row code sees it: called with (B, P + C) padded rows, it computes packed groups in one
    ordinary call of the real model and returns the rows' log-probabilities and entropies (B, C).

    Args:
        model (`nn.Module`): the model, wrapped or not.
        tower ([`~tower.Tower`]): of the same model.
        rows, completion_ids, completion_mask, pad_token_id: as in [`pack`].
        keep (`bool`): whether the prompts keep what the tower makes of their media.
    """

    def __init__(
        self,
        model: nn.Module,
        tower: Tower,
        rows: list[EncodedPrompt],
        completion_ids: torch.Tensor,
        completion_mask: torch.Tensor,
        pad_token_id: int,
        keep: bool = False,
    ):
        self._model, self._tower, self._keep = model, tower, keep
        self._prompts, _ = distinct(rows)
        unwrapped: Any = tower.model
        attention = attention_of(unwrapped)
        one_sequence = attention != "eager"  # whose dense mask would grow with the square of it
        self._packed = pack(unwrapped, rows, completion_ids, completion_mask, pad_token_id, one_sequence=one_sequence)
        self._mask = mask_for(attention, self._packed.segments, unwrapped.dtype)

    def __call__(self, fused_lm_head: bool = True, **rows: Any) -> Any:
        packed = self._packed
        with self._tower.reads_once(self._prompts, packed.labels.device, self._keep) as media:
            outputs = self._model(
                **packed.inputs,
                **media,
                attention_mask=self._mask,
                labels=packed.labels,
                fused_lm_head=fused_lm_head,
            )
        outputs.log_probs = packed.unpack(outputs.log_probs)
        if outputs.entropy is not None:
            outputs.entropy = packed.unpack(outputs.entropy)
        return outputs


@contextlib.contextmanager
def prefilled_once(tower: Tower, rows: list[EncodedPrompt], keep: bool = False) -> Iterator[None]:
    """
    Within the context the model's `generate` prefills each distinct prompt, with its media, once, and the rows go on from
    there.

    Args:
        tower ([`~tower.Tower`]): of the model that `generate` is called on.
        rows (`list[EncodedPrompt]` of length B): whose prompts `generate` gets, left-padded, as `input_ids` (B, P).
        keep (`bool`): whether the prompts keep what the tower makes of their media.
    """
    model: Any = tower.model
    original, calls = model.generate, []
    prompts, owners = distinct(rows)
    first_rows = [owners.index(prompt) for prompt in range(len(prompts))]

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: Any, **inputs: Any) -> Any:
        calls.append(len(input_ids))
        per_token = {key: inputs.pop(key)[first_rows] for key in list(inputs) if key.endswith("token_type_ids")}
        positions = [prompt_positions(model, prompt) for prompt in prompts]  # each (A, P)
        padded = torch.zeros(len(positions[0]), len(prompts), input_ids.shape[1], dtype=torch.long)
        for prompt, found in enumerate(positions):
            padded[:, prompt, -found.shape[1] :] = found
        with tower.reads_once(prompts, input_ids.device, keep) as media:
            cache = model(
                input_ids=input_ids[first_rows],
                attention_mask=attention_mask[first_rows],
                position_ids=(padded if len(padded) > 1 else padded[0]).to(input_ids.device),
                use_cache=True,
                logits_to_keep=1,
                **per_token,
                **media,
                **inputs,
            ).past_key_values
        cache.crop(-1)  # `generate` needs one token to start from
        if takes_prompt_parts(attention_of(model)):
            shared_layers(cache, owners, attention_mask[first_rows, :-1])
        else:
            expanded_layers(cache, owners)
        remember_positions(model, rows)
        return original(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            generation_config=generation_config,
        )

    with patched(model, generate=generate):
        yield
    if not calls:
        raise RuntimeError("The rollouts were not generated by the trainer's own model, so they would lack the media.")


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
