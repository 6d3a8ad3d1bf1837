"""A group behind one prompt gives what its rows give one by one: log-probabilities, gradients, greedy tokens."""

import json
import re
import shutil

import pytest
import torch
from helpers import config, logged, rollouts, row, trainer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed import assert_same, computed, prompts_of
from tiny import FAMILIES, build
from transformers import AttentionInterface, AutoModelForCausalLM, BloomConfig, FalconConfig, MptConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from videor1_trl.models.encoding import EncodedPrompt
from videor1_trl.sharing.attention import cannot_share, visible
from videor1_trl.sharing.calls import PackedCall
from videor1_trl.sharing.packing import distinct, pack, regrouped


@pytest.fixture(scope="module")
def ready(models, media, tmp_path_factory):
    """`ready(family)`: a trainer and its prompts, made once."""
    made = {}

    def get(family, attention="sdpa"):
        if (family, attention) not in made:
            folder = tmp_path_factory.mktemp("shared")
            rows = [row(video=media["videos"][0])]
            init = {"model_init_kwargs": {"attn_implementation": attention, "dtype": "float32"}}
            tgrpo = trainer(models(family), rows, folder, **init)
            tgrpo.model.train()
            made[family, attention] = tgrpo, prompts_of(tgrpo, media)
        return made[family, attention]

    return get


compositions = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 9)),  # a row's prompt, the length of its completion (0: masked)
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(composition=compositions, seed=st.integers(0, 1000))
def test_packed_groups_equal_row_by_row(ready, family, composition, seed):
    """Any mix of prompts, rows of a group beside each other or not, part of a group, ragged and masked completions."""
    tgrpo, prompts = ready(family)
    generator = torch.Generator().manual_seed(seed)
    rows = [prompts[index] for index, _ in composition]
    completions = [torch.randint(20, 250, (length,), generator=generator).tolist() for _, length in composition]
    weights = torch.randn(len(rows), max(1, *map(len, completions)), generator=generator)
    packed = computed(tgrpo, rows, completions, True, weights)
    assert_same(packed, computed(tgrpo, rows, completions, False, weights))


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_groups_equal_row_by_row_with_eager_attention(ready, family):
    tgrpo, prompts = ready(family, "eager")
    rows = [prompts[0]] * 3 + [prompts[2]] * 2
    completions = [[30, 31, 32], [40], [50, 51], [60, 61, 62, 63], []]
    assert_same(computed(tgrpo, rows, completions, True), computed(tgrpo, rows, completions, False))


def test_the_comparison_would_notice_completions_that_see_each_other(ready, monkeypatch):
    tgrpo, prompts = ready("qwen2_5_vl")
    rows, completions = [prompts[0]] * 3, [[30, 31, 32], [40, 41], [50, 51]]
    expected = computed(tgrpo, rows, completions, False)
    original = pack

    def one_completion(*args, **kwargs):
        packed = original(*args, **kwargs)
        packed.segments[:, :, 1].clamp_(max=1)
        return packed

    monkeypatch.setattr("videor1_trl.sharing.calls.pack", one_completion)
    with pytest.raises(AssertionError):
        assert_same(computed(tgrpo, rows, completions, True), expected)


