"""What a plan reads of the arguments of a run, be it T-GRPO or supervised training."""

from __future__ import annotations

from typing import Protocol, TypeGuard

import torch
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.training_args import OptimizerNames

from ..config import TGRPOConfig
from ..media.limits import Limits
from ..media.settings import Pixels
from ..media.video import Sampling


class RunArguments(Protocol):
    """The fields that [`TGRPOConfig`] and [`VideoSFTConfig`] have alike; what each means they say themselves."""

    output_dir: str | None
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    max_steps: int
    num_train_epochs: float
    optim: OptimizerNames | str
    bf16: bool | None
    fp16: bool
    activation_checkpointing: bool | None
    eval_strategy: IntervalStrategy | str
    save_strategy: SaveStrategy | str
    save_steps: float
    save_total_limit: int | None
    save_only_model: bool
    trust_remote_code: bool
    model_init_kwargs: dict[str, object] | str | None
    adapter: str
    max_prompt_length: int | None
    on_bad_video: str

    @property
    def device(self) -> torch.device: ...

    @property
    def world_size(self) -> int: ...

    @property
    def video_settings(self) -> Sampling: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def pixel_settings(self) -> Pixels: ...


def generates(args: RunArguments) -> TypeGuard[TGRPOConfig]:
    """Whether rollouts are made: in T-GRPO, and not in supervised training."""
    return hasattr(args, "num_generations")
