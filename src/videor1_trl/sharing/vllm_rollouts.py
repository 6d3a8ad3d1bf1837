"""Rollouts by vLLM, in the trainer's process or by a server, on the learner's own tensors, and the check that both agree on them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig
from trl.models.utils import disable_gradient_checkpointing

from ..models.encoding import EncodedPrompt
from ..models.tower import patched
from ..text.messages import Named
from .vllm import complete, import_vllm, shared_arguments
from .vllm_inputs import EngineInputs
from .vllm_settings import Prompt, check_model, ends_and_bias, engine_dtype, max_model_length, mode_and_step
from .vllm_worker import temper


CHECKED_STEPS = 2  # of a run, whose first rollouts are checked: before an update, and behind one
BOUNDS = {torch.float32: 2e-3}  # nats a token in the mean; rounding makes up to 2e-4
BOUND_IN_HALF_PRECISION = 0.05


@contextlib.contextmanager
def sampler_of(trainer: Any, args: Any) -> Iterator[None]:
    """
    Within the context, that of the parent's constructor, TRL makes its engine, or its client of a server, of a class that takes
    [`Prompt`]s; nothing without `args.use_vllm`.

    Raises:
        `ImportError`: vLLM is not installed, or of a version that was not tested.
    """
    if not args.use_vllm:
        yield
        return
    import_vllm()
    from trl.generation import vllm_generation

    from .vllm_server import RolloutClient

    engine, client = (functools.partial(each, trainer=trainer) for each in (_engine_class(), RolloutClient))
    with patched(vllm_generation, LLM=engine, VLLMClient=client):
        yield
    # TRL makes neither with vLLM; the trainer notes its end tokens and what is never sampled in both
    trainer.generation_kwargs = {"eos_token_id": trainer.eos_token_ids}
    trainer.generation_config = GenerationConfig()


def as_prompts(trainer: Any, rows: list[EncodedPrompt], num_generations: int) -> tuple[list[Prompt], int]:
    """
    The rows of a rank as TRL hands them on, and how many completions of each it is told to make. A server's rows are gathered and
    cut by rank, so that all ranks must have as many, and each stands for itself: its groups are found again there.
    """
    prompts = [Prompt(encoded) for encoded in rows]
    if not trainer.use_vllm or trainer.vllm_mode != "server":
        return prompts, num_generations
    most = max(gather_object([len(rows)]))
    return prompts + [Prompt(None)] * (most - len(rows)), 1


def engine_arguments(trainer: Any, args: Any, theirs: Named) -> Named:
    """What the engine of a trainer is made with: TRL's arguments, and those that it leaves out or that do not suit contrasts."""
    check_model(trainer, theirs["model"])
    return {
        **theirs,
        **shared_arguments(),
        "dtype": engine_dtype(trainer, args),
        "logprobs_mode": "raw_logprobs",  # before top_p, top_k and suppressed tokens, as the learner's
        "enable_prefix_caching": True,
        "max_model_len": max_model_length(args),
        "seed": args.seed + theirs["seed"],
        "max_num_seqs": args.vllm_tensor_parallel_size * _rows_at_a_time(args),
    }


def _rows_at_a_time(args: Any) -> int:
    """Most rollouts of a rank, contrast rollouts among them; its first and its last group may be parts."""
    rows, size = args.per_device_train_batch_size * args.steps_per_generation, args.num_generations
    groups = math.ceil(rows / size) + (rows % size > 0)
    return rows + min(rows, groups * args.contrast_generations(size))


@contextlib.contextmanager
def own_random_state(*seed: object) -> Iterator[None]:
    """Within the context all generators follow from the seed alone; then they are as they were before."""
    before = random.getstate(), np.random.get_state()
    value = int.from_bytes(hashlib.sha256(repr(seed).encode()).digest()[:4], "big")
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        random.seed(value)
        np.random.seed(value)
        torch.manual_seed(value)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@functools.cache
