"""`--dry_run` of the commands that ask a model: what would be asked, and which media are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from datasets import Dataset

    from videor1_trl.generation.requests import GenerationSettings
    from videor1_trl.media.limits import Limits


def video_reader(settings: GenerationSettings) -> Callable[[object], object]:
    """Reads a video as the model will see it."""
    from videor1_trl import load_video

    return lambda source: load_video(source, **settings.video_settings)


def media_of(dataset: Dataset, kind: str) -> list[object]:
    """The sources of a dataset's videos or images (`kind`), each once: paths, and clips of files."""
    from videor1_trl.data.placing import media_list

    names = [name for name in (kind, f"{kind}s") if name in dataset.column_names]
    rows = zip(*(dataset[name][:] for name in names), strict=True)
    media = (source for row in rows for source in media_list(dict(zip(names, row, strict=True)), kind))
    return list({str(source): source for source in media}.values())


def unreadable(
    sources: Collection[object], load: Callable[[object], object], limits: Limits, num_read: int = 8
) -> list[str]:
    """What is wrong with media: each is looked for, and so many of the first are read by `load`."""
    from tqdm.auto import tqdm

    from videor1_trl import MediaError
    from videor1_trl.media.archives import NO_MEMBER
    from videor1_trl.media.sources import NO_FILE, fault_of

    problems: dict[str, None] = {}
    for place, source in enumerate(tqdm(sources, desc="media")):
        path = str((source.get("path") or source["frames"]) if isinstance(source, dict) else source)
        fault = fault_of(path, limits)
        if fault in (NO_FILE, NO_MEMBER):
            problems[f"{path}: missing"] = None  # once for all clips of a file
        elif place < num_read:
            try:
                load(source)
            except MediaError as error:
                problems[str(error)] = None
    return list(problems)


def print_look(asked: str, parts: list[str], problems: list[str], file: str) -> int:
    """Prints what was found: what would be asked, how much of each part, and what is wrong; the exit code."""
    print(asked)
    for part, count in sorted(Counter(parts).items()):
        print(f"  {part}: {count:,}")
    for problem in problems[:10]:
        print(f"problem: {problem}")
    print(f"Problems: {len(problems):,}." if problems else f"Every {file} is there; the first of them can be read.")
    return int(bool(problems))
