"""load_video and load_image: the frames of a full decode, and a named reason for everything that cannot be read."""

import io
import os
import pickle
import re
import shutil
import struct
import threading
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import videor1_trl.video as video
from videor1_trl.video import (
    ImageError,
    MediaError,
    VideoError,
    clip_range,
    load_image,
    load_video,
    sample_indices,
)


# ------------------------------------------------------------------------------------------------------------- makers


def picture(number, width, height):
    """A frame that differs from every other: a texture that moves, and the number's bits as blocks."""
    x, y = np.arange(width), np.arange(height)[:, None]
    image = np.stack([(x * 3 + y + 7 * number) % 256, (x + y * 2 - 5 * number) % 256, (x * y // 4 + number) % 256], -1)
    for bit in range(8):
        image[:8, bit * 6 : bit * 6 + 6] = 255 * (number >> bit & 1)
    return image.astype(np.uint8)


def write(path, codec="libx264", frames=60, size=(96, 64), rate=30, pix_fmt="yuv420p", options=None, times=None):
    """A short video; `times` are the frames' presentation times in units of 1 / 1000 s for a variable rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(source, path, keep=lambda packet: True, shift=0, options=None):
    """The packets of `source` that `keep` accepts, times shifted by `shift` units, in another container."""
    with av.open(str(source)) as old, av.open(str(path), "w", options=options or {}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size and keep(packet):
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = stream
                new.mux(packet)
    return path


def full_decode(path):
    """The oracle: every frame that a plain PyAV decode gives, RGB uint8 (N, 3, H, W), upright."""
    with av.open(str(path)) as container:
        frames = [np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def x264(**parameters):
    return {"preset": "veryfast", "x264-params": ":".join(f"{k}={v}" for k, v in parameters.items())}


def x265(parameters):
    return {"preset": "ultrafast", "x265-params": f"log-level=none:pools=none:frame-threads=1:{parameters}"}


GOP = {"keyint": 12, "min-keyint": 12, "scenecut": 0, "bframes": 3, "b-pyramid": "normal"}
KINDS = {
    "h264.mp4": dict(options=x264(**GOP)),
    "h264_one_key.mp4": dict(options=x264(keyint=250)),
    "h264_open_gop.mp4": dict(options=x264(**GOP | {"open-gop": 1})),
    "h264_intra_refresh.mp4": dict(options=x264(**GOP | {"intra-refresh": 1, "bframes": 0})),
    "h264_faststart.mp4": dict(options=x264(**GOP)),
    "h264.mkv": dict(options=x264(**GOP)),
    "h264.ts": dict(options=x264(**GOP)),
    "h264.avi": dict(options=x264(**GOP | {"bframes": 0})),
    "h264_10_bit.mp4": dict(options=x264(**GOP), pix_fmt="yuv420p10le"),
    "h264_444.mp4": dict(options=x264(**GOP), pix_fmt="yuv444p", size=(97, 63)),
    "h264_rate.mp4": dict(options=x264(**GOP), rate=Fraction(30000, 1001)),
    "hevc.mp4": dict(codec="libx265", options=x265("keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=0")),
    "hevc_open_gop.mp4": dict(
        codec="libx265", options=x265("keyint=12:min-keyint=12:scenecut=0:bframes=3:open-gop=1")
    ),
    "hevc_layers.mkv": dict(codec="libx265", options=x265("keyint=12:min-keyint=12:temporal-layers=3:bframes=3")),
    "vp9.webm": dict(codec="libvpx-vp9", options={"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "vp9_altref.webm": dict(
        codec="libvpx-vp9", options={"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"}
    ),
    "vp8.webm": dict(codec="libvpx", options={"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"}),
    "av1.mp4": dict(codec="libsvtav1", frames=30, options={"preset": "12", "g": "12", "svtav1-params": "lp=1"}),
    "mpeg4.avi": dict(codec="mpeg4", options={"g": "12"}),
    "mpeg4_bframes.avi": dict(codec="mpeg4", options={"g": "12", "bf": "2"}),
    "mpeg4.mp4": dict(codec="mpeg4", options={"g": "12", "bf": "2"}),
    "mjpeg.mov": dict(codec="mjpeg", pix_fmt="yuvj420p"),
    "animation.gif": dict(codec="gif", pix_fmt="rgb8", rate=10, frames=30),
}


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Makes each kind of video once: `videos("h264.mp4")` is its path."""
    folder, made = tmp_path_factory.mktemp("media"), {}

    def make(name):
        if name not in made:
            made[name] = write(folder / name, **KINDS[name])
        return made[name]

    return make


@pytest.fixture
def decodes(monkeypatch):
    """`.straight`: how often everything was decoded, in the loads that follow."""
    calls = SimpleNamespace(straight=0)
    original = video._decode_all

    def counted(*args):
        calls.straight += 1
        return original(*args)

    monkeypatch.setattr(video, "_decode_all", counted)
    return calls


# ----------------------------------------------------------------------------------------------------------- sampling


@given(
    total=st.integers(1, 5000),
    rate=st.floats(0.5, 120),
    fps=st.floats(0.1, 60),
    low=st.integers(1, 40),
    extra=st.integers(1, 40),
)
def test_sampling_by_fps_is_even_in_order_and_reaches_both_ends(total, rate, fps, low, extra):
    high = low + extra
    indices = sample_indices(total, rate, fps=fps, min_frames=low, max_frames=high)
    assert indices == sorted(set(indices)) and indices[0] == 0
    if total == 1:
        assert indices == [0]
        return
    assert indices[-1] == total - 1
    assert len(indices) % 2 == 0
    assert len(indices) <= high
    assert len(indices) >= min(low, total // 2 * 2)


@given(total=st.integers(1, 5000), num_frames=st.integers(1, 200))
def test_an_explicit_number_is_kept_wherever_there_are_so_many_frames(total, num_frames):
    indices = sample_indices(total, 30.0, num_frames=num_frames)
    assert len(indices) == len(set(indices)) == min(num_frames, total)
    assert indices == sorted(indices) and indices[0] == 0
    assert num_frames == 1 or indices[-1] == total - 1


def test_sampling_takes_two_frames_a_second_between_four_and_sixteen():
    # 1 s -> 2, raised to 4; 3 s -> 6; 3.6 s -> 7.2, down to 6; 8 s -> 16; 60 s -> 120, lowered to 16
    assert [len(sample_indices(n, 30.0)) for n in (30, 90, 108, 240, 1800)] == [4, 6, 6, 16, 16]
    # round(i * 299 / 3) for i = 0..3
    assert sample_indices(300, 30.0, num_frames=4) == [0, 100, 199, 299]
    assert len(sample_indices(150, 30.002)) == 10  # 9.9993 frames: rounded time stamps do not cost two frames
    assert sample_indices(3, 30.0) == [0, 2] and sample_indices(3, 30.0, num_frames=3) == [0, 1, 2]


@pytest.mark.parametrize(
    "arguments, named",
    [
        (dict(fps=0), "fps (0)"),
        (dict(fps=float("nan")), "fps (nan)"),
        (dict(num_frames=0), "num_frames (0)"),
        (dict(min_frames=8, max_frames=4), "min_frames (8) and max_frames (4)"),
        (dict(min_frames=5, max_frames=5), "min_frames (5) and max_frames (5)"),
        (dict(min_frames=0, max_frames=1), "min_frames (0) and max_frames (1)"),
    ],
)
def test_impossible_sampling_is_refused_before_the_video_is_opened(arguments, named):
    with pytest.raises(ValueError, match=re.escape(named)) as caught:
        load_video("/nowhere.mp4", **arguments)
    assert not isinstance(caught.value, VideoError)


@given(gaps=st.lists(st.floats(0.01, 2), min_size=1, max_size=40), start=st.floats(0, 20), length=st.floats(0.001, 20))
def test_a_clip_holds_the_frames_on_screen_during_it(gaps, start, length):
    times = np.cumsum([0.0, *gaps]).tolist()
    rate = (len(times) - 1) / times[-1]
    duration = times[-1] + 1 / rate
    if start >= duration - 1e-3:
        return
    end = min(start + length, duration)
    first, stop = clip_range(times, rate, start, end)
    for number, shown in enumerate(times):
        gone = times[number + 1] if number + 1 < len(times) else duration
        if shown < end - 1e-5 and gone > start + 1e-5:
            assert first <= number < stop
        elif shown > end + 1e-5 or gone < start - 1e-5:
            assert not first <= number < stop


# ---------------------------------------------------------------------------------------- the frames of a full decode


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


@pytest.mark.parametrize(
    "name", ["h264.mp4", "h264_open_gop.mp4", "hevc.mp4", "h264.mkv", "hevc_open_gop.mp4", "vp9.webm", "av1.mp4"]
)
def test_it_seeks_where_that_is_exact(videos, name, decodes, monkeypatch):
    monkeypatch.setattr(video, "SEEK_COST_FRAMES", 0)
    for number in range(5):
        load_video(videos(name), num_frames=2 + number)
        load_video(videos(name), start=0.8, end=0.9)
    assert decodes.straight == 0


@pytest.mark.parametrize("name", KINDS)
def test_seeking_as_often_as_possible_gives_the_same_frames(videos, name, monkeypatch):
    monkeypatch.setattr(video, "SEEK_COST_FRAMES", -1000)
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
    real = video._read_index

    def misleading(*args):
        index = real(*args)
        index.positions.pop(index.times.pop(30))  # as if the packets had numbered the frames wrongly
        return index

    monkeypatch.setattr(video, "_read_index", misleading)
    frames, metadata = load_video(videos("h264.mp4"), num_frames=5)
    assert decodes.straight == 2
    assert torch.equal(frames, every[metadata.frames_indices])


def test_only_the_sampled_frames_of_a_long_video_are_turned_into_pixels(tmp_path, monkeypatch):
    path = write(tmp_path / "long.mp4", frames=600, size=(32, 32), options=x264(**GOP))
    decoded = []
    original = video._pixels
    monkeypatch.setattr(video, "_pixels", lambda frame: decoded.append(frame.pts) or original(frame))
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


# ----------------------------------------------------------------------------------------------------------- metadata


def test_metadata_of_a_clip_counts_from_its_start(videos):
    _, metadata = load_video(videos("h264.mp4"), start=0.5, end=1.5)
    assert (metadata.total_num_frames, metadata.fps, metadata.duration) == (30, 30.0, 1.0)
    assert metadata.frames_indices == [0, 10, 19, 29]
    assert metadata.timestamps == [0.0, 10 / 30, 19 / 30, 29 / 30]
    # what Qwen2.5-VL makes its seconds per temporal patch of: 4 frames in 1 s
    assert metadata.sampled_fps == pytest.approx(4.0, rel=0, abs=1e-9)


def test_frame_rates_are_exact(videos):
    assert load_video(videos("h264.mp4"))[1].fps == 30.0
    assert load_video(videos("h264_rate.mp4"))[1].fps == 30000 / 1001
    assert load_video(videos("animation.gif"))[1].fps == 10.0


# ------------------------------------------------------------------------------------------------------ other sources


def test_paths_dicts_and_bytes_give_the_same_frames(videos):
    path = videos("h264.mp4")
    frames, metadata = load_video(path)
    for source in (str(path), {"path": str(path)}, {"path": path, "bytes": None}, {"bytes": path.read_bytes()}):
        got, also = load_video(source)
        assert torch.equal(got, frames) and also == metadata
    got, also = load_video({"path": "gone.mp4", "bytes": path.read_bytes()}, num_frames=2)  # bytes come first
    assert len(got) == 2


def test_start_and_end_of_a_dict_hold_unless_given_as_arguments(videos):
    path = str(videos("h264.mp4"))
    expected, metadata = load_video(path, start=0.5, end=1.0)
    got, also = load_video({"path": path, "start": 0.5, "end": 1.0})
    assert torch.equal(got, expected) and also == metadata
    assert load_video({"path": path, "start": 0.5, "end": 1.0}, end=1.5)[1].total_num_frames == 30
    assert load_video({"path": path, "start": None, "end": None})[1].total_num_frames == 60


def test_given_frames_are_taken_as_they_are(tmp_path):
    array = np.stack([picture(i, 20, 16) for i in range(5)])  # (T, H, W, 3)
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    images = [PIL.Image.fromarray(frame) for frame in array]
    paths = []
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
        paths.append(str(tmp_path / f"{number}.png"))
    for source in (tensor, tensor.numpy(), images, paths, tuple(images), [*paths[:2], *images[2:]]):
        frames, metadata = load_video(source, fps=4.0)
        assert torch.equal(frames, tensor)
        assert (metadata.fps, metadata.total_num_frames, metadata.duration) == (4.0, 5, 1.25)
        assert metadata.frames_indices == [0, 1, 2, 3, 4]
        frames, metadata = load_video(source, num_frames=3)
        assert torch.equal(frames, tensor[[0, 2, 4]]) and metadata.frames_indices == [0, 2, 4]


class Decoder:
    """What this package uses of torchcodec's VideoDecoder."""

    def __init__(self, frames, nhwc=False, fails=False, **changes):
        self.frames, self.nhwc, self.fails = frames, nhwc, fails
        self.metadata = SimpleNamespace(**dict(num_frames=len(frames), average_fps=30.0, path="v.mp4") | changes)

    def get_frames_at(self, indices):
        if self.fails:
            raise RuntimeError("Could not push packet to decoder")
        data = self.frames[indices]
        return SimpleNamespace(data=data.permute(0, 2, 3, 1) if self.nhwc else data)


def test_a_torchcodec_decoder_is_asked_for_the_sampled_frames(videos):
    every = full_decode(videos("h264.mp4"))
    for nhwc in (False, True):
        frames, metadata = load_video(Decoder(every, nhwc))
        expected, same = load_video(videos("h264.mp4"))
        assert torch.equal(frames, expected)
        same.video_backend = "torchcodec"
        assert metadata == same
        assert torch.equal(
            load_video(Decoder(every, nhwc), start=0.5, end=1.0)[0],
            load_video(videos("h264.mp4"), start=0.5, end=1.0)[0],
        )


# ------------------------------------------------------------------------------------------------------------ failures


def cut(path, to, share):
    to.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return to


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path


def no_stream(path):
    """An mp4 of which the only track is hidden."""
    return written(audio_only(path), path.read_bytes().replace(b"trak", b"free"))


def written(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda folder: folder / "gone.mp4", "no such file"),
        (lambda folder: folder, "a directory"),
        (lambda folder: written(folder / "empty.mp4", b""), "cannot be read"),
        (lambda folder: written(folder / "text.mp4", b"not a video\n" * 100), "cannot be read"),
        (lambda folder: audio_only(folder / "sound.mp4"), "no video stream (it holds: audio)"),
        (lambda folder: no_stream(folder / "none.mp4"), "no video stream (it holds: nothing)"),
        (lambda folder: f"{folder}/nul\0.mp4", "no such file"),
        (lambda folder: "https://example.com/x.mp4", "a URL"),
        (lambda folder: {"path": None, "bytes": None}, "has neither path nor bytes"),
        (lambda folder: {"video": "x.mp4"}, "unknown keys ['video']"),
        (lambda folder: {"path": 3}, "neither a str nor a pathlib.Path"),
        (lambda folder: {"bytes": "text"}, "bytes is of type str"),
        (lambda folder: {"bytes": b""}, "cannot be read"),
        (lambda folder: {"bytes": b"\x00" * 1000}, "cannot be read"),
        (lambda folder: None, "not a video"),
        (lambda folder: [], "not a video"),
        (lambda folder: 7, "not a video"),
        (lambda folder: ["gone.png"], "a frame of the video: no such file"),
        (lambda folder: [PIL.Image.new("RGB", (4, 4)), PIL.Image.new("RGB", (4, 6))], "frames of different sizes"),
        (lambda folder: [np.zeros((4, 4, 3), np.uint8)], "a frame of the video: not an image"),
        (lambda folder: torch.zeros(2, 3, 4, 4), "frames must be uint8 of shape (T, 3, H, W), found torch.float32"),
        (lambda folder: torch.zeros(2, 4, 4, 3, dtype=torch.uint8), "of shape (2, 4, 4, 3)"),
        (lambda folder: torch.zeros(0, 3, 4, 4, dtype=torch.uint8), "of shape (0, 3, 4, 4)"),
        (lambda folder: np.zeros((2, 3, 4, 4)), "not a video (float64)"),
        (lambda folder: Decoder(torch.zeros(9, 3, 4, 4), fails=True), "Could not push packet"),
        (lambda folder: Decoder(torch.zeros(9, 3, 4, 4), average_fps=None), "average_fps None"),
    ],
)
def test_what_is_no_video_is_an_error_with_its_reason(tmp_path, make, reason):
    source = make(tmp_path)
    with pytest.raises(VideoError, match=re.escape(reason)) as caught:
        load_video(source)
    assert reason in caught.value.reason and str(caught.value) == f"{caught.value.path}: {caught.value.reason}"
    if isinstance(source, os.PathLike):
        assert caught.value.path == str(source)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="not a regular file"):
        load_video(tmp_path / "pipe.mp4")


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


@pytest.mark.parametrize(
    "start, end, reason",
    [
        (-1, None, "start (-1) and end (None)"),
        (1.0, 1.0, "start (1.0) and end (1.0)"),
        (float("nan"), None, "start (nan)"),
        (2.5, None, "lies behind the video's 2.000 s"),
        (None, 3.5, "lies behind the video's 2.000 s"),
    ],
)
@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi"])
def test_a_clip_that_does_not_exist_is_an_error(videos, name, start, end, reason):
    with pytest.raises(VideoError, match=re.escape(reason)):
        load_video(videos(name), start=start, end=end)


def test_the_rounded_end_of_a_clip_may_lie_a_little_behind_the_video(videos):
    assert load_video(videos("h264.mp4"), start=1.0, end=2.5)[1].total_num_frames == 30


def test_given_frames_cannot_be_cut_by_time():
    with pytest.raises(VideoError, match="frames have no times"):
        load_video(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), start=1.0)


