"""The key-value cache of rollouts: each prompt's part held and read once, and a completion's part that grows in place."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.cache_utils import DynamicCache, DynamicLayer


class RoomyLayer(DynamicLayer):
    """A cache layer that grows by `room` tokens at a time: [`DynamicLayer`] copies all it holds for every new token."""

    room = 64
    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._buffers: list[torch.Tensor] = [keys, values]  # what keys and values are the beginning of

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = self._appended(0, self.keys, key_states), self._appended(1, self.values, value_states)
        return self.keys, self.values

    def _appended(self, index: int, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        buffer, start = self._buffers[index], held.shape[-2]
        end = start + new.shape[-2]
        begins = held.data_ptr() == buffer.data_ptr() and held.stride() == buffer.stride()  # else reordered or cropped
        if not begins or end > buffer.shape[-2] or len(held) != len(buffer):
            self._buffers[index] = buffer = held.new_empty(*held.shape[:-2], end + self.room, held.shape[-1])
            buffer[..., :start, :] = held
        buffer[..., start:end, :] = new
        return buffer[..., :end, :]


@dataclass
class PromptPart:
    """
    One layer's keys and values of N distinct prompts, and the rows that go on from them.

    Args:
        keys, values (`torch.Tensor` of shape (N, H_kv, P, D)): left-padded.
        padding (`torch.Tensor` of shape (N, 1, 1, P), bool, *optional*): where the prompts are padded; `None`: nowhere.
        slots (`torch.Tensor` of shape (N, G)): the rows of each prompt; those of fewer than G are filled up with row 0.
        places (`torch.Tensor` of shape (B,)): where each row stands in the flattened (N * G) slots.
    """

    keys: torch.Tensor
    values: torch.Tensor
    padding: torch.Tensor | None
    slots: torch.Tensor
    places: torch.Tensor
    waiting: bool = False

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        *,
        scaling: float | None = None,
        dropout: float = 0.0,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        **kwargs: object,
    ) -> tuple[torch.Tensor, None]:
        """
        Attention of each row's newest token to its prompt and to its own tokens, one softmax over both.

        A prompt's keys and values are read once for all of its rows: the rows' queries are those of one sequence. In
        float32 throughout: rounded scores would sample from another law than log-probabilities are computed with.

        Args:
            query (`torch.Tensor` of shape (B, H, 1, D)): keys, values (B, H_kv, S, D) are the rows' own.

        Returns:
            `(torch.Tensor of shape (B, 1, H, D), None)`, as attention functions of transformers do.
        """
        if query.shape[2] != 1 or softcap is not None or s_aux is not None:
            raise NotImplementedError(
                f"{type(module).__name__} attends in a way that rollouts of shared prompts do not know. Set "
                "share_prefix=False."
            )
        self.waiting = False
        rows, heads, _, width = query.shape
        prompts, size = self.slots.shape
        times = heads // keys.shape[1]  # query heads of a key head
        scale = width**-0.5 if scaling is None else scaling
        dtype, query = query.dtype, (query.float() * scale).view(rows, -1, times, width)
        to_own = query @ keys.float().transpose(2, 3)  # (B, H_kv, times, S)
        to_prompt = self._grouped(query) @ self.keys.float().transpose(2, 3)  # (N, H_kv, G * times, P)
        if self.padding is not None:
            to_prompt = to_prompt.masked_fill(self.padding, -torch.inf)
        weights = torch.cat([to_prompt, self._grouped(to_own)], dim=3).softmax(3)
        weights = nn.functional.dropout(weights, dropout)
        of_prompt = weights[..., : self.keys.shape[2]] @ self.values.float()  # (N, H_kv, G * times, D)
        of_own = self._by_row(weights[..., self.keys.shape[2] :], times) @ values.float()
        return (self._by_row(of_prompt, times) + of_own).reshape(rows, 1, heads, width).to(dtype), None

    def _grouped(self, by_row: torch.Tensor) -> torch.Tensor:
        """(B, H_kv, times, X) as (N, H_kv, G * times, X)."""
        return by_row[self.slots].transpose(1, 2).flatten(2, 3)

    def _by_row(self, grouped: torch.Tensor, times: int) -> torch.Tensor:
        return grouped.unflatten(2, (-1, times)).transpose(1, 2).flatten(0, 1)[self.places]


class SharedLayer(RoomyLayer):
    """A cache layer that holds each prompt once, and the rows' own tokens apart; see [`PromptPart`]."""

    def __init__(self, prompt: PromptPart):
        shape = len(prompt.places), prompt.keys.shape[1], 0, prompt.keys.shape[3]
        super().__init__(prompt.keys.new_empty(shape), prompt.values.new_empty(shape[:3] + prompt.values.shape[3:]))
        self.prompt = prompt

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.prompt.waiting:  # what was handed out last time was not attended to together with the prompt
            raise NotImplementedError(
                "This model's attention does not go through transformers' attention functions. Set share_prefix=False."
            )
        keys, values = super().update(key_states, value_states)
        self.prompt.waiting = True
        keys.prompt_part = self.prompt  # type: ignore[attr-defined]  # read by `attention.take_segments`
        return keys, values

    def get_seq_length(self) -> int:
        return self.prompt.keys.shape[2] + self.keys.shape[2]

    def _refuse(self, *args: object, **kwargs: object) -> None:
        raise NotImplementedError("Rollouts of shared prompts cannot be reordered or cut. Set share_prefix=False.")

    crop = batch_repeat_interleave = batch_select_indices = reorder_cache = _refuse


def rows_of_prompts(cache: DynamicCache, owners: list[int], attention_mask: torch.Tensor, once: bool) -> None:
    """
    Turn the cache of N prompts into one of the rows that go on from them, in place.

    Layers of full attention hold each prompt once, or a copy for each row; of others (windows, recurrent states), which keep
    little of a prompt, each row gets a copy.

    Args:
        owners (`list[int]` of length B): the prompt of each row.
        attention_mask (`torch.Tensor` of shape (N, P)): 0 where the prompts are padded, on the left.
        once (`bool`): whether the attention knows of prompts that are held once.
    """
    device = attention_mask.device
    rows: list[list[int]] = [
        [row for row, owner in enumerate(owners) if owner == n] for n in range(len(attention_mask))
    ]
    size = max(map(len, rows))
    slots = torch.tensor([each + [0] * (size - len(each)) for each in rows], device=device)
    places = torch.tensor([owner * size + rows[owner].index(row) for row, owner in enumerate(owners)], device=device)
    padding = None if bool(attention_mask.all()) else (attention_mask == 0)[:, None, None]
    index: torch.LongTensor = torch.tensor(owners, device=device)  # type: ignore[assignment]  # int64
    for number, layer in enumerate(cache.layers):
        if type(layer) is not DynamicLayer:
            layer.reorder_cache(index)
            continue
        keys, values = layer.keys, layer.values
        assert keys is not None and values is not None
        prompt = PromptPart(keys, values, padding, slots, places) if once else None
        cache.layers[number] = RoomyLayer(keys[index], values[index]) if prompt is None else SharedLayer(prompt)
