"""Asks an OpenAI-compatible server through openai's client: tries, pauses and time-outs are its own (extra `server`)."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import math
import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from email.utils import parsedate_tz
from typing import TYPE_CHECKING, Any

import anyio
import openai
from anyio.from_thread import start_blocking_portal

from .server_faults import GivenUp, Refused, ServerError


if TYPE_CHECKING:  # what openai's client is made of, since its version 3
    import httpx2


logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 64 * 2**20  # of an answer, unpacked; a million tokens are some 4 MiB
MIN_SECRET_CHARS = 16  # from which on a key is taken out of completions too; "EMPTY" may be a word of theirs
AGAIN = (408, 409, 429)  # as is every 5xx: another try may help, and openai's client makes it
WHOLE = (401, 403, 404, 405)  # no request can succeed: key, address or model are wrong


class ServerClient:
    """
    Has requests under way in an event loop of its own, as a context manager; on leaving it, those under way are cancelled,
    in the middle of a pause or of an answer.

    Args:
        base_url (`str`), concurrency (`int`), timeout_seconds (`float`), retries (`int`): as in [`ServerBackend`].
        api_key (`str`): `""`: none is sent.
        login (`tuple[str, str]`, *optional*): name and password, sent instead of a key.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str,
        login: tuple[str, str] | None,
        concurrency: int,
        timeout_seconds: float,
        retries: int,
    ):
        self._base_url, self._retries = base_url, retries
        self._warned: set[str] = set()
        self._under_way: dict[Future[object], tuple[str, str]] = {}
        self._answered = queue.SimpleQueue[Future[object]]()
        self._free = asyncio.Semaphore(concurrency)
        self._stack = ExitStack()
        self._options: openai.RequestOptions = {} if api_key else {"headers": {"Authorization": openai.Omit()}}
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or "none",  # it must have one, and does not send this one
            timeout=timeout_seconds,
            max_retries=retries,
            http_client=_Heard(
                self._hear, auth=login, timeout_seconds=timeout_seconds, secrets=[api_key, *(login or ())[1:]]
            ),
        )

    def __enter__(self) -> ServerClient:
        self._portal = self._stack.enter_context(start_blocking_portal())
        return self

    def __exit__(self, *error: object) -> None:
        for future in self._under_way:
            future.cancel()
        self._portal.call(self._client.close)
        self._stack.close()

    def __len__(self) -> int:
        """How many requests are under way, those that wait for their turn among them."""
        return len(self._under_way)

    def ask(self, key: str, begun: str, body: Mapping[str, object]) -> None:
        """Begin to ask; what [`next`] returns goes with `key` and `begun`."""
        future = self._portal.start_task_soon(self._ask, body)
        self._under_way[future] = key, begun
        future.add_done_callback(self._answered.put)

    def next(self) -> tuple[str, str, Future[object]]:
        """
        The next request that ends, in the order in which they do: `(key, begun, answer)`, the answer as JSON has it.

        Its `result` raises [`Refused`] or [`GivenUp`] of this request, or [`ServerError`] where no request can succeed.
        """
        answer = self._answered.get()
        return *self._under_way.pop(answer), answer

    async def _ask(self, body: Mapping[str, object]) -> object:
        try:
            async with self._free:
                answer = await self._client.post("/chat/completions", cast_to=str, body=body, options=self._options)
            return json.loads(answer)
        except openai.APIStatusError as error:
            code, fault = error.status_code, _fault(error.response)
            if code < 400:
                fault += " (a redirect, which is not followed: the key would go with it). Give the address it leads to"
            if code < 400 or code in WHOLE:
                raise ServerError(f"{self._base_url} refused {body.get('model')!r} with {fault}") from error
            if not _may_pass(code):
                raise Refused(f"the server refused it with {fault}") from error
            raise GivenUp(f"the server failed {_tries(error.request)} times, last with {fault}") from error
        except openai.APIConnectionError as error:  # of time-outs, too
            fault = _named(error.__cause__ or error)
            raise GivenUp(f"the server failed {_tries(error.request)} times, last with {fault}") from error
        except (
            ValueError,
            RecursionError,
        ) as error:  # integers of thousands of digits, and lists in lists without end
            raise GivenUp(f"the server answered with what is no JSON: {answer[:300]!r}") from error
        except openai.OpenAIError as error:
            raise GivenUp(f"the server's answer cannot be used: {_named(error)[:500]}") from error

    def _hear(self, fault: str, tries: int) -> None:
        """Says once of each fault that there will be further tries: all requests under way meet the same one."""
        if tries <= self._retries and fault not in self._warned:
            self._warned.add(fault)
            logger.warning(
                "%s: %s. Trying again, up to %d times for each request; this is said once.",
                *(self._base_url, fault, self._retries),
            )


