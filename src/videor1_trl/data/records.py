"""Video-R1's records as a `datasets.Dataset` in the trainer's columns."""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import datasets
import pyarrow as pa
from datasets.utils import tqdm

from ..media.columns import MEDIA_COLUMNS
from ..text.answers import judge
from ..text.choices import labelled, read_choice
from ..text.prompts import PROBLEM_TYPES, PromptTemplate, as_template, extract_answer, make_prompt
from .roots import checked_root, resolve_path


logger = logging.getLogger(__name__)

# Columns this module makes, and names the trainer would take for media: a record may not bring its own.
_RESERVED = ("prompt", *MEDIA_COLUMNS)
_CLIP = pa.struct([("path", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("reverse", pa.bool_())])
# Columns whose type is known, so that one of nothing but None or [] does not become Arrow's null type.
_TYPES = {
    "prompt": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    "options": pa.list_(pa.string()),
    "videos": pa.list_(_CLIP),
    "pass_rate": pa.float64(),
    "clips": pa.list_(_CLIP),
} | dict.fromkeys(("video", "image", "solution", "problem_type", "problem", "data_type", "path"), pa.string())
_ARROW_ERRORS = (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError, TypeError)
# What the solution of such a problem must be, or no answer could be right
_PLACED = {
    "temporal grounding": "one or more intervals of seconds, such as 12.5 - 20.1",
    "permutation": "an order of two or more parts, numbers from 1 or letters from A, each once, such as 2, 3, 1",
    "bounding box": "one box x1, y1, x2, y2 with x1 < x2 and y1 < y2, without width, height or centre",
}
_MAX_DIGITS = 4_000  # of an integer: Python reads 4,300
_MAX_DEPTH = 50  # of lists and objects in a record: each level is a level of a column's type


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
    prompt_template: PromptTemplate | str | Path | None = None,
    dropped: list[str] | None = None,
) -> datasets.Dataset:
    """
    Reads Video-R1's records into a dataset that `TGRPOTrainer` takes.

    Columns: `prompt` (one user message of plain text), `video` and `image` (absolute path `str`, or `None`: both are
    `None` in a text row), `videos` where records have `clips` (a list of `{"path", "start", "end", "reverse"}`, seconds; `path` is
    the record's where it has none: several videos for one question), `solution` (of a choice by the letter that the prompt asks for, where the record has an option's
    text), `problem_type`, then every other field of the records, `None` where a record
    lacks it. The media are not opened: see [`~media.check_media`]. Duplicate `problem_id`s are kept.

    Source of the format: Video-R1 (arXiv 2503.21776) and its released data.

    Args:
        source: a file with one JSON array, a JSON Lines file, several of them, a local folder (with `data_files`), or
            the id of a dataset on the Hub (with `data_files`; read by `datasets.load_dataset`).
        root: what each record's `path` is relative to: a folder, a zip or tar archive, or the address of either in a store
            (`s3://bucket/videos`). Defaults to the folder of the record's own file; a Hub dataset, whose media come in archives,
            has no default. See [`resolve_path`].
        split: split of a Hub dataset, slices such as `"train[:1000]"` included; defaults to `"train"`. Local files
            have none.
        data_files: the files of records inside a folder or a Hub dataset, such as `"Video-R1-260k.json"`.
        on_bad_record: `"raise"` (default) or `"drop"`, which leaves malformed records out and logs how many and why.
        max_reported: how many malformed records a message lists (>= 1, defaults to 10).
        prompt_template: another wording of the questions, a [`PromptTemplate`] or its file. `None`: this package's own.
        dropped: a list to which a line for every record left out is appended.

    Raises:
        `ValueError`: one error for all malformed records, with file, index from 0 and field; or for a file that is not
            JSON, with its line; or for arguments that do not fit.
        `FileNotFoundError`: a file of records that does not exist.
    """
    if on_bad_record not in ("raise", "drop"):
        raise ValueError(f"on_bad_record ({on_bad_record!r}) must be 'raise' or 'drop'.")
    if max_reported < 1:
        raise ValueError(f"max_reported ({max_reported}) must be at least 1.")
    template = as_template(prompt_template)
    rows: list[tuple[str, dict[str, object]]] = []  # with the place that each came from
    bad: list[str] = []
    for name, records, folder in _sources(source, root, split, data_files):
        for index, record in enumerate(tqdm(records, desc=f"Reading {Path(name).name}")):
            place = f"{name}, record {index}"
            try:
                rows.append((place, _row(record, folder, template)))
            except _Malformed as error:
                bad.append(f"{place}, {error}")
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    for name in names:
        if name.lower().endswith("id"):
            _unify_ids(rows, name)
        conflicts = _conflicts([row.get(name) for _, row in rows], _TYPES.get(name))
        bad += [f"{rows[index][0]}, field {name!r}: {reason}" for index, reason in conflicts.items()]
        rows = [row for index, row in enumerate(rows) if index not in conflicts]
    if bad:
        _report_bad(bad, len(bad) + len(rows), on_bad_record, max_reported)
        if dropped is not None:
            dropped += bad
    if not rows:
        raise ValueError(f"{source} holds no record{' that is well formed' if bad else ''}.")
    _warn_of_unscorable(rows)
    return datasets.Dataset.from_dict(
        {name: pa.array([row.get(name) for _, row in rows], type=_TYPES.get(name)) for name in names}
    )