def test_a_packed_group_by_hand(models):
    """prompt[:-1], then for each completion the prompt's last token and the completion."""
    prompt = EncodedPrompt([7, 8, 9], {"mm_token_type_ids": [0, 0, 0]})
    completions = torch.tensor([[20, 21, 0], [0, 0, 0], [30, 31, 32]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1]])
    packed = pack(models().model, [prompt] * 3, completions, mask, pad_token_id=0)
    assert packed.inputs["input_ids"].tolist() == [[7, 8, 9, 20, 21, 9, 30, 31, 32]]
    assert packed.labels.tolist() == [[-100, -100, -100, 20, 21, -100, 30, 31, 32]]
    assert packed.inputs["position_ids"].tolist() == [[[0, 1, 2, 3, 4, 2, 3, 4, 5]]] * 3
    assert packed.scored.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    # the token that predicts 20 stands at 2, the one that predicts 30 at 5
    assert packed.places[0, :2].tolist() == [2, 3] and packed.places[2].tolist() == [5, 6, 7]
    assert packed.segments.tolist() == [[[[0] * 9, [0, 0, 1, 1, 1, 3, 3, 3, 3]]]]
    seen = visible(packed.segments)[0, 0].int().tolist()
    assert seen[4] == [1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert seen[7] == [1, 1, 0, 0, 0, 1, 1, 1, 0]


def test_two_packed_groups_by_hand(models):
    """Behind each other without padding, or one sequence each, padded."""
    first, second = EncodedPrompt([7, 8]), EncodedPrompt([9])
    completions, mask = torch.tensor([[20, 0], [30, 31]]), torch.tensor([[1, 0], [1, 1]])
    one = pack(models().model, [first, second], completions, mask, pad_token_id=0)
    assert one.inputs["input_ids"].tolist() == [[7, 8, 20, 9, 30, 31]]
    assert one.segments.tolist() == [[[[0, 0, 0, 1, 1, 1], [0, 1, 1, 2, 2, 2]]]]
    assert one.inputs["position_ids"][0].tolist() == [[0, 1, 2, 0, 1, 2]]
    assert one.places[0, 0] == 1 and one.places[1].tolist() == [3, 4]
    two = pack(models().model, [first, second], completions, mask, pad_token_id=0, one_sequence=False)
    assert two.inputs["input_ids"].tolist() == [[7, 8, 20], [9, 30, 31]]
    assert two.places[0, 0] == 1 and two.places[1].tolist() == [2, 3], "two scores a sequence"
    scores = torch.arange(4).view(2, 2)
    assert two.unpack(scores).tolist() == [[1, 0], [2, 3]]


def test_distinct_prompts_are_told_apart_by_identity_in_order_of_their_first_row():
    first, second = EncodedPrompt([1]), EncodedPrompt([1])
    prompts, owners = distinct([second, first, second, second, first])
    assert prompts[0] is second and prompts[1] is first
    assert owners == [0, 1, 0, 0, 1]


def count_patches(tgrpo):
    """The patches that the vision tower reads, call by call."""
    seen = []
    tgrpo.model.model.visual.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(args[0])), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("share, factor", [(True, 1), (False, 4)])
def test_the_tower_reads_each_distinct_video_once_per_forward(models, media, tmp_path, share, factor):
    rows = [row(video=media["videos"][0])]
    tgrpo = trainer(models(), rows, tmp_path, share_prefix=share, num_iterations=2, beta=0.1)
    seen = count_patches(tgrpo)
    inputs = rollouts(tgrpo)
    patches = len(inputs["encoded"][0].features["pixel_values_videos"])
    # generate: the ordered rows and the contrast rows (2 of 4); the old policy: the ordered rows
    assert seen == [patches * (2 if share else 6), patches * factor]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_rollouts_equal_those_row_by_row(models, media, tmp_path, family):
    """Ordered and contrast rows of video, image and text prompts of different length, several batches on end."""
    rows = [
        row("which way does it move?", video=media["videos"][0]),
        row("and this?", image=media["image"]),
        row("left?"),
        row("what is it now?", video=media["videos"][1]),
    ]
    tokens = []
    for share in (True, False):
        tgrpo = trainer(
            models(family), rows, tmp_path, per_device_train_batch_size=8, max_completion_length=16, share_prefix=share,
            generation_kwargs={"do_sample": False}, num_generations=2,
        )  # fmt: skip
        tgrpo.model.train()
        found = []
        loader = tgrpo.get_train_dataloader()
        for batch in [*loader, list(next(iter(loader)))[4:], list(next(iter(loader)))[:2]]:
            tgrpo._generate_and_score_completions(batch)
            found.append([tgrpo._logs["completion"][-1], *tgrpo._batch.contrast_ids])
            found.append(list(tgrpo._logs["completion"]))
        tokens.append(found)
    assert tokens[0] == tokens[1]