class _Heard(openai.DefaultAsyncHttpxClient):
    """
    Tells `hear` of every try that failed and may be made again: the fault, and which try of its request it was. A try has
    its time from the first byte sent to the last one that comes, and an answer its size; no redirect is followed.

    Args:
        hear (`Callable`): `(fault, tries) -> None`.
        auth (`tuple[str, str]`, *optional*): name and password.
        timeout_seconds (`float`): of a try as a whole.
        secrets (`list[str]`): what no message may hold, whatever the server echoes.
    """

    def __init__(
        self,
        hear: Callable[[str, int], None],
        *,
        auth: tuple[str, str] | None,
        timeout_seconds: float,
        secrets: list[str],
    ):
        super().__init__(auth=auth, follow_redirects=False)
        self._hear, self._seconds = hear, timeout_seconds
        self._secrets = [each.encode() for each in secrets if each]

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            with anyio.fail_after(self._seconds):
                response = await super().send(request, **options | {"stream": True})
                response = await self._whole(request, response)
        except TimeoutError as error:
            late = _httpx(request).ReadTimeout(f"no whole answer within {self._seconds:g} s", request=request)
            self._hear(_named(late), _tries(request))
            raise late from error
        except GivenUp:
            raise
        except Exception as error:
            self._hear(_named(error), _tries(request))
            raise
        if _may_pass(response.status_code):
            self._hear(_fault(response), _tries(request))
        return response

    async def _whole(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """The response with its body, which is UTF-8 of a bounded size, and without headers that nobody can read."""
        body = bytearray()
        try:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise GivenUp(f"the server's answer has more than {MAX_ANSWER_BYTES:,} bytes")
        finally:
            await response.aclose()
        for secret in self._secrets:
            if response.status_code != 200 or len(secret) >= MIN_SECRET_CHARS:
                body = body.replace(secret, b"***")
        said = bytes(body)
        if response.status_code == 200:
            try:
                said.decode()
            except UnicodeDecodeError as error:
                raise GivenUp(f"the server answered with what is no UTF-8: {said[:100]!r}") from error
        kept = {"content-type": "application/json; charset=utf-8"}
        kept |= {name: response.headers[name] for name in ("x-should-retry",) if name in response.headers}
        kept |= {
            name: response.headers[name] for name in ("retry-after", "retry-after-ms") if _says_when(response, name)
        }
        return type(response)(response.status_code, headers=kept, content=said, request=request)


def _httpx(request: httpx2.Request) -> Any:
    """The module that a request is of: `httpx2` or, with an older client, `httpx`."""
    return importlib.import_module(type(request).__module__.partition(".")[0])


def _says_when(response: httpx2.Response, name: str) -> bool:
    """Whether a header tells seconds or a date: whatever else a server writes there is no reason to fail."""
    value = response.headers.get(name, "")
    try:
        return value.isascii() and (math.isfinite(float(value)) if value[:1].isdigit() else bool(parsedate_tz(value)))
    except (IndexError, OverflowError, TypeError, ValueError):
        return False


def _may_pass(code: int) -> bool:
    return code in AGAIN or code >= 500


def _tries(request: httpx2.Request) -> int:
    """How often a request was sent, this time included."""
    return 1 + int(request.headers.get("x-stainless-retry-count", 0))


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _fault(response: httpx2.Response) -> str:
    """The status, and what the server says is wrong."""
    said = response.text
    try:
        answer = json.loads(said)
        found = answer.get("error", answer)
        said = found.get("message", said) if isinstance(found, dict) else str(found)
    except (ValueError, AttributeError):  # not JSON, or no object
        pass
    return f"status {response.status_code}: {' '.join(str(said).split())[:500] or response.reason_phrase}"
