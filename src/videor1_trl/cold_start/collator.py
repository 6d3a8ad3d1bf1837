"""Batches for supervised training: each row's prompt with its media, and behind it the completion that is to be learned."""

from dataclasses import dataclass, replace
from os.path import commonprefix

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from ..data.batch import BatchLoader, Row
from ..data.placing import PromptError, Record, named
from ..data.targets import completion_text
from ..models.encoding import render_prompt
from ..models.families import rendered, tokenizer_of
from ..sharing.packing import MicroBatch
from ..text.messages import THINK_CLOSE, THINK_OPEN, Message


_MARK = "\N{WORD JOINER}end of the turn\N{WORD JOINER}"  # in no template


def _apart(text: str) -> tuple[str | None, str]:
    """The thoughts that a text begins with, `None` without any or for empty ones, and what follows them."""
    if not text.lstrip().startswith(THINK_OPEN) or THINK_CLOSE not in text:
        return None, text
    thought, _, answer = text.lstrip().removeprefix(THINK_OPEN).partition(THINK_CLOSE)
    return thought if thought.strip() else None, answer


def _turn(text: str) -> Message:
    """The assistant's, as a message of parts."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


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
        pad_to_multiple_of (`int`, *optional*): the batch's length is a multiple of it.
        end_token_id (`int`, *optional*): ends every completion, in the place of the template's end token.

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
    pad_to_multiple_of: int | None = None
    end_token_id: int | None = None

    def __call__(self, rows: list[Record]) -> MicroBatch:
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
            "input_ids": self._padded(ids, self.pad_token_id),
            "attention_mask": self._padded(masks, 0),
            "labels": self._padded(labels, -100),
            "encoded": encoded,
            "skipped": skipped,
        }

    def _padded(self, rows: list[torch.Tensor], value: int) -> torch.Tensor:
        padded = pad_sequence(rows, batch_first=True, padding_value=value)
        return pad(padded, (0, -padded.shape[1] % (self.pad_to_multiple_of or 1)), value=value)

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
        tokenizer = tokenizer_of(self.loader.processor)
        ids = tokenizer(self._rendered(row, completion_text(row.inputs)), add_special_tokens=False)["input_ids"]
        if any(token in self.placeholder_ids for token in ids):
            raise PromptError("its completion holds a visual placeholder such as <|video_pad|>. Remove it.")
        last = max((place for place, token in enumerate(ids) if token in self.end_token_ids), default=None)
        if last is None:
            return [*ids, tokenizer.eos_token_id if self.end_token_id is None else self.end_token_id]
        return [*ids[:last], ids[last] if self.end_token_id is None else self.end_token_id]

    def _rendered(self, row: Row, text: str) -> str:
        """
        The completion as it goes on from the rendered prompt: one rendering of the conversation, of which the rendered prompt
        is the beginning, so that what is learned is what a rollout can produce.
        """
        prompt, opened = self._render(row.messages, row, whole=False)
        begun = row.messages[-1]["role"] == "assistant"
        before = row.messages[:-1] if begun else row.messages
        thought, answer = _apart(text)
        turns = [_turn(opened * begun + text)]
        if thought is not None and not begun:  # as templates take them that do not look for tags in a text
            turns.append({**_turn(answer.lstrip("\n")), "reasoning_content": thought.strip("\n")})
        thoughts = (opened * begun + text).count(THINK_OPEN)
        for turn in turns:
            conversation, _ = self._render([*before, turn], row, whole=True)
            rest = conversation.removeprefix(prompt)
            is_whole = answer.strip() in rest and (thought or "").strip() in rest
            is_once = thought is None or (opened + rest).count(THINK_OPEN) == thoughts
            if rest != conversation and is_whole and is_once:
                return rest
        if opened and not begun and thought is not None:  # the template opens thoughts, and leaves out those of a turn
            marked, _ = self._render([*before, _turn(_MARK)], row, whole=True)
            if _MARK in marked:
                thought = thought.lstrip("\n") if opened.endswith("\n") else thought
                return f"{thought}{THINK_CLOSE}{answer}{marked.rpartition(_MARK)[2]}"
        conversation, _ = self._render([*before, turns[0]], row, whole=True)
        place = len(commonprefix([prompt, conversation]))
        raise PromptError(
            f"behind the prompt, which ends with {prompt[-40:]!r}, the chat template has {conversation[place : place + 60]!r} "
            "for its completion: what would be learned is not what the model will be asked for. Choose the template's other "
            "mode in a column 'chat_template_kwargs' (such as enable_thinking), or another template."
        )

    def _render(self, messages: list[Message], row: Row, whole: bool) -> tuple[str, str]:
        """A prompt, or a whole conversation, and what the prompt has opened of the completion."""
        processor, settings = self.loader.processor, self.loader.settings_of(row.inputs)
        kwargs = settings.get("chat_template_kwargs")
        if whole:
            return rendered(processor, messages, **(kwargs or {})), ""
        return render_prompt(processor, messages, chat_template_kwargs=kwargs)

    def _labels(self, prompt: list[int], completion: list[int], scored: bool) -> torch.Tensor:
        """-100 for what is not scored: prompts, or in them the first token and the visual ones."""
        labels = [-100] * len(prompt) + completion
        if scored and not self.completion_only:
            text = [-100 if token in self.placeholder_ids else token for token in prompt]
            labels = [-100, *text[1:], *completion]
        return torch.tensor(labels)
