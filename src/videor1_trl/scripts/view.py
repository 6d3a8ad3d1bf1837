"""Writes a page that shows the rollouts of a run with their frames, or says what goes wrong in it (--check)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .command_line import CommandParser
from .messages import expected_errors, run_command


@dataclass
class ViewArguments:
    """What is shown, and where it goes."""

    runs: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders: the output_dir of training with log_rollouts_steps, of evaluations, of rationales. `videor1 view "
            "FOLDER ...` too."
        },
    )
    output: str | None = field(
        default=None, metadata={"help": "The page, an HTML file. None: view.html in the first folder."}
    )
    most: int = field(
        default=5000,
        metadata={"help": "Rollouts that the page shows (>= 1); of more, groups evenly spread over the run."},
    )
    check: bool = field(
        default=False,
        metadata={
            "help": "Write no page: say what goes wrong in the runs by their logs. Ends with exit code 1 where something does."
        },
    )


class ViewParser(CommandParser):
    """Folders may stand before the flags, without `--runs`."""

    def parse_args_and_config(self, args: Iterable[str] | None = None, *rest: Any, **options: Any) -> tuple[Any, ...]:
        given = sys.argv[1:] if args is None else list(args)
        first = next((place for place, word in enumerate(given) if word.startswith("-")), len(given))
        return super().parse_args_and_config(["--runs"] * bool(first) + given, *rest, **options)


def make_parser() -> CommandParser:
    return ViewParser(__doc__, {"what is shown, and where it goes": ViewArguments})


def main() -> None:
    (args,) = make_parser().parse()
    with expected_errors():
        if not args.runs:
            raise ValueError("runs is not set: give the folder of a run, as in `videor1 view runs/mine`.")
        if args.most < 1:
            raise ValueError(f"most ({args.most}) must be at least 1.")
        folders = [Path(run).expanduser() for run in args.runs]
        if args.check:
            raise SystemExit(check(folders))
        path = folders[0] / "view.html" if args.output is None else Path(args.output).expanduser()
        number = write_page(folders, path, args.most)
    print(f"{number:,} rollouts. Saved to {path}.")


def check(folders: list[Path]) -> int:
    """Says what goes wrong in runs; 1 where something does, else 0."""
    from ..watching.diagnosis import FEWEST, diagnose
    from ..watching.logs import read_log

    code = 0
    for folder in folders:
        log = read_log(folder)
        findings, logged = diagnose(log), sum("reward" in entry for entry in log)
        if logged < FEWEST:
            print(f"{folder}: {logged} logged steps of training are too few to say anything ({FEWEST} are needed).")
        elif not findings:
            print(f"{folder}: none of what usually goes wrong was found in {logged} logged steps.")
        for finding in findings:
            print(f"{folder}: {finding.name}: {finding.text}")
        code = code or int(bool(findings))
    return code


def write_page(folders: list[Path], path: Path, most: int = 5000) -> int:
    """
    Writes the page of these folders.

    Returns:
        `int`: how many rollouts it shows.

    Raises:
        `FileNotFoundError`, `ValueError`: as [`read_groups`].
    """
    from ..watching.groups import read_groups
    from ..watching.logs import read_log
    from ..watching.page import Page

    groups = [group for folder in folders for group in read_groups(folder)]
    try:
        log = read_log(folders[0])
    except (
        FileNotFoundError,
        ValueError,
    ):  # a run without a checkpoint, an evaluation: the curves are those of the records
        log = []
    return Page(", ".join(map(str, folders)), groups, log, most).write(path)


if __name__ == "__main__":
    run_command(main)
