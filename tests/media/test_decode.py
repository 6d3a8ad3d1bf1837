"""Reading of video files: the frames of a full decode, however they are reached, and an error for broken files."""

import gc
import multiprocessing
import os
import shutil
import struct
import subprocess
import threading
from fractions import Fraction
from types import SimpleNamespace

import av
import datasets
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from files import GOP, KINDS, cut, full_decode, picture, remux, set_matrix, write, written, x264
from hypothesis import given, settings
from hypothesis import strategies as st

import videor1_trl.media.decode as decode
from videor1_trl.media.check import check_media
from videor1_trl.media.errors import VideoError
from videor1_trl.media.video import load_video, sample_indices


@pytest.fixture
def decodes(monkeypatch):
    """`.straight`: how often everything was decoded, in the loads that follow."""
    calls = SimpleNamespace(straight=0)
    original = decode._decode_all

    def counted(*args):
        calls.straight += 1
        return original(*args)

    monkeypatch.setattr(decode, "_decode_all", counted)
    return calls


# ---------------------------------------------------------------------------------------- the frames of a full decode


EXACT = [
    "h264.mp4",
    "h264_open_gop.mp4",
    "hevc.mp4",
    "h264.mkv",
    "hevc_open_gop.mp4",
    "hevc_leading.mp4",
    "vp9.webm",
    "av1.mp4",
]


@pytest.mark.parametrize("name", KINDS)
def test_frames_equal_those_of_a_full_decode(videos, name):
    path = videos(name)
    every = full_decode(path)
    total = len(every)
    for num_frames in (total, 5, 1):
        frames, metadata = load_video(path, num_frames=num_frames)
        assert metadata.total_num_frames == total
        assert metadata.frames_indices == sample_indices(total, 1.0, num_frames=num_frames)
        assert torch.equal(frames, every[metadata.frames_indices])
    frames, metadata = load_video(str(path))
    assert frames.dtype == torch.uint8 and frames.shape == (len(metadata.frames_indices), *every.shape[1:])
    assert torch.equal(frames, every[metadata.frames_indices])
    assert (metadata.width, metadata.height) == (every.shape[3], every.shape[2])
    assert metadata.video_backend == "pyav"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("start, end", [(0.7, 1.5), (0.95, None), (None, 0.35), (0.5, 0.5001)])
def test_a_clip_equals_that_part_of_a_full_decode(videos, name, start, end):
    path = videos(name)
    every = full_decode(path)
    rate = float(KINDS[name].get("rate", 30))
    # written by hand: frame i is on screen during [i, i + 1) / rate
    length = len(every) / rate
    shown = [
        i for i in range(len(every)) if (i + 1) / rate > (start or 0) + 1e-4 and i / rate < (end or length) - 1e-5
    ]
    frames, metadata = load_video(path, start=start, end=end)
    assert metadata.total_num_frames == len(shown)
    assert torch.equal(frames, every[[shown[i] for i in metadata.frames_indices]])
    assert metadata.frames_indices == sample_indices(len(shown), rate)
    assert metadata.fps == pytest.approx(rate, rel=0, abs=0.35)  # matroska rounds times to milliseconds


@pytest.mark.parametrize("name", EXACT)
def test_it_seeks_where_that_is_exact(videos, name, decodes, monkeypatch):
    monkeypatch.setattr(decode, "SEEK_COST_FRAMES", 0)
    for number in range(5):
        load_video(videos(name), num_frames=2 + number)
        load_video(videos(name), start=0.8, end=0.9)
    assert decodes.straight == 0


@pytest.mark.parametrize("name", KINDS)
def test_seeking_as_often_as_possible_gives_the_same_frames(videos, name, monkeypatch):
    monkeypatch.setattr(decode, "SEEK_COST_FRAMES", -1000)
    every = full_decode(videos(name))
    for num_frames in (3, 7, 20):
        frames, metadata = load_video(videos(name), num_frames=num_frames)
        assert torch.equal(frames, every[metadata.frames_indices])


