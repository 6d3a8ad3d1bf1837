"""What vLLM is handed, by a stand-in that checks it: the same tokens and pixels as the transformers backend's."""

import builtins
import json
import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import AutoProcessor
from transformers.video_utils import VideoMetadata

from videor1_trl import load_video, reverse_frames
from videor1_trl.generation import TransformersBackend, make_backend
from videor1_trl.generation_requests import GenerationRequest, GenerationSettings


METADATA = {"fps", "duration", "total_num_frames", "frames_indices", "video_backend", "do_sample_frames"}


@dataclass
class SamplingParams:
    """The fields that the backend sets, by vLLM's names; another name is a TypeError, as in vLLM."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int | None
    stop_token_ids: list[int]
    logit_bias: dict[int, float] | None


class LLM:
    """Expands and preprocesses prompts as vLLM's processor of the Qwen-VL families does; refuses what vLLM refuses."""

    made = None

    def __init__(self, model, *, max_model_len=None, limit_mm_per_prompt=None, seed=0, dtype="auto", revision=None):
        LLM.made = self
        self.processor = AutoProcessor.from_pretrained(model)
        self.max_model_len, self.limits = max_model_len, limit_mm_per_prompt
        config = types.SimpleNamespace(model=model, revision=revision, dtype=torch.bfloat16)
        self.llm_engine = types.SimpleNamespace(model_config=config)
        self.calls, self.encoded = [], []

    def generate(self, prompts, sampling_params, *, use_tqdm=True):
        assert len(prompts) == len(sampling_params) and use_tqdm is False
        self.calls.append(len(prompts))
        encoded = [self.preprocess(**prompt) for prompt in prompts]  # one that is refused costs all
        self.encoded += encoded
        return [self.output(*each) for each in zip(encoded, sampling_params, strict=True)]

    def preprocess(self, prompt, multi_modal_data=None, mm_processor_kwargs=None):
        media, kwargs = multi_modal_data or {}, dict(mm_processor_kwargs or {})
        inputs = {}
        for kind, items in media.items():
            if len(items) > self.limits[kind]:
                raise ValueError(f"At most {self.limits[kind]} {kind}(s) may be provided in one prompt.")
            assert prompt.count(f"<|{kind}_pad|>") == len(items)
        if "video" in media:
            for frames, metadata in media["video"]:
                assert isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.shape[-1] == 3
                assert set(metadata) == METADATA and metadata["do_sample_frames"] is False
                assert len(metadata["frames_indices"]) == len(frames)
            inputs["videos"] = [[frames for frames, _ in media["video"]]]
            fields = [{k: v for k, v in m.items() if k != "do_sample_frames"} for _, m in media["video"]]
            inputs["video_metadata"] = [VideoMetadata(**each) for each in fields]
        if "image" in media:
            inputs["images"] = media["image"]
        found = self.processor(text=[prompt], **inputs, **kwargs, return_tensors="pt")
        if self.max_model_len and len(found["input_ids"][0]) > self.max_model_len:
            raise ValueError(f"The decoder prompt is longer than the maximum model length of {self.max_model_len}.")
        return found

    def output(self, encoded, sampling):
        completion = types.SimpleNamespace(text="left", token_ids=[5, 6, 7], finish_reason="stop")
        return types.SimpleNamespace(prompt_token_ids=encoded["input_ids"][0].tolist(), outputs=[completion])


@pytest.fixture
def vllm(monkeypatch):
    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams, module.__version__ = LLM, SamplingParams, "0.31.0"
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def settings(**overrides):
    return GenerationSettings(**{"max_new_tokens": 5, "video_max_pixels": 28 * 28 * 2, **overrides})


def ask(key, **media):
    return GenerationRequest(key, [{"role": "user", "content": "which way?"}], **media)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("budget", [28 * 28 * 2, 28 * 28 * 4, None])
def test_vllm_gets_the_tokens_and_pixels_of_the_transformers_backend(family, budget, vllm, models, media):
    model = models(family)
    requests = [
        ask("video", videos=[media["videos"][0]]),
        ask("reversed", videos=[media["videos"][0]], contrast=reverse_frames),
        ask("two", videos=media["videos"][:2]),
        ask("image", images=[media["image"]]),
        ask("text"),
    ]
    chosen = settings(video_max_pixels=budget, image_max_pixels=budget)
    backend = make_backend("vllm", model.path, chosen)
    keys = [completion.key for completion in backend.generate(requests)]
    reference = TransformersBackend(model.model, model.processor, chosen)
    for key, found in zip(keys, LLM.made.encoded, strict=True):
        expected, _ = reference.encode(next(request for request in requests if request.key == key))
        assert found["input_ids"][0].tolist() == expected.input_ids, key
        assert set(expected.features) <= set(found), key
        for name, value in expected.features.items():
            assert torch.equal(torch.as_tensor(found[name]), value), (key, name)


