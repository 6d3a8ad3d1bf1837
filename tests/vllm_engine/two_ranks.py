"""
Started by torchrun: three steps with an engine on each rank, with one that is cut over both (`MODEL FOLDER 1` or `2`), or with a
server (`MODEL FOLDER ADDRESS FOLDER-OF-WEIGHTS`); writes what sampler and learner say.
"""

import json
import os
import sys
from pathlib import Path

import on_cpu  # noqa: F401 - before anything of vLLM's
import serving
import torch
from datasets import Dataset
from helpers import config, parity, row

from videor1_trl import TGRPOTrainer


def main():
    model, folder, sampler = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    videos = [str(folder / f"{index}.mp4") for index in range(2)]
    rows = [row(video=videos[0]), row("text?"), row(video=videos[1]), row(image=str(folder / "image.png"))]
    settings = {"use_vllm": True, "per_device_train_batch_size": 6}
    if sampler.isdigit():
        settings["vllm_tensor_parallel_size"] = int(sampler)
    else:
        settings |= {"vllm_mode": "server", "vllm_server_base_url": sampler, "shuffle_dataset": False}
        rows[2] = row("what?")  # so that only the first rank has contrast rollouts
        serving.through_files(Path(sys.argv[4]), setattr)
    settings |= {"num_generations": 4, "max_steps": 3, "max_prompt_length": 200, "temperature": 0.9}
    data = Dataset.from_list(rows)
    trainer = TGRPOTrainer(model, parity, config(folder / "out", **settings), data)
    sampled = []
    generate = trainer._generate_single_turn
    counts = []

    def watched(*arguments):
        counts.append(len(trainer._batch.to_generate))
        sampled.append(generate(*arguments))
        return sampled[-1]

    trainer._generate_single_turn = watched
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    found = {"logged": logged, "first": sampled[0][0], "rows": counts}
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
