"""The config's fields: documented, validated, and the paper's where the paper says something."""

import re
from pathlib import Path

import pytest
import yaml
from helpers import config
from transformers import HfArgumentParser
from trl import GRPOConfig

from videor1_trl import TGRPOConfig
from videor1_trl.media.settings import FrameSettings, VideoArguments


OWN = {name: f for name, f in TGRPOConfig.__dataclass_fields__.items() if name not in GRPOConfig.__dataclass_fields__}


def documented():
    """name -> its paragraph in the class docstrings."""
    docstrings = TGRPOConfig.__doc__, VideoArguments.__doc__, FrameSettings.__doc__
    paragraphs = [each for text in docstrings for each in re.split(r"\n\s{8}(?=\w+ \(`)", text)[1:]]
    return {paragraph.split(" ")[0]: " ".join(paragraph.split()) for paragraph in paragraphs}


def test_docstring_and_fields_agree():
    found = documented()
    assert set(found) == set(OWN)
    for name, each in OWN.items():
        if each.default is None:
            assert "*optional*):" in found[name], name
        else:
            default = f'"{each.default}"' if isinstance(each.default, str) else each.default
            assert f"defaults to `{default}`" in found[name], name


def test_every_field_has_a_help_that_argparse_can_print(capsys):
    with pytest.raises(SystemExit):
        HfArgumentParser([TGRPOConfig]).parse_args(["--help"])
    printed = capsys.readouterr().out
    assert all(f"--{name}" in printed for name in OWN)


def test_defaults_are_the_papers(tmp_path):
    defaults = TGRPOConfig(str(tmp_path), bf16=False, use_cpu=True)
    assert (defaults.beta, defaults.top_p, defaults.temperature, defaults.num_generations) == (0.04, 0.95, 1.0, 8)
    assert (defaults.max_completion_length, defaults.max_prompt_length) == (768, 16384)
    assert (defaults.learning_rate, defaults.weight_decay, defaults.max_grad_norm) == (1e-6, 0.01, 5.0)
    assert (defaults.temporal_alpha, defaults.temporal_mu, defaults.temporal_threshold) == (0.3, 1.0, 0.5)
    assert defaults.video_max_pixels == 128 * 28 * 28
    assert defaults.loss_type == "grpo" and defaults.lr_scheduler_type == "cosine"
    assert defaults.contrast_generations(8) == 4


