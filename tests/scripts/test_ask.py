"""`examples/ask.py` on tiny models: what it prints and draws, and what it says to those who call it wrongly."""

import numpy as np
import pytest
import tiny
import torch
from helpers import refused
from PIL import Image
from stand_in_server import completion
from transformers import Qwen2_5_VLForConditionalGeneration

from videor1_trl import load_video, make_prompt, reverse_frames
from videor1_trl.scripts import ask, toy


@pytest.fixture
def run(run_script, models):
    """`run(*arguments)`: what the script prints, on the tiny Qwen2.5-VL unless a model is named."""

    def call(*arguments):
        return run_script(ask, arguments, {"--model_name_or_path": models().path, "--max_new_tokens": 6})

    return call


@pytest.fixture
def scripted(monkeypatch):
    """`scripted(text)`: the model's completion, whatever it is asked."""

    def script(model, text):
        ids = [
            *model.processor.tokenizer.encode(text, add_special_tokens=False),
            model.model.config.text_config.eos_token_id,
        ]
        step = iter(ids * 2)

        def want(module, inputs, output):
            output.logits[..., next(step)] = 1000.0

        original = Qwen2_5_VLForConditionalGeneration.from_pretrained.__func__

        def load(cls, *args, **kwargs):
            loaded = original(cls, *args, **kwargs)
            loaded.register_forward_hook(want)
            return loaded

        monkeypatch.setattr(Qwen2_5_VLForConditionalGeneration, "from_pretrained", classmethod(load))

    return script


# --- what is printed


def test_the_answer_is_streamed_and_extracted(run, scripted, models, media):
    scripted(models(), "<think> left </think> <answer> A </answer>")
    out = run("--video", media["videos"][0], "--question", "which way?", "--max_new_tokens", 99)
    lines = out.splitlines()
    assert lines[0].startswith("[frames in order, ") and lines[0].endswith(" prompt tokens]")
    assert lines[1:] == ["<think> left </think> <answer> A </answer>", "answer: A"]


def test_with_a_contrast_both_answers_are_printed(run, media):
    out = run("--video", media["videos"][0], "--question", "which way?", "--contrast", "--max_new_tokens", 3)
    assert "[shuffled frames, " in out and out.count("(cut off after max_new_tokens, 3)") == 2
    ordered, shuffled = out.splitlines()[-2:]
    assert ordered == "answer, frames in order: none, the completion has no <answer>...</answer>"
    assert shuffled.startswith("answer, shuffled frames: ")


@pytest.mark.parametrize("flag", ["--problem_type", "--problem-type"])
def test_images_and_text_are_asked_about_and_a_question_can_be_sent_as_it_is(flag, run, media):
    out = run("--image", media["image"], media["image"], "--question", "what?", flag, "none")
    text = out.splitlines()[1]
    assert out.startswith("[images, ") and text and out.splitlines()[-1] == f"answer: {text.strip()}"
    assert run("--question", "what?").startswith("[text only, ")


def test_the_prompt_is_that_of_training():
    args = ask.ScriptArguments(question="Which?", options=["A. left", "B. right"], video="a.mp4", start=1.0)
    request = ask.make_request(args, ask_settings(), None)
    assert request.prompt == make_prompt("Which?", "multiple choice", ["A. left", "B. right"])
    assert request.videos == [{"path": "a.mp4", "start": 1.0, "end": None}]
    free = ask.make_request(ask.ScriptArguments(question="Which?"), ask_settings(), None)
    assert free.prompt == make_prompt("Which?", "free-form")
    typed = ask.make_request(ask.ScriptArguments(question="Which?", problem_type="OCR"), ask_settings(), None)
    assert typed.prompt == make_prompt("Which?", "OCR")


def ask_settings(**settings):
    from videor1_trl.generation.requests import GenerationSettings

    return GenerationSettings(**settings)


# --- what answers


def test_a_server_answers_too(run, serve, media):
    server = serve(lambda body, attempt: completion("<answer> left </answer>"))
    here = ["--backend", "server", "--base_url", server.url, "--model_name_or_path", "some-model"]
    out = run(*here, "--video", media["videos"][0], "--question", "which way?", "--contrast", "reversed")
    assert out.splitlines() == [
        "[frames in order, 70 prompt tokens]",
        "<answer> left </answer>",
        "[reversed frames, 70 prompt tokens]",
        "<answer> left </answer>",
        "answer, frames in order: left",
        "answer, reversed frames: left",
    ]
    pictures = [
        [part["image_url"] for part in body["messages"][-1]["content"][:-1] if "image_url" in part]
        for body in server.bodies
    ]
    assert pictures[0] == pictures[1][::-1] != pictures[1]


