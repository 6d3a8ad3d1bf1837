"""What differs between families of processors: whether they take videos, and what their templates take."""

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