def _engine_class() -> type:
    from vllm import LLM

    class MediaEngine(LLM):
        """
        `vllm.LLM` as TRL calls it, for [`Prompt`]s.

        Args:
            trainer (`TGRPOTrainer`): whose rollouts it makes.
            **theirs: the arguments that TRL gives.
        """

        def __init__(self, *, trainer: Any, **theirs: Any):
            arguments = engine_arguments(trainer, trainer.args, theirs)
            self._trainer, self._seed, self._weights = trainer, arguments["seed"], 0
            self._calls: Counter[tuple[object, ...]] = Counter()
            with own_random_state(self._seed):
                super().__init__(**arguments)
            self._inputs = EngineInputs.of_engine(self)
            temper(self.llm_engine.model_executor.driver_worker.model_runner.model, trainer.temperature)

        def generate(self, prompts: Sequence[dict[str, Prompt]], sampling_params: Any = None, **_: Any) -> list[Any]:
            """Outputs in the order of the prompts; their tokens follow from seed, step and call alone."""
            trainer, inputs = self._trainer, {}
            mode = mode_and_step(trainer)
            self._calls = Counter({mode: self._calls[mode] + 1})
            for prompt in (each["prompt_token_ids"].encoded for each in prompts):
                assert prompt is not None  # only a server's rows are filled up
                if id(prompt) not in inputs:
                    inputs[id(prompt)] = self._inputs.of(prompt, salt=f"{self._weights}-")
            rows = [inputs[id(each["prompt_token_ids"].encoded)] for each in prompts]
            with own_random_state(self._seed, *mode, self._calls[mode]):
                outputs = complete(self, [(row, self._restricted(sampling_params)) for row in rows])
            if (fault := next((each for each in outputs if isinstance(each, Exception)), None)) is not None:
                raise RuntimeError(
                    f"vLLM refuses a prompt: {fault} Here vllm_max_model_length is the longest prompt with its completion; "
                    "max_prompt_length, video_max_frames, video_max_pixels and image_max_pixels make prompts shorter."
                ) from fault
            cached, total = (sum(each) for each in zip(*map(_cached, outputs), strict=True))
            trainer._metrics[mode[0]]["vllm/cached_prompt_tokens"].append(cached / total)
            return outputs

        def reset_prefix_cache(self, *arguments: object, **settings: object) -> bool:
            """TRL calls this behind new weights: nothing that the old ones made is found again, of the tower's neither."""
            self._weights += 1
            self.llm_engine.reset_encoder_cache()
            self.llm_engine.reset_mm_cache()
            done: bool = super().reset_prefix_cache(*arguments, **settings)
            return done

        def _restricted(self, sampling: Any) -> Any:
            """Every end token of the trainer ends a completion, what it suppresses is never sampled."""
            chosen = sampling.clone()
            ends, bias = ends_and_bias(self._trainer, chosen.stop_token_ids, chosen.logit_bias)
            chosen.stop_token_ids, chosen.logit_bias = ends, bias
            chosen.update_from_generation_config({}, None)  # which counts the ends
            chosen.temperature, chosen.detokenize = 1.0, False
            return chosen

    return MediaEngine


def _cached(output: Any) -> tuple[int, int]:
    """How many tokens of a prompt were computed before, for another row, and how many it has."""
    return output.num_cached_tokens or 0, len(output.prompt_token_ids)


# --- sampler = learner


def check_sampler(
    trainer: Any, rows: list[EncodedPrompt], completion_ids: list[list[int]], logps: list[list[float]] | None
) -> None:
    """
    Compares vLLM's log-probabilities with the learner's in the first rollouts of a run, and in the first behind an update, and logs
    how far they are apart; nothing of rollouts by transformers.

    Args:
        rows (`list[EncodedPrompt]`): the prompts of this rank's rollouts, contrast rollouts last.
        completion_ids, logps: of each its tokens, and what vLLM says of them; more may follow.

    Raises:
        `RuntimeError`: they are further apart than `args.vllm_max_logp_difference`.
    """
    if not trainer.use_vllm or logps is None or not trainer.model.training:
        return
    checked: set[int] = vars(trainer).setdefault("_checked_steps", set())
    if len(checked) >= CHECKED_STEPS or trainer.state.global_step in checked:
        return
    checked.add(trainer.state.global_step)
    completion_ids, logps = completion_ids[: len(rows)], logps[: len(rows)]
    learner = _learners(trainer, rows, completion_ids)
    own = len(trainer._batch.encoded)
    apart: dict[tuple[str, str], list[torch.Tensor]] = {}  # by what the rows are, so that few that differ count
    for row, (prompt, theirs, mine) in enumerate(zip(rows, logps, learner, strict=True)):
        kind = "ordered" if row < own else "contrast", " and ".join(sorted(prompt.kinds)) or "text alone"
        apart.setdefault(kind, []).append((torch.tensor(theirs, dtype=torch.float32) - mine).abs()[: len(theirs)])
    found = gather_object([{kind: _summed(each) for kind, each in apart.items()}])
    _log_apart(trainer, found)
    means = {kind: total / count for kind, (total, count, _) in _joined(found, lambda kind: kind).items() if count}
    if not means:  # vLLM has told of no token
        return
    (which, media), worst = max(means.items(), key=lambda each: each[1] if each[1] == each[1] else math.inf)
    if not worst <= _bound(trainer):  # not a number, too
        agree = [" rows with ".join(kind) for kind, mean in means.items() if mean <= _bound(trainer)]
        raise RuntimeError(
            f"vLLM's log-probabilities and those of the trained model differ by {worst:.2g} nats a token in the mean in {which} rows "
            f"with {media}, more than vllm_max_logp_difference ({_bound(trainer):g}): the two do not see the same prompts or weights, "
            f"or round too differently. Within it: {', '.join(agree) or 'no rows, so the weights or the precision differ'}. Set "
            "use_vllm=False, or raise vllm_max_logp_difference if you know why."
        )


