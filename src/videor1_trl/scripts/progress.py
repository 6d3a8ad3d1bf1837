"""What a run shows on the console: a short line of chosen metrics per logging step, and a progress bar where there is a terminal."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping, Sized
from dataclasses import dataclass

from tqdm.auto import tqdm
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_utils import has_length


@dataclass(frozen=True)
class Column:
    """One figure of a line: what it is called, the metric, and how it is written; an optional one only where it is not 0."""

    name: str
    metric: str
    form: str
    optional: bool = False


SKIPPED = Column("skipped", "video/skipped_rows", ".3g", optional=True)
LEARNING_RATE = Column("lr", "learning_rate", ".1e")
SFT = (Column("loss", "loss", ".4f"), Column("token accuracy", "mean_token_accuracy", ".3f"), LEARNING_RATE, SKIPPED)
TEMPORAL = (  # of the prompts with contrast rollouts
    Column("contrast", "temporal/contrast_accuracy", ".2f"),
    Column("gap", "temporal/gap", "+.2f"),
    Column("effect", "temporal/effect", ".3f"),
)


def grpo_columns(accuracy_reward: str, *, temporal: bool = True) -> tuple[Column, ...]:
    """The figures of T-GRPO, or of plain GRPO; `accuracy_reward` is the name of the accuracy's reward function."""
    return (
        Column("loss", "loss", "7.4f"),
        Column("reward", "reward", "5.2f"),
        Column("accuracy", f"rewards/{accuracy_reward}/mean", ".2f"),
        *(TEMPORAL if temporal else ()),
        Column("length", "completions/mean_length", "5.1f"),
        LEARNING_RATE,
        SKIPPED,
    )


def columns_of(trainer: Trainer) -> tuple[Column, ...]:
    """The figures that are shown of a trainer's log."""
    from trl import GRPOTrainer

    if not isinstance(trainer, GRPOTrainer):
        return SFT
    name = getattr(trainer.args, "accuracy_reward_name", None) or trainer.reward_func_names[0]
    return grpo_columns(name, temporal=getattr(trainer, "temporal_reward_func", None) is not None)


def show(trainer: Trainer) -> None:
    """
    From here on the trainer prints a short line per logging step, instead of the whole log: that still goes to its loggers and
    to trainer_state.json. Nothing else of the trainer is changed.

    On the main process only; with a progress bar (not with `disable_tqdm`) where the errors go to a terminal.
    """
    begin()
    for kind in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback, ProgressCallback, ConsoleLog):
        trainer.remove_callback(kind)
    trainer.add_callback(ConsoleLog(columns_of(trainer)))


def begin() -> None:
    """
    What a script does before it loads anything: where the errors go to a file or a pipe, libraries draw no progress bars into
    it; and a warning that no user can act upon is not shown.
    """
    # TRL 1.16 reads a property that transformers 5.23 has renamed
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    if not on_terminal():
        from datasets import disable_progress_bars
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bars()
        disable_progress_bar()


def on_terminal() -> bool:
    """Whether progress bars, which go where the errors go, are seen by somebody."""
    return sys.stderr.isatty()


