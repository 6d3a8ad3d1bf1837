"""Files of stores (S3, GCS, the Hub, HTTP ...) by fsspec: how large they are, and their bytes, asked for a bounded number of times."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cachetools import TTLCache

from .addresses import without_secrets
from .blobs import BLOCK, Blob, Blocks
from .limits import meter


REQUEST_SECONDS = 30.0  # that one request may take
TRIES = 4  # of a request that fails by no fault of its own
PAUSE_SECONDS = 0.5  # before the second try; twice that before the third ...
WHOLE_BYTES = 2**23  # files up to this size are fetched in one request
KNOWN_SECONDS = 60.0  # that a file's size and version hold
# What tells one content of a file from another, as the file systems of fsspec name it; the first that is there
_VERSIONS = ("ETag", "etag", "md5Hash", "blob_id", "content_md5", "Last-Modified", "LastModified", "mtime", "updated")
_known: TTLCache[str, Found] = TTLCache(4096, KNOWN_SECONDS)
_lock = threading.Lock()
_systems: dict[tuple[str, int], Any] = {}  # by protocol and process: a fork must not use its parent's


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class Found(NamedTuple):
    """A file of a store: its size, and what tells its content from another; `None` where the store does not say."""

    size: int
    version: str | None


def look_up(address: str) -> Found:
    """
    Size and version of a file, remembered for a minute.

    Raises:
        `FileNotFoundError`: there is none. `ValueError`, with the reason: the store does not answer, or forbids it.
    """
    with _lock:
        found = _known.get(address)
    if found is None:
        info: Mapping[str, Any] = _ask(address, "info")
        if info.get("type") == "directory":
            raise ValueError("a directory")
        if info.get("size") is None:
            raise ValueError("its store does not say how large it is")
        version = next((f"{name} {info[name]}" for name in _VERSIONS if info.get(name) is not None), None)
        found = Found(int(info["size"]), version)
        with _lock:
            _known[address] = found
    return found


def far_file(address: str, block: int = BLOCK) -> Blob:
    """
    A file of a store, fetched in ranges; of a small one all of it at once.

    Raises as [`look_up`] does.
    """
    size = look_up(address).size

    def fetch(begin: int, end: int) -> bytes:
        found: bytes = _ask(address, "cat_file", start=begin, end=end)
        if len(found) != end - begin:
            if len(found) == size:
                raise ValueError("its server gives no parts of files (HTTP ranges). Use one that does, or copy it")
            raise ValueError(f"its store gave {len(found):,} bytes of {end - begin:,}: it has changed meanwhile")
        return found

    if 0 < size <= WHOLE_BYTES:
        whole: list[bytes] = []

        def read_at(begin: int, end: int) -> bytes:
            if not whole:
                whole.append(fetch(0, size))
            return whole[0][begin:end]

        return Blob(size, read_at)
    blocks = Blocks(size, fetch, block)
    found = Blob(size, blocks, is_far=True)
    found.blocks = blocks, 0
    return found


def _ask(address: str, what: str, **arguments: int) -> Any:
    """What a file system's method gives, after as many tries as it takes, up to `TRIES`."""
    attempt = 0
    while True:
        attempt += 1
        meter().check()
        try:
            return _asked(address, what, arguments, min(REQUEST_SECONDS, meter().left()))
        except Exception as error:
            cause = _cause(error)
            if isinstance(cause, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "no such file") from None
            # no cause: its message may hold what nobody may read
            if isinstance(cause, ImportError):
                raise ValueError(f"{_said(cause)}. Install it, such as by pip install 'videor1_trl[s3]'") from None
            if not _may_pass(cause):
                raise ValueError(f"its store refuses it ({_said(cause)})") from None
            meter().check()
            if attempt == TRIES:
                raise ValueError(f"its store failed {TRIES} times, at last with {_said(cause)}") from None
            time.sleep(min(PAUSE_SECONDS * 2 ** (attempt - 1), meter().left()))


def _asked(address: str, what: str, arguments: Mapping[str, int], seconds: float) -> Any:
    system, path = _system(address)
    if getattr(system, "async_impl", False):
        from fsspec.asyn import sync

        return sync(system.loop, getattr(system, f"_{what}"), path, timeout=seconds, **arguments)
    options = {} if what == "info" else {"cache_type": "none"}  # else five more megabytes are read with each range
    return _within(seconds, lambda: getattr(system, what)(path, **arguments, **options))


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, one for each process, and the path within it."""
    import fsspec

    protocol = address.partition("://")[0]
    key = protocol, os.getpid()
    if key not in _systems:
        _systems[key] = fsspec.filesystem(protocol, skip_instance_cache=True)
    return _systems[key], _systems[key]._strip_protocol(address)


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """What a function gives that may stand still, in a thread that is left behind then."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(function())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True, name="videor1_trl-store")
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError
    return found[0]


def _cause(error: Exception) -> BaseException:
    """What went wrong: fsspec's HTTP takes everything for a file that is not there."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None and getattr(cause, "status", None) not in (404, 410):
        return error if isinstance(cause, (FileNotFoundError, KeyError)) or _is_not_found(cause) else cause
    return error


def _is_not_found(error: BaseException) -> bool:
    """Whether an answer of S3 says so: s3fs translates it."""
    answer = getattr(error, "response", None)
    return isinstance(answer, Mapping) and str(answer.get("Error", {}).get("Code")) in ("404", "NoSuchKey")


def _may_pass(error: BaseException) -> bool:
    """Whether the next try may go better."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 429)
    return not isinstance(error, (PermissionError, IsADirectoryError, NotImplementedError, ValueError, TypeError))


def _said(error: BaseException) -> str:
    """What an error of a store says, without addresses, which may be signed."""
    if isinstance(error, TimeoutError) or type(error).__name__ in ("FSTimeoutError", "TimeoutError"):
        return f"no answer within {min(REQUEST_SECONDS, meter().limits.seconds):g} s"
    status = getattr(error, "status", None)
    text = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    text = re.sub(r"\S*://\S*", "...", without_secrets(str(text)))[:160].strip()
    return " ".join(filter(None, [type(error).__name__, str(status or ""), text and f"{text!r}"]))
