"""Video-R1's records as a `datasets.Dataset` in the trainer's columns, and the check of its media before a run."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import av
import datasets
import pyarrow as pa
from datasets.utils import tqdm

from .prompts import PROBLEM_TYPES, extract_answer, make_prompt
from .video import MediaError, VideoError, _open, _video_stream, load_image, load_video


logger = logging.getLogger(__name__)

VIDEO_COLUMNS = ("video", "videos")
IMAGE_COLUMNS = ("image", "images")
# Columns this module makes, and names the trainer would take for media: a record may not bring its own.
RESERVED = ("prompt", *VIDEO_COLUMNS, *IMAGE_COLUMNS)
# Fields whose type is known, so that a column of nothing but None or [] does not become Arrow's null type.
FIELD_TYPES = {
    "problem": pa.string(),
    "options": pa.list_(pa.string()),
    "data_type": pa.string(),
    "path": pa.string(),
}


# --- reading records ---------------------------------------------------------------------------------------------


class _Malformed(ValueError):
    """One record's fault: the field, and what is wrong with it."""

    def __init__(self, name: str | None, reason: str):
        super().__init__(reason if name is None else f"field {name!r}: {reason}")


def load_video_r1(
    source: str | Path | Sequence[str | Path],
    root: str | Path | None = None,
    split: str | None = None,
    *,
    data_files: str | Sequence[str] | None = None,
    on_bad_record: Literal["raise", "drop"] = "raise",
    max_reported: int = 10,
) -> datasets.Dataset:
    """
    Reads Video-R1's records into a dataset that `TGRPOTrainer` takes.

    Columns: `prompt` (one user message of plain text), `video` and `image` (absolute path `str`, or `None`: both are
    `None` in a text row), `solution`, `problem_type`, then every other field of the records, `None` where a record
    lacks it. The media are not opened: see [`check_media`]. Duplicate `problem_id`s are kept.

    Source of the format: Video-R1 (arXiv 2503.21776) and its released data.

    Args:
        source: a file with one JSON array, a JSON Lines file, several of them, a local folder (with `data_files`), or
            the id of a dataset on the Hub (with `data_files`; read by `datasets.load_dataset`).
        root: folder that each record's `path` is relative to. Defaults to the folder of the record's own file; a Hub
            dataset, whose media come in archives to unpack, has no default. See [`resolve_path`].
        split: split of a Hub dataset, slices such as `"train[:1000]"` included; defaults to `"train"`. Local files
            have none.
        data_files: the files of records inside a folder or a Hub dataset, such as `"Video-R1-260k.json"`.
        on_bad_record: `"raise"` (default) or `"drop"`, which leaves malformed records out and logs how many and why.
        max_reported: how many malformed records a message lists (>= 1, defaults to 10).

    Raises:
        `ValueError`: one error for all malformed records, with file, index from 0 and field; or for a file that is not
            JSON, with its line; or for arguments that do not fit.
        `FileNotFoundError`: a file of records that does not exist.
    """
    if on_bad_record not in ("raise", "drop"):
        raise ValueError(f"on_bad_record ({on_bad_record!r}) must be 'raise' or 'drop'.")
    if max_reported < 1:
        raise ValueError(f"max_reported ({max_reported}) must be at least 1.")
    rows: list[dict[str, Any]] = []
    places: list[str] = []  # per row, where it came from
    bad: list[str] = []
    for name, records, folder in _sources(source, root, split, data_files):
        for index, record in enumerate(tqdm(records, desc=f"Reading {Path(name).name}")):
            place = f"{name}, record {index}"
            try:
                rows.append(_row(record, folder))
                places.append(place)
            except _Malformed as error:
                bad.append(f"{place}, {error}")
    names = list(dict.fromkeys(name for row in rows for name in row))
    fixed = _fixed_types()
    for name in names:
        conflicts = _conflicts([row.get(name) for row in rows], fixed.get(name))
        bad += [f"{places[index]}, field {name!r}: {reason}" for index, reason in conflicts.items()]
        rows = [row for index, row in enumerate(rows) if index not in conflicts]
        places = [place for index, place in enumerate(places) if index not in conflicts]
    _report_bad(bad, len(rows), on_bad_record, max_reported)
    if not rows:
        raise ValueError(f"{source} holds no record{' that is well formed' if bad else ''}: nothing to train on.")
    return datasets.Dataset.from_dict(
        {name: pa.array([row.get(name) for row in rows], type=fixed.get(name)) for name in names}
    )


