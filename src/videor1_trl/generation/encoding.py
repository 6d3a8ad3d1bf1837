"""Requests as the model reads them: what the backends that run a model in this process have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jinja2 import TemplateError

from ..data.placing import PromptError, check_taken, too_long
from ..media.loader import Video, VideoLoader
from ..models.encoding import EncodedPrompt, encode_prompt, with_preprocessing_cache
from ..models.families import Processor, tokenizer_of
from ..models.pixels import check_pixels
from ..models.shrinking import ProcessorShrink
from .media import LoadedRequest, load_requests
from .requests import GenerationRequest, GenerationSettings


class EncodesRequests:
    """Encodes requests through the processor, the media of those on the same videos once."""

    processor: Processor
    settings: GenerationSettings
    video_loader: VideoLoader
    chat_template_kwargs: dict[str, object] | None
    model_type: str | None = None

    def settle_family(self, model_type: str | None) -> None:
        """Encode for a model of this type; refuses a budget of pixels that its processor cannot keep."""
        check_pixels(self.processor, self.settings.pixel_settings)
        self.model_type = model_type

    def encode(self, request: GenerationRequest) -> tuple[EncodedPrompt, LoadedRequest]:
        """
        One request as the model reads it, and with its media, for [`complete`].

        Raises:
            `MediaError`, `PromptError`: media that cannot be read, a prompt that cannot be used.
        """
        [loaded] = load_requests([request], self.settings, self.video_loader)
        return self._encode(loaded, with_preprocessing_cache(self.processor)), loaded

    def _choice_tokens(self, choices: Sequence[str]) -> list[int]:
        """
        The token of each choice.

        Raises:
            `PromptError`: there are none, or one is not a single token, or two are the same.
        """
        tokenizer = tokenizer_of(self.processor)
        found = [tokenizer(each, add_special_tokens=False)["input_ids"] for each in choices]
        whole = [each for each, ids in zip(choices, found, strict=True) if len(ids) != 1]
        if not found or whole or len({ids[0] for ids in found}) < len(found):
            what = (
                f"the choice {whole[0]!r} is not one token of this model's" if whole else "they are none, or the same"
            )
            raise PromptError(f"its choices {list(choices)} cannot be weighed: {what}.")
        return [ids[0] for ids in found]

    def _encode_window(self, requests: list[GenerationRequest]) -> list[tuple[str, EncodedPrompt | ValueError]]:
        """Key and prompt, or why there is none; requests on the same videos share the pixels."""
        encoded: list[tuple[str, EncodedPrompt | ValueError]] = []
        shown: list[torch.Tensor] = []
        cached = self.processor
        budget = self.settings.video_max_pixels, self.settings.video_min_pixels
        shrink = ProcessorShrink.of(self.processor, *budget)
        for loaded in load_requests(requests, self.settings, self.video_loader, shrink):
            frames = [frames for frames, _ in loaded.ordered]
            if list(map(id, frames)) != list(map(id, shown)):  # they come one after the other
                cached, shown = with_preprocessing_cache(self.processor), frames
            try:
                encoded.append((loaded.request.key, self._encode(loaded, cached)))
            except ValueError as error:  # MediaError and PromptError
                encoded.append((loaded.request.key, error))
        return encoded

    def _encode(self, loaded: LoadedRequest, cached_processor: Processor) -> EncodedPrompt:
        if loaded.error is not None:
            raise loaded.error
        check_taken(self.processor, len(loaded.videos), len(loaded.images))
        encoded = self._encode_videos(cached_processor, loaded, loaded.ordered)
        if loaded.request.contrast is not None and loaded.videos:
            ordered, encoded = encoded, self._encode_videos(self.processor, loaded, loaded.videos)
            if ordered.input_ids != encoded.input_ids:
                raise PromptError("its prompts on ordered and on contrast frames differ in their tokens.")
        longest = self.settings.max_prompt_length
        if longest is not None and len(encoded.input_ids) > longest:
            raise PromptError(too_long(len(encoded.input_ids), longest))
        return encoded

    def _encode_videos(self, processor: Processor, loaded: LoadedRequest, videos: list[Video]) -> EncodedPrompt:
        try:
            return encode_prompt(
                processor,
                loaded.messages,
                videos,
                loaded.images,
                chat_template_kwargs=self.chat_template_kwargs,
                model_type=self.model_type,
                **self.settings.pixel_settings,
            )
        except (ValueError, TemplateError) as error:  # of placeholders and features; of roles it does not take
            raise PromptError(str(error)) from error