def test_sampled_rollouts_follow_the_same_law(models, media, tmp_path):
    """The same random numbers on the same logits (to 1e-6) draw the same tokens."""
    results = []
    for share in (True, False):
        tgrpo = trainer(
            models(), [row(video=media["videos"][0])], tmp_path, max_completion_length=12, share_prefix=share
        )
        torch.manual_seed(3)
        results.append(rollouts(tgrpo)["completion_ids"])
    # rows stay in their group's order in one micro-batch only up to TRL's shuffle: compare as sets
    assert sorted(results[0].tolist()) == sorted(results[1].tolist())


@pytest.mark.parametrize(
    "setting",
    [{"num_beams": 2}, {"use_cache": False}, {"cache_implementation": "static"}],
    ids=lambda each: [*each][0],
)
def test_generation_settings_that_cannot_share_go_row_by_row_with_one_warning(
    models, media, tmp_path, caplog, setting
):
    tgrpo = trainer(
        models(), [row(video=media["videos"][0])], tmp_path, max_completion_length=3,
        generation_kwargs={"do_sample": False, **setting},
    )  # fmt: skip
    assert caplog.text.count("Each rollout computes its prompt anew") == 1 and [*setting][0] in caplog.text
    seen = count_patches(tgrpo)
    patches = len(rollouts(tgrpo)["encoded"][0].features["pixel_values_videos"])
    assert seen[0] == 6 * patches


@pytest.mark.parametrize(
    "setting",
    [{"num_beams": 2}, {"use_cache": False}, {"cache_implementation": "static"}],
    ids=lambda each: [*each][0],
)
def test_so_do_those_that_come_with_the_checkpoint(models, media, tmp_path, caplog, setting):
    folder = tmp_path / "model"
    shutil.copytree(models().path, folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | setting))
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, model=str(folder), max_completion_length=3)
    assert caplog.text.count("Each rollout computes its prompt anew") == 1 and [*setting][0] in caplog.text
    tgrpo.train()
    assert tgrpo.state.global_step == 1


@pytest.mark.parametrize(
    "model_config",
    [
        FalconConfig(alibi=True, num_hidden_layers=1, hidden_size=8, num_attention_heads=2),
        BloomConfig(n_layer=1, hidden_size=8, n_head=2),
        MptConfig(n_layers=1, d_model=8, n_heads=2),
    ],
    ids=lambda each: each.model_type,
)
def test_positions_that_are_not_given_cannot_be_shared(model_config):
    model_config.vocab_size = 16
    assert "ALiBi" in cannot_share(AutoModelForCausalLM.from_config(model_config))


