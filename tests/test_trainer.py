"""T-GRPO end to end on tiny models: the paper's formula, mixed batches, TRL's features, extension points, errors."""

import copy
import re
import shutil
from types import SimpleNamespace

import datasets
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from datasets import Dataset
from helpers import Scripted, config, logged, parity, rollouts, row, trainer
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from PIL import Image
from tiny import build
from transformers import AutoModelForImageTextToText
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_schema, qwen3_template

from videor1_trl import (
    TGRPOTrainer,
    accuracy_reward,
    format_reward,
    freeze_frame,
    get_temporal_reward,
    temporal_reward,
)
from videor1_trl.media.errors import VideoError
from videor1_trl.media.video import load_video
from videor1_trl.models.encoding import EncodedPrompt
from videor1_trl.models.families import text_only
from videor1_trl.models.fingerprints import differing
from videor1_trl.sharing.prompts import PromptSharing


def advantages(rewards):
    """The group's standardised rewards, by the formula: unbiased std, + 1e-4."""
    rewards = torch.tensor(rewards, dtype=torch.float32)
    return ((rewards - rewards.mean()) / (rewards.std() + 1e-4)).tolist()


def scored(tgrpo):
    """Rewards by name and advantages of one generation batch, in the order of the rows."""
    rollouts(tgrpo)
    return {name: list(values) for name, values in tgrpo._logs["rewards"].items()}, list(tgrpo._logs["advantages"])


def metric(tgrpo, name):
    return tgrpo._metrics["train"][name][-1]


# The formula

GROUPS = {  # accuracies, contrast accuracies, settings, bonuses worked out by hand
    "a tie passes": ([1, 0, 1, 0], [1, 0], {}, [0.3, 0, 0.3, 0]),
    "shuffling wins": ([1, 0, 0, 0], [1, 0], {}, [0, 0, 0, 0]),
    "mu lowers the bar to 0.5 * 0.5": ([1, 0, 0, 0], [1, 0], {"temporal_mu": 0.5}, [0.3, 0, 0, 0]),
    "alpha is the size of the bonus": ([1, 0, 0, 0], [0, 0], {"temporal_alpha": 0.7}, [0.7, 0, 0, 0]),
    "none right": ([0, 0, 0, 0], [0, 0], {}, [0, 0, 0, 0]),
    "all right": ([1, 1, 1, 1], [1, 1], {}, [0.3] * 4),
    "continuous, above 0.5 is right": ([0.6, 0.5, 0.9, 0.2], [0.55, 0.1], {}, [0.3, 0, 0.3, 0]),
    "a threshold of its own": ([0.6, 0.5, 0.9, 0.2], [0.7, 0.8], {"temporal_threshold": 0.8}, [0, 0, 0.3, 0]),
}


@pytest.mark.parametrize("accuracies, contrast, settings, bonuses", GROUPS.values(), ids=GROUPS)
def test_bonus_of_a_group(models, media, tmp_path, accuracies, contrast, settings, bonuses):
    accuracy = Scripted(accuracies, contrast)
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, accuracy, **settings)
    rewards, found = scored(tgrpo)
    assert rewards["temporal_reward"] == pytest.approx(bonuses)
    assert found == pytest.approx(advantages([a + b for a, b in zip(accuracies, bonuses, strict=True)]), abs=1e-5)


def test_bonus_cancels_in_the_reward_of_a_multiple_choice_group(models, media, tmp_path):
    """R = r + 0.3 r is a positive affine map of r: the advantages stay those of r (up to the 1e-4 beside the std)."""
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, Scripted([1, 0, 1, 0], [0, 0]))
    _, found = scored(tgrpo)
    assert found == pytest.approx(advantages([1.0, 0.0, 1.0, 0.0]), abs=1e-3)
    assert metric(tgrpo, "temporal/bonus_rate") == pytest.approx(0.5)
    assert metric(tgrpo, "temporal/effect") == 0.0


def test_bonus_acts_where_another_reward_differs(models, media, tmp_path):
    """R = [1.3, 1, 1.3, 0] instead of [1, 1, 1, 0]: a wrong answer in the right format falls behind."""

    def form(completions, **kwargs):
        return [0.0, 1.0, 0.0, 0.0]

    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, [Scripted([1, 0, 1, 0], [0, 0]), form])
    _, found = scored(tgrpo)
    with_bonus, without = advantages([1.3, 1.0, 1.3, 0.0]), advantages([1.0, 1.0, 1.0, 0.0])
    assert found == pytest.approx(with_bonus, abs=1e-5)
    moved = sum(abs(a - b) for a, b in zip(with_bonus, without, strict=True)) / 4
    assert moved > 0.1
    assert metric(tgrpo, "temporal/effect") == pytest.approx(moved, abs=1e-3)  # without TRL's 1e-4


def test_bonus_is_added_behind_the_standardisation(models, media, tmp_path):
    accuracy = Scripted([1, 0, 1, 0], [0, 0])
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, accuracy, temporal_bonus="advantage")
    inputs = rollouts(tgrpo)
    base = advantages([1.0, 0.0, 1.0, 0.0])
    expected = [base[0] + 0.3, base[1], base[2] + 0.3, base[3]]
    assert list(tgrpo._logs["advantages"]) == pytest.approx(expected, abs=1e-5)
    assert sorted(inputs["advantages"].tolist()) == pytest.approx(sorted(expected), abs=1e-5)
    assert metric(tgrpo, "temporal/effect") == pytest.approx(0.15)
    assert metric(tgrpo, "reward") == pytest.approx(0.5)


@pytest.mark.parametrize("scale, divide", [("none", False), ("group", True)])
def test_effect_follows_the_scaling_of_rewards(models, media, tmp_path, scale, divide):
    accuracy = Scripted([1, 0, 1, 0], [0, 0])
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, accuracy, scale_rewards=scale)
    rollouts(tgrpo)
    # R moves from [1, 0, 1, 0] to [1.3, 0, 1.3, 0], the mean from 0.5 to 0.65: every advantage by 0.15
    assert metric(tgrpo, "temporal/effect") == pytest.approx(0.0 if divide else 0.15, abs=1e-3)


def test_metrics_of_ordered_and_contrast_rollouts(models, media, tmp_path):
    accuracy = Scripted([1, 1, 1, 0], [1, 0])
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, accuracy)
    rollouts(tgrpo)
    found = {
        name: metric(tgrpo, f"temporal/{name}") for name in ("accuracy", "contrast_accuracy", "gap", "bonus_rate")
    }
    assert found == {"accuracy": 0.75, "contrast_accuracy": 0.5, "gap": 0.25, "bonus_rate": 0.75}


