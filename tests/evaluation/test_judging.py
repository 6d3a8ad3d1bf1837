"""A judge of open answers, through a real HTTP server: what it is asked, how it fails, and that another start goes on."""

import json
import re
from dataclasses import replace

import benchmark_files
import pytest
from stand_in_server import completion

from videor1_trl.evaluation.benchmarks import load_benchmark
from videor1_trl.evaluation.judging import about_judge, judge, read_verdicts
from videor1_trl.evaluation.markings import MARKINGS, prompts_fingerprint
from videor1_trl.evaluation.questions import Question
from videor1_trl.evaluation.run import ask, read_answers
from videor1_trl.evaluation.summary import summarise
from videor1_trl.generation.requests import GeneratedCompletion, GenerationSettings
from videor1_trl.generation.server_backend import ServerBackend, ServerError


class Answering:
    settings = GenerationSettings()

    def __init__(self, answers):
        self.answers = answers

    def generate(self, requests):
        for request in requests:
            yield GeneratedCompletion(request.key, self.answers[request.key], 5, True, 10)

    def describe(self):
        return {"model": "answering"}


def questions(count=4):
    return [
        Question(
            f"q{n}",
            "t",
            f"What is {n}? {{gold}}",
            "free-form",
            "salt",
            metric="judged",
            video=f"{n}.mp4",
            cluster=str(n),
        )
        for n in range(count)
    ]


TEXTS = [
    "<answer>sodium chloride</answer>",
    "<answer>sugar</answer>",
    "<think>hm</think><answer></answer>",
    "it is salt",
]


@pytest.fixture
def answers(tmp_path):
    texts = {f"ordered:q{n}": text for n, text in enumerate(TEXTS)}
    return ask(questions(), Answering(texts), tmp_path / "run", progress=False)


def judge_of(server, **options):
    return ServerBackend(server.url, "marker", GenerationSettings(), api_key="", retries=0, **options)


def by_answer(body, attempt):
    """Right is what has salt in it, by another name too."""
    said = re.search(r"Candidate's answer:\n(.*?)\n\n", body["messages"][0]["content"], re.DOTALL)[1]
    verdict = "right" if said in ("sodium chloride", "it is salt") else "wrong"
    return {
        **completion(f"So it is. <verdict>{verdict}</verdict>"),
        "model": "marker-2026-11",
        "system_fingerprint": "fp1",
    }


def test_verdicts_are_scores_and_an_empty_answer_needs_no_judge(serve, answers, tmp_path):
    server = serve(by_answer)
    backend = judge_of(server)
    verdicts = read_verdicts(
        questions(), answers, judge(questions(), answers, backend, tmp_path / "judge", progress=False)
    )
    assert verdicts.scores == {"ordered:q0": True, "ordered:q1": False, "ordered:q2": False, "ordered:q3": True}
    assert len(server.bodies) == 3 and server.bodies[0]["model"] == "marker"
    asked = server.bodies[0]["messages"][0]["content"]
    assert "What is 0? {gold}" in asked and "Right answer:\nsalt" in asked  # braces of a question stay
    found, missing = read_answers(questions(), answers, (), verdicts.scores)
    assert missing == 0 and summarise(questions(), found)["scores"]["official"]["value"] == 0.5
    about = about_judge(backend, verdicts, questions())
    assert (about["model"], about["served_by"], about["verdicts"]) == ("marker", ["marker-2026-11, fp1"], 4)
    assert len(about["prompt"]) == 8


def test_failures_are_counted_kept_out_of_the_figures_and_asked_again(serve, answers, tmp_path):
    def failing(body, attempt):
        if "sugar" in str(body):
            return 400, {"error": {"message": "too spicy"}}, {}
        return completion("I am not sure.") if "it is salt" in str(body) else by_answer(body, attempt)

    first = judge(questions(), answers, judge_of(serve(failing)), tmp_path / "judge", progress=False)
    verdicts = read_verdicts(questions(), answers, first)
    assert set(verdicts.failures) == {"ordered:q1", "ordered:q3"} and verdicts.missing == 0
    assert "too spicy" in verdicts.failures["ordered:q1"]
    assert verdicts.failures["ordered:q3"] == "the judge gave no verdict: 'I am not sure.'"
    found, missing = read_answers(questions(), answers, (), verdicts.scores)
    assert set(found["ordered"]) == {"q0", "q2"} and missing == 2
    server = serve(by_answer)
    backend = judge_of(server)
    backend.base_url = server.url
    again = read_verdicts(
        questions(), answers, judge(questions(), answers, backend, tmp_path / "judge", progress=False)
    )
    assert len(server.bodies) == 2 and again.failures == {} and len(again.scores) == 4


