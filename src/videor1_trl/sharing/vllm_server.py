"""Rollouts by a vLLM server on other GPUs (`vllm_mode="server"`): our own features posted, one request for equal prompts."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from functools import partial
from typing import Any, NoReturn

import requests
import torch
from requests.adapters import HTTPAdapter
from trl.generation.vllm_client import VLLMClient, parse_logprobs
from urllib3.util.retry import Retry

from ..media.readahead import in_threads, settle
from ..models.encoding import EncodedPrompt
from ..text.messages import Named
from .vllm import FINISHED, TESTED, is_tested
from .vllm_inputs import EngineInputs
from .vllm_settings import Prompt, check_model, ends_and_bias, engine_dtype, max_model_length, mode_and_step
from .vllm_worker import sizes_of


CONNECT_SECONDS, AT_ONCE = 20, 64  # for a connection; requests under way
GENERATE = "/inference/v1/generate"
FLAGS = {  # of `vllm serve`, by the place of what they set in vLLM's config
    "model_config.dtype": "--dtype {}",
    "model_config.logprobs_mode": "--logprobs-mode {}",
    "model_config.multimodal_config.mm_device_do_normalize": "--no-mm-device-do-normalize",
    "parallel_config.worker_extension_cls": "--worker-extension-cls {}",
    "model_config.max_model_len": "--max-model-len {}",
    "scheduler_config.max_num_seqs": "--max-num-seqs {}",
}
AT_LEAST = ("model_config.max_model_len", "scheduler_config.max_num_seqs")


class Fault(list):
    """In the place of the completions that are broadcast: each rank that takes its own out of it ends with the reason."""

    def __init__(self, reason: str):
        super().__init__()
        self.reason = reason

    def __getitem__(self, place: object) -> NoReturn:
        raise RuntimeError(self.reason)

    def __reduce__(self) -> tuple[object, ...]:
        return Fault, (self.reason,)


class RolloutClient(VLLMClient):
    """
    TRL's client of a `vllm serve`, for [`Prompt`]s: it posts what they carry to the endpoint that takes encoded prompts, and has
    the server forget what old weights made. The weights go TRL's way.

    Args:
        trainer (`TGRPOTrainer`): whose rollouts it asks for.
        **theirs: the arguments that TRL gives.

    Raises:
        `ConnectionError`: no server answers. `RuntimeError`: one of another version, or started otherwise than the run needs.
    """

    def __init__(self, *, trainer: Any, **theirs: Any):
        args = trainer.args
        check_model(trainer, trainer.model.name_or_path)
        self._trainer, self._weights = trainer, 0
        self._calls: Counter[tuple[object, ...]] = Counter()
        self._answer_seconds = float(args.ddp_timeout)  # the other ranks wait no longer
        super().__init__(**theirs)
        self._check_server_settings(
            {
                "model_config.dtype": str(engine_dtype(trainer, args)),
                "model_config.logprobs_mode": "raw_logprobs",  # before top_p and suppressed tokens, as the learner's
                "model_config.multimodal_config.mm_device_do_normalize": False,  # pixels are normalised already
                "parallel_config.worker_extension_cls": "videor1_trl.sharing.vllm_worker.RolloutWorker",
                "model_config.max_model_len": max_model_length(args) or 0,
                "scheduler_config.max_num_seqs": max(args.num_generations, args.num_generations_eval or 0),
            }
        )
        self._check_model(sizes_of(trainer.model.config))
        self._post_empty("/collective_rpc", json={"method": "videor1_temper", "args": [str(trainer.temperature)]})
        self._inputs = EngineInputs.of_folder(
            trainer.model.name_or_path, dtype=engine_dtype(trainer, args), trust_remote_code=args.trust_remote_code
        )

    def check_server(self, total_timeout: float = 0.0, retry_interval: float = 2.0) -> None:
        """As the parent's, which waits for ever for a server that takes a connection and says nothing."""
        # here, where the session is new; TRL's own tries for minutes what a dead server cannot answer
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Limited((CONNECT_SECONDS, self._answer_seconds)))
        end, found = time.monotonic() + total_timeout, "nothing"
        while True:
            try:
                response = requests.get(f"{self.base_url}/health", timeout=CONNECT_SECONDS)
            except requests.RequestException as error:
                found = str(error)
            else:
                if response.status_code == 200:
                    return
                found = f"{response.status_code} {response.text[:200]}"
            if time.monotonic() >= end:
                raise ConnectionError(
                    f"No vLLM server answers at {self.base_url} within {total_timeout:g} s (vllm_server_timeout): {found}. Start "
                    "it (docs/vllm.md has the command), or change vllm_server_base_url, or vllm_server_host and _port."
                )
            time.sleep(retry_interval)

    def get_server_info(self) -> Named:
        """The server's config. TRL warns of raw log-probabilities, which do not know the temperature: here they do."""
        info: Named = super().get_server_info()
        return {**info, "model_config": {**info["model_config"], "logprobs_mode": "processed_logprobs"}}

    def generate(self, prompts: Sequence[Prompt], features: None = None, **theirs: Any) -> Named:  # type: ignore[override]
        """
        One completion of each row, in their order: a request for each distinct prompt, with as many completions as it has rows.

        What goes wrong is told to all ranks: they find it in the place of their completions.
        """
        call = mode_and_step(self._trainer)
        self._calls = Counter({call: self._calls[call] + 1})
        distinct: dict[object, EncodedPrompt] = {}
        rows_of: dict[object, list[int]] = {}
        for row, prompt in enumerate(prompts):
            if prompt.encoded is not None:
                key = _key(prompt.encoded)
                distinct.setdefault(key, prompt.encoded)
                rows_of.setdefault(key, []).append(row)
        seeds = (self._trainer.args.seed, *call, self._calls[call])
        ids: list[list[int]] = [[] for _ in prompts]
        logps: list[list[list[float | None]]] = [[] for _ in prompts]
        try:
            work = [
                (distinct[key], {**self._sampling(theirs), "n": len(rows), "seed": _seed(*seeds, place)})
                for place, (key, rows) in enumerate(rows_of.items())
            ]
            for rows, choices in zip(rows_of.values(), self._ask(work), strict=True):
                of_rows, _ = parse_logprobs([choice["logprobs"] for choice in choices])
                for row, choice, values in zip(rows, choices, of_rows or [], strict=True):
                    if len(values) != len(choice["token_ids"]):
                        raise ValueError(f"{len(values)} log-probabilities of {len(choice['token_ids'])} tokens")
                    ids[row], logps[row] = choice["token_ids"], values
        except RuntimeError as error:
            return {"prompt_ids": [], "completion_ids": Fault(str(error)), "logprobs": None}
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # the other ranks wait for something
            reason = f"{type(error).__name__}: {error}"
            fault = Fault(
                f"The rollouts by the vLLM server at {self.base_url} cannot be read or asked for ({reason})."
            )
            return {"prompt_ids": [], "completion_ids": fault, "logprobs": None}
        return {"prompt_ids": ids, "completion_ids": ids, "logprobs": logps}

    def reset_prefix_cache(self) -> None:
        """TRL calls this behind new weights: nothing that the old ones made is found again, of the tower's neither."""
        self._weights += 1
        for path in ("/reset_encoder_cache", "/reset_mm_cache"):
            self._post_empty(path)
        if not self._post(f"{self.base_url}/reset_prefix_cache")["success"]:
            raise RuntimeError(
                f"The vLLM server at {self.base_url} cannot empty its prefix cache while requests run that are not of this run: "
                "prompts would be read with old weights. A run needs a server of its own."
            )

    def _ask(self, work: Sequence[tuple[EncodedPrompt, Named]]) -> list[list[Named]]:
        """The completions of all prompts. A fault or an interruption ends the wait at once; what is under way is left behind."""
        futures: list[Future[list[Named]]] = [Future() for _ in work]
        over = threading.Event()

        def ask(future: Future[list[Named]], prompt: EncodedPrompt, sampling: Named) -> None:
            if not over.is_set():
                settle(future, self._complete, prompt, sampling)

        in_threads([partial(ask, future, *each) for future, each in zip(futures, work, strict=True)], AT_ONCE)
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        finally:
            over.set()

    def _complete(self, prompt: EncodedPrompt, sampling: Named) -> list[Named]:
        """The completions of a prompt, `sampling["n"]` of them."""
        from vllm.entrypoints.scale_out.token_in_token_out.mm_features import extract_mm_features

        body: Named = {"token_ids": list(prompt.input_ids), "model": self.model, "sampling_params": sampling}
        if (features := extract_mm_features(self._inputs.of(prompt, salt=f"{self._weights}-"))) is not None:
            body["features"] = features.model_dump(exclude={"mm_metadata"})
        choices: list[Named] = self._post(self.base_url + GENERATE, json=body)["choices"]
        ended = [choice["finish_reason"] for choice in choices]
        if len(choices) != sampling["n"] or not set(ended) <= set(FINISHED):
            raise RuntimeError(
                f"The vLLM server at {self.base_url} gave {len(choices)} completions, ended by {', '.join(map(str, ended))}, of "
                f"{sampling['n']} that were asked for: it was stopped or paused meanwhile. Its log says why."
            )
        return sorted(choices, key=lambda choice: choice["index"])

    def _sampling(self, theirs: Named) -> Named:
        """TRL's keywords as sampling parameters, and what [`ends_and_bias`] says."""
        found = {
            key: value for key, value in theirs.items() if key not in ("structured_outputs_regex", "generation_kwargs")
        }
        if (regex := theirs.get("structured_outputs_regex")) is not None:
            found["structured_outputs"] = {"regex": regex}
        found.update(theirs.get("generation_kwargs") or {})
        ends, bias = ends_and_bias(self._trainer, found.get("stop_token_ids"), found.get("logit_bias"))
        return {**found, "stop_token_ids": ends, "logit_bias": bias, "temperature": 1.0, "detokenize": False}

    def _check_server_settings(self, needed: Mapping[str, object]) -> None:
        """Refuse a server that was started otherwise; `needed`: values by their place in vLLM's config."""
        version = self._get(f"{self.base_url}/version")["version"]
        if not is_tested(version):
            raise RuntimeError(
                f"The vLLM server at {self.base_url} is of version {version}, and prompts are encoded here for {', '.join(TESTED)}."
            )
        with self._named(GENERATE):
            if self.session.get(self.base_url + GENERATE).status_code == 404:
                raise RuntimeError(
                    f"The vLLM server at {self.base_url} takes no encoded prompts. Start it with --enable-scale-out."
                )
            settings = super().get_server_info()
        for path, value in needed.items():
            found: Any = settings
            for name in path.split("."):
                found = found[name] if found is not None else None
            if found is None and "multimodal" in path:  # a text model
                continue
            least = path in AT_LEAST
            if found < value if least else found != value:
                flag = FLAGS[path].format(str(value).removeprefix("torch."))
                raise RuntimeError(
                    f"The vLLM server at {self.base_url} was started with {path.split('.')[-1]}={found}, and this run needs "
                    f"{value}{' or more' if least else ''}. Start it with {flag}."
                )

    def _check_model(self, needed: Named) -> None:
        """Refuse a server of another model, before weights are sent that it cannot take: NCCL would wait for ever."""
        [served, *_] = self._post(f"{self.base_url}/collective_rpc", json={"method": "videor1_model"})["results"]
        if other := [name for name, value in needed.items() if served[name] != value]:
            raise RuntimeError(
                f"The vLLM server at {self.base_url} serves another model than this run trains: {served['path']} has "
                f"{', '.join(f'{name}={served[name]} for {needed[name]}' for name in other)}. Start it with the run's model."
            )

    @contextlib.contextmanager
    def _named(self, url: str) -> Iterator[None]:
        """Within the context a request that gets no answer says of which server, and what to do."""
        try:
            yield
        except requests.RequestException as error:
            raise RuntimeError(
                f"The vLLM server at {self.base_url} broke off, or gave no answer to {url.removeprefix(self.base_url)} within "
                f"{self._answer_seconds:g} s (ddp_timeout): {error}. Its log says why. Start it again, and go on from the last "
                "checkpoint."
            ) from error

    def _get(self, url: str, **arguments: Any) -> Any:
        with self._named(url):
            return super()._get(url, **arguments)

    def _post(self, url: str, **arguments: Any) -> Any:
        with self._named(url):  # an answer that is no JSON, too
            return self._answer(url, **arguments).json()

    def _post_empty(self, path: str, **arguments: Any) -> None:
        """Where the answer has no body, of which TRL knows nothing."""
        self._answer(self.base_url + path, **arguments)

    def _answer(self, url: str, **arguments: Any) -> requests.Response:
        with self._named(url):
            response = self.session.post(url, **arguments)
        if response.status_code != 200:
            raise RuntimeError(f"The vLLM server refuses {url} ({response.status_code}): {response.text[:2000]}")
        return response


class _Limited(HTTPAdapter):
    """A connection whose requests wait no longer than `seconds` (to connect, to be answered), and are not sent again once read."""

    def __init__(self, seconds: tuple[float, float]):
        self._seconds = seconds
        again = Retry(total=3, read=0, status=2, status_forcelist=[502, 503], backoff_factor=1, allowed_methods=None)
        super().__init__(max_retries=again, pool_maxsize=AT_ONCE)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **settings: Any) -> requests.Response:
        return super().send(request, *arguments, **{**settings, "timeout": settings.get("timeout") or self._seconds})


def _key(prompt: EncodedPrompt) -> tuple[object, ...]:
    """Equal for equal prompts, also of different ranks."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(prompt.features):
        value = prompt.features[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return tuple(prompt.input_ids), digest.digest()


def _seed(*parts: object) -> int:
    """A seed of a request; above it there is room for the number of a completion, which vLLM adds."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 2
