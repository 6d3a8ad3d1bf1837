"""Frames made as small as their processor will make them anyway, one by one as they are decoded: none is held at full size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import numpy as np


class Shrink(Protocol):
    """
    How the frames of a video will be resized; pickled where they are decoded in another process.

    An attribute `by_video = True` says that it depends on how many frames a video, or the shortest of a prompt, has.
    """

    by_video: bool
    name: str  # tells it from all that resize otherwise, in files that outlive the process

    def size(self, number: int, height: int, width: int) -> tuple[int, int] | None:
        """Height and width to which each of so many frames will be resized; `None` where it is to stay as it is."""
        ...

    def resize(self, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A frame, uint8 (H, W, 3), in that size: to the last bit what comes of it within its video."""
        ...


_shrink: ContextVar[Shrink | None] = ContextVar("shrink", default=None)


@contextmanager
def shrinking(shrink: Shrink | None) -> Iterator[None]:
    """Frames that are taken within, in this thread, are shrunk as they come."""
    token = _shrink.set(shrink)
    try:
        yield
    finally:
        _shrink.reset(token)


def current_shrink() -> Shrink | None:
    return _shrink.get()
