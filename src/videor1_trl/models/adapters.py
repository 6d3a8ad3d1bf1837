"""A folder or Hub repository with a LoRA adapter as the model of a trainer: trained on, or merged into its base model."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar

import torch
from accelerate import PartialState
from accelerate.logging import get_logger
from accelerate.utils import is_peft_model
from huggingface_hub import ModelCardData
from transformers import PreTrainedModel, set_seed
from transformers.integrations.deepspeed import (
    is_deepspeed_zero3_enabled,
    set_hf_deepspeed_config,
    unset_hf_deepspeed_config,
)
from transformers.utils.peft_utils import find_adapter_config_file
from trl.trainer.utils import create_model_from_path

from ..text.messages import Named
from .cards import hub_base
from .families import ModelOrPath, Processor
from .released import load_processor, register


if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel


logger = get_logger(__name__)

MERGED = "merged"  # folder in output_dir


class StartArguments(Protocol):
    """What is read of a trainer's arguments before its model is loaded; their fields say what each means."""

    output_dir: str | None
    adapter: str
    model_init_kwargs: Named | str | None
    trust_remote_code: bool
    seed: int

    @property
    def distributed_state(self) -> PartialState: ...


Arguments = TypeVar("Arguments", bound=StartArguments)


def base_of(model: str, revision: str | None = None) -> str | None:
    """
    The base model of an adapter, by the adapter's config; `None` where `model` is no adapter.

    Raises:
        `ImportError`: an adapter, and PEFT is not installed. `ValueError`: one that names no base model.
        `NotImplementedError`: one of virtual tokens.
    """
    folder = Path(model)
    if (folder / "config.json").exists() or (folder.is_dir() and not (folder / "adapter_config.json").exists()):
        return None
    try:
        found = find_adapter_config_file(model, revision=revision)
    except (OSError, ValueError):  # not to be reached; whoever loads the model says so
        return None
    if found is None:
        return None
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise ImportError(f"{model} is a LoRA adapter, which needs PEFT: pip install peft.") from error
    config = PeftConfig.from_pretrained(model, revision=revision)
    check_kind(config)
    base = config.base_model_name_or_path
    if not base:
        raise ValueError(f"{model} is an adapter whose adapter_config.json names no base_model_name_or_path. Add it.")
    return base


def with_adapter(loaded: PreTrainedModel, adapter: str, **options: Any) -> PeftModel:
    """
    The [`~peft.PeftModel`] of a base model and an adapter that is in a folder or on the Hub.

    Args:
        loaded (`PreTrainedModel`): the base model; gets the adapter's modules.
        adapter (`str`): folder or Hub id.
        **options: of `PeftModel.from_pretrained`, such as `is_trainable` and `revision`.

    Raises:
        `ValueError`: one that does not fit the model.
    """
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(loaded, adapter, **options)
    except RuntimeError as error:  # of sizes
        raise ValueError(
            f"{adapter} is an adapter that does not fit {loaded.config._name_or_path}, which its adapter_config.json names as "
            "its base model. Was it trained on another, or on one with more tokens? Correct base_model_name_or_path. "
            f"({shorten(str(error), 400)})"
        ) from error


def check_kind(config: PeftConfig | None) -> None:
    """
    Raises:
        `NotImplementedError`: an adapter's config that asks for virtual tokens.
    """
    if getattr(config, "is_prompt_learning", False) or getattr(config, "is_adaption_prompt", False):
        raise NotImplementedError(
            f"{type(config).__name__} puts virtual tokens before the prompt, and the positions of videos, the logits "
            "that are scored and the prompts that are shared know of none. Use LoRA (LoraConfig)."
        )


def processor_source(model: str, base: str) -> str:
    """Where an adapter's processor is: beside it, as trainers save it, else with its base model."""
    names = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
    return model if any((Path(model) / name).exists() for name in names) else base


def _init_settings(args: StartArguments) -> Named:
    """The keywords that a model is loaded with, a copy."""
    settings = args.model_init_kwargs or {}
    if isinstance(settings, str):  # TRL reads a text of JSON when the arguments are made
        raise ValueError(f"model_init_kwargs ({settings!r}) must be a dict, or a text of JSON with one.")
    return dict(settings)


def started(
    model: ModelOrPath, args: Arguments, processing_class: Processor | None, kwargs: Named
) -> tuple[ModelOrPath, Arguments, Processor | None]:
    """
    The model, the arguments and the processing class that a trainer's parent gets: as they came, but for an adapter (see
    [`start_from_adapter`]). The parent may load a processor as Video-R1 released it.
    """
    register()
    if not isinstance(model, str) or (base := base_of(model, _init_settings(args).get("revision"))) is None:
        return model, args, processing_class
    return start_from_adapter(model, base, args, processing_class, kwargs)


