"""
Seconds of a step and peak memory of a rank: one process, and two ranks of DDP, ZeRO-2, ZeRO-3 and FSDP2 on a CPU with gloo; a table and JSON.

Workload: the scenario `bench` of tests/engines/run.py: T-GRPO of a tiny random Qwen2.5-VL on four prompts (a video, an image, two texts), 4
ordered and 2 contrast rollouts each, 12 steps, of which the first two are not counted. What sharding saves shows on models that
fill a device; here it shows what an engine costs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
import transformers
import trl
from PIL import Image


TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import tiny


CASES = [("none", 1), ("ddp", 2), ("zero2", 2), ("zero3", 2), ("fsdp2", 2)]


def launch(engine, ranks, model, media, out):
    command = [str(TESTS / "engines" / "run.py"), engine, model, media, str(out), "bench"]
    if ranks > 1:
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    subprocess.run([sys.executable, *command], check=True, capture_output=True, env=environment, timeout=600)
    found = [json.loads((out / f"bench.{rank}.times.json").read_text()) for rank in range(ranks)]
    return median(found[0]["seconds"][2:]), max(each["peak_mib"] for each in found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("out", nargs="?", default="runs/bench/engines.json", type=Path)
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = tiny.build("qwen2_5_vl", folder / "model").path
        videos = [str(tiny.write_mp4(folder / f"{seed}.mp4", tiny.colour_frames(seed))) for seed in range(4)]
        Image.fromarray(tiny.colour_frames(9)[0]).save(folder / "image.png")
        (folder / "media.json").write_text(json.dumps({"videos": videos, "image": str(folder / "image.png")}))
        print(f"{'engine':<10}{'ranks':>6}{'s a step':>10}{'MiB a rank':>12}")
        for engine, ranks in CASES:
            out = folder / engine
            out.mkdir()
            seconds, mib = launch(engine, ranks, str(model), str(folder / "media.json"), out)
            results[engine] = {"ranks": ranks, "seconds_a_step": seconds, "peak_mib_of_a_rank": mib}
            print(f"{engine:<10}{ranks:>6}{seconds:>10.3f}{mib:>12.0f}", flush=True)
    setup = {each.__name__: each.__version__ for each in (torch, transformers, trl)}
    setup |= {"cpus": os.cpu_count(), "machine": platform.machine()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"setup": setup, "results": results}, indent=1) + "\n")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
