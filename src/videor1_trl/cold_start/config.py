"""The settings of the supervised cold start."""

from dataclasses import dataclass, field

from trl import SFTConfig

from ..media.settings import VideoArguments, check_whole


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
        self.check_ranges()
        if self.max_length is not None:
            check_whole("max_length", self.max_length, 1, ", or unset")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns=True would remove the media. Leave it False.")
        for name, remedy in (
            ("packing", "TRL packs rows before their media are known. Use padding_free=True"),
            ("eval_packing", "TRL packs rows before their media are known. Use padding_free=True"),
            ("assistant_only_loss", "The loss is on the one completion of a row already. Use completion_only_loss"),
        ):
            if getattr(self, name):
                raise NotImplementedError(f"{name}=True is not supported for rows with media. {remedy}.")
        if self.padding_free and self.completion_only_loss is False:
            raise NotImplementedError(
                "padding_free=True scores completions only. Set completion_only_loss=True, or padding_free=False."
            )
        if self.activation_checkpointing is None:  # TRL's default has the name that transformers gives up
            self.activation_checkpointing = self.gradient_checkpointing
        super().__post_init__()
