"""Members of zip and tar archives, read where they lie: nothing is unpacked, and an archive's directory is read once."""

from __future__ import annotations

import os
import posixpath
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Hashable, Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from cachetools import LRUCache

from .blobs import Blob, check_size, spooled
from .limits import TooMuch, meter


MOST_MEMBERS = 1_000_000  # of the directories that are kept, and of each
NO_MEMBER = "no such member in its archive"
DIRECTORY_BYTES = 2**28  # that reading a directory may take at a time
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_LOCAL_HEADER = struct.Struct("<4s2B4HL2L2H")


class Member(NamedTuple):
    """Where a member lies."""

    begin: int  # of its header in a zip, of its bytes in a tar
    stored: int  # bytes that it takes there
    size: int
    method: int = _STORED
    checksum: int | None = None
    encrypted: bool = False


class Directory(NamedTuple):
    """The members of an archive by their names; `fault` says what is wrong behind the last of them."""

    members: dict[str, Member]
    fault: str | None = None


_directories: LRUCache[Hashable, Directory] = LRUCache(MOST_MEMBERS, getsizeof=lambda found: len(found.members) + 1)
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def directory_of(archive: Blob, path: str, version: Hashable) -> Directory:
    """
    The members of an archive, read once for each version of it.

    Raises:
        `ValueError`, `TooMuch`, with the reason: it is no archive, damaged, or holds more than is read.
    """
    key = path, archive.size, version
    with _lock:
        found = _directories.get(key)
        if found is None:
            found = (_of_tar if path.lower().endswith(".tar") else _of_zip)(archive)
            _directories[key] = found
    return found


def member_of(archive: Blob, directory: Directory, name: str) -> Blob:
    """
    The bytes of a member: read within the archive where they are stored as they are, else unpacked, once for this reading.

    Raises:
        `FileNotFoundError`: it holds no such member. `ValueError`, `TooMuch`, with the reason: the member cannot be read.
    """
    member = directory.members.get(name)
    if member is None:
        if directory.fault is not None:
            raise ValueError(
                f"its archive is {directory.fault}, and before that it has no such member. Fetch it again"
            )
        raise FileNotFoundError(NO_MEMBER)
    if member.encrypted:
        raise ValueError("it is encrypted in its archive, and only plain members are read. Unpack it")
    if member.method not in (_STORED, _DEFLATED):
        raise ValueError(f"it is packed by method {member.method}, and only stored and deflated members are read")
    begin = member.begin if member.checksum is None else _content_of(archive, member)
    if begin + member.stored > archive.size:
        raise ValueError("its archive is truncated. Fetch it again")
    content = archive.part(begin, member.stored)
    if member.method == _DEFLATED:
        return _unpacked(content, member)
    if member.stored != member.size:
        raise ValueError("its archive is damaged: it gives two sizes of a stored member. Fetch it again")
    return content


def _content_of(archive: Blob, member: Member) -> int:
    """Where the bytes of a zip's member begin, behind its own header."""
    header = archive.read_at(member.begin, member.begin + _LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
        raise ValueError("its archive is damaged: where the member should begin there is none. Fetch it again")
    *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    return member.begin + _LOCAL_HEADER.size + name_length + extra_length


def _unpacked(content: Blob, member: Member) -> Blob:
    """A deflated member, which can only be read from its beginning on: bounded by what it claims and by what is fetched."""
    check_size(member.size)

    def plain(unpack: Any) -> Iterator[bytes]:
        for packed in content.pieces():
            while packed and not unpack.eof:
                yield unpack.decompress(packed, 2**20)
                packed = unpack.unconsumed_tail
        yield unpack.flush()  # a few bytes, where the last piece was full

    def pieces() -> Iterator[bytes]:
        size, checksum = 0, 0
        for piece in plain(zlib.decompressobj(-zlib.MAX_WBITS)):
            meter().check()
            size, checksum = size + len(piece), zlib.crc32(piece, checksum)
            if size > member.size:
                raise ValueError(f"its archive is damaged: it unpacks to more than {member.size:,} bytes")
            yield piece
        if size != member.size or checksum != member.checksum:
            raise ValueError("its archive is damaged: size or checksum of the member are others. Fetch it again")

    try:
        return spooled(pieces())
    except zlib.error:
        raise ValueError("its archive is damaged: the member does not unpack. Fetch it again") from None


class _Bounded:
    """A file of which not everything is read at once: a directory may claim any length."""

    def __init__(self, archive: Blob):
        self._file, self._size = archive.open(), archive.size
        self.seek, self.tell = self._file.seek, self._file.tell

    def read(self, size: int = -1) -> bytes:
        if (self._size - self.tell() if size < 0 else size) > DIRECTORY_BYTES:
            raise TooMuch(f"the directory of its archive takes more than {DIRECTORY_BYTES:,} bytes")
        return self._file.read(size)

    def seekable(self) -> bool:
        return True


def _of_zip(archive: Blob) -> Directory:
    try:
        with zipfile.ZipFile(cast(BinaryIO, _Bounded(archive))) as file:
            listed = file.infolist()
    except (zipfile.BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"its archive is no zip, or damaged ({error}). Fetch it again") from None
    _check_count(len(listed))
    return Directory(
        {
            _plain(each.filename): Member(
                *(each.header_offset, each.compress_size, each.file_size),
                *(each.compress_type, each.CRC, bool(each.flag_bits & 1)),
            )
            for each in listed
            if not each.is_dir()
        }
    )


def _of_tar(archive: Blob) -> Directory:
    members: dict[str, Member] = {}
    end = 0
    try:
        with tarfile.open(fileobj=cast(BinaryIO, _Bounded(archive)), mode="r:") as file:
            while (each := file.next()) is not None:
                meter().check()
                _check_count(len(members) + 1)
                cast(Any, file).members.clear()  # it would keep them all
                if each.isreg() and not each.issparse():
                    members[_plain(each.name)] = Member(each.offset_data, each.size, each.size)
                end = each.offset_data + (-(-each.size // 512) * 512 if each.isreg() else 0)
    except (tarfile.TarError, ValueError, OverflowError, UnicodeError) as error:
        if not members:
            raise ValueError(f"its archive is no tar, or damaged ({error}). Fetch it again") from None
        return Directory(members, f"damaged behind byte {end:,}")
    is_ended = end >= archive.size or not archive.read_at(end, end + 512).strip(b"\0")
    return Directory(members, None if is_ended and end <= archive.size else f"damaged behind byte {end:,}")


def _check_count(number: int) -> None:
    if number > MOST_MEMBERS:
        raise TooMuch(f"its archive has more than {MOST_MEMBERS:,} members. Divide it")


def _plain(name: str) -> str:
    """A member's name as records give it: `./clips/x.mp4` is `clips/x.mp4`."""
    return posixpath.normpath(name.replace("\\", "/").lstrip("/") or ".")
