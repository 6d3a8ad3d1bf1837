"""Training with colocated vLLM, on real vLLM: sampler = learner, before and behind updates; what is suppressed, seeds, skipped rows."""

import random

import numpy as np
import pytest
import small
import tiny
import torch
from datasets import Dataset
from helpers import config, parity, row
from runs import FLOAT32, make, rows_of

from videor1_trl import TGRPOTrainer
from videor1_trl.sharing import vllm_rollouts
from videor1_trl.watching.store import read_rollouts


pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("family", small.FAMILIES)
def test_vllm_and_the_learner_agree_before_and_behind_updates(family, small_models, media, compared, tmp_path):
    rows = rows_of(media, mixed=family not in small.APART)
    trainer = make(small_models(family), media, tmp_path, rows, max_prompt_length=640)
    trainer.train()
    assert len(compared) == 3 and max(max(pair) for pair in compared) < FLOAT32, compared
    assert all(contrast > 0 for _, contrast in compared)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert logged[0]["vllm/ordered_logp_difference"] < FLOAT32 > logged[1]["vllm/contrast_logp_difference"]
    assert "vllm/ordered_logp_difference" not in logged[2]
    assert all(entry["grad_norm"] > 0 for entry in logged)
    assert all(abs(entry["sampling/importance_sampling_ratio/mean"] - 1) < 1e-3 for entry in logged)


def test_adapters_are_merged_for_vllm_and_evaluation_and_skipped_videos_work(small_models, media, compared, tmp_path):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=8, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights="gaussian")
    rows = [row(video=media["videos"][0]), row("broken?", video="none.mp4"), row(image=media["image"]), row("text?")]
    settings = {"on_bad_video": "skip", "eval_strategy": "steps", "eval_steps": 1, "num_generations_eval": 2}
    settings |= {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 4, "learning_rate": 5e-2}
    trainer = TGRPOTrainer(
        small_models().path,
        parity,
        config(tmp_path, use_vllm=True, max_steps=3, max_prompt_length=200, **settings),
        Dataset.from_list(rows),
        Dataset.from_list(rows[::2]),
        peft_config=lora,
    )
    trainer.train()
    assert len(compared) == 6 and max(max(pair) for pair in compared) < FLOAT32, (
        compared
    )  # 3 of training, 3 of evaluation
    assert [entry["video/skipped_rows"] for entry in trainer.state.log_history if "video/skipped_rows" in entry] == [
        4,
        4,
        4,
    ]
    assert sum("eval_reward" in entry for entry in trainer.state.log_history) == 3


def test_tokens_follow_from_seed_and_step_and_the_trainers_own_generators_stay_as_they_were(
    small_models, media, tmp_path, monkeypatch
):
    completions = []
    original = vllm_rollouts.check_sampler

    def note(trainer, rows, completion_ids, logps):
        completions.append(completion_ids)
        original(trainer, rows, completion_ids, logps)

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    def run(seed):
        completions.clear()
        trainer = make(small_models(), media, tmp_path, max_steps=2, seed=seed, learning_rate=0.0)
        engine = trainer.vllm_generation.llm
        generate, kept = engine.generate, []

        def watched(*arguments, **settings):
            before = states()
            found = generate(*arguments, **settings)
            kept.append(states() == before)
            return found

        engine.generate = watched
        trainer.train()
        assert kept == [True, True]
        return [list(each) for each in completions]

    monkeypatch.setattr("videor1_trl.trainer.check_sampler", note)
    one = run(1)
    assert one == run(1) and one != run(2)
    assert one[0] != one[1] and len({tuple(each) for each in one[0][:4]}) > 1  # another step, and the rows of a group


def test_ends_and_placeholders_are_those_of_rollouts_by_transformers(small_models, media, compared, tmp_path):
    trainer = make(small_models(), media, tmp_path, max_steps=1, max_completion_length=64, temperature=1.5)
    seen = []
    original = trainer._generate_single_turn
    trainer._generate_single_turn = lambda *arguments: seen.append(original(*arguments)) or seen[-1]
    trainer.train()
    tokens = {token for completion in seen[0][0] for token in completion}
    ends = set(trainer.generation_kwargs["eos_token_id"])
    assert ends == set(trainer.processing_class.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))
    assert not tokens & set(trainer.generation_kwargs["suppress_tokens"])
    finished = [completion for completion in seen[0][0] if len(completion) < 64]
    assert finished and all(completion[-1] in ends and not ends & set(completion[:-1]) for completion in finished)
    assert len(seen[0][0]) == len(seen[0][1]) == 24  # the contrast rollouts are not handed to TRL


