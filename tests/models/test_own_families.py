"""A family of one's own: what is registered holds where the package's rules would, and nothing is registered by mistake."""

import re

import pytest
import torch
from helpers import logged, row, trainer

from videor1_trl import register_family, unregister_family
from videor1_trl.models.encoding import collate_features, encode_prompt, join_features
from videor1_trl.models.own_families import family_of
from videor1_trl.models.positions import prompt_positions
from videor1_trl.sharing.attention import cannot_go_on, cannot_share


@pytest.fixture
def registered():
    """`registered(**rules)` for Qwen2.5-VL, taken back behind the test."""
    yield lambda **rules: register_family("qwen2_5_vl", **rules)
    if family_of("qwen2_5_vl") != family_of(None):
        unregister_family("qwen2_5_vl")


def backwards(model, prompt):
    return torch.arange(len(prompt.input_ids)).flip(0)[None]


@pytest.mark.slow
def test_a_step_is_trained_by_the_rules_of_a_registered_family(models, media, tmp_path, registered):
    calls = {"encode": 0, "join": 0, "positions": 0}

    def encode(processor, messages, videos, images, **settings):
        calls["encode"] += 1
        assert settings["video_max_pixels"] == 1568
        prompt = encode_prompt(processor, messages, videos, images, **settings)
        prompt.features["of_no_model"] = torch.ones(1)
        return prompt

    def join(features):
        calls["join"] += 1
        return join_features([{key: each[key] for key in each if key != "of_no_model"} for each in features])

    def positions(model, prompt):
        calls["positions"] += 1
        return torch.arange(len(prompt.input_ids)).expand(3, -1)

    registered(encode=encode, join=join, positions=positions)
    rows = [row(video=media["videos"][0]), row(image=media["image"]), row("left?")]
    rewards = lambda completions, **kwargs: [float(index % 2) for index in range(len(completions))]  # noqa: E731
    tgrpo = trainer(models(), rows, tmp_path, rewards, per_device_train_batch_size=12, video_num_workers=0)
    before = {name: parameter.detach().clone() for name, parameter in tgrpo.model.named_parameters()}
    tgrpo.train()
    assert logged(tgrpo, "reward_std")[0] > 0
    moved = {name for name, parameter in tgrpo.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert any("visual" in name for name in moved) and any("language_model" in name for name in moved)
    assert calls["encode"] == 4 and calls["join"] > 0 and calls["positions"] == 4  # three prompts, one contrast


def test_registered_positions_are_the_models_and_others_stay(models, media, registered, tmp_path):
    built = models()
    prompt = encode_prompt(built.processor, [{"role": "user", "content": "hi"}], [], [], model_type="qwen2_5_vl")
    registered(positions=backwards)
    assert prompt_positions(built.model, prompt)[0].tolist() == list(range(len(prompt.input_ids)))[::-1]
    other = encode_prompt(models("qwen3_vl").processor, [{"role": "user", "content": "hi"}], [], [])
    assert prompt_positions(models("qwen3_vl").model, other)[0].tolist() == list(range(len(other.input_ids)))


@pytest.mark.parametrize("found", ["none", torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 9)])
def test_positions_of_another_shape_are_named(models, registered, found):
    built = models()
    prompt = encode_prompt(built.processor, [{"role": "user", "content": "hi"}], [], [], model_type="qwen2_5_vl")
    registered(positions=lambda model, prompt: found)
    with pytest.raises(TypeError, match=re.escape("positions of the family 'qwen2_5_vl' gave")):
        prompt_positions(built.model, prompt)


def test_an_encode_that_gives_no_prompt_is_named(models, registered):
    registered(encode=lambda *args, **settings: {"input_ids": [1]})
    with pytest.raises(TypeError, match=re.escape("encode of the family 'qwen2_5_vl' gave a dict")):
        encode_prompt(models().processor, [{"role": "user", "content": "hi"}], [], [], model_type="qwen2_5_vl")


def test_rows_share_as_their_family_says(models, registered):
    model = models().model
    assert cannot_share(model) is None and cannot_go_on(model) is None
    registered(shares=False)
    assert cannot_share(model) == cannot_go_on(model) == "its family is registered with shares=False"
    unregister_family("qwen2_5_vl")
    registered(shares=True)
    model.config.text_config.layer_types, layers = ["chunked_attention"], model.config.text_config.layer_types
    try:
        assert cannot_share(model) is None
    finally:
        model.config.text_config.layer_types = layers


def test_features_are_joined_by_the_family_of_their_prompts(models, registered):
    messages = [{"role": "user", "content": "hi"}]
    prompt = encode_prompt(models().processor, messages, [], [], model_type="qwen2_5_vl")
    prompt.features = {"pixels": torch.ones(2, 3)}
    registered(join=lambda features: {"pixels": torch.stack([each["pixels"] for each in features])})
    assert collate_features([prompt, prompt])["pixels"].shape == (2, 2, 3)


def test_a_family_is_registered_once_and_taken_back_once(registered):
    registered(shares=False)
    with pytest.raises(ValueError, match=re.escape("'qwen2_5_vl' is registered already. Call unregister_family")):
        registered(shares=True)
    unregister_family("qwen2_5_vl")
    with pytest.raises(ValueError, match=re.escape("'qwen2_5_vl' is not registered; registered: ")):
        unregister_family("qwen2_5_vl")


@pytest.mark.parametrize(
    "rules, error, message",
    [
        ({}, ValueError, "register_family('qwen2_5_vl') says nothing"),
        ({"encode": "mine"}, TypeError, "encode is a str"),
        ({"join": 3}, TypeError, "join is a int"),
        ({"positions": []}, TypeError, "positions is a list"),
        ({"shares": "no"}, TypeError, "shares is a str"),
    ],
)
def test_what_cannot_be_registered_is_refused(registered, rules, error, message):
    with pytest.raises(error, match=re.escape(message)):
        registered(**rules)
    assert family_of("qwen2_5_vl") == family_of(None)


@pytest.mark.parametrize("model_type", ["", None, 3])
def test_a_model_type_is_a_text(model_type):
    with pytest.raises(TypeError, match="model_type is"):
        register_family(model_type, shares=False)
