"""What the model is asked and how its answer is read: question text, chat messages and the two tags."""

from __future__ import annotations

from collections.abc import Sequence


THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"

# How the answer should look, by problem type. The keys are those of Video-R1's records.
_ANSWER_HINTS = {
    "multiple choice": "The answer is the letter of one option and nothing else.",
    "numerical": "The answer is one number and nothing else, such as 7 or 2.35.",
    "OCR": "The answer is the text you read, copied as it is written.",
    "free-form": "The answer is a short text in your own words.",
    "regression": "The answer is your best estimate as one number and nothing else, such as 7 or 2.35.",
}
PROBLEM_TYPES = tuple(_ANSWER_HINTS)

_INSTRUCTION = (
    f"First think it through between {THINK_OPEN} and {THINK_CLOSE}, aloud, as someone who ponders a puzzle: wonder, "
    "ask yourself questions, look again and check what you have found. "
    f"Then give the answer between {ANSWER_OPEN} and {ANSWER_CLOSE}."
)


def check_problem_type(problem_type, where: str = "") -> None:
    """Raise a `ValueError` that lists the known types unless `problem_type` is one; `where` ends the first sentence."""
    if problem_type not in PROBLEM_TYPES:
        known = ", ".join(map(repr, PROBLEM_TYPES))
        raise ValueError(
            f"problem_type ({problem_type!r}) is not one of {known}{where}. Correct the record or drop it."
        )


def question_text(problem: str, problem_type: str, options: Sequence[str] = ()) -> str:
    """
    The text of one prompt: the problem, its options, the instruction to think and answer, the form of the answer.

    Source: Video-R1 (arXiv 2503.21776), the parts and their order; the wording is this package's own.

    Args:
        problem (`str`): the question as the record has it.
        problem_type (`str`): one of `PROBLEM_TYPES`.
        options (`Sequence[str]`, defaults to none): texts such as `"A. left"`, one line each. They are left out
            unless the type is "multiple choice"; a multiple-choice problem without options (some hold them in the
            problem) gets no "Options:" line.

    Raises:
        `ValueError`: an unknown `problem_type`.

    >>> question_text("Which way?", "multiple choice", ["A. left", "B. right"]).splitlines()[:4]
    ['Which way?', 'Options:', 'A. left', 'B. right']
    """
    check_problem_type(problem_type)
    lines = [problem]
    if problem_type == "multiple choice" and options:
        lines += ["Options:", *options]
    return "\n".join([*lines, _INSTRUCTION, _ANSWER_HINTS[problem_type]])


def make_prompt(problem: str, problem_type: str, options: Sequence[str] = ()) -> list[dict]:
    """
    One user message with `question_text` as plain text; the trainer puts the row's media before it.

    Raises:
        `ValueError`: an unknown `problem_type`.

    >>> make_prompt("How many?", "numerical") == [{"role": "user", "content": question_text("How many?", "numerical")}]
    True
    """
    return [{"role": "user", "content": question_text(problem, problem_type, options)}]


def extract_answer(text: str) -> str | None:
    """
    What the first `<answer>...</answer>` of a text holds, without the white space around it; `None` without such a
    pair. Two scans of the text, whatever it holds.

    Source: Video-R1. A tag inside the answer belongs to it, and an answer inside `<think>` counts as the first.

    >>> extract_answer("<think>left?</think> <answer> B </answer>")
    'B'
    >>> extract_answer("<answer>B") is None
    True
    """
    start = text.find(ANSWER_OPEN)
    if start < 0:
        return None
    start += len(ANSWER_OPEN)
    end = text.find(ANSWER_CLOSE, start)
    return None if end < 0 else text[start:end].strip()


def content(completion: str | list[dict] | None) -> str:
    """
    The text of a completion in either of TRL's shapes: a string, or a list of messages, of which the last one counts
    (after tool calls that is the reply). Its content may be a string, `None`, or a list of parts, of which the text
    parts are joined. No message or no content is the empty string.

    >>> content("a"), content([{"role": "assistant", "content": "a"}]), content([])
    ('a', 'a', '')
    >>> content([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])
    'ab'
    """
    if isinstance(completion, str):
        return completion
    parts = completion[-1].get("content") if completion else None
    if isinstance(parts, str):
        return parts
    return "".join(part.get("text") or "" for part in parts or [] if part.get("type") == "text")
