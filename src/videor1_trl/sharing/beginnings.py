"""Prompts that begin alike, their media included: the common beginning is computed once, and the rows go on from there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from ..models.encoding import EncodedPrompt, padded_inputs
from ..models.positions import prompt_positions, remember_positions
from .attention import cannot_share, layer_kinds
from .cache import rows_of_prompts
from .calls import CACHE


@dataclass
class Beginnings:
    """
    The distinct beginnings of B rows, and which of them each row goes on from.

    Args:
        prompts (`list[EncodedPrompt]` of length N <= B): each with all media of its rows, and shorter than each of them.
        owners (`list[int]` of length B): the beginning of each row.
    """

    prompts: list[EncodedPrompt]
    owners: list[int]

    @property
    def tokens_saved(self) -> int:
        """Tokens of the rows' prompts that are not computed, since another row's are theirs, too."""
        return sum(len(self.prompts[owner].input_ids) for owner in self.owners) - sum(
            len(prompt.input_ids) for prompt in self.prompts
        )


def cannot_begin_alike(model: PreTrainedModel) -> str | None:
    """
    Why rows cannot go on from a beginning that they share, or `None` where they can: padding stands within the rows, which only
    full attention passes over.
    """
    others = layer_kinds(model) - {"full_attention"}
    return f"{type(model).__name__} has layers of {', '.join(sorted(others))}" if others else cannot_share(model)


def grouped(rows: list[EncodedPrompt], placeholder_ids: set[int]) -> list[list[int]]:
    """
    The rows that can share a beginning, as indices: same media, to the last value, and same tokens up to behind the last of
    them. Groups and their rows come in the order of the rows.
    """
    groups: list[list[int]] = []
    for index, row in enumerate(rows):
        after = _after_media(row, placeholder_ids)
        for group in groups:
            first = rows[group[0]]
            if after and first.input_ids[:after] == row.input_ids[:after] and _same_features(first, row):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def beginnings(model: Any, rows: list[EncodedPrompt], placeholder_ids: set[int]) -> Beginnings | None:
    """The rows' beginnings; `None` where no two rows share one, or a row ends with its media."""
    groups = grouped(rows, placeholder_ids)
    if len(groups) == len(rows) or any(_after_media(row, placeholder_ids) == len(row.input_ids) for row in rows):
        return None
    owners = [0] * len(rows)
    prompts = []
    for number, group in enumerate(groups):
        for index in group:
            owners[index] = number
        first = rows[group[0]]
        prompts.append(_cut(model, first, _common([rows[index].input_ids for index in group])))
    return Beginnings(prompts, owners)


def prefilled(
    model: Any, rows: list[EncodedPrompt], shared: Beginnings, pad_token_id: int
) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
    """
    The rows' tokens, their mask, and a cache that holds all of them but each row's last.

    A beginning is padded on the left, and so is what follows it in its row: `[pad ... beginning | pad ... rest]`, so that all rows
    end together. Exact: positions are those of each row alone, and nothing attends to padding.

    Returns:
        `(ids, mask, cache)`: (B, P + S) each, and P + S - 1 tokens a row; ready for the model's `generate`.
    """
    device = model.device
    width = max(len(prompt.input_ids) for prompt in shared.prompts)
    ids, mask = _padded([prompt.input_ids for prompt in shared.prompts], width, pad_token_id, device)
    inputs = {key: value.to(device) for key, value in padded_inputs(shared.prompts, width, num_completion=0).items()}
    places = _positions(model, [(prompt, 0, len(prompt.input_ids)) for prompt in shared.prompts], width)
    output = model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True, logits_to_keep=1, **inputs)
    cache = getattr(output, CACHE)
    del output
    rows_of_prompts(cache, shared.owners, mask, once=False)
    begun = [len(shared.prompts[owner].input_ids) for owner in shared.owners]
    rests = [row.input_ids[start:] for row, start in zip(rows, begun, strict=True)]
    longest = max(map(len, rests))
    rest_ids, rest_mask = _padded(rests, longest, pad_token_id, device)
    whole_ids = torch.cat([ids[shared.owners], rest_ids], dim=1)
    whole_mask = torch.cat([mask[shared.owners], rest_mask], dim=1)
    if longest > 1:
        spans = [(row, start, len(row.input_ids) - 1) for row, start in zip(rows, begun, strict=True)]
        model(
            input_ids=rest_ids[:, :-1],
            attention_mask=whole_mask[:, :-1],
            position_ids=_positions(model, spans, longest - 1),
            use_cache=True,
            logits_to_keep=1,
            **{CACHE: cache},
        )
    remember_positions(model, rows)
    return whole_ids, whole_mask, cache


