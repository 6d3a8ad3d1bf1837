"""The contract on models and processors that are broken, of which it names what is broken; what it leaves behind and says."""

import contextlib
import random
import tempfile

import numpy as np
import pytest
import rich
import torch
from accelerate import PartialState
from hybrids import build_hybrid
from tiny import build
from trl.trainer.utils import add_fused_lm_head

import videor1_trl.contract.bench
from videor1_trl import check_model
from videor1_trl.contract.check import CHECKS
from videor1_trl.contract.result import Check, ContractResult
from videor1_trl.models import encoding
from videor1_trl.sharing import calls, recurrent
from videor1_trl.sharing.layout import Layout


# What is broken is named


@pytest.fixture
def own(tmp_path):
    """A model and a processor of the test's own, which may be broken."""
    return build("qwen2_5_vl", tmp_path / "model")


def wrapped(owner, name, around):
    """`owner.name` with `around(original, *args, **kwargs)` in its place."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: around(original, *args, **kwargs))


def blind(own, monkeypatch):
    wrapped(own.model.model.visual, "forward", lambda original, pixels, *a, **k: original(pixels * 0, *a, **k))


def orderless(own, monkeypatch):
    """Every pixel is read as the mean of all of its video."""
    wrapped(
        own.model.model.visual,
        "forward",
        lambda original, pixels, *a, **k: original(pixels.mean().expand_as(pixels), *a, **k),
    )


def mixing(own, monkeypatch):
    """Each medium is read together with the others of its batch."""
    wrapped(
        own.model.model.visual, "forward", lambda original, pixels, *a, **k: original(pixels + pixels.mean(), *a, **k)
    )


def only_first(own, monkeypatch):
    """Of several pictures the first is read twice."""

    def features(original, pixels, grid, *args, **kwargs):
        sizes = grid.prod(-1).tolist()
        parts = [part.expand_as(part) for part in pixels.split(sizes)]
        if len(parts) > 1 and parts[0].shape == parts[-1].shape:
            parts[-1] = parts[0]
        elif len(parts) > 1:
            parts[-1] = parts[-1] * 0
        return original(torch.cat(parts), grid, *args, **kwargs)

    wrapped(own.model.model.visual, "forward", features)


def telling(own, monkeypatch):
    """The prompt's text says how bright the first frame is."""
    kind = type(own.processor)

    class Telling(kind):
        def __call__(self, text=None, **kwargs):
            seen = [f"{int(frames[0].float().mean())} " for videos in kwargs.get("videos", []) for frames in videos]
            return super().__call__(text=["".join(seen) + text[0]], **kwargs)

    own.processor.__class__ = Telling


def seeing_others(own, monkeypatch):
    """Packed completions see each other."""
    original = Layout.bias
    monkeypatch.setattr(Layout, "bias", lambda self, *args: original(self, *args) * 0)


def misplaced(own, monkeypatch):
    monkeypatch.setattr(calls, "remember_positions", lambda *args: None)


def budget_ignored(own, monkeypatch):
    monkeypatch.setattr(encoding, "pixel_budget", lambda *args: {})


def media_swapped(own, monkeypatch):
    original = calls.collate_features
    monkeypatch.setattr(calls, "collate_features", lambda rows: original(rows[::-1]))


def frozen_tower(own, monkeypatch):
    own.model.model.visual.requires_grad_(False)


def detached(own, monkeypatch):
    wrapped(
        own.model.model.visual, "forward", lambda original, *args, **kwargs: torch.no_grad()(original)(*args, **kwargs)
    )


def frozen_language(own, monkeypatch):
    own.model.model.language_model.requires_grad_(False)
    own.model.lm_head.requires_grad_(False)


def not_checkpointing(own, monkeypatch):
    own.model.activation_checkpointing_enable = lambda *args, **kwargs: None


def base_trained(own, monkeypatch):
    import peft

    original = peft.get_peft_model

    def get_peft_model(model, config):
        adapted = original(model, config)
        model.model.language_model.norm.weight.requires_grad_(True)
        return adapted

    monkeypatch.setattr(peft, "get_peft_model", get_peft_model)


def saved_otherwise(own, monkeypatch):
    state = {
        name: each * 1.5 if name.endswith("norm.weight") else each for name, each in own.model.state_dict().items()
    }
    wrapped(own.model, "save_pretrained", lambda original, folder: original(folder, state_dict=state))


def no_placeholders(own, monkeypatch):
    monkeypatch.setattr("videor1_trl.sharing.prompts.placeholder_token_ids", lambda *args: [])


BREAKS = {
    telling: "contrast_ids",
    no_placeholders: "placeholders",
    budget_ignored: "pixel_budget",
    mixing: "rows_alone",
    only_first: "two_images",
    blind: "video_counts",
    orderless: "video_counts",
    misplaced: "rollouts",
    seeing_others: "packed",
    media_swapped: "cold_start",
    frozen_tower: "one_step",
    detached: "one_step",
    frozen_language: "one_step",
    not_checkpointing: "checkpointing",
    base_trained: "lora",
    saved_otherwise: "save_load",
}


@pytest.mark.parametrize("how", BREAKS, ids=lambda each: each.__name__)
def test_what_is_broken_is_named(own, monkeypatch, how):
    name = BREAKS[how]
    how(own, monkeypatch)
    result = check_model(own.model, own.processor, checks=[name])
    assert result.failed == [name], str(result)
    assert len(result[name].reason) > 20


def test_every_check_can_fail():
    """`supported` is tested below; two videos, and a video and an image, are computed as two images are."""
    assert set(CHECKS) - set(BREAKS.values()) == {"supported", "two_videos", "video_and_image"}


