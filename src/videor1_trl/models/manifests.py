"""Whether a checkpoint is whole: a manifest of its files, written last, by which one that was cut off is told from others."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


MANIFEST = "manifest.json"
SMALL = 2**26  # bytes up to which a file is checked from end to end
SAMPLES, CHUNK = 64, 2**16  # of a larger one: so many chunks over its length, the last one among them


def write_manifest(folder: str | Path, **facts: int | str) -> None:
    """
    Writes the names, sizes and checksums of all files of a checkpoint, in one step that cannot be cut in two.

    Args:
        folder: a checkpoint with all of its files.
        **facts: what else is to be known of it, such as `num_processes`.
    """
    folder = Path(folder)
    files = {name: _described(folder / name) for name in _files(folder)}
    text = json.dumps({**facts, "files": files}, indent=1)
    unfinished = folder / f"{MANIFEST}.unfinished"
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, folder / MANIFEST)


def fault_of(folder: str | Path) -> str | None:
    """What is wrong with a checkpoint that has a manifest, or that it has none; `None` for a whole one."""
    folder = Path(folder)
    try:
        files = dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
    except FileNotFoundError:
        return f"it has no {MANIFEST}, so it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    for name, known in files.items():
        try:
            size = (folder / name).stat().st_size
            if size != known["size"]:
                return f"its {name} has {size:,} bytes of {known['size']:,}"
            if _checksum(folder / name, size) != known["sha256"]:
                return f"the bytes of its {name} are not those that were written"
        except FileNotFoundError:
            return f"its {name} is missing"
        except OSError as error:
            return f"its {name} cannot be read ({error})"
    return None


def missing_part(folder: str | Path) -> str | None:
    """What a checkpoint without a manifest (of another trainer or an older version) lacks to go on from; `None`: nothing."""
    folder = Path(folder)
    shards = any(folder.glob("global_step*/*"))  # DeepSpeed keeps weights and optimizer there
    for part, names in (
        ("trainer_state.json", ["trainer_state.json"]),
        ("weights", ["*.safetensors", "pytorch_model*", "*/adapter_model.safetensors"]),
        ("optimizer.pt", ["optimizer.pt", "optimizer.bin", "optimizer_*"]),
        ("scheduler.pt", ["scheduler.pt"]),
        ("rng_state.pth", ["rng_state*.pth"]),
    ):
        held_in_shards = shards and part in ("weights", "optimizer.pt", "scheduler.pt")
        if not held_in_shards and not any(any(folder.glob(name)) for name in names):
            return part
    return None


def newest_whole(output_dir: str | Path) -> tuple[Path | None, dict[str, str]]:
    """
    The newest whole checkpoint of a run, and why newer ones were passed over: their names and what is wrong with them.
    """
    found = [
        (int(path.name.rpartition("-")[2]), path)
        for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.is_dir() and path.name.rpartition("-")[2].isdigit()
    ]
    passed: dict[str, str] = {}
    for _, path in sorted(found, reverse=True):
        if (fault := fault_of(path)) is None:
            return path, passed
        passed[path.name] = fault
    return None, passed


def to_go_on_from(output_dir: str | Path) -> tuple[str, str]:
    """
    The newest whole checkpoint of a run, and what is to be said of those that were passed over, "" where none was.

    Raises:
        `ValueError`: there is none; says what is wrong with those that are there.
    """
    path, passed = newest_whole(output_dir)
    said = "".join(f" {name}: {fault}." for name, fault in passed.items())
    if path is None:
        raise ValueError(
            f"resume_from_checkpoint=True: there is no whole checkpoint in {output_dir}.{said} Start without it, or name one."
        )
    return str(path), f"Going on from {path}. Passed over:{said}" if passed else ""


def check_whole(folder: str | Path) -> str:
    """
    What is to be said of a checkpoint that is named, "" for a whole one: one without a manifest is taken where nothing is missing.

    Raises:
        `ValueError`: it is no folder, or not whole.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"resume_from_checkpoint ({folder}) is no folder. Give a checkpoint's.")
    fault = fault_of(folder)
    if fault is None:
        return ""
    if not (Path(folder) / MANIFEST).exists():
        missing = missing_part(folder)
        if missing is None:
            return f"{folder} has no {MANIFEST}: it is taken, and cannot be known to be whole."
        fault = f"its {missing} is missing, and {fault}"
    raise ValueError(
        f"resume_from_checkpoint ({folder}) is no whole checkpoint: {fault}. Give another, or True for the newest one in output_dir."
    )


class NotSaved(OSError):
    """A checkpoint or a model could not be written, as on a full disk."""


def is_of_writing(error: Exception) -> bool:
    """Whether files could not be written: an OSError, or what torch and safetensors make of one."""
    if isinstance(error, SafetensorError):
        return True
    if isinstance(error, OSError):
        return not isinstance(error, ConnectionError)
    return isinstance(error, RuntimeError) and any(
        name in str(error) for name in ("PytorchStreamWriter", "inline_container")
    )


def unsaved(folder: Path, error: Exception) -> NotSaved:
    """
    Why a checkpoint could not be written, with the last whole one beside it. What was written of it is removed, since it takes the
    room of the next.
    """
    shutil.rmtree(folder, ignore_errors=True)
    last, _ = newest_whole(folder.parent)
    to_go_on = "There is no whole one before it" if last is None else f"The last whole one is {last}"
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return NotSaved(
        f"{folder} could not be written and is removed ({said}). {to_go_on}. Free some space, or set save_total_limit."
    )


def not_written(folder: str | Path, error: Exception) -> NotSaved:
    """Why a model could not be written, with the last whole checkpoint in its folder, from which it can be had."""
    last, _ = newest_whole(folder)
    to_go_on = "" if last is None else f" The last whole checkpoint is {last}: resuming from it saves the model again."
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return NotSaved(f"{folder}: the model could not be written ({said}).{to_go_on}")


def is_loadable(folder: str | Path) -> bool:
    """Whether a folder holds a model or an adapter that loads."""
    names = ("model*.safetensors", "pytorch_model*.bin", "adapter_model.safetensors", "adapter_model.bin")
    return any(any(Path(folder).glob(name)) for name in names)


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(MANIFEST):
            yield path.relative_to(folder).as_posix()


def _described(path: Path) -> dict[str, int | str]:
    size = path.stat().st_size
    return {"size": size, "sha256": _checksum(path, size)}


def _checksum(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if size <= SMALL:
            digest.update(file.read())
        else:
            for place in range(SAMPLES):
                file.seek((size - CHUNK) * place // (SAMPLES - 1))
                digest.update(file.read(CHUNK))
    return digest.hexdigest()
