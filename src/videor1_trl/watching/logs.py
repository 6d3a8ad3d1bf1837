"""The log of a run as its trainer leaves it: metrics by step."""

from __future__ import annotations

import json
import math
from pathlib import Path


Entry = dict[str, object]  # of a log: metrics by their names, and the step


def find_log(run: str | Path) -> Path:
    """
    The file of a run's log: itself, or of a folder the `trainer_state.json` in it or in its checkpoints that got
    furthest.

    Raises:
        `FileNotFoundError`: nothing there.
    """
    path = Path(run)
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    found = [path / "trainer_state.json", *path.glob("checkpoint-*/trainer_state.json")]
    found = [file for file in found if file.is_file()]
    if not found:
        raise FileNotFoundError(
            f"{path} has no trainer_state.json, and no checkpoint-*/ with one. Runs write them with their checkpoints: "
            "set save_strategy and save_steps, or pass a file of log entries."
        )
    return max(found, key=_progress)


def _progress(file: Path) -> float:
    state = _parsed(file)
    step = state.get("global_step") if isinstance(state, dict) else None
    return step if isinstance(step, (int, float)) else -1


def read_log(run: str | Path) -> list[Entry]:
    """
    The log entries of a run in the order of their steps.

    Where a log goes back to an earlier step (a resumed run that appended to the log of the first attempt), what the
    first attempt logged from that step on is dropped: those weights are gone.

    Raises:
        `ValueError`: a file that holds no log entries. `FileNotFoundError`: as [`find_log`].
    """
    file = find_log(run)
    entries = _parsed(file)
    if isinstance(entries, dict):
        entries = entries.get("log_history")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file} holds no log: neither a trainer's state with log_history nor a list of entries.")
    kept: list[tuple[float, Entry]] = []
    for index, entry in enumerate(entries):
        step = entry.get("step")
        if not isinstance(step, (int, float)):
            raise ValueError(f"{file}, entry {index}: has no step.")
        if kept and step < kept[-1][0]:
            kept = [earlier for earlier in kept if earlier[0] < step]
        kept.append((step, entry))
    if not kept:
        raise ValueError(f"{file} holds an empty log: the run had logged nothing when it was written.")
    return [entry for _, entry in kept]


def _parsed(file: Path) -> object:
    """A JSON file's value, or the list of a JSON Lines file's."""
    text = file.read_text(encoding="utf-8-sig")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise ValueError(f"{file}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}.") from error
    values = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            values += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {number}, column {error.colno}: not JSON: {error.msg}.") from error
    return values


def series(log: list[Entry], metric: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric; the last of a step counts, and what is no finite number is passed over."""
    points: dict[float, float] = {}
    for entry in log:
        step, value = entry["step"], entry.get(metric)
        if isinstance(step, (int, float)) and isinstance(value, (int, float)) and math.isfinite(value):
            points[step] = float(value)
    return list(points), list(points.values())
