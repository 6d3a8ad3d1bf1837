"""Requests to an OpenAI-compatible server: what is sent, and what happens where the server fails."""

import base64
import contextlib
import dataclasses
import email.utils
import gzip
import http.server
import io
import json
import re
import sys
import threading
import time

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stand_in_server import completion

from videor1_trl import load_video, reverse_frames
from videor1_trl.generation.backends import make_backend
from videor1_trl.generation.requests import GenerationRequest, GenerationSettings
from videor1_trl.generation.server_backend import ServerBackend, ServerError, fitted


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Pauses between tries are noted instead of waited for; no key from outside."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    pauses = []

    async def brief(seconds):
        pauses.append(seconds)
        await sleep(0.001)

    monkeypatch.setattr(anyio, "sleep", brief)
    return pauses


sleep = anyio.sleep


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


@pytest.mark.parametrize("variable", ["OPENAI_ADMIN_KEY", "OPENAI_BASE_URL"])
def test_nothing_else_of_openais_environment_goes_to_a_server(variable, serve, monkeypatch):
    monkeypatch.setenv(variable, "http://127.0.0.1:9/of-openai")
    server = serve(lambda body, attempt: completion())
    list(backend(server).generate([ask("a")]))
    assert not any("of-openai" in value for value in server.headers[0].values())
    assert server.headers[0].get("Authorization") is None


def test_a_login_in_the_address_is_sent_and_never_said(serve, caplog):
    caplog.set_level("DEBUG")
    server = serve(lambda body, attempt: completion() if attempt == 2 else (500, b"", {}))
    made = ServerBackend(server.url.replace("//", "//me:se%20cret@"), "tiny", GenerationSettings())
    assert list(made.generate([ask("a")]))[0].text
    sent = {headers.get("Authorization") for headers in server.headers}
    assert sent == {"Basic " + base64.b64encode(b"me:se cret").decode()}
    assert "Trying again" in caplog.text and "cret" not in caplog.text + str(made.describe())


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
        "opened": completion("left?</think><answer>A</answer>"),
        "filtered": completion(None, "content_filter"),
    }
    server = serve(lambda body, attempt: answers[body["messages"][-1]["content"]])
    found = {each.key: each for each in backend(server).generate(map(ask, answers))}
    assert (found["cut"].text, found["cut"].finished) == ("<think>", False)
    assert found["thought"].text == found["opened"].text == "<think>left?</think><answer>A</answer>"
    assert (found["filtered"].text, found["filtered"].finished) == ("", None)


def test_a_server_that_counts_nothing_is_believed(serve):
    server = serve(lambda body, attempt: {**completion(), "usage": None})
    [found] = backend(server, GenerationSettings(max_prompt_length=1)).generate([ask("a")])
    assert (found.text, found.num_tokens, found.num_prompt_tokens) == ("<answer>A</answer>", None, None)


def test_a_prompt_that_begins_the_answer_needs_a_server_that_goes_on_with_it(serve):
    prompt = [{"role": "user", "content": "which way?"}, {"role": "assistant", "content": "so "}]
    server = serve(lambda body, attempt: completion("left"))
    [refused] = backend(server).generate([GenerationRequest("a", prompt)])
    assert refused.text is None and "a server closes" in refused.error and not server.bodies
    going_on = {"continue_final_message": True, "add_generation_prompt": False}
    [found] = backend(server, extra_body=going_on).generate([GenerationRequest("a", prompt)])
    assert found.text == "so left"


@pytest.mark.parametrize(
    "answer",
    [completion("<answer>A</answer>", reasoning_content="left?"), completion("left?</think><answer>A</answer>")],
)
def test_thoughts_that_the_prompt_has_begun_are_opened_once(answer, serve):
    prompt = [{"role": "user", "content": "which way?"}, {"role": "assistant", "content": "<think>"}]
    server = serve(lambda body, attempt: answer)
    going_on = {"continue_final_message": True, "add_generation_prompt": False}
    [found] = backend(server, extra_body=going_on).generate([GenerationRequest("a", prompt)])
    assert found.text == "<think>left?</think><answer>A</answer>"


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
    assert 0.37 < no_waiting[0] <= 0.5 < 0.75 <= no_waiting[1] <= 1.0 < 1.5 <= no_waiting[2] <= 2.0  # up to 25% less


