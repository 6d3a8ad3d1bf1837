"""One supervised step under `torch.distributed.run` on rows of very different numbers of labels; rank 0 writes the weights."""

import os
import sys

import torch
from datasets import Dataset
from helpers import row, sft_config

from videor1_trl import VideoSFTTrainer


TEXTS = ("left", "it goes to the left, then on to the left again, as far as one can see here", "right", "a b c d e")


def main(model, folder, out, per_device, accumulation, padding_free, *videos):
    rows = [
        {**row(f"question {place}?", video=videos[place]), "process": f"<think>{text}</think>"}
        for place, text in enumerate(TEXTS)
    ]
    args = sft_config(
        folder, per_device_train_batch_size=int(per_device), gradient_accumulation_steps=int(accumulation), optim="sgd",
        learning_rate=1.0, max_grad_norm=1e9, padding_free=padding_free == "True", seed=1,
    )  # fmt: skip
    trainer = VideoSFTTrainer(model, args, Dataset.from_list(rows))
    trainer.train()
    if trainer.accelerator.is_main_process:
        loss = trainer.state.log_history[0]["loss"]
        torch.save({"loss": loss, **trainer.accelerator.unwrap_model(trainer.model).state_dict()}, out)
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # torch's threads may abort a process that takes itself down at its end
