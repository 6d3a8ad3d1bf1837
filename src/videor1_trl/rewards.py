"""The rewards of T-GRPO as plain callables on Python lists: accuracy, format, length, and the temporal bonus."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .answers import judge
from .prompts import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, check_problem_type, content, extract_answer


_TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
_BETWEEN_TAGS = re.compile(re.escape(THINK_CLOSE) + r"\s*" + re.escape(ANSWER_OPEN))


def accuracy_reward(completions, solution=None, problem_type=None, **kwargs) -> list[float | None]:
    """
    How right the first `<answer>...</answer>` of each completion is, by the row's own problem type.

    - "multiple choice": 1.0 for the same letter, else 0.0. "b", "(B)", "B." and "B. left" all name B; an answer that
      names two options is wrong, unless it repeats one of the row's `options`. A gold without a letter is compared
      without regard to case and white space.
    - "numerical": 1.0 if both numbers agree after rounding to 2 decimals, else 0.0. Commas may set off groups of
      digits ("1,000"); a unit must be the gold's, of which only "%" or a currency sign may be left out.
    - "OCR": 1 - word error rate, at least 0.
    - "free-form": mean of the stemmed ROUGE-1, ROUGE-2 and ROUGE-L F-measures; 1.0 for the gold itself. 0.0 for any
      other answer of more than 4,096 characters and 8 times the gold's.
    - "regression": 1 - min(1, abs(answer - gold) / abs(gold)); numbers are read as above.

    Infinity and NaN are no numbers. Range [0, 1]. Source: Video-R1 (arXiv 2503.21776); where it differs from the
    released code, `get_accuracy_reward(strict=True)` follows that.

    Args:
        completions (`list[str]` or `list[list[dict]]` of length B): TRL's two shapes.
        solution (`list[str | None]` of length B): the gold in `<answer>` tags; without tags it is taken whole.
        problem_type (`list[str]` of length B): each one of `PROBLEM_TYPES`.
        kwargs: other columns; `options` (`list[list[str] | None]`) are a choice's, `problem_id` is named in errors.

    Returns:
        `list[float | None]` of length B: 0.0 without an answer; `None`, no verdict, where the gold is `None`, empty,
        or not a number in a row that needs one.

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
        self, completions, solution=None, problem_type=None, problem_id=None, options=None, **kwargs
    ) -> list[float | None]:
        for name, values in (("solution", solution), ("problem_type", problem_type)):
            if values is None:
                raise ValueError(
                    f"accuracy_reward was called without the column {name!r}, which says what is right for each row. "
                    "Add it to the dataset, or use a reward function of your own."
                )
            if len(values) != len(completions):
                raise ValueError(
                    f"the column {name!r} has {len(values)} values for {len(completions)} completions. Pass one per "
                    "completion."
                )
        for row, kind in enumerate(problem_type):
            record = "" if problem_id is None else f" (problem_id {problem_id[row]!r})"
            check_problem_type(kind, f", in row {row}{record}")
        options = [()] * len(completions) if options is None else options
        return [
            judge(gold, extract_answer(content(completion)), kind, strict=self.strict, options=choices or ())
            for completion, gold, kind, choices in zip(completions, solution, problem_type, options, strict=True)
        ]


def get_accuracy_reward(strict: bool = False) -> Callable[..., list[float | None]]:
    """
    `accuracy_reward`, by its own rules or (`strict=True`) by those of Video-R1's released code: the stripped answers
    of a choice are the same string; numbers are what `float` reads once every comma is removed, and of a numerical
    pair both or neither hold "." or ","; 1e-9 is added above and below in regression, so that a gold of 0 is never
    met; ROUGE gives 2/3 for a right answer of one word; a missing tag is an empty answer, in the gold too. A gold of
    `None` gives `None`, and infinity and NaN give 0.0, here as well.

    >>> get_accuracy_reward(strict=True)(["<answer>1,000</answer>"], ["<answer>1000</answer>"], ["numerical"])
    [0.0]
    """
    return _AccuracyReward(strict)


