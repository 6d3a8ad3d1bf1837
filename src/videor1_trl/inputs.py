"""Ahead of their use: videos decoded in threads and kept for when they come again, and the next batch prepared meanwhile."""

import atexit
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


Video = tuple[torch.Tensor, Any]  # frames (T, C, H, W) uint8, and their metadata

GRACE_SECONDS = 10  # that a thread in the middle of a job is waited for when the process ends
_ending = threading.Event()
_alive: set[threading.Thread] = set()


def in_threads(jobs: Iterable[Callable[[], None]], num_threads: int) -> None:
    """
    Start jobs in at most `num_threads` threads, which end with the jobs; in this one, where no thread can be started.

    When the process ends no further job is begun, and those that run have `GRACE_SECONDS`. The threads are daemons: a
    decoder that hangs for longer does not keep the process from ending.
    """
    waiting = deque(jobs)

    def work() -> None:
        while not _ending.is_set():
            try:
                job = waiting.popleft()
            except IndexError:
                break
            job()
        _alive.discard(threading.current_thread())

    for number in range(min(num_threads, len(waiting))):
        thread = threading.Thread(target=work, daemon=True, name="videor1_trl-input")
        _alive.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads
            _alive.discard(thread)
            if number == 0:
                work()
            return


@atexit.register
def _end() -> None:
    """A thread that is killed within an operator of torch takes the process down with it."""
    _ending.set()
    deadline = time.monotonic() + GRACE_SECONDS
    for thread in list(_alive):
        thread.join(max(0.0, deadline - time.monotonic()))


def check_not_ending() -> None:
    """Raises `RuntimeError` in the process' last seconds, so that a long job ends early."""
    if _ending.is_set():
        raise RuntimeError("The process is ending.")


def settle(future: Future, function: Callable[..., Any], *arguments: Any) -> None:
    """Compute a future's result; what the function raises is raised where the result is asked for."""
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)


def media_key(source: Any) -> Any:
    """
    What tells one video from another: its path or its bytes, with all else that its source says (such as a clip); else the
    object itself, which must then live as long as the key.
    """
    if isinstance(source, dict):
        items = tuple(sorted((name, value) for name, value in source.items() if value is not None and name != "path"))
        if all(isinstance(value, (str, bytes, int, float)) for _, value in items):
            path = source.get("path")
            return (None if path is None else str(path)), *items
    return str(source) if isinstance(source, (str, Path)) else ("object", id(source))


def _file_of(source: Any) -> Any:
    """The path that a source is read from, if it names one."""
    if isinstance(source, dict):
        return source.get("path") if source.get("bytes") is None else None
    return source if isinstance(source, (str, Path)) else None