@pytest.mark.parametrize(
    "family, owner, name, value",
    [
        ("qwen3_5", recurrent._Held, "of", lambda self, owners: recurrent._Held()),
        pytest.param("gemma4", Layout, "prompt_mask", lambda self, window: None, marks=pytest.mark.slow),
    ],
)
def test_a_state_or_a_window_that_is_left_out_is_named(family, owner, name, value, tmp_path, monkeypatch):
    built = build_hybrid(family, tmp_path)
    monkeypatch.setattr(owner, name, value)
    assert check_model(built.model, built.processor, checks=["packed"]).failed == ["packed"]


def test_whatever_a_model_raises_is_reported(own):
    class Odd(Exception):
        pass

    def forward(*args, **kwargs):
        raise Odd("as no other model does")

    own.model.model.visual.forward = forward
    result = check_model(own.model, own.processor)
    assert "video_counts" in result.failed and "contrast_ids" not in result.failed
    assert result["video_counts"].reason == "Odd: as no other model does"


def test_a_model_that_trainers_refuse_is_reported_once(own, monkeypatch):
    def refuse(*args, **kwargs):
        raise NotImplementedError("of another family")

    monkeypatch.setattr(videor1_trl.contract.bench, "PromptSharing", refuse)
    result = check_model(own.model, own.processor)
    assert result.failed == ["supported"] and "of another family" in result["supported"].reason
    assert {check.outcome for check in result.checks[1:]} == {"not applicable"}
    assert check_model(own.model, own.processor, checks=["packed"]).failed == ["supported"]


def test_weights_that_are_no_numbers_are_reported(own):
    with torch.no_grad():
        own.model.model.language_model.norm.weight[0] = torch.nan
    result = check_model(own.model, own.processor, checks=["rows_alone", "one_step"])
    assert result.failed == ["rows_alone", "one_step"]


# What it leaves behind


def state_of(model):
    return {
        "weights": {name: each.clone() for name, each in model.state_dict().items()},
        "kinds": [(name, type(module), module.training) for name, module in model.named_modules()],
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "hooks": {name: len(module._forward_hooks) for name, module in model.named_modules()},
        "trained": [(name, each.requires_grad, each.grad is None) for name, each in model.named_parameters()],
        "config": str(model.config.to_dict())
        + model.config._attn_implementation
        + str(model.generation_config.to_dict()),
        "attention": model.config.get_text_config()._attn_implementation_internal,
        "generators": (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
        "process": dict(PartialState._shared_state),
    }


@pytest.mark.parametrize("crashes", [False, True])
def test_the_model_is_left_as_it_was(own, monkeypatch, tmp_path, crashes):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = {path.name for path in tmp_path.iterdir()}
    model = own.model.train()
    model.model.visual.requires_grad_(False)
    model.lm_head.weight.grad = gradient = torch.ones_like(model.lm_head.weight)
    if crashes:
        monkeypatch.setattr(videor1_trl.contract.bench.Bench, "gradients", lambda *args: 1 / 0)
    before = state_of(model)
    with contextlib.suppress(ZeroDivisionError):
        result = check_model(model, own.processor)
        assert set(result.failed) >= {"one_step"}
    after = state_of(model)
    assert all(torch.equal(each, before["weights"][name]) for name, each in after.pop("weights").items())
    before.pop("weights")
    assert after == before
    assert model.lm_head.weight.grad is gradient
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_model_whose_trainer_is_done_can_be_checked(own):
    add_fused_lm_head(own.model)
    forward = own.model.forward
    assert check_model(own.model, own.processor, checks=["packed"]).ok
    assert own.model.forward == forward


# What it is called with, and what it says


def test_a_model_with_adapters_is_checked_as_it_is(own):
    import peft

    model = peft.get_peft_model(own.model, peft.LoraConfig(r=2, target_modules="all-linear"))
    result = check_model(model, own.processor)
    assert result.ok, str(result)
    assert {check.name for check in result.checks if check.outcome == "not applicable"} == {"lora", "save_load"}


def test_a_processor_without_videos_is_checked_for_the_rest(own):
    own.processor.video_processor = None
    result = check_model(own.model, own.processor, checks=["contrast_ids", "rows_alone", "video_counts", "one_step"])
    outcomes = {check.name: check.outcome for check in result.checks}
    assert outcomes["contrast_ids"] == outcomes["video_counts"] == "not applicable"
    assert outcomes["rows_alone"] == outcomes["one_step"] == "pass", str(result)


def test_a_wrong_model_or_name_is_refused(own):
    with pytest.raises(TypeError, match="model is a Linear"):
        check_model(torch.nn.Linear(2, 2), own.processor)
    with pytest.raises(ValueError, match=r"checks \(tower\) must be among supported, contrast_ids,"):
        check_model(own.model, own.processor, checks=["tower"])


def test_a_result_reads_as_a_table(capsys):
    checks = [
        Check("rows_alone", "a row alone", "pass", "within 1e-06"),
        Check("packed", "packed", "fail", "they differ [by] 0.5"),
        Check("lora", "LoRA trains", "not applicable", "peft is not installed."),
    ]
    result = ContractResult("Qwen", "float32", {}, checks)
    assert result.failed == ["packed"] and not result.ok
    assert result.summary() == "1 of 3 hold, 1 do not apply; FAILED: packed."
    assert "they differ [by] 0.5" in str(result) and "within 1e-06" in str(result)
    rich.print(result.table())
    assert "packed" in capsys.readouterr().out
    assert result.to_dict()["checks"][1]["outcome"] == "fail"
