"""Batches for supervised training: each row's prompt with its media, and behind it the completion that is to be learned."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin
from trl.data_utils import apply_chat_template

from .batch import BatchLoader, PromptError, Row, named, record_name, text_of


def completion_text(row: Mapping[str, Any]) -> str:
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
        return text_of(messages[0])
    parts = [row.get(name) for name in ("process", "solution")]
    for name, part in zip(("process", "solution"), parts, strict=True):
        if not isinstance(part, str) or not part.strip():
            raise PromptError(
                f"its field {name!r} is {'missing' if part is None else 'no text'}. Supervised training needs 'process' and "
                "'solution', or a 'completion'; examples/generate_cot.py writes 'process'."
            )
    return "\n".join(map(str, parts))


def check_completions(train_dataset: Any, eval_dataset: Any) -> None:
    """
    Refuses data whose rows cannot be trained on, before any weights are loaded; streamed data are checked row by row.

    Raises:
        `ValueError`: a column that is missing, or rows that are empty in it.
    """
    several = eval_dataset if isinstance(eval_dataset, dict) else {"eval_dataset": eval_dataset}
    for name, dataset in {"train_dataset": train_dataset, **several}.items():
        columns = getattr(dataset, "column_names", None)
        if columns is None:
            continue
        needed = ["prompt"] if "completion" in columns else ["prompt", "process", "solution"]
        missing = [column for column in needed if column not in columns]
        if missing:
            raise ValueError(
                f"{name} has no column {missing[0]!r}, only {', '.join(columns)}. Supervised training needs 'prompt', and "
                "'completion' or 'process' and 'solution'; examples/generate_cot.py writes 'process'."
            )
        if isinstance(dataset, Dataset) and "completion" not in columns:
            empty = [index for index, value in enumerate(dataset["process"]) if not (value or "").strip()]
            if empty:
                raise ValueError(
                    f"{name}: {len(empty)} of {len(dataset)} rows have no 'process', the first is row {empty[0]}: "
                    f"{record_name(dataset[empty[0]])}. Leave them out, or write rationales with examples/generate_cot.py."
                )


@dataclass
class Completions:
    """
    A data collator: rows of the dataset as `input_ids`, `attention_mask` and `labels` (B, L), padded on the right, with
    `encoded` (the prompts and their media, one [`~families.EncodedPrompt`] per row) and `skipped` (why rows carry no
    label).

    A completion is what the chat template makes of the assistant's turn, up to its end token: what a rollout can produce.
    Where the template has none the tokenizer's end token is added.

    Args:
        loader ([`~batch.BatchLoader`]): of prompts and media.
        end_token_ids, placeholder_ids (`list[int]`): of the model.
        pad_token_id (`int`): fills the rows.
        max_length (`int`, *optional*): most tokens of a row.
        completion_only (`bool`): label the completions alone; `False`: all text.

    Raises:
        `MediaError`, `PromptError`: as [`~batch.BatchLoader`]; a row without completion, with placeholder tokens in it, or
            that is too long. With the loader's `on_bad_video="skip"` such rows have no label.
    """

    loader: BatchLoader
    end_token_ids: list[int]
    placeholder_ids: list[int]
    pad_token_id: int
    max_length: int | None = None
    completion_only: bool = True

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        ids, labels, encoded, skipped = [], [], [], []
        for row in self.loader.load(rows, first_row=0, num_generations=1, num_contrast=0, step=0):
            completion: list[int] = []
            row, completion = self._completed(row)
            if row.error is not None:
                skipped.append(str(row.error))
            prompt = row.encoded.input_ids
            ids.append(torch.tensor(prompt + completion))
            labels.append(self._labels(prompt, completion, row.error is None))
            encoded.append(row.encoded)
        masks = [torch.ones_like(each) for each in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "attention_mask": pad_sequence(masks, batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
            "encoded": encoded,
            "skipped": skipped,
        }

    def _completed(self, row: Row) -> tuple[Row, list[int]]:
        """The row with its completion's tokens, none where it is skipped."""
        if row.error is not None:
            return row, []
        try:
            completion = self._completion_ids(row)
            length = len(row.encoded.input_ids) + len(completion)
            if self.max_length is not None and length > self.max_length:
                raise PromptError(
                    f"its prompt and completion have {length} tokens, more than max_length ({self.max_length}). Lower "
                    "video_max_frames or video_max_pixels, or raise max_length."
                )
        except PromptError as error:
            if self.loader.on_bad_video == "raise":
                raise named(error, row.inputs) from error
            return replace(row, error=named(error, row.inputs)), []
        return row, completion

    def _completion_ids(self, row: Row) -> list[int]:
        text: Any = completion_text(row.inputs)
        processor, prompt = self.loader.processor, row.messages
        tokenizer = getattr(processor, "tokenizer", processor)
        if isinstance(processor, ProcessorMixin):
            text = [{"type": "text", "text": text}]
        else:  # templates of text models take plain strings
            prompt = [{**message, "content": text_of(message)} for message in prompt]
        turn = {"prompt": prompt, "completion": [{"role": "assistant", "content": text}]}
        rendered = apply_chat_template(turn, processor)["completion"]
        ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        if any(token in self.placeholder_ids for token in ids):
            raise PromptError("its completion holds a visual placeholder such as <|video_pad|>. Remove it.")
        last = max((place for place, token in enumerate(ids) if token in self.end_token_ids), default=None)
        return [*ids, tokenizer.eos_token_id] if last is None else ids[: last + 1]

    def _labels(self, prompt: list[int], completion: list[int], scored: bool) -> torch.Tensor:
        """-100 for what is not scored: prompts, or in them the first token and the visual ones."""
        labels = [-100] * len(prompt) + completion
        if scored and not self.completion_only:
            text = [-100 if token in self.placeholder_ids else token for token in prompt]
            labels = [-100, *text[1:], *completion]
        return torch.tensor(labels)
