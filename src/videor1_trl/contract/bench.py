"""A model made ready as the trainers make it ready, and what they compute: log-probabilities, gradients, rollouts."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from ..contrast import AnyContrast
from ..data.batch import BatchLoader, Row
from ..models.encoding import EncodedPrompt, EncodeSettings
from ..models.families import Processor, tokenizer_of
from ..models.tokens import end_token_ids
from ..sharing.contrast_rows import joined
from ..sharing.prompts import PromptSharing
from .result import Broken
from .scenes import RECORDS, TEXT, Scenes


SAMPLED = 2**16  # values of a gradient that are compared, evenly spread over it
STEPPED = 2**26  # elements of the weights that a step is made with, at most, of the tower and of the rest


@dataclass(frozen=True)
class Tolerance:
    """
    How far two ways of computing the same may lie apart.

    Args:
        logps (`float`): of log-probabilities and entropies in nats, the largest difference. mean (`float`): the mean one.
        gradients (`float`): of the difference's norm by the gradient's, parameter by parameter.
    """

    logps: float
    mean: float
    gradients: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Tolerance:
        """Float32 rounds at 6e-8, and some sums are long; bfloat16 rounds at 4e-3, the logits too."""
        return cls(2e-4, 5e-5, 2e-3) if dtype in (torch.float32, torch.float64) else cls(0.5, 0.05, 0.3)


@dataclass
class Scores:
    """Log-probabilities and entropies of completions, a list of (C,) tensors each, and the mean of the first, with its graph."""

    logps: list[torch.Tensor]
    entropies: list[torch.Tensor]
    loss: torch.Tensor


@dataclass
class Gradients:
    """
    What a backward pass gave the parameters.

    Args:
        samples (`dict[str, torch.Tensor]`): of each gradient up to `SAMPLED` values, float32 on the CPU.
        whole (`dict[str, torch.Tensor]`): gradients as they are, of some parameters.
    """

    samples: dict[str, torch.Tensor] = field(default_factory=dict)
    whole: dict[str, torch.Tensor] = field(default_factory=dict)

    def farthest(self, other: Gradients) -> tuple[float, str]:
        """
        The largest relative difference, and the parameter that has it. Where a gradient is next to none, such as that of a bias
        before a softmax, it is measured against a hundredth of the largest gradient.
        """
        if missing := self.samples.keys() ^ other.samples.keys():
            return float("inf"), sorted(missing)[0]
        largest = max((each.norm().item() for each in other.samples.values()), default=0.0)
        if not largest:
            return float("inf"), "every one, since all are 0"
        return max(
            ((self.samples[name] - expected).norm().item() / max(expected.norm().item(), 1e-2 * largest), name)
            for name, expected in other.samples.items()
        )


class Bench:
    """
    Args:
        model (`PreTrainedModel` or `PeftModel`): gets the positions, patches and the head that trainers give it.
        processor: the model's processing class.
        prepared (`Bench`, *optional*): of the same processor, whose prompts are used again.
    """

    def __init__(self, model: Any, processor: Processor, prepared: Bench | None = None):
        self.model, self.processor, self.tokenizer = model, processor, tokenizer_of(processor)
        self.base: PreTrainedModel = model.get_base_model() if hasattr(model, "peft_config") else model
        self.device = next(model.parameters()).device
        self.tolerance = Tolerance.of(self.base.dtype)
        self.end_token_ids = end_token_ids(self.base.config, self.base.generation_config, self.tokenizer)
        self.pad_token_id = (
            self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_token_ids[0]
        )
        self.encode_settings: EncodeSettings = EncodeSettings() if prepared is None else prepared.encode_settings
        self._scenes = Scenes()
        self._prompts: dict[str, EncodedPrompt] = {} if prepared is None else prepared._prompts
        if prepared is None or prepared.base is not self.base:
            add_fused_lm_head(self.base, outputs=("log_probs", "entropy", "is_top1"))
        accelerator = SimpleNamespace(unwrap_model=lambda each: each, autocast=contextlib.nullcontext, num_processes=1)
        trainer: Any = SimpleNamespace(model=model, accelerator=accelerator, processing_class=processor)
        trainer.is_fsdp_enabled = trainer.is_deepspeed_enabled = False
        accelerator.state = SimpleNamespace(deepspeed_plugin=None)
        self.sharing = PromptSharing(
            trainer, {"video", "image"}, self.encode_settings, self.pad_token_id, wanted=True, otherwise=""
        )

    # prompts

    def loader(self, contrast: AnyContrast | None = None, settings: EncodeSettings | None = None) -> BatchLoader:
        """Of rows whose videos are [`~scenes.scenes`]; `settings` instead of the bench's."""
        chosen = self.encode_settings if settings is None else settings
        return BatchLoader(self.processor, self._scenes, contrast, encode_settings=chosen)

    def load(self, name: str, contrast: AnyContrast | None = None, settings: EncodeSettings | None = None) -> Row:
        """One of the `RECORDS` of `scenes.py`, encoded; with its `contrast`, where one is given."""
        loader = self.loader(contrast, settings)
        return loader.load([RECORDS[name]], 0, 1, 0 if contrast is None else 1, step=1)[0]

    def prompt(self, name: str) -> EncodedPrompt:
        """One of the `RECORDS` of `scenes.py`, encoded once, so that its rows share the object."""
        if name not in self._prompts:
            self._prompts[name] = self.load(name).encoded
        return self._prompts[name]

    def completion(self, length: int, start: int = 0) -> list[int]:
        """So many tokens of a text, from one of its tokens on."""
        ids = self.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
        return list(itertools.islice(itertools.cycle(ids), start, start + length))

    # log-probabilities

    @contextlib.contextmanager
    def computing(self, wanted: bool, shares: bool) -> Iterator[None]:
        """Within the context rows share their prompts as far as that (`share_prefix`, and whether the model can)."""
        before = self.sharing.wanted, self.sharing.shares, self.sharing.prefills
        self.sharing.wanted, self.sharing.shares = wanted, shares
        self.sharing.prefills = wanted and before[2]
        try:
            yield
        finally:
            self.sharing.wanted, self.sharing.shares, self.sharing.prefills = before

    def scores(self, rows: Sequence[EncodedPrompt], completions: Sequence[Sequence[int]]) -> Scores:
        """As the trainer computes log-probabilities and entropies of completions behind their prompts."""
        ids, mask, length = joined(list(rows), [list(each) for each in completions], self.pad_token_id, self.device)
        call, ids, mask = self.sharing.call_behind_prompts(self.model, list(rows), ids, mask, length, False)
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, :-length] = -100
        out: Any = call(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
        logps, entropies = out.log_probs[:, -length:], out.entropy[:, -length:]
        of_rows = [slice(0, len(each)) for each in completions]
        count = sum(map(len, completions))
        return Scores(
            [row[part].float() for row, part in zip(logps, of_rows, strict=True)],
            [row[part].detach().float() for row, part in zip(entropies, of_rows, strict=True)],
            -sum((row[part].float().sum() for row, part in zip(logps, of_rows, strict=True)), start=torch.zeros((), device=self.device)) / count,
        )  # fmt: skip

    @torch.no_grad()
    def logps(self, rows: Sequence[EncodedPrompt], completions: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """The log-probabilities alone, a list of (C,) tensors, without gradients."""
        return self.scores(rows, completions).logps

    def differ(self, found: Iterable[torch.Tensor], expected: Iterable[torch.Tensor], what: str) -> float:
        """
        The largest difference between lists of tensors of equal shapes.

        Raises:
            [`~result.Broken`]: it is beyond the tolerance, or something is no number.
        """
        one, other = torch.cat([each.flatten() for each in found]), torch.cat([each.flatten() for each in expected])
        if not (one.isfinite().all() and other.isfinite().all()):
            raise Broken(f"{what}: not all are finite numbers.")
        apart = (one.detach().float().cpu() - other.detach().float().cpu()).abs()
        largest, mean = apart.max().item(), apart.mean().item()
        if largest > self.tolerance.logps or mean > self.tolerance.mean:
            raise Broken(f"{what}: they differ by up to {largest:.2g} (tolerance {self.tolerance.logps:g}).")
        return largest

    # gradients

    def gradients(self, loss: torch.Tensor, whole: Callable[[str, nn.Parameter], bool] | None = None) -> Gradients:
        """A backward pass, whose gradients are taken up one by one and freed; `whole` says which are kept as they are."""
        found, hooks = Gradients(), []

        def take(name: str, parameter: nn.Parameter) -> None:
            gradient, parameter.grad = parameter.grad, None
            if gradient is None:
                return
            if whole is not None and whole(name, parameter):
                found.whole[name] = gradient
            step = -(-gradient.numel() // SAMPLED)
            found.samples[name] = gradient.detach().flatten()[::step].float().cpu().clone()

        try:
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    hooks.append(parameter.register_post_accumulate_grad_hook(functools.partial(take, name)))
            loss.backward()
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def differ_in_gradients(self, found: Gradients, expected: Gradients, what: str) -> float:
        """The largest relative difference; raises [`~result.Broken`] where it is beyond the tolerance."""
        largest, name = found.farthest(expected)
        if not largest <= self.tolerance.gradients:
            raise Broken(
                f"{what}: they differ by {largest:.2g} of their norm in {name} (tolerance {self.tolerance.gradients:g})."
            )
        return largest

    # rollouts

    @torch.no_grad()
    def rollouts(self, rows: list[EncodedPrompt], length: int) -> tuple[list[list[int]], torch.Tensor]:
        """Greedy rollouts of exactly `length` tokens, as the trainer generates them, and their raw logits (B, C, V)."""
        ids, mask, _ = joined(rows, [[0]] * len(rows), self.pad_token_id, self.device)
        ids, mask = ids[:, :-1], mask[:, :-1]
        settings = GenerationConfig(
            max_new_tokens=length,
            min_new_tokens=length,
            do_sample=False,
            suppress_tokens=self.sharing.placeholder_ids or None,
            eos_token_id=self.end_token_ids,
            pad_token_id=self.pad_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
        if self.sharing.wanted:
            self.sharing.check_generation(settings)
        with self.sharing.generating(rows, False) as fields:
            inputs = {
                key: torch.as_tensor(_padded(value, ids.shape[1])).to(self.device) for key, value in fields.items()
            }
            generate: Any = cast("Any", self.model).generate
            out = generate(input_ids=ids, attention_mask=mask, generation_config=settings, **inputs)
        return out.sequences[:, ids.shape[1] :].tolist(), torch.stack(out.logits, dim=1)


def _padded(value: Any, length: int) -> Any:
    """What stands beside tokens, as lists of one per row, padded on the left as TRL does."""
    if isinstance(value, torch.Tensor):
        return value
    return [[0] * (length - len(row)) + row for row in value]
