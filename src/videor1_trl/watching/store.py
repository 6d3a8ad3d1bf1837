"""The files of a run's rollout records: JSON Lines and the frames they show, bounded in size, whole after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..generation.journal import drop_torn_line, read_lines, write_lines


FRAMES = "rollout_frames"
PARTS = 4  # files that the room of a rank is divided into: the oldest goes as a whole
_NAMED = re.compile(r"rollouts(?:-(\d{3,}))?(?:\.(\d{5,}))?\.jsonl")


def frame_name(picture: bytes, rank: int) -> str:
    """Where a frame lies in the run's folder, by what it shows: groups on one video, and steps, share it."""
    return f"{FRAMES}/{rank:03}/{hashlib.sha256(picture).hexdigest()[:20]}.jpg"


def rollout_files(folder: Path) -> list[Path]:
    """The files of records in the folder of a run: by rank, of each the oldest first."""
    found = [(match, path) for path in folder.glob("rollouts*.jsonl") if (match := _NAMED.fullmatch(path.name))]
    return [path for match, path in sorted(found, key=lambda each: _place(each[0]))]


def _place(match: re.Match[str]) -> tuple[int, float]:
    return int(match[1] or 0), float(match[2] or "inf")


@dataclass
class RolloutFile:
    """
    What one rank writes: `rollouts.jsonl`, of other ranks than the first `rollouts-001.jsonl` ..., and the frames in
    `rollout_frames/000`. A file that is full is set aside as `rollouts.00001.jsonl`; where all of a rank's together are too
    large, the oldest goes, with the frames that no other shows.

    Args:
        folder (`Path`): of the run. rank (`int`): of this process. max_bytes (`int`): of files and frames.
    """

    folder: Path
    rank: int
    max_bytes: int
    _sizes: dict[str, int] = field(default_factory=dict)  # of the frames that are there
    _shown: set[str] = field(default_factory=set)  # frames that the file which is written shows

    def __post_init__(self) -> None:
        self.name = "rollouts" if self.rank == 0 else f"rollouts-{self.rank:03}"
        self.path = self.folder / f"{self.name}.jsonl"
        for path in (self.folder / FRAMES / f"{self.rank:03}").glob("*.jpg"):
            self._sizes[f"{FRAMES}/{self.rank:03}/{path.name}"] = path.stat().st_size
        drop_torn_line(self.path)
        self._shown = _shown_in([self.path] if self.path.is_file() else [])

    @property
    def parts(self) -> list[Path]:
        """The files of this rank that are there, the oldest first."""
        return [path for path in rollout_files(self.folder) if path.name.startswith((f"{self.name}.",))]

    def append(self, records: Iterable[Mapping[str, Any]], frames: Mapping[str, bytes]) -> None:
        """Write frames, then the records that name them: each line is in the file, whole, when this returns."""
        for name, picture in frames.items():
            if name not in self._sizes:
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_suffix(".tmp")
                unfinished.write_bytes(picture)
                unfinished.replace(path)
                self._sizes[name] = len(picture)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            for record in records:
                line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
                file.write(line.encode(errors="replace"))  # half a surrogate pair becomes ?
                self._shown.update(record["frames"])
            size = file.tell()
        if size + sum(self._sizes.get(name, 0) for name in self._shown) > self.max_bytes / PARTS:
            self._rotate()

    def go_on_from(self, step: int) -> int:
        """Drop what was recorded behind a step, which the run makes anew; how many records that were."""
        dropped = 0
        for path in self.parts:
            kept, behind = [], 0
            for line in read_lines(path):
                is_behind = line["step"] > step
                behind += is_behind
                if not is_behind:
                    kept.append(line)
            dropped += behind
            if behind and kept:
                write_lines(path, kept)
            elif behind:
                path.unlink()
        self._shown = _shown_in([self.path] if self.path.is_file() else [])
        self._forget_frames()
        return dropped

    def _rotate(self) -> None:
        """Sets the file aside, and drops the oldest ones while there are too many."""
        numbers = [int(found[2] or 0) for path in self.parts if (found := _NAMED.fullmatch(path.name))]
        self.path.rename(self.folder / f"{self.name}.{max(numbers) + 1:05}.jsonl")
        self._shown = set()
        while len(parts := self.parts) > 1 and self._total() > self.max_bytes * (PARTS - 1) / PARTS:
            parts[0].unlink()
            self._forget_frames()

    def _total(self) -> int:
        return sum(path.stat().st_size for path in self.parts) + sum(self._sizes.values())

    def _forget_frames(self) -> None:
        """Deletes the frames that no record shows."""
        for name in self._sizes.keys() - _shown_in(self.parts):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.folder / name)
            del self._sizes[name]


def _shown_in(parts: Iterable[Path]) -> set[str]:
    return {name for part in parts for line in read_lines(part) for name in line["frames"]}


def drop_left_over(folder: Path, world_size: int, step: int, file: Callable[[int], RolloutFile]) -> int:
    """As [`RolloutFile.go_on_from`], of ranks that an earlier start of the run had and this one has not."""
    ranks = {int(found[1] or 0) for path in rollout_files(folder) if (found := _NAMED.fullmatch(path.name))}
    return sum(file(rank).go_on_from(step) for rank in ranks if rank >= world_size)


def read_rollouts(folder: Path) -> Iterator[dict[str, Any]]:
    """
    The records of a run, of all ranks.

    Raises:
        `ValueError`: a line that is no record, with file and number.
    """
    for path in rollout_files(folder):
        for number, line in enumerate(read_lines(path), start=1):
            missing = [name for name in ("step", "group", "kind", "completion", "frames") if name not in line]
            if missing:
                raise ValueError(
                    f"{path}, line {number}: no record of a rollout, it lacks {missing[0]!r}. Remove the line or the file."
                )
            yield line