def _warn_of_unscorable(rows: list[tuple[str, dict[str, object]]]) -> None:
    """Says which records the accuracy reward will have no verdict on: numbers are asked for, and the gold is none."""
    silent = []
    for place, row in rows:
        solution, problem_type = str(row["solution"]), str(row["problem_type"])
        asks_for_number = problem_type in ("numerical", "regression")
        if asks_for_number and judge(solution, extract_answer(solution), problem_type) is None:
            silent.append(place)
    if silent:
        logger.warning(
            f"{len(silent)} of {len(rows)} records ask for a number, but their answer is none, so accuracy_reward gives "
            f"them no verdict. The first: {silent[0]}. Correct them, or give them another problem_type."
        )


def within_pass_rates(
    dataset: datasets.Dataset, lowest: float | None = None, highest: float | None = None
) -> datasets.Dataset:
    """
    The rows whose `pass_rate` lies in [lowest, highest]: what a model is always or never right about teaches it little. Rows
    without a rate are left out.

    Args:
        dataset (`datasets.Dataset`): with a column `pass_rate`, as `videor1 cot` writes it into `rated.jsonl`.
        lowest, highest (`float`, *optional*): in [0, 1]; `None`: no bound.

    Raises:
        `ValueError`: no such column, bounds that are none, or no row between them.
    """
    low, high = 0.0 if lowest is None else lowest, 1.0 if highest is None else highest
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"min_pass_rate ({lowest}) and max_pass_rate ({highest}) must be in [0, 1], the first at most the second."
        )
    if "pass_rate" not in dataset.column_names:
        raise ValueError(
            f"The records have no field 'pass_rate', by which they are to be chosen, only {', '.join(dataset.column_names)}. "
            "`videor1 cot` writes it into rated.jsonl."
        )
    rates = dataset["pass_rate"][:]
    kept = [row for row, rate in enumerate(rates) if rate is not None and low - 1e-6 <= rate <= high + 1e-6]
    if not kept:
        raise ValueError(f"None of {len(rates)} records has a pass_rate from {low:g} to {high:g}. Widen the range.")
    logger.info("%d of %d records have a pass_rate from %g to %g.", len(kept), len(rates), low, high)
    return dataset.select(kept)


def _sources(
    source: str | Path | Sequence[str | Path],
    root: str | Path | None,
    split: str | None,
    data_files: str | Sequence[str] | None,
) -> Iterator[tuple[str, Iterable[object], str | None]]:
    """Yields (name for messages, records, folder that paths are relative to) for each file, or for the Hub dataset."""
    items = [source] if isinstance(source, (str, Path)) else list(source)
    names = [data_files] if isinstance(data_files, str) else list(data_files or [])
    folder = None if root is None else checked_root(root)
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


