"""What a run will do, and what would stop it, found before hours are spent: nothing is trained, no weights are read."""

import math
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
import torch
from trl import ModelConfig

from ..config import TGRPOConfig
from ..data.columns import check_columns, check_objective_data
from ..data.targets import check_completions
from ..media.loader import VideoLoader
from ..media.video import load_video
from ..objectives.chosen import objective_of
from ..objectives.objective import Needs
from .arguments import RunArguments, generates
from .memory import STATED_FACTOR, Batches, Engine, MemoryEstimate, Run, estimate_memory
from .model import Findings, ModelPlan, plan_model
from .prompts import DataPlan, encoder, plan_data


@dataclass
class StepPlan:
    """
    What the steps are made of.

    Args:
        num_processes (`int`): devices.
        per_device, accumulation (`int`): rows of a micro-batch, and micro-batches of an optimizer step.
        rows_per_step (`int`): rows (in T-GRPO ordered rollouts) of an optimizer step, on all devices.
        prompts_per_step (`float`): new rows of the dataset for an optimizer step.
        steps_per_epoch, total_steps (`int`): optimizer steps.
        left_out (`int`): rows of an epoch that fill no generation.
        ordered, contrast (`int`): rollouts of one generation on all devices; contrast as if every prompt had a video, 0 where the
            objective makes none.
        trained_contrast (`int`): of the contrast rollouts, those that join the loss as rows.
        read_again (`int`): completions of one generation that are read behind ordered and behind contrast frames once more, for
            the log-probabilities that the objective asks for.
        further_rounds (`int`): of dynamic sampling, at most; what they generate is not in `completions`.
        generated_rows (`int`): of one device in one `generate` call, ordered and contrast.
        generations_per_step (`float`): how often rollouts are made in an optimizer step.
        completions (`float`), max_tokens (`float`): of the whole run, with contrast rollouts on video rows; 0 in SFT.
    """

    num_processes: int
    per_device: int
    accumulation: int
    rows_per_step: int
    prompts_per_step: float
    steps_per_epoch: int
    total_steps: int
    left_out: int = 0
    ordered: int = 0
    contrast: int = 0
    trained_contrast: int = 0
    read_again: int = 0
    further_rounds: int = 0
    generated_rows: int = 0
    generations_per_step: float = 0.0
    completions: float = 0.0
    max_tokens: float = 0.0

    @property
    def epochs(self) -> float:
        """How often the data are seen."""
        return self.total_steps / self.steps_per_epoch


@dataclass
class DiskPlan:
    """Bytes of one checkpoint, how many are written and kept at a time, and what the disk has free."""

    folder: str
    checkpoint_bytes: float
    written: int
    kept: int
    final_bytes: float
    free_bytes: int

    @property
    def nbytes(self) -> float:
        """Of all of them at the fullest moment, the final model included."""
        return self.kept * self.checkpoint_bytes + self.final_bytes


