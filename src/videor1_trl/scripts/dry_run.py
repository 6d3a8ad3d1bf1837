"""`--dry_run` of the training scripts: checks and plans a run, prints the plan, ends with 0, or with 1 and the problems."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, cast
from unittest import mock

from .command_line import CommandParser
from .held_model import held_to_contract
from .recipes import read_recipe, split_config


if TYPE_CHECKING:  # slow imports, and the flags of this module are parsed before them
    from datasets import Dataset
    from rich.table import Table
    from trl import ModelConfig

    from videor1_trl import TGRPOConfig, VideoSFTConfig
    from videor1_trl.contract.result import ContractResult
    from videor1_trl.planning.plan import Plan
    from videor1_trl.planning.prompts import DataPlan


@dataclass
class DryRunArguments:
    """A plan instead of a run."""

    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Check data, media and model, estimate the memory, plan the steps, print all of it and end: with 0, or "
            "with 1 and the list of problems. Nothing is trained, no weights are read (but for check_model)."
        },
    )
    dry_run_processes: int | None = field(
        default=None,
        metadata={"help": "With dry_run: plan for so many devices. None: those that this was launched with."},
    )
    dry_run_sharding: str | None = field(
        default=None,
        metadata={
            "help": "With dry_run: plan for this sharding. None: as launched.",
            "choices": ["none", "zero1", "zero2", "zero3", "fsdp"],
        },
    )
    dry_run_device_gib: float | None = field(
        default=None,
        metadata={
            "help": "With dry_run: memory in GiB of one GPU to plan for. None: that of the first GPU here, if any."
        },
    )
    dry_run_rows: int = field(
        default=32, metadata={"help": "With dry_run: rows of each dataset that are encoded to measure prompts (>= 1)."}
    )
    check_model: bool = field(
        default=False,
        metadata={
            "help": "With dry_run: read the weights too, as training would, and check on them what training relies on (the "
            "contract of the manual's page Families). What fails is a problem of the plan."
        },
    )


def parse_as_planned(parser: CommandParser) -> tuple[Any, ...]:
    """
    What the parser makes of the command line; with `--dry_run_processes N` as N processes would, whose batches are another
    size than this one's.
    """
    from transformers import HfArgumentParser, TrainingArguments

    asked: DryRunArguments = HfArgumentParser(
        cast("Any", DryRunArguments), add_help=False, allow_abbrev=False
    ).parse_args_into_dataclasses(_with_config(), return_remaining_strings=True)[0]
    if not asked.dry_run or asked.dry_run_processes is None:
        return parser.parse_args_and_config()
    if asked.dry_run_processes < 1:
        raise ValueError(f"dry_run_processes ({asked.dry_run_processes}) must be at least 1.")
    processes = property(lambda args: asked.dry_run_processes)
    with mock.patch.object(TrainingArguments, "world_size", processes):
        return parser.parse_args_and_config()


def _with_config() -> list[str]:
    """The flags of a dry run, those of the recipe behind `--config` before those of the command line."""
    recipe, arguments = split_config(sys.argv[1:])
    keys = {} if recipe is None else read_recipe(recipe)
    chosen = [f"--{key}={value}" for key, value in keys.items() if key.startswith("dry_run")]
    return chosen + arguments


def end_with_plan(
    dry_run: DryRunArguments,
    args: TGRPOConfig | VideoSFTConfig,
    model_args: ModelConfig,
    train_dataset: Dataset,
    eval_dataset: Dataset | None,
    **options: Any,
) -> NoReturn:
    """
    Prints the plan of a run on the main process, and ends the script.

    Args:
        dry_run, args, model_args, train_dataset, eval_dataset: as parsed and loaded.
        **options: further arguments of [`plan_run`], such as `media` and `contrast`.

    Raises:
        `SystemExit`: always; with 1 where the plan has problems.
    """
    if int(os.environ.get("RANK", "0")) != 0:
        raise SystemExit(0)
    from videor1_trl.planning.plan import plan_run

    gib = dry_run.dry_run_device_gib
    plan = plan_run(
        args,
        model_args,
        train_dataset,
        eval_dataset,
        num_processes=dry_run.dry_run_processes,
        sharding=dry_run.dry_run_sharding,
        device_bytes=None if gib is None else int(gib * 2**30),
        num_sampled=dry_run.dry_run_rows,
        **options,
    )
    print_plan(plan, held_to_contract(args, model_args, plan) if dry_run.check_model and plan.model else None)
    raise SystemExit(0 if plan.ok else 1)


def print_plan(plan: Plan, contract: ContractResult | None = None) -> None:
    """The plan as tables, then what was found, and in the last line whether the run can start."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for name, data in plan.data.items():
        console.print(_table(f"Data: {name}", _data_lines(data)))
    if plan.model is not None:
        console.print(_table("Model", _model_lines(plan)))
    if plan.steps is not None:
        console.print(_table("Steps", _step_lines(plan)))
    if plan.memory is not None:
        console.print(_memory_table(plan))
    if plan.disk is not None:
        console.print(_table("Disk", _disk_lines(plan)))
    if contract is not None:
        console.print(contract.table())
    for heading, colour, found in (("warning", "yellow", plan.warnings), ("problem", "red", plan.problems)):
        for line in found:
            console.print(f"[{colour}]{heading}:[/] {escape(line)}", soft_wrap=True)
    console.print("Nothing was found that would stop this run." if plan.ok else f"Problems: {len(plan.problems)}.")


