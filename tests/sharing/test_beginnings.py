"""Prompts that begin alike: their beginning is computed once, and everything behind it is what each row gives alone."""

import pytest
import tiny
import torch

from videor1_trl import reverse_frames, shuffle_frames
from videor1_trl.generation.requests import GenerationRequest, GenerationSettings
from videor1_trl.generation.transformers_backend import TransformersBackend
from videor1_trl.models.encoding import EncodedPrompt
from videor1_trl.sharing.beginnings import beginnings, grouped, next_token_logits


QUESTIONS = ("which way?", "which way does the square move, left or right?", "which?", "how many squares are there?")
CONTRASTS = {"ordered": None, "reversed": reverse_frames, "shuffled": shuffle_frames}


def backend(model, **options):
    settings = {"max_new_tokens": 12, "video_max_pixels": 28 * 28 * 4, **options.pop("settings", {})}
    return TransformersBackend(model.model, model.processor, GenerationSettings(**settings), **options)


def requests(media, contrasts=("ordered", "reversed", "shuffled"), **more):
    """Four questions on each of two videos under each contrast, an image and a text."""
    for video in (0, 1):
        for number, text in enumerate(QUESTIONS):
            for name in contrasts:
                prompt = [{"role": "user", "content": text}]
                yield GenerationRequest(
                    f"{name} {video} {number}", prompt, [media["videos"][video]], (), CONTRASTS[name], number, **more
                )
    yield GenerationRequest("image", [{"role": "user", "content": "what?"}], (), [media["image"]], **more)
    yield GenerationRequest("text", [{"role": "user", "content": "left or right?"}], **more)


def encoded(backend_, asked):
    return [prompt for _, prompt in backend_._encode_window(list(asked))]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_greedy_answers_are_those_of_row_by_row(family, models, media):
    model = models(family)
    expected = {each.key: each for each in backend(model, share_prefix=False).generate(requests(media))}
    found = {each.key: each for each in backend(model).generate(requests(media))}
    assert found == expected and len(found) == 26
    assert len({each.text for each in found.values()}) > 2  # else equality would say little


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_logits_behind_a_shared_beginning_are_those_of_each_row_alone(family, models, media):
    model = models(family)
    backend_ = backend(model)
    rows = encoded(backend_, requests(media))
    shared = beginnings(model.model, rows, backend_._placeholders)
    assert shared is not None and len(shared.prompts) < len(rows)
    together = next_token_logits(model.model, rows, backend_._pad_token, shared)
    alone = torch.cat([next_token_logits(model.model, [row], backend_._pad_token) for row in rows])
    padded = next_token_logits(model.model, rows, backend_._pad_token)
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)  # float32, other orders of sums
    torch.testing.assert_close(padded, alone, rtol=0, atol=2e-5)


def test_sampled_answers_follow_from_seed_and_key_whoever_shares_a_prompt(models, media):
    chosen = {"temperature": 1.0, "top_k": 20}
    expected = {e.key: e for e in backend(models(), share_prefix=False, settings=chosen).generate(requests(media))}
    assert {e.key: e for e in backend(models(), batch_size=5, settings=chosen).generate(requests(media))} == expected


def test_questions_on_one_video_share_it_and_each_order_of_frames_apart(models, media):
    """Ordered and reversed: one beginning a video; shuffled by the question's own seed: one a question."""
    backend_ = backend(models())
    asked = list(requests(media, ["ordered", "reversed"]))[:8]  # of one video
    shared = beginnings(models().model, encoded(backend_, asked), backend_._placeholders)
    assert len(shared.prompts) == 2
    assert sorted(map(shared.owners.count, (0, 1))) == [4, 4]
    lengths = [len(prompt.input_ids) for prompt in shared.prompts]
    assert shared.tokens_saved == 3 * sum(lengths)
    shuffled = encoded(backend_, list(requests(media, ["shuffled"]))[:4])
    assert len(grouped(shuffled, backend_._placeholders)) > 1