def test_image_and_text_rows_get_no_temporal_reward_and_no_contrast_rollouts(models, media, tmp_path):
    rows = [row("a?", image=media["image"]), row("b?"), row("c?", video=media["videos"][0])]
    accuracy = Scripted([1, 0, 0, 0] + [1, 1, 0, 0] + [1, 0, 0, 0], [0, 0])
    tgrpo = trainer(models(), rows, tmp_path, accuracy, per_device_train_batch_size=12)
    rewards, found = scored(tgrpo)
    bonuses = torch.tensor(rewards["temporal_reward"])
    assert bonuses[:8].isnan().all()
    assert bonuses[8:].tolist() == pytest.approx([0.3, 0, 0, 0])
    assert found[:4] == pytest.approx(advantages([1.0, 0, 0, 0]), abs=1e-5)
    assert metric(tgrpo, "temporal/accuracy") == 0.25


def test_users_reward_weights_leave_the_bonus_at_its_own(models, media, tmp_path):
    accuracy = Scripted([1, 0, 0, 0], [0, 0])
    settings = {"reward_weights": [2.0, 0.5]}
    form = lambda completions, **kwargs: [1.0, 1.0, 0.0, 0.0]  # noqa: E731
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, [accuracy, form], **settings)
    _, found = scored(tgrpo)
    assert found == pytest.approx(advantages([2.0 + 0.5 + 0.3, 0.5, 0, 0]), abs=1e-5)
    assert tgrpo.args.reward_weights == [2.0, 0.5]


def test_accuracy_may_be_another_reward_function_by_name(models, media, tmp_path):
    accuracy = Scripted([1, 0, 0, 0], [0, 0])
    form = lambda completions, **kwargs: [0.0] * len(completions)  # noqa: E731
    tgrpo = trainer(
        models(), [row(video=media["videos"][0])], tmp_path, [form, accuracy], accuracy_reward_name="scripted"
    )
    rewards, _ = scored(tgrpo)
    assert rewards["temporal_reward"] == pytest.approx([0.3, 0, 0, 0])


def test_rollouts_without_a_verdict_are_left_out_of_the_shares(models, media, tmp_path):
    accuracy = Scripted([1, None, None, 0], [None, 0])
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, [accuracy, format_reward])
    rewards, _ = scored(tgrpo)
    assert rewards["temporal_reward"] == pytest.approx([0.3, 0, 0, 0])  # p = 1/2, p~ = 0
    blind = trainer(models(), [row(video=media["videos"][0])], tmp_path, [Scripted([1, 0, 0, 0], [None, None])])
    rewards, _ = scored(blind)
    assert torch.tensor(rewards["temporal_reward"]).isnan().all()


def test_a_rollout_that_no_function_scored_has_no_advantage(models, media, tmp_path):
    """As in TRL: [None, 1, 0, 1] standardises over three, whether or not there is a temporal reward."""
    accuracy = Scripted([None, 1.0, 0.0, 1.0], [0.0, 0.0])
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, accuracy)
    rewards, found = scored(tgrpo)
    assert torch.tensor(rewards["temporal_reward"])[0].isnan()
    assert found[0] == 0.0
    assert found[1:] == pytest.approx(advantages([1.3, 0.0, 1.3]), abs=1e-5)


def test_both_sides_of_the_gap_come_from_the_same_prompts(models, media, tmp_path):
    accuracy = Scripted([1] * 4 + [0, 0, 0, 1], [1, 1] + [0, 0])
    rows = [row("a?", video=media["videos"][0], problem_id=0), row("b?", video=media["videos"][1], problem_id=1)]

    def only_the_second(accuracies, contrast_accuracies, *, problem_id, **kwargs):
        return [None if problem_id == 0 else 0.1] * 4

    options = {"temporal_reward_func": only_the_second}
    tgrpo = trainer(models(), rows, tmp_path, accuracy, per_device_train_batch_size=8, options=options)
    rollouts(tgrpo)
    assert (metric(tgrpo, "temporal/accuracy"), metric(tgrpo, "temporal/contrast_accuracy")) == (0.25, 0.0)


# Rollouts


def count_generate(tgrpo):
    sizes = []
    original = tgrpo.model.generate

    def generate(**kwargs):
        sizes.append(kwargs["input_ids"].shape[0])
        return original(**kwargs)

    tgrpo.model.generate = generate
    return sizes


def test_one_generate_call_for_ordered_and_contrast_rows(models, media, tmp_path):
    rows = [row("a?", video=media["videos"][0]), row("b?", image=media["image"])]
    tgrpo = trainer(models(), rows, tmp_path, per_device_train_batch_size=8, num_contrast_generations=3)
    sizes = count_generate(tgrpo)
    rollouts(tgrpo)
    assert sizes == [8 + 3]


def test_plain_grpo_makes_no_contrast_rollouts(models, media, tmp_path):
    tgrpo = trainer(
        models(), [row(video=media["videos"][0])], tmp_path, options={"temporal_reward_func": None}
    )  # fmt: skip
    sizes = count_generate(tgrpo)
    tgrpo.train()
    assert sizes == [4]
    assert not any(key.startswith("temporal/") for entry in tgrpo.state.log_history for key in entry)


def test_contrast_completions_are_scored_with_their_rows_columns(models, media, tmp_path):
    rows = [row("a?", video=media["videos"][0], problem_id=0), row("b?", video=media["videos"][1], problem_id=1)]
    accuracy = Scripted([0] * 8, [0] * 4)
    rollouts(trainer(models(), rows, tmp_path, accuracy, per_device_train_batch_size=8))
    ordered, contrast = accuracy.calls
    assert ordered["problem_id"] == [0] * 4 + [1] * 4
    assert contrast["problem_id"] == [0, 0, 1, 1]
    assert contrast["video"] == [media["videos"][0]] * 2 + [media["videos"][1]] * 2
    assert len(contrast["completion_ids"]) == 4
    assert contrast["solution"] == ["<answer>A</answer>"] * 4


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_a_completion_is_not_trained_beyond_any_end_token(models, media, tmp_path, end):
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path)
    end_id = tgrpo._tokenizer.convert_tokens_to_ids(end)
    tgrpo.model.generate = lambda **kwargs: torch.cat(
        [kwargs["input_ids"], torch.tensor([[20, 21, end_id, 22, 23]]).repeat(len(kwargs["input_ids"]), 1)], dim=1
    )
    inputs = rollouts(tgrpo)
    assert inputs["completion_ids"].tolist() == [[20, 21, end_id]] * 4
    assert inputs["completion_mask"].tolist() == [[1, 1, 1]] * 4
    assert metric(tgrpo, "completions/clipped_ratio") == 0.0
    assert set(tgrpo.eos_token_ids) <= set(tgrpo.generation_config.eos_token_id)


