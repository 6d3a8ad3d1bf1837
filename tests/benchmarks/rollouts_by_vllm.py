"""
Rollouts by colocated vLLM against the shared rollouts by transformers, on one machine: seconds, towers' calls, prefix hits.

    make vllm-tests  # makes the environment
    PYTHONPATH=tests/vllm_engine/startup:tests/vllm_engine:tests .venv-vllm/bin/python tests/benchmarks/rollouts_by_vllm.py
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import tiny
import torch
from datasets import Dataset
from helpers import config, parity, row

from videor1_trl import TGRPOTrainer
from videor1_trl.sharing import vllm_rollouts


def counted(owner, found):
    """Counts the media that a tower reads, by its grids."""
    original = type(owner).forward

    def forward(self, *arguments, **settings):
        grids = settings.get("grid_thw", arguments[1] if len(arguments) > 1 else None)
        if self is owner:
            found.append(len(grids))
        return original(self, *arguments, **settings)

    type(owner).forward = forward


def measure(model, rows, folder, use_vllm, steps, length):
    settings = {"use_vllm": use_vllm, "num_generations": 8, "per_device_train_batch_size": 8 * len(rows)}
    settings |= {
        "max_steps": steps,
        "max_completion_length": length,
        "max_prompt_length": 1024,
        "video_max_pixels": 28 * 28 * 8,
    }
    settings |= {"temperature": 1.0, "top_p": 1.0, "learning_rate": 1e-4}
    trainer = TGRPOTrainer(model.path, parity, config(folder, **settings), Dataset.from_list(rows))
    seconds, read = [], []
    generate = trainer._generate_single_turn

    def timed(*arguments, **keywords):
        began, before = time.perf_counter(), len(read)
        found = generate(*arguments, **keywords)
        seconds.append(time.perf_counter() - began)
        towers.append(sum(read[before:]))
        return found

    towers = []
    trainer._generate_single_turn = timed
    if use_vllm:
        counted(trainer.vllm_generation.llm.llm_engine.model_executor.driver_worker.model_runner.model.visual, read)
    else:
        counted(trainer.accelerator.unwrap_model(trainer.model).model.visual, read)
    trainer.train()
    found = {"seconds": statistics.median(seconds[2:]), "media_read": towers[-1]}
    if use_vllm:
        hits = [
            each["vllm/cached_prompt_tokens"]
            for each in trainer.state.log_history
            if "vllm/cached_prompt_tokens" in each
        ]
        found["prompt_tokens_cached"] = hits[-1]
        found["difference"] = max(each.get("vllm/ordered_logp_difference", 0) for each in trainer.state.log_history)
    return found


def main():
    import on_cpu  # noqa: F401 - before anything of vLLM's
    import small

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--block_size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    original = vllm_rollouts.engine_arguments
    vllm_rollouts.engine_arguments = lambda *given: {**original(*given), "block_size": args.block_size}
    with tempfile.TemporaryDirectory() as folder:
        model = small.build("qwen2_5_vl", Path(folder) / "model")
        videos = [tiny.write_mp4(Path(folder) / f"{i}.mp4", tiny.colour_frames(i, 64, 112, 112)) for i in range(4)]
        rows = [row("which way does it move? " * 4, video=video) for video in videos]
        for length in args.lengths:
            for use_vllm in (False, True):
                found = measure(model, rows, folder, use_vllm, args.steps, length)
                print(json.dumps({"max_completion_length": length, "vllm": use_vllm, **found}), flush=True)


if __name__ == "__main__":
    main()
