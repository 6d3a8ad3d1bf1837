"""What the model is asked and how its answer is read: question text, chat messages and the two tags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from .choices import lettered
from .messages import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN


# How the answer should look, by problem type. The first five keys are those of Video-R1's records.
_ANSWER_HINTS = {
    "multiple choice": "The answer is the letter of one option and nothing else.",
    "numerical": "The answer is one number and nothing else, such as 7 or 2.35.",
    "OCR": "The answer is the text you read, copied as it is written.",
    "free-form": "The answer is a short text in your own words.",
    "regression": "The answer is your best estimate as one number and nothing else, such as 7 or 2.35.",
    "temporal grounding": "The answer is when it begins and when it ends, in seconds, and nothing else, such as 12.5 - 20.1; where it "
    "happens several times, with commas between.",
    "permutation": "The answer is the numbers in their order and nothing else, such as 2, 3, 1.",
    "bounding box": "The answer is the box as x1, y1, x2, y2, its left, top, right and bottom, and nothing else.",
}
PROBLEM_TYPES = tuple(_ANSWER_HINTS)
VIDEO_R1_TYPES = PROBLEM_TYPES[:5]

_INSTRUCTION = (
    f"First think it through between {THINK_OPEN} and {THINK_CLOSE}, aloud, as someone who ponders a puzzle: wonder, "
    "ask yourself questions, look again and check what you have found. "
    f"Then give the answer between {ANSWER_OPEN} and {ANSWER_CLOSE}."
)


def check_problem_type(problem_type: object, where: str = "") -> None:
    """Raise a `ValueError` that lists the known types unless `problem_type` is one; `where` ends the first sentence."""
    if problem_type not in PROBLEM_TYPES:
        known = ", ".join(map(repr, PROBLEM_TYPES))
        raise ValueError(
            f"problem_type ({problem_type!r}) is not one of {known}{where}. Correct the record or drop it."
        )


@dataclass(frozen=True)
class PromptTemplate:
    """
    How a question is worded.

    Args:
        prompt (`str`): the whole text, with `{question}` once, and `{answer_form}` where the problem type's line goes.
        answer_forms (`dict[str, str]`): that line by problem type, one for each of Video-R1's five; of the other `PROBLEM_TYPES`
            this package's own where there is none. None at all where the prompt has no `{answer_form}`.
        options (`str`, defaults to `"Options:\\n{options}"`): what follows the problem of a choice, with `{options}` once.

    Raises:
        `ValueError`: a field that is missing, unknown or there twice; a problem type without a line, or an unknown one.
    """

    prompt: str
    answer_forms: Mapping[str, str] = field(default_factory=dict)
    options: str = "Options:\n{options}"

    def __post_init__(self) -> None:
        _check_fields("prompt", self.prompt, needed=("{question}",), allowed=("{question}", "{answer_form}"))
        _check_fields("options", self.options, needed=("{options}",), allowed=("{options}",))
        if not isinstance(self.answer_forms, Mapping) or not all(
            isinstance(v, str) for v in self.answer_forms.values()
        ):
            raise ValueError("answer_forms must have a line of text for each problem type.")
        asked = VIDEO_R1_TYPES if "{answer_form}" in self.prompt else ()
        missing = [kind for kind in asked if kind not in self.answer_forms]
        unknown = [kind for kind in self.answer_forms if kind not in PROBLEM_TYPES]
        if missing or unknown:
            what = f"no line for {missing[0]!r}" if missing else f"a line for {unknown[0]!r}, which is no problem type"
            raise ValueError(f"answer_forms has {what}. Its keys are {', '.join(map(repr, PROBLEM_TYPES))}.")
        if self.answer_forms and not asked:
            raise ValueError(
                "answer_forms are given, and the prompt has no {answer_form}. Put it where the line goes."
            )

    def word(self, problem: str, problem_type: str, options: Sequence[str] = ()) -> str:
        """The text of a question; arguments as of [`question_text`]."""
        if problem_type == "multiple choice" and options:
            problem += "\n" + self.options.replace("{options}", "\n".join(lettered(options)))
        before, _, behind = self.prompt.partition("{question}")  # a problem may hold braces of its own
        form = self.answer_forms.get(problem_type) or _ANSWER_HINTS[problem_type]
        return before.replace("{answer_form}", form) + problem + behind.replace("{answer_form}", form)


def _check_fields(name: str, text: object, *, needed: Sequence[str], allowed: Sequence[str]) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{name} must be a text, not {type(text).__name__}.")
    found = re.findall(r"\{\w*\}", text)
    for each in needed:
        if found.count(each) != 1:
            raise ValueError(f"{name} must have {each} once, and has it {found.count(each)} times.")
    unknown = [each for each in found if each not in allowed]
    if unknown:
        raise ValueError(f"{name} has the unknown field {unknown[0]}. Its fields are {' and '.join(allowed)}.")


OWN_TEMPLATE = PromptTemplate(f"{{question}}\n{_INSTRUCTION}\n{{answer_form}}", _ANSWER_HINTS)


def load_prompt_template(path: str | Path) -> PromptTemplate:
    """
    A [`PromptTemplate`] from a YAML file with the keys `prompt`, `answer_forms` and, optionally, `options`.

    Raises:
        `ValueError`: what is wrong with the file, named. `FileNotFoundError`: there is none.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"prompt_template ({path}) is no file.")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it must have the keys prompt and answer_forms.")
        known = {each.name for each in fields(PromptTemplate)}
        unknown = sorted(map(str, set(found) - known))
        if unknown or "prompt" not in found:
            what = f"the unknown key {unknown[0]!r}" if unknown else "no key 'prompt'"
            raise ValueError(f"it has {what}. Its keys are prompt, answer_forms and options.")
        return PromptTemplate(**found)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"prompt_template ({path}): {error}") from error


