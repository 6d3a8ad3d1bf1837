"""Which records a command reads: the flags, what is refused of them before a file is opened, and the reading."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..media.addresses import checked_store, is_remote, split_member
from .messages import expected_errors, stop


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from datasets import Dataset

    from videor1_trl.media.settings import FrameSettings


@dataclass
class WordingArguments:
    """How questions are worded."""

    prompt_template: str | None = field(
        default=None,
        metadata={
            "help": "YAML file that words the questions, instead of this package's wording: prompt, answer_forms, options."
        },
    )


@dataclass
class RecordArguments(WordingArguments):
    """Which records are read."""

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Records in Video-R1's format: a JSON or JSON Lines file, a folder or a Hub id (both with data_files)."
        },
    )
    data_files: list[str] | None = field(
        default=None,
        metadata={"help": "Files of records inside the folder or Hub dataset, such as Video-R1-260k.json."},
    )
    data_root: str | None = field(
        default=None,
        metadata={
            "help": "What the records' paths are relative to: a folder, a zip or tar archive, or the address of either in a store, "
            "such as s3://bucket/videos. None: the records' own folder."
        },
    )
    dataset_split: str | None = field(
        default=None, metadata={"help": "Split of a Hub dataset, slices such as train[:1000] included. None: train."}
    )
    drop_bad_records: bool = field(
        default=False, metadata={"help": "Leave malformed records out (logged), instead of ending the run."}
    )
    select: str | None = field(
        default=None,
        metadata={
            "help": "Take the records whose answer depends on the order of the frames, as measured by videor1 eval --dataset "
            "THESE --time_dependence: its output_dir; or 'field': the records' own field time_dependence. None: all."
        },
    )
    select_min: float = field(
        default=0.1, metadata={"help": "With select: least time dependence, in nats, against reversed frames (>= 0)."}
    )


@dataclass
class DataArguments(RecordArguments):
    """What is trained on."""

    eval_dataset: str | None = field(
        default=None, metadata={"help": "A JSON or JSON Lines file for evaluation during training (eval_strategy)."}
    )
    check_media: str = field(
        default="first_frame",
        metadata={
            "help": "What is read of every video and image before training: its first frame, all frames that training "
            "samples, or nothing.",
            "choices": ["first_frame", "sampled_frames", "off"],
        },
    )
    min_pass_rate: float | None = field(
        default=None,
        metadata={
            "help": "Train on records with a pass_rate of at least this, in [0, 1] (`videor1 cot` writes it). None: all."
        },
    )
    max_pass_rate: float | None = field(
        default=None, metadata={"help": "Train on records with a pass_rate of at most this, in [0, 1]. None: all."}
    )
    drop_bad_media: bool = field(
        default=False, metadata={"help": "Leave rows with missing or unreadable media out, instead of ending the run."}
    )


def is_hub_id(name: str) -> bool:
    """Whether a name that is no file or folder here may be one on the Hub, `owner/name`."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def expand_folders(args: object, *names: str) -> None:
    """Folders that start with ~ as the home folder's: a shell expands them in flags, nobody does in YAML."""
    for name in names:
        if getattr(args, name) is not None:
            setattr(args, name, os.path.expanduser(getattr(args, name)))


def name_store(settings: FrameSettings, address: str | None) -> None:
    """What the user gives as the place of media may be read from, and no other store."""
    if address is not None and is_remote(address):
        store = checked_store(split_member(address)[0])
        settings.media_stores = list(dict.fromkeys([*(settings.media_stores or []), store]))


def check_wording(args: WordingArguments) -> None:
    """Refuses a file of wording that cannot be used."""
    if args.prompt_template is not None:
        from videor1_trl.text.prompts import load_prompt_template

        with expected_errors():
            load_prompt_template(args.prompt_template)


def check_records(data_args: RecordArguments) -> None:
    """Refuses what is missing before anything is read."""
    if data_args.dataset is None:
        stop("--dataset is not set: give a JSON file of records, a folder or a Hub id.")
    for name in ("dataset", "eval_dataset", "data_root"):
        path = getattr(data_args, name, None)
        if not path or path == "toy" or Path(path).expanduser().exists():
            continue
        if name == "data_root" and is_remote(path):
            with expected_errors("--data_root: "):
                checked_store(path)
            continue
        if name != "dataset" or not is_hub_id(path) or path.endswith((".json", ".jsonl")):
            stop(f"--{name} ({path}): there is no such file or folder.")
    check_wording(data_args)
    check_selection(data_args.select, data_args.select_min)


def check_selection(select: str | None, minimum: float) -> None:
    """Refuses a selection that cannot be made."""
    if minimum < 0:
        stop(f"--select_min ({minimum}) must be 0 or more.")
    if select is not None and select != "field" and not Path(select).expanduser().exists():
        stop(f"--select ({select}): there is no such folder of an evaluation.")


def load_records(data_args: RecordArguments, source: str, *, hub: bool = True) -> Dataset:
    """The dataset of a file, a folder or a Hub id."""
    from videor1_trl import load_video_r1
    from videor1_trl.data.selection import select_records

    is_training = source == data_args.dataset  # the selection is of these
    hub = hub and not Path(source).is_file()  # a file of one's own may replace the Hub data set of a recipe
    records = load_video_r1(
        source,
        data_args.data_root,
        data_args.dataset_split if hub else None,
        data_files=data_args.data_files if hub else None,
        on_bad_record="drop" if data_args.drop_bad_records else "raise",
        prompt_template=data_args.prompt_template,
    )
    if data_args.select is None or not is_training:
        return records
    return select_records(records, data_args.select_min, None if data_args.select == "field" else data_args.select)
