"""Option probabilities under each order of the frames: by hand, on a real model, written, gone on with, and selected by."""

import json
import math

import pytest
from datasets import Dataset

from videor1_trl.data.selection import read_measured, select_records, time_dependent
from videor1_trl.evaluation.questions import Question
from videor1_trl.evaluation.time_dependence import (
    as_columns,
    compare_orders,
    orders_of,
    read_time_dependence,
    summarise,
    weigh_options,
)
from videor1_trl.generation.requests import GenerationSettings, WeighedChoices
from videor1_trl.generation.transformers_backend import TransformersBackend


class Weighing:
    """Gives every option the same, but for reversed frames, where A has `ratio` times as much."""

    settings = GenerationSettings()

    def __init__(self, ratio=1.0, breaks_at=None, error=None):
        self.ratio, self.breaks_at, self.error, self.asked = ratio, breaks_at, error, []

    def weigh(self, requests):
        for request in requests:
            if request.key == self.breaks_at:
                raise KeyboardInterrupt
            self.asked.append(request)
            if self.error:
                yield WeighedChoices(request.key, None, self.error)
                continue
            first = 0.2 * (self.ratio if "reversed" in request.key else 1)
            yield WeighedChoices(request.key, [math.log(first), *[math.log(0.2)] * (len(request.choices) - 1)])

    def describe(self):
        return {"model": "weighing"}


def question(key="q", video="a.mp4", **more):
    return Question(key, "t", "Which way?", "multiple choice", "A", ("A. left", "B. right"), video=video, **more)


def test_divergence_by_hand():
    """Ordered 3/4 and 1/4, shuffled 1/2 and 1/2: 3/4 log 3/2 + 1/4 log 1/2; of what is no option nothing counts."""
    found = compare_orders({"ordered": [math.log(0.3), math.log(0.1)], "shuffled": [math.log(0.05), math.log(0.05)]})
    assert found.probabilities == {"ordered": [0.75, 0.25], "shuffled": [0.5, 0.5]}
    assert found.mass == {"ordered": 0.4, "shuffled": 0.1}
    assert found.divergence["shuffled"] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    same = compare_orders({"ordered": [-1.0, -2.0], "reversed": [-4.0, -5.0]})
    assert same.divergence["reversed"] == pytest.approx(0.0, abs=1e-12)
    sure = compare_orders({"ordered": [-0.0, -2000.0], "reversed": [-3.0, -0.05]})
    assert math.isfinite(sure.divergence["reversed"]) and sure.divergence["reversed"] > 2


def test_what_is_weighed_is_the_letter_behind_the_answers_tag(tmp_path):
    backend = Weighing()
    weigh_options([question()], backend, tmp_path, progress=False)
    assert [each.key for each in backend.asked] == [f"options-{o}:q" for o in ("ordered", "reversed", "shuffled")]
    first = backend.asked[0]
    assert first.prompt == [*question().prompt, {"role": "assistant", "content": "<answer>"}]
    assert first.choices == ["A", "B"] and first.videos == ["a.mp4"]
    assert backend.asked[2].seed == GenerationSettings().sampling_seed("frames:q")  # the frames of the control


def test_questions_without_options_a_video_or_a_meaning_of_order_are_left_alone():
    assert orders_of(question()) == ("reversed", "shuffled")
    assert orders_of(question(video=None)) == ()
    assert orders_of(Question("n", "t", "How many?", "regression", "4", metric="mra", video="a.mp4")) == ()
    assert orders_of(question(unfit_controls={"reversed": "why", "shuffled": "why"})) == ()
    assert orders_of(question(unfit_controls={"shuffled": "why"})) == ("reversed",)


def test_a_run_that_broke_off_weighs_the_rest_and_errors_are_named(tmp_path):
    asked = [question("q0"), question("q1")]
    with pytest.raises(KeyboardInterrupt):
        weigh_options(asked, Weighing(2.0, breaks_at="options-shuffled:q0"), tmp_path, progress=False)
    second = Weighing(2.0)
    journal = weigh_options(asked, second, tmp_path, progress=False)
    assert len(second.asked) == 4
    weighed = read_time_dependence(asked, journal)
    expected = 0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))
    assert {key: each.divergence["reversed"] for key, each in weighed.found.items()} == pytest.approx(
        {"q0": expected, "q1": expected}
    )
    assert summarise(weighed)["mean"] == pytest.approx({"reversed": expected, "shuffled": 0.0})
    failed = read_time_dependence(
        asked, weigh_options(asked, Weighing(error="no luck"), tmp_path / "other", progress=False)
    )
    assert failed.found == {} and failed.errors == {"q0": "no luck", "q1": "no luck"}
    assert summarise(failed)["errors"] == 2


