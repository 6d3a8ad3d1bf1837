"""What differs between model families: encoding a prompt with its media, batching, positions, tokens never to sample."""

import copy
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from PIL.Image import Image
from torch import nn
from transformers import BatchFeature
from transformers.video_processing_utils import BaseVideoProcessor

from ..media.loader import Video
from ..text.messages import Message, content, opened_by
from .families import Processor, rendered, takes_videos, templated, tokenizer_of
from .lengths import FRAMES, padded
from .mended import drop_full_mask, encode_options, lacks_images, mend_seconds, videos_as_pictures
from .own_families import family_of
from .pixels import pixel_budget
from .processing import media_order, processed


TemplateSettings = dict[str, object]  # what a chat template reads beside the messages, such as `enable_thinking`


class EncodeSettings(TypedDict, total=False):
    """The settings of [`encode_prompt`], as keywords of it."""

    video_max_pixels: int | None
    video_min_pixels: int | None
    image_max_pixels: int | None
    chat_template: str | None
    chat_template_kwargs: TemplateSettings | None
    model_type: str | None


class MediumOutput(TypedDict, total=False):
    """What a model reads of its tower's output for one medium."""

    pooler_output: torch.Tensor | list[torch.Tensor]
    deepstack_features: list[list[torch.Tensor]]  # of each layer that has some


