"""An estimate of the memory that a run needs on one device, from the model's shape and its batches: nothing is run."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from torch import nn
from transformers import PreTrainedConfig

from ..sharing.cache import RoomyLayer


# How far the estimate may lie from what is needed: on tiny models on a CPU tests/test_memory.py holds it to that.
STATED_FACTOR = 1.5

SHARDINGS = {"none": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3}
_TILE = (4096, 32768)  # tokens and vocabulary that TRL's fused head scores at a time
_BUCKET = 500_000_000  # elements of DeepSpeed's buffers for reducing and gathering, by default
_LIVE = 1_000_000_000  # parameters that ZeRO-3 keeps gathered, by default
# Bytes of optimizer state per trainable parameter: values in the dtype of the state, and bytes besides
_OPTIMIZERS = {
    "adafactor": (0.0, 0.0),  # rows and columns alone
    "lion_8bit": (0.0, 1.0),
    "lion": (1.0, 0.0),
    "ademamix_8bit": (0.0, 3.0),
    "ademamix": (3.0, 0.0),
    "adamw_torch_4bit": (0.0, 1.0),
    "adamw_torch_8bit": (0.0, 2.0),
    "adamw_bnb_8bit": (0.0, 2.0),
    "adamw_8bit": (0.0, 2.0),
    "adamw": (2.0, 0.0),
    "rmsprop_bnb_8bit": (0.0, 1.0),
    "rmsprop": (1.0, 0.0),
    "adagrad": (1.0, 0.0),
    "sgd": (0.0, 0.0),
}


@dataclass(frozen=True)
class Weights:
    """
    The model's parameters and how many bytes each takes.

    Args:
        parameters (`int`), trainable (`int`): how many there are, and how many of them are trained.
        bytes_each (`float`): of a parameter as it is loaded; 0.5 for 4 bits.
        trainable_bytes_each (`float`): of one that is trained.
    """

    parameters: int
    trainable: int
    bytes_each: float
    trainable_bytes_each: float

    @property
    def nbytes(self) -> float:
        frozen = self.parameters - self.trainable
        return frozen * self.bytes_each + self.trainable * self.trainable_bytes_each


@dataclass(frozen=True)
class Engine:
    """
    Where the tensors of a run are kept.

    Args:
        num_processes (`int`): devices.
        sharding (`str`): one of `SHARDINGS`; FSDP means its full sharding.
        half (`bool`): bf16 or fp16 training (`args.bf16`, `args.fp16`).
        checkpointing (`bool`): activation checkpointing.
        gathers_to_generate (`bool`): ZeRO-3 gathers the whole model for the rollouts (`ds3_gather_for_generation`).
        device (`str`): its type; on a CPU, TRL's fused head scores the prompts' tokens too.
    """

    num_processes: int = 1
    sharding: str = "none"
    half: bool = False
    checkpointing: bool = True
    gathers_to_generate: bool = True
    device: str = "cuda"

    def __post_init__(self) -> None:
        if self.sharding not in SHARDINGS:
            raise ValueError(f"sharding ({self.sharding!r}) must be one of {', '.join(SHARDINGS)}.")
        if self.num_processes < 1:
            raise ValueError(f"num_processes ({self.num_processes}) must be at least 1.")

    @property
    def deepspeed(self) -> bool:
        return self.sharding.startswith("zero")

    def share(self, nbytes: float, from_stage: int) -> float:
        """What of `nbytes` one device holds, if they are split from that stage on."""
        return nbytes / self.num_processes if SHARDINGS[self.sharding] >= from_stage else nbytes


@dataclass(frozen=True)
class LayerStack:
    """The shape of a stack of transformer layers. `queries`, `keys`: values per token, over their heads."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    queries: int
    keys: int

    def saved(self, bytes_each: int) -> int:
        """
        Bytes that the backward pass of one layer keeps per token: twice a normalisation in float32 with its input and
        output; queries, keys and values (repeated to the queries' heads) and the attention's output, before and after
        it is rearranged; four tensors of the gated MLP.
        """
        norms = 2 * (4 + 2 * bytes_each) * self.hidden
        return norms + bytes_each * (5 * self.queries + 4 * self.intermediate)

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "LayerStack | None":
        """Read from a config, by the names that transformers' families use; `None` where one is not there."""
        hidden = _first(config, "embed_dim", "hidden_size")
        layers = _first(config, "num_hidden_layers", "depth", "num_layers")
        heads = _first(config, "num_attention_heads", "num_heads")
        experts, of_expert = _first(config, "num_experts_per_tok"), _first(config, "moe_intermediate_size")
        intermediate, ratio = _first(config, "intermediate_size"), getattr(config, "mlp_ratio", None)
        if experts and of_expert:
            intermediate = experts * of_expert
        if intermediate is None and hidden and ratio:
            intermediate = int(ratio * hidden)
        if not (hidden and layers and heads and intermediate):
            return None
        size = _first(config, "head_dim") or hidden // heads
        keys = _first(config, "num_key_value_heads") or heads
        return cls(layers, hidden, intermediate, heads, heads * size, keys * size)