def test_completions_carry_counts_and_the_end_token_is_not_counted(vllm, models, media):
    backend = make_backend("vllm", models().path, settings())
    completion = next(backend.generate([ask("a", videos=[media["videos"][0]])]))
    assert (completion.text, completion.num_tokens, completion.finished) == ("left", 2, True)
    assert completion.num_prompt_tokens == len(LLM.made.encoded[0]["input_ids"][0])


def test_sampling_parameters_suppress_placeholders_and_seed_every_request(vllm, models):
    model = models()
    backend = make_backend("vllm", model.path, settings(temperature=0.7, top_p=0.9, top_k=5, repetition_penalty=1.1))
    one, other = backend._sampling("a"), backend._sampling("b")
    assert (one.temperature, one.top_p, one.top_k, one.repetition_penalty) == (0.7, 0.9, 5, 1.1)
    assert one.max_tokens == 5 and one.seed != other.seed and one == backend._sampling("a")
    tokens = model.processor.tokenizer.convert_tokens_to_ids(["<|video_pad|>", "<|image_pad|>", "<|vision_start|>"])
    assert set(tokens) <= set(one.logit_bias) and set(one.logit_bias.values()) == {-100.0}
    ends = model.processor.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert sorted(one.stop_token_ids) == sorted(ends)
    assert make_backend("vllm", model.path, settings())._sampling("a").seed is None  # greedy


def test_one_prompt_that_vllm_refuses_costs_no_other(vllm, models, media):
    bad = GenerationRequest("long", [{"role": "user", "content": "which way? " * 300}])
    three = ask("three", videos=media["videos"][:3])
    missing = ask("missing", videos=["none.mp4"])
    backend = make_backend("vllm", models().path, settings(max_prompt_length=200))
    found = {each.key: each for each in backend.generate([ask("a"), bad, three, missing, ask("b")])}
    assert found["a"].text == found["b"].text == "left"
    assert "maximum model length of 205" in found["long"].error  # 200 + 5 new tokens
    assert "At most 2 video(s)" in found["three"].error
    assert "no such file" in found["missing"].error
    assert LLM.made.calls == [4, 1, 1, 1, 1]


def test_a_prompt_beyond_max_prompt_length_that_vllm_takes_is_an_error_too(vllm, models):
    backend = make_backend("vllm", models().path, settings(max_prompt_length=4, max_new_tokens=99))
    found = next(backend.generate([ask("a")]))
    assert found.text is None and "more than max_prompt_length (4)" in found.error


def test_windows_bound_what_is_in_memory(vllm, models):
    backend = make_backend("vllm", models().path, settings(), window=3)
    assert len(list(backend.generate(ask(str(index)) for index in range(7)))) == 7
    assert LLM.made.calls == [3, 3, 1]


def test_videos_and_images_in_one_prompt_need_one_budget(vllm, models, media):
    both = ask("both", videos=[media["videos"][0]], images=[media["image"]])
    found = next(make_backend("vllm", models().path, settings(video_max_pixels=784)).generate([both]))
    assert "vLLM takes one budget per prompt" in found.error
    same = settings(video_max_pixels=None)
    assert next(make_backend("vllm", models().path, same).generate([both])).text == "left"


def test_engine_arguments_win_over_the_defaults_and_are_described(vllm, models):
    backend = make_backend("vllm", models().path, settings(), max_model_len=99, limit_mm_per_prompt={"video": 1})
    assert LLM.made.max_model_len == 99 and LLM.made.limits == {"video": 1}
    found = json.loads(json.dumps(backend.describe()))
    assert found["engine_arguments"] == {"seed": 0, "limit_mm_per_prompt": {"video": 1}, "max_model_len": 99}
    assert (found["backend"], found["dtype"], found["versions"]["vllm"]) == ("vllm", "bfloat16", "0.31.0")


def test_a_missing_vllm_names_the_extra(monkeypatch, models):
    imported = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "vllm":
            raise ImportError("No module named 'vllm'")
        return imported(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'videor1_trl\[vllm\]'"):
        make_backend("vllm", models().path, settings())


def test_frames_keep_their_clips_metadata(vllm, models, media):
    source = {"path": media["videos"][0], "start": 1.0, "end": 3.0}
    backend = make_backend("vllm", models().path, settings())
    [(_, prompt)] = backend._prepare_window([ask("a", videos=[source])])
    frames, metadata = load_video(source)
    (array, found), *_ = prompt["multi_modal_data"]["video"]
    assert np.array_equal(array, frames.permute(0, 2, 3, 1).numpy())
    assert (found["fps"], found["duration"]) == (metadata.fps, metadata.duration)
    assert found["frames_indices"] == metadata.frames_indices
