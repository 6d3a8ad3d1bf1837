"""What the scripts that ask a model share: which model, through which backend, and how it is opened."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from run_data import expected_errors, stop, stop_process


@dataclass
class BackendArguments:
    """The model that answers, and what runs it; how it answers is in GenerationSettings."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Hub id, or a folder with a model (or LoRA adapter) and its processor; of a server, the name under which "
            "it has the model."
        },
    )
    backend: str = field(
        default="transformers",
        metadata={
            "help": "What runs the model: transformers, vllm (extra of that name) or server, any that speaks OpenAI's chat "
            "completions.",
            "choices": ["transformers", "vllm", "server"],
        },
    )
    batch_size: int = field(default=8, metadata={"help": "transformers: prompts that are completed together (>= 1)."})
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    dtype: str = field(default="auto", metadata={"help": "auto, bfloat16, float16 or float32; not of a server."})
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "transformers: attention, such as sdpa or flash_attention_2. None: it decides."},
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})
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


def check_backend(args: BackendArguments) -> None:
    """Refuses what does not fit before anything is loaded."""
    if args.model_name_or_path and args.backend != "server":
        args.model_name_or_path = os.path.expanduser(args.model_name_or_path)
    name = args.model_name_or_path
    if not name:
        stop("model_name_or_path is not set: give a Hub id or a folder with a model and its processor.")
    assert name is not None
    looks_local = Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1
    if args.backend != "server" and looks_local and not Path(name).is_dir():
        stop(f"model_name_or_path ({name}) is not a folder. Give one with a model and its processor, or a Hub id.")
    if args.backend == "server" and args.base_url is None:
        stop("base_url is not set: backend=server needs one, such as http://localhost:8000/v1.")
    if args.backend == "vllm" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        stop("vLLM starts processes of its own: start this with python, and set tensor_parallel_size.")


def open_backend(args: BackendArguments, settings):
    """The backend, its model loaded; ends the script in one line where that fails."""
    from videor1_trl.generation import make_backend

    local = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code, "dtype": args.dtype}
    options = {
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
        "server": {"base_url": args.base_url, "concurrency": args.concurrency, "video_as": args.video_as},
    }
    with expected_errors(f"model_name_or_path ({args.model_name_or_path}): "):
        return make_backend(args.backend, args.model_name_or_path, settings, **options[args.backend])


@contextlib.contextmanager
def run_errors():
    """Ends the run with the message alone where its backend breaks; what was completed is kept, and another start goes on."""
    import torch

    from videor1_trl.generation_server import ServerError
    from videor1_trl.journal import JournalInUse

    try:
        yield
    except (ServerError, torch.OutOfMemoryError, JournalInUse) as error:
        stop_process(f"{error} What was answered so far is kept: start again to go on.")
