"""Models with sliding windows or linear attention: prompts and videos computed once give what row by row gives."""

import pytest
import torch
from helpers import logged, row, trainer
from hybrids import HYBRIDS, build_hybrid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed import assert_same, computed, prompts_of
from transformers import GenerationConfig

from videor1_trl.models.encoding import collate_features, padded_token_types
from videor1_trl.sharing import recurrent
from videor1_trl.sharing.attention import cannot_share
from videor1_trl.sharing.calls import cannot_prefill, prefilled_once
from videor1_trl.sharing.layout import Layout, lay_out


PIXELS = {"qwen3_5": 1568, "gemma4": None}  # Gemma 4 makes frames of 70 tokens at least


@pytest.fixture(scope="module")
def ready(media, tmp_path_factory):
    """`ready(family)`: a trainer and its prompts, made once."""
    made = {}

    def get(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            init = {"model_init_kwargs": {"attn_implementation": "sdpa", "dtype": "float32"}}
            init["video_max_pixels"] = PIXELS[family]
            built = build_hybrid(family, folder / "model")
            tgrpo = trainer(built, [row(video=media["videos"][0])], folder, **init)
            tgrpo.model.train()
            made[family] = tgrpo, prompts_of(tgrpo, media)
        return made[family]

    return get


@pytest.mark.parametrize("family", HYBRIDS)
def test_packed_groups_equal_row_by_row(ready, family):
    tgrpo, prompts = ready(family)
    rows = [prompts[0]] * 3 + [prompts[2]] * 2 + [prompts[1], prompts[3], prompts[4]]
    completions = [list(range(30, 70)), [40], [50, 51], [60, 61, 62, 63], [], [20], [30, 31], [80] * 5]
    assert_same(computed(tgrpo, rows, completions, True), computed(tgrpo, rows, completions, False, plain=False))


@pytest.mark.parametrize("family", HYBRIDS)
def test_rows_of_one_length_equal_those_of_share_prefix_false(ready, family):
    tgrpo, prompts = ready(family)
    rows, completions = [prompts[0]] * 3, [list(range(30, 70)), [40], [50, 51]]
    expected = computed(tgrpo, rows, completions, False)
    assert_same(computed(tgrpo, rows, completions, True), expected)
    assert_same(computed(tgrpo, rows, completions, False, plain=False), expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", HYBRIDS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    composition=st.lists(st.tuples(st.sampled_from([0, 1, 2, 4]), st.integers(0, 9)), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_any_mix_of_rows_equals_row_by_row(ready, family, composition, seed):
    tgrpo, prompts = ready(family)
    generator = torch.Generator().manual_seed(seed)
    rows = [prompts[index] for index, _ in composition]
    completions = [torch.randint(20, 250, (length,), generator=generator).tolist() for _, length in composition]
    weights = torch.randn(len(rows), max(1, *map(len, completions)), generator=generator)
    packed = computed(tgrpo, rows, completions, True, weights)
    # random weights cancel in the sum: rounding alone came to 1.4e-5 of the norm in 60 mixes
    assert_same(packed, computed(tgrpo, rows, completions, False, weights, plain=False), of_norm=5e-5)


@pytest.mark.parametrize("family", HYBRIDS)
def test_greedy_rollouts_equal_those_row_by_row(ready, family):
    """Ordered and contrast rows of video, image and text prompts of different length, prefilled once and each by itself."""
    tgrpo, prompts = ready(family)
    rows = [prompts[index] for index in (0, 0, 1, 2, 2, 4, 5, 0)]
    found = [generated(tgrpo, rows, once) for once in (True, False)]
    assert found[0] == found[1]
    assert len({tuple(each) for each in found[0]}) > 2, "prompts do not all get the same answer"


def generated(tgrpo, rows, once):
    pad, width = tgrpo._tokenizer.pad_token_id, max(len(each.input_ids) for each in rows)
    ids = torch.tensor([[pad] * (width - len(each.input_ids)) + each.input_ids for each in rows])
    mask = torch.tensor([[0] * (width - len(each.input_ids)) + [1] * len(each.input_ids) for each in rows])
    settings = GenerationConfig(do_sample=False, max_new_tokens=12, pad_token_id=pad)
    types = padded_token_types(rows, width, 0)
    with torch.no_grad():
        if once:
            with prefilled_once(tgrpo.sharing.tower, rows):
                out = tgrpo.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, **types)
        else:
            inputs = {**types, **collate_features(rows)}
            out = tgrpo.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, **inputs)
    return out[:, width:].tolist()


