"""What differs between model families: encoding a prompt with its media, batching, positions, tokens never to sample."""

import copy
import inspect
import itertools
import types
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin
from transformers.video_utils import VideoMetadata

from .packed_attention import cannot_take_segments


RELEASED_POSITIONS = ("qwen2_vl", "qwen2_5_vl")  # text goes on at the largest position of the video + 1
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


@dataclass
class EncodedPrompt:
    """
    One prompt with its media, as the model reads it. Rows of a group share one object.

    Args:
        input_ids (`list[int]` of length P):
            The prompt's token ids, placeholders expanded.
        token_types (`dict[str, list[int]]`):
            Per-token inputs of length P, such as `mm_token_type_ids`.
        features (`dict[str, torch.Tensor]`):
            Inputs of the vision tower (pixels, grids, seconds per grid), on the CPU; empty for a text prompt.
        kinds (`frozenset[str]`):
            The media in the prompt: `"video"`, `"image"`, both or neither.
        positions (`torch.Tensor` of shape (A, P), *optional*):
            The prompt's positions, once they are known; see [`prompt_positions`].
        media (`list`, *optional*):
            The prompt's videos and images one by one, once they are told apart; see [`~tower.media_of`].
    """

    input_ids: list[int]
    token_types: dict[str, list[int]] = field(default_factory=dict)
    features: dict[str, torch.Tensor] = field(default_factory=dict)
    kinds: frozenset[str] = frozenset()
    positions: torch.Tensor | None = None
    media: list[Any] | None = None


def takes_videos(processor: Any) -> bool:
    """Whether the processor reads videos: it has a video processor."""
    return isinstance(processor, ProcessorMixin) and getattr(processor, "video_processor", None) is not None


class PreprocessedOnce:
    """
    Stands in for a processor's video processor while one batch is encoded: the same frames are preprocessed once,
    however many prompts ask about them. Frames are recognised by identity, so they are kept alive here.
    """

    def __init__(self, video_processor: Any):
        self._video_processor = video_processor
        self._done: dict[tuple, tuple[list, BatchFeature]] = {}

    @property
    def uncached(self) -> Any:
        """The processor that this stands in for."""
        return self._video_processor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not there yet while copied or unpickled
            raise AttributeError(name)
        return getattr(self._video_processor, name)

    def __call__(self, videos: list[list[torch.Tensor]], **kwargs: Any) -> BatchFeature:
        key = tuple(id(frames) for of_prompt in videos for frames in of_prompt)
        if key not in self._done:
            self._done[key] = (videos, self._video_processor(videos, **kwargs))
        processed = self._done[key][1]
        return BatchFeature(data=dict(processed), skip_tensor_conversion=["video_metadata"])


def with_preprocessing_cache(processor: ProcessorMixin) -> ProcessorMixin:
    """A copy of the processor that preprocesses the same frames once, for the length of one batch."""
    if not takes_videos(processor):
        return processor
    processor = copy.copy(processor)
    processor.video_processor = PreprocessedOnce(processor.video_processor)
    return processor


def pixel_budget(part: Any, max_pixels: int | None, min_pixels: int | None, num_frames: int) -> dict[str, Any]:
    """
    The `size` that keeps a frame within the budget, for processors that count pixels (Qwen2-VL and its descendants).

    Some of them count the pixels of one frame, others those of the whole video: their `smart_resize` then has the
    number of frames. Processors of a fixed resolution (SmolVLM, LLaVA) have no pixel budget and get no argument.
    """
    resize = getattr(inspect.getmodule(type(part)), "smart_resize", None)
    size = getattr(part, "size", None)
    if (max_pixels is None and min_pixels is None) or resize is None or size is None or not size.longest_edge:
        return {}
    scale = num_frames + num_frames % 2 if "num_frames" in inspect.signature(resize).parameters else 1
    longest = size.longest_edge if max_pixels is None else max_pixels * scale
    shortest = size.shortest_edge if min_pixels is None else min_pixels * scale
    budget: dict[str, Any] = {"size": {"shortest_edge": min(shortest, longest), "longest_edge": longest}}
    if "cap_pixels_per_frame" in getattr(type(part).valid_kwargs, "__annotations__", {}):
        budget["cap_pixels_per_frame"] = False  # this budget is the cap
    return budget


