"""Where the media of records lie: a folder, an archive or a store that the user names, and the paths of records under it."""

import os
import re
from pathlib import Path

from ..media.addresses import (
    checked_store,
    is_archive_root,
    is_remote,
    member_name,
    split_member,
    under_store,
    without_secrets,
)


def resolve_path(path: str, root: str | Path) -> str:
    """
    The absolute path of a record's `path`, or its address, which must stay under `root`.

    Decided from the text alone, without opening anything: `..` is worked out first, so `a/../b.mp4` is `ROOT/b.mp4`
    whatever `a` is. `clips.zip::b.mp4` is a member of an archive; where `root` is an archive, every path is one. A backslash
    separates folders as on Windows. An absolute path is accepted where it lies under `root`. Symbolic links
    are followed when the file is opened, wherever they lead: records cannot make one, and linking a disk of videos into `root`
    is common.

    Args:
        path (`str`): relative or absolute, as the record has it.
        root (`str` or `Path`): a folder or an archive, relative to the working directory unless absolute, or an address.

    Raises:
        `ValueError`: a path that leaves `root`, has a drive letter, is a URL, holds a null character or names no file.

    >>> resolve_path("./clips/x.mp4", "/data")
    '/data/clips/x.mp4'
    """
    if "\0" in path:
        raise ValueError(f"{path!r} holds a null character.")
    text = path.replace("\\", "/")
    if "://" in text:
        raise ValueError(f"{path!r} is a URL: download the file and give its path.")
    if re.match(r"[A-Za-z]:", text) or text.startswith("//"):
        raise ValueError(f"{path!r} names a drive or a network share: give it relative to root.")
    if is_remote(str(root)):
        return under_store(text, str(root))
    base = os.path.abspath(root)
    if is_archive_root(base):
        return f"{base}::{member_name(text)}"
    text, member = split_member(text)
    full = os.path.normpath(os.path.join(base, text))
    # An absolute path may also be written with the links in root's own path resolved.
    homes = [base] if not os.path.isabs(text) else [base, os.path.realpath(base)]
    if full in homes:
        raise ValueError(f"{path!r} names no file under root ({base}).")
    if not any(full.startswith(os.path.join(home, "")) for home in homes):
        raise ValueError(f"{path!r} leaves root ({base}): move the file under root, or set root.")
    return full if member is None else f"{full}::{member_name(member)}"


def checked_root(root: str | Path) -> str:
    """A folder or an archive that is there, by its absolute path, or an address that may be one."""
    if is_remote(str(root)):
        try:
            return checked_store(str(root))
        except ValueError as error:
            raise ValueError(f"root ({without_secrets(str(root))}) cannot be read from: {error}") from None
    folder = os.path.abspath(os.path.expanduser(root))
    if not os.path.isdir(folder) and not (is_archive_root(folder) and os.path.isfile(folder)):
        raise ValueError(
            f"root ({folder}) is not a folder: give the folder, or the zip or tar archive, that the records' paths are relative to."
        )
    return folder