@pytest.mark.parametrize(
    "setting, value, message",
    [
        ("num_contrast_generations", 0, "num_contrast_generations (0) must be between 1 and num_generations (4)"),
        ("num_contrast_generations", 5, "num_contrast_generations (5) must be between 1 and num_generations (4)"),
        ("temporal_alpha", -0.1, "temporal_alpha (-0.1) must be at least 0"),
        ("temporal_alpha", float("nan"), "temporal_alpha (nan) must be at least 0"),
        ("temporal_mu", -1.0, "temporal_mu (-1.0) must be at least 0"),
        ("temporal_threshold", 1.0, "temporal_threshold (1.0) must be at least 0 and below 1"),
        ("temporal_bonus", "both", "temporal_bonus ('both') must be 'reward' or 'advantage'"),
        ("on_bad_video", "ignore", "on_bad_video ('ignore') must be 'raise' or 'skip'"),
        ("video_fps", 0.0, "video_fps (0.0) must be above 0"),
        ("video_min_frames", 20, "video_min_frames (20) must be at least 1 and at most video_max_frames (16)"),
        ("video_max_frames", 3, "video_min_frames (4) must be at least 1 and at most video_max_frames (3)"),
        ("video_num_frames", 0, "video_num_frames (0) must be at least 1, or unset"),
        ("video_min_pixels", 10**6, "video_min_pixels (1000000) must be at most video_max_pixels (1568)"),
        ("max_prompt_length", 0, "max_prompt_length (0) must be at least 1, or unset"),
        ("num_contrast_generations", 2.5, "num_contrast_generations (2.5) must be a whole number between 1 and"),
        ("dynamic_sampling", 1.5, "dynamic_sampling (1.5) must be a whole number of at least 0"),
        ("dynamic_sampling", "2", "dynamic_sampling ('2') must be a whole number of at least 0"),
        ("dynamic_sampling", True, "dynamic_sampling (True) must be a whole number of at least 0"),
        ("num_iterations", 1.5, "num_iterations (1.5) must be a whole number of at least 1"),
        ("log_rollouts_steps", 0.5, "log_rollouts_steps (0.5) must be a whole number of at least 1, or unset"),
        ("log_frame_side", 160.5, "log_frame_side (160.5) must be a whole number of at least 16."),
        ("video_num_frames", 7.5, "video_num_frames (7.5) must be a whole number of at least 1, or unset"),
        ("video_min_frames", 4.5, "video_min_frames (4.5) must be a whole number"),
        ("video_num_workers", 0.5, "video_num_workers (0.5) must be a whole number of at least 0"),
        ("video_cache_gb", float("nan"), "video_cache_gb (nan) must be at least 0"),
        ("per_device_train_batch_size", 4.5, "per_device_train_batch_size (4.5) must be a whole number of at least 1"),
    ],
)
def test_values_out_of_range_are_named(tmp_path, setting, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config(tmp_path, **{setting: value})


@pytest.mark.parametrize(
    "said, meant",
    [("Task", "task"), ("GROUP", "group"), ("true", "group"), (True, "group"), ("False", "none"), (False, "none")],
)
def test_scale_rewards_is_stored_as_it_is_read(tmp_path, said, meant):
    assert config(tmp_path, scale_rewards=said).scale_rewards == meant


@pytest.mark.parametrize(
    "setting",
    [
        {"vllm_model_impl": "transformers"},
        {"multi_objective_aggregation": "normalize_then_sum"},
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_reason(tmp_path, setting):
    with pytest.raises(NotImplementedError, match=next(iter(setting))):
        config(tmp_path, use_vllm="multi_objective_aggregation" not in setting, **setting)
    with pytest.raises(ValueError, match="vllm_max_logp_difference"):
        config(tmp_path, use_vllm=True, vllm_max_logp_difference=0.0)


@pytest.mark.parametrize("name", ["temperature", "seed", "n"])
def test_what_would_part_sampler_and_learner_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"generation_kwargs has '{name}'"):
        config(tmp_path, use_vllm=True, generation_kwargs={name: 1})
    config(tmp_path, use_vllm=True, generation_kwargs={"frequency_penalty": 0.1})


def test_the_recipe_with_a_server_is_that_of_the_paper_but_for_the_server():
    folder = Path(__file__).parents[1] / "examples" / "configs"
    served, paper = ((folder / f"{name}.yaml").read_text() for name in ("video_r1_7b_server", "video_r1_7b"))
    found, expected = yaml.safe_load(served), yaml.safe_load(paper)
    own = {key: found.pop(key) for key in list(found) if key.startswith(("vllm_", "use_vllm", "output_dir"))}
    assert found == {key: value for key, value in expected.items() if key != "output_dir"}
    assert own["use_vllm"] is True and own["vllm_mode"] == "server"
    # room for the longest prompt with its completion, and for the rollouts of a step: 4 GPUs, 2 rows x 4, half as many contrasts
    length = expected["max_prompt_length"] + expected["max_completion_length"]
    rows = 4 * expected["per_device_train_batch_size"] * expected["gradient_accumulation_steps"]
    assert f"--max-model-len {length} " in served and rows + rows // 2 <= 64 and "--max-num-seqs 64 " in served
    starts = ("#   CUDA", "#       --", "#       examples")
    commands = [line.removeprefix("#").strip() for line in served.splitlines() if line.startswith(starts)]
    manual = (folder.parents[1] / "docs" / "vllm.md").read_text()
    assert len(commands) == 6 and all(command in manual for command in commands)


@pytest.mark.parametrize(
    "contrast, size, expected", [(None, 8, 4), (None, 1, 1), (None, 5, 2), (3, 4, 3), (3, 2, 2), (1, 8, 2)]
)
def test_contrast_rollouts_of_a_group(tmp_path, contrast, size, expected):
    """With num_generations = 4: the same share of another size, rounded, at least 1."""
    assert config(tmp_path, num_contrast_generations=contrast).contrast_generations(size) == expected


@pytest.mark.parametrize("name", ["video_r1_7b", "video_r1_7b_server", "toy"])
def test_recipes_parse_and_hold_what_they_say(name, tmp_path, monkeypatch):
    """Every line of the YAML files is a field; the 7 B recipe is the paper's (this machine has no bf16)."""
    from videor1_trl.scripts import train_tgrpo

    flags = ["--bf16", "False", "--use_cpu", "True", "--output_dir", str(tmp_path)]
    script, _, args, model = train_tgrpo.make_parser().parse_args_and_config(["--config", name, *flags])
    assert args.num_generations == 8 and args.contrast_generations(8) == 4
    if name == "toy":
        assert script.dataset == "toy" and not args.gradient_checkpointing
        return
    assert model.model_name_or_path == "Video-R1/Qwen2.5-VL-7B-COT-SFT"
    assert model.attn_implementation == "flash_attention_2"
    assert script.dataset == "Video-R1/Video-R1-data" and "Video-R1-260k.json" in script.data_files
    assert (args.beta, args.learning_rate, args.weight_decay, args.max_grad_norm) == (0.04, 1e-6, 0.01, 5)
    assert (args.temperature, args.top_p, args.max_completion_length) == (1.0, 0.95, 768)
    assert args.max_steps == 1000 and args.gradient_checkpointing
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == 8  # x 4 GPUs: 4 prompts of 8


@pytest.mark.parametrize("name", ["video_r1_7b_sft", "toy_sft"])
def test_recipes_of_the_cold_start_parse_and_hold_what_they_say(name, tmp_path, monkeypatch):
    from videor1_trl.scripts import train_sft

    flags = ["--bf16", "False", "--use_cpu", "True", "--output_dir", str(tmp_path)]
    data, _, args, model = train_sft.make_parser().parse_args_and_config(["--config", name, *flags])
    if name == "toy_sft":
        assert data.dataset == "runs/toy/data/cold_start.json" and args.padding_free
        return
    assert model.model_name_or_path == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert data.dataset == "Video-R1/Video-R1-data" and "Video-R1-COT-165k.json" in data.data_files
    assert (args.learning_rate, args.num_train_epochs, args.completion_only_loss) == (1e-6, 1, False)
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == 2 and args.gradient_checkpointing
