"""Trains a video-language model with T-GRPO (or plain GRPO) on Video-R1's record format."""

from __future__ import annotations

import ast
import atexit
import importlib
import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from .command_line import CommandParser
from .dry_run import DryRunArguments
from .messages import check_drawing, expected_errors, run_command
from .record_flags import DataArguments
from .training import TrainingRun, start


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from videor1_trl import TGRPOConfig, TGRPOTrainer
    from videor1_trl.rewards.reward import Reward

    from .toy_report import Toy


REWARDS = (
    "accuracy_reward",
    "format_reward",
    "length_reward",
    "temporal_iou_reward",
    "permutation_reward",
    "box_iou_reward",
)


@dataclass
class ScriptArguments(DataArguments):
    """What is trained on, and against what; the rest is in TGRPOConfig and trl's ModelConfig."""

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Records in Video-R1's format: a JSON or JSON Lines file, a folder or a Hub id (both with "
            "data_files); or 'toy': a tiny model, its videos and its questions are made under output_dir first."
        },
    )
    reward_funcs: list[str] = field(
        default_factory=lambda: ["accuracy_reward", "format_reward"],
        metadata={
            "help": f"Names of {', '.join(REWARDS)}, or dotted paths (my_rewards.my_reward); or a call of what makes one, with its "
            "settings by name: 'get_temporal_iou_reward(boundaries=True)'."
        },
    )
    plain_grpo: bool = field(
        default=False, metadata={"help": "Plain GRPO on video: no contrast rollouts and no temporal reward."}
    )
    contrast: str = field(
        default="shuffle_frames",
        metadata={
            "help": "What the contrast rollouts see.",
            "choices": [
                "shuffle_frames",
                "reverse_frames",
                "freeze_frame",
                "flip_frames",
                "shuffle_clips",
                "shuffle_around",
            ],
        },
    )
    toy_size: int = field(
        default=400, metadata={"help": "With dataset=toy: questions of the cold start and of T-GRPO, each (>= 32)."}
    )
    toy_target: float = field(
        default=0.5,
        metadata={
            "help": "With dataset=toy: share of order questions right at which the cold start stops, in [0, 1)."
        },
    )


TGRPORun: TypeAlias = "TrainingRun[ScriptArguments, TGRPOConfig]"


def make_parser() -> CommandParser:
    from trl import ModelConfig

    from videor1_trl import TGRPOConfig

    groups = {
        "records, rewards and contrast": ScriptArguments,
        "a plan instead of a run (as `videor1 plan`)": DryRunArguments,
        "T-GRPO, videos and images": TGRPOConfig,
        "model": ModelConfig,
    }
    return CommandParser(__doc__, groups)


def find_reward(name: str) -> Reward:
    """
    The reward function of that name in videor1_trl, or at a dotted path below the working directory; or what the function of that
    name makes of settings: `get_temporal_iou_reward(boundaries=True)`.

    Raises:
        `ValueError`: there is none of that name, or it is no reward function.
    """
    path, settings = _parsed(name)
    module, _, function = path.rpartition(".")
    if not module and path not in REWARDS and not (path.startswith("get_") and path.endswith("_reward")):
        raise ValueError(
            f"reward_funcs ({name!r}) is neither {', '.join(REWARDS[:-1])} or {REWARDS[-1]} nor a dotted path such as "
            "my_rewards.my_reward."
        )
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module or "videor1_trl"), function)
        found = found if settings is None else found(**settings)
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise ValueError(f"reward_funcs ({name!r}): {error}.") from error
    if not _is_reward(found):
        raise ValueError(
            f"reward_funcs ({name!r}) is no reward function, which is called with completions and the columns by name. "
            "Where it makes one, call it with its settings, such as 'get_temporal_iou_reward(boundaries=True)'; or give the path of a "
            "function in a file of your own, such as my_rewards.my_reward."
        )
    return cast("Reward", found)


def _parsed(name: str) -> tuple[str, dict[str, object] | None]:
    """A name or dotted path, and the settings of a call, `None` where it is none."""
    try:
        call = ast.parse(name.strip(), mode="eval").body
        if not isinstance(call, ast.Call):
            return name.strip(), None
        if call.args or any(each.arg is None for each in call.keywords):
            raise ValueError("settings have names")
        return ast.unparse(call.func), {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(
            f"reward_funcs ({name!r}) is neither a name nor a call with plain settings by name, such as "
            "'get_temporal_iou_reward(boundaries=True)'."
        ) from None


def _is_reward(function: Callable[..., object]) -> bool:
    """Whether it can be called as the trainer calls rewards, and is no objective."""
    if not callable(function):
        return False
    try:
        signature = inspect.signature(function)
        signature.bind_partial(
            prompts=[], completions=[], completion_ids=[], trainer_state=None, log_extra=None, log_metric=None
        )
    except (TypeError, ValueError):
        return False
    return "accuracies" not in signature.parameters


def trainer_options(script_args: ScriptArguments) -> dict[str, object]:
    """What the trainer learns by: rewards, objective and contrast."""
    import videor1_trl

    return {
        "reward_funcs": [find_reward(name) for name in script_args.reward_funcs],
        "temporal_reward_func": None if script_args.plain_grpo else videor1_trl.temporal_reward,
        "contrast": getattr(videor1_trl, script_args.contrast),
    }


def prepare_toy(run: TGRPORun) -> Toy | None:
    """With `dataset=toy`: makes data, model and cold start, and goes on from them."""
    if run.script_args.dataset != "toy":
        return None
    if run.dry_run.dry_run:
        run.script_args.dataset, run.model_args.model_name_or_path = make_toy_to_plan(run)
        return None
    check_drawing("--dataset toy")
    from . import toy_report

    with expected_errors():
        toy = toy_report.prepare(run.args, run.script_args.toy_size, run.script_args.toy_target)
    run.script_args.dataset, run.model_args.model_name_or_path = str(toy.train_file), str(toy.model_folder)
    return toy


def make_toy_to_plan(run: TGRPORun) -> tuple[str, str]:
    """The toy's records and its model before any training, in a folder that goes with the process."""
    from . import progress, toy

    progress.begin()
    folder = Path(tempfile.mkdtemp(prefix="videor1_toy_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    size, seed, bar = run.script_args.toy_size, 3 * run.args.seed + 2, progress.on_terminal()
    file = toy.make_dataset(folder, "train", size, seed=seed, order_share=0.35, progress=bar)
    for part in toy.make_model(run.args.seed):
        part.save_pretrained(folder / "model")
    return str(file), str(folder / "model")


def make_trainer(run: TGRPORun) -> TGRPOTrainer:
    """The trainer as the flags have it; `examples/train_tgrpo.py` shows what may stand in its place."""
    from videor1_trl import TGRPOTrainer

    return TGRPOTrainer(**run.trainer_arguments())


def main(make_trainer: Callable[[TGRPORun], TGRPOTrainer] = make_trainer) -> None:
    run: TGRPORun = start(make_parser())
    with expected_errors():
        run.trainer_options = trainer_options(run.script_args)
    toy = prepare_toy(run)
    run.load(contrast=not run.script_args.plain_grpo)
    with expected_errors():
        trainer = make_trainer(run)
    run.train(trainer)
    if toy is not None and trainer.accelerator.is_main_process:
        from . import toy_report

        logs: list[dict[str, object]] = [{**log} for log in trainer.state.log_history]
        toy_report.finish(toy, logs, plain_grpo=run.script_args.plain_grpo)
    run.end(trainer)


if __name__ == "__main__":
    run_command(main)
