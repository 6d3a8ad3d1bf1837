"""Linear attention over packed groups: a prompt's state is computed once, and each of its completions goes on from it."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from .layout import Layout, is_segments, layout_of, taken


Mask = TypeVar("Mask")
# text models whose linear layers go on from a state with several tokens, and which take a mask for each kind of layer
HAND_ON = ("qwen3_5_text", "qwen3_5_moe_text")
LINEAR = "linear_attention"


class _Held:
    """
    What a linear layer keeps in a cache, for it to be asked as one, in a form that gradients pass through.

    Args:
        conv (`torch.Tensor` of shape (N, D, K), *optional*): the last inputs of the convolution.
        recurrent (`torch.Tensor`, *optional*): the state behind the tokens so far, of N rows.
    """

    def __init__(self, conv: torch.Tensor | None = None, recurrent: torch.Tensor | None = None):
        self.conv, self.recurrent = conv, recurrent

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        return self.conv

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        return self.recurrent

    def is_recording_past(self, layer_idx: int) -> bool:
        return True  # several tokens at once, also where there is one

    def update_conv_state(
        self, new: torch.Tensor, layer_idx: int, state_idx: int = 0, *, conv_kernel_size: int
    ) -> torch.Tensor:
        before = new.new_zeros(*new.shape[:-1], conv_kernel_size) if self.conv is None else self.conv
        joined = torch.cat([before, new], dim=-1)
        self.conv = joined[..., -conv_kernel_size:]
        return joined

    def update_recurrent_state(self, new: torch.Tensor, layer_idx: int, state_idx: int = 0) -> torch.Tensor:
        self.recurrent = new
        return new

    def of(self, owners: torch.Tensor) -> "_Held":
        """For rows that go on from these; `owners` (R,) says from which."""
        assert self.conv is not None and self.recurrent is not None
        return _Held(self.conv[owners], self.recurrent[owners])


def linear_layers(model: nn.Module) -> list[nn.Module]:
    """The modules of linear attention: what is asked for its state, and convolves."""
    return [module for module in model.modules() if hasattr(module, "A_log") and hasattr(module, "conv1d")]


def hands_states_on(model: PreTrainedModel) -> bool:
    """Whether every linear layer can go on from the state behind a prompt."""
    if model.config.get_text_config().model_type not in HAND_ON:
        return False
    layers = linear_layers(model)
    return all(_cache_name(each) and "attention_mask" in _parameters(each) for each in layers)


def _parameters(layer: nn.Module) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(type(layer).forward).parameters


def _cache_name(layer: nn.Module) -> str | None:
    """The argument that is asked for states: `cache_params` up to transformers 5.23, `cache` from 5.24 on."""
    return next((name for name in ("cache_params", "cache") if name in _parameters(layer)), None)


def hand_states_on(model: PreTrainedModel) -> None:
    """Let a model's linear layers take segments for a mask; all other calls go through unchanged. Idempotent."""
    if not hands_states_on(model):
        return
    for module in linear_layers(model):
        forward, name = module.forward, _cache_name(module)
        if name is not None and not (isinstance(forward, functools.partial) and forward.func is _forward):
            # setattr: for mypy an attribute of a module is a tensor or a module
            setattr(module, "forward", functools.partial(_forward, forward, name))  # noqa: B010


def masks_of_kinds(model: PreTrainedModel, mask: Mask) -> Mask | dict[str, Mask]:
    """Segments as the model takes them: those with linear layers would keep a 4-D mask from these, so each kind gets it."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
    return dict.fromkeys(kinds, mask) if LINEAR in kinds else mask


def _forward(
    original: Callable[..., torch.Tensor],
    cache_name: str,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    **kwargs: object,
) -> torch.Tensor:
    if not is_segments(attention_mask):
        return original(hidden_states, attention_mask=attention_mask, **kwargs)
    kwargs.pop(cache_name, None)

    def from_states(tokens: torch.Tensor, held: _Held) -> torch.Tensor:
        return original(tokens, **{cache_name: held}, **kwargs)

    return _in_two_parts(from_states, hidden_states, layout_of(attention_mask))


def _in_two_parts(
    from_states: Callable[[torch.Tensor, _Held], torch.Tensor], hidden_states: torch.Tensor, layout: Layout
) -> torch.Tensor:
    """
    Prompts from nothing, completions from the state behind theirs; (N, L, D) as (N, L, D).

    Always two calls, that every rank makes as many: without prompts, or without completions, of one token of zeros.
    """
    rows, length, width = hidden_states.shape
    tokens = hidden_states.flatten(0, 1)
    places, real = layout.prompts_on_the_right()  # (Q, P): padded where nothing has been seen yet
    held = _Held()
    prompts = from_states(_or_zeros(taken(tokens, places) * real[..., None]), held)
    own = layout.keys[:, layout.prompts.shape[1] :]  # (R, S)
    held = held.of(layout.owners) if len(own) else _Held()
    completions = from_states(_or_zeros(taken(tokens, own)), held)
    parts = [prompts.gather(1, layout.to_the_left()[..., None].expand(-1, -1, width)), completions]
    found = torch.cat([part.flatten(0, 1) for part, of in zip(parts, (places, own), strict=True) if of.numel()])
    return taken(found, layout.padded_places).unflatten(0, (rows, length))


def _or_zeros(hidden_states: torch.Tensor) -> torch.Tensor:
    rows, length, width = hidden_states.shape
    return hidden_states if rows and length else hidden_states.new_zeros(max(rows, 1), max(length, 1), width)