@pytest.mark.parametrize("family", HYBRIDS)
def test_the_tower_reads_each_distinct_video_once_per_forward(ready, family):
    tgrpo, prompts = ready(family)
    tower = getattr(tgrpo.model.model, "visual", None) or tgrpo.model.model.vision_tower
    seen = []
    hook = tower.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(args[0] if args else kwargs["pixel_values"])), with_kwargs=True
    )
    try:
        rows = [prompts[0]] * 4
        entries = len(rows[0].features["pixel_values_videos"])
        generated(tgrpo, rows, True)
        computed(tgrpo, rows, [[30, 31]] * 4, True)
        computed(tgrpo, rows, [[30, 31]] * 4, False, plain=False)
        computed(tgrpo, rows, [[30, 31]] * 4, False)
    finally:
        hook.remove()
    assert seen == [entries, entries, entries, 4 * entries]


def test_the_comparison_would_notice_a_window_that_is_left_out(ready, monkeypatch):
    tgrpo, prompts = ready("gemma4")
    rows, completions = [prompts[0]] * 2, [[30, 31, 32], [40, 41]]
    expected = computed(tgrpo, rows, completions, False)
    monkeypatch.setattr(Layout, "prompt_mask", lambda self, window: None)
    with pytest.raises(AssertionError):
        assert_same(computed(tgrpo, rows, completions, True), expected)


def test_the_comparison_would_notice_a_state_that_is_not_handed_on(ready, monkeypatch):
    tgrpo, prompts = ready("qwen3_5")
    rows, completions = [prompts[0]] * 2, [[30, 31, 32], [40, 41]]
    expected = computed(tgrpo, rows, completions, False)
    monkeypatch.setattr(recurrent._Held, "of", lambda self, owners: recurrent._Held())
    with pytest.raises(AssertionError):
        assert_same(computed(tgrpo, rows, completions, True), expected)


def test_a_window_by_hand():
    """A prompt of 3 tokens, a completion of 2 behind it; a window of 2: a token sees itself and the one before it."""
    layout = lay_out(torch.tensor([[0] * 5, [0, 0, 0, 1, 1]])[None, None])
    assert layout.prompt_mask(2)[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert layout.prompt_mask(3) is None, "no prompt is longer"
    assert (layout.bias(1, torch.float32, 2)[0, 0] == 0).int().tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]


def test_prompts_with_their_padding_before_them_by_hand():
    """Prompts of 2 and 1 tokens: where a state is carried along, what is padded comes first."""
    layout = lay_out(torch.tensor([[0, 0, 1], [0, 0, 0]])[None, None])
    places, real = layout.prompts_on_the_right()
    assert real.tolist() == [[True, True], [False, True]] and places[0].tolist() == [0, 1] and places[1, 1] == 2
    assert layout.to_the_left().tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize("family", HYBRIDS)
def test_attention_that_has_one_mask_for_all_layers_goes_row_by_row(tmp_path, family):
    model = build_hybrid(family, tmp_path).model
    model.set_attn_implementation("eager")
    assert "which eager has one mask for" in cannot_share(model)
    assert cannot_prefill(GenerationConfig(), model) is None, "rollouts do without a mask of ours"


def test_pictures_that_see_ahead_go_row_by_row(tmp_path):
    model = build_hybrid("gemma4", tmp_path).model
    model.config.text_config.use_bidirectional_attention = "vision"
    assert "see ahead (use_bidirectional_attention)" in cannot_share(model)
    assert cannot_prefill(GenerationConfig(), model) is None


@pytest.mark.parametrize("family", HYBRIDS)
def test_a_training_step_is_the_one_row_by_row(media, tmp_path, family):
    built = build_hybrid(family, tmp_path / "model")
    rows = [row("a?", video=media["videos"][0]), row("left?"), row("b?", image=media["image"])]
    results = []
    for share in (True, False):
        torch.manual_seed(0)
        tgrpo = trainer(
            built, rows, tmp_path, per_device_train_batch_size=6, num_generations=2, beta=0.04, share_prefix=share,
            max_completion_length=6, gradient_checkpointing=True, generation_kwargs={"do_sample": False}, max_steps=1,
            video_max_pixels=PIXELS[family],
        )  # fmt: skip
        torch.manual_seed(1)
        tgrpo.train()
        results.append(tgrpo)
    for key in ("loss", "grad_norm", "kl", "entropy", "reward"):
        assert logged(results[0], key) == pytest.approx(logged(results[1], key), abs=1e-5, rel=1e-3), key