def _first(config: PreTrainedConfig, *names: str) -> int | None:
    """The first of these fields that a config has."""
    return next((getattr(config, name) for name in names if getattr(config, name, None) is not None), None)


@dataclass(frozen=True)
class Batches:
    """
    The largest batches of one device, by the longest prompt.

    Args:
        rows (`int`): of a micro-batch. prompts (`int`): distinct ones among them.
        generated_rows (`int`): rollouts of one `generate` call, ordered and contrast; 0 where none are made.
        generated_prompts (`int`): distinct ones among them, contrast frames counted as another prompt.
        prompt_tokens (`int`), completion_tokens (`int`): of the longest prompt and completion.
        patches (`int`): of the prompt with most of them. pixel_bytes (`int`): of its pixels, as the model gets them.
        shared (`bool`): whether the rows of a prompt share its computation.
    """

    rows: int
    prompts: int
    prompt_tokens: int
    completion_tokens: int
    generated_rows: int = 0
    generated_prompts: int = 0
    patches: int = 0
    pixel_bytes: int = 0
    shared: bool = False

    @property
    def sequences(self) -> tuple[int, int]:
        """How many sequences the model is called with in training, and how long they are at most."""
        if not self.shared:
            return self.rows, self.prompt_tokens + self.completion_tokens
        of_a_prompt = -(-self.rows // self.prompts)
        return self.prompts, self.prompt_tokens + (self.completion_tokens + 1) * of_a_prompt

    @property
    def tokens(self) -> int:
        """Of a micro-batch in training, padding included."""
        return math.prod(self.sequences)


@dataclass(frozen=True)
class Item:
    """One line of the estimate. `phase`: while making rollouts, while training, or always."""

    name: str
    nbytes: float
    phase: Literal["always", "rollouts", "training"]
    how: str


@dataclass
class MemoryEstimate:
    """
    An estimate of the memory of one device. What is not in it: the CUDA context (about 0.5 GiB), fragmentation,
    libraries' work space and offloading to the CPU.

    Args:
        items (`list[Item]`): what it is made of.
        unknown (`list[str]`): what could not be estimated, and why.
    """

    items: list[Item] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def of(self, phase: str) -> float:
        """Bytes of the lines of that phase."""
        return sum(item.nbytes for item in self.items if item.phase == phase)

    @property
    def nbytes(self) -> float:
        """Bytes at the peak: what is always there, and the larger of the two phases."""
        return self.of("always") + max(self.of("rollouts"), self.of("training"))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """`(all, trainable)`; tied ones count once. Works on the meta device."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def optimizer_bytes(optim: str, trainable: int, bytes_each: float) -> float | None:
    """
    Bytes of an optimizer's state, by its name in `TrainingArguments.optim`; `None` for one that is not known.

    >>> optimizer_bytes("adamw_torch_fused", 10, 4)
    80.0
    """
    name = str(getattr(optim, "value", optim))
    found = next((states for known, states in _OPTIMIZERS.items() if known in name), None)
    return None if found is None else trainable * (found[0] * bytes_each + found[1])


@dataclass(frozen=True)
class Run:
    """
    What is estimated: a model, its batches and the engine that trains it.

    Args:
        weights ([`Weights`]): of the model, adapters included.
        config: the model's.
        batches ([`Batches`]), engine ([`Engine`]): what is computed at a time, and where it is kept.
        optim (`str`): as in `TrainingArguments`.
        reference (`bool`): a second copy of the weights, for the KL.
        attention (`str`): the attention implementation.
    """

    weights: Weights
    config: PreTrainedConfig
    batches: Batches
    engine: Engine
    optim: str = "adamw_torch"
    reference: bool = False
    attention: str = "sdpa"

    @property
    def text(self) -> LayerStack | None:
        return LayerStack.of(self.config.get_text_config())

    @property
    def vision(self) -> LayerStack | None:
        config = getattr(self.config, "vision_config", None)
        return None if config is None else LayerStack.of(config)

    @property
    def computed(self) -> int:
        """Bytes of an activation's value."""
        return 2 if self.engine.half or self.weights.bytes_each <= 2 else 4

    @property
    def master(self) -> int:
        """Bytes of the copy of a trained parameter that DeepSpeed updates."""
        return 4 if self.engine.deepspeed and self.engine.half else 0

    @property
    def trained(self) -> float:
        """Bytes of a trained parameter, and of its gradient, as the engine keeps them."""
        if self.master:
            return 2
        return 4 if self.engine.sharding == "fsdp" and self.engine.half else self.weights.trainable_bytes_each

    @property
    def model_bytes(self) -> float:
        """Of all parameters, whole: DeepSpeed casts them all to half precision, FSDP what is trained to float32."""
        frozen = min(2.0, self.weights.bytes_each) if self.master else self.weights.bytes_each
        return (self.weights.parameters - self.weights.trainable) * frozen + self.weights.trainable * self.trained

    @property
    def optimizer_bytes(self) -> float:
        """Of the optimizer's state, whole; of an optimizer that is not known, what AdamW's would be."""
        trainable, state = self.weights.trainable, self.master or self.trained
        found = optimizer_bytes(self.optim, trainable, state)
        return (2.0 * trainable * state if found is None else found) + self.master * trainable

    @property
    def checkpoint_bytes(self) -> tuple[float, float]:
        """Of a saved model (of an adapter: itself alone), and of what resuming needs beside it."""
        weights = self.weights
        whole = weights.trainable == weights.parameters
        return (self.model_bytes if whole else weights.trainable * self.trained), self.optimizer_bytes


def estimate_memory(run: Run) -> MemoryEstimate:
    """Estimate the memory of one device. Every line of the result says how it was computed."""
    name = type(run.config).__name__
    estimate = MemoryEstimate([*_parameters(run)])
    if optimizer_bytes(run.optim, 1, 1) is None:
        estimate.unknown.append(f"the optimizer {run.optim}: counted like AdamW")
    if run.text is None:
        estimate.unknown.append(f"activations and caches: {name} does not name its layers as other families do")
        return estimate
    if run.vision is None and run.batches.patches:
        estimate.unknown.append(f"activations of the vision tower: {name} does not name its layers")
    estimate.items += [*_training(run, run.text), *_rollouts(run, run.text)]
    return estimate


def _parameters(run: Run) -> Iterator[Item]:
    weights, engine = run.weights, run.engine
    stage = SHARDINGS[engine.sharding]
    several = engine.num_processes > 1
    split = [f", split over {engine.num_processes} devices" if several and stage >= at else "" for at in range(4)]
    share = engine.share(run.model_bytes, 3)
    yield Item("weights", share, "always", f"{weights.parameters:,} parameters{split[3]}")
    if run.reference:
        yield Item("reference model", share, "always", f"a copy of the weights, for the KL{split[3]}")
    how = f"{run.optim}, {weights.trainable:,} trained parameters" + (", float32 copies of them" if run.master else "")
    yield Item("optimizer", engine.share(run.optimizer_bytes, 1), "always", how + split[1])
    gradients = weights.trainable * run.trained
    yield Item("gradients", engine.share(gradients, 2), "training", f"{run.trained:g} bytes each{split[2]}")
    if engine.half and run.trained == 4 and stage == 0:
        yield Item("half precision weights", 2.0 * weights.trainable, "training", "autocast keeps a copy")
    buffers = {
        "none": gradients,
        "zero1": 4.0 * min(weights.trainable, _BUCKET),
        "zero2": 4.0 * min(weights.trainable, _BUCKET),
        "zero3": 2.0 * (min(weights.parameters, _LIVE) + min(weights.trainable, _BUCKET)),
        "fsdp": 0.0,
    }[engine.sharding]
    if buffers and several:
        yield Item("communication", buffers, "training", "the engine's buffers, by its defaults")
    if engine.sharding == "zero3" and engine.gathers_to_generate and several and run.batches.generated_rows:
        how = "ds3_gather_for_generation: the whole model on every device"
        yield Item("gathered weights", run.model_bytes, "rollouts", how)


def _training(run: Run, text: LayerStack) -> Iterator[Item]:
    batches, computed = run.batches, run.computed
    sequences, length = batches.sequences
    nbytes: float = batches.tokens * (
        _kept(text, run) + 2 * text.intermediate * computed
    )  # the gradients meet what was kept
    layers = 1 if run.engine.checkpointing else text.layers
    in_parts = batches.shared and run.attention not in ("eager", "flex_attention")
    nbytes += _in_parts(run, text, layers) if in_parts else _square(run, text, sequences, length, layers)
    how = f"{sequences} sequences of {length:,} tokens, "
    how += "the inputs of all layers and all of one" if run.engine.checkpointing else "all of all layers"
    yield Item("activations", nbytes, "training", how)
    seen = batches.prompts if batches.shared else batches.rows
    if batches.patches:
        of_a_patch = _kept(run.vision, run) if run.vision is not None else 0
        nbytes = seen * (batches.pixel_bytes + batches.patches * of_a_patch)
        yield Item("vision tower", nbytes, "training", f"{seen * batches.patches:,} patches, with their pixels")
    kernels = run.engine.device in ("cuda", "xpu")
    vocabulary = run.config.get_text_config().vocab_size
    scored = batches.rows * batches.completion_tokens if kernels else batches.tokens
    rows, columns = min(scored, _TILE[0]), _TILE[1]
    tile = rows * (columns * computed + (0 if kernels else 5 * 4 * min(vocabulary, columns)))
    whole = run.weights.trainable == run.weights.parameters
    nbytes = tile + scored * text.hidden * (4 + computed) + (4.0 * vocabulary * text.hidden if whole else 0)
    how = f"{scored:,} scored tokens, tile by tile" + (", its gradient in float32" if whole else "")
    yield Item("language head", nbytes, "training", how)


def _kept(tower: LayerStack, run: Run) -> int:
    """Bytes per token that the backward pass needs: of all layers, or of one and the inputs of all."""
    of_a_layer = tower.saved(run.computed)
    return (
        of_a_layer + tower.layers * tower.hidden * run.computed
        if run.engine.checkpointing
        else tower.layers * of_a_layer
    )


def _square(run: Run, tower: LayerStack, sequences: int, length: int, layers: int) -> float:
    """Bytes that grow with the square of the length: eager's weights in so many layers, sdpa's mask, else none."""
    if run.attention == "eager":
        return float(sequences * length**2 * tower.heads * layers * (4 + 2 * run.computed))
    return float(sequences * length**2 * (1 + run.computed)) if run.attention == "sdpa" else 0.0


def _in_parts(run: Run, tower: LayerStack, layers: int) -> float:
    """Bytes of completions that see their prompts (`packed_attention`): keys and values of both, and sdpa's mask."""
    batches = run.batches
    own = batches.completion_tokens + 1  # behind a copy of the prompt's last token
    seen = batches.prompt_tokens + own
    nbytes = 2.0 * batches.rows * seen * tower.keys * run.computed * layers
    if run.attention == "sdpa":
        nbytes += batches.rows * own * seen * (tower.queries // tower.keys) * (1 + run.computed)
    return nbytes


def _rollouts(run: Run, text: LayerStack) -> Iterator[Item]:
    batches, computed = run.batches, run.computed
    rows, length = batches.generated_rows, batches.prompt_tokens + batches.completion_tokens
    if not rows:
        return
    prompts = batches.generated_prompts if batches.shared else rows
    once = batches.shared and run.attention not in (
        "eager",
        "flex_attention",
    )  # then held once, else copied to the rows
    own = -(-batches.completion_tokens // RoomyLayer.room) * RoomyLayer.room  # it grows by so many at a time
    held = prompts * batches.prompt_tokens + rows * own if once else rows * length
    cache = 2.0 * held * text.layers * text.keys * computed
    yield Item("key-value cache", cache, "rollouts", f"{rows} rollouts of up to {length:,} tokens")
    nbytes = prompts * batches.prompt_tokens * text.saved(computed) / 2  # nothing is kept for a backward pass
    nbytes += _square(run, text, prompts, batches.prompt_tokens, 1)
    nbytes += prompts * batches.pixel_bytes * (2 if run.engine.device == "cpu" else 1)  # as prepared, and as one batch
    if run.vision is not None:
        nbytes += prompts * batches.patches * run.vision.saved(computed) / 2
    nbytes += rows * run.config.get_text_config().vocab_size * 4 * 4  # logits, sorted, and their probabilities
    yield Item("prefill", nbytes, "rollouts", f"{prompts} prompts at once, one layer at a time; the sampler's logits")