def resolve_path(path: str, root: str | Path) -> str:
    """
    The absolute path of a record's `path`, which must stay under `root`.

    Decided from the text alone, without touching the disk: `..` is worked out first, so `a/../b.mp4` is `ROOT/b.mp4`
    whatever `a` is. A backslash separates folders as on Windows. An absolute path is accepted where it lies under
    `root`. Symbolic links are followed when the file is opened, wherever they lead: records cannot make one, and
    linking a disk of videos into `root` is common.

    Args:
        path (`str`): relative or absolute, as the record has it.
        root (`str` or `Path`): a folder; relative to the working directory unless absolute.

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
    base = os.path.abspath(root)
    full = os.path.normpath(os.path.join(base, text))
    # An absolute path may also be written with the links in root's own path resolved.
    homes = [base] if not os.path.isabs(text) else [base, os.path.realpath(base)]
    if full in homes:
        raise ValueError(f"{path!r} names no file under root ({base}).")
    if not any(full.startswith(os.path.join(home, "")) for home in homes):
        raise ValueError(f"{path!r} leaves root ({base}): move the file under root, or set root.")
    return full


def _sources(
    source: str | Path | Sequence[str | Path],
    root: str | Path | None,
    split: str | None,
    data_files: str | Sequence[str] | None,
) -> Iterator[tuple[str, Iterable[Any], str | None]]:
    """Yields (name for messages, records, folder that paths are relative to) for each file, or for the Hub dataset."""
    items = [source] if isinstance(source, (str, Path)) else list(source)
    names = [data_files] if isinstance(data_files, str) else list(data_files or [])
    folder = None if root is None else os.path.abspath(os.path.expanduser(root))
    if folder is not None and not os.path.isdir(folder):
        raise ValueError(f"root ({folder}) is not a folder: give the folder that the records' paths are relative to.")
    if len(items) == 1 and _is_hub_id(items[0]):
        if not names:
            raise ValueError(
                f"data_files is needed with the Hub dataset {items[0]}: name its files of records, such as "
                "'Video-R1-260k.json'. Without it every file is downloaded, archives of media included."
            )
        records = datasets.load_dataset(str(items[0]), data_files=names, split=split or "train")
        yield str(items[0]), records, folder
        return
    if split is not None:
        raise ValueError(f"split ({split!r}) is for Hub datasets: local files have none. Select rows of the result.")
    files = [Path(item).expanduser() for item in items]
    if len(files) == 1 and files[0].is_dir():
        if not names:
            raise ValueError(f"{files[0]} is a folder: name its files of records in data_files.")
        files = [files[0] / name for name in names]
    elif names:
        raise ValueError(
            f"data_files ({data_files!r}) is for a folder or a Hub dataset: {files[0]} is a file already."
        )
    for file in files:
        yield str(file), _read_json(file), folder or os.path.dirname(os.path.abspath(file))


def _is_hub_id(source: str | Path) -> bool:
    """Whether `source` is written like `owner/name` and nothing local of that name exists."""
    if isinstance(source, Path) or os.path.exists(os.path.expanduser(source)):
        return False
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source)) and not source.endswith((".json", ".jsonl"))


def _read_json(path: Path) -> list[Any]:
    """The records of a file: one JSON array, or one JSON value per line (blank lines do not count)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}.") from error
    if text.lstrip().startswith("[") and path.suffix != ".jsonl":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}.") from error
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}, column {error.colno}: not JSON: {error.msg}. The file must hold one "
                    "array, or one record per line."
                ) from error
    return records


def _row(record: Any, folder: str | None) -> dict[str, Any]:
    """The dataset's row of one record; `_Malformed` where the record breaks the format."""
    if not isinstance(record, Mapping):
        raise _Malformed(None, f"must be a JSON object, not {type(record).__name__}.")
    for name in RESERVED:
        if name in record:
            raise _Malformed(name, "this name is a column of the trainer's: rename the field.")
    problem, solution = _text(record, "problem"), _text(record, "solution")
    problem_type = _text(record, "problem_type")
    if problem_type not in PROBLEM_TYPES:
        raise _Malformed("problem_type", f"{problem_type!r} must be one of {', '.join(PROBLEM_TYPES)}.")
    if not extract_answer(solution):
        raise _Malformed("solution", f"{_short(solution)} must hold <answer>...</answer> with an answer.")
    options = record.get("options") or []
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise _Malformed("options", f"must be a list of strings, not {_short(options)}.")
    if problem_type == "multiple choice" and not options:
        raise _Malformed("options", "must name the choices of a multiple choice problem.")
    media = dict.fromkeys(("video", "image")) | _media_column(record, folder)
    head = {
        "prompt": make_prompt(problem, problem_type, options),
        **media,
        "solution": solution,
        "problem_type": problem_type,
    }
    return head | {name: value for name, value in record.items() if name not in head}


def _text(record: Mapping, name: str) -> str:
    """A required field that must be a string with more in it than white space."""
    value = record.get(name)
    if value is None:
        raise _Malformed(name, "is missing.")
    if not isinstance(value, str):
        raise _Malformed(name, f"must be a string, not {_short(value)}.")
    if not value.strip():
        raise _Malformed(name, "is empty.")
    return value


