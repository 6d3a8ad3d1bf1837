"""A training run that ends in one line: where it is interrupted by Ctrl-C, and where a record or a package stops it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from transformers import TrainerCallback

from videor1_trl import MediaError
from videor1_trl.data.placing import PromptError
from videor1_trl.media.limits import check_not_interrupted, end_readings
from videor1_trl.models.manifests import NotSaved, newest_whole

from .messages import in_flags, program, stop


if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments


class Interruption(TrainerCallback):
    """
    Remembers Ctrl-C, which also ends the processes that prepare batches, and is lost where it comes while Python cleans up: the
    run then ends at its next step.
    """

    def __init__(self) -> None:
        self.seen, self._process = False, os.getpid()

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Within the context Ctrl-C is remembered."""
        if threading.current_thread() is not threading.main_thread():  # which alone may set it
            yield
            return
        before = signal.signal(signal.SIGINT, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        end_readings()
        if os.getpid() != self._process:  # the run itself ends those that it has started
            return
        self.seen = True
        calls = [each.f_code for each, _ in traceback.walk_stack(frame)]
        if not any(call.co_name == "__del__" or call.co_filename.endswith("popen_fork.py") for call in calls):
            raise KeyboardInterrupt  # there it would be dropped, and said to be

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.seen:
            raise KeyboardInterrupt
        check_not_interrupted()  # before the training began

    on_prediction_step = on_step_begin


def train(trainer: Trainer, resume: str | None) -> None:
    """
    Trains; ends in one line where a record's media or prompt cannot be used, where it is interrupted, and where no step could be
    made.
    """
    interruption = Interruption()
    trainer.add_callback(interruption)
    try:
        with interruption.heard():
            trainer.train(resume_from_checkpoint=resume)
    except ImportError as error:
        if "install" not in str(error):  # no optimizer and no kernels that are not there, but a reward function's
            raise
        stop(str(error).strip().splitlines()[0])
    except (NotSaved, FloatingPointError) as error:  # a full disk; gradients that are no numbers
        raise SystemExit(f"{program()}: {error}") from error
    except (MediaError, PromptError) as error:  # names its record
        if interruption.seen:  # it was not read to its end
            interrupted(trainer)
        raise SystemExit(f"{program()}: {in_flags(str(error))}") from error
    except RuntimeError as error:  # the same, from a process that prepares batches
        if interruption.seen:  # such a process was interrupted too
            interrupted(trainer)
        last = str(error).strip().splitlines()[-1]
        kind, _, message = last.partition(": ")
        faults: list[type[Exception]] = [PromptError, *MediaError.__subclasses__()]
        if kind not in [f"{each.__module__}.{each.__name__}" for each in faults]:
            raise
        raise SystemExit(f"{program()}: {in_flags(message)}") from error
    except KeyboardInterrupt:
        interrupted(trainer)
    if trainer.state.global_step == 0:
        stop("no step was made: the data do not fill a batch. Nothing is saved.")


def interrupted(trainer: Trainer) -> NoReturn:
    """Ends a run that was interrupted: one line that says where its last checkpoint is."""
    for process in multiprocessing.active_children():  # that prepare batches: torch would wait for each for 5 s
        process.terminate()
    folder = str(trainer.args.output_dir)
    last, _ = newest_whole(folder)
    to_go_on = "No checkpoint was written yet."
    if last is not None:
        to_go_on = f"The last checkpoint is {last}: go on from it with --resume_from_checkpoint {last}"
    for callback in trainer.callback_handler.callbacks:
        if getattr(callback, "training_bar", None) is not None:
            callback.training_bar.close()  # which would otherwise write a last line of its own
    if trainer.is_world_process_zero():
        said = f"\n{program()}: interrupted after step {trainer.state.global_step}. {to_go_on}"
        print(said, file=sys.stderr, flush=True)
    raise SystemExit(130)
