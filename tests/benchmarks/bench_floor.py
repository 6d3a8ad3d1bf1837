"""
How many times its floor a T-GRPO step takes, phase by phase, for several sizes and numbers of threads; prints a table, writes JSON.

The workload is that of bench_step.py, prompts shared. The floor of a phase is the time of the floating-point operations of every
distinct token computed once, at the rate of a matrix product measured just before with as many threads. Both are CPU seconds (user
and system, all threads), which other processes on the machine disturb least. Nothing fails here: see docs/performance.md for
what is to be reached.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from tqdm import tqdm


sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny  # noqa: E402
from bench_step import PHASES, build_model, floor_seconds, make_trainer, matrix_rate, one_step  # noqa: E402


NEW_TOKENS = 64
# rollouts of a question, frames
CASES = [(group, frames) for frames in (16, 32, 64) for group in (4, 8, 16)]
# times the floor, at 8 rollouts and 16 frames, and the step at 16 rollouts over that at 8
REACH = {"step": 3.0, "loss": 2.2, "log-probabilities": 2.2, "rollouts": 4.5}
REACH_DOUBLED = 1.25


def measure(model, video, folder, group, frames, repetitions):
    """Median CPU seconds of each phase after a warm-up, the floor's, and the rate of a matrix product."""
    tgrpo = make_trainer(model, video, folder, share=True, group=group, frames=frames, new_tokens=NEW_TOKENS)
    one_step(tgrpo)
    taken = [one_step(tgrpo, time.process_time) for _ in range(repetitions)]
    rate = median(matrix_rate(time.process_time) for _ in range(3))
    seconds = {phase: median(each[phase] for each in taken) for phase in PHASES}
    return seconds, floor_seconds(tgrpo, NEW_TOKENS, rate), rate


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("out", nargs="?", default="runs/bench/floor.json", type=Path)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    rows = []
    print(f"{'threads':>7}{'G':>4}{'frames':>8}{'GFLOP/s':>9}" + "".join(f"{phase:>26}" for phase in PHASES))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = build_model(folder / "model")
        noise = np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3)).astype(np.uint8)
        video = tiny.write_mp4(folder / "video.mp4", noise, fps=4)
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            for group, frames in tqdm(CASES, desc=f"{threads} threads"):
                found = measure(model, video, folder / "run", group, frames, arguments.repetitions)
                seconds, floor, rate = found
                times = {phase: seconds[phase] / floor[phase] for phase in PHASES}
                rows.append(
                    {"threads": threads, "group": group, "frames": frames, "matrix_flops_per_cpu_second": rate}
                    | {"cpu_seconds": seconds, "floor_cpu_seconds": floor, "times_its_floor": times}
                )
                cells = "".join(f"{seconds[p]:>15.2f} s {times[p]:>6.2f} x " for p in PHASES)
                print(f"{threads:>7}{group:>4}{frames:>8}{rate / 1e9:>9.1f}{cells}", flush=True)
    print("to reach at G = 8 and 16 frames: " + ", ".join(f"{phase} {times:g}" for phase, times in REACH.items()))
    for threads in arguments.threads:
        steps = {
            row["group"]: row["cpu_seconds"]["step"]
            for row in rows
            if row["threads"] == threads and row["frames"] == 16
        }
        print(
            f"{threads} threads: a step at G = 16 takes {steps[16] / steps[8]:.2f} of one at G = 8 (to reach: {REACH_DOUBLED})"
        )
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps({"machine": machine, "torch": torch.__version__, "cases": rows}, indent=1) + "\n"
    )
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