@pytest.mark.parametrize(
    "settings",
    [
        {"per_device_train_batch_size": 12},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4},  # micro-batches of part of a group
        {"per_device_train_batch_size": 4, "steps_per_generation": 3, "num_iterations": 2},
    ],
    ids=["several prompts", "a group larger than the batch", "generations reused"],
)
def test_every_micro_batch_keeps_the_media_of_its_rows(models, media, tmp_path, settings):
    """TRL shuffles and splits the scored batch: each row's prompt must still be that of its media."""
    rows = [row("a?", video=media["videos"][0]), row("bb bb?", image=media["image"]), row("ccc ccc ccc ccc ccc ccc?")]
    tgrpo = trainer(models(), rows, tmp_path, beta=0.04, max_steps=3, **settings)
    seen = []
    original = tgrpo._compute_loss

    def compute_loss(model, inputs):
        for index, encoded in enumerate(inputs["encoded"]):
            assert isinstance(encoded, EncodedPrompt)
            prompt = inputs["prompt_ids"][index][inputs["prompt_mask"][index].bool()]
            assert prompt.tolist() == encoded.input_ids
            seen.append(len(encoded.input_ids))
        return original(model, inputs)

    tgrpo._compute_loss = compute_loss
    tgrpo.train()
    assert len(set(seen)) == 3
    assert len(logged(tgrpo, "loss")) == 3


def test_end_and_suppressed_tokens_of_the_users_are_kept(models, tmp_path):
    settings = {"generation_kwargs": {"eos_token_id": [50], "suppress_tokens": [7]}}
    tgrpo = trainer(models(), [row()], tmp_path, **settings)
    assert {2, 0, 50} <= set(tgrpo.generation_config.eos_token_id) == set(tgrpo.eos_token_ids)
    assert 7 in tgrpo.generation_config.suppress_tokens and len(tgrpo.generation_config.suppress_tokens) > 1


def test_rewards_get_one_shape_of_prompt_for_all_rows_of_a_run(models, media, tmp_path):
    """Parts with media as placeholders as soon as the data has any, for text and skipped rows too; else as they are."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    accuracy = Scripted([0] * 12, [0, 0])
    rows = [row("a?"), row("b?", video=media["videos"][0]), row("c?", video=str(bad))]
    settings = {"per_device_train_batch_size": 12, "on_bad_video": "skip"}
    rollouts(trainer(models(), rows, tmp_path, accuracy, **settings))
    prompts = accuracy.calls[0]["prompts"]
    assert prompts[0] == [{"role": "user", "content": [{"type": "text", "text": "a?"}]}]
    assert prompts[4][0]["content"] == [{"type": "video"}, {"type": "text", "text": "b?"}]
    assert prompts[8][0]["content"] == [{"type": "text", "text": "c?"}]
    accuracy = Scripted([0] * 4)
    rollouts(trainer(models(), [row("a?")], tmp_path, accuracy))
    assert accuracy.calls[0]["prompts"][0] == [{"role": "user", "content": "a?"}]


@pytest.mark.parametrize("skipped", [False, True])
def test_completions_of_text_and_media_rows_are_logged_in_one_table(models, media, tmp_path, skipped):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    rows = [row("a?"), row("b?", video=str(bad) if skipped else media["videos"][0]), row("c?", image=media["image"])]
    settings = {"per_device_train_batch_size": 12, "log_completions": True, "on_bad_video": "skip"}
    trainer(models(), rows, tmp_path, **settings).train()
    table = pq.read_table(tmp_path / "completions" / "completions_00001.parquet").to_pylist()
    texts = [[part.get("text") for part in each["prompt"][0]["content"] if part["type"] == "text"] for each in table]
    assert texts == [["a?"]] * 4 + [["b?"]] * 4 + [["c?"]] * 4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lists", "array4d", "torch"])
def test_frames_in_a_column_of_a_dataset_train(models, tmp_path, form):
    """`datasets` gives uint8 frames back as nested lists or as int64."""
    frames = tiny.colour_frames(0, count=4).transpose(0, 3, 1, 2)
    rows = datasets.Dataset.from_list([row("a?", video=frames)])
    if form == "array4d":
        rows = rows.cast_column("video", datasets.Array4D(frames.shape, "uint8"))
    tgrpo = trainer(
        models(),
        rows.with_format("torch", columns=["video"], output_all_columns=True) if form == "torch" else rows,
        tmp_path,
    )
    tgrpo.train()
    assert len(logged(tgrpo, "temporal/gap")) == 1


@pytest.mark.slow
def test_several_videos_and_a_video_beside_an_image_train(models, media, tmp_path):
    rows = [
        {**row("a?"), "videos": media["videos"][:2], "images": None},
        {**row("b?"), "videos": [media["videos"][2]], "images": [media["image"]]},
    ]
    tgrpo = trainer(models(), rows, tmp_path, per_device_train_batch_size=8, max_steps=2, beta=0.04)
    tgrpo.train()
    assert all(value > 0 for value in logged(tgrpo, "grad_norm"))
    assert len(logged(tgrpo, "temporal/gap")) == 2


@pytest.mark.slow
def test_columns_of_datasets_video_are_decoded_by_the_loader_alone(models, media, tmp_path):
    sources = []

    def counting(source, **settings):
        sources.append(source)
        return load_video(source, **settings)

    rows = datasets.Dataset.from_list([row("a?", video=media["videos"][0]), row("b?", video=media["videos"][1])])
    rows = rows.cast_column("video", datasets.Video())
    tgrpo = trainer(
        models(), rows, tmp_path, per_device_train_batch_size=8, options={"video_loader": counting}
    )  # fmt: skip
    tgrpo.train()
    assert [source["path"] for source in sources] == media["videos"][:2]


# What TRL offers


def test_evaluation_logs_the_temporal_metrics(models, media, tmp_path):
    rows = [row("a?", video=media["videos"][0]), row("b?", video=media["videos"][1])]
    tgrpo = trainer(
        models(), rows, tmp_path, eval_rows=rows, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4,
        num_generations_eval=2, max_steps=2, num_iterations=2,
    )  # fmt: skip
    tgrpo.train()
    for name in ("accuracy", "contrast_accuracy", "gap", "bonus_rate", "effect"):
        assert len(logged(tgrpo, f"eval_temporal/{name}")) == 2, name
    assert len(logged(tgrpo, "eval_reward")) == 2
    assert len(logged(tgrpo, "loss")) == 2


@pytest.mark.slow
def test_a_streamed_dataset_trains(models, media, tmp_path):
    rows = [row("a?", video=media["videos"][0]), row("b?", image=media["image"]), row("c?")]
    stream = datasets.Dataset.from_list(rows).to_iterable_dataset()
    tgrpo = trainer(models(), stream, tmp_path, max_steps=3)
    tgrpo.train()
    assert len(logged(tgrpo, "loss")) == 3 and len(logged(tgrpo, "temporal/gap")) == 1


@pytest.mark.slow
def test_completions_are_logged_with_prompts_rewards_and_advantages(models, media, tmp_path):
    import pandas

    rows = [row("a?", video=media["videos"][0])]
    trainer(
        models(), rows, tmp_path, Scripted([1, 0, 0, 0], [0, 0]), log_completions=True, temporal_bonus="advantage"
    ).train()
    table = pandas.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert table["temporal_reward"].tolist() == pytest.approx([0.3, 0, 0, 0])
    base = advantages([1.0, 0, 0, 0])
    assert table["advantage"].tolist() == pytest.approx([base[0] + 0.3, *base[1:]], abs=1e-5)
    assert table["prompt"][0][0]["content"][0]["type"] == "video"


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo"])
def test_every_loss_type_trains_on_video(models, media, tmp_path, loss_type):
    rows = [row(video=media["videos"][0])]
    tgrpo = trainer(
        models(),
        rows,
        tmp_path,
        loss_type=loss_type,
        max_steps=2,
        num_iterations=2,
        beta=0.04,
        max_completion_length=12,
    )
    before = tgrpo.model.get_input_embeddings().weight.detach().clone()
    tgrpo.train()
    assert all(value == value for value in logged(tgrpo, "loss"))
    assert not torch.equal(tgrpo.model.get_input_embeddings().weight, before)


def test_the_loss_types_above_are_all_of_the_parents():
    """Read from the config's help, which lists them."""
    help_text = GRPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    listed = re.findall(r"'(\w+)'", help_text.split("Supported values are")[1].split(". ")[0])
    assert len(listed) == 8
    tested = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo"]
    assert set(listed) <= set(tested)


