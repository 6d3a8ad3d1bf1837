"""Ahead of their use: videos decoded in threads and kept for when they come again, and the next batch prepared meanwhile."""

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch


Video = tuple[torch.Tensor, Any]  # frames (T, C, H, W) uint8, and their metadata


def in_threads(jobs: Iterable[Callable[[], None]], num_threads: int) -> None:
    """
    Start jobs in at most `num_threads` threads, which end with the jobs. They are daemons: a decoder that hangs does not
    keep the process from ending.
    """
    waiting = deque(jobs)

    def work() -> None:
        while True:
            try:
                job = waiting.popleft()
            except IndexError:
                return
            job()

    for _ in range(min(num_threads, len(waiting))):
        threading.Thread(target=work, daemon=True, name="videor1_trl-input").start()


def settle(future: Future, function: Callable[..., Any], *arguments: Any) -> None:
    """Compute a future's result; what the function raises is raised where the result is asked for."""
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)


def media_key(source: Any) -> Any:
    """What tells one video from another: its path and clip, else the object itself."""
    if isinstance(source, dict) and source.get("path") and source.get("bytes") is None:
        return str(source["path"]), source.get("start"), source.get("end")
    return str(source) if isinstance(source, (str, Path)) else id(source)


class VideoStore:
    """
    Decoded videos: each is decoded once for all who ask at the same time, in threads where it was announced, and kept while
    there is room, the longest unused leaving first.

    A file is known by its path, its clip, its size and the time of its last change; what has no file (frames, bytes) is not
    kept.

    Args:
        read (`Callable`): `(source) -> (frames, metadata)`; called from threads, so it must be thread-safe.
        num_workers (`int`): threads that decode, >= 0; 0: the thread that asks.
        max_bytes (`int`): of the frames kept, >= 0; 0: none.
    """

    def __init__(self, read: Callable[[Any], Video], num_workers: int = 0, max_bytes: int = 0):
        self._read, self._num_workers, self._max_bytes = read, num_workers, max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple, Video] = OrderedDict()
        self._kept_bytes = 0
        self._pending: dict[tuple, tuple[Future, Any]] = {}  # with the source, whose id must not be used anew

    def announce(self, sources: list[Any]) -> None:
        """Start to decode these in threads. What was announced before and never asked for is forgotten."""
        if not self._num_workers:
            return
        with self._lock:
            self._pending = {}
            for source in sources:
                key = self._key(source)
                if key not in self._kept and key not in self._pending:
                    self._pending[key] = (Future(), source)
            jobs = [
                lambda future=future, source=source: settle(future, self._read, source)
                for future, source in self._pending.values()
            ]
        in_threads(jobs, self._num_workers)

    def get(self, source: Any) -> Video:
        """
        The video's frames and metadata, which nobody may write into.

        Raises:
            What `read` raises for this source, wherever it ran.
        """
        key = self._key(source)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            future, _ = self._pending.get(key, (None, None))
            if mine := future is None:
                self._pending[key] = (future := Future()), source
        if mine:
            settle(future, self._read, source)
        try:
            video = future.result()
        finally:
            with self._lock:
                self._pending.pop(key, None)
        with self._lock:
            self._keep(key, video)
        return video

    def _key(self, source: Any) -> tuple:
        key = media_key(source)
        path = key[0] if isinstance(key, tuple) else key
        if isinstance(path, str):
            try:
                found = os.stat(path)
                return key, found.st_mtime_ns, found.st_size
            except (OSError, ValueError):  # a URL, or no file: `read` says what is wrong
                pass
        return (key,)

    def _keep(self, key: tuple, video: Video) -> None:
        size = video[0].nbytes
        if len(key) == 1 or key in self._kept or size > self._max_bytes:
            return
        self._kept[key] = video
        self._kept_bytes += size
        while self._kept_bytes > self._max_bytes:
            _, (frames, _) = self._kept.popitem(last=False)
            self._kept_bytes -= frames.nbytes


class LookAhead:
    """
    Prepares the batch behind the one in use, in a thread, one at a time.

    Batches are expected in the order in which they will be asked for, which is known early (a data loader is ahead of the
    training); the arguments they will be asked for with are those of the batch before. Where either turns out otherwise,
    the batch is prepared anew: what is looked ahead can be wasted, but never wrong.

    Args:
        prepare (`Callable`): `(inputs, *arguments) -> result`.
        key (`Callable`): `(inputs) -> key`, equal for equal inputs.
    """

    def __init__(self, prepare: Callable[..., Any], key: Callable[[Any], Any]):
        self._prepare, self._key_of = prepare, key
        self._expected: deque[tuple[Any, Any]] = deque()  # keys and inputs
        self._newest: Any = None
        self._running: tuple[Any, tuple, Future, Any] | None = None  # with the inputs: keys may hold the ids of parts
        self._next: tuple | None = None

    def expect(self, inputs: Any) -> None:
        """These come next, or are those expected last (a generation batch is repeated)."""
        key = self._key_of(inputs)
        if key != self._newest:
            self._newest = key
            self._expected.append((key, inputs))
            self._start()

    def take(self, inputs: Any, *arguments: Any, following: tuple) -> Any:
        """
        What `prepare` returns or raises for these inputs and arguments.

        Args:
            following (`tuple`): the arguments that the next batch will be asked for with.
        """
        key = self._key_of(inputs)
        ready, self._running = self._running, None
        if any(key == expected for expected, _ in self._expected):
            while self._expected.popleft()[0] != key:
                pass
        elif ready is None or ready[0] != key:
            self._expected.clear()  # out of step
        try:
            if ready is not None and ready[:2] == (key, arguments):
                return ready[2].result()
            return self._prepare(inputs, *arguments)
        finally:
            self._next = following
            self._start()

    def _start(self) -> None:
        if self._running is None and self._next is not None and self._expected:
            key, inputs = self._expected.popleft()
            future: Future = Future()
            self._running = key, self._next, future, inputs
            arguments = self._next
            in_threads([lambda: settle(future, self._prepare, inputs, *arguments)], 1)
