"""What vLLM is handed, by a stand-in that checks it. That vLLM answers it as transformers does: `tests/vllm_engine`."""

import builtins
import itertools
import json
import sys
import types
from dataclasses import dataclass

import pytest
import tiny
import torch
from transformers import AutoConfig

from videor1_trl import reverse_frames
from videor1_trl.generation.backends import make_backend
from videor1_trl.generation.requests import GenerationRequest, GenerationSettings
from videor1_trl.generation.transformers_backend import TransformersBackend


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
    detokenize: bool


@dataclass
class PlaceholderRange:
    offset: int
    length: int
    is_embed: torch.Tensor | None = None


class VLLMError(Exception):
    """As vLLM's: no ValueError."""


class ClientError(VLLMError):
    pass


class Items:
    """Takes the features apart by their grids, as vLLM does by its processor's fields."""

    @staticmethod
    def from_hf_inputs(features, fields):
        assert fields == "fields"
        items = {}
        for kind, pixels in (("video", "pixel_values_videos"), ("image", "pixel_values")):
            grids = features.get(f"{kind}_grid_thw")
            if grids is None:
                continue
            parts = features[pixels].split(grids.prod(-1).tolist())
            found = [{f"{kind}_grid_thw": grid, pixels: part} for grid, part in zip(grids, parts, strict=True)]
            for item, seconds in zip(found, features.get("second_per_grid_ts", []), strict=False):
                if kind == "video":
                    item["second_per_grid_ts"] = seconds
            items[kind] = [{key: types.SimpleNamespace(data=each) for key, each in item.items()} for item in found]
        return items


class Engine:
    """Takes prompts one by one, and has an answer for each at the next step."""

    def __init__(self, model, revision, limit):
        config = AutoConfig.from_pretrained(model)
        processor = types.SimpleNamespace(_get_mm_fields_config=lambda features, settings: "fields")
        self.renderer = types.SimpleNamespace(get_mm_processor=lambda: processor)
        self.model_config = types.SimpleNamespace(
            model=model, revision=revision, dtype=torch.bfloat16, hf_config=config, is_multimodal_model=True
        )
        self.limit, self.taken, self.steps, self._waiting = limit, [], [], []
        self.reason, self.fault, self.aborted = "stop", None, []

    def add_request(self, name, prompt, sampling):
        if self.limit and len(prompt["prompt_token_ids"]) > self.limit:
            raise ClientError(f"The decoder prompt is longer than the maximum model length of {self.limit}.")
        self.taken.append(prompt)
        self._waiting.append((name, sampling.stop_token_ids[0]))

    def has_unfinished_requests(self):
        return bool(self._waiting)

    def step(self):
        if self.fault is not None:
            raise self.fault
        self.steps.append(len(self._waiting))
        done, self._waiting = self._waiting, []
        return [
            types.SimpleNamespace(
                request_id=name,
                finished=True,
                outputs=[types.SimpleNamespace(token_ids=[40, 41, end], finish_reason=self.reason)],
            )
            for name, end in reversed(done)
        ]

    def abort_request(self, names):
        self.aborted += names
        self._waiting = [each for each in self._waiting if each[0] not in names]


class LLM:
    made = None

    def __init__(self, model, *, max_model_len=None, seed=0, dtype="auto", revision=None, **arguments):
        LLM.made = self
        self.llm_engine, self.request_counter = Engine(model, revision, max_model_len), itertools.count()
        self.arguments = {"max_model_len": max_model_len, "seed": seed, **arguments}


@pytest.fixture
def vllm(monkeypatch):
    made = {
        "vllm": {"LLM": LLM, "SamplingParams": SamplingParams, "__version__": "0.30.0"},
        "vllm.exceptions": {"VLLMClientError": ClientError, "VLLMError": VLLMError},
        "vllm.inputs": {},
        "vllm.inputs.engine": {
            "tokens_input": lambda ids: {"prompt_token_ids": ids},
            "mm_input": lambda ids, items, names, places: {
                "prompt_token_ids": ids,
                "items": items,
                "names": names,
                "places": places,
            },
        },
        "vllm.multimodal": {},
        "vllm.multimodal.inputs": {"MultiModalKwargsItems": Items, "PlaceholderRange": PlaceholderRange},
        "vllm.sampling_params": {"RequestOutputKind": types.SimpleNamespace(FINAL_ONLY=2)},
    }
    for name, contents in made.items():
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    return sys.modules["vllm"]


