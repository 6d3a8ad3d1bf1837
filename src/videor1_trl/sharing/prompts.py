"""What both trainers hold to compute prompts once: the vision towers, packed calls, dummies and placeholders."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping

import torch
from accelerate.logging import get_logger
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import ModelOutput

from ..models.dummies import Dummies, calls_must_match, with_rows_below
from ..models.encoding import (
    EncodedPrompt,
    EncodeSettings,
    collate_features,
    collate_token_types,
    padded_inputs,
)
from ..models.lengths import read_lengths_apart
from ..models.positions import correct_positions
from ..models.refused import check_readable
from ..models.saving import WholeCheckpoints
from ..models.tokens import placeholder_token_ids
from ..models.tower import Tower
from .attention import cannot_go_on, cannot_share
from .calls import PackedCall, RowByRow, cannot_prefill, prefilled_once


logger = get_logger(__name__)

AUXILIARY_LOSS = (  # on by default in models with experts
    "the router's auxiliary loss counts every row's tokens, prompts as often as they stand there; router_aux_loss_coef=0.0 leaves it out"
)


class PromptSharing:
    """
    The sharing of prompts and videos by the rows of one trainer, in its policy and its reference model.

    Corrects the models' positions ([`correct_positions`]).

    Args:
        trainer (`WholeCheckpoints`): with its models, wrapped; a `ref_model` where it has one.
        kinds (`set[str]`): the media in the data, `"video"` and `"image"`.
        encode_settings ([`~encoding.EncodeSettings`]): of the run.
        pad_token_id (`int`): fills what is padded.
        wanted (`bool`): whether prompts are to be shared at all.
        unless (`str`, *optional*): why they cannot be, of the trainer's own.
        otherwise (`str`): what happens where they cannot be shared, for the warning that says why.
    """

    def __init__(
        self,
        trainer: WholeCheckpoints,
        kinds: set[str],
        encode_settings: EncodeSettings,
        pad_token_id: int,
        *,
        wanted: bool,
        unless: str | None = None,
        otherwise: str,
    ):
        self._trainer, self._pad_token_id = trainer, pad_token_id
        unwrap: Callable[[nn.Module | None], PreTrainedModel] = trainer.accelerator.unwrap_model
        policy, self._reference = unwrap(trainer.model), getattr(trainer, "ref_model", None)
        reference = policy if self._reference is None else unwrap(self._reference)
        check_readable(policy)
        for model in (policy, reference):
            correct_positions(model)
            read_lengths_apart(model)
        self.model = policy
        calls = trainer.accelerator.autocast, self.calls_must_match
        self.tower = Tower(policy, None, *calls)
        self._reference_tower = Tower(reference, self.tower, *calls)
        self.placeholder_ids = placeholder_token_ids(policy, trainer.processing_class)
        self._dummies = Dummies(kinds, trainer.processing_class, encode_settings)
        reason = unless or cannot_share(policy)
        self.wanted, self.shares = wanted, wanted and reason is None
        self.prefills = wanted  # rollouts, until [`check_generation`]
        if wanted and reason is not None:
            logger.warning(f"{otherwise}: {reason}.")

    def check_generation(self, config: GenerationConfig) -> None:
        """Rollouts compute their prompts one by one where the generation's settings want another cache; says so."""
        reason = cannot_prefill(config, self.model)
        self.prefills = self.wanted and reason is None
        if self.wanted and reason is not None:
            logger.warning(f"Each rollout computes its prompt anew: {reason}.")

    def calls_must_match(self) -> bool:
        """Whether every rank must call every module equally often."""
        return calls_must_match(self._trainer)

    def gradients_must_match(self) -> bool:
        """Whether every rank must have gradients of the same parameters: several ranks reduce them together, in buckets."""
        return torch.is_grad_enabled() and self._trainer.accelerator.num_processes > 1 and self.tower.is_trained

    def dummies(self, rows: list[EncodedPrompt]) -> list[EncodedPrompt]:
        """A dummy for each kind of media that these rows lack and those of other ranks may have, where that matters."""
        return self._dummies.missing(rows) if self.calls_must_match() or self.gradients_must_match() else []

    def keeps_outputs(self) -> bool:
        """Whether the tower runs once per step: not where it has to run within the wrapped model's own call."""
        return self.wanted and not self.calls_must_match() and self.tower.is_frozen

    def packs(self, rows: list[EncodedPrompt]) -> bool:
        """Whether rows are packed behind their prompts: not those of models in which images see ahead (Gemma 3)."""
        return self.shares and not any("token_type_ids" in row.token_types for row in rows)

    def packed_call(
        self, model: nn.Module, rows: list[EncodedPrompt], ids: torch.Tensor, mask: torch.Tensor, keep: bool = False
    ) -> PackedCall:
        """The model with the rows' media for TRL to call with padded rows; `ids` and `mask` (B, C) of completions."""
        tower = self._tower_of(model)
        return PackedCall(model, tower, rows, ids, mask, self._pad_token_id, keep=keep and tower.serves())

    def _tower_of(self, model: nn.Module) -> Tower:
        return self._reference_tower if model is self._reference else self.tower

    def call_behind_prompts(
        self,
        model: nn.Module,
        rows: list[EncodedPrompt],
        ids: torch.Tensor,
        mask: torch.Tensor,
        length: int,
        keep: bool,
    ) -> tuple[Callable[..., ModelOutput], torch.Tensor, torch.Tensor]:
        """
        The model with the rows' media, for TRL to call with its padded rows.

        Args:
            ids, mask (`torch.Tensor` of shape (B, P + C)): left-padded prompts, right-padded completions.
            length (`int`): C. keep (`bool`): whether the prompts keep what the tower makes of their media.

        Returns:
            `(call, ids, mask)`: the two with dummies below the rows, where other ranks have media that these lack.
        """
        dummies = self.dummies(rows)
        ids, mask = with_rows_below(ids, mask, dummies, length, self._pad_token_id)
        rows = rows + dummies
        if self.packs(rows):
            return self.packed_call(model, rows, ids[:, -length:], mask[:, -length:], keep), ids, mask
        if self.wanted and cannot_go_on(self.model) is None:
            tower = self._tower_of(model)
            return RowByRow(model, tower, rows, length, keep and tower.serves()), ids, mask
        inputs = {key: value.to(ids.device) for key, value in padded_inputs(rows, ids.shape[1], length).items()}
        return functools.partial(model, **inputs), ids, mask

    @contextlib.contextmanager
    def generating(
        self, rows: list[EncodedPrompt], keep: bool
    ) -> Iterator[Mapping[str, torch.Tensor | list[list[int]]]]:
        """
        Within the context the model's `generate` prefills each distinct prompt once, where prompts are shared. Gives what
        `generate` is to get beside the rows' tokens.
        """
        if getattr(self._trainer, "use_vllm", False):  # which reads them from the rows
            yield {}
            return
        types = collate_token_types(rows)
        if not self.prefills:
            yield {**types, **collate_features(rows)}
            return
        with prefilled_once(self.tower, rows, keep):
            yield types
