"""Completes requests through any server that speaks OpenAI's chat completions, the sampled frames sent as pictures."""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import math
import os
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import av
import PIL.Image

from ..data.placing import PromptError, too_long
from ..media.loader import Video, VideoLoader
from ..media.video import load_video
from ..text.messages import content, text_of
from .media import LoadedRequest, load_requests, windows_ahead
from .requests import (
    GeneratedCompletion,
    GenerationRequest,
    GenerationSettings,
    WeighedChoices,
    callable_name,
    noting_choices,
    versions,
)
from .server_answers import TOP_LOGPROBS, count, excerpt, text_of_answer, weighed_choices
from .server_faults import GivenUp, Refused, ServerError


if TYPE_CHECKING:
    from .server_client import ServerClient


Body = dict[str, object]  # of a request, as JSON has it
Part = dict[str, object]  # of a message
Outcome = TypeVar("Outcome")  # of a request: a completion, or choices weighed
FAILURES_IN_A_ROW = 3  # requests given up one after the other, after which the server counts as down


class ServerBackend:
    """
    Completes requests through an OpenAI-compatible server (`vllm serve`, SGLang, llama.cpp, a provider).

    A frame is sent with the pixels that the settings allow; the server's processor may resize it again. The prompt's
    length is the server's to count and to refuse; one beyond `max_prompt_length` by its count is an error here too. A prompt
    that ends with a turn of the assistant's is an error, since servers would close it, unless `extra_body` has
    `{"continue_final_message": True, "add_generation_prompt": False}`, which vLLM and SGLang know.

    Args:
        base_url (`str`): such as `http://localhost:8000/v1`.
        model (`str`): the name under which the server has the model.
        settings ([`GenerationSettings`]): of every completion. `top_k` and `repetition_penalty` are sent only where they
            are set, since not every server knows them; `seed` only where tokens are sampled.
        api_key (`str`, *optional*): `None`: the environment's `OPENAI_API_KEY`, else no key.
        concurrency (`int`, defaults to `8`): requests under way.
        timeout_seconds (`float`, defaults to `600.0`): of a try, until the last byte of the answer is there.
        retries (`int`, defaults to `5`): further tries of openai's client after 408, 409, 429, 5xx, time-outs and broken
            connections: about 0.5, 1, 2, 4, 8, 8, ... s apart, or as the server says (`Retry-After`, within a minute or
            two). A request given up has an `error`; three in a row are a [`ServerError`].
        video_as (`str`, defaults to `"frames"`): `"frames"`: one `image_url` part per frame; `"video_url"`: the sampled
            frames as one mp4, at the rate they were sampled at, for servers that take videos. Their own sampling of
            it must then be set not to drop frames.
        image_format (`str`, defaults to `"jpeg"`): of frames and images, `"jpeg"` (quality 95) or `"png"`.
        extra_body (`dict`, *optional*): merged into the body of each request; `None` takes a field out, so that
            `{"max_tokens": None, "max_completion_tokens": 1024}` suits servers that renamed it.
        video_loader (`Callable`, defaults to [`load_video`]): as in [`TGRPOTrainer`].

    Raises:
        `ImportError`: openai's client is not installed.
    """

    def __init__(
        self,
        base_url: str | None,
        model: str,
        settings: GenerationSettings,
        *,
        api_key: str | None = None,
        concurrency: int = 8,
        timeout_seconds: float = 600.0,
        retries: int = 5,
        video_as: Literal["frames", "video_url"] = "frames",
        image_format: Literal["jpeg", "png"] = "jpeg",
        extra_body: Mapping[str, object] | None = None,
        video_loader: VideoLoader = load_video,
    ):
        if not (base_url or "").startswith(("http://", "https://")):
            raise ValueError(
                f"base_url ({base_url and base_url.rpartition('@')[2]!r}) must begin with http:// or https://, as http://localhost:8000/v1."
            )
        for name, value, lowest in (("concurrency", concurrency, 1), ("retries", retries, 0)):
            if value < lowest:
                raise ValueError(f"{name} ({value}) must be at least {lowest}.")
        if video_as not in ("frames", "video_url"):
            raise ValueError(f"video_as ({video_as!r}) must be 'frames' or 'video_url'.")
        if image_format not in ("jpeg", "png"):
            raise ValueError(f"image_format ({image_format!r}) must be 'jpeg' or 'png'.")
        assert base_url is not None
        try:
            from .server_client import ServerClient
        except ImportError as error:
            raise ImportError(
                f"The server backend needs openai's client ({error}). Install it with the extra server (in a clone: pip "
                "install '.[server]'), or use another backend."
            ) from error
        self._client = ServerClient
        self.base_url, self._login = _without_login(base_url.rstrip("/"))
        self.model, self.settings = model, settings
        self.concurrency, self.timeout_seconds, self.retries = concurrency, timeout_seconds, retries
        self.video_as, self.image_format, self.extra_body = video_as, image_format, dict(extra_body or {})
        self.video_loader = video_loader
        self._api_key = os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GeneratedCompletion]:
        """
        One completion per request, in the order in which they are done.

        Raises:
            [`ServerError`]: the server is not there, refuses the key or the model, or gave up three requests in a row.
        """
        return self._asked(
            requests, {}, self._completion, lambda key, error: GeneratedCompletion(key, None, error=error)
        )

    def weigh(self, requests: Iterable[GenerationRequest]) -> Iterator[WeighedChoices]:
        """
        How likely each choice of a request is to be the next token, where the server says so: with `logprobs`, and the
        `TOP_LOGPROBS` likeliest tokens. A choice that is not among these is an error that names it.

        Raises:
            [`ServerError`]: as [`generate`] does.
        """
        choices: dict[str, Sequence[str]] = {}

        def read(key: str, begun: str, answer: object) -> WeighedChoices:
            return weighed_choices(key, choices[key], answer)

        body: Body = {"logprobs": True, "top_logprobs": TOP_LOGPROBS, "max_tokens": 1, "temperature": 0.0}
        return self._asked(
            noting_choices(requests, choices), body, read, lambda key, error: WeighedChoices(key, None, error)
        )

    def _asked(
        self,
        requests: Iterable[GenerationRequest],
        more: Body,
        read: Callable[[str, str, object], Outcome],
        failed: Callable[[str, str], Outcome],
    ) -> Iterator[Outcome]:
        """What `read` makes of each answer, or `failed` of the reason why there is none; `more` goes over the usual body."""
        confirmed: _Confirmed[Outcome] = _Confirmed(self.base_url)
        prepare = functools.partial(self._prepare_window, more=more)
        with self._client(
            self.base_url,
            api_key=self._api_key,
            login=self._login,
            concurrency=self.concurrency,
            timeout_seconds=self.timeout_seconds,
            retries=self.retries,
        ) as client:  # which cancels what is under way where the run breaks off
            for window in windows_ahead(requests, 2 * self.concurrency, prepare):
                for key, prepared in window:
                    if isinstance(prepared, ValueError):
                        yield failed(key, str(prepared))
                        continue
                    client.ask(key, *prepared)
                    if len(client) > self.concurrency:  # one waits, so that no place stays empty
                        yield from confirmed(*_ended(client, read, failed))
            while len(client):
                yield from confirmed(*_ended(client, read, failed))
            yield from confirmed.rest()

    def describe(self) -> dict[str, object]:
        return {
            "backend": "server",
            "model": self.model,
            "base_url": self.base_url,  # without a password
            "dtype": None,
            "attention": None,
            "device": "server",
            "video_loader": callable_name(self.video_loader),
            "video_as": self.video_as,
            "image_format": self.image_format,
            "extra_body": self.extra_body,
            "versions": versions(),
            "settings": dataclasses.asdict(self.settings),
        }

    def _prepare_window(
        self, requests: list[GenerationRequest], more: Body
    ) -> list[tuple[str, tuple[str, Body] | ValueError]]:
        """Key, and the answer that the request's prompt begins with its body; or why there is none."""
        loaded = load_requests(requests, self.settings, self.video_loader)
        return [
            (each.request.key, each.error or self._closed(each) or (_begun(each), self._body(each, more)))
            for each in loaded
        ]

    def _closed(self, loaded: LoadedRequest) -> PromptError | None:
        """Why a server would not go on with an answer that the prompt begins."""
        if not _begun(loaded) or self.extra_body.get("continue_final_message"):
            return None
        return PromptError(
            "its prompt ends with a turn of the assistant's, which a server closes instead of going on with it. Set extra_body to "
            '{"continue_final_message": True, "add_generation_prompt": False} where the server knows them (vLLM, SGLang), or use '
            "another backend."
        )

    def _body(self, loaded: LoadedRequest, more: Body) -> Body:
        """What is sent, the media in their places."""
        settings = self.settings
        videos, images = iter(loaded.videos), iter(loaded.images)
        messages = []
        for message in loaded.messages:
            parts = [each for part in message["content"] for each in self._parts(part, videos, images)]
            only_text = all(part["type"] == "text" for part in parts)  # as a string: some servers take no list there
            messages.append({"role": message["role"], "content": text_of(message) if only_text else parts})
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k or None,
            "repetition_penalty": None if settings.repetition_penalty == 1 else settings.repetition_penalty,
            "seed": settings.sampling_seed(loaded.request.key) if settings.temperature > 0 else None,
            **more,
            **self.extra_body,
        }
        return {key: value for key, value in body.items() if value is not None}

    def _parts(self, part: Part, videos: Iterator[Video], images: Iterator[PIL.Image.Image]) -> list[Part]:
        """A part of a message as the server takes it: a video is several where its frames are sent one by one."""
        settings = self.settings
        if part["type"] == "image":
            image = fitted(next(images), settings.image_max_pixels, None)
            return [_picture(image, self.image_format)]
        if part["type"] != "video":
            return [part]
        frames, metadata = next(videos)
        pictures = [
            fitted(PIL.Image.fromarray(frame), settings.video_max_pixels, settings.video_min_pixels)
            for frame in frames.permute(0, 2, 3, 1).numpy()
        ]
        if self.video_as == "video_url":
            url = f"data:video/mp4;base64,{base64.b64encode(_mp4(pictures, metadata.timestamps)).decode()}"
            return [{"type": "video_url", "video_url": {"url": url}}]
        return [_picture(picture, self.image_format) for picture in pictures]

    def _completion(self, key: str, begun: str, answer: object) -> GeneratedCompletion:
        match answer:
            case {"choices": [{"message": {**message}, **choice}, *_], **rest}:
                try:
                    text = text_of_answer(begun, message)
                except TypeError as error:
                    return GeneratedCompletion(key, None, error=f"the server answered with {error}")
            case _:
                return GeneratedCompletion(key, None, error=f"the server answered without a choice: {excerpt(answer)}")
        usage = rest.get("usage")
        length, tokens = (count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
        longest = self.settings.max_prompt_length
        if length is not None and longest is not None and length > longest:
            return GeneratedCompletion(key, None, num_prompt_tokens=length, error=too_long(length, longest))
        finished = {"stop": True, "length": False}.get(str(choice.get("finish_reason")))
        named = [each for name in ("model", "system_fingerprint") if isinstance(each := rest.get(name), str)]
        return GeneratedCompletion(key, text, tokens, finished, length, served_by=", ".join(named)[:200] or None)


def _ended(
    client: ServerClient, read: Callable[[str, str, object], Outcome], failed: Callable[[str, str], Outcome]
) -> tuple[Outcome, str | None]:
    """What became of the next request that ends, and why the server was given up on, if it was."""
    key, begun, answer = client.next()
    try:
        return read(key, begun, answer.result()), None
    except Refused as error:
        return failed(key, str(error)), None
    except GivenUp as error:
        return failed(key, str(error)), str(error)


def _begun(loaded: LoadedRequest) -> str:
    """The answer that a prompt begins, where its last turn is the assistant's."""
    return content(loaded.messages[-1:]) if loaded.messages[-1]["role"] == "assistant" else ""


class _Confirmed(Generic[Outcome]):
    """Holds requests that were given up back until the server answers another: otherwise it is the server that fails."""

    def __init__(self, url: str):
        self.url, self.answered = url, False
        self.held: list[Outcome] = []
        self.first = ""

    def __call__(self, outcome: Outcome, given_up: str | None) -> Iterator[Outcome]:
        """Of one request after the other, as they end: those in a row are counted."""
        if given_up is None:
            self.answered = True
            yield from (*self.held, outcome)
            self.held = []
            return
        self.first = self.first if self.held else given_up
        self.held.append(outcome)
        if len(self.held) == FAILURES_IN_A_ROW:
            raise ServerError(f"{self.url}, {FAILURES_IN_A_ROW} requests in a row: {given_up}")

    def rest(self) -> Iterator[Outcome]:
        """What is held at the end."""
        if self.held and not self.answered:
            raise ServerError(f"{self.url} answered no request: {self.first}")
        yield from self.held


def _without_login(base_url: str) -> tuple[str, tuple[str, str] | None]:
    """An address without the name and password in it, which are then neither logged nor kept on record; and these."""
    found = urllib.parse.urlsplit(base_url)
    login, _, host = found.netloc.rpartition("@")
    name, _, password = login.partition(":")
    bare = found._replace(netloc=host).geturl()
    return bare, (urllib.parse.unquote(name), urllib.parse.unquote(password)) if login else None


def fitted(image: PIL.Image.Image, max_pixels: int | None, min_pixels: int | None) -> PIL.Image.Image:
    """The image with at most and at least so many pixels, its sides even where it is resized."""
    pixels = image.width * image.height
    if max_pixels is not None and pixels > max_pixels:
        halves = [math.floor(side * math.sqrt(max_pixels / pixels) / 2) for side in image.size]
    elif min_pixels is not None and pixels < min_pixels:
        halves = [math.ceil(side * math.sqrt(min_pixels / pixels) / 2) for side in image.size]
    else:
        return image
    return image.resize((2 * max(1, halves[0]), 2 * max(1, halves[1])), PIL.Image.Resampling.BICUBIC)


def _picture(image: PIL.Image.Image, form: str) -> Part:
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 95} if form == "jpeg" else {}))
    url = f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _mp4(frames: list[PIL.Image.Image], seconds: list[float]) -> bytes:
    """The frames as h264 at the rate at which they were sampled."""
    rate = (len(frames) - 1) / (seconds[-1] - seconds[0]) if len(frames) > 1 else 1.0
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", Fraction(rate).limit_denominator(1000), options={"crf": "10"})
        stream.width, stream.height = (max(2, side // 2 * 2) for side in frames[0].size)
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            even = frame.resize((stream.width, stream.height))  # a side of an odd number of pixels loses one
            container.mux(stream.encode(av.VideoFrame.from_image(even)))
        container.mux(stream.encode())
    return buffer.getvalue()
