"""Pictures out of a model's inputs: the very frames where nothing is resized, the processor's own resizing elsewhere."""

import re

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers.image_utils import SizeDict
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from videor1_trl import load_video
from videor1_trl.models.encoding import EncodedPrompt, encode_prompt
from videor1_trl.models.seen import seen_media


def encoded(processor, videos, images, **budgets):
    content = [{"type": "video"}] * len(videos) + [{"type": "image"}] * len(images) + [{"type": "text", "text": "?"}]
    return encode_prompt(processor, [{"role": "user", "content": content}], videos, images, **budgets)


def noise(count, height, width, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    return load_video(torch.from_numpy(values))


@pytest.mark.parametrize("family, side", [("qwen2_5_vl", 56), ("qwen3_vl", 56), ("smolvlm", 32)])
@pytest.mark.parametrize("count", [4, 5])  # of an odd number of frames some families repeat the last
def test_frames_of_the_right_size_come_back_pixel_by_pixel(family, side, count, models):
    processor = models(family).processor
    frames, metadata = noise(count, side, side)
    [seen] = seen_media(processor, encoded(processor, [(frames, metadata)], []))
    assert seen.dtype == torch.uint8 and torch.equal(seen[:count], frames)
    assert len(seen) == (6 if count == 5 and family != "smolvlm" else count)


@pytest.mark.parametrize("family, side", [("qwen2_5_vl", 56), ("qwen3_vl", 56), ("smolvlm", 32)])
def test_images_of_the_right_size_come_back_pixel_by_pixel(family, side, models):
    processor = models(family).processor
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    [seen] = seen_media(processor, encoded(processor, [], [Image.fromarray(pixels)]))
    assert np.array_equal(seen[0].permute(1, 2, 0).numpy(), pixels)


def test_resized_frames_are_those_of_the_processors_resize(models):
    processor = models().processor
    frames, metadata = noise(4, 90, 160)
    [seen] = seen_media(processor, encoded(processor, [(frames, metadata)], [], video_max_pixels=28 * 28 * 6))
    size = smart_resize(90, 160, factor=28, min_pixels=28 * 28, max_pixels=28 * 28 * 6)
    part = processor.video_processor
    expected = super(type(part), part).resize(frames, SizeDict(height=size[0], width=size[1]), resample=part.resample)
    assert torch.equal(seen, expected) and seen.shape[-2:] == size


def test_several_videos_and_images_come_in_the_order_of_the_prompt(models):
    processor = models().processor
    videos = [noise(4, 56, 56, seed=1), noise(6, 28, 84, seed=2)]
    images = [Image.fromarray(tiny.colour_frames(seed, 1)[0]) for seed in (1, 2)]
    seen = seen_media(processor, encoded(processor, videos, images))
    assert [tuple(each.shape) for each in seen] == [(4, 3, 56, 56), (6, 3, 28, 84), (2, 3, 56, 56), (2, 3, 56, 56)]
    assert all(torch.equal(found, frames) for found, (frames, _) in zip(seen, videos, strict=False))
    assert all(np.array_equal(found[0].permute(1, 2, 0), image) for found, image in zip(seen[2:], images, strict=True))


def test_a_text_has_no_pictures_and_an_unknown_layout_is_refused(models):
    processor = models().processor
    assert seen_media(processor, encoded(processor, [], [])) == []
    strange = EncodedPrompt([1], features={"pixel_values_videos": torch.zeros(8, 48)}, kinds=frozenset({"video"}))
    with pytest.raises(NotImplementedError, match=re.escape("'pixel_values_videos': (8, 48)")):
        seen_media(processor, strange)
