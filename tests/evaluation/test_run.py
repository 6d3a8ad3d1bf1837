"""Evaluation: what is asked under each control, what a kill and a bad video cost, and figures worked out by hand."""

import copy
import json
from dataclasses import asdict, replace

import benchmark_files
import pytest
import torch

from videor1_trl import reverse_frames, shuffle_frames
from videor1_trl.evaluation.benchmarks import load_benchmark
from videor1_trl.evaluation.questions import Question
from videor1_trl.evaluation.run import (
    CONTROLS,
    ask,
    make_requests,
    read_answers,
    sample_questions,
    write_results,
)
from videor1_trl.evaluation.summary import named_weights, summarise
from videor1_trl.generation.journal import read_lines
from videor1_trl.generation.requests import GeneratedCompletion, GenerationSettings
from videor1_trl.generation.transformers_backend import TransformersBackend


class Scripted:
    """A backend that says what it is told to: `answers[key]` is a text, or an exception that ends the run."""

    def __init__(self, answers=None, settings=None, model="scripted"):
        self.answers, self.settings, self.model = answers or {}, settings or GenerationSettings(), model
        self.asked = []

    def generate(self, requests):
        for request in requests:
            self.asked.append(request.key)
            found = self.answers.get(request.key, "<answer>A</answer>")
            if isinstance(found, BaseException):
                raise found
            if isinstance(found, GeneratedCompletion):
                yield replace(found, key=request.key)
            else:
                yield GeneratedCompletion(request.key, found, 5, True, 100)

    def describe(self):
        return {"model": self.model, "device": "cpu", "settings": asdict(self.settings)}


def questions(count=4, **changes):
    """Multiple choice, two questions a video, gold A."""
    return [
        Question(
            f"q{number}",
            f"task{number % 2}",
            "Which way?",
            "multiple choice",
            "A",
            ("A. left", "B. right"),
            video=f"{number // 2}.mp4",
            cluster=str(number // 2),
            **changes,
        )
        for number in range(count)
    ]


def run(folder, asked, backend, controls=(), **options):
    journal = ask(asked, backend, folder, controls=controls, progress=False, **options)
    return read_answers(asked, journal, controls)


# What is asked


def test_every_control_changes_the_frames_and_nothing_else():
    asked = questions(1)
    requests = {request.key: request for request in make_requests(asked, Scripted(), list(CONTROLS))}
    assert list(requests) == ["ordered:q0", "shuffled:q0", "reversed:q0", "single-frame:q0", "text-only:q0"]
    frames = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1)

    def shown(key):
        request = requests[key]
        if request.contrast is None:
            return frames.flatten().tolist() if request.videos else None
        return request.contrast(frames, torch.Generator().manual_seed(request.seed)).flatten().tolist()

    assert shown("ordered:q0") == list(range(8)) and shown("reversed:q0") == list(range(8))[::-1]
    assert shown("shuffled:q0") != list(range(8)) and sorted(shown("shuffled:q0")) == list(range(8))
    assert len(set(shown("single-frame:q0"))) == 1 and shown("text-only:q0") is None
    assert all(request.prompt == asked[0].prompt for request in requests.values())
    assert requests["shuffled:q0"].contrast is shuffle_frames and requests["reversed:q0"].contrast is reverse_frames


def test_questions_on_one_video_are_asked_together():
    first, second, third = questions(3)
    keys = [request.key for request in make_requests([first, third, second], Scripted(), ["shuffled"])]
    assert keys == ["ordered:q0", "shuffled:q0", "ordered:q1", "shuffled:q1", "ordered:q2", "shuffled:q2"]


def test_only_questions_with_a_video_have_controls():
    image = replace(questions(1)[0], video=None, image="a.png")
    assert [request.key for request in make_requests([image], Scripted(), ["shuffled", "text-only"])] == ["ordered:q0"]


def test_a_draw_depends_on_the_question_and_the_seed():
    def seeds(settings):
        return [request.seed for request in make_requests(questions(2), Scripted(settings=settings), ["shuffled"])][
            1::2
        ]

    first = seeds(GenerationSettings())
    assert len(set(first)) == 2 and first == seeds(GenerationSettings()) != seeds(GenerationSettings(seed=1))


