"""Checksums of a model's weights, by which a run that goes on knows whether it is still the same model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch


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
