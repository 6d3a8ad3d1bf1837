"""Completions of many requests: the same in any batch, one request's fault its own, contrasts, seeds, memory."""

import contextlib
import dataclasses
import json
import threading
import weakref

import numpy as np
import pytest
import tiny
import torch
from helpers import row
from peft import LoraConfig, get_peft_model
from PIL import Image

from videor1_trl import freeze_frame, load_video, reverse_frames, shuffle_frames
from videor1_trl.data.batch import BatchLoader
from videor1_trl.generation.backends import make_backend
from videor1_trl.generation.media import THREADS, load_requests, windows_ahead
from videor1_trl.generation.requests import GeneratedCompletion, GenerationRequest, GenerationSettings
from videor1_trl.generation.transformers_backend import GumbelNoise, TransformersBackend
from videor1_trl.media.errors import VideoError


SETTINGS = {"max_new_tokens": 12, "video_max_pixels": 28 * 28 * 4}


def backend(model, *, batch_size=8, video_loader=load_video, **settings):
    settings = GenerationSettings(**{**SETTINGS, **settings})
    return TransformersBackend(
        model.model, model.processor, settings, batch_size=batch_size, video_loader=video_loader
    )


def ask(key, text="which way?", **media):
    return GenerationRequest(str(key), [{"role": "user", "content": text}], **media)


def by_key(completions):
    completions = list(completions)
    found = {completion.key: completion for completion in completions}
    assert len(found) == len(completions)
    return found


def mixed(media):
    """Nine requests of unequal length: four videos, two images, two texts, and a video asked about twice."""
    requests = [ask(f"video {i}", "which way? " * (i + 1), videos=[path]) for i, path in enumerate(media["videos"])]
    requests += [ask(f"image {i}", "what? " * (7 * i + 1), images=[media["image"]]) for i in range(2)]
    requests += [ask(f"text {i}", "left or right? " * (11 * i + 1)) for i in range(2)]
    return [*requests, ask("again", "which square moves, and which way does it?", videos=[media["videos"][1]])]


class CountingLoader:
    def __init__(self):
        self.sources = []

    def __call__(self, source, **settings):
        self.sources.append(source)
        return load_video(source, **settings)


# --- one completion, whatever its batch


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_left_padded_completion_equals_the_unbatched_one_with_videos_images_and_text_in_a_batch(
    family, models, media
):
    together = by_key(backend(models(family), batch_size=9).generate(mixed(media)))
    alone = by_key(backend(models(family), batch_size=1).generate(mixed(media)))
    assert together == alone
    assert len({completion.text for completion in alone.values()}) > 3  # else equality would say little
    assert len({completion.num_prompt_tokens for completion in alone.values()}) > 4


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_completions_are_those_of_plain_generate_on_the_processors_own_output(family, models, media):
    model = models(family)
    backend_ = backend(model, batch_size=4)
    completions = by_key(backend_.generate(mixed(media)))
    for request in mixed(media):
        encoded, _ = backend_.encode(request)
        inputs = {"input_ids": torch.tensor([encoded.input_ids]), **encoded.features}
        inputs |= {key: torch.tensor([value]) for key, value in encoded.token_types.items()}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        config = backend_._config
        output = model.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=config.eos_token_id,
            suppress_tokens=config.suppress_tokens,
            pad_token_id=config.pad_token_id,
        )[0, len(encoded.input_ids) :].tolist()
        ends = [index for index, token in enumerate(output) if token in config.eos_token_id]
        kept = output[: ends[0]] if ends else output
        completion = completions[request.key]
        assert completion.text == model.processor.tokenizer.decode(kept, skip_special_tokens=True)
        assert (completion.num_tokens, completion.finished) == (len(kept), bool(ends))
        assert completion.num_prompt_tokens == len(encoded.input_ids)


