"""Where the tokens of packed groups stand: what `segments` say, as indices."""

from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.weak import WeakIdKeyDictionary


def is_segments(mask: torch.Tensor | None) -> TypeGuard[torch.Tensor]:
    """Whether what stands for a mask are segments (N, 1, 2, L); see the head of `attention`."""
    return mask is not None and mask.ndim == 4 and mask.dtype == torch.int64


@dataclass
class Layout:
    """
    Where the tokens of packed sequences stand, as indices into the flattened (N * L) tokens.

    Args:
        prompts (`torch.Tensor` of shape (Q, P)): tokens of each of Q prompts, padded with 0.
        keys (`torch.Tensor` of shape (R, P + S)): for each of R completions, those of its prompt, then its own.
        seen (`torch.Tensor` of shape (R, 1, S, P + S), bool): which key each of a completion's tokens sees.
        lengths (`torch.Tensor` of shape (Q,)): tokens of each prompt. owners (`torch.Tensor` of shape (R,)): each completion's.
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
    lengths: torch.Tensor
    owners: torch.Tensor
    queries: torch.Tensor
    seen_tokens: torch.Tensor
    query_ends: torch.Tensor
    key_ends: torch.Tensor
    longest: tuple[int, int]
    padded_places: torch.Tensor
    places: torch.Tensor
    _biases: dict[tuple[int, torch.dtype, int | None], torch.Tensor] = field(default_factory=dict)

    def bias(self, times: int, dtype: torch.dtype, window: int | None = None) -> torch.Tensor:
        """
        `seen` for `times` as many queries, as what is added to the scores (R, 1, times * S, P + S): one tensor that all layers
        use, and keep for their backward, where each would make its own of a mask.

        Args:
            window (`int`, *optional*): of a sliding layer: a token sees itself and the `window - 1` tokens of its row before it.
        """
        if (times, dtype, window) not in self._biases:
            seen = (self.seen if window is None else self.seen & self._near(window)).repeat(1, 1, times, 1)
            bias = torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, float("-inf"))
            self._biases[times, dtype, window] = bias
        return self._biases[times, dtype, window]

    def _near(self, window: int) -> torch.Tensor:
        """Which key stands within the window of a completion's token, counted in its own row; (R, 1, S, P + S)."""
        device, before = self.owners.device, self.lengths[self.owners]
        width, length = self.prompts.shape[1], self.seen.shape[2]
        of_prompt, own = torch.arange(width, device=device), torch.arange(length, device=device)
        to_prompt = before[:, None, None] + own[:, None] - of_prompt  # (R, S, P)
        to_own = (own[:, None] - own).expand(len(before), -1, -1)
        return (torch.cat([to_prompt, to_own], dim=2) < window)[:, None]

    def prompt_mask(self, window: int | None) -> torch.Tensor | None:
        """What the tokens of a prompt see of it, (1, 1, P, P) bool; `None` where that is all before them."""
        width = self.prompts.shape[1]
        if window is None or width <= window:
            return None
        place = torch.arange(width, device=self.prompts.device)
        apart = place[:, None] - place
        return ((apart >= 0) & (apart < window))[None, None]

    def prompts_on_the_right(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`prompts` with their padding before them, and which are tokens; (Q, P) each."""
        width, lengths = self.prompts.shape[1], self.lengths
        place = torch.arange(width, device=lengths.device) - (width - lengths[:, None])
        return self.prompts.gather(1, place.clamp(min=0)), place >= 0

    def to_the_left(self) -> torch.Tensor:
        """Where the tokens of `prompts` stand once their padding is before them; (Q, P)."""
        width, lengths = self.prompts.shape[1], self.lengths
        return (torch.arange(width, device=lengths.device) + (width - lengths[:, None])).clamp(max=max(width - 1, 0))


_LAYOUTS: WeakIdKeyDictionary = WeakIdKeyDictionary()  # of the segments in use: every layer asks for the same


def layout_of(segments: torch.Tensor) -> Layout:
    if segments not in _LAYOUTS:
        _LAYOUTS[segments] = lay_out(segments)
    return _LAYOUTS[segments]


def lay_out(segments: torch.Tensor) -> Layout:
    """
    Args:
        segments (`torch.Tensor` of shape (N, 1, 2, L), int64): see the head of `attention`.
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
        lengths.to(device),
        owners.to(device),
        queries.to(device),
        torch.cat(keys).to(device),
        query_ends,
        key_ends,
        (max(sizes[0]), max(sizes[1])),
        padded_places.to(device),
        places.to(device),
    )


def taken(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(M, heads, D) at an index of any shape: (*index, heads, D). `gather`, whose backward is the fastest on CPUs."""
    flat = tokens.flatten(1)
    taken = flat.gather(0, index.flatten()[:, None].expand(-1, flat.shape[1]))
    return taken.view(*index.shape, *tokens.shape[1:])
