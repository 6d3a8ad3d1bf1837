"""The plan of a run: counts by hand, what would stop it found, and nothing read but configs and media."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import helpers
import pytest
import tiny
import torch
import transformers
from datasets import Dataset
from more_families import build_family
from transformers import AutoConfig
from trl import ModelConfig

from videor1_trl import VideoSFTConfig, load_video_r1
from videor1_trl.planning import plan
from videor1_trl.planning.memory import count_parameters
from videor1_trl.planning.model import Findings, empty_model, plan_model
from videor1_trl.planning.plan import plan_run
from videor1_trl.scripts import dry_run


def args_of(folder, **overrides):
    return helpers.config(folder, **{"beta": 0.1, "max_completion_length": 6, **overrides})


def planned(tiny_model, rows, folder, *, model_options=None, options=None, **overrides):
    dataset = Dataset.from_list(rows) if isinstance(rows, list) else rows
    model_args = ModelConfig(model_name_or_path=tiny_model.path, **(model_options or {}))
    return plan_run(args_of(folder, **overrides), model_args, dataset, **(options or {}))


@pytest.fixture
def rows(media):
    """Eight videos, four images, two texts."""
    videos = [helpers.row(f"which way {i}?", video=media["videos"][i % 4]) for i in range(8)]
    images = [helpers.row("which colour?", image=media["image"], problem_type="free-form") for _ in range(4)]
    return videos + images + [helpers.row("why?") for _ in range(2)]


# The model


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_empty_model_has_the_parameters_of_the_real_one_and_no_memory(family, models):
    real = models(family)
    model = empty_model(AutoConfig.from_pretrained(real.path))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert count_parameters(model) == count_parameters(real.model)
    assert count_parameters(model)[0] == sum(parameter.numel() for parameter in real.model.parameters())


def test_the_parameters_of_a_tiny_model_are_those_counted_by_hand(models, rows, tmp_path):
    found = planned(models(), rows, tmp_path).model.weights
    vocabulary = len(models().processor.tokenizer)
    # queries 64 * 64 + 64, keys and values 2 * (64 * 32 + 32), output 64 * 64, MLP 3 * 64 * 96, two norms
    layer = 4160 + 4160 + 4096 + 18432 + 128
    # two norms, queries to values 32 * 96 + 96, output 32 * 32 + 32, MLP 3 * 32 * 48 + 48 + 48 + 32
    block = 64 + 3168 + 1056 + 4608 + 128
    # patches 32 * 1176; merger: norm, 128 * 128 + 128, 128 * 64 + 64
    vision = 32 * 1176 + 2 * block + 32 + 16512 + 8256
    assert found.parameters == found.trainable == 64 * vocabulary + 2 * layer + 64 + vision
    assert found.nbytes == 4 * found.parameters


def test_zero_3_does_not_split_the_empty_model(models, monkeypatch):
    monkeypatch.setattr(transformers.modeling_utils, "is_deepspeed_zero3_enabled", lambda: True)
    model = empty_model(AutoConfig.from_pretrained(models().path))  # would import deepspeed, which is not installed
    assert count_parameters(model) == count_parameters(models().model)


def test_adapters_are_counted_and_need_no_reference(models, rows, tmp_path):
    options = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"], "dtype": "bfloat16"}
    found = planned(models(), rows, tmp_path, model_options=options)
    # two layers: 4 * (64 + 64) for the queries, 4 * (64 + 32) for the values
    assert found.model.weights.trainable == 2 * (512 + 384)
    assert found.model.weights.trainable_bytes_each == 4  # peft keeps adapters in float32
    assert found.model.has_adapters
    assert "reference model" not in {item.name for item in found.memory.items}
    assert "reference model" in {item.name for item in planned(models(), rows, tmp_path).memory.items}


def test_four_bits_are_those_of_linear_layers_outside_the_embeddings(models, rows, tmp_path):
    options = {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"], "load_in_4bit": True}
    weights = planned(models(), rows, tmp_path, model_options=options).model.weights
    base = models().model
    linear = sum(m.weight.numel() for m in base.modules() if isinstance(m, torch.nn.Linear) and m is not base.lm_head)
    total = sum(parameter.numel() for parameter in base.parameters())
    assert weights.bytes_each * total == pytest.approx(linear / 2 + (total - linear) * 4)


def test_the_plan_says_why_prompts_cannot_be_shared(models, rows, tmp_path):
    assert planned(models(), rows, tmp_path).model.not_shared is None
    assert planned(models(), rows, tmp_path, share_prefix=False).model.not_shared == "share_prefix=False"
    flash = planned(models(), rows, tmp_path, model_options={"attn_implementation": "flash_attention_2"})
    assert flash.model.not_shared is None and flash.model.attention == "flash_attention_2"
    assert flash.ok and "flash_attention_2" in flash.warnings[0]  # it may be there where the run will be


def test_what_the_arguments_of_the_model_say_wins(models, rows, tmp_path):
    found = planned(models(), rows, tmp_path, model_init_kwargs={"dtype": "bfloat16", "attn_implementation": "eager"})
    assert (found.model.dtype, found.model.attention) == ("bfloat16", "eager")
    assert found.model.weights.bytes_each == 2
    assert planned(models(), rows, tmp_path, model_init_kwargs={"dtype": "auto"}).model.dtype == "float32"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model_name_or_path": None}, "model_name_or_path is not set"),
        ({"model_name_or_path": "/no/where"}, "config of /no/where"),
        ({"attn_implementation": "guess"}, "attn_implementation='guess' cannot be used"),
        ({"use_peft": True, "lora_target_modules": ["none_of_it", "nor_this"]}, "adapters: Target modules"),
    ],
)
def test_a_model_that_does_not_load_is_a_problem_of_one_line(options, message, models, rows, tmp_path):
    model_args = ModelConfig(**{"model_name_or_path": models().path, **options})
    found = plan_run(args_of(tmp_path), model_args, Dataset.from_list(rows), media="off")
    assert not found.ok
    assert any(message in problem for problem in found.problems)
    assert all("\n" not in problem for problem in found.problems)
    assert found.steps is not None  # what does not need the model is planned all the same


def test_a_budget_of_pixels_that_cannot_be_kept_is_found(models, rows, tmp_path):
    found = planned(models("smolvlm"), rows, tmp_path, video_max_pixels=1023)
    [problem] = [each for each in found.problems if "video_max_pixels" in each]
    assert "video_max_pixels (1023) cannot be kept: SmolVLMVideoProcessor gives a large frame 1024 pixels" in problem
    assert not planned(models("smolvlm"), rows, tmp_path, video_max_pixels=1024).problems


def test_a_model_that_would_be_read_wrongly_is_found(rows, tmp_path):
    found = planned(build_family("perception_lm", tmp_path / "model"), rows, tmp_path)
    assert any("is not supported: PerceptionLMModel reads its videos as images" in each for each in found.problems)


def test_a_processor_that_takes_no_videos_is_found(rows, tmp_path):
    tiny.tokenizer().save_pretrained(tmp_path / "text")
    text = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    (tmp_path / "text" / "config.json").write_text(json.dumps(text))
    found = planned(SimpleNamespace(path=str(tmp_path / "text")), rows, tmp_path)
    assert any("8 rows have a video" in p and "takes none" in p for p in found.problems)
    assert found.model.model_class == "LlamaForCausalLM" and found.memory is None


# The data


def test_rows_are_counted_by_kind_and_type_and_sampled_from_each(models, rows, tmp_path):
    data = planned(models(), rows, tmp_path, options={"num_sampled": 4}).data["train"]
    assert data.rows == 14 and data.kinds == {"video": 8, "image": 4, "text": 2}
    assert data.problem_types == {"multiple choice": 10, "free-form": 4}
    # 4 * 8 / 14 = 2.3, 4 * 4 / 14 = 1.1, 4 * 2 / 14 = 0.6
    assert [prompt.kind for prompt in data.prompts] == ["video", "video", "image", "text"]
    assert data.media.checked == 5 and data.media.ok


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_sampled_prompt_has_the_tokens_and_patches_that_training_sees(family, models, media, tmp_path):
    one = [helpers.row("which way?", video=media["videos"][0])] * 4
    (prompt, *_) = planned(models(family), one, tmp_path).data["train"].prompts
    row = helpers.rollouts(helpers.trainer(models(family), one, tmp_path))["encoded"][0]
    config = models(family).model.config
    visual = config.image_token_id if family == "smolvlm" else config.video_token_id
    assert prompt.tokens == len(row.input_ids)
    assert prompt.visual_tokens == row.input_ids.count(visual) > 0
    assert (prompt.frames, prompt.seconds) == (8, 4.0)  # 4 s, 2 a second
    pixels = next(value for name, value in row.features.items() if name.startswith("pixel_values"))
    assert prompt.pixel_bytes == 4 * pixels.numel()
    # SmolVLM: 8 frames of 32 x 32 in patches of 8 x 8; the others: the rows of their flat pixels
    assert prompt.patches == (8 * 16 if family == "smolvlm" else pixels.shape[0])


def test_missing_and_unreadable_media_are_problems_or_left_out(models, rows, media, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    rows += [helpers.row("x", video=str(tmp_path / "gone.mp4")), helpers.row("y", video=str(broken))]
    found = planned(models(), rows, tmp_path)
    assert not found.ok and "1 missing, 1 unreadable, 2 rows affected" in found.problems[0]
    assert found.data["train"].rows == 14
    dropped = planned(models(), rows, tmp_path, options={"drop_bad_media": True})
    assert dropped.ok and "1 missing" in dropped.warnings[0] and dropped.data["train"].rows == 14
    unchecked = planned(models(), rows, tmp_path, options={"media": "off", "num_sampled": 100})
    assert unchecked.data["train"].media is None
    assert any("2 of 16 sampled rows cannot be used" in p and "gone.mp4" in p for p in unchecked.problems)


def test_prompts_that_are_too_long_are_found_with_the_longest_named(models, rows, tmp_path):
    lengths = [prompt.tokens for prompt in planned(models(), rows, tmp_path).data["train"].prompts]
    limit = sorted(lengths)[-5]
    found = planned(models(), rows, tmp_path, max_prompt_length=limit)
    too_long = sum(length > limit for length in lengths)
    assert not found.ok and len(found.data["train"].too_long) == too_long > 0
    assert f"{too_long} of 14 sampled prompts exceed max_prompt_length ({limit})" in found.problems[0]
    skipped = planned(models(), rows, tmp_path, max_prompt_length=limit, on_bad_video="skip")
    assert skipped.ok and "exceed max_prompt_length" in skipped.warnings[0]


def test_sequences_longer_than_the_model_was_made_for_are_warned_of(models, rows, tmp_path):
    found = planned(models(), rows, tmp_path, max_completion_length=2048)
    assert found.ok and any("was made for 2,048" in warning for warning in found.warnings)


def test_no_row_left_is_a_problem_and_not_a_crash(models, tmp_path):
    gone = [helpers.row("x", video=str(tmp_path / "gone.mp4"))]
    found = planned(models(), gone, tmp_path, options={"drop_bad_media": True})
    assert any("no row is left" in problem for problem in found.problems) and found.steps is None


def test_columns_that_the_trainer_would_refuse_are_found(models, rows, tmp_path):
    found = planned(models(), [{**row, "completions": 1} for row in rows], tmp_path)
    assert any("column 'completions'" in problem for problem in found.problems)


def test_evaluation_without_data_is_found(models, rows, tmp_path):
    evaluated = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4}
    assert any("no eval_dataset" in problem for problem in planned(models(), rows, tmp_path, **evaluated).problems)
    options = {"eval_dataset": Dataset.from_list(rows[:3])}
    found = planned(models(), rows, tmp_path, options=options, **evaluated)
    assert found.ok and found.data["eval"].rows == 3


# Steps


def test_the_steps_are_those_counted_by_hand(models, rows, tmp_path):
    found = planned(
        models(),
        rows,
        tmp_path,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_generations=4,
        max_steps=10,
        options={"num_processes": 2},
    )
    steps = found.steps
    # 2 devices x 4 rows x 2 micro-batches = 16 rollouts of 4 prompts in a step, made at once, with 2 contrast each
    assert (steps.rows_per_step, steps.prompts_per_step, steps.generations_per_step) == (16, 4, 1)
    assert (steps.ordered, steps.contrast, steps.generated_rows) == (16, 8, 12)
    # 14 rows are 3 generations of 4 prompts and 2 rows over; a generation is a step
    assert (steps.steps_per_epoch, steps.left_out, steps.total_steps) == (3, 2, 10)
    assert steps.epochs == pytest.approx(10 / 3)
    # 8 of 14 prompts have contrast rollouts; 6 tokens each
    assert steps.completions == pytest.approx(10 * (16 + 8 * 8 / 14))
    assert steps.max_tokens == pytest.approx(6 * steps.completions)


def test_rollouts_that_serve_several_steps_are_made_less_often(models, rows, tmp_path):
    settings = {"per_device_train_batch_size": 4, "steps_per_generation": 2, "num_iterations": 2, "max_steps": -1}
    steps = planned(models(), rows, tmp_path, num_train_epochs=2, **settings).steps
    # 8 rollouts of 2 prompts serve 2 micro-batches, twice: 7 generations of 14 prompts are 28 steps
    assert (steps.ordered, steps.generations_per_step, steps.prompts_per_step) == (8, 0.25, 0.5)
    assert (steps.steps_per_epoch, steps.total_steps, steps.epochs) == (28, 56, 2)


@pytest.mark.slow
def test_training_makes_as_many_steps_as_planned(models, rows, tmp_path):
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 4}
    settings |= {"max_steps": -1, "num_train_epochs": 1, "max_completion_length": 2}
    steps = planned(models(), rows, tmp_path, **settings).steps
    tgrpo = helpers.trainer(models(), rows, tmp_path / "out", **settings)
    tgrpo.train()
    # 16 rollouts of 4 prompts serve 2 steps; 3 generations of 14 prompts
    assert tgrpo.state.global_step == steps.total_steps == 6


def test_plain_grpo_has_no_contrast_rollouts(models, rows, tmp_path):
    steps = planned(models(), rows, tmp_path, options={"contrast": False}).steps
    assert (steps.ordered, steps.contrast, steps.generated_rows) == (4, 0, 4)


OBJECTIVES = {  # contrast rollouts, those in the loss, completions that are read again, rows and prompts of a micro-batch
    "tgrpo": ({}, (8, 0, 0), (4, 1)),
    "gap": ({"objective": "gap"}, (8, 0, 0), (4, 1)),
    "crpo": ({"objective": "crpo", "objective_router": "none"}, (8, 8, 0), (6, 2)),
    "log_prob_drop": ({"objective": "log_prob_drop"}, (0, 0, 16), (4, 1)),
}


@pytest.mark.parametrize("settings, counts, batch", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_plan_counts_what_the_objective_needs(models, rows, tmp_path, monkeypatch, capsys, settings, counts, batch):
    """2 devices x 4 rows x 2 micro-batches: 16 rollouts of 4 prompts, with 2 contrast rollouts each where they are made."""
    seen = []
    real = plan.estimate_memory
    monkeypatch.setattr(plan, "estimate_memory", lambda run: seen.append(run.batches) or real(run))
    shape = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 10}
    found = planned(models(), rows, tmp_path, options={"num_processes": 2}, **shape, **settings)
    steps = found.steps
    assert (steps.contrast, steps.trained_contrast, steps.read_again) == counts
    assert (seen[0].rows, seen[0].prompts) == batch
    assert steps.generated_rows == 8 + counts[0] // 2
    assert steps.completions == pytest.approx(10 * (16 + counts[0] * 8 / 14))
    dry_run.print_plan(found)
    printed = capsys.readouterr().out
    assert ("rows of the loss" in printed) == bool(counts[1]) and ("read again" in printed) == bool(counts[2])


def test_a_plan_says_what_dynamic_sampling_may_add(models, rows, tmp_path, capsys):
    dry_run.print_plan(planned(models(), rows, tmp_path, dynamic_sampling=2))
    assert "up to 2 times as many rollouts again" in " ".join(capsys.readouterr().out.split())


def test_labels_that_the_data_lack_are_found_by_a_plan(models, rows, tmp_path):
    found = planned(models(), rows, tmp_path, objective="relation", objective_column="about")
    assert [each for each in found.problems if "train_dataset has no column 'about'" in each]
    plain = {"options": {"contrast": False}, "objective": "relation", "objective_column": "about"}
    assert not planned(models(), rows, tmp_path, **plain).problems


def test_too_few_rows_for_a_generation_are_found(models, rows, tmp_path):
    found = planned(models(), rows[:3], tmp_path, options={"num_processes": 4})
    assert found.steps is None
    assert any("3 rows of training data do not fill a generation of 4 prompts" in p for p in found.problems)


def test_devices_that_do_not_fit_the_group_are_found_before_they_are_rented(models, rows, tmp_path):
    args = args_of(tmp_path, num_generations=8, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    args.steps_per_generation = 3  # the config itself refuses this for the devices that it was launched with
    found = plan_run(args, ModelConfig(model_name_or_path=models().path), Dataset.from_list(rows), num_processes=3)
    assert any("18 rollouts of a generation, no multiple of num_generations (8)" in p for p in found.problems)


def test_a_bonus_that_can_only_cancel_is_warned_of(models, rows, tmp_path):
    choices = rows[:8]
    assert any("cancels" in warning for warning in planned(models(), choices, tmp_path).warnings)
    assert not planned(models(), choices, tmp_path, temporal_bonus="advantage").warnings
    assert not planned(models(), choices, tmp_path, options={"contrast": False}).warnings
    assert not planned(models(), rows, tmp_path).warnings


# Memory and disk


def test_the_largest_batches_go_by_the_longest_prompt(models, rows, tmp_path, monkeypatch):
    seen = []
    real = plan.estimate_memory
    monkeypatch.setattr(plan, "estimate_memory", lambda run: seen.append(run) or real(run))
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    found = planned(models(), rows, tmp_path, **settings)
    batches = seen[0].batches
    # a micro-batch is one group; a generation two, each on ordered and on contrast frames
    assert (batches.rows, batches.prompts, batches.generated_rows, batches.generated_prompts) == (4, 1, 12, 4)
    assert batches.prompt_tokens == max(prompt.tokens for prompt in found.data["train"].prompts)
    assert batches.completion_tokens == 6 and batches.shared
    assert seen[0].engine.device == "cpu" and seen[0].reference


@pytest.mark.parametrize("rows, size, most", [(8, 8, 1), (2, 8, 1), (16, 8, 2), (12, 8, 3), (3, 8, 2)])
def test_a_devices_rows_hold_at_most_so_many_prompts(rows, size, most):
    assert plan._distinct(rows, size) == most
    spans = [range(start, start + rows) for start in range(0, 10 * rows * size, rows)]
    assert max(len({row // size for row in span}) for span in spans) <= most


def test_a_device_that_is_too_small_is_a_problem_and_a_tight_one_a_warning(models, rows, tmp_path):
    needed = planned(models(), rows, tmp_path).memory.nbytes
    # a device given is a GPU, where TRL's head scores the completions alone
    on_gpu = planned(models(), rows, tmp_path, options={"device_bytes": 2**40})
    assert on_gpu.engine.device == "cuda" and on_gpu.memory.nbytes < needed
    for share, problems, warnings in ((0.9, 1, 0), (1.2, 0, 1), (2.0, 0, 0)):
        found = planned(models(), rows, tmp_path, options={"device_bytes": int(share * on_gpu.memory.nbytes)})
        assert (len(found.problems), len(found.warnings)) == (problems, warnings)


@pytest.mark.parametrize(
    "settings, written, kept",
    [  # of 10 steps
        ({"save_strategy": "no"}, 0, 0),
        ({"save_strategy": "steps", "save_steps": 4}, 3, 3),  # 4, 8 and the last
        ({"save_strategy": "steps", "save_steps": 0.5}, 2, 2),
        ({"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}, 5, 3),  # the new one, before one goes
        ({"save_strategy": "epoch"}, 1, 1),  # 14 steps an epoch
    ],
)
def test_checkpoints_are_counted(settings, written, kept, models, rows, tmp_path):
    disk = planned(models(), rows, tmp_path, max_steps=10, **settings).disk
    assert (disk.written, disk.kept) == (written, kept)


def test_checkpoints_weigh_what_they_hold(models, rows, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 1}
    found = planned(models(), rows, tmp_path, **saved)
    weights = 4 * found.model.weights.parameters
    assert (found.disk.checkpoint_bytes, found.disk.final_bytes) == (3 * weights, weights)
    assert found.disk.nbytes == 4 * weights
    assert planned(models(), rows, tmp_path, save_only_model=True, **saved).disk.checkpoint_bytes == weights


@pytest.mark.slow
def test_a_real_checkpoint_is_as_large_as_planned(models, rows, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 1}
    planned_bytes = planned(models(), rows, tmp_path, **saved).disk.checkpoint_bytes
    helpers.trainer(models(), rows, tmp_path / "out", **saved).train()
    files = [tmp_path / "out" / "checkpoint-1" / name for name in ("model.safetensors", "optimizer.pt")]
    assert sum(file.stat().st_size for file in files) == pytest.approx(planned_bytes, rel=0.1)  # their headers


def test_a_full_disk_is_found(models, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    saved = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}
    found = planned(models(), rows, tmp_path / "a" / "b", **saved)
    assert any("Set save_total_limit" in p and f"{tmp_path} has" in p for p in found.problems)


# Supervised training


def test_supervised_training_is_planned_too(models, rows, tmp_path):
    args = VideoSFTConfig(
        str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=1, use_cpu=True
    )
    rows = [{**row, "process": "<think>left</think>"} for row in rows]
    found = plan_run(args, ModelConfig(model_name_or_path=models().path), Dataset.from_list(rows), num_processes=2)
    assert found.ok, found.problems
    # 14 rows: 4 micro-batches of 2 x 2, 2 steps
    steps = found.steps
    assert (steps.rows_per_step, steps.steps_per_epoch, steps.total_steps, steps.ordered) == (8, 2, 2, 0)
    tokens = models().processor.tokenizer("<think>left</think>\n<answer>A</answer>")["input_ids"]
    assert {prompt.completion_tokens for prompt in found.data["train"].prompts} == {len(tokens) + 1}
    assert {item.phase for item in found.memory.items} == {"always", "training"}
    assert "reference model" not in {item.name for item in found.memory.items}


# The arguments of the plan, and its table


def test_arguments_that_make_no_sense_are_refused(models, rows, tmp_path):
    for options, message in (
        ({"num_sampled": 0}, "num_sampled (0)"),
        ({"media": "all"}, "media ('all')"),
        ({"sharding": "zero9"}, "sharding ('zero9')"),
        ({"num_processes": 0}, "num_processes (0)"),
        ({"device_bytes": 0}, "device_bytes (0)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            planned(models(), rows, tmp_path, options=options)
    with pytest.raises(TypeError, match="train: .*IterableDataset"):
        planned(models(), Dataset.from_list(rows).to_iterable_dataset(), tmp_path)


def test_the_launcher_says_how_the_model_is_split(tmp_path, monkeypatch):
    args = args_of(tmp_path)
    assert plan._engine(args, None, None).sharding == "none"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert plan._engine(args, None, None).sharding == "fsdp"
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    args.deepspeed_plugin = SimpleNamespace(zero_stage=2)
    engine = plan._engine(args, 4, None)
    assert (engine.sharding, engine.num_processes, engine.half, engine.device) == ("zero2", 4, False, "cpu")
    assert plan._engine(args, None, "zero3").sharding == "zero3"


def test_no_weights_are_read(models, rows, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models().path, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    found = planned(SimpleNamespace(path=str(folder)), rows, tmp_path)
    assert found.ok and found.model.weights.parameters == count_parameters(models().model)[0]


def test_the_printed_plan_ends_with_what_was_found_and_the_exit_code(models, media, tmp_path, capsys):
    records = [
        {
            "problem_id": i,
            "problem": "Which way?",
            "data_type": "video",
            "problem_type": "multiple choice",
            "options": ["A. left", "B. right"],
            "solution": "<answer>A</answer>",
            "path": f"{i % 4}.mp4",
        }
        for i in range(4)
    ]
    file = tmp_path / "records.json"
    file.write_text(json.dumps(records))
    dataset = load_video_r1(file, media["folder"])
    arguments = (args_of(tmp_path), ModelConfig(model_name_or_path=models().path), dataset, None)
    with pytest.raises(SystemExit) as ended:
        dry_run.end_with_plan(dry_run.DryRunArguments(dry_run=True), *arguments)
    said = capsys.readouterr().out
    assert ended.value.code == 0 and said.splitlines()[-1] == "Nothing was found that would stop this run."
    for expected in ("4: video 4 (100%)", "4 files, 0 missing", "row", "peak", "an estimate", "ordered", "warning: "):
        assert expected in said
    with pytest.raises(SystemExit) as ended:
        dry_run.end_with_plan(dry_run.DryRunArguments(dry_run_device_gib=0.001), *arguments)
    said = capsys.readouterr().out
    assert ended.value.code == 1 and said.splitlines()[-1] == "Problems: 1." and "problem: memory" in said


@pytest.fixture
def planned_with_weights(media, tmp_path, capsys):
    """`planned_with_weights(folder, **model options)`: what `--check_model` prints of the model in a folder, and its exit code."""

    def run(folder, **options):
        rows = Dataset.from_list([helpers.row(video=media["videos"][0]) for _ in range(4)])
        model_args = ModelConfig(model_name_or_path=str(folder), **options)
        flags = dry_run.DryRunArguments(dry_run=True, check_model=True)
        with pytest.raises(SystemExit) as ended:
            dry_run.end_with_plan(flags, args_of(tmp_path, beta=0.0), model_args, rows, None, media="off")
        return capsys.readouterr().out, ended.value.code

    return run


@pytest.mark.slow
def test_a_plan_holds_the_weights_to_the_contract(models, planned_with_weights):
    """With the adapters of a recipe, on the language model alone."""
    options = {"dtype": "float32", "use_peft": True, "lora_target_modules": ["q_proj", "v_proj"]}
    said, code = planned_with_weights(models().path, **options)
    assert code == 0, said
    assert "Contract: Qwen2_5_VLForConditionalGeneration, float32" in said
    found = "no adapters on the vision weights, 4 of 8 language tensors have a gradient"  # A's is 0 while B is 0
    assert found in re.sub(r"[│\s]+", " ", said), said


@pytest.mark.slow
def test_a_plan_names_the_checks_that_weights_fail(models, planned_with_weights, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(models().path, folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    with torch.no_grad():
        model.model.visual.patch_embed.proj.weight.zero_()
    model.save_pretrained(folder)
    said, code = planned_with_weights(folder)
    assert code == 1 and "problem: contract: video_counts: another video" in said, said
    (folder / "model.safetensors").write_bytes(b"none")
    said, code = planned_with_weights(folder)
    assert code == 1 and "problem: weights of" in said, said


def test_a_plan_without_a_model_prints_too(rows, tmp_path, capsys):
    found = plan_run(args_of(tmp_path), ModelConfig(), Dataset.from_list(rows), media="off")
    dry_run.print_plan(found)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "problem: model: model_name_or_path is not set.",
        "Problems: 1.",
    ]


def test_sizes_are_printed_in_units_that_fit():
    found = [dry_run._size(nbytes) for nbytes in (1536, 2.5 * 2**20, 3 * 2**29, 2**40)]
    assert found == ["1.5 KiB", "2.5 MiB", "1.5 GiB", "1,024.0 GiB"]


def test_only_the_main_process_plans(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as ended:
        dry_run.end_with_plan(dry_run.DryRunArguments(), None, None, None, None)
    assert ended.value.code == 0


def test_loading_that_fails_in_another_way_is_not_hidden(models, tmp_path):
    with pytest.raises(ZeroDivisionError):
        Findings().tried("x", lambda: 1 / 0)
    assert plan_model(args_of(tmp_path), ModelConfig(), plan._engine(args_of(tmp_path), 1, "none"), Findings()) is None


@pytest.mark.slow
@pytest.mark.parametrize("missing, code, last", [(False, 0, "Nothing was found"), (True, 1, "Problems: 1.")])
def test_the_training_script_plans_and_ends(models, media, tmp_path, missing, code, last):
    """`--dry-run` trains nothing: exit code 0, or 1 where a file is not there."""
    for index, video in enumerate(media["videos"][:2]):
        (tmp_path / f"{index}.mp4").write_bytes(Path(video).read_bytes())
    record = {
        "problem": "Which way?",
        "data_type": "video",
        "problem_type": "free-form",
        "solution": "<answer>up</answer>",
    }
    records = [{**record, "path": f"./{index}.mp4"} for index in range(3 if missing else 2)]
    (tmp_path / "records.json").write_text(json.dumps(records))
    script = Path(__file__).parents[2] / "examples" / "train_tgrpo.py"
    flags = {"dataset": tmp_path / "records.json", "model_name_or_path": models().path, "output_dir": tmp_path / "out"}
    command = [sys.executable, str(script), "--dry-run", "--bf16", "False", "--use_cpu", "True", "--max_steps", "3"]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    found = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (found.returncode, found.stdout.strip().splitlines()[-1][: len(last)]) == (code, last), found.stderr[-2000:]
    assert not (tmp_path / "out").exists()