def start_from_adapter(
    model: str, base: str, args: Arguments, processing_class: Processor | None, kwargs: Named
) -> tuple[str | PeftModel, Arguments, Processor]:
    """
    The model, the arguments and the processing class that a trainer starts from where its `model` is an adapter.

    Args:
        model, base (`str`): the adapter's folder or Hub id, and its base model's.
        args: the trainer's; `args.adapter` says what is done.
        processing_class: as passed, or `None`.
        kwargs (`dict`): the trainer's further arguments; a `quantization_config` is taken out where it is used.

    Returns:
        `(PeftModel, args, processor)` to train on, or `(folder of the merged model, args, processor)`; `args` is a copy whose
        `model_init_kwargs` lack what has been used.

    Raises:
        `ValueError`: `args.adapter="continue"` together with a `peft_config`.
    """
    args, options = copy.copy(args), _init_settings(args)
    source = {"revision": options.pop("revision", None), "trust_remote_code": args.trust_remote_code}
    if processing_class is None:
        place = processor_source(model, base)
        own = source if place == model else {"trust_remote_code": args.trust_remote_code}
        processing_class = load_processor(place, truncation_side="left", padding_side="left", **own)
    if args.adapter == "merge":
        args.model_init_kwargs = options
        folder = _merged(model, base, args, processing_class, source["revision"])
        return str(folder), args, processing_class
    if kwargs.get("peft_config") is not None:
        raise ValueError(
            f"model ({model}) is an adapter, which adapter='continue' trains on, and a peft_config asks for another. Pass no "
            "peft_config (use_peft), or set adapter='merge': new adapters on the model with this one merged in."
        )
    set_seed(args.seed)
    quantization = kwargs.pop("quantization_config", None)
    if quantization is not None:
        options["quantization_config"] = quantization
    if args.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
        options["device_map"] = None
    options.setdefault("trust_remote_code", args.trust_remote_code)
    loaded = create_model_from_path(base, **options)
    logger.info(f"{model} is an adapter on {base}: it is trained on (adapter='continue').")
    args.model_init_kwargs = None  # used; TRL would warn that they are not
    # as TRL has new adapters: ZeRO-3 gathers weights of one dtype only, PEFT would have these in float32
    keeps_dtype = is_deepspeed_zero3_enabled() and quantization is None
    adapted = with_adapter(
        loaded, model, is_trainable=True, revision=source["revision"], autocast_adapter_dtype=not keeps_dtype
    )
    return adapted, args, processing_class


def _merged(model: str, base: str, args: StartArguments, processor: Processor, revision: str | None) -> Path:
    """
    The folder of the base model with the adapter merged in, written by the first process. It is a model as any other, so that
    the reference is loaded from it, and adapters trained on it name it as their base.
    """
    assert args.output_dir is not None  # transformers names a folder where the user does not
    if Path(args.output_dir).resolve() == Path(model).resolve():
        raise ValueError(
            f"output_dir ({args.output_dir}) is the folder of the adapter that is the model, which would be written over. "
            "With adapter='merge' give another output_dir."
        )
    folder = Path(args.output_dir) / MERGED
    state = PartialState()
    if state.is_main_process:
        with whole_weights(), torch.no_grad():
            loaded = create_model_from_path(
                base, dtype="auto", device_map=None, trust_remote_code=args.trust_remote_code
            )
            outer, inner = loaded.get_output_embeddings(), loaded.get_input_embeddings()
            tied = outer is not None and outer.weight is inner.weight
            adapted = with_adapter(loaded, model, revision=revision)
            if tied and _has_own_embeddings(loaded):
                raise ValueError(
                    f"The adapter {model} changes the embeddings of {base}, which reads and writes with the same ones "
                    "(tie_word_embeddings): merged, each change would be one of both. Set adapter='continue'."
                )
            adapted.merge_and_unload().save_pretrained(folder)
        processor.save_pretrained(folder)
        metadata = ModelCardData(base_model=hub_base(base)).to_yaml()  # the cards of models trained from it follow it
        (folder / "README.md").write_text(
            f"---\n{metadata}\n---\n\n{base} with {model} merged in.\n", encoding="utf-8"
        )
        logger.info(f"{model} was merged into {base}: {folder}.")
    state.wait_for_everyone()
    return folder


def _has_own_embeddings(model: PreTrainedModel) -> bool:
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    return any(
        isinstance(layer, (BaseTunerLayer, ModulesToSaveWrapper)) and not isinstance(layer, TrainableTokensLayer)
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
    )


@contextlib.contextmanager
def whole_weights() -> Iterator[None]:
    """Within the context ZeRO-3 does not split the weights that are loaded."""
    from transformers.integrations import deepspeed

    reference = getattr(deepspeed, "_hf_deepspeed_config_weak_ref", None) if is_deepspeed_zero3_enabled() else None
    config = reference() if reference is not None else None
    if config is not None:
        unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            set_hf_deepspeed_config(config)


def has_adapters(model: object) -> TypeGuard[PeftModel]:
    """Whether the model is one of PEFT's."""
    return isinstance(model, torch.nn.Module) and is_peft_model(model)


def check_adapters(model: object, peft_config: PeftConfig | None) -> None:
    """Refuse adapters that cannot be trained here, and a model of which nothing would be trained."""
    configs = [peft_config, *(model.peft_config.values() if has_adapters(model) else ())]
    for config in configs:
        check_kind(config)
    if isinstance(model, torch.nn.Module) and peft_config is None:
        check_trainable(model)


def check_trainable(model: torch.nn.Module) -> None:
    """
    Raises:
        `ValueError`: no parameter of the model is trained.
    """
    if any(parameter.requires_grad for parameter in model.parameters()):
        return
    remedy = "Set requires_grad_(True) on what is to be trained, or pass a peft_config."
    if has_adapters(model):
        remedy = "PeftModel.from_pretrained freezes an adapter: load it with is_trainable=True."
    raise ValueError(f"No parameter of the {type(model).__name__} is trainable, so nothing would be learned. {remedy}")