class VideoStore:
    """
    Decoded videos: each is decoded once for all who ask at the same time, in threads where it was announced, and kept while
    there is room, the longest unused leaving first.

    A file is known by its path, its clip, its size and the time of its last change; what has no file (frames, bytes) is not
    kept.

    Args:
        read (`Callable`): `(source) -> (frames, metadata)`; called from threads, so it must be thread-safe.
        num_workers (`int`): threads that decode what is announced at a time, >= 0; 0: the thread that asks.
        max_bytes (`int`): of the frames kept, >= 0; 0: none.
    """

    def __init__(self, read: Callable[[Any], Video], num_workers: int = 0, max_bytes: int = 0):
        self._read, self._num_workers, self._max_bytes = read, num_workers, max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple, Video] = OrderedDict()
        self._kept_bytes = 0
        self._pending: dict[tuple, tuple[Future, Any]] = {}  # with the source, whose id must not be used anew

    def announce(self, sources: list[Any]) -> None:
        """Start to decode these in threads. What they turn out to be must be asked for, or [`forget`] be called."""
        if not self._num_workers:
            return
        jobs = []
        with self._lock:
            for source in sources:
                key, _ = self._key(source)
                if key not in self._kept and key not in self._pending:
                    future: Future = Future()
                    self._pending[key] = future, source
                    jobs.append(lambda future=future, source=source: settle(future, self._read, source))
        in_threads(jobs, self._num_workers)

    def forget(self, sources: list[Any]) -> None:
        """Let go of what was announced and not asked for."""
        with self._lock:
            for source in sources:
                self._pending.pop(self._key(source)[0], None)

    def get(self, source: Any) -> Video:
        """
        The video's frames and metadata, which nobody may write into.

        Raises:
            What `read` raises for this source, wherever it ran.
        """
        key, is_file = self._key(source)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            future, _ = self._pending.get(key, (None, None))
            if mine := future is None:
                self._pending[key] = (future := Future()), source
        if mine:
            settle(future, self._read, source)
        video = None
        try:
            return (video := future.result())
        finally:
            with self._lock:
                self._pending.pop(key, None)
                if video is not None and is_file:
                    self._keep(key, video)

    def _key(self, source: Any) -> tuple[tuple, bool]:
        """What a video is known by, and whether it is a file, which may be kept."""
        path = _file_of(source)
        if path is not None:
            try:
                found = os.stat(path)
                return (media_key(source), found.st_mtime_ns, found.st_size), True
            except (OSError, ValueError):  # a URL, or no file: `read` says what is wrong
                pass
        return (media_key(source),), False

    def _keep(self, key: tuple, video: Video) -> None:
        size = _size(video)
        if key in self._kept or size > self._max_bytes:
            return
        self._kept[key] = video
        self._kept_bytes += size
        while self._kept_bytes > self._max_bytes:
            self._kept_bytes -= _size(self._kept.popitem(last=False)[1])


def _size(video: Video) -> int:
    """The memory that frames hold: of all that they are a part of."""
    return video[0].untyped_storage().nbytes()


@dataclass
class _Expected:
    key: Any
    inputs: Any
    arguments: tuple = ()
    future: Future | None = None  # once it is being prepared


class LookAhead:
    """
    Prepares the batch behind the one in use, in a thread, one at a time.

    Batches are expected in the order in which they will be asked for, which is known early (a data loader is ahead of the
    training); the arguments they will be asked for with are those of the batch before. Where either turns out otherwise,
    the batch is prepared anew: what is looked ahead can be wasted, but never wrong.

    Args:
        prepare (`Callable`): `(inputs, *arguments) -> result`.
        key (`Callable`): `(inputs) -> key`, equal for equal inputs, or `None` for inputs that cannot be compared: these are
            not looked ahead.
    """

    def __init__(self, prepare: Callable[..., Any], key: Callable[[Any], Any]):
        self._prepare, self._key_of = prepare, key
        self._expected: deque[_Expected] = deque()
        self._newest: Any = None
        self._next: tuple | None = None

    def expect(self, inputs: Any) -> None:
        """These come next, or are those expected last (a generation batch is repeated)."""
        key = self._key_of(inputs)
        if key is not None and key != self._newest:
            self._newest = key
            self._expected.append(_Expected(key, inputs))
            self._start()

    def take(self, inputs: Any, *arguments: Any, following: tuple) -> Any:
        """
        What `prepare` returns or raises for these inputs and arguments.

        Args:
            following (`tuple`): the arguments that the next batch will be asked for with.
        """
        key = self._key_of(inputs)
        found = None
        while self._expected and found is None and key is not None:  # those before it were skipped
            first = self._expected.popleft()
            found = first if first.key == key else None
        if found is not None and found.future is not None and found.arguments == arguments:
            result = found.future.result()
        else:
            result = self._prepare(inputs, *arguments)
        self._next = following
        self._start()
        return result

    def _start(self) -> None:
        if self._next is not None and self._expected and self._expected[0].future is None:
            first, future = self._expected[0], Future[Any]()
            first.arguments, first.future = self._next, future
            in_threads([lambda: settle(future, self._prepare, first.inputs, *first.arguments)], 1)
