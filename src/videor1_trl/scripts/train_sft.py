"""Trains a video-language model on rationales and answers: the supervised cold start of Video-R1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from .command_line import CommandParser
from .dry_run import DryRunArguments
from .messages import expected_errors, run_command
from .record_flags import DataArguments
from .training import TrainingRun, start


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from videor1_trl import VideoSFTConfig, VideoSFTTrainer


SFTRun: TypeAlias = "TrainingRun[DataArguments, VideoSFTConfig]"


def make_parser() -> CommandParser:
    from trl import ModelConfig

    from videor1_trl import VideoSFTConfig

    groups = {
        "records": DataArguments,
        "a plan instead of a run (as `videor1 plan`)": DryRunArguments,
        "supervised training, videos and images": VideoSFTConfig,
        "model": ModelConfig,
    }
    return CommandParser(__doc__, groups)


def make_trainer(run: SFTRun) -> VideoSFTTrainer:
    """The trainer as the flags have it; `examples/train_sft.py` shows what may stand in its place."""
    from videor1_trl import VideoSFTTrainer

    return VideoSFTTrainer(**run.trainer_arguments())


def main(make_trainer: Callable[[SFTRun], VideoSFTTrainer] = make_trainer) -> None:
    run: SFTRun = start(make_parser())

    from videor1_trl.data.targets import check_completions

    run.load(check_completions)
    with expected_errors():
        trainer = make_trainer(run)
    run.train(trainer)
    run.end(trainer)


if __name__ == "__main__":
    run_command(main)
