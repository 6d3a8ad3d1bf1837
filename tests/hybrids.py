"""Tiny random models whose text layers are not all of full attention, with their own processors."""

import torch
from tiny import QWEN_TEMPLATE, Tiny, spread, tokenizer
from transformers import (
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)


HYBRIDS = ("qwen3_5", "gemma4")
WINDOW = 100  # of Gemma 4's sliding layers: shorter than a prompt with a video
GEMMA_TOKENS = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
GEMMA_TOKENS |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}


def qwen3_5(text, **text_config):
    ids = {
        name: text.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image_token_id", "image_pad"),
            ("video_token_id", "video_pad"),
            ("vision_start_token_id", "vision_start"),
            ("vision_end_token_id", "vision_end"),
        )
    }
    text_config = {
        "vocab_size": len(text),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "tie_word_embeddings": True,
        "eos_token_id": text.eos_token_id,
        "pad_token_id": text.pad_token_id,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [1, 2, 1],
            "mrope_interleaved": True,
            "partial_rotary_factor": 0.5,
        },
        **text_config,
    }
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2}
    vision |= {"patch_size": 14, "num_position_embeddings": 64, "out_hidden_size": text_config["hidden_size"]}
    config = Qwen3_5Config(text_config=text_config, vision_config=vision, tie_word_embeddings=True, **ids)
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size={"shortest_edge": 784, "longest_edge": 784 * 16}, patch_size=14),
        tokenizer=text,
        video_processor=Qwen3VLVideoProcessor(
            patch_size=14, size={"shortest_edge": 784, "longest_edge": 784 * 16 * 16}
        ),
        chat_template=QWEN_TEMPLATE.replace("VIDEO", "<|video_pad|>"),
    )
    return Qwen3_5ForConditionalGeneration(config), processor


def gemma4(text, **text_config):
    names = {"eos_token": text.eos_token, "pad_token": text.pad_token, "padding_side": "left"}
    text = PreTrainedTokenizerFast(tokenizer_object=text.backend_tokenizer, extra_special_tokens=GEMMA_TOKENS, **names)
    settings = {"patch_size": 8, "max_soft_tokens": 70, "pooling_kernel_size": 2}
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(**settings),
        tokenizer=text,
        video_processor=Gemma4VideoProcessor(**settings),
        chat_template=QWEN_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<|image|>").replace(
            "VIDEO", "<|video|>"
        ),
    )
    layers = ["sliding_attention", "full_attention"] * 2
    config = Gemma4Config(
        text_config={
            "vocab_size": len(text),
            "vocab_size_per_layer_input": len(text),
            "hidden_size": 64,
            "hidden_size_per_layer_input": 8,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "layer_types": layers,
            "sliding_window": WINDOW,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "global_head_dim": 32,
            "num_kv_shared_layers": 2,
            "tie_word_embeddings": True,
            "eos_token_id": text.eos_token_id,
            "pad_token_id": text.pad_token_id,
            **text_config,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": 8,
            "pooling_kernel_size": 2,
            "position_embedding_size": 64,
        },
        image_token_id=text.image_token_id,
        video_token_id=processor.video_token_id,
        boi_token_id=text.boi_token_id,
        eoi_token_id=text.eoi_token_id,
        audio_token_id=text.audio_token_id,
        boa_token_id=text.boa_token_id,
        eoa_token_index=text.eoa_token_id,
        audio_config=None,
    )
    return Gemma4ForConditionalGeneration(config), processor


def build_hybrid(family, folder, **text_config):
    """A random model of the family, saved with its processor under `folder`; `text_config` over that of the tests."""
    torch.manual_seed(0)
    model, processor = {"qwen3_5": qwen3_5, "gemma4": gemma4}[family](tokenizer(), **text_config)
    spread(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Tiny(str(folder), type(model).from_pretrained(folder).eval(), processor)
