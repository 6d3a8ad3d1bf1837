"""
Ends a run of several processes in which one stands still, and says which and in what part of a step: the time-out of the process
group names neither, and on a CPU transformers does not set it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, TypedDict, cast

from .messages import program


if TYPE_CHECKING:
    from torch import nn
    from torch.distributed import TCPStore
    from transformers import PreTrainedModel, Trainer


PHASES = {
    "_generate_single_turn": "rollouts",
    "_calculate_rewards": "rewards",
    "compute_loss": "loss",
    "prediction_step": "evaluation",
    "_save_checkpoint": "saving",
    "save_model": "saving",
}
OTHERWISE = "the rest of the step"  # the first batch, the backward pass, the optimizer
SHARE = 0.9  # of `ddp_timeout`: the process group's own ends the run without a word on the other ranks
# Where a rank waits for the others; a backward pass stands still in nothing else
_WAITING = ("/torch/distributed/", "/torch/nn/parallel/", "/deepspeed/comm/", "/torch/autograd/graph.py")


class RankState(TypedDict):
    """What a rank tells the others of itself; times are seconds on its clock."""

    phase: str
    since: float
    told: float
    at: str
    waits: bool


class Watchdog:
    """
    Knows in what phase this rank is, tells the others through the store that they met at, and ends the run where a phase takes
    too long. A forward pass is progress, so a long generation is none of its business.

    Args:
        rank (`int`), num_ranks (`int`): this process, and how many there are.
        seconds (`float`): without progress, after which the run ends.
    """

    def __init__(self, rank: int, num_ranks: int, seconds: float) -> None:
        self.rank, self.num_ranks, self.seconds = rank, num_ranks, seconds
        self.period = min(10.0, seconds / 12)
        self._phases: list[str] = []
        self._since = time.monotonic()
        self._main, self._done = threading.main_thread().ident, threading.Event()
        self._store = _connect()

    def progress(self, *_: object) -> None:
        """This rank has come further."""
        self._since = time.monotonic()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Within the context this rank is in that phase."""
        self._phases.append(name)
        self.progress()
        with contextlib.suppress(RuntimeError):
            self._tell(
                {**self._state(), "at": "its beginning", "waits": False}
            )  # it may be the last that is heard of it
        try:
            yield
        finally:
            self._phases.pop()
            self.progress()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Within the context a thread looks after this rank."""
        self.progress()
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self.period):
            state = self._state()
            late = state["told"] - state["since"] > self.seconds
            first, ends = late, late
            if self._store is not None:
                with contextlib.suppress(RuntimeError):  # it is gone with its process: this rank looks after itself
                    self._tell(state)
                    calls = self._store.add(_key("ends"), int(late))
                    first, ends = late and calls == 1, calls > 0
            if ends:
                self._end(first)

    def _state(self) -> RankState:
        frames = self._frames()
        waits = any(part in each.f_code.co_filename for each in frames[:8] for part in _WAITING)
        at = ""
        if frames:
            code = frames[0].f_code
            at = f"{code.co_name}, {code.co_filename}, line {frames[0].f_lineno}"
        phase = " in ".join(reversed(list(dict.fromkeys(self._phases)))) or OTHERWISE
        return {"phase": phase, "since": self._since, "told": time.monotonic(), "at": at, "waits": waits}

    def _tell(self, state: RankState) -> None:
        if self._store is not None:
            self._store.set(_key(self.rank), json.dumps(state))

    def _frames(self) -> list[FrameType]:
        """Where the main thread stands, innermost first."""
        frame = sys._current_frames().get(self._main or 0)
        return [] if frame is None else [each for each, _ in traceback.walk_stack(frame)]

    def _end(self, first: bool) -> None:
        """The first rank to notice says what all are in; a rank that waits for no other shows where it stands."""
        before = self._all_told()
        if self._done.wait(self.period):  # the others see that the run ends
            return
        with contextlib.suppress(RuntimeError):  # it is no longer told by the loop that this rank speaks
            self._tell(self._state())
        if self._done.wait(2 * self.period):  # all have told once more, also on a busy machine
            return
        state = self._state()
        if first:
            lines = "\n".join(self._lines({**self._all_told(), self.rank: state}, before))
            _say(
                f"{program()}: no progress for {self.seconds:.0f} s ({SHARE:g} of ddp_timeout). The run ends.\n{lines}\n"
            )
        if not state["waits"] and (frames := self._frames()):
            _say(f"rank {self.rank} stands in:\n{''.join(traceback.format_stack(frames[0]))}")
        time.sleep(self.period)  # a launcher that sees one rank end ends the others, which may still have to speak
        os._exit(1)  # the main thread does not answer

    def _all_told(self) -> dict[int, RankState]:
        """What the ranks have told last."""
        told: dict[int, RankState] = {}
        for rank in range(self.num_ranks):
            with contextlib.suppress(RuntimeError):
                if self._store is not None and self._store.check([_key(rank)]):
                    told[rank] = json.loads(self._store.get(_key(rank)))
        return told

    def _lines(self, told: dict[int, RankState], before: dict[int, RankState]) -> Iterator[str]:
        """One of each rank; those that wait for others last."""
        for rank, state in sorted(told.items(), key=lambda each: each[1]["waits"]):
            been = f"rank {rank} has been in {state['phase']} for {state['told'] - state['since']:.0f} s"
            if rank != self.rank and before.get(rank) == state:
                been = f"rank {rank} is silent (stopped, or in code that lets no other thread run); it was in {state['phase']}"
            yield f"{been}: {state['at']}.{' It waits for other ranks.' if state['waits'] else ''}"
        for rank in sorted(set(range(self.num_ranks)) - set(told)):
            yield f"rank {rank} has told nothing."


@contextlib.contextmanager
def watched(trainer: Trainer) -> Iterator[None]:
    """
    Within the context a run of several processes ends with exit code 1 where one makes no progress for `SHARE` of `ddp_timeout`.
    Of one process nothing is watched.
    """
    accelerator, args = trainer.accelerator, trainer.args
    if accelerator.num_processes == 1:
        yield
        return
    dog = Watchdog(accelerator.process_index, accelerator.num_processes, SHARE * args.ddp_timeout)
    wrapped = {name: getattr(trainer, name) for name in PHASES if hasattr(trainer, name)}
    for name, method in wrapped.items():
        setattr(trainer, name, _in_phase(dog, PHASES[name], method))
    # which every forward pass of every family begins with, a token's too
    embeddings: nn.Module = cast("PreTrainedModel", trainer.model).get_input_embeddings()
    hook = embeddings.register_forward_pre_hook(dog.progress)
    try:
        with dog.watching():
            yield
    finally:
        hook.remove()
        for name in wrapped:
            delattr(trainer, name)


def _in_phase(dog: Watchdog, phase: str, method: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(method)
    def run(*args: object, **kwargs: object) -> object:
        with dog.phase(phase):
            return method(*args, **kwargs)

    return run


def _connect() -> TCPStore | None:
    """A connection of its own to the store that the processes met at; `None` where they met at another."""
    from torch.distributed import TCPStore

    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not host or not port:
        return None
    try:
        return TCPStore(host, int(port), is_master=False, wait_for_workers=False, timeout=timedelta(seconds=10))
    except RuntimeError:
        return None


def _key(name: object) -> str:
    """Of its own for each restart by a launcher, which keeps its store."""
    return f"videor1_trl/watchdog/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{name}"


def _say(text: str) -> None:
    sys.stderr.write(text)  # in one piece: the ranks share a terminal
    sys.stderr.flush()
