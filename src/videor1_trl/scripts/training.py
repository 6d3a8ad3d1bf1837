"""The flow that both training commands share: flags, cheap checks, records, plan or media, trainer, training, saving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..text.messages import Named
from .command_line import CommandParser
from .dry_run import DryRunArguments, end_with_plan, parse_as_planned
from .messages import expected_errors, stop, stop_process
from .preflight import (
    check_evaluation,
    check_loggers,
    check_model,
    check_videos_taken,
    model_init_kwargs,
    resumed_from,
    take_up_adapter,
)
from .record_flags import DataArguments, check_records, load_records, name_store


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from datasets import Dataset
    from transformers import Trainer
    from trl import ModelConfig

    from videor1_trl import TGRPOConfig, VideoSFTConfig


Flags = TypeVar("Flags", bound=DataArguments)
Config = TypeVar("Config", bound="TGRPOConfig | VideoSFTConfig")


@dataclass
class TrainingRun(Generic[Flags, Config]):
    """
    One run of a training command, as it was asked for. `trainer_arguments()` is what its trainer is made of.

    Args:
        script_args ([`DataArguments`]): the command's own flags.
        args ([`TGRPOConfig`] or [`VideoSFTConfig`]): the trainer's settings.
        model_args ([`~trl.ModelConfig`]): the model and its adapters.
        dry_run ([`DryRunArguments`]): whether a plan is asked for instead.
        resume (`str`, *optional*): the checkpoint to go on from.
        trainer_options (`dict`): what the command adds to the trainer's arguments, such as its rewards.
        train_dataset, eval_dataset ([`~datasets.Dataset`], *optional*): from [`load`] on.
    """

    script_args: Flags
    args: Config
    model_args: ModelConfig
    dry_run: DryRunArguments
    resume: str | None
    trainer_options: dict[str, object] = field(default_factory=dict)
    train_dataset: Dataset | None = None
    eval_dataset: Dataset | None = None

    def load(self, check: Callable[..., None] | None = None, **plan_options: object) -> None:
        """
        The records, once the model is known to be there, and a look at their media; of a dry run the plan, with which it ends.

        Args:
            check (`Callable`, *optional*): `(train_dataset, eval_dataset)`, raises a `ValueError` where they do not fit.
            **plan_options: further arguments of [`~videor1_trl.planning.plan.plan_run`].
        """
        from .progress import begin

        begin()
        take_up_adapter(self.model_args, self.args)
        processor = None if self.dry_run.dry_run else check_model(self.model_args, self.args)
        with expected_errors():
            train, evaluation = self.records()
            if check is not None:
                check(train, evaluation)
            if processor is None:
                media = {"media": self.script_args.check_media, "drop_bad_media": self.script_args.drop_bad_media}
                end_with_plan(self.dry_run, self.args, self.model_args, train, evaluation, **media, **plan_options)
        check_videos_taken(processor, self.model_args, [each for each in (train, evaluation) if each is not None])
        with expected_errors():
            self.train_dataset = check_files(train, self.script_args, self.args)
            self.eval_dataset = evaluation and check_files(evaluation, self.script_args, self.args)

    def records(self) -> tuple[Dataset, Dataset | None]:
        """What is trained on, and what is evaluated on meanwhile."""
        data_args = self.script_args
        assert data_args.dataset is not None  # see `check_records`
        train = load_records(data_args, data_args.dataset)
        if data_args.min_pass_rate is not None or data_args.max_pass_rate is not None:
            from videor1_trl.data.records import within_pass_rates

            rated = within_pass_rates(train, data_args.min_pass_rate, data_args.max_pass_rate)
            print(f"{len(rated):,} of {len(train):,} records have a pass rate in the range that was asked for.")
            train = rated
        return train, load_records(data_args, data_args.eval_dataset, hub=False) if data_args.eval_dataset else None

    def trainer_arguments(self) -> Named:
        """Every argument of the trainer that the flags decide, by its name; the model is loaded by the trainer."""
        from trl import get_peft_config, get_quantization_config

        self.args.model_init_kwargs = model_init_kwargs(self.model_args, self.args)
        return {
            "model": self.model_args.model_name_or_path,
            "args": self.args,
            "train_dataset": self.train_dataset,
            "eval_dataset": self.eval_dataset,
            "quantization_config": get_quantization_config(self.model_args),
            "peft_config": get_peft_config(self.model_args),
            **self.trainer_options,
        }

    def train(self, trainer: Trainer) -> None:
        """Trains, with a short line of figures per logging step, and saves."""
        from .interruption import train
        from .progress import show
        from .watchdog import watched

        show(trainer)
        with watched(trainer):
            train(trainer, self.resume)
            trainer.save_model(self.args.output_dir)
        if self.args.push_to_hub:
            trainer.push_to_hub(dataset_name=self.script_args.dataset)

    def end(self, trainer: Trainer) -> None:
        """The last line, where something was written that loads."""
        from videor1_trl.models.manifests import is_loadable

        if trainer.accelerator.is_main_process and not is_loadable(str(self.args.output_dir)):
            stop_process(f"{self.args.output_dir} holds no weights: the engine wrote none that load.")
        trainer.accelerator.print(f"Saved to {self.args.output_dir}.")
        trainer.end()


def start(parser: CommandParser) -> TrainingRun[Any, Any]:
    """What the command line asks for, after all checks that open no file."""
    with expected_errors():
        script_args, dry_run, args, model_args = parse_as_planned(parser)
    if dry_run.check_model and not dry_run.dry_run:
        stop("--check_model is a part of the plan: add --dry_run, or ask for it by `videor1 plan`.")
    check_records(script_args)
    name_store(args, script_args.data_root)
    resume = resumed_from(args)
    check_evaluation(script_args, args)
    check_loggers(args)
    return TrainingRun(script_args, args, model_args, dry_run, resume)


def check_files(dataset: Dataset, data_args: DataArguments, args: TGRPOConfig | VideoSFTConfig) -> Dataset:
    """The dataset, without the rows whose media cannot be read; ends the run for them unless they may be dropped."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    from videor1_trl import check_media
    from videor1_trl.media.check import MediaReport

    if data_args.check_media == "off":
        return dataset
    sampled = data_args.check_media == "sampled_frames"
    found: list[MediaReport | None] = [None]
    if PartialState().is_main_process:
        if sampled:
            found[0] = check_media(dataset, decode="sampled_frames", **args.video_settings)[1]
        else:
            found[0] = check_media(dataset, decode="first_frame", limits=args.limits)[1]
    report: MediaReport = broadcast_object_list(found)[0]
    if report.ok:
        return dataset
    if not data_args.drop_bad_media:
        stop(f"{report}\nRestore these files, or leave their rows out with --drop_bad_media.")
    bad = set(report.rows)
    kept = [index for index in range(len(dataset)) if index not in bad]
    if not kept:
        stop(f"no row is left without bad media. {report}")
    return dataset.select(kept)
