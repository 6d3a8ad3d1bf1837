"""`--check_model` of a dry run: the model of a training, loaded as that loads it, and held to the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .preflight import model_init_kwargs


if TYPE_CHECKING:  # slow to import
    from peft import PeftModel
    from transformers import PreTrainedModel
    from trl import ModelConfig

    from videor1_trl import TGRPOConfig, VideoSFTConfig
    from videor1_trl.contract.result import ContractResult
    from videor1_trl.models.families import Processor
    from videor1_trl.planning.model import Findings


def held_to_contract(
    args: TGRPOConfig | VideoSFTConfig, model_args: ModelConfig, findings: Findings
) -> ContractResult | None:
    """
    What [`~videor1_trl.contract.check.check_model`] finds of the model that the flags name, with its adapters; checks that fail,
    and a model that does not load, become problems of `findings`.
    """
    from safetensors import SafetensorError

    from videor1_trl import check_model

    name = model_args.model_name_or_path

    def loading() -> tuple[PreTrainedModel | PeftModel, Processor]:
        try:
            return load(args, model_args)
        except SafetensorError as error:  # a file that is torn
            raise ValueError(str(error)) from error

    loaded = findings.tried(f"weights of {name}", loading)
    if loaded is None:
        return None
    result = check_model(*loaded)
    findings.problems += [f"contract: {check}: {result[check].reason}" for check in result.failed]
    return result


def load(args: TGRPOConfig | VideoSFTConfig, model_args: ModelConfig) -> tuple[PreTrainedModel | PeftModel, Processor]:
    """Weights and processor as the trainers load them, on the device of `args`; nothing is written."""
    from trl import get_peft_config, get_quantization_config
    from trl.trainer.utils import create_model_from_path

    from videor1_trl.models.adapters import base_of, processor_source, whole_weights, with_adapter
    from videor1_trl.models.released import load_processor

    name = str(model_args.model_name_or_path)
    options = {**model_init_kwargs(model_args, args)}
    source = {"revision": options["revision"], "trust_remote_code": args.trust_remote_code}
    base = base_of(name, options["revision"])
    if base is not None:
        del options["revision"]  # the adapter's
    if (quantization := get_quantization_config(model_args)) is not None:
        options["quantization_config"] = quantization
    place = name if base is None else processor_source(name, base)
    own = source if place == name else {"trust_remote_code": args.trust_remote_code}
    processor = load_processor(place, truncation_side="left", padding_side="left", **own)
    with whole_weights():
        model: Any = create_model_from_path(base or name, **options)
    if base is not None:
        adapted = with_adapter(model, name, is_trainable=args.adapter == "continue", revision=source["revision"])
        model = adapted if args.adapter == "continue" else adapted.merge_and_unload()
    peft_config = get_peft_config(model_args)
    if peft_config is not None:
        from peft import get_peft_model

        model = get_peft_model(model, peft_config)
    if not getattr(model, "hf_device_map", None) and quantization is None:
        model.to(args.device)
    return model, processor
