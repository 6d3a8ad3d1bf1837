"""One rank's generation batch: every distinct video decoded, preprocessed and contrasted once, every prompt encoded."""

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import ProcessorMixin
from transformers.video_utils import VideoMetadata
from trl.data_utils import is_conversational

from .families import EncodedPrompt, encode_prompt, takes_videos, with_preprocessing_cache
from .inputs import LookAhead, VideoStore, check_not_ending, media_key
from .media import MEDIA_COLUMNS
from .video import MediaError, load_image


class PromptError(ValueError):
    """A prompt that cannot be used: placeholders and media differ, or it is too long."""


@dataclass
class Row:
    """
    One rollout of the batch.

    Args:
        inputs (`dict`): the row of the dataset, with all its columns.
        messages (`list[dict]`): the prompt as it was encoded, its media as empty placeholders.
        group (`int`): index of the row's prompt in the batch of all ranks.
        place (`int`): the row's place in its group, 0 to G - 1.
        encoded (`EncodedPrompt`): the prompt on the frames in order; shared by the rows of the group.
        contrast (`EncodedPrompt`, *optional*): the prompt on the contrast frames, where the row owns a contrast rollout.
        has_contrast (`bool`): whether the group has contrast rollouts: a video prompt that could be read.
        error (`ValueError`, *optional*): why the prompt could not be used, under `on_bad_video="skip"`.
    """

    inputs: dict[str, Any]
    messages: list[dict]
    group: int
    place: int
    encoded: EncodedPrompt
    contrast: EncodedPrompt | None = None
    has_contrast: bool = False
    error: ValueError | None = None


@dataclass
class _Batch:
    """What the prompts of one batch share while they are encoded."""

    processor: Any  # preprocesses the same frames once
    videos: dict[Any, tuple[tuple[torch.Tensor, Any], Any]] = field(
        default_factory=dict
    )  # with their sources, see media_key


