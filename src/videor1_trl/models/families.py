"""What differs between families of processors: whether they take videos, and how they count pixels."""

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, TypeVar

from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from ..text.messages import Message, content, text_of


if TYPE_CHECKING:
    from peft import PeftModel

ModelOrPath: TypeAlias = "str | PreTrainedModel | PeftModel"  # what a trainer starts from
Processor = ProcessorMixin | PreTrainedTokenizerBase  # a model's processing class; of a text model its tokenizer
Other = TypeVar("Other")


def tokenizer_of(processor: Processor) -> PreTrainedTokenizerBase:
    """The tokenizer of a processor, which it may be itself."""
    return processor.tokenizer if isinstance(processor, ProcessorMixin) else processor


def takes_videos(processor: object) -> TypeGuard[ProcessorMixin]:
    """Whether the processor reads videos: it has a video processor."""
    return isinstance(processor, ProcessorMixin) and getattr(processor, "video_processor", None) is not None


def templated(processor: Processor, messages: list[Message]) -> list[Message]:
    """Messages as the processor's chat template takes them: those of text models take plain strings."""
    if isinstance(processor, ProcessorMixin):
        return messages
    return [{**message, "content": text_of(message)} for message in messages]


def rendered(processor: Processor, messages: list[Message], **settings: Any) -> str:
    """What the chat template makes of a conversation; `settings` are of `apply_chat_template`."""
    text = processor.apply_chat_template(templated(processor, messages), tokenize=False, **settings)
    assert isinstance(text, str)  # of one conversation, not tokenized
    return text


def pixel_budget(part: object, max_pixels: int | None, min_pixels: int | None, num_frames: int) -> dict[str, object]:
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
    budget: dict[str, object] = {"size": {"shortest_edge": min(shortest, longest), "longest_edge": longest}}
    if "cap_pixels_per_frame" in getattr(getattr(type(part), "valid_kwargs", None), "__annotations__", {}):
        budget["cap_pixels_per_frame"] = False  # this budget is the cap
    return budget


class _TextOnly:
    """A tokenizer whose chat template gets each message as plain text, its media left out."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # asked for while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def __call__(self, *args: Any, **kwargs: Any) -> BatchEncoding:
        return self._tokenizer(*args, **kwargs)

    def apply_chat_template(self, conversation: list[Message], **kwargs: Any) -> object:
        plain = [
            message if isinstance(message["content"], str) else {**message, "content": content([message])}
            for message in conversation
        ]
        # a completion repeats the turn that its prompt has begun for it
        last = [message for message in plain[-2:] if message.get("role") == "assistant"]
        if len(last) == 2 and last[1]["content"].startswith(last[0]["content"]):
            del plain[-2]
        return self._tokenizer.apply_chat_template(plain, **kwargs)


def text_only(processor: Other) -> Other | _TextOnly:
    """
    What a reward model reads prompts and completions with: templates of text models write the parts of a message with media as
    Python would print them, so a tokenizer gets their text alone. Processors, and `None`, are handed back as they are.
    """
    return _TextOnly(processor) if isinstance(processor, PreTrainedTokenizerBase) else processor
