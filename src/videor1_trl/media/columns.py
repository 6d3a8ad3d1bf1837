"""The columns that hold media, and how to leave their videos undecoded."""

from dataclasses import replace
from typing import Any

import datasets


VIDEO_COLUMNS = ("video", "videos")


IMAGE_COLUMNS = ("image", "images")


MEDIA_COLUMNS = VIDEO_COLUMNS + IMAGE_COLUMNS


def undecoded(dataset: Any) -> Any:
    """
    The dataset with its `datasets.Video` columns left undecoded, also inside lists and dicts.

    Their rows are then `{"path", "bytes"}`, which `load_video` reads: `datasets` would decode with torchcodec each
    time a row is touched, and the trainer would decode again. `datasets.Image` columns stay as they are.

    Args:
        dataset: a `Dataset`, an `IterableDataset`, a dict of them, or `None`. Itself is not changed.
    """
    if dataset is None:
        return None
    if isinstance(dataset, dict):
        return type(dataset)({name: undecoded(part) for name, part in dataset.items()})
    return _cast(dataset, (datasets.Video,))


def _cast(dataset: Any, kinds: tuple[type, ...]) -> Any:
    """Casts the columns in which a feature of `kinds` decodes to ones in which it does not."""
    for name, feature in (dataset.features or {}).items():
        raw = _raw(feature, kinds)
        if raw != feature:
            dataset = dataset.cast_column(name, raw)
    return dataset


def _raw(feature: Any, kinds: tuple[Any, ...]) -> Any:
    """A feature with `decode=False` on all features of `kinds` inside it; the same storage."""
    if isinstance(feature, kinds):
        return replace(feature, decode=False)
    if isinstance(feature, dict):
        return {name: _raw(part, kinds) for name, part in feature.items()}
    if isinstance(feature, datasets.List):
        return datasets.List(_raw(feature.feature, kinds), length=feature.length)
    if isinstance(feature, datasets.LargeList):
        return datasets.LargeList(_raw(feature.feature, kinds))
    return feature
