"""
Whether a run stays flat: resident memory, threads and open files over 500 steps of T-GRPO on videos; a table and JSON.

Workload: a tiny random Qwen2.5-VL, 4 videos and an image in turn, 4 ordered and 2 contrast rollouts of 6 tokens, the next batch read
ahead, no cache to speak of, a checkpoint and an evaluation every 100 steps. The first fifth is a warm-up; the growth is that of a line
through the rest.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import torch
import transformers
import trl
from PIL import Image
from transformers import TrainerCallback


sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
from helpers import row, trainer


class Watching(TrainerCallback):
    """Notes what the process holds, every so many steps."""

    def __init__(self, every):
        self.every, self.seen = every, []

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            self.seen.append((state.global_step, mib, threading.active_count(), len(os.listdir("/proc/self/fd"))))


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("out", nargs="?", default="runs/bench/long.json", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = tiny.build("qwen2_5_vl", folder / "model")
        videos = [str(tiny.write_mp4(folder / f"{seed}.mp4", tiny.colour_frames(seed))) for seed in range(4)]
        image = folder / "image.png"
        Image.fromarray(tiny.colour_frames(9)[0]).save(image)
        rows = [row(f"{'a' * number}?", video=video) for number, video in enumerate(videos, 1)]
        rows.append(row("which?", image=str(image)))
        watching = Watching(max(1, arguments.steps // 50))
        run = trainer(
            model, rows, folder / "out", max_steps=arguments.steps, video_cache_gb=0.001, logging_steps=10, save_strategy="steps",
            save_steps=100, save_total_limit=1, eval_rows=rows[:2], eval_strategy="steps", eval_steps=100,
            options={"callbacks": [watching]},
        )  # fmt: skip
        run.train()
    settled = np.array(watching.seen[len(watching.seen) // 5 :])
    growth = {
        name: float(np.polyfit(settled[:, 0], settled[:, column], 1)[0]) * 1000
        for column, name in ((1, "MiB"), (2, "threads"), (3, "files"))
    }
    print(f"{'step':>6}{'MiB':>10}{'threads':>10}{'files':>8}")
    for step, mib, threads, files in watching.seen[:: max(1, len(watching.seen) // 10)]:
        print(f"{step:>6}{mib:>10.0f}{threads:>10}{files:>8}")
    print("growth in 1,000 steps: " + ", ".join(f"{value:+.1f} {name}" for name, value in growth.items()))
    setup = {each.__name__: each.__version__ for each in (torch, transformers, trl)} | {"machine": platform.machine()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    found = {"setup": setup, "growth_in_1000_steps": growth, "seen": watching.seen}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
