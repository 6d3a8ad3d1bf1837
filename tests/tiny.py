"""Tiny random models of three families with processors and a tokenizer, and small mp4 files: nothing is downloaded."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)


FAMILIES = ("qwen2_5_vl", "qwen3_vl", "smolvlm")
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
)
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c['type'] == 'video' %}VIDEO{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOL_TEMPLATE = QWEN_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>").replace(
    "VIDEO", "<video>"
)


@dataclass
class Tiny:
    """A model on disk (`path`), loaded once (`model`), with its processor."""

    path: str
    model: Any
    processor: Any


def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(
        ["which way does the square move? <think> left </think> <answer> A </answer>"] * 20, trainer
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    return fast


def qwen_like(family: str, text: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    ids = {token: text.convert_tokens_to_ids(token) for token in SPECIAL}
    tokens = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    text_config = {
        "vocab_size": len(text),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}
    if family == "qwen3_vl":
        text_config["head_dim"] = 16
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
        vision |= {"patch_size": 14, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        config = Qwen3VLConfig(text_config=text_config, vision_config=vision, tie_word_embeddings=True, **tokens)
        video = Qwen3VLVideoProcessor(patch_size=14, size={"shortest_edge": 784, "longest_edge": 784 * 16 * 16})
        model_class, processor_class, vision_start = Qwen3VLForConditionalGeneration, Qwen3VLProcessor, ""
    elif family == "qwen2_vl":
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
        config = Qwen2VLConfig(text_config=text_config, vision_config=vision, tie_word_embeddings=True, **tokens)
        video = Qwen2VLVideoProcessor(size=size)
        model_class, processor_class, vision_start = Qwen2VLForConditionalGeneration, Qwen2VLProcessor, "wrap"
    else:
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
        vision |= {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1], "tokens_per_second": 2}
        config = Qwen2_5_VLConfig(text_config=text_config, vision_config=vision, tie_word_embeddings=True, **tokens)
        video = Qwen2VLVideoProcessor(size=size)
        model_class, processor_class, vision_start = Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, "wrap"
    placeholder = "<|vision_start|><|video_pad|><|vision_end|>" if vision_start else "<|video_pad|>"
    image = Qwen2VLImageProcessor(size=size, patch_size=14)
    template = QWEN_TEMPLATE.replace("VIDEO", placeholder)
    processor = processor_class(image_processor=image, tokenizer=text, video_processor=video, chat_template=template)
    return model_class(config), processor


def smolvlm(text: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    image_id, pad_id = (text.convert_tokens_to_ids(token) for token in ("<image>", "<|endoftext|>"))
    config = SmolVLMConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": len(text),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "eos_token_id": text.eos_token_id,
            "pad_token_id": pad_id,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        scale_factor=2,
        image_token_id=image_id,
        pad_token_id=pad_id,
        tie_word_embeddings=True,
    )
    side = {"longest_edge": 32}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(size=side, max_image_size=side, do_image_splitting=False),
        text,
        SmolVLMVideoProcessor(size=side, max_image_size=side),
        image_seq_len=4,
        chat_template=SMOL_TEMPLATE,
    )
    return SmolVLMForConditionalGeneration(config), processor


@torch.no_grad()
def spread(model: Any) -> None:
    """Larger weights: random ones of the usual size leave the video next to no influence."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "embed_tokens" not in name:
            parameter.mul_(3.0)


def build(family: str, folder: str | Path) -> Tiny:
    """A random model of the family, saved with its processor under `folder`."""
    torch.manual_seed(0)
    model, processor = smolvlm(tokenizer()) if family == "smolvlm" else qwen_like(family, tokenizer())
    spread(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Tiny(str(folder), type(model).from_pretrained(folder).eval(), processor)


def with_template(built: Tiny, folder: str | Path, template: str) -> Tiny:
    """The same model with another chat template, saved under `folder`."""
    shutil.copytree(built.path, folder, dirs_exist_ok=True)
    processor = AutoProcessor.from_pretrained(built.path)
    processor.chat_template = processor.tokenizer.chat_template = template
    processor.save_pretrained(folder)
    return Tiny(str(folder), built.model, processor)


def thinking(built: Tiny, folder: str | Path) -> Tiny:
    """The same model with a template that opens the thoughts, as those of thinking models do."""
    template = built.processor.chat_template.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    return with_template(built, folder, template)


def write_mp4(path: str | Path, frames: np.ndarray, fps: int = 4) -> str:
    """uint8 frames (T, H, W, 3) as h264; sides must be even."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def colour_frames(seed: int, count: int = 16, height: int = 56, width: int = 56) -> np.ndarray:
    """(count, height, width, 3) uint8: every frame of another colour."""
    colours = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3))
    return np.broadcast_to(colours, (count, height, width, 3)).astype(np.uint8)
