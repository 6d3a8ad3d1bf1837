"""Bytes that have no file of their own: a part of an archive, or a file in a store, read from whatever place is asked for."""

from __future__ import annotations

import io
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO, cast

from .limits import TooMuch, meter


ReadAt = Callable[[int, int], bytes]  # the bytes from one place up to another; fewer at the end alone
BLOCK = 2**16  # bytes that are fetched of a store at least
MOST_AHEAD = 64  # blocks at a time, where they are read one behind the other
MOST_KEPT = 512  # blocks of a file
SPOOL_MEMORY = 2**25  # bytes that are held in memory; what is larger goes to a file without a name
_PIECE = 2**20


class Blob:
    """
    Bytes that can be read from any place.

    Args:
        size (`int`): how many there are.
        read_at (`Callable`): `(begin, end) -> bytes`.
        is_far (`bool`, defaults to `False`): each read may take a request over a network.
    """

    def __init__(self, size: int, read_at: ReadAt, *, is_far: bool = False):
        self.size, self.is_far, self._read_at = size, is_far, read_at
        self.failure: Exception | None = None  # of a read, which a demuxer may take for the end of the file
        self.blocks: tuple[Blocks, int] | None = None  # of a far file, and where in it these bytes begin

    def read_at(self, begin: int, end: int) -> bytes:
        meter().check()
        if self.failure is not None:  # demuxers try again and again
            raise self.failure
        end = min(end, self.size)
        if begin >= end:
            return b""
        try:
            found = self._read_at(begin, end)
        except Exception as error:
            self.failure = self.failure or error
            raise
        if len(found) < end - begin:
            self.failure = ValueError(f"only {begin + len(found):,} of its {self.size:,} bytes are there")
            raise self.failure
        return found

    def open(self) -> BinaryIO:
        """A file to read and to seek in; each has a place of its own."""
        return cast(BinaryIO, _Reader(self))

    def part(self, begin: int, size: int) -> Blob:
        """Some of the bytes."""
        found = Blob(size, lambda first, last: self.read_at(begin + first, begin + last), is_far=self.is_far)
        if self.blocks is not None:
            found.blocks = self.blocks[0], self.blocks[1] + begin
        return found

    def plan(self, runs: Iterable[tuple[int, int]]) -> None:
        """These ranges will be read, each from its beginning on: a far file fetches them as they are."""
        if self.blocks is not None:
            blocks, offset = self.blocks
            blocks.runs = sorted((offset + begin, offset + end) for begin, end in runs)

    def pieces(self) -> Iterable[bytes]:
        """All of the bytes, one piece after the other."""
        for begin in range(0, self.size, _PIECE):
            yield self.read_at(begin, begin + _PIECE)

    def all(self) -> bytes:
        return b"".join(self.pieces())

    def fetched(self) -> Blob:
        """The same bytes on this machine, to be read again and again. Raises `TooMuch` where they are more than is fetched."""
        check_size(self.size)
        return spooled(self.pieces())


class _Reader(io.RawIOBase):
    """A [`Blob`] as a file."""

    def __init__(self, blob: Blob):
        self._blob, self._place = blob, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._blob.size}[whence]
        self._place = max(base + offset, 0)
        return self._place

    def read(self, size: int | None = -1, /) -> bytes:
        end = self._blob.size if size is None or size < 0 else self._place + size
        found = self._blob.read_at(self._place, end)
        self._place += len(found)
        return found

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


class Hollow(Blob):
    """
    A far file without some of its ranges: once it `is_hollow` they are zeros, which nobody has to fetch. What numbers the frames of
    an mp4 stands in its head, not among its samples.
    """

    def __init__(self, blob: Blob, ranges: Sequence[tuple[int, int]]):
        super().__init__(blob.size, self._hollow_at, is_far=True)
        self._blob, self._ranges, self.is_hollow = blob, sorted(ranges), False

    def _hollow_at(self, begin: int, end: int) -> bytes:
        found, place = [], begin
        for first, last in self._ranges if self.is_hollow else ():
            if last <= place or first >= end:
                continue
            if first > place:
                found.append(self._blob.read_at(place, first))
            found.append(bytes(min(last, end) - max(first, place)))
            place = min(last, end)
        if place < end:
            found.append(self._blob.read_at(place, end))
        return b"".join(found)


class Blocks:
    """
    Reads a far file in blocks, of which the last ones are kept: one block where it jumps, more and more where it goes on, and all that
    is left of a run that will be read.

    Args:
        size (`int`): of the file. fetch (`Callable`): `(begin, end) -> bytes`, a request. block (`int`): bytes of a block.
    """

    def __init__(self, size: int, fetch: ReadAt, block: int = BLOCK):
        self._size, self._fetch, self._block = size, fetch, block
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._next, self._ahead = -1, 1
        self.runs: list[tuple[int, int]] = []  # in order; they may lie over each other

    def __call__(self, begin: int, end: int) -> bytes:
        parts = []
        while begin < end:
            number, skip = divmod(begin, self._block)
            parts.append(self._of(number)[skip : skip + end - begin])
            begin = (number + 1) * self._block
        return b"".join(parts)

    def _of(self, number: int) -> bytes:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        begin = number * self._block
        if self.runs:
            self._ahead = max(1, -(-(self._run_end(begin) - begin) // self._block))
        else:
            self._ahead = 2 * self._ahead if number == self._next else 1
        self._ahead = min(self._ahead, MOST_AHEAD)
        data = self._fetch(begin, min(begin + self._ahead * self._block, self._size))
        self._next = number + self._ahead
        for place in range(self._ahead):
            self._kept[number + place] = data[place * self._block : (place + 1) * self._block]
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return self._kept[number]

    def _run_end(self, begin: int) -> int:
        """Where the run ends that a block is in or that begins in it; the block's own beginning where there is none."""
        ends = [last for first, last in self.runs if first < begin + self._block and last > begin]
        return max(ends, default=begin)


def of_file(file: BinaryIO) -> Blob:
    """A file of this machine, which stays open."""
    descriptor = file.fileno()

    def read_at(begin: int, end: int) -> bytes:
        return os.pread(descriptor, end - begin, begin)

    return Blob(os.fstat(descriptor).st_size, read_at)


def check_size(size: int) -> None:
    """Raises `TooMuch` where a file that has to be taken whole has too many bytes."""
    most = meter().limits.fetched_bytes
    if size > most:
        raise TooMuch(
            f"it has {size:,} bytes and has to be taken whole, more than {most:,}. Cut it into shorter files"
        )


def spooled(pieces: Iterable[bytes]) -> Blob:
    """Pieces put together, in memory or in a file that has no name and goes with its last reader."""
    spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_MEMORY)
    size = 0
    for piece in pieces:
        size += len(piece)
        check_size(size)
        spool.write(piece)

    def read_at(begin: int, end: int) -> bytes:
        spool.seek(begin)
        return spool.read(end - begin)

    return Blob(size, read_at)
