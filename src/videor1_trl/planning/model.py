"""The model of a planned run, from its config alone: no weights are read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.modeling_utils import set_zero3_state
from trl import ModelConfig, get_peft_config

from ..models.adapters import base_of, processor_source
from ..models.families import takes_videos
from ..models.refused import check_readable
from ..models.released import load_processor
from ..sharing.attention import cannot_share
from ..text.messages import Named
from .arguments import RunArguments, generates
from .memory import Engine, Weights, count_parameters


_T = TypeVar("_T")
Processor: TypeAlias = ProcessorMixin | PreTrainedTokenizerBase
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}


@dataclass
class Findings:
    """What was found out about a run: `problems` would stop it, or break it hours in; `warnings` should be known."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def tried(self, what: str, function: Callable[[], _T]) -> _T | None:
        """What the function returns; `None`, and a problem, where it fails as loading does."""
        try:
            return function()
        except (ImportError, KeyError, NotImplementedError, OSError, ValueError) as error:
            self.problems.append(f"{what}: {first_line(error)}")
            return None


def first_line(error: Exception) -> str:
    """Of the error's message: those of the Hub's client go on for pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@dataclass
class ModelPlan:
    """
    The model, from its config alone.

    Args:
        name (`str`), model_class (`str`): where it is, and what it is.
        config, processor: as they load; `processor` is `None` where it does not.
        weights ([`Weights`]): counted on the meta device, adapters included.
        dtype (`str`), attention (`str`): as they will be.
        not_shared (`str`, *optional*): why rows cannot share their prompt; `None` where they can.
    """

    name: str
    model_class: str
    config: PreTrainedConfig
    processor: Processor | None
    weights: Weights
    dtype: str
    attention: str
    not_shared: str | None

    @property
    def takes_videos(self) -> bool:
        return takes_videos(self.processor)

    @property
    def max_positions(self) -> int | None:
        """Tokens of a sequence that the model was made for."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    @property
    def has_adapters(self) -> bool:
        return self.weights.trainable < self.weights.parameters


def empty_model(
    config: PreTrainedConfig, attention: str | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """The model of a config on the meta device: its shapes, and no memory for its weights."""
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    # The state says that ZeRO-3 has split the weights already, so that transformers does not split (and lose) them
    with torch.device("meta"), set_zero3_state():
        if architecture is not None:
            return architecture._from_config(config, attn_implementation=attention)
        several = getattr(config, "vision_config", None) is not None
        auto = AutoModelForImageTextToText if several else AutoModelForCausalLM
        return auto.from_config(config, trust_remote_code=trust_remote_code, attn_implementation=attention)


def plan_model(args: RunArguments, model_args: ModelConfig, engine: Engine, findings: Findings) -> ModelPlan | None:
    """The model that `args` and `model_args` name; `None`, and a problem, where its config does not load."""
    name = model_args.model_name_or_path
    if name is None:
        findings.problems.append("model: model_name_or_path is not set.")
        return None
    own = args.model_init_kwargs
    assert not isinstance(own, str)  # training arguments read JSON when they are made
    options: Named = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        "trust_remote_code": args.trust_remote_code,
        **(own or {}),
    }
    trusted = bool(options["trust_remote_code"])
    source = {"revision": options["revision"], "trust_remote_code": trusted}
    known = len(findings.problems)
    base = findings.tried(f"adapter {name}", lambda: base_of(name, options["revision"]))
    if len(findings.problems) > known:
        return None
    place = name if base is None else processor_source(name, base)
    of_processor = source if place == name else {"trust_remote_code": trusted}
    processor = findings.tried(f"processor of {place}", lambda: load_processor(place, **of_processor))
    of_model = source if base is None else {"trust_remote_code": trusted}
    config = findings.tried(f"config of {base or name}", lambda: AutoConfig.from_pretrained(base or name, **of_model))
    if config is None:
        return None
    if base is not None and args.adapter == "continue" and model_args.use_peft:
        findings.problems.append(
            f"adapter: {name} is one and is trained on, and use_peft asks for another. Set adapter='merge'."
        )
        return None
    wanted = options["attn_implementation"]
    try:
        model = empty_model(config, wanted, trusted)
    except (ImportError, ValueError) as error:  # flash attention on a machine without it, or a name that is none
        unseen = isinstance(error, ImportError) and args.device.type != "cuda"  # it may be there where the run will be
        found = findings.warnings if unseen else findings.problems
        found.append(f"attn_implementation={wanted!r} cannot be used here: {first_line(error)}")
        model = empty_model(config, None, trusted)
    dtype = str(options["dtype"] or "auto").removeprefix("torch.")
    if dtype == "auto":
        dtype = str(config.dtype or "float32").removeprefix("torch.")
    attention = wanted or model.config.get_text_config()._attn_implementation
    not_shared = _not_shared(args, model, attention)
    model_class = type(model).__name__
    findings.tried("model", lambda: check_readable(model))
    adapter = name if base is not None and args.adapter == "continue" else None
    weights = findings.tried("adapters", lambda: _weights(model, model_args, dtype, engine, adapter))
    if weights is None:
        return None
    return ModelPlan(name, model_class, config, processor, weights, dtype, attention, not_shared)


def _not_shared(args: RunArguments, model: PreTrainedModel, attention: str) -> str | None:
    """Why rows compute their prompt one by one; `None` where those of a group share it."""
    if not generates(args):
        return "each row has a prompt of its own"
    if not args.share_prefix:
        return "share_prefix=False"
    model.config.get_text_config()._attn_implementation = attention  # also where this machine lacks it
    return cannot_share(model)


def _weights(
    model: PreTrainedModel, model_args: ModelConfig, dtype: str, engine: Engine, adapter: str | None
) -> Weights:
    """
    Counts a model's parameters, those of its adapters included, which may be new or in a folder, and says how many bytes they
    will take.
    """
    each = _BYTES.get(dtype, 4.0)
    bits = 4 if model_args.load_in_4bit else 8 if model_args.load_in_8bit else None
    kept = {id(m.weight) for m in (model.get_output_embeddings(), model.get_input_embeddings()) if m is not None}
    linear = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and id(m.weight) not in kept]
    quantised = sum(weight.numel() for weight in linear) if bits else 0
    base, _ = count_parameters(model)
    base_each = (quantised * (bits or 0) / 8 + (base - quantised) * each) / base
    peft_config = get_peft_config(model_args)
    if peft_config is None and adapter is None:
        return Weights(base, base, base_each, each)
    from peft import PeftConfig, get_peft_model

    if adapter is not None:
        peft_config = PeftConfig.from_pretrained(adapter)
        peft_config.inference_mode = False
    assert peft_config is not None
    with torch.device("meta"):
        total, trainable = count_parameters(get_peft_model(model, peft_config))
    adapters = 2.0 if bits else each if engine.sharding == "zero3" else 4.0  # as TRL has peft cast them
    return Weights(total, trainable, base_each, adapters)
