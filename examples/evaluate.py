"""
Evaluates a video-language model on a benchmark, also on frames whose order is spoiled.

    # the model of `make demo` on its held-out questions; two CPU cores, seconds
    python examples/evaluate.py --config examples/configs/toy_eval.yaml

    # Video-R1's evaluation, from an official dataset or from the authors' JSON files; one 80 GB GPU, or several
    accelerate launch examples/evaluate.py --config examples/configs/video_r1_eval.yaml \\
        --benchmark mvbench --media_root data/MVBench/video --output_dir runs/eval/mvbench
    accelerate launch examples/evaluate.py --config examples/configs/video_r1_eval.yaml \\
        --dataset data/Evaluation/eval_mvbench.json --data_root data/Evaluation --output_dir runs/eval/mvbench_json

    # how much of the score needs the order of the frames, motion, or a video at all?
    ... --control shuffled reversed single-frame text-only

Another start goes on where the last one stopped, or asks more on top, and the figures are of all answers. The last line says
where the results are: `Saved to runs/eval/mvbench.`
"""

# /// script
# dependencies = ["videor1_trl[examples]"]
# ///

from dataclasses import dataclass, field
from pathlib import Path

import evaluation_report
from run_data import expand_folders, expected_errors, print_look, stop, unreadable
from run_model import BackendArguments, check_backend, open_backend, run_errors


OF_BENCHMARKS = ("source", "revision", "subsets", "media_root")
OF_RECORDS = ("data_files", "data_root", "drop_bad_records")


@dataclass
class ScriptArguments:
    """What is asked, and where the answers go."""

    benchmark: str | None = field(
        default=None,
        metadata={
            "help": "vsibench, videommmu, mmvu, mvbench, tempcompass, videomme or video-holmes, from its official files."
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
        metadata={"help": "Leave malformed records of the dataset out (logged), instead of ending the run."},
    )
    control: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Ask every question with a video again on what spoils its order: shuffled, reversed, single-frame (one "
            "frame in the place of all), text-only (no video)."
        },
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


def make_parser():
    from trl import TrlParser

    from videor1_trl.generation_requests import GenerationSettings

    dataclasses = (ScriptArguments, BackendArguments, GenerationSettings)
    parser = TrlParser(dataclasses, description=__doc__.strip().splitlines()[0])
    parser.set_defaults(video_max_pixels=256 * 28 * 28)  # the paper's in evaluation
    parser.error = stop
    return parser


def load_questions(args) -> list:
    from videor1_trl.benchmarks import load_benchmark, load_record_questions

    if args.dataset is not None:
        bad = "drop" if args.drop_bad_records else "raise"
        files = args.data_files or None
        return load_record_questions(args.dataset, args.data_root, data_files=files, on_bad_record=bad)
    return load_benchmark(
        args.benchmark, args.media_root, source=args.source, configs=args.subsets or None, revision=args.revision
    )


def check(args, backend_args) -> None:
    """Refuses what does not fit before anything is read."""
    from videor1_trl.evaluation import check_controls

    if (args.benchmark is None) == (args.dataset is None):
        stop("give either benchmark or dataset.")
    given, others = ("benchmark", OF_RECORDS) if args.benchmark is not None else ("dataset", OF_BENCHMARKS)
    for name in others:
        if getattr(args, name):
            stop(f"{name} does not go with {given}: it is for {'dataset' if given == 'benchmark' else 'benchmark'}.")
    if args.output_dir is None:
        stop("output_dir is not set.")
    expand_folders(args, "output_dir", "source", "media_root", "dataset", "data_root")
    with expected_errors():
        check_controls(args.control)
    if not args.dry_run:
        check_backend(backend_args)


def look(questions, settings) -> int:
    """Prints what would be asked and which videos are missing; the exit code."""
    from videor1_trl import load_video

    videos = {str(question.video): question.video for question in questions if question.video is not None}
    problems = unreadable(videos.values(), lambda source: load_video(source, **settings.video_settings))
    asked = f"{len(questions):,} questions on {len(videos):,} videos"
    return print_look(asked, [question.task for question in questions], problems, "video")


def main():
    parser = make_parser()
    with expected_errors():
        args, backend_args, settings = parser.parse_args_and_config()
    check(args, backend_args)

    from videor1_trl import evaluation
    from videor1_trl.benchmarks import BENCHMARKS, fingerprint

    with expected_errors():
        all_questions = load_questions(args)
        questions = evaluation.sample_questions(all_questions, args.limit)
    if args.dry_run:
        raise SystemExit(look(questions, settings))
    name = args.benchmark or "+".join(Path(file).stem for file in args.data_files or [args.dataset])
    backend = open_backend(backend_args, settings)
    with run_errors(), expected_errors():
        journal = evaluation.ask(
            questions,
            backend,
            args.output_dir,
            controls=args.control,
            identity={"benchmark": name, "questions": fingerprint(all_questions)},
            retry_errors=args.retry_errors,
        )
        answers, _ = evaluation.read_answers(all_questions, journal, list(evaluation.CONTROLS))
    missing = evaluation.count_missing(questions, answers, args.control)
    if missing:
        print(f"This process is done; {missing:,} answers are still to come from others.")
        return
    about = {
        "benchmark": name,
        "source": args.dataset or args.source or BENCHMARKS[name].hub_id,
        "subsets": args.subsets,
        "left_out": BENCHMARKS[name].left_out if args.benchmark else "",
        "questions_of_benchmark": len(all_questions),
        "sessions": journal.sessions(),
    }
    summary = evaluation.write_results(args.output_dir, all_questions, answers, about)
    evaluation_report.print_summary(summary)
    if summary["controls"]:
        evaluation_report.draw_controls(Path(args.output_dir) / "controls.png", summary)
    print(f"Saved to {args.output_dir}.")


if __name__ == "__main__":
    main()
