"""Completes many prompts with their videos and images: by a model in this process, or by vLLM or a server."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from jinja2 import TemplateError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    ProcessorMixin,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TextStreamer,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from . import fingerprints
from .batch import PromptError, text_of
from .families import (
    EncodedPrompt,
    correct_positions,
    encode_prompt,
    padded_inputs,
    placeholder_token_ids,
    with_preprocessing_cache,
)
from .generation_media import LoadedRequest, VideoLoader, check_taken, load_requests, windows_ahead
from .generation_requests import (
    Backend,
    GeneratedCompletion,
    GenerationRequest,
    GenerationSettings,
    callable_name,
    too_long,
    versions,
)
from .video import load_video


WINDOW = 4  # batches whose prompts are sorted by length together


def make_backend(
    name: Literal["transformers", "vllm", "server"], model: str, settings: GenerationSettings, **options: Any
) -> Backend:
    """
    A backend by its name, the model loaded.

    Args:
        name: `"transformers"`, `"vllm"` (needs the extra of that name) or `"server"`.
        model (`str`): a folder or Hub id, of a LoRA adapter too; of a server, the name under which it has the model.
        settings ([`GenerationSettings`]): of every completion.
        **options: `transformers`: `revision`, `dtype` ("auto"), `attn_implementation`, `trust_remote_code` and whatever
            else `from_pretrained` takes, and the keywords of [`TransformersBackend`]; `vllm`: those of
            [`~generation_vllm.VllmBackend`]; `server`: those of [`~generation_server.ServerBackend`], `base_url` among
            them.

    Raises:
        `ValueError`: another name.
        `ImportError`: vLLM is not installed.
    """
    if name == "vllm":
        from .generation_vllm import VllmBackend

        return VllmBackend(model, settings, **options)
    if name == "server":
        from .generation_server import ServerBackend

        return ServerBackend(options.pop("base_url", None), model, settings, **options)
    if name != "transformers":
        raise ValueError(f"backend ({name!r}) must be 'transformers', 'vllm' or 'server'.")
    options = {key: value for key, value in options.items() if value is not None}
    own = {key: options.pop(key) for key in ("batch_size", "video_loader", "chat_template_kwargs") if key in options}
    shared = {key: options[key] for key in ("revision", "trust_remote_code") if key in options}
    processor = AutoProcessor.from_pretrained(model, padding_side="left", **shared)
    architecture = AutoModelForImageTextToText if isinstance(processor, ProcessorMixin) else AutoModelForCausalLM
    defaults = {"dtype": "auto", "device_map": _device_map()}
    return TransformersBackend(
        architecture.from_pretrained(model, **{**defaults, **options}), processor, settings, **own
    )


def _device_map() -> Any:
    """All GPUs for one process; of several, which `accelerate launch` or `torchrun` started, each its own GPU."""
    if not torch.cuda.is_available():
        return None
    return {"": int(os.environ["LOCAL_RANK"])} if "LOCAL_RANK" in os.environ else "auto"


class TransformersBackend:
    """
    Completes requests with a transformers model, in batches padded on the left.

    Requests are taken in windows of `4 * batch_size`: their videos are decoded and preprocessed while the window before
    is completed, and sorted by length, the longest first. A completion does not depend on its batch, up to rounding:
    sampled tokens are drawn row by row, from `settings.seed` and the request's key.

    Args:
        model (`PreTrainedModel`): is put into evaluation mode, and its positions are corrected ([`correct_positions`]).
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): the model's.
        settings ([`GenerationSettings`]): of every completion.
        batch_size (`int`, defaults to `8`): prompts that are completed together.
        video_loader (`Callable`, defaults to [`load_video`]): as in [`TGRPOTrainer`].
        chat_template_kwargs (`dict`, *optional*): keywords of the chat template, such as `enable_thinking`.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        settings: GenerationSettings,
        *,
        batch_size: int = 8,
        video_loader: VideoLoader = load_video,
        chat_template_kwargs: dict[str, Any] | None = None,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size ({batch_size}) must be at least 1.")
        self.model, self.processor, self.settings = model.eval(), processor, settings
        self.batch_size, self.video_loader = batch_size, video_loader
        self.chat_template_kwargs = chat_template_kwargs
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._end_tokens = end_token_ids(model.config, model.generation_config, self._tokenizer)
        self._pad_token = (
            self._end_tokens[-1] if self._tokenizer.pad_token_id is None else self._tokenizer.pad_token_id
        )
        placeholders = set(placeholder_token_ids(model, processor)) - set(self._end_tokens)
        correct_positions(model)
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

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GeneratedCompletion]:
        """
        One completion per request, in any order.

        Raises:
            `torch.OutOfMemoryError`: a batch that does not fit.
            `RuntimeError`: a video loader or a contrast that returns something else than it must.
        """
        for window in windows_ahead(requests, WINDOW * self.batch_size, self._encode_window):
            prompts = []
            for key, encoded in window:
                if isinstance(encoded, EncodedPrompt):
                    prompts.append((key, encoded))
                else:
                    yield GeneratedCompletion(key, None, error=str(encoded))
            prompts.sort(key=lambda prompt: -len(prompt[1].input_ids))
            for start in range(0, len(prompts), self.batch_size):
                yield from self.complete_batch(prompts[start : start + self.batch_size])

    def encode(self, request: GenerationRequest) -> tuple[EncodedPrompt, LoadedRequest]:
        """
        One request as the model reads it, and with its media, for [`complete`].

        Raises:
            `MediaError`, `PromptError`: media that cannot be read, a prompt that cannot be used.
        """
        [loaded] = load_requests([request], self.settings, self.video_loader)
        return self._encode(loaded, with_preprocessing_cache(self.processor)), loaded

    def complete(
        self, key: str, prompt: EncodedPrompt, on_text: Callable[[str], None] | None = None
    ) -> GeneratedCompletion:
        """One completion; `on_text` gets its text piece by piece as it comes."""
        return self.complete_batch([(key, prompt)], _Streamer(self._tokenizer, on_text) if on_text else None)[0]

    def complete_batch(
        self, prompts: list[tuple[str, EncodedPrompt]], streamer: TextStreamer | None = None
    ) -> list[GeneratedCompletion]:
        """Completions of encoded prompts, each with its key, computed together whatever `batch_size` is."""
        rows = [encoded for _, encoded in prompts]
        length = max(len(row.input_ids) for row in rows)
        padding = [length - len(row.input_ids) for row in rows]
        ids = [[self._pad_token] * pad + row.input_ids for pad, row in zip(padding, rows, strict=True)]
        mask = [[0] * pad + [1] * (length - pad) for pad in padding]
        inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
        inputs |= padded_inputs(rows, length, num_completion=0)
        try:
            output = self.model.generate(
                **{key: value.to(self.model.device) for key, value in inputs.items()},
                generation_config=self._config,
                logits_processor=self._logits_processors([key for key, _ in prompts], padding),
                streamer=streamer,
            )
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"{len(rows)} prompts of up to {length} tokens do not fit into memory. Lower batch_size "
                f"({self.batch_size}), video_max_frames, video_max_pixels or max_new_tokens. ({error})"
            ) from error
        completions = output[:, length:].tolist()
        return [self._completion(key, row, ids) for (key, row), ids in zip(prompts, completions, strict=True)]

    def describe(self) -> dict[str, Any]:
        config = self.model.config
        return {
            "backend": "transformers",
            "model": config._name_or_path,
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

    def _encode_window(self, requests: list[GenerationRequest]) -> list[tuple[str, EncodedPrompt | ValueError]]:
        """Key and prompt, or why there is none; requests on the same videos share the pixels."""
        encoded: list[tuple[str, EncodedPrompt | ValueError]] = []
        shown: list[torch.Tensor] = []
        cached = self.processor
        for loaded in load_requests(requests, self.settings, self.video_loader):
            frames = [frames for frames, _ in loaded.ordered]
            if list(map(id, frames)) != list(map(id, shown)):  # they come one after the other
                cached, shown = with_preprocessing_cache(self.processor), frames
            try:
                encoded.append((loaded.request.key, self._encode(loaded, cached)))
            except ValueError as error:  # MediaError and PromptError
                encoded.append((loaded.request.key, error))
        return encoded

    def _encode(self, loaded: LoadedRequest, cached_processor: Any) -> EncodedPrompt:
        if loaded.error is not None:
            raise loaded.error
        check_taken(self.processor, loaded)
        encoded = self._encode_videos(cached_processor, loaded, loaded.ordered)
        if loaded.request.contrast is not None and loaded.videos:
            ordered, encoded = encoded, self._encode_videos(self.processor, loaded, loaded.videos)
            if ordered.input_ids != encoded.input_ids:
                raise PromptError("its prompts on ordered and on contrast frames differ in their tokens.")
        longest = self.settings.max_prompt_length
        if longest is not None and len(encoded.input_ids) > longest:
            raise PromptError(too_long(len(encoded.input_ids), longest))
        return encoded

    def _encode_videos(self, processor: Any, loaded: LoadedRequest, videos: list) -> EncodedPrompt:
        messages = loaded.messages
        if not isinstance(processor, ProcessorMixin):  # templates of text models take plain strings
            messages = [{**message, "content": text_of(message)} for message in messages]
        try:
            return encode_prompt(
                processor,
                messages,
                videos,
                loaded.images,
                chat_template_kwargs=self.chat_template_kwargs,
                **self.settings.pixel_settings,
            )
        except (ValueError, TemplateError) as error:  # of placeholders and features; of roles it does not take
            raise PromptError(str(error)) from error

    def _completion(self, key: str, prompt: EncodedPrompt, ids: list[int]) -> GeneratedCompletion:
        end = next((index for index, token in enumerate(ids) if token in self._end_tokens), None)
        text = self._tokenizer.decode(ids[:end], skip_special_tokens=True)
        return GeneratedCompletion(
            key, text, len(ids) if end is None else end, end is not None, num_prompt_tokens=len(prompt.input_ids)
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

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._on_text = on_text

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._on_text(text)


def end_token_ids(config: Any, generation_config: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a completion; the pad token among them, since what follows could not be told from padding."""
    owners = (generation_config, config.get_text_config(), tokenizer)
    found = [getattr(owner, "eos_token_id", None) for owner in owners] + [tokenizer.pad_token_id]
    flat = [token for ids in found for token in (ids if isinstance(ids, list) else [ids]) if token is not None]
    return list(dict.fromkeys(flat))


def device_name(device: torch.device) -> str:
    """The device by its product's name where it has one."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
