"""The completions of a step as they are printed (`log_completions`): each prompt once, its completions and rewards below it."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import random
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, repeat
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from .messages import content, parts_of


if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Messages = str | list[dict]
WIDTH = 110  # in a file, and at most
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a model writes must not steer the terminal


@contextlib.contextmanager
def readable_completions(trainer: Any, logs: Mapping[str, object]) -> Iterator[None]:
    """
    Within the context TRL's `GRPOTrainer.log` prints no completions of its own; behind it they are printed as [`print_completions`]
    does. Not once more at the end of a run, whose `logs` are its sums.
    """
    number, trainer.num_completions_to_print = (
        trainer.num_completions_to_print,
        -1,
    )  # none: 0 would print an empty table
    try:
        yield
    finally:
        trainer.num_completions_to_print = number
    if trainer.log_completions and trainer.accelerator.is_main_process and "train_runtime" not in logs:
        rows = trainer._logs
        shown = rows["prompt"], rows["completion"], rows["rewards"], rows["advantages"], rows["extra"]
        print_completions(trainer.state.global_step, *shown, number)


def print_completions(
    step: int,
    prompts: Iterable[Messages],
    completions: Iterable[Messages],
    rewards: Mapping[str, Iterable[float | None]],
    advantages: Iterable[float],
    extra: Mapping[str, Iterable[object]] | None = None,
    num_samples: int | None = None,
    console: Console | None = None,
) -> None:
    """
    Prints rollouts as tables, one for each prompt, at most 110 characters wide; without `rich`, as in TRL, nothing.

    Args:
        step: the optimizer step, for the heading.
        prompts, completions, advantages: of length B each; prompts as text or messages, media as `[video]` and `[image]`.
        rewards: name of a reward function -> its rewards, of length B each; `None` and NaN, "does not apply", are dashes.
        extra: name of a column -> what reward functions logged for it (`log_extra`), of length B each.
        num_samples: print so many of them, drawn at random with the step as seed. `None`: all.
    """
    if importlib.util.find_spec("rich") is None:
        return
    texts = [prompt_text(prompt) for prompt in prompts]
    rows = list(zip(texts, _rows(completions, rewards, advantages, extra or {}), strict=True))
    if num_samples is not None and num_samples < len(rows):
        drawn = random.Random(step).sample(range(len(rows)), max(0, num_samples))
        rows = [rows[index] for index in sorted(drawn)]
    if not rows:
        return
    from rich.text import Text

    console = console or wide_console()
    with tqdm.external_write_mode(file=sys.stdout):
        console.rule(f"completions at step {step}")
        for prompt, group in groupby(rows, key=lambda row: row[0]):
            console.print(Text(_CONTROLS.sub("\ufffd", prompt), style="bold"))
            console.print(_table([row for _, row in group], [*rewards, "advantage", *(extra or {})]))


def prompt_text(prompt: Messages) -> str:
    """
    A prompt as a reader wants it: the text of its messages, each behind its role where there are several, with a mark for each
    medium.

    >>> prompt_text([{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Which is first?"}]}])
    '[video] Which is first?'
    >>> prompt_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
    'system: Be brief.\\nuser: Why?'
    """
    if isinstance(prompt, str):
        return prompt
    texts = [_with_marks(message) for message in prompt]
    if len(prompt) == 1:
        return texts[0]
    return "\n".join(f"{message.get('role', '')}: {text}" for message, text in zip(prompt, texts, strict=True))


def _with_marks(message: dict) -> str:
    parts = [part.get("text", "") if part["type"] == "text" else f"[{part['type']}]" for part in parts_of(message)]
    return " ".join(part for part in parts if part)


def wide_console() -> Console:
    """For tables: as wide as the terminal, but no wider than lines of text can be read, which is the width in a log file."""
    from rich.console import Console

    console = Console(highlight=False)
    return Console(highlight=False, width=min(console.width, WIDTH) if console.is_terminal else WIDTH)


def _rows(
    completions: Iterable[Messages],
    rewards: Mapping[str, Iterable[float | None]],
    advantages: Iterable[float],
    extra: Mapping[str, Iterable[object]],
) -> Iterable[list[str]]:
    """The cells of each rollout."""
    figures = zip(*rewards.values(), advantages, strict=True)
    others: Iterable[tuple[object, ...]] = zip(*extra.values(), strict=True) if extra else repeat(())
    for completion, numbers, more in zip(completions, figures, others, strict=False):
        yield [
            content(completion).strip(),
            *map(_figure, numbers),
            *("-" if each is None else str(each) for each in more),
        ]


def _figure(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def _table(rows: Sequence[list[str]], names: Sequence[str]) -> Table:
    """The rollouts of one prompt."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    long = any("\n" in row[0] or len(row[0]) > WIDTH // 2 for row in rows)
    table = Table(box=SIMPLE_HEAD, expand=True, show_edge=False, leading=int(long))  # completions apart
    table.add_column("completion", ratio=1, overflow="fold")
    for name in names:
        table.add_column(Text(name.removesuffix("_reward").replace("_", " ")), justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_CONTROLS.sub("\ufffd", cell)) for cell in row))
    return table
