"""A budget of pixels is kept or refused, whoever counts: frames, videos, tokens, tiles, or nobody."""

import re

import pytest
import torch
from accelerate import PartialState
from hybrids import gemma4
from more_families import BUILDERS
from PIL import Image
from tiny import tokenizer
from transformers.video_utils import VideoMetadata

from videor1_trl import TGRPOConfig
from videor1_trl.media.settings import DefaultPixels
from videor1_trl.models.encoding import encode_prompt
from videor1_trl.models.pixels import check_pixels, counted_frames, pixel_budget
from videor1_trl.scripts.evaluate import make_parser


@pytest.fixture(scope="module")
def processors():
    made = {}

    def get(name):
        if name not in made:
            made[name] = gemma4(tokenizer())[1] if name == "gemma4" else BUILDERS[name]()[1]
        return made[name]

    return get


def prompt_of(processor, number, **budget):
    frames = torch.zeros(number, 3, 280, 560, dtype=torch.uint8)
    clip = VideoMetadata(total_num_frames=number, fps=2.0, frames_indices=list(range(number)))
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "?"}]}]
    return encode_prompt(processor, messages, [(frames, clip)], [], **budget)


@pytest.mark.parametrize(
    "name, counted",
    [
        ("qwen2_vl", (1, 1)),
        ("qwen3_vl_moe", (8, 8)),
        ("glm46v", (8, 8)),
        ("video_llama_3", (8, 1)),
        ("internvl", (1, 1)),
    ],
)
def test_how_many_frames_are_counted_is_found_out(processors, name, counted):
    assert counted_frames(processors(name).video_processor, 8) == counted


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_omni", "glm4v", "glm46v", "video_llama_3"])
@pytest.mark.parametrize("number", [4, 16])
def test_the_budget_is_that_of_a_frame_however_many_there_are(processors, name, number):
    budget = 28 * 28 * 8
    features = prompt_of(processors(name), number, video_max_pixels=budget).features
    [height, width] = features.get("video_grid_thw", features.get("image_grid_thw"))[0, 1:].tolist()
    assert budget / 2 <= height * width * 14 * 14 <= budget


@pytest.mark.parametrize(
    "name, field, value, found",
    [
        ("internvl", "video_max_pixels", 783, 784),
        ("internvl", "video_min_pixels", 785, 784),
        ("llava_onevision", "video_max_pixels", 500, 784),
        ("llava_onevision", "image_max_pixels", 3919, 3920),  # 2 x 2 tiles and the whole
        ("gemma4", "video_max_pixels", 17919, 17920),  # 70 tokens of 16 x 16
        ("gemma4", "image_max_pixels", 17919, 17920),
        ("qwen2_vl", "video_max_pixels", 783, 784),
        ("glm46v", "video_max_pixels", 783, 784),
        ("qwen2_vl", "image_max_pixels", 783, 784),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_and_the_least_that_can_is_taken(
    processors, name, field, value, found
):
    with pytest.raises(ValueError, match=re.escape(f"{field} ({value}) cannot be kept: ")) as refused:
        check_pixels(processors(name), {field: value})
    assert str(found) in str(refused.value)
    check_pixels(processors(name), {field: found})


def test_a_default_that_cannot_be_kept_is_told_and_the_processor_decides(processors, caplog, monkeypatch):
    monkeypatch.setattr(PartialState, "_shared_state", {})  # as without a trainer
    check_pixels(processors("internvl"), {"video_max_pixels": DefaultPixels(500)})
    assert "video_max_pixels (500) cannot be kept: InternVLVideoProcessor gives a large frame 784" in caplog.text


def test_what_is_chosen_is_no_default():
    defaults = TGRPOConfig("unused", bf16=False, use_cpu=True).pixel_settings
    assert isinstance(defaults["video_max_pixels"], DefaultPixels)
    assert not isinstance(
        TGRPOConfig("unused", use_cpu=True, bf16=False, video_max_pixels=500).video_max_pixels, DefaultPixels
    )
    assert isinstance(make_parser().get_default("video_max_pixels"), DefaultPixels)


@pytest.mark.parametrize("tiles, shown", [(1, 1), (2, 1), (3, 3), (5, 5), (9, 5)])
def test_tiles_of_an_image_keep_its_budget(processors, tiles, shown):
    """A square image of InternVL: two tiles and the whole of it, or four and the whole; at least the whole."""
    processor = processors("internvl")
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    picture = Image.new("RGB", (200, 200 if shown != 3 else 100))
    features = encode_prompt(processor, messages, [], [picture], image_max_pixels=784 * tiles).features
    assert len(features["pixel_values"]) == shown


def test_more_tokens_are_taken_for_a_frame_that_must_have_them(processors):
    part = processors("gemma4").video_processor
    assert pixel_budget(part, None, 70 * 256 + 1, 2) == {"max_soft_tokens": 140}
    assert pixel_budget(part, 10**9, None, 2) == {"max_soft_tokens": 70}