def _table(title: str, lines: list[tuple[str, str]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left", min_width=80)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in lines:
        table.add_row(name, escape(value))
    return table


def _shares(counts: dict[str, int]) -> str:
    total = sum(counts.values()) or 1
    return ", ".join(f"{name} {count:,} ({count / total:.0%})" for name, count in counts.items())


def _range(values: Sequence[float], digits: int = 0) -> str:
    lowest, middle, highest = min(values), statistics.median(values), max(values)
    return f"{lowest:,.{digits}f} / {middle:,.{digits}f} / {highest:,.{digits}f}"


def _data_lines(data: DataPlan) -> list[tuple[str, str]]:
    lines = [("rows", f"{data.rows:,}: {_shares(data.kinds)}")]
    if data.problem_types:
        lines.append(("problem types", _shares(data.problem_types)))
    if data.media is None:
        lines.append(("media", "not checked"))
    else:
        missing, unreadable = len(data.media.missing), len(data.media.unreadable)
        lines.append(("media", f"{data.media.checked:,} files, {missing} missing, {unreadable} unreadable"))
    prompts = data.prompts
    if not prompts:
        return lines
    usable = f"{len(prompts)} rows encoded" + (f", {len(data.faults)} more cannot be" if data.faults else "")
    lines.append(("sample", f"{usable}; below: smallest / median / largest"))
    tokens = f"{_range([prompt.tokens for prompt in prompts])}, {len(data.too_long)} over max_prompt_length"
    lines.append(("prompt tokens", tokens))
    if any(prompt.completion_tokens for prompt in prompts):
        lines.append(("completion tokens", _range([prompt.completion_tokens for prompt in prompts])))
    videos = [prompt for prompt in prompts if prompt.frames]
    if videos:
        lines.append(("video seconds", _range([prompt.seconds for prompt in videos], 1)))
        lines.append(("frames", _range([prompt.frames for prompt in videos])))
        lines.append(("visual tokens a frame", _range([prompt.visual_tokens / prompt.frames for prompt in videos], 1)))
    return lines


def _model_lines(plan: Plan) -> list[tuple[str, str]]:
    assert plan.model is not None
    model, weights = plan.model, plan.model.weights
    trained = "all trained" if not model.has_adapters else f"{weights.trainable:,} of them trained (adapters)"
    shared = "each computed once for its rows" if model.not_shared is None else f"row by row: {model.not_shared}"
    return [
        ("model", f"{model.name} ({model.model_class})"),
        ("parameters", f"{weights.parameters:,}, {trained}"),
        ("loaded as", f"{model.dtype}, attention {model.attention}"),
        ("videos", "taken" if model.takes_videos else "not taken"),
        ("prompts", shared),
    ]


def _step_lines(plan: Plan) -> list[tuple[str, str]]:
    assert plan.steps is not None
    steps, engine = plan.steps, plan.engine
    lines = [
        ("devices", f"{steps.num_processes} ({engine.device}), sharding {engine.sharding}"),
        (
            "optimizer step",
            f"{steps.prompts_per_step:g} prompts, {steps.rows_per_step} rows (devices x rows x micro-batches: "
            f"{steps.num_processes} x {steps.per_device} x {steps.accumulation})",
        ),
    ]
    if steps.ordered:
        lines += [
            (
                "rollouts at a time",
                f"{steps.ordered} ordered" + (f" and up to {steps.contrast} contrast" if steps.contrast else ""),
            ),
            ("generations per step", f"{steps.generations_per_step:g}"),
        ]
    if steps.further_rounds:
        lines.append(
            (
                "dynamic sampling",
                f"up to {steps.further_rounds} times as many rollouts again, where groups teach nothing",
            )
        )
    if steps.trained_contrast:
        lines.append(
            ("rows of the loss", f"{steps.ordered} ordered and up to {steps.trained_contrast} contrast a generation")
        )
    if steps.read_again:
        lines.append(
            ("read again", f"{steps.read_again} completions a generation, behind ordered and contrast frames")
        )
    lines.append(("steps", f"{steps.total_steps:,}, {steps.steps_per_epoch:,} an epoch: {steps.epochs:.3g} epochs"))
    if steps.left_out:
        lines.append(("left out", f"{steps.left_out} rows of each epoch, which fill no generation"))
    if steps.ordered:
        lines.append(
            ("of the whole run", f"{steps.completions:,.0f} completions, at most {steps.max_tokens:,.0f} new tokens")
        )
    return lines


def _memory_table(plan: Plan) -> Table:
    from rich.table import Table

    from videor1_trl.planning.memory import STATED_FACTOR

    assert plan.memory is not None
    table = Table(
        title="Memory of one device (an estimate)",
        title_justify="left",
        min_width=80,
        caption=f"By the longest sampled prompt. Within a factor of {STATED_FACTOR:g} of what tiny models need on a CPU; "
        "not measured on a GPU. Without the CUDA context, fragmentation and offloading."
        + "".join(f"\nNot estimated: {unknown}." for unknown in plan.memory.unknown),
        caption_justify="left",
    )
    for column in ("what", "when", "", "how"):
        table.add_column(column, justify="left" if column else "right")
    for item in plan.memory.items:
        table.add_row(item.name, item.phase, _size(item.nbytes), item.how)
    table.add_section()
    device = "" if plan.device_bytes is None else f"; the device has {_size(plan.device_bytes)}"
    table.add_row("peak", "", _size(plan.memory.nbytes), f"always, and the larger of the two phases{device}")
    return table


def _disk_lines(plan: Plan) -> list[tuple[str, str]]:
    assert plan.disk is not None
    disk = plan.disk
    return [
        ("output_dir", disk.folder),
        ("checkpoint", f"{_size(disk.checkpoint_bytes)}; {disk.written} written, {disk.kept} there at a time"),
        ("final model", _size(disk.final_bytes)),
        ("disk", f"{_size(disk.nbytes)} needed, {_size(disk.free_bytes)} free"),
    ]


def _size(nbytes: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if nbytes >= size:
            return f"{nbytes / size:,.1f} {unit}"
    return f"{nbytes / 2**10:,.1f} KiB"
