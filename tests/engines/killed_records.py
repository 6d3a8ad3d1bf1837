"""Trains six steps with rollout records; kills itself with -9 while the rollouts of a step are judged. `--resume` goes on."""

import os
import signal
import sys

from datasets import Dataset
from helpers import config, parity, row

from videor1_trl import TGRPOTrainer


def main(model, folder, kill_at, *videos):
    def accuracy(completions, trainer_state, **kwargs):
        if trainer_state.global_step == int(kill_at):
            with open(f"{folder}/rollouts.jsonl", "a") as file:  # as if it died in the middle of a line
                file.write('{"step": 4, "mode": "tr')
            os.kill(os.getpid(), signal.SIGKILL)
        return parity(completions)

    rows = [row(f"question {index}?", video=videos[index % len(videos)], problem_id=index) for index in range(8)]
    args = config(
        folder, max_steps=6, log_rollouts_steps=1, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=3,
        per_device_eval_batch_size=4,
    )  # fmt: skip
    trainer = TGRPOTrainer(model, accuracy, args, Dataset.from_list(rows), Dataset.from_list(rows[:1]))
    trainer.train(resume_from_checkpoint=int(kill_at) < 0 and os.path.exists(f"{folder}/checkpoint-2"))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # torch's threads may abort a process that takes itself down at its end