def encode_prompt(
    processor: Any,
    messages: list[dict],
    videos: list[tuple[torch.Tensor, VideoMetadata]],
    images: list[Any],
    *,
    video_max_pixels: int | None = None,
    video_min_pixels: int | None = None,
    image_max_pixels: int | None = None,
    chat_template: str | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> EncodedPrompt:
    """
    Render, tokenize and preprocess one prompt with its media, through the processor alone.

    Frames are taken as they are (`do_sample_frames=False`) and keep their metadata: time stamps and seconds per grid
    follow the metadata, whatever the order of the frames.

    Args:
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`):
            The model's processing class.
        messages (`list[dict]`):
            Conversational prompt whose media stand as `{"type": "video"}` and `{"type": "image"}` parts.
        videos (`list` of `(frames, VideoMetadata)`):
            uint8 frames (T, C, H, W) with their metadata, in the order of the placeholders.
        images (`list[PIL.Image.Image]`):
            Images in the order of the placeholders.
        video_max_pixels, video_min_pixels, image_max_pixels (`int`, *optional*):
            Pixels of one frame or image, at most and at least, for processors that count pixels. Where they count those
            of a whole video (Qwen3-VL), the shortest video of a prompt sets the budget of all.

    Raises:
        `ValueError`: from the processor, where placeholders and media differ in number.
    """
    text = processor.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=True,
        chat_template=chat_template,
        **(chat_template_kwargs or {}),
    )
    tokenizer = getattr(processor, "tokenizer", processor)
    kwargs: dict[str, Any] = {"return_tensors": "pt"}
    if tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token):
        kwargs["add_special_tokens"] = False  # as transformers' apply_chat_template does
    if videos:
        frames = [video for video, _ in videos]
        video_processor = getattr(processor.video_processor, "uncached", processor.video_processor)
        budget = pixel_budget(video_processor, video_max_pixels, video_min_pixels, min(map(len, frames)))
        kwargs["videos"] = [frames]  # those of one prompt: some processors count them by prompt
        kwargs["videos_kwargs"] = {
            "video_metadata": [copy.deepcopy(metadata) for _, metadata in videos],  # processors write into it
            "do_sample_frames": False,
            **budget,
        }
    if images:
        kwargs["images"] = [images]
        kwargs["images_kwargs"] = pixel_budget(processor.image_processor, image_max_pixels, None, 1)
    encoded = processor(text=[text], **kwargs)
    if videos and images and "pixel_values_videos" not in encoded and "pixel_values" in encoded:
        name = type(processor).__name__  # SmolVLM: the video's pixels take the place of the image's
        raise ValueError(
            f"its prompt mixes videos and images, which {name} cannot encode. Keep them in prompts apart."
        )
    input_ids = encoded["input_ids"][0].tolist()
    token_types = {key: encoded[key][0].tolist() for key in encoded if key.endswith("token_type_ids")}
    features = {
        key: torch.as_tensor(value)
        for key, value in encoded.items()
        if key not in ("input_ids", "attention_mask") and key not in token_types
    }
    kinds = frozenset(kind for kind, media in (("video", videos), ("image", images)) if media)
    return EncodedPrompt(input_ids, token_types, features, kinds)


def collate_features(prompts: list[EncodedPrompt]) -> dict[str, torch.Tensor]:
    """
    The vision inputs of several rows as one batch: joined along the first dimension, in the order of the rows.

    Families that keep a row's frames in the second dimension (SmolVLM) are padded there, and in height and width, with
    zeros: their models drop images that are all zeros.
    """
    return join_features([prompt.features for prompt in prompts])


