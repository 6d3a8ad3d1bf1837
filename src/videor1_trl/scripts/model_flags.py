"""Which model a command asks, through which backend, and how it is opened."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .messages import KEPT, expected_errors, stop, stop_process
from .record_flags import is_hub_id


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from videor1_trl.generation.requests import Backend, GenerationSettings


@dataclass
class ModelArguments:
    """The model that answers; how it answers is in GenerationSettings."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Hub id, or a folder with a model (or LoRA adapter) and its processor; of a server, the name under which "
            "it has the model."
        },
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    dtype: str = field(default="auto", metadata={"help": "auto, bfloat16, float16 or float32; not of a server."})
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "transformers: attention, such as sdpa or flash_attention_2. None: it decides."},
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})


@dataclass
class BackendArguments(ModelArguments):
    """The model that answers, and what runs it."""

    backend: Literal["transformers", "vllm", "server"] = field(
        default="transformers",
        metadata={
            "help": "What runs the model: transformers, vllm (extra of that name) or server, any that speaks OpenAI's chat "
            "completions."
        },
    )
    batch_size: int = field(default=8, metadata={"help": "transformers: prompts that are completed together (>= 1)."})
    tensor_parallel_size: int = field(default=1, metadata={"help": "vllm: GPUs that hold one model together (>= 1)."})
    gpu_memory_utilization: float = field(default=0.9, metadata={"help": "vllm: share of a GPU's memory, in (0, 1]."})
    base_url: str | None = field(default=None, metadata={"help": "server: such as http://localhost:8000/v1."})
    concurrency: int = field(default=8, metadata={"help": "server: requests under way (>= 1)."})
    video_as: str = field(
        default="frames",
        metadata={
            "help": "server: send a video as pictures of its frames, or as one mp4 of them.",
            "choices": ["frames", "video_url"],
        },
    )
    extra_body: str | None = field(
        default=None,
        metadata={
            "help": "server: a JSON object that goes into every request, such as "
            '{"continue_final_message": true, "add_generation_prompt": false}, which vLLM and SGLang need to go on with a begun '
            "answer."
        },
    )


def check_model_name(name: str | None) -> str:
    """The name of a model that may be there: a folder, or a Hub id."""
    if not name:
        stop("--model_name_or_path is not set: give a Hub id or a folder with a model and its processor.")
    if not is_hub_id(name) and not Path(name).is_dir():
        stop(f"--model_name_or_path ({name}) is not a folder. Give one with a model and its processor, or a Hub id.")
    return name


def check_backend(args: BackendArguments) -> None:
    """Refuses what does not fit before anything is loaded."""
    if args.backend != "server" or not args.model_name_or_path:
        args.model_name_or_path = check_model_name(os.path.expanduser(args.model_name_or_path or ""))
    if args.backend == "server" and args.base_url is None:
        stop("--base_url is not set: --backend server needs one, such as http://localhost:8000/v1.")
    if args.extra_body is not None and args.backend != "server":
        stop(f"--extra_body goes with --backend server, not with {args.backend}.")
    _extra_body(args)
    if args.backend == "vllm" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        stop("vLLM starts processes of its own: start this with python, and set --tensor_parallel_size.")


def open_backend(args: BackendArguments, settings: GenerationSettings) -> Backend:
    """The backend, its model loaded; ends the script in one line where that fails."""
    from videor1_trl.generation.backends import make_backend

    assert args.model_name_or_path is not None  # see `check_backend`
    local = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code, "dtype": args.dtype}
    options: dict[str, dict[str, object]] = {
        "transformers": {
            **local,
            "attn_implementation": args.attn_implementation,
            "batch_size": args.batch_size,
        },
        "vllm": {
            **local,
            "tensor_parallel_size": args.tensor_parallel_size,
            "gpu_memory_utilization": args.gpu_memory_utilization,
        },
        "server": {
            "base_url": args.base_url,
            "concurrency": args.concurrency,
            "video_as": args.video_as,
            "extra_body": _extra_body(args),
        },
    }
    with expected_errors(f"--model_name_or_path ({args.model_name_or_path}): "):
        return make_backend(args.backend, args.model_name_or_path, settings, **options[args.backend])


def _extra_body(args: BackendArguments) -> dict[str, object] | None:
    """The object that `--extra_body` writes."""
    try:
        found = None if args.extra_body is None else json.loads(args.extra_body)
    except ValueError as error:
        stop(f"--extra_body ({args.extra_body}) is not JSON: {error}.")
    if found is not None and not isinstance(found, dict):
        stop(f"--extra_body ({args.extra_body}) must be a JSON object.")
    return found


@contextlib.contextmanager
def run_errors() -> Iterator[None]:
    """Ends the run with the message alone where its backend breaks; what was completed is kept, and another start goes on."""
    import torch

    from videor1_trl.generation.journal import JournalInUse
    from videor1_trl.generation.server_backend import ServerError

    try:
        yield
    except (ServerError, torch.OutOfMemoryError, JournalInUse) as error:
        stop_process(f"{error} {KEPT}")
