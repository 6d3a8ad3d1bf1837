"""Engines on a CPU: accelerate takes DeepSpeed and FSDP2 with gloo once its detection of devices says so. Import it first."""

import importlib
import os

import torch


ENGINES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


def prepare(engine: str) -> dict:
    """Sets up the process for an engine, before any `TrainingArguments` are made; the arguments that they need for it."""
    if engine in ("none", "ddp"):
        return {"use_cpu": True}
    _detect_cpu()
    if engine == "fsdp2":
        os.environ.update(
            ACCELERATE_USE_FSDP="true",
            FSDP_VERSION="2",
            FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP",
            FSDP_STATE_DICT_TYPE="SHARDED_STATE_DICT",  # the default of FSDP2
        )
        return {"use_cpu": False}
    os.environ["DS_ACCELERATOR"] = "cpu"
    # DeepSpeed would compile an operator for shared memory as it starts (about a minute); gloo does without
    importlib.import_module("deepspeed.comm")
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None
    return {"use_cpu": False, "deepspeed": _zero(int(engine[-1]))}


def _detect_cpu() -> None:
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    def prepare_backend(self, cpu=False, sagemaker_dp=False, backend=None):
        return "gloo", DistributedType.MULTI_GPU  # of which AcceleratorState makes FSDP or DEEPSPEED

    def set_device(self):
        self.device = torch.device("cpu")

    PartialState._prepare_backend, PartialState.set_device = prepare_backend, set_device


def _zero(stage: int) -> dict:
    more = {"stage3_param_persistence_threshold": 0} if stage == 3 else {}  # every parameter is split, small ones too
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": stage, **more},
    }
