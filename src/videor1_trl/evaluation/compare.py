"""Several runs of one benchmark beside the first of them: paired differences on the same questions, with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..generation.journal import read_lines
from .estimates import Estimate, difference, mean
from .grouped import joined, whole_sets
from .questions import Question
from .summary import ORDERED, named_weights


_MARKDOWN = {mark: f"\\{mark}" for mark in "\\`*_|<&["}
_LATEX = {mark: f"\\{mark}" for mark in "&%_#${}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


@dataclass(frozen=True)
class Run:
    """
    What a run answered on frames in order, read from its `results.jsonl` and `summary.json`.

    Args:
        name (`str`): of its folder.
        questions (`dict[str, Question]`): those answered, by key; without their videos.
        scores (`dict[str, float]`): by the benchmark's own rule, by key.
        settings (`dict`): of its first session: the model, frames, pixels, ...
    """

    name: str
    questions: Mapping[str, Question]
    scores: Mapping[str, float]
    settings: Mapping[str, object]


@dataclass(frozen=True)
class Row:
    """
    A figure of all runs on the questions that all of them answered.

    Args:
        name (`str`): `"score"`, a task, or a measure of whole sets.
        values (tuple of [`Estimate`]): of each run.
        differences (tuple of [`Estimate`]): of each run but the first, minus the first, question by question (or set by set).
    """

    name: str
    values: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]


def read_run(folder: str | Path) -> Run:
    """
    Raises:
        `FileNotFoundError`: no `results.jsonl` there. `ValueError`: one that an earlier version wrote.
    """
    folder = Path(folder)
    path = folder / "results.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: {folder} is no folder of an evaluation that came to its end.")
    questions, scores = {}, {}
    for line in read_lines(path):
        if "cluster" not in line:
            raise ValueError(
                f"{path} was written by an earlier version. Start that evaluation again: nothing is asked twice, and it is "
                "written anew."
            )
        found = _question(line)
        if found.key in questions:
            raise ValueError(f"{path} has two lines of the question {found.key!r}. Start that evaluation again.")
        questions[found.key], scores[found.key] = found, line[ORDERED]["score"]
    return Run(folder.name, questions, scores, _settings(folder / "summary.json"))


def _question(line: Mapping[str, object]) -> Question:
    names = ("key", "task", "problem", "problem_type", "gold", "metric", "cluster", "benchmark", "together")
    options = line["options"]
    assert isinstance(options, list)
    return Question(options=tuple(options), **{name: line[name] for name in names})  # type: ignore[arg-type]


def _settings(path: Path) -> dict[str, object]:
    """What a run was made with, flat: `settings.video_max_frames`."""
    sessions = json.loads(path.read_text(encoding="utf-8")).get("sessions") if path.is_file() else None
    flat: dict[str, object] = {}
    for name, value in (sessions[0]["identity"] if sessions else {}).items():
        flat |= (
            {f"{name}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {name: value}
        )
    return flat


def in_common(runs: Sequence[Run]) -> list[str]:
    """The keys of the questions that all runs answered, in the order of the first."""
    return [key for key in runs[0].questions if all(key in run.questions for run in runs)]


def left_out(runs: Sequence[Run]) -> dict[str, int]:
    """How many of each run's questions are not compared, since others did not answer them; of those runs that have some."""
    common = len(in_common(runs))
    return {run.name: len(run.questions) - common for run in runs if len(run.questions) > common}


def differing_settings(runs: Sequence[Run]) -> dict[str, list[object]]:
    """The settings in which runs differ, each with its values by run: they, and not the models, may be what moves a score."""
    names = sorted({name for run in runs for name in run.settings})
    values = {name: [run.settings.get(name) for run in runs] for name in names}
    return {name: found for name, found in values.items() if any(each != found[0] for each in found)}


