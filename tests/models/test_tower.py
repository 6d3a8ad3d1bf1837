"""The vision tower reads each distinct video once: per forward call, or per step where it is frozen."""

import copy
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import logged, rollouts, row, trainer
from hypothesis import given
from hypothesis import strategies as st
from packed import assert_same, computed
from tiny import FAMILIES
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from videor1_trl.models.encoding import EncodedPrompt
from videor1_trl.models.tower import Tower, distinct_media, media_of, patched


def video_prompt(*videos):
    """A prompt of videos, each a list of its patches' values; Qwen's form, a patch being one number."""
    grids = torch.tensor([[len(video), 1, 1] for video in videos])
    patches = torch.tensor([value for video in videos for value in video], dtype=torch.float32)[:, None]
    return EncodedPrompt([0], {}, {"pixel_values_videos": patches, "video_grid_thw": grids})


contents = st.lists(
    st.lists(st.sampled_from([[1, 2], [1, 3], [4], [4, 4]]), min_size=1, max_size=3), min_size=1, max_size=4
)


@given(contents)
def test_media_are_told_apart_by_their_content(videos):
    prompts = [video_prompt(*each) for each in videos]
    _, distinct, indices = distinct_media(prompts)
    flat = [video for each in videos for video in each]
    assert [medium.features["pixel_values_videos"].flatten().tolist() for medium in distinct] == [
        list(video) for video in dict.fromkeys(map(tuple, flat))
    ]
    assert [distinct[i].features["pixel_values_videos"].flatten().tolist() for i in indices["video"]] == flat


def test_media_that_agree_where_they_are_compared_first_are_still_told_apart():
    """The quick look takes every fifth of 1,000 values."""
    first, second = video_prompt([0.0] * 1000), video_prompt([0.0] * 999 + [1.0])
    assert media_of(first)[0].fingerprint() == media_of(second)[0].fingerprint()
    assert len(distinct_media([first, second])[1]) == 2


def patches_read(model):
    """Patches or images that the tower reads, call by call."""
    seen = []
    [tower] = [m for name, m in model.named_modules() if name.endswith(("visual", "vision_model"))]
    tower.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(args[0] if args else kwargs["pixel_values"])), with_kwargs=True
    )
    return seen


def questions_on_one_video(tgrpo, media):
    rows = [
        row("which way?", video=media["videos"][0]),
        row("how fast does it move?", video=media["videos"][0]),
        {**row("which differs?"), "videos": media["videos"][:2]},
        row("left?"),
    ]
    loaded = tgrpo.batch_loader.load([each for each in rows for _ in range(2)], 0, 2, 2, step=1)
    return [each.encoded for each in loaded]


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_on_one_video_share_it_in_a_forward_and_in_its_gradients(models, media, tmp_path, family):
    tgrpo = trainer(models(family), [row(video=media["videos"][0])], tmp_path)
    tgrpo.model.train()
    rows = questions_on_one_video(tgrpo, media)
    seen = patches_read(tgrpo.model)
    completions = [[30 + index, 31] for index in range(len(rows))]
    found = computed(tgrpo, rows, completions, True)
    shared = sum(seen)
    seen.clear()
    assert_same(found, computed(tgrpo, rows, completions, False))
    one = shared / 2  # two distinct videos of equal size
    assert sum(seen) == 2 * (one + one + 2 * one), "row by row: 1, 1 and 2 videos for two rows each"


def lora():
    from peft import LoraConfig

    return LoraConfig(r=4, target_modules=r".*(language_model|text_model).*(q_proj|v_proj)", init_lora_weights=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_tower_runs_once_per_step(models, media, tmp_path, family):
    """Rollouts on ordered and contrast frames, old policy, reference, and two passes over the batch: one call."""
    rows = [row("a?", video=media["videos"][0]), row("b?", video=media["videos"][0]), row("c?")]
    results = []
    for share in (True, False):
        torch.manual_seed(0)
        tgrpo = trainer(
            models(family), rows, tmp_path, per_device_train_batch_size=12, beta=0.04, num_iterations=2, max_steps=2,
            share_prefix=share, options={"peft_config": lora()}, learning_rate=1e-4,
        )  # fmt: skip
        seen = patches_read(tgrpo.model)
        torch.manual_seed(1)
        tgrpo.train()
        results.append((tgrpo, seen))
    (shared, seen), (by_row, _) = results
    features = next(each.features for each in shared._batch.encoded if each.features)
    patches = next(len(value) for key, value in features.items() if key.startswith("pixel_values"))
    images = patches if family != "smolvlm" else 8  # SmolVLM's tower counts frames
    assert seen == [3 * images], "the video in order, and shuffled for each of two prompts"
    for key in ("loss", "grad_norm", "kl", "reward"):
        assert logged(shared, key) == pytest.approx(logged(by_row, key), abs=1e-5, rel=1e-3), key
    assert logged(shared, "kl")[0] > 0


def test_a_trained_tower_runs_in_every_call(models, media, tmp_path):
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, num_iterations=2)
    seen = patches_read(tgrpo.model)
    tgrpo.current_gradient_accumulation_steps = 1
    tgrpo._compute_loss(tgrpo.model, rollouts(tgrpo) | {"num_items_in_batch": torch.tensor(1.0)})
    assert len(seen) == 3, "rollouts, old policy, loss"