@pytest.mark.slow
def test_lora_trains_the_adapter_alone_with_the_base_as_reference(models, media, tmp_path):
    from peft import LoraConfig

    adapter = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    tgrpo = trainer(
        models(), [row(video=media["videos"][0])], tmp_path, beta=0.04, max_steps=3, gradient_checkpointing=True,
        max_completion_length=12, learning_rate=1e-2, options={"peft_config": adapter},
    )  # fmt: skip
    assert tgrpo.ref_model is None
    before = {name: parameter.detach().clone() for name, parameter in tgrpo.model.named_parameters()}
    tgrpo.train()
    moved = {name for name, parameter in tgrpo.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert logged(tgrpo, "kl")[0] == pytest.approx(0.0, abs=1e-6)
    assert logged(tgrpo, "kl")[-1] > 0
    tgrpo.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_gradient_checkpointing_gives_the_same_training_and_keeps_the_cache_in_generate(models, media, tmp_path):
    norms, caches = [], []
    for checkpointing in (False, True):
        tgrpo = trainer(
            models(), [row(video=media["videos"][0])], tmp_path, gradient_checkpointing=checkpointing, max_steps=2,
            max_completion_length=12, beta=0.04,
        )  # fmt: skip
        language_model = tgrpo.model.model.language_model
        language_model.register_forward_hook(
            lambda module, args, kwargs, output: caches.append(
                (kwargs["inputs_embeds"].shape[1], output.past_key_values)
            ),
            with_kwargs=True,
        )
        tgrpo.train()
        norms.append(logged(tgrpo, "grad_norm"))
    assert norms[0] == pytest.approx(norms[1], abs=1e-5)
    assert all(norm > 0 for norm in norms[0])
    assert {length for length, cache in caches if cache is not None} >= {1}, "decoding must go on one token at a time"


def resumable(tiny_model, media, folder, max_steps, **settings):
    rows = [row(f"{'a' * n}?", video=media["videos"][n % 4]) for n in range(8)]
    settings = {
        "max_steps": max_steps,
        "save_strategy": "steps",
        "save_steps": 2,
        "num_train_epochs": 1,
        "beta": 0.04,
        "max_completion_length": 12,
        "shuffle_dataset": True,
        "lr_scheduler_type": "constant",
        **settings,
    }
    return trainer(tiny_model, rows, folder, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"gradient_accumulation_steps": 2, "num_iterations": 2}], ids=["plain", "reused"]
)
def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(models, media, tmp_path, settings):
    whole = resumable(models(), media, tmp_path / "whole", 4, **settings)
    whole.train()
    first = resumable(models(), media, tmp_path / "parts", 2, **settings)
    first.train()
    second = resumable(models(), media, tmp_path / "parts", 4, **settings)
    torch.manual_seed(123)  # whatever happened before
    second.train(resume_from_checkpoint=True)
    for key in ("loss", "reward", "grad_norm", "kl", "temporal/gap"):
        expected = logged(whole, key)
        assert len(expected) in (4, 2)  # rollouts that are used twice are logged once
        assert logged(second, key) == pytest.approx(expected, abs=1e-5), key


def test_checkpoints_within_a_generation_cycle_are_warned_about(models, media, tmp_path, caplog):
    settings = {"num_iterations": 4, "save_strategy": "steps"}
    trainer(models(), [row()], tmp_path, save_steps=8, **settings)
    assert "save_steps" not in caplog.text
    trainer(models(), [row()], tmp_path, save_steps=6, **settings)
    assert "save_steps (6) is no multiple of the 4 optimizer steps" in caplog.text


@pytest.mark.slow
def test_the_best_model_is_loaded_at_the_end(models, media, tmp_path):
    rows = [row(video=media["videos"][0])]
    calls = iter([1.0, 0.0])  # evaluation gets worse

    def judged(completions, **kwargs):
        if tgrpo.model.training:
            return parity(completions)
        return [next(calls)] * 4 if len(completions) == 4 else [0.0] * len(completions)

    tgrpo = trainer(
        models(), rows, tmp_path, judged, eval_rows=rows, eval_strategy="steps", eval_steps=1, save_strategy="steps",
        save_steps=1, max_steps=2, per_device_eval_batch_size=4, load_best_model_at_end=True,
        metric_for_best_model="eval_reward", max_completion_length=12,
    )  # fmt: skip
    tgrpo.train()
    assert tgrpo.state.best_model_checkpoint.endswith("checkpoint-1")
    best = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint-1")
    last = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint-2")
    name = "model.visual.patch_embed.proj.weight"
    assert not torch.equal(best.get_parameter(name), last.get_parameter(name))
    assert torch.equal(tgrpo.model.get_parameter(name), best.get_parameter(name))


@pytest.mark.slow
def test_checkpoint_loads_and_the_model_card_credits_video_r1(models, media, tmp_path):
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, save_strategy="steps", save_steps=1)
    tgrpo.train()
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoint-1")
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, tgrpo.model.get_parameter(name)), name
    card = (tmp_path / "README.md").read_text()
    assert "T-GRPO" in card and "2503.21776" in card and "tgrpo" in card


