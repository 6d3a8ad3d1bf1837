"""
The tables of docs/devices.md: which engine for which size of Qwen2.5-VL on how many GPUs, from the dry run's estimate. Nothing is run, no
weights are read: `python docs/tools/devices.py` prints them.
"""

import functools
from dataclasses import dataclass

import torch
from transformers import Qwen2_5_VLConfig

from videor1_trl.planning.memory import (
    STATED_FACTOR,
    Batches,
    Engine,
    MemoryEstimate,
    Run,
    Weights,
    count_parameters,
    estimate_memory,
)
from videor1_trl.planning.model import empty_model


# As published: hidden size, layers, heads, key-value heads, intermediate size, vocabulary, whether embeddings and head are one
SIZES = {
    "3B": (2048, 36, 16, 2, 11008, 151936, True),
    "7B": (3584, 28, 28, 4, 18944, 152064, False),
    "32B": (5120, 64, 40, 8, 27648, 152064, False),
    "72B": (8192, 80, 64, 8, 29568, 152064, False),
}
KINDS = ("T-GRPO", "T-GRPO, LoRA", "SFT", "SFT, LoRA")
# The recipes' batches: 16 frames of 128 * 28 * 28 pixels, and 240 tokens of text
PROMPT, COMPLETION, PATCHES = 8 * 128 + 240, 768, 8 * 512
PIXELS = PATCHES * 3 * 2 * 14 * 14 * 4
BATCHES = {  # 2 rollouts a micro-batch, 8 ordered and 4 contrast ones a generation; one supervised row
    "T-GRPO": Batches(2, 1, PROMPT, COMPLETION, 12, 2, PATCHES, PIXELS, shared=True),
    "SFT": Batches(1, 1, PROMPT, COMPLETION, 0, 0, PATCHES, PIXELS),
}
LORA = r".*language_model.*[.](q|k|v|o|gate|up|down)_proj"  # of rank 64, as in video_r1_3b_lora.yaml


@dataclass(frozen=True)
class Choice:
    """An engine for a run: its name in the table, and the estimate of one device."""

    name: str
    estimate: MemoryEstimate

    @property
    def gib(self) -> float:
        return self.estimate.nbytes / 2**30


def config_of(size: str) -> Qwen2_5_VLConfig:
    """The config of a published size."""
    hidden, layers, heads, key_value, intermediate, vocabulary, tied = SIZES[size]
    text = {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": key_value,
        "intermediate_size": intermediate, "vocab_size": vocabulary, "tie_word_embeddings": tied,
    }  # fmt: skip
    vision = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "out_hidden_size": hidden}
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=tied,
        architectures=["Qwen2_5_VLForConditionalGeneration"],
    )


@functools.cache
def parameters(size: str, lora: bool) -> tuple[int, int]:
    """All parameters and those that are trained."""
    model = empty_model(config_of(size))
    if not lora:
        return count_parameters(model)
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        return count_parameters(get_peft_model(model, LoraConfig(r=64, target_modules=LORA)))


def estimate(size: str, kind: str, num_gpus: int, sharding: str, *, gathers: bool = True) -> MemoryEstimate:
    """Of one device. Where no engine keeps float32 copies, what is trained is loaded in float32 (`--dtype float32`)."""
    lora = kind.endswith("LoRA")
    total, trainable = parameters(size, lora)
    own_copies = sharding.startswith("zero")
    weights = Weights(total, trainable, 2.0, 2.0 if own_copies else 4.0)
    engine = Engine(num_gpus, sharding, half=True, checkpointing=True, gathers_to_generate=gathers)
    run = Run(
        weights,
        config_of(size),
        BATCHES[kind.removesuffix(", LoRA")],
        engine,
        reference=kind == "T-GRPO",
        attention="flash_attention_2",
    )
    return estimate_memory(run)


def choices(size: str, kind: str, num_gpus: int) -> list[Choice]:
    """The engines that come into question, the simplest first."""
    found = [Choice("ddp" if num_gpus > 1 else "one GPU", estimate(size, kind, num_gpus, "none"))]
    if num_gpus > 1:
        found += [Choice(name, estimate(size, kind, num_gpus, name)) for name in ("zero2", "zero3")]
        if kind.startswith("T-GRPO"):
            found.append(Choice("zero3 *", estimate(size, kind, num_gpus, "zero3", gathers=False)))
    return found


def best(size: str, kind: str, num_gpus: int, device_gib: float) -> tuple[Choice, bool]:
    """The simplest engine that fits by the stated factor; else the one that needs least; and whether it fits by that factor."""
    found = choices(size, kind, num_gpus)
    safe = [each for each in found if each.gib * STATED_FACTOR <= device_gib]
    return (safe[0], True) if safe else (min(found, key=lambda each: each.gib), False)


def cell(size: str, kind: str, num_gpus: int, device_gib: float) -> str:
    """`zero3 40`: the engine, and GiB of a device; in brackets where it is too close, a dash where it does not fit."""
    choice, safe = best(size, kind, num_gpus, device_gib)
    said = f"{choice.name} {choice.gib:.0f}"
    if choice.gib > device_gib:
        return f"– ({choice.gib:.0f})"
    return said if safe else f"({said})"


def table(device_gib: float, sizes: tuple[str, ...], gpus: tuple[int, ...]) -> str:
    """In Markdown, a line for each size and kind of training."""
    lines = [
        f"| {device_gib:.0f} GiB | " + " | ".join("1 GPU" if each == 1 else f"{each} GPUs" for each in gpus) + " |",
        "|---" * (len(gpus) + 1) + "|",
    ]
    for size in sizes:
        for kind in KINDS:
            cells = [cell(size, kind, num_gpus, device_gib) for num_gpus in gpus]
            lines.append(f"| {size}, {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def offloaded(size: str, kind: str, num_gpus: int) -> tuple[float, float]:
    """GiB of a GPU, and of the hosts' memory together, where `zero3_offload.yaml` keeps all that ZeRO-3 splits in the latter."""
    found = estimate(size, kind, num_gpus, "zero3", gathers=False)
    moved = {
        item.name: item.nbytes for item in found.items if item.name in ("weights", "reference model", "optimizer")
    }
    gradients = sum(item.nbytes for item in found.items if item.name == "gradients")
    left = found.of("always") - sum(moved.values()) + max(found.of("rollouts"), found.of("training") - gradients)
    return left / 2**30, (sum(moved.values()) + gradients) * num_gpus / 2**30


def offload_table(rows: tuple[tuple[str, int], ...]) -> str:
    """In Markdown, a line for each size and number of GPUs."""
    lines = ["| `zero3_offload` | GPUs | T-GRPO: a GPU | hosts | SFT: a GPU | hosts |", "|---|---|---|---|---|---|"]
    for size, num_gpus in rows:
        cells = [f"{each:.0f}" for kind in ("T-GRPO", "SFT") for each in offloaded(size, kind, num_gpus)]
        lines.append(f"| {size} | {num_gpus} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tables() -> list[str]:
    """Those of the page, in its order."""
    return [
        table(80, tuple(SIZES), (1, 4, 8, 16)),
        table(24, ("3B", "7B"), (1, 4, 8)),
        offload_table((("7B", 1), ("32B", 4), ("72B", 8), ("72B", 16))),
    ]


if __name__ == "__main__":
    print("\n\n".join(tables()))
    for name in SIZES:
        print(name, *(f"{each:,}" for each in parameters(name, False)))
