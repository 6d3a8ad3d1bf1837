"""
Times load_video against transformers' PyAV loader and torchcodec (where it is installed, and an FFmpeg that it loads) at the same
frames; run as a script, prints a table, writes JSON. Seconds are CPU seconds: other processes disturb them least.
"""

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

from videor1_trl.media.video import load_video


try:
    from torchcodec import __version__ as torchcodec_version
    from torchcodec.decoders import VideoDecoder

    VideoDecoder(b"")
except ImportError:  # not installed
    VideoDecoder, torchcodec_version = None, None
except RuntimeError as error:  # installed, with no FFmpeg that it loads; or loaded, and nothing in the bytes
    if "libtorchcodec" in str(error):
        VideoDecoder, torchcodec_version = None, None
except ValueError:
    pass

WIDTH, HEIGHT, RATE, NUM_FRAMES = 1280, 720, 30, 16
# seconds, frames from key frame to key frame, codec
CASES = [
    (600, 60, "h264"),
    (60, 60, "h264"),
    (5, 60, "h264"),
    (60, 250, "h264"),
    (5, 250, "h264"),
    (60, 60, "hevc"),
    (60, 250, "hevc"),
    (5, 250, "hevc"),
]


def write_gop(path, frames, key_distance, codec):
    """Moving texture with some noise; x264 "veryfast" or x265 "superfast", with B-frames as most videos have."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    texture = np.stack([x % 256, y % 256, (x + y) % 256], -1) * 0.85
    texture = (texture + np.random.default_rng(0).integers(0, 38, texture.shape)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        parameters = f"keyint={key_distance}:min-keyint={key_distance}:scenecut=0:open-gop=0:"
        if codec == "h264":
            options = {"preset": "veryfast", "x264-params": parameters + "sliced-threads=0:slices=1"}
        else:
            options = {"preset": "superfast", "x265-params": parameters + "log-level=none:bframes=3"}
        stream = container.add_stream({"h264": "libx264", "hevc": "libx265"}[codec], rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            image = np.roll(texture, (3 * number, 5 * number), (0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_video(path, seconds, key_distance, codec):
    """Encodes up to ten seconds and repeats their packets, with later times, until the video is long enough."""
    total = seconds * RATE
    block = min(total, 300 if key_distance == 60 else key_distance)
    source = path.with_suffix(".part.mp4")
    write_gop(source, block, key_distance, codec)
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


def by_transformers(path, indices):
    return torch.from_numpy(read_video_pyav(str(path), lambda **_: np.array(indices))[0]).permute(0, 3, 1, 2)


def by_torchcodec(path, indices):
    return VideoDecoder(str(path)).get_frames_at(indices=indices).data


def cpu_seconds(function, *args):
    start = time.process_time()
    result = function(*args)
    return time.process_time() - start, result


def measure(path, repetitions):
    """Median CPU seconds over alternating repetitions; the warm-up also checks that all give the same frames."""
    frames, metadata = load_video(path, num_frames=NUM_FRAMES)
    indices = list(metadata.frames_indices)
    loaders = {"load_video": lambda: load_video(path, num_frames=NUM_FRAMES)[0]}
    loaders["transformers"] = lambda: by_transformers(path, indices)
    if VideoDecoder is not None:
        loaders["torchcodec"] = lambda: by_torchcodec(path, indices)
    taken = {name: [] for name in loaders}
    differ = {}
    for repetition in tqdm(range(repetitions + 1), desc=path.name, leave=False):
        for name, load in loaders.items():
            seconds, found = cpu_seconds(load)
            if repetition:
                taken[name].append(seconds)
            else:
                differ[name] = int((found.int() - frames.int()).abs().max())
    assert differ["transformers"] == 0, f"{path}: frames differ"
    return {
        "cpu_seconds": {name: median(each) for name, each in taken.items()},
        "all_cpu_seconds": taken,
        "largest_difference": differ,  # torchcodec brings another FFmpeg, whose conversion to RGB may round otherwise
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", default="runs/bench/video.json", type=Path, help="JSON to write")
    parser.add_argument("--repetitions", type=int, default=5, help="measured repetitions of each, after a warm-up")
    parser.add_argument("--longest", type=int, default=600, help="seconds of the longest video to measure")
    args = parser.parse_args()
    rows = []
    print(f"{NUM_FRAMES} frames of {WIDTH} x {HEIGHT}, {RATE} fps; CPU seconds, medians of {args.repetitions}")
    names = ["load_video", "transformers"] + ["torchcodec"] * (VideoDecoder is not None)
    print(f"{'video':>11} {'key frame every':>16}" + "".join(f"{name:>14}" for name in names))
    with tempfile.TemporaryDirectory() as folder:
        for seconds, key_distance, codec in (case for case in CASES if case[0] <= args.longest):
            path = write_video(Path(folder) / f"{codec}_{seconds}s_{key_distance}.mp4", seconds, key_distance, codec)
            row = {"codec": codec, "seconds": seconds, "key_distance": key_distance}
            rows.append(row | measure(path, args.repetitions))
            found = rows[-1]["cpu_seconds"]
            print(
                f"{codec} {seconds:>4} s {key_distance:>9} frames"
                + "".join(f"{found[name]:>12.3f} s" for name in names)
            )
            path.unlink()
    setup = {
        "av": av.__version__,
        "torch": torch.__version__,
        "torchcodec": torchcodec_version,
        "cpus": os.cpu_count(),
        "machine": platform.processor(),
    }
    args.path.parent.mkdir(parents=True, exist_ok=True)
    args.path.write_text(json.dumps({"setup": setup, "cases": rows}, indent=2) + "\n")
    print(f"wrote {args.path}")


if __name__ == "__main__":
    main()