def test_the_prompt_is_encoded_as_in_training(models, media):
    model = models()
    loader = BatchLoader(model.processor, load_video, None, encode_settings={"video_max_pixels": 28 * 28 * 4})
    trained = loader.load([row("which way?", video=media["videos"][0])], 0, 1, 0, step=1)[0].encoded
    encoded, _ = backend(model).encode(ask(0, videos=[media["videos"][0]]))
    assert encoded.input_ids == trained.input_ids
    assert all(torch.equal(value, trained.features[key]) for key, value in encoded.features.items())


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("settings", [{"temperature": 1.0}, {"temperature": 0.8, "top_k": 20, "top_p": 0.9}])
def test_sampled_tokens_follow_from_seed_and_key_alone(settings, family, models, media):
    def sampled(requests, batch_size, seed=0):
        return by_key(backend(models(family), batch_size=batch_size, seed=seed, **settings).generate(requests))

    requests = mixed(media)
    first = sampled(requests, 9)
    assert sampled(requests[::-1], 2) == first
    other_seed = sampled(requests, 9, seed=1)
    assert sum(other_seed[key].text != first[key].text for key in first) > 6
    renamed = sampled([dataclasses.replace(requests[0], key=str(i)) for i in range(4)], 4)
    assert len({completion.text for completion in renamed.values()}) == 4


def test_noise_draws_from_the_softmax():
    weights = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    seeds = [GenerationSettings().sampling_seed(str(index)) for index in range(4000)]
    noisy = GumbelNoise(seeds)(torch.zeros(4000, 1), weights.log().expand(4000, -1))
    shares = torch.bincount(noisy.argmax(-1), minlength=5) / 4000
    # three standard deviations of a share of one half: 3 * sqrt(0.25 / 4000) = 0.024
    assert torch.allclose(shares, weights, rtol=0, atol=0.024)
    assert shares[4] == 0


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 0.001}])
def test_sampling_from_the_likeliest_token_alone_is_greedy(settings, models, media):
    greedy = by_key(backend(models()).generate(mixed(media)))
    assert by_key(backend(models(), temperature=1.5, **settings).generate(mixed(media))) == greedy