def test_the_server_says_how_long_to_wait(serve, no_waiting):
    in_a_while = email.utils.formatdate(time.time() + 30, usegmt=True)
    waits = {1: "7", 2: in_a_while, 3: "soon"}
    server = serve(lambda body, attempt: completion() if attempt == 4 else (429, {}, {"Retry-After": waits[attempt]}))
    assert list(backend(server).generate([ask("a")]))[0].error is None
    assert no_waiting[0] == 7.0 and 20 < no_waiting[1] <= 30 and 1.5 <= no_waiting[2] <= 2.0


def test_nobody_waits_for_hours_because_a_server_says_so(serve, no_waiting):
    """openai's client gives such a request up at once, or its older versions ask again after the usual pause."""
    server = serve(lambda body, attempt: (429, {"error": "quota"}, {"Retry-After": "9999"}))
    with pytest.raises(ServerError, match="the server failed [13] times, last with status 429: quota"):
        list(backend(server, retries=2).generate([ask("a")]))
    assert sum(no_waiting) < 2


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


def test_requests_that_ended_while_nobody_asked_come_in_the_order_in_which_they_ended(serve):
    def answer(body, attempt):
        time.sleep(0.4 * int(body["messages"][-1]["content"]))
        return completion()

    server = serve(answer)
    asked = backend(server, concurrency=4).generate(map(ask, range(4)))
    found = [next(asked).key]
    time.sleep(2)  # all others end meanwhile
    assert [*found, *(each.key for each in asked)] == [str(index) for index in range(4)]


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
    assert len(no_waiting) == 1


@pytest.mark.parametrize(
    "said",
    [
        {"choices": []},
        {"error": "x"},
        [],
        {"choices": [{"text": "a"}]},
        {"choices": [{"message": None}]},
        None,
        "busy",
    ],
)
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


@pytest.mark.parametrize("hung", ["pause", "answer"])
def test_a_run_that_is_left_early_waits_neither_for_a_pause_nor_for_an_answer(hung, serve, monkeypatch):
    monkeypatch.setattr(anyio, "sleep", sleep)
    let_go = threading.Event()

    def answer(body, attempt):
        if body["messages"][-1]["content"] == "0":
            return completion()
        if hung == "answer":
            let_go.wait(60)
        return 429, b"", {"Retry-After": "60"}

    server = serve(answer)
    found = backend(server, concurrency=3).generate(map(ask, range(3)))
    assert next(found).key == "0"
    began = time.monotonic()
    found.close()
    left = time.monotonic() - began
    let_go.set()
    assert left < 20


def test_an_answer_that_is_no_json_counts_as_a_failure_of_the_server(serve):
    """A proxy may answer every request with a page of its own."""
    server = serve(lambda body, attempt: (200, b"<html>sign in</html>", {"Content-Type": "text/html"}))
    with pytest.raises(ServerError, match="answered with what is no JSON: '<html>sign in</html>'"):
        list(backend(server).generate([ask("a")]))


def test_an_answer_that_breaks_off_is_asked_for_again(serve, no_waiting):
    server = serve(lambda body, attempt: completion() if attempt == 2 else (200, b"{", {"Content-Length": "100"}))
    assert list(backend(server).generate([ask("a")]))[0].text == "<answer>A</answer>"
    assert len(no_waiting) == 1


# --- hostile answers: each costs its request, and nothing malformed comes out


def answered(serve, said, **options):
    """What becomes of one request of three, whose answer is `said`; the others are answered as usual."""
    server = serve(lambda body, attempt: said if body["messages"][-1]["content"] == "bad" else completion())
    made = backend(server, **{"retries": 1, "timeout_seconds": 5.0, "concurrency": 1} | options)
    found = {each.key: each for each in made.generate([ask("good"), ask("bad"), ask("fine")])}
    assert found["good"].text and found["fine"].text
    line = json.dumps(dataclasses.asdict(found["bad"]))
    assert dataclasses.asdict(found["bad"]) == json.loads(line)
    line.encode()
    return found["bad"]


@pytest.mark.parametrize(
    "content", [5, True, {"text": "a"}, [5], [{"type": "text", "text": 5}], ["a"], 1e400, 10**400]
)
@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_a_content_that_is_no_text_is_an_error_of_its_request(content, field, serve):
    said = completion()
    said["choices"][0]["message"][field] = content
    bad = answered(serve, said)
    assert bad.text is None and f"a {field} that is no text but {type(content).__name__}" in bad.error