def as_template(template: PromptTemplate | str | Path | None) -> PromptTemplate | None:
    """A template, or that of a file; raises as [`load_prompt_template`] does."""
    return load_prompt_template(template) if isinstance(template, (str, Path)) else template


def question_text(
    problem: str, problem_type: str, options: Sequence[str] = (), template: PromptTemplate | None = None
) -> str:
    """
    The text of one prompt: the problem, its options, the instruction to think and answer, the form of the answer.

    Source: Video-R1 (arXiv 2503.21776), the parts and their order; the wording is this package's own. Released checkpoints
    learned another wording: see [`load_prompt_template`].

    Args:
        problem (`str`): the question as the record has it.
        problem_type (`str`): one of `PROBLEM_TYPES`.
        options (`Sequence[str]`, defaults to none): texts such as `"A. left"`, one line each, which get letters where they
            have none. They are left out unless the type is "multiple choice"; a multiple-choice problem without options
            (some hold them in the problem) gets no "Options:" line.
        template ([`PromptTemplate`], *optional*): another wording.

    Raises:
        `ValueError`: an unknown `problem_type`.

    >>> question_text("Which way?", "multiple choice", ["A. left", "B. right"]).splitlines()[:4]
    ['Which way?', 'Options:', 'A. left', 'B. right']
    """
    check_problem_type(problem_type)
    return (template or OWN_TEMPLATE).word(problem, problem_type, options)


def make_prompt(
    problem: str, problem_type: str, options: Sequence[str] = (), template: PromptTemplate | None = None
) -> list[dict[str, str]]:
    """
    One user message with `question_text` as plain text; the trainer puts the row's media before it.

    Raises:
        `ValueError`: an unknown `problem_type`.

    >>> make_prompt("How many?", "numerical") == [{"role": "user", "content": question_text("How many?", "numerical")}]
    True
    """
    return [{"role": "user", "content": question_text(problem, problem_type, options, template)}]


def extract_answer(text: str, *, strict: bool = False) -> str | None:
    """
    What the first `<answer>...</answer>` behind the last `</think>` of a text holds, without the white space around it;
    `None` without such a pair. A few scans of the text, whatever it holds.

    Thoughts may quote the tags: a pair inside `<think>`, ended or not, is no answer. A text without thoughts is searched from
    its beginning.

    Source: Video-R1, for which (`strict`) the first pair of the whole text counts, one inside `<think>` too. A tag inside the
    answer belongs to it.

    >>> extract_answer("<think>left?</think> <answer> B </answer>")
    'B'
    >>> quoted = "<think>between <answer> and </answer>?</think><answer>B</answer>"
    >>> extract_answer(quoted), extract_answer(quoted, strict=True)
    ('B', 'and')
    >>> extract_answer("<answer>B") is None, extract_answer("<think>left? <answer>B</answer>") is None
    (True, True)
    """
    thought = -1 if strict else text.rfind(THINK_CLOSE)
    start = text.find(ANSWER_OPEN, max(thought, 0))
    is_thought = not strict and thought < 0 and text.find(THINK_OPEN, 0, max(start, 0)) >= 0
    if start < 0 or is_thought:
        return None
    start += len(ANSWER_OPEN)
    end = text.find(ANSWER_CLOSE, start)
    return None if end < 0 else text[start:end].strip()


def extract_thought(text: str) -> str | None:
    """
    What the first `<think>...</think>` of a text holds, as it is; `None` where that is nothing but white space or holds a tag.

    >>> extract_thought("<think>left?</think><answer>B</answer>"), extract_thought("<think>left? <answer>B</answer></think>")
    ('left?', None)
    """
    _, _, behind = text.partition(THINK_OPEN)
    found, closed, _ = behind.partition(THINK_CLOSE)
    is_whole = closed and found.strip() and not any(tag in found for tag in (THINK_OPEN, ANSWER_OPEN, ANSWER_CLOSE))
    return found if is_whole else None
