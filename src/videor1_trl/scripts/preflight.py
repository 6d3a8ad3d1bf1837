"""What a training command refuses before it opens a file of records or reads weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..text.messages import Named
from .messages import expected_errors, stop
from .model_flags import check_model_name


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, ProcessorMixin
    from trl import ModelConfig

    from videor1_trl import TGRPOConfig, VideoSFTConfig

    from .record_flags import DataArguments


def resumed_from(args: TGRPOConfig | VideoSFTConfig) -> str | None:
    """The checkpoint to go on from; `true` is the newest whole one in output_dir."""
    from videor1_trl.models.manifests import check_whole, to_go_on_from

    asked = args.resume_from_checkpoint
    if asked in (None, False) or str(asked).lower() == "false":
        return None
    with expected_errors():
        if str(asked).lower() != "true":
            check_whole(asked)
            return str(asked)
        found, said = to_go_on_from(str(args.output_dir))
    if said and int(os.environ.get("RANK", "0")) == 0:
        print(said)
    return found


def check_evaluation(data_args: DataArguments, args: TGRPOConfig | VideoSFTConfig) -> None:
    """Refuses evaluation during training without anything to evaluate on."""
    from transformers.trainer_utils import IntervalStrategy

    strategy = IntervalStrategy(args.eval_strategy)
    if strategy != IntervalStrategy.NO and data_args.eval_dataset is None:
        stop(f"--eval_strategy {strategy.value}: there is nothing to evaluate on. Give --eval_dataset.")


def check_loggers(args: TGRPOConfig | VideoSFTConfig) -> None:
    """Refuses a logger that is not installed, or that nobody knows."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    from videor1_trl.watching import loggers

    with expected_errors():
        loggers.check_loggers(args.report_to or [])
    for name in args.report_to or []:
        if name not in INTEGRATION_TO_CALLBACK:
            stop(f"--report_to {name}: it must be one of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}, all or none.")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            stop(f"--report_to {name}: {str(error).strip().splitlines()[0]}")


def model_init_kwargs(model_args: ModelConfig, args: TGRPOConfig | VideoSFTConfig) -> Named:
    """How the model is loaded: what the command line says of it, and `args.model_init_kwargs`, which wins."""
    chosen = args.model_init_kwargs or {}
    assert not isinstance(chosen, str)  # which its config has parsed
    return {
        "revision": model_args.model_revision,
        "trust_remote_code": args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **chosen,
    }


def take_up_adapter(model_args: ModelConfig, args: TGRPOConfig | VideoSFTConfig) -> None:
    """Where the model is an adapter that is trained on, no other is made: a recipe for LoRA fits its cold start and its T-GRPO."""
    from videor1_trl.models.adapters import base_of

    name = model_args.model_name_or_path
    if not (model_args.use_peft and args.adapter == "continue" and name):
        return
    with expected_errors(f"--model_name_or_path ({name}): "):
        if base_of(name, model_init_kwargs(model_args, args)["revision"]) is None:
            return
    if int(os.environ.get("RANK", "0")) == 0:
        print(
            f"{name} is an adapter and is trained on: --use_peft and --lora_... are not used (--adapter merge uses them)."
        )
    model_args.use_peft = False


def check_model(
    model_args: ModelConfig, args: TGRPOConfig | VideoSFTConfig
) -> ProcessorMixin | PreTrainedTokenizerBase:
    """
    Refuses a model that is not there, attention or adapters that it cannot have, before records or weights are read; gives its
    processor.
    """
    from transformers import AutoConfig
    from transformers.utils import is_bitsandbytes_available
    from trl import get_peft_config

    from videor1_trl.models.adapters import base_of, processor_source
    from videor1_trl.models.released import load_processor
    from videor1_trl.planning.model import empty_model

    name = check_model_name(model_args.model_name_or_path)
    if (model_args.load_in_4bit or model_args.load_in_8bit) and not is_bitsandbytes_available():
        stop("--load_in_4bit and --load_in_8bit need bitsandbytes: pip install bitsandbytes.")
    trusted = {"trust_remote_code": args.trust_remote_code}
    options = model_init_kwargs(model_args, args)
    revision = options["revision"]
    with expected_errors(f"--model_name_or_path ({name}): "):
        base = base_of(name, revision)
        source = name if base is None else processor_source(name, base)
        processor = load_processor(source, revision=revision if source == name else None, **trusted)
        config = AutoConfig.from_pretrained(base or name, revision=None if base else revision, **trusted)
    with expected_errors("--attn_implementation: "):
        model = empty_model(config, options["attn_implementation"], args.trust_remote_code)
    with expected_errors("--use_peft: "):
        peft_config = get_peft_config(model_args)
        if peft_config is not None:
            import torch
            from peft import get_peft_model

            with torch.device("meta"):
                get_peft_model(model, peft_config)
    return processor


def check_videos_taken(
    processor: ProcessorMixin | PreTrainedTokenizerBase, model_args: ModelConfig, datasets: Sequence[Dataset]
) -> None:
    """Refuses videos for a model that takes none."""
    from videor1_trl.models.families import takes_videos

    columns = [
        dataset.data.column(name)
        for dataset in datasets
        for name in ("video", "videos")
        if name in dataset.column_names
    ]
    num_videos = sum(len(column) - column.null_count for column in columns)
    if num_videos and not takes_videos(processor):
        stop(
            f"{num_videos} rows have a video, but the {type(processor).__name__} of {model_args.model_name_or_path} takes "
            "none. Use a video-language model such as Qwen2.5-VL."
        )