def test_the_model_card_names_the_beginning_and_asks_about_a_video(models, media, tmp_path, capsys, monkeypatch):
    """TRL's: a "fine-tuned version of None", and a question about a time machine."""
    cold_start = tmp_path / "cold_start"
    shutil.copytree(models().path, cold_start)
    tgrpo = trainer(models(), [row("a?")], tmp_path / "run", model=str(cold_start))
    tgrpo.create_model_card("mine", dataset_name="me/data", tags="video")
    card = (tmp_path / "run" / "README.md").read_text()
    assert "fine-tuned version of a model in a local folder, `cold_start` on the [me/data]" in card
    assert "None" not in card and "time machine" not in card
    (cold_start / "README.md").write_text("---\nbase_model: Qwen/Qwen2.5-VL-3B-Instruct\n---\n# A cold start\n")
    tgrpo.save_model()
    tgrpo.create_model_card("mine")
    card = (tmp_path / "run" / "README.md").read_text()
    assert (
        "fine-tuned version of [Qwen/Qwen2.5-VL-3B-Instruct](https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct)."
        in card
    )
    assert "base_model: Qwen/Qwen2.5-VL-3B-Instruct" in card and "- tgrpo" in card
    example = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    tgrpo.processing_class.save_pretrained(tmp_path / "run")
    shutil.copy(media["videos"][0], tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    small = "GenerationSettings(max_new_tokens=3, video_max_pixels=1568)"
    exec(compile(example.replace("GenerationSettings()", small), "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


# Ranks that must call the vision tower equally often (ZeRO-3, FSDP)


def tower_calls(tgrpo):
    """Remember, forward and backward, how often the vision tower runs while `generate` and the losses do."""
    calls = []
    tower = tgrpo.model.model.visual
    tower.register_forward_hook(lambda *args: calls.append("forward"))
    tower.patch_embed.proj.weight.register_hook(lambda gradient: calls.append("backward"))
    return calls


@pytest.mark.parametrize("compute", ["rollouts", "training"])
def test_a_rank_without_video_calls_the_tower_as_often_as_one_with(models, media, tmp_path, monkeypatch, compute):
    monkeypatch.setattr(PromptSharing, "calls_must_match", lambda self: True)
    counts = []
    mixed = [row("a?", video=media["videos"][0]), row("b?", image=media["image"]), row("left or right?")]
    for local in ("video", "image", "text"):
        rows = sorted(
            mixed, key=lambda each: each[local] is None if local in each else bool(each["video"] or each["image"])
        )
        tgrpo = trainer(models(), rows, tmp_path, num_iterations=2, beta=0.04, options={"temporal_reward_func": None})
        calls = tower_calls(tgrpo)
        inputs = rollouts(tgrpo)
        if compute == "training":
            calls.clear()
            tgrpo.current_gradient_accumulation_steps = 1
            tgrpo._compute_loss(tgrpo.model, inputs).backward()
        counts.append(calls)
    assert counts[0] == counts[1] == counts[2]
    # images and videos, each in `generate` and the old log-probabilities, or in the loss (one gradient for both)
    assert counts[0].count("forward") == (2 if compute == "training" else 4)
    assert counts[0].count("backward") == (1 if compute == "training" else 0)


def test_dummy_rows_change_no_loss_and_no_gradient(models, media, tmp_path, monkeypatch):
    """On the same rollouts of a text prompt, whose own vision tower has no gradient."""
    rows = [row("left or right?"), row("a?", video=media["videos"][0]), row("b?", image=media["image"])]
    tgrpo = trainer(models(), rows, tmp_path, beta=0.04, max_completion_length=12)
    inputs = rollouts(tgrpo)
    inputs["advantages"] = torch.tensor([1.0, -1.0, 0.5, -0.5])
    tgrpo.current_gradient_accumulation_steps = 1
    results = []
    for needed in (False, True):
        monkeypatch.setattr(PromptSharing, "calls_must_match", lambda self, needed=needed: needed)
        tgrpo.model.zero_grad()
        loss = tgrpo._compute_loss(tgrpo.model, inputs)
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in tgrpo.model.named_parameters() if p.grad is not None}
        results.append((loss, gradients))
    (plain_loss, plain), (loss, gradients) = results
    torch.testing.assert_close(loss, plain_loss, rtol=0, atol=1e-6)
    assert len(gradients) > len(plain), "the tower has a gradient now, of zero"
    for name, gradient in gradients.items():
        expected = plain.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6, msg=name)
    assert any(gradient.any() for gradient in plain.values())


# Media that cannot be read


def broken_rows(media, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    return [row("bad?", video=str(bad), problem_id=13), row("good?", video=media["videos"][0], problem_id=14)]


def test_a_bad_video_ends_the_run_with_its_name(models, media, tmp_path):
    tgrpo = trainer(models(), broken_rows(media, tmp_path), tmp_path, per_device_train_batch_size=8)
    with pytest.raises(VideoError, match=r"bad\.mp4.*problem_id 13"):
        tgrpo.train()


def test_a_skipped_row_has_no_loss_no_kl_and_no_gradient_and_is_counted(models, media, tmp_path):
    tgrpo = trainer(
        models(), broken_rows(media, tmp_path), tmp_path, on_bad_video="skip", per_device_train_batch_size=8, beta=0.5
    )
    inputs = rollouts(tgrpo)
    assert metric(tgrpo, "video/skipped_rows") == 4
    bad = torch.tensor([encoded.features == {} for encoded in inputs["encoded"]])
    assert bad.sum() == 4
    assert (inputs["completion_mask"][bad] == 0).all() and (inputs["completion_mask"][~bad] == 1).any()
    assert (inputs["advantages"][bad] == 0).all()
    assert inputs["num_items_in_batch"] == inputs["completion_mask"].sum()
    rewards = torch.tensor(tgrpo._logs["rewards"]["parity"])
    assert rewards[:4].isnan().all() and not rewards[4:].isnan().any()

    with torch.no_grad():  # away from the reference, so that the KL is not zero by itself
        for parameter in tgrpo.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    only = {
        key: value[bad] if getattr(value, "ndim", 0) else value for key, value in inputs.items() if key != "encoded"
    }
    only["encoded"] = [encoded for encoded in inputs["encoded"] if encoded.features == {}]
    tgrpo.current_gradient_accumulation_steps = 1
    loss = tgrpo._compute_loss(tgrpo.model, only)
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in tgrpo.model.parameters())


@pytest.mark.parametrize("loss_type", ["grpo", "sapo", "dr_grpo", "luspo", "dapo", "bnpo"])
def test_skipped_rows_do_not_shrink_the_loss_of_the_others(models, media, tmp_path, loss_type):
    """One prompt beside a skipped one has the gradient that it has alone, on the same rollouts."""
    tgrpo = trainer(
        models(), broken_rows(media, tmp_path), tmp_path, on_bad_video="skip", per_device_train_batch_size=8, beta=0.0,
        loss_type=loss_type, importance_sampling_level="sequence" if loss_type == "luspo" else "token",
    )  # fmt: skip
    inputs = rollouts(tgrpo)
    inputs["advantages"] = torch.where(inputs["completion_mask"].sum(1) > 0, 1.0, 0.0)
    kept = torch.tensor([encoded.features != {} for encoded in inputs["encoded"]])
    alone = {
        key: value[kept] if getattr(value, "ndim", 0) else value
        for key, value in inputs.items()
        if key not in ("encoded", "kept_share")
    }
    alone["encoded"] = [encoded for encoded in inputs["encoded"] if encoded.features != {}]
    tgrpo.current_gradient_accumulation_steps = 1
    gradients = []
    for batch in (inputs, alone):
        tgrpo.model.zero_grad()
        tgrpo._compute_loss(tgrpo.model, batch).backward()
        gradients.append(tgrpo.model.get_input_embeddings().weight.grad.clone())
    assert gradients[1].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_training_goes_on_past_skipped_rows(models, media, tmp_path):
    rows = broken_rows(media, tmp_path)
    tgrpo = trainer(models(), rows, tmp_path, on_bad_video="skip", max_steps=2, beta=0.04, max_completion_length=12)
    tgrpo.train()
    first, second = logged(tgrpo, "grad_norm")
    assert first == 0.0 and second > 0.0
    assert logged(tgrpo, "video/skipped_rows") == [4, 0]


# Extension points


def test_a_contrast_of_the_users(models, media, tmp_path):
    rows = [row(video=media["videos"][0])]
    tgrpo = trainer(models(), rows, tmp_path, options={"contrast": freeze_frame})
    loaded = tgrpo.batch_loader.load(rows * 4, 0, 4, 2, step=1)
    patches = loaded[1].contrast.features["pixel_values_videos"].view(4, -1)
    assert all(torch.equal(patch, patches[0]) for patch in patches)
    tgrpo.train()


def test_the_temporal_reward_is_given_the_whole_group(models, media, tmp_path):
    calls = []

    def divergence(accuracies, contrast_accuracies, **kwargs):
        calls.append({"accuracies": accuracies, "contrast_accuracies": contrast_accuracies, **kwargs})
        return [0.0, 1.0, None, 2.0]

    accuracy = Scripted([1, 0, 0, 0] + [0, 0, 0, 1], [1, 0] + [0, 1])
    rows = [row("a?", video=media["videos"][0], problem_id=5), row("b?", video=media["videos"][1], problem_id=6)]
    tgrpo = trainer(
        models(), rows, tmp_path, accuracy, per_device_train_batch_size=8, options={"temporal_reward_func": divergence}
    )
    rewards, _ = scored(tgrpo)
    found = torch.tensor(rewards["divergence"])
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, torch.nan, 2.0] * 2), equal_nan=True)
    second = calls[1]
    assert second["accuracies"] == [0, 0, 0, 1] and second["contrast_accuracies"] == [0, 1]
    assert second["problem_id"] == 6 and second["video"] == media["videos"][1]
    assert second["prompt"][0]["content"][0] == {"type": "video"}
    assert [len(second[key]) for key in ("completions", "contrast_completions")] == [4, 2]
    ordered, contrast = accuracy.calls
    assert second["completions"] == ordered["completions"][4:]
    assert second["completion_ids"] == ordered["completion_ids"][4:]
    assert second["contrast_completions"] == contrast["completions"][2:]
    assert second["contrast_completion_ids"] == contrast["completion_ids"][2:]


