"""Tiny random models of further families, each with its own real processor and a tokenizer that has its tokens."""

import torch
import transformers
from tiny import QWEN_TEMPLATE, Tiny, qwen_like, spread, tokenizer
from transformers import PreTrainedTokenizerFast


MORE_FAMILIES = (
    "qwen2_vl",
    "qwen3_vl_moe",
    "qwen3_5_moe",
    "internvl",
    "glm4v",
    "glm46v",
    "llava_onevision",
    "qwen2_5_omni",
    "video_llama_3",
    "perception_lm",
    "llava_next_video",
)
IMAGE, VIDEO = "<|vision_start|><|image_pad|><|vision_end|>", "VIDEO"  # in QWEN_TEMPLATE
SIZE = {"shortest_edge": 784, "longest_edge": 784 * 16}
QWEN_TOKENS = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
LLAVA_TOKENS = {"image_token": "<image>", "video_token": "<video>"}
GLM_TOKENS = {
    "image_token": "<|image|>",
    "video_token": "<|video|>",
    "image_start_token": "<|begin_of_image|>",
    "image_end_token": "<|end_of_image|>",
    "video_start_token": "<|begin_of_video|>",
    "video_end_token": "<|end_of_video|>",
}
INTERN_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
OMNI_TOKENS = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}


def tokenizer_with(tokens):
    """The tokenizer of the tests with a family's own special tokens, by their names."""
    core = tokenizer()
    names = {"eos_token": core.eos_token, "pad_token": core.pad_token, "padding_side": "left"}
    return PreTrainedTokenizerFast(tokenizer_object=core.backend_tokenizer, extra_special_tokens=tokens, **names)


def template(image, video):
    return QWEN_TEMPLATE.replace(IMAGE, image).replace(VIDEO, video)


def text_config(text, **more):
    return {
        "vocab_size": len(text),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "eos_token_id": text.eos_token_id,
        "pad_token_id": text.pad_token_id,
        **more,
    }


def rope(*sections, **more):
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(sections), **more}


def vision_config(**more):
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
        **more,
    }


def qwen_ids(text):
    tokens = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{name}_token_id": text.convert_tokens_to_ids(f"<|{token}|>") for name, token in tokens.items()}


def qwen2_vl():
    return qwen_like("qwen2_vl", tokenizer())


def qwen3_processor(text):
    return transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=SIZE, patch_size=14),
        tokenizer=text,
        video_processor=transformers.Qwen3VLVideoProcessor(
            patch_size=14, size={"shortest_edge": 784, "longest_edge": 784 * 16 * 16}
        ),
        chat_template=template(IMAGE, "<|video_pad|>"),
    )


def mixture(**more):
    return {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        **more,
    }


def qwen3_vl_moe():
    text = tokenizer()
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
    vision |= {"patch_size": 14, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    config = transformers.Qwen3VLMoeConfig(
        text_config=text_config(text, head_dim=16, rope_parameters=rope(2, 3, 3), **mixture()),
        vision_config=vision,
        tie_word_embeddings=True,
        **qwen_ids(text),
    )
    return transformers.Qwen3VLMoeForConditionalGeneration(config), qwen3_processor(text)


def qwen3_5_moe():
    text = tokenizer()
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
    linear = {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    linear |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    config = transformers.Qwen3_5MoeConfig(
        text_config=text_config(
            text,
            head_dim=16,
            num_hidden_layers=3,
            layer_types=["linear_attention", "full_attention", "linear_attention"],
            rope_parameters=rope(1, 2, 1, mrope_interleaved=True, partial_rotary_factor=0.5),
            **linear,
            **mixture(),
        ),
        vision_config=vision | {"patch_size": 14, "num_position_embeddings": 64},
        tie_word_embeddings=True,
        **qwen_ids(text),
    )
    return transformers.Qwen3_5MoeForConditionalGeneration(config), qwen3_processor(text)


def internvl():
    text = tokenizer_with(INTERN_TOKENS)
    size = {"height": 28, "width": 28}
    processor = transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=4),
        tokenizer=text,
        video_processor=transformers.InternVLVideoProcessor(size=size),
        image_seq_length=4,  # (28 / 7)^2 / 2^2
        chat_template=template("<IMG_CONTEXT>\n", "<video>\n"),
    )
    config = transformers.InternVLConfig(
        text_config=text_config(text, model_type="qwen2"),
        vision_config=vision_config(),
        image_token_id=text.context_image_token_id,
        image_seq_length=4,
        tie_word_embeddings=True,
    )
    return transformers.InternVLForConditionalGeneration(config), processor


def glm(name, prefix):
    text = tokenizer_with(GLM_TOKENS)
    limits = {"shortest_edge": 784 * 2, "longest_edge": 784 * 2 * 16}  # of two frames, as an image is
    processor = getattr(transformers, f"{name}Processor")(
        image_processor=getattr(transformers, f"{name}ImageProcessor")(size=limits),
        tokenizer=text,
        video_processor=getattr(transformers, f"{name}VideoProcessor")(
            size={"shortest_edge": 784 * 2, "longest_edge": 784 * 16 * 16}
        ),
        chat_template=template(
            "<|begin_of_image|><|image|><|end_of_image|>", "<|begin_of_video|><|video|><|end_of_video|>"
        ),
    )
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
    config = getattr(transformers, f"{name}Config")(
        text_config=text_config(text, model_type=f"{prefix}_text", rope_parameters=rope(2, 3, 3)),
        vision_config=vision | {"model_type": f"{prefix}_vision", "patch_size": 14, "image_size": 56},
        tie_word_embeddings=True,
        **{f"{each}_id": getattr(text, f"{each}_id") for each in GLM_TOKENS},
    )
    return getattr(transformers, f"{name}ForConditionalGeneration")(config), processor


