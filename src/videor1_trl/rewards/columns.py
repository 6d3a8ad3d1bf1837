"""The columns that rewards take: there, of the right length, and read row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar


_T = TypeVar("_T")


def needed(reward: str, name: str, values: Sequence[_T] | None, number: int, what: str) -> Sequence[_T]:
    """
    A column that must be there, with one value for each completion.

    Args:
        reward (`str`): by whose name it is asked for. name (`str`): of the column. number (`int`): of completions. what (`str`): it says.

    Raises:
        `ValueError`: there is none, or it has another length.
    """
    if values is None:
        raise ValueError(
            f"{reward} was called without the column {name!r}, which says {what}. "
            "Add it to the dataset, or use a reward function of your own."
        )
    return as_long(name, values, number)


def as_long(name: str, values: Sequence[_T], number: int) -> Sequence[_T]:
    """A column with one value for each completion; `ValueError` where it has not."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise ValueError(f"the column {name!r} is {values!r:.40}, no list. Pass one value per completion.")
    if len(values) != number:
        raise ValueError(
            f"the column {name!r} has {len(values)} values for {number} completions. Pass one per completion."
        )
    return values
