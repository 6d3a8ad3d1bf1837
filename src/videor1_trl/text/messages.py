"""Chat messages as text, whatever shape they come in, and the tags of thoughts and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


Message = dict[str, Any]  # of a chat: its role, its content, and what templates and parsers add
Named = dict[str, Any]  # values by their names: settings, keywords, fields of JSON
Columns = Mapping[str, Any]  # of a row of a dataset or a benchmark, and of a group, by their names

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")  # in which parsers of messages set thoughts apart


def opened_by(prompt: str) -> str:
    """
    What a rendered prompt has already written of the completion: the templates of thinking models end with `<think>`, so that
    the completion begins within the thoughts and is to be read together with it.

    >>> opened_by("<|im_start|>assistant\\n<think>\\n"), opened_by("<|im_start|>assistant\\n")
    ('<think>\\n', '')
    """
    return prompt[prompt.rindex(THINK_OPEN) :] if prompt.rstrip().endswith(THINK_OPEN) else ""


def with_opening(completion: str | list[Message], opened: str) -> str | list[Message]:
    """
    A completion together with what its prompt has opened of it, in the shape that it has; thoughts that a parser has set apart
    are whole already.

    >>> with_opening("left?</think><answer>B</answer>", "<think>")
    '<think>left?</think><answer>B</answer>'
    """
    if not opened or not completion:
        return completion
    if isinstance(completion, str):
        return opened + completion
    message = completion[-1]
    if any(message.get(name) for name in REASONING_FIELDS):
        return completion
    return [*completion[:-1], {**message, "content": opened + content([message])}]


def content(completion: str | list[Message] | None) -> str:
    """
    The text of a completion in either of TRL's shapes: a string, or a list of messages, of which the last one counts
    (after tool calls that is the reply). Its content may be a string, `None`, or a list of parts, of which the text
    parts are joined. Thoughts that a parser has set apart (`reasoning_content`) stand before it in their tags again. No
    message or no content is the empty string.

    >>> content("a"), content([{"role": "assistant", "content": "a"}]), content([])
    ('a', 'a', '')
    >>> content([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])
    'ab'
    >>> content([{"role": "assistant", "reasoning_content": "left?", "content": "<answer>B</answer>"}])
    '<think>left?</think><answer>B</answer>'
    """
    if isinstance(completion, str):
        return completion
    message = completion[-1] if completion else {}
    parts = message.get("content")
    if not isinstance(parts, str):
        parts = "".join(part.get("text") or "" for part in parts or [] if part.get("type") == "text")
    thought = next((message[name] for name in REASONING_FIELDS if message.get(name)), None)
    return parts if thought is None else f"{THINK_OPEN}{thought}{THINK_CLOSE}{parts}"


def parts_of(message: Message) -> list[dict[str, Any]]:
    """A message's content as parts, without the `None`s that Arrow fills in."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [{key: value for key, value in part.items() if value is not None} for part in content]


def text_of(message: Message) -> str:
    """The text of a message, its media left out."""
    return "".join(part.get("text", "") for part in parts_of(message))