def llava_onevision():
    text = tokenizer_with(LLAVA_TOKENS)
    size, grid = {"height": 28, "width": 28}, [[28, 28], [28, 56], [56, 28], [56, 56]]
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grid),
        tokenizer=text,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>\n", "<video>\n"),
    )
    config = transformers.LlavaOnevisionConfig(
        text_config=text_config(text, model_type="qwen2"),
        vision_config=vision_config(model_type="siglip_vision_model", vision_use_head=False),
        image_token_index=text.image_token_id,
        video_token_index=text.video_token_id,
        image_grid_pinpoints=grid,
        tie_word_embeddings=True,
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor


def llava_next_video():
    text = tokenizer_with(LLAVA_TOKENS)
    size, grid = {"shortest_edge": 28}, [[28, 56], [56, 28], [56, 56]]
    crop = {"height": 28, "width": 28}
    processor = transformers.LlavaNextVideoProcessor(
        image_processor=transformers.LlavaNextImageProcessor(size=size, crop_size=crop, image_grid_pinpoints=grid),
        tokenizer=text,
        video_processor=transformers.LlavaNextVideoVideoProcessor(size=size, crop_size=crop),
        patch_size=7,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        chat_template=template("<image>\n", "<video>\n"),
    )
    config = transformers.LlavaNextVideoConfig(
        text_config=text_config(text, model_type="llama"),
        vision_config=vision_config(model_type="clip_vision_model"),
        image_token_index=text.image_token_id,
        video_token_index=text.video_token_id,
        image_grid_pinpoints=grid,
        tie_word_embeddings=True,
    )
    return transformers.LlavaNextVideoForConditionalGeneration(config), processor


def qwen2_5_omni():
    text = tokenizer_with(OMNI_TOKENS)
    processor = transformers.Qwen2_5OmniProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=SIZE, patch_size=14),
        video_processor=transformers.Qwen2VLVideoProcessor(size=SIZE),
        feature_extractor=transformers.WhisperFeatureExtractor(feature_size=16),
        tokenizer=text,
        chat_template=template("<|vision_bos|><|IMAGE|><|vision_eos|>", "<|vision_bos|><|VIDEO|><|vision_eos|>"),
    )
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
    vision |= {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1]}
    audio = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}
    config = transformers.Qwen2_5OmniThinkerConfig(
        text_config=text_config(text, rope_parameters=rope(2, 3, 3)),
        vision_config=vision,
        audio_config=audio | {"num_mel_bins": 16, "output_dim": 64},
        image_token_index=text.image_token_id,
        video_token_index=text.video_token_id,
        audio_token_index=text.audio_token_id,
        audio_start_token_id=text.audio_bos_token_id,
        audio_end_token_id=text.audio_eos_token_id,
        vision_start_token_id=text.vision_bos_token_id,
        vision_end_token_id=text.vision_eos_token_id,
        tie_word_embeddings=True,
    )
    return transformers.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


def video_llama_3():
    text = tokenizer_with(QWEN_TOKENS)
    processor = transformers.VideoLlama3Processor(
        image_processor=transformers.VideoLlama3ImageProcessor(size=SIZE, patch_size=14),
        tokenizer=text,
        video_processor=transformers.VideoLlama3VideoProcessor(
            size={"shortest_edge": 784, "longest_edge": 784 * 16 * 16}, patch_size=14
        ),
        chat_template=template("<|image_pad|>", "<|video_pad|>"),
    )
    config = transformers.VideoLlama3Config(
        text_config=text_config(text, model_type="qwen2"),
        vision_config={key: each for key, each in vision_config(patch_size=14).items() if key != "image_size"},
        image_token_id=text.image_token_id,
        video_token_id=text.video_token_id,
        tie_word_embeddings=True,
    )
    return transformers.VideoLlama3ForConditionalGeneration(config), processor


def perception_lm():
    text = tokenizer_with({"image_token": "<|image|>", "video_token": "<|video|>"})
    processor = transformers.PerceptionLMProcessor(
        video_processor=transformers.PerceptionLMVideoProcessor(size={"height": 28, "width": 28}),
        image_processor=transformers.PerceptionLMImageProcessor(tile_size=28, max_num_tiles=4),
        tokenizer=text,
        patch_size=7,
        pooling_ratio=2,
        chat_template=template("<|image|>", "<|video|>"),
    )
    config = transformers.PerceptionLMConfig(
        text_config=text_config(text, model_type="llama"),
        # the released ones have a tower of timm, which is not installed; this takes any
        vision_config=vision_config(
            model_type="siglip_vision_model", vision_use_head=False, model_args={"embed_dim": 32}
        ),
        vision_use_cls_token=False,
        projector_pooling_ratio=2,
        image_token_id=text.image_token_id,
        video_token_id=text.video_token_id,
        tie_word_embeddings=True,
    )
    return transformers.PerceptionLMForConditionalGeneration(config), processor


BUILDERS = {
    "qwen2_vl": qwen2_vl,
    "qwen3_vl_moe": qwen3_vl_moe,
    "qwen3_5_moe": qwen3_5_moe,
    "internvl": internvl,
    "glm4v": lambda: glm("Glm4v", "glm4v"),
    "glm46v": lambda: glm("Glm46V", "glm4v"),
    "llava_onevision": llava_onevision,
    "qwen2_5_omni": qwen2_5_omni,
    "video_llama_3": video_llama_3,
    "perception_lm": perception_lm,
    "llava_next_video": llava_next_video,
}


def build_family(name, folder):
    """A random model of one of `MORE_FAMILIES`, saved with its processor under `folder`."""
    torch.manual_seed(0)
    model, processor = BUILDERS[name]()
    spread(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Tiny(str(folder), type(model).from_pretrained(folder).eval(), processor)
