"""Checksums of a model's weights, by which a run that goes on knows whether it is still the same model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor


SAMPLES = 64  # of each parameter, or each file
CHUNK = 65536  # bytes of a file's sample


def of_parameters(model: torch.nn.Module) -> str:
    """
    A checksum of a sample of every parameter: of other weights under the same name it differs, wherever the model lies it is
    the same. Training moves far more values than it takes to be seen.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        if not parameter.is_meta:  # offloaded to disk
            flat = parameter.detach().flatten()
            sample = flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES]
            digest.update(sample.to(torch.float32).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def differing(model: torch.nn.Module, other: torch.nn.Module) -> str | None:
    """
    The name of a parameter or buffer that two models do not share, by name, shape or value; `None` where they are equal. Values are
    compared in the coarser of both dtypes, so that a model is equal to its own weights loaded in another.

    Of weights that ZeRO-3 has split each rank compares its own part; those of FSDP2 are gathered one by one, on all ranks.
    """
    ours, theirs = ({**dict(each.named_parameters()), **dict(each.named_buffers())} for each in (model, other))
    for name in (*ours, *theirs):
        if name not in ours or name not in theirs or not _equal(ours[name], theirs[name]):
            return name
    return None


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    one, other = _values(one), _values(other)
    if one.shape != other.shape:
        return False
    coarser = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(one.to(coarser), other.to(one.device, coarser))


@torch.no_grad()
def _values(parameter: torch.Tensor) -> torch.Tensor:
    """What a parameter holds, or this rank's part of it where ZeRO-3 keeps no more."""
    part = getattr(parameter, "ds_tensor", None)
    if part is not None:
        return part
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach()


def of_folder(folder: str | Path) -> str | None:
    """The same of a folder's weight files, each sampled over its length; `None` where there is no such folder."""
    if not Path(folder).is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.suffix not in (".safetensors", ".bin", ".pt"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for start in range(0, size, max(CHUNK, size // SAMPLES)):
                file.seek(start)
                digest.update(file.read(CHUNK))
    return digest.hexdigest()[:16]
