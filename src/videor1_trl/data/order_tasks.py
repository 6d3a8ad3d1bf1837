"""Questions about the order of time whose key costs nothing, made from any videos: which clip came first, does it run backwards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d
from tqdm.auto import tqdm

from ..media.errors import VideoError
from ..media.video import load_video
from ..text.messages import ANSWER_CLOSE, ANSWER_OPEN


TASKS = ("clip_order", "direction", "odd_clip")
SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm")  # of what is a video in a folder
_LOOKED_AT = 48  # frames of a video that are looked at, evenly spaced
_SIDE = 16  # pixels of the small pictures that are compared
_KEPT = 0.8  # of each stretch is shown: clips whose borders meet could be told from two frames


@dataclass
class OrderTasks:
    """
    What was made, and of which videos nothing could be.

    Args:
        file (`Path`): of the records, JSON Lines. root (`Path`): the folder that their paths are relative to (`data_root`).
        counts (`dict[str, int]`): records of each task.
        too_short, still, unreadable, alone (`list[str]`): a line for each task of a video that was left out, with the file and the reason.
    """

    file: Path
    root: Path
    counts: dict[str, int] = field(default_factory=dict)
    too_short: list[str] = field(default_factory=list)
    still: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)


@dataclass
class _Looked:
    """A video, its length in seconds, and small grey pictures (T, S * S) of it with their times."""

    path: str
    duration: float
    seconds: torch.Tensor
    pictures: torch.Tensor

    def of(self, start: float, end: float) -> torch.Tensor:
        """Eight pictures of a clip, evenly spaced: (8, S * S)."""
        wanted = torch.linspace(start, end, 8)
        return self.pictures[(self.seconds[None] - wanted[:, None]).abs().argmin(dim=1)]

    def stretches(self, number: int) -> list[tuple[float, float]]:
        """So many clips of equal length, with room between them, in their order."""
        length = self.duration / number
        margin = length * (1 - _KEPT) / 2
        return [(round(k * length + margin, 3), round((k + 1) * length - margin, 3)) for k in range(number)]


def make_order_tasks(
    videos: Sequence[str | Path],
    output: str | Path,
    *,
    tasks: Sequence[str] = TASKS,
    num_clips: int = 4,
    min_clip_seconds: float = 1.0,
    still_below: float = 2.0,
    root: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> OrderTasks:
    """
    Write records whose right answer is known from how they are made, one for each video and task; [`load_video_r1`] reads them.

    - `"clip_order"`: clips of the video in an order that is drawn, their own among others; in which did they happen? `problem_type`
      "permutation".
    - `"direction"`: does it run forward or backward? A choice of two.
    - `"odd_clip"`: clips of the video, and one of another; which is it? A choice.

    No video is written anew: a record's `clips` say which seconds of which file are shown, and whether backwards. The same
    videos, arguments and seed give the same file. Each position of the key comes equally often, but for a remainder.

    Source: the idea is Visual Jigsaw's (arXiv 2509.25190), VideoSSR's (2511.06281) and that of the arrow of time.

    Args:
        videos (`Sequence[str | Path]`): files. output (`str | Path`): the JSON Lines file.
        tasks (`Sequence[str]`): of `TASKS`.
        num_clips (`int`, defaults to `4`): clips of a question, 2 to 9; of "odd_clip" at least 3.
        min_clip_seconds (`float`, defaults to `1.0`): shortest stretch of a video that a clip stands for, > 0; a video is too short
            for fewer than `num_clips` of them ("direction": two).
        still_below (`float`, defaults to `2.0`): videos are left out in which clips (or, for "direction", the video and itself
            reversed) differ by less, in grey levels of 255 on small pictures, since nothing tells their order.
        root (`str | Path`, *optional*): folder that the records' paths are relative to. `None`: the deepest that holds all videos.
        seed (`int`, defaults to `0`): of what is drawn, >= 0. progress (`bool`, defaults to `True`): show a progress bar.

    Returns:
        [`OrderTasks`]: with every video that was left out, and why.

    Raises:
        `ValueError`: an argument out of range, a video outside of `root`, or no record at all.
    """
    _check(videos, tasks, num_clips, min_clip_seconds, still_below, seed)
    paths = [os.path.abspath(video) for video in videos]
    base = os.path.abspath(root) if root is not None else os.path.commonpath([os.path.dirname(path) for path in paths])
    outside = [path for path in paths if os.path.commonpath([base, path]) != base]
    if outside:
        raise ValueError(f"{outside[0]} lies outside of root ({base}), which the records' paths are relative to.")
    made = OrderTasks(Path(output), Path(base))
    looked = list(_look_at(paths, made, progress))
    records: list[dict[str, object]] = []
    for task in tasks:
        usable = [each for each in looked if _long_enough(each, task, num_clips, min_clip_seconds, made)]
        rng = np.random.default_rng([seed, TASKS.index(task)])
        make = {"clip_order": _clip_orders, "direction": _directions, "odd_clip": _odd_clips}[task]
        found = list(make(usable, num_clips, still_below, rng, made))
        made.counts[task] = len(found)
        records += [
            {
                "problem_id": f"{task}/{number:06d}",
                "data_type": "video",
                "path": Path(os.path.relpath(path, base)).as_posix(),
                **record,
                "clips": [
                    {**clip, "path": Path(os.path.relpath(str(clip["path"]), base)).as_posix()} for clip in clips
                ],
                "task": task,
            }
            for number, (path, clips, record) in enumerate(found)
        ]
    if not records:
        left = [*made.unreadable, *made.too_short, *made.still, *made.alone]
        raise ValueError(f"no record could be made of {len(paths)} videos. The first that was left out: {left[0]}.")
    _write(made.file, records)
    return made


def _check(
    videos: Sequence[str | Path],
    tasks: Sequence[str],
    num_clips: int,
    min_clip_seconds: float,
    still_below: float,
    seed: int,
) -> None:
    if isinstance(tasks, str) or isinstance(videos, (str, Path)):
        raise ValueError(f"tasks ({tasks!r:.40}) and videos ({videos!r:.40}) must be lists.")
    unknown = [task for task in tasks if task not in TASKS]
    if unknown or not tasks:
        raise ValueError(f"tasks ({', '.join(tasks)}) must be some of {', '.join(TASKS)}.")
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks ({', '.join(tasks)}) names one twice.")
    for name, number in (("num_clips", num_clips), ("seed", seed)):
        if isinstance(number, bool) or not isinstance(number, Integral):
            raise ValueError(f"{name} ({number!r}) must be a whole number. Write it without decimals.")
    lowest = 3 if "odd_clip" in tasks else 2
    if not lowest <= num_clips <= 9:
        raise ValueError(f"num_clips ({num_clips}) must be between {lowest} and 9 for {', '.join(tasks)}.")
    if not 0 < min_clip_seconds < float("inf"):
        raise ValueError(f"min_clip_seconds ({min_clip_seconds}) must be above 0.")
    if not 0 <= still_below < float("inf"):
        raise ValueError(f"still_below ({still_below}) must be at least 0: grey levels of 255.")
    if seed < 0:
        raise ValueError(f"seed ({seed}) must be at least 0.")
    if not videos:
        raise ValueError("videos is empty: there is nothing to make records of.")


def _look_at(paths: list[str], made: OrderTasks, progress: bool) -> Iterator[_Looked]:
    """Small pictures of every video that can be read; a file that is named twice counts once."""
    for path in tqdm(list(dict.fromkeys(paths)), desc="Looking at videos", disable=not progress):
        try:
            frames, metadata = load_video(path, num_frames=_LOOKED_AT)
        except VideoError as error:
            made.unreadable.append(str(error))
            continue
        grey = adaptive_avg_pool2d(frames.float().mean(dim=1, keepdim=True), _SIDE).flatten(1)
        seconds = torch.tensor([index / float(metadata.fps or 1) for index in metadata.frames_indices or []])
        yield _Looked(path, float(metadata.duration or 0), seconds, grey)


def _long_enough(video: _Looked, task: str, num_clips: int, min_clip_seconds: float, made: OrderTasks) -> bool:
    needed = min_clip_seconds * (2 if task == "direction" else num_clips)
    if video.duration < needed - 1e-6 or len(video.seconds) < 2:
        made.too_short.append(f"{video.path}: {video.duration:.2f} s, {task} needs {needed:g} s")
        return False
    return True


_Made = tuple[str, list[dict[str, object]], dict[str, object]]  # the video, its clips, and what else is in the record


def _clip_orders(
    videos: list[_Looked], num_clips: int, still_below: float, rng: np.random.Generator, made: OrderTasks
) -> Iterator[_Made]:
    told_apart = []
    for video in videos:
        clips = [video.of(*stretch) for stretch in video.stretches(num_clips)]
        nearest = min(_difference(a, b) for place, a in enumerate(clips) for b in clips[:place])
        if nearest < still_below:
            made.still.append(
                f"{video.path}: two clips differ by {nearest:.2f} grey levels of {still_below:g} (clip_order)"
            )
        else:
            told_apart.append(video)
    block: list[list[int]] = []
    for video in told_apart:
        if not block:  # each clip stands once in each place
            order = rng.permutation(num_clips)
            block = [np.roll(order, shift).tolist() for shift in rng.permutation(num_clips)]
        shown = block.pop()
        stretches = video.stretches(num_clips)
        key = ", ".join(str(shown.index(clip) + 1) for clip in range(num_clips))
        problem = (
            f"You see {num_clips} clips of one video, one after the other. The first that you see is clip 1. In which order did they "
            "happen?"
        )
        clips_of = [_clip(video.path, *stretches[clip]) for clip in shown]
        yield video.path, clips_of, _question(problem, "permutation", key)


def _directions(
    videos: list[_Looked], num_clips: int, still_below: float, rng: np.random.Generator, made: OrderTasks
) -> Iterator[_Made]:
    block: list[tuple[bool, bool]] = []
    for video in videos:
        difference = _difference(video.pictures, video.pictures.flip(0))
        if difference < still_below:
            made.still.append(
                f"{video.path}: it and its reverse differ by {difference:.2f} grey levels of {still_below:g} (direction)"
            )
            continue
        if not block:  # both answers under both letters
            four = [(False, False), (False, True), (True, False), (True, True)]
            block = [four[place] for place in rng.permutation(4)]
        backward, swapped = block.pop()
        options = ["backward", "forward"] if swapped else ["forward", "backward"]
        key = "AB"[options.index("backward" if backward else "forward")]
        problem = "Does this video run forward, as it was filmed, or backward?"
        clip = _clip(video.path, 0.0, round(video.duration, 3), reverse=backward)
        yield video.path, [clip], _question(problem, "multiple choice", key, options)


def _odd_clips(
    videos: list[_Looked], num_clips: int, still_below: float, rng: np.random.Generator, made: OrderTasks
) -> Iterator[_Made]:
    block: list[int] = []
    for video in videos:
        own = [(start, end, video.of(start, end)) for start, end in video.stretches(num_clips)]
        place_of_other = rng.permutation(len(videos))
        others = [videos[place] for place in place_of_other if videos[place] is not video]
        for other in others:
            start, end = other.stretches(num_clips)[int(rng.integers(num_clips))]
            pictures = other.of(start, end)
            if min(_difference(pictures, clip) for *_, clip in own) >= still_below:
                break
        else:
            if others:
                made.still.append(
                    f"{video.path}: no other video differs from it by {still_below:g} grey levels (odd_clip)"
                )
            else:
                made.alone.append(
                    f"{video.path}: there is no other video that is long enough to take a clip of (odd_clip)"
                )
            continue
        block = block or rng.permutation(num_clips).tolist()
        odd = block.pop()
        length = min(end - start, own[0][1] - own[0][0])  # alike, or the length would give it away
        clips = [_clip(video.path, first, round(first + length, 3)) for first, *_ in own[: num_clips - 1]]
        clips.insert(odd, _clip(other.path, start, round(start + length, 3)))
        options = [f"clip {number}" for number in range(1, num_clips + 1)]
        problem = (
            f"You see {num_clips} clips, one after the other; the first is clip 1. All but one are parts of one video. Which one is of "
            "another video?"
        )
        yield video.path, clips, _question(problem, "multiple choice", chr(ord("A") + odd), options)


def _clip(path: str, start: float, end: float, reverse: bool = False) -> dict[str, object]:
    return {"path": path, "start": start, "end": end, **({"reverse": True} if reverse else {})}


def _question(problem: str, problem_type: str, key: str, options: Sequence[str] = ()) -> dict[str, object]:
    named = [f"{chr(ord('A') + place)}. {option}" for place, option in enumerate(options)]
    solution = f"{ANSWER_OPEN}{key}{ANSWER_CLOSE}"
    return {"problem": problem, "problem_type": problem_type, "options": named, "solution": solution}


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean difference of small pictures (T, S * S), in grey levels."""
    return (one - other).abs().mean().item()


def _write(file: Path, records: list[dict[str, object]]) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    part.replace(file)