@dataclass
class BatchLoader:
    """
    Turns rows of the dataset into [`Row`]s.

    Args:
        processor: the model's processing class.
        load_video (`Callable`): `(source, **video_settings) -> (frames, metadata)`.
        contrast (`Callable`, *optional*): `(frames, generator) -> frames`; `None`: no contrast rollouts.
        video_settings (`dict`): keywords of `load_video`.
        encode_settings (`dict`): keywords of [`~families.encode_prompt`].
        max_prompt_length (`int`, *optional*): most tokens of a prompt.
        on_bad_video (`str`): `"raise"` or `"skip"`.
        seed (`int`): of the contrast.
        num_workers (`int`): threads that decode videos, and whether the next batch is prepared in one, ahead of its use. With
            0, `load_video` and `contrast` run in the calling thread only.
        cache_bytes (`int`): most bytes of decoded frames that are kept for when their video comes again.
    """

    processor: Any
    load_video: Callable[..., tuple[torch.Tensor, Any]]
    contrast: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None
    video_settings: dict[str, Any] = field(default_factory=dict)
    encode_settings: dict[str, Any] = field(default_factory=dict)
    max_prompt_length: int | None = None
    on_bad_video: str = "raise"
    seed: int = 0
    num_workers: int = 0
    cache_bytes: int = 0

    def __post_init__(self) -> None:
        self._videos = VideoStore(self._read, self.num_workers, self.cache_bytes)
        self._ahead = {mode: LookAhead(self._load, _inputs_key) for mode in ("train", "eval")}
        self._copy: tuple[Any, Any] = None, None  # the processor for other threads, and what it is a copy of
        self._copy_in_use = threading.Lock()  # a tokenizer may not be used by two threads at once

    def expect(self, inputs: list[dict[str, Any]], mode: str = "train") -> list[dict[str, Any]]:
        """
        Take note of rows that [`load`] will be asked for next, and prepare them meanwhile; a data collator. Rows with media
        other than paths are not prepared ahead.
        """
        if self.num_workers:
            self._ahead[mode].expect(inputs)
        return inputs

    def load(
        self,
        inputs: list[dict[str, Any]],
        first_row: int,
        num_generations: int,
        num_contrast: int,
        step: int,
        next_step: int | None = None,
        mode: str = "train",
    ) -> list[Row]:
        """
        Args:
            inputs (`list[dict]` of length B): this rank's rows, those of a group beside each other.
            first_row (`int`): index of the first of them in the batch of all ranks.
            num_generations (`int`): G. num_contrast (`int`): G~, at most G.
            step (`int`): varies the contrast from step to step.
            next_step (`int`, *optional*): that of the batch behind this one, where it is expected; `None`: the same.
            mode (`str`): `"train"` or `"eval"`, as in [`expect`].

        Raises:
            `VideoError`, `ImageError`, `PromptError`: media that cannot be read, a prompt whose placeholders and media
                differ or that is too long, with `on_bad_video="raise"`.
            `ValueError`: a prompt that is not conversational.
            `RuntimeError`: a loader or a contrast that returns something else than it must.
        """
        arguments = first_row, num_generations, num_contrast
        following = *arguments, step if next_step is None else next_step
        rows = self._ahead[mode].take(inputs, *arguments, step, following=following)
        return [replace(row, inputs=row_inputs) for row, row_inputs in zip(rows, inputs, strict=True)]

    def _load(
        self, inputs: list[dict[str, Any]], first_row: int, num_generations: int, num_contrast: int, step: int
    ) -> list[Row]:
        if threading.current_thread() is threading.main_thread():
            return self._load_with(self.processor, inputs, first_row, num_generations, num_contrast, step)
        with self._copy_in_use:
            return self._load_with(self._processor_copy(), inputs, first_row, num_generations, num_contrast, step)

    def _processor_copy(self) -> Any:
        """A copy of the processor, as it is now."""
        state = _processor_state(self.processor)
        if self._copy[1] != state:
            self._copy = copy.deepcopy(self.processor), state
        return self._copy[0]

    def _load_with(
        self,
        processor: Any,
        inputs: list[dict[str, Any]],
        first_row: int,
        num_generations: int,
        num_contrast: int,
        step: int,
    ) -> list[Row]:
        batch = _Batch(with_preprocessing_cache(processor))
        places = [divmod(index, num_generations) for index in range(first_row, first_row + len(inputs))]
        owners = {(group, place) for group, place in places if owns_contrast(place, num_generations, num_contrast)}
        contrasted = {group for group, _ in owners}
        placed: dict[int, Any] = {}
        for row_inputs, (group, _) in zip(inputs, places, strict=True):
            if group not in placed:
                placed[group] = _placed(row_inputs)
        sources = [source for found in placed.values() if isinstance(found, tuple) for source in found[1]]
        self._videos.announce(sources)
        groups: dict[int, Row] = {}
        rows = []
        try:
            for row_inputs, (group, place) in zip(inputs, places, strict=True):
                if group not in groups:
                    groups[group] = self._load_group(
                        batch, row_inputs, placed[group], group, step, group in contrasted
                    )
                shared = groups[group]
                if row_inputs["prompt"] != shared.inputs["prompt"]:
                    raise RuntimeError(
                        f"Row {place} of group {group} has another prompt than the group. The sampler must repeat each "
                        f"prompt num_generations ({num_generations}) times in a row."
                    )
                contrast = shared.contrast if (group, place) in owners else None
                rows.append(replace(shared, inputs=row_inputs, place=place, contrast=contrast))
        finally:
            self._videos.forget(sources)
        return rows

    def _load_group(
        self, batch: _Batch, inputs: dict[str, Any], placed: Any, group: int, step: int, contrasted: bool
    ) -> Row:
        """A prompt on ordered and on contrast frames, or without its media where it cannot be used and is skipped."""
        check_not_ending()
        try:
            if isinstance(placed, Exception):
                raise placed
            return self._encode_group(batch, inputs, placed, group, step, contrasted)
        except (MediaError, PromptError) as error:
            named_error = named(error, inputs)
            if self.on_bad_video == "raise":
                raise named_error from error
            stub = [{"role": "user", "content": [{"type": "text", "text": "-"}]}]  # what is masked may cost little
            encoded = self._encode(batch, stub, [], [], max_length=None)
            return Row(inputs, stub, group, 0, encoded, error=named_error)

    def _encode_group(
        self,
        batch: _Batch,
        inputs: dict[str, Any],
        placed: tuple[list[dict], list[Any], list[Any]],
        group: int,
        step: int,
        contrasted: bool,
    ) -> Row:
        messages, video_sources, image_sources = placed
        if video_sources and not takes_videos(self.processor):
            raise PromptError(
                f"its prompt has a video, but {type(self.processor).__name__} takes none. Use a video-language model."
            )
        videos = [self._decoded(batch, source) for source in video_sources]
        images = [load_image(source) for source in image_sources]
        encoded = self._encode(batch, messages, videos, images, self.max_prompt_length)
        contrast = None
        has_contrast = bool(videos) and self.contrast is not None
        if has_contrast and contrasted:
            entropy = np.random.SeedSequence([self.seed, step, group])
            generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
            shuffled = [(self._contrasted(frames, generator), metadata) for frames, metadata in videos]
            contrast = self._encode(batch, messages, shuffled, images, self.max_prompt_length)
            if contrast.input_ids != encoded.input_ids:
                raise RuntimeError(
                    f"{record_name(inputs)}: the prompts on ordered and on contrast frames differ, so the text would "
                    "give the order away. The contrast must keep the number and the size of the frames."
                )
        return Row(inputs, messages, group, 0, encoded, contrast, has_contrast)

    def _read(self, source: Any) -> tuple[torch.Tensor, Any]:
        return checked_video(self.load_video(source, **self.video_settings), source)

    def _decoded(self, batch: _Batch, source: Any) -> tuple[torch.Tensor, Any]:
        key = media_key(source)
        if key not in batch.videos:
            batch.videos[key] = self._videos.get(source), source
        return batch.videos[key][0]

    def _contrasted(self, frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        assert self.contrast is not None
        contrasted = self.contrast(frames.clone(), generator)  # it may write into what it is given
        if contrasted.shape != frames.shape or contrasted.dtype != frames.dtype:
            raise RuntimeError(
                f"The contrast turned frames {tuple(frames.shape)} {frames.dtype} into {tuple(contrasted.shape)} "
                f"{contrasted.dtype}. It must return frames of the same shape and dtype."
            )
        return contrasted

    def _encode(
        self, batch: _Batch, messages: list[dict], videos: list, images: list, max_length: int | None
    ) -> EncodedPrompt:
        if not isinstance(self.processor, ProcessorMixin):  # templates of text models take plain strings
            messages = [{**message, "content": text_of(message)} for message in messages]
        try:
            encoded = encode_prompt(batch.processor, messages, videos, images, **self.encode_settings)
        except ValueError as error:  # the processor's: placeholders and features differ
            raise PromptError(str(error)) from error
        if max_length is not None and len(encoded.input_ids) > max_length:
            raise PromptError(
                f"its prompt has {len(encoded.input_ids)} tokens, more than max_prompt_length ({max_length}). Lower "
                "video_max_frames or video_max_pixels, or raise max_prompt_length."
            )
        return encoded


def place_media(prompt: list[dict], videos: list[Any], images: list[Any]) -> tuple[list[dict], list[Any], list[Any]]:
    """
    The prompt with its media as empty placeholders, and the media in the order of the placeholders.

    A part that carries its own media (`{"type": "video", "video": ...}`) keeps it; empty placeholders take the media
    of the columns in order; where the prompt has none, the columns' media come before the first user text, videos
    first.

    Args:
        prompt (`list[dict]`): messages whose content is a string or a list of parts.
        videos (`list`), images (`list`): the media of the columns.

    Returns:
        `(messages, videos, images)`; every content of the messages is a list of parts.

    Raises:
        `PromptError`: placeholders and media differ in number, or there is no user message to put the media in.

    >>> place_media([{"role": "user", "content": "What moves?"}], ["a.mp4"], [])
    ([{'role': 'user', 'content': [{'type': 'video'}, {'type': 'text', 'text': 'What moves?'}]}], ['a.mp4'], [])
    """
    messages = [{**message, "content": _parts(message)} for message in prompt]
    parts = [part for message in messages for part in message["content"]]
    placed: dict[str, list[Any]] = {"video": [], "image": []}
    front: list[dict] = []
    for kind, media in (("video", list(videos)), ("image", list(images))):
        own = [part for part in parts if part["type"] == kind]
        empty = [part for part in own if _own_media(part) is None]
        if media and not own:
            front += [{"type": kind}] * len(media)
            placed[kind] = media
        elif len(empty) != len(media):
            raise PromptError(f"its prompt has {len(empty)} empty {kind} placeholders for {len(media)} {kind}s.")
        else:
            placed[kind] = [media.pop(0) if _own_media(part) is None else _own_media(part) for part in own]
    users = [message for message in messages if message["role"] == "user"]
    if front and not users:
        raise PromptError("its prompt has no user message to put its media in.")
    if front:
        users[0]["content"] = front + users[0]["content"]
    for message in messages:
        message["content"] = [
            {"type": part["type"]} if part["type"] in placed else part for part in message["content"]
        ]
    return messages, placed["video"], placed["image"]


def _own_media(part: dict) -> Any:
    """The video or image that a part carries itself, under its kind or as a path (both are transformers' forms)."""
    own = part.get(part["type"])
    return part.get("path") if own is None else own


def _parts(message: dict) -> list[dict]:
    """A message's content as parts, without the `None`s that Arrow fills in."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [{key: value for key, value in part.items() if value is not None} for part in content]


def text_of(message: dict) -> str:
    """The text of a message, its media left out."""
    return "".join(part.get("text", "") for part in _parts(message))


def checked_video(loaded: Any, source: Any) -> tuple[torch.Tensor, VideoMetadata]:
    """What a loader returned, if it is what it must be: other frames would be preprocessed without a word."""
    if isinstance(loaded, tuple) and len(loaded) == 2:
        frames, metadata = loaded
        is_video = isinstance(frames, torch.Tensor) and frames.dtype == torch.uint8 and frames.ndim == 4
        if is_video and frames.shape[1] == 3 and isinstance(metadata, VideoMetadata):
            return loaded
        found = f"({getattr(frames, 'dtype', type(frames).__name__)} {tuple(getattr(frames, 'shape', ()))}, "
        found += f"{type(metadata).__name__})"
    else:
        found = type(loaded).__name__
    raise RuntimeError(
        f"The video loader returned {found} for {str(source)[:200]}. It must return (frames, metadata): a uint8 tensor "
        "(T, 3, H, W) and a transformers VideoMetadata."
    )


def owns_contrast(place: int, num_generations: int, num_contrast: int) -> bool:
    """
    Whether the row at `place` (0 to G - 1) of its group owns a contrast rollout: G~ of the G do, evenly spread, so that
    ranks that share a group share its contrast rollouts too.

    >>> [owns_contrast(place, 8, 4) for place in range(8)]
    [False, True, False, True, False, True, False, True]
    """
    return (place + 1) * num_contrast // num_generations > place * num_contrast // num_generations


def media_list(inputs: dict[str, Any], kind: str) -> list[Any]:
    """
    The row's videos or images: of the plural column where it is filled, else of the singular one. A list in `image` is
    several images; a list in `video` is one video, frame by frame.

    Raises:
        `PromptError`: both columns are filled.
    """
    several, one = inputs.get(kind + "s"), inputs.get(kind)
    if several is not None and len(several):
        if one is not None:
            raise PromptError(f"both {kind!r} and {kind + 's'!r} are filled. Use one of them in a row.")
        return list(several)
    if one is None:
        return []
    return list(one) if kind == "image" and isinstance(one, (list, tuple)) else [one]


def _placed(inputs: dict[str, Any]) -> tuple[list[dict], list[Any], list[Any]] | Exception:
    """The row's prompt and media as [`place_media`] gives them, or what is wrong with them, to be raised in its turn."""
    if not inputs["prompt"] or not is_conversational({"prompt": inputs["prompt"]}):
        return ValueError(
            f"{record_name(inputs)}: its prompt is not conversational ({type(inputs['prompt']).__name__}). Pass a "
            'list of messages such as [{"role": "user", "content": "..."}].'
        )
    try:
        return place_media(inputs["prompt"], media_list(inputs, "video"), media_list(inputs, "image"))
    except PromptError as error:
        return error


def _inputs_key(inputs: list[dict[str, Any]]) -> tuple | None:
    """What tells one batch of rows from another: their prompts and media; `None` where that takes more than text."""
    key = tuple(_content(row.get(column)) for row in inputs for column in ("prompt", *MEDIA_COLUMNS))
    return None if _OBJECT in key else key


_OBJECT = object()


def _content(value: Any) -> Any:
    """A value to compare by: text, numbers or a collection of them; `_OBJECT` for and around anything else."""
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else value
        content = tuple(_content(each) for each in items)
        return _OBJECT if _OBJECT in content else content
    return value if value is None or isinstance(value, (str, int, float, Path)) else _OBJECT


def _processor_state(processor: Any) -> str:
    """What an encoded prompt depends on and a run may change."""
    tokenizer = getattr(processor, "tokenizer", processor)
    parts = [getattr(processor, name, None) for name in ("video_processor", "image_processor")]
    templates = [getattr(each, "chat_template", None) for each in (processor, tokenizer)]
    return repr((templates, len(tokenizer), *(None if part is None else part.to_dict() for part in parts)))


def record_name(inputs: dict[str, Any]) -> str:
    """How errors name a row of the dataset: its `problem_id`, else the beginning of its prompt."""
    if inputs.get("problem_id") is not None:
        return f"Record with problem_id {inputs['problem_id']!r}"
    return f"Record with prompt {str(inputs['prompt'])[:120]!r}"


def named(error: ValueError, inputs: dict[str, Any]) -> ValueError:
    """The error with its record named, of the same kind where it is a [`~video.MediaError`]."""
    if isinstance(error, MediaError):
        return type(error)(error.path, f"{error.reason} ({record_name(inputs)})")
    return PromptError(f"{record_name(inputs)}: {error}")
