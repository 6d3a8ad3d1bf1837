"""What a server's answers say: texts with their thoughts in their tags once, counts of tokens, probabilities of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..text.messages import THINK_CLOSE, THINK_OPEN
from .requests import WeighedChoices


TOP_LOGPROBS = 20  # the likeliest tokens that a server is asked for: no more is allowed by OpenAI's interface


def text_of_answer(begun: str, message: Mapping[object, object]) -> str:
    """The text of a completion, its thoughts in their tags once, whoever has opened them or cut them out."""
    said = _said(message, "content")
    thought = _said(message, "reasoning_content") or _said(message, "reasoning")
    text = f"{begun}{said}"
    if thought and THINK_OPEN in begun and THINK_CLOSE not in begun:  # the prompt has begun them
        return f"{begun}{thought.removeprefix(begun)}{THINK_CLOSE}{said}"
    if thought:  # a server that parses them has cut them out of the text
        return f"{THINK_OPEN}{thought}{THINK_CLOSE}{text}"
    if THINK_CLOSE in text and THINK_OPEN not in text:  # the server's template opens them, and does not say so
        return f"{THINK_OPEN}{text}"
    return text


def _said(message: Mapping[object, object], name: str) -> str:
    """A text of a message: a string, parts of text, or nothing; a `TypeError` that says what else it is."""
    found = message.get(name)
    match found:
        case None:
            text = ""
        case str():
            text = found
        case list() if all(isinstance(each, dict) and isinstance(each.get("text", ""), str) for each in found):
            text = "".join(each.get("text", "") for each in found)
        case _:
            raise TypeError(f"a {name} that is no text but {type(found).__name__}: {excerpt(found)}")
    return text.encode("utf-8", "replace").decode()  # half characters, which no file holds


def excerpt(answer: object) -> str:
    """The beginning of what a server answered."""
    try:
        return ascii(answer)[:300]
    except RecursionError:
        return f"a {type(answer).__name__} that is nested too deeply to be shown"


def count(usage: object, name: str) -> int | None:
    """A number of tokens, where the server says one that there can be."""
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int and 0 <= found < 2**53 else None


def weighed_choices(key: str, choices: Sequence[str], answer: object) -> WeighedChoices:
    """
    The log-probabilities of choices, of an answer with the likeliest tokens in the place of its first one.

    A token counts as the choice that it is but for the white space around it; of several the likeliest.
    """
    match answer:
        case {"choices": [{"logprobs": {"content": [{"top_logprobs": list(likeliest)}, *_]}}, *_]}:
            pass
        case _:
            said = (
                "the server gives no log-probabilities (logprobs of chat completions); use another server or backend"
            )
            return WeighedChoices(key, None, f"{said}: {excerpt(answer)}")
    found: dict[str, float] = {}
    for each in likeliest:
        match each:
            case {"token": str(token), "logprob": float() | int() as value}:
                found[token.strip()] = max(float(value), found.get(token.strip(), -float("inf")))
    missing = [each for each in choices if each not in found]
    if missing:
        return WeighedChoices(
            key,
            None,
            f"the server gave its {len(likeliest)} likeliest tokens, and {', '.join(missing)} of the choices "
            f"{', '.join(choices)} are not among them: {excerpt(sorted(found))}",
        )
    return WeighedChoices(key, [found[each] for each in choices])