@torch.no_grad()
def next_token_logits(
    model: Any, rows: list[EncodedPrompt], pad_token_id: int, shared: Beginnings | None = None
) -> torch.Tensor:
    """
    The logits of the token that follows each prompt, (B, V) in float32.

    Args:
        shared ([`Beginnings`], *optional*): of these rows; `None`: each row is computed as a whole.
    """
    spans = [(row, 0, len(row.input_ids)) for row in rows]
    if shared is None:
        width = max(len(row.input_ids) for row in rows)
        ids, mask = _padded([row.input_ids for row in rows], width, pad_token_id, model.device)
        inputs = padded_inputs(rows, width, num_completion=0)
        more: dict[str, Any] = {key: value.to(model.device) for key, value in inputs.items()}
    else:
        ids, mask, cache = prefilled(model, rows, shared, pad_token_id)
        ids, more = ids[:, -1:], {CACHE: cache}
        spans, width = [(row, end - 1, end) for row, _, end in spans], 1
    positions = _positions(model, spans, width)
    output = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, **more)
    logits: torch.Tensor = output.logits[:, -1].float()
    return logits


def _after_media(row: EncodedPrompt, placeholder_ids: set[int]) -> int:
    """How many tokens there are up to and with the last one that stands for media; 0 for text."""
    if not row.features:
        return 0
    return max((place + 1 for place, token in enumerate(row.input_ids) if token in placeholder_ids), default=0)


def _same_features(one: EncodedPrompt, other: EncodedPrompt) -> bool:
    """Whether two prompts have the same media; those that were preprocessed once are the same tensors."""
    return one.features.keys() == other.features.keys() and all(
        value is other.features[key] or torch.equal(value, other.features[key]) for key, value in one.features.items()
    )


def _common(rows: list[list[int]]) -> int:
    """How many tokens all rows begin with, at most all but one of the shortest; of a row alone all but its last."""
    shortest = min(map(len, rows)) - 1
    return next((n for n in range(shortest) if len({row[n] for row in rows}) > 1), shortest)


def _cut(model: Any, row: EncodedPrompt, length: int) -> EncodedPrompt:
    """The first tokens of a prompt, with all of its media."""
    return EncodedPrompt(
        row.input_ids[:length],
        {key: values[:length] for key, values in row.token_types.items()},
        row.features,
        row.kinds,
        positions=prompt_positions(model, row)[:, :length],
        media=row.media,
    )


def _padded(
    rows: list[list[int]], width: int, pad_token_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask (N, `width`), padded on the left."""
    ids = torch.tensor([[pad_token_id] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def _positions(model: Any, spans: list[tuple[EncodedPrompt, int, int]], width: int) -> torch.Tensor:
    """The positions of a span of each prompt's tokens, padded on the left: (A, N, `width`), or (N, `width`) where A is 1."""
    found = [prompt_positions(model, prompt)[:, start:end] for prompt, start, end in spans]
    padded = torch.zeros(len(found[0]), len(found), width, dtype=torch.long)
    for row, positions in enumerate(found):
        if positions.shape[1]:
            padded[:, row, -positions.shape[1] :] = positions
    return (padded if len(padded) > 1 else padded[0]).to(model.device)
