"""Ahead of their use: videos decoded in threads and kept for when they come again, and the next batch prepared meanwhile."""

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from cachetools import LRUCache

from .limits import end_readings, readings_ended
from .loader import Video
from .sources import state_of


Inputs = TypeVar("Inputs")
Result = TypeVar("Result")

GRACE_SECONDS = 10  # that a thread in the middle of a job is waited for when the process ends
INTERRUPTED_SECONDS = 1.5  # the same where it was interrupted, and must not be waited for
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
    interrupted = readings_ended()
    end_readings()
    deadline = time.monotonic() + (INTERRUPTED_SECONDS if interrupted else GRACE_SECONDS)
    for thread in list(_alive):
        thread.join(max(0.0, deadline - time.monotonic()))
    if interrupted and any(thread.is_alive() for thread in _alive):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(130)


def check_not_ending() -> None:
    """Raises `RuntimeError` in the process' last seconds, so that a long job ends early."""
    if _ending.is_set():
        raise RuntimeError("The process is ending.")


def settle(future: Future[Result], function: Callable[..., Result], *arguments: object) -> None:
    """Compute a future's result; what the function raises is raised where the result is asked for."""
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)


def media_key(source: object) -> Hashable:
    """
    What tells one video from another: its path or its bytes, with all else that its source says (such as a clip); else the
    object itself, which must then live as long as the key.
    """
    if isinstance(source, dict):
        named = sorted(source.items(), key=lambda item: str(item[0]))
        items = tuple((name, value) for name, value in named if value is not None and name != "path")
        if all(isinstance(value, (str, bytes, int, float)) for _, value in items):
            path = source.get("path")
            return (None if path is None else str(path)), *items
    if isinstance(source, bytes):
        return "bytes", source
    return str(source) if isinstance(source, (str, Path)) else ("object", id(source))


def _file_of(source: object) -> str | Path | None:
    """The path that a source is read from, if it names one."""
    if isinstance(source, dict):
        return source.get("path") if source.get("bytes") is None else None
    return source if isinstance(source, (str, Path)) else None


@dataclass
class _Held:
    """A video from its announcement, or from when it is asked for, to its last use."""

    source: object  # whose id must not be used anew
    uses: int = 0
    future: Future[Video] = field(default_factory=Future)
    is_begun: bool = False  # somebody decodes it, or has
    is_ahead: bool = False  # a thread does, or has, and nobody has asked for it yet


