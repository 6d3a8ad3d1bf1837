"""Times load_video against transformers' PyAV loader on the same indices; run as a script, prints a table, writes JSON."""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from tqdm import tqdm
from transformers.video_utils import read_video_pyav

from videor1_trl.video import load_video


WIDTH, HEIGHT, RATE, NUM_FRAMES = 1280, 720, 30, 16
# seconds, frames from key frame to key frame, times faster than transformers it has to be
CASES = [(600, 60, 10.0), (60, 60, 1.5), (5, 60, 0.9), (60, 250, 0.9), (5, 250, 0.9)]


def write_gop(path, frames, key_distance):
    """Moving texture with some noise; x264 "veryfast", which has B-frames as most videos do."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    texture = np.stack([x % 256, y % 256, (x + y) % 256], -1) * 0.85
    texture = (texture + np.random.default_rng(0).integers(0, 38, texture.shape)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        parameters = f"keyint={key_distance}:min-keyint={key_distance}:scenecut=0:open-gop=0:sliced-threads=0:slices=1"
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "x264-params": parameters})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            image = np.roll(texture, (3 * number, 5 * number), (0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_video(path, seconds, key_distance):
    """Encodes up to ten seconds and repeats their packets, with later times, until the video is long enough."""
    total = seconds * RATE
    block = min(total, 300 if key_distance == 60 else key_distance)
    source = path.with_suffix(".part.mp4")
    write_gop(source, block, key_distance)
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        template = old.streams.video[0]
        stream, time_base = new.add_stream_from_template(template), template.time_base
        packets = [packet for packet in old.demux(template) if packet.size]
        step = round(1 / RATE / time_base)
        for number in range(0, total, block):  # whole blocks: the last may go beyond the end by a few seconds
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts = packet.pts + number * step, packet.dts + number * step
                copy.duration, copy.time_base, copy.is_keyframe = step, time_base, packet.is_keyframe
                copy.stream = stream
                new.mux(copy)
    source.unlink()
    return path


def timed(function, *args, **kwargs):
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*args, **kwargs)
    return time.perf_counter() - wall, time.process_time() - cpu, result


def measure(path, repetitions):
    """Medians over alternating repetitions; the warm-up also checks that both give the same frames."""
    ours, theirs, ours_cpu, theirs_cpu = [], [], [], []
    for repetition in tqdm(range(repetitions + 1), desc=path.name, leave=False):
        wall, cpu, (frames, metadata) = timed(load_video, path, num_frames=NUM_FRAMES)
        indices = np.array(metadata.frames_indices)
        their_wall, their_cpu, (reference, _) = timed(read_video_pyav, str(path), lambda indices=indices, **_: indices)
        if repetition == 0:
            assert torch.equal(frames, torch.from_numpy(reference).permute(0, 3, 1, 2)), f"{path}: frames differ"
            continue
        ours.append(wall), theirs.append(their_wall), ours_cpu.append(cpu), theirs_cpu.append(their_cpu)
    return {
        "load_video_seconds": median(ours),
        "transformers_seconds": median(theirs),
        "times_faster": median(theirs) / median(ours),
        "times_less_cpu": median(theirs_cpu) / median(ours_cpu),
        "all_seconds": {"load_video": ours, "transformers": theirs},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", default="runs/bench/video.json", type=Path, help="JSON to write")
    parser.add_argument("--repetitions", type=int, default=5, help="measured repetitions of each, after a warm-up")
    args = parser.parse_args()
    rows = []
    print(f"{NUM_FRAMES} frames of {WIDTH} x {HEIGHT}, {RATE} fps h264; medians of {args.repetitions}")
    print(
        f"{'video':>6} {'key frame every':>16} {'load_video':>11} {'transformers':>13} {'faster':>8} {'cpu':>7} {'goal':>6}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for seconds, key_distance, goal in CASES:
            path = write_video(Path(folder) / f"{seconds}s_{key_distance}.mp4", seconds, key_distance)
            row = {"seconds": seconds, "key_distance": key_distance, "goal": goal, **measure(path, args.repetitions)}
            rows.append(row)
            print(
                f"{seconds:>4} s {key_distance:>9} frames {row['load_video_seconds']:>9.3f} s "
                f"{row['transformers_seconds']:>11.3f} s {row['times_faster']:>7.2f}x {row['times_less_cpu']:>6.2f}x "
                f"{goal:>5.1f}x {'' if row['times_faster'] >= goal else 'MISSED'}"
            )
            path.unlink()
    setup = {"av": av.__version__, "torch": torch.__version__, "cpus": os.cpu_count(), "machine": platform.processor()}
    args.path.parent.mkdir(parents=True, exist_ok=True)
    args.path.write_text(json.dumps({"setup": setup, "cases": rows}, indent=2) + "\n")
    print(f"wrote {args.path}")


if __name__ == "__main__":
    main()
