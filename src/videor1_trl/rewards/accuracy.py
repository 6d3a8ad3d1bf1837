"""How right an answer is, by the problem type of its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..text.answers import judge
from ..text.messages import content
from ..text.prompts import check_problem_type, extract_answer
from .columns import as_long, needed
from .reward import Completion, Reward


_RIGHT = "what is right for each row"  # of solution and problem type


def accuracy_reward(
    completions: Sequence[Completion],
    solution: Sequence[str | None] | None = None,
    problem_type: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """
    How right the first `<answer>...</answer>` behind the thoughts of each completion is, by the row's own problem type.

    - "multiple choice": 1.0 for the same option, else 0.0, in whatever form it is named that can be read in one way only:
      "b", "(B)", "B.", "B. left", "B left", "**B**", "\\boxed{B}", "The answer is B", or the text of one of the row's
      `options`, the gold's too. An answer that names two options is wrong. A gold that is no option is compared without
      regard to case and white space.
    - "numerical": 1.0 if both numbers agree after rounding to 2 decimals (to 2 digits where the gold is below 0.005), else
      0.0. Commas may set off groups of
      digits ("1,000"); a unit must be the gold's, of which only "%" or a currency sign may be left out. "x = 5" and "The
      answer is 5" state a number too.
    - "OCR": 1 - word error rate, at least 0; of characters in scripts that set no spaces.
    - "free-form": mean of the ROUGE-1, ROUGE-2 and ROUGE-L F-measures of words in any script (English ones stemmed,
      characters where a script sets no spaces), signs such as "<" and "-5" among them, without punctuation; 1.0 for the
      same words. 0.0 for any other answer of more than 4,096 characters and 8 times the gold's, for one that has only words
      without meaning ("the", "is") in common with it, and for a list: 8 different words or more beside such ones, of which
      less than a quarter are the gold's.
    - "regression": 1 - min(1, abs(answer - gold) / abs(gold)); numbers are read as above.

    - "temporal grounding": time in both the answer's intervals and the gold's, over time in either (`temporal_iou_reward`).
    - "permutation": 1.0 for the right order, little for a part of it (`permutation_reward`).
    - "bounding box": area in both boxes over area in either (`box_iou_reward`).

    Infinity and NaN are no numbers. Range [0, 1]. Source: Video-R1 (arXiv 2503.21776); where it differs from the
    released code, `get_accuracy_reward(strict=True)` follows that.

    Args:
        completions (`list[str]` or `list[list[dict]]` of length B): TRL's two shapes.
        solution (`list[str | None]` of length B): the gold in `<answer>` tags; without tags it is taken whole.
        problem_type (`list[str]` of length B): each one of `PROBLEM_TYPES`.
        kwargs: other columns; `options` (`list[list[str] | None]`) are a choice's, `problem_id` is named in errors.

    Returns:
        `list[float | None]` of length B: 0.0 without an answer; `None`, no verdict, where the gold is `None`, empty,
        or not the number, time, order or box that its row needs.

    Raises:
        `ValueError`: a missing column, one of another length, or an unknown problem type.

    >>> accuracy_reward(["<answer>B. left</answer>", "<answer>1,000</answer>"], ["B", "1000"],
    ...                 ["multiple choice", "numerical"])
    [1.0, 1.0]
    """
    return _AccuracyReward()(completions, solution, problem_type, **kwargs)


@dataclass(frozen=True)
class _AccuracyReward:
    strict: bool = False
    __name__ = "accuracy_reward"  # TRL logs under this name; instances, unlike closures, can be pickled

    def __call__(
        self,
        completions: Sequence[Completion],
        solution: Sequence[str | None] | None = None,
        problem_type: Sequence[str] | None = None,
        problem_id: Sequence[object] | None = None,
        options: Sequence[Sequence[object] | None] | None = None,
        **kwargs: object,
    ) -> list[float | None]:
        solution = needed(self.__name__, "solution", solution, len(completions), _RIGHT)
        problem_type = needed(self.__name__, "problem_type", problem_type, len(completions), _RIGHT)
        for row, kind in enumerate(problem_type):
            record = "" if problem_id is None else f" (problem_id {problem_id[row]!r})"
            check_problem_type(kind, f", in row {row}{record}")
        options = [()] * len(completions) if options is None else as_long("options", options, len(completions))
        return [
            judge(
                gold,
                extract_answer(content(completion), strict=self.strict),
                kind,
                strict=self.strict,
                options=_texts(choices),
            )
            for completion, gold, kind, choices in zip(completions, solution, problem_type, options, strict=True)
        ]


def _texts(options: Sequence[object] | None) -> list[str]:
    """A row's options as texts; what a column of one's own may hold beside them is none."""
    return [str(option) for option in options or () if option is not None]


def get_accuracy_reward(strict: bool = False) -> Reward:
    """
    `accuracy_reward`, by its own rules or (`strict=True`) by those of Video-R1's released code: the stripped answers
    of a choice are the same string; numbers are what `float` reads once every comma is removed, and of a numerical
    pair both or neither hold "." or ","; 1e-9 is added above and below in regression, so that a gold of 0 is never
    met; ROUGE gives 2/3 for a right answer of one word, and sees a to z and 0 to 9 alone; the first pair of tags counts,
    within the thoughts too; a missing tag is an empty answer, in the gold too. A gold of `None` gives `None`, and infinity
    and NaN give 0.0, here as well.

    >>> get_accuracy_reward(strict=True)(["<answer>1,000</answer>"], ["<answer>1000</answer>"], ["numerical"])
    [0.0]
    """
    return _AccuracyReward(strict)