def join_features(features: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """As [`collate_features`], of the features alone."""
    keys = dict.fromkeys(key for each in features for key in each)  # a set that keeps the order
    return {key: _join([each[key] for each in features if key in each]) for key in keys}


def _join(tensors: list[torch.Tensor]) -> torch.Tensor:
    shapes = {tensor.shape[1:] for tensor in tensors}
    if len(shapes) > 1:
        largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
        tensors = [
            nn.functional.pad(
                tensor,
                [n for new, old in zip(largest[::-1], tensor.shape[:0:-1], strict=True) for n in (0, new - old)],
            )
            for tensor in tensors
        ]
    return torch.cat(tensors)


def collate_token_types(prompts: list[EncodedPrompt]) -> dict[str, list[list[int]]]:
    """The per-token inputs of several rows, one list per row; rows without them (text) get zeros."""
    keys = dict.fromkeys(key for prompt in prompts for key in prompt.token_types)
    return {key: [prompt.token_types.get(key) or [0] * len(prompt.input_ids) for prompt in prompts] for key in keys}


def padded_inputs(prompts: list[EncodedPrompt], length: int, num_completion: int) -> dict[str, torch.Tensor]:
    """
    Media and token types of B rows, as the model takes them beside padded tokens (B, `length`): prompts end where the
    last `num_completion` columns begin.
    """
    inputs = collate_features(prompts)
    end = length - num_completion
    for key, values in collate_token_types(prompts).items():
        inputs[key] = torch.zeros(len(prompts), length, dtype=torch.long)
        for row, value in enumerate(values):
            inputs[key][row, end - len(value) : end] = torch.tensor(value)
    return inputs


def placeholder_token_ids(model: PreTrainedModel, processor: Any) -> list[int]:
    """
    Ids of the visual placeholder tokens, read from the config, the processor and the tokenizer, sorted.

    A sampled placeholder would ask for features that do not exist ("features and tokens do not match").
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    found = {
        getattr(owner, name, None) for owner in (model.config, processor, tokenizer) for name in PLACEHOLDER_TOKENS
    }
    for owner in (processor, tokenizer):
        for name in ("image_token", "video_token", "fake_image_token", "global_image_token"):
            token = getattr(owner, name, None)
            if isinstance(token, str):
                found.add(tokenizer.convert_tokens_to_ids(token))
    return sorted(token for token in found if isinstance(token, int) and token != tokenizer.unk_token_id)


def correct_positions(model: nn.Module) -> None:
    """
    Make a Qwen2-VL or Qwen2.5-VL continue text after a video as the released models were trained.

    The text after a video starts at the largest position so far + 1. transformers 5.3 to 5.23 start it earlier once a
    video is longer in time than in space. Where the installed transformers is right nothing changes, and nothing for
    other families. Rollouts, log-probabilities and evaluation of one model must share this. Idempotent.
    """
    for module in model.modules():
        if getattr(getattr(module, "config", None), "model_type", None) in RELEASED_POSITIONS:
            if hasattr(module, "get_rope_index"):
                # setattr: for mypy an attribute of a module is a tensor or a module
                setattr(module, "get_rope_index", types.MethodType(_released_rope_index, module))  # noqa: B010


def _released_rope_index(
    self: Any,
    input_ids: torch.Tensor,
    mm_token_type_ids: torch.Tensor,
    *args: Any,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`get_rope_index` of the model, with what follows each video moved behind its largest position."""
    position_ids, deltas = type(self).get_rope_index(
        self, input_ids, mm_token_type_ids, *args, attention_mask=attention_mask, **kwargs
    )
    for row in range(len(input_ids)):
        kept = slice(None) if attention_mask is None else attention_mask[row].bool()
        kinds = mm_token_type_ids[row][kept].tolist()
        positions = position_ids[:, row][:, kept]  # (3, L), a copy
        shift, start, runs = 0, 0, [len(list(run)) for _, run in itertools.groupby(kinds)]
        for length in runs[:-1]:
            end = start + length
            following = positions[0, end].item()  # before any shift
            positions[:, start:end] += shift
            if kinds[start] != 0:
                shift = positions[:, start:end].max().item() + 1 - following
            start = end
        positions[:, start:] += shift
        position_ids[:, row, kept] = positions
        deltas[row] = positions.max() + 1 - len(kinds)
    return position_ids, deltas


def prompt_positions(model: nn.Module, prompt: EncodedPrompt) -> torch.Tensor:
    """
    Positions of a prompt's tokens by the model's own rule, (A, P) int64 on the CPU: A is 3 (time, height, width) for the
    Qwen-VL families and their like, else 1. Computed once per prompt.
    """
    if prompt.positions is None:
        rule: Any = next((m for m in model.modules() if hasattr(m, "get_rope_index")), None)
        length = len(prompt.input_ids)
        if rule is None:
            prompt.positions = torch.arange(length)[None]
        elif not prompt.features:
            prompt.positions = torch.arange(length).expand(3, -1)
        else:
            types = {key: torch.tensor([value]) for key, value in prompt.token_types.items()}
            grids = {key: value for key, value in prompt.features.items() if not key.startswith("pixel_values")}
            ids = torch.tensor([prompt.input_ids])
            found, _ = rule.get_rope_index(ids, attention_mask=torch.ones_like(ids), **types, **grids)
            prompt.positions = found[:, 0]
    return prompt.positions


def remember_positions(model: nn.Module, prompts: list[EncodedPrompt]) -> None:
    """
    Set what a Qwen-VL model keeps of its rows' positions (`rope_deltas`: how far they run ahead of the tokens), so that
    decoding goes on behind these prompts, one per row; nothing to set in other families.
    """
    for module in model.modules():
        if hasattr(module, "get_rope_index") and hasattr(module, "rope_deltas"):
            ahead = [int(prompt_positions(model, each).max()) + 1 - len(each.input_ids) for each in prompts]
            module.rope_deltas = torch.tensor(ahead, device=next(module.parameters()).device)[:, None]


def cannot_share(model: PreTrainedModel) -> str | None:
    """
    Why a model's rows cannot share their prompt's computation, or `None` where they can.

    Sharing needs full attention in every layer (a sliding window or a recurrent state would cross from one completion
    into the next) under a backend that can be told who sees whom.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    if kinds:
        return f"{type(model).__name__} has layers of {', '.join(sorted(kinds))}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"{type(model).__name__} attends through a sliding window"
    if getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        return f"{type(model).__name__} takes positions from where a token stands in its row (ALiBi)"
    return cannot_take_segments(config._attn_implementation)
