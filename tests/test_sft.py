"""The supervised cold start: what is scored, what the loss depends on, and that both ways to batch compute the same."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from helpers import row, sft_config
from peft import LoraConfig

from videor1_trl import TGRPOTrainer, VideoSFTConfig, VideoSFTTrainer, load_video_r1
from videor1_trl.batch import PromptError
from videor1_trl.completions import completion_text
from videor1_trl.families import placeholder_token_ids
from videor1_trl.video import VideoError


THOUGHT = "<think>It moves to the left.</think>"
EXAMPLES = Path(__file__).parent.parent / "examples"
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
    monkeypatch.setattr("videor1_trl.sft.cannot_share", lambda model: "it attends through a window")
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
        monkeypatch.setattr("videor1_trl.sft.calls_must_match", lambda trainer, needed=needed: needed)
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
    assert trainer._tower.is_frozen
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
