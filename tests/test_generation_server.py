"""Requests to an OpenAI-compatible server: what is sent, and what happens where the server fails."""

import base64
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image
from stand_in_server import completion

from videor1_trl import load_video, reverse_frames
from videor1_trl.generation import make_backend
from videor1_trl.generation_requests import GenerationRequest, GenerationSettings
from videor1_trl.generation_server import ServerBackend, ServerError, fitted


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Pauses between tries are noted instead of waited for; no key from outside."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    pauses = []
    monkeypatch.setattr(threading.Event, "wait", patched(threading.Event.wait, pauses))
    return pauses


def patched(wait, pauses):
    def brief(event, timeout=None):
        if timeout is not None and timeout >= 1 and threading.current_thread().name.startswith("server"):
            pauses.append(timeout)
            timeout = 0.001
        return wait(event, timeout)

    return brief


def backend(server, settings=None, **options):
    return ServerBackend(server.url, "tiny", settings or GenerationSettings(), **options)


def ask(key, text=None, **media):
    return GenerationRequest(str(key), [{"role": "user", "content": text or str(key)}], **media)


def pictures(body):
    urls = [part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in urls]


# --- what is sent


def test_frames_are_sent_in_order_before_the_text_within_the_budget(serve, media):
    server = serve(lambda body, attempt: completion())
    settings = GenerationSettings(video_max_pixels=28 * 28, max_new_tokens=33)
    found = list(
        backend(server, settings, image_format="png").generate([ask("which way?", videos=media["videos"][:1])])
    )
    assert (found[0].text, found[0].num_tokens, found[0].finished) == ("<answer>A</answer>", 9, True)
    assert found[0].num_prompt_tokens == 70
    body = server.bodies[0]
    assert {key: body[key] for key in body if key != "messages"} == {
        "model": "tiny",
        "max_tokens": 33,
        "temperature": 0.0,
        "top_p": 1.0,
    }
    frames, _ = load_video(media["videos"][0])
    sent = pictures(body)
    assert [each.shape for each in sent] == [(28, 28, 3)] * len(frames)  # 56 x 56 within 784 pixels
    expected = [int(np.abs(each.mean((0, 1)) - frames.float().mean((2, 3)).numpy()).sum(1).argmin()) for each in sent]
    assert expected == list(range(len(frames)))
    assert body["messages"][-1]["content"][-1] == {"type": "text", "text": "which way?"}


def test_a_contrast_applies_to_what_is_sent(serve, media):
    server = serve(lambda body, attempt: completion())
    plain, turned = ask("a", videos=media["videos"][:1]), ask("b", videos=media["videos"][:1], contrast=reverse_frames)
    list(backend(server, concurrency=1).generate([plain, turned]))
    first, second = map(pictures, server.bodies)
    assert len(first) == 8 and all(np.array_equal(a, b) for a, b in zip(first, second[::-1], strict=True))


def test_images_and_plain_text_are_sent(serve, media):
    server = serve(lambda body, attempt: completion())
    system = {"role": "system", "content": "be brief"}
    requests = [ask("look", images=[media["image"]]), GenerationRequest("t", [system, *ask("read").prompt])]
    list(backend(server, GenerationSettings(image_max_pixels=400), concurrency=1).generate(requests))
    assert [each.shape for each in pictures(server.bodies[0])] == [(20, 20, 3)]
    assert server.bodies[1]["messages"] == [system, {"role": "user", "content": "read"}]


def test_a_video_can_be_sent_as_one_mp4_of_the_sampled_frames_at_their_rate(serve, media):
    server = serve(lambda body, attempt: completion())
    list(backend(server, video_as="video_url").generate([ask("a", videos=media["videos"][:1])]))
    part = server.bodies[0]["messages"][-1]["content"][0]
    assert part["type"] == "video_url" and part["video_url"]["url"].startswith("data:video/mp4;base64,")
    sent, metadata = load_video({"bytes": base64.b64decode(part["video_url"]["url"].split(",")[1])}, num_frames=99)
    frames, sampled = load_video(media["videos"][0])
    assert len(sent) == len(frames) == 8
    assert (sent.float() - frames.float()).abs().mean() < 6  # of 255; h264 keeps less of the colours
    times = sampled.timestamps
    assert metadata.fps == pytest.approx(7 / (times[-1] - times[0]), abs=0.01)