Apart = dict[
    tuple[str, str], tuple[float, int, float]
]  # of rows of a kind: sum, number and largest of the differences


def _joined(found: list[Apart], key: Callable[[tuple[str, str]], Any]) -> dict[Any, tuple[float, int, float]]:
    """What all ranks found, joined where the kinds have the same key."""
    joined: dict[Any, tuple[float, int, float]] = {}
    for kind, (total, count, largest) in ((kind, each) for of_rank in found for kind, each in of_rank.items()):
        before = joined.get(key(kind), (0.0, 0, 0.0))
        joined[key(kind)] = before[0] + total, before[1] + count, max(before[2], largest)
    return joined


def _log_apart(trainer: Any, found: list[Apart]) -> None:
    for kind, (total, count, largest) in _joined(found, lambda kind: kind[0]).items():
        if count:
            trainer._metrics["train"][f"vllm/{kind}_logp_difference"].append(total / count)
            trainer._metrics["train"][f"vllm/{kind}_logp_difference_max"].append(largest)


def _bound(trainer: Any) -> float:
    own: float | None = trainer.args.vllm_max_logp_difference
    return BOUNDS.get(engine_dtype(trainer, trainer.args), BOUND_IN_HALF_PRECISION) if own is None else own


def _summed(apart: list[torch.Tensor]) -> tuple[float, int, float]:
    """Sum, number and largest of the differences of all tokens; vLLM's NaN, which TRL leaves out too, are not among them."""
    joined = torch.cat([each[~each.isnan()] for each in apart]) if apart else torch.zeros(0)
    return joined.sum().item(), len(joined), joined.max().item() if len(joined) else 0.0


@torch.no_grad()
def _learners(trainer: Any, rows: list[EncodedPrompt], completion_ids: list[list[int]]) -> list[torch.Tensor]:
    """The learner's log-probabilities of each row's completion; every rank makes as many calls as the one with most rows."""
    number, most = len(rows), max(gather_object([len(rows)]))
    rows, completions = ((each + each[:1] * most)[:most] for each in (rows, completion_ids))
    pad, size = trainer._tokenizer.pad_token_id, trainer.args.per_device_train_batch_size
    prompts = [torch.tensor(row.input_ids) for row in rows]
    answers = [torch.tensor(ids) for ids in completions]
    parts = [
        (pad_sequence(prompts, batch_first=True, padding_value=pad, padding_side="left"), prompts, "left"),
        (pad_sequence(answers, batch_first=True, padding_value=pad), answers, "right"),
    ]
    masks = [
        pad_sequence([torch.ones_like(x) for x in each], batch_first=True, padding_side=side)
        for _, each, side in parts
    ]
    device = trainer.accelerator.device
    ids, mask = (torch.cat(each, dim=1).to(device) for each in ([padded for padded, _, _ in parts], masks))
    batch = trainer._batch
    trainer._batch = type(batch)(rows, batch.keep_outputs)
    try:
        with disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs):
            logps, *_ = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids, mask, parts[1][0].shape[1], size
            )
    finally:
        trainer._batch = batch
    return [row[: len(answer)].float().cpu() for row, answer in zip(logps[:number], answers, strict=False)]
