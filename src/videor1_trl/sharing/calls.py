"""Calls of the model on shared prompts: a group's log-probabilities in one forward, and rollouts behind one prefill."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput

from ..models.encoding import EncodedPrompt, collate_features, collate_token_types, padded_token_types
from ..models.positions import padded_positions, remember_positions
from ..models.tower import Tower, patched
from .attention import attention_of, cannot_go_on, cannot_take_segments, mask_for, take_segments, takes_prompt_parts
from .cache import rows_of_prompts
from .packing import distinct, pack
from .recurrent import masks_of_kinds


# What transformers calls the keys and values of the tokens so far: `past_key_values` up to 5.23, `cache` from 5.24 on
CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"


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
        attention = take_segments(tower.model)
        one_sequence = attention != "eager"  # whose dense mask would grow with the square of it
        self._packed = pack(
            tower.model, rows, completion_ids, completion_mask, pad_token_id, one_sequence=one_sequence
        )
        self._mask = masks_of_kinds(tower.model, mask_for(attention, self._packed.segments, tower.model.dtype))

    def __call__(self, fused_lm_head: bool = True, **rows: object) -> ModelOutput:
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


class RowByRow:
    """
    The model on padded rows, each with its prompt; the tower reads each distinct medium once.

    Args:
        model (`nn.Module`): the model, wrapped or not.
        tower ([`~tower.Tower`]): of the same model.
        rows (`list[EncodedPrompt]` of length B): left-padded, with room for `length` tokens behind them, as the model is called.
        keep (`bool`): whether the prompts keep what the tower makes of their media.
    """

    def __init__(self, model: nn.Module, tower: Tower, rows: list[EncodedPrompt], length: int, keep: bool):
        self._model, self._tower, self._rows, self._length, self._keep = model, tower, rows, length, keep

    def __call__(self, *, input_ids: torch.Tensor, **inputs: object) -> ModelOutput:
        device = input_ids.device
        types = padded_token_types(self._rows, input_ids.shape[1], self._length)
        inputs |= {key: value.to(device) for key, value in types.items()}
        # by themselves some models would count them from all of the media, others from the padding on
        positions = padded_positions(self._tower.model, self._rows, input_ids.shape[1], self._length).to(device)
        with self._tower.reads_once(self._rows, device, self._keep) as media:
            output: ModelOutput = self._model(input_ids=input_ids, position_ids=positions, **inputs, **media)
        return output


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
    model: Any = tower.model  # for `generate`, which is not in the type of all models
    original, calls = model.generate, []
    prompts, owners = distinct(rows)
    first_rows = [owners.index(prompt) for prompt in range(len(prompts))]
    once = cannot_take_segments(attention_of(model)) is None and takes_prompt_parts(take_segments(model))

    def generate(
        input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig, **inputs: Any
    ) -> object:
        calls.append(len(input_ids))
        if input_ids.shape[1] == 1:  # nothing comes before it
            call = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
            return original(generation_config=generation_config, **call)
        before = first_rows, slice(-1)  # `generate` needs one token to start from
        per_token = {key: inputs.pop(key)[before] for key in list(inputs) if key.endswith("token_type_ids")}
        positions = padded_positions(model, prompts, input_ids.shape[1], 0)
        with tower.reads_once(prompts, input_ids.device, keep) as media:
            outputs = model(
                input_ids=input_ids[before],
                attention_mask=attention_mask[before],
                position_ids=positions[..., :-1].to(input_ids.device),
                use_cache=True,
                logits_to_keep=1,
                **per_token,
                **media,
                **inputs,
            )
        cache = getattr(outputs, CACHE)
        rows_of_prompts(cache, owners, attention_mask[before], once)
        remember_positions(model, rows)
        return original(
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=generation_config,
            **{CACHE: cache},
        )

    with patched(model, generate=generate):
        yield
    if not calls:
        raise RuntimeError("The rollouts were not generated by the trainer's own model, so they would lack the media.")


def cannot_prefill(config: GenerationConfig, model: PreTrainedModel) -> str | None:
    """Why `generate` cannot go on from a prefilled prompt: layers, or settings, its own or the model's, that want another cache."""
    if (reason := cannot_go_on(model)) is not None:
        return reason
    usual = {  # what `generate` takes from the model's generation_config where the trainer's says nothing
        "num_beams": (None, 1),
        "num_return_sequences": (None, 1),
        "use_cache": (None, True),
        "cache_implementation": (None,),
    }
    own = getattr(model, "generation_config", None)
    found = {name: getattr(config, name, None) for name in usual}
    found = {name: getattr(own, name, None) if value is None else value for name, value in found.items()}
    reasons = [f"{name}={found[name]}" for name, values in usual.items() if found[name] not in values]
    if not reasons:
        return None
    return f"{' and '.join(reasons)}, as generation_kwargs or the model's generation_config have it"


def padded_call(
    model: nn.Module,
    rows: list[EncodedPrompt],
    pad_token_id: int,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor | None = None,
    **kwargs: object,
) -> ModelOutput:
    """
    The model on right-padded rows (B, L) with their media, and with the dummies that `rows` (B + D) ends with below them.
    """
    num_rows, length = input_ids.shape
    dummies = rows[num_rows:]
    room = max([0, *(len(dummy.input_ids) - length for dummy in dummies)])

    def widened(tensor: torch.Tensor, value: int) -> torch.Tensor:
        return pad(tensor, (0, room, 0, len(dummies)), value=value)

    input_ids, attention_mask = widened(input_ids, pad_token_id), widened(attention_mask, 0)
    for row, dummy in enumerate(dummies, start=num_rows):
        input_ids[row, : len(dummy.input_ids)] = input_ids.new_tensor(dummy.input_ids)
        attention_mask[row, : len(dummy.input_ids)] = 1
    inputs = {key: value.to(input_ids.device, non_blocking=True) for key, value in collate_features(rows).items()}
    for key, values in collate_token_types(rows).items():
        types = [torch.tensor(value) for value in values]
        padded = pad_sequence(types, batch_first=True)
        inputs[key] = pad(padded, (0, input_ids.shape[1] - padded.shape[1])).to(input_ids.device)
    if labels is not None:
        inputs["labels"] = widened(labels, -100)
    outputs = model(input_ids=input_ids, attention_mask=attention_mask, **inputs, **kwargs)
    if dummies and getattr(outputs, "logits", None) is not None:
        outputs.logits = outputs.logits[:num_rows, :length]
    return outputs