@pytest.mark.parametrize("name", ["mpeg4.avi", "vp8.webm", "h264.ts", "animation.gif"])
def test_it_decodes_straight_through_where_packets_do_not_number_the_frames(videos, name, decodes):
    load_video(videos(name))
    assert 1 <= decodes.straight <= 2


def test_a_forked_process_frees_what_its_parent_read(videos):
    """As workers of a data loader do at some time: the decoder's threads stayed with the parent."""
    load_video(videos("h264.mp4"))
    child = multiprocessing.get_context("fork").Process(target=gc.collect)
    child.start()
    child.join(30)
    stands, code = child.is_alive(), child.exitcode
    child.kill()
    assert not stands and code == 0


def test_packets_that_number_the_frames_wrongly_are_noticed(videos, monkeypatch, decodes):
    every = full_decode(videos("h264.mp4"))
    real = decode.read_index

    def misleading(*args):
        index = real(*args)
        index.positions.pop(index.times.pop(30))  # as if the packets had numbered the frames wrongly
        return index

    monkeypatch.setattr(decode, "read_index", misleading)
    frames, metadata = load_video(videos("h264.mp4"), num_frames=5)
    assert decodes.straight == 2
    assert torch.equal(frames, every[metadata.frames_indices])


class Demuxer:
    """A container that loses the packet at the time `lost`, and seeks to the time `landing` wherever it is sent."""

    def __init__(self, container, lost=None, landing=None):
        self.container, self.lost, self.landing = container, lost, landing

    def seek(self, time, stream):
        self.container.seek(time if self.landing is None else self.landing, stream=stream)

    def demux(self, stream):
        return (packet for packet in self.container.demux(stream) if packet.pts is None or packet.pts != self.lost)


def decode_frame(path, number, **faults):
    """Frame `number` of a file whose index is right and whose packets then come with `faults` (numbers of frames)."""
    with decode.open_container(str(path)) as container:
        stream = decode.video_stream(container, str(path))
        index = decode.read_index(container, stream, str(path))
        demuxer = Demuxer(container, **{fault: index.times[at] for fault, at in faults.items()})
        taken = decode.decode_seeking(demuxer, stream, index, [index.times[number]])
    [frame] = taken.tensor(str(path))
    return frame


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "hevc.mp4", "vp9.webm"])
def test_a_packet_lost_on_the_way_from_the_key_frame_is_noticed(videos, name):
    """The decoder itself makes up for it in silence: the frame comes, with other pixels."""
    for lost in range(13, 22):  # the key frames are 0, 12, 24, ...
        with pytest.raises(decode.Inexact):
            decode_frame(videos(name), 22, lost=lost)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "hevc.mp4", "vp9.webm"])
def test_a_seek_may_land_early_but_not_late(videos, name):
    expected = full_decode(videos(name))[22]
    for landing in (0, 12):
        assert torch.equal(decode_frame(videos(name), 22, landing=landing), expected)
    with pytest.raises(decode.Inexact):
        decode_frame(videos(name), 22, landing=24)


def test_only_the_sampled_frames_of_a_long_video_are_turned_into_pixels(tmp_path, monkeypatch):
    path = write(tmp_path / "long.mp4", frames=600, size=(32, 32), options=x264(**GOP))
    decoded = []
    original = decode.pixels_of
    monkeypatch.setattr(decode, "pixels_of", lambda frame: decoded.append(frame.pts) or original(frame))
    frames, metadata = load_video(path, num_frames=4)
    assert len(decoded) == 4
    assert torch.equal(frames, full_decode(path)[metadata.frames_indices])


