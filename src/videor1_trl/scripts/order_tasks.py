"""Makes questions about the order of time from any videos: their right answers are known from how they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .command_line import CommandParser
from .messages import expected_errors, run_command, stop


if TYPE_CHECKING:
    from videor1_trl.data.order_tasks import OrderTasks


@dataclass
class ScriptArguments:
    """Of which videos, what is made, and where it goes."""

    videos: list[str] | None = field(
        default=None, metadata={"help": "Video files, and folders whose videos are taken, those in folders below too."}
    )
    output: str | None = field(default=None, metadata={"help": "JSON Lines file of the records."})
    tasks: list[str] = field(
        default_factory=lambda: ["clip_order", "direction", "odd_clip"],
        metadata={"help": "Which questions: clip_order, direction (forward or backward) and odd_clip."},
    )
    num_clips: int = field(default=4, metadata={"help": "Clips of a question, 2 to 9 (with odd_clip at least 3)."})
    min_clip_seconds: float = field(
        default=1.0, metadata={"help": "Shortest stretch of a video that a clip stands for, in seconds (> 0)."}
    )
    still_below: float = field(
        default=2.0,
        metadata={"help": "Videos whose clips differ by less than so many grey levels of 255 are left out."},
    )
    root: str | None = field(
        default=None,
        metadata={"help": "Folder that the records' paths are relative to. None: the deepest that holds all videos."},
    )
    seed: int = field(default=0, metadata={"help": "Of what is drawn (>= 0)."})


def make_parser() -> CommandParser:
    return CommandParser(__doc__, {"videos and questions": ScriptArguments})


def files_of(names: list[str]) -> list[Path]:
    """The files that are named, and the videos in the folders that are, in the order of their names."""
    from videor1_trl.data.order_tasks import SUFFIXES

    found: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if not path.exists():
            stop(f"--videos ({name}): there is no such file or folder.")
        below = (
            sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        )
        if not below:
            stop(f"--videos ({name}): the folder holds no video ({', '.join(SUFFIXES)}).")
        found += below
    return found


def print_made(made: OrderTasks) -> None:
    """How many records there are, and of which videos there is none."""
    for task, count in made.counts.items():
        print(f"{task}: {count:,} records")
    for what, lines in (
        ("unreadable", made.unreadable),
        ("too short", made.too_short),
        ("still", made.still),
        ("alone", made.alone),
    ):
        if lines:
            print(f"{what}: {len(lines):,} left out")
            print("".join(f"  {line}\n" for line in lines), end="")
    print(f"To train on them: videor1 train --dataset {made.file} --data_root {made.root} ...")
    print(f"Saved to {made.file}.")


def main() -> None:
    with expected_errors():
        [args] = make_parser().parse_args_and_config()
    for name in ("videos", "output"):
        if not getattr(args, name):
            stop(f"--{name} is not set.")
    with expected_errors():
        from videor1_trl import make_order_tasks

        options = {name: getattr(args, name) for name in ("tasks", "num_clips", "min_clip_seconds", "still_below")}
        made = make_order_tasks(files_of(args.videos), args.output, root=args.root, seed=args.seed, **options)
    print_made(made)


if __name__ == "__main__":
    run_command(main)