def _media_column(record: Mapping, folder: str | None) -> dict[str, str]:
    """`{"video": path}`, `{"image": path}`, or `{}` for a text record."""
    path = record.get("path")
    kind = record.get("data_type") or (None if path else "text")
    if kind not in ("video", "image", "text"):
        raise _Malformed("data_type", f"{_short(kind)} must be 'video', 'image' or 'text'.")
    if kind == "text":
        if path:
            raise _Malformed("data_type", f"is 'text', yet path is {_short(path)}: say 'video' or 'image'.")
        return {}
    path = _text(record, "path")
    if folder is None:
        raise _Malformed("path", "root is needed: unpack the Hub dataset's media and give their folder as root.")
    try:
        return {kind: resolve_path(path, folder)}
    except ValueError as error:
        raise _Malformed("path", str(error)) from error


def _fixed_types() -> dict[str, pa.DataType]:
    """Arrow types of the columns that every dataset of this module has."""
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    texts = dict.fromkeys(("video", "image", "solution", "problem_type"), pa.string())
    return {"prompt": pa.list_(message), **texts, **FIELD_TYPES}


def _conflicts(values: list[Any], fixed: pa.DataType | None) -> dict[int, str]:
    """
    Index -> reason of the values that Arrow cannot hold in one column with the values before them.

    An Arrow column has one type; JSON has no such rule. The whole column is tried at once, and only a column that
    fails is searched value by value.
    """
    failures = (pa.ArrowException, OverflowError, UnicodeEncodeError)
    try:
        pa.array(values, type=fixed)
        return {}
    except failures:
        pass
    conflicts: dict[int, str] = {}
    merged = pa.schema([("value", fixed or pa.null())])
    for index, value in enumerate(values):
        try:
            found = pa.schema([("value", pa.array([value], type=fixed).type)])
            merged = pa.unify_schemas([merged, found], promote_options="permissive")
        except pa.ArrowTypeError:
            conflicts[index] = (
                f"is {_short(value)}, while the records before it hold {merged.field(0).type}: one column has one "
                "type. Write the field alike in all records."
            )
        except failures as error:
            conflicts[index] = f"{_short(value)} cannot be stored: {error}."
    for index, value in enumerate(values):  # a value may not fit the type that later ones led to
        try:
            pa.array([value], type=merged.field(0).type)
        except failures as error:
            conflicts.setdefault(index, f"{_short(value)} cannot be stored: {error}.")
    return conflicts


def _report_bad(bad: list[str], kept: int, on_bad_record: str, max_reported: int) -> None:
    """Raises, or logs, what is wrong with the malformed records."""
    if not bad:
        return
    lines = bad[:max_reported]
    if len(bad) > len(lines):
        lines.append(f"and {len(bad) - len(lines)} more")
    listing = "\n  ".join(lines)
    if on_bad_record == "raise":
        raise ValueError(
            f"{len(bad)} of {len(bad) + kept} records are malformed:\n  {listing}\n"
            "Correct them, or leave them out with on_bad_record='drop'."
        )
    logger.warning("Dropped %d of %d records, which are malformed:\n  %s", len(bad), len(bad) + kept, listing)


