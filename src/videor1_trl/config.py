"""The settings of a T-GRPO run: the paper's recipe as defaults, and the temporal fields."""

from dataclasses import dataclass, field

from trl import GRPOConfig

from .video_arguments import VideoArguments


@dataclass
class TGRPOConfig(VideoArguments, GRPOConfig):
    r"""
    Configuration class for the [`TGRPOTrainer`].

    Holds only what T-GRPO adds to [`~trl.GRPOConfig`], and the parent's fields whose defaults follow the paper
    (Video-R1, arXiv 2503.21776): `beta=0.04`, `top_p=0.95`, `max_completion_length=768`, `loss_type="grpo"`,
    `max_grad_norm=5.0`, `weight_decay=0.01` and `lr_scheduler_type="cosine"`. The fields of the media are those of
    [`~video_arguments.VideoArguments`].

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
        self.check_media()
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

    def contrast_generations(self, num_generations: int) -> int:
        """Contrast rollouts of a group of `num_generations`: the configured share of it, at least 1."""
        if self.num_contrast_generations is None:
            return max(1, num_generations // 2)
        return max(1, round(self.num_contrast_generations * num_generations / self.num_generations))
