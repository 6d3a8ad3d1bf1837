"""No step is made with gradients that are no numbers: the weights would be none either, and the run would go on with them."""

import math

import torch
from torch.distributed.tensor import DTensor
from transformers import Trainer


def check_gradients(trainer: Trainer, norm: torch.Tensor | float | None) -> None:
    """
    Raises before the optimizer's step where the norm of the gradients, the same on all ranks, is not finite.

    Mixed precision with float16 scales its loss until they are, and skips the steps before: there nothing is raised.

    Raises:
        `FloatingPointError`: the norm is NaN or infinite.
    """
    if isinstance(norm, DTensor):  # FSDP2: each rank has the part of its shards
        norm = norm.full_tensor()
    if norm is None or trainer.args.fp16 or math.isfinite(norm):
        return
    faulty = _first_faulty(trainer.model)
    where = (
        f"the weights of {faulty} are not finite: they were loaded or written so"
        if faulty
        else (
            "the weights are still finite: a loss was NaN or infinite, or its gradients were. Lower the learning rate, look at rewards, "
            "labels and data of this step, or use bf16 instead of float16"
        )
    )
    raise FloatingPointError(
        f"The gradients of step {trainer.state.global_step + 1} are not finite (their norm is {float(norm)}), so that the step is "
        f"not made: {where}. The last checkpoint is from before."
    )


def _first_faulty(model: torch.nn.Module | None) -> str | None:
    """The name of a parameter of this rank that is not finite."""
    parameters = [] if model is None else model.named_parameters()
    return next((name for name, each in parameters if not bool(torch.isfinite(each.detach()).all())), None)
