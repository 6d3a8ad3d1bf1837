"""Decoded, sampled and resized frames kept in a folder that ranks and runs share: a video that comes again is not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import av
import safetensors
import torchvision
from filelock import FileLock
from safetensors.torch import save_file
from transformers.video_utils import VideoMetadata

from .loader import Video
from .shrink import Shrink


logger = logging.getLogger(__name__)

FORMAT = 2  # of the files; other ones are not read
ROOM = (
    0.9  # of the bound, to which the folder is brought once it is reached: not every file costs a look at all of them
)
PART_SECONDS = 3600  # after which a file that was not finished is nobody's any more
_SUFFIX, _PART = ".safetensors", ".part"


class FrameCache:
    """
    Frames of videos in a folder.

    A video is known by where it lies, its size and the time of its last change (what is handed over as bytes: by these), its clip,
    how it is sampled and resized, and by what decodes it. A file is written under another name first and then renamed, so that a
    reader finds all of it or nothing, whoever is killed when; all that changes the folder's size happens under a lock that the
    system takes back from the dead. What was not used for the longest time leaves first.

    Args:
        folder (`str` or `Path`): is made where it is not there.
        max_bytes (`int`): of all files in it, > 0.

    Raises `ValueError` where nothing can be written there.
    """

    def __init__(self, folder: str | Path, max_bytes: int):
        self.folder, self.max_bytes = Path(folder).expanduser(), max_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._part().touch()
            self._remove_parts(older_than=PART_SECONDS, own=True)
        except OSError as error:
            raise ValueError(
                f"media_cache_dir ({folder}): {error.strerror}. Give a folder that can be written to, or unset it."
            ) from error
        self._lock = FileLock(self.folder / "lock")
        self._warned = False

    def get(
        self,
        source: object,
        settings: Mapping[str, object],
        shrink: Shrink | None,
        version: Callable[[object], str | None],
        read: Callable[[], Video],
    ) -> Video:
        """
        The frames and metadata of a video: kept ones, else what `read` gives, which is kept from now on.

        Args:
            source: as [`~media.video.load_video`] takes it.
            settings (`Mapping`): how it is sampled.
            shrink ([`~media.shrink.Shrink`], *optional*): how it is resized.
            version (`Callable`): `(source) -> str`, what tells one content of it from another; `None`: it is not kept.
            read (`Callable`): reads the video; whatever it raises is raised, and nothing is kept.
        """
        key = self._key(source, settings, shrink, version)
        if key is None:
            return read()
        path = self.folder / key[:2] / f"{key}{_SUFFIX}"
        found = self._load(path)
        if found is None:
            found = read()
            self._keep(path, found)
        return found

    def _key(
        self,
        source: object,
        settings: Mapping[str, object],
        shrink: Shrink | None,
        version: Callable[[object], str | None],
    ) -> str | None:
        content = version(source)
        if content is None:
            return None
        # all else that a source says of what it shows, whatever names there are: its clip, whether it runs backwards ...
        asked = source.items() if isinstance(source, dict) else ()
        clip = {
            str(name): value for name, value in asked if name not in ("path", "bytes") and value not in (None, False)
        }
        sampling = {name: settings.get(name) for name in ("fps", "min_frames", "max_frames", "num_frames")}
        decoders = [FORMAT, av.__version__, torchvision.__version__]
        text = json.dumps([decoders, content, clip, sampling, shrink and shrink.name], sort_keys=True, default=repr)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _load(self, path: Path) -> Video | None:
        """What a file holds; `None` where there is none, or one that is not whole, which is removed."""
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = json.loads(file.metadata()["video"])
                frames = file.get_tensor("frames")
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError):  # a disk that lost power
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return frames.permute(0, 3, 1, 2), VideoMetadata(**metadata)

    def _keep(self, path: Path, video: Video) -> None:
        frames, metadata = video
        part = self._part()
        try:
            said = {"video": json.dumps(asdict(metadata))}
            save_file({"frames": frames.permute(0, 2, 3, 1).contiguous()}, part, metadata=said)
            size = part.stat().st_size
            with self._lock:
                if size <= self.max_bytes and not path.exists():
                    self._make_room(size)
                    path.parent.mkdir(exist_ok=True)
                    os.replace(part, path)
        except (OSError, safetensors.SafetensorError) as error:
            if not self._warned:
                logger.warning(
                    f"media_cache_dir ({self.folder}): {error}. The run goes on without keeping such frames."
                )
            self._warned = True
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Under the lock: sees that `size` bytes more are within the bound, and takes note of them before they are there."""
        note = self.folder / "bytes"
        try:
            total = int(note.read_text())
        except (OSError, ValueError):
            total = self._total()
        if total + size > self.max_bytes:
            self._remove_parts(older_than=PART_SECONDS)
            kept = sorted(self._kept(), key=lambda each: each[1].st_mtime_ns)
            total = sum(found.st_size for _, found in kept)  # others, or the user, may have removed some
            most = self.max_bytes if total + size <= self.max_bytes else int(self.max_bytes * ROOM)
            for old, found in kept:
                if total + size <= most or not total:
                    break
                old.unlink(missing_ok=True)
                total -= found.st_size
        note.write_text(
            str(total + size)
        )  # garbled by a kill it is counted anew; too high, it is, too, once it matters

    def _kept(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob(f"??/*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                yield path, path.stat()

    def _total(self) -> int:
        return sum(found.st_size for _, found in self._kept())

    def _part(self) -> Path:
        return self.folder / f"{os.getpid()}-{uuid.uuid4().hex}{_PART}"

    def _remove_parts(self, older_than: float, own: bool = False) -> None:
        """What others did not finish and will not any more."""
        for part in self.folder.glob(f"*{_PART}"):
            with contextlib.suppress(OSError):
                is_own = own and part.name.startswith(f"{os.getpid()}-") and part.stat().st_size == 0
                if is_own or time.time() - part.stat().st_mtime > older_than:
                    part.unlink()

    def __len__(self) -> int:
        return sum(1 for _ in self._kept())
