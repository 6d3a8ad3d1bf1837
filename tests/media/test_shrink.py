"""Frames that are resized one by one as they are decoded: the same pixels to the last bit, and never all of them at full size."""

import pickle

import numpy as np
import pytest
import torch
from files import picture, write
from helpers import CountingLoader, loader, row
from PIL import Image

from videor1_trl.contrast import flip_frames, get_contrast_by_column, get_shuffle_clips, reverse_frames, shuffle_frames
from videor1_trl.generation.encoding import EncodesRequests
from videor1_trl.generation.requests import GenerationRequest, GenerationSettings
from videor1_trl.media import decode
from videor1_trl.media.errors import VideoError
from videor1_trl.media.limits import Limits
from videor1_trl.media.video import load_video
from videor1_trl.models.shrinking import ProcessorShrink


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two videos of 320 x 180 and 200 x 244, of 20 and 7 frames."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        write(folder / "wide.avi", codec="mpeg4", size=(320, 180), frames=20),
        write(folder / "high.mp4", codec="libx264", size=(200, 244), frames=7),
    ]


def pixels(model, rows, **settings):
    """What the model sees of rows, and at what size their videos were held."""
    made = loader(model, encode_settings={"video_max_pixels": 64 * 64}, **settings)
    stores = [made._videos, made._whole_videos]
    held = []
    for store in stores:
        read = store._read
        store._read = lambda source, read=read: held.append(read(source)) or held[-1]
    found = made.load(rows, 0, 2, 1, step=3)
    return (
        [each.encoded.features for each in found],
        [each.contrast and each.contrast.features for each in found],
        held,
    )


def assert_equal(one, other):
    for mine, theirs in zip(one, other, strict=True):
        assert (mine is None) == (theirs is None)
        for name in mine or {}:
            assert torch.equal(mine[name], theirs[name]), name


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("contrast", [shuffle_frames, reverse_frames, get_shuffle_clips(2), None])
def test_the_model_sees_the_same_to_the_last_bit(family, contrast, models, clips):
    rows = [row(str(number), video=str(clip)) for number, clip in enumerate(clips) for _ in range(2)]
    ordered, shuffled, held = pixels(models(family), rows, contrast=contrast)
    whole, whole_shuffled, large = pixels(models(family), rows, contrast=contrast, load_video=CountingLoader())
    assert_equal(ordered, whole)
    assert_equal(shuffled, whole_shuffled)
    assert all(frames.shape[2] * frames.shape[3] <= 64 * 64 for frames, _ in held)
    assert {tuple(frames.shape[2:]) for frames, _ in large} == {(180, 320), (244, 200)}
    assert [(metadata.width, metadata.height) for _, metadata in held] == [tuple(f.shape[:1:-1]) for f, _ in held]


def test_videos_of_one_prompt_that_share_a_budget_are_not_shrunk_apart(models, clips):
    """Qwen3-VL counts the pixels of a whole video; the shortest of a prompt sets the budget of all."""
    rows = [row("both?", videos=[str(clip) for clip in clips]) for _ in range(2)] + [row(video=str(clips[0]))] * 2
    for family, sizes in (("qwen3_vl", {(180, 320), (244, 200)}), ("qwen2_5_vl", set())):
        ordered, _, held = pixels(models(family), rows)
        assert_equal(ordered, pixels(models(family), rows, load_video=CountingLoader())[0])
        assert {tuple(f.shape[2:]) for f, _ in held} >= sizes and min(f.shape[2] for f, _ in held) < 64


