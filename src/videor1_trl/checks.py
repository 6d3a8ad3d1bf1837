"""What cannot work is refused before any weights are loaded, and what would surprise later is said at the start."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather, is_peft_model
from datasets import Dataset
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.trainer.utils import get_callable_name, get_config_model_id, is_async_callable

from .config import TGRPOConfig
from .data.columns import TrainDataset
from .models.adapters import check_adapters, check_trainable, has_adapters
from .models.families import ModelOrPath
from .models.fingerprints import differing
from .objectives.chosen import objective_of
from .objectives.objective import Needs, Objective
from .objectives.temporal import temporal_reward
from .rewards.checked import checked
from .text.messages import Named
from .watching.loggers import check_loggers


if TYPE_CHECKING:
    from peft import PeftModel

logger = get_logger(__name__)


def check_arguments(model: ModelOrPath, args: TGRPOConfig, kwargs: Named) -> None:
    """Refuse what cannot work before any weights are loaded."""
    if not isinstance(args, TGRPOConfig):
        raise TypeError(f"args is a {type(args).__name__}; TGRPOTrainer needs a TGRPOConfig.")
    for name in ("tools", "rollout_func", "environment_factory"):
        if kwargs.get(name):
            raise NotImplementedError(
                f"{name} is not supported: TRL makes its rollouts without the videos. Use GRPOTrainer for text, or "
                "override TGRPOTrainer._generate_single_turn."
            )
    check_loggers(args.report_to or [])
    check_adapters(model, kwargs.get("peft_config"))
    if has_adapters(model) and args.beta != 0.0:
        if "default" not in model.peft_config:
            raise ValueError(
                f"beta={args.beta} needs a copy of the adapter as reference, which TRL makes of the one named 'default', and "
                f"this model has {', '.join(map(repr, model.peft_config))}. Load it under that name, or set beta=0.0."
            )
        if model.active_adapters != ["default"]:
            raise ValueError(
                f"beta={args.beta} needs a copy of the adapter as reference, which TRL makes of the one named 'default' alone, "
                f"and {' and '.join(map(repr, model.active_adapters))} {'is' if len(model.active_adapters) == 1 else 'are'} "
                "active. Make it the active one (set_adapter('default')), merge the others, or set beta=0.0."
            )
    in_memory = (
        isinstance(model, PreTrainedModel) and not is_peft_model(model) and not get_config_model_id(model.config)
    )
    if in_memory and args.beta != 0.0 and kwargs.get("peft_config") is None:
        raise ValueError(
            f"beta={args.beta} needs a reference model, which TRL loads from the path in the model's config, but this "
            "model was built in memory. Save it and its processor and pass the folder, pass a peft_config, or set "
            "beta=0.0."
        )


def settled_objective(
    passed: Objective | None, args: TGRPOConfig, reward_funcs: Sequence[object]
) -> tuple[Objective | None, Needs]:
    """
    The objective of a run, the one passed or the one that `args.objective` names, and what it needs; refuses one whose needs
    cannot be met, and one in the config that another takes the place of.
    """
    named = passed is temporal_reward
    if not named and args.objective != "tgrpo":
        what = "None, plain GRPO" if passed is None else get_callable_name(passed)
        raise ValueError(
            f"objective ({args.objective!r}) has no effect: the trainer was given another temporal_reward_func ({what}). "
            "Leave one of the two out."
        )
    objective = objective_of(args.objective, args) if named else passed
    needs = Needs.of(objective)
    _check_trained_contrast(needs, args, reward_funcs)
    return objective, needs


def name_of_column(objective: Objective, taken: Sequence[str]) -> str:
    """The name that an objective is logged by, which must be none of the reward functions'."""
    name: str = get_callable_name(objective)
    if name in taken:
        raise ValueError(
            f"temporal_reward_func and one of reward_funcs are both named {name!r}, by which TRL logs. Rename one."
        )
    return name


def _check_trained_contrast(needs: Needs, args: TGRPOConfig, reward_funcs: Sequence[object]) -> None:
    if not needs.trains_contrast:
        return
    number = args.contrast_generations(args.num_generations or 0)
    if number < 2:
        raise ValueError(
            f"num_contrast_generations ({number}) must be at least 2 for an objective that trains the contrast rollouts: one "
            "alone has nothing to be better than."
        )
    for function in reward_funcs:
        if not callable(function) or isinstance(function, torch.nn.Module) or is_async_callable(function):
            raise NotImplementedError(
                "An objective that trains the contrast rollouts scores them by all reward functions, which must be plain "
                f"functions, and {function if isinstance(function, str) else type(function).__name__!r} is none. Leave it out."
            )


def check_loaded(trainer: GRPOTrainer, args: TGRPOConfig, passed: ModelOrPath) -> None:
    """
    Refuse, once weights are there, a model with nothing to train and a reference that is another than the model passed; let
    the errors of reward functions name them.

    Args:
        trainer (`GRPOTrainer`): after its parent's `__init__`.
        args, passed: the arguments and the `model` that this was given.
    """
    assert trainer.model is not None
    settle_rewards(trainer, args.reward_seconds)
    check_trainable(trainer.model)
    if args.beta != 0.0 and has_adapters(trainer.model):
        settle_adapter_reference(trainer.model)
    if trainer.ref_model is not None and not isinstance(passed, str):
        path = get_config_model_id(passed.config)
        check_reference(trainer.model, trainer.ref_model, path, trainer.accelerator)