def test_a_users_own_generate_is_called_in_every_step(models, media, tmp_path):
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path)
    original, calls = tgrpo.model.generate, []

    def own(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    tgrpo.model.generate = own
    for _ in range(3):
        rollouts(tgrpo)
        tgrpo._buffered_inputs = None
    assert len(calls) == 3


def test_an_attention_that_was_registered_later_is_made_ready_again(models, media, tmp_path):
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, num_iterations=2)
    AttentionInterface.register("sdpa", sdpa_attention_forward)
    rollouts(tgrpo)
    tgrpo.model.config.get_text_config()._attn_implementation = "mine"
    with pytest.raises(NotImplementedError, match="no longer be shared: attn_implementation='mine' is not known"):
        PackedCall(
            tgrpo.model, tgrpo.sharing.tower, tgrpo._batch.encoded, torch.zeros(4, 1, dtype=int), torch.ones(4, 1), 0
        )


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["plain", "lora", "checkpointing"])
def test_a_training_step_is_the_one_row_by_row(models, media, tmp_path, extra):
    from peft import LoraConfig

    rows = [row("a?", video=media["videos"][0]), row("left?"), row("b?", image=media["image"])]
    options = {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj"])} if extra == "lora" else {}
    results = []
    for share in (True, False):
        torch.manual_seed(0)
        tgrpo = trainer(
            models(), rows, tmp_path, per_device_train_batch_size=12, beta=0.04, share_prefix=share, options=options,
            max_completion_length=12, gradient_checkpointing=extra == "checkpointing", max_steps=2, num_iterations=2,
        )  # fmt: skip
        torch.manual_seed(1)
        tgrpo.train()
        results.append(tgrpo)
    shared, one_by_one = results
    for key in ("loss", "grad_norm", "kl", "entropy", "reward"):
        assert logged(shared, key)[0] == pytest.approx(logged(one_by_one, key)[0], abs=1e-5, rel=1e-4), key
    assert logged(shared, "grad_norm")[0] > 0


def test_rows_of_a_group_stay_together_in_micro_batches(models, media, tmp_path):
    rows = [row(f"{'a' * n}?", video=media["videos"][n % 2]) for n in range(4)]
    tgrpo = trainer(models(), rows, tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    rollouts(tgrpo)
    owners = [{id(each) for each in batch["encoded"]} for batch in tgrpo._buffered_inputs]
    assert [len(each) for each in owners] == [1, 1, 1, 1]


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(1, 4))
def test_regrouping_moves_whole_rows(owners, chunks):
    prompts = [EncodedPrompt([index]) for index in range(4)]
    owners = owners * chunks
    rows = [
        {
            "value": torch.tensor(part) * 10,
            "encoded": [prompts[o] for o in part],
            "scalar": torch.tensor(5),
            "none": None,
        }
        for part in [owners[i::chunks] for i in range(chunks)]
    ]
    found = regrouped(rows)
    assert [len(batch["encoded"]) for batch in found] == [len(batch["encoded"]) for batch in rows]
    flat = [
        (each.input_ids[0], int(value))
        for batch in found
        for each, value in zip(batch["encoded"], batch["value"], strict=True)
    ]
    assert all(value == owner * 10 for owner, value in flat)
    seen = [owner for owner, _ in flat]
    assert sorted(seen) == sorted(owners)
    changes = sum(a != b for a, b in zip(seen, seen[1:], strict=False))
    assert changes == len(set(seen)) - 1
    assert all(batch["scalar"] == 5 and batch["none"] is None for batch in found)


class TestFallback:
    def test_a_model_with_other_layers_says_which(self, tmp_path):
        model = build("qwen2_5_vl", tmp_path).model
        model.config.text_config.layer_types = ["full_attention", "chunked_attention"]
        assert cannot_share(model) == "Qwen2_5_VLForConditionalGeneration has layers of chunked_attention"

    def test_an_unknown_backend_says_so(self, tmp_path):
        model = build("qwen2_5_vl", tmp_path).model
        model.config.text_config._attn_implementation = "mine"
        assert re.match("attn_implementation='mine' is not known here", cannot_share(model))

    def test_training_goes_on_row_by_row_with_one_warning(self, models, media, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr("videor1_trl.sharing.prompts.cannot_share", lambda model: "it may not")
        tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, max_steps=2)
        seen = count_patches(tgrpo)
        tgrpo.train()
        assert caplog.text.count("Each row computes its prompt anew") == 1 and "it may not" in caplog.text
        assert seen[0] == 2 * seen[1], "an ordered and a contrast video in generate, one video in the loss"

    def test_the_switch_is_silent(self, models, tmp_path, caplog):
        tgrpo = trainer(models(), [row()], tmp_path, share_prefix=False)
        assert not tgrpo.sharing.shares and "anew" not in caplog.text
        assert config(tmp_path).share_prefix