def video_prompt_of(models):
    """A prompt of one video of 4 x 4 x 4 patches."""
    return EncodedPrompt(
        [0], {}, {"pixel_values_videos": torch.randn(64, 1176), "video_grid_thw": torch.tensor([[4, 4, 4]])}
    )


def test_media_that_cannot_be_told_apart_are_passed_on_whole(models):
    """LLaVA-OneVision's processor: a number of images for each prompt beside pixels for each image."""
    features = {"pixel_values": torch.randn(2, 3, 8, 8), "batch_num_images": torch.tensor([2])}
    prompt = EncodedPrompt([0], {}, features)
    assert media_of(prompt) is None and distinct_media([prompt, prompt]) is None
    with Tower(models().model).reads_once([prompt, prompt], torch.device("cpu"), True) as inputs:
        assert {key: len(value) for key, value in inputs.items()} == {"pixel_values": 4, "batch_num_images": 2}


def test_methods_of_an_object_stand_there_again():
    class Owner:
        def method(self):
            return "class"

    owner = Owner()
    for expected in ("class", "own"):
        if expected == "own":
            owner.method = lambda: "own"
        with patched(owner, method=lambda: "patched"):
            assert owner.method() == "patched"
        assert owner.method() == expected


def frozen(models):
    model = copy.deepcopy(models().model)
    for parameter in model.model.visual.parameters():
        parameter.requires_grad = False
    return model


def test_a_reference_model_uses_what_an_equal_tower_made(models, media, tmp_path):
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, model=frozen(models), beta=0.1)
    seen = patches_read(tgrpo.model), patches_read(tgrpo.ref_model)
    rollouts(tgrpo)
    assert [len(each) for each in seen] == [1, 0]


def test_a_reference_model_with_another_tower_uses_its_own(models, media, tmp_path):
    found = []
    for share in (True, False):
        model = frozen(models)
        tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, model=model, beta=0.1, share_prefix=share)
        with torch.no_grad():  # a reference of another path is refused where the trainer is made
            model.model.visual.patch_embed.proj.weight.mul_(1.5)
        seen = patches_read(tgrpo.ref_model)
        torch.manual_seed(0)
        found.append(rollouts(tgrpo)["ref_per_token_logps"])
        assert len(seen) == 1
    # TRL shuffles rows of a batch: the same random state, the same order
    torch.testing.assert_close(*found, rtol=0, atol=1e-5)


class TestWhatMayBeKept:
    def test_nothing_of_a_tower_with_one_trained_parameter(self, models):
        model = frozen(models)
        assert Tower(model).is_frozen
        model.model.visual.merger.mlp[0].bias.requires_grad = True
        assert not Tower(model).is_frozen

    def test_nothing_beside_a_trained_parameter_that_stands_by_itself(self, models):
        """LLaVA-OneVision's image_newline is a parameter of the module that calls the tower."""
        model = frozen(models)
        model.model.image_newline = nn.Parameter(torch.zeros(4))
        assert not Tower(model).is_frozen
        model.model.image_newline.requires_grad = False
        assert Tower(model).is_frozen

    @pytest.mark.parametrize("name", ["attention_dropout", "dropout", "drop_path_rate", "drop_prob"])
    def test_nothing_of_a_tower_that_drops_values(self, models, name):
        model = frozen(models)
        model.model.visual.extra = nn.Dropout(0.1)
        assert not Tower(model).is_frozen
        model.model.visual.extra = nn.Identity()
        assert Tower(model).is_frozen
        setattr(model.model.visual.extra, name, 0.1)
        assert not Tower(model).is_frozen

    def test_a_reference_is_compared_anew_when_weights_change(self, models):
        policy, reference = frozen(models), frozen(models)
        tower = Tower(reference, Tower(policy))
        assert tower.serves()
        weight = policy.model.visual.patch_embed.proj.weight
        with torch.no_grad():
            weight.add_(1.0)
        assert not tower.serves()
        with torch.no_grad():
            weight.copy_(reference.model.visual.patch_embed.proj.weight)
        assert tower.serves()

    def test_no_more_memory_than_the_kept_outputs_need(self, models):
        """The contrast videos' outputs, computed in the same call, are let go."""
        tower = Tower(frozen(models))
        media = [medium for _ in range(4) for medium in media_of(video_prompt_of(models))]
        tower._encode(media, torch.device("cpu"))
        [kept] = media[0].output["pooler_output"]
        assert kept.untyped_storage().nbytes() == kept.nbytes

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_language_model_is_no_part_of_the_tower(self, models, family):
        names = {type(module).__name__ for module in Tower(models(family).model)._modules}
        expected = {
            "qwen2_5_vl": {"Qwen2_5_VisionTransformerPretrainedModel"},
            "qwen3_vl": {"Qwen3VLVisionModel"},
            "smolvlm": {"SmolVLMVisionTransformer", "SmolVLMConnector"},
        }
        assert names == expected[family]

    def test_not_under_sharded_parameters(self, models, media, tmp_path, monkeypatch):
        tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, model=frozen(models), num_iterations=2)
        monkeypatch.setattr(tgrpo.sharing, "calls_must_match", lambda: True)
        seen = patches_read(tgrpo.model)
        rollouts(tgrpo)
        assert len(seen) >= 2, "every call of the model calls its tower, on every rank"


