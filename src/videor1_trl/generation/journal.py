"""A journal of completions: JSON Lines that survive a kill, so that a run goes on where it stopped, with nothing lost or doubled."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout


Line = dict[str, Any]  # a JSON object, of which the file says what is in it


class JournalInUse(RuntimeError):
    """Another process writes the same file of a journal."""


class Journal:
    """
    The completions of a run, one JSON object a line, each written as it comes and named by its `key`.

    A run may be several processes, on several machines with one disk: each key belongs to one of them, by its checksum, and
    each process appends to a file of its own; all of them together are the run. Where a process was killed in the middle of
    a line, that line is dropped when it starts again, and its key is asked for once more.

    Every start adds a line of its own, `{"session": {...}}`, with what moved its completions. A start whose `identity`
    differs from the ones before is refused: its completions would not be of the same run.

    Args:
        folder (`str` or `Path`): of the journal's files, made where it is missing.
        identity (`dict`): what may not change within a run, such as model, data and sampling; JSON-able.
        notes (`dict`, *optional*): what may change and is kept on record, such as the device and versions.
        rank, world_size (`int`): this process among all of them. `None`: as `RANK` and `WORLD_SIZE` say, which `accelerate
            launch` and `torchrun` set; else the only one.

    Raises:
        `ValueError`: a journal of another identity, or a `completions*.jsonl` that is none.
        [`JournalInUse`]: another process writes this file.
        `OSError`: an entry cannot be written, as on a full disk.
    """

    def __init__(
        self,
        folder: str | Path,
        identity: Mapping[str, object],
        notes: Mapping[str, object] | None = None,
        *,
        rank: int | None = None,
        world_size: int | None = None,
    ):
        self.folder = Path(folder)
        self.rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        self.world_size = int(os.environ.get("WORLD_SIZE", "1")) if world_size is None else world_size
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank ({self.rank}) must be between 0 and world_size - 1 ({self.world_size - 1}).")
        self.identity: Line = json.loads(json.dumps(identity))
        self.notes: Line = json.loads(json.dumps(notes or {}))
        self.folder.mkdir(parents=True, exist_ok=True)
        name = "completions" if self.world_size == 1 else f"completions-{self.rank:03}-of-{self.world_size:03}"
        self.path = self.folder / f"{name}.jsonl"
        self._lock = FileLock(f"{self.path}.lock")
        self._file: TextIO | None = None

    def __enter__(self) -> Journal:
        self._acquire()
        try:
            for session in self.sessions():
                _check_identity(self.folder, session["identity"], self.identity)
            drop_torn_line(self.path)
            self._file = self.path.open("a", encoding="utf-8", errors="replace")  # half a surrogate pair becomes ?
            self._write({"session": {"identity": self.identity, "notes": self.notes}})
        except BaseException:
            self._end(failed=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._end(failed=kind is not None)

    def _acquire(self) -> None:
        while True:
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise JournalInUse(f"{self.path} is written by another process. Wait for it, or end it.") from error
            if os.path.exists(self._lock.lock_file):
                return
            self._lock.release()  # of a file that its owner has just removed: whoever comes next would not see it

    def _end(self, failed: bool) -> None:
        """Closes the file and lets go of the lock, also where the disk is full: where that has `failed`, it is said already."""
        file, self._file = self._file, None
        try:
            if file is not None:
                with contextlib.suppress(OSError) if failed else contextlib.nullcontext():
                    file.close()
        finally:
            with contextlib.suppress(OSError):
                os.unlink(self._lock.lock_file)
            self._lock.release()

    def entries(self) -> dict[str, Line]:
        """Key -> entry of all processes; of a key that was asked for again, one without `error` where there is one."""
        found: dict[str, Line] = {}
        for entry in self._lines():
            if "key" in entry and not (entry.get("error") and entry["key"] in found):
                found[entry["key"]] = entry
        return found

    def sessions(self) -> list[Line]:
        """The distinct starts, each `{"identity", "notes"}`, in the order of the files."""
        found: list[Line] = []
        for entry in self._lines():
            if "session" in entry and entry["session"] not in found:
                found.append(entry["session"])
        return found

    def mine(self, key: str) -> bool:
        """Whether this process is the one to complete a key."""
        return zlib.crc32(key.encode()) % self.world_size == self.rank

    def pending(self, keys: Iterable[str], *, retry_errors: bool = False) -> list[str]:
        """
        The keys of this process that have no entry yet.

        Args:
            retry_errors (`bool`, defaults to `False`): those whose entry is an `error`, too.
        """
        done = {key for key, entry in self.entries().items() if not (retry_errors and entry.get("error"))}
        return [key for key in keys if self.mine(key) and key not in done]

    def append(self, entry: Mapping[str, object]) -> None:
        """Write an entry, with its `key`; it is in the file when this returns."""
        if "key" not in entry:
            raise ValueError(f"An entry needs a 'key', found {', '.join(entry)}.")
        self._write(entry)

    def _write(self, line: Mapping[str, object]) -> None:
        assert self._file is not None, "the journal is a context manager"
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        try:
            self._file.flush()
        except OSError as error:  # a full disk: what was written of the line is cut off at the next start
            said = error.strerror or str(error)
            raise OSError(
                error.errno,
                f"{said}: the entry {str(line.get('key', 'session'))!r} is not kept. Free some space and start again",
                str(self.path),
            ) from error

    def _lines(self) -> Iterator[Line]:
        """Every whole line of every file."""
        for path in sorted(self.folder.glob("completions*.jsonl")):
            for number, line in enumerate(read_lines(path)):
                if number == 0 and "session" not in line:
                    raise ValueError(
                        f"{path} is no journal of completions: its first line has no 'session'. Move it away."
                    )
                yield line


def draw_keys(keys: Sequence[str], limit: int | None) -> list[str]:
    """
    At most `limit` of the keys, in their order: the same ones at every call, and those of a smaller limit among them.

    Raises:
        `ValueError`: a limit below 1.
    """
    if limit is None:
        return list(keys)
    if limit < 1:
        raise ValueError(f"limit ({limit}) must be at least 1, or unset.")
    drawn = set(sorted(keys, key=lambda key: (zlib.crc32(key.encode()), key))[:limit])
    return [key for key in keys if key in drawn]


def read_lines(path: Path) -> Iterator[Line]:
    """
    The objects of a JSON Lines file; a last line without its end is not one yet.

    Raises:
        `ValueError`: a whole line that is no JSON object.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error}). Remove the line or the file.") from error
            if not isinstance(entry, dict):
                raise ValueError(f"{path}, line {number}: no JSON object. Remove the line or the file.")
            yield entry


def write_lines(path: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Write a JSON Lines file as [`write_whole`] does."""
    write_whole(path, (json.dumps(line, ensure_ascii=False) for line in lines))


def write_whole(path: Path, lines: Iterable[str]) -> None:
    """Write a file at once: whoever reads it finds the whole of it, or what was there before."""
    written = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with written.open("w", encoding="utf-8", errors="replace") as file:
            file.writelines(f"{line}\n" for line in lines)
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)


def drop_torn_line(path: Path) -> None:
    """Cuts off what a kill left of a line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _check_identity(folder: Path, found: Line, expected: Line) -> None:
    old, new = _flat(found), _flat(expected)
    differing = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if differing:
        shown = "; ".join(f"{name}: {old.get(name)!r} there, {new.get(name)!r} now" for name in differing[:5])
        raise ValueError(
            f"{folder} holds completions of another run ({shown}). Give this run another folder, or the settings of that one."
        )


def _flat(value: Line, prefix: str = "") -> Line:
    """Nested dicts as one, with dotted names."""
    flat: Line = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, dict) and item else {f"{prefix}{name}": item}
    return flat