def test_variable_frame_rate_keeps_the_frames_and_the_length(tmp_path):
    times = np.cumsum([0] + [20, 20, 100, 40, 300, 20] * 8).tolist()
    for name in ("vfr.mp4", "vfr.mkv"):
        path = write(tmp_path / name, frames=len(times), times=times, options=x264(**GOP))
        every = full_decode(path)
        frames, metadata = load_video(path, num_frames=9)
        assert torch.equal(frames, every[metadata.frames_indices])
        # 48 gaps in 4 s: the mean rate is 12, and the time stamps that follow end with the last frame
        assert metadata.fps == pytest.approx(12.0, rel=0, abs=1e-6)
        assert metadata.timestamps[-1] == pytest.approx(4.0, rel=0, abs=1e-6)
        # on screen during 0.55 to 1.1 s: shown before its end and replaced after its start; the last stays 1 / 12 s
        shown = [i for i, t in enumerate(times) if t < 1100 and (times + [4083])[i + 1] > 550]
        frames, metadata = load_video(path, start=0.55, end=1.1, num_frames=100)
        assert torch.equal(frames, every[shown])


@pytest.mark.parametrize("degrees, size", [(0, (48, 32)), (90, (32, 48)), (180, (48, 32)), (270, (32, 48))])
def test_rotation_metadata_is_applied(tmp_path, degrees, size):
    path = write(tmp_path / "turned.mp4", frames=20, size=(48, 32), options=x264(keyint=5))
    before = full_decode(path)
    turn(path, degrees)
    frames, metadata = load_video(path, num_frames=3)
    assert (metadata.width, metadata.height) == size
    # a display matrix of 90 degrees turns the picture clockwise for the viewer
    upright = torch.rot90(before[metadata.frames_indices], -degrees // 90, dims=(2, 3))
    assert torch.equal(frames, upright)
    assert torch.equal(frames, full_decode(path)[metadata.frames_indices])


def turn(path, degrees):
    """Writes the matrix of a clockwise turn into an mp4."""
    a, b = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    set_matrix(path, a, b, -b, a)


ORIENTATIONS = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)]
ORIENTATIONS += [(0, 1, -1, 0), (0, -1, 1, 0), (0, 1, 1, 0), (0, -1, -1, 0)]


@pytest.mark.parametrize("matrix", ORIENTATIONS)
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])  # one that is sought in, one that is decoded straight through
def test_turned_and_mirrored_frames_are_those_that_ffmpeg_shows(tmp_path, matrix, codec):
    path = write(tmp_path / "turned.mp4", codec=codec, frames=8, size=(48, 32))
    set_matrix(path, *matrix)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    frames, metadata = load_video(path, num_frames=8)
    expected = np.frombuffer(shown, np.uint8).reshape(8, metadata.height, metadata.width, 3)
    assert np.array_equal(frames.permute(0, 2, 3, 1).numpy(), expected)


def test_a_slanted_display_matrix_is_refused(tmp_path):
    path = write(tmp_path / "slanted.mp4", frames=4)
    set_matrix(path, 1, 1, -1, 1)
    with pytest.raises(VideoError, match="are to be turned by -?45 degrees, not by a multiple of 90"):
        load_video(path)


# --- valid files that look truncated -----------------------------------------------------------------------------


@pytest.mark.parametrize("skipped", [(5, 6, 20), (1, 1, 1), (29,)])
def test_an_avi_with_dropped_frames_is_read(tmp_path, skipped):
    """For a gap in the times the writer leaves empty chunks, as capture programs do for frames that they drop."""
    times, now = [], 0
    for number in range(30):
        now += 40 * (1 + 2 * skipped.count(number))
        times.append(now)
    path = write(tmp_path / "dropped.avi", codec="mpeg4", frames=30, rate=25, times=times)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 30, "the header counts the dropped ones"
    frames, metadata = load_video(path, num_frames=30)
    assert metadata.total_num_frames == 30 and torch.equal(frames, full_decode(path))
    with pytest.raises(VideoError, match="truncated|damaged|cannot be read"):
        load_video(cut(path, tmp_path / "cut.avi", 0.2))  # most of the file is its index of empty chunks


