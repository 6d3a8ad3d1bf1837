"""
Reads mutants of video and image files of all kinds, each within bounds, and counts what becomes of them.

Every mutant gives frames or a `MediaError`; nothing else may escape, kill the process or outlast the deadline. Mutants follow from
the seed and their number, so that `python tests/benchmarks/fuzz_media.py --seed 0 --only 17` makes and reads the same file again. Run as a script:

    python tests/benchmarks/fuzz_media.py --count 10000            # prints a table; failures, minimised, in runs/fuzz
"""

import argparse
import collections
import contextlib
import json
import os
import random
import re
import resource
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import PIL.Image


sys.path.insert(0, str(Path(__file__).parents[1]))

import files

from videor1_trl.media.errors import MediaError
from videor1_trl.media.images import load_image
from videor1_trl.media.limits import Limits
from videor1_trl.media.video import load_video


SECONDS = 5.0  # that a file may take by its limits, and another five until its process is ended
MEMORY_BYTES = 3 * 2**30  # beyond what the process began with
LIMITS = Limits(seconds=SECONDS, frames_bytes=2**30)
CLIP = {"num_frames": 4}
VIDEOS = files.KINDS | {
    "small.flv": dict(codec="flv1", frames=20),
    "small.wmv": dict(codec="wmv2", frames=20),
    "small.mpg": dict(codec="mpeg2video", frames=20),
    "small.nut": dict(codec="mpeg4", frames=20),
    "small.ogv": dict(codec="libvpx", frames=20),
    "small.rm": dict(codec="rv10", frames=20),
    "small.y4m": dict(codec="wrapped_avframe", frames=4),
    "small.hevc": dict(codec="libx265", options=files.x265("keyint=12"), frames=20),
    "small.m4v": dict(codec="mpeg4", frames=20),
    "small.mjpeg": dict(codec="mjpeg", pix_fmt="yuvj420p", frames=20),
    "small.h263": dict(codec="h263", frames=20, size=(128, 96)),
    "small.ivf": dict(codec="libvpx", frames=20),
    "small.mxf": dict(codec="mpeg2video", frames=20),
    "small.apng": dict(codec="apng", frames=8, pix_fmt="rgb24"),
    "small.3gp": dict(codec="mpeg4", frames=20),
    "small.h264": dict(options=files.x264(**files.GOP), frames=20),
}
IMAGES = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP")


def seeds(folder):
    """Name -> the bytes of a file that can be read; kinds that this FFmpeg or Pillow does not write are left out."""
    made = {}
    for name, options in VIDEOS.items():
        with contextlib.suppress(av.FFmpegError, ValueError):
            files.write(folder / name, **options | {"frames": min(options.get("frames", 60), 24)})
            made[name] = (folder / name).read_bytes()
    picture = PIL.Image.fromarray(files.picture(3, 48, 40))
    for form in IMAGES:
        with contextlib.suppress(OSError, KeyError):
            picture.save(folder / f"image.{form}", form)
            made[f"image.{form}"] = (folder / f"image.{form}").read_bytes()
    return made


# ------------------------------------------------------------------------------------------------------------ mutants


NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 10**6, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def mutant(made, seed, number):
    """`(name, bytes)` of one mutant, which follows from the seed and its number alone."""
    rng = random.Random(f"{seed}:{number}")
    name = sorted(made)[number % len(made)]
    data = bytearray(made[name])
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        data = rng.choice(CHANGES)(data, rng, made)
    return name, bytes(data)


def _place(data, rng):
    """Mostly in the head, where the lengths and sizes stand."""
    return rng.randrange(max(1, min(len(data), rng.choice([64, 512, 2048, len(data)]))))


def _flip(data, rng, made):
    for _ in range(rng.choice([1, 3, 20])):
        if data:
            data[_place(data, rng)] = rng.randrange(256)
    return data


def _number(data, rng, made):
    place, width = _place(data, rng), rng.choice([1, 2, 4, 8])
    value = rng.choice(NUMBERS) & ((1 << 8 * width) - 1)
    data[place : place + width] = value.to_bytes(width, rng.choice(["big", "little"]))
    return data


def _cut(data, rng, made):
    return data[: rng.randrange(len(data) + 1)]


def _remove(data, rng, made):
    place = _place(data, rng)
    del data[place : place + rng.choice([1, 4, 64, 1024])]
    return data


def _repeat(data, rng, made):
    place, length = _place(data, rng), rng.choice([4, 16, 256, 4096])
    data[place:place] = data[place : place + length] * rng.choice([1, 2, 50])
    return data


def _zeros(data, rng, made):
    place, length = _place(data, rng), rng.choice([4, 64, 4096])
    data[place : place + length] = bytes(len(data[place : place + length]))
    return data


def _splice(data, rng, made):
    other = made[rng.choice(sorted(made))]
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def _field(data, rng, made):
    """A number behind one of the names of four letters that mp4, AVI, PNG and others give their parts."""
    names = [found.end() for found in re.finditer(rb"[A-Za-z][A-Za-z0-9]{2}[A-Za-z0-9 ]", data)]
    if names:
        place, width = rng.choice(names) + 4 * rng.randrange(-2, 8), rng.choice([2, 4])
        value = rng.choice(NUMBERS) & ((1 << 8 * width) - 1)
        data[max(0, place) : max(0, place) + width] = value.to_bytes(width, rng.choice(["big", "little"]))
    return data


def _head(data, rng, made):
    """Another kind's beginning before it, or in the place of its own."""
    other = rng.choice(HEADS) if rng.random() < 0.5 else made[rng.choice(sorted(made))][: rng.choice([4, 16, 64])]
    return bytearray(other) + data[rng.choice([0, len(other)]) :]


