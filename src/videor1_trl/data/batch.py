"""One rank's generation batch: every distinct video decoded, preprocessed and contrasted once, every prompt encoded."""

import copy
import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image

from ..contrast import AnyContrast, contrasted_videos, frame_seconds, picks_frames, takes_row
from ..media.columns import MEDIA_COLUMNS
from ..media.errors import MediaError
from ..media.frame_cache import FrameCache
from ..media.images import load_image
from ..media.loader import Video, VideoLoader
from ..media.readahead import LookAhead, VideoStore, check_not_ending, media_key
from ..media.settings import FrameSettings, VideoArguments
from ..media.thumbnails import Shown, show
from ..media.video import Sampling, load_video
from ..models.encoding import EncodedPrompt, EncodeSettings, TemplateSettings, encode_prompt, with_preprocessing_cache
from ..models.families import Processor, tokenizer_of
from ..models.pixels import check_pixels
from ..models.shrinking import ProcessorShrink
from ..text.messages import Message, parts_of
from .placing import (
    Placed,
    PromptError,
    Record,
    check_taken,
    named,
    place_row,
    read_video,
    record_name,
    too_long,
    without_media,
)


@dataclass
class Row:
    """
    One rollout of the batch.

    Args:
        inputs (`Record`): the row of the dataset, with all its columns.
        messages (`list[Message]`): the prompt, its media as empty placeholders; every content is a list of parts.
        group (`int`): index of the row's prompt in the batch of all ranks.
        place (`int`): the row's place in its group, 0 to G - 1.
        encoded (`EncodedPrompt`): the prompt on the frames in order; shared by the rows of the group.
        contrast (`EncodedPrompt`, *optional*): the prompt on the contrast frames, where the row owns a contrast rollout.
        counterpart (`EncodedPrompt`, *optional*): the same of every row of the group, where the loader gives it to all.
        has_contrast (`bool`): whether the group has contrast rollouts: a video prompt that could be read.
        error (`ValueError`, *optional*): why the prompt could not be used, under `on_bad_video="skip"`.
        shown (`Shown`, *optional*): its media as small pictures, where the loader was asked for them.
    """

    inputs: Record
    messages: list[Message]
    group: int
    place: int
    encoded: EncodedPrompt
    contrast: EncodedPrompt | None = None
    has_contrast: bool = False
    error: ValueError | None = None
    counterpart: EncodedPrompt | None = None
    shown: Shown | None = None


@dataclass
class _Batch:
    """What the prompts of one batch share while they are encoded."""

    processor: Processor  # preprocesses the same frames once
    videos: dict[Hashable, tuple[Video, object]] = field(default_factory=dict)  # with their sources, see media_key


