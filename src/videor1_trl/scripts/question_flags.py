"""What an evaluation asks: its flags, the questions that they name, and what the summary says of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .messages import check_drawing, expected_errors, stop
from .record_flags import WordingArguments, check_selection, expand_folders


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from videor1_trl.evaluation.questions import Question


OF_BENCHMARKS = ("source", "revision", "subsets", "media_root")
OF_RECORDS = ("data_files", "data_root")


@dataclass
class QuestionArguments(WordingArguments):
    """What is asked, and where the answers go."""

    benchmark: str | None = field(
        default=None,
        metadata={
            "help": "vsibench, videommmu, mmvu, mvbench, tempcompass, videomme, video-holmes; tvbench, tomato, aotbench, "
            "dybench, timeblind, vinoground, motionbench (the order of time); longvideobench, mlvu, mlvu-test, mlvu-open, lvbench; "
            "videomathqa, minerva; charades-sta or timelens-bench (when something happens); from its official files."
        },
    )
    source: str | None = field(
        default=None,
        metadata={"help": "A local copy of the benchmark's dataset, or another Hub id. None: the official one."},
    )
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the Hub dataset."})
    subsets: list[str] = field(
        default_factory=list,
        metadata={"help": "Parts of the benchmark, such as debiased (vsibench). None named: full, or all of them."},
    )
    media_root: str | None = field(
        default=None, metadata={"help": "Folder in which the benchmark's archives of videos were unpacked."}
    )
    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Instead of benchmark: records in Video-R1's format, a file such as its eval_mvbench.json, a folder or a "
            "Hub id (both with data_files)."
        },
    )
    data_files: list[str] = field(
        default_factory=list,
        metadata={"help": "With dataset a folder or a Hub id: its file of records, such as eval_mvbench.json."},
    )
    data_root: str | None = field(
        default=None,
        metadata={
            "help": "What the records' paths are relative to: a folder, a zip or tar archive, or the address of either in a store, "
            "such as s3://bucket/videos. None: the records' own folder."
        },
    )
    drop_bad_records: bool = field(
        default=False,
        metadata={"help": "Leave malformed rows out (logged and counted in summary.json), instead of ending the run."},
    )
    control: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Ask every question with a video again on what spoils its order: shuffled, reversed, single-frame (one "
            "frame in the place of all), text-only (no video)."
        },
    )
    time_dependence: bool = field(
        default=False,
        metadata={
            "help": "Weigh the options of every question on a video with its frames in order, reversed and shuffled: how far "
            "their probabilities part is its time dependence."
        },
    )
    subtitles: Literal["off", "sampled", "all"] = field(
        default="off",
        metadata={
            "help": "videomme, longvideobench, videomathqa: show the subtitles said at the sampled frames (as these benchmarks "
            "do), or all of them, behind the video."
        },
    )
    select: str | None = field(
        default=None,
        metadata={
            "help": "Ask only the questions that depend on time, as measured by another run with time_dependence on all of "
            "them: its output_dir."
        },
    )
    select_min: float = field(
        default=0.1, metadata={"help": "With select: least time dependence, in nats, against reversed frames (>= 0)."}
    )
    output_dir: str | None = field(default=None, metadata={"help": "Folder of the answers, figures and pictures."})
    limit: int | None = field(
        default=None, metadata={"help": "Ask so many of the questions, drawn from all. None: all."}
    )
    view_frames: int = field(
        default=0,
        metadata={
            "help": "Keep small pictures of the frames of so many questions, evenly spread, in order and under each control, for "
            "videor1 view (>= 0). 0: no pixel is kept."
        },
    )
    retry_errors: bool = field(default=False, metadata={"help": "Ask those again whose video could not be read."})
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Look for every video, read the first of them, count the questions and end: with 0, or with 1 and what "
            "is missing. No model is loaded."
        },
    )


@dataclass
class Loaded:
    """
    The questions of a benchmark or of records, and what of their files is not among them.

    Args:
        dropped (`list[str]`): rows that cannot be asked, each with the reason. not_asked (`dict[str, int]`): questions that the
            benchmark leaves out, by reason.
    """

    questions: list[Question] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    not_asked: dict[str, int] = field(default_factory=dict)


def load_questions(args: QuestionArguments, judged: bool) -> Loaded:
    from videor1_trl.evaluation.benchmarks import load_benchmark
    from videor1_trl.evaluation.questions import load_record_questions

    found = Loaded()
    shared: dict[str, Any] = {
        "on_bad_record": "drop" if args.drop_bad_records else "raise",
        "dropped": found.dropped,
        "prompt_template": args.prompt_template,
        "judged": judged,
    }
    if args.dataset is not None:
        found.questions = load_record_questions(
            args.dataset, args.data_root, data_files=args.data_files or None, **shared
        )
        return found
    assert args.benchmark is not None  # see `check_questions`
    found.questions = load_benchmark(
        args.benchmark,
        args.media_root,
        source=args.source,
        configs=args.subsets or None,
        revision=args.revision,
        not_asked=found.not_asked,
        subtitles=args.subtitles != "off",
        **shared,
    )
    return found


def selected(args: QuestionArguments, questions: list[Question]) -> list[Question]:
    """Those that depend on time by another run's measure; which these are is written down beside the answers."""
    from videor1_trl.data.selection import read_measured, time_dependent
    from videor1_trl.generation.journal import write_whole

    if args.select is None:
        return questions
    measured = read_measured(args.select)
    keys = ((question.key, question.problem) for question in questions)
    chosen = [questions[place] for place in time_dependent(keys, measured, args.select_min, args.select)]
    print(
        f"Selected {len(chosen):,} of {len(questions):,} questions, of a time dependence of {args.select_min} or more."
    )
    if not args.dry_run and args.output_dir is not None:
        found = {"from": args.select, "order": "reversed", "minimum": args.select_min}
        values = {question.key: measured[question.key].value for question in chosen}
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        write_whole(Path(args.output_dir) / "selected.json", [json.dumps({**found, "questions": values}, indent=1)])
    return chosen


