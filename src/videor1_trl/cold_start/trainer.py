"""The supervised cold start: TRL's `SFTTrainer` on prompts with videos, images or neither, and their rationales."""

import copy
import functools
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from accelerate.logging import get_logger
from datasets import Dataset, IterableDataset
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.utils import ModelOutput
from trl import SFTTrainer

from ..data.batch import BatchLoader
from ..data.columns import Datasets, TrainDataset, media_kinds
from ..data.targets import check_completions, check_num_rows
from ..hooks import SFT_HOOKS, check_parent
from ..media.columns import undecoded
from ..media.loader import VideoLoader
from ..media.video import load_video
from ..models.adapters import check_adapters, check_trainable, started
from ..models.cards import default_folder
from ..models.encoding import EncodedPrompt, EncodeSettings
from ..models.families import ModelOrPath, Processor
from ..models.own_families import model_type_of
from ..models.saving import WholeCheckpoints
from ..models.tokens import end_token_ids
from ..sharing.calls import padded_call
from ..sharing.prompts import AUXILIARY_LOSS, PromptSharing
from .collator import Completions
from .config import VideoSFTConfig


logger = get_logger(__name__)


class VideoSFTTrainer(WholeCheckpoints, SFTTrainer):
    """
    Supervised training on prompts with videos, images or neither, and their completions: the cold start of
    [Video-R1](https://huggingface.co/papers/2503.21776). Videos are loaded, preprocessed, placed and numbered as in
    [`TGRPOTrainer`].

    Overrides, one reason each:

    - `compute_loss`: the rows' media reach the model.
    - what is saved and gone on from: [`~saving.WholeCheckpoints`].

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
            As in [`~trl.SFTTrainer`]; any model whose processor takes the media of the data. A folder or Hub id of a LoRA
            adapter too: see `args.adapter`.
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

    args: VideoSFTConfig
    _tag_names = ["trl", "sft", "video-r1"]

    def __init__(
        self,
        model: ModelOrPath,
        args: VideoSFTConfig | None = None,
        train_dataset: TrainDataset = None,
        eval_dataset: Datasets = None,
        processing_class: Processor | None = None,
        *,
        video_loader: VideoLoader = load_video,
        **kwargs: Any,
    ):
        check_parent(SFTTrainer, SFT_HOOKS)
        args = VideoSFTConfig(default_folder(model, "SFT")) if args is None else args
        if not isinstance(args, VideoSFTConfig):
            raise TypeError(f"args is a {type(args).__name__}; VideoSFTTrainer needs a VideoSFTConfig.")
        for name, remedy in (
            ("data_collator", "Pass a video_loader"),
            ("formatting_func", "Give the dataset a column 'completion'"),
        ):
            if kwargs.get(name) is not None:
                raise NotImplementedError(f"{name} would bypass the media of the rows. {remedy} instead.")
        check_adapters(model, kwargs.get("peft_config"))
        check_completions(train_dataset, eval_dataset)
        check_num_rows(train_dataset, args)
        model, args, processing_class = started(model, args, processing_class, kwargs)
        if args.shuffle_dataset and isinstance(
            train_dataset, (Dataset, IterableDataset)
        ):  # TRL does it for rows it prepares
            train_dataset = train_dataset.shuffle(seed=args.seed)
        datasets = undecoded(train_dataset), undecoded(eval_dataset)
        super().__init__(
            model, _for_parent(args), _no_collator, *datasets, processing_class, **kwargs
        )  # the collator comes below
        self.args.padding_free = args.padding_free
        # The mean is over the labels of an optimizer step, whatever micro-batches and ranks they are on: TRL's loss takes
        # their number, which the Trainer counts only for models whose own loss does (the Qwen-VL classes say no).
        self.model_accepts_loss_kwargs = True
        self.gather_weights_when_saved()
        check_trainable(self.model)
        self._pad_token_id = self._set_pad_token()
        kinds = media_kinds(self.train_dataset, self.eval_dataset, self.processing_class)
        self.sharing = PromptSharing(
            self,
            kinds,
            EncodeSettings(**args.pixel_settings, model_type=model_type_of(self.model)),
            self._pad_token_id,
            wanted=args.padding_free,
            unless=self._why_padded(),
            otherwise="Rows are padded (padding_free=False)",
        )
        self.data_collator = self._collator(video_loader)

    def _why_padded(self) -> str | None:
        if self.label_smoother is not None or self.compute_loss_func is not None:
            return "the loss is another than TRL's"
        return AUXILIARY_LOSS if self.aux_loss_enabled else None

    def _end_tokens(self) -> list[int]:
        model: PreTrainedModel = self.accelerator.unwrap_model(self.model)
        return end_token_ids(model.config, model.generation_config, self._tokenizer)

    def _set_pad_token(self) -> int:
        """The token that fills rows, which TRL sets for its own collators only."""
        args, model = self.args, self.accelerator.unwrap_model(self.model)
        ends = self._end_tokens()
        if args.pad_token is not None:
            if args.pad_token not in self._tokenizer.get_vocab():
                raise ValueError(f"pad_token ({args.pad_token!r}) is no token of the model's. Choose one that is.")
            self._tokenizer.pad_token = args.pad_token
            model.config.get_text_config().pad_token_id = self._tokenizer.pad_token_id
            model.generation_config.pad_token_id = self._tokenizer.pad_token_id
        return ends[0] if self._tokenizer.pad_token_id is None else self._tokenizer.pad_token_id

    def _collator(self, video_loader: VideoLoader) -> Completions:
        args = self.args
        assert not isinstance(args.pad_to_multiple_of, str)  # TRL has made a number or None of it
        processes = max(1, args.dataloader_num_workers)
        return Completions(
            BatchLoader.of(
                args,
                self.processing_class,
                video_loader,
                model_type=model_type_of(self.model),
                num_processes=processes,
            ),
            end_token_ids=self._end_tokens(),
            placeholder_ids=self.sharing.placeholder_ids,
            pad_token_id=self._pad_token_id,
            max_length=args.max_length,
            completion_only=args.completion_only_loss is not False,
            pad_to_multiple_of=args.pad_to_multiple_of,
            end_token_id=None if args.eos_token is None else self._tokenizer.eos_token_id,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        tensors = {key: value for key, value in inputs.items() if key not in ("encoded", "skipped")}
        if self.args.on_bad_video == "skip":
            self._count_skipped(inputs["skipped"])
        call = self._model_call(model, inputs["encoded"], tensors, return_outputs)
        return super().compute_loss(call, tensors, return_outputs, num_items_in_batch)

    def _count_skipped(self, skipped: list[str]) -> None:
        mode = "train" if self.model.training else "eval"
        count = self.accelerator.gather(torch.tensor(len(skipped), device=self.accelerator.device)).sum().item()
        self._metrics[mode]["video/skipped_rows"].append(count)
        for reason in skipped:
            logger.warning(f"Skipped (on_bad_video='skip'): {reason}")

    def _model_call(
        self, model: nn.Module, encoded: list[EncodedPrompt], tensors: dict[str, torch.Tensor], with_outputs: bool
    ) -> Callable[..., ModelOutput]:
        """The model with the rows' media, for the parent to call with its padded rows (B, L)."""
        rows = encoded + self.sharing.dummies(encoded)
        if with_outputs or not self.sharing.packs(rows):  # whoever wants outputs wants those of the padded rows
            return functools.partial(padded_call, model, rows, self._pad_token_id)
        completions = [row[row != -100] for row in tensors["labels"]]
        completions += [tensors["labels"].new_zeros(0)] * (len(rows) - len(encoded))
        ids = pad_sequence(completions, batch_first=True, padding_value=-100)
        return self.sharing.packed_call(model, rows, ids, ids != -100)


def _no_collator(rows: list) -> NoReturn:
    """Stands in for the collator while TRL sets up what that takes; TRL's own would be made for rows without media."""
    raise AssertionError


def _for_parent(args: VideoSFTConfig) -> VideoSFTConfig:
    """A copy of the arguments as TRL must see them: it knows `padding_free` for rows without media only."""
    args = copy.copy(args)
    args.padding_free = False
    assert not isinstance(args.dataset_kwargs, str)  # TRL has read its JSON
    args.dataset_kwargs = {**(args.dataset_kwargs or {}), "skip_prepare_dataset": True}
    return args