@pytest.mark.parametrize("told", ["raw_logprobs", "processed_logprobs"])
def test_a_long_completion_keeps_its_weight_under_top_p(told, small_models, media, tmp_path, monkeypatch):
    """TRL multiplies the ratios over a completion: those of a nucleus' own log-probabilities are 0.95 ** 1000 and less."""
    arguments = vllm_rollouts.engine_arguments
    monkeypatch.setattr(vllm_rollouts, "engine_arguments", lambda *given: {**arguments(*given), "logprobs_mode": told})
    settings = {
        "max_completion_length": 1000,
        "generation_kwargs": {"min_tokens": 1000},
        "top_p": 0.95,
        "temperature": 1.0,
    }
    settings |= {"per_device_train_batch_size": 8, "vllm_max_logp_difference": 9.0}
    trainer = make(small_models(), media, tmp_path, rows_of(media)[:2], max_steps=1, **settings)
    trainer.train()
    entry = next(each for each in trainer.state.log_history if "loss" in each)
    assert entry["completions/min_length"] == 1000
    for which in ("min", "mean", "max"):
        ratio = entry[f"sampling/importance_sampling_ratio/{which}"]
        assert abs(ratio - 1) < 0.01 if told == "raw_logprobs" else ratio < 0.01, entry


def test_training_is_refused_where_vllm_and_the_learner_differ(small_models, media, tmp_path):
    trainer = make(small_models(), media, tmp_path, max_steps=1)
    with torch.no_grad():
        trainer.model.get_input_embeddings().weight.mul_(1.1)
    trainer.vllm_generation.sync_weights = lambda: None  # the engine keeps the old ones
    with pytest.raises(RuntimeError, match=r"more than vllm_max_logp_difference \(0.002\)"):
        trainer.train()
    trainer = make(small_models(), media, tmp_path, max_steps=1, vllm_max_logp_difference=1e-9)
    with pytest.raises(RuntimeError, match=r"vllm_max_logp_difference \(1e-09\)"):
        trainer.train()


def test_a_failing_engine_is_named_and_answers_again_behind_it(small_models, media, compared, tmp_path, monkeypatch):
    trainer = make(small_models(), media, tmp_path, max_steps=1)
    model = trainer.vllm_generation.llm.llm_engine.model_executor.driver_worker.model_runner.model

    def fail(*arguments, **settings):
        raise RuntimeError("out of memory")

    with (
        monkeypatch.context() as patch,
        pytest.raises(RuntimeError, match=r"32 requests in it \(RuntimeError: out of mem"),
    ):
        patch.setattr(model, "forward", fail)
        trainer.train()
    assert not trainer.vllm_generation.llm.llm_engine.has_unfinished_requests()
    trainer.train()
    assert len(compared) == 1 and max(compared[0]) < FLOAT32


def test_a_prompt_that_vllm_refuses_is_named(small_models, media, tmp_path):
    trainer = make(small_models(), media, tmp_path, max_steps=1, vllm_max_model_length=40)
    with pytest.raises(
        RuntimeError, match=r"refuses a prompt: .* maximum model length of 40.* vllm_max_model_length is"
    ):
        trainer.train()


@pytest.mark.parametrize("pixels, tokens", [(28 * 28 * 9, 72), (28 * 28 * 16, 128)])
def test_videos_longer_than_what_the_engine_reads_at_a_time(
    pixels, tokens, small_models, compared, tmp_path, monkeypatch
):
    """Eight pairs of frames; vLLM has room for 112 tokens of a medium of this model, and refuses one with more."""
    arguments = vllm_rollouts.engine_arguments
    monkeypatch.setattr(
        vllm_rollouts, "engine_arguments", lambda *given: {**arguments(*given), "max_num_batched_tokens": 48}
    )
    videos = [tiny.write_mp4(tmp_path / f"{i}.mp4", tiny.colour_frames(i, 64, 112, 112)) for i in range(2)]
    rows = [{**row("which way?"), "videos": videos}, {**row("left?"), "videos": videos[:1]}]
    trainer = make(
        small_models(), None, tmp_path, rows, max_steps=1, per_device_train_batch_size=8, video_max_pixels=pixels
    )
    if tokens > 112:
        with pytest.raises(RuntimeError, match=r"refuses a prompt: .* 128 embedding tokens, .* video_max_pixels and"):
            trainer.train()
        return
    trainer.train()
    assert len(compared) == 1 and max(compared[0]) < FLOAT32
    kinds = [prompt.input_ids.count(small_models().model.config.video_token_id) for prompt in trainer._batch.encoded]
    assert set(kinds) == {tokens, 2 * tokens}


def test_frames_that_are_shuffled_are_read_once_where_each_is_an_image(small_models, media, tmp_path, monkeypatch):
    rows = [row(video=video) for video in media["videos"][:2]]
    trainer = make(small_models("internvl"), media, tmp_path, rows, max_steps=1, per_device_train_batch_size=8)
    model = trainer.vllm_generation.llm.llm_engine.model_executor.driver_worker.model_runner.model
    read, original = [], model.extract_feature
    monkeypatch.setattr(model, "extract_feature", lambda pixels: read.append(len(pixels)) or original(pixels))
    trainer.train()
    frames = sum(
        len(row.features["pixel_values"]) for row in {id(row): row for row in trainer._batch.encoded}.values()
    )
    assert sum(read) == frames > 10


