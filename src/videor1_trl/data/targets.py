"""What a row's model is to answer in supervised training."""

from typing import Protocol

from datasets import Dataset

from ..text.messages import content, text_of
from .columns import Datasets, TrainDataset, by_name
from .placing import PromptError, Record, record_name


class BatchArguments(Protocol):
    """What says how many rows a batch takes; its fields say what each means."""

    per_device_train_batch_size: int
    dataloader_drop_last: bool

    @property
    def world_size(self) -> int: ...


def completion_text(row: Record) -> str:
    """
    What a row's model is to answer: its `completion` where it has one, else `process`, a newline and `solution`.

    Source: Video-R1 (arXiv 2503.21776), the target of the cold start.

    Raises:
        `PromptError`: there is none.

    >>> completion_text({"process": "<think>It goes left.</think>", "solution": "<answer>A</answer>"})
    '<think>It goes left.</think>\\n<answer>A</answer>'
    """
    completion = row.get("completion")
    if completion is not None:
        messages = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
        if len(messages) != 1 or messages[0].get("role") != "assistant" or not text_of(messages[0]).strip():
            raise PromptError("its completion must be a text, or one assistant message with a text.")
        return content([messages[0]])
    parts = [row.get(name) for name in ("process", "solution")]
    for name, part in zip(("process", "solution"), parts, strict=True):
        if not isinstance(part, str) or not part.strip():
            raise PromptError(
                f"its field {name!r} is {'missing' if part is None else 'no text'}. Supervised training needs 'process' and "
                "'solution', or a 'completion'; `videor1 cot` writes 'process'."
            )
    return "\n".join(map(str, parts))


def check_completions(train_dataset: TrainDataset, eval_dataset: Datasets) -> None:
    """
    Refuses data whose rows cannot be trained on, before any weights are loaded; streamed data are checked row by row.

    Raises:
        `ValueError`: a column that is missing, or rows that are empty in it.
    """
    for name, dataset in by_name(train_dataset, eval_dataset).items():
        columns = getattr(dataset, "column_names", None)
        if columns is None:
            continue
        needed = ["prompt"] if "completion" in columns else ["prompt", "process", "solution"]
        missing = [column for column in needed if column not in columns]
        if missing:
            raise ValueError(
                f"{name} has no column {missing[0]!r}, only {', '.join(columns)}. Supervised training needs 'prompt', and "
                "'completion' or 'process' and 'solution'; `videor1 cot` writes 'process'."
            )
        if isinstance(dataset, Dataset) and "completion" not in columns:
            empty = [index for index, value in enumerate(dataset["process"]) if not (value or "").strip()]
            if empty:
                raise ValueError(
                    f"{name}: {len(empty)} of {len(dataset)} rows have no 'process', the first is row {empty[0]}: "
                    f"{record_name(dataset[empty[0]])}. Leave them out, or write rationales with `videor1 cot`."
                )


def check_num_rows(train_dataset: TrainDataset, args: BatchArguments) -> None:
    """Refuse supervised data of which no batch would be made."""
    if not isinstance(train_dataset, Dataset):
        return
    needed = args.per_device_train_batch_size * args.world_size if args.dataloader_drop_last else 1
    if len(train_dataset) < needed:
        raise ValueError(
            f"train_dataset has {len(train_dataset)} rows, and the first batch takes {needed}: "
            f"per_device_train_batch_size ({args.per_device_train_batch_size}) x {args.world_size} processes with "
            f"dataloader_drop_last={args.dataloader_drop_last}. No step would be made. Lower "
            "per_device_train_batch_size, or add rows."
        )