def _read_json(path: Path) -> list[object]:
    """The records of a file: one JSON array, or one JSON value per line (blank lines do not count)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}.") from error
    if text.lstrip().startswith("[") and path.suffix != ".jsonl":
        try:
            return json.loads(text, parse_int=_integer)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}.") from error
        except RecursionError as error:
            raise ValueError(f"{path} is nested too deeply to be read. Write its records one per line.") from error
    records: list[object] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                records.append(json.loads(line, parse_int=_integer))
            except RecursionError:
                records.append(_Unreadable(f"line {number} is nested too deeply to be read."))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}, column {error.colno}: not JSON: {error.msg}. The file must hold one "
                    "array, or one record per line."
                ) from error
    return records


class _Unreadable:
    """Stands for a value of a file that nothing can hold; its `repr` says what it is."""

    def __init__(self, what: str):
        self.what = what

    def __repr__(self) -> str:
        return self.what


def _integer(digits: str) -> object:
    """An integer of JSON; Python refuses those of thousands of digits, with an error that names no record."""
    return int(digits) if len(digits) <= _MAX_DIGITS else _Unreadable(f"an integer of {len(digits):,} digits")


def _check_fields(record: Mapping[str, object]) -> None:
    """Raises where a name or a value is none that a dataset can hold."""
    for name, value in record.items():
        if not isinstance(name, str) or "\0" in name or not _is_unicode(name):
            raise _Malformed(str(name), "its name holds what is no character: rename the field.")
        if _is_deep(value, _MAX_DEPTH):
            raise _Malformed(name, f"is nested more than {_MAX_DEPTH} levels deep: flatten it, or write it as text.")
        if isinstance(value, _Unreadable):
            raise _Malformed(name, f"is {value}: write it as text.")


def _is_unicode(text: str) -> bool:
    """Whether it can be encoded: half characters, as `\\ud800` in JSON, cannot."""
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)


def _is_deep(value: object, levels: int) -> bool:
    """Whether lists and objects lie in one another in more levels than that."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deep(part, levels - 1) for part in parts if isinstance(part, (Mapping, list)))


def _row(record: object, folder: str | None, template: PromptTemplate | None) -> dict[str, object]:
    """The dataset's row of one record; `_Malformed` where the record breaks the format."""
    if isinstance(record, _Unreadable):
        raise _Malformed(None, record.what)
    if not isinstance(record, Mapping):
        raise _Malformed(None, f"must be a JSON object, not {type(record).__name__}.")
    _check_fields(record)
    for name in _RESERVED:
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
    if problem_type == "multiple choice":
        solution = _letter(solution, options)
    elif problem_type in _PLACED and judge(solution, None, problem_type) is None:
        raise _Malformed("solution", f"{_short(extract_answer(solution))} must be {_PLACED[problem_type]}.")
    head = {
        "prompt": make_prompt(problem, problem_type, options, template),
        "video": None,
        "image": None,
        **_media_column(record, folder),
        "solution": solution,
        "problem_type": problem_type,
    }
    return head | {name: value for name, value in record.items() if name not in head}


def _letter(solution: str, options: list[str]) -> str:
    """The solution, its answer by the letter that the prompt asks for; it may be an option's text in the record."""
    gold = extract_answer(solution, strict=True) or ""
    letters = [letter for letter, _ in labelled(options)]
    letter = read_choice(gold, options)
    if letter not in letters:
        named = f"the letters {', '.join(letters)}" if len(letters) <= 8 else f"{len(letters)} letters"
        raise _Malformed(
            "solution",
            f"{_short(gold)} names none of its options, or more than one: no answer by one of {named}, which the prompt asks "
            "for, could be right.",
        )
    return solution if gold == letter else f"<answer>{letter}</answer>"


def _text(record: Mapping[str, object], name: str) -> str:
    """A required field that must be a string with more in it than white space."""
    value = record.get(name)
    if value is None:
        raise _Malformed(name, "is missing.")
    if not isinstance(value, str):
        raise _Malformed(name, f"must be a string, not {_short(value)}.")
    if not value.strip():
        raise _Malformed(name, "is empty.")
    return value


