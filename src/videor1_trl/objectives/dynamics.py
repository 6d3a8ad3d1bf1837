"""Which questions are about the order of time, and whether two rollouts behave as they should for their kind."""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..rewards.reward import Completion
from ..rewards.verdicts import as_verdict
from ..text.answers import judge
from ..text.choices import bare, labelled, read_choice, without_marks
from ..text.messages import Columns, content
from ..text.prompts import PROBLEM_TYPES, extract_answer


RouterKind = Literal["labels", "self", "gap", "none"]
ROUTERS: tuple[RouterKind, ...] = ("labels", "self", "gap", "none")
_LABELS: dict[object, bool] = {"dynamic": True, "static": False, True: True, False: False}


def share_right(accuracies: Sequence[float | None], threshold: float) -> float:
    """
    p: the share of rollouts above the threshold, of those with a verdict; NaN without any.

    >>> share_right([1.0, 0.0, None], 0.5)
    0.5
    """
    known = [verdict for verdict in map(as_verdict, accuracies) if not math.isnan(verdict)]
    return sum(verdict > threshold for verdict in known) / len(known) if known else math.nan


def answer_of(completion: Completion, group: Columns | None = None) -> str | None:
    """
    What a completion answers; `None` where it does not, which is never another answer: without an answer's tags, with nothing or
    nothing but punctuation in them, and where none of the group's `options` of a multiple choice can be read from it.

    >>> choice = {"problem_type": "multiple choice", "options": ["A. up", "B. down"]}
    >>> [answer_of(f"<answer>{text}</answer>", choice) for text in ("b", "Up.", "-", "I cannot tell", "A or B")]
    ['b', 'Up.', None, None, None]
    """
    answer = extract_answer(content(completion)) or ""
    if all(unicodedata.category(sign)[0] in "PZC" for sign in answer):
        return None
    columns = group or {}
    options = _options(columns)
    if columns.get("problem_type") == "multiple choice" and options:
        letters = [letter for letter, _ in labelled(options)]
        return answer if read_choice(answer, options) in letters else None
    return answer


def _options(group: Columns) -> list[str]:
    return [str(each) for each in group.get("options") or () if each is not None]


def same_answer(one: str, other: str, group: Columns) -> bool:
    """
    Whether two answers say the same, by the rule of the group's `problem_type`: "A." is "A". The same words, without regard to case
    and to the marks around them, where it has none of the known ones, or its rule reads nothing from the first.

    >>> same_answer("A.", "a", {"problem_type": "multiple choice"}), same_answer("up", "Up.", {}), same_answer("up", "down", {})
    (True, True, False)
    """
    kind = group.get("problem_type")
    if one.split() == other.split():
        return True
    verdict = judge(one, other, kind, options=_options(group)) if kind in PROBLEM_TYPES else None
    return without_marks(bare(one)) == without_marks(bare(other)) if verdict is None else verdict > 0.5


def behaving_share(completion: Completion, contrasts: Sequence[Completion], dynamic: bool, group: Columns) -> float:
    """
    CRPO's relation of an ordered rollout to those on contrast frames: the share of them that answer otherwise (dynamic), or
    the same (static). Contrast rollouts without an answer are left out: they are never "different". 0.0 where none is left.

    >>> said = [f"<answer>{letter}</answer>" for letter in "BAB"]
    >>> behaving_share(said[1], [*said, "A"], True, {"problem_type": "multiple choice"})
    0.6666666666666666
    """
    answer = answer_of(completion, group)
    others = [found for found in (answer_of(each, group) for each in contrasts) if found is not None]
    if answer is None or not others:
        return 0.0
    return sum(same_answer(answer, other, group) != dynamic for other in others) / len(others)


@dataclass(frozen=True)
class Router:
    """
    Says whether a group's question is about the order of time.

    Args:
        kind (`str`): `"labels"`: as a column says. `"self"`: where the ordered rollouts do better than the contrast ones by more
            than `margin`, and in a share of the other groups (`explore`), drawn by chance, since a policy that ignores the
            order would confirm itself. `"gap"`: by chance, in a share p - p~ of such groups (at least `explore` of all), which weighs
            them by the gap; the others count for nothing, neither dynamic nor static. `"none"`: every question is.
        column (`str`, *optional*): the labels: "dynamic" or "static", or whether it is dynamic.
        explore (`float`): in [0, 1]. margin (`float`): of p - p~, >= 0.

    >>> Router("labels", "about")(1.0, 0.0, {"about": "static"}), Router("self")(0.5, 0.25, {}), Router("none")(0.0, 0.0, {})
    (False, True, True)
    >>> Router("gap")(0.75, 0.25, {"group_draw": 0.4}), Router("gap")(0.75, 0.25, {"group_draw": 0.6})
    (True, None)
    """

    kind: RouterKind = "labels"
    column: str | None = None
    explore: float = 0.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ROUTERS:
            raise ValueError(f"router ({self.kind!r}) must be one of {', '.join(map(repr, ROUTERS))}.")
        if self.kind == "labels" and self.column is None:
            raise ValueError(
                "router='labels' needs a column that says which questions are about the order of time ('dynamic' or "
                "'static'). Name it (objective_column), or use router (objective_router) 'self' or 'none'."
            )
        if self.kind != "labels" and self.column is not None:
            raise ValueError(
                f"column ({self.column!r}) is that of router='labels', and it is {self.kind!r}. Leave one of them out."
            )
        if not 0 <= self.explore <= 1:
            raise ValueError(f"explore ({self.explore}) must be in [0, 1]: a share of groups.")
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin ({self.margin}) must be in [0, 1): by how much p must exceed p~.")
        if (self.kind not in ("self", "gap") and self.explore) or (self.kind != "self" and self.margin):
            raise ValueError(
                f"explore is that of router='self' and 'gap', margin that of 'self', and it is {self.kind!r}. Leave them out."
            )

    @property
    def needs_columns(self) -> tuple[str, ...]:
        """The column of the labels, where labels decide."""
        return (self.column,) if self.kind == "labels" and self.column is not None else ()

    @property
    def value_checks(self) -> dict[str, Callable[[object], object]]:
        """Where labels decide, what raises a `ValueError` for a value of their column that is none."""
        return {column: functools.partial(_label, column=column) for column in self.needs_columns}

    def __call__(self, p: float, contrast_p: float, group: Columns) -> bool | None:
        """Whether it is dynamic, by p and p~ and the group's columns; `None` where a row has no label, p is not known, or the gap draws it not."""
        if self.kind == "none":
            return True
        if self.kind == "self":
            if math.isnan(p - contrast_p):
                return None
            return p > contrast_p + self.margin + 1e-9 or group.get("group_draw", 1.0) < self.explore
        if self.kind == "gap":
            gap = 0.0 if math.isnan(p - contrast_p) else p - contrast_p
            return True if group.get("group_draw", 1.0) < max(gap, self.explore) else None
        return self._labelled(group)

    def _labelled(self, group: Columns) -> bool | None:
        if self.column not in group:
            raise ValueError(f"The data has no column {self.column!r}, which the objective takes for its labels.")
        return _label(group[str(self.column)], str(self.column))


def _label(value: object, column: str) -> bool | None:
    """Whether a label says that a question is dynamic; `None` for `None` and NaN, which are no label."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    label = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(label, Hashable) or label not in _LABELS:
        raise ValueError(
            f"{column} ({value!r:.60}) must be 'dynamic' or 'static', or true or false for dynamic; null is no label."
        )
    return _LABELS[label]
