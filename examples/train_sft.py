"""
Trains a video-language model on rationales and answers: the supervised cold start of Video-R1.

    # the rationales of `make demo`, on its toy model before it learned anything; two CPU cores, a minute
    accelerate launch examples/train_sft.py --config examples/configs/toy_sft.yaml

    # your own model and records with `process` (see generate_cot.py): every field of the YAML file is a flag too
    accelerate launch examples/train_sft.py --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct \\
        --dataset records.json --data_root /data --output_dir runs/cold_start --bf16 true

    # the paper's cold start (4 GPUs, ZeRO-2), and what it will do and need before it starts
    accelerate launch --config_file examples/configs/accelerate/zero2.yaml --num_processes 4 \\
        examples/train_sft.py --config examples/configs/video_r1_7b_sft.yaml
    accelerate launch examples/train_sft.py --config examples/configs/video_r1_7b_sft.yaml --dry_run

The last line says where the model was saved: `Saved to runs/cold_start.`
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
from videor1_trl.scripts.train_sft import SFTRun, main


def make_trainer(run: SFTRun) -> videor1_trl.VideoSFTTrainer:
    """The place for a subclass of yours, or for a `video_loader` beside what the flags ask for."""
    return videor1_trl.VideoSFTTrainer(**run.trainer_arguments())


if __name__ == "__main__":
    run_command(lambda: main(make_trainer))