def test_a_temporal_reward_of_the_wrong_length_is_named(models, media, tmp_path):
    def short(accuracies, contrast_accuracies, **kwargs):
        return [0.0]

    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, options={"temporal_reward_func": short})
    with pytest.raises(ValueError, match="'short', asked for bonuses, returned 1 values for 4 ordered rollouts"):
        tgrpo.train()


def test_parameters_of_a_temporal_reward_of_the_users_win_over_the_config(models, media, tmp_path):
    own = get_temporal_reward(alpha=0.9)
    accuracy = Scripted([1, 0, 0, 0], [0, 0])
    tgrpo = trainer(
        models(), [row(video=media["videos"][0])], tmp_path, accuracy, options={"temporal_reward_func": own}
    )
    rewards, _ = scored(tgrpo)
    assert rewards["temporal_reward"] == pytest.approx([0.9, 0, 0, 0])


def test_a_video_loader_of_the_users(models, media, tmp_path):
    calls = []

    def loader(source, **settings):
        calls.append((source, settings))
        return load_video(media["videos"][0], num_frames=4)

    rows = [row(video="s3://bucket/clip.mp4")]
    tgrpo = trainer(
        models(), rows, tmp_path, options={"video_loader": loader}, video_fps=1.0, video_max_frames=8
    )  # fmt: skip
    inputs = rollouts(tgrpo)
    settings = {"fps": 1.0, "min_frames": 4, "max_frames": 8, "num_frames": None}
    assert calls == [("s3://bucket/clip.mp4", settings)]
    assert inputs["encoded"][0].features["video_grid_thw"][0, 0] == 2


def test_a_subclass_may_replace_the_bonus(models, media, tmp_path):
    class NoBonusForImages(TGRPOTrainer):
        def _temporal_bonuses(self, *args, **kwargs):
            return super()._temporal_bonuses(*args, **kwargs) * 2

    tgrpo = NoBonusForImages(
        models().path, Scripted([1, 0, 0, 0], [0, 0]), config(tmp_path),
        datasets.Dataset.from_list([row(video=media["videos"][0])]),
    )  # fmt: skip
    rewards, _ = scored(tgrpo)
    assert rewards["temporal_reward"] == pytest.approx([0.6, 0, 0, 0])


# The same as GRPOTrainer where there is no video


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "image"])
def test_rewards_and_gradients_equal_those_of_grpo_trainer_without_video(models, media, tmp_path, kind):
    tiny_model = models()
    image = Image.open(media["image"]) if kind == "image" else None
    rows = [{key: value for key, value in row(f"{'a' * n} left?").items() if key != "video"} for n in range(1, 5)]
    if kind == "image":
        rows = [{**each, "image": image} for each in rows]
    else:
        rows = [{key: value for key, value in each.items() if key != "image"} for each in rows]
    tokenizer = tiny_model.processor.tokenizer
    # Ends and placeholders differ between the two by design; here neither samples any
    never = sorted(tokenizer.convert_tokens_to_ids(list(tokenizer.get_added_vocab())))
    settings = {
        "per_device_train_batch_size": 8,
        "max_steps": 3,
        "beta": 0.04,
        "generation_kwargs": {"suppress_tokens": never},
        "max_completion_length": 10,
        "share_prefix": False,  # bit for bit; what sharing keeps is in test_shared_prefix.py
    }
    ours = trainer(tiny_model, rows, tmp_path / "ours", **settings)
    ours.train()
    arguments = config(tmp_path / "theirs", **settings)
    fields = {
        name: getattr(arguments, name)
        for name in (*list(settings)[:-1], "num_generations", "learning_rate", "loss_type")
    }
    theirs = GRPOTrainer(
        tiny_model.path,
        parity,
        GRPOConfig(
            str(tmp_path / "theirs"), **fields, top_p=0.95, max_grad_norm=5.0, weight_decay=0.01, bf16=False,
            use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, shuffle_dataset=False,
            gradient_checkpointing=False, logging_steps=1, lr_scheduler_type="cosine",
        ),
        datasets.Dataset.from_list(rows),
    )  # fmt: skip
    theirs.train()
    for key in ("reward", "reward_std", "kl", "completions/mean_length"):
        assert logged(ours, key) == pytest.approx(logged(theirs, key), abs=1e-5), key
    assert logged(ours, "grad_norm") == pytest.approx(logged(theirs, "grad_norm"), rel=1e-4)
    assert len(logged(ours, "reward")) == 3