def check_reference(policy: torch.nn.Module, reference: torch.nn.Module, path: str, accelerator: Accelerator) -> None:
    """
    Refuse a reference model, which TRL loads from the path in the model's config, that is not the model that was passed.

    Raises:
        `ValueError`: LoRA was merged, weights were loaded or the vocabulary was resized in memory.
    """
    if isinstance(reference, FullyShardedDataParallel):
        logger.warning(f"Under FSDP 1 the reference model from {path} is not compared with the model that was passed.")
        return
    name = differing(accelerator.unwrap_model(policy), accelerator.unwrap_model(reference))
    differs = torch.tensor(name is not None, device=accelerator.device)
    if gather(differs).any():  # each rank may hold a part of the weights
        raise ValueError(
            f"The model that was passed is not the one at {path}, which TRL loads as the reference for beta (KL): "
            f"{name or 'a parameter on another rank'} differs. Adapters were merged, weights loaded or the vocabulary "
            "resized in memory. Save the model and its processor (save_pretrained) and pass the folder, pass a "
            "peft_config, or set beta=0.0."
        )


@torch.no_grad()
def settle_adapter_reference(model: "PeftModel") -> None:
    """
    Makes the reference of a model with adapters what the policy begins as: the adapter `"ref"`, where TRL has added it, gets
    every weight of `"default"`, of which TRL copies those whose name goes on behind `.default.` (embeddings' do not).

    Raises:
        `ValueError`: weights outside the adapter are trained, which the reference, the same model with another adapter or
            with none, would have too.
    """
    outside = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and "default" not in name.split(".")
    ]
    if outside:
        raise ValueError(
            f"beta needs a reference that stays as it is, and {len(outside)} parameters outside the adapter are trained, "
            f"{outside[0]} among them: the reference would move with them. Freeze them (bias='none' in the adapter's "
            "config, requires_grad_(False)), or set beta=0.0."
        )
    if "ref" in model.peft_config:
        parameters = dict(model.named_parameters())
        for name, parameter in parameters.items():
            parts = name.split(".")
            if "default" in parts:
                parameters[".".join("ref" if part == "default" else part for part in parts)].copy_(parameter)


def accuracy_index(reward_funcs: Sequence[object], name: str | None) -> int:
    """Index of the reward function that says which rollouts are correct."""
    names = [
        get_callable_name(f) if callable(f) and not isinstance(f, torch.nn.Module) else str(f) for f in reward_funcs
    ]
    if name is not None and name not in names:
        raise ValueError(f"accuracy_reward_name ({name!r}) is none of the reward functions: {', '.join(names)}.")
    index = 0 if name is None else names.index(name)
    function = reward_funcs[index]
    if not callable(function) or isinstance(function, torch.nn.Module) or is_async_callable(function):
        raise NotImplementedError(
            f"The accuracy must be a plain function, but reward_funcs[{index}] is {names[index]!r}. Put an accuracy "
            "function first or name one in accuracy_reward_name."
        )
    return index


def settle_rewards(trainer: GRPOTrainer, seconds: float | None) -> None:
    """Let the errors of the trainer's reward functions name them, and bound their time; models that score stay as they are."""
    trainer.reward_funcs = [
        checked(function, name, seconds)
        if callable(function) and not isinstance(function, torch.nn.Module)
        else function
        for function, name in zip(trainer.reward_funcs, trainer.reward_func_names, strict=True)
    ]


def check_finite(rewards: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """The rewards (W * B, F), seen to be finite or NaN; a `ValueError` names the model that gave another."""
    infinite = rewards.isinf().any(dim=0).tolist()
    if any(infinite):
        raise ValueError(
            f"The reward model {names[infinite.index(True)]!r} gave an infinite reward, which makes all advantages of its group "
            "NaN. Mend it, or leave it out."
        )
    return rewards


def warn_of_checkpoints_within_a_cycle(args: TGRPOConfig) -> None:
    """A checkpoint between two updates that share their rollouts cannot hold them."""
    cycle = args.uses_per_generation // args.gradient_accumulation_steps
    if args.save_strategy == "steps" and cycle > 1 and args.save_steps % cycle:
        logger.warning(
            f"save_steps ({args.save_steps:g}) is no multiple of the {cycle} optimizer steps that share a batch of "
            "rollouts. A run resumed from such a checkpoint makes new rollouts for the rest of the batch, so its "
            "losses differ from those of an uninterrupted run."
        )


def check_num_prompts(train_dataset: TrainDataset, args: TGRPOConfig) -> None:
    """Refuse data too small for a single generation: the run would end without a step; and streams to draw further prompts from."""
    if not isinstance(train_dataset, Dataset):
        if args.dynamic_sampling and train_dataset is not None:
            raise NotImplementedError(
                f"dynamic_sampling ({args.dynamic_sampling}) draws further prompts from the whole data, which a stream does not give. "
                "Set it to 0, or load the dataset without streaming."
            )
        return
    needed = args.prompts_per_generation
    if len(train_dataset) < needed:
        raise ValueError(
            f"train_dataset has {len(train_dataset)} prompts, and one generation takes {needed}: "
            f"per_device_train_batch_size ({args.per_device_train_batch_size}) x {args.world_size} processes x "
            f"steps_per_generation ({args.steps_per_generation}) / num_generations ({args.num_generations}). No step would "
            "be made. Lower per_device_train_batch_size or gradient_accumulation_steps, or add prompts."
        )
