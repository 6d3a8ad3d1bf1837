"""Completes requests through any server that speaks OpenAI's chat completions, the sampled frames sent as pictures."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import io
import json
import logging
import math
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from fractions import Fraction
from typing import Any, Literal

import av
import PIL.Image

from .batch import text_of
from .generation_media import LoadedRequest, VideoLoader, load_requests, windows_ahead
from .generation_requests import (
    GeneratedCompletion,
    GenerationRequest,
    GenerationSettings,
    callable_name,
    too_long,
    versions,
)
from .prompts import THINK_CLOSE, THINK_OPEN
from .video import load_video


logger = logging.getLogger(__name__)

AGAIN = (408, 409, 425, 429)  # as is every 5xx: another try may help
WHOLE = (401, 403, 404, 405)  # no request can succeed: key, address or model are wrong
FAILURES_IN_A_ROW = 3  # requests given up one after the other, after which the server counts as down
LONGEST_WAIT_SECONDS = 60.0


class ServerError(RuntimeError):
    """The server is not there, refuses every request, or fails one after the other."""


class ServerBackend:
    """
    Completes requests through an OpenAI-compatible server (`vllm serve`, SGLang, llama.cpp, a provider).

    A frame is sent with the pixels that the settings allow; the server's processor may resize it again. The prompt's
    length is the server's to count and to refuse; one beyond `max_prompt_length` by its count is an error here too.

    Args:
        base_url (`str`): such as `http://localhost:8000/v1`.
        model (`str`): the name under which the server has the model.
        settings ([`GenerationSettings`]): of every completion. `top_k` and `repetition_penalty` are sent only where they
            are set, since not every server knows them; `seed` only where tokens are sampled.
        api_key (`str`, *optional*): `None`: the environment's `OPENAI_API_KEY`, else no key.
        concurrency (`int`, defaults to `8`): requests under way.
        timeout_seconds (`float`, defaults to `600.0`): until the server begins to answer.
        retries (`int`, defaults to `5`): further tries after 429, 5xx and time-outs, 1, 2, 4, ... s apart or as the
            server says. A request given up has an `error`; three in a row are a [`ServerError`].
        video_as (`str`, defaults to `"frames"`): `"frames"`: one `image_url` part per frame; `"video_url"`: the sampled
            frames as one mp4, at the rate they were sampled at, for servers that take videos. Their own sampling of
            it must then be set not to drop frames.
        image_format (`str`, defaults to `"jpeg"`): of frames and images, `"jpeg"` (quality 95) or `"png"`.
        extra_body (`dict`, *optional*): merged into the body of each request; `None` takes a field out, so that
            `{"max_tokens": None, "max_completion_tokens": 1024}` suits servers that renamed it.
        video_loader (`Callable`, defaults to [`load_video`]): as in [`TGRPOTrainer`].
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
        extra_body: dict[str, Any] | None = None,
        video_loader: VideoLoader = load_video,
    ):
        if not (base_url or "").startswith(("http://", "https://")):
            raise ValueError(
                f"base_url ({base_url!r}) must begin with http:// or https://, as http://localhost:8000/v1."
            )
        for name, value, lowest in (("concurrency", concurrency, 1), ("retries", retries, 0)):
            if value < lowest:
                raise ValueError(f"{name} ({value}) must be at least {lowest}.")
        if video_as not in ("frames", "video_url"):
            raise ValueError(f"video_as ({video_as!r}) must be 'frames' or 'video_url'.")
        if image_format not in ("jpeg", "png"):
            raise ValueError(f"image_format ({image_format!r}) must be 'jpeg' or 'png'.")
        assert base_url is not None
        self.base_url, self.model, self.settings = base_url.rstrip("/"), model, settings
        self.concurrency, self.timeout_seconds, self.retries = concurrency, timeout_seconds, retries
        self.video_as, self.image_format, self.extra_body = video_as, image_format, extra_body or {}
        self.video_loader = video_loader
        self._api_key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GeneratedCompletion]:
        """
        One completion per request, in the order in which they are done.

        Raises:
            [`ServerError`]: the server is not there, refuses the key or the model, or gave up three requests in a row.
        """
        under_way: set[Future[tuple[GeneratedCompletion, bool]]] = set()
        confirmed, stopped = _Confirmed(self.base_url), threading.Event()
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="server")
        try:
            for window in windows_ahead(requests, 2 * self.concurrency, self._prepare_window):
                for key, body in window:
                    if isinstance(body, ValueError):
                        yield GeneratedCompletion(key, None, error=str(body))
                        continue
                    under_way.add(pool.submit(self._complete, key, body, stopped))
                    if len(under_way) > self.concurrency:  # one waits, so that no thread does
                        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                        yield from confirmed(done)
            for future in as_completed(under_way):
                yield from confirmed([future])
            yield from confirmed.rest()
        finally:  # where the run breaks off, nobody waits for further tries
            stopped.set()
            pool.shutdown(cancel_futures=True)

    def describe(self) -> dict[str, Any]:
        return {
            "backend": "server",
            "model": self.model,
            "base_url": re.sub("//[^/@]*@", "//", self.base_url),  # without a password
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

    def _prepare_window(self, requests: list[GenerationRequest]) -> list[tuple[str, bytes | ValueError]]:
        loaded = load_requests(requests, self.settings, self.video_loader)
        return [(each.request.key, each.error or self._body(each)) for each in loaded]

    def _body(self, loaded: LoadedRequest) -> bytes:
        """The request as JSON, its media in their places."""
        settings = self.settings
        media = {"video": iter(loaded.videos), "image": iter(loaded.images)}
        messages = []
        for message in loaded.messages:
            parts = [each for part in message["content"] for each in self._parts(part, media)]
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
            **self.extra_body,
        }
        return json.dumps({key: value for key, value in body.items() if value is not None}).encode()

    def _parts(self, part: dict[str, Any], media: dict[str, Iterator[Any]]) -> list[dict[str, Any]]:
        """A part of a message as the server takes it: a video is several where its frames are sent one by one."""
        settings = self.settings
        if part["type"] == "image":
            image = fitted(next(media["image"]), settings.image_max_pixels, None)
            return [_picture(image, self.image_format)]
        if part["type"] != "video":
            return [part]
        frames, metadata = next(media["video"])
        pictures = [
            fitted(PIL.Image.fromarray(frame), settings.video_max_pixels, settings.video_min_pixels)
            for frame in frames.permute(0, 2, 3, 1).numpy()
        ]
        if self.video_as == "video_url":
            url = f"data:video/mp4;base64,{base64.b64encode(_mp4(pictures, metadata.timestamps)).decode()}"
            return [{"type": "video_url", "video_url": {"url": url}}]
        return [_picture(picture, self.image_format) for picture in pictures]

    def _complete(self, key: str, body: bytes, stopped: threading.Event) -> tuple[GeneratedCompletion, bool]:
        """The completion, and whether its error is that the server was given up on."""
        for attempt in range(self.retries + 1):
            try:
                return self._completion(key, self._post(body)), False
            except urllib.error.HTTPError as error:
                fault = f"status {error.code}: {_message(error)}"
                if error.code < 400 or error.code in WHOLE:
                    raise ServerError(f"{self.base_url} refused {self.model!r} with {fault}") from error
                if error.code < 500 and error.code not in AGAIN:
                    return GeneratedCompletion(key, None, error=f"the server refused it with {fault}"), False
                pause = _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:  # URLError, time-outs
                fault, pause = f"{type(error).__name__}: {error}", None
            if attempt < self.retries:
                pause = min(2.0**attempt if pause is None else pause, LONGEST_WAIT_SECONDS)
                logger.warning("%s: %s. Trying again in %.0f s.", self.base_url, fault, pause)
                if stopped.wait(pause):
                    break
        return GeneratedCompletion(key, None, error=f"the server failed {attempt + 1} times, last with {fault}"), True

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(f"{self.base_url}/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=self.timeout_seconds) as answer:
            return json.loads(answer.read())

    def _completion(self, key: str, answer: Any) -> GeneratedCompletion:
        try:
            choice, usage = answer["choices"][0], answer.get("usage") or {}
            message = choice["message"]
        except (KeyError, IndexError, TypeError, AttributeError):
            return GeneratedCompletion(key, None, error=f"the server answered without a choice: {str(answer)[:300]}")
        text = message.get("content") or ""
        thought = message.get("reasoning_content") or message.get("reasoning")
        if thought:  # a server that parses it has cut it out of the text
            text = f"{THINK_OPEN}{thought}{THINK_CLOSE}{text}"
        length, longest = usage.get("prompt_tokens"), self.settings.max_prompt_length
        if length is not None and longest is not None and length > longest:
            return GeneratedCompletion(key, None, num_prompt_tokens=length, error=too_long(length, longest))
        finished = {"stop": True, "length": False}.get(choice.get("finish_reason"))
        return GeneratedCompletion(key, text, usage.get("completion_tokens"), finished, length)


class _Confirmed:
    """Holds requests that were given up back until the server answers another: otherwise it is the server that fails."""

    def __init__(self, url: str):
        self.url, self.answered = url, False
        self.held: list[GeneratedCompletion] = []

    def __call__(self, done: Iterable[Future[tuple[GeneratedCompletion, bool]]]) -> Iterator[GeneratedCompletion]:
        for future in done:
            completion, gave_up = future.result()
            if not gave_up:
                self.answered = True
                yield from (*self.held, completion)
                self.held = []
                continue
            self.held.append(completion)
            if len(self.held) == FAILURES_IN_A_ROW:
                raise ServerError(f"{self.url}, {FAILURES_IN_A_ROW} requests in a row: {completion.error}")

    def rest(self) -> Iterator[GeneratedCompletion]:
        """What is held at the end."""
        if self.held and not self.answered:
            raise ServerError(f"{self.url} answered no request: {self.held[0].error}")
        yield from self.held


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


def _picture(image: PIL.Image.Image, form: str) -> dict[str, Any]:
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


def _message(error: urllib.error.HTTPError) -> str:
    """What the server says is wrong."""
    said = error.read().decode(errors="replace")
    try:
        answer = json.loads(said)
        found = answer.get("error", answer)
        said = found.get("message", said) if isinstance(found, dict) else str(found)
    except (ValueError, AttributeError):  # not JSON, or no object
        pass
    return " ".join(str(said).split())[:500] or str(error.reason)


def _seconds(header: str | None) -> float | None:
    """`Retry-After` as seconds; `None` where it is missing or a date."""
    return float(header) if header and header.strip().isdigit() else None
