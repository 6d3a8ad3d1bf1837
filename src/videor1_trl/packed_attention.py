"""Attention over packed groups: what each token sees, said to each attention backend in the form that it computes fastest."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface
from transformers.modeling_flash_attention_utils import flash_attn_supports_top_left_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_torch_flex_attn_available
from transformers.utils.generic import is_flash_attention_requested


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


def _sees(prompt: Any, part: Any, position: Any, of_prompt: Any, of_part: Any, of_position: Any) -> Any:
    """Whether a query sees a key, elementwise: prompts, parts and positions of queries, then of keys."""
    alike = (prompt == of_prompt) & (of_position <= position) & ((of_part == 0) | (of_part == part))
    return (alike & (prompt >= 0)) | (position == of_position)


def mask_for(implementation: str, segments: torch.Tensor, dtype: torch.dtype) -> Any:
    """
    The `attention_mask` that tells an attention implementation of transformers who sees whom.

    Args:
        implementation (`str`): `"eager"` gets a mask to add (N, 1, L, L) of `dtype`, `"flex_attention"` a `BlockMask`, any
            other the segments themselves, after [`take_segments`].
        segments (`torch.Tensor` of shape (N, 1, 2, L), int64): see the head of this module.
    """
    if implementation == "eager":
        mask = visible(segments)
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
    if implementation == "flex_attention":
        return _block_mask(segments)
    return segments


def _block_mask(segments: torch.Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    prompts, parts = segments[:, 0, 0], segments[:, 0, 1]  # (N, L)

    def sees(row: Any, head: Any, query: Any, key: Any) -> Any:
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


def take_segments(implementation: str) -> None:
    """
    Let an attention implementation of transformers take segments for a mask: they are then computed as a prompt part and a
    completion part by the same implementation. Keys from a [`~shared_cache.SharedLayer`] are attended to together with
    their prompts'. All other calls reach it unchanged. Idempotent; `eager` and `flex_attention` take masks of their own
    (see [`mask_for`]).
    """
    if implementation in ("eager", "flex_attention"):
        return
    original = ALL_ATTENTION_FUNCTIONS[implementation]
    if hasattr(original, "takes_segments"):
        return
    flash = is_flash_attention_requested(requested_attention_implementation=implementation)
    packed = _varlen if flash else _in_two_parts

    @functools.wraps(original)
    def attention(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        is_segments = (
            isinstance(attention_mask, torch.Tensor)
            and attention_mask.ndim == 4
            and attention_mask.dtype == torch.int64
        )
        if (prompt := getattr(key, "prompt_part", None)) is not None:
            return prompt.attend(module, query, key, value, **kwargs)
        if not is_segments:
            return original(module, query, key, value, attention_mask, **kwargs)
        assert attention_mask is not None
        kwargs.pop("position_ids", None)
        return packed(original, module, query, key, value, _layout(attention_mask), **kwargs)

    attention.takes_segments = True  # type: ignore[attr-defined]
    AttentionInterface.register(implementation, attention)


def takes_prompt_parts(implementation: str) -> bool:
    """Whether rollouts may hold each prompt's keys and values once: after [`take_segments`]."""
    return implementation != "eager" and hasattr(ALL_ATTENTION_FUNCTIONS[implementation], "takes_segments")


