"""T-GRPO on TRL: what differs from `GRPOTrainer` when each video prompt runs on ordered and on contrast frames."""

import contextlib
import functools
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate.utils import gather
from trl import GRPOTrainer

from .checks import (
    accuracy_index,
    check_arguments,
    check_finite,
    check_loaded,
    check_num_prompts,
    name_of_column,
    settled_objective,
    warn_of_checkpoints_within_a_cycle,
)
from .config import TGRPOConfig
from .contrast import AnyContrast, shuffle_frames
from .data.batch import BatchLoader
from .data.columns import Datasets, TrainDataset, check_columns, check_objective_data, media_kinds
from .data.sampling import EpochSampler
from .further_prompts import with_further_prompts
from .hooks import check_parent
from .media.columns import MEDIA_COLUMNS, undecoded
from .media.loader import VideoLoader
from .media.video import load_video
from .models.adapters import started
from .models.cards import PAPER, default_folder
from .models.encoding import TemplateSettings
from .models.families import ModelOrPath, Processor, text_only
from .models.own_families import model_type_of
from .models.saving import WholeCheckpoints
from .models.tower import patched
from .objectives.objective import Objective
from .objectives.spread import TaskSpread
from .objectives.temporal import temporal_reward
from .rollouts import Rollouts, as_messages, restrict_sampling
from .sharing.contrast_rows import as_mean_of_rows, with_contrast
from .sharing.packing import regrouped
from .sharing.prompts import AUXILIARY_LOSS, PromptSharing
from .sharing.vllm_rollouts import as_prompts, check_sampler, sampler_of
from .text.completion_table import readable_completions
from .valuing import add_bonuses, bonuses_of, log_temporal, note_spread
from .watching.watcher import Watcher


