"""Attention over packed groups: what each token sees, said to each attention backend in the form that it computes fastest."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_flash_attention_utils import flash_attn_supports_top_left_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_torch_flex_attn_available
from transformers.utils.generic import is_flash_attention_requested

from ..models.own_families import family_of, model_type_of
from .layout import Layout, is_segments, layout_of, taken
from .recurrent import hand_states_on, hands_states_on


if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

OWN = "videor1_"  # before the name of what this package's attention is made of
WITH_MASKS = ("eager", "flex_attention")  # take a mask that says who sees whom

# Packed tokens are described by `segments` (N, 1, 2, L) int64: for each token the number of its prompt (-1: padding), and
# 0 in the prompt itself, another number in each of its completions. A 4-D mask passes through transformers untouched, so
# this is what the model is given as its `attention_mask`, under any wrapper and in recomputed layers alike.


def visible(segments: torch.Tensor) -> torch.Tensor:
    """
    Which token sees which: causally, its own prompt and its own completion. Padding sees itself, so that no row is empty.

    Args:
        segments (`torch.Tensor` of shape (N, 1, 2, L), int64): see the head of this module.

    Returns:
        `torch.Tensor` of shape (N, 1, L, L), bool, queries before keys.

    >>> visible(torch.tensor([[[[0, 0, 0, -1], [0, 1, 2, 0]]]]))[0, 0].int().tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    """
    prompts, parts = segments.unbind(2)  # (N, 1, L)
    positions = torch.arange(segments.shape[-1], device=segments.device)
    return _sees(
        prompts[..., None], parts[..., None], positions[:, None], prompts[..., None, :], parts[..., None, :], positions
    )


def _sees(
    prompt: torch.Tensor,
    part: torch.Tensor,
    position: torch.Tensor,
    of_prompt: torch.Tensor,
    of_part: torch.Tensor,
    of_position: torch.Tensor,
) -> torch.Tensor:
    """Whether a query sees a key, elementwise: prompts, parts and positions of queries, then of keys."""
    alike = (prompt == of_prompt) & (of_position <= position) & ((of_part == 0) | (of_part == part))
    return (alike & (prompt >= 0)) | (position == of_position)


def mask_for(implementation: str, segments: torch.Tensor, dtype: torch.dtype) -> "torch.Tensor | BlockMask":
    """
    The `attention_mask` that tells an attention implementation of transformers who sees whom.

    Args:
        implementation (`str`): `"eager"` gets a mask to add (N, 1, L, L) of `dtype`, `"flex_attention"` a `BlockMask`, any
            other the segments themselves, where the model takes them ([`take_segments`]).
        segments (`torch.Tensor` of shape (N, 1, 2, L), int64): see the head of this module.
    """
    if implementation == "eager":
        mask = visible(segments)
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
    if implementation == "flex_attention":
        return _block_mask(segments)
    return segments


def _block_mask(segments: torch.Tensor) -> "BlockMask":
    from torch.nn.attention.flex_attention import create_block_mask

    prompts, parts = segments[:, 0, 0], segments[:, 0, 1]  # (N, L)

    def sees(row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return _sees(prompts[row, query], parts[row, query], query, prompts[row, key], parts[row, key], key)

    length = segments.shape[-1]
    return create_block_mask(sees, len(segments), None, length, length, device=str(segments.device))


def cannot_take_segments(implementation: str) -> str | None:
    """Why an attention implementation cannot compute packed groups, or `None` where it can."""
    if implementation in ("eager", "sdpa"):
        return None
    if implementation == "flex_attention":
        return None if is_torch_flex_attn_available() else "this torch has no FlexAttention"
    if is_flash_attention_requested(requested_attention_implementation=implementation):
        if flash_attn_supports_top_left_mask():
            return f"this flash attention ({implementation}) aligns causal masks at the first key, not at the last"
        return None
    return f"attn_implementation={implementation!r} is not known here; sdpa, eager, flex_attention and flash attention are"


def attention_of(model: PreTrainedModel) -> str:
    """The attention implementation of a model's text layers, by the name that transformers has for it."""
    return str(model.config.get_text_config()._attn_implementation).removeprefix(OWN)