def _media_column(record: Mapping[str, object], folder: str | None) -> dict[str, object]:
    """`{"video": path}`, `{"image": path}`, `{"videos": clips}`, or `{}` for a text record."""
    path = record.get("path")
    if record.get("clips"):
        if record.get("data_type", "video") != "video":
            raise _Malformed("data_type", f"is {_short(record['data_type'])}, and the record has clips: say 'video'.")
        return {"videos": [_clip(clip, path, folder) for clip in _listed(record["clips"])]}
    kind = record.get("data_type") or (None if path else "text")
    if not isinstance(kind, str) or kind not in ("video", "image", "text"):
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


def _listed(clips: object) -> list[Mapping[str, object]]:
    if not isinstance(clips, list) or not all(isinstance(clip, Mapping) for clip in clips):
        raise _Malformed(
            "clips", f"must be a list of objects such as {{'start': 0, 'end': 2.5}}, not {_short(clips)}."
        )
    return clips


def _clip(clip: Mapping[str, object], path: object, folder: str | None) -> dict[str, object]:
    """A clip of a record as the loader takes it: of the record's own file, unless it names another."""
    unknown = sorted(set(clip) - {"path", "start", "end", "reverse"})
    if unknown:
        raise _Malformed("clips", f"has unknown keys {unknown}. A clip's keys are path, start, end and reverse.")
    start, end, reverse = clip.get("start"), clip.get("end"), clip.get("reverse")
    for bound in (start, end):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, (int, float))):
            raise _Malformed("clips", f"start and end must be seconds, not {_short(bound)}.")
    if reverse not in (True, False, None):
        raise _Malformed("clips", f"reverse must be true or false, not {_short(reverse)}.")
    own = {"path": path} if clip.get("path") is None else clip
    try:
        found = _media_column({"data_type": "video", "path": own.get("path")}, folder)
    except _Malformed as error:
        raise _Malformed("clips", str(error)) from error
    return {"path": found["video"], "start": start, "end": end, "reverse": bool(reverse)}


def _unify_ids(rows: list[tuple[str, dict[str, object]]], name: str) -> None:
    """Ids that are numbers in some records and text in others, as where files were put together, become text in all."""
    kinds = {type(row[name]) for _, row in rows if row.get(name) is not None}
    if kinds == {int, str}:
        logger.warning("Field %r holds numbers and texts: all are kept as text.", name)
        for _, row in rows:
            row[name] = None if row.get(name) is None else str(row[name])


def _conflicts(values: Sequence[object], fixed: pa.DataType | None) -> dict[int, str]:
    """
    Index -> reason of the values that Arrow cannot hold in one column with the values before them.

    An Arrow column has one type; JSON has no such rule. The whole column is tried at once, and only a column that
    fails is searched value by value.
    """
    try:
        pa.array(values, type=fixed)
        return {}
    except _ARROW_ERRORS:
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
        except _ARROW_ERRORS as error:
            conflicts[index] = f"{_short(value)} cannot be stored: {error}."
    for index, value in enumerate(values):  # a value may not fit the type that later ones led to
        try:
            pa.array([value], type=merged.field(0).type)
        except _ARROW_ERRORS as error:
            conflicts.setdefault(index, f"{_short(value)} cannot be stored: {error}.")
    return conflicts


def _report_bad(bad: list[str], total: int, on_bad_record: str, max_reported: int) -> None:
    """Raises, or logs, what is wrong with the malformed ones of `total` records."""
    listing = listed(bad, max_reported)
    if on_bad_record == "raise":
        raise ValueError(
            f"{len(bad)} of {total} records are malformed:\n  {listing}\n"
            "Correct them, or leave them out with on_bad_record='drop' (--drop_bad_records of the scripts)."
        )
    logger.warning("Dropped %d of %d records, which are malformed:\n  %s", len(bad), total, listing)


def listed(lines: Sequence[str], most: int) -> str:
    """
    At most so many lines, and how many more there are.

    >>> listed(["a", "b", "c"], 2)
    'a\\n  b\\n  and 1 more'
    """
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n  ".join([*lines[:most], *more])


def _short(value: object) -> str:
    """`repr` of a value in ASCII, cut to 60 characters."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