class ConsoleLog(TrainerCallback):
    """
    Prints the chosen figures of each entry of the log, and those of evaluations; a figure that a step lacks is a dash.

    The seconds are those of one optimizer step, the waiting for its batch included, without evaluations and saving.

    Args:
        columns: which figures, from left to right.
    """

    def __init__(self, columns: tuple[Column, ...]):
        self.columns = columns
        self.training_bar: tqdm | None = None
        self.prediction_bar: tqdm | None = None
        self._clock = time.perf_counter()
        self._seconds, self._steps, self._first_step = 0.0, 0, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._clock, self._seconds, self._steps = time.perf_counter(), 0.0, 0
        self._first_step = state.global_step
        if state.is_world_process_zero and on_terminal() and not args.disable_tqdm:
            self.training_bar = tqdm(
                desc="training", total=state.max_steps, initial=state.global_step, dynamic_ncols=True, leave=False
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        now = time.perf_counter()
        self._seconds, self._steps, self._clock = self._seconds + now - self._clock, self._steps + 1, now
        if self.training_bar is not None:
            self.training_bar.update(state.global_step - self.training_bar.n)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        self._clock = time.perf_counter()

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: object = None,
        **kwargs: object,
    ) -> None:
        if not (state.is_world_process_zero and on_terminal()) or args.disable_tqdm:
            return
        if self.prediction_bar is None:
            total = (
                len(eval_dataloader) if isinstance(eval_dataloader, Sized) and has_length(eval_dataloader) else None
            )
            self.prediction_bar = tqdm(desc="evaluation", total=total, dynamic_ncols=True, leave=False)
        self.prediction_bar.update()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._clock = time.perf_counter()
        if self.prediction_bar is not None:
            self.prediction_bar.close()
        self.prediction_bar = None

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float],
        **kwargs: object,
    ) -> None:
        self.on_evaluate(args, state, control)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        line = self._line(logs, state)
        with tqdm.external_write_mode(file=sys.stdout):
            print(line, flush=True)  # behind which the bars are drawn again

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.training_bar is not None:
            self.training_bar.close()
        self.training_bar = None

    def _line(self, logs: Mapping[str, object], state: TrainerState) -> str:
        """An entry of the log as it is printed."""
        if "train_runtime" in logs:
            return self._last_line(logs, state)
        place = f"{state.global_step:{len(str(state.max_steps))}}/{state.max_steps}"
        prefix = next((name.removesuffix("runtime") for name in logs if name.endswith("_runtime")), "")
        figures = written(self.columns, logs, prefix)
        if prefix:
            return "  ".join(
                [f"{prefix.strip('_')} {place}", *figures, f"{number(logs, f'{prefix}runtime') or 0:.1f} s"]
            )
        if not figures:  # what somebody logged by hand
            return "  ".join(
                [f"step {place}", *(f"{name} {value}" for name, value in logs.items() if name != "epoch")]
            )
        seconds, self._seconds, steps, self._steps = self._seconds, 0.0, self._steps, 0
        return "  ".join([f"step {place}", *figures, *([f"{seconds / steps:.2f} s"] if steps else [])])

    def _last_line(self, logs: Mapping[str, object], state: TrainerState) -> str:
        """What the whole training took."""
        steps, seconds = state.global_step - self._first_step, number(logs, "train_runtime") or 0.0
        return f"trained {steps} steps in {seconds:.0f} s"


def written(columns: tuple[Column, ...], logs: Mapping[str, object], prefix: str = "") -> list[str]:
    """
    The columns' figures in an entry of a log, nothing where it has none of them; of one of training a dash for each that it
    lacks. Of an evaluation with a name of its own
    (`eval_held_out_loss`) TRL's metrics have none (`eval_reward`).

    >>> written(SFT, {"loss": 0.5, "learning_rate": 1e-6})
    ['loss 0.5000', 'token accuracy     -', 'lr 1.0e-06']
    >>> written(SFT, {"eval_a_loss": 0.5, "eval_mean_token_accuracy": 1.0}, "eval_a_")
    ['loss 0.5000', 'token accuracy 1.000']
    """
    prefixes = (prefix, f"{prefix.partition('_')[0]}_") if prefix else ("",)
    values = [
        next((number(logs, p + each.metric) for p in prefixes if p + each.metric in logs), None) for each in columns
    ]
    shown = [
        f"{column.name} {_figure(value, column.form)}"
        for column, value in zip(columns, values, strict=True)
        if value or not column.optional and not (prefix and value is None)
    ]
    return shown if any(value is not None for value in values) else []


def _figure(value: float | None, form: str) -> str:
    """A number, or a dash as wide as one."""
    width = len(format(0.0, form))
    return "-".rjust(width) if value is None or value != value else format(value, form)


def number(logs: Mapping[str, object], name: str) -> float | None:
    """A metric; `None` where it is none, or no number."""
    value = logs.get(name)
    return float(value) if isinstance(value, (int, float)) else None