def format_reward(completions, **kwargs) -> list[float]:
    """
    1.0 if the whole completion is `<think>...</think>`, optional white space, `<answer>...</answer>`, else 0.0.

    Each of the four tags occurs once, so that there is one answer to read. White space before or after is not
    allowed, empty tags are. Range {0.0, 1.0}. Source: Video-R1 (arXiv 2503.21776).

    >>> format_reward(["<think>a</think> <answer>B</answer>", "<answer>B</answer>"])
    [1.0, 0.0]
    """
    return [float(_is_well_formed(content(completion))) for completion in completions]


def _is_well_formed(text: str) -> bool:
    if not text.startswith(THINK_OPEN) or not text.endswith(ANSWER_CLOSE):
        return False
    return all(text.count(tag) == 1 for tag in _TAGS) and _BETWEEN_TAGS.search(text) is not None


@dataclass(frozen=True)
class _LengthReward:
    bonus: float = 0.2
    min_tokens: int = 320
    max_tokens: int = 512
    threshold: float = 0.5
    accuracy_func: Callable[..., list[float | None]] = accuracy_reward
    __name__ = "length_reward"

    def __post_init__(self):
        if not (math.isfinite(self.bonus) and self.bonus >= 0):
            raise ValueError(f"bonus ({self.bonus}) must be a finite number >= 0. The paper's is 0.2.")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise ValueError(
                f"min_tokens ({self.min_tokens}) must be between 0 and max_tokens ({self.max_tokens}). The paper's are "
                "320 and 512."
            )
        _check_threshold(self.threshold)

    def __call__(self, completions, completion_ids, **kwargs) -> list[float | None]:
        accuracies = self.accuracy_func(completions=completions, completion_ids=completion_ids, **kwargs)
        return [
            None
            if math.isnan(verdict)
            else self.bonus * (verdict > self.threshold and self.min_tokens <= len(ids) <= self.max_tokens)
            for verdict, ids in zip(map(_verdict, accuracies), completion_ids, strict=True)
        ]


def length_reward(completions, completion_ids, **kwargs) -> list[float | None]:
    """
    0.2 for a correct completion of 320 to 512 tokens, else 0.0: long enough to think, short enough to end.

    Correct means `accuracy_reward` above 0.5. The released code asks besides that another rollout of the group be
    correct; a reward function sees the rows of one device, not groups, so this is the paper's rule. Range {0.0, 0.2}.
    Source: Video-R1 (arXiv 2503.21776).

    Args:
        completions (`list[str]` or `list[list[dict]]` of length B): TRL's two shapes.
        completion_ids (`list[list[int]]` of length B): the tokens counted, an end token among them.
        kwargs: the columns of `accuracy_reward`.

    Returns:
        `list[float | None]` of length B; `None` where the accuracy is.

    Raises:
        `ValueError`: what `accuracy_reward` raises.

    >>> length_reward(["<answer>B</answer>"] * 2, [[0] * 320, [0] * 319], solution=["B"] * 2,
    ...               problem_type=["multiple choice"] * 2)
    [0.2, 0.0]
    """
    return _LengthReward()(completions, completion_ids, **kwargs)


def get_length_reward(
    bonus: float = 0.2,
    min_tokens: int = 320,
    max_tokens: int = 512,
    threshold: float = 0.5,
    accuracy_func: Callable[..., list[float | None]] = accuracy_reward,
) -> Callable[..., list[float | None]]:
    """
    `length_reward` with `bonus` (reward units, >= 0) for `min_tokens` to `max_tokens` (both included) where
    `accuracy_func` gives more than `threshold` ([0, 1)). It raises `ValueError` for parameters outside these ranges.
    """
    return _LengthReward(bonus, min_tokens, max_tokens, threshold, accuracy_func)


