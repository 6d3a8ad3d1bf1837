"""The cache of rollouts holds each prompt once, and attends to it as a cache of copies would."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from videor1_trl.sharing.cache import RoomyLayer, rows_of_prompts


def test_a_roomy_layer_holds_what_a_dynamic_layer_holds():
    """Over appends within and beyond its room, a crop and a selection of rows."""
    plain = DynamicLayer()
    plain.update(*torch.randn(2, 3, 2, 5, 4))
    roomy = RoomyLayer(plain.keys, plain.values)
    roomy.room = 4
    for step in range(12):
        new = torch.randn(2, len(plain.keys), 2, 1 + step % 3, 4)
        for found, expected in zip(roomy.update(*new), plain.update(*new), strict=True):
            assert torch.equal(found, expected)
        for layer in (plain, roomy):
            if step == 5:
                layer.crop(-2)
            if step == 8:
                layer.batch_select_indices(torch.tensor([2, 0]))
    assert roomy.get_seq_length() == plain.get_seq_length()


def test_a_roomy_layer_copies_only_when_its_room_is_used_up():
    plain = DynamicLayer()
    plain.update(*torch.randn(2, 3, 2, 5, 4))
    roomy = RoomyLayer(plain.keys, plain.values)
    places = [roomy.update(*torch.randn(2, 3, 2, 1, 4))[0].data_ptr() for _ in range(roomy.room + 1)]
    assert len(set(places)) == 1
    assert roomy.update(*torch.randn(2, 3, 2, 1, 4))[0].data_ptr() != places[0]


class Attention(nn.Module):
    """What is read of an attention layer."""


@settings(deadline=None)
@given(
    owners=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    steps=st.integers(1, 4),
    seed=st.integers(0, 100),
)
def test_shared_prompts_are_attended_to_as_copies_are(owners, lengths, steps, seed):
    """Against sdpa over a copy of its prompt and its own tokens for each row; prompts left-padded."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    mask = torch.tensor([[0] * (width - length) + [1] * length for length in lengths])
    states = torch.randn(2, 3, 2, width, 8, generator=generator)
    caches = [DynamicCache(), DynamicCache()]
    for cache in caches:
        cache.update(*states, layer_idx=0)
    rows_of_prompts(caches[0], owners, mask, once=True)
    rows_of_prompts(caches[1], owners, mask, once=False)
    for step in range(steps):
        query = torch.randn(len(owners), 4, 1, 8, generator=generator)
        new = torch.randn(2, len(owners), 2, 1, 8, generator=generator)
        keys, values = caches[0].update(*new, layer_idx=0)
        assert keys.shape[2] == step + 1, "a row holds its own tokens only"
        found, _ = keys.prompt_part.attend(Attention(), query, keys, values, scaling=0.4)
        keys, values = (each.repeat_interleave(2, dim=1) for each in caches[1].update(*new, layer_idx=0))
        seen = torch.cat([mask[owners], torch.ones(len(owners), step + 1)], dim=1).bool()[:, None, None]
        expected = nn.functional.scaled_dot_product_attention(query, keys, values, seen, scale=0.4)
        torch.testing.assert_close(found, expected.transpose(1, 2), rtol=0, atol=1e-6)
        assert caches[0].get_seq_length() == caches[1].get_seq_length() == width + step + 1


def test_bf16_is_as_exact_as_sdpa():
    """Rounded scores would sample from another law than the log-probabilities are of."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 1, 2, 600, 64, generator=generator)
    query, new = torch.randn(4, 4, 1, 64, generator=generator), torch.randn(2, 4, 2, 1, 64, generator=generator)
    query, states, new = (each.bfloat16() for each in (query, states, new))
    cache = DynamicCache()
    cache.update(*states, layer_idx=0)
    rows_of_prompts(cache, [0] * 4, torch.ones(1, 600), once=True)
    found = []
    keys, values = cache.update(*new, layer_idx=0)
    found.append(keys.prompt_part.attend(Attention(), query, keys, values)[0].transpose(1, 2))
    keys, values = (torch.cat([part.expand(4, -1, -1, -1), own], dim=2) for part, own in zip(states, new, strict=True))
    keys, values = (each.repeat_interleave(2, dim=1) for each in (keys, values))
    found.append(nn.functional.scaled_dot_product_attention(query, keys, values))
    exact = nn.functional.scaled_dot_product_attention(query.double(), keys.double(), values.double())
    ours, theirs = ((each.double() - exact).abs().mean() for each in found)
    assert ours <= 1.2 * theirs


def shared(owners=(0, 0), length=3):
    cache = DynamicCache()
    cache.update(*torch.randn(2, 1, 2, length, 8), layer_idx=0)
    rows_of_prompts(cache, list(owners), torch.ones(1, length), once=True)
    return cache


def test_keys_that_nobody_attended_to_are_noticed():
    """A model that bypasses the attention functions would leave the prompt out without a word."""
    cache = shared()
    cache.update(*torch.randn(2, 2, 2, 1, 8), layer_idx=0)
    with pytest.raises(NotImplementedError, match="does not go through transformers' attention functions"):
        cache.update(*torch.randn(2, 2, 2, 1, 8), layer_idx=0)


@pytest.mark.parametrize("extra", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}])
def test_attention_of_another_form_is_refused(extra):
    cache = shared()
    keys, values = cache.update(*torch.randn(2, 2, 2, 1, 8), layer_idx=0)
    with pytest.raises(NotImplementedError, match="share_prefix=False"):
        keys.prompt_part.attend(Attention(), torch.randn(2, 4, 1, 8), keys, values, **extra)


def test_a_shared_cache_refuses_to_be_reordered():
    with pytest.raises(NotImplementedError, match="cannot be reordered or cut"):
        shared().batch_select_indices(torch.tensor([1, 0]))
