"""Evaluates a video-language model on a benchmark, also on frames whose order is spoiled."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import evaluation_report
from .command_line import CommandParser
from .judge_flags import JudgeArguments, check_judge, judged, open_judge
from .media_look import print_look, unreadable, video_reader
from .messages import KEPT, check_drawing, expected_errors, run_command, stop
from .model_flags import BackendArguments, check_backend, open_backend, run_errors
from .record_flags import WordingArguments, check_selection, expand_folders


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from videor1_trl.evaluation.questions import Question
    from videor1_trl.generation.requests import GenerationSettings


OF_BENCHMARKS = ("source", "revision", "subsets", "media_root")
OF_RECORDS = ("data_files", "data_root")


@dataclass
class ScriptArguments(WordingArguments):
    """What is asked, and where the answers go."""

    benchmark: str | None = field(
        default=None,
        metadata={
            "help": "vsibench, videommmu, mmvu, mvbench, tempcompass, videomme, video-holmes; tvbench, tomato, aotbench, "
            "dybench, timeblind, vinoground, motionbench (the order of time); longvideobench, mlvu, mlvu-test, lvbench; "
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
        metadata={"help": "Folder that the records' paths are relative to. None: the records' own folder."},
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
    retry_errors: bool = field(default=False, metadata={"help": "Ask those again whose video could not be read."})
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Look for every video, read the first of them, count the questions and end: with 0, or with 1 and what "
            "is missing. No model is loaded."
        },
    )


def make_parser() -> CommandParser:
    from videor1_trl.generation.requests import GenerationSettings

    groups = {
        "what is asked": ScriptArguments,
        "the model that answers, and what runs it": BackendArguments,
        "how it answers, videos and images": GenerationSettings,
        "who judges open answers": JudgeArguments,
    }
    parser = CommandParser(__doc__, groups)
    parser.set_defaults(video_max_pixels=256 * 28 * 28)  # the paper's in evaluation
    return parser


def load_questions(args: ScriptArguments, dropped: list[str], judged: bool) -> list[Question]:
    from videor1_trl.evaluation.benchmarks import load_benchmark
    from videor1_trl.evaluation.questions import load_record_questions

    on_bad_record: Literal["drop", "raise"] = "drop" if args.drop_bad_records else "raise"
    if args.dataset is not None:
        return load_record_questions(
            args.dataset,
            args.data_root,
            data_files=args.data_files or None,
            on_bad_record=on_bad_record,
            dropped=dropped,
            prompt_template=args.prompt_template,
            judged=judged,
        )
    assert args.benchmark is not None  # see `check`
    return load_benchmark(
        args.benchmark,
        args.media_root,
        source=args.source,
        configs=args.subsets or None,
        revision=args.revision,
        on_bad_record=on_bad_record,
        dropped=dropped,
        prompt_template=args.prompt_template,
        subtitles=args.subtitles != "off",
        judged=judged,
    )


def selected(args: ScriptArguments, questions: list[Question]) -> list[Question]:
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


def identity_of(args: ScriptArguments, name: str, questions: list[Question]) -> dict[str, object]:
    """What may not change within a run; a judge may come later."""
    from videor1_trl.evaluation.questions import questions_fingerprint

    asked = [each for each in questions if each.metric != "judged" or args.dataset is not None]
    asked = [replace(each, metric="accuracy") if each.metric == "judged" else each for each in asked]
    return {"benchmark": name, "questions": questions_fingerprint(asked)}


def check(args: ScriptArguments, backend_args: BackendArguments, judge_args: JudgeArguments) -> None:
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
    if args.subtitles != "off" and args.benchmark is None:
        stop("--subtitles does not go with --dataset: records have none.")
    check_judge(judge_args)
    expand_folders(args, "output_dir", "source", "media_root", "dataset", "data_root", "prompt_template", "select")
    if args.select == "field":
        stop("--select field is for training: give the output_dir of an evaluation.")
    check_selection(args.select, args.select_min)
    with expected_errors():
        check_controls(args.control)
    if args.control:
        check_drawing("--control")
    if not args.dry_run:
        check_backend(backend_args)


def look(questions: list[Question], settings: GenerationSettings) -> int:
    """Prints what would be asked and which videos are missing; the exit code."""
    videos = {str(question.video): question.video for question in questions if question.video is not None}
    problems = unreadable(videos.values(), video_reader(settings))
    asked = f"{len(questions):,} questions on {len(videos):,} videos"
    return print_look(asked, [question.task for question in questions], problems, "video")


def about_questions(args: ScriptArguments, name: str, questions: list[Question]) -> dict[str, object]:
    """Where the questions are from, for the summary."""
    from videor1_trl.evaluation.benchmarks import BENCHMARKS

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
    }


def main() -> None:
    args, backend_args, settings, judge_args = make_parser().parse()
    check(args, backend_args, judge_args)

    from videor1_trl.evaluation import run as evaluation
    from videor1_trl.evaluation import time_dependence
    from videor1_trl.evaluation.judging import about_judge

    with expected_errors():
        dropped: list[str] = []
        all_questions = load_questions(args, dropped, judge_args.judge_model is not None)
        questions = evaluation.sample_questions(selected(args, all_questions), args.limit)
        evaluation.check_controls(args.control, questions)
    if args.dry_run:
        raise SystemExit(look(questions, settings))
    name = args.benchmark or "+".join(Path(file).stem for file in args.data_files or [args.dataset])
    judge = None if judge_args.judge_model is None else open_judge(judge_args)
    backend = open_backend(backend_args, settings)
    with run_errors(), expected_errors():
        run: dict[str, Any] = {"identity": identity_of(args, name, all_questions), "retry_errors": args.retry_errors}
        run["subtitles"] = None if args.subtitles == "off" else args.subtitles
        journal = evaluation.ask(questions, backend, args.output_dir, controls=args.control, **run)
        if args.time_dependence:
            time_dependence.weigh_options(questions, backend, args.output_dir, **run)
        verdicts = judged(all_questions, journal, judge, f"{args.output_dir}/judge")
        answers, _ = evaluation.read_answers(all_questions, journal, list(evaluation.CONTROLS), verdicts.right)
    weighed = time_dependence.read_time_dependence(all_questions, journal)
    missing = evaluation.count_missing(questions, answers, args.control) - len(verdicts.failures)
    if args.time_dependence:
        missing += time_dependence.count_missing(questions, weighed)
    if missing > 0 or verdicts.missing:
        print(f"This process is done; {missing:,} answers are still to come from others.")
        return
    about = {
        **about_questions(args, name, all_questions),
        "dropped_records": len(dropped),
        "first_dropped": dropped[:10],
        "sessions": journal.sessions(),
        "time_dependence": time_dependence.summarise(weighed),
        "judge": None if judge is None else about_judge(judge, verdicts),
    }
    columns = {"time_dependence": time_dependence.as_columns(weighed.found)} if weighed.found else {}
    summary = evaluation.write_results(args.output_dir, all_questions, answers, about, columns)
    evaluation_report.print_summary(summary)
    if summary["controls"]:
        evaluation_report.draw_controls(Path(args.output_dir) / "controls.png", summary)
    print(f"Saved to {args.output_dir}.")


if __name__ == "__main__":
    run_command(main, KEPT)
