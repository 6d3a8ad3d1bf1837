"""
Times a T-GRPO step that shares prompts against one row by row, in one run; prints a table, writes JSON and a plot.

Workload: a random Qwen2.5-VL (6 layers, width 256; vision depth 4, width 128), 16 frames of 224 x 224 (about 600 prompt
tokens), 8 ordered and 4 contrast rollouts, 64 new tokens, float32, 2 threads. Medians of alternating repetitions after a
warm-up.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from tqdm import tqdm


sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny  # noqa: E402
from helpers import row, trainer  # noqa: E402
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration  # noqa: E402


PHASES = ("rollouts", "log-probabilities", "loss", "step")


def build_model(folder):
    """The workload's model and processor on disk."""
    text = tiny.tokenizer()
    _, processor = tiny.qwen_like("qwen2_5_vl", text)
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 64}
    processor.video_processor.size = type(processor.video_processor.size)(**size)
    ids = {token: text.convert_tokens_to_ids(token) for token in tiny.SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(text),
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]},
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "out_hidden_size": 256,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [3],
            "tokens_per_second": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return tiny.Tiny(str(folder), None, processor)


def make_trainer(model, video, folder, *, share, group=8, frames=16, new_tokens=64, contrast=True):
    rows = [row("which way does it move? " * 3, video=video)]
    tgrpo = trainer(
        model,
        rows,
        folder,
        per_device_train_batch_size=group,
        num_generations=group,
        max_completion_length=new_tokens,
        generation_kwargs={"min_new_tokens": new_tokens},
        video_num_frames=frames,
        video_max_pixels=224 * 224,
        share_prefix=share,
        beta=0.04,
        num_iterations=2,  # so that the old policy's log-probabilities are computed too
        max_steps=10_000,
        options={} if contrast else {"temporal_reward_func": None},
    )
    tgrpo.model.train()
    tgrpo.create_optimizer_and_scheduler(10_000)
    tgrpo.current_gradient_accumulation_steps = 1
    tgrpo.bench_row = rows[0]
    return tgrpo


def one_step(tgrpo, clock=time.perf_counter):
    """Seconds of the phases of one step, from the video file to the optimizer step, by any clock."""
    seconds = dict.fromkeys(PHASES, 0.0)

    def timed(name, phase):
        original = getattr(tgrpo, name)

        def call(*args, **kwargs):
            start = clock()
            result = original(*args, **kwargs)
            seconds[phase] += clock() - start
            return result

        return call

    names = ("_generate_single_turn", "_get_per_token_logps_and_entropies")
    for name, phase in zip(names, PHASES, strict=False):
        setattr(tgrpo, name, timed(name, phase))
    start = clock()
    scored = tgrpo._generate_and_score_completions([tgrpo.bench_row] * tgrpo.num_generations)
    for name in names:
        delattr(tgrpo, name)
    before_loss = clock()
    scored["advantages"] = torch.linspace(-1, 1, tgrpo.num_generations)
    tgrpo._compute_loss(tgrpo.model, scored).backward()
    seconds["loss"] = clock() - before_loss
    tgrpo.optimizer.step()
    tgrpo.optimizer.zero_grad()
    seconds["step"] = clock() - start
    return seconds


def compare(trainers, repetitions, bar, clock=time.perf_counter):
    """Median seconds of each phase for each trainer, by any clock, repetitions alternating, after a warm-up."""
    taken = {name: {phase: [] for phase in PHASES} for name in trainers}
    for repetition in range(repetitions + 1):
        for name, tgrpo in trainers.items():
            seconds = one_step(tgrpo, clock)
            bar.update()
            if repetition:
                for phase in PHASES:
                    taken[name][phase].append(seconds[phase])
    return {name: {phase: median(values) for phase, values in phases.items()} for name, phases in taken.items()}


def peak_memory(tgrpo):
    """Bytes by which the process grew beyond the idle trainer in one step: the kernel's own high-water mark."""
    one_step(tgrpo)  # the optimizer's state and the libraries' buffers belong to the idle trainer
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the mark starts anew
    before = status("VmRSS")
    one_step(tgrpo)
    return status("VmHWM") - before


def status(key):
    """A size of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) * 1024


def peak_memory_apart(model, video, share):
    """[`peak_memory`] in a process of its own, whose allocator hands every freed tensor back at once."""
    command = [sys.executable, "-W", "ignore", __file__, "--memory_of", model.path, video, str(int(share))]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    found = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    return int(found.stdout.split()[-1])


def print_memory_of(path, video, share):
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.Tiny(path, None, None)
        print(peak_memory(make_trainer(model, video, folder, share=share == "1")))


def matrix_rate(clock=time.perf_counter):
    """Floating-point operations a second of a float32 matrix product of the workload's width."""
    a, b = torch.randn(1024, 256), torch.randn(256, 768)
    for _ in range(20):
        a @ b
    start = clock()
    for _ in range(200):
        a @ b
    return 200 * 2 * 1024 * 256 * 768 / (clock() - start)


def causal(length):
    """Pairs of a token and one that it sees, itself among them."""
    return length * (length + 1) // 2