def test_a_content_in_parts_is_their_text(serve):
    parts = [{"type": "text", "text": "<answer>"}, {"type": "text", "text": "B</answer>"}, {"type": "refusal"}]
    assert answered(serve, completion(parts)).text == "<answer>B</answer>"
    assert answered(serve, completion(None)).text == answered(serve, completion([])).text == ""


def test_half_characters_of_an_answer_can_be_written(serve):
    said = json.dumps(completion("A?")).replace("A?", "A\\ud800").encode()
    assert answered(serve, (200, said, {})).text == "A?"


@pytest.mark.parametrize("count", ["9", True, -1, 10**30, 1.5, None, [9], {}])
def test_a_count_that_there_cannot_be_is_none(count, serve):
    said = completion() | {"usage": {"prompt_tokens": count, "completion_tokens": count}}
    found = answered(serve, said)
    assert (found.text, found.num_tokens, found.num_prompt_tokens) == ("<answer>A</answer>", None, None)


@pytest.mark.parametrize(
    "body, message",
    [
        (b'{"choices": "\xff\xfe"}', "no UTF-8"),
        (b"[" * 100_000, "no JSON"),
        (b'{"usage": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"", "no JSON"),
        (
            json.dumps({"choices": []}).encode()[:-1] + b', "a": ' + b"[" * 600 + b"]" * 600 + b"}",
            "without a choice|no JSON",
        ),
    ],
)
def test_a_body_that_cannot_be_read_is_an_error_of_its_request(body, message, serve):
    bad = answered(serve, (200, body, {}))
    assert bad.text is None and re.search(message, bad.error)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "gzip"},
        {"Content-Type": "application/json; charset=rot13"},
        {"Content-Type": "application/json; charset=undefined"},
    ],
)
def test_headers_that_lie_cost_their_request_at_most(headers, serve):
    found = answered(serve, (200, json.dumps(completion()).encode(), headers))
    assert found.text == "<answer>A</answer>" or "failed" in found.error


@pytest.mark.parametrize("value", ["²", "-1", "nan", "1e400", "", "0x7", "Mon, 99 Foo 99999 99:99:99", "9" * 400])
@pytest.mark.parametrize("name", ["Retry-After", "retry-after-ms"])
def test_a_pause_that_nobody_can_read_is_the_usual_one(value, name, serve, no_waiting):
    headers = {name: value.encode().decode("latin-1")}
    server = serve(lambda body, attempt: completion() if attempt > 1 else (429, {}, headers))
    found = list(backend(server).generate([ask("a")]))
    assert (found[0].error is None and sum(no_waiting) < 2) or "failed 1 times" in str(found[0].error)


def test_a_body_without_end_is_ended_by_its_size(serve, monkeypatch):
    monkeypatch.setattr("videor1_trl.generation.server_client.MAX_ANSWER_BYTES", 1000)
    assert "more than 1,000 bytes" in answered(serve, (200, b"x" * 5000, {})).error
    packed = gzip.compress(bytes(10**6))  # a thousand bytes that unpack to a million
    assert "more than 1,000 bytes" in answered(serve, (200, packed, {"Content-Encoding": "gzip"})).error


