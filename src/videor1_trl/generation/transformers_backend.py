"""Completes many prompts with their videos and images: by a model in this process, or by vLLM or a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TextStreamer,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..data.placing import PromptError
from ..media.loader import VideoLoader
from ..media.video import load_video
from ..models import fingerprints
from ..models.encoding import EncodedPrompt, padded_inputs
from ..models.families import Processor, tokenizer_of
from ..models.lengths import read_lengths_apart
from ..models.own_families import model_type_of
from ..models.positions import correct_positions
from ..models.refused import check_readable
from ..models.tokens import end_token_ids, placeholder_token_ids
from ..sharing.beginnings import Beginnings, beginnings, cannot_begin_alike, grouped, next_token_logits, prefilled
from ..sharing.calls import CACHE, cannot_prefill
from .encoding import EncodesRequests
from .media import windows_ahead
from .requests import (
    GeneratedCompletion,
    GenerationRequest,
    GenerationSettings,
    WeighedChoices,
    callable_name,
    device_name,
    noting_choices,
    versions,
)


WINDOW = 4  # batches whose prompts are sorted by length together


class TransformersBackend(EncodesRequests):
    """
    Completes requests with a transformers model, in batches padded on the left.

    Requests are taken in windows of `4 * batch_size`: their videos are decoded and preprocessed while the window before
    is completed, and sorted by length, the longest first. A completion does not depend on its batch, up to rounding:
    sampled tokens are drawn row by row, from `settings.seed` and the request's key.

    Prompts of one batch that begin with the same media, as the questions on one video do, have that beginning computed once;
    those of a window stand together for it. Not with a repetition penalty, and not in models that cannot share prompts.

    Args:
        model (`PreTrainedModel`): is put into evaluation mode, and its positions are corrected ([`correct_positions`]).
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): the model's.
        settings ([`GenerationSettings`]): of every completion.
        batch_size (`int`, defaults to `8`): prompts that are completed together.
        video_loader (`Callable`, defaults to [`load_video`]): as in [`TGRPOTrainer`].
        chat_template_kwargs (`dict`, *optional*): keywords of the chat template, such as `enable_thinking`.
        share_prefix (`bool`, defaults to `True`): compute what prompts share once; `False`: row by row, the same but slower.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Processor,
        settings: GenerationSettings,
        *,
        batch_size: int = 8,
        video_loader: VideoLoader = load_video,
        chat_template_kwargs: dict[str, object] | None = None,
        share_prefix: bool = True,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size ({batch_size}) must be at least 1.")
        check_readable(model)
        self.model, self.processor, self.settings = model.eval(), processor, settings
        self.batch_size, self.video_loader = batch_size, video_loader
        self.adapter: str | None = None  # the folder or Hub id of the one that the model has, by `make_backend`
        self.chat_template_kwargs = chat_template_kwargs
        self._tokenizer = tokenizer_of(processor)
        self._end_tokens = end_token_ids(model.config, model.generation_config, self._tokenizer)
        self._pad_token = (
            self._end_tokens[-1] if self._tokenizer.pad_token_id is None else self._tokenizer.pad_token_id
        )
        self._placeholders = set(placeholder_token_ids(model, processor))
        placeholders = self._placeholders - set(self._end_tokens)
        correct_positions(model)
        read_lengths_apart(model)
        self.settle_family(model_type_of(model))
        self._config = GenerationConfig(
            do_sample=False,  # `_logits_processors` draw
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=self._end_tokens,
            pad_token_id=self._pad_token,
            suppress_tokens=sorted(placeholders) or None,
            # What is unset here, `generate` takes from the model's own generation_config
            num_beams=1,
            temperature=1.0,
            top_k=50,
            top_p=1.0,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
        )
        penalised = settings.repetition_penalty != 1.0  # which would count the padding within a row
        self.share_prefix = (
            share_prefix and not penalised and not (cannot_begin_alike(model) or cannot_prefill(self._config, model))
        )

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GeneratedCompletion]:
        """
        One completion per request, in any order.

        Raises:
            `torch.OutOfMemoryError`: a batch that does not fit.
            `RuntimeError`: a video loader or a contrast that returns something else than it must.
        """
        for window in windows_ahead(requests, WINDOW * self.batch_size, self._encode_window):
            yield from (GeneratedCompletion(key, None, error=str(e)) for key, e in window if isinstance(e, ValueError))
            for prompts in self._batches(window):
                yield from self.complete_batch(prompts)

    def weigh(self, requests: Iterable[GenerationRequest]) -> Iterator[WeighedChoices]:
        """How likely each choice of a request is to be the next token, in any order; raises as [`generate`] does."""
        choices: dict[str, Sequence[str]] = {}

        for window in windows_ahead(noting_choices(requests, choices), WINDOW * self.batch_size, self._encode_window):
            yield from (WeighedChoices(key, None, str(e)) for key, e in window if isinstance(e, ValueError))
            for prompts in self._batches(window):
                rows = [encoded for _, encoded in prompts]
                shared = self._shared(rows)
                logits = next_token_logits(self.model, rows, self._pad_token, shared).log_softmax(1)
                for (key, _), row in zip(prompts, logits.cpu(), strict=True):
                    try:
                        yield WeighedChoices(key, row[self._choice_tokens(choices.pop(key))].tolist())
                    except PromptError as error:
                        yield WeighedChoices(key, None, str(error))

    def _batches(
        self, window: list[tuple[str, EncodedPrompt | ValueError]]
    ) -> Iterator[list[tuple[str, EncodedPrompt]]]:
        prompts = self._in_order([(key, prompt) for key, prompt in window if isinstance(prompt, EncodedPrompt)])
        for start in range(0, len(prompts), self.batch_size):
            yield prompts[start : start + self.batch_size]

    def _shared(self, rows: list[EncodedPrompt]) -> Beginnings | None:
        """What the rows of a batch begin with together."""
        return beginnings(self.model, rows, self._placeholders) if self.share_prefix else None

    def _in_order(self, prompts: list[tuple[str, EncodedPrompt]]) -> list[tuple[str, EncodedPrompt]]:
        """The prompts of a window, the longest first, those that share their media one after the other."""
        if not self.share_prefix:
            return sorted(prompts, key=lambda prompt: -len(prompt[1].input_ids))
        groups = grouped([encoded for _, encoded in prompts], self._placeholders)
        longest = [max(len(prompts[index][1].input_ids) for index in group) for group in groups]
        order = sorted(range(len(groups)), key=lambda number: -longest[number])
        return [prompts[index] for number in order for index in groups[number]]

    def complete(
        self, key: str, prompt: EncodedPrompt, on_text: Callable[[str], None] | None = None
    ) -> GeneratedCompletion:
        """One completion; `on_text` gets its text piece by piece as it comes, what the prompt has opened of it first."""
        if on_text and prompt.opened:
            on_text(prompt.opened)
        return self.complete_batch([(key, prompt)], _Streamer(self._tokenizer, on_text) if on_text else None)[0]

    def complete_batch(
        self, prompts: list[tuple[str, EncodedPrompt]], streamer: TextStreamer | None = None
    ) -> list[GeneratedCompletion]:
        """Completions of encoded prompts, each with its key, computed together whatever `batch_size` is."""
        rows = [encoded for _, encoded in prompts]
        length = max(len(row.input_ids) for row in rows)
        padding = [length - len(row.input_ids) for row in rows]
        try:
            inputs = self._inputs(rows, padding, length)
            output = self.model.generate(
                **inputs,
                generation_config=self._config,
                logits_processor=self._logits_processors([key for key, _ in prompts], padding),
                streamer=streamer,
            )
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"{len(rows)} prompts of up to {length} tokens do not fit into memory. Lower batch_size "
                f"({self.batch_size}), video_max_frames, video_max_pixels or max_new_tokens. ({error})"
            ) from error
        completions = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._completion(key, row, ids) for (key, row), ids in zip(prompts, completions, strict=True)]

    @torch.no_grad()
    def _inputs(self, rows: list[EncodedPrompt], padding: list[int], length: int) -> dict[str, Any]:
        """What `generate` goes on from: padded prompts with their media, or with a cache of what they share and the rest."""
        shared = self._shared(rows)
        if shared is not None:
            ids, mask, cache = prefilled(self.model, rows, shared, self._pad_token)
            return {"input_ids": ids, "attention_mask": mask, CACHE: cache}
        padded = [[self._pad_token] * pad + row.input_ids for pad, row in zip(padding, rows, strict=True)]
        kept = [[0] * pad + [1] * (length - pad) for pad in padding]
        inputs = {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(kept)}
        inputs |= padded_inputs(rows, length, num_completion=0)
        return {key: value.to(self.model.device) for key, value in inputs.items()}

    def describe(self) -> dict[str, object]:
        config = self.model.config
        return {
            "backend": "transformers",
            "model": self.adapter or config._name_or_path,
            "revision": getattr(config, "_commit_hash", None),
            "weights": fingerprints.of_parameters(self.model),
            "architecture": type(self.model).__name__,
            "processor": type(self.processor).__name__,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": config.get_text_config()._attn_implementation,
            "device": device_name(self.model.device),
            "batch_size": self.batch_size,
            "video_loader": callable_name(self.video_loader),
            "chat_template_kwargs": self.chat_template_kwargs,
            "versions": versions(),
            "settings": dataclasses.asdict(self.settings),
        }

    def _completion(self, key: str, prompt: EncodedPrompt, ids: list[int]) -> GeneratedCompletion:
        end = next((index for index, token in enumerate(ids) if token in self._end_tokens), None)
        text = self._tokenizer.decode(ids[:end], skip_special_tokens=True)
        assert isinstance(text, str)  # of one row
        return GeneratedCompletion(
            key,
            prompt.opened + text,
            len(ids) if end is None else end,
            end is not None,
            num_prompt_tokens=len(prompt.input_ids),
        )

    def _logits_processors(self, keys: list[str], padding: list[int]) -> LogitsProcessorList:
        """The penalty, and sampling row by row, so that neither depends on the batch; none of both for plain greedy."""
        settings, processors = self.settings, LogitsProcessorList()
        if settings.repetition_penalty != 1.0:  # transformers' would count the padding
            processors.append(
                RepetitionPenaltyLogitsProcessor(float(settings.repetition_penalty), torch.tensor(padding))
            )
        if settings.temperature > 0:
            processors.append(TemperatureLogitsWarper(float(settings.temperature)))
            if settings.top_k:
                processors.append(TopKLogitsWarper(settings.top_k))
            if settings.top_p < 1:
                processors.append(TopPLogitsWarper(settings.top_p))
            processors.append(GumbelNoise([settings.sampling_seed(key) for key in keys]))
        return processors


class GumbelNoise(LogitsProcessor):
    """Adds noise after which the largest logit is a draw from their softmax; each row has a generator of its own."""

    def __init__(self, seeds: list[int]):
        self._seeds = seeds
        self._generators: list[torch.Generator] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V), float32, with noise."""
        if not self._generators:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds]
        waits = torch.empty_like(scores)
        for row, generator in zip(waits, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores - waits.clamp_min(torch.finfo(scores.dtype).tiny).log()


class _Streamer(TextStreamer):
    """Hands the text of a completion on as it comes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], None]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._on_text(text)
