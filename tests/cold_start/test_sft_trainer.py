"""The supervised cold start: what is scored, what the loss depends on, and that both ways to batch compute the same."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import trl
from datasets import Dataset
from helpers import row, sft_config
from peft import LoraConfig, PrefixTuningConfig
from transformers import AutoModelForImageTextToText

from videor1_trl import TGRPOTrainer, VideoSFTConfig, VideoSFTTrainer, format_reward, load_video_r1
from videor1_trl.data.placing import PromptError
from videor1_trl.data.targets import completion_text
from videor1_trl.media.errors import VideoError
from videor1_trl.models.tokens import placeholder_token_ids


THOUGHT = "<think>It moves to the left.</think>"
EXAMPLES = Path(__file__).parents[2] / "examples"
FAMILIES = ("qwen2_5_vl", "qwen3_vl", "smolvlm")


def record(text="which way?", **columns):
    return row(text, **{"process": THOUGHT, **columns})


def mixed(media):
    """A video, an image and a text row, of different lengths, the video row with a longer rationale."""
    return [
        record("which way does it go?", video=media["videos"][0], process="<think>left, left, left again</think>"),
        record("a?", image=media["image"]),
        record("left or right, by the text alone?", solution="<answer>B</answer>"),
    ]


def make(tiny_model, rows, folder, *, model=None, eval_rows=None, options=None, **overrides):
    return VideoSFTTrainer(
        model=model or tiny_model.path,
        args=sft_config(folder, **overrides),
        train_dataset=Dataset.from_list(rows) if isinstance(rows, list) else rows,
        eval_dataset=Dataset.from_list(eval_rows) if eval_rows else None,
        **(options or {}),
    )


def batch_of(trainer, rows):
    return trainer.data_collator([dict(each) for each in rows])


def loss_of(trainer, batch, **kwargs):
    return trainer.compute_loss(trainer.model, dict(batch), **kwargs)


# What is scored


def test_the_target_is_rationale_newline_solution():
    assert completion_text(record()) == f"{THOUGHT}\n<answer>A</answer>"
    assert completion_text(record(completion="so")) == "so"
    assert completion_text(record(completion=[{"role": "assistant", "content": "so"}])) == "so"


@pytest.mark.parametrize("family", FAMILIES[:2])
def test_only_the_completion_is_scored_from_its_first_token_to_its_end_token(models, media, tmp_path, family):
    trainer = make(models(family), mixed(media), tmp_path)
    batch = batch_of(trainer, mixed(media))
    tokenizer = trainer.processing_class.tokenizer
    for place, each in enumerate(mixed(media)):
        labels = batch["labels"][place]
        scored = labels[labels != -100].tolist()
        target = tokenizer(completion_text(each) + "<|im_end|>", add_special_tokens=False)["input_ids"]
        assert scored == target
        length = int(batch["attention_mask"][place].sum())
        prompt = batch["encoded"][place].input_ids
        assert batch["input_ids"][place, :length].tolist() == prompt + target
        assert (labels[: len(prompt)] == -100).all() and (labels[length:] == -100).all()


def test_an_end_token_is_added_where_the_template_has_none(models, media, tmp_path):
    """The template that SmolVLM's processor has for videos ends a turn with a token that this tokenizer lacks."""
    trainer = make(models("smolvlm"), mixed(media), tmp_path)
    labels = batch_of(trainer, mixed(media))["labels"][0]
    scored = labels[labels != -100]
    tokenizer = trainer.processing_class.tokenizer
    assert scored[-1] == tokenizer.eos_token_id and (scored[:-1] != tokenizer.eos_token_id).all()
    assert tokenizer.decode(scored[:-1]).strip().startswith(completion_text(mixed(media)[0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_completion_only_loss_the_prompts_text_is_scored_and_no_visual_token(models, media, tmp_path, family):
    trainer = make(models(family), mixed(media), tmp_path, completion_only_loss=False)
    batch = batch_of(trainer, mixed(media))
    visual = set(placeholder_token_ids(trainer.model, trainer.processing_class))
    assert any(token in visual for token in batch["input_ids"][0].tolist())
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        for place, (token, label, kept) in enumerate(zip(ids.tolist(), labels.tolist(), mask.tolist(), strict=True)):
            expected = -100 if not kept or place == 0 or token in visual else token
            assert label == expected


def test_prompts_are_those_of_t_grpo(models, media, tmp_path):
    rows = mixed(media)
    trainer = make(models(), rows, tmp_path)
    grpo = trainer_of_t_grpo(models(), rows, tmp_path)
    encoded = [each.encoded for each in grpo.batch_loader.load(rows, 0, 1, 0, step=0)]
    for ours, theirs in zip(batch_of(trainer, rows)["encoded"], encoded, strict=True):
        assert ours.input_ids == theirs.input_ids and ours.token_types == theirs.token_types
        assert ours.features.keys() == theirs.features.keys()
        for key, value in ours.features.items():
            torch.testing.assert_close(value, theirs.features[key], rtol=0, atol=0)


def trainer_of_t_grpo(tiny_model, rows, folder) -> TGRPOTrainer:
    from helpers import trainer

    return trainer(tiny_model, [dict(each) for each in rows], folder)


# The loss


def row_by_row(trainer, rows):
    """The oracle: each row alone, unpadded, through the model's own forward; mean over all scored tokens."""
    model, total, count = trainer.model, 0.0, 0
    for each in rows:
        batch = batch_of(trainer, [each])
        encoded, labels = batch["encoded"][0], batch["labels"][0]
        types = {
            key: torch.tensor([value + [0] * (len(labels) - len(value))]) for key, value in encoded.token_types.items()
        }
        logits = model(input_ids=batch["input_ids"], **encoded.features, **types).logits[0, :-1]
        scored = labels[1:] != -100
        picked = torch.log_softmax(logits.float(), -1).gather(1, labels[1:].clamp_min(0)[:, None])[:, 0]
        total, count = total - picked[scored].sum(), count + scored.sum()
    return total / count


@pytest.mark.parametrize("batching", ["padded", "padding_free", "whole_text"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_row_by_row(models, media, tmp_path, family, batching):
    rows = mixed(media) + [record("again, which?", video=media["videos"][0]), record("b?", video=media["videos"][1])]
    options = {"padding_free": {"padding_free": True}, "whole_text": {"completion_only_loss": False}}
    trainer = make(models(family), rows, tmp_path, **options.get(batching, {}))
    trainer.model.train()
    expected = row_by_row(trainer, rows)
    expected.backward()
    oracle = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()
    loss = loss_of(trainer, batch_of(trainer, rows))
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    scale = max(gradient.abs().max() for gradient in oracle.values())
    assert any("visual" in name or "vision" in name for name in oracle)
    for name, parameter in trainer.model.named_parameters():
        if name in oracle:
            torch.testing.assert_close(parameter.grad, oracle[name], rtol=0, atol=1e-5 * scale.item(), msg=name)


def test_the_arguments_that_are_given_stay_as_they_are(models, media, tmp_path):
    given = {"add_special_tokens": False}
    args = sft_config(tmp_path, padding_free=True, dataset_kwargs=given)
    before = dict(vars(args))
    trainer = VideoSFTTrainer(models().path, args, Dataset.from_list([record(video=media["videos"][0])]))
    assert trainer.args.padding_free and trainer.sharing.shares
    assert {name for name, value in vars(args).items() if before[name] is not value} <= set(), "TRL or we changed them"
    assert given == {"add_special_tokens": False}


@pytest.mark.parametrize("padding_free", [False, True])
def test_the_loss_depends_on_the_video_and_on_its_order(models, media, tmp_path, padding_free):
    rows = [record(video=media["videos"][0])]
    trainer = make(models(), rows, tmp_path, padding_free=padding_free)
    backwards = make(models(), rows, tmp_path, padding_free=padding_free, options={"video_loader": reversed_frames})
    other = [record(video=media["videos"][1])]
    with torch.no_grad():
        loss = loss_of(trainer, batch_of(trainer, rows))
        assert (loss_of(trainer, batch_of(trainer, other)) - loss).abs() > 1e-4
        assert (loss_of(backwards, batch_of(backwards, rows)) - loss).abs() > 1e-4
        torch.testing.assert_close(loss_of(trainer, batch_of(trainer, rows)), loss, rtol=0, atol=0)


def reversed_frames(source, **kwargs):
    from videor1_trl import load_video

    frames, metadata = load_video(source, **kwargs)
    return frames.flip(0), metadata


def test_padding_free_reads_a_video_once_and_pads_nothing(models, media, tmp_path):
    rows = [record(text, video=media["videos"][0]) for text in ("a?", "which way does it go, left or right?")]
    trainer = make(models(), rows, tmp_path, padding_free=True)
    seen = {}
    trainer.model.model.visual.register_forward_hook(lambda module, args, out: seen.update(pixels=len(args[0])))
    trainer.model.model.language_model.register_forward_hook(
        lambda module, args, kwargs, out: seen.update(shape=kwargs["inputs_embeds"].shape), with_kwargs=True
    )
    batch = batch_of(trainer, rows)
    loss_of(trainer, batch)
    assert seen["pixels"] == len(batch["encoded"][0].features["pixel_values_videos"])
    assert seen["shape"][:2] == (1, int(batch["attention_mask"].sum()))


def test_a_model_that_cannot_share_is_padded_with_one_warning(models, media, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("videor1_trl.sharing.prompts.cannot_share", lambda model: "it attends through a window")
    trainer = make(models(), mixed(media), tmp_path, padding_free=True)
    assert "Rows are padded (padding_free=False): it attends through a window." in caplog.text
    expected = row_by_row(trainer, mixed(media))
    torch.testing.assert_close(loss_of(trainer, batch_of(trainer, mixed(media))), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding_free", [False, True])
def test_a_rank_without_media_calls_the_tower_and_dummies_change_nothing(
    models, media, tmp_path, monkeypatch, padding_free
):
    rows = mixed(media)
    trainer = make(models(), rows, tmp_path, padding_free=padding_free)
    trainer.model.train()
    calls, results = [], []
    tower = trainer.model.model.visual
    tower.register_forward_hook(lambda *args: calls.append("forward"))
    tower.patch_embed.proj.weight.register_hook(lambda gradient: calls.append("backward"))
    for needed in (False, True):
        monkeypatch.setattr("videor1_trl.sharing.prompts.calls_must_match", lambda trainer, needed=needed: needed)
        trainer.model.zero_grad()
        calls.clear()
        loss = loss_of(trainer, batch_of(trainer, rows[2:]))
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
        results.append((loss.detach(), gradients, calls.count("forward"), "backward" in calls))
    (plain_loss, plain, none, _), (loss, gradients, forwards, backwards) = results
    assert (none, forwards, backwards) == (0, 2, True)
    torch.testing.assert_close(loss, plain_loss, rtol=0, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain.get(name, torch.zeros_like(gradient)), rtol=0, atol=1e-6, msg=name)


# One mean over an optimizer step, whatever micro-batches and ranks its rows are on


def unequal(media):
    """Rows of very different numbers of labels; the last one alone in a micro-batch of one."""
    texts = (
        "left",
        "it goes to the left, then on to the left again, as far as one can see here",
        "right",
        "a b c d e",
    )
    return [
        record(f"question {place}?", video=media["videos"][place], process=f"<think>{text}</think>")
        for place, text in enumerate(texts)
    ]


def gradients_of_a_step(trainer):
    """What one optimizer step of plain SGD at learning rate 1 moved the weights by."""
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    return {name: before[name] - value.detach() for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize("kind", ["rows", "skipped"])
@pytest.mark.parametrize("padding_free", [False, True])
def test_accumulated_micro_batches_have_the_gradient_of_one_batch(models, media, tmp_path, padding_free, kind):
    rows = unequal(media)
    if kind == "skipped":
        (tmp_path / "bad.mp4").write_bytes(b"no video")
        rows[1] = record("bad?", video=str(tmp_path / "bad.mp4"))
    found = []
    for size in (4, 1):
        trainer = make(
            models(), rows, tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=4 // size,
            optim="sgd", learning_rate=1.0, max_grad_norm=1e9, padding_free=padding_free, on_bad_video="skip",
        )  # fmt: skip
        found.append((gradients_of_a_step(trainer), trainer.state.log_history[0]["loss"]))
    (whole, loss), (accumulated, accumulated_loss) = found
    largest = max(gradient.abs().max().item() for gradient in whole.values())
    assert largest > 0.1 and accumulated_loss == pytest.approx(loss, abs=1e-4)
    for name, gradient in whole.items():
        torch.testing.assert_close(accumulated[name], gradient, rtol=0, atol=1e-5 * largest, msg=name)


# Templates


# What a turn becomes in a conversation: as it is; its thoughts in the template's own lines; or without its thoughts
TURNS = {
    "as it is": "{{ text }}",
    "thoughts on lines of their own": "<think>\n{{ text.split('</think>')[0].split('<think>')[-1].strip('\n') }}\n</think>\n\n"
    "{{ text.split('</think>')[-1].lstrip('\n') }}",
    "without thoughts": "{{ text.split('</think>')[-1].lstrip('\n') }}",
}


def template_of(turn, generation):
    """A template of text parts that writes assistants' turns so, and ends a prompt with `generation`."""
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% set text %}{% for c in m.content %}{{ c.text }}{% endfor %}"
        "{% endset %}{% if m.role == 'assistant' %}" + turn + "{% else %}{{ text }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n" + generation + "{% endif %}"
    )


@pytest.mark.parametrize("turn", TURNS)
def test_under_a_template_that_opens_the_thoughts_the_target_is_what_the_rewards_reward(models, tmp_path, turn):
    tiny_model = tiny.with_template(models(), tmp_path / "model", template_of(TURNS[turn], "<think>\n"))
    trainer = make(tiny_model, [record("a?")], tmp_path / "run")
    batch = batch_of(trainer, [record("a?")])
    labels = batch["labels"][0]
    tokenizer = trainer.processing_class.tokenizer
    text = tokenizer.decode(batch["input_ids"][0])
    assert text.count("<think>") == text.count("</think>") == 1, text
    completion = tokenizer.decode(labels[labels != -100], skip_special_tokens=True)
    assert not completion.lstrip().startswith("<think>")
    assert labels[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    opened = batch["encoded"][0].opened
    assert opened == "<think>\n" and format_reward([opened + completion]) == [1.0]


def test_a_template_whose_generation_prompt_contradicts_the_conversation_is_refused(models, tmp_path):
    """TRL's bundled template of Qwen3.5 without thinking, on a target that thinks."""
    no_think = template_of(TURNS["thoughts on lines of their own"], "<think>\n\n</think>\n\n")
    trainer = make(tiny.with_template(models(), tmp_path / "model", no_think), [record("a?")], tmp_path / "run")
    with pytest.raises(
        PromptError, match="problem_id 7.*is not what the model will be asked for.*chat_template_kwargs"
    ):
        batch_of(trainer, [record("a?", problem_id=7)])
    without = dict(record("a?"), completion="<think>\n\n</think>\n\n<answer>A</answer>")
    batch = batch_of(trainer, [without])
    text = trainer.processing_class.tokenizer.decode(batch["input_ids"][0])
    assert text.endswith("assistant\n<think>\n\n</think>\n\n<answer>A</answer><|im_end|>")


@pytest.mark.parametrize("name", ["qwen3_5_think", "qwen3_6", "qwen3_8", "qwen3_vl"])
def test_the_templates_of_thinking_models_that_trl_has_teach_one_pair_of_tags(models, tmp_path, name):
    template = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()
    trainer = make(tiny.with_template(models(), tmp_path / "model", template), [record("a?")], tmp_path / "run")
    batch = batch_of(trainer, [record("a?")])
    labels, tokenizer = batch["labels"][0], trainer.processing_class.tokenizer
    completion = tokenizer.decode(labels[labels != -100], skip_special_tokens=True)
    assert format_reward([batch["encoded"][0].opened + completion]) == [1.0], completion
    assert "It moves to the left." in completion


def test_a_template_that_leaves_the_thoughts_out_is_refused(models, tmp_path):
    tiny_model = tiny.with_template(models(), tmp_path / "model", template_of(TURNS["without thoughts"], ""))
    with pytest.raises(PromptError, match="has '<answer>A</answer><|im_end|>"):
        batch_of(make(tiny_model, [record("a?")], tmp_path / "run"), [record("a?")])


def test_a_template_of_a_text_model_is_refused_for_a_model_of_videos(models, tmp_path):
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tiny_model = tiny.with_template(models(), tmp_path / "model", template)
    with pytest.raises(PromptError, match="is that of a text model"):
        batch_of(make(tiny_model, [record("a?")], tmp_path / "run"), [record("a?")])


def test_trls_own_template_of_qwen3_5_without_thinking_is_refused(models, tmp_path):
    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3_5_nothink.jinja").read_text()
    trainer = make(tiny.with_template(models(), tmp_path / "model", template), [record("a?")], tmp_path / "run")
    with pytest.raises(PromptError, match="is not what the model will be asked for"):
        batch_of(trainer, [record("a?", problem_id=7)])


def test_a_row_chooses_the_mode_of_its_template(models, tmp_path):
    template = template_of("{{ text }}", "{% if mode == 'loud' %}LOUD{% endif %}").replace(
        "{% if m.role == 'assistant' %}", "{% if m.role == 'assistant' %}{% if mode == 'loud' %}LOUD{% endif %}"
    )
    tiny_model = tiny.with_template(models(), tmp_path / "model", template)
    rows = [record("a?", chat_template_kwargs={"mode": "loud"}), record("a?", chat_template_kwargs={"mode": None})]
    trainer = make(tiny_model, rows, tmp_path / "run")
    texts = trainer.processing_class.tokenizer.batch_decode(
        batch_of(trainer, list(trainer.train_dataset))["input_ids"]
    )
    assert ["LOUD" in text for text in texts] == [True, False]
    grpo = trainer_of_t_grpo(tiny_model, rows, tmp_path / "grpo")
    loaded = grpo.batch_loader.load(list(grpo.train_dataset), 0, 1, 0, step=0)
    texts = grpo.processing_class.tokenizer.batch_decode([each.encoded.input_ids for each in loaded])
    assert ["LOUD" in text for text in texts] == [True, False]


def test_a_prompt_may_begin_the_answer(models, tmp_path):
    begun = record("a?", completion="left</think><answer>A</answer>")
    begun["prompt"] = [*begun["prompt"], {"role": "assistant", "content": "<think>so "}]
    trainer = make(models(), [begun], tmp_path)
    batch = batch_of(trainer, [begun])
    labels = batch["labels"][0]
    tokenizer = trainer.processing_class.tokenizer
    assert tokenizer.decode(labels[labels == -100].new_tensor(batch["encoded"][0].input_ids)).endswith("<think>so ")
    assert tokenizer.decode(labels[labels != -100]) == "left</think><answer>A</answer><|im_end|>"


def test_a_tokens_name_and_the_padding_of_trls_config_are_kept(models, media, tmp_path):
    trainer = make(
        models(), mixed(media), tmp_path, pad_to_multiple_of=16, eos_token="<|endoftext|>", pad_token="<global-img>"
    )
    batch = batch_of(trainer, mixed(media))
    tokenizer = trainer.processing_class.tokenizer
    assert (
        batch["input_ids"].shape[1] % 16 == batch["labels"].shape[1] % 16 == batch["attention_mask"].shape[1] % 16 == 0
    )
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        scored = labels[labels != -100].tolist()
        assert tokenizer.decode(scored[-1]) == "<|endoftext|>" and "<|im_end|>" not in tokenizer.decode(scored)
        assert tokenizer.decode(ids[-1]) in ("<global-img>", "<|endoftext|>")
    assert (batch["input_ids"] == tokenizer.convert_tokens_to_ids("<global-img>")).any()
    with pytest.raises(ValueError, match="pad_token"):
        make(models(), mixed(media), tmp_path, pad_token="<nothing>")


# What could not be trained


def test_a_model_without_a_trainable_parameter_is_refused(models, tmp_path):
    frozen = AutoModelForImageTextToText.from_pretrained(models().path).requires_grad_(False)
    with pytest.raises(ValueError, match="No parameter of the Qwen2_5_VLForConditionalGeneration is trainable"):
        make(models(), [record("a?")], tmp_path, model=frozen)


def test_prompt_tuning_is_refused(models, tmp_path):
    with pytest.raises(NotImplementedError, match="PrefixTuningConfig puts virtual tokens before the prompt.*LoRA"):
        make(models(), [record("a?")], tmp_path, options={"peft_config": PrefixTuningConfig(num_virtual_tokens=4)})


def test_too_few_rows_for_a_step_are_refused_before_the_model_is_loaded(tmp_path):
    args = sft_config(tmp_path, dataloader_drop_last=True, per_device_train_batch_size=3)
    with pytest.raises(ValueError, match="train_dataset has 2 rows, and the first batch takes 3"):
        VideoSFTTrainer("no/model", args, Dataset.from_list([record("a?"), record("b?")]))


# Training


@pytest.mark.parametrize("padding_free", [False, True])
def test_a_mixed_batch_is_learned(models, media, tmp_path, padding_free):
    trainer = make(models(), mixed(media), tmp_path, max_steps=12, padding_free=padding_free, eval_rows=mixed(media))
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before / 2
    assert [log["num_tokens"] for log in trainer.state.log_history if "num_tokens" in log][0] == int(
        batch_of(trainer, mixed(media))["attention_mask"].sum()
    )


def test_adapters_with_gradient_checkpointing_and_workers(models, media, tmp_path):
    trainer = make(
        models(),
        mixed(media),
        tmp_path,
        max_steps=6,
        activation_checkpointing=True,
        dataloader_num_workers=2,
        options={"peft_config": LoraConfig(target_modules=["q_proj", "v_proj"])},
    )
    assert trainer.sharing.tower.is_frozen
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[-1] < losses[0]
    trainer.save_model()
    assert (tmp_path / "adapter_config.json").is_file()


@pytest.mark.slow
def test_a_resumed_run_goes_on_as_an_uninterrupted_one(models, media, tmp_path):
    rows = [record(f"question {place}?", video=media["videos"][place % 4]) for place in range(12)]
    whole = make(models(), rows, tmp_path / "whole", max_steps=4, save_strategy="steps", save_steps=2)
    whole.train()
    resumed = make(models(), rows, tmp_path / "resumed", max_steps=4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))

    def losses(trainer):
        return {log["step"]: log["loss"] for log in trainer.state.log_history if "loss" in log}

    for step in (3, 4):
        assert losses(resumed)[step] == pytest.approx(losses(whole)[step], abs=1e-6)


# Rows that cannot be used


def broken(media, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    return [
        record("bad?", video=str(bad), problem_id=13),
        record("good?", video=media["videos"][0], problem_id=14),
    ]


def test_a_bad_video_ends_the_run_with_its_name(models, media, tmp_path):
    with pytest.raises(VideoError, match=r"bad\.mp4.*problem_id 13"):
        make(models(), broken(media, tmp_path), tmp_path).train()


def test_a_bad_video_in_a_worker_ends_the_run_with_its_name(models, media, tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)bad\.mp4.*problem_id 13"):
        make(models(), broken(media, tmp_path), tmp_path, dataloader_num_workers=1).train()


@pytest.mark.parametrize("padding_free", [False, True])
def test_a_skipped_row_has_no_loss_and_is_counted(models, media, tmp_path, padding_free, caplog):
    rows = broken(media, tmp_path)
    trainer = make(models(), rows, tmp_path, on_bad_video="skip", padding_free=padding_free)
    loss = loss_of(trainer, batch_of(trainer, rows))
    alone = loss_of(trainer, batch_of(trainer, rows[1:]))
    torch.testing.assert_close(loss, alone, rtol=0, atol=1e-6)
    assert trainer._metrics["train" if trainer.model.training else "eval"]["video/skipped_rows"] == [1, 0]
    assert "bad.mp4" in caplog.text and "problem_id 13" in caplog.text
    assert loss_of(trainer, batch_of(trainer, rows[:1])).item() == 0.0, "a batch of nothing else is finite"


@pytest.mark.parametrize(
    "columns, settings_, message",
    [
        ({"process": ""}, {}, "its field 'process' is no text"),
        ({"process": "<|video_pad|>"}, {}, "its completion holds a visual placeholder"),
        ({"completion": [{"role": "user", "content": "?"}]}, {}, "its completion must be a text, or one assistant"),
        ({}, {"max_length": 20}, "more than max_length (20)"),
        ({}, {"max_prompt_length": 5}, "more than max_prompt_length (5)"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named_or_skipped(models, tmp_path, columns, settings_, message):
    good, bad = record("a?", problem_id=1), record("b?", problem_id=2, **columns)
    trainer = make(models(), [record("a?")], tmp_path, **settings_)
    with pytest.raises(PromptError, match=rf"problem_id 2.*{re.escape(message)}"):
        batch_of(trainer, [bad])
    trainer = make(models(), [record("a?")], tmp_path, on_bad_video="skip", **settings_)
    batch = batch_of(trainer, [good, bad] if not settings_ else [bad])
    assert (batch["labels"][-1] == -100).all() and message in batch["skipped"][0]


def test_data_without_rationales_is_refused_before_the_model_is_loaded(tmp_path):
    without = Dataset.from_list([row("a?")])
    with pytest.raises(ValueError, match="train_dataset has no column 'process'"):
        VideoSFTTrainer("no/model", sft_config(tmp_path), without)
    some = Dataset.from_list([record("a?", problem_id=1), record("b?", process=None, problem_id=2)])
    with pytest.raises(ValueError, match=r"1 of 2 rows have no 'process', the first is row 1: .*problem_id 2"):
        VideoSFTTrainer("no/model", sft_config(tmp_path), some)


@pytest.mark.parametrize(
    "overrides, error, message",
    [
        ({"packing": True}, NotImplementedError, "packing=True is not supported for rows with media"),
        ({"assistant_only_loss": True}, NotImplementedError, "assistant_only_loss=True is not supported"),
        ({"padding_free": True, "completion_only_loss": False}, NotImplementedError, "scores completions only"),
        ({"remove_unused_columns": True}, ValueError, "would remove the media"),
        ({"max_length": 0}, ValueError, "max_length (0) must be at least 1"),
        ({"video_fps": 0}, ValueError, "video_fps (0) must be above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, overrides, error, message):
    with pytest.raises(error, match=re.escape(message)):
        sft_config(tmp_path, **overrides)


@pytest.mark.parametrize("name", ["data_collator", "formatting_func"])
def test_what_would_bypass_the_media_is_refused(tmp_path, name):
    with pytest.raises(NotImplementedError, match=f"{name} would bypass the media"):
        VideoSFTTrainer("no/model", sft_config(tmp_path), Dataset.from_list([record()]), **{name: list})


def test_every_changed_default_is_documented():
    changed = list(vars(VideoSFTConfig)["__annotations__"])
    documented = re.findall(r"^        (\w+) \(`", VideoSFTConfig.__doc__, re.MULTILINE)
    assert documented == changed
    defaults = VideoSFTConfig.__dataclass_fields__
    assert defaults["learning_rate"].default == 1e-6 and defaults["num_train_epochs"].default == 1.0


# The script


def run_script(*arguments, timeout=240):
    command = [sys.executable, str(EXAMPLES / "train_sft.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def toy_flags(media, models, tmp_path, **fields):
    """A file of records, and the flags of a short run on it."""
    records = [
        {
            "problem_id": place,
            "problem": "Which way?",
            "data_type": "video",
            "problem_type": "multiple choice",
            "options": ["A. left", "B. right"],
            "process": THOUGHT,
            "solution": "<answer>A</answer>",
            "path": Path(media["videos"][place % 4]).name,
            **fields,
        }
        for place in range(4)
    ]
    file = tmp_path / "records.json"
    file.write_text(json.dumps(records))
    flags = {
        "dataset": file,
        "data_root": media["folder"],
        "model_name_or_path": models().path,
        "output_dir": tmp_path / "out",
        "max_steps": 2,
        "learning_rate": 1e-3,
        "bf16": False,
        "use_cpu": True,
        "video_max_pixels": 1568,
        "report_to": "none",
        "dtype": "float32",
    }
    return [part for name, value in flags.items() for part in (f"--{name}", value)]


@pytest.mark.slow
def test_the_script_trains_and_its_model_starts_t_grpo(models, media, tmp_path):
    done = run_script(*toy_flags(media, models, tmp_path), "--padding_free")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == f"Saved to {tmp_path / 'out'}."
    dataset = load_video_r1(tmp_path / "records.json", media["folder"])
    grpo = trainer_of_t_grpo(models(), list(dataset), tmp_path / "grpo")  # the same records
    started = type(models())(str(tmp_path / "out"), None, None)
    trained = trainer_of_t_grpo(started, list(dataset), tmp_path / "grpo2")
    ours = dict(trained.model.named_parameters())
    assert any(not torch.equal(ours[name], value) for name, value in grpo.model.named_parameters())


@pytest.mark.slow
def test_the_script_plans_and_refuses_in_one_line(models, media, tmp_path):
    done = run_script(*toy_flags(media, models, tmp_path), "--dry_run")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Nothing was found that would stop this run." in done.stdout
    assert not (tmp_path / "out").exists()
    done = run_script(*toy_flags(media, models, tmp_path, process=None))
    assert done.returncode == 1
    assert "4 of 4 rows have no 'process'" in done.stderr and "Traceback" not in done.stderr
    done = run_script(*toy_flags(media, models, tmp_path), "--on_bad_video", "ignore")
    assert done.returncode == 1 and "Traceback" not in done.stderr