def test_a_body_that_comes_byte_by_byte_is_ended_by_its_time(monkeypatch):
    """Each byte came within the time-out of a read; the whole took as long as the server liked."""
    stop = threading.Event()

    class Dripping(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not stop.wait(0.1):
                    self.wfile.write(b" ")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    made = ServerBackend(
        f"http://127.0.0.1:{server.server_port}/v1", "tiny", GenerationSettings(), retries=1, timeout_seconds=0.5
    )
    since = time.monotonic()
    with pytest.raises(ServerError, match="failed 2 times, last with ReadTimeout: no whole answer within 0.5 s"):
        list(made.generate([ask("a")]))
    assert time.monotonic() - since < 20
    stop.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed_and_the_key_stays(status, serve, caplog):
    other = serve(lambda body, attempt: completion())
    first = serve(lambda body, attempt: (status, b"", {"Location": other.url + "/chat/completions"}))
    with pytest.raises(ServerError, match=f"status {status}.*a redirect, which is not followed") as caught:
        list(backend(first, api_key="a-secret-key-of-some-length").generate([ask("a")]))
    assert not other.bodies and "a-secret-key" not in str(caught.value) + caplog.text


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_key_that_the_server_echoes_is_in_no_message(status, serve, caplog):
    key = "sk-0123456789abcdef"
    server = serve(lambda body, attempt: (status, {"error": {"message": f"Incorrect API key provided: {key}"}}, {}))
    said = ""
    try:
        said = str(list(backend(server, api_key=key, retries=1).generate([ask("a")])))
    except ServerError as error:
        said = str(error)
    assert "Incorrect API key provided: ***" in said and key not in said + caplog.text
    echoing = serve(lambda body, attempt: completion(f"your key is {key}"))
    assert list(backend(echoing, api_key=key).generate([ask("a")]))[0].text == "your key is ***"


def test_a_login_in_an_address_that_is_refused_is_not_said():
    with pytest.raises(ValueError, match="base_url") as caught:
        ServerBackend("ftp://me:secret@host/v1", "tiny", GenerationSettings())
    assert "secret" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "type", "content", "0"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(content=JSON, reasoning=JSON, reason=JSON, usage=JSON, count=JSON)
def test_answers_of_any_shape_give_text_or_an_error(content, reasoning, reason, usage, count):
    made = ServerBackend("http://localhost", "tiny", GenerationSettings())
    message = {"content": content, "reasoning_content": reasoning}
    for used in (usage, {"prompt_tokens": count, "completion_tokens": count}):
        answer = {"choices": [{"message": message, "finish_reason": reason}], "usage": used}
        found = made._completion("a", "", answer)
        assert isinstance(found.text, str) != isinstance(found.error, str) and found.finished in (True, False, None)
        assert all(each is None or type(each) is int for each in (found.num_tokens, found.num_prompt_tokens))
        json.dumps(dataclasses.asdict(found)).encode()
    made._completion("a", "", content)


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


def test_a_missing_client_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "videor1_trl.generation.server_client", raising=False)
    with pytest.raises(ImportError, match=re.escape("pip install '.[server]'")):
        make_backend("server", "tiny", GenerationSettings(), base_url="http://localhost")


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


def test_a_server_that_is_down_is_warned_of_once(serve, caplog):
    """Eight requests under way, five tries each: it was thirty lines."""
    server = serve(lambda body, attempt: completion())
    server.http.shutdown()
    server.http.server_close()
    down = ServerBackend(server.url, "m", GenerationSettings(), concurrency=8, retries=2)
    with pytest.raises(ServerError):
        list(down.generate(ask(str(key)) for key in range(8)))
    assert len([record for record in caplog.records if "Trying again" in record.message]) == 1


# --- choices weighed


BEGUN = [{"role": "user", "content": "which way?"}, {"role": "assistant", "content": "<answer>"}]
GOES_ON = {"continue_final_message": True, "add_generation_prompt": False}


def likeliest(tokens):
    top = [{"token": token, "logprob": value} for token, value in tokens.items()]
    found = completion("A")
    found["choices"][0]["logprobs"] = {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": top}]}
    return found


def weigh(server, choices=("A", "B"), **options):
    request = GenerationRequest("q", BEGUN, choices=choices)
    [found] = backend(server, extra_body=GOES_ON, **options).weigh([request])
    return found


def test_choices_weigh_what_the_server_says_of_its_likeliest_tokens(serve):
    """ " A" is A, too; the likelier of both counts."""
    server = serve(lambda body, attempt: likeliest({"A": -0.5, " A": -3.0, "B": -2, "left": -4.0}))
    assert weigh(server).log_probs == [-0.5, -2.0]
    body = server.bodies[0]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 1)
    assert body["continue_final_message"] is True and body["messages"][-1]["content"] == "<answer>"


def test_a_choice_that_the_server_does_not_weigh_is_named(serve):
    found = weigh(serve(lambda body, attempt: likeliest({"A": -0.5, "left": -4.0})))
    assert found.log_probs is None
    assert found.error.startswith(
        "the server gave its 2 likeliest tokens, and B of the choices A, B are not among them"
    )


def test_a_server_without_log_probabilities_is_named(serve):
    for answer in (completion("A"), {"choices": []}, likeliest({})):
        found = weigh(serve(lambda body, attempt, answer=answer: answer))
        assert found.log_probs is None
    assert "the server gives no log-probabilities" in weigh(serve(lambda body, attempt: completion("A"))).error


def test_weighing_fails_as_asking_does(serve):
    server = serve(lambda body, attempt: (500, {"error": {"message": "down"}}, {}))
    with pytest.raises(
        ServerError, match="answered no request: the server failed 2 times, last with status 500: down"
    ):
        weigh(server, retries=1)
    closed = backend(serve(lambda body, attempt: completion())).weigh([GenerationRequest("q", BEGUN, choices="AB")])
    assert "a turn of the assistant's, which a server closes" in next(closed).error
