"""Packed groups under every attention backend: who sees whom, and the same numbers as row by row."""

import pytest
import torch
import transformers.modeling_flash_attention_utils as flash_utils
from helpers import rollouts, row, trainer
from hypothesis import given, settings
from hypothesis import strategies as st
from packed import assert_same, computed, prompts_of
from tiny import FAMILIES
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from videor1_trl.sharing.attention import (
    WITH_MASKS,
    attention_of,
    cannot_take_segments,
    mask_for,
    registered,
    take_segments,
    visible,
)
from videor1_trl.sharing.layout import lay_out


def segments_of(*groups):
    """Segments of one sequence: for each group the length of its prompt part, then those of its completions."""
    prompts, parts, name = [], [], 0
    for index, (prompt, *completions) in enumerate(groups):
        prompts += [index] * (prompt + sum(completions))
        parts += [0] * prompt
        for length in completions:
            name += 1
            parts += [name] * length
    return torch.tensor([prompts, parts])[None, None]


groups = st.lists(
    st.lists(st.integers(1, 5), max_size=3).flatmap(
        lambda completions: st.tuples(st.integers(0 if completions else 1, 5), *map(st.just, completions))
    ),
    min_size=1,
    max_size=3,
)


@given(groups)
def test_a_token_sees_its_prompt_and_its_own_completion_up_to_itself(lengths):
    segments = segments_of(*lengths)
    prompts, parts = segments[0, 0].tolist()
    found = visible(segments)[0, 0]
    for query in range(len(parts)):
        for key in range(len(parts)):
            own = prompts[key] == prompts[query] and parts[key] in (0, parts[query])
            assert found[query, key] == (own and key <= query)


def test_a_layout_by_hand():
    """Prompts of 2 and 1 tokens; completions of 2 and 1 behind the first, of 2 behind the second: tokens 0 to 7."""
    layout = lay_out(segments_of((2, 2, 1), (1, 2)))
    assert layout.prompts.tolist() == [[0, 1], [5, 0]], "the second prompt is padded"
    assert layout.keys.tolist() == [[0, 1, 2, 3], [0, 1, 4, 0], [5, 0, 6, 7]]
    assert layout.seen[:, 0].int().tolist() == [
        [[1, 1, 1, 0], [1, 1, 1, 1]],
        [[1, 1, 1, 0], [1, 1, 1, 1]],  # its second token is padding, whose result nobody reads
        [[1, 0, 1, 0], [1, 0, 1, 1]],  # the padding of the second prompt is never seen
    ]
    assert layout.queries.tolist() == [0, 1, 5, 2, 3, 4, 6, 7]
    assert layout.seen_tokens.tolist() == [0, 1, 5, 0, 1, 2, 3, 0, 1, 4, 5, 6, 7]
    assert layout.query_ends.tolist() == [0, 2, 3, 5, 6, 8]
    assert layout.key_ends.tolist() == [0, 2, 3, 7, 10, 13]
    assert layout.longest == (2, 4)
    assert layout.places.tolist() == [0, 1, 3, 4, 5, 2, 6, 7]
    # behind the 2 x 2 padded prompt tokens, 3 x 2 padded completion tokens
    assert layout.padded_places.tolist() == [0, 1, 4, 5, 6, 2, 8, 9]


class Attention(nn.Module):
    """What the backends read of an attention layer: four query heads on two key heads."""

    is_causal, num_key_value_groups = True, 2


def attended(implementation, segments, states, weights):
    """The output (N, L, H, D) of a backend, and the gradients of its weighted sum."""
    states = [each.clone().requires_grad_() for each in states]
    own = implementation if implementation in WITH_MASKS else registered(implementation)
    out, _ = ALL_ATTENTION_FUNCTIONS[own](
        Attention(), *states, mask_for(implementation, segments, torch.float32), scaling=0.3, dropout=0.0
    )
    real = (segments[:, 0, 0] >= 0)[..., None, None]
    (out * weights * real).sum().backward()
    return [(out * real).detach(), *(each.grad for each in states)]


