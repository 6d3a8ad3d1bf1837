"""load_video and load_image: what is taken of each kind of source, and a named reason for what cannot be read."""

import io
import os
import pickle
import re
from types import SimpleNamespace

import av
import numpy as np
import PIL.Image
import pytest
import torch
from files import cut, full_decode, picture, written
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.video import (
    ImageError,
    MediaError,
    VideoError,
    clip_range,
    load_image,
    load_video,
    sample_indices,
)


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


def test_a_folder_of_frames_is_read_at_its_rate_and_only_where_frames_are_taken(tmp_path):
    """18 pictures at 3 a second, of brightness 10 x number; a clip of [2, 5) seconds holds those from 6 to 14."""
    for number in range(18):
        PIL.Image.new("RGB", (8, 8), (10 * number,) * 3).save(tmp_path / f"{number + 1:05}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "00008.png").write_bytes(b"broken, and not among those taken")
    source = {"frames": str(tmp_path), "fps": 3.0, "start": 2.0, "end": 5.0}
    frames, metadata = load_video(source, num_frames=4)
    taken = [round(index * 8 / 3) for index in range(4)]  # the first and the last of nine frames among them
    assert metadata.frames_indices == taken and (metadata.fps, metadata.total_num_frames) == (3.0, 9)
    assert frames[:, 0, 0, 0].tolist() == [10 * (6 + index) for index in taken]


@pytest.mark.parametrize(
    "source, message",
    [
        ({"fps": None}, "a folder of frames needs their rate: fps is None"),
        ({"fps": 3.0, "frames": "nowhere"}, "no such folder"),
        ({"fps": 3.0}, "holds no jpg, png or webp pictures"),
        ({"fps": 3.0, "paths": []}, r"unknown keys \['paths'\]"),
    ],
)
def test_a_folder_of_frames_that_cannot_be_read_is_named(tmp_path, source, message):
    with pytest.raises(VideoError, match=message):
        load_video({"frames": str(tmp_path), **source})


def test_a_clip_behind_a_folder_of_frames_is_an_error(tmp_path):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    with pytest.raises(VideoError, match="lies behind the video's 0.333 s"):
        load_video({"frames": str(tmp_path), "fps": 3, "start": 2.0})


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


def test_errors_can_be_pickled_and_are_value_errors():
    for kind in (MediaError, VideoError, ImageError):
        error = pickle.loads(pickle.dumps(kind("a.mp4", "no such file")))
        assert type(error) is kind and isinstance(error, ValueError)
        assert (error.path, error.reason, str(error)) == ("a.mp4", "no such file", "a.mp4: no such file")


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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64"])
def test_given_arrays_may_be_wider_or_reversed_views(dtype):
    frames = np.arange(4 * 3 * 2 * 2).reshape(4, 3, 2, 2).astype(dtype)
    found, _ = load_video(frames[::-1])
    assert found.dtype == torch.uint8 and found.tolist() == frames[::-1].tolist()


@pytest.mark.parametrize("value", [256, -1])
def test_values_that_uint8_cannot_hold_are_refused(value):
    with pytest.raises(VideoError, match="int64"):
        load_video(np.full((2, 3, 2, 2), value))
