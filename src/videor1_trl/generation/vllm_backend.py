"""Completes requests with vLLM, which batches by itself and is handed prompts that are encoded already."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from ..media.loader import VideoLoader
from ..media.video import load_video
from ..models import fingerprints
from ..models.adapters import base_of
from ..models.encoding import EncodedPrompt
from ..models.families import Processor, tokenizer_of
from ..models.released import load_processor
from ..models.tokens import end_token_ids, placeholder_token_ids
from ..sharing.beginnings import grouped
from ..sharing.vllm import check_family, complete, import_vllm, shared_arguments, takes_media
from ..sharing.vllm_inputs import EngineInputs
from ..text.messages import Named
from .encoding import EncodesRequests
from .media import windows_ahead
from .requests import (
    GeneratedCompletion,
    GenerationRequest,
    GenerationSettings,
    WeighedChoices,
    callable_name,
    noting_choices,
    versions,
)


class VllmBackend(EncodesRequests):
    """
    Completes requests with vLLM (extra `vllm`).

    vLLM gets the tokens, pixels and times of the transformers backend, encoded here; its own processor is not used.

    Args:
        model_name_or_path (`str`): folder or Hub id.
        settings ([`GenerationSettings`]): of every completion.
        video_loader (`Callable`, defaults to [`load_video`]): as in [`TGRPOTrainer`].
        window (`int`, defaults to `64`): requests handed to vLLM at a time, while those after them are decoded and encoded.
            Their pixels are in memory twice over.
        chat_template_kwargs (`dict`, *optional*): keywords of the chat template, such as `enable_thinking`.
        **engine_arguments: of `vllm.LLM`, such as `tensor_parallel_size`, `gpu_memory_utilization`, `dtype`, `revision`.

    Raises:
        `ImportError`: vLLM is not installed, or of a version that was not tested.
        `NotImplementedError`: a family of models that was not tested with vLLM.
        `ValueError`: `model_name_or_path` is an adapter.
    """

    def __init__(
        self,
        model_name_or_path: str,
        settings: GenerationSettings,
        *,
        video_loader: VideoLoader = load_video,
        window: int = 64,
        chat_template_kwargs: dict[str, object] | None = None,
        **engine_arguments: Any,
    ):
        if window < 1:
            raise ValueError(f"window ({window}) must be at least 1.")
        if (base := base_of(model_name_or_path, engine_arguments.get("revision"))) is not None:
            raise ValueError(
                f"{model_name_or_path} is an adapter, and the vllm backend takes whole models. Merge it into {base} "
                "(PeftModel.merge_and_unload) and save that with its processor, or use the transformers backend."
            )
        vllm = import_vllm()
        self.settings, self.video_loader, self.window = settings, video_loader, window
        self.chat_template_kwargs = chat_template_kwargs
        self._vllm: ModuleType = vllm
        shared: Named = {
            key: engine_arguments[key] for key in ("revision", "trust_remote_code") if key in engine_arguments
        }
        config = AutoConfig.from_pretrained(model_name_or_path, **shared)
        if takes_media(config):
            check_family(config)  # before vLLM ends with an error of its own
        self.processor: Processor = load_processor(model_name_or_path, **shared)
        self.settle_family(config.model_type)
        self._tokenizer = tokenizer_of(self.processor)
        self._end_tokens = end_token_ids(config, _generation_config(model_name_or_path, shared), self._tokenizer)
        model: Any = SimpleNamespace(config=config)  # of which nothing else is asked
        self._placeholders = set(placeholder_token_ids(model, self.processor))
        self._suppressed = sorted(self._placeholders - set(self._end_tokens))
        self.engine_arguments = _with_defaults(engine_arguments, config, settings)
        self.llm = vllm.LLM(model=model_name_or_path, **self.engine_arguments)
        self._inputs = EngineInputs.of_engine(self.llm)

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GeneratedCompletion]:
        """One completion per request, in any order; raises as [`~sharing.vllm.complete`] does."""
        for window in windows_ahead(requests, self.window, self._encode_window):
            yield from (GeneratedCompletion(key, None, error=str(e)) for key, e in window if isinstance(e, ValueError))
            yield from self.complete_batch(self._in_order(window))

    def weigh(self, requests: Iterable[GenerationRequest]) -> Iterator[WeighedChoices]:
        """How likely each choice of a request is to be the next token, in any order; raises as [`generate`] does."""
        choices: dict[str, Sequence[str]] = {}

        for window in windows_ahead(noting_choices(requests, choices), self.window, self._encode_window):
            yield from (WeighedChoices(key, None, str(e)) for key, e in window if isinstance(e, ValueError))
            yield from self._weighed([(key, prompt, choices.pop(key)) for key, prompt in self._in_order(window)])

    def _in_order(self, window: list[tuple[str, EncodedPrompt | ValueError]]) -> list[tuple[str, EncodedPrompt]]:
        """The prompts of a window, those that begin with the same media one after the other: vLLM finds what it has cached."""
        prompts = [(key, prompt) for key, prompt in window if isinstance(prompt, EncodedPrompt)]
        groups = grouped([prompt for _, prompt in prompts], self._placeholders)
        return [prompts[index] for group in groups for index in group]

    def _weighed(self, prompts: list[tuple[str, EncodedPrompt, Sequence[str]]]) -> Iterator[WeighedChoices]:
        taken = []
        for key, prompt, choices in prompts:
            try:
                tokens = self._choice_tokens(choices)
                sampling = self._vllm.SamplingParams(
                    max_tokens=1, temperature=0.0, logprob_token_ids=tokens, detokenize=False
                )
                taken.append((key, tokens, (self._inputs.of(prompt), sampling)))
            except ValueError as error:
                yield WeighedChoices(key, None, str(error))
        outputs = complete(self.llm, [request for _, _, request in taken])
        for (key, tokens, _), output in zip(taken, outputs, strict=True):
            if isinstance(output, Exception):
                yield WeighedChoices(key, None, str(output))
            else:
                found = output.outputs[0].logprobs[0]
                yield WeighedChoices(key, [float(found[token].logprob) for token in tokens])

    def complete(
        self, key: str, prompt: EncodedPrompt, on_text: Callable[[str], None] | None = None
    ) -> GeneratedCompletion:
        """One completion; `on_text` gets its text when it is there."""
        [completion] = self.complete_batch([(key, prompt)])
        if on_text and completion.text:
            on_text(completion.text)
        return completion

    def complete_batch(self, prompts: list[tuple[str, EncodedPrompt]]) -> list[GeneratedCompletion]:
        """Completions of encoded prompts, each with its key; one that vLLM refuses has its reason as `error`."""
        found: dict[str, GeneratedCompletion] = {}
        inputs = {}
        for key, prompt in prompts:
            try:
                inputs[key] = self._inputs.of(prompt)
            except ValueError as error:
                found[key] = GeneratedCompletion(key, None, error=str(error))
        outputs = complete(self.llm, [(each, self._sampling(key)) for key, each in inputs.items()])
        of_key = dict(zip(inputs, outputs, strict=True))
        return [found[key] if key in found else self._completion(key, prompt, of_key[key]) for key, prompt in prompts]

    def describe(self) -> dict[str, object]:
        config = self.llm.llm_engine.model_config
        return {
            "backend": "vllm",
            "model": config.model,
            "revision": config.revision,
            "weights": fingerprints.of_folder(config.model),
            "processor": type(self.processor).__name__,
            "dtype": str(config.dtype).removeprefix("torch."),
            "attention": "chosen by vLLM",
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "engine_arguments": {key: _jsonable(value) for key, value in self.engine_arguments.items()},
            "video_loader": callable_name(self.video_loader),
            "chat_template_kwargs": self.chat_template_kwargs,
            "versions": {**versions(), "vllm": self._vllm.__version__},
            "settings": dataclasses.asdict(self.settings),
        }

    def _completion(self, key: str, prompt: EncodedPrompt, output: Any) -> GeneratedCompletion:
        """What the engine gave, or why it gave nothing."""
        if isinstance(output, Exception):
            return GeneratedCompletion(key, None, num_prompt_tokens=len(prompt.input_ids), error=str(output))
        ids = list(output.outputs[0].token_ids)
        end = next((index for index, token in enumerate(ids) if token in self._end_tokens), None)
        text = self._tokenizer.decode(ids[:end], skip_special_tokens=True)
        assert isinstance(text, str)  # of one row
        tokens = len(ids) if end is None else end
        return GeneratedCompletion(key, prompt.opened + text, tokens, end is not None, len(prompt.input_ids))

    def _sampling(self, key: str) -> Any:
        settings = self.settings
        return self._vllm.SamplingParams(
            max_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            repetition_penalty=settings.repetition_penalty,
            seed=settings.sampling_seed(key) if settings.temperature > 0 else None,
            stop_token_ids=self._end_tokens,
            logit_bias=dict.fromkeys(self._suppressed, -100.0) or None,  # a placeholder would ask for features
            detokenize=False,  # it leaves out characters that are not whole
        )


def _generation_config(model: str, shared: Named) -> GenerationConfig | None:
    """The model's, where it has one."""
    try:
        return GenerationConfig.from_pretrained(model, revision=shared.get("revision") or "main")
    except OSError:
        return None


def _with_defaults(arguments: Named, config: PreTrainedConfig, settings: GenerationSettings) -> Named:
    """The engine's arguments, with room for the longest prompt and completion, and for prompts encoded here."""
    defaults: Named = {"seed": settings.seed}
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if settings.max_prompt_length is not None and longest is not None:
        defaults["max_model_len"] = min(settings.max_prompt_length + settings.max_new_tokens, longest)
    return {**defaults, **arguments, **shared_arguments()}


def _jsonable(value: object) -> object:
    return value if isinstance(value, (str, int, float, bool, dict, list, type(None))) else str(value)
