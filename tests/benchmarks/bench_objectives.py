"""
Times a step of each objective, and its peak memory, against GRPO without contrast; prints a table, writes JSON.

Workload: that of bench_step.py, prompts shared: 8 rollouts of 64 tokens on 16 frames, 4 contrast rollouts where the objective makes
them. CPU seconds on one thread, which other processes disturb less than the clock on the wall: medians of alternating repetitions after
a warm-up. Peak memory in a process of its own. The machine's load stands with them. With --num_iterations 1 TRL reads no old
log-probabilities, so that log_prob_drop makes two passes of its own in place of one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch


sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import tiny  # noqa: I001
from bench_step import PHASES, build_model, compare, peak_memory
from helpers import row, trainer
from tqdm import tqdm

from videor1_trl import format_reward, reverse_frames


NONE = {"objective_router": "none"}
OBJECTIVES = {
    "GRPO": None,
    "tgrpo": {},
    "gap": {"objective": "gap", "temporal_bonus": "advantage"},
    "relation": {"objective": "relation", **NONE},
    "mirrored_interval": {"objective": "mirrored_interval", "temporal_bonus": "advantage", **NONE},
    "log_prob_drop": {"objective": "log_prob_drop"},
    "crpo": {"objective": "crpo", **NONE},
}


def parity(completions, **kwargs):
    return [float(len(completion[0]["content"]) % 2) for completion in completions]


def make_trainer(model, video, folder, name, num_iterations):
    """The trainer of one objective, set up as bench_step.py has it."""
    settings, rows = OBJECTIVES[name], [row("which way does it move? " * 3, video=video, duration=8.0)]
    options = {"temporal_reward_func": None} if settings is None else {}
    if name == "mirrored_interval":
        options["contrast"] = reverse_frames
        rows[0].update(solution="<answer>1 - 3</answer>", problem_type="temporal grounding")
    tgrpo = trainer(
        model, rows, folder, [parity, format_reward], options=options,
        per_device_train_batch_size=8, num_generations=8, max_completion_length=64, generation_kwargs={"min_new_tokens": 64},
        video_num_frames=16, video_max_pixels=224 * 224, beta=0.04, num_iterations=num_iterations, max_steps=10_000, **(settings or {}),
    )  # fmt: skip
    tgrpo.model.train()
    tgrpo.create_optimizer_and_scheduler(10_000)
    tgrpo.current_gradient_accumulation_steps = 1
    tgrpo.bench_row = rows[0]
    return tgrpo


def memory_apart(model, video, name, num_iterations):
    """[`bench_step.peak_memory`] of an objective in a process of its own, whose allocator hands every freed tensor back at once."""
    command = [sys.executable, "-W", "ignore", __file__, "--memory_of", model.path, video, name]
    command += ["--num_iterations", str(num_iterations)]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    found = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    return int(found.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("out", nargs="?", default="runs/bench/objectives.json")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--num_iterations", type=int, default=2, help="as in TGRPOConfig; the table of the manual has 2"
    )
    parser.add_argument("--memory_of", nargs=3, metavar=("MODEL", "VIDEO", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        path, video, name = arguments.memory_of
        with tempfile.TemporaryDirectory() as folder:
            trainer_of = make_trainer(tiny.Tiny(path, None, None), video, folder, name, arguments.num_iterations)
            print(peak_memory(trainer_of))
        return
    load, out = [os.getloadavg()[0]], Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = build_model(folder / "model")
        noise = np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3)).astype(np.uint8)
        video = tiny.write_mp4(folder / "video.mp4", noise, fps=4)
        iterations = arguments.num_iterations
        trainers = {name: make_trainer(model, video, folder / "run", name, iterations) for name in OBJECTIVES}
        with tqdm(total=len(OBJECTIVES) * (arguments.repetitions + 1), desc="steps") as bar:
            seconds = compare(trainers, arguments.repetitions, bar, time.process_time)
        out.write_text(json.dumps({"seconds": seconds, "load": load}, indent=1) + "\n")
        memory = {name: memory_apart(model, video, name, iterations) for name in tqdm(OBJECTIVES, desc="memory")}
    load.append(os.getloadavg()[0])
    out.write_text(json.dumps({"seconds": seconds, "memory": memory, "load": load}, indent=1) + "\n")
    print(f"| objective | {' | '.join(PHASES)} | step against GRPO | peak memory | against GRPO |")
    print("|---" * (len(PHASES) + 4) + "|")
    for name, phases in seconds.items():
        times = " | ".join(f"{phases[phase]:.2f} s" for phase in PHASES)
        ratios = phases["step"] / seconds["GRPO"]["step"], memory[name] / memory["GRPO"]
        print(f"| `{name}` | {times} | {ratios[0]:.2f} | {memory[name] / 2**20:.0f} MiB | {ratios[1]:.2f} |")
    print(
        f"load average {load[0]:.1f} before, {load[1]:.1f} after; {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