def with_long_last_frame(source, path, seconds=5.0):
    """The packets of `source`, the last of which is shown for so long."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        last = max(packets, key=lambda packet: packet.pts)
        last.duration = int(seconds / last.time_base)
        for packet in packets:
            packet.stream = stream
            new.mux(packet)
    return path


@pytest.mark.parametrize(
    "kind, suffix", [("vp9.webm", "webm"), ("h264.mkv", "mkv"), ("h264_intra_refresh.mp4", "mp4")]
)
def test_a_last_frame_of_a_long_duration_is_read_and_holds_clips(videos, tmp_path, kind, suffix):
    path = with_long_last_frame(videos(kind), tmp_path / f"long.{suffix}")
    every = full_decode(path)
    frames, _ = load_video(path, num_frames=100)
    assert torch.equal(frames, every)
    clip, metadata = load_video(path, start=4.0, end=6.0)
    assert metadata.total_num_frames == 1 and torch.equal(clip, every[-1:])
    with pytest.raises(VideoError, match="lies behind the video's 6.9"):
        load_video(path, start=7.5)


@pytest.mark.parametrize("name", ["vp9.webm", "h264.mkv"])
def test_a_whole_matroska_file_may_announce_a_longer_last_frame_than_its_packets_have(videos, tmp_path, name):
    """Blocks need not have a duration; the segment's size says that all is there."""
    data = bytearray(videos(name).read_bytes())
    place = data.index(b"\x44\x89\x88") + 3  # Duration, a double
    (milliseconds,) = struct.unpack(">d", data[place : place + 8])
    data[place : place + 8] = struct.pack(">d", milliseconds + 6000)
    path = written(tmp_path / f"long.{name.rpartition('.')[2]}", data)
    assert torch.equal(load_video(path, num_frames=100)[0], full_decode(path))
    for share in (0.5, 0.9):
        with pytest.raises(VideoError):
            load_video(cut(path, tmp_path / "cut.mkv", share))


# --- several streams ---------------------------------------------------------------------------------------------