@settings(deadline=None)
@given(lengths=groups, seed=st.integers(0, 100))
def test_two_parts_equal_one_dense_mask(lengths, seed):
    """The fast path against sdpa over everything: output and gradients."""
    generator = torch.Generator().manual_seed(seed)
    segments = segments_of(*lengths)
    length = segments.shape[-1]
    query, weights = torch.randn(1, 4, length, 8, generator=generator), torch.randn(1, length, 4, 8)
    states = [query, *torch.randn(2, 1, 2, length, 8, generator=generator)]
    found = attended("sdpa", segments, states, weights)

    copies = [each.clone().requires_grad_() for each in states]
    out, _ = sdpa_attention_forward(Attention(), *copies, visible(segments), scaling=0.3)
    (out * weights).sum().backward()
    for one, other in zip(found, [out, *(each.grad for each in copies)], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_padded_sequences_equal_one_without_padding():
    one = segments_of((2, 2, 1), (1, 2))
    two = torch.full((2, 1, 2, 5), -1)
    two[0, 0], two[1, 0, :, :3], two[1, 0, :, 3:] = one[0, 0, :, :5], one[0, 0, :, 5:], torch.tensor([[-1], [0]])
    states = [torch.randn(1, heads, 8, 8) for heads in (4, 2, 2)]
    padded = [torch.cat([each[:, :, :5], nn.functional.pad(each[:, :, 5:], (0, 0, 0, 2))]) for each in states]
    weights = torch.randn(1, 8, 4, 8)
    padded_weights = torch.cat([weights[:, :5], nn.functional.pad(weights[:, 5:], (0, 0, 0, 0, 0, 2))])
    found, expected = attended("sdpa", two, padded, padded_weights), attended("sdpa", one, states, weights)
    torch.testing.assert_close(torch.cat([found[0][0], found[0][1, :3]])[None], expected[0], rtol=0, atol=1e-6)


def test_other_calls_reach_the_backend_unchanged():
    own = ALL_ATTENTION_FUNCTIONS[registered("sdpa")]
    assert ALL_ATTENTION_FUNCTIONS[registered("sdpa")] is own, "made once"
    states = [torch.randn(2, heads, 3, 8) for heads in (4, 2, 2)]
    for mask in (None, torch.ones(2, 1, 3, 3, dtype=torch.bool).tril(), torch.zeros(2, 1, 3, 3)):
        found = own(Attention(), *states, mask, scaling=0.5)[0]
        torch.testing.assert_close(found, sdpa_attention_forward(Attention(), *states, mask, scaling=0.5)[0])


def test_other_models_keep_the_attention_of_transformers(models, media, tmp_path):
    """Neither their function nor their name for it is touched, nor is the vision tower of the trained model."""
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path)
    rollouts(tgrpo)
    text, vision = tgrpo.model.config.text_config, tgrpo.model.config.vision_config
    assert (text._attn_implementation, vision._attn_implementation) == ("videor1_sdpa", "sdpa")
    assert attention_of(tgrpo.model) == "sdpa"
    other = type(tgrpo.model).from_pretrained(models().path)
    assert other.config.text_config._attn_implementation == "sdpa"
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    assert models().model.config.text_config._attn_implementation == "sdpa"
    tgrpo.save_model(str(tmp_path / "saved"))
    assert "videor1" not in (tmp_path / "saved" / "config.json").read_text()


def fake_varlen(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q=None, max_seqlen_k=None, dropout_p=0.0, softmax_scale=None,
    causal=False, window_size=(-1, -1),
):  # fmt: skip
    """flash_attn_varlen_func as its documentation has it, sequence by sequence: causal masks end at the last key."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert cu_seqlens_q[-1] == len(q) and cu_seqlens_k[-1] == len(k) == len(v)
    assert cu_seqlens_q.diff().max() == max_seqlen_q and cu_seqlens_k.diff().max() == max_seqlen_k
    outputs = []
    for query, key, value in zip(
        q.split(cu_seqlens_q.diff().tolist()), k.split(cu_seqlens_k.diff().tolist()),
        v.split(cu_seqlens_k.diff().tolist()), strict=True,
    ):  # fmt: skip
        mask = torch.ones(len(query), len(key), dtype=torch.bool)
        if causal:
            mask = mask.tril(len(key) - len(query))
        repeats = query.shape[1] // key.shape[1]
        states = [query, *(each.repeat_interleave(repeats, dim=1) for each in (key, value))]
        out = nn.functional.scaled_dot_product_attention(
            *(each.transpose(0, 1) for each in states), mask, scale=softmax_scale
        )
        outputs.append(out.transpose(0, 1))
    return torch.cat(outputs)


def fake_flash(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1)):
    sizes = [torch.arange(len(q) + 1, dtype=torch.int32) * each.shape[1] for each in (q, k)]
    flat = [each.flatten(0, 1) for each in (q, k, v)]
    out = fake_varlen(*flat, *sizes, q.shape[1], k.shape[1], dropout_p, softmax_scale, causal)
    return out.unflatten(0, (len(q), -1))


@pytest.fixture
def flash(monkeypatch):
    """transformers' own path to flash attention, with a kernel that runs on a CPU."""
    kernels = (fake_flash, fake_varlen, None, flash_utils._pad_input, flash_utils._unpad_input)
    monkeypatch.setattr(flash_utils, "_lazy_imports", lambda *args, **kwargs: kernels)
    monkeypatch.setattr(flash_utils, "_loaded_implementation", None)


