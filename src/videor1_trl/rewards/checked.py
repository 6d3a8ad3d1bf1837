"""What a reward function may return, seen before it becomes a gradient; and how long it may take."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar, cast


Function = TypeVar("Function", bound=Callable[..., Any])


def as_floats(values: object, number: int, what: str, of: str = "completion") -> list[float]:
    """
    What a function returned for so many completions as floats, NaN for `None`: no verdict.

    Args:
        values: one number, NaN or `None` for each; numpy's numbers and tensors of one number too.
        number (`int`): how many are due. what (`str`): names the function and what it returns, for errors.
        of (`str`, defaults to `"completion"`): what each stands for.

    Raises:
        `ValueError`: another number of them, infinity, or something that is no number.

    >>> as_floats([1, None, True], 3, "The reward function 'f'")
    [1.0, nan, 1.0]
    """
    if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
        raise ValueError(f"{what} returned {_shown(values)}. It must return a list of one float or None per {of}.")
    found = list(values)
    if len(found) != number:
        raise ValueError(f"{what} returned {len(found)} values for {number} {of}s. It must return one per {of}.")
    return [_as_float(value, f"{what} returned {_shown(value)} for {of} {place}") for place, value in enumerate(found)]


def _as_float(value: object, said: str) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, numbers.Real) and callable(item := getattr(value, "item", None)):
        if getattr(value, "shape", None) in ((), (1,)):
            value = item()  # numpy's and torch's
    if not isinstance(value, numbers.Real):
        raise ValueError(f"{said}. It must be a float, or None for no verdict.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise ValueError(
            f"{said}: one infinite reward makes all advantages of its group NaN. Return a finite number or None."
        )
    return number


def _shown(value: object) -> str:
    if value is None:
        return "None"
    try:
        return f"{type(value).__name__} {ascii(value)[:80]}"
    except (RecursionError, ValueError):  # integers of thousands of digits, lists that hold themselves
        return f"{type(value).__name__}, too large to be shown,"


def checked(function: Function, name: str, seconds: float | None = None) -> Function:
    """
    A reward function whose errors name it: what it returns is seen by [`as_floats`].

    Args:
        function: of TRL's form, plain or `async`.
        name (`str`): by which it is logged.
        seconds (`float`, *optional*): that a call may take. It is then made in a thread, which cannot be ended and is left
            behind where it takes longer. `None`: no limit.

    Returns:
        A function with its name and attributes, which raises `ValueError` for what is no reward, and `TimeoutError`.
    """
    what = f"The reward function {name!r}"

    def seen(values: object, completions: list[object]) -> list[float | None]:
        floats = as_floats(values, len(completions), what)
        return [None if math.isnan(value) else value for value in floats]

    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(cast(Any, function).__call__):

        @functools.wraps(function)
        async def awaited(*args: object, completions: list[object], **kwargs: object) -> list[float | None]:
            call = function(*args, completions=completions, **kwargs)
            return seen(await _within(call, seconds, what), completions)

        return cast(Function, awaited)

    @functools.wraps(function)
    def called(*args: object, completions: list[object], **kwargs: object) -> list[float | None]:
        call = functools.partial(function, *args, completions=completions, **kwargs)
        return seen(call() if seconds is None else _in_thread(call, seconds, what), completions)

    return cast(Function, called)


async def _within(call: Awaitable[object], seconds: float | None, what: str) -> object:
    import asyncio

    try:
        return await asyncio.wait_for(call, seconds)
    except TimeoutError as error:
        raise _late(what, seconds) from error


def _in_thread(call: Callable[[], object], seconds: float, what: str) -> object:
    """What a call returns or raises, if it does within so many seconds."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="videor1_trl-reward").start()
    try:
        return future.result(seconds)
    except FutureTimeout as error:
        if future.done():  # its own
            raise
        raise _late(what, seconds) from error


def _late(what: str, seconds: float | None) -> TimeoutError:
    return TimeoutError(
        f"{what} takes more than reward_seconds ({seconds:g} s). Mend it, let it return None where it knows nothing in time, or "
        "raise the limit."
    )
