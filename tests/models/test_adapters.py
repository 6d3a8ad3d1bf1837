"""A LoRA cold start as the beginning of T-GRPO: its adapter trained on, or merged into its base model."""

import copy
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from helpers import config, logged, parity, row, sft_config, trainer
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from transformers import AutoModelForImageTextToText

from videor1_trl import TGRPOTrainer, VideoSFTTrainer
from videor1_trl.generation.backends import make_backend
from videor1_trl.generation.requests import GenerationSettings
from videor1_trl.models.adapters import base_of
from videor1_trl.models.cards import hub_base


def lora():
    return LoraConfig(target_modules=["q_proj", "v_proj"], r=4)


@pytest.fixture(scope="module")
def cold_start(models, media, tmp_path_factory):
    """The folder that a LoRA cold start leaves."""
    folder = tmp_path_factory.mktemp("cold_start")
    rows = [{**row("which way?", video=media["videos"][0]), "process": "<think>left</think>"}] * 3
    args = sft_config(folder, max_steps=3, learning_rate=1e-2)
    sft = VideoSFTTrainer(models().path, args, Dataset.from_list(rows), peft_config=lora())
    sft.train()
    sft.save_model()
    return folder


def merged(models, folder):
    base = AutoModelForImageTextToText.from_pretrained(models().path)
    return PeftModel.from_pretrained(base, folder).merge_and_unload()


def logits(model, ids=(5, 6, 7)):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([list(ids)])).logits


def test_an_adapter_is_known_by_its_config_and_names_its_base(models, cold_start, tmp_path):
    assert base_of(str(cold_start)) == models().path
    assert base_of(models().path) is None and base_of(str(tmp_path)) is None and base_of("no/such-model") is None
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": None}))
    with pytest.raises(ValueError, match="names no base_model_name_or_path"):
        base_of(str(tmp_path))


