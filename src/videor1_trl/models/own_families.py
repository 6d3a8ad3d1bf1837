"""What a user says of a model family of their own: how its prompts are encoded, joined, numbered and shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


Features = dict[str, torch.Tensor]
Encode = Callable[..., Any]  # gives an `EncodedPrompt`, which is not known here
Join = Callable[[list[Features]], Features]
Positions = Callable[[Any, Any], torch.Tensor]  # of a model and an `EncodedPrompt`


@dataclass(frozen=True)
class Family:
    """What is registered of a model type; `None` where the package's own rules hold. See [`register_family`]."""

    encode: Encode | None = None
    join: Join | None = None
    positions: Positions | None = None
    shares: bool | None = None


_PLAIN = Family()
_REGISTERED: dict[str, Family] = {}


def register_family(
    model_type: str,
    *,
    encode: Encode | None = None,
    join: Join | None = None,
    positions: Positions | None = None,
    shares: bool | None = None,
) -> None:
    """
    Say what differs in a family of models, before a trainer or a backend is made of one. What is left out follows the package's
    own rules, which go by what is found in processor and model.

    Args:
        model_type (`str`): `model.config.model_type` of the family.
        encode (`Callable`, *optional*): `(processor, messages, videos, images, **settings) -> EncodedPrompt`, in the place of
            [`~models.encoding.encode_prompt`], whose arguments it gets and which it may call.
        join (`Callable`, *optional*): `(features) -> features`: from the `features` of each prompt of a batch that has media (a list
            of dicts of tensors on the CPU) those that the model's forward takes for the batch. By default they are joined along the
            first dimension. With it the tower reads the media of each prompt anew, also where prompts share them.
        positions (`Callable`, *optional*): `(model, prompt) -> torch.Tensor` of shape (A, P), int64, on the CPU: the positions of the
            P tokens of an [`~models.encoding.EncodedPrompt`], A axes (1 or 3); what is generated goes on at their largest + 1. By
            default those of the model's `get_rope_index`, else 0 to P - 1.
        shares (`bool`, *optional*): whether the rows of a prompt may compute it together. `False`: each row alone. `True`: together,
            whatever the layers are. By default the model's layers decide.

    Raises:
        `ValueError`: the type is registered already (see [`unregister_family`]), or nothing is said of it.
        `TypeError`: an argument of another type.

    Example:

    ```python
    from videor1_trl import register_family
    from videor1_trl.models.encoding import encode_prompt

    def encode(processor, messages, videos, images, **settings):
        prompt = encode_prompt(processor, messages, videos, images, **settings)
        prompt.features.pop("unused_by_the_model", None)
        return prompt

    register_family("my_model", encode=encode)
    ```
    """
    if not isinstance(model_type, str) or not model_type:
        raise TypeError(f"model_type is {model_type!r}; it must be a text, as model.config.model_type is.")
    for name, value in (("encode", encode), ("join", join), ("positions", positions)):
        if value is not None and not callable(value):
            raise TypeError(
                f"{name} is a {type(value).__name__}; it must be a function, or None for the package's own rule."
            )
    if shares is not None and not isinstance(shares, bool):
        raise TypeError(
            f"shares is a {type(shares).__name__}; it must be True, False, or None: the model's layers decide."
        )
    family = Family(encode, join, positions, shares)
    if family == _PLAIN:
        raise ValueError(f"register_family({model_type!r}) says nothing. Pass encode, join, positions or shares.")
    if model_type in _REGISTERED:
        raise ValueError(
            f"The family {model_type!r} is registered already. Call unregister_family({model_type!r}) before."
        )
    _REGISTERED[model_type] = family


def unregister_family(model_type: str) -> None:
    """
    Take back what [`register_family`] was told of a model type: the package's own rules hold for what is made from now on.

    Raises:
        `ValueError`: nothing is registered of it.
    """
    if model_type not in _REGISTERED:
        known = ", ".join(sorted(_REGISTERED)) or "none"
        raise ValueError(f"The family {model_type!r} is not registered; registered: {known}.")
    del _REGISTERED[model_type]


def family_of(model_type: str | None) -> Family:
    """What is registered of a model type; nothing where there is none."""
    return _REGISTERED.get(model_type or "", _PLAIN)


def model_type_of(model: Any) -> str | None:
    """`config.model_type` of a model, wrapped by PEFT or not."""
    return getattr(getattr(model, "config", None), "model_type", None)