def test_bf16_autocast_keeps_what_the_model_would_have_computed(models, media, tmp_path):
    found = []
    for keep in (True, False):
        tgrpo = trainer(
            models(), [row(video=media["videos"][0])], tmp_path, model=frozen(models), bf16=True, num_iterations=2
        )
        if not keep:
            tgrpo.sharing.keeps_outputs = lambda: False
        torch.manual_seed(0)
        found.append(rollouts(tgrpo)["old_per_token_logps"])
    torch.testing.assert_close(*found, rtol=0, atol=1e-3)  # SDPA over one video or two: bf16 rounds alike


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_attention_in_the_tower_grows_with_the_longest_video_not_with_their_sum(models, media, family, monkeypatch):
    """transformers' sdpa: over four videos no attention is larger than over one, and none takes a mask over all."""
    model = models(family).model
    tower = Tower(model)
    sizes = []
    original = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def recording(module, query, key, value, attention_mask, **kwargs):
        sizes.append(query.shape[2] * key.shape[2])
        sizes.append(0 if attention_mask is None else attention_mask[0].numel())
        return original(module, query, key, value, attention_mask, **kwargs)

    monkeypatch.setitem(type(ALL_ATTENTION_FUNCTIONS)._global_mapping, "sdpa", recording)
    prompt = {
        "qwen2_5_vl": lambda: {"pixel_values_videos": torch.randn(64, 1176), "video_grid_thw": torch.tensor([[4, 4, 4]])},
        "qwen3_vl": lambda: {"pixel_values_videos": torch.randn(64, 1176), "video_grid_thw": torch.tensor([[4, 4, 4]])},
        "smolvlm": lambda: {"pixel_values": torch.randn(1, 4, 3, 32, 32)},
    }[family]  # fmt: skip
    largest = []
    for count in (1, 4):
        sizes.clear()
        prompts = [EncodedPrompt([0], {}, prompt()) for _ in range(count)]
        tower._encode([medium for each in prompts for medium in media_of(each)], torch.device("cpu"))
        largest.append(max(sizes))
    assert largest[0] == largest[1] <= 64 * 64


def test_a_tower_that_gives_its_outputs_in_one_piece_reads_every_medium(models, media, tmp_path, monkeypatch):
    """Then sharing costs nothing in exactness: the tower reads the video twice for two prompts."""
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path)
    rows = questions_on_one_video(tgrpo, media)[:4]
    expected = computed(tgrpo, rows, [[30], [31], [32], [33]], False)
    original = type(tgrpo.model.model).get_video_features

    @functools.wraps(original)
    def in_one_piece(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        found.pooler_output = [torch.cat(found.pooler_output), torch.zeros(0, 64), torch.zeros(0, 64)]
        return found

    monkeypatch.setattr(type(tgrpo.model.model), "get_video_features", in_one_piece)
    assert_same(computed(tgrpo, rows, [[30], [31], [32], [33]], True), expected)
    assert not tgrpo.sharing.tower._one_by_one
    assert_same(computed(tgrpo, rows, [[30], [31], [32], [33]], True), expected)


@pytest.mark.parametrize("one_piece", [False, True])
def test_where_calls_must_match_the_tower_is_never_called_a_second_time(
    models, media, tmp_path, monkeypatch, one_piece
):
    """A rank with a video twice calls as often as one without; from the second pass on it reads the video once, where it can."""
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path)
    rows = questions_on_one_video(tgrpo, media)[:4]
    expected = computed(tgrpo, rows, [[30], [31], [32], [33]], False)
    original, calls = type(tgrpo.model.model).get_video_features, []

    @functools.wraps(original)
    def counted(self, pixels, *args, **kwargs):
        found = original(self, pixels, *args, **kwargs)
        calls.append(len(pixels))
        if one_piece:
            found.pooler_output = [torch.cat(tuple(found.pooler_output)), torch.zeros(0, 64), torch.zeros(0, 64)]
        return found

    monkeypatch.setattr(type(tgrpo.model.model), "get_video_features", counted)
    monkeypatch.setattr(tgrpo.sharing.tower, "_must_match", lambda: True)
    once = len(rows[0].features["pixel_values_videos"])
    for read in ([2 * once], [2 * once if one_piece else once]):
        calls.clear()
        assert_same(computed(tgrpo, rows, [[30], [31], [32], [33]], True), expected)
        assert calls == read


