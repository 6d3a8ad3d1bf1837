"""What cannot work is refused before any weights are loaded, and what would surprise later is said at the start."""

import inspect
from typing import Any

import torch
import trl
from accelerate.logging import get_logger
from accelerate.utils import is_peft_model
from datasets import Dataset
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.trainer.utils import get_callable_name, get_config_model_id, is_async_callable

from .config import TGRPOConfig
from .families import takes_videos


logger = get_logger(__name__)

# Keywords that rewards are called with; a column of such a name would be passed twice
RESERVED_COLUMNS = (
    "prompts",
    "completions",
    "completion_ids",
    "accuracies",
    "contrast_accuracies",
    "contrast_completions",
    "contrast_completion_ids",
)

# The methods of TRL's trainers that those of this package override, with the parameters they had in TRL 1.16
# (canary: tests/test_hooks.py)
SFT_HOOKS = {
    "compute_loss": "self model inputs return_outputs num_items_in_batch",
    "_load_from_checkpoint": "self resume_from_checkpoint model",
    "_load_best_model": "self",
}
HOOKS = {
    "_set_signature_columns_if_needed": "self",
    "get_train_dataloader": "self",
    "get_eval_dataloader": "self eval_dataset",
    "_prepare_inputs": "self generation_batch",
    "_generate_and_score_completions": "self inputs",
    "_tokenize_prompts": "self prompts",
    "_generate_single_turn": "self prompt_ids images multimodal_fields num_generations has_tool_images",
    "_calculate_rewards": "self inputs prompts completions completion_ids_list",
    "_get_per_token_logps_and_entropies": "self model input_ids attention_mask logits_to_keep batch_size "
    "compute_entropy compute_aux_loss pixel_values image_grid_thw num_images pixel_attention_mask spatial_shapes "
    "num_tiles image_sizes token_type_ids mm_token_type_ids image_position_ids",
    "_compute_loss": "self model inputs",
    "_load_from_checkpoint": "self resume_from_checkpoint model",
    "_load_best_model": "self",
}


def check_parent(parent: type = GRPOTrainer, hooks: dict[str, str] = HOOKS) -> None:
    """
    Raises:
        `ImportError`: a method of the installed `parent` differs from the one overridden here.
    """
    for name, expected in hooks.items():
        method = getattr(parent, name, None)
        found = " ".join(inspect.signature(method).parameters) if method else "nothing"
        if found != expected:
            raise ImportError(
                f"videor1_trl overrides {parent.__name__}.{name}({expected.replace(' ', ', ')}), but TRL "
                f"{trl.__version__} has {found.replace(' ', ', ')}. Install a tested version: pip install "
                "'trl>=1.16,<1.17'."
            )


def check_arguments(model: Any, args: TGRPOConfig, kwargs: dict[str, Any]) -> None:
    """Refuse what cannot work before any weights are loaded."""
    if not isinstance(args, TGRPOConfig):
        raise TypeError(f"args is a {type(args).__name__}; TGRPOTrainer needs a TGRPOConfig.")
    for name in ("tools", "rollout_func", "environment_factory"):
        if kwargs.get(name):
            raise NotImplementedError(
                f"{name} is not supported: TRL makes its rollouts without the videos. Use GRPOTrainer for text, or "
                "override TGRPOTrainer._generate_single_turn."
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


def check_columns(train_dataset: Any, eval_dataset: Any) -> None:
    """Refuse data without prompts, or with columns of names that rewards are called with."""
    for name, dataset in _named(train_dataset, eval_dataset).items():
        columns = getattr(dataset, "column_names", None)
        if columns is None:  # no dataset, or a stream that does not know its own
            continue
        if "prompt" not in columns:
            raise ValueError(f"{name} has no column 'prompt', only {', '.join(columns)}. See load_video_r1.")
        taken = [column for column in RESERVED_COLUMNS if column in columns]
        if taken:
            raise ValueError(f"{name} has a column {taken[0]!r}, a name that rewards are called with. Rename it.")


def _named(train_dataset: Any, eval_dataset: Any) -> dict[str, Any]:
    """The datasets by the name that errors call them."""
    several = eval_dataset if isinstance(eval_dataset, dict) else {"eval_dataset": eval_dataset}
    return {"train_dataset": train_dataset, **several}


def accuracy_index(reward_funcs: list[Any], name: str | None) -> int:
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


def media_kinds(train_dataset: Any, eval_dataset: Any, processor: Any) -> set[str]:
    """
    The kinds of media in the data, `"video"` and `"image"`; both where a streamed dataset does not tell.

    Raises:
        `ValueError`: a dataset with videos for a processor that takes none.
    """
    kinds = set()
    for name, dataset in _named(train_dataset, eval_dataset).items():
        for kind in ("video", "image"):
            column = next((c for c in (kind, kind + "s") if _may_hold_media(dataset, c)), None)
            if column is None:
                continue
            kinds.add(kind)
            if kind == "video" and isinstance(dataset, Dataset) and not takes_videos(processor):
                raise ValueError(
                    f"{name} has a column {column!r}, but the model's {type(processor).__name__} "
                    "takes no videos. Use a video-language model such as Qwen2.5-VL, or remove the column."
                )
    return kinds


def _may_hold_media(dataset: Any, column: str) -> bool:
    """Whether the column is there and filled anywhere; a streamed dataset may hold anything."""
    if not isinstance(dataset, Dataset):
        return dataset is not None
    return column in dataset.column_names and dataset.data.column(column).null_count < len(dataset.data)


def warn_of_checkpoints_within_a_cycle(args: TGRPOConfig) -> None:
    """A checkpoint between two updates that share their rollouts cannot hold them."""
    cycle = args.steps_per_generation * args.num_iterations // args.gradient_accumulation_steps
    if args.save_strategy == "steps" and cycle > 1 and args.save_steps % cycle:
        logger.warning(
            f"save_steps ({args.save_steps:g}) is no multiple of the {cycle} optimizer steps that share a batch of "
            "rollouts. A run resumed from such a checkpoint makes new rollouts for the rest of the batch, so its "
            "losses differ from those of an uninterrupted run."
        )
