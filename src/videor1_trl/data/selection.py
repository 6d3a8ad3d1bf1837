"""Rows whose answer depends on the order of the frames, by the column that an evaluation or the records themselves have."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets import Dataset


FIELD = "time_dependence"  # of a line of `results.jsonl`, and of a record: a number
Order = Literal["reversed", "shuffled"]


@dataclass(frozen=True)
class Measured:
    """
    What an evaluation found out about one question.

    Args:
        problem (`str`): what was asked.
        value (`float`, *optional*): its time dependence in nats; `None` where it has none (no options, no video, an error).
    """

    problem: str
    value: float | None


def read_measured(results: str | Path, order: Order = "reversed") -> dict[str, Measured]:
    """
    The time dependence of every question of an evaluation, by its key.

    Args:
        results (`str` or `Path`): the folder of a run of `videor1 eval --time_dependence`, or its `results.jsonl`.
        order (`str`, defaults to `"reversed"`): the order that the ordered frames are compared with.

    Raises:
        `FileNotFoundError`: there is no such file. `ValueError`: it has no such column, or is not JSON.
    """
    path = Path(results).expanduser()
    path = path / "results.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: {results} is no folder of an evaluation that came to its end.")
    found: dict[str, Measured] = {}
    with path.open(encoding="utf-8") as lines:  # a text may hold what `splitlines` takes for the end of one
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                key, measured = row["key"], row.get(FIELD)
                value = None if measured is None else _number(measured.get(order))
                one = Measured(row["problem"], value)
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: no line of an evaluation's results ({error}).") from error
            if key in found:
                raise ValueError(
                    f"{path}, line {number}: a second line of the question {key!r}. Start that run again."
                )
            found[key] = one
    if all(each.value is None for each in found.values()):
        raise ValueError(
            f"{path} has no {FIELD} against {order} frames: run videor1 eval with --time_dependence into its folder first."
        )
    return found


def time_dependent(
    keys: Iterable[tuple[str, str]], measured: Mapping[str, Measured], minimum: float, where: str
) -> list[int]:
    """
    The places of those that depend on time by `minimum` nats or more; those without a value do not.

    Args:
        keys: key and problem of each. where (`str`): what the message calls what was measured.

    Raises:
        `ValueError`: a key that was not measured, or that asked something else; nothing left.
    """
    chosen = []
    count = 0
    for place, (key, problem) in enumerate(keys):
        count += 1
        if key not in measured or measured[key].problem != problem:
            what = (
                "was not asked there"
                if key not in measured
                else f"asks another question there: {measured[key].problem[:80]!r}"
            )
            raise ValueError(
                f"{where} does not belong to these questions: {key!r} {what}. Select by an evaluation of all of the same file, "
                "with the same flags."
            )
        value = measured[key].value
        if value is not None and value >= minimum:
            chosen.append(place)
    if not chosen:
        raise ValueError(
            f"none of the {count:,} questions depends on time by {minimum} nats or more. Lower select_min."
        )
    return chosen


def select_records(
    rows: Dataset, minimum: float, results: str | Path | None = None, order: Order = "reversed"
) -> Dataset:
    """
    The records whose answer depends on time by `minimum` nats or more.

    Args:
        rows (`Dataset`): as from [`load_video_r1`], in the order of their file.
        results (`str` or `Path`, *optional*): of `videor1 eval --dataset FILE --time_dependence` on the same file; `None`: the
            records' own field `time_dependence`, a number.

    Raises:
        `ValueError`: results of other records, a field that is missing or no number, or nothing left.
    """
    if results is not None:
        ids = rows["problem_id"] if "problem_id" in rows.column_names else [None] * len(rows)
        keys = (record_key(number, each) for number, each in enumerate(ids))
        measured = read_measured(results, order)
        return rows.select(time_dependent(zip(keys, rows["problem"], strict=True), measured, minimum, str(results)))
    if FIELD not in rows.column_names:
        raise ValueError(
            f"the records have no field {FIELD!r} to select by. Give select the folder of a run of videor1 eval with "
            "--time_dependence on them, or write the field into them."
        )
    values = rows[FIELD]
    bad = next((place for place, value in enumerate(values) if value is not None and _number(value) is None), None)
    if bad is not None:
        raise ValueError(
            f"record {bad}, field {FIELD!r}: {values[bad]!r} is no number. Correct it, or give select a run."
        )
    chosen = [place for place, value in enumerate(values) if value is not None and float(value) >= minimum]
    if not chosen:
        raise ValueError(f"no record has a {FIELD} of {minimum} or more. Lower select_min.")
    return rows.select(chosen)


def record_key(number: int, problem_id: object) -> str:
    """The key under which an evaluation asks a record: its place in the file, and its `problem_id` where it has one."""
    return str(number) if problem_id is None else f"{number}/{problem_id}"


def _number(value: object) -> float | None:
    """A finite number as one, anything else as `None`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]
