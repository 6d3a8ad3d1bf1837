"""
Times a T-GRPO step of models with linear attention (Qwen3.5) and sliding windows (Gemma 4), prompts shared against row by row;
prints a table and writes JSON.

Workload: random models of 6 layers of width 256 (a full one after every two others), small vision towers, 16 frames (about 170
prompt tokens) for Qwen3.5 and 8 (about 600) for Gemma 4, 8 ordered and 4 contrast rollouts, 64 new tokens, float32, 2 threads. Medians of
alternating repetitions after a warm-up.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from tqdm import tqdm


sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_step import PHASES, compare, make_trainer  # noqa: E402
from hybrids import HYBRIDS, build_hybrid  # noqa: E402
from tiny import colour_frames, write_mp4  # noqa: E402


FRAMES = {"qwen3_5": 16, "gemma4": 8}


def text_config(family):
    other = {"qwen3_5": "linear_attention", "gemma4": "sliding_attention"}[family]
    config = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6}
    config["layer_types"] = [other, other, "full_attention"] * 2
    if family == "qwen3_5":
        return config | {"linear_key_head_dim": 32, "linear_value_head_dim": 32}
    return config | {"sliding_window": 512}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("runs/bench/hybrid.json"))
    args = parser.parse_args()
    torch.set_num_threads(2)
    found = {}
    print("| model | phase | row by row | shared | times less |\n|---|---|---|---|---|")
    for family in HYBRIDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            model = build_hybrid(family, folder / "model", **text_config(family))
            video = write_mp4(folder / "video.mp4", colour_frames(0, 16, 224, 224))
            trainers = {
                share: make_trainer(model, video, folder / str(share), share=share, frames=FRAMES[family])
                for share in (False, True)
            }
            with tqdm(total=2 * (args.repetitions + 1), desc=family, leave=False) as bar:
                seconds = compare(trainers, args.repetitions, bar)
        found[family] = {"row by row": seconds[False], "shared": seconds[True]}
        for phase in PHASES:
            apart, shared = seconds[False][phase], seconds[True][phase]
            print(f"| {family} | {phase} | {apart:.2f} s | {shared:.2f} s | {apart / shared:.1f} |")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