def compare(runs: Sequence[Run]) -> list[Row]:
    """
    The score of all runs on the questions that all answered, then each task's, then whole sets.

    Raises:
        `ValueError`: fewer than two runs, no question in common, or one key that asks another question.
    """
    if len(runs) < 2:
        raise ValueError(f"runs: {len(runs)} given. Name two folders of evaluations or more.")
    first = runs[0]
    keys = in_common(runs)
    for run in runs[1:]:
        other = next((key for key in keys if run.questions[key] != first.questions[key]), None)
        if other is not None:
            raise ValueError(
                f"{first.name} and {run.name} ask different questions as {other!r}: no comparison is paired."
            )
    if not keys:
        raise ValueError(f"{', '.join(run.name for run in runs)} have no question in common.")
    asked = [first.questions[key] for key in keys]
    rows = [_row("score", runs, asked, named_weights(asked)["official"])]
    tasks = sorted({question.task for question in asked})
    for task in tasks if len(tasks) > 1 else ():
        of_task = [question for question in asked if question.task == task]
        rows.append(_row(task, runs, of_task, None))
    return rows + _set_rows(runs, asked)


def _row(
    name: str, runs: Sequence[Run], asked: Sequence[Question], weights: Sequence[tuple[str, float]] | None
) -> Row:
    clusters = joined(asked, videos=True)
    scores = [[run.scores[question.key] for question in asked] for run in runs]
    values = tuple(mean(each, clusters, weights) for each in scores)
    return Row(name, values, tuple(difference(each, scores[0], clusters, weights) for each in scores[1:]))


def _set_rows(runs: Sequence[Run], asked: Sequence[Question]) -> list[Row]:
    """Sets that lack a question in any run count in none, since all look at the same questions."""
    rows = []
    every = list({key: question for run in runs for key, question in run.questions.items()}.values())
    clusters = dict(zip([each.key for each in every], joined(every, videos=True), strict=True))
    compared = {question.key for question in asked}
    for name, sets in whole_sets(every).items():
        keys = [[each.key for each in of_set] for of_set in sets if all(each.key in compared for each in of_set)]
        if not keys:
            continue
        right = [[float(all(run.scores[key] >= 1 for key in of_set)) for of_set in keys] for run in runs]
        of_set = [clusters[each[0]] for each in keys]
        gaps = tuple(difference(each, right[0], of_set) for each in right[1:])
        rows.append(Row(f"{name} (whole sets)", tuple(mean(each, of_set) for each in right), gaps))
    return rows


def as_markdown(runs: Sequence[Run], rows: Sequence[Row]) -> str:
    """A table with a line per figure: n, the score of each run, and each difference from the first with its interval."""
    lines = [_escaped(line, _MARKDOWN) for line in (_head(runs), *map(_cells, rows))]
    lines.insert(1, ["---", *["---:"] * (len(lines[0]) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def as_latex(runs: Sequence[Run], rows: Sequence[Row]) -> str:
    """The same as a `tabular` with the rules of booktabs."""
    head = _head(runs)
    lines = [" & ".join(_escaped(line, _LATEX)) + r" \\" for line in (head, *map(_cells, rows))]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}\n{body}\n\\end{{tabular}}\n"


def _head(runs: Sequence[Run]) -> list[str]:
    return ["", "n", *(run.name for run in runs), *(f"{run.name} - {runs[0].name}" for run in runs[1:])]


def _cells(row: Row) -> list[str]:
    values = [f"{100 * each.value:.1f}" for each in row.values]
    return [row.name, f"{row.values[0].questions:,}", *values, *map(_gap, row.differences)]


def _gap(found: Estimate) -> str:
    between = "" if found.low is None or found.high is None else f" ({100 * found.low:+.1f}..{100 * found.high:+.1f})"
    return f"{100 * found.value:+.1f}{between}"


def _escaped(cells: Sequence[str], marks: Mapping[str, str]) -> list[str]:
    """Cells in which nothing that a run or a task is called means something to Markdown or LaTeX, each in one line."""
    return ["".join(marks.get(mark, mark) for mark in " ".join(cell.split())) for cell in cells]
