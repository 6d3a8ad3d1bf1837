"""The frames a contrast rollout sees: the same video with its order of time spoiled."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol, TypeAlias

import torch

from .text.intervals import Interval, read_intervals
from .text.messages import Columns


class Contrast(Protocol):
    """Makes of a video's frames what the contrast rollouts see."""

    def __call__(self, frames: torch.Tensor, generator: torch.Generator, /) -> torch.Tensor:
        """
        Args:
            frames (`torch.Tensor` (T, C, H, W), uint8): a copy, which may be written into.
            generator (`torch.Generator`): seeded by run, step and group, alike on all ranks.

        Returns:
            `torch.Tensor` of the same shape and dtype.
        """
        ...


class RowContrast(Protocol):
    """
    A contrast that is chosen by the row, which it gets by keyword where a parameter is named `row`, wherever that stands, and
    otherwise as the third positional one, if that has no default.
    """

    def __call__(self, frames: torch.Tensor, generator: torch.Generator, row: Columns, /) -> torch.Tensor:
        """
        Args:
            frames, generator: as for [`Contrast`].
            row (`Mapping`): the columns of the record, and `frame_seconds` (`list[float]` of length T), where in its video
                each frame lies.

        Returns:
            `torch.Tensor` of the same shape and dtype.
        """
        ...


AnyContrast: TypeAlias = Contrast | RowContrast


def takes_row(contrast: Callable[..., object]) -> bool:
    """
    Whether a contrast wants to see the row: it has a parameter named `row`, or a third positional one without a default.

    Raises:
        `TypeError`: a contrast that can be called with frames, generator and row neither way.

    >>> takes_row(shuffle_frames), takes_row(shuffle_around)
    (False, True)
    """
    return any(_with_row(contrast, {}))