def with_streams(path, *streams):
    """A file of video streams, each of (frames, size, default)."""
    with av.open(str(path), "w") as container:
        made = []
        for count, size, is_default in streams:
            stream = container.add_stream("libx264", rate=10, options={"preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.disposition = av.stream.Disposition.default.value if is_default else 0
            made.append((stream, count, size))
        for stream, count, size in made:
            for number in range(count):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")))
            container.mux(stream.encode())
    return path


FILM, OTHER = (64, 48), (32, 32)


@pytest.mark.parametrize(
    "streams",
    [
        [(1, OTHER, False), (20, FILM, False)],  # a still before the film
        [(1, OTHER, True), (20, FILM, True)],
        [(0, OTHER, False), (20, FILM, False)],  # an empty stream
        [(10, OTHER, False), (20, FILM, False)],  # the longest
        [(30, OTHER, False), (20, FILM, True)],  # the default one
        [(20, FILM, False), (20, OTHER, False)],  # the first of equals
    ],
)
@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_of_several_video_streams_the_film_is_read(tmp_path, streams, suffix):
    path = with_streams(tmp_path / f"several.{suffix}", *streams)
    with av.open(str(path)) as container:
        found = [stream.disposition & av.stream.Disposition.default for stream in container.streams.video]
    if [bool(each) for each in found] != [is_default for *_, is_default in streams]:
        pytest.skip(f"{suffix} cannot say which stream is the default one")
    frames, metadata = load_video(path, num_frames=100)
    assert (metadata.width, metadata.height) == FILM and len(frames) == 20
    dataset = datasets.Dataset.from_list([{"prompt": "?", "video": str(path)}])
    assert check_media(dataset)[1].ok


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["h264.ts", "mpeg4_bframes.avi"])
def test_a_frame_made_of_a_damaged_one_is_found(videos, monkeypatch, name):
    """One flagged packet in the middle of a group: all that is decoded from it, up to the next key frame, is spoiled."""
    whole = load_video(videos(name), num_frames=100)[0]
    with av.open(str(videos(name))) as container:
        packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    flagged = 14
    next_key = next(place for place, (_, is_key) in enumerate(packets) if is_key and place > flagged)
    spoiled = {time for time, _ in packets[flagged:next_key]}
    spoiled |= {time for time, _ in packets[next_key:] if time < packets[next_key][0]}
    order = sorted(time for time, _ in packets)
    for module in ("index", "decode"):
        name_there = f"videor1_trl.media.{module}.is_marked_damaged"
        monkeypatch.setattr(name_there, lambda packet: packet.pts == packets[flagged][0])
    for number, time in enumerate(order):
        source = {"path": str(videos(name))}
        monkeypatch.setattr("videor1_trl.media.video.sample_indices", lambda *args, number=number, **kwargs: [number])
        if time in spoiled:
            with pytest.raises(VideoError, match=rf"frame {number} is damaged, or made of a damaged one"):
                load_video(source)
        else:
            assert torch.equal(load_video(source)[0][0], whole[number])


def refused_frames(path, whole):
    """Numbers of the frames of a video at 30 a second that are refused as damaged; the others are those of `whole`."""
    refused = []
    for number, expected in enumerate(whole):
        try:
            frames, _ = load_video(path, start=number / 30, end=(number + 1) / 30, num_frames=1)
        except VideoError as error:
            assert "damaged" in error.reason
            refused.append(number)
        else:
            assert torch.equal(frames[0], expected)
    return refused


@pytest.mark.parametrize("place, first, stop", [(0.1, 4, 12), (0.3, 14, 24), (0.5, 24, 36), (0.7, 33, 36)])
def test_frames_smeared_by_a_damaged_one_are_refused_and_all_others_read(tmp_path, place, first, stop):
    """The decoder flags the one frame whose bytes were overwritten; the picture stays spoiled up to the next key frame."""
    path = write(tmp_path / "whole.mp4", frames=48, options=x264(keyint=12, scenecut=0, bframes=2))
    whole = full_decode(path)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        broken = packets[int(len(packets) * place)]
        begin, end = broken.pos + broken.size // 3, broken.pos + broken.size
    data = bytearray(path.read_bytes())
    data[begin:end] = bytes(end - begin)
    spoiled = written(tmp_path / "spoiled.mp4", data)
    assert refused_frames(spoiled, whole[:48]) == list(range(first, stop))


def with_zeros(path, to, begin, end=1.0):
    """As a download leaves a file whose bytes were not all written."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * begin), int(len(data) * end)
    data[first:last] = bytes(last - first)
    return written(to, data)


@pytest.mark.parametrize("begin, end", [(0.5, 1.0), (0.7, 1.0), (0.9, 1.0), (0.3, 0.6)])
@pytest.mark.parametrize("name", ["vp9.webm", "vp8.webm", "h264.mkv", "mpeg4.avi", "h264.avi"])
def test_a_file_of_the_right_size_that_was_not_all_written_is_an_error(videos, tmp_path, name, begin, end):
    path = with_zeros(videos(name), tmp_path / f"zeros.{name.rpartition('.')[2]}", begin, end)
    try:
        frames, metadata = load_video(path, num_frames=100)
    except VideoError:
        return
    every = full_decode(videos(name))
    assert len(frames) == len(every) and torch.equal(frames, every), "nothing but an index was lost"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["vp9.webm", "h264.mkv"])
@pytest.mark.parametrize("live", [False, True])
def test_a_matroska_file_cut_anywhere_is_an_error(videos, tmp_path, kind, share, live):
    """Also where it was written live, without lengths."""
    path = videos(kind)
    if live:
        with (
            av.open(str(path)) as old,
            av.open(str(tmp_path / "live.mkv"), "w", format="matroska", options={"live": "1"}) as new,
        ):
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    new.mux(packet)
        path = tmp_path / "live.mkv"
        assert torch.equal(load_video(path, num_frames=100)[0], full_decode(path))
    with pytest.raises(VideoError, match="truncated|cannot be read|empty"):
        load_video(cut(path, tmp_path / "cut.mkv", share), num_frames=4)


def with_orientation(path, to, orientation):
    """H.264 with a display orientation within the pictures, which stands at the first of them alone."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", path, "-c", "copy", "-bsf:v"]
    subprocess.run([*command, f"h264_metadata=display_orientation=insert:{orientation}", to], check=True)
    return to