@dataclass
class Plan(Findings):
    """
    A run, as it will be. `problems` would stop it, or break it hours in; `warnings` should be known.

    Args:
        engine ([`Engine`]): devices and sharding.
        data (`dict[str, DataPlan]`): `"train"`, and `"eval"` where there is one.
        model, steps, memory, disk (*optional*): `None` where a problem keeps them from being planned.
        device_bytes (`int`, *optional*): memory of one device.
    """

    engine: Engine = field(default_factory=Engine)
    data: dict[str, DataPlan] = field(default_factory=dict)
    model: ModelPlan | None = None
    steps: StepPlan | None = None
    memory: MemoryEstimate | None = None
    disk: DiskPlan | None = None
    device_bytes: int | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was found that would stop the run."""
        return not self.problems


def plan_run(
    args: RunArguments,
    model_args: ModelConfig,
    train_dataset: datasets.Dataset,
    eval_dataset: datasets.Dataset | None = None,
    *,
    num_processes: int | None = None,
    sharding: str | None = None,
    device_bytes: int | None = None,
    media: str = "first_frame",
    drop_bad_media: bool = False,
    num_sampled: int = 32,
    contrast: bool = True,
    video_loader: VideoLoader = load_video,
) -> Plan:
    """
    Plan a run of T-GRPO or of the supervised cold start: check its data, its media and its model, estimate its memory,
    and count its steps.

    Args:
        args: a [`TGRPOConfig`] or a [`VideoSFTConfig`].
        model_args ([`~trl.ModelConfig`]): the model and how it is loaded; `args.model_init_kwargs` wins.
        train_dataset, eval_dataset ([`~datasets.Dataset`]): as the trainer takes them.
        num_processes (`int`, *optional*), sharding (`str`, *optional*): plan for these rather than for what `args` was
            launched with, such as 4 and `"zero3"`; see [`~memory.Engine`].
        device_bytes (`int`, *optional*): memory of one GPU to plan for, wherever this runs. `None`: that of the first
            GPU here, if there is one.
        media (`str`): what is read of every file: `"first_frame"`, `"sampled_frames"` or `"off"`.
        drop_bad_media (`bool`): rows with bad media will be left out, rather than end the run.
        num_sampled (`int`): rows encoded of each dataset, evenly spaced over each kind (>= 1).
        contrast (`bool`): whether video prompts are contrasted at all; what is then computed follows from `args.objective`.
        video_loader (`Callable`): as in [`TGRPOTrainer`].

    Returns:
        [`Plan`]: whatever is wrong with data or model stands in its `problems`.

    Raises:
        `ValueError`: arguments of this function that make no sense. `TypeError`: a dataset that is streamed.
    """
    if num_sampled < 1:
        raise ValueError(f"num_sampled ({num_sampled}) must be at least 1.")
    if media not in ("first_frame", "sampled_frames", "off"):
        raise ValueError(f"media ({media!r}) must be 'first_frame', 'sampled_frames' or 'off'.")
    if device_bytes is not None and device_bytes < 1:
        raise ValueError(f"device_bytes ({device_bytes}) must be at least 1.")
    plan = Plan(engine=_engine(args, num_processes, sharding), device_bytes=device_bytes)
    if device_bytes is not None and plan.engine.device == "cpu":
        plan.engine = replace(plan.engine, device="cuda")  # planned here, to be run elsewhere
    if device_bytes is None and args.device.type == "cuda":
        plan.device_bytes = torch.cuda.get_device_properties(0).total_memory
    plan.model = plan_model(args, model_args, plan.engine, plan)
    check = check_columns if generates(args) else check_completions
    plan.tried("columns", lambda: check(train_dataset, eval_dataset))
    if eval_dataset is None and getattr(args.eval_strategy, "value", args.eval_strategy) != "no":
        plan.problems.append("eval_strategy is set, and there is no eval_dataset.")
    encode = None
    if plan.model is not None and plan.model.processor is not None:
        model = plan.model
        encode = plan.tried("media", lambda: encoder(args, model, video_loader))
    for name, dataset in (("train", train_dataset), ("eval", eval_dataset)):
        if dataset is not None:
            plan.data[name] = plan_data(
                name,
                dataset,
                args,
                plan.model,
                plan,
                media=media,
                drop_bad_media=drop_bad_media,
                num_sampled=num_sampled,
                encode=encode,
            )
    needs = Needs()
    if contrast and generates(args):
        objective = objective_of(args.objective, args)
        needs = Needs.of(objective)
        plan.tried("objective", lambda: check_objective_data(objective, None, train_dataset, eval_dataset))
    plan.steps = _plan_steps(plan, args, needs)
    if plan.model is not None and plan.steps is not None and plan.data["train"].prompts:
        run = Run(
            plan.model.weights,
            plan.model.config,
            _batches(plan.model, plan.steps, plan.data["train"], args),
            plan.engine,
            optim=getattr(args.optim, "value", args.optim),
            reference=getattr(args, "beta", 0.0) != 0.0 and not plan.model.has_adapters,
            attention=plan.model.attention,
        )
        plan.memory = estimate_memory(run)
        _check_memory(plan, plan.memory)
        plan.disk = _plan_disk(plan, plan.steps, args, run)
    if needs != Needs() and generates(args):
        _warn_of_cancelling(plan, args)
    return plan


def _engine(args: RunArguments, num_processes: int | None, sharding: str | None) -> Engine:
    """Devices and sharding as `args` were launched with, or as planned for."""
    if sharding is None:
        plugin = getattr(args, "deepspeed_plugin", None)
        stage = plugin.zero_stage if plugin is not None else 0
        fsdp = bool(getattr(args, "fsdp", None)) or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
        sharding = "fsdp" if fsdp else f"zero{stage}" if stage else "none"
    return Engine(
        num_processes=args.world_size if num_processes is None else num_processes,
        sharding=sharding,
        half=bool(args.bf16 or args.fp16),
        checkpointing=bool(args.activation_checkpointing),
        gathers_to_generate=bool(getattr(args, "ds3_gather_for_generation", True)),
        device=args.device.type,
    )


def _plan_steps(plan: Plan, args: RunArguments, needs: Needs) -> StepPlan | None:
    data, devices, rows = plan.data["train"], plan.engine.num_processes, args.per_device_train_batch_size
    accumulation = args.gradient_accumulation_steps
    size, iterations, slices = _of_a_generation(args) if generates(args) else (1, 1, 1)
    batch = devices * rows * slices  # rollouts of a generation, or rows of a micro-batch
    if batch % size:
        plan.problems.append(
            f"steps: {devices} devices x {rows} rows x {slices} micro-batches are {batch} rollouts of a generation, no "
            f"multiple of num_generations ({size})."
        )
        return None
    distinct = batch // size
    micro_batches = math.ceil(data.rows / batch)
    if generates(args):
        micro_batches = data.rows // distinct * iterations * slices
    if not data.rows:
        return None
    if not micro_batches:
        plan.problems.append(
            f"steps: {data.rows} rows of training data do not fill a generation of {distinct} prompts."
        )
        return None
    per_epoch = math.ceil(micro_batches / accumulation)
    total = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    rows_per_step = devices * rows * accumulation
    steps = StepPlan(devices, rows, accumulation, rows_per_step, rows_per_step / size / iterations, per_epoch, total)
    if generates(args):
        of_a_group = args.contrast_generations(size) if needs.contrast_rollouts else 0
        video_share = data.kinds.get("video", 0) / data.rows
        steps.left_out = data.rows % distinct
        steps.ordered, steps.contrast = batch, distinct * of_a_group
        steps.trained_contrast = steps.contrast if needs.trains_contrast else 0
        steps.read_again = batch if needs.logps else 0
        steps.further_rounds = args.dynamic_sampling
        steps.generated_rows = rows * slices + math.ceil(rows * slices * of_a_group / size)
        steps.generations_per_step = accumulation / slices / iterations
        steps.completions = total * steps.generations_per_step * (batch + video_share * steps.contrast)
        steps.max_tokens = steps.completions * _most_tokens(args)
    return steps


def _of_a_generation(args: TGRPOConfig) -> tuple[int, int, int]:
    """Rollouts of a prompt, passes over a generation, and its micro-batches."""
    assert args.num_generations is not None and args.steps_per_generation is not None  # set when `args` were made
    return args.num_generations, args.num_iterations, args.steps_per_generation


def _most_tokens(args: TGRPOConfig) -> int:
    if args.max_completion_length is None:
        raise ValueError("max_completion_length is not set: a plan needs the most tokens of a completion.")
    return args.max_completion_length


def _batches(model: ModelPlan, steps: StepPlan, data: DataPlan, args: RunArguments) -> Batches:
    """The largest batches of a device, if all its prompts were like the longest of the sample."""
    rows, completion_tokens = steps.per_device, data.longest("completion_tokens")
    size, generated = 1, 0
    if generates(args):
        size, _, slices = _of_a_generation(args)
        generated, completion_tokens = _distinct(rows * slices, size), _most_tokens(args)
    trained = math.ceil(rows * steps.trained_contrast / max(1, steps.ordered))  # below the rows of a micro-batch
    return Batches(
        rows=rows + trained,
        prompts=_distinct(rows, size) * (2 if trained else 1),
        prompt_tokens=data.longest("tokens"),
        completion_tokens=completion_tokens,
        generated_rows=steps.generated_rows,
        generated_prompts=generated * (2 if steps.contrast else 1),
        patches=data.longest("patches"),
        pixel_bytes=data.longest("pixel_bytes"),
        shared=model.not_shared is None,
    )


def _distinct(rows: int, size: int) -> int:
    """Prompts among so many rows in a row, at most, where each prompt has `size` of them."""
    if rows % size == 0:
        return rows // size
    return 1 if size % rows == 0 else rows // size + 2


def _check_memory(plan: Plan, memory: MemoryEstimate) -> None:
    if plan.device_bytes is None:
        return
    advice = "Lower per_device_train_batch_size or video_max_pixels, shard with ZeRO-3 over more devices, or use LoRA."
    said = f"memory: an estimated {memory.nbytes / 2**30:.1f} GiB of a device's {plan.device_bytes / 2**30:.1f} GiB"
    if memory.nbytes > plan.device_bytes:
        plan.problems.append(f"{said}. {advice}")
    elif memory.nbytes * STATED_FACTOR > plan.device_bytes:
        plan.warnings.append(f"{said}: too close for an estimate. {advice}")


def _plan_disk(plan: Plan, steps: StepPlan, args: RunArguments, run: Run) -> DiskPlan:
    strategy = getattr(args.save_strategy, "value", args.save_strategy)
    every = {"steps": args.save_steps, "epoch": steps.steps_per_epoch}.get(strategy)
    if every is not None and every < 1:  # a share of the run
        every = math.ceil(steps.total_steps * every)
    written = 0 if strategy == "no" else 2 if every is None else math.ceil(steps.total_steps / every)
    kept = min(written, args.save_total_limit + 1) if args.save_total_limit else written
    model_bytes, resume_bytes = run.checkpoint_bytes
    assert args.output_dir is not None  # training arguments have a default
    folder = Path(args.output_dir).absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    disk = DiskPlan(
        str(folder), model_bytes + resume_bytes * (not args.save_only_model), written, kept, model_bytes, free
    )
    if not there.is_dir() or not os.access(there, os.W_OK):
        plan.problems.append(f"disk: {there} cannot be written to. Choose another output_dir.")
    if disk.nbytes > free:
        plan.problems.append(
            f"disk: {kept} checkpoints of {disk.checkpoint_bytes / 2**30:.3g} GiB and the final model need "
            f"{disk.nbytes / 2**30:.1f} GiB, and {there} has {free / 2**30:.1f} GiB free. Set save_total_limit, "
            "save_only_model, or larger save_steps."
        )
    return disk


def _warn_of_cancelling(plan: Plan, args: TGRPOConfig) -> None:
    cancels = args.objective not in ("log_prob_drop", "mirrored_interval")  # whose bonuses differ, or do not go there
    if args.temporal_bonus == "reward" and cancels and set(plan.data["train"].problem_types) == {"multiple choice"}:
        plan.warnings.append(
            "temporal bonus: all problems are multiple choice, where temporal_bonus='reward' cancels in groups of equal "
            "format rewards. Watch temporal/effect, or use temporal_bonus='advantage'."
        )
