"""Reading of video files: the frames of a full decode, however they are reached, and an error for broken files."""

import os
import shutil
import struct
import threading
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from files import GOP, KINDS, cut, full_decode, picture, remux, write, written, x264
from hypothesis import given, settings
from hypothesis import strategies as st

import videor1_trl.decode as decode
from videor1_trl.video import VideoError, load_video, sample_indices


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


def test_packets_that_number_the_frames_wrongly_are_noticed(videos, monkeypatch, decodes):
    every = full_decode(videos("h264.mp4"))
    real = decode._read_index

    def misleading(*args):
        index = real(*args)
        index.positions.pop(index.times.pop(30))  # as if the packets had numbered the frames wrongly
        return index

    monkeypatch.setattr(decode, "_read_index", misleading)
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
        index = decode._read_index(container, stream, str(path))
        demuxer = Demuxer(container, **{fault: index.times[at] for fault, at in faults.items()})
        [pixels] = decode._decode_seeking(demuxer, stream, index, [index.times[number]])
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


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
    original = decode._pixels
    monkeypatch.setattr(decode, "_pixels", lambda frame: decoded.append(frame.pts) or original(frame))
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
    """Writes the matrix of a clockwise turn into the track header (ISO 14496-12, 8.3.2) of an mp4."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    a, b = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data[matrix : matrix + 36] = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


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
