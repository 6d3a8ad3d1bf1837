"""
CPU seconds of an evaluation that shares what questions on one video begin with, against row by row; memory of an hour-long file;
and what sharing would save of the prompts of whole benchmarks on a model of 7B, by its rule and not measured.

Workload: a random Qwen2.5-VL (6 layers of 256) on 4 videos with 4 questions each, ordered and reversed, 16 and 64 frames of 168 x 168
pixels, 32 new tokens, batches of 8, float32, one thread. The long file: 3,600 s of 64 x 64 pixels at 2 frames a second, written here.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch


TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import tiny

from videor1_trl import load_video, reverse_frames
from videor1_trl.generation.requests import GenerationRequest, GenerationSettings
from videor1_trl.generation.transformers_backend import TransformersBackend


def write_long(path, seconds, rate=2):
    """A file of slowly changing colours."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate, options={"preset": "ultrafast", "g": "20"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for place in range(seconds * rate):
            frame = np.full((64, 64, 3), place % 256, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def requests(videos):
    for place, video in enumerate(videos):
        for number, text in enumerate(("which way?", "how many?", "which one is first?", "what comes last?")):
            for name, contrast in (("ordered", None), ("reversed", reverse_frames)):
                yield GenerationRequest(
                    f"{name} {place} {number}", [{"role": "user", "content": text}], [video], (), contrast
                )


def measure_sharing(folder, repetitions, frames):
    """Medians, in CPU seconds, of evaluations that are equal answer by answer."""
    model = tiny.build("qwen2_5_vl", folder / "model")
    config = model.model.config
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 256, 768, 6
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [8, 12, 12]}
    text.layer_types = ["full_attention"] * 6
    config.vision_config.out_hidden_size = 256
    torch.manual_seed(0)
    network = type(model.model)(config).eval()
    videos = [str(tiny.write_mp4(folder / f"{frames}-{n}.mp4", tiny.colour_frames(n, count=frames))) for n in range(4)]
    pixels = {"video_min_pixels": 28 * 28 * 36, "video_max_pixels": 28 * 28 * 36}
    settings = GenerationSettings(max_new_tokens=32, video_num_frames=frames, **pixels)
    found = {"row by row": [], "shared": []}
    answers = {}
    for _ in range(repetitions):
        for name, shares in (("row by row", False), ("shared", True)):
            backend = TransformersBackend(network, model.processor, settings, share_prefix=shares)
            start = time.process_time()
            answers[name] = {each.key: each for each in backend.generate(requests(videos))}
            found[name].append(time.process_time() - start)
    assert answers["row by row"] == answers["shared"]
    prompt = next(iter(answers["shared"].values())).num_prompt_tokens
    return {"prompt_tokens": prompt, **{name: sorted(each)[len(each) // 2] for name, each in found.items()}}


def resident(name):
    """MiB of this process: `VmRSS` now, `VmHWM` at most since it was last forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def measure_long(path, frames):
    """Of a process of its own: seconds, and MiB that reading the file adds at most to what the process holds before."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak, which is that of importing
    before = resident("VmRSS")
    start = time.process_time()
    loaded, metadata = load_video(path, fps=2.0, min_frames=4, max_frames=frames, num_frames=None)
    seconds = time.process_time() - start
    added = resident("VmHWM") - before
    return {"frames": len(loaded), "last_second": metadata.timestamps[-1], "seconds": seconds, "added_mib": added}


# Benchmark -> questions, videos
SIZES = {
    "vsibench": (5130, 288),
    "tempcompass": (5536, 410),
    "lvbench": (1549, 103),
    "video-holmes": (1837, 270),
    "videomme": (2700, 900),
    "longvideobench": (1337, 753),
}


def plan(questions, videos, controls=2, video=2048, text=150, batch=8, window=32):
    """
    Tokens of all prompts, row by row and with each distinct video once in a batch, as [`TransformersBackend`] does it: windows of
    requests in the order of their videos, in them those on the same frames together, in batches.

    Args:
        controls (`int`): orders of the frames beside the ordered one. video (`int`): tokens of its frames; 16 of 256 x 28 x 28
            pixels are 2,048. text (`int`): tokens of a question.
    """
    requests = [
        (place * videos // questions, order) for place in range(questions) for order in range(controls + 1)
    ]  # (video, order) of each
    shared = 0
    for start in range(0, len(requests), window):
        inside = sorted(requests[start : start + window])
        for first in range(0, len(inside), batch):
            shared += video * len(set(inside[first : first + batch]))
    return len(requests) * (video + text), shared + len(requests) * text


def plans():
    """Petaflop of the prompts of whole benchmarks on the layers of Qwen2.5-VL-7B (6.5 G weights)."""
    each_token = 2 * 28 * (2 * 3584**2 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    found = {}
    for name, size in SIZES.items():
        row_by_row, shared = plan(*size)
        in_large_batches = plan(*size, batch=32, window=128)[1]
        found[name] = {
            "row_by_row_pflop": row_by_row * each_token / 1e15,
            "shared_pflop": shared * each_token / 1e15,
            "times_less": row_by_row / shared,
            "times_less_in_batches_of_32": row_by_row / in_large_batches,
        }
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("out", nargs="?", default="runs/bench/evaluation.json", type=Path)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--long", nargs=2, metavar=("FILE", "FRAMES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.long:
        print(json.dumps(measure_long(arguments.long[0], int(arguments.long[1]))))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for frames in (16, 64):
            row = results[f"sharing, {frames} frames"] = measure_sharing(folder, arguments.repetitions, frames)
            seconds = f"row by row {row['row by row']:.2f} CPU s, shared {row['shared']:.2f}"
            print(f"{frames} frames, prompts of {row['prompt_tokens']} tokens: {seconds}", flush=True)
        results["plan, 7B"] = plans()
        for name, row in results["plan, 7B"].items():
            figures = f"{row['row_by_row_pflop']:.0f} PFLOP row by row, {row['shared_pflop']:.0f} shared"
            less = f"{row['times_less']:.1f} times less, {row['times_less_in_batches_of_32']:.1f} in batches of 32"
            print(f"{name}: {figures}, {less}")
        file = write_long(folder / "hour.mp4", 3600)
        for frames in (16, 64, 128):
            command = [sys.executable, __file__, "--long", str(file), str(frames)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[f"hour, {frames} frames"] = json.loads(said.strip().splitlines()[-1])
            print(frames, said.strip().splitlines()[-1], flush=True)
    setup = {"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"setup": setup, "results": results}, indent=1) + "\n")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
