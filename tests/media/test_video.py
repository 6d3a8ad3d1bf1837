"""load_video and load_image: what is taken of each kind of source, and a named reason for what cannot be read."""

import io
import os
import pickle
import re
import zlib
from types import SimpleNamespace

import av
import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from files import cut, full_decode, picture, write, written
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from videor1_trl.media.check import check_media
from videor1_trl.media.errors import ImageError, MediaError, VideoError
from videor1_trl.media.images import load_image
from videor1_trl.media.video import clip_range, load_video, sample_indices


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


# Pictures: what is transparent, 16 bits, odd shapes, and folders of frames


def black_text(mode):
    """Black on a transparent ground, in the upper half; a quarter of red in the lower."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:2, :, 3] = 255
    pixels[4:] = (200, 0, 0, 51)
    image = Image.fromarray(pixels)
    if mode == "LA":
        return image.convert("LA"), 30
    if mode == "P":
        image = image.convert("RGBA")
        image.putalpha(image.getchannel("A").point(lambda a: 255 if a > 100 else 0))
        return image.quantize(8), None
    return image, None


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("form", ["png", "webp", "pil", "list"])
def test_white_stands_behind_what_is_transparent(tmp_path, mode, form):
    image, _ = black_text(mode)
    source = image
    if form in ("png", "webp"):
        source = tmp_path / f"text.{form}"
        image.save(source, **({"lossless": True} if form == "webp" else {}))
    if form == "list":
        frames, _ = load_video([image, image])
        found = frames[0].permute(1, 2, 0).numpy()
    else:
        found = np.asarray(load_image(source))
    assert found[0, 0].tolist() == [0, 0, 0] and found[3, 0].tolist() == [255, 255, 255]
    if mode == "RGBA":
        assert found[6, 0].tolist() == [244, 204, 204]  # 200 / 5 + 255 * 4 / 5, and 255 * 4 / 5


def test_a_transparent_colour_of_a_png_without_alpha_is_white(tmp_path):
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    image.putpixel((0, 0), (0, 0, 0))
    image.save(tmp_path / "t.png", transparency=(1, 2, 3))
    found = np.asarray(load_image(tmp_path / "t.png"))
    assert found[0, 0].tolist() == [0, 0, 0] and found[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", ["png", "tiff", "pil"])
def test_pictures_of_16_bits_are_scaled(tmp_path, form):
    values = np.array([[0, 255, 256, 32768, 65535]] * 3, np.uint16)
    source = Image.fromarray(values)
    if form != "pil":
        source.save(tmp_path / f"deep.{form}")
        source = tmp_path / f"deep.{form}"
    # 255 * value / 65535, rounded: 0, 0.99, 0.996, 127.5, 255
    assert np.asarray(load_image(source))[0, :, 0].tolist() == [0, 1, 1, 128, 255]


def test_pixels_of_an_unknown_range_are_refused():
    for values in (np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32), np.full((4, 4), -1, np.int32)):
        with pytest.raises(ImageError, match="range is not known|only 8 and 16 bits"):
            load_image(Image.fromarray(values))


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("y"), zlib.error("z"), IndexError(), AssertionError("a")]
)
def test_whatever_pillow_raises_is_an_image_error(tmp_path, monkeypatch, error):
    Image.new("RGB", (4, 4)).save(tmp_path / "i.png")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ImageError, match=rf"i\.png: .*{type(error).__name__}"):
        load_image(tmp_path / "i.png")


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n" + bytes(60), b"GIF89a" + bytes(30), b"BM" + b"\xff" * 60, b"\xff\xd8\xff\xe0"]
)
def test_broken_headers_are_image_errors(data):
    with pytest.raises(ImageError):
        load_image({"bytes": data})


def test_sides_that_no_processor_takes_are_named_with_their_file(tmp_path):
    Image.new("RGB", (402, 2)).save(tmp_path / "long.png")
    Image.new("RGB", (400, 2)).save(tmp_path / "allowed.png")
    write(tmp_path / "long.mp4", frames=4, size=(1000, 4), codec="mpeg4")
    with pytest.raises(ImageError, match=r"long\.png: its sides \(402 x 2\) differ by more than 200 times"):
        load_image(tmp_path / "long.png")
    assert load_image(tmp_path / "allowed.png").size == (400, 2)
    with pytest.raises(VideoError, match=r"long\.mp4: its sides \(1000 x 4\)"):
        load_video(tmp_path / "long.mp4")
    rows = [{"image": str(tmp_path / "long.png"), "video": None}, {"image": None, "video": str(tmp_path / "long.mp4")}]
    _, report = check_media(datasets.Dataset.from_list(rows))
    assert report.rows == [0, 1] and all("200 times" in reason for reason in report.unreadable.values())


def folder_of(tmp_path, names):
    for place, name in enumerate(names):
        Image.new("RGB", (8, 8), (place * 10, 0, 0)).save(tmp_path / name)
    return {"frames": str(tmp_path), "fps": 2}


def reds(source):
    return load_video(source, num_frames=100)[0][:, 0, 0, 0].tolist()


def test_frames_of_a_folder_come_by_their_numbers_and_nothing_else_does(tmp_path):
    names = [f"frame_{number}.png" for number in (2, 10, 1, 9, 100)]
    source = folder_of(tmp_path, [*names, "cover.png", "._frame_3.png", ".hidden_4.png"])
    assert reds(source) == [20, 0, 30, 10, 40]


@pytest.mark.parametrize(
    "names",
    [
        ["img_0001_1280x720.png", "img_0002_1280x720.png", "img_0010_1280x720.png"],
        ["t=0.5s.png", "t=1.0s.png", "t=9.5s.png", "t=10.0s.png"],
        ["1.5.png", "2.0.png", "2.5.png", "10.5.png"],
        ["2024-01-01_12-00-01.png", "2024-01-01_12-00-02.png", "2024-01-01_12-01-01.png"],
        ["frame1.PNG", "Frame2.png", "frame10.png"],
        ["0.png", "1.png", "2.png"],
    ],
)
def test_all_numbers_of_a_name_order_the_frames(tmp_path, names):
    source = folder_of(tmp_path, names)
    Image.new("RGB", (8, 8)).save(tmp_path / "cover.png")
    assert reds(source) == [place * 10 for place in range(len(names))]
    dataset = datasets.Dataset.from_list([{"video": source}])
    assert check_media(dataset)[1].ok and check_media(dataset, decode="sampled_frames")[1].ok
    (tmp_path / names[0]).write_bytes(b"no picture")
    assert not check_media(dataset)[1].ok


def test_a_picture_made_of_another_keeps_its_black(tmp_path):
    """Pillow leaves the transparent colour of a palette in the `info` of what it is converted to."""
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 0, 0, 0, 255, 0, 0] + [9] * 9)
    image.putdata([0, 1, 2])
    image.save(tmp_path / "p.gif", transparency=0)
    assert np.asarray(load_image(tmp_path / "p.gif"))[0].tolist() == [[255, 255, 255], [0, 0, 0], [255, 0, 0]]
    made = Image.open(tmp_path / "p.gif").convert("RGB")
    assert np.asarray(load_image(made))[0].tolist() == [[0, 0, 0], [0, 0, 0], [255, 0, 0]]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_of_a_tiff_is_turned_upright(tmp_path, mode, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (16, 32, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "o.tif", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO((tmp_path / "o.tif").read_bytes()))).convert("RGB")
    assert np.array_equal(np.asarray(load_image(tmp_path / "o.tif")), np.asarray(expected))


def test_a_folder_without_numbers_is_read_by_name(tmp_path):
    assert reds(folder_of(tmp_path, ["b.png", "a.png", "c1.png"])) == [10, 0, 20]


def test_a_folder_of_two_series_or_of_one_number_twice_is_refused(tmp_path):
    (tmp_path / "two").mkdir()
    with pytest.raises(VideoError, match="holds several series of frames, such as left_1.png and right_1.png"):
        load_video(
            folder_of(tmp_path / "two", ["left_1.png", "left_2.png", "left_3.png", "right_1.png", "right_2.png"])
        )
    (tmp_path / "twice").mkdir()
    with pytest.raises(VideoError, match="two frames have one number: f01.png and f1.png"):
        load_video(folder_of(tmp_path / "twice", ["f1.png", "f01.png", "f2.png"]))