def take_segments(model: PreTrainedModel) -> str:
    """
    Let a model's text layers take segments for a mask: they are then computed as a prompt part and a completion part by the
    same implementation. Keys from a [`~cache.SharedLayer`] are attended to together with their prompts'. All other calls
    go through unchanged.

    The layers get an attention of this package's own name (`"videor1_sdpa"`), which is registered beside transformers' own:
    other models keep theirs. Idempotent; `eager` and `flex_attention` stay, they take masks of their own (see [`mask_for`]).

    Returns:
        The implementation, by transformers' name.

    Raises:
        `NotImplementedError`: one that cannot compute packed groups.
    """
    implementation = attention_of(model)
    if (reason := cannot_take_segments(implementation)) is not None:
        raise NotImplementedError(f"Prompts can no longer be shared: {reason}. Set share_prefix=False.")
    hand_states_on(model)
    if implementation not in WITH_MASKS:
        # not by the setter, which goes on to the parts of a config: the vision tower keeps its attention
        model.config.get_text_config()._attn_implementation_internal = registered(implementation)
    return implementation


def registered(implementation: str) -> str:
    """The name under which an implementation that takes segments is registered, beside the one that it is made of."""
    own = OWN + implementation
    if own not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(own, _taking_segments(implementation))
        if implementation in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(own, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    return own


def takes_prompt_parts(implementation: str) -> bool:
    """Whether rollouts may hold each prompt's keys and values once: after [`take_segments`]."""
    return implementation not in WITH_MASKS


class _Stock:
    """A module as transformers' own function knows it: flash attention asks it for the name of its implementation."""

    def __init__(self, wrapped: object, **known: object):
        self._wrapped = wrapped
        vars(self).update(known)

    def __getattr__(self, name: str) -> object:
        return getattr(self._wrapped, name)


def _taking_segments(implementation: str) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    """The attention function of that name with segments; the original is looked up when it is called."""
    flash = is_flash_attention_requested(requested_attention_implementation=implementation)
    packed: Callable[..., tuple[torch.Tensor, None]] = _varlen if flash else _in_two_parts

    def attention(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if (prompt := getattr(key, "prompt_part", None)) is not None:
            return prompt.attend(module, query, key, value, **kwargs)
        original = ALL_ATTENTION_FUNCTIONS[implementation]
        known: nn.Module | _Stock = module
        if flash:
            known = _Stock(module, config=_Stock(module.config, _attn_implementation=implementation))
        if not is_segments(attention_mask):
            return original(known, query, key, value, attention_mask, **kwargs)
        kwargs.pop("position_ids", None)
        if getattr(module, "is_sliding", False) and kwargs.get("sliding_window") is None:
            raise NotImplementedError(
                f"{type(module).__name__} does not say how wide its window is. Set share_prefix=False."
            )
        return packed(original, known, query, key, value, layout_of(attention_mask), **kwargs)

    return attention


def _in_two_parts(
    original: Callable[..., tuple[torch.Tensor, torch.Tensor | None]],
    module: nn.Module | _Stock,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """
    Prompts see themselves causally, without a mask unless they are longer than the window; completions see their prompt and
    themselves through a mask of their own tokens, (R, 1, S, P + S) instead of one over everything. Query (N, H, L, D), key and
    value (N, H_kv, L, D).
    """
    rows, _, length, _ = query.shape
    query, key, value = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))  # (N * L, heads, D)
    parts = []
    if layout.prompts.shape[1]:
        ours = [taken(each, layout.prompts).transpose(1, 2) for each in (query, key, value)]
        mask = layout.prompt_mask(sliding_window)
        out, _ = original(module, *ours, mask, scaling=scaling, dropout=dropout, is_causal=mask is None, **kwargs)
        parts.append(out.flatten(0, 1))  # (Q * P, H, D)
    if len(layout.keys):
        own = layout.keys[:, layout.prompts.shape[1] :]  # (R, S)
        keys, values = (taken(each, layout.keys).transpose(1, 2) for each in (key, value))  # (R, H_kv, P + S, D)
        times = (
            query.shape[1] // key.shape[1]
        )  # query heads of one key head: as more queries, so that no key is repeated
        queries = taken(query, own).unflatten(2, (-1, times)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        out = nn.functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            layout.bias(times, queries.dtype, sliding_window),
            dropout_p=dropout,
            scale=scaling,
        )
        out = out.unflatten(2, (times, -1)).permute(0, 3, 1, 2, 4).flatten(2, 3)  # (R, S, H, D)
        parts.append(out.flatten(0, 1))
    return taken(torch.cat(parts), layout.padded_places).unflatten(0, (rows, length)), None


def _varlen(
    original: Callable[..., tuple[torch.Tensor, torch.Tensor | None]],
    module: nn.Module | _Stock,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """
    One call over sequences of unequal length: each prompt on itself, each completion on its prompt and itself. Causal masks
    are aligned at the last key, so that a completion's first token sees the whole prompt.
    """
    rows, _, length, _ = query.shape
    query, key, value = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))  # (N * L, heads, D)
    flat = taken(query, layout.queries), taken(key, layout.seen_tokens), taken(value, layout.seen_tokens)
    kwargs.pop("is_causal", None)
    out, _ = original(
        module,
        *(each.transpose(0, 1)[None] for each in flat),  # (1, heads, tokens, D)
        None,
        is_causal=True,
        cu_seq_lens_q=layout.query_ends,
        cu_seq_lens_k=layout.key_ends,
        max_length_q=layout.longest[0],
        max_length_k=layout.longest[1],
        **kwargs,
    )
    return taken(out[0], layout.places).unflatten(0, (rows, length)), None