@pytest.mark.parametrize("orientation", ["rotate=180", "rotate=90", "rotate=270", "flip=horizontal", "flip=vertical"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_an_orientation_within_the_pictures_holds_for_all_of_them(videos, tmp_path, orientation, suffix):
    path = with_orientation(videos("h264.mp4"), tmp_path / f"turned.{suffix}", orientation)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    frames, metadata = load_video(path, num_frames=100)
    expected = np.frombuffer(shown, np.uint8).reshape(len(frames), metadata.height, metadata.width, 3)
    assert np.array_equal(frames.permute(0, 2, 3, 1).numpy(), expected)
    clip, found = load_video(path, start=1.0, end=1.5, num_frames=100)
    assert np.array_equal(clip.permute(0, 2, 3, 1).numpy(), expected[30:45])


def test_an_undecodable_picture_costs_no_other(tmp_path):
    path = write(tmp_path / "pictures.mov", codec="png", frames=20, pix_fmt="rgb24")
    every = full_decode(path)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][7]
        begin, end = packet.pos, packet.pos + packet.size
    data = bytearray(path.read_bytes())
    data[begin + 20 : end] = bytes(end - begin - 20)
    spoiled = written(tmp_path / "spoiled.mov", data)
    with av.open(str(spoiled)) as container:
        try:
            whole = sum(not frame.is_corrupt for frame in container.decode(video=0)) == 20
        except av.FFmpegError:
            whole = False
    assert not whole, "the decoder notices"
    assert refused_frames(spoiled, every[:20]) == [7]


def test_the_longest_stream_is_the_one_that_lasts_longest_not_the_one_that_ends_last(tmp_path):
    film, later = write(tmp_path / "film.mp4", frames=40, size=(64, 48)), write(tmp_path / "later.mp4", frames=20)
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        film,
        "-itsoffset",
        "60",
        "-i",
        later,
        "-map",
        "0:v",
    ]
    subprocess.run([*command, "-map", "1:v", "-c", "copy", tmp_path / "two.ts"], check=True)
    frames, metadata = load_video(tmp_path / "two.ts", num_frames=100)
    assert (metadata.width, metadata.height) == (64, 48) and len(frames) == 40


def test_white_stands_behind_what_a_video_leaves_transparent(tmp_path):
    path = tmp_path / "transparent.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgba"
        for _ in range(4):
            pixels = np.zeros((32, 32, 4), np.uint8)
            pixels[:8, :, 3] = 255  # black, opaque
            pixels[8:16] = (200, 0, 0, 51)  # a fifth of red
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode())
    frames, _ = load_video(path)
    assert frames[0, :, 0, 0].tolist() == [0, 0, 0] and frames[0, :, 31, 0].tolist() == [255, 255, 255]
    assert frames[0, :, 12, 0].tolist() == [244, 204, 204]  # 200 / 5 + 255 * 4 / 5, and 255 * 4 / 5


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("name", ["x.mp4", "x.webm", "x.gif", "x.avi"])
def test_the_shortest_videos_are_read(tmp_path, name, frames):
    codec, pix_fmt = {
        "x.webm": ("libvpx-vp9", "yuv420p"),
        "x.gif": ("gif", "rgb8"),
        "x.avi": ("mpeg4", "yuv420p"),
    }.get(name, ("libx264", "yuv420p"))
    path = write(tmp_path / name, codec=codec, pix_fmt=pix_fmt, frames=frames, size=(34, 18))
    got, metadata = load_video(path)
    assert torch.equal(got, full_decode(path)[metadata.frames_indices])
    assert len(got) == {1: 1, 2: 2, 3: 2}[frames]
    assert metadata.duration > 0 and metadata.fps > 0