def test_a_sample_holds_every_smaller_one():
    all_of_them = questions(40)
    ten, five = sample_questions(all_of_them, 10), sample_questions(all_of_them, 5)
    assert len(ten) == 10 and [each for each in ten if each in five] == five
    assert ten == [each for each in all_of_them if each in ten]
    assert sample_questions(all_of_them, None) == all_of_them and len(sample_questions(all_of_them, 99)) == 40
    with pytest.raises(ValueError, match=r"limit \(0\) must be at least 1"):
        sample_questions(all_of_them, 0)


def test_an_unknown_control_is_refused():
    with pytest.raises(
        ValueError, match=r"control \('muted'\) must be one of shuffled, reversed, single-frame, text-only"
    ):
        list(make_requests(questions(1), Scripted(), ["muted"]))


# Going on


@pytest.mark.parametrize("stop_at", range(1, 8))
def test_a_run_that_broke_off_goes_on_and_its_figures_are_those_of_the_whole(tmp_path, stop_at):
    asked = questions(4)
    texts = {f"ordered:q{n}": f"<answer>{'AB'[n % 2]}</answer>" for n in range(4)}
    broken = [f"{condition}:q{n}" for n in range(4) for condition in ("ordered", "shuffled")][stop_at]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", asked, Scripted({**texts, broken: KeyboardInterrupt()}), ["shuffled"])
    backend = Scripted(texts)
    found, missing = run(tmp_path / "broken", asked, backend, ["shuffled"])
    assert missing == 0 and len(backend.asked) == 8 - stop_at
    whole, _ = run(tmp_path / "whole", asked, Scripted(texts), ["shuffled"])
    assert summarise(asked, found) == summarise(asked, whole)


def test_more_questions_and_controls_go_into_the_same_run(tmp_path):
    asked = questions(4)
    identity = {"benchmark": "b"}
    first, second = Scripted(), Scripted()
    run(tmp_path, asked[:2], first, identity=identity)
    found, missing = run(tmp_path, asked, second, ["reversed"], identity=identity)
    assert first.asked == ["ordered:q0", "ordered:q1"] and missing == 0
    assert "ordered:q0" not in second.asked and len(second.asked) == 2 + 4
    assert len(found["reversed"]) == 4


def test_other_settings_or_questions_are_another_run(tmp_path):
    asked = questions(2)
    run(tmp_path, asked, Scripted())
    with pytest.raises(ValueError, match=r"settings\.video_max_frames: 16 there, 32 now"):
        run(tmp_path, asked, Scripted(settings=GenerationSettings(video_max_frames=32)))
    with pytest.raises(ValueError, match="questions: "):
        run(tmp_path, [replace(each, gold="B") for each in asked], Scripted())
    other_device = Scripted()
    other_device.describe = lambda: {**Scripted().describe(), "device": "H100"}
    run(tmp_path, asked, other_device)
    assert other_device.asked == []


def test_processes_share_the_questions(tmp_path, monkeypatch):
    asked = questions(8)
    monkeypatch.setenv("WORLD_SIZE", "2")
    halves = []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        backend = Scripted()
        found, missing = run(tmp_path, asked, backend)
        halves.append(backend.asked)
        assert (missing == 0) == (rank == 1)
    assert sorted(sum(halves, [])) == sorted(f"ordered:q{n}" for n in range(8)) and all(halves)
    assert len(found["ordered"]) == 8


def test_errors_count_as_wrong_and_may_be_asked_again(tmp_path):
    asked = questions(4)
    gone = GeneratedCompletion("", None, error="0.mp4: no such file")
    found, _ = run(tmp_path, asked, Scripted({"ordered:q0": gone}))
    summary = summarise(asked, found)
    assert summary["scores"]["official"]["value"] == 0.75
    assert summary["outputs"]["ordered"]["errors"] == 1
    assert summary["outputs"]["ordered"]["first_errors"] == ["q0: 0.mp4: no such file"]
    again = Scripted()
    assert summarise(asked, run(tmp_path, asked, again)[0]) == summary and again.asked == []
    found, _ = run(tmp_path, asked, again, retry_errors=True)
    assert again.asked == ["ordered:q0"]
    assert summarise(asked, found)["scores"]["official"]["value"] == 1.0


# Figures