def settings(**overrides):
    return GenerationSettings(**{"max_new_tokens": 5, "video_max_pixels": 28 * 28 * 2, **overrides})


def ask(key, **media):
    return GenerationRequest(key, [{"role": "user", "content": "which way?"}], **media)


# --- what vLLM gets


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("budget", [28 * 28 * 2, None])
def test_vllm_gets_the_tokens_and_pixels_of_the_transformers_backend_each_in_its_place(
    family, budget, vllm, models, media
):
    model = models(family)
    requests = [
        ask("video", videos=[media["videos"][0]]),
        ask("reversed", videos=[media["videos"][0]], contrast=reverse_frames),
        ask("both", videos=media["videos"][:2], images=[media["image"]]),
        ask("text"),
    ]
    chosen = settings(video_max_pixels=budget, image_max_pixels=784)  # budgets that differ
    backend = make_backend("vllm", model.path, chosen)
    keys = [completion.key for completion in backend.generate(requests)]
    reference = TransformersBackend(model.model, model.processor, chosen)
    names = set()
    for key, found in zip(keys, LLM.made.llm_engine.taken, strict=True):
        expected, _ = reference.encode(next(request for request in requests if request.key == key))
        assert found["prompt_token_ids"] == expected.input_ids, key
        for kind, items in found.get("items", {}).items():
            pixels = "pixel_values_videos" if kind == "video" else "pixel_values"
            assert torch.equal(torch.cat([item[pixels].data for item in items]), expected.features[pixels])
            names |= set(found["names"][kind])
            filled = set()
            for place, item in zip(found["places"][kind], items, strict=True):
                inside = range(place.length) if place.is_embed is None else place.is_embed.nonzero()[:, 0].tolist()
                assert len(inside) == int(item[f"{kind}_grid_thw"].data.prod()) // 4
                filled |= {place.offset + each for each in inside}
            token = getattr(model.model.config, f"{kind}_token_id")
            assert filled == {index for index, each in enumerate(expected.input_ids) if each == token}
    assert len(names) == 4  # the first video, reversed too, the second, and the image


def test_seconds_are_rounded_as_transformers_rounds_them(vllm, models, media):
    backend = make_backend("vllm", models().path, settings())
    list(backend.generate([ask("a", videos=[media["videos"][0]])]))
    seconds = LLM.made.llm_engine.taken[0]["items"]["video"][0]["second_per_grid_ts"].data
    assert seconds.dtype == torch.float64 and 0 < seconds.item() - 1 < 2e-7  # two frames, at 2 a second


def test_completions_carry_counts_and_the_end_token_is_not_counted(vllm, models, media):
    backend = make_backend("vllm", models().path, settings())
    completion = next(backend.generate([ask("a", videos=[media["videos"][0]])]))
    assert completion.text == models().processor.tokenizer.decode([40, 41])
    assert (completion.num_tokens, completion.finished) == (2, True)
    assert completion.num_prompt_tokens == len(LLM.made.llm_engine.taken[0]["prompt_token_ids"])


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


def test_completions_come_with_what_their_prompt_has_opened(vllm, models, tmp_path):
    said = models().processor.tokenizer.decode([40, 41])
    found = make_backend("vllm", tiny.thinking(models(), tmp_path / "model").path, settings()).generate([ask("a")])
    assert [(each.text, each.num_tokens) for each in found] == [(f"<think>\n{said}", 2)]
    prompt = [{"role": "user", "content": "which way?"}, {"role": "assistant", "content": "so "}]
    backend = make_backend("vllm", models().path, settings())
    assert [each.text for each in backend.generate([GenerationRequest("b", prompt)])] == [f"so {said}"]


# --- faults, limits and arguments


def test_one_prompt_that_vllm_refuses_costs_no_other(vllm, models, media):
    bad = GenerationRequest("long", [{"role": "user", "content": "which way? " * 50}])
    five = ask("five", videos=[*media["videos"], media["videos"][0]])
    backend = make_backend("vllm", models().path, settings(video_max_pixels=784), max_model_len=90)
    found = {each.key: each for each in backend.generate([ask("a"), bad, five, ask("missing", videos=["none.mp4"])])}
    assert "maximum model length of 90" in found["long"].error and found["long"].num_prompt_tokens > 90
    assert "no such file" in found["missing"].error
    assert found["a"].error is found["five"].error is None
    assert LLM.made.llm_engine.steps == [2]  # together