def _short(value: Any) -> str:
    """`repr` of a value, cut to 60 characters."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- checking media ----------------------------------------------------------------------------------------------


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
        **sampling: for `load_video` with `decode="sampled_frames"`, such as `fps` and `max_frames`.

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
    if sampling and decode == "first_frame":
        raise ValueError(f"{', '.join(sampling)}: sampling options need decode='sampled_frames'.")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers ({num_workers}) must be at least 1.")
    clips = decode == "sampled_frames"
    check_video = partial(load_video, **sampling) if clips else _first_frame
    verdicts: dict[Any, tuple[str, str | None]] = {}  # key -> (label, None | reason)
    report = MediaReport()
    workers = num_workers or min(32, (os.cpu_count() or 1) + 4)
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(dataset), desc="Checking media") as bar:
        for rows in _media_rows(dataset, clips):
            jobs = {key: job for media in rows.values() for key, job in media.items() if key not in verdicts}
            verdicts.update(zip(jobs, pool.map(partial(_verdict, check_video), jobs.values()), strict=True))
            report.rows += [row for row, media in rows.items() if any(verdicts[key][1] for key in media)]
            bar.update(len(rows))
    report.checked = len(verdicts)
    failed = {label: reason for label, reason in verdicts.values() if reason}
    report.missing = sorted(label for label, reason in failed.items() if reason == _MISSING)
    report.unreadable = {label: reason for label, reason in sorted(failed.items()) if reason != _MISSING}
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


_MISSING = "no such file"
_BATCH = 64  # rows read at a time: media embedded in the dataset are in memory for that long


def _media_rows(dataset: datasets.Dataset, clips: bool) -> Iterator[dict[int, dict[Any, tuple]]]:
    """Per batch: row -> key -> job (kind, source, label). Equal keys need one look; `clips`: also when cut alike."""
    columns = [name for name in (*VIDEO_COLUMNS, *IMAGE_COLUMNS) if name in dataset.column_names]
    if not columns:
        return
    media = _cast(dataset.select_columns(columns).with_format(None), (datasets.Video, datasets.Image))
    for first in range(0, len(dataset), _BATCH):
        batch = media[first : first + _BATCH]
        rows: dict[int, dict[Any, tuple]] = {row: {} for row in range(first, min(first + _BATCH, len(dataset)))}
        for name in columns:
            for row, value in zip(rows, batch[name], strict=True):
                for kind, source in _flatten(name, value):
                    fields = source if isinstance(source, dict) else {"path": source}
                    cell, path = f"row {row}, {name}", fields.get("path")
                    label = path or cell
                    key: tuple = (kind, label, fields.get("start"), fields.get("end")) if clips else (kind, label)
                    if fields.get("bytes") is not None:  # the path is then only a name
                        label = f"{cell}: {path}" if path else cell
                        key = (kind, cell, len(rows[row]))
                    rows[row][key] = (kind, source, label)
        yield rows


def _flatten(column: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(kind, source) of each file in one cell. A list is frames in `video` and inside `videos`, else several media."""
    frames = isinstance(value, list) and column == "video"
    kind = "image" if frames or column in IMAGE_COLUMNS else "video"
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, list):
            yield from _flatten("video", item)
        elif isinstance(item, (str, dict)):
            yield kind, item


def _verdict(check_video: Callable, job: tuple) -> tuple[str, str | None]:
    """(label, None) of a medium that can be read, else (label, reason)."""
    kind, source, label = job
    fields = source if isinstance(source, dict) else {"path": source}
    path = fields.get("path")
    if fields.get("bytes") is None:
        if not path:
            return label, "has neither path nor bytes"
        if "://" in path:
            return label, "is a URL: download it first"
        if not os.path.exists(path):
            return label, _MISSING
        if not os.path.isfile(path):
            return label, "is not a file"
    try:
        (check_video if kind == "video" else load_image)(source)
    except MediaError as error:
        return label, error.reason
    return label, None


def _first_frame(source: str | dict[str, Any]) -> None:
    """Decodes the first frame of a video; `VideoError` if there is none."""
    fields: dict[str, Any] = {"path": source} if isinstance(source, str) else source
    name = fields.get("path") or "bytes"
    data = name if fields.get("bytes") is None else fields["bytes"]
    try:
        with _open(data) as container:
            stream = _video_stream(container, name)
            stream.codec_context.thread_count = 1  # the pool's threads are enough
            if next(container.decode(stream), None) is None:
                raise VideoError(name, "no frame decodes")
    except av.FFmpegError as error:
        raise VideoError(name, error.strerror or str(error)) from error


# --- datasets.Video columns --------------------------------------------------------------------------------------


def undecoded(dataset: Any) -> Any:
    """
    The dataset with its `datasets.Video` columns left undecoded, also inside lists and dicts.

    Their rows are then `{"path", "bytes"}`, which `load_video` reads: `datasets` would decode with torchcodec each
    time a row is touched, and the trainer would decode again. `datasets.Image` columns stay as they are.

    Args:
        dataset: a `Dataset`, an `IterableDataset`, a dict of them, or `None`. Itself is not changed.
    """
    if dataset is None:
        return None
    if isinstance(dataset, dict):
        return type(dataset)({name: undecoded(part) for name, part in dataset.items()})
    return _cast(dataset, (datasets.Video,))


def _cast(dataset: Any, kinds: tuple[type, ...]) -> Any:
    """Casts the columns in which a feature of `kinds` decodes to ones in which it does not."""
    for name, feature in (dataset.features or {}).items():
        raw = _raw(feature, kinds)
        if raw != feature:
            dataset = dataset.cast_column(name, raw)
    return dataset


def _raw(feature: Any, kinds: tuple[Any, ...]) -> Any:
    """A feature with `decode=False` on all features of `kinds` inside it; the same storage."""
    if isinstance(feature, kinds):
        return replace(feature, decode=False)
    if isinstance(feature, dict):
        return {name: _raw(part, kinds) for name, part in feature.items()}
    if isinstance(feature, datasets.List):
        return datasets.List(_raw(feature.feature, kinds), length=feature.length)
    if isinstance(feature, datasets.LargeList):
        return datasets.LargeList(_raw(feature.feature, kinds))
    return feature
