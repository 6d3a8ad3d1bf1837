"""Where the bytes of a video or an image are: in a file, handed over, in a store, or in an archive; one way to all of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path

from .addresses import check_archive, is_remote, is_within, split_member, without_secrets
from .archives import NO_MEMBER, directory_of, member_of
from .blobs import Blob, of_file
from .errors import MediaError, printable
from .limits import Limits, meter, metered
from .stores import far_file, look_up


Data = str | bytes | Blob  # a path, what a file contains, or a way to read it
NO_FILE = "no such file"
_DIRECTORY_BLOCK = 2**14  # the headers of a tar lie far from each other


def named_source(
    source: str | Path | bytes | Mapping[str, object], error: type[MediaError]
) -> tuple[str | bytes, str]:
    """
    A path (`str`) or the bytes, and the name for messages, of a path, of bytes or of a dict; whether it is there is not looked at.

    Raises `error` for what has the shape of none.
    """
    data: object = None
    path: object = source
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, path = source, None
    elif isinstance(source, dict):
        data, path = source.get("bytes"), source.get("path")
        unknown = sorted(printable(str(each)) for each in set(source) - {"path", "bytes", "start", "end"})
        if unknown or (data is None and path is None):
            what = f"has unknown keys {unknown}" if unknown else "has neither path nor bytes"
            raise error(str(path or "<dict>"), f"the dict {what}. Its keys are path, bytes, start and end.")
    if data is not None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise error(str(path or "<bytes>"), f"bytes is of type {type(data).__name__}. Pass a bytes object.")
        return bytes(data), str(path or "<bytes>")
    if not isinstance(path, (str, Path)):
        raise error(f"<{type(path).__name__}>", "path is neither a str nor a pathlib.Path. Pass one of them.")
    return str(path), without_secrets(str(path)) if is_remote(str(path)) else str(path)


@contextlib.contextmanager
def opened_source(
    source: str | Path | bytes | Mapping[str, object], error: type[MediaError]
) -> Iterator[tuple[Data, str]]:
    """
    What a source holds, and its name for messages: the path of a file here, its bytes, or a [`Blob`] of what lies in a store or an
    archive. Within the limits of the reading around it.

    Raises `error`: there is no such file, or its store was not named. Whatever of a store or an archive goes wrong within comes out as
    its own reason.
    """
    data, name = named_source(source, error)
    if isinstance(data, bytes):
        yield data, name
        return
    fault = _fault_of_path(data, meter().limits)
    if fault is not None:
        raise error(name, fault)
    file, member = split_member(data)
    if member is None and not is_remote(file):
        yield data, name
        return
    with contextlib.ExitStack() as stack:
        try:
            blob = _blob_of(file, member, stack)
        except FileNotFoundError as missing:
            raise error(name, NO_MEMBER if missing.args == (NO_MEMBER,) else NO_FILE) from None
        try:
            yield blob, name
        except Exception:
            if blob.failure is not None:  # whatever the demuxer made of it
                raise blob.failure from None
            raise
        if blob.failure is not None:
            raise blob.failure


def _blob_of(file: str, member: str | None, stack: contextlib.ExitStack) -> Blob:
    if member is not None:
        check_archive(file)
    if is_remote(file):
        blob = far_file(file)
        version: Hashable = look_up(file).version
        listed = far_file(file, _DIRECTORY_BLOCK) if member is not None and file.lower().endswith(".tar") else blob
    else:
        blob = listed = of_file(stack.enter_context(open(file, "rb")))
        version = os.stat(file).st_mtime_ns
    if member is None:
        return blob
    return member_of(blob, directory_of(listed, file, version), member)


def fault_of(source: str | Path | Mapping[str, object], limits: Limits | None = None) -> str | None:
    """
    Why there is no file to read, without looking into it; `None` where there is one.

    Args:
        source: a path, or a dict with `path` or `bytes`.
        limits ([`Limits`], *optional*): with the stores that may be asked.
    """
    path = source.get("path") if isinstance(source, dict) else source
    if isinstance(source, dict) and source.get("bytes") is not None:
        return None
    if not path:
        return "has neither path nor bytes"
    if not isinstance(path, (str, Path)):
        return "its path is no text"
    with metered(limits or Limits()):
        fault = _fault_of_path(str(path), limits or Limits())
        file, member = split_member(str(path))
        if fault is not None or (member is None and not is_remote(file)):
            return fault
        try:
            with opened_source(str(path), MediaError):
                return None
        except MediaError as error:
            return error.reason
        except Exception as error:
            return printable(str(error))


def _fault_of_path(path: str, limits: Limits) -> str | None:
    """What keeps a path from being opened, as far as this machine knows."""
    file, _ = split_member(path)
    if is_remote(file):
        if is_within(path, limits.stores):
            return None
        return (
            "a URL, and only local files and stores that were named are read. Download it first, or name its store in "
            "media_stores (Limits(stores=...))."
        )
    try:
        found = os.stat(file) if "\0" not in file else None
    except (OSError, ValueError):
        found = None
    if found is None:
        return NO_FILE
    if not stat.S_ISREG(found.st_mode):  # a pipe or a device would be waited on for ever
        return "a directory" if stat.S_ISDIR(found.st_mode) else "not a regular file"
    return None


def state_of(path: str | Path) -> Hashable:
    """
    What tells one content of a file from another within a run, without asking a store, whose files are taken as unchanging;
    `None` where there is no such file.
    """
    file, _ = split_member(str(path))
    if is_remote(file):
        return "far"
    try:
        found = os.stat(file)
    except (OSError, ValueError):  # reading it says what is wrong
        return None
    return found.st_mtime_ns, found.st_size


def version_of(source: object, limits: Limits | None = None) -> str | None:
    """
    What tells one content of a file, or of bytes, from another, also in other runs; `None` for what is neither, and for files of
    stores that say no more than a size.
    """
    if isinstance(source, dict) and source.get("bytes") is None:
        if "frames" in source:
            return None
        source = source.get("path")
    elif isinstance(source, dict):
        source = source["bytes"]
    if isinstance(source, (bytes, bytearray, memoryview)):
        return hashlib.sha256(source).hexdigest()
    if not isinstance(source, (str, Path)):
        return None
    path = str(source)
    file, member = split_member(path)
    try:
        if not is_remote(file):
            found = os.stat(file)
            inner = "" if member is None else f"::{member}"
            return f"{os.path.abspath(file)}{inner} {found.st_size} {found.st_mtime_ns}"
        if not is_within(path, (limits or Limits()).stores):
            return None
        with metered(limits or Limits()):
            far = look_up(file)
        return None if far.version is None else f"{path} {far.size} {far.version}"
    except (OSError, ValueError):  # reading it says what is wrong
        return None
