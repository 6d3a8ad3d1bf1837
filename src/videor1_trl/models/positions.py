"""The positions of a prompt's tokens, by the model's own rule and as the released code has them."""

import inspect
import itertools
import types
from typing import Protocol

import torch
from torch import nn

from .encoding import EncodedPrompt
from .own_families import family_of, model_type_of


RENAMED = {
    "video_second_per_grid": "second_per_grids"
}  # of a processor, and as a model's own rule names it (Qwen2.5-Omni)
RELEASED_POSITIONS = ("qwen2_vl", "qwen2_5_vl")  # text goes on at the largest position of the video + 1


def correct_positions(model: nn.Module) -> None:
    """
    Make a Qwen2-VL or Qwen2.5-VL continue text after a video as the released models were trained.

    The text after a video starts at the largest position so far + 1. transformers 5.3 to 5.23 start it earlier once a
    video is longer in time than in space. Where the installed transformers is right nothing changes, and nothing for
    other families. Rollouts, log-probabilities and evaluation of one model must share this. Idempotent.
    """
    for module in model.modules():
        if getattr(getattr(module, "config", None), "model_type", None) in RELEASED_POSITIONS:
            if hasattr(module, "get_rope_index"):
                # setattr: for mypy an attribute of a module is a tensor or a module
                setattr(module, "get_rope_index", types.MethodType(_released_rope_index, module))  # noqa: B010


class _Numbering(Protocol):
    """A model that numbers its tokens in time, height and width."""

    def get_rope_index(
        self, input_ids: torch.Tensor, mm_token_type_ids: torch.Tensor, /, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def _released_rope_index(
    self: _Numbering,
    input_ids: torch.Tensor,
    mm_token_type_ids: torch.Tensor,
    *args: object,
    attention_mask: torch.Tensor | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`get_rope_index` of the model, with what follows each video moved behind its largest position."""
    position_ids, deltas = type(self).get_rope_index(
        self, input_ids, mm_token_type_ids, *args, attention_mask=attention_mask, **kwargs
    )
    for row in range(len(input_ids)):
        kept = slice(None) if attention_mask is None else attention_mask[row].bool()
        kinds = mm_token_type_ids[row][kept].tolist()
        positions = position_ids[:, row][:, kept]  # (3, L), a copy
        shift, start, runs = 0, 0, [len(list(run)) for _, run in itertools.groupby(kinds)]
        for length in runs[:-1]:
            end = start + length
            following = int(positions[0, end])  # before any shift
            positions[:, start:end] += shift
            if kinds[start] != 0:
                shift = int(positions[:, start:end].max()) + 1 - following
            start = end
        positions[:, start:] += shift
        position_ids[:, row, kept] = positions
        deltas[row] = positions.max() + 1 - len(kinds)
    return position_ids, deltas


def prompt_positions(model: nn.Module, prompt: EncodedPrompt) -> torch.Tensor:
    """
    Positions of a prompt's tokens by the model's own rule, (A, P) int64 on the CPU: A is 3 (time, height, width) for the
    Qwen-VL families and their like, else 1. Computed once per prompt.
    """
    if prompt.positions is None:
        own = family_of(model_type_of(model)).positions
        prompt.positions = _by_model(model, prompt) if own is None else _checked(own(model, prompt), prompt)
    return prompt.positions


def _by_model(model: nn.Module, prompt: EncodedPrompt) -> torch.Tensor:
    rules = (getattr(module, "get_rope_index", None) for module in model.modules())
    rule = next((each for each in rules if each is not None), None)
    length = len(prompt.input_ids)
    if rule is None:
        return torch.arange(length)[None]
    if not prompt.features:
        return torch.arange(length).expand(3, -1)
    known = inspect.signature(rule).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    inputs = {key: torch.tensor([value]) for key, value in prompt.token_types.items()}
    for key, value in prompt.features.items():
        if not key.startswith("pixel_values"):
            inputs[RENAMED.get(key, key) if RENAMED.get(key) in known else key] = value
    ids = torch.tensor([prompt.input_ids])
    inputs = {key: value for key, value in inputs.items() if every or key in known}
    found, _ = rule(ids, attention_mask=torch.ones_like(ids), **inputs)
    positions: torch.Tensor = found[:, 0].long()
    return positions


def _checked(found: object, prompt: EncodedPrompt) -> torch.Tensor:
    length = len(prompt.input_ids)
    if isinstance(found, torch.Tensor) and found.dtype == torch.int64 and found.ndim == 2 and found.shape[1] == length:
        return found.cpu()
    what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
    raise TypeError(
        f"positions of the family {prompt.model_type!r} gave {what}; it must give an int64 tensor (A, {length}) for a prompt of "
        f"{length} tokens."
    )


def padded_positions(model: nn.Module, prompts: list[EncodedPrompt], length: int, num_completion: int) -> torch.Tensor:
    """
    Positions of B left-padded prompts, and of what stands behind them in the last `num_completion` columns, as the model takes
    them: (A, B, `length`), or (B, `length`) for one axis.
    """
    axes = [prompt_positions(model, prompt) for prompt in prompts]  # each (A, P)
    padded, end = torch.zeros(len(axes[0]), len(prompts), length, dtype=torch.long), length - num_completion
    for row, found in enumerate(axes):
        padded[:, row, end - found.shape[1] : end] = found
        padded[:, row, end:] = found[:, -1:] + 1 + torch.arange(num_completion)
    return padded if len(padded) > 1 else padded[0]


def remember_positions(model: nn.Module, prompts: list[EncodedPrompt]) -> None:
    """
    Set what a Qwen-VL model keeps of its rows' positions (`rope_deltas`: how far they run ahead of the tokens), so that
    decoding goes on behind these prompts, one per row; nothing to set in other families.
    """
    for module in model.modules():
        if hasattr(module, "get_rope_index") and hasattr(module, "rope_deltas"):
            ahead = [int(prompt_positions(model, each).max()) + 1 - len(each.input_ids) for each in prompts]
            module.rope_deltas = torch.tensor(ahead, device=next(module.parameters()).device)[:, None]