def test_a_frozen_tower_of_that_kind_is_tried_once_for_its_outputs(models, media, tmp_path, monkeypatch):
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, num_iterations=2, max_steps=2)
    tgrpo.model.model.visual.requires_grad_(False)
    original = type(tgrpo.model.model).get_video_features

    @functools.wraps(original)
    def in_one_piece(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        found.pooler_output = [torch.cat(tuple(found.pooler_output)), torch.zeros(0, 64), torch.zeros(0, 64)]
        return found

    monkeypatch.setattr(type(tgrpo.model.model), "get_video_features", in_one_piece)
    seen = patches_read(tgrpo.model)
    tgrpo.train()
    once = len(rollouts(tgrpo)["encoded"][0].features["pixel_values_videos"])
    # ordered and shuffled for their outputs in vain, then what a tower in training would: rollouts, old policy, two losses
    assert seen[:2] == [2 * once, 2 * once] and set(seen[2:]) <= {once, 2 * once} and len(seen) <= 8


def test_an_adapter_within_the_tower_is_not_the_references(models, media, tmp_path):
    """The reference is the policy with its adapters off: outputs of the frozen tower with them on are not its own."""
    from peft import LoraConfig

    results = []
    for share in (True, False):
        torch.manual_seed(0)
        adapters = LoraConfig(r=4, lora_alpha=64, target_modules="all-linear", init_lora_weights=False)
        tgrpo = trainer(
            models(), [row(video=media["videos"][0])], tmp_path, beta=0.04, share_prefix=share,
            options={"peft_config": adapters},
        )  # fmt: skip
        for name, parameter in tgrpo.model.named_parameters():
            if "visual" in name:
                parameter.requires_grad_(False)
        assert not tgrpo.sharing.tower.is_frozen
        torch.manual_seed(1)
        results.append(rollouts(tgrpo))
    shared, one_by_one = results
    assert torch.equal(shared["completion_ids"], one_by_one["completion_ids"])
    torch.testing.assert_close(shared["ref_per_token_logps"], one_by_one["ref_per_token_logps"], atol=1e-5, rtol=0)


def test_handed_over_outputs_serve_a_model_that_returns_tuples(models, media, tmp_path):
    """As the models of transformers 5.24 do inside, whatever they return in the end."""
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path)
    tgrpo.model.requires_grad_(False)
    [prompt] = [each.encoded for each in tgrpo.batch_loader.load([row(video=media["videos"][0])], 0, 1, 0, step=1)]
    ids = torch.tensor([prompt.input_ids])
    types = {key: torch.tensor([value]) for key, value in prompt.token_types.items()}
    expected = tgrpo.model(input_ids=ids, **types, **prompt.features).logits
    grid = {"video_grid_thw": prompt.features["video_grid_thw"]}
    with tgrpo.sharing.tower.reads_once([prompt], ids.device, keep=True) as given_media:
        assert list(given_media) == ["mm_encoder_outputs"]
        found = tgrpo.model(input_ids=ids, **types, **grid, **given_media, return_dict=False)
    assert isinstance(found, tuple)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)


def test_rollouts_use_no_name_that_transformers_has_given_up(models, media, tmp_path):
    """transformers 5.24 warns of `past_key_values`, once a process: so in a process of its own."""
    code = f"""
import torch
from datasets import Dataset
from helpers import parity, rollouts, row, trainer
from types import SimpleNamespace
tgrpo = trainer(SimpleNamespace(path={models().path!r}), [row(video={media["videos"][0]!r})], {str(tmp_path)!r})
rollouts(tgrpo)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "past_key_values" not in done.stderr, done.stderr[-2000:]