def test_what_not_every_server_knows_is_sent_only_where_it_is_set(serve):
    server = serve(lambda body, attempt: completion())
    settings = GenerationSettings(temperature=0.7, top_k=5, repetition_penalty=1.1, top_p=0.9)
    extra = {"max_tokens": None, "max_completion_tokens": 7}
    list(backend(server, settings, extra_body=extra).generate([ask("a"), ask("b")]))
    body, other = server.bodies
    assert (body["top_k"], body["repetition_penalty"], body["temperature"], body["top_p"]) == (5, 1.1, 0.7, 0.9)
    assert body["max_completion_tokens"] == 7 and "max_tokens" not in body
    assert {body["seed"], other["seed"]} == {settings.sampling_seed("a"), settings.sampling_seed("b")}


@pytest.mark.parametrize("given, environment, sent", [("own", "env", "own"), (None, "env", "env"), (None, None, None)])
def test_the_api_key_is_the_argument_or_the_environments(given, environment, sent, serve, monkeypatch):
    if environment:
        monkeypatch.setenv("OPENAI_API_KEY", environment)
    server = serve(lambda body, attempt: completion())
    made = backend(server, api_key=given)
    list(made.generate([ask("a")]))
    assert server.headers[0].get("Authorization") == (sent and f"Bearer {sent}")
    assert str(sent) not in json.dumps(made.describe()) or sent is None


def test_requests_run_beside_each_other_up_to_the_limit(serve):
    three = threading.Barrier(3)  # none of them is answered before there are three

    def together(body, attempt):
        three.wait(timeout=10)
        return completion()

    server = serve(together)
    found = list(backend(server, concurrency=3).generate(ask(index) for index in range(12)))
    assert sorted(int(each.key) for each in found) == list(range(12))
    assert server.most_under_way == 3


# --- what comes back


def test_a_cut_off_completion_and_separated_thoughts(serve):
    answers = {
        "cut": completion("<think>", "length"),
        "thought": completion("<answer>A</answer>", reasoning_content="left?"),
        "filtered": completion(None, "content_filter"),
    }
    server = serve(lambda body, attempt: answers[body["messages"][-1]["content"]])
    found = {each.key: each for each in backend(server).generate(map(ask, answers))}
    assert (found["cut"].text, found["cut"].finished) == ("<think>", False)
    assert found["thought"].text == "<think>left?</think><answer>A</answer>"
    assert (found["filtered"].text, found["filtered"].finished) == ("", None)


def test_a_prompt_that_the_server_counts_too_long_is_an_error(serve):
    server = serve(lambda body, attempt: completion())
    found = list(backend(server, GenerationSettings(max_prompt_length=69)).generate([ask("a")]))
    assert found[0].text is None and "70 tokens, more than max_prompt_length (69)" in found[0].error


# --- failures


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_with_growing_pauses(status, serve, no_waiting):
    server = serve(lambda body, attempt: completion() if attempt == 4 else (status, {"error": "busy"}, {}))
    found = list(backend(server).generate([ask("a")]))
    assert found[0].text == "<answer>A</answer>"
    assert no_waiting == [1.0, 2.0, 4.0]


def test_the_server_says_how_long_to_wait_within_reason(serve, no_waiting):
    waits = {1: "7", 2: "9999", 3: "Wed, 21 Oct 2026 07:28:00 GMT"}
    server = serve(lambda body, attempt: completion() if attempt == 4 else (429, {}, {"Retry-After": waits[attempt]}))
    assert list(backend(server).generate([ask("a")]))[0].error is None
    assert no_waiting == [7.0, 60.0, 4.0]


def test_a_refused_request_has_the_servers_message_and_is_not_sent_again(serve):
    def answer(body, attempt):
        bad = body["messages"][-1]["content"] == "bad"
        return (400, {"error": {"message": "too many images"}}, {}) if bad else completion()

    server = serve(answer)
    found = {each.key: each for each in backend(server).generate([ask("good"), ask("bad"), ask("fine")])}
    assert found["bad"].error == "the server refused it with status 400: too many images"
    assert found["good"].text and found["fine"].text and len(server.bodies) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_ends_the_run(status, serve):
    server = serve(lambda body, attempt: (status, {"message": "no such model"}, {}))
    with pytest.raises(ServerError, match=f"refused 'tiny' with status {status}: no such model"):
        list(backend(server).generate(ask(index) for index in range(100)))
    assert len(server.bodies) < 30


