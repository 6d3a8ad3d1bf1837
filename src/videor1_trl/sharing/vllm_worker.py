"""What a vLLM server's workers are asked to do besides what vLLM does (`--worker-extension-cls`): divide logits by a temperature."""

from __future__ import annotations

from typing import Any

import torch


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


class RolloutWorker:
    """Joins the worker class of `vllm serve`; its method is called by the trainer, over `/collective_rpc`."""

    def videor1_temper(self, temperature: float) -> str:
        """Log-probabilities are from now on those at this temperature. Returns it as text, since the server tells nothing else."""
        temper(self.model_runner.model, float(temperature))  # type: ignore[attr-defined]
        return str(float(temperature))