# Refusals


def lora(**settings):
    return LoraConfig(target_modules=["q_proj", "v_proj"], **settings)


def test_a_model_without_a_trainable_parameter_is_refused(models, tmp_path):
    """PEFT's default for a loaded adapter is frozen: grad_norm was logged, and nothing learned."""
    base = AutoModelForImageTextToText.from_pretrained(models().path)
    get_peft_model(base, lora()).save_pretrained(tmp_path / "adapter")
    base = AutoModelForImageTextToText.from_pretrained(models().path)
    frozen = PeftModel.from_pretrained(base, tmp_path / "adapter")
    with pytest.raises(ValueError, match="No parameter of the PeftModel.* is trainable.*is_trainable=True"):
        trainer(models(), [row("a?")], tmp_path, model=frozen)
    base = AutoModelForImageTextToText.from_pretrained(models().path)
    tgrpo = trainer(
        models(), [row("a?")], tmp_path, beta=0.04,
        model=PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True),
    )  # fmt: skip
    tgrpo.train()
    with pytest.raises(ValueError, match="No parameter of the Qwen2_5_VLFor"):
        trainer(models(), [row("a?")], tmp_path, model=models().model.requires_grad_(False))
    models().model.requires_grad_(True)


def changed_in_memory(kind, path):
    model = AutoModelForImageTextToText.from_pretrained(path)
    if kind == "merged":
        adapted = get_peft_model(model, lora(init_lora_weights=False))
        return adapted.merge_and_unload().requires_grad_(True)
    if kind == "loaded":
        with torch.no_grad():
            model.model.language_model.layers[1].mlp.up_proj.weight[0, 0] += 0.5  # one value of all
    if kind == "resized":
        model.resize_token_embeddings(model.config.text_config.vocab_size + 8)
    return model


@pytest.mark.parametrize("kind", ["merged", "loaded", "resized"])
def test_a_reference_that_is_not_the_model_passed_is_refused(models, tmp_path, kind):
    model = changed_in_memory(kind, models().path)
    with pytest.raises(ValueError, match=rf"(?s)not the one at {re.escape(models().path)}.*differs.*save_pretrained"):
        trainer(models(), [row("a?")], tmp_path, model=model, beta=0.04)
    trainer(models(), [row("a?")], tmp_path, model=changed_in_memory(kind, models().path), beta=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_passed_as_it_was_loaded_keeps_its_reference(models, media, tmp_path, dtype):
    model = AutoModelForImageTextToText.from_pretrained(models().path, dtype=dtype)
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, model=model, beta=0.04, learning_rate=0.0)
    tgrpo.train()
    assert logged(tgrpo, "kl") == [0.0]


def test_prompt_tuning_is_refused_before_any_weights_are_loaded(models, tmp_path):
    with pytest.raises(NotImplementedError, match="PrefixTuningConfig puts virtual tokens before the prompt.*LoRA"):
        TGRPOTrainer(
            "no/model", parity, config(tmp_path), Dataset.from_list([row("a?")]),
            peft_config=PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
        )  # fmt: skip


def test_adapters_of_another_name_are_refused_where_the_reference_needs_theirs(models, tmp_path):
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(models().path), lora(), adapter_name="mine")
    with pytest.raises(ValueError, match="of the one named 'default', and this model has 'mine'"):
        trainer(models(), [row("a?")], tmp_path, model=model, beta=0.04)


def test_fewer_prompts_than_a_generation_takes_are_refused_before_any_weights_are_loaded(tmp_path):
    """Zero steps were made, and the model saved."""
    args = config(tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=2)
    with pytest.raises(
        ValueError, match=r"train_dataset has 3 prompts, and one generation takes 4: per_device_train_b"
    ):
        TGRPOTrainer("no/model", parity, args, Dataset.from_list([row("a?")] * 3))


# Templates that open the thoughts, and prompts that begin the answer


@pytest.mark.parametrize("opened", ["by the template", "by the prompt"])
def test_a_completion_is_judged_together_with_what_was_opened(models, media, tmp_path, monkeypatch, opened):
    """Ordered and contrast rollouts alike; a perfect answer behind `<think>` earned no format reward."""
    model, each = models(), row("which?", video=media["videos"][0])
    if opened == "by the template":
        model = tiny.thinking(models(), tmp_path / "model")
    else:
        each["prompt"] = [*each["prompt"], {"role": "assistant", "content": "<think>\n"}]
    contrast_texts = []

    def bonus(accuracies, contrast_accuracies, *, completions, contrast_completions, **kwargs):
        contrast_texts.extend(completion[0]["content"] for completion in contrast_completions)
        assert all(completion[0]["content"].startswith("<think>\nleft") for completion in completions)
        return [0.0] * len(accuracies)

    tgrpo = trainer(
        model, [each], tmp_path / "run", [accuracy_reward, format_reward], max_completion_length=60,
        options={"temporal_reward_func": bonus},
    )  # fmt: skip
    answer = "left\n</think>\n<answer>A</answer><|im_end|>"
    ids = torch.tensor(tgrpo.processing_class.tokenizer(answer, add_special_tokens=False)["input_ids"])
    monkeypatch.setattr(
        tgrpo.model, "generate", lambda input_ids, **kwargs: torch.cat([input_ids, ids.expand(len(input_ids), -1)], 1)
    )
    rollouts(tgrpo)
    assert list(tgrpo._logs["rewards"]["format_reward"]) == [1.0] * 4
    assert list(tgrpo._logs["rewards"]["accuracy_reward"]) == [1.0] * 4
    assert contrast_texts == ["<think>\nleft\n</think>\n<answer>A</answer>"] * 2
    text = tgrpo.processing_class.tokenizer.decode(tgrpo._batch.encoded[0].input_ids)
    assert text.endswith("<|im_start|>assistant\n<think>\n"), "the answer that the prompt begins is not closed"


