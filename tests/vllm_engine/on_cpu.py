"""
A pytest plugin (`-p on_cpu`) for real vLLM on a CPU, read before anything else: no processes of its own, eager, and weights that
TRL's sync can write. vLLM packs its linear weights on a CPU; on a GPU they stay as they are, as here.
"""

import os


os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # of what stands below for a GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_COMPILE_DISABLE": "1",
}
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch  # noqa: E402
import vllm.model_executor.layers.utils as layers  # noqa: E402
import vllm.platforms.cpu as platform  # noqa: E402


platform.GiB_bytes = 2**26  # an engine and its cache stay until the process ends, and there are twenty in it


def unpacked(layer: torch.nn.Module, remove_weight: bool = False) -> None:
    layer.cpu_linear = torch.nn.functional.linear


layers.dispatch_cpu_unquantized_gemm = unpacked