@dataclass
class BatchLoader:
    """
    Turns rows of the dataset into [`Row`]s.

    Args:
        processor: the model's processing class.
        load_video (`VideoLoader`): `(source, **video_settings) -> (frames, metadata)`.
        contrast (`AnyContrast`, *optional*): `(frames, generator) -> frames`, or with the row; `None`: no contrast rollouts.
        video_settings (`Sampling`): keywords of `load_video`.
        encode_settings (`EncodeSettings`): keywords of [`~encoding.encode_prompt`].
        max_prompt_length (`int`, *optional*): most tokens of a prompt.
        on_bad_video (`str`): `"raise"` or `"skip"`.
        seed (`int`): of the contrast.
        contrast_for_all (`bool`): whether every row gets its prompt on the contrast frames, as `counterpart`.
        shown_side (`Callable`): `(step, group) -> int`, the side of the small pictures that a group's rows get as `shown`; 0: none.
        num_workers (`int`): threads that decode videos, and whether the next batch is prepared in one, ahead of its use. With
            0, `load_video` and `contrast` run in the calling thread only.
        cache_bytes (`int`): most bytes of decoded frames that are kept for when their video comes again.
        frame_cache ([`~media.frame_cache.FrameCache`], *optional*): keeps the frames that `load_video` gives on disk.
    """

    processor: Processor
    load_video: VideoLoader
    contrast: AnyContrast | None
    video_settings: Sampling = field(default_factory=lambda: FrameSettings().video_settings)
    encode_settings: EncodeSettings = field(default_factory=EncodeSettings)
    max_prompt_length: int | None = None
    on_bad_video: str = "raise"
    seed: int = 0
    num_workers: int = 0
    cache_bytes: int = 0
    contrast_for_all: bool = False
    shown_side: Callable[[int, int], int] = lambda step, group: 0
    frame_cache: FrameCache | None = None

    @classmethod
    def of(
        cls,
        args: VideoArguments,
        processor: Processor,
        load_video: VideoLoader,
        contrast: AnyContrast | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: TemplateSettings | None = None,
        *,
        model_type: str | None = None,
        num_processes: int = 1,
        contrast_for_all: bool = False,
        shown_side: Callable[[int, int], int] = lambda step, group: 0,
    ) -> "BatchLoader":
        """
        With the settings of a trainer's arguments.

        Args:
            chat_template, chat_template_kwargs, model_type: as in [`~encoding.encode_prompt`].
            num_processes (`int`, defaults to `1`): that load batches at the same time, and so divide the room for kept frames.
            contrast_for_all (`bool`, defaults to `False`), shown_side (defaults to none): as above.
        """
        return cls(
            processor,
            load_video,
            contrast,
            video_settings=args.video_settings,
            encode_settings={
                **args.pixel_settings,
                "chat_template": chat_template,
                "chat_template_kwargs": chat_template_kwargs,
                "model_type": model_type,
            },
            max_prompt_length=args.max_prompt_length,
            on_bad_video=args.on_bad_video,
            seed=getattr(args, "seed", 0),
            num_workers=args.video_num_workers,
            cache_bytes=int(args.video_cache_gb * 2**30 / num_processes),
            contrast_for_all=contrast_for_all,
            shown_side=shown_side,
            frame_cache=args.frame_cache(),
        )

    def __post_init__(self) -> None:
        check_pixels(self.processor, self.encode_settings)
        self._videos = VideoStore(self.read, self.num_workers, self.cache_bytes)
        self._whole_videos = VideoStore(functools.partial(self.read, whole=True), self.num_workers)
        picks = self.contrast is None or picks_frames(self.contrast)
        budget = self.encode_settings.get("video_max_pixels"), self.encode_settings.get("video_min_pixels")
        self._shrink = ProcessorShrink.of(self.processor, *budget) if picks and self.load_video is load_video else None
        by_row = self.contrast is not None and takes_row(self.contrast)
        key = functools.partial(_inputs_key, all_columns=by_row)
        self._ahead = {mode: LookAhead(self._load, key) for mode in ("train", "eval")}
        self._copy: tuple[Processor, str] | None = None  # the processor for other threads, and what it is a copy of
        self._copy_in_use = threading.Lock()  # a tokenizer may not be used by two threads at once

    def expect(self, inputs: list[Record], mode: str = "train") -> list[Record]:
        """
        Take note of rows that [`load`] will be asked for next, and prepare them meanwhile; a data collator. Rows with media
        other than paths are not prepared ahead.
        """
        if self.num_workers:
            self._ahead[mode].expect(inputs)
        return inputs

    def load(
        self,
        inputs: list[Record],
        first_row: int | Sequence[int],
        num_generations: int,
        num_contrast: int,
        step: int,
        next_step: int | None = None,
        mode: str = "train",
    ) -> list[Row]:
        """
        Args:
            inputs (`list[Record]` of length B): this rank's rows, those of a group beside each other.
            first_row (`int` or `Sequence[int]` of length B): index of the first of them in the batch of all ranks; or that of
                each, of rows that [`expect`] was not told of.
            num_generations (`int`): G. num_contrast (`int`): G~, at most G; 0: none.
            step (`int`): varies the contrast from step to step.
            next_step (`int`, *optional*): that of the batch behind this one, where it is expected; `None`: the same.
            mode (`str`): `"train"` or `"eval"`, as in [`expect`].

        Raises:
            `VideoError`, `ImageError`, `PromptError`: media that cannot be read, a prompt whose placeholders and media
                differ or that is too long, with `on_bad_video="raise"`.
            `ValueError`: a prompt that is not conversational.
            `RuntimeError`: a loader or a contrast that returns something else than it must.
        """
        if not isinstance(first_row, int):
            return self._load(inputs, first_row, num_generations, num_contrast, step)
        arguments = first_row, num_generations, num_contrast
        following = *arguments, step if next_step is None else next_step
        rows = self._ahead[mode].take(inputs, *arguments, step, following=following)
        return [replace(row, inputs=row_inputs) for row, row_inputs in zip(rows, inputs, strict=True)]

    def _load(
        self, inputs: list[Record], first_row: int | Sequence[int], num_generations: int, num_contrast: int, step: int
    ) -> list[Row]:
        if threading.current_thread() is threading.main_thread():
            return self._load_with(self.processor, inputs, first_row, num_generations, num_contrast, step)
        with self._copy_in_use:
            return self._load_with(self._processor_copy(), inputs, first_row, num_generations, num_contrast, step)

    def _processor_copy(self) -> Processor:
        """A copy of the processor, as it is now."""
        state = _processor_state(self.processor)
        if self._copy is None or self._copy[1] != state:
            self._copy = copy.deepcopy(self.processor), state
        return self._copy[0]

    def _load_with(
        self,
        processor: Processor,
        inputs: list[Record],
        first_row: int | Sequence[int],
        num_generations: int,
        num_contrast: int,
        step: int,
    ) -> list[Row]:
        batch = _Batch(with_preprocessing_cache(processor))
        indices = range(first_row, first_row + len(inputs)) if isinstance(first_row, int) else first_row
        places = [divmod(index, num_generations) for index in indices]
        owners = {(group, place) for group, place in places if owns_contrast(place, num_generations, num_contrast)}
        with_contrast = {group for group, _ in (places if self.contrast_for_all else owners)}
        placed: dict[int, Placed | Exception] = {}
        for row_inputs, (group, _) in zip(inputs, places, strict=True):
            if group not in placed:
                placed[group] = place_row(row_inputs)
        announced = [(self._store_of(found[1]), found[1]) for found in placed.values() if isinstance(found, tuple)]
        stores = [
            (store, [each for own, sources in announced if own is store for each in sources])
            for store in (self._videos, self._whole_videos)
        ]
        for store, sources in stores:
            store.announce(sources)
        groups: dict[int, Row] = {}
        rows = []
        try:
            for row_inputs, (group, place) in zip(inputs, places, strict=True):
                if group not in groups:
                    groups[group] = self._load_group(
                        batch, row_inputs, placed[group], group, step, group in with_contrast
                    )
                shared = groups[group]
                if row_inputs["prompt"] != shared.inputs["prompt"]:
                    raise RuntimeError(
                        f"Row {place} of group {group} has another prompt than the group. The sampler must repeat each "
                        f"prompt num_generations ({num_generations}) times in a row."
                    )
                own = shared.contrast if (group, place) in owners else None
                all_have = shared.contrast if self.contrast_for_all else None
                rows.append(replace(shared, inputs=row_inputs, place=place, contrast=own, counterpart=all_have))
        finally:
            for store, sources in stores:
                store.forget(sources)
        return rows

    def _load_group(
        self, batch: _Batch, inputs: Record, placed: Placed | Exception, group: int, step: int, with_contrast: bool
    ) -> Row:
        """A prompt on ordered and on contrast frames, or without its media where it cannot be used and is skipped."""
        check_not_ending()
        try:
            if isinstance(placed, Exception):
                raise placed
            return self._encode_group(batch, inputs, placed, group, step, with_contrast)
        except (MediaError, PromptError) as error:
            named_error = named(error, inputs)
            if self.on_bad_video == "raise":
                raise named_error from error
            stub = [{"role": "user", "content": [{"type": "text", "text": "-"}]}]  # what is masked may cost little
            encoded = self._encode(batch, inputs, stub, [], [], max_length=None)
            messages = [{**message, "content": without_media(parts_of(message))} for message in inputs["prompt"]]
            return Row(inputs, messages, group, 0, encoded, error=named_error)

    def _encode_group(
        self,
        batch: _Batch,
        inputs: Record,
        placed: Placed,
        group: int,
        step: int,
        with_contrast: bool,
    ) -> Row:
        messages, video_sources, image_sources = placed
        check_taken(self.processor, len(video_sources), len(image_sources))
        store = self._store_of(video_sources)
        videos = [self._decoded(batch, source, store) for source in video_sources]
        bounds = FrameSettings.bounds_of(self.video_settings)
        images = [load_image(source, **bounds) for source in image_sources]
        encoded = self._encode(batch, inputs, messages, videos, images, self.max_prompt_length)
        contrast, shuffled = None, []
        has_contrast = bool(videos) and self.contrast is not None
        if self.contrast is not None and has_contrast and with_contrast:
            entropy = np.random.SeedSequence([self.seed, step, group])
            generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
            seconds = [frame_seconds(metadata, len(frames)) for frames, metadata in videos]
            of_videos = contrasted_videos(self.contrast, [frames for frames, _ in videos], seconds, generator, inputs)
            shuffled = [(frames, metadata) for frames, (_, metadata) in zip(of_videos, videos, strict=True)]
            contrast = self._encode(batch, inputs, messages, shuffled, images, self.max_prompt_length)
            if contrast.input_ids != encoded.input_ids:
                raise RuntimeError(
                    f"{record_name(inputs)}: the prompts on ordered and on contrast frames differ, so the text would "
                    "give the order away. The contrast must keep the number and the size of the frames."
                )
        shown, side = None, self.shown_side(step, group)
        if side:
            times = [frame_seconds(metadata, len(frames)) for frames, metadata in videos]
            both = [frames for frames, _ in videos], [frames for frames, _ in shuffled]
            shown = show(*both, times, images, side)
        return Row(inputs, messages, group, 0, encoded, contrast, has_contrast, shown=shown)

    def read(self, source: object, whole: bool = False) -> Video:
        """A video as its rows will have it; `whole`: at full size, which its processor then reduces."""
        shrink = None if whole else self._shrink
        return read_video(source, self.video_settings, self.load_video, shrink, self.frame_cache)

    def _store_of(self, sources: list[object]) -> VideoStore:
        """Where the videos of a prompt are kept: at full size where that of another decides on their resizing."""
        return self._whole_videos if self.depends_on_others(sources) else self._videos

    def depends_on_others(self, sources: list[object]) -> bool:
        """Whether the size of a prompt's frames depends on its other videos."""
        return self._shrink is not None and self._shrink.by_video and len(sources) > 1

    def _decoded(self, batch: _Batch, source: object, store: VideoStore) -> Video:
        key = media_key(source), store is self._videos
        if key not in batch.videos:
            batch.videos[key] = store.get(source), source
        return batch.videos[key][0]

    def settings_of(self, inputs: Record) -> EncodeSettings:
        """Keywords of [`~families.encode_prompt`] for a row, whose column `chat_template_kwargs` wins (as in TRL)."""
        own = {key: value for key, value in (inputs.get("chat_template_kwargs") or {}).items() if value is not None}
        if not own:  # Arrow fills the keys of other rows in with None
            return self.encode_settings
        given = self.encode_settings.get("chat_template_kwargs") or {}
        return {**self.encode_settings, "chat_template_kwargs": {**given, **own}}

    def _encode(
        self,
        batch: _Batch,
        inputs: Record,
        messages: list[Message],
        videos: list[Video],
        images: list[Image],
        max_length: int | None,
    ) -> EncodedPrompt:
        try:
            encoded = encode_prompt(batch.processor, messages, videos, images, **self.settings_of(inputs))
        except ValueError as error:  # the processor's: placeholders and features differ
            raise PromptError(str(error)) from error
        if max_length is not None and len(encoded.input_ids) > max_length:
            raise PromptError(too_long(len(encoded.input_ids), max_length))
        return encoded