def test_another_answer_is_judged_anew_and_another_judge_is_another_run(serve, answers, tmp_path):
    server = serve(by_answer)
    journal = judge(questions(), answers, judge_of(server), tmp_path / "judge", progress=False)
    texts = {f"ordered:q{n}": "<answer>sodium chloride</answer>" for n in range(4)}
    others = ask(questions(), Answering(texts), tmp_path / "other", progress=False)
    assert read_verdicts(questions(), others, journal).missing == 3  # q0's answer is the same
    with pytest.raises(ValueError, match="holds completions of another run .model: 'marker' there, 'other' now"):
        judge(questions(), answers, ServerBackend(server.url, "other", GenerationSettings()), tmp_path / "judge")


def test_a_judge_that_is_not_there_ends_the_run_and_keeps_what_it_said(serve, answers, tmp_path):
    server = serve(lambda body, attempt: (500, {"error": {"message": "down"}}, {}))
    with pytest.raises(ServerError, match="down"):
        judge(questions(), answers, judge_of(server), tmp_path / "judge", progress=False)


CAPTION = Question(
    "c", "captioning", "Describe it.", "free-form", "B", metric="judged", marking="choice", rubric="Which way?\nA. up\nB. down"
)  # fmt: skip


@pytest.mark.parametrize(
    "marking, said, worth",
    [
        ("agreement", "<verdict>right</verdict>", 1.0),
        ("agreement", "first <verdict>right</verdict>, but no: <verdict> WRONG </verdict>", 0.0),
        ("agreement", "right", None),
        ("agreement", "<verdict>maybe</verdict>", None),
        ("agreement", "", None),
        ("choice", "It sinks. <verdict>B</verdict>", 1.0),
        ("choice", "<verdict>b</verdict>", 1.0),
        ("choice", "<verdict>A</verdict>", 0.0),
        ("choice", "It says nothing. <verdict>none</verdict>", 0.0),
        ("choice", "<verdict>C</verdict>", None),  # no option
        ("choice", "B", None),
        ("points", "<accuracy>5</accuracy> <relevance>4</relevance>", 0.9),
        ("points", "<accuracy>3.5</accuracy>\n<relevance>1</relevance>", 0.45),
        ("points", "<accuracy>6</accuracy> <relevance>4</relevance>", None),
        ("points", "<accuracy>5</accuracy>", None),
        ("summary", "<completeness>1</completeness><reliability>1</reliability>", 0.2),
        ("summary", "<accuracy>5</accuracy> <relevance>4</relevance>", None),
    ],
)
def test_the_last_verdict_and_both_marks_count(marking, said, worth):
    assert MARKINGS[marking].read(CAPTION, said) == (worth if worth is None else pytest.approx(worth))


def test_other_prompts_are_another_judge_and_todays_runs_go_on():
    assert prompts_fingerprint(["agreement"]) == "8b059b03"  # of the runs before the other ways to mark
    assert len({prompts_fingerprint([name]) for name in MARKINGS}) == len(MARKINGS)


def test_a_description_is_marked_by_the_option_that_it_leads_to(serve, tmp_path):
    """The judge has the description and the question, neither the right option nor the video."""
    asked = [replace(CAPTION, key=f"c{n}") for n in range(3)]
    texts = dict(zip((f"ordered:c{n}" for n in range(3)), ("It falls.", "It rises.", ""), strict=True))
    run = ask(asked, Answering(texts), tmp_path / "run", progress=False)
    server = serve(
        lambda body, attempt: completion(f"<verdict>{'B' if 'It falls' in str(body) else 'none'}</verdict>")
    )
    verdicts = read_verdicts(asked, run, judge(asked, run, judge_of(server), tmp_path / "judge", progress=False))
    assert verdicts.scores == {"ordered:c0": 1.0, "ordered:c1": 0.0, "ordered:c2": 0.0} and len(server.bodies) == 2
    text = server.bodies[0]["messages"][0]["content"]
    assert "Which way?\nA. up\nB. down" in text and "Describe it." not in text and "right answer" not in text.lower()
    other = [replace(each, rubric="Which way?\nA. left\nB. right") for each in asked]
    assert (
        read_verdicts(other, run, judge(asked, run, judge_of(server), tmp_path / "judge", progress=False)).missing == 2
    )