# --- what is drawn


@pytest.mark.parametrize("family, side", [("qwen2_5_vl", 28), ("qwen3_vl", 28), ("smolvlm", 32)])
def test_the_picture_has_the_resized_frames_pixel_by_pixel(family, side, run, models, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (10, side, side, 3), dtype=np.uint8)
    video = tiny.write_mp4(tmp_path / "a.mp4", frames, fps=2)
    target = tmp_path / "frames.png"
    budget = ["--video_max_pixels", side * side, "--video_min_pixels", side * side]
    named = ["--model_name_or_path", models(family).path]
    out = run("--video", video, "--question", "?", "--contrast", "reversed", "--show_frames", target, *budget, *named)
    assert out.startswith(f"Saved {target}.")
    seen, _ = load_video(video)  # 10 frames of the budget's size (SmolVLM has no other): none is resized
    picture = np.asarray(Image.open(target))
    factor = 4  # 28 and 32 are enlarged to 112 pixels or more
    width = factor * side
    for block, shown in enumerate((seen, reverse_frames(seen, torch.Generator()))):
        for place, frame in enumerate(shown):
            # below each block's title 24 pixels further; two lines of 8 and 2 frames, each with 24 pixels for its time
            top = 4 + 24 + block * (24 + 2 * (width + 24)) + place // 8 * (width + 24)
            left = 8 + place % 8 * (width + 8)
            tile = picture[top : top + width : factor, left : left + width : factor]
            assert np.array_equal(tile, frame.permute(1, 2, 0).numpy()), (block, place)


def test_images_are_drawn_too(run, media, tmp_path):
    target = tmp_path / "image.png"
    run("--image", media["image"], "--question", "?", "--show-frames", target)
    tile = np.asarray(Image.open(target))[28 : 28 + 112 : 2, 8 : 8 + 112 : 2]  # 56 x 56, twice as large
    assert np.array_equal(tile, np.asarray(Image.open(media["image"])))


# --- what is refused, before the model is loaded


def test_wrong_arguments_end_with_one_line(run, media, tmp_path):
    video = ["--video", media["videos"][0]]
    question, server = ["--question", "which way?"], ["--backend", "server", "--base_url", "http://localhost:1/v1"]
    for arguments, message in (
        (video, "question is not set."),
        ([*question, "--model_name_or_path", str(tmp_path / "none")], "is not a folder"),
        ([*question, "--video", "none.mp4"], "none.mp4 is no file."),
        ([*question, "--contrast"], "--contrast, --start and --end need a --video."),
        ([*question, *video, "--contrast", "sideways"], "invalid choice: 'sideways'"),
        ([*question, *video, "--problem_type", "riddle"], "problem_type ('riddle') must be one of multiple choice"),
        ([*question, "--problem_type", "OCR", "--options", "A. left"], "--options are for --problem_type"),
        ([*question, "--show_frames", "a.png"], "--show_frames needs a --video or an --image."),
        ([*question, *video, "--show_frames", "a.png", *server], "--show_frames does not go with --backend server"),
        ([*question, "--backend", "server"], "--base_url is not set"),
        ([*question, *video, "--temperature", "-1"], "temperature (-1.0) must be 0 (greedy) or more."),
        ([*question, *video, "--start", "9"], "start (9.0)"),
        ([*question, *video, "--max_prompt_length", "3"], "more than --max_prompt_length (3)"),
    ):
        said = refused(run, *arguments)
        assert said.startswith("ask.py: ") and message in said and "\n" not in said, said


def test_the_toys_model_is_asked(run, tmp_path):
    """A model and a video as `make demo` leaves them behind."""
    for part in toy.make_model():
        part.save_pretrained(tmp_path / "model")
    toy.make_dataset(tmp_path / "data", "held_out", 2, seed=1, order_share=1.0, progress=False)
    out = run(
        *("--model_name_or_path", tmp_path / "model", "--video", tmp_path / "data/videos/held_out_00000.mp4"),
        *("--video_max_pixels", 784, "--question", "Which colour is first?", "--options", "A. red", "B. green"),
        *("--contrast", "--show_frames", tmp_path / "frames.png"),
    )
    assert len([line for line in out.splitlines() if line.startswith("answer, ")]) == 2
    assert Image.open(tmp_path / "frames.png").width == 8 + 8 * (112 + 8)
