"""What a dataset's columns and its number of rows must be for a run, seen before any weights are loaded."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from datasets import Dataset, IterableDataset

from ..contrast import AnyContrast, names_of, parts_of, takes_row
from ..models.families import Processor, takes_videos


TrainDataset: TypeAlias = Dataset | IterableDataset | None
Datasets: TypeAlias = (
    TrainDataset | Mapping[str, Dataset | IterableDataset]
)  # of an evaluation: one, several by name, or none


# Keywords that rewards are called with; a column of such a name would be passed twice
RESERVED_COLUMNS = (
    "prompts",
    "completions",
    "completion_ids",
    "accuracies",
    "contrast_accuracies",
    "contrast_completions",
    "contrast_completion_ids",
    "group_draw",
    "logps",
    "contrast_logps",
    "trainer_state",
    "log_extra",
    "log_metric",
)


def check_columns(train_dataset: TrainDataset, eval_dataset: Datasets) -> None:
    """Refuse data without prompts, or with columns of names that rewards are called with."""
    for name, dataset in by_name(train_dataset, eval_dataset).items():
        columns = getattr(dataset, "column_names", None)
        if columns is None:  # no dataset, or a stream that does not know its own
            continue
        if "prompt" not in columns:
            raise ValueError(f"{name} has no column 'prompt', only {', '.join(columns)}. See load_video_r1.")
        taken = [column for column in RESERVED_COLUMNS if column in columns]
        if taken:
            raise ValueError(f"{name} has a column {taken[0]!r}, a name that rewards are called with. Rename it.")


def check_objective_data(
    objective: object, contrast: AnyContrast | None, train_dataset: TrainDataset, eval_dataset: Datasets
) -> None:
    """
    Refuse data without a column that the objective or its contrast takes, or with values in it that cannot be read, and a
    contrast that cannot be called or that the objective is not about.
    """
    if objective is None:
        return
    takers: list[tuple[str, object]] = [("objective", objective), ("contrast", contrast)]
    for what, taker in takers:
        for column in getattr(taker, "needs_columns", ()):
            for name, dataset in by_name(train_dataset, eval_dataset).items():
                columns = getattr(dataset, "column_names", None)
                if columns is not None and column not in columns:
                    raise ValueError(
                        f"{name} has no column {column!r}, which the {what} {getattr(taker, '__name__', taker)} takes, only "
                        f"{', '.join(columns)}. Add it to the records."
                    )
    by_row = [] if contrast is None else [takes_row(each) for each in (contrast, *parts_of(contrast))]
    for name, dataset in by_name(train_dataset, eval_dataset).items():
        _check_values(objective, name, dataset)
        if any(by_row) and "frame_seconds" in (getattr(dataset, "column_names", None) or ()):
            raise ValueError(
                f"{name} has a column 'frame_seconds', by which a contrast is told of the frames. Rename it."
            )
    wanted, found = getattr(objective, "needs_contrast", None), set() if contrast is None else names_of(contrast)
    if wanted is not None and found and not found & {wanted, None}:
        raise ValueError(
            f"contrast ({', '.join(sorted(map(str, found)))}) is not what {getattr(objective, '__name__', objective)} is about, which is "
            f"{wanted}. Pass contrast={wanted}."
        )


def _check_values(objective: object, name: str, dataset: TrainDataset) -> None:
    """Refuse a dataset with a value that the objective's `value_checks`, or its router's, do not take; streams are not read."""
    checks: dict[str, Callable[[object], object]] = {}
    for checker in (objective, getattr(objective, "router", None)):
        checks.update(getattr(checker, "value_checks", {}))
    for column, check in checks.items():
        if not isinstance(dataset, Dataset) or column not in dataset.column_names:
            continue
        known = [each for each in ("problem_id", column) if each in dataset.column_names]
        for index, row in enumerate(dataset.select_columns(known).with_format(None)):
            try:
                check(row[column])
            except ValueError as error:
                problem_id = f" (problem_id {row['problem_id']!r})" if "problem_id" in row else ""
                raise ValueError(f"{name}, row {index}{problem_id}: {error}") from None


def by_name(train_dataset: TrainDataset, eval_dataset: Datasets) -> dict[str, TrainDataset]:
    """The datasets by the name that errors call them."""
    several = eval_dataset if isinstance(eval_dataset, Mapping) else {"eval_dataset": eval_dataset}
    return {"train_dataset": train_dataset, **several}


def media_kinds(train_dataset: TrainDataset, eval_dataset: Datasets, processor: Processor) -> set[str]:
    """
    The kinds of media in the data, `"video"` and `"image"`; both where a streamed dataset does not tell.

    Raises:
        `ValueError`: a dataset with videos for a processor that takes none.
    """
    kinds = set()
    for name, dataset in by_name(train_dataset, eval_dataset).items():
        for kind in ("video", "image"):
            column = next((c for c in (kind, kind + "s") if _may_hold_media(dataset, c)), None)
            if column is None:
                continue
            kinds.add(kind)
            if kind == "video" and isinstance(dataset, Dataset) and not takes_videos(processor):
                raise ValueError(
                    f"{name} has a column {column!r}, but the model's {type(processor).__name__} "
                    "takes no videos. Use a video-language model such as Qwen2.5-VL, or remove the column."
                )
    return kinds


def _may_hold_media(dataset: TrainDataset, column: str) -> bool:
    """Whether the column is there and filled anywhere; a streamed dataset may hold anything."""
    if not isinstance(dataset, Dataset):
        return dataset is not None
    return column in dataset.column_names and dataset.data.column(column).null_count < len(dataset.data)