def test_the_adapter_of_a_cold_start_is_trained_on_against_its_own_beginning(models, media, cold_start, tmp_path):
    rows = [row("which way?", video=media["videos"][0])]
    args = config(tmp_path, beta=0.04, num_iterations=2, max_steps=2)
    tgrpo = TGRPOTrainer(str(cold_start), parity, args, Dataset.from_list(rows))
    assert isinstance(tgrpo.model, PeftModel) and args.model_init_kwargs is None
    torch.testing.assert_close(logits(tgrpo.model), logits(merged(models, cold_start)), rtol=0, atol=1e-5)
    before = {name: value.clone() for name, value in tgrpo.model.named_parameters()}
    tgrpo.train()
    assert logged(tgrpo, "kl")[0] == pytest.approx(0, abs=1e-6), "the reference is the cold start, not the base"
    moved = {name for name, value in tgrpo.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved and all(".default." in name for name in moved)
    tgrpo.save_model()
    settings = GenerationSettings(max_new_tokens=3, video_max_pixels=1568)
    answering = make_backend("transformers", str(tmp_path), settings).model
    torch.testing.assert_close(logits(answering), logits(tgrpo.model), rtol=0, atol=1e-4)


@pytest.mark.parametrize("adapters", [False, True])
def test_the_adapter_of_a_cold_start_may_be_merged_first(models, media, cold_start, tmp_path, adapters):
    rows = [row("which way?", video=media["videos"][0])]
    args = config(tmp_path, beta=0.04, adapter="merge", learning_rate=0.0)
    options = {"peft_config": lora()} if adapters else {}
    tgrpo = TGRPOTrainer(str(cold_start), parity, args, Dataset.from_list(rows), **options)
    torch.testing.assert_close(logits(tgrpo.model), logits(merged(models, cold_start)), rtol=0, atol=1e-5)
    assert isinstance(tgrpo.model, PeftModel) is adapters
    tgrpo.train()
    assert logged(tgrpo, "kl")[0] == pytest.approx(0, abs=1e-6)
    tgrpo.save_model()
    if adapters:
        assert base_of(str(tmp_path)) == str(tmp_path / "merged"), "the base of what was trained, for whoever loads it"


def test_a_cold_start_goes_on_from_an_adapter_too(models, media, cold_start, tmp_path):
    rows = [{**row("which way?", video=media["videos"][0]), "process": "<think>left</think>"}] * 3
    sft = VideoSFTTrainer(str(cold_start), sft_config(tmp_path), Dataset.from_list(rows))
    assert isinstance(sft.model, PeftModel)
    torch.testing.assert_close(logits(sft.model), logits(merged(models, cold_start)), rtol=0, atol=1e-5)
    sft.train()


def test_an_adapter_to_train_on_and_another_to_make_contradict(models, cold_start, tmp_path):
    with pytest.raises(
        ValueError, match="is an adapter, which adapter='continue' trains on, and a peft_config asks for"
    ):
        trainer(models(), [row("a?")], tmp_path, model=str(cold_start), options={"peft_config": lora()})
    with pytest.raises(ValueError, match="adapter \\('add'\\) must be 'continue' or 'merge'"):
        config(tmp_path, adapter="add")


def adapter_of(models, folder, config, *, processor=False, change=None):
    """The folder of an adapter whose weights were trained, as far as anyone can tell, and its `PeftModel`."""
    base = AutoModelForImageTextToText.from_pretrained(models().path)
    adapted = get_peft_model(base if change is None else change(base), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name:
                parameter.normal_()
            if "magnitude" in name:
                parameter.mul_(1.5)
    adapted.save_pretrained(folder)
    if processor:
        models().processor.save_pretrained(folder)
    return adapted


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_dora": True}, {"target_modules": ["embed_tokens", "q_proj"]}, {"modules_to_save": ["lm_head"]}],
    ids=["lora", "dora", "embeddings", "modules_to_save"],
)
def test_the_scripts_model_of_an_adapters_folder_is_the_adapted_one(models, tmp_path, settings):
    """transformers' own loading began the magnitudes of DoRA anew, without a word; the processor may be the base's."""
    adapted = adapter_of(models, tmp_path, LoraConfig(**{"target_modules": ["q_proj"], "r": 4, **settings}))
    backend = make_backend("transformers", str(tmp_path), GenerationSettings(max_new_tokens=3, video_max_pixels=1568))
    torch.testing.assert_close(logits(backend.model), logits(adapted), rtol=0, atol=1e-5)
    described = backend.describe()
    assert described["model"] == str(tmp_path) and described["architecture"] == type(models().model).__name__


def test_an_adapter_of_virtual_tokens_is_refused_as_a_model(models, tmp_path):
    prefix = PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM", base_model_name_or_path=models().path)
    prefix.save_pretrained(tmp_path)
    with pytest.raises(NotImplementedError, match="PrefixTuningConfig puts virtual tokens before the prompt"):
        TGRPOTrainer(str(tmp_path), parity, config(tmp_path / "out"), Dataset.from_list([row("a?")]))
    with pytest.raises(NotImplementedError, match="PrefixTuningConfig puts virtual tokens before the prompt"):
        make_backend("transformers", str(tmp_path), GenerationSettings())


def test_an_adapter_of_other_sizes_names_itself_and_its_base(models, tmp_path):
    def wider(base):
        base.resize_token_embeddings(base.config.text_config.vocab_size + 8)
        return base

    adapter_of(models, tmp_path / "adapter", LoraConfig(target_modules=["embed_tokens"], r=4), change=wider)
    with pytest.raises(
        ValueError, match=r"(?s)adapter is an adapter that does not fit .*base_model_name_or_path.*mismatch"
    ):
        make_backend("transformers", str(tmp_path / "adapter"), GenerationSettings())
    with pytest.raises(ValueError, match="is an adapter that does not fit"):
        trainer(models(), [row("a?")], tmp_path / "out", model=str(tmp_path / "adapter"))


def test_a_merge_that_cannot_be_is_refused(models, tmp_path):
    tied = tmp_path / "tied"
    base = type(models().model)(copy.deepcopy(models().model.config))
    base.config.tie_word_embeddings = base.config.text_config.tie_word_embeddings = True
    base.tie_weights()
    base.save_pretrained(tied)
    models().processor.save_pretrained(tied)
    settings = LoraConfig(target_modules=["embed_tokens"], r=4, init_lora_weights=False)
    get_peft_model(AutoModelForImageTextToText.from_pretrained(tied), settings).save_pretrained(tmp_path / "adapter")
    rows = Dataset.from_list([row("a?")])
    with pytest.raises(ValueError, match="changes the embeddings of .*tie_word_embeddings.*adapter='continue'"):
        TGRPOTrainer(str(tmp_path / "adapter"), parity, config(tmp_path / "out", adapter="merge"), rows)
    with pytest.raises(
        ValueError, match="output_dir .* is the folder of the adapter that is the model.*another output_dir"
    ):
        TGRPOTrainer(str(tmp_path / "adapter"), parity, config(tmp_path / "adapter", adapter="merge"), rows)


def test_the_card_of_what_was_trained_from_a_merged_model_names_the_hubs(models, cold_start, tmp_path):
    """A merged folder says what it came from; of a base in a folder without a card its name is all there is."""
    rows = [row("which way?")]
    tgrpo = TGRPOTrainer(str(cold_start), parity, config(tmp_path, adapter="merge"), Dataset.from_list(rows))
    assert hub_base(str(tmp_path / "merged")) == models().path
    tgrpo.create_model_card()
    assert "fine-tuned version of a model in a local folder" in (tmp_path / "README.md").read_text()


def test_vllm_says_that_it_takes_no_adapter(cold_start, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace())
    with pytest.raises(ValueError, match="is an adapter, and the vllm backend takes whole models. Merge it into"):
        make_backend("vllm", str(cold_start), GenerationSettings())