def test_a_real_model_gives_columns_that_sum_to_one(models, media, tmp_path):
    asked = [question(f"q{n}", media["videos"][n // 2], cluster=str(n // 2)) for n in range(4)]
    settings = GenerationSettings(video_max_pixels=28 * 28 * 4)
    backend = TransformersBackend(models().model, models().processor, settings)
    weighed = read_time_dependence(asked, weigh_options(asked, backend, tmp_path, progress=False))
    columns = as_columns(weighed.found)
    assert set(columns) == {f"q{n}" for n in range(4)} and not weighed.errors
    for each in columns.values():
        assert {"reversed", "shuffled", "probabilities", "mass"} == set(each)
        assert all(sum(values) == pytest.approx(1) for values in each["probabilities"].values())
        assert each["reversed"] > 0 and each["probabilities"]["ordered"] != each["probabilities"]["reversed"]


# --- selected by


def results(folder, values, problem="Which way?"):
    folder.mkdir(exist_ok=True)
    lines = [
        {"key": key, "problem": problem, "time_dependence": None if value is None else {"reversed": value}}
        for key, value in values.items()
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def records(count=3, **columns):
    return Dataset.from_dict({"problem": ["Which way?"] * count, "problem_id": list(range(10, 10 + count)), **columns})


def test_records_are_selected_by_the_results_on_the_same_file(tmp_path):
    measured = results(tmp_path / "run", {"0/10": 0.5, "1/11": 0.05, "2/12": None})
    assert select_records(records(), 0.1, measured)["problem_id"][:] == [10]
    assert select_records(records(), 0.05, measured / "results.jsonl")["problem_id"][:] == [10, 11]
    with pytest.raises(ValueError, match="none of the 3 questions depends on time by 0.9 nats or more"):
        select_records(records(), 0.9, measured)


def test_results_of_other_records_are_refused(tmp_path):
    measured = results(tmp_path / "run", {"0/10": 0.5, "1/11": 0.05})
    with pytest.raises(ValueError, match="does not belong to these questions: '2/12' was not asked there"):
        select_records(records(), 0.1, measured)
    other = results(tmp_path / "other", {"0/10": 0.5}, "How many?")
    with pytest.raises(ValueError, match="'0/10' asks another question there: 'How many"):
        time_dependent([("0/10", "Which way?")], read_measured(other), 0.1, "other")
    with pytest.raises(ValueError, match="has no time_dependence against reversed frames: run videor1 eval with"):
        read_measured(results(tmp_path / "none", {"0/10": None}))
    with pytest.raises(FileNotFoundError, match="is no folder of an evaluation"):
        read_measured(tmp_path / "nowhere")
    (tmp_path / "bad.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(ValueError, match="bad.jsonl, line 1: no line of an evaluation's results"):
        read_measured(tmp_path / "bad.jsonl")


def test_results_are_read_line_by_line_whatever_their_texts_hold(tmp_path):
    """A line separator within a text ends no line, and two lines of one question are not one of them."""
    lines = [{"key": key, "problem": "which\u2028way\x85?", "time_dependence": {"reversed": 0.5}} for key in "ab"]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    assert {key: each.value for key, each in read_measured(tmp_path).items()} == {"a": 0.5, "b": 0.5}
    path.write_text(json.dumps(lines[0]) + "\n" + json.dumps(lines[0]) + "\n")
    with pytest.raises(ValueError, match="line 2: a second line of the question 'a'"):
        read_measured(path)


def test_records_are_selected_by_a_field_of_their_own():
    rows = records(time_dependence=[0.3, None, 0.1])
    assert select_records(rows, 0.1)["problem_id"][:] == [10, 12]
    with pytest.raises(ValueError, match="the records have no field 'time_dependence' to select by"):
        select_records(records(), 0.1)
    with pytest.raises(ValueError, match="record 0, field 'time_dependence': 'much' is no number"):
        select_records(records(time_dependence=["much", "0.3", None]), 0.1)
