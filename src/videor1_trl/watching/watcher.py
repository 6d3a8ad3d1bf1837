"""Watches a run for its trainer: which rollouts are recorded, when, and what is said of the run at its end."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.utils import get_callable_name

from ..contrast import AnyContrast
from ..rollouts import Rollouts
from .diagnosis import diagnose
from .loggers import show
from .records import Scores, records_of
from .store import RolloutFile, drop_left_over


logger = get_logger(__name__)


class Watcher(TrainerCallback):
    """
    Every rank records the rollouts that it owns, into files of its own; nothing is gathered for it.

    Args:
        trainer (`TGRPOTrainer`): whose callbacks it joins; its `args` say what is recorded.
        contrast ([`Contrast`], *optional*): what the contrast rollouts see.
    """

    def __init__(self, trainer: Any, contrast: AnyContrast | None):
        self.args = args = trainer.args
        self.rank: int = trainer.accelerator.process_index
        self.world_size: int = trainer.accelerator.num_processes
        self.contrast = "" if contrast is None else get_callable_name(contrast)
        self._folder = Path(args.output_dir)
        self._max_bytes = int(args.log_rollouts_mib * 2**20)
        self._file: RolloutFile | None = None
        self._generations: Counter[int] = Counter()  # of evaluations, by their step
        self._seen = 0  # groups of this evaluation
        trainer.add_callback(self)

    # --- which rollouts

    def is_wanted(self, step: int) -> bool:
        """Whether an optimizer step's rollouts are recorded: those of the first, and of every so many."""
        every = self.args.log_rollouts_steps
        return every is not None and (step == 1 or step % every == 0)

    def shown_side(self, loader_step: int, group: int) -> int:
        """What the loader asks: the side of the small pictures of a group's media, 0 for none; step 0 is an evaluation."""
        args, most = self.args, self.args.log_rollouts_groups
        if args.log_rollouts_steps is None or not args.log_frames:
            return 0
        if loader_step:
            step, generation = self._place(loader_step)
            if not self.is_wanted(step):
                return 0
            group += generation * args.prompts_per_generation
        return args.log_frame_side if most is None or group < most else 0

    def _place(self, loader_step: int) -> tuple[int, int]:
        """The optimizer step of a generation batch, and which of that step it is."""
        step, micro_batch = divmod(loader_step - 1, self.args.gradient_accumulation_steps)
        return step + 1, micro_batch // self.args.uses_per_generation

    # --- what the trainer and its loop say

    def note(self, batch: Rollouts, advantages: torch.Tensor, trainer: Any) -> None:
        """Record a generation batch, once it is scored; advantages (B,) are this rank's."""
        if self.args.log_rollouts_steps is None:
            return
        step, generation, seen = trainer.state.global_step, 0, self._seen
        groups = len(batch.rows) * self.world_size // trainer._group_size
        if trainer.model.training:
            step, generation = self._place(batch.draws[1])
            if not self.is_wanted(step):
                return
            seen = generation * groups
        else:
            generation, self._generations[step] = self._generations[step], self._generations[step] + 1
            self._seen += groups
        most = self.args.log_rollouts_groups
        wanted = {group for group in range(groups) if most is None or seen + group < most}
        place = {"step": step, "mode": trainer._mode, "generation": generation}
        place |= {"contrast": self.contrast, "rank": self.rank}
        scores = Scores(batch, trainer, trainer._group_size)
        records, frames = records_of(batch, advantages.tolist(), trainer, scores, wanted, place)
        if records:
            self.file.append(records, frames)
            show(trainer, records, frames)

    @property
    def file(self) -> RolloutFile:
        """That this rank writes."""
        if self._file is None:
            self._file = self._file_of(self.rank)
        return self._file

    def _file_of(self, rank: int) -> RolloutFile:
        return RolloutFile(self._folder, rank, self._max_bytes)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.args.log_rollouts_steps is None:
            return
        step, self._generations = state.global_step, Counter()
        dropped = self.file.go_on_from(step)
        if self.rank == 0:
            dropped += drop_left_over(self._folder, self.world_size, step, self._file_of)
        if dropped:
            logger.warning(
                f"{self.file.path}: {dropped} records of rollouts behind step {step} are dropped, since this run goes on from there.",
                main_process_only=False,
            )

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Leaves the log beside the records, for the page: a checkpoint may be far away, or never come."""
        if self.args.log_rollouts_steps is not None and state.is_world_process_zero:
            if self.is_wanted(state.global_step) or state.global_step >= state.max_steps:
                self._folder.mkdir(parents=True, exist_ok=True)
                unfinished = self._folder / "trainer_state.json.tmp"
                state.save_to_json(str(unfinished))
                unfinished.replace(self._folder / "trainer_state.json")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Says what went wrong, of any run that logged enough."""
        if state.is_world_process_zero:
            for finding in diagnose([{**entry} for entry in state.log_history]):
                logger.warning(f"What goes wrong: {finding.name}: {finding.text}")

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._seen = 0
