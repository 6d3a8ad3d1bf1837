"""Tiny models that vLLM's attention on a CPU takes: it wants heads of 32."""

from __future__ import annotations

from pathlib import Path

import more_families
import tiny
import torch
from transformers import AutoModelForImageTextToText


FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm")
APART = ("internvl", "smolvlm")  # videos and images do not share a prompt
SECTIONS = {  # of rotary positions in time, height and width
    "qwen2_vl": {"mrope_section": [4, 6, 6]},
    "qwen2_5_vl": {"mrope_section": [4, 6, 6]},
    # as in its checkpoints; transformers reads no flag, vLLM does
    "qwen3_vl": {"mrope_section": [6, 5, 5], "mrope_interleaved": True},
}


def build(family: str, folder: str | Path) -> tiny.Tiny:
    """As [`tiny.build`] or [`more_families.build_family`], two heads of 32 in the place of four of 16, and float32 in the config."""
    torch.manual_seed(0)
    if family == "smolvlm":
        made, processor = tiny.smolvlm(tiny.tokenizer())
    elif family in more_families.BUILDERS:
        made, processor = more_families.BUILDERS[family]()
    else:
        made, processor = tiny.qwen_like(family, tiny.tokenizer())
    config = made.config
    text = config.get_text_config()
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 2, 1, 32
    if family == "smolvlm":
        text.tie_word_embeddings = True  # vLLM ties by this one
    if family in SECTIONS:
        text.rope_parameters |= SECTIONS[family]
    model = type(made)(config).float()
    tiny.spread(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return tiny.Tiny(
        str(folder), AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval(), processor
    )