@pytest.mark.parametrize("frames", [[1, 2], [2, 2], [16, 4]])
@pytest.mark.parametrize("size", [(1, 190), (31, 33), (64, 64), (500, 40), (1080, 1920), (27, 27)])
def test_a_size_is_settled_smaller_or_none(size, frames, models):
    for family in ("qwen2_5_vl", "qwen3_vl"):
        made = ProcessorShrink.of(models(family).processor, 64 * 64, None)
        found = made.size(frames[0], *size)
        assert found is None or (found[0] * found[1] < size[0] * size[1] and made.size(frames[0], *found) is None)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_frames_one_by_one_are_those_of_the_processors_own_method(family, models):
    processor = models(family).processor.video_processor
    made = pickle.loads(pickle.dumps(ProcessorShrink.of(models(family).processor, 64 * 64, None)))
    frames = np.stack([picture(number, 333, 211) for number in range(6)])
    size = made.size(6, 211, 333)
    videos = torch.from_numpy(frames).permute(0, 3, 1, 2)[None]
    for stacked in (videos, videos.contiguous()):
        whole = processor.resize(stacked, **made._arguments(6))[0]
        ours = np.stack([made.resize(each, size) for each in frames])
        assert np.array_equal(ours.transpose(0, 3, 1, 2), whole.numpy())


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("contrast", [None, shuffle_frames, flip_frames])
def test_evaluation_sees_the_same_to_the_last_bit(family, contrast, models, clips, monkeypatch):
    settings = GenerationSettings(video_max_pixels=64 * 64)
    paths, held, found = list(map(str, clips)), [], []
    asked = [
        GenerationRequest(str(number), row("?")["prompt"], [path], [], contrast, 3)
        for number, path in enumerate(paths)
    ]
    for requests in (asked, [*asked, GenerationRequest("both", row("?")["prompt"], paths, [])]):
        for video_loader in (load_video, CountingLoader()):
            made = EncodesRequests()
            made.processor, made.settings, made.video_loader = models(family).processor, settings, video_loader
            made.chat_template_kwargs = None
            with monkeypatch.context() as patch:
                patch.setattr(
                    "videor1_trl.data.placing.checked_video", lambda video, source: held.append(video[0]) or video
                )
                found.append([encoded.features for _, encoded in made._encode_window(requests)])
            size = max(each.shape[2] for each in held)
            shrinks = video_loader is load_video and contrast is not flip_frames
            assert (size < 64) == (shrinks and (family == "qwen2_5_vl" or requests is asked))
            held.clear()
        assert_equal(*found)
        found.clear()


def test_what_would_change_the_pixels_is_not_shrunk(models, clips):
    made = loader(models(), contrast=flip_frames)
    assert made._shrink is None  # mirrored and resized is not resized and mirrored
    assert loader(models(), contrast=lambda frames, generator: frames)._shrink is None
    mixed = get_contrast_by_column("about", {"space": flip_frames, "time": reverse_frames})
    assert loader(models(), contrast=mixed)._shrink is None
    assert loader(models(), contrast=get_contrast_by_column("about", {"time": reverse_frames}))._shrink is not None
    assert loader(models(), load_video=CountingLoader())._shrink is None  # a loader of one's own gives what it gives
    assert loader(models("smolvlm"))._shrink is None

    def own(frames, generator):
        return frames.flip(0)

    own.picks_frames = True
    assert loader(models(), contrast=own)._shrink is not None


def test_no_more_than_a_frame_is_held_at_full_size(models, clips, monkeypatch):
    """And the bound on the bytes of a video counts what is held."""
    shrink, sizes = ProcessorShrink.of(models().processor, 64 * 64, None), []
    add = decode.Frames.add

    def noted(self, picture):
        add(self, picture)
        sizes.append((picture.nbytes, self._stack.nbytes))

    monkeypatch.setattr(decode.Frames, "add", noted)
    for source in (clips[0], [Image.fromarray(picture(number, 320, 180)) for number in range(12)]):
        sizes.clear()
        frames, _ = load_video(source, shrink=shrink, limits=Limits(frames_bytes=12 * 64 * 64 * 3))
        assert {each for each, _ in sizes} == {320 * 180 * 3}
        assert {held for _, held in sizes} == {frames.untyped_storage().nbytes()} and frames[0].numel() <= 64 * 64 * 3
    with pytest.raises(VideoError, match="12 frames of 320 x 180"):
        load_video([picture_of(number) for number in range(12)], limits=Limits(frames_bytes=12 * 64 * 64 * 3))


def picture_of(number, size=(320, 180)):
    return Image.fromarray(picture(number, *size))


def test_errors_are_those_of_full_size(models):
    shrink = ProcessorShrink.of(models().processor, 64 * 64, None)
    with pytest.raises(VideoError, match=r"frames of different sizes .* \[\(320, 180\), \(322, 180\)\]"):
        load_video([picture_of(0), picture_of(1, (322, 180))], shrink=shrink)
    with pytest.raises(VideoError, match="differ by more than 200 times"):
        load_video([Image.new("RGB", (1000, 2))] * 2, shrink=shrink)


@pytest.mark.slow  # starts a process
def test_it_is_the_same_in_a_process_of_its_own(models, clips):
    shrink = ProcessorShrink.of(models().processor, 64 * 64, None)
    here, there = (load_video(clips[0], shrink=shrink, isolation=where) for where in ("thread", "process"))
    assert torch.equal(here[0], there[0]) and here[1] == there[1] and here[0].shape[2] < 180
