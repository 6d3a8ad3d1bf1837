"""
Trains a video-language model with T-GRPO (or plain GRPO) on Video-R1's record format.

    # the embedded default: data, model and cold start made on the spot; two CPU cores, at most 8 minutes
    accelerate launch examples/train_tgrpo.py --config examples/configs/toy.yaml

    # your own model and records: every field of the YAML file is a flag too, and flags win
    accelerate launch examples/train_tgrpo.py --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct \
        --dataset records.json --data_root /data --output_dir runs/mine --bf16 true

    # what a run will do and need, and what would stop it, before it starts
    accelerate launch examples/train_tgrpo.py --config examples/configs/video_r1_7b.yaml --dry_run

    # the paper's run (4 GPUs, ZeRO-3)
    accelerate launch examples/train_tgrpo.py --config examples/configs/video_r1_7b.yaml

The last line says where the model was saved: `Saved to runs/toy.`
"""

# /// script
# dependencies = ["videor1_trl[examples]"]
#
# [tool.uv.sources]
# videor1_trl = { path = ".." }
# ///

from __future__ import annotations

import videor1_trl
from videor1_trl.scripts.messages import run_command
from videor1_trl.scripts.train_tgrpo import TGRPORun, main


def make_trainer(run: TGRPORun) -> videor1_trl.TGRPOTrainer:
    """
    The place for what is yours: a subclass of the trainer, or other arguments than the flags ask for, such as

        reward_funcs=[videor1_trl.accuracy_reward, my_reward]  # (completions, **columns) -> a number for each, or None
        temporal_reward_func=my_objective  # (accuracies, contrast_accuracies, **group) -> a bonus for each ordered rollout
        contrast=my_contrast               # (frames, generator) -> frames that the contrast rollouts see
        video_loader=my_loader             # as videor1_trl.load_video: a source -> its frames and their times

    `TGRPOTrainer(**{**run.trainer_arguments(), "contrast": my_contrast})` is a trainer with one of them replaced.
    """
    return videor1_trl.TGRPOTrainer(**run.trainer_arguments())


if __name__ == "__main__":
    run_command(lambda: main(make_trainer))