def test_the_vision_tower_reads_a_shared_video_once(models, media, monkeypatch):
    model = models()
    reads = []
    original = model.model.model.visual.forward
    monkeypatch.setattr(
        model.model.model.visual,
        "forward",
        lambda pixels, **more: reads.append(len(more["grid_thw"])) or original(pixels, **more),
    )
    asked = [r for r in requests(media, ["ordered"]) if r.videos]
    list(backend(model, batch_size=8).generate(asked))
    assert sum(reads) == 2
    reads.clear()
    list(backend(model, batch_size=8, share_prefix=False).generate(asked))
    assert sum(reads) == 8


def row(ids, value=None):
    features = {} if value is None else {"pixel_values_videos": torch.full((4, 2), value)}
    return EncodedPrompt(ids, features=features, kinds=frozenset(["video"] if features else []))


def test_rows_share_what_both_their_tokens_and_their_media_agree_on():
    """9 stands for the video."""
    rows = [row([1, 9, 9, 2, 3], 0.0), row([1, 9, 9, 2, 4], 0.0), row([1, 9, 9, 2, 3], 1.0), row([1, 2]), row([1, 2])]
    assert grouped(rows, {9}) == [[0, 1], [2], [3], [4]]
    assert grouped([row([1, 9, 9, 2], 0.0), row([5, 9, 9, 2], 0.0)], {9}) == [[0], [1]]


def test_a_batch_that_shares_nothing_is_computed_as_it_is(models, media):
    backend_ = backend(models())
    rows = encoded(backend_, list(requests(media, ["ordered"]))[::4])
    assert beginnings(models().model, rows, backend_._placeholders) is None


def test_a_repetition_penalty_and_models_that_cannot_share_prompts_are_computed_row_by_row(models, monkeypatch):
    assert backend(models()).share_prefix
    assert not backend(models(), settings={"repetition_penalty": 1.1}).share_prefix
    monkeypatch.setattr(models().model.config.get_text_config(), "layer_types", ["sliding_attention"] * 2)
    assert not backend(models()).share_prefix


# --- choices weighed


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_choices_weigh_what_the_models_own_softmax_gives_them(family, models, media):
    model = models(family)
    backend_ = backend(model)
    asked = list(requests(media, choices=("A", "B", "C")))
    found = {each.key: each for each in backend_.weigh(asked)}
    assert len(found) == 26 and {each.error for each in found.values()} == {None}
    tokens = [model.processor.tokenizer.convert_tokens_to_ids(letter) for letter in "ABC"]
    for request in (asked[0], asked[1], asked[-2], asked[-1]):
        prompt, _ = backend_.encode(request)
        inputs = {key: torch.tensor([value]) for key, value in prompt.token_types.items()}
        ids = torch.tensor([prompt.input_ids])
        with torch.no_grad():
            logits = model.model(input_ids=ids, **inputs, **prompt.features).logits[0, -1]
        expected = logits.log_softmax(0)[tokens].tolist()
        assert found[request.key].log_probs == pytest.approx(expected, abs=2e-5)
    assert found["ordered 0 0"].log_probs != found["reversed 0 0"].log_probs


def test_choices_of_several_tokens_and_bad_videos_cost_their_own_request(models, media):
    good, words, none = list(requests(media, ["ordered"]))[:3]
    good.choices, words.choices = "AB", ("left", "a very long choice")
    missing = GenerationRequest("missing", good.prompt, ["none.mp4"], choices="AB")
    found = {each.key: each for each in backend(models()).weigh([good, words, none, missing])}
    assert found[good.key].error is None and len(found[good.key].log_probs) == 2
    assert "is not one token of this model's" in found[words.key].error and found[words.key].log_probs is None
    assert "they are none, or the same" in found[none.key].error
    assert "no such file" in found["missing"].error
