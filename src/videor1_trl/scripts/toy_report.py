"""What `train_tgrpo.py` does around a run on the toy: data, model and cold start before it, figures and pictures after."""

from __future__ import annotations

import importlib.metadata
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from accelerate import PartialState
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
    TrainingArguments,
)

from videor1_trl import load_video, load_video_r1, shuffle_frames
from videor1_trl.scripts import toy

from ..watching.store import rollout_files
from . import plot_run, progress, toy_cold_start
from .plot_run import DPI, Entry, Panel
from .view import write_page


NUM_HELD_OUT = 200
Shares = dict[str, dict[str, float]]  # "ordered" or "shuffled" -> kind of question -> share right
PACKAGES = ("videor1_trl", "torch", "transformers", "trl", "accelerate", "datasets", "av")


class Summary(TypedDict):
    """What `summary.json` holds, as far as the run has come."""

    versions: dict[str, str]
    seed: int
    parameters: int
    seconds: dict[str, float]
    cold_start: NotRequired[dict[str, float]]
    before: NotRequired[Shares]
    after: NotRequired[Shares]
    method: NotRequired[str]
    steps: NotRequired[int]


@dataclass
class Toy:
    """One run on the toy: where its files are, and what is known about it so far."""

    folder: Path
    seed: int
    started: float
    train_file: Path
    held_out_file: Path
    model_folder: Path  # the model after the cold start
    summary: Summary
    trained_from: float = 0.0


def prepare(args: TrainingArguments, size: int, target: float) -> Toy:
    """
    Makes data, model and cold start under `args.output_dir`, the cold start on all processes of `args` together.

    Raises:
        `ValueError`: a size or target out of range.
    """
    if size < 32:
        raise ValueError(f"toy_size ({size}) must be at least 32, a batch of the cold start.")
    if not 0 <= target < 1:
        raise ValueError(f"toy_target ({target}) must be at least 0 and below 1.")
    progress.begin()
    torch.set_num_threads(1)  # so small a model gains little from more, and loses much where the cores are shared
    folder, clock = Path(str(args.output_dir)), time.perf_counter()
    cold_start_file, train_file, held_out_file = make_files(args, folder / "data", size)
    model, processor = toy.make_model(args.seed)
    if args.process_index == 0:  # what train_sft.py can start from
        model.save_pretrained(folder / "untrained")
        processor.save_pretrained(folder / "untrained")
    summary: Summary = {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "seed": args.seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": {"data": _since(clock)},
    }
    run = Toy(folder, args.seed, clock, train_file, held_out_file, folder / "cold_start", summary)
    _say(
        args,
        f"data: {2 * size + NUM_HELD_OUT} questions, their videos and images, in {summary['seconds']['data']:.0f} s",
    )
    clock = time.perf_counter()
    found = toy_cold_start.cold_start(
        model,
        processor,
        load_video_r1(cold_start_file),
        run.model_folder,
        seed=run.seed,
        target=target,
        bf16=args.bf16,
        use_cpu=args.use_cpu,
    )
    summary["cold_start"], summary["seconds"]["cold_start"] = found, _since(clock)
    _say(
        args,
        f"cold start: {found['steps']} steps in {_since(clock):.0f} s, {found['validation_accuracy']:.0%} of the order "
        "questions right",
    )
    if args.process_index == 0:
        model.save_pretrained(run.model_folder)
        processor.save_pretrained(run.model_folder)
        clock = time.perf_counter()
        summary["before"], _ = evaluate(model, processor, run.held_out_file, "before")
        summary["seconds"]["evaluation_before"] = _since(clock)
    PartialState().wait_for_everyone()
    run.trained_from = time.perf_counter()
    return run


def make_files(args: TrainingArguments, folder: Path, size: int) -> tuple[Path, Path, Path]:
    """The records of the cold start, of T-GRPO and of the held-out questions, and their media: made by the main process."""
    files = folder / "cold_start.json", folder / "train.json", folder / "held_out.json"
    cold_start, train, held_out = (file.stem for file in files)
    with args.main_process_first(local=False, desc="toy data"):
        if args.process_index == 0:
            seeds = [3 * args.seed + offset for offset in (1, 2, 3)]  # three disjoint files
            bar = progress.on_terminal()
            toy.make_dataset(folder, cold_start, size, seed=seeds[0], order_share=0.2, progress=bar)
            toy.make_dataset(folder, train, size, seed=seeds[1], order_share=0.35, progress=bar)
            toy.make_dataset(folder, held_out, NUM_HELD_OUT, seed=seeds[2], held_out=True, progress=bar)
    return files


def _say(args: TrainingArguments, line: str) -> None:
    if args.process_index == 0:
        print(line, flush=True)


def evaluate(
    model: PreTrainedModel, processor: ProcessorMixin, file: Path, when: str
) -> tuple[Shares, dict[str, list[str]]]:
    """
    Held-out questions, answered greedily on ordered and on shuffled frames.

    Returns:
        `({"ordered": {kind: share right}, "shuffled": ...}, {"ordered": [completion of each question], ...})`.
    """
    rows = list(load_video_r1(file))
    shares: Shares = {}
    completions: dict[str, list[str]] = {}
    for frames, contrast in (("ordered", None), ("shuffled", shuffle_frames)):
        bar = f"held-out questions, {when}, {frames}"
        completions[frames] = toy_cold_start.greedy_answers(model, processor, rows, contrast=contrast, progress=bar)
        verdicts = list(zip(rows, toy_cold_start.right(rows, completions[frames]), strict=True))
        by_kind = {kind: [ok for row, ok in verdicts if row["data_source"] == f"toy/{kind}"] for kind in toy.KINDS}
        shares[frames] = {kind: round(sum(ok) / len(ok), 4) for kind, ok in by_kind.items()}
    return shares, completions


