"""Loading the weights of a checkpoint into a model in memory, whatever names the checkpoint has for them."""

from pathlib import Path
from typing import TypeGuard

from transformers import PreTrainedModel


def takes_checkpoint(model: object) -> TypeGuard[PreTrainedModel]:
    """Whether [`load_checkpoint`] is for this model: not for adapters, whose checkpoints hold their own names."""
    return isinstance(model, PreTrainedModel)


def load_checkpoint(model: PreTrainedModel, folder: str | Path) -> None:
    """
    Loads the weights that `save_pretrained` wrote.

    Checkpoints carry the released names of the weights, which transformers 5.23 translates in `from_pretrained` and not
    when a trainer resumes: a Qwen2.5-VL would go on untrained with no more than a warning.

    Raises:
        `ValueError`: `folder` is none.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"resume_from_checkpoint ({folder}) is no folder. Give a checkpoint's.")
    loaded = type(model).from_pretrained(folder, dtype=model.dtype)
    model.load_state_dict(loaded.state_dict())
