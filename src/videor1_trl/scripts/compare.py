"""Compares evaluations of one benchmark: paired differences from the first run, as a table, a picture, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .command_line import CommandParser
from .messages import check_drawing, expected_errors, run_command, stop
from .plot_run import DPI, name_runs
from .record_flags import expand_folders


if TYPE_CHECKING:
    from videor1_trl.evaluation.compare import Row, Run


@dataclass
class CompareArguments:
    """What is compared, and where it goes."""

    runs: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders of evaluations of one benchmark; differences are from the first."},
    )
    labels: list[str] | None = field(
        default=None, metadata={"help": "Names of the runs, in their order. None: their folders' names."}
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder of comparison.md, .tex and .png. None: nothing is written."}
    )


def make_parser() -> CommandParser:
    return CommandParser(__doc__, {"what is compared, and where it goes": CompareArguments})


def main() -> None:
    (args,) = make_parser().parse()
    if len(args.runs) < 2:
        stop(f"runs: {len(args.runs)} given. Name two folders of evaluations or more.")
    expand_folders(args, "output_dir")
    if args.output_dir is not None:
        check_drawing("--output_dir")

    from videor1_trl.evaluation.compare import (
        as_latex,
        as_markdown,
        compare,
        differing_settings,
        left_out,
        read_run,
    )

    with expected_errors():
        folders = [Path(run).expanduser() for run in args.runs]
        names = name_runs([str(folder) for folder in folders], args.labels)
        runs = [replace(read_run(folder), name=name) for folder, name in zip(folders, names, strict=True)]
        rows = compare(runs)
    print(as_markdown(runs, rows), end="")
    for name, count in left_out(runs).items():
        print(f"left out: {count:,} questions of {name}, which are not in all runs")
    for name, values in differing_settings(runs).items():
        print(f"differs: {name}: {', '.join(map(str, values))}")
    if args.output_dir is None:
        return
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.md").write_text(as_markdown(runs, rows), encoding="utf-8")
    (folder / "comparison.tex").write_text(as_latex(runs, rows), encoding="utf-8")
    draw(folder / "comparison.png", runs, rows)
    print(f"Saved to {args.output_dir}.")


def draw(path: Path, runs: Sequence[Run], rows: Sequence[Row]) -> None:
    """A line per figure with each run's difference from the first, its 95 % interval as whiskers, and 0 as a line."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.0, 1.4 + 0.35 * len(rows)))
    for place, run in enumerate(runs[1:]):
        found = [row.differences[place] for row in rows]
        heights = [-row - 0.5 * (place / max(1, len(runs) - 1)) for row in range(len(rows))]
        values = [100 * each.value for each in found]
        below = [100 * (each.value - (each.value if each.low is None else each.low)) for each in found]
        above = [100 * ((each.value if each.high is None else each.high) - each.value) for each in found]
        axis.errorbar(values, heights, xerr=[below, above], fmt="o", capsize=3, label=run.name)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks([-row for row in range(len(rows))], [row.name for row in rows])
    axis.set_xlabel(f"difference from {runs[0].name}, points (whiskers: 95 %)")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


if __name__ == "__main__":
    run_command(main)