def with_attention(models, media, folder, family, implementation):
    tgrpo = trainer(models(family), [row(video=media["videos"][0])], folder)
    tgrpo.model.config.get_text_config()._attn_implementation = implementation
    assert take_segments(tgrpo.model) == implementation
    tgrpo.model.train()
    return tgrpo, prompts_of(tgrpo, media)


COMPLETIONS = [[30, 31, 32], [40], [50, 51], [60, 61, 62, 63], []]


@pytest.mark.parametrize("family", FAMILIES)
def test_flash_attention_gives_row_by_row(models, media, tmp_path, family, flash):
    tgrpo, prompts = with_attention(models, media, tmp_path, family, "flash_attention_2")
    rows = [prompts[0]] * 2 + [prompts[2]] * 2 + [prompts[4]]
    assert_same(computed(tgrpo, rows, COMPLETIONS, True), computed(tgrpo, rows, COMPLETIONS, False))


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
def test_flex_attention_gives_row_by_row(models, media, tmp_path, family, monkeypatch):
    """Forward only, and not compiled: torch has no backward of FlexAttention on CPUs."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(
        "transformers.integrations.flex_attention.compile_friendly_flex_attention",
        lambda *args, training, **kwargs: flex_attention(*args, **kwargs),
    )
    tgrpo, prompts = with_attention(models, media, tmp_path, family, "flex_attention")
    rows = [prompts[0]] * 2 + [prompts[2]] * 2 + [prompts[4]]
    with torch.no_grad():
        monkeypatch.setattr(torch.Tensor, "backward", lambda self: None)
        packed = computed(tgrpo, rows, COMPLETIONS, True)
        tgrpo.model.config.get_text_config()._attn_implementation = "sdpa"
        by_row = computed(tgrpo, rows, COMPLETIONS, False)
    for found, expected in zip(packed[:2], by_row[:2], strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_rollouts_and_loss_run_on_flash_attention(models, media, tmp_path, flash):
    """A whole generation batch, prefilled once, greedy: the tokens that sdpa gives."""
    found = []
    for implementation in ("sdpa", "flash_attention_2"):
        tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, generation_kwargs={"do_sample": False})
        tgrpo.model.config.get_text_config()._attn_implementation = implementation
        scored = rollouts(tgrpo)
        tgrpo.current_gradient_accumulation_steps = 1
        found.append((scored["completion_ids"].tolist(), tgrpo._compute_loss(tgrpo.model, scored).item()))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-6)


def test_a_backend_that_cannot_is_named(monkeypatch):
    assert "attn_implementation='paged|eager' is not known here" in cannot_take_segments("paged|eager")
    monkeypatch.setattr("videor1_trl.sharing.attention.flash_attn_supports_top_left_mask", lambda: True)
    assert "aligns causal masks at the first key" in cannot_take_segments("flash_attention_2")


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", ["sdpa", "flex_attention", "flash_attention_2", "eager"])
def test_every_backend_on_a_gpu_gives_eager_row_by_row(models, media, tmp_path, implementation):
    """bf16, where kernels differ by rounding: 5e-2 in log-probability, 5e-2 of the largest gradient."""
    if implementation == "flash_attention_2":
        pytest.importorskip("flash_attn")
    results = []
    for chosen, share in ((implementation, True), ("eager", False)):
        options = {"model_init_kwargs": {"attn_implementation": chosen, "dtype": "bfloat16"}}
        tgrpo = trainer(
            models("smolvlm"), [row(video=media["videos"][0])], tmp_path, use_cpu=False, bf16=True, **options
        )
        prompts = prompts_of(tgrpo, media)
        rows = [prompts[0]] * 2 + [prompts[2]] * 2 + [prompts[4]]
        results.append(computed(tgrpo, rows, COMPLETIONS, share, device=tgrpo.accelerator.device))
    packed, by_row = results
    torch.testing.assert_close(packed[0], by_row[0], rtol=0, atol=5e-2)
    largest = max(gradient.norm() for gradient in by_row[2].values())
    for name, gradient in by_row[2].items():
        assert (packed[2][name] - gradient).norm() <= 5e-2 * largest, name
