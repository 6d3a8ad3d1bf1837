"""Patches embedded by one matrix product, where a tower has a three-dimensional convolution that each patch meets once."""

import torch
from torch import nn


class PatchProduct(nn.Conv3d):
    """
    A `torch.nn.Conv3d` whose kernel covers its input: then it is a product of each patch with the weights, which is what this
    computes, forward and backward (equal to 1e-6 in float32). Any other input goes through the convolution.

    Only the computation is another: an instance becomes one by its class, so that the parameters stay where they are, with their
    names, shapes, hooks and wrappers (ZeRO and FSDP gather them around `forward`, as before; PEFT still sees a `Conv3d`).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C, T, P, P) -> (N, E, 1, 1, 1) where the kernel is T x P x P."""
        if input.ndim != 5 or input.shape[2:] != self.kernel_size:
            return super().forward(input)
        return nn.functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None, None]


def embed_patches_by_products(model: nn.Module) -> int:
    """
    Lets the convolutions of a model compute products where that is the same; those of the Qwen-VL and GLM-V families and their like.

    Left as they are: a convolution that overlaps, pads, dilates or has groups; a class of its own (quantized, or made by a wrapper
    such as FSDP's of the module itself), whose forward is not known here; two-dimensional ones, which read whole pictures.

    Returns:
        `int`: how many modules compute products now that did not before.
    """
    found = [module for module in model.modules() if type(module) is nn.Conv3d and _meets_each_patch_once(module)]
    for module in found:
        module.__class__ = PatchProduct
    return len(found)


def _meets_each_patch_once(module: nn.Conv3d) -> bool:
    return (
        module.kernel_size == module.stride
        and module.padding == (0, 0, 0)
        and module.dilation == (1, 1, 1)
        and module.groups == 1
    )
