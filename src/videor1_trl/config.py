"""The settings of a T-GRPO run: the paper's recipe as defaults, the temporal and the video fields."""

from dataclasses import dataclass, field

from trl import GRPOConfig

from .video import leaves_an_even_count


@dataclass
class TGRPOConfig(GRPOConfig):
    r"""
    Configuration class for the [`TGRPOTrainer`].

    Holds only what T-GRPO adds to [`~trl.GRPOConfig`], and the parent's fields whose defaults follow the paper
    (Video-R1, arXiv 2503.21776): `beta=0.04`, `top_p=0.95`, `max_completion_length=768`, `loss_type="grpo"`,
    `max_grad_norm=5.0`, `weight_decay=0.01` and `lr_scheduler_type="cosine"`.

    Parameters:
        > Parameters that control the temporal reward

        num_contrast_generations (`int`, *optional*):
            Contrast rollouts per video prompt (>= 1, at most `num_generations`). `None`: half of `num_generations`
            (paper). In evaluation the same share of `num_generations_eval`, at least 1.
        temporal_alpha (`float`, *optional*, defaults to `0.3`):
            Bonus of a correct rollout whose group passes, in reward units (>= 0).
        temporal_mu (`float`, *optional*, defaults to `1.0`):
            A group passes if its share of correct ordered rollouts is at least `temporal_mu` times that of its
            contrast rollouts (>= 0). Paper: 1.0; released code: 0.8.
        temporal_threshold (`float`, *optional*, defaults to `0.5`):
            A rollout is correct if its accuracy is above this, in [0, 1). Paper: 0.5; released code: 0.1.
        temporal_bonus (`str`, *optional*, defaults to `"reward"`):
            Where the bonus goes: `"reward"` adds it to the reward before the standardisation (the paper's formula, in
            which it can cancel), `"advantage"` to the standardised advantage, where it cannot.
        accuracy_reward_name (`str`, *optional*):
            Name of the reward function that says which rollouts are correct. `None`: the first of `reward_funcs`.

        > Parameters that control the media

        on_bad_video (`str`, *optional*, defaults to `"raise"`):
            What a video, image or prompt does that cannot be used: `"raise"` ends the run with an error that names
            it, `"skip"` keeps its rows out of the loss and the rewards, and counts them in `video/skipped_rows`.
        video_fps (`float`, *optional*, defaults to `2.0`):
            Frames sampled per second of video (> 0).
        video_min_frames (`int`, *optional*, defaults to `4`):
            Fewest frames sampled from a video (>= 1).
        video_max_frames (`int`, *optional*, defaults to `16`):
            Most frames sampled from a video (>= `video_min_frames`).
        video_num_frames (`int`, *optional*):
            Exact number of frames of every video, instead of the three fields above. `None`: they decide.
        video_max_pixels (`int`, *optional*, defaults to `100352`):
            Most pixels of one frame after resizing (paper: 128 * 28 * 28). `None`, or a processor with a fixed
            resolution: the processor decides.
        video_min_pixels (`int`, *optional*):
            Fewest pixels of one frame after resizing. `None`: the processor decides.
        image_max_pixels (`int`, *optional*):
            Most pixels of an image after resizing. `None`: the processor decides.
        video_num_workers (`int`, *optional*, defaults to `4`):
            Threads that decode a batch's videos, and the next batch's while this step runs (>= 0). `0`: no threads;
            `video_loader` and `contrast` then run in the main thread only.
        video_cache_gb (`float`, *optional*, defaults to `1.0`):
            Decoded frames, in GiB, kept for when their video comes again (>= 0), on each process. `0.0`: none.
        max_prompt_length (`int`, *optional*, defaults to `16384`):
            Most tokens of a prompt, media included. A longer prompt is an error, it is never truncated. `None`: no
            limit.

        > Parameters that control the computation

        share_prefix (`bool`, *optional*, defaults to `True`):
            Compute each distinct prompt, with its vision tower, once for the rows that share it: in rollouts, and in the
            log-probabilities of the policy, the reference and the old policy, forward and backward. `False`: row by
            row.
    """

    # The paper's recipe (section 4.1), where TRL's defaults differ
    beta: float = field(
        default=0.04,
        metadata={"help": "Weight of the KL divergence to the reference model (paper: 0.04). 0.0: none is loaded."},
    )
    top_p: float = field(
        default=0.95,
        metadata={"help": "Cumulative probability of the tokens to sample from, in (0, 1] (paper: 0.95)."},
    )
    max_completion_length: int | None = field(
        default=768, metadata={"help": "Most tokens of a completion (paper: 768)."}
    )
    loss_type: str = field(
        default="grpo",
        metadata={"help": "Loss as in GRPOConfig; 'grpo' averages over a completion, then over rows (released code)."},
    )
    max_grad_norm: float = field(default=5.0, metadata={"help": "Gradient clipping (paper: 5)."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay (paper: 0.01)."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule (paper: cosine)."})

    # Parameters that control the temporal reward
    num_contrast_generations: int | None = field(
        default=None,
        metadata={
            "help": "Contrast rollouts per video prompt (>= 1, at most num_generations). None: half of "
            "num_generations (paper)."
        },
    )
    temporal_alpha: float = field(
        default=0.3,
        metadata={"help": "Bonus of a correct rollout whose group passes, in reward units (>= 0)."},
    )
    temporal_mu: float = field(
        default=1.0,
        metadata={
            "help": "A group passes if its share of correct ordered rollouts is at least temporal_mu times that of "
            "its contrast rollouts (>= 0). Paper: 1.0; released code: 0.8."
        },
    )
    temporal_threshold: float = field(
        default=0.5,
        metadata={
            "help": "A rollout is correct if its accuracy is above this, in [0, 1). Paper: 0.5; released code: 0.1."
        },
    )
    temporal_bonus: str = field(
        default="reward",
        metadata={
            "help": "Where the bonus goes: 'reward', before the standardisation (the paper's formula, in which it can "
            "cancel), or 'advantage', after it.",
            "choices": ["reward", "advantage"],
        },
    )
    accuracy_reward_name: str | None = field(
        default=None,
        metadata={
            "help": "Name of the reward function that says which rollouts are correct. None: the first of reward_funcs."
        },
    )

    # Parameters that control the media
    on_bad_video: str = field(
        default="raise",
        metadata={
            "help": "What a video, image or prompt does that cannot be used: 'raise' an error that names it, or 'skip' "
            "its rows, which then carry no gradient and are counted in video/skipped_rows.",
            "choices": ["raise", "skip"],
        },
    )
    video_fps: float = field(default=2.0, metadata={"help": "Frames sampled per second of video (> 0)."})
    video_min_frames: int = field(default=4, metadata={"help": "Fewest frames sampled from a video (>= 1)."})
    video_max_frames: int = field(
        default=16, metadata={"help": "Most frames sampled from a video (>= video_min_frames)."}
    )
    video_num_frames: int | None = field(
        default=None,
        metadata={
            "help": "Exact number of frames of every video, instead of video_fps, video_min_frames and "
            "video_max_frames. None: they decide."
        },
    )
    video_max_pixels: int | None = field(
        default=128 * 28 * 28,
        metadata={
            "help": "Most pixels of one frame after resizing (paper: 128 * 28 * 28 = 100352). None: the processor "
            "decides."
        },
    )
    video_min_pixels: int | None = field(
        default=None, metadata={"help": "Fewest pixels of one frame after resizing. None: the processor decides."}
    )
    image_max_pixels: int | None = field(
        default=None, metadata={"help": "Most pixels of an image after resizing. None: the processor decides."}
    )
    video_num_workers: int = field(
        default=4,
        metadata={
            "help": "Threads that decode a batch's videos, and the next batch's while this step runs (>= 0). 0: no "
            "threads; video_loader and contrast then run in the main thread only."
        },
    )
    video_cache_gb: float = field(
        default=1.0,
        metadata={
            "help": "Decoded frames, in GiB, kept for when their video comes again (>= 0), on each process. 0.0: none."
        },
    )
    max_prompt_length: int | None = field(
        default=16384,
        metadata={
            "help": "Most tokens of a prompt, media included (paper: 16384). A longer prompt is an error, it is never "
            "truncated. None: no limit."
        },
    )

    # Parameters that control the computation
    share_prefix: bool = field(
        default=True,
        metadata={
            "help": "Compute each distinct prompt, with its vision tower, once for the rows that share it. False: row "
            "by row."
        },
    )

    def __post_init__(self):
        self._check_temporal()
        self._check_media()
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise NotImplementedError(
                f"multi_objective_aggregation={self.multi_objective_aggregation!r} would rescale the temporal bonus "
                "on its own. Use 'sum_then_normalize'."
            )
        if self.use_vllm:
            raise NotImplementedError(
                "use_vllm=True is not supported: TRL 1.16 hands vLLM images only, so the rollouts would not see the "
                "videos. Use transformers' generation (use_vllm=False)."
            )
        super().__post_init__()

    def _check_temporal(self) -> None:
        contrast, group = self.num_contrast_generations, self.num_generations
        if contrast is not None and not 1 <= contrast <= group:
            raise ValueError(
                f"num_contrast_generations ({contrast}) must be between 1 and num_generations ({group}). Change it, or "
                f"leave it unset for {max(1, group // 2)}; for no contrast rollouts at all pass "
                "temporal_reward_func=None to the trainer."
            )
        for name, lowest, below in (
            ("temporal_alpha", 0, float("inf")),
            ("temporal_mu", 0, float("inf")),
            ("temporal_threshold", 0, 1),
        ):
            value = getattr(self, name)
            if not lowest <= value < below:
                raise ValueError(f"{name} ({value}) must be at least {lowest} and below {below}.")
        if self.temporal_bonus not in ("reward", "advantage"):
            raise ValueError(f"temporal_bonus ({self.temporal_bonus!r}) must be 'reward' or 'advantage'.")

    def _check_media(self) -> None:
        if self.on_bad_video not in ("raise", "skip"):
            raise ValueError(f"on_bad_video ({self.on_bad_video!r}) must be 'raise' or 'skip'.")
        if not self.video_fps > 0:
            raise ValueError(f"video_fps ({self.video_fps}) must be positive.")
        bounds = self.video_min_frames, self.video_max_frames
        if self.video_num_frames is None and not (bounds[0] >= 1 and leaves_an_even_count(*bounds)):
            raise ValueError(
                f"video_min_frames ({self.video_min_frames}) must be at least 1 and at most video_max_frames "
                f"({self.video_max_frames}), with an even number of at least 2 between them: frames are sampled in pairs."
            )
        for name in (
            "video_num_frames",
            "video_max_pixels",
            "video_min_pixels",
            "image_max_pixels",
            "max_prompt_length",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1, or unset.")
        for name in ("video_num_workers", "video_cache_gb"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 0.")
        if self.video_max_pixels and self.video_min_pixels and self.video_min_pixels > self.video_max_pixels:
            raise ValueError(
                f"video_min_pixels ({self.video_min_pixels}) must be at most video_max_pixels ({self.video_max_pixels})."
            )

    @property
    def video_settings(self) -> dict[str, float | int | None]:
        """How frames are sampled, as keywords of [`load_video`]."""
        return {
            "fps": self.video_fps,
            "min_frames": self.video_min_frames,
            "max_frames": self.video_max_frames,
            "num_frames": self.video_num_frames,
        }

    def contrast_generations(self, num_generations: int) -> int:
        """Contrast rollouts of a group of `num_generations`: the configured share of it, at least 1."""
        if self.num_contrast_generations is None:
            return max(1, num_generations // 2)
        return max(1, round(self.num_contrast_generations * num_generations / self.num_generations))