def test_open_parts_need_a_judge_and_have_what_it_needs(tmp_path):
    """TempCompass's captioning and MLVU's two open tasks, from files of their layout."""
    source = benchmark_files.make("tempcompass", tmp_path / "tempcompass")
    row = {"video_id": "7", "dim": "speed", "question": "Describe it.", "mc_question": "Which?\nA. slow\nB. fast"}
    benchmark_files.parquet(source, "captioning", "test", [{**row, "mc_answer": "B. fast"}])
    assert len(load_benchmark("tempcompass", source=source)) == 4
    with pytest.raises(ValueError, match="captioning of tempcompass need a model as judge: name one, and its server"):
        load_benchmark("tempcompass", source=source, configs=["captioning"])
    *_, caption = load_benchmark("tempcompass", source=source, judged=True)
    assert (caption.gold, caption.marking, caption.rubric) == ("B", "choice", "Which?\nA. slow\nB. fast")
    assert (caption.key, caption.chance, caption.groups) == ("captioning/0", 0.0, {"dimension": "speed"})

    folder = tmp_path / "mlvu" / "json"
    folder.mkdir(parents=True)
    row = {"video": "a.mp4", "question": "What happens?", "answer": "He sits."}
    (folder / "8_sub_scene.json").write_text(json.dumps([{**row, "scoring_points": ["he sits", "he waits"]}]))
    (folder / "9_summary.json").write_text(json.dumps([row]))
    with pytest.raises(ValueError, match="8_sub_scene, 9_summary of mlvu-open need a model as judge"):
        load_benchmark("mlvu-open", source=tmp_path / "mlvu")
    scene, summary = load_benchmark("mlvu-open", source=tmp_path / "mlvu", judged=True)
    assert (scene.marking, scene.rubric, scene.task) == ("points", "- he sits\n- he waits", "sub_scene")
    assert (summary.marking, summary.rubric, summary.gold, summary.task) == ("summary", "", "He sits.", "summary")
    (folder / "8_sub_scene.json").write_text(json.dumps([row]))
    with pytest.raises(ValueError, match="8_sub_scene, row 0: no field 'scoring_points'"):
        load_benchmark("mlvu-open", source=tmp_path / "mlvu", judged=True)


def test_marks_are_averaged_by_task_as_g_avg(serve, tmp_path):
    """Two scenes with 9 and 5 of 10, a summary with 4: (0.7 + 0.4) / 2, ten times that is G-Avg."""
    rows = [("scene 0", "sub_scene", "points"), ("scene 1", "sub_scene", "points"), ("sum", "summary", "summary")]
    asked = [
        Question(key, task, "What?", "free-form", "x", metric="judged", marking=way, rubric="p" * (way == "points"),
                 cluster=key, benchmark="mlvu-open", video=f"{key}.mp4")
        for key, task, way in rows
    ]  # fmt: skip
    run = ask(asked, Answering({f"ordered:{each.key}": each.key for each in asked}), tmp_path / "run", progress=False)
    marks = {"scene 0": (5, 4), "scene 1": (3, 2), "sum": (1, 3)}

    def mark(body, attempt):
        text = body["messages"][0]["content"]
        names = ("accuracy", "relevance") if "Points:" in text else ("completeness", "reliability")
        given = next(value for key, value in marks.items() if f"\n{key}\n" in text)
        return completion(" ".join(f"<{name}>{value}</{name}>" for name, value in zip(names, given, strict=True)))

    journal = judge(asked, run, judge_of(serve(mark)), tmp_path / "judge", progress=False)
    verdicts = read_verdicts(asked, run, journal)
    found, _ = read_answers(asked, run, (), verdicts.scores)
    summary = summarise(asked, found)
    assert summary["scores"]["official"]["value"] == pytest.approx(0.55)
    assert {name: each["value"] for name, each in summary["tasks"].items()} == pytest.approx(
        {"sub_scene": 0.7, "summary": 0.4}
    )
