"""The tokens that end a completion, and those that stand for media and may never be sampled."""

from __future__ import annotations

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .families import Processor, tokenizer_of


PLACEHOLDER_TOKENS = (  # as attributes of a config, a processor or a tokenizer
    "image_token_id",
    "video_token_id",
    "audio_token_id",
    "image_token_index",
    "video_token_index",
    "vision_start_token_id",
    "vision_end_token_id",
    "image_start_token_id",
    "image_end_token_id",
    "video_start_token_id",
    "video_end_token_id",
)


def placeholder_token_ids(model: PreTrainedModel, processor: Processor) -> list[int]:
    """
    Ids of the visual placeholder tokens, read from the config, the processor and the tokenizer, sorted.

    A sampled placeholder would ask for features that do not exist ("features and tokens do not match").
    """
    tokenizer = tokenizer_of(processor)
    found = {
        getattr(owner, name, None) for owner in (model.config, processor, tokenizer) for name in PLACEHOLDER_TOKENS
    }
    for owner in (processor, tokenizer):
        for name in ("image_token", "video_token", "fake_image_token", "global_image_token"):
            token = getattr(owner, name, None)
            if isinstance(token, str):
                found.add(tokenizer.convert_tokens_to_ids(token))
    return sorted(token for token in found if isinstance(token, int) and token != tokenizer.unk_token_id)


def end_token_ids(
    config: PreTrainedConfig,
    generation_config: GenerationConfig | None,
    tokenizer: PreTrainedTokenizerBase,
    *more: int | list[int] | None,
) -> list[int]:
    """
    Every token that ends a completion; the pad token among them, since what follows could not be told from padding.

    Args:
        config, generation_config, tokenizer: the model's; `generation_config` may be `None`.
        *more (`int` or `list[int]`, *optional*): further ones, as a trainer's settings have them.
    """
    owners = (generation_config, config.get_text_config(), tokenizer)
    found = [*more, *(getattr(owner, "eos_token_id", None) for owner in owners), tokenizer.pad_token_id]
    flat = [token for ids in found for token in (ids if isinstance(ids, list) else [ids]) if token is not None]
    return list(dict.fromkeys(flat))