PACKED = ("full_attention", "sliding_attention", "linear_attention")  # layers that packed groups can be computed in
SAID = "its family is registered with shares=False"
GONE_ON_FROM = (*PACKED, "chunked_attention")  # layers whose cache behind a prompt can be copied to the rows


def layer_kinds(model: PreTrainedModel) -> set[str]:
    """The kinds of a model's text layers, by transformers' names."""
    return set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])


def cannot_share(model: PreTrainedModel) -> str | None:
    """
    Why a model's rows cannot share their prompt's computation, or `None` where they can.

    Sharing needs layers that can be told who sees whom: full attention, sliding windows, and linear attention whose state behind
    a prompt its completions can go on from.
    """
    if (own := family_of(model_type_of(model)).shares) is not None:
        return cannot_take_segments(attention_of(model)) if own else SAID
    config, kinds = model.config.get_text_config(), layer_kinds(model)
    if unknown := kinds.difference(PACKED):
        return f"{type(model).__name__} has layers of {', '.join(sorted(unknown))}"
    if "linear_attention" in kinds and not hands_states_on(model):
        return f"{type(model).__name__} has layers of linear_attention whose state cannot be handed on"
    implementation = attention_of(model)
    if kinds != {"full_attention"} and implementation in WITH_MASKS:
        return (
            f"{type(model).__name__} has layers of {', '.join(sorted(kinds))}, which {implementation} has one mask for"
        )
    if getattr(config, "use_bidirectional_attention", None):
        return f"{type(model).__name__} lets the tokens of a picture see ahead (use_bidirectional_attention)"
    slides = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if slides and not getattr(config, "layer_types", None):
        return f"{type(model).__name__} attends through a sliding window"
    return _takes_places(model) or cannot_take_segments(implementation)


def cannot_go_on(model: PreTrainedModel) -> str | None:
    """Why rollouts cannot go on from one computation of their prompt, or `None` where they can."""
    if (own := family_of(model_type_of(model)).shares) is not None:
        return None if own else SAID
    if unknown := layer_kinds(model).difference(GONE_ON_FROM):
        return f"{type(model).__name__} has layers of {', '.join(sorted(unknown))}"
    return _takes_places(model)


def _takes_places(model: PreTrainedModel) -> str | None:
    config = model.config.get_text_config()
    if getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        return f"{type(model).__name__} takes positions from where a token stands in its row (ALiBi)"
    return None