def test_the_models_own_generation_defaults_do_not_leak_in(models):
    model = models()
    expected = list(backend(model).generate([ask(0)]))
    kept = model.model.generation_config
    model.model.generation_config = type(kept)(
        **{**kept.to_diff_dict(), "do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "top_k": 3}
    )
    try:
        assert list(backend(model).generate([ask(0)])) == expected
    finally:
        model.model.generation_config = kept


@contextlib.contextmanager
def biased(model, tokens):
    """Makes the model want these tokens, the first most."""

    def want(module, inputs, output):
        for rank, token in enumerate(tokens):
            output.logits[..., token] = 1000.0 - rank

    hook = model.model.register_forward_hook(want)
    try:
        yield
    finally:
        hook.remove()


def test_the_repetition_penalty_does_not_see_the_padding(models):
    """The pad token, which ends, is wanted a little more than "z", and penalised would be wanted less."""
    model = models()
    letter = model.processor.tokenizer.encode("z", add_special_tokens=False)[0]
    requests = [ask("padded", "a"), ask("long", "which way does the square move? " * 20)]
    with biased(model, [model.processor.tokenizer.pad_token_id, letter]):
        found = by_key(backend(model, repetition_penalty=1.5).generate(requests))
    assert found["padded"].text == found["long"].text == ""


def test_the_repetition_penalty_counts_the_completion(models):
    model = models()
    letters = model.processor.tokenizer.encode("zy", add_special_tokens=False)
    with biased(model, letters):
        found = next(backend(model, repetition_penalty=1.5, max_new_tokens=2).generate([ask("a", "a")]))
    assert found.text == "zy"  # 1000 for z, then 1000 / 1.5 against 999


def test_placeholders_are_never_sampled_and_every_end_token_ends(models, media):
    model = models()
    tokenizer = model.processor.tokenizer
    wanted = [tokenizer.convert_tokens_to_ids(t) for t in ("<|video_pad|>", "<|image_pad|>", "<|endoftext|>")]
    with biased(model, wanted):
        completion = next(backend(model).generate([ask(0, videos=[media["videos"][0]])]))
    assert (completion.text, completion.num_tokens, completion.finished) == ("", 0, True)


def test_a_cut_off_completion_says_so(models):
    model = models()
    letter = model.processor.tokenizer.encode("a", add_special_tokens=False)
    with biased(model, letter):
        completion = next(backend(model, max_new_tokens=5).generate([ask(0)]))
    assert (completion.text, completion.num_tokens, completion.finished) == ("aaaaa", 5, False)


# --- contrasts


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("contrast", [shuffle_frames, reverse_frames, freeze_frame])
def test_contrast_frames_are_encoded_with_the_tokens_of_the_ordered_prompt(family, contrast, models, media):
    backend_ = backend(models(family))
    path = media["videos"][0]
    ordered, _ = backend_.encode(ask(0, videos=[path]))
    encoded, loaded = backend_.encode(ask(1, videos=[path], contrast=contrast, seed=5))
    frames, metadata = load_video(path)
    expected = contrast(frames, torch.Generator().manual_seed(5))
    assert torch.equal(loaded.videos[0][0], expected)
    assert torch.equal(loaded.ordered[0][0], frames)
    by_hand, _ = backend_.encode(ask(2, videos=[expected]))
    assert encoded.input_ids == ordered.input_ids
    pixels = next(key for key in encoded.features if key.startswith("pixel_values"))
    assert torch.equal(encoded.features[pixels], by_hand.features[pixels])
    assert not torch.equal(encoded.features[pixels], ordered.features[pixels])


def test_a_contrast_that_works_in_place_spoils_no_other_request(models, media):
    def blacken(frames, generator):
        return frames.zero_()

    path = media["videos"][0]
    plain = by_key(backend(models()).generate([ask("plain", videos=[path])]))
    both = by_key(
        backend(models()).generate([ask("black", videos=[path], contrast=blacken), ask("plain", videos=[path])])
    )
    assert both["plain"] == plain["plain"]
    assert both["black"].text != both["plain"].text


def test_the_contrasts_seed_moves_the_frames_and_the_order_of_requests_does_not(models, media):
    requests = [ask(i, videos=[media["videos"][0]], contrast=shuffle_frames, seed=i) for i in range(3)]
    settings = GenerationSettings()
    forwards = {each.request.key: each.videos[0][0] for each in load_requests(requests, settings, load_video)}
    backwards = {each.request.key: each.videos[0][0] for each in load_requests(requests[::-1], settings, load_video)}
    assert all(torch.equal(forwards[key], backwards[key]) for key in forwards)
    assert not torch.equal(forwards["0"], forwards["1"])


def test_a_contrast_that_drops_frames_is_refused(models, media):
    cut = ask(0, videos=[media["videos"][0]], contrast=lambda frames, generator: frames[:-1])
    with pytest.raises(RuntimeError, match="It must return frames of the same shape"):
        list(backend(models()).generate([cut]))


# --- one request's fault is its own


def test_bad_requests_have_errors_and_the_others_their_completions(models, media, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    placeholder = [{"role": "user", "content": [{"type": "video"}, {"type": "video"}, {"type": "text", "text": "?"}]}]
    bad = {
        "missing": (ask("missing", videos=[str(tmp_path / "none.mp4")]), "no such file"),
        "broken": (ask("broken", videos=[str(broken)]), str(broken)),
        "image": (ask("image", images=[str(broken)]), "broken.mp4"),
        "placeholders": (
            GenerationRequest("placeholders", placeholder, videos=[media["videos"][0]]),
            "2 empty video placeholders for 1 videos",
        ),
        "long": (ask("long", "which way? " * 400), "more than max_prompt_length (300)"),
        "plain": (GenerationRequest("plain", "which way?"), "not conversational"),
    }
    good = [ask("good", videos=[media["videos"][0]]), ask("better", videos=[media["videos"][1]])]
    requests = [good[0], *(request for request, _ in bad.values()), good[1]]
    found = by_key(backend(models(), max_prompt_length=300, batch_size=2).generate(requests))
    for key, (_, message) in bad.items():
        assert found[key].text is None and message in found[key].error, key
    assert found["good"] == by_key(backend(models()).generate([good[0]]))["good"]
    assert found["better"].text is not None and found["better"].error is None


def test_media_for_a_model_that_takes_none_are_errors_of_their_requests(models, media):
    model = models("qwen3_vl")
    text_only = TransformersBackend(model.model, model.processor.tokenizer, GenerationSettings(max_new_tokens=3))
    text_only._tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    try:
        requests = [ask("video", videos=[media["videos"][0]]), ask("image", images=[media["image"]]), ask("text")]
        found = by_key(text_only.generate(requests))
    finally:
        text_only._tokenizer.chat_template = None
    assert "has a video, but" in found["video"].error and "has an image, but" in found["image"].error
    assert found["text"].num_tokens is not None


def test_two_requests_of_one_key_are_refused(models):
    with pytest.raises(ValueError, match="key \\('a'\\) names two requests"):
        list(backend(models()).generate([ask("a"), ask("a")]))


def test_a_loader_that_returns_no_frames_ends_the_run(models):
    with pytest.raises(RuntimeError, match="The video loader returned None"):
        list(backend(models(), video_loader=lambda source, **settings: None).generate([ask(0, videos=["a.mp4"])]))


def test_running_out_of_memory_is_raised_with_advice(models, monkeypatch):
    def full(**inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(models().model, "generate", full)
    with pytest.raises(torch.OutOfMemoryError, match="3 prompts .* Lower batch_size \\(4\\)"):
        list(backend(models(), batch_size=4).generate([ask(index) for index in range(3)]))


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"max_new_tokens": 0}, "max_new_tokens (0)"),
        ({"temperature": -0.1}, "temperature (-0.1)"),
        ({"top_p": 0.0}, "top_p (0.0)"),
        ({"top_k": -1}, "top_k (-1)"),
        ({"repetition_penalty": 0.0}, "repetition_penalty (0.0)"),
        ({"video_fps": 0.0}, "video_fps (0.0)"),
        ({"video_min_frames": 9, "video_max_frames": 9}, "video_min_frames (9)"),
        ({"video_num_frames": 0}, "video_num_frames (0)"),
        ({"video_max_pixels": 10, "video_min_pixels": 11}, "video_min_pixels (11)"),
        ({"max_prompt_length": 0}, "max_prompt_length (0)"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(setting, message):
    with pytest.raises(ValueError) as refused:
        GenerationSettings(**setting)
    assert str(refused.value).startswith(message)


# --- thousands of requests


def test_each_distinct_video_is_decoded_once_in_a_window(models, media):
    counting = CountingLoader()
    requests = [ask(index, videos=[media["videos"][index % 2]]) for index in range(8)]
    requests.append(ask("both", videos=media["videos"][:2]))
    completions = list(backend(models(), batch_size=4, video_loader=counting).generate(requests))
    assert sorted(counting.sources) == sorted(media["videos"][:2])
    assert len(completions) == 9


def test_each_distinct_video_is_preprocessed_once_for_requests_on_the_same_frames(models, media, monkeypatch):
    model = models()
    part, calls = type(model.processor.video_processor), []
    preprocess = part._preprocess
    monkeypatch.setattr(part, "_preprocess", lambda *args, **kw: (preprocess(*args, **kw), calls.append(1))[0])
    asked = backend(model)
    calls.clear()  # the budget of pixels is tried
    list(asked.generate([ask(index, videos=[media["videos"][index % 2]]) for index in range(8)]))
    assert len(calls) == 2


def test_frames_are_let_go_after_their_last_use_and_decoding_stays_a_few_requests_ahead():
    alive = weakref.WeakSet()
    most = 0

    def loader(source, **settings):
        frames = torch.zeros(4, 3, 28, 28, dtype=torch.uint8)
        alive.add(frames)
        return frames, load_video(np.zeros((2, 3, 28, 28), np.uint8))[1]

    requests = [ask(index, videos=[f"{index}.mp4"]) for index in range(40)]
    for _ in load_requests(requests, GenerationSettings(), loader):
        most = max(most, len(alive))
    assert 2 <= most <= THREADS + 2


def test_requests_are_read_as_they_are_needed_and_prepared_ahead_in_a_thread():
    read, threads = [], set()

    def requests():
        for index in range(1000):
            read.append(index)
            yield ask(index)

    def prepare(window):
        threads.add(threading.current_thread())
        return [request.key for request in window]

    windows = windows_ahead(requests(), 4, prepare)
    assert next(windows) == ["0", "1", "2", "3"]
    assert len(read) == 8
    windows.close()
    assert threading.current_thread() not in threads


# --- streaming, description, loading by name


def test_streamed_pieces_are_the_text(models, media):
    backend_ = backend(models(), max_new_tokens=30)
    pieces = []
    encoded, _ = backend_.encode(ask("a", videos=[media["videos"][0]]))
    completion = backend_.complete("a", encoded, pieces.append)
    assert completion.text and "".join(pieces) == completion.text
    assert completion == next(backend_.generate([ask("a", videos=[media["videos"][0]])]))


def test_the_description_is_json_and_names_every_setting(models):
    found = json.loads(json.dumps(backend(models(), temperature=0.5).describe()))
    assert found["settings"] == {**dataclasses.asdict(GenerationSettings()), **SETTINGS, "temperature": 0.5}
    assert (found["backend"], found["model"], found["dtype"]) == ("transformers", models().path, "float32")
    assert (found["attention"], found["device"], found["batch_size"]) == ("sdpa", "cpu", 8)
    assert found["video_loader"] == "videor1_trl.media.video.load_video"
    assert set(found["versions"]) == {"videor1_trl", "torch", "transformers", "av"}


def test_a_backend_is_made_from_a_folder(models, media):
    settings = GenerationSettings(**SETTINGS)
    made = make_backend("transformers", models().path, settings, batch_size=2, dtype="float32")
    assert by_key(made.generate(mixed(media))) == by_key(backend(models()).generate(mixed(media)))
    with pytest.raises(ValueError, match="'transformers', 'vllm' or 'server'"):
        make_backend("sglang", models().path, settings)


def test_a_folder_with_a_lora_adapter_is_its_base_model_with_the_adapter(models, media, tmp_path):
    model = models()
    adapted = get_peft_model(
        type(model.model).from_pretrained(model.path), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"])
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(tmp_path)
    model.processor.save_pretrained(tmp_path)
    settings = GenerationSettings(**SETTINGS)
    found = by_key(make_backend("transformers", str(tmp_path), settings).generate(mixed(media)))
    assert found == by_key(TransformersBackend(adapted, model.processor, settings).generate(mixed(media)))
    assert found != by_key(backend(model).generate(mixed(media)))


def test_positions_after_a_long_video_are_those_of_the_released_models(models, tmp_path):
    """12 temporal patches of one token: positions run to 24, of which transformers' own rule knows nothing."""
    model = models()
    path = tiny.write_mp4(tmp_path / "long.mp4", tiny.colour_frames(3, count=48, height=28, width=28), fps=4)
    backend_ = TransformersBackend(
        type(model.model).from_pretrained(model.path), model.processor, GenerationSettings(**SETTINGS)
    )
    encoded, _ = backend_.encode(ask(0, videos=[path]))
    backend_.complete("0", encoded)
    ahead = backend_.model.model.rope_deltas.item()
    unpatched = type(model.model).from_pretrained(model.path)
    types = {key: torch.tensor([value]) for key, value in encoded.token_types.items()}
    grids = {key: value for key, value in encoded.features.items() if not key.startswith("pixel_values")}
    _, theirs = unpatched.model.get_rope_index(torch.tensor([encoded.input_ids]), **types, **grids)
    assert ahead > theirs.item()


def test_an_image_given_as_an_object_is_completed(models):
    image = Image.fromarray(tiny.colour_frames(1)[0])
    found = next(backend(models()).generate([ask(0, images=[image])]))
    assert isinstance(found, GeneratedCompletion) and found.error is None


def test_a_video_error_of_an_own_loader_is_the_requests(models):
    def loader(source, **settings):
        raise VideoError(str(source), "on strike")

    assert "on strike" in next(backend(models(), video_loader=loader).generate([ask(0, videos=["a"])])).error


def answer_begun(begun="<think>\nleft"):
    prompt = [{"role": "user", "content": "which way?"}, {"role": "assistant", "content": begun}]
    return GenerationRequest("begun", prompt)


def test_completions_come_with_what_their_prompt_has_opened(models, tmp_path):
    thinking = backend(tiny.thinking(models(), tmp_path / "model"))
    pieces = []
    encoded, _ = thinking.encode(ask("a"))
    streamed = thinking.complete("a", encoded, pieces.append)
    [found] = thinking.generate([ask("a")])
    assert found.text == streamed.text == "".join(pieces) and found.text.startswith("<think>\n")
    assert found.num_tokens <= SETTINGS["max_new_tokens"], "what was opened is not counted"
    [begun] = backend(models()).generate([answer_begun()])
    assert begun.text.startswith("<think>\nleft")
    encoded, _ = backend(models()).encode(answer_begun())
    assert models().processor.tokenizer.decode(encoded.input_ids).endswith("<|im_start|>assistant\n<think>\nleft")
