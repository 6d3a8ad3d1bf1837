"""Evaluates a video-language model on a benchmark, also on frames whose order is spoiled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import evaluation_report
from .command_line import CommandParser
from .judge_flags import JudgeArguments, check_judge, judged, open_judge
from .media_look import print_look, unreadable, video_reader
from .messages import KEPT, expected_errors, run_command
from .model_flags import BackendArguments, check_backend, open_backend, run_errors
from .question_flags import (
    QuestionArguments,
    about_questions,
    check_questions,
    identity_of,
    load_questions,
    selected,
)
from .record_flags import name_store


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from videor1_trl.evaluation.questions import Question
    from videor1_trl.generation.requests import GenerationSettings


def make_parser() -> CommandParser:
    from videor1_trl.generation.requests import GenerationSettings
    from videor1_trl.media.settings import DefaultPixels

    groups = {
        "what is asked": QuestionArguments,
        "the model that answers, and what runs it": BackendArguments,
        "how it answers, videos and images": GenerationSettings,
        "who judges open answers": JudgeArguments,
    }
    parser = CommandParser(__doc__, groups)
    parser.set_defaults(video_max_pixels=DefaultPixels(256 * 28 * 28))  # the paper's in evaluation
    return parser


def look(questions: list[Question], settings: GenerationSettings) -> int:
    """Prints what would be asked and which videos are missing; the exit code."""
    videos = {str(video): video for question in questions for video in question.videos}
    problems = unreadable(videos.values(), video_reader(settings), settings.limits)
    asked = f"{len(questions):,} questions on {len(videos):,} videos"
    return print_look(asked, [question.task for question in questions], problems, "video")


def main() -> None:
    args, backend_args, settings, judge_args = make_parser().parse()
    check_judge(judge_args)
    check_questions(args)
    with expected_errors("--data_root: "):
        name_store(settings, args.data_root)
    if not args.dry_run:
        check_backend(backend_args)

    from videor1_trl.evaluation import run as evaluation
    from videor1_trl.evaluation import time_dependence
    from videor1_trl.evaluation.judging import about_judge
    from videor1_trl.evaluation.pictures import keep_pictures

    with expected_errors():
        loaded = load_questions(args, judge_args.judge_model is not None)
        all_questions = loaded.questions
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
        answers, _ = evaluation.read_answers(all_questions, journal, list(evaluation.CONTROLS), verdicts.scores)
    weighed = time_dependence.read_time_dependence(all_questions, journal)
    missing = evaluation.count_missing(questions, answers, args.control, verdicts.failures)
    if args.time_dependence:
        missing += time_dependence.count_missing(questions, weighed)
    if missing > 0 or verdicts.missing:
        print(f"This process is done; {missing:,} answers are still to come from others.")
        return
    about = {
        **about_questions(args, name, loaded),
        "sessions": journal.sessions(),
        "time_dependence": time_dependence.summarise(weighed),
        "judge": None if judge is None else about_judge(judge, verdicts, all_questions),
    }
    columns = {"time_dependence": time_dependence.as_columns(weighed.found)} if weighed.found else {}
    summary = evaluation.write_results(args.output_dir, all_questions, answers, about, columns)
    evaluation_report.print_summary(summary)
    if summary["controls"]:
        evaluation_report.draw_controls(Path(args.output_dir) / "controls.png", summary)
    if args.view_frames:
        kept = keep_pictures(args.output_dir, all_questions, answers, backend, args.view_frames)
        print(f"Kept small pictures of the frames of {kept:,} questions: videor1 view {args.output_dir} shows them.")
    print(f"Saved to {args.output_dir}.")


if __name__ == "__main__":
    run_command(main, KEPT)