@dataclass(eq=False)
class Medium:
    """
    One video or image of a prompt, as the vision tower reads it.

    Args:
        kind (`str`): `"video"` or `"image"`: which of the model's `get_video_features` and `get_image_features` reads it.
        features (`dict[str, torch.Tensor]`): arguments of that method, on the CPU.
        output (`MediumOutput`, *optional*): what a frozen tower made of it, on the model's device.
    """

    kind: str
    features: dict[str, torch.Tensor]
    output: MediumOutput | None = field(default=None, repr=False)

    def fingerprint(self) -> tuple:
        """Equal for equal media, and seldom for others: shapes, and some two hundred values of each feature."""
        samples = {key: value.flatten()[:: max(1, value.numel() // 200)] for key, value in self.features.items()}
        return self.kind, *((key, *self.features[key].shape, *samples[key].tolist()) for key in sorted(samples))

    def equals(self, other: "Medium") -> bool:
        """Whether two media are the same, to the last value."""
        return all(
            mine is theirs or torch.equal(mine, theirs)
            for mine, theirs in ((value, other.features[key]) for key, value in self.features.items())
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
        opened (`str`):
            What the prompt has already written of the completion, which is judged together with it: `<think>` of a
            thinking template, or an answer of the assistant's that the prompt begins.
        positions (`torch.Tensor` of shape (A, P), *optional*):
            The prompt's positions, once they are known; see [`prompt_positions`].
        media (`list[Medium]`, *optional*):
            The prompt's videos and images one by one, once they are told apart; see [`~tower.media_of`].
        model_type (`str`, *optional*):
            Whose model it was encoded for; what is registered of that family goes for the prompt.
        order (`list[tuple[str, int]]`):
            Kind and number of frames (1 of an image) of each medium, in the order of the prompt.
    """

    input_ids: list[int]
    token_types: dict[str, list[int]] = field(default_factory=dict)
    features: dict[str, torch.Tensor] = field(default_factory=dict)
    kinds: frozenset[str] = frozenset()
    opened: str = ""
    positions: torch.Tensor | None = None
    media: list[Medium] | None = None
    model_type: str | None = None
    order: list[tuple[str, int]] = field(default_factory=list)


class PreprocessedOnce:
    """
    Stands in for a processor's video processor while one batch is encoded: the same frames are preprocessed once,
    however many prompts ask about them. Frames are recognised by identity, so they are kept alive here.
    """

    def __init__(self, video_processor: BaseVideoProcessor):
        self._video_processor = video_processor
        self._done: dict[tuple, tuple[list, BatchFeature]] = {}

    @property
    def uncached(self) -> BaseVideoProcessor:
        """The processor that this stands in for."""
        return self._video_processor

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):  # not there yet while copied or unpickled
            raise AttributeError(name)
        return getattr(self._video_processor, name)

    def __call__(self, videos: list[list[torch.Tensor]], **kwargs: object) -> BatchFeature:
        key = tuple(id(frames) for of_prompt in videos for frames in of_prompt)
        if key not in self._done:
            self._done[key] = (videos, self._video_processor(videos, **kwargs))
        processed = self._done[key][1]
        return BatchFeature(data=dict(processed), skip_tensor_conversion=["video_metadata"])


def with_preprocessing_cache(processor: Processor) -> Processor:
    """A copy of the processor that preprocesses the same frames once, for the length of one batch."""
    if not takes_videos(processor):
        return processor
    processor = copy.copy(processor)
    processor.video_processor = PreprocessedOnce(processor.video_processor)
    return processor


def render_prompt(
    processor: Processor,
    messages: list[Message],
    *,
    chat_template: str | None = None,
    chat_template_kwargs: TemplateSettings | None = None,
) -> tuple[str, str]:
    """
    A prompt as the chat template writes it, up to where the completion begins, and what it has written of that already.

    A last message of the assistant's is an answer begun, which the completion goes on with; as TRL has it in its
    `apply_chat_template`.

    Args:
        processor, messages, chat_template, chat_template_kwargs: as of [`encode_prompt`].

    Returns:
        The text, and `EncodedPrompt.opened`.
    """
    messages = templated(processor, messages)
    goes_on = bool(messages) and messages[-1]["role"] == "assistant"
    text = rendered(
        processor,
        messages,
        add_generation_prompt=not goes_on,
        continue_final_message=goes_on,
        chat_template=chat_template,
        **(chat_template_kwargs or {}),
    )
    if "{'type': 'text', 'text':" in text.replace('"', "'") and any(
        isinstance(each["content"], list) for each in messages
    ):
        raise ValueError(
            f"the chat template of {type(processor).__name__} is that of a text model: it prints the parts of a message as "
            "Python has them. Load the processor with a template that writes videos and images."
        )
    return text, content(messages[-1:]) if goes_on else opened_by(text)


def encode_prompt(
    processor: Processor,
    messages: list[Message],
    videos: list[Video],
    images: list[Image],
    *,
    video_max_pixels: int | None = None,
    video_min_pixels: int | None = None,
    image_max_pixels: int | None = None,
    chat_template: str | None = None,
    chat_template_kwargs: TemplateSettings | None = None,
    model_type: str | None = None,
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
        model_type (`str`, *optional*):
            Of the model: what [`~own_families.register_family`] was told of it holds. `None`: the package's own rules.

    Raises:
        `ValueError`: from the processor, where placeholders and media differ in number.
    """
    settings: EncodeSettings = {
        "video_max_pixels": video_max_pixels,
        "video_min_pixels": video_min_pixels,
        "image_max_pixels": image_max_pixels,
        "chat_template": chat_template,
        "chat_template_kwargs": chat_template_kwargs,
    }
    own = family_of(model_type).encode
    prompt = (own or _encoded)(processor, messages, videos, images, **settings)
    if not isinstance(prompt, EncodedPrompt):
        raise TypeError(
            f"encode of the family {model_type!r} gave a {type(prompt).__name__}; it must give an EncodedPrompt."
        )
    prompt.model_type = model_type
    return prompt


def _encoded(
    processor: Processor, messages: list[Message], videos: list[Video], images: list[Image], **settings: Any
) -> EncodedPrompt:
    """As [`encode_prompt`], by the package's own rules."""
    template = {name: settings[name] for name in ("chat_template", "chat_template_kwargs")}
    text, opened = render_prompt(processor, messages, **template)
    tokenizer = tokenizer_of(processor)
    kwargs: dict[str, Any] = {}
    if tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token):
        kwargs["add_special_tokens"] = False  # as transformers' apply_chat_template does
    lengths = [len(frames) for frames, _ in videos]
    if videos:
        video_processor = getattr(processor.video_processor, "uncached", processor.video_processor)
        budget = settings["video_max_pixels"], settings["video_min_pixels"]
        kwargs["videos_kwargs"] = {
            "do_sample_frames": False,
            **encode_options(video_processor),
            **pixel_budget(video_processor, *budget, min(lengths)),
        }
    if images:
        kwargs["images_kwargs"] = pixel_budget(processor.image_processor, settings["image_max_pixels"], None, 1)
    encoded = processed(processor, text, videos, images, kwargs)
    if videos and images and lacks_images(encoded, sum(lengths)):
        name = type(processor).__name__  # SmolVLM: the video's pixels take the place of the image's
        raise ValueError(
            f"its prompt mixes videos and images, which {name} cannot encode. Keep them in prompts apart."
        )
    input_ids = torch.as_tensor(encoded["input_ids"])[0].tolist()
    token_types = {key: torch.as_tensor(encoded[key])[0].tolist() for key in encoded if key.endswith("token_type_ids")}
    features = {
        key: torch.as_tensor(value)
        for key, value in encoded.items()
        if key not in ("input_ids", "attention_mask") and key not in token_types
    }
    mend_seconds(features, processor, [metadata for _, metadata in videos])
    drop_full_mask(features)
    videos_as_pictures(processor, input_ids, token_types, features)
    kinds = frozenset(kind for kind, media in (("video", videos), ("image", images)) if media)
    return EncodedPrompt(input_ids, token_types, features, kinds, opened, order=media_order(processor, text, lengths))


def collate_features(prompts: list[EncodedPrompt]) -> dict[str, torch.Tensor]:
    """
    The vision inputs of several rows as one batch: joined along the first dimension, in the order of the rows.

    Families that keep a row's frames in the second dimension (SmolVLM) are padded there, and in height and width, with
    zeros: their models drop images that are all zeros.
    """
    with_media = [prompt for prompt in prompts if prompt.features]
    own = next((rule for prompt in with_media if (rule := family_of(prompt.model_type).join)), None)
    return (own or join_features)([prompt.features for prompt in with_media])


def join_features(features: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """As [`collate_features`], of the features alone."""
    keys = dict.fromkeys(key for each in features for key in each)  # a set that keeps the order
    return {key: _join([each[key] for each in features if key in each], key == FRAMES) for key in keys}


def _join(tensors: list[torch.Tensor], stacked_videos: bool = False) -> torch.Tensor:
    if stacked_videos and all(tensor.ndim == 5 for tensor in tensors):
        longest = max(tensor.shape[1] for tensor in tensors)
        tensors = [padded(tensor, longest) for tensor in tensors]
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


def padded_token_types(prompts: list[EncodedPrompt], length: int, num_completion: int) -> dict[str, torch.Tensor]:
    """
    Token types of B rows beside padded tokens (B, `length`): prompts end where the last `num_completion` columns begin.
    """
    inputs, end = {}, length - num_completion
    for key, values in collate_token_types(prompts).items():
        inputs[key] = torch.zeros(len(prompts), length, dtype=torch.long)
        for row, value in enumerate(values):
            inputs[key][row, end - len(value) : end] = torch.tensor(value)
    return inputs


def padded_inputs(prompts: list[EncodedPrompt], length: int, num_completion: int) -> dict[str, torch.Tensor]:
    """Media and token types of B rows, as the model takes them beside padded tokens; see [`padded_token_types`]."""
    return {**collate_features(prompts), **padded_token_types(prompts, length, num_completion)}
