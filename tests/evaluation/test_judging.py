"""A judge of open answers, through a real HTTP server: what it is asked, how it fails, and that another start goes on."""

import re

import pytest
from stand_in_server import completion

from videor1_trl.evaluation.judging import about_judge, judge, read_verdict, read_verdicts
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
    assert verdicts.right == {"ordered:q0": True, "ordered:q1": False, "ordered:q2": False, "ordered:q3": True}
    assert len(server.bodies) == 3 and server.bodies[0]["model"] == "marker"
    asked = server.bodies[0]["messages"][0]["content"]
    assert "What is 0? {gold}" in asked and "Right answer:\nsalt" in asked  # braces of a question stay
    found, missing = read_answers(questions(), answers, (), verdicts.right)
    assert missing == 0 and summarise(questions(), found)["scores"]["official"]["value"] == 0.5
    about = about_judge(backend, verdicts)
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
    found, missing = read_answers(questions(), answers, (), verdicts.right)
    assert set(found["ordered"]) == {"q0", "q2"} and missing == 2
    server = serve(by_answer)
    backend = judge_of(server)
    backend.base_url = server.url
    again = read_verdicts(
        questions(), answers, judge(questions(), answers, backend, tmp_path / "judge", progress=False)
    )
    assert len(server.bodies) == 2 and again.failures == {} and len(again.right) == 4


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


@pytest.mark.parametrize(
    "said, verdict",
    [
        ("<verdict>right</verdict>", True),
        ("first <verdict>right</verdict>, but no: <verdict> WRONG </verdict>", False),
        ("right", None),
        ("<verdict>maybe</verdict>", None),
        ("", None),
    ],
)
def test_the_last_verdict_counts(said, verdict):
    assert read_verdict(said) is verdict
