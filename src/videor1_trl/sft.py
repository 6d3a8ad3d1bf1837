"""The supervised cold start: TRL's `SFTTrainer` on prompts with videos, images or neither, and their rationales."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.logging import get_logger
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import get_config_model_id

from .batch import BatchLoader
from .checkpoints import load_checkpoint, takes_checkpoint
from .checks import SFT_HOOKS, check_parent, media_kinds
from .completions import Completions, check_completions
from .dummies import Dummies, calls_must_match
from .families import (
    EncodedPrompt,
    cannot_share,
    collate_features,
    collate_token_types,
    correct_positions,
    placeholder_token_ids,
)
from .generation import end_token_ids
from .media import undecoded
from .shared_prefix import PackedCall
from .tower import Tower
from .video import load_video
from .video_arguments import VideoArguments


logger = get_logger(__name__)


@dataclass
class VideoSFTConfig(VideoArguments, SFTConfig):
    r"""
    Configuration class for the [`VideoSFTTrainer`].

    Adds the fields of the media ([`~video_arguments.VideoArguments`]) to [`~trl.SFTConfig`], and changes the parent's
    fields below.

    Parameters:
        learning_rate (`float`, *optional*, defaults to `1e-6`):
            Initial learning rate (paper, section 4.1).
        num_train_epochs (`float`, *optional*, defaults to `1.0`):
            How often the data are seen (paper: once).
        completion_only_loss (`bool`, *optional*, defaults to `True`):
            Score the completion's tokens only. `False`, as in the released code: the prompt's text too; visual tokens are
            never scored.
        max_length (`int`, *optional*):
            Most tokens of a row, prompt and completion. A longer row is an error (see `on_bad_video`), it is never
            truncated. `None`: no limit beyond `max_prompt_length`.
        padding_free (`bool`, *optional*, defaults to `False`):
            Put the rows of a batch behind each other in one sequence, each blind to the others, instead of padding them;
            each distinct video of the batch is then read once by the vision tower. Needs a model that can share prompts
            (`share_prefix` of [`TGRPOConfig`]); others are padded, with a warning.
        dataloader_num_workers (`int`, *optional*, defaults to `2`):
            Processes that decode and encode the next batches while a step runs. `0`: in the training process, one after the
            other.
        remove_unused_columns (`bool`, *optional*, defaults to `False`):
            Must stay `False`: the media would be removed.

    Raises:
        `ValueError`: a value out of its range.
        `NotImplementedError`: settings of [`~trl.SFTConfig`] that do not go with media.
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "Initial learning rate (paper: 1e-6)."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "How often the data are seen (paper: once)."})
    completion_only_loss: bool | None = field(
        default=True,
        metadata={
            "help": "Score the completion's tokens only. False, as in the released code: the prompt's text too; visual "
            "tokens are never scored."
        },
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens of a row, prompt and completion. A longer row is an error, it is never truncated. None: no "
            "limit beyond max_prompt_length."
        },
    )
    padding_free: bool = field(
        default=False,
        metadata={
            "help": "Put the rows of a batch behind each other in one sequence, each blind to the others, instead of padding "
            "them."
        },
    )
    dataloader_num_workers: int = field(
        default=2,
        metadata={"help": "Processes that decode and encode the next batches while a step runs. 0: none."},
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay False: the media would be removed."}
    )

    def __post_init__(self):
        self.check_media()
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length ({self.max_length}) must be at least 1, or unset.")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns=True would remove the media. Leave it False.")
        for name, remedy in (
            ("packing", "TRL packs rows before their media are known. Use padding_free=True"),
            ("assistant_only_loss", "The loss is on the one completion of a row already. Use completion_only_loss"),
        ):
            if getattr(self, name):
                raise NotImplementedError(f"{name}=True is not supported for rows with media. {remedy}.")
        if self.padding_free and self.completion_only_loss is False:
            raise NotImplementedError(
                "padding_free=True scores completions only. Set completion_only_loss=True, or padding_free=False."
            )
        super().__post_init__()


