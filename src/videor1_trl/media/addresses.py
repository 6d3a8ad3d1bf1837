"""Where media lie, as text: folders and files here, addresses in stores, and members of archives in either. Opens nothing."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from urllib.parse import quote, urlsplit


ARCHIVES = (".zip", ".tar")
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".gz", ".7z", ".rar")
_SUFFIXES = "|".join(map(re.escape, (*ARCHIVES, *_PACKED)))
_MEMBER = re.compile(rf"(.+?(?:{_SUFFIXES}))::(.*)", re.IGNORECASE | re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_remote(text: str) -> bool:
    """Whether a text is an address in a store, such as `s3://bucket/clip.mp4`; a file here is none."""
    return "://" in text


def split_member(text: str) -> tuple[str, str | None]:
    """
    An archive and the name of its member, or a file and `None`.

    >>> split_member("data/videos.zip::clips/x.mp4")
    ('data/videos.zip', 'clips/x.mp4')
    >>> split_member("clips/x.mp4")
    ('clips/x.mp4', None)
    """
    found = _MEMBER.fullmatch(text)
    return (found[1], found[2]) if found else (text, None)


def check_archive(path: str) -> None:
    """Raises a `ValueError` for an archive in which no member can be reached without all that lies before it."""
    if not path.lower().endswith(ARCHIVES):
        raise ValueError(
            f"only members of {' and '.join(ARCHIVES)} archives are read where they lie. Repack it as one of them, or unpack it"
        )


def checked_store(address: str) -> str:
    """
    The address of a store, or of a folder or an archive in it, without a `/` at its end.

    Raises:
        `ValueError`: a scheme that fsspec does not know, a local one, a name and password, a query or a chain in it.
    """
    scheme = _SCHEME.match(address)
    shown = without_secrets(address)
    if scheme is None:
        raise ValueError(f"{shown!r} is no address of a store. Give one such as s3://bucket/videos.")
    from fsspec.registry import known_implementations, registry

    name = scheme[0][:-3].lower()
    if name in ("file", "local"):
        raise ValueError(f"{shown!r} is a folder of this machine: give it as a path.")
    if name not in known_implementations and name not in registry:
        raise ValueError(f"{shown!r}: fsspec knows no {name}://. Give s3, gs, hf, https or another of its own.")
    parts = urlsplit(address)
    if "@" in parts.netloc and name != "hf":
        raise ValueError(
            f"{shown!r} holds a name or a password, which would stand in messages. Give them as fsspec or its library "
            "takes them, in the environment or a file."
        )
    rest = address[scheme.end() :]
    if "?" in rest or "#" in rest:
        raise ValueError(f"{shown!r} holds a query or a fragment: give the address without them.")
    archive, member = split_member(address)
    if "::" in archive or member is not None:
        raise ValueError(f"{shown!r} holds '::', which names a member of an archive: give the archive, or its folder.")
    if not rest.strip("/") or any(part in (".", "..") for part in rest.split("/")):
        raise ValueError(f"{shown!r} names no store, or holds '..'.")
    return scheme[0].lower() + rest.rstrip("/")


def without_secrets(address: str) -> str:
    """An address as messages may show it: neither a name and password nor a query."""
    address = re.sub(r"(://)[^/@]*@", r"\1...@", address) if not address.lower().startswith("hf:") else address
    return re.sub(r"\?.*", "?...", address, flags=re.DOTALL)


def is_within(address: str, stores: Sequence[str]) -> bool:
    """Whether an address is one of these, or lies in one of them."""
    plain = not any(part in (".", "..") for part in re.split(r"/|::", address))
    return plain and any(address == store or address.startswith((f"{store}/", f"{store}::")) for store in stores)


def under_store(path: str, root: str) -> str:
    """
    The address of a record's `path`, which is relative, under `root`: a store, a folder or an archive in it.

    Raises:
        `ValueError`: a path that leaves `root`, that is absolute, or that names no file.

    >>> under_store("clips/../x.mp4", "s3://bucket/videos")
    's3://bucket/videos/x.mp4'
    >>> under_store("more.zip::x.mp4", "s3://bucket/videos")
    's3://bucket/videos/more.zip::x.mp4'
    """
    if _is_archive(root):
        return f"{root}::{member_name(path)}"
    if path.startswith("/"):
        raise ValueError(f"{path!r} is absolute: give it relative to root ({root}).")
    file, member = split_member(path)
    normal = posixpath.normpath(file)
    if normal == "." or file.endswith("/"):
        raise ValueError(f"{path!r} names no file under root ({root}).")
    if normal.split("/")[0] == "..":
        raise ValueError(f"{path!r} leaves root ({root}): move the file under root, or set root.")
    if "::" in normal:
        raise ValueError(f"{path!r} holds '::', which names a member of a {' or '.join(ARCHIVES)} archive.")
    if root.startswith(("http://", "https://")):
        normal = quote(normal)  # whatever servers take for a query, or for dots, is a part of the name
    return f"{root}/{normal}" + ("" if member is None else f"::{member_name(member)}")


def member_name(path: str) -> str:
    """
    The name of an archive's member, `..` worked out.

    Raises:
        `ValueError`: it leaves the archive, or is of an archive within it.
    """
    if split_member(path)[1] is not None:
        raise ValueError(f"{path!r} lies in an archive within another: unpack the outer one.")
    normal = posixpath.normpath(path or ".")
    if normal == "." or normal.split("/")[0] in ("", ".."):
        raise ValueError(f"{path!r} names no member of the archive: give its name in it.")
    return normal


def is_archive_root(root: str) -> bool:
    """Whether media are members of `root` itself, which is an archive here or in a store."""
    return _is_archive(root) and not (os.path.isdir(root) and not is_remote(root))


def _is_archive(path: str) -> bool:
    return path.lower().endswith((*ARCHIVES, *_PACKED[:-3]))