HEADS = [
    b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/dev/zero\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile /dev/zero\n",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\n",
    b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff",
    b"P6 60000 60000 255\n",
    b"FLV\x01\x05\0\0\0\x09\0\0\0\0",
    b"RIFF\xff\xff\xff\xffAVI LIST",
    b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff",
    b"YUV4MPEG2 W30000 H30000 F25:1\nFRAME\n",
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
]
CHANGES = [
    _field,
    _field,
    _field,
    _head,
    _flip,
    _flip,
    _number,
    _number,
    _number,
    _cut,
    _remove,
    _repeat,
    _zeros,
    _splice,
]


# ------------------------------------------------------------------------------------------------------------ reading


def read(name, data):
    """What becomes of a file: "read", "refused", or the error that escaped."""
    try:
        if name.startswith("image."):
            image = load_image({"bytes": data})
            assert image.mode == "RGB"
        else:
            frames, _ = load_video({"bytes": data}, limits=LIMITS, **CLIP)
            assert frames.dtype.itemsize == 1 and frames.shape[1] == 3
    except MediaError as error:
        str(error).encode()
        return "refused"
    except BaseException as error:
        return f"escaped {type(error).__name__}: {error}"
    return "read"


def work(folder, seed, first, last):
    """Reads the mutants of a range, a line before and a line after each."""
    made = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    began = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (began + MEMORY_BYTES, began + MEMORY_BYTES))
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, last):
        name, data = mutant(made, seed, number)
        print(json.dumps({"begins": number}), flush=True)
        since = time.monotonic()
        outcome = read(name, data)
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle
        line = {"number": number, "name": name, "outcome": outcome, "seconds": time.monotonic() - since}
        print(json.dumps(line | {"memory_mib": taken / 1024}), flush=True)


def watched(folder, seed, first, last):
    """Yields a line per mutant of a range, each read in a process that is begun anew behind one that died or hung."""
    while first < last:
        command = [sys.executable, __file__, "--work", str(folder), str(seed), str(first), str(last)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            lines, number, buffer = process.stdout.fileno(), None, b""
            while True:
                ready, _, _ = select.select([lines], [], [], 120 if number is None else 2 * SECONDS)
                chunk = os.read(lines, 1 << 16) if ready else b""
                if not chunk:
                    break
                *whole, buffer = (buffer + chunk).split(b"\n")
                for line in map(json.loads, whole):
                    number = line.get("begins", number)
                    if "outcome" in line:
                        yield line
                        first, number = line["number"] + 1, line["number"]
            if first < last:
                process.kill()
                code = process.wait()
                if ready and number is None:
                    raise RuntimeError(f"the process that reads the mutants ends with {code} at its start")
                outcome = f"dead ({code})" if ready else "late"
                yield {"number": first, "name": "?", "outcome": outcome, "seconds": 2 * SECONDS, "memory_mib": 0}
                first += 1


def campaign(folder, seed, count, processes=1):
    """The lines of all mutants; the seeds are written into `folder`."""
    from concurrent.futures import ThreadPoolExecutor

    seeds(folder)
    bounds = np.linspace(0, count, processes + 1).astype(int).tolist()
    with ThreadPoolExecutor(processes) as pool:
        parts = pool.map(lambda part: list(watched(folder, seed, *part)), zip(bounds, bounds[1:], strict=False))
        return [line for part in parts for line in part]


def minimised(name, data, original):
    """The smallest change that still fails the same way: bytes put back, the end cut off, while it fails."""
    outcome = read(name, data)
    kind = outcome.split(":")[0]
    for step in (1024, 64, 8, 1):
        for place in range(0, min(len(data), len(original)), step):
            tried = data[:place] + original[place : place + step] + data[place + step :]
            if tried != data and len(tried) == len(data) and read(name, tried).startswith(kind):
                data = tried
        while len(data) > step and read(name, data[:-step]).startswith(kind):
            data = data[:-step]
    return data


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000, help="mutants")
    parser.add_argument("--only", type=int, help="make and read this mutant alone")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default="runs/fuzz", help="folder for what fails")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        folder, seed, first, last = args.work
        work(folder, int(seed), int(first), int(last))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        if args.only is not None:
            name, data = mutant(seeds(Path(folder)), args.seed, args.only)
            args.output.mkdir(parents=True, exist_ok=True)
            (args.output / f"{args.seed}_{args.only}_{name}").write_bytes(data)
            since = time.monotonic()
            print(name, read(name, data), f"{time.monotonic() - since:.2f} s")
            return 0
        lines = campaign(Path(folder), args.seed, args.count, args.processes)
        made = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return report(lines, made, args)


def report(lines, made, args):
    """Prints the counts, keeps what failed; 1 where anything did."""
    kinds = collections.Counter(line["outcome"].split()[0] for line in lines)
    counts = {kind: kinds[kind] for kind in ("read", "refused", "escaped", "dead", "late")}
    slowest = max(lines, key=lambda line: line["seconds"])
    print(f"seed {args.seed}: {len(lines)} mutants of {len(made)} files, {counts}")
    print(f"slowest {slowest['seconds']:.2f} s (number {slowest['number']}, {slowest['name']})")
    print(f"most memory {max(line['memory_mib'] for line in lines):.0f} MiB beyond an idle process")
    failed = [line for line in lines if line["outcome"] not in ("read", "refused")]
    args.output.mkdir(parents=True, exist_ok=True)
    for line in failed:
        name, data = mutant(made, args.seed, line["number"])
        print(f"  number {line['number']}, {name}: {line['outcome'][:200]}")
        if line["outcome"].startswith("escaped"):
            data = minimised(name, data, made[name])
        (args.output / f"{args.seed}_{line['number']}_{name}").write_bytes(data)
    with (args.output / f"{args.seed}.jsonl").open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