class VideoSFTTrainer(SFTTrainer):
    """
    Supervised training on prompts with videos, images or neither, and their completions: the cold start of
    [Video-R1](https://huggingface.co/papers/2503.21776). Videos are loaded, preprocessed, placed and numbered as in
    [`TGRPOTrainer`].

    Overrides, one reason each:

    - `compute_loss`: the rows' media reach the model.
    - `_load_from_checkpoint`, `_load_best_model`: as in [`TGRPOTrainer`].

    Example:

    ```python
    from videor1_trl import VideoSFTConfig, VideoSFTTrainer, load_video_r1

    trainer = VideoSFTTrainer(
        model="Qwen/Qwen2.5-VL-7B-Instruct",
        args=VideoSFTConfig("qwen-cold-start"),
        train_dataset=load_video_r1("Video-R1-COT-165k.json"),
    )
    trainer.train()
    ```

    Args:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            As in [`~trl.SFTTrainer`]; any model whose processor takes the media of the data.
        args ([`VideoSFTConfig`], *optional*):
            Configuration. `None`: the defaults, in a folder named after the model.
        train_dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]):
            Columns `prompt` (conversational); `completion` (text, or one assistant message), or else `process` and
            `solution`, whose target is `process`, a newline and `solution` (paper); and, per row, optionally `video` or
            `videos`, `image` or `images`.
        eval_dataset (*optional*):
            As in [`~trl.SFTTrainer`], with the same columns.
        processing_class ([`~transformers.ProcessorMixin`], *optional*):
            As in [`~trl.SFTTrainer`].
        video_loader (`Callable`, defaults to [`load_video`]):
            As in [`TGRPOTrainer`]; called in the processes of `args.dataloader_num_workers`.
        **kwargs:
            Further arguments of [`~trl.SFTTrainer`], such as `callbacks`, `optimizers` and `peft_config`.

    Raises:
        `ImportError`: the installed TRL has other methods than those overridden here.
        `NotImplementedError`: a `data_collator` or a `formatting_func`.
        `ValueError`: data without prompts or completions; a model and data that do not fit.
    """

    _tag_names = ["trl", "sft", "video-r1"]

    def __init__(
        self,
        model: Any,
        args: VideoSFTConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        video_loader: Callable[..., tuple[torch.Tensor, Any]] = load_video,
        **kwargs: Any,
    ):
        check_parent(SFTTrainer, SFT_HOOKS)
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = VideoSFTConfig(f"{name.split('/')[-1]}-SFT")
        if not isinstance(args, VideoSFTConfig):
            raise TypeError(f"args is a {type(args).__name__}; VideoSFTTrainer needs a VideoSFTConfig.")
        for name, remedy in (
            ("data_collator", "Pass a video_loader"),
            ("formatting_func", "Give the dataset a column 'completion'"),
        ):
            if kwargs.get(name) is not None:
                raise NotImplementedError(f"{name} would bypass the media of the rows. {remedy} instead.")
        check_completions(train_dataset, eval_dataset)
        padding_free, args.padding_free = args.padding_free, False  # TRL knows it for rows without media only
        args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
        super().__init__(
            model,
            args,
            list,  # until the processor is there
            undecoded(train_dataset),
            undecoded(eval_dataset),
            processing_class,
            **kwargs,
        )
        args.padding_free = padding_free
        self._accelerated()
        kinds = media_kinds(self.train_dataset, self.eval_dataset, self.processing_class)
        self._dummies = Dummies(kinds, self.processing_class, args.pixel_settings)
        self.data_collator = self._collator(video_loader)

    def _accelerated(self) -> None:
        """What a forward call needs to know of the model."""
        model: Any = self.accelerator.unwrap_model(self.model)
        correct_positions(model)
        self._tower = Tower(model, autocast=self.accelerator.autocast)
        reason = "the router's auxiliary loss needs padded rows" if self.aux_loss_enabled else cannot_share(model)
        if self.label_smoother is not None or self.compute_loss_func is not None:
            reason = "the loss is another than TRL's"
        self._packs = self.args.padding_free and reason is None
        if self.args.padding_free and reason is not None:
            logger.warning(f"Rows are padded (padding_free=False): {reason}.")

    def _collator(self, video_loader: Callable[..., tuple[torch.Tensor, Any]]) -> Completions:
        args, model = self.args, self.accelerator.unwrap_model(self.model)
        ends = end_token_ids(model.config, model.generation_config, self._tokenizer)
        loader = BatchLoader(
            self.processing_class,
            video_loader,
            None,
            video_settings=args.video_settings,
            encode_settings=args.pixel_settings,
            max_prompt_length=args.max_prompt_length,
            on_bad_video=args.on_bad_video,
            num_workers=args.video_num_workers,
            cache_bytes=int(args.video_cache_gb * 2**30 / max(1, args.dataloader_num_workers)),
        )
        self._pad_token_id = ends[0] if self._tokenizer.pad_token_id is None else self._tokenizer.pad_token_id
        return Completions(
            loader,
            end_token_ids=ends,
            placeholder_ids=placeholder_token_ids(model, self.processing_class),
            pad_token_id=self._pad_token_id,
            max_length=args.max_length,
            completion_only=args.completion_only_loss is not False,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        tensors = {key: value for key, value in inputs.items() if key not in ("encoded", "skipped")}
        if self.args.on_bad_video == "skip":
            self._count_skipped(inputs["skipped"])
        call = self._model_call(model, inputs["encoded"], tensors, packs=self._packs and not return_outputs)
        return super().compute_loss(call, tensors, return_outputs, num_items_in_batch)

    def _count_skipped(self, skipped: list[str]) -> None:
        mode = "train" if self.model.training else "eval"
        count = self.accelerator.gather(torch.tensor(len(skipped), device=self.accelerator.device)).sum().item()
        self._metrics[mode]["video/skipped_rows"].append(count)
        for reason in skipped:
            logger.warning(f"Skipped (on_bad_video='skip'): {reason}")

    def _model_call(
        self, model: Any, encoded: list[EncodedPrompt], tensors: dict[str, torch.Tensor], packs: bool
    ) -> Callable[..., Any]:
        """The model with the rows' media, for the parent to call with its padded rows (B, L)."""
        rows = encoded + (self._dummies.missing(encoded) if calls_must_match(self) else [])
        bidirectional = any("token_type_ids" in row.token_types for row in rows)  # Gemma 3: images see ahead
        if not packs or bidirectional:
            return functools.partial(_padded_call, model, rows, self._pad_token_id)
        completions = [row[row != -100] for row in tensors["labels"]]
        completions += [tensors["labels"].new_zeros(0)] * (len(rows) - len(encoded))
        ids = pad_sequence(completions, batch_first=True, padding_value=-100)
        return PackedCall(model, self._tower, rows, ids, ids != -100, self._pad_token_id)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        model = self.model if model is None else model
        if self.is_fsdp_enabled or not takes_checkpoint(model):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_checkpoint(model, resume_from_checkpoint)

    def _load_best_model(self):
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or not takes_checkpoint(self.model):
            return super()._load_best_model()
        self._load_from_checkpoint(self.state.best_model_checkpoint)


def _padded_call(
    model: Any,
    rows: list[EncodedPrompt],
    pad_token_id: int,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """
    The model on right-padded rows (B, L) with their media, and with the dummies that `rows` (B + D) ends with below them.
    """
    num_rows, length = input_ids.shape
    dummies = rows[num_rows:]
    room = max([0, *(len(dummy.input_ids) - length for dummy in dummies)])

    def widened(tensor: torch.Tensor, value: int) -> torch.Tensor:
        return pad(tensor, (0, room, 0, len(dummies)), value=value)

    input_ids, attention_mask = widened(input_ids, pad_token_id), widened(attention_mask, 0)
    for row, dummy in enumerate(dummies, start=num_rows):
        input_ids[row, : len(dummy.input_ids)] = input_ids.new_tensor(dummy.input_ids)
        attention_mask[row, : len(dummy.input_ids)] = 1
    inputs = {key: value.to(input_ids.device, non_blocking=True) for key, value in collate_features(rows).items()}
    for key, values in collate_token_types(rows).items():
        types = [torch.tensor(value) for value in values]
        padded = pad_sequence(types, batch_first=True)
        inputs[key] = pad(padded, (0, input_ids.shape[1] - padded.shape[1])).to(input_ids.device)
    if labels is not None:
        inputs["labels"] = widened(labels, -100)
    outputs = model(input_ids=input_ids, attention_mask=attention_mask, **inputs, **kwargs)
    if dummies and getattr(outputs, "logits", None) is not None:
        outputs.logits = outputs.logits[:num_rows, :length]
    return outputs