def test_a_request_that_the_engine_ends_without_an_answer_is_an_error(vllm, models):
    backend = make_backend("vllm", models().path, settings())
    LLM.made.llm_engine.reason = "error"
    [found] = backend.generate([ask("a")])
    assert found.text is None and "vLLM ended it with 'error', without an answer" in found.error


@pytest.mark.parametrize("fault", [RuntimeError("out of memory"), VLLMError("it died"), KeyboardInterrupt()])
def test_an_engine_that_fails_is_named_and_keeps_no_request_for_the_next_call(fault, vllm, models):
    backend = make_backend("vllm", models().path, settings())
    engine = LLM.made.llm_engine
    engine.fault = fault
    named = KeyboardInterrupt if isinstance(fault, KeyboardInterrupt) else RuntimeError
    message = (
        None if named is KeyboardInterrupt else rf"failed with 2 requests in it \({type(fault).__name__}: {fault}"
    )
    with pytest.raises(named, match=message):
        list(backend.generate([ask("a"), ask("b")]))
    engine.fault = None
    assert len(engine.aborted) == 2
    assert [each.error for each in backend.generate([ask("c")])] == [None]
    assert engine.steps == [1]  # the one that was asked for


def test_an_engine_that_loses_requests_ends_the_wait(vllm, models):
    backend = make_backend("vllm", models().path, settings())
    engine = LLM.made.llm_engine
    engine.has_unfinished_requests = lambda: False
    with pytest.raises(RuntimeError, match="it has lost them"):
        list(backend.generate([ask("a")]))


def test_a_prompt_beyond_max_prompt_length_is_an_error(vllm, models):
    backend = make_backend("vllm", models().path, settings(max_prompt_length=4, max_new_tokens=99))
    found = next(backend.generate([ask("a")]))
    assert found.text is None and "more than max_prompt_length (4)" in found.error


def test_windows_bound_what_is_in_memory(vllm, models):
    backend = make_backend("vllm", models().path, settings(), window=3)
    assert len(list(backend.generate(ask(str(index)) for index in range(7)))) == 7
    assert LLM.made.llm_engine.steps == [3, 3, 1]


def test_engine_arguments_win_over_the_defaults_and_are_described(vllm, models):
    backend = make_backend("vllm", models().path, settings(max_prompt_length=50), max_model_len=99)
    assert LLM.made.arguments["max_model_len"] == 99 and LLM.made.arguments["mm_device_do_normalize"] is False
    found = json.loads(json.dumps(backend.describe()))
    assert (found["engine_arguments"]["seed"], found["engine_arguments"]["max_model_len"]) == (0, 99)
    assert (found["backend"], found["dtype"], found["versions"]["vllm"]) == ("vllm", "bfloat16", "0.30.0")
    make_backend("vllm", models().path, settings(max_prompt_length=50))
    assert LLM.made.arguments["max_model_len"] == 55  # room for the longest prompt and completion


# --- what is refused


def test_a_missing_vllm_names_the_extra(monkeypatch, models):
    imported = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "vllm":
            raise ImportError("No module named 'vllm'")
        return imported(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install '\.\[vllm\]'"):
        make_backend("vllm", models().path, settings())


@pytest.mark.parametrize("version", ["0.29.2", "0.31.0", "1.0"])
def test_a_version_that_was_not_tested_is_refused_with_the_reason(version, vllm, models):
    vllm.__version__ = version
    with pytest.raises(ImportError, match=f"vLLM {version} is installed, .* was tested with 0.30 only"):
        make_backend("vllm", models().path, settings())


def test_a_family_that_was_not_tested_is_refused_by_name(vllm, models, monkeypatch):
    monkeypatch.setattr("videor1_trl.sharing.vllm.FAMILIES", ("another",))
    monkeypatch.setattr(LLM, "made", None)
    with pytest.raises(NotImplementedError, match="prompts of another only, and this model is of the type smolvlm"):
        make_backend("vllm", models("smolvlm").path, settings())
    assert LLM.made is None  # before vLLM loads it, or ends with an error of its own