class TGRPOTrainer(WholeCheckpoints, GRPOTrainer):
    """
    Trainer for Temporal GRPO (T-GRPO) of [Video-R1](https://huggingface.co/papers/2503.21776): each video prompt is
    answered on ordered and on shuffled frames, and right answers are rewarded where the order helped.

    Overrides, one reason each (their signatures in TRL are checked: `hooks.py`):

    - `_set_signature_columns_if_needed`: the media columns are needed too.
    - `get_train_dataloader`, `get_eval_dataloader`: a batch is prepared while the one before it is in use.
    - `_prepare_inputs`: the rows of a group stay together in micro-batches, so that they share their prompt.
    - `_generate_and_score_completions`: the media are loaded before, and the rows keep them afterwards.
    - `_tokenize_prompts`: prompts with videos, each distinct one encoded once.
    - `_generate_single_turn`: the contrast rows join the ordered ones in one `generate`, each distinct prompt prefilled once.
    - `_calculate_rewards`: the temporal reward needs whole groups, so it is computed after the parent's gather.
    - `_get_per_token_logps_and_entropies`: the videos reach policy, reference and old policy, once per prompt.
    - `log`: completions (`log_completions`) are printed as tables that can be read, media as `[video]`.
    - `_compute_loss`: says whose log-probabilities come next, with contrast rollouts that are trained; skipped rows are no zeros.
    - `_get_train_sampler`, `_get_eval_sampler`: the order of an epoch follows from seed and epoch, also in a resumed run.
    - what is saved and gone on from: [`~saving.WholeCheckpoints`].

    Example:

    ```python
    from videor1_trl import TGRPOConfig, TGRPOTrainer, accuracy_reward, format_reward, load_video_r1

    data = load_video_r1("Video-R1-260k.json")
    rewards = [accuracy_reward, format_reward]
    TGRPOTrainer("Qwen/Qwen2.5-VL-7B-Instruct", rewards, TGRPOConfig("qwen-tgrpo"), data).train()
    ```

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            A model whose processor takes videos; a folder or Hub id of a LoRA adapter too (`args.adapter`). With `beta` an
            object must hold the weights of the path in its config, which the reference is loaded from.
        reward_funcs ([`Reward`] or `list`, ...):
            As in [`~trl.GRPOTrainer`]. The first, or the one that `args.accuracy_reward_name` names, says which rollouts
            are correct, and must be a function.
        args ([`TGRPOConfig`], *optional*):
            `None`: the defaults, in a folder named after the model.
        train_dataset, eval_dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]):
            Column `prompt` (conversational) and, per row, optionally `video` or `videos`, `image` or `images`. Every
            other column reaches the reward functions.
        temporal_reward_func ([`Objective`], *optional*, defaults to [`temporal_reward`]):
            Called once per video group; the default is the one that `args.objective` names, with its parameters from `args`.
            `None`: no contrast rollouts, plain GRPO on video.
        contrast ([`Contrast`] or [`RowContrast`], defaults to [`shuffle_frames`]):
            What the contrast rollouts see: `(frames, generator) -> frames`, uint8 (T, C, H, W) of the same shape.
        video_loader ([`VideoLoader`], defaults to [`load_video`]):
            Like `contrast` it is called from threads, unless `args.video_num_workers` is 0. Videos are known by their sources:
            a loader that samples at random gives the same frames for as long as they are kept (`args.video_cache_gb`).
        processing_class, **kwargs:
            As in [`~trl.GRPOTrainer`], such as `callbacks`, `optimizers` and `peft_config`.

    Raises:
        `ImportError`: the installed TRL has other private methods than those overridden here. `NotImplementedError`: tools,
            environments and rollout functions, which cannot take video yet. `ValueError`: a model and data that do not fit.
    """

    args: TGRPOConfig
    num_generations: int
    num_generations_eval: int
    eos_token_ids: list[int]
    chat_template_kwargs: TemplateSettings
    reward_processing_classes: list[Any]
    _tag_names = ["trl", "tgrpo"]
    _name, _paper = "T-GRPO", PAPER  # otherwise the model card credits GRPO

    def __init__(
        self,
        model: ModelOrPath,
        reward_funcs: Any = None,
        args: TGRPOConfig | None = None,
        train_dataset: TrainDataset = None,
        eval_dataset: Datasets = None,
        processing_class: Processor | None = None,
        *,
        temporal_reward_func: Objective | None = temporal_reward,
        contrast: AnyContrast = shuffle_frames,
        video_loader: VideoLoader = load_video,
        **kwargs: Any,
    ):
        check_parent()
        args = TGRPOConfig(default_folder(model, "T-GRPO")) if args is None else args
        reward_funcs = list(reward_funcs) if isinstance(reward_funcs, (list, tuple)) else [reward_funcs]
        check_arguments(model, args, kwargs)
        check_columns(train_dataset, eval_dataset)
        check_num_prompts(train_dataset, args)
        self._accuracy_index = accuracy_index(reward_funcs, args.accuracy_reward_name)
        objective, needs = settled_objective(temporal_reward_func, args, reward_funcs)
        check_objective_data(objective, contrast, train_dataset, eval_dataset)
        model, args, processing_class = started(model, args, processing_class, kwargs)
        datasets = undecoded(train_dataset), undecoded(eval_dataset)
        with sampler_of(self, args):
            super().__init__(model, reward_funcs, args, *datasets, processing_class, **kwargs)

        self.gather_weights_when_saved()
        check_loaded(self, args, passed=model)
        self._kinds = media_kinds(self.train_dataset, self.eval_dataset, self.processing_class)
        self.reward_processing_classes = [text_only(each) for each in self.reward_processing_classes]
        self.temporal_reward_func, self._needs = objective, needs
        self.task_spread = TaskSpread() if args.scale_rewards == "task" else None
        if self.task_spread is not None:
            self.scale_rewards = "none"  # TRL centres the rewards, and `valuing` divides
        if objective is not None:
            self._add_temporal_column(objective)
        contrast_of_groups = contrast if needs.contrast_rollouts or needs.logps else None
        chat, self.watcher = (self.chat_template, self.chat_template_kwargs), Watcher(self, contrast_of_groups)
        of = functools.partial(BatchLoader.of, contrast_for_all=needs.logps, shown_side=self.watcher.shown_side)
        of = functools.partial(of, model_type=model_type_of(self.model))
        self.batch_loader = of(args, self.processing_class, video_loader, contrast_of_groups, *chat)
        self.sharing = PromptSharing(
            self,
            self._kinds,
            self.batch_loader.encode_settings,
            self._tokenizer.pad_token_id,
            wanted=args.share_prefix,
            unless=AUXILIARY_LOSS if self.aux_loss_enabled else None,
            otherwise="Each row computes its prompt anew (share_prefix=False)",
        )
        restrict_sampling(self, self.sharing.model.config, set(self.sharing.placeholder_ids))
        self.sharing.check_generation(self.generation_config)
        warn_of_checkpoints_within_a_cycle(args)
        self._batch = Rollouts([])

    def _add_temporal_column(self, objective: Objective) -> None:
        """Reserve a column: a stand-in that returns `None`; TRL's weights (0 where advantages get the bonus) and logs apply."""
        name = name_of_column(objective, self.reward_func_names)
        weight = torch.tensor([1.0 if self.args.temporal_bonus == "reward" else 0.0])
        self.reward_funcs.append(lambda completions, **kwargs: [None] * len(completions))
        self.reward_func_names.append(name)
        self.reward_processing_classes.append(None)
        self.reward_weights: torch.Tensor = torch.cat([self.reward_weights, weight])

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *MEDIA_COLUMNS]))

    def get_train_dataloader(self):
        with self._expecting("train"):
            return super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset=None):
        with self._expecting("eval"):
            return super().get_eval_dataloader(eval_dataset)

    def _get_train_sampler(self, dataset=None):
        return EpochSampler(super()._get_train_sampler(dataset), lambda: int(self.state.epoch or 0))

    def _get_eval_sampler(self, eval_dataset):
        return EpochSampler(super()._get_eval_sampler(eval_dataset), lambda: 0)

    def _expecting(self, mode: str) -> AbstractContextManager[None]:
        """Within the context dataloaders are made that let the next batch be prepared, as soon as they have it."""
        if self.args.dataloader_num_workers:  # rows are collated in other processes
            return contextlib.nullcontext()
        return patched(self, data_collator=functools.partial(self.batch_loader.expect, mode=mode))

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is not before:  # new rollouts: TRL has shuffled the rows and cut them
            self._buffered_inputs = regrouped(self._buffered_inputs)
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    @property
    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    def _steps(self) -> tuple[int, int]:
        """What varies the contrast of this generation and of the next one; the same in all of an evaluation."""
        if not self.model.training:
            return 0, 0
        step = 1 + self.state.global_step * self.args.gradient_accumulation_steps
        step += self._step % self.args.gradient_accumulation_steps
        return step, step + self.args.uses_per_generation

    def _generate_and_score_completions(self, inputs):
        step, _ = self._steps()
        output = self._scored(inputs)
        if self.model.training and self.args.dynamic_sampling:
            output = with_further_prompts(self, output, self._scored, step)
        return output

    def _scored(self, inputs, places=None, spare=()):
        """Rollouts of this rank's rows and what they are worth; `places`, `spare`: of further rows, their indices, and which are of no use."""
        step, next_step = self._steps()
        rows = self.batch_loader.load(
            inputs,
            first_row=self.accelerator.process_index * len(inputs) if places is None else places,
            num_generations=self._group_size,
            num_contrast=self.args.contrast_generations(self._group_size) if self._needs.contrast_rollouts else 0,
            step=step,
            next_step=next_step,
            mode=self._mode,
        )
        # here: in the reference's pass PEFT freezes its adapters
        trains = self._needs.trains_contrast and self.model.training
        self._batch = batch = Rollouts.of(rows, self.sharing.keeps_outputs(), (self.args.seed, step), trains, spare)
        output = super()._generate_and_score_completions(batch.inputs_for_parent(as_parts=bool(self._kinds)))
        output["encoded"] = batch.encoded  # one per row: TRL shuffles and splits it with the rest
        batch.scale_advantages(output, self._logs["advantages"], self.accelerator.process_index)
        if self.args.temporal_bonus == "advantage":
            batch.add_bonuses(output, self._logs["advantages"], self.accelerator.process_index)
        if self.args.on_bad_video == "skip":
            self._metrics[self._mode]["video/skipped_rows"].append(batch.mask_skipped(output, self.accelerator))
        if trains:
            self._log_metrics(batch.join_contrast(output, self))
        self.watcher.note(batch, output["advantages"], self)
        return output

    def _log_metrics(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._metrics[self._mode][name].append(value)

    def _tokenize_prompts(self, prompts):
        return [encoded.input_ids for encoded in self._batch.encoded], None, {}

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        batch = self._batch
        rows = batch.to_generate + self.sharing.dummies(batch.to_generate)
        with self.sharing.generating(rows, batch.keep_outputs) as fields:
            prompt_ids, of_each = as_prompts(self, rows, num_generations)
            completion_ids, logprobs = super()._generate_single_turn(prompt_ids, None, fields, of_each, False)
        check_sampler(self, rows, completion_ids, logprobs)
        own = len(batch.encoded)
        of_contrast = slice(own, len(batch.to_generate))
        contrast_ids, batch.contrast_sampled = completion_ids[of_contrast], logprobs and logprobs[of_contrast]
        batch.take_contrast(contrast_ids, as_messages(self.processing_class, contrast_ids))
        return completion_ids[:own], logprobs and logprobs[:own]

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        batch = self._batch
        takes_apart = any(getattr(self._tokenizer, name, None) for name in ("response_template", "response_schema"))
        if takes_apart and isinstance(completions[0], list):  # as without a parser, which may leave parts out
            completions = as_messages(self.processing_class, completion_ids_list)
        completions = batch.take_ordered(completion_ids_list, completions)
        rows = [row.inputs for row in batch.rows]
        found = super()._calculate_rewards(rows, prompts, completions, completion_ids_list)
        rewards_per_func = batch.rewards = check_finite(found, self.reward_func_names)  # (W * B, F)
        if self.args.on_bad_video == "skip" or batch.spare:
            rewards_per_func[gather(batch.without_rewards(rewards_per_func.device))] = torch.nan
        if self.temporal_reward_func is not None:
            add_bonuses(self, rewards_per_func, prompts, completions, completion_ids_list)
        note_spread(self, rewards_per_func)
        return rewards_per_func

    def _temporal_bonuses(self, seen, accuracies, contrast):
        return bonuses_of(self, seen, accuracies, contrast)

    def _log_temporal(self, rewards, *of_rollouts):
        log_temporal(self, rewards, *of_rollouts)

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        **image_arguments,  # None: images travel with the rows, like videos
    ):
        batch_size = batch_size or len(input_ids)
        batch, results, below = self._batch, [], []
        for start in range(0, len(input_ids), batch_size):
            part, own = slice(start, start + batch_size), len(input_ids[start : start + batch_size])
            rows, ids, mask, length = batch.with_contrast_rows(
                part, input_ids[part], attention_mask[part], logits_to_keep, self._tokenizer.pad_token_id
            )
            call, ids, mask = self.sharing.call_behind_prompts(model, rows, ids, mask, length, batch.keep_outputs)
            logps, entropies, aux_loss = super()._get_per_token_logps_and_entropies(
                call, ids, mask, length, compute_entropy=compute_entropy, compute_aux_loss=compute_aux_loss
            )
            entropies = entropies[:own, :logits_to_keep] if compute_entropy else None
            results.append((logps[:own, :logits_to_keep], entropies, aux_loss))
            below.extend(logps[own : len(rows)])
        parts, entropies, aux_losses = zip(*results, strict=True)
        logps = torch.cat(parts)
        batch.note_pass(logps, below)
        aux_loss = torch.stack(aux_losses).mean() if compute_aux_loss else None
        return logps, torch.cat(entropies) if compute_entropy else None, aux_loss

    def log(self, logs, start_time=None):
        with readable_completions(self, logs):
            super().log(logs, start_time)

    def _compute_loss(self, model, inputs):
        rows = with_contrast(inputs, self._tokenizer.pad_token_id, self.accelerator)
        self._batch = Rollouts(rows["encoded"], self.sharing.keeps_outputs())
        return as_mean_of_rows(super()._compute_loss(model, rows), rows, len(inputs["encoded"]), self.loss_type)
