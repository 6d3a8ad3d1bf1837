"""Videos and images read in processes of their own: a decoder that hangs is ended, and one that crashes costs its file and no more."""

import atexit
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from .errors import ImageError, MediaError, VideoError, printable
from .limits import Limits, at_end_of_readings, check_not_interrupted
from .loader import Video


Isolation = Literal["thread", "process"]
GRACE_SECONDS = 2  # beyond the limit, which the process keeps itself where it can
_COMMAND = [sys.executable, "-m", "videor1_trl.media.worker"]
_idle: list["_Worker"] = []
_alive: set["_Worker"] = set()
_lock = threading.RLock()  # a signal handler may come while it is held


def is_of_files(source: object) -> bool:
    """Whether a source names files or holds bytes, so that a process can read it."""
    if isinstance(source, (list, tuple)):
        return bool(source) and all(isinstance(each, (str, Path)) for each in source)
    return isinstance(source, (str, Path, bytes, dict))


def check_isolation(isolation: object) -> None:
    if isolation not in ("thread", "process"):
        raise ValueError(f"isolation ({isolation!r}) must be 'thread' or 'process'.")


def load_in_process(source: object, name: str, options: Mapping[str, object], limits: Limits) -> Video:
    """
    What [`~media.video.load_video`] gives for a source and these options, read by another process, which is kept for the next.

    Raises:
        `VideoError`: what it raises there; the process took too long, or died.
    """
    frames, metadata = _load(_Job("video", source, name, options, limits))
    return torch.from_numpy(frames).permute(0, 3, 1, 2), VideoMetadata(**metadata)


def load_image_in_process(source: object, name: str, limits: Limits) -> np.ndarray:
    """
    What [`~media.images.load_image`] gives for a file, as uint8 (H, W, 3), read by another process.

    Raises:
        `ImageError`: what it raises there; the process took too long, or died.
    """
    return _load(_Job("image", source, name, {}, limits))[0][0]


class _Job(NamedTuple):
    """What a process is asked to read."""

    kind: Literal["video", "image"]
    source: object
    name: str
    options: Mapping[str, object]
    limits: Limits

    def fault(self, why: str, path: str | None = None) -> MediaError:
        kind = VideoError if self.kind == "video" else ImageError
        return kind(printable(path or self.name), why)


def _load(job: _Job) -> tuple[np.ndarray, dict[str, Any]]:
    """The pictures, uint8 (T, H, W, 3), and the metadata of a video."""
    check_not_interrupted()
    with _lock:
        worker = _idle.pop() if _idle else None
    if worker is None or worker.process.poll() is not None:
        worker = _Worker()
    try:
        found = worker.load(job)
    except MediaError:
        if worker.process.poll() is None:
            _keep(worker)
        raise
    except BaseException:  # in the middle of an answer: it is of no use any more
        worker.end()
        raise
    _keep(worker)
    return found


def _keep(worker: "_Worker") -> None:
    with _lock:
        _idle.append(worker)


@atexit.register
@at_end_of_readings
def end_all() -> None:
    """Ends all processes, those in the middle of a video too."""
    with _lock:
        _idle.clear()
        for worker in _alive:
            worker.process.kill()


class _Worker:
    """A process that reads one video after the other. It ends by itself when this one does."""

    def __init__(self) -> None:
        folder = str(Path(__file__).parents[2])  # of the package, which need not be installed
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        with _lock:
            _alive.add(self)

    def load(self, job: _Job) -> tuple[np.ndarray, dict[str, Any]]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            pickle.dump((job.kind, job.source, dict(job.options), job.limits, GRACE_SECONDS), self.process.stdin)
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            answer = json.loads(line) if line.endswith(b"\n") else None
        except (BrokenPipeError, ValueError):
            answer = None
        if answer is None:
            raise self._died(job)
        if "reason" in answer:
            raise job.fault(answer["reason"], answer["path"])
        frames = np.empty(answer["shape"], np.uint8)
        if cast(BufferedReader, self.process.stdout).readinto(frames.data.cast("B")) < frames.nbytes:
            raise self._died(job)
        return frames, answer["metadata"]

    def _died(self, job: _Job) -> MediaError:
        """Why there is no answer."""
        self.end()
        check_not_interrupted()
        code = self.process.returncode
        if code == -signal.SIGALRM:
            return job.fault(
                f"reading it takes more than {job.limits.seconds:g} s. Encode it anew, or raise the limit"
            )
        how = signal.Signals(-code).name if -code in set(signal.Signals) else f"status {code}"
        return job.fault(f"the process that decodes it died ({how}). Encode it anew")

    def end(self) -> None:
        """Without an answer to wait for: it ends at once."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # what was not sent yet
                    pass
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with _lock:
            _alive.discard(self)
