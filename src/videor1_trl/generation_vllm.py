"""Completes requests with vLLM, which decodes the frames that this package sampled and batches by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.video_utils import VideoMetadata

from . import fingerprints
from .batch import PromptError, text_of
from .families import pixel_budget, placeholder_token_ids, takes_videos
from .generation import end_token_ids
from .generation_media import LoadedRequest, VideoLoader, check_taken, load_requests, windows_ahead
from .generation_requests import (
    GeneratedCompletion,
    GenerationRequest,
    GenerationSettings,
    callable_name,
    too_long,
    versions,
)
from .video import load_video


class VllmBackend:
    """
    Completes requests with vLLM (extra `vllm`).

    The processor of vLLM gets the same frames, metadata and pixel budget as the one of the transformers backend. Where
    a prompt has both videos and images and only their budgets differ, it is refused: vLLM has one for both.

    Args:
        model_name_or_path (`str`): folder or Hub id.
        settings ([`GenerationSettings`]): of every completion.
        video_loader (`Callable`, defaults to [`load_video`]): as in [`TGRPOTrainer`].
        window (`int`, defaults to `64`): requests handed to vLLM at a time, while those after them are decoded. Their
            frames, as decoded, are in memory twice over.
        chat_template_kwargs (`dict`, *optional*): keywords of the chat template, such as `enable_thinking`.
        **engine_arguments: of `vllm.LLM`, such as `tensor_parallel_size`, `gpu_memory_utilization`, `dtype`, `revision`.

    Raises:
        `ImportError`: vLLM is not installed.
    """

    def __init__(
        self,
        model_name_or_path: str,
        settings: GenerationSettings,
        *,
        video_loader: VideoLoader = load_video,
        window: int = 64,
        chat_template_kwargs: dict[str, Any] | None = None,
        **engine_arguments: Any,
    ):
        try:
            import vllm
        except ImportError as error:
            raise ImportError(
                f"The vllm backend needs vLLM ({error}). Install it with `pip install 'videor1_trl[vllm]'`, or use the "
                "transformers backend."
            ) from error
        if window < 1:
            raise ValueError(f"window ({window}) must be at least 1.")
        self.settings, self.video_loader, self.window = settings, video_loader, window
        self.chat_template_kwargs = chat_template_kwargs
        self._vllm: Any = vllm
        shared = {key: engine_arguments[key] for key in ("revision", "trust_remote_code") if key in engine_arguments}
        config = AutoConfig.from_pretrained(model_name_or_path, **shared)
        self.processor: Any = AutoProcessor.from_pretrained(model_name_or_path, **shared)
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        adds_bos = tokenizer.bos_token_id is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
        self._added_bos = tokenizer.bos_token if adds_bos else ""  # vLLM tokenizes with it, templates have it too
        self._end_tokens = end_token_ids(config, None, tokenizer)  # vLLM adds those of generation_config.json
        placeholders = placeholder_token_ids(SimpleNamespace(config=config), self.processor)
        self._suppressed = sorted(set(placeholders) - set(self._end_tokens))
        self.engine_arguments = _with_defaults(engine_arguments, config, self.processor, settings)
        self.llm = vllm.LLM(model=model_name_or_path, **self.engine_arguments)

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GeneratedCompletion]:
        """One completion per request, in any order. What breaks the engine is raised as it comes from vLLM."""
        for window in windows_ahead(requests, self.window, self._prepare_window):
            keys = [key for key, prompt in window if isinstance(prompt, dict)]
            prompts = [prompt for _, prompt in window if isinstance(prompt, dict)]
            yield from (GeneratedCompletion(key, None, error=str(e)) for key, e in window if not isinstance(e, dict))
            if prompts:
                yield from self._complete(keys, prompts)

    def describe(self) -> dict[str, Any]:
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

    def _prepare_window(self, requests: list[GenerationRequest]) -> list[tuple[str, dict[str, Any] | ValueError]]:
        prepared: list[tuple[str, dict[str, Any] | ValueError]] = []
        for loaded in load_requests(requests, self.settings, self.video_loader):
            try:
                prepared.append((loaded.request.key, self._prompt(loaded)))
            except ValueError as error:  # MediaError and PromptError
                prepared.append((loaded.request.key, error))
        return prepared

    def _prompt(self, loaded: LoadedRequest) -> dict[str, Any]:
        """What vLLM takes: the text with one placeholder per medium, the media, and the pixel budget."""
        if loaded.error is not None:
            raise loaded.error
        check_taken(self.processor, loaded)
        messages = loaded.messages
        if not isinstance(self.processor, ProcessorMixin):  # templates of text models take plain strings
            messages = [{**message, "content": text_of(message)} for message in messages]
        try:
            text = self.processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **(self.chat_template_kwargs or {})
            )
        except (ValueError, TemplateError) as error:
            raise PromptError(str(error)) from error
        prompt: dict[str, Any] = {"prompt": text.removeprefix(self._added_bos)}
        media: dict[str, list] = {}
        if loaded.videos:
            media["video"] = [(_channels_last(frames), _metadata(metadata)) for frames, metadata in loaded.videos]
        if loaded.images:
            media["image"] = list(loaded.images)
        if media:
            prompt["multi_modal_data"] = media
            prompt["mm_processor_kwargs"] = self._processor_arguments(loaded)
        return prompt

    def _processor_arguments(self, loaded: LoadedRequest) -> dict[str, Any]:
        """`size` and its like as the processor takes them, where the settings have a budget and it counts pixels."""
        settings, budgets = self.settings, []
        if loaded.videos:
            fewest = min(len(frames) for frames, _ in loaded.videos)
            part = self.processor.video_processor
            budgets.append(pixel_budget(part, settings.video_max_pixels, settings.video_min_pixels, fewest))
        if loaded.images:
            budgets.append(pixel_budget(self.processor.image_processor, settings.image_max_pixels, None, 1))
        if len(budgets) == 2 and budgets[0].get("size") != budgets[1].get("size"):
            raise PromptError(
                "its prompt has videos and images, whose pixel budgets differ, and vLLM takes one budget per prompt. "
                "Set video_max_pixels, video_min_pixels and image_max_pixels to None, or use the transformers backend."
            )
        arguments = {key: value for budget in budgets for key, value in budget.items()}
        return {"do_sample_frames": False, **arguments} if loaded.videos else arguments

    def _complete(self, keys: list[str], prompts: list[dict[str, Any]]) -> Iterator[GeneratedCompletion]:
        sampling = [self._sampling(key) for key in keys]
        try:
            outputs = self.llm.generate(prompts, sampling, use_tqdm=False)
        except ValueError as error:  # vLLM refuses all of them for the fault of one
            if len(prompts) == 1:
                yield GeneratedCompletion(keys[0], None, error=str(error))
                return
            for key, prompt in zip(keys, prompts, strict=True):
                yield from self._complete([key], [prompt])
            return
        for key, output in zip(keys, outputs, strict=True):
            yield self._completion(key, output)

    def _completion(self, key: str, output: Any) -> GeneratedCompletion:
        length, longest = len(output.prompt_token_ids), self.settings.max_prompt_length
        if longest is not None and length > longest:
            return GeneratedCompletion(key, None, num_prompt_tokens=length, error=too_long(length, longest))
        completion = output.outputs[0]
        finished = completion.finish_reason == "stop"
        return GeneratedCompletion(key, completion.text, len(completion.token_ids) - finished, finished, length)

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
        )


def _with_defaults(
    arguments: dict[str, Any], config: Any, processor: Any, settings: GenerationSettings
) -> dict[str, Any]:
    """The engine's arguments, with room for several media, and for the longest prompt and completion."""
    defaults: dict[str, Any] = {"seed": settings.seed}
    if isinstance(processor, ProcessorMixin):
        defaults["limit_mm_per_prompt"] = {"image": 8, **({"video": 2} if takes_videos(processor) else {})}
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if settings.max_prompt_length is not None and longest is not None:
        defaults["max_model_len"] = min(settings.max_prompt_length + settings.max_new_tokens, longest)
    return {**defaults, **arguments}


def _channels_last(frames: torch.Tensor) -> Any:
    """uint8 frames (T, 3, H, W) as an array (T, H, W, 3)."""
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


def _metadata(metadata: VideoMetadata) -> dict[str, Any]:
    """A video's metadata as vLLM takes it: without it vLLM refuses the frames or samples them again."""
    return {
        "fps": metadata.fps,
        "duration": metadata.duration,
        "total_num_frames": metadata.total_num_frames,
        "frames_indices": list(metadata.frames_indices or []),
        "video_backend": metadata.video_backend or "frames",
        "do_sample_frames": False,
    }


def _jsonable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, dict, list, type(None))) else str(value)