def wrong_order(trainer, monkeypatch):
    """The features of the media of a prompt, the last one first."""
    items = trainer.vllm_generation.llm._inputs._items

    def turned(features):
        found = items(features)
        return type(found)({kind: each[::-1] for kind, each in found.items()})

    monkeypatch.setattr(trainer.vllm_generation.llm._inputs, "_items", turned)


def wrong_times(trainer, monkeypatch):
    monkeypatch.setattr("videor1_trl.sharing.vllm_inputs.ROUNDED", 2.0)


def stale_caches(trainer, monkeypatch):
    """Nothing is forgotten behind new weights."""
    monkeypatch.setattr(trainer.vllm_generation.llm, "reset_prefix_cache", lambda: True)


@pytest.mark.parametrize(
    "fault, rows, step",
    [
        (wrong_order, "rows with image and video", 0),
        (wrong_times, "rows with (image and )?video", 0),
        (stale_caches, "rows with", 1),
    ],
)
def test_what_goes_wrong_on_the_way_to_vllm_is_refused_at_its_first_batch(
    fault, rows, step, small_models, media, tmp_path, monkeypatch
):
    """One group of six is enough, and a second step, where the same prompts come back."""
    trainer = make(small_models(), media, tmp_path, max_steps=3, learning_rate=5e-2)
    fault(trainer, monkeypatch)
    with pytest.raises(
        RuntimeError, match=rf"in (ordered|contrast) {rows}.*, more than vllm_max_logp_difference \(0.002\).*Set"
    ):
        trainer.train()
    assert trainer.state.global_step == step
    assert trainer._metrics["train"]["vllm/ordered_logp_difference"][-1] > 0


def test_the_engine_has_room_for_all_rollouts_at_once_and_for_the_longest_prompt(small_models, media, tmp_path):
    engine = make(small_models(), media, tmp_path, max_steps=1).vllm_generation.llm
    config = engine.llm_engine.vllm_config
    assert config.scheduler_config.max_num_seqs == 24 + 12  # six groups of four and their contrasts of two
    assert config.model_config.max_model_len == 400 + 8
    assert config.model_config.dtype == torch.float32


def test_models_that_vllm_cannot_load_or_was_not_tested_with_are_refused_before_it_starts(
    small_models, media, tmp_path, monkeypatch
):
    built = type(small_models().model)(small_models().model.config)
    built.config._name_or_path = built.name_or_path = ""
    arguments, data = config(tmp_path, use_vllm=True), Dataset.from_list(rows_of(media))
    with pytest.raises(ValueError, match="this one was built in memory"):
        TGRPOTrainer(built, parity, arguments, data, processing_class=small_models().processor)
    monkeypatch.setattr("videor1_trl.sharing.vllm.FAMILIES", ("another",))
    with pytest.raises(
        NotImplementedError,
        match="prompts of another only, and this model is of the type qwen2_5_vl: which was not tried",
    ):
        make(small_models(), media, tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="generation_kwargs has 'temperature'"):
        make(small_models(), media, tmp_path, generation_kwargs={"temperature": 0.5})


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{"bf16": True}, {"bf16": True, "vllm_enable_sleep_mode": True}, {"bf16": False}])
def test_on_a_gpu_vllm_and_the_learner_agree_with_graphs_asleep_and_in_bfloat16(
    settings, small_models, media, tmp_path
):
    trainer = make(small_models(), media, tmp_path, use_cpu=False, temperature=1.0, **settings)
    trainer.train()
    bound = 0.05 if settings["bf16"] else 2e-3
    for entry in (each for each in trainer.state.log_history if "loss" in each):
        assert entry["sampling/sampling_logp_difference/mean"] < bound


def test_rollouts_by_vllm_are_recorded_like_those_by_transformers(small_models, media, tmp_path):
    trainer = make(small_models(), media, tmp_path, max_steps=1, log_rollouts_steps=1, log_rollouts_groups=None)
    trainer.train()
    found = list(read_rollouts(tmp_path))
    ordered = [line for line in found if line["kind"] == "ordered"]
    assert [(line["group"], line["place"]) for line in ordered] == [divmod(index, 4) for index in range(24)]
    assert [line["completion"] for line in ordered] == [each[0]["content"] for each in trainer._logs["completion"]]
    contrast = [line for line in found if line["kind"] == "contrast"]
    assert {line["group"] for line in contrast} == {0, 1, 4, 5} and all(line["frames"] for line in contrast)
