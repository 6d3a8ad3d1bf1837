"""`check_model`: the contract that a family is supported by, as a function of a model and its processor."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from ..models.encoding import EncodeSettings
from ..models.families import Processor
from . import prompts, rows, training
from .bench import Bench
from .result import Broken, Check, ContractResult, NotApplicable, Outcome
from .unchanged import unchanged


if TYPE_CHECKING:
    from peft import PeftModel

SUPPORTED = "supported"
CHECKS: dict[str, tuple[str, Callable[[Bench], str]]] = {
    SUPPORTED: (
        "the trainers take it",
        lambda bench: f"{bench.base.config.model_type} is not among the models that are refused",
    ),
    "contrast_ids": ("the same tokens whatever the order of the frames", prompts.contrast_ids),
    "placeholders": ("visual placeholders are never sampled", prompts.placeholders),
    "pixel_budget": ("the pixel budget is kept or refused", prompts.pixel_budget),
    "rows_alone": ("a row alone is the same in a batch of videos, images and texts", rows.rows_alone),
    "two_videos": ("two videos in a prompt, alone and in a batch", rows.two_videos),
    "two_images": ("two images in a prompt, alone and in a batch", rows.two_images),
    "video_and_image": ("a video and an image in a prompt, alone and in a batch", rows.video_and_image),
    "video_counts": ("log-probabilities depend on the video and on its order", rows.video_counts),
    "rollouts": ("the rollouts' raw logits are the log-probabilities", rows.rollouts),
    "packed": ("packed behind one prompt as row by row", rows.packed),
    "cold_start": ("supervised rows padded, alone and padding-free", rows.cold_start),
    "one_step": ("a step moves the weights of tower and language model", training.one_step),
    "checkpointing": ("activation checkpointing gives the same loss", training.checkpointing),
    "lora": ("LoRA trains, and leaves the base weights alone", training.lora),
    "save_load": ("saved and loaded again it is the same", training.save_load),
}
BUDGET = EncodeSettings(video_max_pixels=56 * 84, image_max_pixels=56 * 84)  # so that large models read little


def check_model(
    model: PreTrainedModel | PeftModel, processor: Processor, *, checks: Sequence[str] | None = None
) -> ContractResult:
    """
    Checks on a model and its processor what training relies on, with small videos and images made in memory: that prompts on
    shuffled frames have the same tokens, that a row is the same alone, in a batch, packed and rolled out, that the video is in
    the log-probabilities, that a step reaches all parts, and more (see the manual's page Families).

    The model is run on its device, in its dtype, with its attention, on up to 8 rows of up to 8 small frames; gradients are
    computed, and freed one by one. It is left as it was: weights, gradients, mode, hooks, configs, generator states. One copy of
    it is saved to a temporary folder and loaded beside it (`save_load`).

    Args:
        model (`PreTrainedModel` or `PeftModel`): not wrapped by an engine.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): the model's processing class.
        checks (`Sequence[str]`, *optional*): the names of those to make, in any order. `None`: all.

    Returns:
        [`ContractResult`]: what was found, a check a line; a check that fails raises nothing. `print` it for a table.

    Raises:
        `TypeError`: a model that is none of transformers'. `ValueError`: a name in `checks` that none has.

    Example:

    ```python
    result = check_model(model, processor)
    print(result)
    assert result.ok, result.failed
    ```
    """
    if not isinstance(getattr(model, "get_base_model", lambda: model)(), PreTrainedModel):
        raise TypeError(
            f"model is a {type(model).__name__}; the contract is checked on a PreTrainedModel or a PeftModel, before an engine "
            "wraps it."
        )
    if unknown := set(checks or ()).difference(CHECKS):
        raise ValueError(f"checks ({', '.join(sorted(unknown))}) must be among {', '.join(CHECKS)}.")
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")}
    dtype = str(model.dtype).removeprefix("torch.")
    base = model if isinstance(model, PreTrainedModel) else model.get_base_model()
    result = ContractResult(type(base).__name__, dtype, versions)
    with unchanged(model), torch.no_grad():
        model.eval()
        bench: Bench | Exception = _ready(model, processor)
        for name, (what, function) in CHECKS.items():
            if checks is None or name in checks or (name == SUPPORTED and isinstance(bench, Exception)):
                result.checks.append(_checked(name, what, function, bench))
    return result


def _ready(model: PreTrainedModel | PeftModel, processor: Processor) -> Bench | Exception:
    try:
        bench = Bench(model, processor)
        bench.encode_settings = _budget(bench)
        return bench
    except Exception as error:  # whatever a model or a processor of any family raises is what is to be said
        return error


def _budget(bench: Bench) -> EncodeSettings:
    """A small pixel budget, where the processor has one for all its media."""
    free = bench.encode_settings
    bench.encode_settings = BUDGET
    try:
        for name in rows.usable(bench, ("video", "image")):
            bench.load(name)
    except (NotImplementedError, ValueError):
        return free
    return BUDGET


def _checked(name: str, what: str, function: Callable[[Bench], str], bench: Bench | Exception) -> Check:
    begun = time.perf_counter()
    outcome: Outcome = "pass"
    try:
        if isinstance(bench, Exception):
            raise bench if name == SUPPORTED else NotApplicable("the trainers do not take the model.")
        reason = function(bench)
    except NotApplicable as error:
        outcome, reason = "not applicable", str(error)
    except Broken as error:
        outcome, reason = "fail", str(error)
    except Exception as error:  # as above
        outcome, reason = "fail", f"{type(error).__name__}: {error}"
    return Check(name, what, outcome, reason, time.perf_counter() - begun)