def test_figures_by_hand(tmp_path):
    """q0 to q3, gold A: ordered A A B and no tags; shuffled A B B B. Chance 0.5."""
    asked = questions(4)
    texts = {
        "ordered:q0": "<answer>A</answer>",
        "ordered:q1": "<answer>(a)</answer>",
        "ordered:q2": "<answer>B</answer>",
        "ordered:q3": GeneratedCompletion("", "<think>A", 9, False, 100),
        **{f"shuffled:q{n}": f"<answer>{'ABBB'[n]}</answer>" for n in range(4)},
    }
    found, _ = run(tmp_path, asked, Scripted(texts), ["shuffled"])
    summary = summarise(asked, found)
    assert (summary["questions"], summary["videos"]) == (4, 2)  # q0 and q1 are on one video
    assert summary["chance"] == {"official": 0.5, "video_r1": 0.5}
    assert summary["scores"]["official"]["value"] == 0.5
    assert summary["scores"]["video_r1"]["value"] == 0.25  # the letter alone
    assert {task: part["value"] for task, part in summary["tasks"].items()} == {"task0": 0.5, "task1": 0.5}
    outputs = summary["outputs"]["ordered"]
    assert (outputs["cut_off"], outputs["no_answer"], outputs["mean_tokens"]) == (0.25, 0.25, 6.0)
    assert outputs["names_none"] == 0.25
    control = summary["controls"]["shuffled"]
    assert control["scores"]["official"]["value"] == 0.25
    assert control["difference"]["official"]["value"] == 0.25
    assert control["share_above_chance"] is None  # ordered is at chance
    json.dumps(summary)


def test_the_share_above_chance_is_what_the_control_takes_away(tmp_path):
    """Ordered 4 of 4, shuffled 3 of 4, chance 0.5: a quarter of the score is half of what lies above chance."""
    asked = questions(4)
    found, _ = run(tmp_path, asked, Scripted({"shuffled:q1": "<answer>B</answer>"}), ["shuffled"])
    assert summarise(asked, found)["controls"]["shuffled"]["share_above_chance"] == pytest.approx(0.5)


def test_controls_are_paired_with_the_questions_that_have_a_video(tmp_path):
    """The image question is wrong on ordered frames: it counts in the score and not beside the control."""
    asked = questions(2) + [replace(questions(3)[2], video=None, image="a.png")]
    found, _ = run(tmp_path, asked, Scripted({"ordered:q2": "<answer>B</answer>"}), ["text-only"])
    summary = summarise(asked, found)
    assert summary["scores"]["official"]["value"] == pytest.approx(2 / 3)
    control = summary["controls"]["text-only"]
    assert (control["questions"], control["ordered_scores"]["official"]["value"]) == (2, 1.0)
    assert control["difference"]["official"]["value"] == 0.0


def vsi(task, count, metric="accuracy"):
    kind, options = ("regression", ()) if metric == "mra" else ("multiple choice", ("A. x", "B. y"))
    return [
        Question(
            f"{task}/{n}", task, "?", kind, "10" if metric == "mra" else "A", options, metric, cluster=f"{task}{n}"
        )
        for n in range(count)
    ]


