"""What both trainers save, and what they go on from: whole models, whole checkpoints, cards that say what was trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput, rotate_checkpoints

from ..objectives.spread import TaskSpread
from .cards import complete_card
from .checkpoints import load_checkpoint, takes_checkpoint
from .families import Processor
from .finite import check_gradients
from .manifests import check_whole, is_of_writing, not_written, to_go_on_from, unsaved, write_manifest


logger = get_logger(__name__)


class WholeCheckpoints(Trainer):
    """
    Stands before a trainer of TRL's. Overrides, one reason each:

    - `train`: what it goes on from is whole; `resume_from_checkpoint=True` is the newest checkpoint that is.
    - `_get_grad_norm`: no step is made with gradients that are not finite.
    - `_save_checkpoint`: a manifest of the files is written last, and only then do older checkpoints leave; what was written
      of one that cannot be, as on a full disk, is removed.
    - `save_model`: engines that shard the weights gather them, so that the folder is a model that loads.
    - `create_model_card`: the card names what the model was trained from, and its example asks about a video.
    - `_load_from_checkpoint`, `_load_best_model`: checkpoints carry the released names of the weights, which transformers
      5.23 does not translate when it resumes, so that a Qwen2.5-VL would go on untrained with no more than a warning.
    """

    model: nn.Module
    processing_class: Processor
    task_spread: TaskSpread | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        if resume_from_checkpoint is True:  # all ranks go on from what the main process finds
            found = [to_go_on_from(str(self.args.output_dir)) if self.accelerator.is_main_process else ("", "")]
            resume_from_checkpoint, said = broadcast_object_list(found)[0]
        else:
            said = check_whole(resume_from_checkpoint) if resume_from_checkpoint else ""
        if said:
            logger.warning(said)
        if isinstance(resume_from_checkpoint, str) and resume_from_checkpoint and self.task_spread is not None:
            self.task_spread.load(resume_from_checkpoint)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _save_checkpoint(self, model, trial):
        limit = self.args.save_total_limit
        self.args.save_total_limit = None  # nothing leaves before the new one is whole
        run_dir = self._get_output_dir(trial=trial)
        folder = Path(run_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each rank writes files of its own
            if self.args.should_save:
                if self.task_spread is not None:
                    self.task_spread.save(folder)
                write_manifest(folder, step=self.state.global_step, num_processes=self.accelerator.num_processes)
        except Exception as error:
            if not is_of_writing(error):  # another rank has died, say
                raise
            raise unsaved(folder, error) from error
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate_checkpoints(run_dir, limit, self.state.best_model_checkpoint, use_mtime=True)
        self.accelerator.wait_for_everyone()

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        check_gradients(self, norm)
        return norm

    def save_model(self, output_dir=None, _internal_call=False):
        with contextlib.nullcontext() if _internal_call else self._whole_weights():
            try:
                super().save_model(output_dir, _internal_call)
            except Exception as error:
                if _internal_call or not is_of_writing(error):
                    raise
                raise not_written(output_dir or self.args.output_dir, error) from error

    @contextlib.contextmanager
    def _whole_weights(self) -> Iterator[None]:
        """Within the context FSDP gives the weights of all ranks; its checkpoints stay sharded where they were asked to be."""
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        before = None if plugin is None else plugin.state_dict_type
        if plugin is not None:
            plugin.set_state_dict_type("FULL_STATE_DICT")
        try:
            yield
        finally:
            if plugin is not None:
                plugin.set_state_dict_type(before)

    def gather_weights_when_saved(self) -> None:
        """Let ZeRO-3 gather the weights for whatever is saved: otherwise it writes shards that no model loads from."""
        plugin = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
        if plugin is not None and plugin.zero_stage == 3:
            plugin.deepspeed_config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True

    def create_model_card(self, model_name=None, dataset_name=None, tags=None):
        super().create_model_card(model_name, dataset_name, tags)
        complete_card(self)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        loaded: nn.Module = self.model if model is None else model
        if self.is_fsdp_enabled or not takes_checkpoint(loaded):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_checkpoint(loaded, resume_from_checkpoint)

    def _load_best_model(self):
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or not takes_checkpoint(self.model):
            return super()._load_best_model()
        self._load_from_checkpoint(self.state.best_model_checkpoint)