def test_a_tokenizer_that_takes_answers_apart_is_judged_by_the_whole_text(models, media, tmp_path, monkeypatch):
    """TRL's grammar of a family drops what it does not know, and the thoughts that a prompt has opened."""
    model = tiny.thinking(models(), tmp_path / "model")
    tgrpo = trainer(
        model, [row("which?", video=media["videos"][0])], tmp_path / "run", [accuracy_reward, format_reward],
        max_completion_length=60,
    )  # fmt: skip
    tokenizer = tgrpo.processing_class.tokenizer
    tokenizer.response_template, tokenizer.response_schema = qwen3_template, qwen3_schema
    answer = "left\n</think>\n<answer>A</answer><|im_end|>"
    ids = torch.tensor(tokenizer(answer, add_special_tokens=False)["input_ids"])
    monkeypatch.setattr(
        tgrpo.model, "generate", lambda input_ids, **kwargs: torch.cat([input_ids, ids.expand(len(input_ids), -1)], 1)
    )
    rollouts(tgrpo)
    assert list(tgrpo._logs["rewards"]["format_reward"]) == [1.0] * 4
    assert list(tgrpo._logs["rewards"]["accuracy_reward"]) == [1.0] * 4
    assert tgrpo._batch.contrast_completions[0][0]["content"] == "<think>\nleft\n</think>\n<answer>A</answer>"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"bias": "all"}, "parameters outside the adapter are trained.*bias"),
        ({"bias": "lora_only"}, "parameters outside the adapter are trained.*bias"),
    ],
)
def test_a_reference_that_would_move_with_the_policy_is_refused(models, tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        trainer(models(), [row("a?")], tmp_path, beta=0.04, options={"peft_config": lora(**change)})
    trainer(models(), [row("a?")], tmp_path, beta=0.0, options={"peft_config": lora(**change)})


def test_several_active_adapters_are_refused_with_a_reference(models, tmp_path):
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(models().path), lora())
    model.add_adapter("more", lora())
    model.base_model.set_adapter(["default", "more"])
    with pytest.raises(ValueError, match="'default' and 'more' are active"):
        trainer(models(), [row("a?")], tmp_path, model=model, beta=0.04)


def test_the_reference_has_every_weight_of_the_adapter(models, media, tmp_path):
    """TRL does not copy those of embeddings, whose name ends in the adapter's."""
    settings = LoraConfig(target_modules=["q_proj", "embed_tokens"], init_lora_weights=False)
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(models().path), settings)
    tgrpo = trainer(models(), [row(video=media["videos"][0])], tmp_path, model=model, beta=0.04, learning_rate=0.0)
    tgrpo.train()
    assert logged(tgrpo, "kl") == [0.0]


def test_a_buffer_that_differs_makes_another_model_too(models):
    one, other = (AutoModelForImageTextToText.from_pretrained(models().path) for _ in range(2))
    assert differing(one, other) is None
    name, buffer = next(iter(other.named_buffers()))
    buffer += 1
    assert differing(one, other) == name


# Reward models of text


def test_a_reward_model_of_text_reads_the_text_of_video_rows(models, media, tmp_path):
    """Without the parts as Python prints them; the row without media gets the same as ever."""
    tokenizer = models().processor.tokenizer
    tokenizer_of_text = copy.deepcopy(tokenizer)
    tokenizer_of_text.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    seen = []

    class Judge(torch.nn.Module):
        config = SimpleNamespace(_name_or_path="judge", pad_token_id=0)

        def forward(self, input_ids, attention_mask, **kwargs):
            seen.extend(
                tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(input_ids, attention_mask, strict=True)
            )
            return SimpleNamespace(logits=torch.ones(len(input_ids), 1))

    rows = [row("a?", video=media["videos"][0]), row("b?")]
    options = {"reward_processing_classes": [None, tokenizer_of_text]}
    rollouts(trainer(models(), rows, tmp_path, [parity, Judge()], options=options, per_device_train_batch_size=8))
    assert len(seen) == 8 and all(text.startswith("user: a?\nassistant: ") for text in seen[:4])
    assert all(text.startswith("user: b?\nassistant: ") for text in seen[4:])


def test_a_reward_model_reads_an_answer_that_the_prompt_begins_once(models):
    tokenizer = copy.deepcopy(models().processor.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    turns = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "which?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "<think>"}]},
        {"role": "assistant", "content": "<think>left</think>A"},
    ]
    found = text_only(tokenizer).apply_chat_template(turns, tokenize=False)
    assert found == "user: which?\nassistant: <think>left</think>A\n"
    found = text_only(tokenizer).apply_chat_template([turns[0], *turns[2:], turns[1]], tokenize=False)
    assert found == "user: which?\nassistant: <think>left</think>A\nassistant: <think>\n"


def test_a_model_in_memory_with_a_reference_is_refused_with_the_way_out(tmp_path):
    model = build("qwen2_5_vl", tmp_path / "model").model
    model.config._name_or_path = ""
    with pytest.raises(ValueError, match=re.escape("beta=0.1 needs a reference model")):
        trainer(None, [row()], tmp_path, model=model, beta=0.1)


@pytest.mark.parametrize("name", ["tools", "rollout_func", "environment_factory"])
def test_rollouts_that_would_not_see_the_video_are_refused(models, tmp_path, name):
    with pytest.raises(NotImplementedError, match=name):
        trainer(models(), [row()], tmp_path, options={name: [print]})


def test_a_plain_grpo_config_is_refused(models, tmp_path):
    with pytest.raises(TypeError, match="needs a TGRPOConfig"):
        TGRPOTrainer(models().path, parity, GRPOConfig(str(tmp_path), bf16=False), datasets.Dataset.from_list([row()]))


def test_an_unknown_accuracy_name_is_refused(models, tmp_path):
    with pytest.raises(ValueError, match=r"accuracy_reward_name \('exact'\) is none of the reward functions: parity"):
        trainer(models(), [row()], tmp_path, accuracy_reward_name="exact")


def test_an_accuracy_that_is_a_model_or_asynchronous_is_refused(models, tmp_path):
    async def judge(completions, **kwargs):
        return [0.0] * len(completions)

    for accuracy in ("some/reward-model", judge):
        with pytest.raises(NotImplementedError, match="The accuracy must be a plain function"):
            trainer(models(), [row()], tmp_path, accuracy)


@pytest.mark.parametrize("column", ["completions", "accuracies"])
def test_columns_that_rewards_are_called_with_are_refused(models, tmp_path, column):
    with pytest.raises(ValueError, match=f"train_dataset has a column '{column}'"):
        trainer(models(), [row(**{column: 1})], tmp_path)


def test_a_dataset_without_prompts_is_refused(models, tmp_path):
    with pytest.raises(ValueError, match="has no column 'prompt', only question"):
        trainer(models(), [{"question": "a?"}], tmp_path)


def test_a_checkpoint_that_is_not_there_is_named(models, tmp_path):
    with pytest.raises(ValueError, match=r"resume_from_checkpoint \(/no/where\) is no folder"):
        trainer(models(), [row()], tmp_path).train(resume_from_checkpoint="/no/where")


def test_two_rewards_of_one_name_are_refused(models, tmp_path):
    with pytest.raises(ValueError, match="both named 'temporal_reward'"):
        trainer(models(), [row()], tmp_path, [parity, temporal_reward])


def test_videos_for_a_model_that_takes_none_are_refused_before_the_first_step(models, media, tmp_path):
    with pytest.raises(ValueError, match=r"train_dataset has a column 'video'.*takes no videos"):
        trainer(
            models(), [row(video=media["videos"][0])], tmp_path,
            options={"processing_class": models().processor.tokenizer},
        )  # fmt: skip
