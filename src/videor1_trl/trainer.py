"""T-GRPO on TRL: what differs from `GRPOTrainer` when each video prompt runs on ordered and on contrast frames."""

import contextlib
import functools
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import gather, gather_object
from trl import GRPOTrainer
from trl.chat_template_utils import parse_response
from trl.trainer.utils import get_callable_name, get_config_model_id

from .batch import BatchLoader, Row
from .checkpoints import load_checkpoint, takes_checkpoint
from .checks import (
    accuracy_index,
    check_arguments,
    check_columns,
    check_parent,
    media_kinds,
    warn_of_checkpoints_within_a_cycle,
)
from .config import TGRPOConfig
from .contrast import shuffle_frames
from .dummies import Dummies, calls_must_match, with_rows_below
from .families import (
    EncodedPrompt,
    cannot_share,
    collate_features,
    collate_token_types,
    correct_positions,
    padded_inputs,
    placeholder_token_ids,
)
from .media import MEDIA_COLUMNS, undecoded
from .rewards import get_temporal_reward, temporal_reward
from .shared_prefix import PackedCall, prefilled_once, regrouped
from .temporal import TemporalReward, group_bonuses, rollouts, temporal_metrics
from .tower import Tower
from .video import load_video


logger = get_logger(__name__)


class TGRPOTrainer(GRPOTrainer):
    """
    Trainer for Temporal GRPO (T-GRPO) of [Video-R1](https://huggingface.co/papers/2503.21776): each video prompt is
    answered on ordered and on shuffled frames, and right answers are rewarded where the order helped.

    Overrides, one reason each:

    - `_set_signature_columns_if_needed`: the video columns are needed too.
    - `get_train_dataloader`, `get_eval_dataloader`: a batch is prepared while the one before it is in use.
    - `_prepare_inputs`: the rows of a group stay together in micro-batches, so that they share their prompt.
    - `_generate_and_score_completions`: the batch's media are loaded before, and the rows keep them afterwards.
    - `_tokenize_prompts`: prompts with videos, each distinct one encoded once.
    - `_generate_single_turn`: the contrast rows join the ordered rows in one call of `generate`, which computes each
      distinct prompt once.
    - `_calculate_rewards`: the temporal reward needs whole groups, so it is computed after the parent's gather.
    - `_get_per_token_logps_and_entropies`: the videos reach the policy, the reference and the old policy, once per prompt.
    - `_compute_loss`: remembers whose log-probabilities the parent is about to compute.
    - `_load_from_checkpoint`, `_load_best_model`: checkpoints carry the released names of the weights, which transformers
      5.23 does not translate when it resumes, so that a Qwen2.5-VL would go on untrained with no more than a warning.

    Example:

    ```python
    from videor1_trl import TGRPOConfig, TGRPOTrainer, accuracy_reward, format_reward, load_video_r1

    trainer = TGRPOTrainer(
        model="Qwen/Qwen2.5-VL-7B-Instruct",
        reward_funcs=[accuracy_reward, format_reward],
        args=TGRPOConfig("qwen-tgrpo"),
        train_dataset=load_video_r1("Video-R1-260k.json"),
    )
    trainer.train()
    ```

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            As in [`~trl.GRPOTrainer`]; any model whose processor takes videos.
        reward_funcs (`RewardFunc` or `list[RewardFunc]`):
            As in [`~trl.GRPOTrainer`]. The first (or the one that `args.accuracy_reward_name` names) says which
            rollouts are correct, and must be a function.
        args ([`TGRPOConfig`], *optional*):
            Configuration. `None`: the defaults, in a folder named after the model.
        train_dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]):
            Column `prompt` (conversational) and, per row, optionally `video` or `videos`, `image` or `images`. Every
            other column reaches the reward functions.
        eval_dataset (*optional*):
            As in [`~trl.GRPOTrainer`], with the same columns.
        processing_class ([`~transformers.ProcessorMixin`], *optional*):
            As in [`~trl.GRPOTrainer`].
        temporal_reward_func (`Callable`, *optional*, defaults to [`temporal_reward`]):
            Called once per video group, `(accuracies, contrast_accuracies, **kwargs)`, and returns one bonus or `None`
            per ordered rollout. The keywords are the group's `prompt`, `completions`, `completion_ids`,
            `contrast_completions`, `contrast_completion_ids` and the prompt's columns. The default takes its
            parameters from `args`. `None`: no contrast rollouts, plain GRPO on video.
        contrast (`Callable`, defaults to [`shuffle_frames`]):
            `(frames, generator) -> frames`, uint8 (T, C, H, W) of the same shape: what the contrast rollouts see.
        video_loader (`Callable`, defaults to [`load_video`]):
            `(source, fps=, min_frames=, max_frames=, num_frames=) -> (frames, VideoMetadata)`. A
            [`VideoError`] it raises is subject to `args.on_bad_video`. It and `contrast` are called from threads, unless
            `args.video_num_workers` is 0. Videos are known by their sources: a loader that samples at random gives the same
            frames for as long as they are kept (`args.video_cache_gb`).
        **kwargs:
            Further arguments of [`~trl.GRPOTrainer`], such as `callbacks`, `optimizers` and `peft_config`.

    Raises:
        `ImportError`: the installed TRL has other private methods than those overridden here.
        `NotImplementedError`: tools, environments and rollout functions, which cannot take video yet.
        `ValueError`: a model and data that do not fit.
    """

    data_collator: Any
    _tag_names = ["trl", "tgrpo"]
    _name = "T-GRPO"
    _paper = {
        "title": "Video-R1: Reinforcing Video Reasoning in MLLMs",
        "id": "2503.21776",
        # docstyle-ignore
        "citation": textwrap.dedent("""\
            @inproceedings{feng2025videor1,
                title        = {{Video-R1: Reinforcing Video Reasoning in MLLMs}},
                author       = {Kaituo Feng and Kaixiong Gong and Bohao Li and Zonghao Guo and Yibing Wang and Tianshuo Peng and Junfei Wu and Xiaoying Zhang and Benyou Wang and Xiangyu Yue},
                year         = 2025,
                booktitle    = {Advances in Neural Information Processing Systems},
                eprint       = {arXiv:2503.21776},
            }"""),
    }

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: TGRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        temporal_reward_func: TemporalReward | None = temporal_reward,
        contrast: Callable[[torch.Tensor, torch.Generator], torch.Tensor] = shuffle_frames,
        video_loader: Callable[..., tuple[torch.Tensor, Any]] = load_video,
        **kwargs: Any,
    ):
        check_parent()
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = TGRPOConfig(f"{name.split('/')[-1]}-T-GRPO")
        reward_funcs = list(reward_funcs) if isinstance(reward_funcs, (list, tuple)) else [reward_funcs]
        check_arguments(model, args, kwargs)
        check_columns(train_dataset, eval_dataset)
        self._accuracy_index = accuracy_index(reward_funcs, args.accuracy_reward_name)
        if temporal_reward_func is temporal_reward:
            temporal_reward_func = get_temporal_reward(args.temporal_alpha, args.temporal_mu, args.temporal_threshold)
        self.temporal_reward_func: Any = temporal_reward_func
        self._batch: list[Row] = []
        self._encoded: list[EncodedPrompt] = []
        self._contrast_completion_ids: list[list[int]] = []
        self._bonuses: torch.Tensor | None = None

        super().__init__(
            model,
            reward_funcs,
            args,
            undecoded(train_dataset),
            undecoded(eval_dataset),
            processing_class,
            **kwargs,
        )
        kinds = media_kinds(self.train_dataset, self.eval_dataset, self.processing_class)
        if temporal_reward_func is not None:
            self._add_temporal_column()
        for each in (self.model, self.ref_model):
            if each is not None:
                correct_positions(each)
        self._restrict_sampling()
        self._share_prefix = args.share_prefix and self._can_share_prefix()
        self._share()
        warn_of_checkpoints_within_a_cycle(args)
        self.batch_loader = BatchLoader(
            self.processing_class,
            video_loader,
            contrast if temporal_reward_func is not None else None,
            video_settings=args.video_settings,
            encode_settings={
                **args.pixel_settings,
                "chat_template": self.chat_template,
                "chat_template_kwargs": self.chat_template_kwargs,
            },
            max_prompt_length=args.max_prompt_length,
            on_bad_video=args.on_bad_video,
            seed=args.seed,
            num_workers=args.video_num_workers,
            cache_bytes=int(args.video_cache_gb * 2**30),
        )
        self._dummies = Dummies(kinds, self.processing_class, self.batch_loader.encode_settings)

    def _add_temporal_column(self) -> None:
        """
        Reserve a column for the temporal reward: a stand-in that returns `None`, so that TRL's weights and logs apply.
        Its weight is 1, or 0 where the bonus is added to the advantages instead.
        """
        name = get_callable_name(self.temporal_reward_func)
        if name in self.reward_func_names:
            raise ValueError(
                f"temporal_reward_func and one of reward_funcs are both named {name!r}. Rename one: TRL logs rewards "
                "by name."
            )
        weight = 1.0 if self.args.temporal_bonus == "reward" else 0.0
        self.reward_funcs.append(lambda completions, **kwargs: [None] * len(completions))
        self.reward_func_names.append(name)
        self.reward_processing_classes.append(None)
        self.reward_weights: torch.Tensor = torch.cat([self.reward_weights, torch.tensor([weight])])

    def _restrict_sampling(self) -> None:
        """Never sample a visual placeholder; take every end token of the model for an end."""
        model = self.accelerator.unwrap_model(self.model)
        ends = [model.config.get_text_config().eos_token_id, self.generation_kwargs["eos_token_id"]]
        ends = [end for ids in ends for end in (ids if isinstance(ids, list) else [ids]) if end is not None]
        # The pad token ends a completion too: what follows it could not be told from padding
        self.eos_token_ids: list[int] = list(dict.fromkeys([*self.eos_token_ids, *ends, self._tokenizer.pad_token_id]))
        placeholders = set(placeholder_token_ids(model, self.processing_class)) - set(self.eos_token_ids)
        suppressed = placeholders | set(self.generation_kwargs.get("suppress_tokens") or [])
        settings = {"eos_token_id": self.eos_token_ids, "suppress_tokens": sorted(suppressed) or None}
        self.generation_kwargs.update(settings)
        self.generation_config.update(**settings)

    def _share(self) -> None:
        """What computing prompts once needs of the policy and of the reference model."""
        models = [self.accelerator.unwrap_model(each) for each in (self.model, self.ref_model) if each is not None]
        self._tower = Tower(models[0], autocast=self.accelerator.autocast)
        self._ref_tower = Tower(models[-1], self._tower, self.accelerator.autocast)
        self._keep_outputs = False
        usual = {  # what `generate` takes from the model's generation_config where the trainer's says nothing
            "num_beams": (None, 1),
            "num_return_sequences": (None, 1),
            "use_cache": (None, True),
            "cache_implementation": (None,),
        }
        found = {name: getattr(self.generation_config, name, None) for name in usual}
        own = getattr(models[0], "generation_config", None)
        found = {name: getattr(own, name, None) if value is None else value for name, value in found.items()}
        reasons = [f"{name}={found[name]}" for name, values in usual.items() if found[name] not in values]
        self._share_rollouts = self._share_prefix and not reasons
        if self._share_prefix and reasons:
            logger.warning(
                f"Each rollout computes its prompt anew: {' and '.join(reasons)}, as generation_kwargs or the model's "
                "generation_config have it."
            )

    def _can_share_prefix(self) -> bool:
        """Whether prompts can be computed once per group; says once why not."""
        reason = cannot_share(self.accelerator.unwrap_model(self.model))
        if reason is None and self.aux_loss_enabled:
            reason = "the router's auxiliary loss counts every row's tokens"
        if reason is not None:
            logger.warning(f"Each row computes its prompt anew (share_prefix=False): {reason}.")
        return reason is None

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *MEDIA_COLUMNS]))

    def get_train_dataloader(self):
        with self._expecting("train"):
            return super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset=None):
        with self._expecting("eval"):
            return super().get_eval_dataloader(eval_dataset)

    @contextlib.contextmanager
    def _expecting(self, mode: str) -> Iterator[None]:
        """Within the context dataloaders are made that let the next batch be prepared, as soon as they have it."""
        collator = self.data_collator
        if self.args.dataloader_num_workers == 0:  # else rows are collated in other processes
            self.data_collator = functools.partial(self.batch_loader.expect, mode=mode)
        try:
            yield
        finally:
            self.data_collator = collator

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is not before:  # new rollouts: TRL has shuffled the rows and cut them
            self._buffered_inputs = regrouped(self._buffered_inputs)
            inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return inputs

    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    def _num_generations(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    def _generate_and_score_completions(self, inputs):
        num_generations = self._num_generations()
        step = next_step = 0
        if self.model.training:  # in evaluation the contrast stays the same, so that its curve is comparable
            accumulated = self._step % self.args.gradient_accumulation_steps
            step = 1 + self.state.global_step * self.args.gradient_accumulation_steps + accumulated
            next_step = step + self.args.steps_per_generation * self.num_iterations
        self._batch = self.batch_loader.load(
            inputs,
            first_row=self.accelerator.process_index * len(inputs),
            num_generations=num_generations,
            num_contrast=self.args.contrast_generations(num_generations),
            step=step,
            next_step=next_step,
            mode=self._mode(),
        )
        self._encoded = [row.encoded for row in self._batch]
        self._keep_outputs = self._may_keep_outputs()  # here: in the reference's pass PEFT freezes its adapters
        self._bonuses = None
        output = super()._generate_and_score_completions(
            [
                {
                    **{key: value for key, value in row.inputs.items() if key not in MEDIA_COLUMNS},
                    "prompt": row.messages if row.encoded.kinds else row.inputs["prompt"],
                }
                for row in self._batch
            ]
        )
        output["encoded"] = self._encoded  # one per row: TRL shuffles and splits it with the rest
        if self._bonuses is not None and self.args.temporal_bonus == "advantage":
            self._add_bonuses(output, self._bonuses.nan_to_num(nan=0.0))
        if self.args.on_bad_video == "skip":
            self._mask_skipped(output)
        self._batch = []
        return output

    def _add_bonuses(self, output: dict[str, Any], bonuses: torch.Tensor) -> None:
        """Add the bonuses (W * B,) to the standardised advantages of this rank's rows and of the log."""
        first = self.accelerator.process_index * len(self._batch)
        output["advantages"] = output["advantages"] + bonuses[first : first + len(self._batch)]
        logged = self._logs["advantages"]
        for offset, bonus in enumerate(bonuses.tolist()[-len(logged) :], start=-min(len(bonuses), len(logged))):
            logged[offset] += bonus

    def _mask_skipped(self, output: dict[str, Any]) -> None:
        """Take the rows of unusable prompts out of the loss: their mask is zero, and so is their KL."""
        skipped = [row.error is not None for row in self._batch]
        output["completion_mask"][torch.tensor(skipped, device=output["completion_mask"].device)] = 0
        output["num_items_in_batch"] = self.accelerator.gather(output["completion_mask"].sum()).sum()
        count = self.accelerator.gather(torch.tensor(sum(skipped), device=self.accelerator.device)).sum().item()
        self._metrics[self._mode()]["video/skipped_rows"].append(count)
        for row in {row.group: row for row in self._batch if row.error is not None}.values():
            logger.warning(f"Skipped (on_bad_video='skip'): {row.error}")

    def _tokenize_prompts(self, prompts):
        return [encoded.input_ids for encoded in self._encoded], None, {}

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        rows = self._encoded + [row.contrast for row in self._batch if row.contrast is not None]
        num_rows = len(rows)
        rows = rows + self._dummy_rows(rows)
        share = self._share_rollouts
        once = prefilled_once(self._tower, rows, self._keep_outputs)
        with once if share else contextlib.nullcontext():
            completion_ids, logprobs = super()._generate_single_turn(
                [encoded.input_ids for encoded in rows],
                None,
                {**collate_token_types(rows), **({} if share else collate_features(rows))},
                num_generations,
                has_tool_images,
            )
        self._contrast_completion_ids = completion_ids[len(prompt_ids) : num_rows]
        return completion_ids[: len(prompt_ids)], logprobs

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards_per_func = super()._calculate_rewards(  # (W * B, F)
            [row.inputs for row in self._batch], prompts, completions, completion_ids_list
        )
        device = rewards_per_func.device
        if self.args.on_bad_video == "skip":
            skipped = torch.tensor([row.error is not None for row in self._batch], device=device)
            rewards_per_func[gather(skipped)] = torch.nan
        if self.temporal_reward_func is not None:
            contrast = gather(self._contrast_accuracies(prompts))  # (W * B,), NaN where a row owns no contrast rollout
            accuracies = rewards_per_func[:, self._accuracy_index]
            bonuses = self._temporal_bonuses(prompts, completions, completion_ids_list, accuracies, contrast)
            # A rollout that no reward function scored stays without a reward, and so without an advantage
            bonuses[torch.isnan(rewards_per_func[:, :-1]).all(dim=1)] = torch.nan
            found = temporal_metrics(
                rewards_per_func[:, :-1],
                self.reward_weights[:-1].to(device),
                accuracies,
                contrast,
                bonuses,
                size=self._num_generations(),
                scale_rewards=self.scale_rewards,
                in_reward=self.args.temporal_bonus == "reward",
            )
            for metric, value in found.items():
                self._metrics[self._mode()][metric].append(value)
            rewards_per_func[:, -1] = self._bonuses = bonuses
        return rewards_per_func

    def _contrast_accuracies(self, prompts: list) -> torch.Tensor:
        """The accuracy function on this rank's contrast completions; (B,) float32, NaN for rows without one."""
        owners = [index for index, row in enumerate(self._batch) if row.contrast is not None]
        self._contrast_completions = self._messages(
            self._contrast_completion_ids, [self._batch[index].encoded.input_ids for index in owners]
        )
        accuracies = torch.full((len(self._batch),), torch.nan, device=self.accelerator.device)
        if not owners:
            return accuracies
        function = self.reward_funcs[self._accuracy_index]
        columns = [key for key in self._batch[0].inputs if key not in ("prompt", "completion", "completion_ids")]
        result = function(
            prompts=[prompts[index] for index in owners],
            completions=self._contrast_completions,
            completion_ids=self._contrast_completion_ids,
            **{key: [self._batch[index].inputs[key] for index in owners] for key in columns},
            trainer_state=self.state,
            log_extra=lambda column, values: None,  # the tables and metrics are those of the ordered rollouts
            log_metric=lambda name, value: None,
        )
        values = [torch.nan if value is None else value for value in result]
        accuracies[owners] = torch.tensor(values, dtype=torch.float32, device=accuracies.device)
        return accuracies

    def _messages(self, completion_ids: list[list[int]], prompt_ids: list[list[int]]) -> list[list[dict]]:
        """Completions as messages, decoded as the parent decodes the ordered ones."""
        parses = any(getattr(self._tokenizer, name, None) for name in ("response_template", "response_schema"))
        if parses:
            pairs = zip(completion_ids, prompt_ids, strict=True)
            return [[parse_response(self._tokenizer, ids, prefix=prompt)] for ids, prompt in pairs]
        texts = self.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
        return [[{"role": "assistant", "content": text}] for text in texts]

    def _temporal_bonuses(
        self, prompts: list, completions: list, completion_ids: list, accuracies: torch.Tensor, contrast: torch.Tensor
    ) -> torch.Tensor:
        """
        The temporal reward of every group; each is computed on one rank, the one that holds its first row.

        Args:
            accuracies (`torch.Tensor` of shape (W * B,)): accuracy of the ordered rollouts of all ranks.
            contrast (`torch.Tensor` of shape (W * B,)): accuracy of the contrast rollouts, NaN where there is none.

        Returns:
            `torch.Tensor` of shape (W * B,), NaN where no temporal reward applies.
        """
        rank = self.accelerator.process_index
        local = rollouts(
            self._batch,
            prompts,
            completions,
            completion_ids,
            self._contrast_completions,
            self._contrast_completion_ids,
            rank,
        )
        name, size = self.reward_func_names[-1], self._num_generations()
        bonuses = group_bonuses(
            self.temporal_reward_func, name, gather_object(local), accuracies, contrast, size, rank
        )
        return self.accelerator.reduce(bonuses, reduction="sum")  # only one rank wrote each group

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
        results = []
        for start in range(0, len(input_ids), batch_size):
            rows = slice(start, start + batch_size)
            encoded = self._encoded[rows]
            dummies = self._dummy_rows(encoded)
            ids, mask = with_rows_below(
                input_ids[rows], attention_mask[rows], dummies, logits_to_keep, self._tokenizer.pad_token_id
            )
            logps, entropies, aux_loss = super()._get_per_token_logps_and_entropies(
                self._model_call(model, encoded + dummies, ids, mask, logits_to_keep),
                ids,
                mask,
                logits_to_keep,
                compute_entropy=compute_entropy,
                compute_aux_loss=compute_aux_loss,
            )
            entropies = entropies[: len(encoded)] if compute_entropy else None
            results.append((logps[: len(encoded)], entropies, aux_loss))
        logps, entropies, aux_losses = zip(*results, strict=True)
        return (
            torch.cat(logps),
            torch.cat(entropies) if compute_entropy else None,
            torch.stack(aux_losses).mean() if compute_aux_loss else None,
        )

    def _calls_must_match(self) -> bool:
        """Whether every rank must call every module equally often."""
        return calls_must_match(self)

    def _dummy_rows(self, rows: list[EncodedPrompt]) -> list[EncodedPrompt]:
        """A dummy for each kind of media that these rows lack and those of other ranks may have, where that matters."""
        return self._dummies.missing(rows) if self._calls_must_match() else []

    def _model_call(
        self, model: Any, rows: list[EncodedPrompt], ids: torch.Tensor, mask: torch.Tensor, num_completion: int
    ) -> Callable[..., Any]:
        """The model with the rows' media, for the parent to call with its padded rows (B, P + C)."""
        bidirectional = any("token_type_ids" in row.token_types for row in rows)  # Gemma 3: images see ahead
        if not self._share_prefix or bidirectional:
            inputs = padded_inputs(rows, ids.shape[1], num_completion)
            return functools.partial(model, **{key: value.to(ids.device) for key, value in inputs.items()})
        tower = self._ref_tower if model is self.ref_model else self._tower
        return PackedCall(
            model,
            tower,
            rows,
            ids[:, -num_completion:],
            mask[:, -num_completion:],
            self._tokenizer.pad_token_id,
            keep=self._keep_outputs and tower.serves(),
        )

    def _may_keep_outputs(self) -> bool:
        """Whether the tower runs once per step: not where it has to run within the wrapped model's own call."""
        return self._share_prefix and not self._calls_must_match() and self._tower.is_frozen

    def _compute_loss(self, model, inputs):
        self._encoded = inputs["encoded"]
        self._keep_outputs = self._may_keep_outputs()
        return super()._compute_loss(model, inputs)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        model = self.model if model is None else model
        if self.is_fsdp_enabled or not takes_checkpoint(model):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_checkpoint(model, resume_from_checkpoint)

    def _load_best_model(self):
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or not takes_checkpoint(self.model):
            return super()._load_best_model()
        self._load_from_checkpoint(self.state.best_model_checkpoint)
