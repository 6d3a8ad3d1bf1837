"""Whether the files of a dataset's media can be read, seen before a run."""

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal

import datasets
from datasets.utils import tqdm

from ..text.messages import Named
from .archives import NO_MEMBER
from .columns import IMAGE_COLUMNS, MEDIA_COLUMNS, _cast
from .errors import MediaError, VideoError, printable, reason
from .images import check_sides, load_image
from .limits import Limits, meter, metered
from .opening import open_container, video_stream
from .sources import NO_FILE, opened_source
from .video import load_video


logger = logging.getLogger(__name__)


_MISSING = (NO_FILE, NO_MEMBER)
_BATCH = 64  # rows read at a time: media embedded in the dataset are in memory for that long


@dataclass
class MediaReport:
    """
    What [`check_media`] found.

    Args:
        checked (`int`): distinct files (or embedded media) looked at.
        missing (`list[str]`): paths at which there is no file.
        unreadable (`dict[str, str]`): path -> reason, for files that are there and do not decode.
        rows (`list[int]`): indices of the dataset's rows that use one of these, ascending.
    """

    checked: int = 0
    missing: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every file could be read."""
        return not self.rows

    def __str__(self) -> str:
        """A heading and at most ten files of each kind."""
        lines = [
            f"media check: {self.checked} files, {len(self.missing)} missing, {len(self.unreadable)} unreadable, "
            f"{len(self.rows)} rows affected"
        ]
        for title, paths in (("missing", self.missing), ("unreadable", list(self.unreadable))):
            for path in paths[:10]:
                reason = self.unreadable.get(path)
                lines.append(f"  {title:<10}  {path}" + (f"  ({reason})" if reason else ""))
            if len(paths) > 10:
                lines.append(f"  {title:<10}  and {len(paths) - 10} more")
        return "\n".join(lines)


def check_media(
    dataset: datasets.Dataset,
    *,
    decode: Literal["first_frame", "sampled_frames"] = "first_frame",
    drop: bool = False,
    num_workers: int | None = None,
    **sampling: Any,
) -> tuple[datasets.Dataset, MediaReport]:
    """
    Reads each distinct file of the columns `video`, `videos`, `image` and `images` once, before a run.

    Works on paths, dicts (`path`, `start`, `end`, `bytes`), lists of them, `None`, and `datasets.Video` and
    `datasets.Image` columns. Arrays have nothing to read and are passed over. Images are always decoded in full.

    Args:
        dataset: a `datasets.Dataset` (not a streaming one, not several splits).
        decode: of a video, `"first_frame"` (default: the container opens, has a video stream, and its first frame
            decodes) or `"sampled_frames"`: everything training reads, by `load_video`, clip boundaries included.
        drop: return the dataset without the rows whose media are missing or unreadable; how many is logged.
        num_workers: threads (>= 1). Defaults to the CPU count + 4, at most 32.
        **sampling: for `load_video` with `decode="sampled_frames"`, such as `fps` and `max_frames`; `limits`, with the stores that
            may be asked, and `isolation` for both.

    Returns:
        The dataset (the very one passed, unless rows were dropped) and a [`MediaReport`]. What is wrong is also
        logged as a warning; nothing is raised for it.
    """
    if not isinstance(dataset, datasets.Dataset):
        raise TypeError(
            f"check_media takes a datasets.Dataset, not {type(dataset).__name__}: pass one split, and a streaming "
            "dataset before it is made one, or after Dataset.from_list(list(dataset))."
        )
    if decode not in ("first_frame", "sampled_frames"):
        raise ValueError(f"decode ({decode!r}) must be 'first_frame' or 'sampled_frames'.")
    bounds = {name: value for name, value in sampling.items() if name in ("limits", "isolation")}
    if sampling.keys() - bounds.keys() and decode == "first_frame":
        raise ValueError(f"{', '.join(sampling)}: sampling options need decode='sampled_frames'.")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers ({num_workers}) must be at least 1.")
    clips = decode == "sampled_frames"
    limits: Limits | None = bounds.get("limits")
    check_video = partial(load_video, **sampling) if clips else partial(_first_frame, limits=limits)
    check_image = partial(load_image, **bounds)
    faults: dict[tuple, str | None] = {}  # of every medium seen; None: it can be read
    report = MediaReport()
    workers = num_workers or min(32, (os.cpu_count() or 1) + 4)
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(dataset), desc="Checking media") as bar:
        for rows in _batches(dataset, clips):
            new = {key: file for files in rows.values() for key, file in files.items() if key not in faults}
            faults.update(
                zip(new, pool.map(partial(_fault, check_video, check_image), new, new.values()), strict=True)
            )
            report.rows += [row for row, files in rows.items() if any(faults[key] for key in files)]
            bar.update(len(rows))
    report.checked = len(faults)
    failed = {label: fault for (_, label, *_), fault in faults.items() if fault}
    report.missing = sorted(label for label, fault in failed.items() if fault in _MISSING)
    report.unreadable = {label: fault for label, fault in sorted(failed.items()) if fault not in _MISSING}
    return _without_bad_rows(dataset, report, drop), report


def _without_bad_rows(dataset: datasets.Dataset, report: MediaReport, drop: bool) -> datasets.Dataset:
    """Logs what the report found; leaves the rows out if `drop`."""
    if report.ok:
        return dataset
    if not drop:
        logger.warning("%s\nTraining will stop at these rows: mend them, or pass drop=True.", report)
        return dataset
    logger.warning("Dropped %d of %d rows, whose media cannot be read. %s", len(report.rows), len(dataset), report)
    bad = set(report.rows)
    return dataset.select([row for row in range(len(dataset)) if row not in bad])


def _batches(dataset: datasets.Dataset, clips: bool) -> Iterator[dict[int, dict[tuple, dict]]]:
    """Per batch of rows: row -> its files, as `_files` gives them."""
    columns = [name for name in MEDIA_COLUMNS if name in dataset.column_names]
    if not columns:
        return
    media = _cast(dataset.select_columns(columns).with_format(None), (datasets.Video, datasets.Image))
    rows = enumerate(media)
    while batch := list(islice(rows, _BATCH)):
        yield {row: _files(row, cells, clips) for row, cells in batch}


def _files(row: int, cells: dict[str, object], clips: bool) -> dict[tuple, dict]:
    """
    Key -> `{"path", ...}` of each file in a row's media columns.

    A key begins with the kind, "video" or "image", and the label that names the file in the report. Equal keys need
    one look: they are of the same file and, if `clips` count, of the same clip. Embedded bytes equal no others.
    """
    files: dict[tuple, dict] = {}
    for column, value in cells.items():
        for kind, file in _flatten(column, value):
            cell, path = f"row {row}, {column}", file.get("path") or file.get("frames")
            path = path if path is None or isinstance(path, str) else repr(path)
            key: tuple = (kind, path or cell)
            if file.get("bytes") is not None:  # the path is then only a name
                key = (kind, f"{cell}: {path}" if path else cell, len(files))
            elif clips:
                key += (repr(file.get("start")), repr(file.get("end")))
            files[key] = file
    return files


def _flatten(column: str, value: object) -> Iterator[tuple[str, dict]]:
    """(kind, file) of each file in one cell. A list is frames in `video` and inside `videos`, else several media."""
    frames = isinstance(value, list) and column == "video"
    kind = "image" if frames or column in IMAGE_COLUMNS else "video"
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, list):
            yield from _flatten("video", item)
        elif isinstance(item, (str, bytes)):
            yield kind, {"path" if isinstance(item, str) else "bytes": item}
        elif isinstance(item, dict):
            yield kind, item


def _fault(
    check_video: Callable[[Any], object], check_image: Callable[[Any], object], key: tuple, file: Named
) -> str | None:
    """Why a file cannot be read; `None` if it can."""
    try:
        (check_video if key[0] == "video" else check_image)(file)
    except MediaError as error:
        return printable(error.reason)
    return None


def _first_frame(file: Named, limits: Limits | None) -> None:
    """Decodes the first frame of a video; `VideoError` if there is none."""
    if "frames" in file:
        load_video(file, num_frames=1)
        return
    name = str(file.get("path") or "bytes")
    source = {key: file[key] for key in ("path", "bytes") if file.get(key) is not None}
    try:
        with metered(limits), opened_source(source, VideoError) as (data, name), open_container(data) as container:
            stream = video_stream(container, name)
            stream.codec_context.thread_count = 1  # the pool's threads are enough
            frame = next(meter().each(container.decode(stream)), None)
            if frame is None:
                raise VideoError(name, "no frame decodes")
            check_sides(frame.width, frame.height, VideoError, name)
    except VideoError:
        raise
    except Exception as error:  # whatever a demuxer or decoder raises is this file's
        raise VideoError(name, reason(error)) from error
