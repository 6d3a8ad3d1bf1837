"""A backend by its name."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    ProcessorMixin,
)

from ..models.adapters import base_of, processor_source, with_adapter
from ..models.released import load_processor
from .requests import (
    Backend,
    GenerationSettings,
)
from .transformers_backend import TransformersBackend


def make_backend(
    name: Literal["transformers", "vllm", "server"], model: str, settings: GenerationSettings, **options: Any
) -> Backend:
    """
    A backend by its name, the model loaded.

    Args:
        name: `"transformers"`, `"vllm"` (needs the extra of that name) or `"server"` (needs its extra, too).
        model (`str`): a folder or Hub id, of a LoRA adapter too; of a server, the name under which it has the model.
        settings ([`GenerationSettings`]): of every completion.
        **options: `transformers`: `revision`, `dtype` ("auto"), `attn_implementation`, `trust_remote_code` and whatever
            else `from_pretrained` takes, and the keywords of [`TransformersBackend`]; `vllm`: those of
            [`~vllm_backend.VllmBackend`]; `server`: those of [`~server_backend.ServerBackend`], `base_url` among
            them.

    Raises:
        `ValueError`: another name; an adapter that does not fit its base model; of `vllm`, any adapter.
        `NotImplementedError`: an adapter of virtual tokens (prompt tuning).
        `ImportError`: vLLM or openai's client is not installed; of an adapter, PEFT is not.
    """
    if name == "vllm":
        from .vllm_backend import VllmBackend

        return VllmBackend(model, settings, **options)
    if name == "server":
        from .server_backend import ServerBackend

        return ServerBackend(options.pop("base_url", None), model, settings, **options)
    if name != "transformers":
        raise ValueError(f"backend ({name!r}) must be 'transformers', 'vllm' or 'server'.")
    options = {key: value for key, value in options.items() if value is not None}
    own = {key: options.pop(key) for key in ("batch_size", "video_loader", "chat_template_kwargs") if key in options}
    shared = {key: options[key] for key in ("revision", "trust_remote_code") if key in options}
    base = base_of(model, options.get("revision"))
    source = model if base is None else processor_source(model, base)
    if source != model:  # a revision is the adapter's
        shared.pop("revision", None)
    processor = load_processor(source, padding_side="left", **shared)
    architecture = AutoModelForImageTextToText if isinstance(processor, ProcessorMixin) else AutoModelForCausalLM
    options = {"dtype": "auto", "device_map": _device_map(), **options}
    if base is None:
        return TransformersBackend(architecture.from_pretrained(model, **options), processor, settings, **own)
    revision = options.pop("revision", None)
    loaded = architecture.from_pretrained(base, **options)
    with_adapter(loaded, model, revision=revision)  # into its layers
    backend = TransformersBackend(loaded, processor, settings, **own)
    backend.adapter = model
    return backend


def _device_map() -> str | dict[str, int] | None:
    """All GPUs for one process; of several, which `accelerate launch` or `torchrun` started, each its own GPU."""
    if not torch.cuda.is_available():
        return None
    return {"": int(os.environ["LOCAL_RANK"])} if "LOCAL_RANK" in os.environ else "auto"
