"""`examples/evaluate.py` on tiny models: what it prints, writes and draws, how it goes on, and what it refuses in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import benchmark_files
import further_benchmark_files
import pytest
import tiny
from helpers import refused
from PIL import Image

from videor1_trl.generation.journal import read_lines
from videor1_trl.scripts import evaluate


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def holmes(tmp_path_factory):
    return benchmark_files.make("video-holmes", tmp_path_factory.mktemp("holmes") / "data")


@pytest.fixture
def run(run_script, models, holmes, tmp_path):
    """`run(*arguments)`: what the script prints; on the tiny Qwen2.5-VL and Video-Holmes where they say nothing else."""

    def call(*arguments):
        defaults = {
            "--model_name_or_path": models().path,
            "--output_dir": tmp_path / "out",
            "--max_new_tokens": 4,
            "--video_max_pixels": 28 * 28,
        }
        if "--dataset" not in arguments and "--source" not in arguments:
            defaults |= {"--benchmark": "video-holmes", "--source": holmes}
        return run_script(evaluate, arguments, defaults)

    return call


def test_tables_files_and_picture_of_a_run_with_controls(run, tmp_path):
    printed = run("--control", "shuffled", "text-only")
    assert "video-holmes: 2 questions on 1 videos" in printed and "text-only" in printed
    assert printed.splitlines()[-1] == f"Saved to {tmp_path / 'out'}."
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["benchmark"] == "video-holmes" and set(summary["controls"]) == {"shuffled", "text-only"}
    settings = summary["sessions"][0]["identity"]["settings"]
    assert (settings["video_max_frames"], settings["video_max_pixels"], settings["max_new_tokens"]) == (16, 784, 4)
    assert summary["sessions"][0]["notes"]["versions"]["transformers"]
    assert summary["chance"]["official"] == pytest.approx(1 / 6)
    lines = list(read_lines(tmp_path / "out" / "results.jsonl"))
    assert [line["key"] for line in lines] == ["x1/1", "x1/2"]
    assert all(set(line) >= {"ordered", "shuffled", "text-only"} for line in lines)
    with Image.open(tmp_path / "out" / "controls.png") as picture:
        assert picture.width > 400 and len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_sets_of_questions_that_count_together_have_a_table(run, tmp_path):
    source = further_benchmark_files.make("timeblind", tmp_path / "timeblind")
    printed = run("--benchmark", "timeblind", "--source", source, "--control", "text-only")
    for name in ("pooled", "mean of tasks", "Q_Acc: all 2 right", "V_Acc: all 2 right", "I_Acc: all 4 right"):
        assert name in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {name: each["questions"] for name, each in summary["together"].items()} == {
        "I_Acc": 2,
        "Q_Acc": 4,
        "V_Acc": 4,
    }
    assert summary["together"]["I_Acc"]["chance"] == pytest.approx(1 / 16)
    assert set(summary["controls"]["text-only"]["together"]) == {"I_Acc", "Q_Acc", "V_Acc"}


def test_controls_that_mean_nothing_are_refused_before_a_model_is_loaded(run, tmp_path):
    source = further_benchmark_files.make("vinoground", tmp_path / "vinoground")
    flags = ["--benchmark", "vinoground", "--source", source, "--model_name_or_path", "no/model"]
    said = refused(run, *flags, "--control", "shuffled")
    assert "control ('shuffled') means nothing for 4 of the 8 questions of vinoground" in said and "\n" not in said


def test_another_start_goes_on_with_more_controls_and_asks_nothing_twice(run, tmp_path):
    run()
    first = (tmp_path / "out" / "completions.jsonl").read_bytes()
    run("--control", "reversed")
    second = (tmp_path / "out" / "completions.jsonl").read_bytes()
    assert second.startswith(first)
    keys = [entry["key"] for entry in read_lines(tmp_path / "out" / "completions.jsonl") if "key" in entry]
    assert sorted(keys) == ["ordered:x1/1", "ordered:x1/2", "reversed:x1/1", "reversed:x1/2"]
    said = refused(run, "--video_max_frames", 8)
    assert "settings.video_max_frames: 16 there, 8 now" in said and "\n" not in said


def test_figures_are_of_all_answers_whatever_was_asked_last(run, tmp_path):
    run("--control", "shuffled")
    printed = run("--control", "reversed", "--limit", "1")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["questions"], summary["questions_of_benchmark"]) == (2, 2)
    assert {name: each["questions"] for name, each in summary["controls"].items()} == {"shuffled": 2, "reversed": 1}
    assert len(list(read_lines(tmp_path / "out" / "results.jsonl"))) == 2
    assert "video-holmes: 2 questions on 1 videos" in printed and "shuffled" in printed
    printed = run("--output_dir", tmp_path / "part", "--limit", "1")
    assert "video-holmes: 1 of 2 questions on 1 videos" in printed


def test_names_may_hold_what_rich_takes_for_markup_and_questions_may_have_no_video(run, tmp_path):
    Image.new("RGB", (56, 56)).save(tmp_path / "a.png")
    record = {"problem": "Which?", "problem_type": "multiple choice", "options": ["A. x", "B. y"], "path": "a.png"}
    record |= {"solution": "<answer>A</answer>", "data_type": "image"}
    file = tmp_path / "images.json"
    file.write_text(json.dumps([{**record, "data_source": "qa [/v2]"}, {**record, "data_source": "[red]x"}]))
    printed = run("--dataset", file, "--control", "shuffled")
    assert "images: 2 questions\n" in "\n".join(line.rstrip() for line in printed.splitlines())
    assert "qa [/v2]" in printed and "[red]x" in printed
    assert printed.splitlines()[-1] == f"Saved to {tmp_path / 'out'}."
    assert not (tmp_path / "out" / "controls.png").exists()


def test_a_home_folder_in_a_yaml_file_is_expanded(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    records(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text("dataset: ~/eval_mvbench.json\noutput_dir: ~/out\n")
    printed = run("--config", config, "--dataset", "~/eval_mvbench.json", "--output_dir", "~/out")
    assert f"Saved to {tmp_path / 'out'}." in printed and (tmp_path / "out" / "summary.json").exists()


def test_a_process_says_what_it_alone_has_found(run, monkeypatch, tmp_path):
    from videor1_trl.generation.journal import Journal

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with Journal(tmp_path / "out", {}):
        said = refused(run)
    assert "completions-001-of-002.jsonl is written by another process" in said and "\n" not in said


def test_the_papers_pixels_are_the_default(run, tmp_path, monkeypatch, models, holmes):
    arguments = ["--benchmark", "video-holmes", "--output_dir", str(tmp_path)]
    _, _, settings, _ = evaluate.make_parser().parse_args_and_config(arguments)
    assert settings.video_max_pixels == 256 * 28 * 28 and settings.temperature == 0.0


@pytest.mark.parametrize("name", ["toy_eval", "video_r1_eval"])
def test_recipes_parse(name):
    args, backend, settings, _ = evaluate.make_parser().parse_args_and_config(["--config", name])
    if name == "toy_eval":
        assert args.control == ["shuffled", "reversed", "single-frame", "text-only"]
        return
    assert backend.model_name_or_path == "Video-R1/Video-R1-7B"
    assert (settings.temperature, settings.top_p, settings.max_new_tokens) == (0.01, 0.001, 1024)
    assert (settings.video_max_frames, settings.video_max_pixels) == (16, 256 * 28 * 28)


def records(folder):
    record = {"problem": "Which way?", "problem_type": "multiple choice", "options": ["A. x", "B. y"]}
    record |= {"solution": "<answer>A</answer>", "data_type": "video"}
    tiny.write_mp4(folder / "a.mp4", tiny.colour_frames(0, count=8))
    file = folder / "eval_mvbench.json"
    file.write_text(json.dumps([{**record, "path": "a.mp4"}, {**record, "path": "gone.mp4"}]))
    return file


def test_a_missing_video_costs_one_question_of_video_r1s_records(run, tmp_path):
    file = records(tmp_path)
    printed = run("--dataset", file)
    assert "eval_mvbench: 2 questions on 2 videos" in printed
    assert "unreadable 1" in printed and f"counted as wrong: 1: {tmp_path / 'gone.mp4'}: no such file" in printed
    tiny.write_mp4(tmp_path / "gone.mp4", tiny.colour_frames(1, count=8))
    assert "unreadable 1" in run("--dataset", tmp_path, "--data_files", file.name)
    assert "unreadable 0" in run("--dataset", file, "--retry_errors", "true")


def test_a_dry_run_finds_what_is_missing_and_loads_no_model(run, tmp_path, capsys):
    file = records(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run("--dataset", file, "--dry_run", "true", "--model_name_or_path", "no/model")
    printed = capsys.readouterr().out
    assert stopped.value.code == 1
    assert "2 questions on 2 videos" in printed and f"problem: {tmp_path / 'gone.mp4'}: missing" in printed
    assert printed.endswith("Problems: 1.\n") and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as stopped:
        run("--dry_run", "true", "--model_name_or_path", "no/model")
    assert stopped.value.code == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset", "a.json", "--benchmark", "mmvu"], "give either --benchmark or --dataset."),
        (
            ["--dataset", "a.json", "--subsets", "debiased"],
            "--subsets does not go with --dataset: it is for --benchmark.",
        ),
        (["--data_root", "x"], "--data_root does not go with --benchmark: it is for --dataset."),
        (["--control", "muted"], "control ('muted') must be one of shuffled, reversed, single-frame, text-only."),
        (["--benchmark", "mmbench"], "benchmark ('mmbench') must be one of vsibench, videommmu, "),
        (["--limit", "0"], "limit (0) must be at least 1, or unset."),
        (["--model_name_or_path", "./nowhere"], "model_name_or_path (./nowhere) is not a folder."),
        (["--backend", "server"], "--base_url is not set: --backend server needs one"),
        (["--dataset", "nowhere.json"], "nowhere.json"),
        (["--temperature", "-1"], "temperature (-1.0) must be 0 (greedy) or more."),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(run, arguments, message):
    said = refused(run, *arguments)
    assert said.startswith("evaluate.py: ") and message in said and "\n" not in said


def test_a_backend_that_breaks_leaves_what_was_answered(run, monkeypatch, tmp_path):
    import torch

    from videor1_trl.generation.transformers_backend import TransformersBackend

    complete = TransformersBackend.complete_batch
    calls = []

    def breaks(self, prompts, streamer=None):
        calls.append(prompts)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("2 prompts do not fit.")
        return complete(self, prompts, streamer)

    monkeypatch.setattr(TransformersBackend, "complete_batch", breaks)
    said = refused(run, "--batch_size", "1")
    assert said == "evaluate.py: 2 prompts do not fit. What was answered so far is kept: start again to go on."
    assert "2 questions on 1 videos" in run("--batch_size", "1")
    assert len(calls) == 3


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(run, models, holmes, tmp_path):
    run("--control", "shuffled")
    arguments = ["--model_name_or_path", models().path, "--benchmark", "video-holmes", "--source", str(holmes)]
    arguments += ["--output_dir", str(tmp_path / "two"), "--max_new_tokens", "4", "--video_max_pixels", "784"]
    command = [sys.executable, str(EXAMPLES / "evaluate.py"), *arguments, "--control", "shuffled"]
    processes = [
        subprocess.Popen(
            command,
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "CUDA_VISIBLE_DEVICES": "",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert any(f"Saved to {tmp_path / 'two'}." in out for out, _ in outputs)
    one, two = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("out", "two"))
    assert len(two["sessions"]) == 1
    assert {**one, "sessions": 0} == {**two, "sessions": 0}
