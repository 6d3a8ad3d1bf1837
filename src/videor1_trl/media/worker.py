"""The process behind `isolation.py`: reads jobs from its input and answers with frames, until the input ends."""

import contextlib
import dataclasses
import json
import math
import os
import pickle
import resource
import signal
import sys
import threading
import time
from typing import Any, BinaryIO

import numpy as np
import torch

from .errors import MediaError
from .images import load_image
from .limits import Limits
from .video import load_video


def main() -> None:
    """One job after the other; what libraries print goes to the standard error, the answers have the output for themselves."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks is interrupted, and closes the input
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    began = _memory()
    while True:
        try:
            kind, source, options, limits, grace = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if began is not None:
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            most = began + limits.process_bytes
            resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))  # below 0: unbounded
        signal.alarm(math.ceil(limits.seconds + grace))  # nothing catches it: it ends a decoder that hangs, too
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more, and the input ends
            _answer(answers, kind, source, options, limits)
        signal.alarm(0)


def _end_with(parent: int) -> None:
    """Ends this process with the one that asks, which may die while a video is read for it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def _answer(answers: BinaryIO, kind: str, source: object, options: dict, limits: Limits) -> None:
    """A line of JSON, and the bytes of the frames, or of the image, behind it."""
    try:
        stored, metadata = _read(kind, source, options, limits)
    except MediaError as error:
        answers.write(json.dumps({"path": error.path, "reason": error.reason}).encode() + b"\n")
    else:
        head = {"shape": stored.shape, "metadata": metadata}
        answers.write(json.dumps(head).encode() + b"\n")
        answers.write(stored.data.cast("B"))
    answers.flush()


def _read(kind: str, source: object, options: dict, limits: Limits) -> tuple[np.ndarray, dict[str, Any]]:
    """The pictures, uint8 (T, H, W, 3), and the metadata of a video."""
    if kind == "image":
        return np.asarray(load_image(source, limits=limits))[None], {}
    frames, metadata = load_video(source, limits=limits, **options)
    return frames.permute(0, 2, 3, 1).contiguous().numpy(), dataclasses.asdict(metadata)


def _memory() -> int | None:
    """Bytes of address space that are taken; `None` where the system does not say, and memory is then not bounded."""
    if not os.path.exists("/proc/self/statm"):
        return None
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
