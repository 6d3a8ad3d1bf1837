"""Checkpoints as Video-R1 released them: their image processor's name is one that transformers no longer has."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from datasets import Dataset
from helpers import sft_config
from transformers import AutoProcessor, Qwen2VLImageProcessor

from videor1_trl import VideoSFTTrainer
from videor1_trl.generation.backends import make_backend
from videor1_trl.generation.requests import GenerationRequest, GenerationSettings
from videor1_trl.models.released import load_processor


@pytest.fixture
def released(models, tmp_path):
    """The tiny Qwen2.5-VL with the processor's files of transformers 4.49."""
    folder = tmp_path / "released"
    shutil.copytree(models().path, folder)
    settings = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    (folder / "processor_config.json").unlink()
    size = settings.pop("size")
    settings |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    settings |= {"image_processor_type": "Qwen2_5_VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


def test_transformers_still_lacks_the_class():
    assert not hasattr(transformers, "Qwen2_5_VLImageProcessor"), "models/released.py is no longer needed"


def test_the_processor_is_qwen2_vls_and_is_saved_as_such(released, models, media, tmp_path):
    processor = load_processor(released)
    assert type(processor.image_processor) is Qwen2VLImageProcessor
    image = transformers.image_utils.load_image(media["image"])
    found, expected = (each.image_processor([image])["pixel_values"] for each in (processor, models().processor))
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))
    processor.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "processor_config.json").read_text())
    assert saved["image_processor"]["image_processor_type"] == "Qwen2VLImageProcessor"


def test_such_a_checkpoint_answers_and_trains(released, models, media, tmp_path):
    settings = GenerationSettings(max_new_tokens=4, video_max_pixels=28 * 28)
    request = GenerationRequest("a", [{"role": "user", "content": "which way?"}], media["videos"][:1])
    backends = [make_backend("transformers", path, settings) for path in (released, models().path)]
    texts = [next(iter(backend.generate([request]))).text for backend in backends]
    assert texts[0] is not None and texts[0] == texts[1]
    row = {"prompt": request.prompt, "completion": "<think>x</think>\n<answer>A</answer>", "video": media["videos"][0]}
    args = sft_config(tmp_path / "out", per_device_train_batch_size=1, video_max_pixels=28 * 28)
    trainer = VideoSFTTrainer(released, args, Dataset.from_list([row]))
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))
    assert Path(tmp_path / "out" / "processor_config.json").exists()
    assert type(AutoProcessor.from_pretrained(tmp_path / "out").image_processor) is Qwen2VLImageProcessor
