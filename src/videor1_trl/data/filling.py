"""Reads the videos of a dataset ahead of a run, so that their frames are kept on disk (`media_cache_dir`)."""

from collections.abc import Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor

import datasets
from datasets.utils import tqdm

from ..media.columns import undecoded
from ..media.errors import MediaError
from ..media.readahead import media_key
from .batch import BatchLoader, place_row


def fill_frame_cache(
    loader: BatchLoader, parts: Iterable[datasets.Dataset], num_workers: int
) -> tuple[int, dict[str, str]]:
    """
    Reads every distinct video as training will; what is kept already is not read.

    Args:
        loader ([`BatchLoader`]): of the run, with its `frame_cache`.
        parts (`Iterable[Dataset]`): the rows that training, and its evaluation, will see.
        num_workers (`int`): videos that are read at a time, >= 1.

    Returns:
        How many videos are kept, and for each that cannot be read, by its path, the reason.
    """
    wanted: dict[tuple[Hashable, bool], object] = {}
    for part in parts:
        for row in tqdm(undecoded(part), desc="rows"):
            placed = place_row(row)
            if not isinstance(placed, Exception):
                whole = loader.depends_on_others(placed[1])
                wanted.update({(media_key(source), whole): source for source in placed[1]})
    bad: dict[str, str] = {}

    def read(item: tuple[tuple[Hashable, bool], object]) -> None:
        (_, whole), source = item
        try:
            loader.read(source, whole=whole)
        except MediaError as error:
            bad[error.path] = error.reason

    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        for _ in tqdm(pool.map(read, wanted.items()), total=len(wanted), desc="videos"):
            pass
    return len(wanted) - len(bad), dict(sorted(bad.items()))