class VideoStore:
    """
    Decoded videos: each is decoded once for all who ask for it or announced it, in threads where it was announced, and kept
    while there is room, the longest unused leaving first.

    A file is known by its path, its clip, its size and the time of its last change (one of a store by its address: it is taken as
    unchanging while the process runs); what has no file (frames, bytes) is not kept beyond the uses that were announced.

    Args:
        read (`Callable`): `(source) -> (frames, metadata)`; called from threads, so it must be thread-safe.
        num_workers (`int`): threads that decode what is announced at a time, >= 0; 0: the thread that asks.
        max_bytes (`int`): of the frames kept, >= 0; 0: none.
        max_ahead (`int`, *optional*): announced videos that may be decoded before they are asked for, at a time; `None`: all.
    """

    def __init__(
        self,
        read: Callable[[object], Video],
        num_workers: int = 0,
        max_bytes: int = 0,
        max_ahead: int | None = None,
    ):
        self._read, self._num_workers, self._max_ahead = read, num_workers, max_ahead
        self._lock = threading.Lock()
        self._kept: LRUCache[Hashable, Video] = LRUCache(max_bytes, getsizeof=_size)
        self._held: dict[Hashable, _Held] = {}
        self._waiting: deque[_Held] = deque()  # announced, in this order, and not begun
        self._num_ahead = 0

    def announce(self, sources: Iterable[object]) -> None:
        """
        These will be asked for in this order, as often as they are among them, or given up with [`forget`]; until then they
        are held. Threads start to decode them.
        """
        with self._lock:
            for source in sources:
                key, _ = self._key(source)
                if key not in self._held:
                    held = self._held[key] = _Held(source)
                    if (kept := self._kept.get(key)) is not None:
                        held.is_begun = True
                        held.future.set_result(kept)
                    elif self._num_workers:
                        self._waiting.append(held)
                self._held[key].uses += 1
        self._decode_ahead()

    def forget(self, sources: Iterable[object]) -> None:
        """Let go of what was announced and will not be asked for; what was asked for already may be among it."""
        with self._lock:
            for source in sources:
                self._used(self._key(source)[0])
        self._decode_ahead()

    def get(self, source: object) -> Video:
        """
        The video's frames and metadata, which nobody may write into.

        Raises:
            What `read` raises for this source, wherever it ran.
        """
        key, is_file = self._key(source)
        with self._lock:
            held = self._held.get(key)
            if held is None:
                if (kept := self._kept.get(key)) is not None:
                    return kept
                held = self._held[key] = _Held(source, uses=1)
            is_mine, held.is_begun = not held.is_begun, True
            self._num_ahead -= held.is_ahead
            held.is_ahead = False
        self._decode_ahead()
        if is_mine:
            settle(held.future, self._read, source)
        video = None
        try:
            video = held.future.result()
            return video
        finally:
            with self._lock:
                if self._held.get(key) is held:
                    self._used(key)
                if video is not None and is_file and _size(video) <= self._kept.maxsize:
                    self._kept[key] = video

    def _used(self, key: Hashable) -> None:
        """Takes note of one use less; after the last the video is let go."""
        held = self._held.get(key)
        if held is None:
            return
        held.uses -= 1
        if held.uses <= 0:
            del self._held[key]
            self._num_ahead -= held.is_ahead
            held.is_ahead, held.is_begun = False, True  # where it waits, no thread begins it

    def _decode_ahead(self) -> None:
        """Starts threads for what is announced, as far ahead as allowed."""
        begun = []
        with self._lock:
            while self._waiting and (self._max_ahead is None or self._num_ahead < self._max_ahead):
                held = self._waiting.popleft()
                if not held.is_begun:
                    held.is_begun = held.is_ahead = True
                    self._num_ahead += 1
                    begun.append(partial(settle, held.future, self._read, held.source))
        in_threads(begun, self._num_workers)

    def _key(self, source: object) -> tuple[Hashable, bool]:
        """What a video is known by, and whether it is a file, which may be kept."""
        path = _file_of(source)
        state = None if path is None else state_of(path)
        return (media_key(source), state), state is not None  # of what is not there `read` says what is wrong


def _size(video: Video) -> int:
    """The memory that frames hold: of all that they are a part of."""
    return video[0].untyped_storage().nbytes()


@dataclass
class _Expected(Generic[Inputs, Result]):
    key: Hashable
    inputs: Inputs
    arguments: tuple[object, ...] = ()
    future: Future[Result] | None = None  # once it is being prepared


class LookAhead(Generic[Inputs, Result]):
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

    def __init__(self, prepare: Callable[..., Result], key: Callable[[Inputs], Hashable]):
        self._prepare, self._key_of = prepare, key
        self._expected: deque[_Expected[Inputs, Result]] = deque()
        self._newest: Hashable = None
        self._next: tuple[object, ...] | None = None

    def expect(self, inputs: Inputs) -> None:
        """These come next, or are those expected last (a generation batch is repeated)."""
        key = self._key_of(inputs)
        if key is not None and key != self._newest:
            self._newest = key
            self._expected.append(_Expected(key, inputs))
            self._start()

    def take(self, inputs: Inputs, *arguments: object, following: tuple[object, ...]) -> Result:
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
            first, future = self._expected[0], Future[Result]()
            first.arguments, first.future = self._next, future
            in_threads([lambda: settle(future, self._prepare, first.inputs, *first.arguments)], 1)
