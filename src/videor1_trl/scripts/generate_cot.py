"""Writes the rationales of a cold start: a model answers records whose answer is known; where it is right its thoughts are kept."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from videor1_trl.text.completion_table import wide_console

from ..text.messages import Named
from .command_line import CommandParser
from .media_look import media_of, print_look, unreadable, video_reader
from .messages import KEPT, expected_errors, run_command, stop
from .model_flags import BackendArguments, check_backend, open_backend, run_errors
from .record_flags import RecordArguments, check_records, expand_folders, load_records, name_store


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from datasets import Dataset

    from videor1_trl.generation.requests import GenerationSettings


@dataclass
class ScriptArguments:
    """How much is asked, and where the answers go."""

    output_dir: str | None = field(default=None, metadata={"help": "Folder of the completions and of records.jsonl."})
    num_samples: int = field(
        default=1, metadata={"help": "Completions of a record at most (>= 1), until one is kept (paper: 1)."}
    )
    all_samples: bool = field(
        default=False,
        metadata={
            "help": "Ask for all num_samples of each record, also where one is kept: pass rates of as many attempts each."
        },
    )
    limit: int | None = field(
        default=None, metadata={"help": "Ask for so many of the records, drawn from all. None: all."}
    )
    retry_errors: bool = field(default=False, metadata={"help": "Ask again where a video could not be read."})
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Look for every video and image, read the first of them, count the records and end: with 0, or with 1 and "
            "what is missing. No model is loaded."
        },
    )


def make_parser() -> CommandParser:
    from videor1_trl.cold_start.rationales import CotRules
    from videor1_trl.generation.requests import GenerationSettings

    groups = {
        "records": RecordArguments,
        "how much is asked": ScriptArguments,
        "what is kept": CotRules,
        "the model that answers, and what runs it": BackendArguments,
        "how it answers, videos and images": GenerationSettings,
    }
    parser = CommandParser(__doc__, groups)
    parser.set_defaults(temperature=1.0, top_p=0.95, max_new_tokens=512)  # the paper's
    return parser


def check(
    data_args: RecordArguments, args: ScriptArguments, backend_args: BackendArguments, settings: GenerationSettings
) -> None:
    """Refuses what does not fit before anything is read."""
    check_records(data_args)
    name_store(settings, data_args.data_root)
    if args.output_dir is None:
        stop("--output_dir is not set.")
    expand_folders(args, "output_dir")
    expand_folders(data_args, "dataset", "data_root", "prompt_template")
    if records_root(data_args) is None:
        stop("--data_root is not set, and the files of records lie in several folders: give the one of their media.")
    for name in ("num_samples", "limit"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            stop(f"--{name} ({getattr(args, name)}) must be at least 1.")
    if not args.dry_run:
        check_backend(backend_args)


def look(dataset: Dataset, settings: GenerationSettings) -> int:
    """Prints what would be asked and which media are missing; the exit code."""
    from videor1_trl import load_image

    videos, images = media_of(dataset, "video"), media_of(dataset, "image")
    problems = unreadable(videos, video_reader(settings), settings.limits)
    problems += unreadable(images, partial(load_image, limits=settings.limits), settings.limits)
    asked = f"{len(dataset):,} records, {len(videos):,} videos, {len(images):,} images"
    return print_look(asked, dataset["problem_type"], problems, "file")


def print_summary(summary: Named) -> None:
    """What was kept and why the rest was not, by problem type, as a table of records."""
    from rich.table import Table

    title = f"{summary['records']:,} records, {summary['completions']:,} completions"
    if summary["mean_tokens"] is not None:
        title += f" of {summary['mean_tokens']:.0f} tokens on average"
    table = Table(title=title, title_justify="left")
    table.add_column("problem type", no_wrap=True)
    reasons = list(summary["rejected"])
    for column in ("records", "kept", "accuracy", *(reason.replace("_", " ") for reason in reasons)):
        table.add_column(column, justify="right")
    for name, figures in (*summary["problem_types"].items(), ("all", summary)):
        table.add_row(
            name,
            f"{figures['records']:,}",
            f"{figures['kept']:,} ({figures['kept'] / figures['records']:.0%})",
            "-" if figures["accuracy"] is None else f"{figures['accuracy']:.2f}",
            *(f"{figures['rejected'].get(reason, 0):,}" for reason in reasons),
        )
        if name == list(summary["problem_types"])[-1]:
            table.add_section()
    console = wide_console()
    console.print(table)
    for error in summary["first_errors"]:
        console.print(f"  error: {error}", soft_wrap=True, markup=False)


def records_root(data_args: RecordArguments) -> str | Path | None:
    """The folder that the records' paths are relative to; `None` where there are several."""
    if data_args.data_root is not None:
        return data_args.data_root
    assert data_args.dataset is not None  # see `check`
    source = Path(data_args.dataset)
    files = [source / name for name in data_args.data_files or []] if source.is_dir() else [source]
    folders = {file.parent for file in files} or {source}
    return folders.pop() if len(folders) == 1 else None


def training_flags(data_args: RecordArguments, args: ScriptArguments, name: str) -> str:
    """The flags with which one trains on a file of the run, whose paths are relative to the same root as before."""
    assert args.output_dir is not None  # see `check`
    return shlex.join(["--dataset", str(Path(args.output_dir) / name), "--data_root", str(records_root(data_args))])


def main() -> None:
    data_args, args, rules, backend_args, settings = make_parser().parse()
    check(data_args, args, backend_args, settings)

    from videor1_trl.cold_start import rationales as cot

    with expected_errors():
        dataset = load_records(data_args, data_args.dataset)
        if args.dry_run:
            raise SystemExit(look(dataset.select(cot.drawn(dataset, args.limit)), settings))
    backend = open_backend(backend_args, settings)
    asked = {"num_samples": args.num_samples, "all_samples": args.all_samples, "limit": args.limit}
    with run_errors(), expected_errors():
        journal = cot.generate_rationales(
            dataset, backend, args.output_dir, rules, retry_errors=args.retry_errors, **asked
        )
        verdicts, missing = cot.read_rationales(dataset, journal, rules, **asked)
    if missing:
        print(f"This process is done; {missing:,} records are still to come from others.")
        return
    about = {"source": data_args.dataset, "rules": asdict(rules), **asked}
    summary = cot.write_rationales(dataset, verdicts, journal, about)
    print_summary(summary)
    if summary["kept"]:
        print(f"To train on them: videor1 sft {training_flags(data_args, args, 'records.jsonl')}")
    else:
        print("No record was kept: look at completions.jsonl, and at the rules.")
    print(
        f"To train by pass rates: videor1 train {training_flags(data_args, args, 'rated.jsonl')} --min_pass_rate ..."
    )
    print(f"Saved to {Path(args.output_dir) / 'records.jsonl'}.")


if __name__ == "__main__":
    run_command(main, KEPT)