def floor_seconds(tgrpo, new_tokens, rate):
    """
    Seconds that the floating-point operations of every distinct token take, each computed once, at the machine's
    matrix-product rate: its products with the weights, and its attention to what it sees (two products a pair).
    """
    model, group = tgrpo.model.model, tgrpo.num_generations
    contrast = tgrpo.args.contrast_generations(group)
    encoded = tgrpo.batch_loader.load([tgrpo.bench_row], 0, 1, 1, 1)[0].encoded
    prompt, patches = len(encoded.input_ids), len(encoded.features["pixel_values_videos"])

    def weights(module, *without):
        return sum(p.numel() for name, p in module.named_parameters() if not any(each in name for each in without))

    text, vision = model.config.text_config, model.config.vision_config
    token = 2 * weights(model.language_model, "embed_tokens")
    pair = 4 * text.num_hidden_layers * text.hidden_size

    def completions(rows):
        return rows * (new_tokens * token + (new_tokens * prompt + causal(new_tokens)) * pair)

    per_frames = patches // encoded.features["video_grid_thw"][0, 0].item()  # patches of one temporal patch
    window = (vision.window_size // vision.patch_size) ** 2
    seen = sum(per_frames if layer in vision.fullatt_block_indexes else window for layer in range(vision.depth))
    tower = 2 * (patches * weights(model.visual, "merger") + patches // 4 * weights(model.visual.merger))
    tower += 4 * vision.hidden_size * patches * seen
    once = tower + prompt * token + causal(prompt) * pair
    forward = once + completions(group)
    rollouts = 2 * once + completions(group + contrast)
    return {
        "rollouts": rollouts / rate,
        "log-probabilities": 2 * forward / rate,
        "loss": 3 * forward / rate,
        "step": (rollouts + 5 * forward) / rate,
    }


def growth(model, folder, video, repetitions, bar):
    """Seconds of the step as frames and completions grow."""
    found = []
    for frames, new_tokens in ((8, 64), (16, 64), (32, 64), (64, 64), (16, 256)):
        pair = {
            share: make_trainer(model, video, folder, share=share, frames=frames, new_tokens=new_tokens)
            for share in (True, False)
        }
        seconds = compare(pair, repetitions, bar)
        found.append(
            {
                "frames": frames,
                "new_tokens": new_tokens,
                "shared": seconds[True]["step"],
                "row_by_row": seconds[False]["step"],
            }
        )
    return found


def plot(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    frames = [each for each in rows if each["new_tokens"] == 64]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for key, label in (("row_by_row", "row by row"), ("shared", "prompt shared")):
        axes.plot([each["frames"] for each in frames], [each[key] for each in frames], marker="o", label=label)
    axes.set_xlabel("frames of 224 x 224")
    axes.set_ylabel("seconds a step")
    axes.set_ylim(bottom=0)
    axes.set_title("One T-GRPO step, 8 + 4 rollouts of 64 tokens (CPU, 2 threads)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("out", nargs="?", default="runs/bench/step.json")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--memory_of", nargs=3, metavar=("MODEL", "VIDEO", "SHARE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    if arguments.memory_of:
        return print_memory_of(*arguments.memory_of)
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = build_model(folder / "model")
        noise = np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3)).astype(np.uint8)
        video = tiny.write_mp4(folder / "video.mp4", noise, fps=4)
        bar = tqdm(total=(3 * 2 + 1 + 5 * 2) * (arguments.repetitions + 1), desc="steps")
        make = partial(make_trainer, model, video, folder / "run")
        by_group = {
            group: compare(
                {"shared": make(share=True, group=group), "row by row": make(share=False, group=group)}
                | ({"no contrast": make(share=True, contrast=False)} if group == 8 else {}),
                arguments.repetitions,
                bar,
            )
            for group in (4, 8, 16)
        }
        memory = {
            name: peak_memory_apart(model, video, share) for name, share in (("shared", True), ("row by row", False))
        }
        rate = matrix_rate()
        floor = floor_seconds(make(share=True), 64, rate)
        grown = growth(model, folder / "run", video, arguments.repetitions, bar)
        bar.close()
    result = report(by_group, memory, rate, floor, grown)
    out.write_text(json.dumps(result, indent=1) + "\n")
    plot(grown, out.with_suffix(".png"))


def report(by_group, memory, rate, floor, grown):
    print(f"{'phase':<20}{'G':>4}{'row by row':>12}{'shared':>10}{'times less':>12}")
    for group, seconds in by_group.items():
        for phase in PHASES:
            slow, fast = seconds["row by row"][phase], seconds["shared"][phase]
            print(f"{phase:<20}{group:>4}{slow:>11.2f}s{fast:>9.2f}s{slow / fast:>12.2f}")
    eight = by_group[8]
    ratios = {
        "step at G = 16 against G = 8": by_group[16]["shared"]["step"] / eight["shared"]["step"],
        "step with contrast against without": eight["shared"]["step"] / eight["no contrast"]["step"],
        "peak memory, shared against row by row": memory["shared"] / memory["row by row"],
        **{f"{phase} against its floor": eight["shared"][phase] / floor[phase] for phase in PHASES},
    }
    for name, ratio in ratios.items():
        print(f"{name:<44}{ratio:>8.2f}")
    print(f"matrix products: {rate / 1e9:.1f} GFLOP/s; peak memory over idle: " + ", ".join(
        f"{name} {size / 2**20:.0f} MiB" for name, size in memory.items()
    ))  # fmt: skip
    print(f"{'frames':>8}{'new tokens':>12}{'row by row':>12}{'shared':>10}{'times less':>12}")
    for each in grown:
        print(
            f"{each['frames']:>8}{each['new_tokens']:>12}{each['row_by_row']:>11.2f}s{each['shared']:>9.2f}s"
            f"{each['row_by_row'] / each['shared']:>12.2f}"
        )
    import av
    import transformers
    import trl

    versions = {module.__name__: module.__version__ for module in (av, torch, transformers, trl)}
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": versions,
        "seconds": by_group,
        "ratios": ratios,
        "peak_memory_bytes": memory,
        "matrix_flops_per_second": rate,
        "floor_seconds": floor,
        "growth": grown,
    }


if __name__ == "__main__":
    main()
