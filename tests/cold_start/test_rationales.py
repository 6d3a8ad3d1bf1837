"""Rationales: which are kept and why not, what a kill and several processes cost, and that a model trains on what was kept."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers import refused, sft_config
from hypothesis import given
from hypothesis import strategies as st
from stand_in_server import completion as server_completion

from videor1_trl import VideoSFTTrainer, load_video_r1
from videor1_trl.cold_start.rationales import (
    REASONS,
    CotRules,
    Verdict,
    generate_rationales,
    judge_completion,
    read_rationales,
    repetition,
    write_rationales,
)
from videor1_trl.data.records import within_pass_rates
from videor1_trl.generation.journal import read_lines
from videor1_trl.generation.requests import GeneratedCompletion, GenerationSettings
from videor1_trl.generation.server_backend import ServerBackend
from videor1_trl.generation.transformers_backend import TransformersBackend
from videor1_trl.scripts import generate_cot, train_tgrpo
from videor1_trl.scripts.record_flags import load_records


EXAMPLES = Path(__file__).parents[2] / "examples"

GOOD = "<think>It goes left.</think> <answer>A</answer>"
WRONG = "<think>It goes right.</think> <answer>B</answer>"


class Killed(BaseException):
    """The process ends here."""


class Scripted:
    """A backend that says what it is told to: `answers[key]` is a text, a completion, or an exception that ends the run."""

    def __init__(self, answers=None, otherwise=GOOD, model="scripted", **settings):
        self.answers, self.otherwise, self.model = answers or {}, otherwise, model
        self.settings = GenerationSettings(**settings)
        self.asked = []

    def generate(self, requests):
        for request in requests:
            self.asked.append(request.key)
            found = self.answers.get(request.key, self.otherwise)
            if isinstance(found, BaseException):
                raise found
            if isinstance(found, str):
                found = GeneratedCompletion("", found, 5, True, 100)
            yield replace(found, key=request.key)

    def describe(self):
        return {"model": self.model, "device": "cpu", "settings": asdict(self.settings)}


def record(number, **changes):
    made = {
        "problem_id": number,
        "problem": "Which way?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ["A. left", "B. right"],
        "solution": "<answer>A</answer>",
        "path": f"./{number // 2}.mp4",
        "data_source": "tests",
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


@pytest.fixture
def load(tmp_path):
    """`load(records)`: the rows of a file of records; without any, four of two videos."""

    def read(records=None):
        file = tmp_path / "data" / "train.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(records or [record(number) for number in range(4)]))
        return load_video_r1(file)

    return read


def generate(dataset, backend, folder, rules=None, **options):
    journal = generate_rationales(dataset, backend, folder, rules, progress=False, **options)
    options.pop("retry_errors", None)
    return read_rationales(dataset, journal, rules, **options)


def reasons(verdicts):
    return {place: verdict.reason for place, verdict in verdicts.items()}


# Which completions are kept


def judged(text, *, solution="A", kind="multiple choice", tokens=10, finished=True, error=None, **rules):
    entry = {"text": text, "num_tokens": tokens, "finished": finished, "error": error}
    return judge_completion(entry, f"<answer>{solution}</answer>", kind, CotRules(**rules))


@pytest.mark.parametrize(
    "reason, verdict",
    [
        ("error", judged(None, error="no such file")),
        ("cut_off", judged(GOOD, finished=False)),
        ("no_rationale", judged("<answer>A</answer>")),
        ("no_rationale", judged("<think> \n</think><answer>A</answer>")),
        ("no_rationale", judged("<think>So <answer>A</answer></think>", require_format=False)),
        ("format", judged(f"Well. {GOOD}")),
        ("format", judged(f"{GOOD} <answer>B</answer>")),
        ("too_short", judged(GOOD, min_tokens=11)),
        ("too_long", judged(GOOD, max_tokens=9)),
        ("repetitive", judged("<think>" + "look again " * 9 + "</think><answer>A</answer>", max_repetition=0.8)),
        ("no_verdict", judged(GOOD, solution="none", kind="numerical")),
        ("wrong", judged(WRONG)),
        ("wrong", judged("<think>x</think>", require_format=False)),
        ("kept", judged(GOOD)),
        ("kept", judged(f"\n{GOOD}\n")),  # white space around it is the server's
        ("kept", judged(f"Well. {GOOD}", require_format=False)),
        ("kept", judged(GOOD, min_tokens=10, max_tokens=10, max_repetition=0.0)),
        ("kept", judged(GOOD, finished=None, tokens=None)),  # a server that says neither
    ],
)
def test_a_completion_is_kept_or_has_one_reason(reason, verdict):
    assert verdict.reason == reason
    assert (verdict.process is not None) == (reason == "kept")
    assert reason == "kept" or reason in REASONS


def test_the_rationale_is_kept_as_it_was_thought():
    assert judged("Hm. <think>\nIt goes\nleft. </think>\n<answer>A</answer>", require_format=False) == Verdict(
        "kept", "<think>\nIt goes\nleft. </think>", 1.0
    )


def test_accuracy_must_be_above_the_threshold_and_follow_the_problem_type():
    # regression: 1 - |8 - 5| / 5 = 0.4, 1 - |7.1 - 5| / 5 = 0.58, 1 - |6.9 - 5| / 5 = 0.62
    for answer, threshold, kept in ((8, 0.3, True), (8, 0.6, False), (7.1, 0.6, False), (6.9, 0.6, True)):
        verdict = judged(
            f"<think>x</think><answer>{answer}</answer>", solution="5", kind="regression", threshold=threshold
        )
        assert (verdict.reason == "kept") is kept
        assert verdict.accuracy == pytest.approx(1 - abs(answer - 5) / 5, abs=1e-6)
    text = "<think>x</think><answer>1,000</answer>"
    assert judged(text, solution="1000", kind="numerical").reason == "kept"
    assert judged(text, solution="1000", kind="numerical", strict=True).reason == "wrong"  # the released rule


def test_repetition_by_hand():
    assert repetition("a b c d") == 0.0 and repetition("a b c") == 0.0 and repetition("") == 0.0
    assert repetition("a a a a a a") == pytest.approx(2 / 3)  # 3 runs, 1 of them new
    assert repetition("it goes left and then it goes left and stops") == pytest.approx(1 / 7)


@given(st.text(max_size=200))
def test_no_text_is_kept_that_training_could_not_use(text):
    for wrapped in (text, f"<think>{text}</think><answer>A</answer>"):
        verdict = judged(wrapped)
        assert verdict.reason == "kept" or verdict.reason in REASONS
        if verdict.process is not None:
            inside = verdict.process.removeprefix("<think>").removesuffix("</think>")
            assert inside.strip() and not re.search("</?(think|answer)>", inside)
            assert 0 <= repetition(inside) < 1


def test_a_server_that_counts_no_tokens_cannot_be_held_to_a_length():
    with pytest.raises(ValueError, match="min_tokens and max_tokens need tokens that are counted"):
        judged(GOOD, tokens=None, min_tokens=1)


@pytest.mark.parametrize(
    "rules, message",
    [
        ({"threshold": 1.0}, "threshold (1.0) must be in [0, 1)"),
        ({"min_tokens": -1}, "min_tokens (-1) must be at least 0"),
        ({"min_tokens": 5, "max_tokens": 4}, "max_tokens (4) must be at least min_tokens (5)"),
        ({"max_repetition": 1.5}, "max_repetition (1.5) must be in [0, 1]"),
    ],
)
def test_rules_out_of_range_are_refused(rules, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CotRules(**rules)


# What is asked


def test_records_of_one_video_are_asked_together(load, tmp_path):
    backend = Scripted()
    rows = [record(0), record(1, path="./9.mp4"), record(2, path="./0.mp4"), record(3, data_type="text", path=None)]
    generate(load(rows), backend, tmp_path / "out")
    assert backend.asked == ["0/0", "2/0", "1/0", "3/0"]


def test_only_what_was_not_kept_is_asked_again(load, tmp_path):
    backend = Scripted(
        {"1/0": WRONG, "2/0": WRONG, "2/1": WRONG, "3/0": GeneratedCompletion("", None, error="3: no such file")}
    )
    verdicts, missing = generate(load(), backend, tmp_path / "out", num_samples=3)
    assert backend.asked == ["0/0", "1/0", "2/0", "3/0", "1/1", "2/1", "2/2"]
    assert (missing, reasons(verdicts)) == (0, {0: "kept", 1: "kept", 2: "kept", 3: "error"})


def test_a_record_has_the_reason_of_the_completion_that_came_furthest(load, tmp_path):
    answers = {"0/0": WRONG, "0/1": "nothing", "1/0": GeneratedCompletion("", GOOD, 5, False), "1/1": "nothing"}
    verdicts, _ = generate(load(), Scripted(answers), tmp_path / "out", num_samples=2)
    assert reasons(verdicts) == {0: "wrong", 1: "no_rationale", 2: "kept", 3: "kept"}


def test_a_kill_loses_and_doubles_nothing(load, tmp_path):
    dataset, folder = load(), tmp_path / "out"
    with pytest.raises(Killed):
        generate(dataset, Scripted({"1/0": WRONG, "3/0": Killed()}), folder, num_samples=2)
    with (folder / "completions.jsonl").open("a") as file:
        file.write('{"key": "3/0", "te')  # the line that it was writing
    backend = Scripted()
    verdicts, missing = generate(dataset, backend, folder, num_samples=2)
    assert backend.asked == ["3/0", "1/1"]
    assert (missing, reasons(verdicts)) == (0, dict.fromkeys(range(4), "kept"))
    keys = [line["key"] for line in read_lines(folder / "completions.jsonl") if "key" in line]
    assert sorted(keys) == ["0/0", "1/0", "1/1", "2/0", "3/0"]


def test_other_rules_ask_only_for_what_they_make_necessary(load, tmp_path):
    dataset, folder = load(), tmp_path / "out"
    long = GeneratedCompletion("", GOOD, 500, True, 100)
    assert reasons(generate(dataset, Scripted({"0/0": long}), folder)[0]) == dict.fromkeys(range(4), "kept")
    backend = Scripted()
    verdicts, _ = generate(dataset, backend, folder, CotRules(max_tokens=400))
    assert (backend.asked, reasons(verdicts)[0]) == ([], "too_long")
    verdicts, _ = generate(dataset, backend, folder, CotRules(max_tokens=400), num_samples=2)
    assert (backend.asked, reasons(verdicts)[0]) == (["0/1"], "kept")


def test_errors_are_asked_again_on_demand(load, tmp_path):
    dataset, folder = load(), tmp_path / "out"
    broken = {"1/0": GeneratedCompletion("", None, error="0.mp4: no such file")}
    generate(dataset, Scripted(broken), folder, num_samples=2)
    for retry, asked in ((False, []), (True, ["1/0"])):
        backend = Scripted()
        verdicts, _ = generate(dataset, backend, folder, num_samples=2, retry_errors=retry)
        assert (backend.asked, reasons(verdicts)[1]) == (asked, "kept" if retry else "error")


def test_a_larger_limit_goes_on(load, tmp_path):
    dataset = load([record(number) for number in range(20)])
    first, _ = generate(dataset, Scripted(), tmp_path / "out", limit=5)
    backend = Scripted()
    second, _ = generate(dataset, backend, tmp_path / "out", limit=12)
    assert (len(first), len(second), len(backend.asked)) == (5, 12, 7)
    assert set(first) < set(second)
    with pytest.raises(ValueError, match=re.escape("limit (0) must be at least 1")):
        generate(dataset, backend, tmp_path / "out", limit=0)
    with pytest.raises(ValueError, match=re.escape("num_samples (0) must be at least 1")):
        generate(dataset, backend, tmp_path / "out", num_samples=0)


def test_another_model_or_other_records_are_refused(load, tmp_path):
    dataset = load()
    generate(dataset, Scripted(), tmp_path / "out")
    with pytest.raises(ValueError, match="model: 'scripted' there, 'other' now"):
        generate(dataset, Scripted(model="other"), tmp_path / "out")
    with pytest.raises(ValueError, match="holds completions of another run .records: "):
        generate(load([record(number, problem="Where?") for number in range(4)]), Scripted(), tmp_path / "out")
    with pytest.raises(ValueError, match="the dataset has no column 'prompt', only a"):
        generate(dataset.select_columns(["solution"]).rename_column("solution", "a"), Scripted(), tmp_path / "out")


def test_processes_share_the_records_and_each_keeps_its_own(load, tmp_path, monkeypatch):
    dataset = load([record(number) for number in range(20)])
    monkeypatch.setenv("WORLD_SIZE", "3")
    asked = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        backend = Scripted({f"{number}/0": WRONG for number in range(0, 20, 3)})
        verdicts, missing = generate(dataset, backend, tmp_path / "out", num_samples=2)
        asked.append(backend.asked)
        again = {key.partition("/")[0] for key in backend.asked if key.endswith("/1")}
        assert again == {str(n) for n in range(0, 20, 3)} & {key.partition("/")[0] for key in backend.asked}
    assert all(asked) and sorted(sum(asked, [])) == sorted(
        [f"{n}/0" for n in range(20)] + [f"{n}/1" for n in range(0, 20, 3)]
    )
    assert (missing, len(verdicts)) == (0, 20)


# What is written


def test_records_and_summary(load, tmp_path):
    rows = [
        record(0),
        record(1, problem_type="numerical", options=[], solution="<answer>3</answer>", frames_seen=7),
        record(2, problem_type="numerical", options=[], solution="<answer>3</answer>"),
        record(3, data_type="text", path=None, process="<think>old</think>"),
    ]
    dataset = load(rows)
    answers = {"1/0": "<think>I count.</think><answer>3</answer>", "3/0": GeneratedCompletion("", None, error="3: no")}
    journal = generate_rationales(dataset, Scripted(answers), tmp_path / "out", progress=False)
    verdicts, _ = read_rationales(dataset, journal)
    summary = write_rationales(dataset, verdicts, journal, {"rules": asdict(CotRules())})
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    # the second numerical record was answered with A, which is no number: 0.0
    assert {key: summary[key] for key in ("records", "kept", "rejected", "completions", "mean_tokens")} == {
        "records": 4,
        "kept": 2,
        "rejected": {"error": 1, "wrong": 1},
        "completions": 4,
        "mean_tokens": 5.0,
    }
    assert summary["accuracy"] == pytest.approx(2 / 3)
    assert summary["problem_types"]["numerical"] == {
        "records": 2,
        "kept": 1,
        "accuracy": 0.5,
        "rejected": {"wrong": 1},
    }
    assert summary["problem_types"]["multiple choice"]["rejected"] == {"error": 1}
    assert summary["first_errors"] == ["record 3: 3: no"] and summary["rules"]["threshold"] == 0.6
    assert summary["sessions"][0]["identity"]["model"] == "scripted"
    written = list(read_lines(tmp_path / "out" / "records.jsonl"))
    assert written == [
        rows[0] | {"process": "<think>It goes left.</think>", "pass_rate": 1.0, "attempts": 1},
        rows[1] | {"process": "<think>I count.</think>", "pass_rate": 1.0, "attempts": 1},
    ]
    assert list(
        read_lines(tmp_path / "out" / "rated.jsonl")
    ) == [  # the last has no attempt with a verdict, so no rate
        rows[0] | {"pass_rate": 1.0, "attempts": 1},
        rows[1] | {"pass_rate": 1.0, "attempts": 1},
        rows[2] | {"pass_rate": 0.0, "attempts": 1},
        rows[3] | {"attempts": 0},
    ]
    again = load_video_r1(tmp_path / "out" / "records.jsonl", tmp_path / "data")
    assert again["video"] == dataset.select([0, 1])["video"] and again["prompt"] == dataset.select([0, 1])["prompt"]


def test_a_completion_that_a_record_has_does_not_go_into_training(load, tmp_path):
    dataset = load([record(0, completion="old text")])
    journal = generate_rationales(dataset, Scripted(), tmp_path / "out", progress=False)
    write_rationales(dataset, read_rationales(dataset, journal)[0], journal, {})
    assert list(read_lines(tmp_path / "out" / "records.jsonl")) == [
        record(0) | {"process": "<think>It goes left.</think>", "pass_rate": 1.0, "attempts": 1}
    ]


def test_pass_rates_are_of_all_attempts_where_all_are_asked_for(load, tmp_path):
    """Record 0 is right at once and then wrong three times; record 1 never; record 2 always; record 3 in the last of four."""
    dataset = load()
    wrong = {
        f"{place}/{sample}": WRONG
        for place, sample in [(0, 1), (0, 2), (0, 3), *((1, each) for each in range(4)), (3, 0), (3, 1), (3, 2)]
    }
    rates = {}
    for name, options in (("all", {"all_samples": True}), ("until", {})):
        backend = Scripted(wrong)
        verdicts, missing = generate(dataset, backend, tmp_path / name, num_samples=4, **options)
        assert missing == 0
        rates[name] = {place: (verdict.pass_rate, verdict.attempts) for place, verdict in verdicts.items()}
        assert reasons(verdicts) == {0: "kept", 1: "wrong", 2: "kept", 3: "kept"}
    assert rates["all"] == {0: (0.25, 4), 1: (0.0, 4), 2: (1.0, 4), 3: (0.25, 4)}
    assert rates["until"] == {0: (1.0, 1), 1: (0.0, 4), 2: (1.0, 1), 3: (0.25, 4)}


def test_training_takes_the_records_whose_pass_rate_is_in_the_range(load, tmp_path):
    rated = load(
        [
            record(number, **({} if rate is None else {"pass_rate": rate}))
            for number, rate in enumerate((0, 0.25, None, 1.0))
        ]
    )
    assert within_pass_rates(rated, 0.1, 0.9)["problem_id"][:] == [1]
    assert within_pass_rates(rated, 0.25)["problem_id"][:] == [1, 3]
    assert within_pass_rates(rated, highest=0.25)["problem_id"][:] == [0, 1]
    with pytest.raises(ValueError, match=re.escape("min_pass_rate (0.9) and max_pass_rate (0.1) must be in [0, 1]")):
        within_pass_rates(rated, 0.9, 0.1)
    with pytest.raises(ValueError, match=re.escape("None of 4 records has a pass_rate from 0.5 to 0.6")):
        within_pass_rates(rated, 0.5, 0.6)
    with pytest.raises(ValueError, match="The records have no field 'pass_rate'"):
        within_pass_rates(load([record(0)]), 0.5)


def test_the_command_filters_by_pass_rate(load, models, tmp_path, run_script, capsys):
    from videor1_trl.scripts import train_tgrpo

    load([record(number, data_type="text", path=None, pass_rate=number / 4) for number in range(5)])
    arguments = [
        "--dataset",
        tmp_path / "data" / "train.json",
        "--model_name_or_path",
        models().path,
        "--output_dir",
        tmp_path / "out",
    ]
    arguments += ["--min_pass_rate", "0.5", "--dry_run", "true", "--max_steps", "1", "--num_generations", "2"]
    defaults = {"--per_device_train_batch_size": 2, "--bf16": "false", "--use_cpu": "true"}
    with pytest.raises(SystemExit) as ended:
        run_script(train_tgrpo, arguments, defaults)
    assert ended.value.code == 0
    assert "3 of 5 records have a pass rate in the range" in capsys.readouterr().out


def test_figures_are_of_the_records_that_were_asked_for_now(load, tmp_path):
    dataset = load([record(number) for number in range(9)])
    for limit in (9, 2):
        journal = generate_rationales(dataset, Scripted(), tmp_path / "out", limit=limit, progress=False)
        verdicts, _ = read_rationales(dataset, journal, limit=limit)
        summary = write_rationales(dataset, verdicts, journal, {})
        assert (summary["records"], summary["completions"]) == (limit, limit)


def test_an_answer_may_repeat_its_option(load, tmp_path):
    dataset = load([record(0, options=["A. group I", "B. group II"])])
    backend = Scripted(otherwise="<think>Look.</think><answer>A. group I</answer>")
    assert reasons(generate(dataset, backend, tmp_path / "out")[0]) == {0: "kept"}


def test_the_kept_records_train_a_model(load, models, media, tmp_path):
    rows = [record(number, path=f"./{number}.mp4") for number in range(4)]
    rows[3] = record(3, data_type="text", path=None)
    dataset = load(rows)
    for number in range(3):
        (tmp_path / "data" / f"{number}.mp4").write_bytes(Path(media["videos"][number]).read_bytes())
    journal = generate_rationales(dataset, Scripted(), tmp_path / "out", progress=False)
    write_rationales(dataset, read_rationales(dataset, journal)[0], journal, {})
    args = sft_config(tmp_path / "sft", per_device_train_batch_size=4, video_max_pixels=28 * 28)
    kept = load_video_r1(tmp_path / "out" / "records.jsonl", tmp_path / "data")
    trainer = VideoSFTTrainer(models().path, args, kept)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] > 0
    text = trainer.processing_class.decode(
        [t for t in next(iter(trainer.get_train_dataloader()))["labels"][0] if t >= 0]
    )
    assert text.startswith("<think>It goes left.</think>\n<answer>A</answer>")


# Real backends


@pytest.fixture
def toy_records(load, media, tmp_path):
    """Three videos, the first with two questions, an image, and one video that is missing."""
    rows = [record(0), record(1), record(2), record(3, path="./gone.mp4"), record(4, data_type="image", path="i.png")]
    dataset = load(rows)
    for number in range(2):
        (tmp_path / "data" / f"{number}.mp4").write_bytes(Path(media["videos"][number]).read_bytes())
    (tmp_path / "data" / "i.png").write_bytes(Path(media["image"]).read_bytes())
    return dataset


def test_a_models_completions_follow_from_seed_and_record_alone(toy_records, models, tmp_path):
    settings = GenerationSettings(max_new_tokens=6, temperature=1.0, video_max_pixels=28 * 28)
    texts = []
    for batch_size in (1, 3):
        backend = TransformersBackend(models().model, models().processor, settings, batch_size=batch_size)
        journal = generate_rationales(toy_records, backend, tmp_path / str(batch_size), num_samples=2, progress=False)
        texts.append({key: entry["text"] for key, entry in journal.entries().items()})
        verdicts, missing = read_rationales(toy_records, journal, num_samples=2)
        assert (missing, reasons(verdicts)[3]) == (0, "error")
        assert set(reasons(verdicts).values()) <= {"error", "cut_off", "no_rationale"}
    assert texts[0] == texts[1]
    assert len(texts[0]) == 9 and texts[0]["0/0"] != texts[0]["0/1"]  # the missing video once, the others twice


def test_a_server_thinks_for_us(toy_records, serve, tmp_path):
    def answer(body, attempt):
        pictures = sum(part["type"] == "image_url" for part in body["messages"][-1]["content"])
        if pictures == 1:  # the image: thought in a field of its own, no usage, no reason to finish
            found = server_completion("<answer>A</answer>", None, reasoning_content="I see it.")
            del found["usage"]
            return found
        return server_completion(GOOD if body["seed"] % 2 else WRONG)

    settings = GenerationSettings(temperature=1.0, top_p=0.95, max_new_tokens=64)
    server = serve(answer)
    backend = ServerBackend(server.url, "tiny", settings, concurrency=2)
    verdicts, missing = generate(toy_records, backend, tmp_path / "out", num_samples=8)
    assert missing == 0 and (verdicts[3].reason, verdicts[4].process) == ("error", "<think>I see it.</think>")
    assert {reasons(verdicts)[place] for place in range(3)} == {"kept"}  # 1 of 256 each to draw eight even seeds
    sent = len(server.bodies)
    generate(toy_records, backend, tmp_path / "out", num_samples=8)
    assert len(server.bodies) == sent
    with pytest.raises(ValueError, match="this server does not"):
        generate(toy_records, backend, tmp_path / "out", CotRules(min_tokens=1), num_samples=8)


# The script


@pytest.fixture
def run(run_script, models, toy_records, tmp_path):
    """`run(*arguments)`: what the script prints, on the tiny Qwen2.5-VL and the records where they say nothing else."""

    def call(*arguments):
        defaults = {
            "--model_name_or_path": models().path,
            "--dataset": tmp_path / "data" / "train.json",
            "--output_dir": tmp_path / "out",
            "--max_new_tokens": 4,
            "--video_max_pixels": 28 * 28,
        }
        return run_script(generate_cot, arguments, defaults)

    return call


def test_the_script_with_a_server_prints_what_was_kept_and_how_to_train_on_it(run, serve, tmp_path, capsys):
    def answer(body, attempt):
        pictures = [part for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
        return server_completion(WRONG if len(pictures) == 1 else GOOD)

    printed = run("--backend", "server", "--base_url", serve(answer).url, "--model_name_or_path", "tiny")
    lines = [line.rstrip() for line in printed.splitlines()]
    assert lines[0] == "5 records, 5 completions of 9 tokens on average"
    assert re.search(r"multiple choice\s*│\s*5 │\s*3 \(60%\) │\s*0.75 │\s*1 │\s*1 │", printed)
    assert re.search(r"records\W+kept\W+accuracy\W+error\W+wrong", printed)
    assert f"  error: record 3: {tmp_path / 'data' / 'gone.mp4'}: no such file" in printed
    kept = tmp_path / "out" / "records.jsonl"
    rated = tmp_path / "out" / "rated.jsonl"
    assert lines[-3:] == [
        f"To train on them: videor1 sft --dataset {kept} --data_root {tmp_path / 'data'}",
        f"To train by pass rates: videor1 train --dataset {rated} --data_root {tmp_path / 'data'} --min_pass_rate ...",
        f"Saved to {kept}.",
    ]
    # as the manual has it, with the folders of this test
    [documented] = re.findall(
        r"videor1 train --dataset runs/toy_cot/rated\.jsonl .*", (EXAMPLES.parent / "docs/objectives.md").read_text()
    )
    documented = documented.replace("runs/toy_cot", str(tmp_path / "out")).replace(
        "runs/toy/data", str(tmp_path / "data")
    )
    run_args = train_tgrpo.make_parser().parse_args_and_config(
        shlex.split(documented)[2:] + ["--output_dir", "x", "--bf16", "false", "--use_cpu", "true"]
    )
    data_args = next(each for each in run_args if hasattr(each, "min_pass_rate"))
    assert (data_args.min_pass_rate, data_args.max_pass_rate) == (0.1, 0.9)
    rows = load_records(data_args, data_args.dataset)
    assert len(rows) == 5 and all(Path(path).exists() for path in rows["video"] if path and "gone" not in path)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    settings = summary["sessions"][0]["identity"]["settings"]
    assert (settings["temperature"], settings["top_p"]) == (1.0, 0.95)
    assert (summary["num_samples"], summary["rules"]["threshold"]) == (1, 0.6)
    assert len(load_video_r1(kept, tmp_path / "data")) == 3


def test_records_of_a_subfolder_are_found_by_the_flags_that_the_script_prints(run, serve, tmp_path):
    data = tmp_path / "data"
    server = serve(lambda body, attempt: server_completion(GOOD))
    flags = ["--backend", "server", "--base_url", server.url, "--model_name_or_path", "tiny"]
    (data / "sub").mkdir()
    (data / "sub" / "a.json").write_text(json.dumps([record(0, path="./clip.mp4")]))
    (data / "sub" / "clip.mp4").write_bytes((data / "0.mp4").read_bytes())
    printed = run(*flags, "--dataset", data, "--data_files", "sub/a.json")
    root = re.search("--data_root (.*)", printed)[1]
    assert root == str(data / "sub")
    assert Path(load_video_r1(tmp_path / "out" / "records.jsonl", root)[0]["video"]).exists()
    with pytest.raises(SystemExit, match="the files of records lie in several folders"):
        run(*flags, "--dataset", data, "--data_files", "sub/a.json", "train.json")


def test_the_script_with_a_local_model_says_where_nothing_was_kept(run, tmp_path):
    printed = run("--num_samples", "2", "--limit", "2")
    assert "No record was kept" in printed and (tmp_path / "out" / "records.jsonl").read_text() == ""
    assert "2 records, 3 completions of 4 tokens on average" in printed  # the missing video is asked for once
    assert re.search(r"multiple choice\s*│\s*2 │\s*0 \(0%\)", printed)


def test_the_papers_sampling_is_the_default():
    _, args, rules, _, settings = generate_cot.make_parser().parse_args_and_config([])
    assert (settings.temperature, settings.top_p, settings.max_new_tokens) == (1.0, 0.95, 512)
    assert (rules, args.num_samples) == (CotRules(), 1)


@pytest.mark.parametrize("name", ["toy_cot", "video_r1_72b_cot"])
def test_recipes_parse(name):
    data, args, rules, backend, settings = generate_cot.make_parser().parse_args_and_config(
        ["--config", str(EXAMPLES / "configs" / f"{name}.yaml")]
    )
    assert rules == CotRules() and settings.temperature == 1.0 and settings.top_p == 0.95
    if name == "video_r1_72b_cot":
        assert backend.model_name_or_path == "Qwen/Qwen2.5-VL-72B-Instruct"
        assert (settings.max_new_tokens, settings.video_max_frames, settings.video_max_pixels) == (
            512,
            16,
            128 * 28**2,
        )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset", "nowhere.json"], "nowhere.json"),
        (["--threshold", "1"], "threshold (1.0) must be in [0, 1)"),
        (["--num_samples", "0"], "num_samples (0) must be at least 1."),
        (["--limit", "0"], "limit (0) must be at least 1."),
        (["--model_name_or_path", "./nowhere"], "model_name_or_path (./nowhere) is not a folder."),
        (["--backend", "server"], "base_url is not set"),
        (["--temperature", "-1"], "temperature (-1.0) must be 0 (greedy) or more."),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(run, arguments, message):
    said = refused(run, *arguments)
    assert said.startswith("generate_cot.py: ") and message in said and "\n" not in said


def test_a_dry_run_finds_what_is_missing_and_loads_no_model(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--dry_run", "true", "--model_name_or_path", "no/model")
    printed = capsys.readouterr().out
    assert stopped.value.code == 1 and not (tmp_path / "out").exists()
    assert "5 records, 3 videos, 1 images" in printed and "  multiple choice: 5" in printed
    assert f"problem: {tmp_path / 'data' / 'gone.mp4'}: missing" in printed and printed.endswith("Problems: 1.\n")
    with pytest.raises(SystemExit):
        run("--dry_run", "true", "--limit", "2")
    assert "2 records, " in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_script_goes_on(models, toy_records, tmp_path):
    """SIGKILL at an arbitrary moment, again and again: the end is that of a run that was left alone."""
    rows = [record(number, path=f"./{number % 2}.mp4") for number in range(24)]
    (tmp_path / "data" / "train.json").write_text(json.dumps(rows))
    command = [sys.executable, str(EXAMPLES / "generate_cot.py"), "--model_name_or_path", models().path]
    command += ["--dataset", str(tmp_path / "data" / "train.json"), "--max_new_tokens", "40", "--batch_size", "1"]
    command += ["--video_max_pixels", "784", "--num_samples", "2", "--output_dir"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    journal = tmp_path / "killed" / "completions.jsonl"
    for wanted in (3, 20):
        process = subprocess.Popen(
            [*command, str(tmp_path / "killed")], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") < wanted:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
    for name in ("killed", "whole"):
        done = subprocess.run([*command, str(tmp_path / name)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    found = {}
    for name in ("killed", "whole"):
        entries = [line for line in read_lines(tmp_path / name / "completions.jsonl") if "key" in line]
        found[name] = {entry["key"]: entry["text"] for entry in entries}
        assert len(entries) == len(found[name]) == 48
    assert found["killed"] == found["whole"]
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in found]
    assert {**summaries[0], "sessions": 0} == {**summaries[1], "sessions": 0}
