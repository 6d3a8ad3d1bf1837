"""What rollouts by vLLM take from the trainer, in its process and by a server alike."""

from __future__ import annotations

from typing import Any

import torch

from ..models.encoding import EncodedPrompt
from .vllm import check_family, takes_media


class Prompt(list):
    """
    The ids of a prompt, which carry it with its media through TRL's generation, gathers included.

    Args:
        encoded (`EncodedPrompt`, *optional*): `None` of a row that only fills up, where ranks have fewer than others.
    """

    def __init__(self, encoded: EncodedPrompt | None):
        super().__init__([] if encoded is None else encoded.input_ids)
        self.encoded = encoded

    def __reduce__(self) -> tuple[object, ...]:
        return Prompt, (self.encoded,)


def check_model(trainer: Any, path: str) -> None:
    """
    Raises:
        `ValueError`: a model that vLLM can load from nowhere. `NotImplementedError`: a family that was not tested.
    """
    if not path:
        raise ValueError(
            "use_vllm=True needs a model in a folder or on the Hub, from which vLLM loads it, and this one was built in memory. Save "
            "it and its processor (save_pretrained), and pass the folder."
        )
    if takes_media(trainer.model.config):
        check_family(trainer.model.config)


def engine_dtype(trainer: Any, args: Any) -> torch.dtype:
    """The precision that rollouts are made in: of a float32 model vLLM would make bfloat16."""
    dtype: torch.dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else trainer.model.dtype
    return dtype


def max_model_length(args: Any) -> int | None:
    """Tokens of the longest prompt with its completion, where that is known."""
    if args.vllm_max_model_length is not None:
        return int(args.vllm_max_model_length)
    return None if args.max_prompt_length is None else args.max_prompt_length + args.max_completion_length


def mode_and_step(trainer: Any) -> tuple[str, int]:
    """What the tokens of a generation follow from, beside the seed and how often it was asked for."""
    return "train" if trainer.model.training else "eval", trainer.state.global_step


def ends_and_bias(
    trainer: Any, ends: list[int] | None, bias: dict[int, float] | None
) -> tuple[list[int], dict[int, float] | None]:
    """
    Tokens that end a completion, every end token of the trainer among them, and what is added to logits: what it suppresses
    is never sampled. `ends`, `bias`: what else was asked for.
    """
    own = trainer.generation_kwargs
    never = dict.fromkeys(own.get("suppress_tokens") or [], -100.0)
    return list(dict.fromkeys([*(ends or []), *own["eos_token_id"]])), {**(bias or {}), **never} or None
