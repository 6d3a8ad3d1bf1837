"""What the containers of videos say of themselves, read byte by byte: what they announce, and whether all of it is there."""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from .blobs import Blob
from .limits import meter


# Boxes of an mp4 (ISO 14496-12) in which FFmpeg looks for those that announce frames, the usual ones and those in which none stand
_HOLDERS = (
    *(b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"),
    *(b"edts", b"udta", b"mvex", b"tref", b"dinf", b"wave", b"sinf", b"ilst"),
)
_DEEPEST = 32  # boxes in one another
_MOST_BOXES = 64  # beside each other, of a file that is not written in fragments
_MOST_UNPACKED = 2**26  # bytes of a head that is stored packed (`cmov`, of old QuickTime files)
_SOUND = int.from_bytes(b"soun", "big")
_SIZES_OF_ITS_OWN = 0x000F00  # flags of a `trun` whose frames take bytes of the box


class _Box(NamedTuple):
    kind: bytes
    begin: int  # of its content
    end: int


def check_announced(data: str | bytes | Blob) -> None:
    """
    Raises where the head of a file announces more than is ever walked through, or larger frames: to open it would already
    take the memory of all that. Of mp4 files and GIFs; other containers announce nothing that is not there.
    """
    with opened(data) as file:
        head = file.read(12)
        if head[:4] == b"GIF8" and len(head) >= 10:
            meter().limits.check_pixels(*struct.unpack("<HH", head[6:10]))
        else:  # whatever box comes first; what is no mp4 has none, or is read as one with no effect
            meter().refuse(sum(_announced(file, 0, size_of(file))))


def _boxes(file: BinaryIO, place: int, end: int) -> Iterator[_Box]:
    """The boxes of an mp4 between two places, one behind the other."""
    while place + 8 <= end:
        meter().check()
        file.seek(place)
        length, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        begin = place + (16 if length == 1 else 8)
        length = {0: end - place, 1: large}.get(length, length)
        if place + length < begin:
            return
        yield _Box(kind, begin, min(place + length, end))
        place += length


def samples_of(data: Blob) -> list[tuple[int, int]] | None:
    """
    Where an mp4 keeps its samples, from byte to byte; `None` for what is none, or is written in fragments, so that its frames are
    not all listed in its head.
    """
    with data.open() as file:
        boxes: list[_Box] = []
        for box in _boxes(file, 0, data.size):
            boxes.append(box)
            if box.kind == b"moof" or len(boxes) > _MOST_BOXES:
                return None
    kinds = {box.kind for box in boxes}
    return [(box.begin, box.end) for box in boxes if box.kind == b"mdat"] if kinds >= {b"moov", b"mdat"} else None


def _announced(file: BinaryIO, place: int, end: int, is_sound: bool = False, depth: int = 0) -> Iterator[int]:
    """How many frames the boxes between two places announce without a byte for each."""
    if depth > _DEEPEST:
        raise ValueError(f"its boxes lie in one another more than {_DEEPEST} deep: it is no video, or damaged")
    boxes = list(_boxes(file, place, end))
    is_sound = is_sound or any(box.kind == b"hdlr" and _numbers(file, box, 2) == [_SOUND] for box in boxes)
    for box in boxes:
        if box.kind in _HOLDERS:
            yield from _announced(file, box.begin, box.end, is_sound, depth + 1)
        elif box.kind == b"cmov":
            unpacked = _unpacked(file, box)
            yield from _announced(io.BytesIO(unpacked), 0, len(unpacked), depth=depth + 1)
        elif box.kind == b"stsz" and not (is_sound and _are_units(file, boxes)):
            size, count = _numbers(file, box, 1, 2)
            yield count if size else 0
        elif box.kind == b"trun":
            flags, count = _numbers(file, box, 0, 1)
            yield 0 if flags & _SIZES_OF_ITS_OWN else count


def _numbers(file: BinaryIO, box: _Box, *places: int) -> list[int]:
    """The numbers of 32 bits at some places of a box."""
    file.seek(box.begin)
    found = file.read(4 * max(places) + 4).ljust(4 * max(places) + 4, b"\0")
    return [struct.unpack_from(">I", found, 4 * place)[0] for place in places]


def _unpacked(file: BinaryIO, box: _Box) -> bytes:
    """The head in a `cmov` box; raises a `ValueError` with the reason where it is larger than any, and as zlib does."""
    for inner in _boxes(file, box.begin, box.end):
        if inner.kind == b"cmvd":
            file.seek(inner.begin + 4)  # behind the size that it claims
            unpack = zlib.decompressobj()
            found = unpack.decompress(file.read(min(inner.end - inner.begin - 4, _MOST_UNPACKED)), _MOST_UNPACKED)
            if unpack.unconsumed_tail:
                raise ValueError(f"its head unpacks to more than {_MOST_UNPACKED:,} bytes. Encode it anew")
            return found
    return b""


def _are_units(file: BinaryIO, boxes: list[_Box]) -> bool:
    """Whether the samples of a sound last one unit of time each, as those of PCM: FFmpeg then keeps its chunks, not its samples."""
    return any(_numbers(file, box, 1, 3) == [1, 1] for box in boxes if box.kind == b"stts")


# Elements of Matroska (RFC 9559) by their identities; those that hold the blocks are looked into
_EBML_HEADER, _SEGMENT, _CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"


def opened(data: str | bytes | Blob) -> BinaryIO:
    if isinstance(data, Blob):
        return data.open()
    return open(data, "rb") if isinstance(data, str) else io.BytesIO(data)


def size_of(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _element(file: BinaryIO, place: int) -> tuple[bytes, int, int | None]:
    """
    The identity of the EBML element at `place` (RFC 8794), where its content begins, and where it ends: `None` where that was
    not known when it was written. `ValueError` where there is no element.
    """
    file.seek(place)
    head = file.read(12)
    width = 9 - head[0].bit_length() if head else 9
    if not 1 <= width <= 4 or len(head) <= width:
        raise ValueError("no element")
    size_width = 9 - head[width].bit_length()  # by the leading zeros
    begin = place + width + size_width
    if not 1 <= size_width <= 8 or len(head) < width + size_width:
        raise ValueError("no length")
    length = int.from_bytes(head[width : width + size_width], "big") & ((1 << 7 * size_width) - 1)
    return head[:width], begin, None if length == (1 << 7 * size_width) - 1 else begin + length


def segment_of(file: BinaryIO) -> tuple[int, int | None] | None:
    """Where the segment of a Matroska file begins and ends; `None` where there is none."""
    try:
        name, _, end = _element(file, 0)
        if name != _EBML_HEADER or end is None:
            return None
        name, begin, end = _element(file, end)
    except ValueError:
        return None
    return (begin, end) if name == _SEGMENT else None


def elements_end(file: BinaryIO) -> str:
    """
    How the elements of a Matroska file, read one behind the other down to its blocks, end: `"whole"` at the file's end, `"cut"`
    behind it, or `"broken"`, where something else than an element comes (zeros of a download that was not finished).
    """
    size, segment = size_of(file), segment_of(file)
    if segment is None:
        return "broken"
    place = segment[0]
    while place < size:
        meter().check()
        try:
            name, begin, end = _element(file, place)
        except ValueError:
            return "cut" if size - place < 12 else "broken"
        if name == _CLUSTER or end is None:  # whose blocks are read one by one
            place = begin
        elif end > size:
            return "cut"
        else:
            place = end
    return "whole" if place == size else "cut"


def dropped_frames(data: str | bytes | Blob, index: int) -> int:
    """The empty chunks of an AVI's stream: frames that were dropped, the picture before them staying on the screen."""
    names = {f"{index:02d}{kind}".encode() for kind in ("dc", "db")}
    count = 0
    with opened(data) as file:
        size, place = size_of(file), 0
        while place + 8 <= size:
            meter().check()
            file.seek(place)
            name, length, kind = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
            if name == b"RIFF" or (name == b"LIST" and kind in (b"movi", b"rec ")):
                place += 12  # looked into
                continue
            if not name.strip(b"\0"):
                break  # nothing but zeros: not all was written
            count += name in names and not length
            place += 8 + length + length % 2
    return count


def check_gif_ends(data: str | bytes | Blob) -> None:
    """A GIF counts nothing, but its last byte is a semicolon; else a `ValueError` with the reason."""
    with opened(data) as file:
        file.seek(max(size_of(file) - 64, 0))
        end = file.read()
    if not end.rstrip(b"\0\r\n ").endswith(b";"):
        raise ValueError("truncated: a GIF ends with a trailer byte, and this one has none. Fetch it again.")
