"""The vllm backend on real vLLM: greedy answers are those of transformers, whatever the prompt holds."""

import pytest
import small

from videor1_trl import freeze_frame, reverse_frames, shuffle_frames
from videor1_trl.generation.backends import make_backend
from videor1_trl.generation.requests import GenerationRequest, GenerationSettings
from videor1_trl.generation.transformers_backend import TransformersBackend
from videor1_trl.scripts import ask as ask_script


pytestmark = pytest.mark.vllm
ENGINE = {"dtype": "float32", "max_model_len": 512, "enforce_eager": True}


def settings(**overrides):
    chosen = {"max_new_tokens": 12, "video_max_pixels": 28 * 28 * 6, "image_max_pixels": 28 * 28 * 6}
    return GenerationSettings(**{**chosen, **overrides})


def ask(key, text="which way?", **media):
    return GenerationRequest(key, [{"role": "user", "content": text}], **media)


def mixed(media, together=True):
    """
    40 requests: 4 videos in 4 orders and 5 clips of uneven length, images, text, and several media in a prompt; `together`: videos
    with images too.
    """
    videos, image = media["videos"], media["image"]
    contrasts = {"ordered": None, "shuffled": shuffle_frames, "reversed": reverse_frames, "frozen": freeze_frame}
    for name, contrast in contrasts.items():
        for place, video in enumerate(videos):
            yield ask(f"{name} {place}", videos=[video], contrast=contrast, seed=place)
    for place, end in enumerate((0.8, 1.3, 2.1, 2.9, 3.4)):
        for name in ("ordered", "shuffled"):
            clip = {"path": videos[place % 4], "start": 0.0, "end": end}
            yield ask(f"{name} to {end}", f"what{' so' * place}?", videos=[clip], contrast=contrasts[name])
    for place in range(4):
        yield ask(f"image {place}", "what? " * (place + 1), images=[image])
        yield ask(f"text {place}", "left or right? " * (place + 1))
    yield ask("two videos", videos=videos[:2])
    yield ask("two shuffled", videos=videos[:2], contrast=shuffle_frames)
    yield ask("video and image", videos=videos[:1], images=[image] if together else [])
    yield ask("many", videos=videos[:4], images=[image] * 3 if together else [])
    yield ask("again", "which square, and which way?", videos=videos[1:2])
    yield ask("twice", videos=[videos[1]] * 2)


@pytest.mark.parametrize("family", small.FAMILIES)
def test_greedy_answers_are_those_of_transformers(family, small_models, media):
    model = small_models(family)
    reference = TransformersBackend(model.model, model.processor, settings())
    together = family not in small.APART
    expected = {each.key: each for each in reference.generate(mixed(media, together))}
    backend = make_backend("vllm", model.path, settings(), window=16, **{**ENGINE, "max_model_len": 2048})
    found = {each.key: each for each in backend.generate(mixed(media, together))}
    assert len(expected) == 40 and {each.error for each in expected.values()} == {None}
    assert [key for key in expected if found[key] != expected[key]] == []
    assert len({each.text for each in expected.values()}) > 7  # else equality would say little


def test_one_request_that_vllm_refuses_costs_no_other_and_sampling_follows_from_the_key(small_models, media):
    model = small_models()
    chosen = settings(temperature=1.0, max_prompt_length=400)
    backend = make_backend("vllm", model.path, chosen, **{**ENGINE, "max_model_len": 60})
    requests = [
        ask("a"),
        ask("long", "left " * 80),
        ask("missing", videos=["none.mp4"]),
        ask("b", videos=media["videos"][:1]),
    ]
    found = {each.key: each for each in backend.generate(requests)}
    assert found["a"].error is found["b"].error is None
    assert "longer than the maximum model length of 60" in found["long"].error and found["long"].text is None
    assert "no such file" in found["missing"].error
    again = {each.key: each for each in backend.generate([requests[3], requests[0]])}
    assert again == {key: found[key] for key in "ab"}
    assert backend.describe()["versions"]["vllm"].startswith("0.")


def test_vllm_answers_as_transformers_does(run_script, small_models, media):
    flags = [
        "--model_name_or_path",
        small_models().path,
        "--max_new_tokens",
        6,
        "--dtype",
        "float32",
        "--max_prompt_length",
        400,
    ]
    flags += ["--video", media["videos"][0], "--question", "which way?", "--contrast"]
    transformers = run_script(ask_script, flags, {})
    assert run_script(ask_script, [*flags, "--backend", "vllm"], {}) == transformers


def test_choices_weigh_what_they_weigh_for_transformers(small_models, media):
    model = small_models()
    requests = [
        ask(name, videos=media["videos"][:1], contrast=each)
        for name, each in (("in order", None), ("reversed", reverse_frames))
    ]
    requests += [ask("other", "left or right?", videos=media["videos"][1:2]), ask("text")]
    for request in requests:
        request.choices = ("A", "B", "C")
    reference = TransformersBackend(model.model, model.processor, settings())
    expected = {each.key: each.log_probs for each in reference.weigh(requests)}
    backend = make_backend("vllm", model.path, settings(), **ENGINE)
    found = {each.key: each for each in backend.weigh(requests)}
    assert {each.error for each in found.values()} == {None} and len(found) == 4
    for key, values in expected.items():
        assert found[key].log_probs == pytest.approx(values, abs=1e-3)  # float32 of two engines
