"""What a vLLM server's workers are asked to do besides what vLLM does (`--worker-extension-cls`): divide logits by a temperature."""

from __future__ import annotations

from typing import Any

import torch


SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)


def temper(model: Any, temperature: float) -> None:
    """
    Divides a model's logits before vLLM reads the log-probabilities off them, which it does before its own temperature.

    Args:
        model (`nn.Module`): of vLLM. Asked again, it keeps the last temperature alone.
        temperature (`float`): above 0.
    """
    original = getattr(model, "_untempered", model.compute_logits)
    model._untempered = original

    def compute_logits(*arguments: Any, **settings: Any) -> torch.Tensor | None:
        logits = original(*arguments, **settings)
        return None if logits is None else logits.float() / temperature  # None: of a rank that samples nothing

    model.compute_logits = original if temperature == 1.0 else compute_logits


def sizes_of(config: Any) -> dict[str, object]:
    """Type and sizes of a model by its config: what must be equal where weights are handed over."""
    text = config.get_text_config()
    return {"model_type": config.model_type, **{name: getattr(text, name, None) for name in SIZES}}


class RolloutWorker:
    """Joins the worker class of `vllm serve`; its methods are called by the trainer, over `/collective_rpc`."""

    def videor1_model(self) -> dict[str, object]:
        """What is served: its path, and [`sizes_of`] it."""
        config = self.model_runner.model_config  # type: ignore[attr-defined]
        return {"path": config.model, **sizes_of(config.hf_config)}

    def videor1_temper(self, temperature: float) -> str:
        """Log-probabilities are from now on those at this temperature. Returns it as text, since the server tells nothing else."""
        temper(self.model_runner.model, float(temperature))  # type: ignore[attr-defined]
        return str(float(temperature))
