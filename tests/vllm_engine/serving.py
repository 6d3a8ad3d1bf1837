"""A real `vllm serve` on a CPU for a test, and weights that reach it in a file in the place of NCCL."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from safetensors.torch import save_file
from trl.generation import vllm_client


FLAGS = (  # as docs/vllm.md has them; what a CPU asks for beside them
    "--enable-scale-out --logprobs-mode raw_logprobs --no-mm-device-do-normalize --mm-processor-cache-gb 0 --skip-mm-profiling "
    "--worker-extension-cls videor1_trl.sharing.vllm_worker.RolloutWorker --enable-prefix-caching "
    "--dtype float32 --enforce-eager --block-size 32"
).split()


@contextlib.contextmanager
def serving(model: str, folder: Path, *flags: str, device: int | None = None) -> Iterator[str]:
    """The address of a server, which ends with the context; on a CPU, or on a GPU with vLLM as it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    paths = [str(here / "startup"), str(here), os.environ.get("PYTHONPATH", "")]
    environment = {
        "PYTHONPATH": os.pathsep.join(paths),
        "WEIGHTS_FILE": str(folder / "weights"),
        "VLLM_HOST_IP": "127.0.0.1",
    }
    transfer = ["--weight-transfer-config", '{"backend": "nccl"}']
    start = [str(here / "serve_on_cpu.py")]
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"], start = str(device), ["-m", "vllm.entrypoints.cli.main", "serve"]
    command = [sys.executable, *start, model, "--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(
            [*command, *FLAGS, *transfer, *flags],
            env={**os.environ, **environment, "VLLM_SERVER_DEV_MODE": "1", "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}", process, folder / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-4000:]
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{address}/health", timeout=10).status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-4000:])


def through_files(folder: Path, patch: Callable[[object, str, Any], None]) -> None:
    """Has TRL's client send weights to the server of [`serving`] with this folder; `patch(owner, name, value)` sets things."""
    original = vllm_client.VLLMClient.init_communicator

    def send(iterator, group, src, post_iter_func):
        tensors = {item[0]: post_iter_func(item).detach().clone().contiguous() for item in iterator}
        save_file(tensors, folder / "weights.part")
        os.replace(folder / "weights.part", folder / "weights")  # whole or not there

    patch(vllm_client, "packed_nccl_broadcast_producer", send)
    patch(vllm_client, "open_trainer_endpoint", lambda init_info: None)
    patch(vllm_client.VLLMClient, "init_communicator", lambda self, device: original(self, "cuda"))