@dataclass
class Layout:
    """
    Where the tokens of packed sequences stand, as indices into the flattened (N * L) tokens.

    Args:
        prompts (`torch.Tensor` of shape (Q, P)): tokens of each of Q prompts, padded with 0.
        keys (`torch.Tensor` of shape (R, P + S)): for each of R completions, those of its prompt, then its own.
        seen (`torch.Tensor` of shape (R, 1, S, P + S), bool): which key each of a completion's tokens sees.
        queries (`torch.Tensor` of shape (T,)): the tokens of all prompts, then of all completions, without padding.
        seen_tokens (`torch.Tensor` of shape (K,)): the keys of the same, prompt by prompt, then completion by completion.
        query_ends, key_ends (`torch.Tensor` of shape (Q + R + 1,), int32): where each of them ends in the two, from 0.
        longest (`tuple[int, int]`): most queries and most keys of one of them.
        padded_places, places (`torch.Tensor` of shape (N * L,)): where each token's result stands behind `prompts` and
            completions padded, and in `queries`; 0 for padding.
    """

    prompts: torch.Tensor
    keys: torch.Tensor
    seen: torch.Tensor
    queries: torch.Tensor
    seen_tokens: torch.Tensor
    query_ends: torch.Tensor
    key_ends: torch.Tensor
    longest: tuple[int, int]
    padded_places: torch.Tensor
    places: torch.Tensor
    _biases: dict[tuple[int, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def bias(self, times: int, dtype: torch.dtype) -> torch.Tensor:
        """
        `seen` for `times` as many queries, as what is added to the scores (R, 1, times * S, P + S): one tensor that all layers
        use, and keep for their backward, where each would make its own of a mask.
        """
        if (times, dtype) not in self._biases:
            seen = self.seen.repeat(1, 1, times, 1)
            self._biases[times, dtype] = torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, float("-inf"))
        return self._biases[times, dtype]


_LAYOUTS: WeakIdKeyDictionary = WeakIdKeyDictionary()  # of the segments in use: every layer asks for the same


def _layout(segments: torch.Tensor) -> Layout:
    if segments not in _LAYOUTS:
        _LAYOUTS[segments] = lay_out(segments)
    return _LAYOUTS[segments]


def lay_out(segments: torch.Tensor) -> Layout:
    """
    Args:
        segments (`torch.Tensor` of shape (N, 1, 2, L), int64): see the head of this module.
    """
    of_prompt, of_part = (each.flatten() for each in segments.cpu().unbind(2))  # (N * L,)
    names = list(dict.fromkeys(of_prompt[of_prompt >= 0].tolist()))
    prompts = [((of_prompt == name) & (of_part == 0)).nonzero().flatten() for name in names]
    rows = [  # the prompt and the tokens of each completion
        (index, ((of_prompt == name) & (of_part == part)).nonzero().flatten())
        for index, name in enumerate(names)
        for part in dict.fromkeys(of_part[(of_prompt == name) & (of_part > 0)].tolist())
    ]
    completions = [tokens for _, tokens in rows]
    padded_prompts = pad_sequence(prompts, batch_first=True)  # (Q, P)
    padded = pad_sequence(completions, batch_first=True) if rows else padded_prompts.new_zeros(0, 1)  # (R, S)
    owners = torch.tensor([owner for owner, _ in rows], dtype=torch.long)
    lengths = torch.tensor([len(tokens) for tokens in prompts])
    width, length = padded_prompts.shape[1], padded.shape[1]
    in_prompt = (torch.arange(width) < lengths[owners, None])[:, None, None].expand(-1, 1, length, -1)
    causal = torch.ones(length, length, dtype=torch.bool).tril().expand(len(rows), 1, -1, -1)

    queries = torch.cat(prompts + completions)
    keys = prompts + [torch.cat([prompts[owner], tokens]) for owner, tokens in rows]
    sizes = [len(each) for each in prompts + completions], [len(each) for each in keys]
    padded_places, places = torch.zeros(2, len(of_prompt), dtype=torch.long)
    places[queries] = torch.arange(len(queries))
    for index, tokens in enumerate(prompts):
        padded_places[tokens] = index * width + torch.arange(len(tokens))
    for index, tokens in enumerate(completions):
        padded_places[tokens] = padded_prompts.numel() + index * length + torch.arange(len(tokens))

    device = segments.device
    query_ends, key_ends = (torch.tensor([0, *each]).cumsum(0).to(device, torch.int32) for each in sizes)
    return Layout(
        padded_prompts.to(device),
        torch.cat([padded_prompts[owners], padded], dim=1).to(device),
        torch.cat([in_prompt, causal], dim=3).to(device),
        queries.to(device),
        torch.cat(keys).to(device),
        query_ends,
        key_ends,
        (max(sizes[0]), max(sizes[1])),
        padded_places.to(device),
        places.to(device),
    )


def _taken(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(M, heads, D) at an index of any shape: (*index, heads, D). `gather`, whose backward is the fastest on CPUs."""
    flat = tokens.flatten(1)
    taken = flat.gather(0, index.flatten()[:, None].expand(-1, flat.shape[1]))
    return taken.view(*index.shape, *tokens.shape[1:])


def _in_two_parts(
    original: Callable,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """
    Prompts see themselves causally, without a mask; completions see their prompt and themselves through a mask of their own
    tokens, (R, 1, S, P + S) instead of one over everything. Query (N, H, L, D), key and value (N, H_kv, L, D).
    """
    rows, _, length, _ = query.shape
    query, key, value = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))  # (N * L, heads, D)
    parts = []
    if layout.prompts.shape[1]:
        ours = [_taken(each, layout.prompts).transpose(1, 2) for each in (query, key, value)]
        out, _ = original(module, *ours, None, scaling=scaling, dropout=dropout, is_causal=True, **kwargs)
        parts.append(out.flatten(0, 1))  # (Q * P, H, D)
    if len(layout.keys):
        own = layout.keys[:, layout.prompts.shape[1] :]  # (R, S)
        keys, values = (_taken(each, layout.keys).transpose(1, 2) for each in (key, value))  # (R, H_kv, P + S, D)
        times = (
            query.shape[1] // key.shape[1]
        )  # query heads of one key head: as more queries, so that no key is repeated
        queries = _taken(query, own).unflatten(2, (-1, times)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        out = nn.functional.scaled_dot_product_attention(
            queries, keys, values, layout.bias(times, queries.dtype), dropout_p=dropout, scale=scaling
        )
        out = out.unflatten(2, (times, -1)).permute(0, 3, 1, 2, 4).flatten(2, 3)  # (R, S, H, D)
        parts.append(out.flatten(0, 1))
    return _taken(torch.cat(parts), layout.padded_places).unflatten(0, (rows, length)), None


def _varlen(
    original: Callable,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """
    One call over sequences of unequal length: each prompt on itself, each completion on its prompt and itself. Causal masks
    are aligned at the last key, so that a completion's first token sees the whole prompt.
    """
    rows, _, length, _ = query.shape
    query, key, value = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))  # (N * L, heads, D)
    flat = _taken(query, layout.queries), _taken(key, layout.seen_tokens), _taken(value, layout.seen_tokens)
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
    return _taken(out[0], layout.places).unflatten(0, (rows, length)), None
