"""Reads videos of stores by what is needed of them: an mp4's frames are numbered by its head, and fetched where they are wanted."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from av.stream import Disposition

from .blobs import Blob, Hollow
from .containers import samples_of
from .decode import Clip, Inexact, decode_seeking, read_frames
from .index import EXACT_CONTAINERS, Index, read_index
from .opening import open_container, video_stream


# In an mp4 the times and key frames of these are told by its head alone; of others the pictures themselves are looked into
_TOLD_BY_HEAD = ("h264", "hevc")
DELAY_PACKETS = 8  # behind a frame, that its decoder asks for before it gives the frame


class _Entry(NamedTuple):
    """A sample as the head of an mp4 lists it, in stored order."""

    begin: int
    end: int
    is_key: bool


def read_source(
    data: str | bytes | Blob, name: str, choose: Callable[[Index], Clip], *, by_time: bool
) -> tuple[torch.Tensor, Clip]:
    """
    As [`~decode.read_frames`]. Of an mp4 in a store its head is fetched, and the key frames before those chosen up to these; what
    cannot be read so is fetched whole, within `limits.fetched_bytes`.
    """
    if isinstance(data, Blob) and data.is_far:
        try:
            return _read_parts(data, name, choose, by_time)
        except Inexact:
            data = data.fetched()
    return read_frames(data, name, choose, by_time=by_time)


def _read_parts(data: Blob, name: str, choose: Callable[[Index], Clip], by_time: bool) -> tuple[torch.Tensor, Clip]:
    """Raises `Inexact` where not all frames can be told from the head, or come otherwise than it says."""
    samples = samples_of(data)
    if samples is None:
        raise Inexact
    hollow = Hollow(data, samples)
    with open_container(hollow) as container:
        pictures = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
        if len(pictures) != 1 or container.format.name != EXACT_CONTAINERS[0]:
            raise Inexact
        stream = video_stream(container, name)
        if stream.codec.canonical_name not in _TOLD_BY_HEAD:
            raise Inexact
        hollow.is_hollow = True  # only now: what is shown at all is found out by the first samples
        index = read_index(container, stream, name, hollow, by_time)
        entries = [_Entry(each.pos, each.pos + each.size, each.is_keyframe) for each in stream.index_entries]
        skips = stream.codec.canonical_name == "h264"
    if not index.seekable or len(entries) != len(index.positions) or not entries[0].is_key:
        raise Inexact
    # zeros are no key frames: the head says which samples are
    key_times = [time for time, entry in zip(index.positions, entries, strict=True) if entry.is_key]
    if key_times != sorted(key_times):
        raise Inexact
    index = replace(index, skips=skips, key_times=key_times)
    clip = choose(index)
    wanted = [index.times[clip.first + number] for number in clip.indices]
    with open_container(data) as container:
        data.plan(_runs(entries, index, wanted))
        return decode_seeking(container, video_stream(container, name), index, wanted).tensor(name), clip


def _runs(entries: list[_Entry], index: Index, wanted: list[int]) -> list[tuple[int, int]]:
    """From byte to byte, what is decoded for the frames at these times: from a key frame on, and a few packets of delay more."""
    runs = []
    for target in wanted:
        key = index.positions[index.key_times[bisect_right(index.key_times, target) - 1]]
        packets = entries[key : index.positions[target] + DELAY_PACKETS]
        runs.append((packets[0].begin, max(each.end for each in packets)))
    return runs
