"""Tiny models that vLLM's attention on a CPU takes: it wants heads of 32."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch
from transformers import AutoModelForImageTextToText


FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
OWN_ROPE = {
    "mrope_section": [6, 5, 5],
    "mrope_interleaved": True,
}  # as in its checkpoints; transformers reads no flag, vLLM does


def build(family: str, folder: str | Path) -> tiny.Tiny:
    """As [`tiny.build`], two heads of 32 in the place of four of 16, and float32 in the config."""
    torch.manual_seed(0)
    made, processor = tiny.qwen_like(family, tiny.tokenizer())
    config = made.config
    text = config.text_config
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 2, 1, 32
    text.rope_parameters |= OWN_ROPE if family == "qwen3_vl" else {"mrope_section": [4, 6, 6]}
    model = type(made)(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed_tokens" not in name:
                parameter.mul_(3.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return tiny.Tiny(
        str(folder), AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval(), processor
    )