def test_one_request_that_the_server_fails_on_is_an_error_and_a_failing_server_ends_the_run(serve):
    one_fails = serve(
        lambda body, attempt: (500, b"crash", {}) if "3" in body["messages"][-1]["content"] else completion()
    )
    found = {each.key: each for each in backend(one_fails, retries=1).generate(map(ask, range(6)))}
    assert found["3"].error == "the server failed 2 times, last with status 500: crash"
    assert all(found[str(index)].text for index in (0, 1, 2, 4, 5))
    all_fail = serve(lambda body, attempt: (500, b"crash", {}))
    with pytest.raises(ServerError, match="3 requests in a row: the server failed 2 times"):
        list(backend(all_fail, retries=1, concurrency=1).generate(ask(index) for index in range(6)))


def test_requests_held_back_while_the_server_was_down_are_not_reported_as_failed(serve):
    """The first is answered, the second and third fail, and so does the fourth: nothing is said of the last three."""
    server = serve(lambda body, attempt: completion() if "0" in body["messages"][-1]["content"] else (500, b"", {}))
    found = []
    with pytest.raises(ServerError):
        for each in backend(server, retries=0, concurrency=1).generate(map(ask, range(9))):
            found.append(each.key)
    assert found == ["0"]


def test_a_server_that_is_not_there_ends_the_run():
    with pytest.raises(ServerError, match="answered no request: the server failed 2 times"):
        list(ServerBackend("http://127.0.0.1:9/v1", "tiny", GenerationSettings(), retries=1).generate([ask("a")]))


def test_a_server_that_does_not_answer_in_time_is_asked_again(serve, no_waiting):
    def answer(body, attempt):
        if attempt == 1:
            time.sleep(0.5)
        return completion()

    server = serve(answer)
    assert list(backend(server, timeout_seconds=0.2).generate([ask("a")]))[0].text == "<answer>A</answer>"
    assert no_waiting == [1.0]


@pytest.mark.parametrize("said", [{"choices": []}, {"error": "x"}, [], {"choices": [{"text": "a"}]}])
def test_an_answer_without_a_choice_is_an_error_of_its_request(said, serve):
    server = serve(lambda body, attempt: said)
    assert "answered without a choice" in list(backend(server).generate([ask("a")]))[0].error


def test_bad_media_is_an_error_of_its_request_and_is_not_sent(serve):
    server = serve(lambda body, attempt: completion())
    found = {each.key: each for each in backend(server).generate([ask("bad", videos=["none.mp4"]), ask("good")])}
    assert "no such file" in found["bad"].error and found["good"].text and len(server.bodies) == 1


def test_a_run_that_is_left_early_tries_no_further(serve):
    server = serve(lambda body, attempt: completion() if body["messages"][-1]["content"] == "0" else (500, b"", {}))
    found = backend(server, concurrency=2, retries=1500).generate(ask(index) for index in range(1000))
    assert next(found).key == "0"
    found.close()
    assert len(server.bodies) < 1500


# --- settings


@pytest.mark.parametrize(
    "options, message",
    [
        ({"base_url": None}, "base_url (None) must begin with http"),
        ({"base_url": "localhost:8000"}, "base_url ('localhost:8000')"),
        ({"concurrency": 0}, "concurrency (0)"),
        ({"retries": -1}, "retries (-1)"),
        ({"video_as": "gif"}, "video_as ('gif')"),
        ({"image_format": "gif"}, "image_format ('gif')"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(ValueError) as refused:
        make_backend("server", "tiny", GenerationSettings(), **{"base_url": "http://localhost", **options})
    assert str(refused.value).startswith(message)


def test_the_description_is_json_without_key_or_password():
    made = make_backend("server", "tiny", GenerationSettings(), base_url="http://me:secret@host/v1/", api_key="hidden")
    said = json.dumps(made.describe())
    assert "secret" not in said and "hidden" not in said
    assert json.loads(said)["base_url"] == "http://host/v1" and json.loads(said)["settings"]["video_max_frames"] == 16


@pytest.mark.parametrize(
    "size, most, least, expected",
    [
        ((56, 56), 784, None, (28, 28)),
        ((640, 360), 100352, None, (422, 236)),  # scale 0.66: 422.4 x 237.6, rounded down to even
        ((10, 10), None, 144, (12, 12)),
        ((31, 17), 1000, None, (31, 17)),  # within the budget: as it is
        ((1000, 1), 100, None, (316, 2)),  # a side has two pixels at least
    ],
)
def test_pictures_keep_their_shape_within_the_budget(size, most, least, expected):
    assert fitted(Image.new("RGB", size), most, least).size == expected