def test_vsibench_has_two_scores_and_each_has_its_name(tmp_path):
    """
    Easy directions: 2 of 2 right; hard: 0 of 1; routes: 1 of 1; counts: two answers of 5 for 10.
    Official: directions (1 + 0) / 2, routes 1, counts 0.1 (<=): mean of the three 1.6 / 3.
    Video-R1: choices 3 of 4, numbers 0 (<): 0.375.
    """
    asked = vsi("object_rel_direction_easy", 2) + vsi("object_rel_direction_hard", 1) + vsi("route_planning", 1)
    asked += vsi("object_counting", 2, "mra")
    answers = {"ordered:object_rel_direction_hard/0": "<answer>B</answer>"}
    answers |= {f"ordered:object_counting/{n}": "<answer>5</answer>" for n in range(2)}
    found, _ = run(tmp_path, asked, Scripted(answers))
    summary = summarise(asked, found)
    assert summary["scores"]["official"]["value"] == pytest.approx(1.6 / 3)
    assert summary["scores"]["video_r1"]["value"] == pytest.approx(0.375)
    assert summary["chance"]["official"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    for weights in named_weights(asked).values():
        assert sum(weight for _, weight in weights) == pytest.approx(1.0)


def test_numbers_beside_choices_are_two_halves_of_video_r1s_score(tmp_path):
    """Records without VSI-Bench's question types: three right choices, one number of 5 for 10: (1 + 0) / 2, and 3.1 / 4."""
    asked = vsi("VSI-Bench", 3) + [replace(vsi("VSI-Bench", 1, "mra")[0], key="number")]
    found, _ = run(tmp_path, asked, Scripted({"ordered:number": "<answer>5</answer>"}))
    scores = summarise(asked, found)["scores"]
    assert scores["video_r1"]["value"] == pytest.approx(0.5)
    assert scores["official"]["value"] == pytest.approx(3.1 / 4)


def test_only_videos_are_counted_as_such(tmp_path):
    asked = [replace(each, video=None, image="a.png", cluster=each.key) for each in questions(3)]
    found, _ = run(tmp_path, asked, Scripted())
    summary = summarise(asked, found)
    assert (summary["questions"], summary["videos"]) == (3, 0)


def test_other_weights_of_the_same_name_are_another_run(models, folder, tmp_path):
    """And the same weights in another place are the same."""
    asked = load_benchmark("mvbench", folder / "video", source=folder, configs=["moving_count"])
    settings = GenerationSettings(max_new_tokens=2, video_max_pixels=28 * 28)
    model = copy.deepcopy(models().model)
    backend = TransformersBackend(model, models().processor, settings)
    run(tmp_path / "out", asked, backend)
    model.config._name_or_path = "elsewhere"
    run(tmp_path / "out", asked, backend)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1e-3)
    with pytest.raises(ValueError, match="holds completions of another run .weights: "):
        run(tmp_path / "out", asked, backend)


def test_results_stand_in_one_line_a_question(tmp_path):
    asked = questions(2)
    found, _ = run(tmp_path, asked, Scripted({"shuffled:q1": "<answer>B</answer>"}), ["shuffled"])
    summary = write_results(tmp_path, asked, found, {"benchmark": "b"})
    assert json.loads((tmp_path / "summary.json").read_text()) == summary and summary["benchmark"] == "b"
    lines = list(read_lines(tmp_path / "results.jsonl"))
    assert [line["key"] for line in lines] == ["q0", "q1"]
    assert (lines[1]["gold"], lines[1]["video"]) == ("A", "0.mp4")
    assert (lines[1]["ordered"]["score"], lines[1]["shuffled"]["answer"], lines[1]["shuffled"]["score"]) == (
        1.0,
        "B",
        0.0,
    )


def test_nothing_answered_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="There is no answer yet"):
        summarise(questions(1), {"ordered": {}})


# A real model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return benchmark_files.make("mvbench", tmp_path_factory.mktemp("mvbench"))


def test_a_model_answers_a_benchmark_and_one_unreadable_video_costs_one_question(models, folder, tmp_path):
    asked = load_benchmark("mvbench", folder / "video", source=folder, configs=benchmark_files.CONFIGS["mvbench"])
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    asked.append(replace(asked[1], key="broken", video=str(broken), cluster="broken"))
    settings = GenerationSettings(max_new_tokens=4, video_max_pixels=28 * 28 * 4)
    tiny_model = models()
    backend = TransformersBackend(tiny_model.model, tiny_model.processor, settings, batch_size=3)
    found, missing = run(tmp_path, asked, backend, list(CONTROLS))
    assert missing == 0
    assert {key: found["ordered"][key].entry["error"] is None for key in found["ordered"]} == {
        "action_sequence/0": True,
        "moving_count/0": True,
        "episodic_reasoning/0": True,
        "broken": False,
    }
    lengths = {condition: found[condition]["moving_count/0"].entry["num_prompt_tokens"] for condition in found}
    assert len({lengths[name] for name in ("ordered", "shuffled", "reversed", "single-frame")}) == 1
    assert lengths["text-only"] < lengths["ordered"]
    assert found["text-only"]["broken"].entry["error"] is None  # it has no video to read
    summary = summarise(asked, found)
    assert summary["outputs"]["ordered"]["errors"] == 1 and summary["outputs"]["ordered"]["cut_off"] is not None
    alone = TransformersBackend(tiny_model.model, tiny_model.processor, settings, batch_size=1)
    again, _ = run(tmp_path / "alone", asked, alone, list(CONTROLS))
    assert summarise(asked, again) == summary
