"""What the scripts do before a run: read records, check model and media, and end in one line where something does not fit."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml


@dataclass
class RecordArguments:
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
        metadata={"help": "Folder that the records' paths are relative to. None: the records' own folder."},
    )
    dataset_split: str | None = field(
        default=None, metadata={"help": "Split of a Hub dataset, slices such as train[:1000] included. None: train."}
    )
    drop_bad_records: bool = field(
        default=False, metadata={"help": "Leave malformed records out (logged), instead of ending the run."}
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
    drop_bad_media: bool = field(
        default=False, metadata={"help": "Leave rows with missing or unreadable media out, instead of ending the run."}
    )


def stop(message: str):
    """Ends the run for what every process finds: one message from the main process, no traceback."""
    if int(os.environ.get("RANK", "0")):
        raise SystemExit(1)
    stop_process(message)


def stop_process(message: str):
    """Ends the run for what this process alone may have found: its message, no traceback."""
    raise SystemExit(f"{Path(sys.argv[0]).name}: {message}")


def expand_folders(args, *names: str) -> None:
    """Folders that start with ~ as the home folder's: a shell expands them in flags, nobody does in YAML."""
    for name in names:
        if getattr(args, name) is not None:
            setattr(args, name, os.path.expanduser(getattr(args, name)))


@contextlib.contextmanager
def expected_errors(what: str = ""):
    """Ends the run with the message alone where arguments, data or model do not fit."""
    try:
        yield
    except OSError as error:  # the messages of the Hub's client go on for pages
        stop(what + (str(error).strip().splitlines() or [type(error).__name__])[0])
    except (ImportError, NotImplementedError, TypeError, ValueError, yaml.YAMLError) as error:
        stop(what + str(error))


def check_arguments(data_args, resume=None) -> None:
    """Refuses what is missing before anything is read."""
    if data_args.dataset is None:
        stop("dataset is not set: give a JSON file of records, a folder or a Hub id.")
    if isinstance(resume, str) and resume.lower() not in ("true", "false") and not Path(resume).is_dir():
        stop(f"resume_from_checkpoint ({resume}) is no folder.")


def load_records(data_args, source: str, *, hub: bool = True):
    """The dataset of a file, a folder or a Hub id."""
    from videor1_trl import load_video_r1

    hub = hub and not Path(source).is_file()  # a file of one's own may replace the Hub data set of a recipe
    return load_video_r1(
        source,
        data_args.data_root,
        data_args.dataset_split if hub else None,
        data_files=data_args.data_files if hub else None,
        on_bad_record="drop" if data_args.drop_bad_records else "raise",
    )


def unreadable(sources, load, num_read: int = 8) -> list[str]:
    """What is wrong with media, in a dry run: each is looked for, and so many of the first are read by `load`."""
    from tqdm.auto import tqdm

    from videor1_trl import MediaError

    problems = []
    for place, source in enumerate(tqdm(sources, desc="media")):
        path = Path(source.get("path") or source["frames"] if isinstance(source, dict) else source)
        if not path.exists():
            problems.append(f"{path}: missing")
        elif place < num_read:
            try:
                load(source)
            except MediaError as error:
                problems.append(str(error))
    return problems


def print_look(asked: str, parts: list[str], problems: list[str], file: str) -> int:
    """Prints what a dry run has found: what would be asked, how much of each part, and what is wrong; the exit code."""
    print(asked)
    for part, count in sorted(Counter(parts).items()):
        print(f"  {part}: {count:,}")
    for problem in problems[:10]:
        print(f"problem: {problem}")
    print(f"Problems: {len(problems):,}." if problems else f"Every {file} is there; the first of them can be read.")
    return int(bool(problems))


def load_both(data_args):
    """Training and evaluation data; `None` for the second where there is none."""
    train = load_records(data_args, data_args.dataset)
    return train, data_args.eval_dataset and load_records(data_args, data_args.eval_dataset, hub=False)


def check_model(model_args, args, datasets) -> None:
    """Refuses a model that is not there, or takes no videos where the data has some, before any weights are read."""
    from transformers import AutoProcessor

    from videor1_trl.families import takes_videos

    name = model_args.model_name_or_path
    if name is None:
        stop("model_name_or_path is not set: give a Hub id or a folder with a model and its processor.")
    if not Path(name).is_dir() and (Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1):
        stop(f"model_name_or_path ({name}) is not a folder. Give one with a model and its processor, or a Hub id.")
    with expected_errors(f"model_name_or_path ({name}): "):
        processor = AutoProcessor.from_pretrained(
            name, revision=model_args.model_revision, trust_remote_code=args.trust_remote_code
        )
    num_videos = sum(len(dataset) - dataset.data.column("video").null_count for dataset in datasets)
    if num_videos and not takes_videos(processor):
        stop(
            f"{num_videos} rows have a video, but the {type(processor).__name__} of {name} takes none. Use a "
            "video-language model such as Qwen2.5-VL."
        )


def check_files(dataset, data_args, args):
    """The dataset, without the rows whose media cannot be read; ends the run for them unless they may be dropped."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    from videor1_trl import check_media

    if data_args.check_media == "off":
        return dataset
    sampling = {}
    if data_args.check_media == "sampled_frames":
        sampling = args.video_settings
    found = [None]
    if PartialState().is_main_process:
        found[0] = check_media(dataset, decode=data_args.check_media, **sampling)[1]
    report = broadcast_object_list(found)[0]
    if report.ok:
        return dataset
    if not data_args.drop_bad_media:
        stop(f"{report}\nRestore these files, or leave their rows out with --drop_bad_media.")
    bad = set(report.rows)
    kept = [index for index in range(len(dataset)) if index not in bad]
    if not kept:
        stop(f"no row is left without bad media. {report}")
    return dataset.select(kept)


def model_init_kwargs(model_args, args) -> dict:
    """How the model is loaded: what the command line says of it, and `args.model_init_kwargs`, which wins."""
    return {
        "revision": model_args.model_revision,
        "trust_remote_code": args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(args.model_init_kwargs or {}),
    }


def train(trainer, resume) -> None:
    """Trains; ends in one line where a record's media or prompt cannot be used."""
    from videor1_trl import MediaError
    from videor1_trl.batch import PromptError

    try:
        trainer.train(resume_from_checkpoint=resume)
    except (MediaError, PromptError) as error:  # names its record
        raise SystemExit(f"{Path(sys.argv[0]).name}: {error}") from error
    except RuntimeError as error:  # the same, from a process that prepares batches
        last = str(error).strip().splitlines()[-1]
        kind, _, message = last.partition(": ")
        if kind not in [f"{each.__module__}.{each.__name__}" for each in (PromptError, *MediaError.__subclasses__())]:
            raise
        raise SystemExit(f"{Path(sys.argv[0]).name}: {message}") from error