def test_frames_that_change_size_are_an_error(videos, tmp_path):
    small = write(tmp_path / "small.ts", size=(48, 32), frames=10, options=x264(**GOP))
    path = written(tmp_path / "both.ts", videos("h264.ts").read_bytes() + small.read_bytes())
    with pytest.raises(VideoError, match="change size"):
        load_video(path, num_frames=12)


def test_errors_can_be_pickled_and_are_value_errors():
    for kind in (MediaError, VideoError, ImageError):
        error = pickle.loads(pickle.dumps(kind("a.mp4", "no such file")))
        assert type(error) is kind and isinstance(error, ValueError)
        assert (error.path, error.reason, str(error)) == ("a.mp4", "no such file", "a.mp4: no such file")


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


# -------------------------------------------------------------------------------------------------------------- images


def test_images_come_from_paths_bytes_dicts_and_pil_as_rgb(tmp_path):
    image = PIL.Image.fromarray(picture(3, 24, 16))
    image.save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    for source in (str(tmp_path / "x.png"), tmp_path / "x.png", image, {"bytes": data}, {"path": tmp_path / "x.png"}):
        got = load_image(source)
        assert got.mode == "RGB" and np.array_equal(np.asarray(got), np.asarray(image))
    for mode in ("L", "RGBA", "P", "1", "CMYK"):
        assert load_image(image.convert(mode)).mode == "RGB"


def test_an_image_is_turned_upright():
    image = PIL.Image.fromarray(picture(3, 24, 16))
    exif, buffer = PIL.Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(buffer, "PNG", exif=exif)
    got = load_image({"bytes": buffer.getvalue()})
    assert np.array_equal(np.asarray(got), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda folder: folder / "gone.png", "no such file"),
        (lambda folder: folder, "a directory"),
        (lambda folder: written(folder / "empty.png", b""), "cannot be read"),
        (lambda folder: written(folder / "text.png", b"text"), "cannot be read"),
        (lambda folder: None, "not an image"),
        (lambda folder: {"path": None}, "has neither path nor bytes"),
    ],
)
def test_what_is_no_image_is_an_error_with_its_reason(tmp_path, make, reason):
    with pytest.raises(ImageError, match=re.escape(reason)):
        load_image(make(tmp_path))


def test_a_truncated_image_is_an_error(tmp_path):
    image = PIL.Image.fromarray(picture(3, 240, 160))
    for suffix in ("png", "jpg", "gif", "webp"):
        image.save(tmp_path / f"whole.{suffix}")
        with pytest.raises(ImageError, match="cannot be read"):
            load_image(cut(tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}", 0.5))
