"""The settings of a T-GRPO run: the paper's recipe as defaults, and the temporal fields."""

from dataclasses import dataclass, field

from trl import GRPOConfig

from .media.settings import VideoArguments, check_whole, is_whole
from .objectives.chosen import OBJECTIVES, objective_of
from .objectives.dynamics import ROUTERS
from .objectives.mirrored_interval import REFERENCES
from .objectives.objective import Needs


LOSS_TYPES = (
    "grpo",
    "bnpo",
    "dr_grpo",
    "dapo",
    "cispo",
    "sapo",
    "luspo",
    "vespo",
)  # of TRL, whose field takes any text


SCALES = ("group", "batch", "none", "task")


@dataclass
class TGRPOConfig(VideoArguments, GRPOConfig):
    r"""
    Configuration class for the [`TGRPOTrainer`].

    Holds only what T-GRPO adds to [`~trl.GRPOConfig`], and the parent's fields whose defaults follow the paper
    (Video-R1, arXiv 2503.21776): `beta=0.04`, `top_p=0.95`, `max_completion_length=768`, `loss_type="grpo"`,
    `max_grad_norm=5.0`, `weight_decay=0.01` and `lr_scheduler_type="cosine"`. `scale_rewards` may also be `"task"`. The fields of the media are those of
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
        objective (`str`, *optional*, defaults to `"tgrpo"`):
            What the contrast of a group is worth: `"tgrpo"` (the paper), `"relation"`, `"crpo"`, `"log_prob_drop"`,
            `"mirrored_interval"` or `"gap"`. Without effect where the trainer is given a `temporal_reward_func`.
        objective_weight (`float`, *optional*):
            Size of the bonus of the objectives other than `"tgrpo"`, in reward units (>= 0). `None`: its paper's.
        objective_router (`str`, *optional*, defaults to `"labels"`):
            How `"relation"`, `"crpo"` and `"mirrored_interval"` know which questions are about the order of time: by
            `"labels"` in a column, by the model's `"self"` (ordered rollouts do better than contrast ones), by the `"gap"`
            (in a share p - p~ of its groups, the others count for nothing), or `"none"`: all are.
        objective_column (`str`, *optional*):
            The column of the labels, `"dynamic"` or `"static"`; a row without one has no bonus.
        objective_explore (`float`, *optional*, defaults to `0.0`):
            Share of the groups that the router `"self"` would call static and that are taken for dynamic, in [0, 1]; of
            all groups the least share that `"gap"` takes.
        objective_margin (`float`, *optional*, defaults to `0.0`):
            By how much ordered rollouts must do better: a share for the router `"self"`, nats a token for
            `"log_prob_drop"` (>= 0).
        objective_reference (`str`, *optional*, defaults to `"gold"`):
            Whose interval `"mirrored_interval"` mirrors: that of the solution (`"gold"`), or that of each rollout's own
            answer (`"prediction"`, the released code).

        reward_seconds (`float`, *optional*):
            Seconds that a call of a reward function may take (> 0), which is then made in a thread; beyond them the run ends
            with an error that names it. `None`: no limit.

        > Parameters that control which groups teach, and how much

        dynamic_sampling (`int`, *optional*, defaults to `0`):
            Rounds, at most, of further prompts in the place of groups that teach nothing, since all their rollouts have
            the same reward (>= 0). Each round makes rollouts for as many prompts as the rank with most of them needs.

        > Parameters that control the computation

        share_prefix (`bool`, *optional*, defaults to `True`):
            Compute each distinct prompt, with its vision tower, once for the rows that share it: in rollouts, and in the
            log-probabilities of the policy, the reference and the old policy, forward and backward. `False`: row by
            row.
        vllm_max_logp_difference (`float`, *optional*):
            With `use_vllm`: largest mean difference between vLLM's and the trained model's log-probabilities, in nats a
            token (> 0), with which the first rollouts are trained on. `None`: 0.002 in float32, else 0.05.

        > Parameters that control what can be watched

        log_rollouts_steps (`int`, *optional*):
            Every so many optimizer steps (>= 1), at the first step and in each evaluation rollouts are recorded in
            `rollouts.jsonl` in `output_dir`, with their frames, and shown in the loggers of `report_to`. `None`: never.
        log_rollouts_groups (`int`, *optional*, defaults to `4`):
            Groups recorded of such a step and of each evaluation (>= 1). `None`: all.
        log_frames (`bool`, *optional*, defaults to `True`):
            Keep what the model saw as small pictures beside the records. `False`: no pixel of a video or image is written or
            sent to a logger.
        log_frame_side (`int`, *optional*, defaults to `160`):
            Longer side of such a picture, in pixels (>= 16).
        log_rollouts_mib (`float`, *optional*, defaults to `512.0`):
            Most MiB of records and pictures that a process keeps (> 0); the oldest go first.
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
    objective: str = field(
        default="tgrpo",
        metadata={
            "help": "What the contrast of a group is worth; 'tgrpo' is the paper's.",
            "choices": list(OBJECTIVES),
        },
    )
    objective_weight: float | None = field(
        default=None,
        metadata={
            "help": "Size of the bonus of the objectives other than tgrpo, in reward units (>= 0). None: its paper's."
        },
    )
    objective_router: str = field(
        default="labels",
        metadata={
            "help": "How relation, crpo and mirrored_interval know which questions are about the order of time: by "
            "'labels' in a column, by the model itself ('self'), by the 'gap' p - p~ (in that share of the groups), or "
            "'none': all are.",
            "choices": list(ROUTERS),
        },
    )
    objective_column: str | None = field(
        default=None, metadata={"help": "Column of the labels, 'dynamic' or 'static'; a row without one has no bonus."}
    )
    objective_explore: float = field(
        default=0.0,
        metadata={
            "help": "Share of the groups that the router 'self' would call static and that are taken for dynamic, in "
            "[0, 1]; of all groups the least share that 'gap' takes."
        },
    )
    objective_margin: float = field(
        default=0.0,
        metadata={
            "help": "By how much ordered rollouts must do better: a share for the router 'self', nats a token for "
            "log_prob_drop (>= 0)."
        },
    )
    objective_reference: str = field(
        default="gold",
        metadata={
            "help": "Whose interval mirrored_interval mirrors: that of the solution ('gold'), or that of each rollout's own "
            "answer ('prediction', the released code).",
            "choices": list(REFERENCES),
        },
    )

    reward_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Seconds that a call of a reward function may take (> 0), which is then made in a thread; beyond them "
            "the run ends with an error that names it. None: no limit."
        },
    )

    # Parameters that control which groups teach, and how much
    dynamic_sampling: int = field(
        default=0,
        metadata={
            "help": "Rounds, at most, of further prompts in the place of groups whose rollouts all have the same reward (>= 0)."
        },
    )
    scale_rewards: str = field(
        default="group",
        metadata={
            "help": "What centred rewards are divided by: the standard deviation of their 'group', of the 'batch', 'none', or the "
            "running one of their 'task' (problem type; OneThinker)."
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
    vllm_max_logp_difference: float | None = field(
        default=None,
        metadata={
            "help": "With use_vllm: largest mean difference between vLLM's and the trained model's log-probabilities, in nats a "
            "token (> 0), with which the first rollouts are trained on. None: 0.002 in float32, else 0.05."
        },
    )

    # Parameters that control what can be watched
    log_rollouts_steps: int | None = field(
        default=None,
        metadata={
            "help": "Every so many optimizer steps (>= 1), at the first and in each evaluation rollouts are recorded in "
            "rollouts.jsonl, with their frames, and shown in the loggers of report_to. None: never."
        },
    )
    log_rollouts_groups: int | None = field(
        default=4, metadata={"help": "Groups recorded of such a step and of each evaluation (>= 1). None: all."}
    )
    log_frames: bool = field(
        default=True,
        metadata={
            "help": "Keep what the model saw as small pictures beside the records. False: no pixel is written or sent."
        },
    )
    log_frame_side: int = field(default=160, metadata={"help": "Longer side of such a picture, in pixels (>= 16)."})
    log_rollouts_mib: float = field(
        default=512.0,
        metadata={"help": "Most MiB of records and pictures that a process keeps (> 0); the oldest go first."},
    )

    def __post_init__(self) -> None:
        self.check_ranges()
        self._check_watched()
        for name, lowest in (("num_generations", 2), ("num_iterations", 1), ("steps_per_generation", 1)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), lowest)
        self._check_temporal()
        check_whole("dynamic_sampling", self.dynamic_sampling, 0, ": rounds of further prompts")
        scale = str(self.scale_rewards).lower()
        if scale not in (*SCALES, "true", "false"):
            raise ValueError(f"scale_rewards ({self.scale_rewards!r}) must be one of {', '.join(SCALES)}.")
        self.scale_rewards = {"true": "group", "false": "none"}.get(scale, scale)  # as TRL reads them
        if self.loss_type not in LOSS_TYPES:
            raise ValueError(f"loss_type ({self.loss_type!r}) must be one of {', '.join(LOSS_TYPES)}.")
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise NotImplementedError(
                f"multi_objective_aggregation={self.multi_objective_aggregation!r} would rescale the temporal bonus "
                "on its own. Use 'sum_then_normalize'."
            )
        if self.use_vllm:
            self._check_vllm()
        if self.activation_checkpointing is None:  # TRL's default has the name that transformers gives up
            self.activation_checkpointing = self.gradient_checkpointing
        super().__post_init__()

    def _check_watched(self) -> None:
        for name, lowest in (("log_rollouts_steps", 1), ("log_rollouts_groups", 1), ("log_frame_side", 16)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), lowest, "" if name == "log_frame_side" else ", or unset")
        if not 0 < self.log_rollouts_mib < float("inf"):
            raise ValueError(f"log_rollouts_mib ({self.log_rollouts_mib}) must be above 0.")

    def _check_vllm(self) -> None:
        if self.vllm_model_impl != "vllm":
            raise NotImplementedError(
                f"use_vllm with vllm_model_impl={self.vllm_model_impl!r} is not supported: transformers' models in vLLM take no media "
                "that are encoded already. Use 'vllm'."
            )
        for name, remedy in (
            (
                "temperature",
                "by which the trained model's log-probabilities would not be divided. Set the field temperature",
            ),
            ("seed", "with which all rollouts of a prompt would be the same. Set the field seed"),
            ("n", "and each row is one completion. Set num_generations"),
        ):
            if name in (self.generation_kwargs or {}):
                raise ValueError(f"generation_kwargs has {name!r}, {remedy}.")
        bound = self.vllm_max_logp_difference
        if bound is not None and not bound > 0:
            raise ValueError(f"vllm_max_logp_difference ({bound}) must be above 0, or unset.")

    def _check_temporal(self) -> None:
        contrast, group = self.num_contrast_generations, self._group_size
        if contrast is not None and not (is_whole(contrast) and 1 <= contrast <= group):
            raise ValueError(
                f"num_contrast_generations ({contrast}) must be {'' if is_whole(contrast) else 'a whole number '}between 1 and num_generations ({group}). Change it, or "
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
        if self.reward_seconds is not None and not 0 < self.reward_seconds < float("inf"):
            raise ValueError(f"reward_seconds ({self.reward_seconds}) must be above 0, or unset.")
        if self.temporal_bonus not in ("reward", "advantage"):
            raise ValueError(f"temporal_bonus ({self.temporal_bonus!r}) must be 'reward' or 'advantage'.")
        objective = objective_of(self.objective, self)  # refuses its parameters
        chosen = contrast not in (None, max(1, group // 2))  # recipes write the default out
        if chosen and not Needs.of(objective).contrast_rollouts:
            raise ValueError(
                f"num_contrast_generations ({contrast}) has no effect on objective={self.objective!r}, which makes no contrast rollouts. "
                "Leave it unset."
            )
        cancels = self.objective == "mirrored_interval" and self.objective_reference == "gold"
        if cancels and self.temporal_bonus == "reward":
            raise ValueError(
                "objective='mirrored_interval' with objective_reference='gold' pays all rollouts of a group the same, which the group's "
                "mean takes out again. Set temporal_bonus='advantage', or objective_reference='prediction'."
            )

    def contrast_generations(self, num_generations: int) -> int:
        """Contrast rollouts of a group of `num_generations`: the configured share of it, at least 1."""
        if self.num_contrast_generations is None:
            return max(1, num_generations // 2)
        return max(1, round(self.num_contrast_generations * num_generations / self._group_size))

    @property
    def _group_size(self) -> int:
        """`num_generations`, which TRL's type lets be `None`."""
        if self.num_generations is None:
            raise ValueError("num_generations (None) must be at least 2.")
        return self.num_generations

    @property
    def prompts_per_generation(self) -> int:
        """Prompts that are answered at a time, on all processes."""
        assert self.generation_batch_size is not None  # TRL has filled it in
        return self.generation_batch_size // self._group_size

    @property
    def uses_per_generation(self) -> int:
        """Micro-batches, of all gradient accumulation, that are trained on between one generation and the next."""
        assert self.steps_per_generation is not None  # TRL has filled it in
        return self.steps_per_generation * self.num_iterations
