"""
Seconds that a step waits for its videos: in the calling thread, in threads, prepared ahead, and kept; a table and JSON.

Workload: batches of 4 prompts on 4 videos (60 s of 1280 x 720, 16 frames each, preprocessed in order and shuffled).
Between two batches the process sleeps as long as a batch takes in the calling thread: a step on a GPU, which leaves the
cores free.
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

import av
import torch


sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import tiny
from bench_video import write_video
from helpers import row

from videor1_trl.contrast import shuffle_frames
from videor1_trl.data.batch import BatchLoader
from videor1_trl.media.video import load_video


PROMPTS, GROUP, BATCHES = 4, 2, 3


def make_loader(processor, **settings):
    return BatchLoader(
        processor,
        load_video,
        shuffle_frames,
        video_settings={"num_frames": 16},
        encode_settings={"video_max_pixels": 128 * 28 * 28},
        **settings,
    )


def waits(loader, batches, pause, expected=True):
    """Seconds that each batch is waited for; the first, before which there was no step, left out."""
    seconds = []
    for batch in batches if expected else []:
        loader.expect(batch)
    for step, batch in enumerate(batches):
        start = time.perf_counter()
        loader.load(batch, 0, GROUP, 1, step, step + 1)
        seconds.append(time.perf_counter() - start)
        time.sleep(pause)
    return seconds[1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("out", nargs="?", default="runs/bench/input.json", type=Path)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    taken = {"calling thread": [], "threads": [], "ahead": [], "kept": []}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        processor = tiny.build("qwen2_5_vl", folder / "model").processor
        size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 256}
        processor.video_processor.size = type(processor.video_processor.size)(**size)
        first = write_video(folder / "0.mp4", 60, 60)
        videos = [first]
        for number in range(1, PROMPTS * BATCHES):
            videos.append(folder / f"{number}.mp4")
            videos[-1].write_bytes(first.read_bytes())
        rows = [row("which way?", video=str(video)) for video in videos]
        batches = [
            [each for each in rows[start : start + PROMPTS] for _ in range(GROUP)]
            for start in range(0, len(rows), PROMPTS)
        ]
        for repetition in range(arguments.repetitions + 1):
            plain = waits(make_loader(processor), batches, 0)
            threads = waits(make_loader(processor, num_workers=4), batches, 0, expected=False)
            keeping = make_loader(processor, num_workers=4, cache_bytes=2**31)
            ahead = waits(keeping, batches, median(plain))
            again = waits(keeping, batches, 0, expected=False)
            if repetition:
                for name, seconds in zip(taken, (plain, threads, ahead, again), strict=True):
                    taken[name] += seconds
    seconds = {name: median(values) for name, values in taken.items()}
    print(f"{'videos of a batch':<20}{'wait':>10}{'times less':>12}")
    for name, value in seconds.items():
        print(f"{name:<20}{value:>9.2f}s{seconds['calling thread'] / value:>12.1f}")
    setup = {"av": av.__version__, "torch": torch.__version__, "cpus": os.cpu_count(), "machine": platform.machine()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"setup": setup, "seconds": seconds, "all_seconds": taken}, indent=1) + "\n")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