def owns_contrast(place: int, num_generations: int, num_contrast: int) -> bool:
    """
    Whether the row at `place` (0 to G - 1) of its group owns a contrast rollout: G~ of the G do, evenly spread, so that
    ranks that share a group share its contrast rollouts too.

    >>> [owns_contrast(place, 8, 4) for place in range(8)]
    [False, True, False, True, False, True, False, True]
    """
    return (place + 1) * num_contrast // num_generations > place * num_contrast // num_generations


def _inputs_key(inputs: list[Record], all_columns: bool = False) -> tuple | None:
    """
    What tells one batch of rows from another: their prompts and media, and what else the contrast depends on, the kind of
    question or all columns;
    `None` where that takes more than text.
    """
    needed = ("prompt", "chat_template_kwargs", "problem_type", *MEDIA_COLUMNS)
    key = tuple(_content(row.get(column)) for row in inputs for column in (sorted(row) if all_columns else needed))
    return None if _OBJECT in key else key


_OBJECT = object()


def _content(value: object) -> object:
    """A value to compare by: text, numbers or a collection of them; `_OBJECT` for and around anything else."""
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else value
        content = tuple(_content(each) for each in items)
        return _OBJECT if _OBJECT in content else content
    return value if value is None or isinstance(value, (str, int, float, Path)) else _OBJECT


def _processor_state(processor: Processor) -> str:
    """What an encoded prompt depends on and a run may change."""
    tokenizer = tokenizer_of(processor)
    parts = [getattr(processor, name, None) for name in ("video_processor", "image_processor")]
    templates = [getattr(each, "chat_template", None) for each in (processor, tokenizer)]
    return repr((templates, len(tokenizer), *(None if part is None else part.to_dict() for part in parts)))
