"""Options that a benchmark writes into the text of its question: taken out of it, so that a question is asked as any other."""

from __future__ import annotations

import re

from ...text.choices import LETTERS


# A label at the beginning of a line, or within one: "(A) left", "A. left", "A) left", "A: left"
_MARKS = (
    re.compile(r"^[ \t]*(?:\(([A-J])\)|([A-J])[.:)])[ \t]*", re.MULTILINE),
    re.compile(r"(?<=\s)(?:\(([A-J])\)|([A-J])[.)])[ \t]+"),
)


def split_options(text: str) -> tuple[str, list[str]]:
    """
    A question without its options, and their texts. What follows the line of the last option, an instruction, is left out.

    The labels go from A on, the last such run of them counts; a number of 2 at least.

    Raises:
        `ValueError`: there are no such options.

    >>> split_options("Which way?\\n(A) left\\n(B) right\\nAnswer with a letter.")
    ('Which way?', ['left', 'right'])
    >>> split_options("Which way? A. left B. right")
    ('Which way?', ['left', 'right'])
    """
    for pattern in _MARKS:
        run = _last_run(list(pattern.finditer(text)))
        if len(run) < 2:
            continue
        ends = [match.start() for match in run[1:]]
        ends.append(end if (end := text.find("\n", run[-1].end())) >= 0 else len(text))
        options = [" ".join(text[match.end() : end].split()) for match, end in zip(run, ends, strict=True)]
        if all(options):
            return text[: run[0].start()].strip(), options
    raise ValueError(f"the question holds no options such as '(A) left' or 'A. left': {text!r}")


def _last_run(matches: list[re.Match[str]]) -> list[re.Match[str]]:
    """The last matches in a row whose letters are A, B, C, ..."""
    best: list[re.Match[str]] = []
    run: list[re.Match[str]] = []
    for match in matches:
        letter = match[1] or match[2]
        if letter == "A":
            run = [match]
        elif run and letter == LETTERS[len(run)]:
            run.append(match)
        else:
            run = []
        if len(run) >= 2:
            best = run
    return best
