"""Models whose rows transformers does not read rightly in a batch: they are refused, with the reason, before anything is trained."""

from __future__ import annotations

import inspect

from torch import nn
from transformers import PreTrainedModel

from .own_families import family_of


REFUSED = {  # by `model_type`, where the code's structure does not tell; transformers 5.23
    "molmo2": "the pooling indices of a row count from that row's own pixels, and joined with others' they point at the first row's; its "
    "visual tokens see ahead too",
    "minicpmv4_6": "the patches of rows of unequal size are padded along the wrong dimension",
}


def cannot_read(model: nn.Module) -> str | None:
    """Why a model's rows would be read wrongly beside others, or `None` where they are not, or its family is registered."""
    config = getattr(model, "config", None)
    model_type = getattr(config, "model_type", None)
    own = family_of(model_type)
    if own.encode is not None or own.join is not None:
        return None
    if model_type in REFUSED:
        return REFUSED[model_type]
    reading = [module for module in model.modules() if hasattr(module, "get_image_features")]
    if any(hasattr(module, "get_video_features") for module in reading):
        return None
    for module in reversed(reading):  # the innermost
        if "pixel_values_videos" in inspect.signature(type(module).forward).parameters:  # PerceptionLM
            return (
                f"{type(module).__name__} reads its videos as images (it has no get_video_features), and the frames that it pads the "
                "shorter ones of a batch with as if they were some"
            )
    return None


def check_readable(model: PreTrainedModel) -> None:
    """
    Raises:
        `NotImplementedError`: a model whose rows would be read wrongly beside others.
    """
    if (reason := cannot_read(model)) is not None:
        raise NotImplementedError(
            f"{type(model).__name__} ({model.config.model_type}) is not supported: {reason}. Use a model of another family, or tell "
            f"register_family({model.config.model_type!r}, encode=..., join=...) how its rows are read."
        )