def identity_of(args: QuestionArguments, name: str, questions: list[Question]) -> dict[str, object]:
    """What may not change within a run; a judge may come later, unless all that is asked is for one."""
    from videor1_trl.evaluation.questions import questions_fingerprint

    asked = [each for each in questions if each.metric != "judged" or args.dataset is not None] or questions
    asked = [replace(each, metric="accuracy") if each.metric == "judged" else each for each in asked]
    return {"benchmark": name, "questions": questions_fingerprint(asked)}


def about_questions(args: QuestionArguments, name: str, loaded: Loaded) -> dict[str, object]:
    """Where the questions are from, for the summary."""
    from videor1_trl.evaluation.benchmarks import BENCHMARKS

    questions = loaded.questions
    judged = any(question.metric == "judged" for question in questions)
    videos = {question.cluster: bool(question.subtitles) for question in questions if question.subtitles is not None}
    return {
        "benchmark": name,
        "source": args.dataset or args.source or BENCHMARKS[name].hub_id,
        "subsets": args.subsets,
        "left_out": BENCHMARKS[name].left_out if args.benchmark and not judged else "",
        "note": BENCHMARKS[name].note if args.benchmark else "",
        "prompt_template": args.prompt_template,
        "subtitles": {"shown": args.subtitles, "videos_with": sum(videos.values()), "videos": len(videos)},
        "selected": None if args.select is None else {"from": args.select, "minimum": args.select_min},
        "questions_of_benchmark": len(questions),
        "dropped_records": len(loaded.dropped),
        "first_dropped": loaded.dropped[:10],
        "not_asked": loaded.not_asked,
    }


def check_questions(args: QuestionArguments) -> None:
    """Refuses what does not fit before anything is read."""
    from videor1_trl.evaluation.run import check_controls

    if (args.benchmark is None) == (args.dataset is None):
        stop("give either --benchmark or --dataset.")
    given, others = ("benchmark", OF_RECORDS) if args.benchmark is not None else ("dataset", OF_BENCHMARKS)
    for name in others:
        if getattr(args, name):
            stop(
                f"--{name} does not go with --{given}: it is for --{'dataset' if given == 'benchmark' else 'benchmark'}."
            )
    if args.output_dir is None:
        stop("--output_dir is not set.")
    if args.view_frames < 0:
        stop(f"--view_frames ({args.view_frames}) must be at least 0.")
    if args.subtitles != "off" and args.benchmark is None:
        stop("--subtitles does not go with --dataset: records have none.")
    expand_folders(args, "output_dir", "source", "media_root", "dataset", "data_root", "prompt_template", "select")
    if args.select == "field":
        stop("--select field is for training: give the output_dir of an evaluation.")
    check_selection(args.select, args.select_min)
    with expected_errors():
        check_controls(args.control)
    if args.control:
        check_drawing("--control")
