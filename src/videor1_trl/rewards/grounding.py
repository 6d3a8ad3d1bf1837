"""How well an answer places something: in time, in space, or in an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..text.intervals import boundaries_iou, length_of, read_intervals, temporal_iou, video_seconds, within
from ..text.messages import content
from ..text.places import box_iou, is_order, order_score, read_box, read_order
from ..text.prompts import extract_answer
from .columns import as_long, needed
from .reward import Completion, Reward


def temporal_iou_reward(
    completions: Sequence[Completion], solution: Sequence[object] | None = None, **kwargs: Any
) -> list[float | None]:
    """
    Time in both the answer's intervals and the solution's, over time in either; unions, where they have several.

    Range [0, 1]; 0.0 without an answer or an interval in it, `None` where the solution has no stretch of time. Seconds ("12.5 - 20.1") or the
    clock ("0:12 to 1:05"), see [`read_intervals`]. Source: Time-R1 (plain IoU); VideoChat-R1.5 (unions).

    Args:
        completions (`list` of length B): TRL's two shapes.
        solution (`list[str | None]` of length B): with intervals, in `<answer>` tags or without.
        kwargs: other columns; `problem_type` (`list[str]`), where there is one, says which rows are about time. The others have no
            verdict.

    Raises:
        `ValueError`: a missing column, or one of another length.

    >>> temporal_iou_reward(["<answer>2 - 6</answer>", "2 - 6"], ["<answer>0 - 4</answer>"] * 2)
    [0.3333333333333333, 0.0]
    """
    return _TemporalIou()(completions, solution, **kwargs)


@dataclass(frozen=True)
class _TemporalIou:
    boundaries: bool = False
    __name__ = "temporal_iou_reward"

    def __call__(
        self,
        completions: Sequence[Completion],
        solution: Sequence[object] | None = None,
        duration: Sequence[object] | None = None,
        **kwargs: Any,
    ) -> list[float | None]:
        if self.boundaries and duration is None:
            raise ValueError(
                "temporal_iou_reward with boundaries needs the column 'duration', the seconds of each row's video. Add it to the "
                "dataset, or take get_temporal_iou_reward()."
            )
        rows = _own_rows(self.__name__, "temporal grounding", completions, solution, **kwargs)
        lengths: Sequence[object] = [None] * len(completions)
        if self.boundaries and duration is not None:
            lengths = as_long("duration", duration, len(completions))
        return [None if row is None else self._one(*row, length) for row, length in zip(rows, lengths, strict=True)]

    def _one(self, answer: str | None, solution: object, duration: object) -> float | None:
        gold, found = read_intervals(solution), read_intervals(answer)
        length = video_seconds(duration) if self.boundaries else None
        if length is not None:
            gold = within(gold, length)
        if not length_of(gold) or (self.boundaries and length is None):
            return None
        if not found:
            return 0.0
        return temporal_iou(found, gold) if length is None else boundaries_iou(found, gold, length)


def _own_rows(
    reward: str,
    own_type: str,
    completions: Sequence[Completion],
    solution: Sequence[object] | None,
    **columns: Any,
) -> list[tuple[str | None, object] | None]:
    """Of each row what is answered and the solution; `None` where its problem type is given and is another one."""
    number = len(completions)
    solution = needed(reward, "solution", solution, number, "what is right for each row")
    kinds = columns.get("problem_type")
    kinds = [None] * number if kinds is None else as_long("problem_type", kinds, number)
    return [
        None if kind not in (None, own_type) else (_answered(completion), gold)
        for completion, gold, kind in zip(completions, solution, kinds, strict=True)
    ]


def _answered(completion: Completion) -> str | None:
    """What a completion answers; `None` without an answer."""
    return extract_answer(content(completion))


def get_temporal_iou_reward(boundaries: bool = False) -> Reward:
    """
    `temporal_iou_reward`, with `boundaries` times (1 - ds / D) (1 - de / D): ds and de are how far the (first) start and the
    (last) end are off, D is the video's length, the column `duration` in seconds, at which the solution is cut; `None` where a row has no
    duration.

    Source: Time-R1, ArrowGEV (arXiv 2601.06559) and TaRO (2606.09248).

    Raises:
        `ValueError`: when called, no column `duration`, or one that is no number of seconds.

    >>> get_temporal_iou_reward(boundaries=True)(["<answer>0 - 4</answer>"], ["0 - 8"], duration=[8.0])
    [0.25]
    """
    return _TemporalIou(boundaries)


def permutation_reward(
    completions: Sequence[Completion], solution: Sequence[object] | None = None, **kwargs: Any
) -> list[float | None]:
    """
    1.0 for the right order of K parts; 0.2 times the share of parts in their place for another order of the same parts,
    where K > 4; else 0.0. `None` where the solution is no order of 1 to K, 0 to K - 1 or A and the letters behind it, and where a
    `problem_type` is given and is another one.

    Numbers, letters ("B, A, C") or either without marks between them ("312", "BAC"); words are passed over. Source: Visual Jigsaw (arXiv 2509.25190), whose
    code takes 0.5 off for repetition, which this does not.

    >>> permutation_reward(["<answer>3, 1, 2</answer>", "<answer>312</answer>", "<answer>1 2 3</answer>"], ["3 1 2"] * 3)
    [1.0, 1.0, 0.0]
    >>> permutation_reward(["<answer>2 1 3 4 5</answer>"], ["1 2 3 4 5"])
    [0.12]
    """
    rows = _own_rows("permutation_reward", "permutation", completions, solution, **kwargs)
    return [None if row is None else _order_score(*row) for row in rows]


def _order_score(answer: str | None, solution: object) -> float | None:
    gold = read_order(solution)
    return order_score(read_order(answer, like=gold), gold) if is_order(gold) else None


def box_iou_reward(
    completions: Sequence[Completion], solution: Sequence[object] | None = None, **kwargs: Any
) -> list[float | None]:
    """
    Area in both boxes over area in either. A box is its corners `x1, y1, x2, y2`, left, top, right, bottom, counted from the upper
    left of the picture, in whatever brackets; answer and solution in the same unit, which is the question's to say.

    Range [0, 1]; 0.0 without an answer, without a box in it, or with more than one; `None` where the solution is not one box, such as a
    corner with width and height, and where a `problem_type` is given and is another one.
    Source: VideoChat-R1.5, one box.

    Raises:
        `ValueError`: a missing column, or one of another length.

    >>> box_iou_reward(["<answer>[0, 0, 2, 2]</answer>", "<answer>there</answer>"], ["[1, 0, 3, 2]"] * 2)
    [0.3333333333333333, 0.0]
    """
    rows = _own_rows("box_iou_reward", "bounding box", completions, solution, **kwargs)
    return [None if row is None else _box_score(*row) for row in rows]


def _box_score(answer: str | None, solution: object) -> float | None:
    gold, found = read_box(solution), read_box(answer)
    return None if gold is None else box_iou(found, gold) if found else 0.0