def _with_row(contrast: Callable[..., object], row: Columns) -> tuple[list[Columns], dict[str, Columns]]:
    """The row as a contrast takes it behind frames and generator: by position, by keyword, or not at all."""
    try:
        signature = inspect.signature(contrast)
    except ValueError:  # of what is written in C
        return [], {}
    positional = [
        each
        for each in signature.parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    named, third = signature.parameters.get("row"), positional[2] if len(positional) > 2 else None
    by_keyword = named is not None and named.kind in (named.POSITIONAL_OR_KEYWORD, named.KEYWORD_ONLY)
    if isinstance(contrast, functools.partial) and "row" in contrast.keywords:
        found: tuple[list[Columns], dict[str, Columns]] = [], {}  # it has been given one
    elif by_keyword and named not in positional[:2]:
        found = [], {"row": row}
    else:
        found = ([row] if third is not None and (third.default is third.empty or third.name == "row") else []), {}
    try:
        signature.bind(None, None, *found[0], **found[1])
    except TypeError as error:
        raise TypeError(
            f"contrast ({_name_of(contrast)}) cannot be called with frames and generator{', and row' if any(found) else ''}: {error}. "
            "Give its other parameters defaults, or bind them by functools.partial."
        ) from None
    return found


def _name_of(contrast: object) -> str:
    return str(getattr(_unbound(contrast), "__name__", type(contrast).__name__))


def _unbound(contrast: object) -> object:
    """What a `functools.partial` calls; all else is itself."""
    return _unbound(contrast.func) if isinstance(contrast, functools.partial) else contrast


def parts_of(contrast: AnyContrast) -> list[AnyContrast]:
    """The contrasts among which one by column chooses; any other is its own only part."""
    if isinstance(contrast, _ByColumn):
        return [part for each in (*contrast.contrasts.values(), contrast.otherwise) for part in parts_of(each)]
    return [contrast]


def names_of(contrast: AnyContrast) -> set[str | None]:
    """
    The names of this package's contrasts that a contrast is, or chooses among; `None` for one that is not this package's.

    >>> sorted(names_of(get_contrast_by_column("about", {"time": functools.partial(reverse_frames)})))
    ['reverse_frames', 'shuffle_frames']
    """
    own = (shuffle_frames, reverse_frames, freeze_frame, flip_frames, shuffle_clips, shuffle_around)
    found: set[str | None] = set()
    for part in map(_unbound, parts_of(contrast)):
        is_own = any(part is each for each in own) or isinstance(part, (_ShuffleClips, _ShuffleAround))
        found.add(_name_of(part) if is_own else None)
    return found


def across_clips(contrast: AnyContrast) -> bool:
    """
    Whether a contrast sees clips whose order is asked for as one row of frames: `shuffle_frames`, `shuffle_clips` and
    `shuffle_around`, and one that says so itself by an attribute `across_clips = True`. `reverse_frames` needs it not: where each
    clip runs backwards, so does their order.
    """
    mixing = {"shuffle_frames", "shuffle_clips", "shuffle_around"}
    return names_of(contrast) <= mixing or getattr(contrast, "across_clips", False) is True


def picks_frames(contrast: AnyContrast) -> bool:
    """
    Whether a contrast only puts whole frames in other places, so that it is all the same whether they are resized before or
    after: those of this package but [`flip_frames`], and one that says so itself by an attribute `picks_frames = True`.

    >>> picks_frames(shuffle_frames), picks_frames(flip_frames)
    (True, False)
    """
    return all(
        not names_of(part) & {"flip_frames", None} or getattr(part, "picks_frames", False) is True
        for part in parts_of(contrast)
    )


def contrasted(
    contrast: AnyContrast, frames: torch.Tensor, generator: torch.Generator, row: Columns | None = None
) -> torch.Tensor:
    """
    What a contrast makes of a copy of the frames, which others share.

    Args:
        contrast ([`Contrast`] or [`RowContrast`]): may write into what it is given.
        frames (`torch.Tensor` (T, C, H, W), uint8): left as they are.
        generator (`torch.Generator`): the contrast's.
        row (`Mapping`, *optional*): what a contrast by row gets to see; `None`: nothing.

    Returns:
        `torch.Tensor` of the same shape and dtype.

    Raises:
        `RuntimeError`: the contrast returned another shape or dtype.
    """
    call: Callable[..., torch.Tensor] = contrast
    third, by_name = _with_row(contrast, row or {})
    found = call(frames.clone(), generator, *third, **by_name)
    if found.shape != frames.shape or found.dtype != frames.dtype:
        raise RuntimeError(
            f"The contrast turned frames {tuple(frames.shape)} {frames.dtype} into {tuple(found.shape)} {found.dtype}. "
            "It must return frames of the same shape and dtype."
        )
    return found


def contrasted_videos(
    contrast: AnyContrast,
    videos: Sequence[torch.Tensor],
    seconds: Sequence[Sequence[float] | None],
    generator: torch.Generator,
    row: Columns,
) -> list[torch.Tensor]:
    """
    What a contrast makes of the videos of a row, each for itself. Where their order is asked for (`problem_type` is "permutation") a
    contrast that goes [`across_clips`] sees their frames in one row, as the prompt has them, which is cut into clips as long as
    they were: shuffled within themselves, clips would keep the order that is asked for.

    Args:
        videos (`Sequence[torch.Tensor]` (T, C, H, W), uint8): of the row, in their order. seconds: of the frames of each.
        contrast, generator: as of [`contrasted`]. row (`Mapping`): the columns of the record.

    Returns:
        `list[torch.Tensor]`: of the shapes of `videos`.
    """
    if len(videos) > 1 and row.get("problem_type") == "permutation":
        chosen = _chosen(contrast, row)
        if across_clips(chosen) and len({frames.shape[1:] for frames in videos}) == 1:
            known = [second for each in seconds if each is not None for second in each]
            lengths = [len(frames) for frames in videos]
            own = {**row, "frame_seconds": known if len(known) == sum(lengths) else None}
            return list(contrasted(chosen, torch.cat(list(videos)), generator, own).split(lengths))
        if None in names_of(chosen) and not hasattr(chosen, "across_clips"):
            warnings.warn(
                f"The contrast {_name_of(chosen)} sees clips whose order is asked for (problem_type 'permutation') each for itself, which "
                "may leave their order as it was. Give it an attribute across_clips: True to see their frames in one row, False for this.",
                stacklevel=2,
            )
        if across_clips(chosen):
            warnings.warn(
                "Clips of several sizes whose order is asked for (problem_type 'permutation') are contrasted each for itself, which "
                "leaves their order as it was. Cut the clips of a row from one video, or from videos of one size.",
                stacklevel=2,
            )
    return [
        contrasted(contrast, frames, generator, {**row, "frame_seconds": of_frames})
        for frames, of_frames in zip(videos, seconds, strict=True)
    ]


def _chosen(contrast: AnyContrast, row: Columns) -> AnyContrast:
    """The contrast itself, or the one that it chooses by the row."""
    return _chosen(contrast.chosen(row), row) if isinstance(contrast, _ByColumn) else contrast


def shuffle_frames(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    The frames in a random order, never the order they came in: uniform over the other T! - 1 permutations.

    Source: Video-R1 (arXiv 2503.21776), whose code may draw the identity. The draw depends on T and the generator
    alone, so that ranks with equally seeded generators agree. Equal frames stay equal: a still video has no order.

    Args:
        frames (`torch.Tensor` (T, C, H, W), any dtype, in practice uint8): left as it is.
        generator (`torch.Generator`): moved on by one or more draws where T > 1, else untouched.

    Returns:
        `torch.Tensor` (T, C, H, W), a copy on the same device; `frames` itself where T < 2.

    >>> frames = torch.arange(2, dtype=torch.uint8).view(2, 1, 1, 1)
    >>> shuffle_frames(frames, torch.Generator().manual_seed(0)).flatten().tolist()
    [1, 0]
    """
    num_frames = len(frames)
    if num_frames < 2:
        return frames
    identity = torch.arange(num_frames, device=generator.device)
    order = identity
    while torch.equal(order, identity):  # at most two draws on average, at T = 2
        order = torch.randperm(num_frames, generator=generator, device=generator.device)
    return frames[order.to(frames.device)]


def reverse_frames(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    The frames from last to first; nothing is drawn. A video that reads the same backwards stays as it is.

    Args:
        frames (`torch.Tensor` (T, C, H, W), any dtype, in practice uint8): left as it is.
        generator (`torch.Generator`): not used.

    Returns:
        `torch.Tensor` (T, C, H, W), a copy on the same device.

    >>> frames = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1)
    >>> reverse_frames(frames, torch.Generator()).flatten().tolist()
    [2, 1, 0]
    """
    return frames.flip(0)


def freeze_frame(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    One frame, drawn uniformly, in the place of every frame: what is to be seen without any movement.

    Args:
        frames (`torch.Tensor` (T, C, H, W), any dtype, in practice uint8): left as it is.
        generator (`torch.Generator`): moved on by one draw where T > 1, else untouched.

    Returns:
        `torch.Tensor` (T, C, H, W), a copy on the same device; `frames` itself where T < 2.

    >>> frames = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    >>> len(set(freeze_frame(frames, torch.Generator().manual_seed(0)).flatten().tolist()))
    1
    """
    num_frames = len(frames)
    if num_frames < 2:
        return frames
    place = int(torch.randint(num_frames, (1,), generator=generator, device=generator.device))
    return frames[place : place + 1].expand_as(frames).contiguous()


def flip_frames(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    Every frame mirrored, left to right, the order as it was: for questions of space ("which way?"), not of time.

    Source: CRPO (arXiv 2605.21988), for the rows that its router calls spatial.

    Args:
        frames (`torch.Tensor` (T, C, H, W), any dtype, in practice uint8): left as it is.
        generator (`torch.Generator`): not used.

    Returns:
        `torch.Tensor` (T, C, H, W), a copy on the same device.

    >>> flip_frames(torch.arange(3).view(1, 1, 1, 3), torch.Generator()).flatten().tolist()
    [2, 1, 0]
    """
    return frames.flip(-1)


def shuffle_clips(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """
    Four clips of equal length in another order, each of them in its own order: what is near in time stays near.
    [`get_shuffle_clips`] has another number.

    >>> frames = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1)
    >>> shuffle_clips(frames, torch.Generator().manual_seed(0)).flatten().tolist()
    [0, 1, 2, 3, 6, 7, 4, 5]
    """
    return _ShuffleClips()(frames, generator)


@dataclass(frozen=True)
class _ShuffleClips:
    num_clips: int = 4
    __name__ = "shuffle_clips"

    def __post_init__(self) -> None:
        if not isinstance(self.num_clips, Integral) or isinstance(self.num_clips, bool):
            raise ValueError(f"num_clips ({self.num_clips!r}) must be a whole number of at least 2.")
        if self.num_clips < 2:
            raise ValueError(f"num_clips ({self.num_clips}) must be at least 2, or there is no order to change.")

    def __call__(self, frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        num_clips = min(self.num_clips, len(frames))
        if num_clips < 2:
            return frames
        borders = [round(clip * len(frames) / num_clips) for clip in range(num_clips + 1)]
        order = shuffle_frames(torch.arange(num_clips), generator).tolist()
        return torch.cat([frames[borders[clip] : borders[clip + 1]] for clip in order])


def get_shuffle_clips(num_clips: int = 4) -> Contrast:
    """
    [`shuffle_clips`] of `num_clips` clips (>= 2), of one frame each where a video has fewer frames.

    >>> frames = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    >>> get_shuffle_clips(2)(frames, torch.Generator()).flatten().tolist()
    [2, 3, 0, 1]

    Raises:
        `ValueError`: fewer than two clips, or a number that is not whole.
    """
    return _ShuffleClips(num_clips)


def shuffle_around(frames: torch.Tensor, generator: torch.Generator, row: Columns) -> torch.Tensor:
    """
    The frames within 3 seconds of where the events of the row begin and end, shuffled among themselves: what happens stays
    to be seen, when it begins and ends does not. Where two such stretches meet they are one; of each at least the two frames
    nearest to it are taken, where frames are sparse. All frames where the `solution` has no intervals of seconds, and where
    the row has another `problem_type` than temporal grounding.
    [`get_shuffle_around`] has another radius and another column.

    Source: TaRO (arXiv 2606.09248). `row` as [`RowContrast`] has it.

    >>> frames, row = torch.arange(9).view(9, 1, 1, 1), {"solution": "0 - 6", "frame_seconds": [float(t) for t in range(9)]}
    >>> get_shuffle_around(radius=1)(frames, torch.Generator().manual_seed(0), row).flatten().tolist()
    [1, 0, 2, 3, 4, 7, 6, 5, 8]
    """
    return _ShuffleAround()(frames, generator, row)


@dataclass(frozen=True)
class _ShuffleAround:
    radius: float = 3.0
    column: str = "solution"
    __name__ = "shuffle_around"

    @property
    def needs_columns(self) -> tuple[str, ...]:
        return () if self.column == "solution" else (self.column,)

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ValueError(f"radius ({self.radius}) must be above 0 seconds. TaRO has 3.")

    def __call__(self, frames: torch.Tensor, generator: torch.Generator, row: Columns) -> torch.Tensor:
        own = self.column in row or self.column != "solution"  # rows of any kind may be without a solution
        if self.column == "solution" and row.get("problem_type") not in (None, "temporal grounding"):
            own = False  # "2, 3, 1" is an order there
        intervals = read_intervals(_value(row, self.column, "shuffle_around") if own else None)
        seconds = row.get("frame_seconds")
        if not intervals or seconds is None or len(frames) < 2:
            return shuffle_frames(frames, generator)
        frames = frames.clone()
        for first, last in self._stretches(intervals, seconds):
            frames[first : last + 1] = shuffle_frames(frames[first : last + 1], generator)
        return frames

    def _stretches(self, intervals: Sequence[Interval], seconds: Sequence[float]) -> list[tuple[int, int]]:
        """The first and the last place of each stretch of frames near a border; none meets another, all have two or more."""
        found: list[tuple[int, int]] = []
        for border in sorted({border for interval in intervals for border in interval}):
            near = [place for place, second in enumerate(seconds) if abs(second - border) <= self.radius]
            if len(near) < 2:
                near = sorted(range(len(seconds)), key=lambda place: abs(seconds[place] - border))[:2]
            first, last = min(near), max(near)
            if found and first <= found[-1][1]:
                first = min(found.pop()[0], first)
            found.append((first, last))
        return found


def get_shuffle_around(radius: float = 3.0, column: str = "solution") -> RowContrast:
    """
    [`shuffle_around`] with `radius` seconds (> 0) on either side, of the intervals in another `column`.

    Raises:
        `ValueError`: a radius that is not above 0.
    """
    return _ShuffleAround(radius, column)


@dataclass(frozen=True)
class _ByColumn:
    column: str
    contrasts: Mapping[object, AnyContrast]
    otherwise: AnyContrast
    __name__ = "contrast_by_column"

    @property
    def needs_columns(self) -> tuple[str, ...]:
        among = (*self.contrasts.values(), self.otherwise)
        nested = [column for each in among for column in getattr(_unbound(each), "needs_columns", ())]
        return tuple(dict.fromkeys((self.column, *nested)))

    def chosen(self, row: Columns) -> AnyContrast:
        """The one for the row's value of the column."""
        value = _value(row, self.column, "contrast_by_column")
        if not isinstance(value, Hashable):
            raise ValueError(f"{self.column} ({value!r:.60}) is no single value that a contrast could be chosen by.")
        return self.contrasts.get(value, self.otherwise)

    def __call__(self, frames: torch.Tensor, generator: torch.Generator, row: Columns) -> torch.Tensor:
        return contrasted(self.chosen(row), frames, generator, row)


def get_contrast_by_column(
    column: str, contrasts: Mapping[object, AnyContrast], otherwise: AnyContrast = shuffle_frames
) -> RowContrast:
    """
    Another contrast for each value of a column, as CRPO's router (arXiv 2605.21988) has it.

    >>> routed = get_contrast_by_column("about", {"space": flip_frames, "time": reverse_frames})
    >>> routed(torch.arange(3).view(3, 1, 1, 1), torch.Generator(), {"about": "time"}).flatten().tolist()
    [2, 1, 0]

    Args:
        column (`str`): of the records. contrasts (`Mapping`): by its values.
        otherwise (`Contrast` or `RowContrast`, defaults to [`shuffle_frames`]): for all other values.
    """
    return _ByColumn(column, contrasts, otherwise)


def _value(row: Columns, column: str, contrast: str) -> object:
    """What a row has in a column that must be there; what is missing would choose the same for all rows, without a word."""
    if column not in row:
        raise ValueError(
            f"The data has no column {column!r}, which the contrast {contrast} takes. It has {', '.join(row)}."
        )
    return row[column]


def frame_seconds(metadata: Any, num_frames: int) -> Sequence[float] | None:
    """Where in its video each frame lies, in seconds, by a transformers `VideoMetadata`; `None` where it does not say."""
    indices, fps = getattr(metadata, "frames_indices", None), getattr(metadata, "fps", None)
    if indices is None or not fps or len(indices) != num_frames:
        return None
    return [float(index) / fps for index in indices]
