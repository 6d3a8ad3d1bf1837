"""Whether a completion has thoughts, then an answer, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..text.messages import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, content
from .reward import Completion, Reward


_TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


_BETWEEN_TAGS = re.compile(re.escape(THINK_CLOSE) + r"\s*" + re.escape(ANSWER_OPEN))


def format_reward(completions: Sequence[Completion], **kwargs: object) -> list[float | None]:
    """
    1.0 if the whole completion is `<think>...</think>`, optional white space, `<answer>...</answer>`, else 0.0.

    Each of the four tags occurs once, so that there is one answer to read; the released code lets them be repeated within
    thoughts and answer (`get_format_reward(strict=True)`). White space before or after is not allowed, empty tags are. Range
    {0.0, 1.0}. Source: Video-R1 (arXiv 2503.21776).

    >>> format_reward(["<think>a</think> <answer>B</answer>", "<answer>B</answer>"])
    [1.0, 0.0]
    """
    return _FormatReward()(completions)


@dataclass(frozen=True)
class _FormatReward:
    strict: bool = False
    __name__ = "format_reward"

    def __call__(self, completions: Sequence[Completion], **kwargs: object) -> list[float | None]:
        return [float(self._is_well_formed(content(completion))) for completion in completions]

    def _is_well_formed(self, text: str) -> bool:
        if not text.startswith(THINK_OPEN) or not text.endswith(ANSWER_CLOSE):
            return False
        if not self.strict and any(text.count(tag) != 1 for tag in _TAGS):
            return False
        return _BETWEEN_TAGS.search(text, len(THINK_OPEN), len(text) - len(ANSWER_CLOSE)) is not None


def get_format_reward(strict: bool = False) -> Reward:
    """
    `format_reward`, or (`strict=True`) the released code's: tags may be repeated within thoughts and answer, as where thoughts
    quote them.

    >>> get_format_reward(strict=True)(["<think>an <answer>?</think><answer>B</answer>"])
    [1.0]
    """
    return _FormatReward(strict)