def test_negative_and_late_times_are_read(videos, tmp_path):
    every = full_decode(videos("h264.mp4"))
    for shift in (-5000, 90000):
        for name in ("shifted.mkv", "shifted.mp4", "shifted.ts"):
            path = remux(videos("h264.mp4"), tmp_path / name, shift=shift, options={"avoid_negative_ts": "disabled"})
            reference = full_decode(path)
            frames, metadata = load_video(path, num_frames=6)
            assert torch.equal(frames, reference[metadata.frames_indices])
            assert metadata.total_num_frames == len(reference)
            if shift > 0 and name != "shifted.mp4":
                assert torch.equal(load_video(path, start=0.5, num_frames=1)[0], every[[15]])


@pytest.mark.parametrize("kind", ["h264.mp4", "h264_open_gop.mp4", "hevc_open_gop.mp4"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_stream_cut_out_of_another_is_read(videos, tmp_path, kind, suffix):
    """Begins at the third key frame: frames shown before it need some that are gone; mp4 writes an edit list."""
    with av.open(str(videos(kind))) as container:
        keys = [p.dts for p in container.demux(video=0) if p.size and p.is_keyframe]
    path = remux(videos(kind), tmp_path / f"cut.{suffix}", keep=lambda packet: packet.dts >= keys[2])
    every = full_decode(path)
    frames, metadata = load_video(path, num_frames=len(every))
    assert torch.equal(frames, every)
    frames, metadata = load_video(path, num_frames=4)
    assert torch.equal(frames, every[metadata.frames_indices])


@pytest.mark.parametrize("kind, key", [("h264_open_gop.mp4", 1), ("hevc_open_gop.mp4", 2), ("hevc_leading.mp4", 1)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_clip_of_a_stream_that_begins_with_leading_frames_counts_from_the_first_that_decodes(
    videos, tmp_path, kind, key, suffix
):
    with av.open(str(videos(kind))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        first = [packet for packet in packets if packet.is_keyframe][key]
        assert any(packet.pts < first.pts and packet.dts > first.dts for packet in packets)
    path = remux(videos(kind), tmp_path / f"cut.{suffix}", keep=lambda packet: packet.dts >= first.dts)
    frames, _ = load_video(path, start=0.51, end=0.79, num_frames=100)
    assert torch.equal(frames, full_decode(path)[15:24])  # frame i is on screen during [i, i + 1) / 30


def test_an_edit_list_hides_frames(videos, tmp_path):
    """Presentation from 0.5 s on, as a copy with `-ss` writes: the frames before are decoded, not shown."""
    path = remux(videos("h264.mp4"), tmp_path / "edited.mp4")
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12  # version 0: duration, media time, rate
    duration, media_time = struct.unpack(">Ii", data[entry : entry + 8])
    with av.open(str(path)) as container:
        half = int(Fraction(1, 2) / container.streams.video[0].time_base)
    data[entry : entry + 8] = struct.pack(">Ii", duration - 500, media_time + half)
    path.write_bytes(data)
    every = full_decode(path)
    assert len(every) == 45  # 60 frames at 30 a second, without the first half second
    frames, metadata = load_video(path, num_frames=7)
    assert torch.equal(frames, every[metadata.frames_indices]) and metadata.total_num_frames == 45
    assert torch.equal(load_video(path, num_frames=45)[0], every)


def test_a_fragmented_mp4_is_read(videos, tmp_path):
    path = remux(videos("h264.mp4"), tmp_path / "fragments.mp4", options={"movflags": "frag_keyframe+empty_moov"})
    every = full_decode(path)
    frames, metadata = load_video(path, num_frames=7)
    assert torch.equal(frames, every[metadata.frames_indices]) and metadata.total_num_frames == 60


def test_sound_does_not_disturb_and_its_length_does_not_count(tmp_path):
    for name, sound in (("sound.mp4", "aac"), ("sound.mkv", "aac")):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            pictures = container.add_stream("libx264", rate=30, options=x264(**GOP))
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
            audio = container.add_stream(sound, rate=16000, layout="mono")
            for number in range(30):
                container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture(number, 64, 48), format="rgb24")))
            container.mux(pictures.encode())
            for number in range(60):  # 3.84 s of silence beside 1 s of pictures
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                silence.sample_rate, silence.pts = 16000, number * 1024
                container.mux(audio.encode(silence))
            container.mux(audio.encode())
        frames, metadata = load_video(path, num_frames=5)
        assert torch.equal(frames, full_decode(path)[metadata.frames_indices])
        assert metadata.duration == pytest.approx(1.0, rel=0, abs=1e-3)


# ------------------------------------------------------------------------------------------------------------ failures


def test_a_playlist_does_not_reach_other_places(tmp_path):
    lines = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
    with pytest.raises(VideoError):
        load_video(written(tmp_path / "list.m3u8", lines.encode()))


TRUNCATED = ["h264.mp4", "h264_faststart.mp4", "h264.mkv", "hevc.mp4", "vp9.webm", "mpeg4.avi", "animation.gif"]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_file_is_an_error_that_names_it(videos, tmp_path, name, share):
    whole = videos(name)
    if name == "h264_faststart.mp4":
        whole = remux(whole, tmp_path / "whole.mp4", options={"movflags": "faststart"})
    path = cut(whole, tmp_path / f"cut_{name}", share)
    with pytest.raises(VideoError) as caught:
        load_video(path)
    assert caught.value.path == str(path)
    if share in (0.6, 0.9) and name in ("h264_faststart.mp4", "h264.mkv", "vp9.webm"):
        assert "truncated: it announces" in caught.value.reason


def test_a_file_with_a_hole_is_an_error(videos, tmp_path):
    """An interrupted download of which the space was reserved: the size is right, the data is zero."""
    whole = remux(videos("h264.mp4"), tmp_path / "whole.mp4", options={"movflags": "faststart"})
    data = bytearray(whole.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    with pytest.raises(VideoError):
        load_video(written(tmp_path / "hole.mp4", bytes(data)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["h264.mp4", "vp9.webm", "mpeg4.avi", "animation.gif"]))
def test_a_damaged_file_gives_frames_or_a_video_error(videos, seed, name):
    rng = np.random.default_rng(seed)
    data = np.frombuffer(videos(name).read_bytes(), np.uint8).copy()
    data[rng.integers(0, len(data), 20)] = rng.integers(0, 256, 20)
    try:
        frames, metadata = load_video({"bytes": data.tobytes()}, num_frames=3)
    except VideoError:
        return
    assert frames.dtype == torch.uint8 and len(frames) == len(metadata.frames_indices)


def test_frames_that_change_size_are_an_error(videos, tmp_path):
    small = write(tmp_path / "small.ts", size=(48, 32), frames=10, options=x264(**GOP))
    path = written(tmp_path / "both.ts", videos("h264.ts").read_bytes() + small.read_bytes())
    with pytest.raises(VideoError, match="change size"):
        load_video(path, num_frames=12)


@pytest.mark.parametrize("name", ["clip:1.mp4", "%d.mp4", "with space.mp4", "ümläut.mp4", "no_suffix"])
def test_odd_file_names_are_read(videos, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(videos("h264.mp4"), name)
    assert load_video(name, num_frames=2)[0].shape == (2, 3, 64, 96)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files through /proc")
def test_no_file_stays_open(videos, tmp_path):
    broken = cut(videos("mpeg4.avi"), tmp_path / "broken.avi", 0.5)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(15):
        for name in ("h264.mp4", "mpeg4.avi"):
            load_video(videos(name), num_frames=2)
            with pytest.raises(VideoError):
                load_video(videos(name), start=9)
        with pytest.raises(VideoError):
            load_video(broken)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_threads_load_different_videos_at_once(videos):
    names = ["h264.mp4", "hevc.mp4", "vp9.webm", "mpeg4.avi"]
    expected = {name: load_video(videos(name), num_frames=6)[0] for name in names}
    wrong = []

    def work(name):
        for _ in range(5):
            if not torch.equal(load_video(videos(name), num_frames=6)[0], expected[name]):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in names * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not wrong and not any(thread.is_alive() for thread in threads)