def temporal_reward(
    accuracies: Sequence[float | None],
    contrast_accuracies: Sequence[float | None],
    *,
    alpha: float = 0.3,
    mu: float = 1.0,
    threshold: float = 0.5,
    **kwargs,
) -> list[float]:
    """
    Bonus for the correct completions of one group whose frame order helped: `alpha` for each if p >= mu * p~.

    p and p~ are the shares of correct rollouts, on ordered and on contrast frames. `None` and NaN are no verdict:
    they leave the shares and get 0.0; where a side has no verdict at all, nothing is compared and all get 0.0.
    Source: Video-R1 (arXiv 2503.21776) section 3.2; mu is 0.8 in the released code.

    Args:
        accuracies (`list[float | None]` of length G): accuracy in [0, 1] of the rollouts on ordered frames.
        contrast_accuracies (`list[float | None]` of length G~ > 0): the same on contrast frames.
        alpha (`float`, defaults to `0.3`): bonus in reward units, >= 0.
        mu (`float`, defaults to `1.0`): how far p must reach in parts of p~, >= 0. A tie earns the bonus.
        threshold (`float`, defaults to `0.5`): correct means an accuracy above it, in [0, 1).
        kwargs: what the trainer says about the group; not used.

    Returns:
        `list[float]` of length G: `alpha` or 0.0.

    Raises:
        `ValueError`: no contrast rollout, or a parameter out of range.

    >>> temporal_reward([1.0, 0.0], [0.0, 0.0])
    [0.3, 0.0]
    """
    return _TemporalReward(alpha, mu, threshold)(accuracies, contrast_accuracies)


@dataclass(frozen=True)
class _TemporalReward:
    alpha: float = 0.3
    mu: float = 1.0
    threshold: float = 0.5
    share: Literal["correct", "mean"] = "correct"
    __name__ = "temporal_reward"

    def __post_init__(self):
        for name in ("alpha", "mu"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be a finite number >= 0. The paper has alpha 0.3 and mu 1.0."
                )
        _check_threshold(self.threshold)
        if self.share not in ("correct", "mean"):
            raise ValueError(f"share ({self.share!r}) must be 'correct' (the paper) or 'mean' (the released code).")

    def __call__(self, accuracies, contrast_accuracies, **kwargs) -> list[float]:
        if len(contrast_accuracies) == 0:
            raise ValueError(
                "contrast_accuracies ([]) must hold at least one rollout, or there is nothing to compare with. Set "
                "num_contrast_generations to 1 or more, or temporal_reward_func to None."
            )
        verdicts = [_verdict(accuracy) for accuracy in accuracies]
        p, contrast_p = self._share(verdicts), self._share([_verdict(accuracy) for accuracy in contrast_accuracies])
        # NaN, a side without verdicts, compares as False. The margin lets ties pass that float arithmetic would
        # break: 0.8 * 0.75 > 0.6.
        earned = p >= self.mu * contrast_p - 1e-9
        return [self.alpha if earned and verdict > self.threshold else 0.0 for verdict in verdicts]

    def _share(self, verdicts: list[float]) -> float:
        known = [verdict for verdict in verdicts if not math.isnan(verdict)]
        if not known:
            return math.nan
        if self.share == "mean":
            return math.fsum(known) / len(known)
        return sum(verdict > self.threshold for verdict in known) / len(known)


def get_temporal_reward(
    alpha: float = 0.3, mu: float = 1.0, threshold: float = 0.5, share: Literal["correct", "mean"] = "correct"
) -> Callable[..., list[float]]:
    """
    `temporal_reward` with other parameters. `share="mean"` takes p and p~ as mean accuracies instead of the shares
    of correct rollouts; the released code is `get_temporal_reward(mu=0.8, threshold=0.1, share="mean")`.

    >>> get_temporal_reward(alpha=0.5)([1.0, 0.0], [0.0], alpha=["a column of that name"])
    [0.5, 0.0]

    Raises:
        `ValueError`: a parameter out of range.
    """
    return _TemporalReward(alpha, mu, threshold, share)


def _verdict(accuracy: float | None) -> float:
    """The accuracy, with NaN, which is above no threshold, for no verdict."""
    return math.nan if accuracy is None else float(accuracy)


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold ({threshold}) must be in [0, 1): correct means an accuracy above it. Use 0.5.")