def finish(run: Toy, log_history: list[Entry], *, plain_grpo: bool = False) -> None:
    """Evaluates the saved checkpoint, writes summary and pictures, prints the closing table."""
    summary = run.summary
    summary["method"] = "GRPO" if plain_grpo else "T-GRPO"
    summary["seconds"]["training"] = _since(run.trained_from)
    clock = time.perf_counter()
    model = AutoModelForImageTextToText.from_pretrained(run.folder)
    processor = AutoProcessor.from_pretrained(run.folder)
    summary["after"], completions = evaluate(model, processor, run.held_out_file, "after")
    summary["seconds"]["evaluation_after"] = _since(clock)
    clock = time.perf_counter()
    steps = [log for log in log_history if "reward" in log]
    summary["steps"] = int(plot_run.series(steps, "step")[0][-1]) if steps else 0
    if steps:
        draw_curves(run.folder / "curves.png", steps, summary["method"])
    draw_frames(run.folder / "frames.png", list(load_video_r1(run.held_out_file)), completions)
    if rollout_files(run.folder):
        write_page([run.folder], run.folder / "view.html")
    summary["seconds"]["pictures"] = _since(clock)
    summary["seconds"]["total"] = _since(run.started)
    (run.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print_table(summary)


def draw_curves(path: Path, steps: list[Entry], method: str) -> list[str]:
    """Accuracy, contrast accuracy, gap, reward and completion length over the steps; says what was left out."""
    panels = [
        Panel("share of rollouts right", {"temporal/accuracy": "ordered", "temporal/contrast_accuracy": "shuffled"}),
        Panel("gap, ordered less shuffled", {"temporal/gap": ""}),
        Panel("reward", {"reward": ""}),
        Panel("completion length in tokens", {"completions/mean_length": ""}),
    ]
    title = f"{method} on the toy's training videos, sampled rollouts"
    return plot_run.draw(path, {method: steps}, panels, plot_run.Smoothing("mean"), title)


def draw_frames(path: Path, rows: list[toy_cold_start.Row], completions: dict[str, list[str]]) -> None:
    """One held-out video in order and shuffled, its question, and the trained model's answer to each."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    index = _telling_question(rows, completions)
    frames, metadata = load_video(rows[index]["video"])
    contrast = shuffle_frames(frames, torch.Generator().manual_seed(index))  # as it was answered
    figure, axes = plt.subplots(2, len(frames), figsize=(1.4 * len(frames), 4.6))
    figure.subplots_adjust(left=0.04, right=0.99, top=0.82, bottom=0.1, hspace=0.55, wspace=0.08)
    for line, shown, name in zip(axes, (frames, contrast), ("ordered", "shuffled"), strict=True):
        for axis, frame, second in zip(line, shown, metadata.timestamps, strict=True):
            axis.imshow(frame.permute(1, 2, 0))
            axis.set_title(f"{second:.2g} s", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name)
        answer = completions[name][index].replace("\n", " ")
        line[0].text(
            0, -0.12, f"answer: {answer}", transform=line[0].transAxes, family="monospace", fontsize=9, va="top"
        )
    options = "   ".join(rows[index]["options"])
    figure.suptitle(f"{rows[index]['problem']}   {options}\nright: {rows[index]['solution']}", fontsize=10)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _telling_question(rows: list[toy_cold_start.Row], completions: dict[str, list[str]]) -> int:
    """Index of the first order question that is right on ordered and wrong on shuffled frames, else of the first."""
    order = [index for index, row in enumerate(rows) if row["data_source"] == "toy/order"]
    verdicts = {name: toy_cold_start.right(rows, texts) for name, texts in completions.items()}
    return next((i for i in order if verdicts["ordered"][i] and not verdicts["shuffled"][i]), order[0])


def print_table(summary: Summary) -> None:
    """Held-out questions before and after, and what each part of the run took."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Held-out questions answered right, before and after {summary['method']}")
    table.add_column("question")
    for when in ("before", "after"):
        for frames in ("ordered", "shuffled"):
            table.add_column(f"{when},\n{frames}", justify="right")
    for kind in toy.KINDS:
        found = summary["before"], summary["after"]
        shares = [each[frames][kind] for each in found for frames in ("ordered", "shuffled")]
        table.add_row(kind, *(f"{share:.0%}" for share in shares))
    seconds = ", ".join(f"{name.replace('_', ' ')} {value:.0f}" for name, value in summary["seconds"].items())
    console = Console()
    console.print(table)
    closing = f"{summary['parameters']:,} parameters, seed {summary['seed']}. Seconds: {seconds}"
    console.print(closing, highlight=False, soft_wrap=True)


def _since(clock: float) -> float:
    return round(time.perf_counter() - clock, 2)
