"""`videor1 eval` beyond scores: time dependence and what is selected by it, subtitles, and a judge behind a real server."""

import json
import re

import benchmark_files
import further_benchmark_files
import pytest
import tiny
from helpers import refused
from stand_in_server import completion

from videor1_trl.generation.journal import read_lines
from videor1_trl.scripts import evaluate, train_tgrpo
from videor1_trl.watching.groups import read_groups
from videor1_trl.watching.page import Page


@pytest.fixture
def run(run_script, models, tmp_path):
    """`run(*arguments)`: what the script prints, on the tiny Qwen2.5-VL."""

    def call(*arguments):
        defaults = {
            "--model_name_or_path": models().path,
            "--output_dir": tmp_path / "out",
            "--max_new_tokens": 4,
            "--video_max_pixels": 28 * 28,
        }
        return run_script(evaluate, arguments, defaults)

    return call


@pytest.fixture
def records(tmp_path):
    """Four records on two videos, the second of which turns the other way."""
    record = {"problem_type": "multiple choice", "options": ["A. x", "B. y"], "solution": "<answer>A</answer>"}
    rows = []
    for number in range(4):
        tiny.write_mp4(tmp_path / f"{number // 2}.mp4", tiny.colour_frames(number // 2, count=8))
        rows.append(
            {
                **record,
                "data_type": "video",
                "problem": f"Which way {number}?",
                "problem_id": number,
                "path": f"{number // 2}.mp4",
            }
        )
    file = tmp_path / "train.json"
    file.write_text(json.dumps(rows))
    return file


def lines(folder):
    return list(read_lines(folder / "results.jsonl"))


def test_every_question_has_a_column_and_subsets_and_training_records_are_selected_by_it(
    run, run_script, records, tmp_path, models
):
    printed = run("--dataset", records, "--time_dependence", "true")
    assert "time dependence: 4 questions, on average" in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["time_dependence"]["questions"] == 4 and summary["time_dependence"]["errors"] == 0
    values = {line["key"]: line["time_dependence"]["reversed"] for line in lines(tmp_path / "out")}
    assert list(values) == ["0/0", "1/1", "2/2", "3/3"] and all(value > 0 for value in values.values())
    bound = sorted(values.values())[2]
    chosen = [key for key, value in values.items() if value >= bound]
    selecting = ["--select", tmp_path / "out", "--select_min", repr(bound)]
    printed = run("--dataset", records, *selecting, "--output_dir", tmp_path / "part")
    assert "Selected 2 of 4 questions" in printed and "2 of 4 questions" in printed
    assert [line["key"] for line in lines(tmp_path / "part")] == chosen
    selected = json.loads((tmp_path / "part" / "selected.json").read_text())
    assert list(selected["questions"]) == chosen and selected["minimum"] == bound
    plan = [
        "--dry_run",
        "true",
        "--dataset",
        records,
        *selecting,
        "--model_name_or_path",
        models().path,
        "--bf16",
        "false",
    ]
    with pytest.raises(SystemExit) as ended:
        run_script(train_tgrpo, [*plan, "--output_dir", tmp_path / "train"], {})
    assert ended.value.code in (0, 1)
    assert "--select (" in refused(run, "--dataset", records, "--select", tmp_path / "gone")
    assert "none of the 4 questions depends on time by 99.0 nats" in refused(
        run, "--dataset", records, "--select", tmp_path / "out", "--select_min", 99, "--output_dir", tmp_path / "x"
    )


def test_training_records_are_those_selected(records, tmp_path, monkeypatch):
    from videor1_trl.scripts.record_flags import DataArguments, load_records

    folder = tmp_path / "run"
    folder.mkdir()
    found = [
        {"key": f"{n}/{n}", "problem": f"Which way {n}?", "time_dependence": {"reversed": n / 10, "shuffled": 0.0}}
        for n in range(4)
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    chosen = DataArguments(dataset=str(records), select=str(folder), select_min=0.2, eval_dataset=str(records))
    assert load_records(chosen, str(records))["problem_id"][:] == [2, 3]
    with pytest.raises(ValueError, match="have no field 'time_dependence'"):
        load_records(DataArguments(dataset=str(records), select="field"), str(records))
    rows = [{**row, "time_dependence": n / 10} for n, row in enumerate(json.loads(records.read_text()))]
    records.write_text(json.dumps(rows))
    assert load_records(DataArguments(dataset=str(records), select="field"), str(records))["problem_id"][:] == [
        1,
        2,
        3,
    ]


def test_subtitles_stand_behind_the_video_and_are_named_in_the_results(run, tmp_path, serve):
    source = benchmark_files.make("videomme", tmp_path / "videomme")
    flags = ["--benchmark", "videomme", "--source", source, "--subtitles", "sampled"]
    assert "there is no such folder. Unpack subtitle.zip" in refused(run, *flags)
    (source / "subtitle").mkdir()
    said = "1\n00:00:00,000 --> 00:00:01,500\nFirst words.\n\n2\n00:59:00,000 --> 00:59:09,000\nToo late.\n"
    (source / "subtitle" / "a-_x.srt").write_text(said)
    server = serve(lambda body, attempt: completion("<answer>C</answer>"))
    asked = ["--backend", "server", "--base_url", server.url, "--model_name_or_path", "m"]
    printed = run(*flags, *asked, "--control", "text-only")
    assert "subtitles: sampled; 1 of 2 videos have some" in printed
    parts = [body["messages"][-1]["content"] for body in server.bodies]
    with_video = next(part for part in parts if isinstance(part, list))
    texts = [part["text"] for part in with_video if part["type"] == "text"]
    assert texts[0] == "Subtitles of the video:\nFirst words.\n" and texts[1].startswith("How many?")
    assert [part for part in parts if isinstance(part, str) and "Subtitles" in part] == []  # of text-only
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["subtitles"] == {"shown": "sampled", "videos_with": 1, "videos": 2}
    assert summary["sessions"][0]["identity"]["subtitles"] == "sampled"
    assert "subtitles: sampled there, None now" in refused(run, *flags[:-2], *asked).replace("'", "")
    later = run(*flags[:-1], "all", *asked, "--output_dir", tmp_path / "all")
    assert "subtitles: all" in later and "Too late." in str(server.bodies[-1]) + str(server.bodies[-2])


def test_benchmarks_without_subtitles_say_which_have_some(run, tmp_path):
    source = benchmark_files.make("mmvu", tmp_path / "mmvu")
    assert "These have: videomme, longvideobench, videomathqa" in refused(
        run, "--benchmark", "mmvu", "--source", source, "--subtitles", "all"
    )
    assert "records have none" in refused(run, "--dataset", source, "--subtitles", "all")


def test_subtitles_of_longvideobench_and_videomathqa_are_where_their_files_have_them(tmp_path):
    from videor1_trl.evaluation.benchmarks import load_benchmark

    source = further_benchmark_files.make("longvideobench", tmp_path / "lvb")
    (source / "subtitles").mkdir()
    rows = json.loads((source / "lvb_val.json").read_text())
    (source / "lvb_val.json").write_text(json.dumps([{**row, "starting_timestamp_for_subtitles": 60} for row in rows]))
    with pytest.raises(FileNotFoundError, match="x_en.json: there is no such file of subtitles"):
        load_benchmark("longvideobench", source=source, subtitles=True)
    said = [{"timestamp": [61.0, 62.5], "text": "the sign"}]
    (source / "subtitles" / "x_en.json").write_text(json.dumps(said))
    [question] = load_benchmark("longvideobench", source=source, subtitles=True)
    assert question.subtitles == ((1.0, 2.5, "the sign"),)
    source = further_benchmark_files.make("videomathqa", tmp_path / "vmq")
    (source / "subtitles").mkdir()
    (source / "subtitles" / "v.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nx squared\n")
    assert load_benchmark("videomathqa", source=source, subtitles=True)[0].subtitles == ((1.0, 2.0, "x squared"),)
    assert load_benchmark("videomathqa", source=source)[0].subtitles is None


def test_a_judge_marks_open_questions_and_may_come_later(run, tmp_path, serve):
    source = benchmark_files.make("mmvu", tmp_path / "mmvu")
    flags = ["--benchmark", "mmvu", "--source", source]
    (source / "videos" / "Chemistry").mkdir()
    tiny.write_mp4(source / "videos" / "Chemistry" / "1.mp4", tiny.colour_frames(1, count=8))
    model = serve(lambda body, attempt: completion("<answer>sodium chloride</answer>"))
    asked = ["--backend", "server", "--base_url", model.url, "--model_name_or_path", "m"]
    printed = " ".join(run(*flags, *asked).split())
    assert "Left out: open-ended questions" in printed and "Not asked: 1 (open-ended, which needs" in printed
    assert len(model.bodies) == 2
    judge = serve(lambda body, attempt: {**completion("<verdict>right</verdict>"), "model": "marker-1"})
    assert "a judge needs --judge_model and --judge_base_url" in refused(
        run, *flags, *asked, "--judge_model", "marker"
    )
    printed = run(*flags, *asked, "--judge_model", "marker", "--judge_base_url", judge.url)
    assert len(model.bodies) == 3 and len(judge.bodies) == 1  # nothing is asked twice
    assert "judge marker-1: 1 verdicts, failed 0" in printed and "Left out" not in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["questions"] == 3 and summary["judge"]["served_by"] == ["marker-1"]
    opened = next(line for line in lines(tmp_path / "out") if line["metric"] == "judged")
    assert (opened["gold"], opened["ordered"]["score"]) == ("salt", 1.0)


def test_frames_of_some_questions_stand_in_the_page_of_an_evaluation(run, records, tmp_path, serve):
    """Two of four questions, of each the four frames that were seen."""
    server = serve(lambda body, attempt: completion("<answer>A</answer>"))
    flags = ["--dataset", records, "--backend", "server", "--base_url", server.url, "--model_name_or_path", "m"]
    assert "--view_frames (-1) must be at least 0" in refused(run, *flags, "--view_frames", -1)
    run(*flags, "--control", "reversed", "shuffled")
    assert not (tmp_path / "out" / "frames.jsonl").exists()
    printed = run(*flags, "--control", "reversed", "shuffled", "--view_frames", 2)
    assert "Kept small pictures of the frames of 2 questions: videor1 view" in printed
    assert len(server.bodies) == 12  # nothing is asked twice
    groups = {group.name: group for group in read_groups(tmp_path / "out")}
    shown = groups["2/2"]
    assert len(shown.frames) == len(shown.seconds) == 4 and shown.controls["reversed"] == shown.frames[::-1]
    assert not groups["1/1"].frames and not groups["1/1"].controls
    path = tmp_path / "view.html"
    Page("out", list(groups.values())).write(path)
    text = path.read_text()
    data = json.loads(re.search(r'id="data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])["groups"]
    [found] = [group for group in data if group["name"] == "2/2"]
    strips = {each["name"]: each for each in found["controls"]}
    assert strips["reversed"]["order"] == [3, 2, 1, 0] and sorted(strips["shuffled"]["order"]) == [0, 1, 2, 3]
    pictures = json.loads(re.search(r'id="frames"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
    assert len(pictures) == 8 and strips["reversed"]["frames"] == found["frames"][::-1]


def test_captions_are_judged_and_named_in_the_summary(run, tmp_path, serve):
    source = benchmark_files.make("tempcompass", tmp_path / "tempcompass")
    row = {"video_id": "7", "dim": "speed", "question": "Describe it.", "mc_question": "Which?\nA. slow\nB. fast"}
    benchmark_files.parquet(source, "captioning", "test", [{**row, "mc_answer": "B. fast"}])
    model = serve(lambda body, attempt: completion("<answer>It is fast.</answer>"))
    judge = serve(lambda body, attempt: {**completion("<verdict>B</verdict>"), "model": "marker-1"})
    flags = ["--benchmark", "tempcompass", "--source", source, "--backend", "server", "--base_url", model.url]
    flags += ["--model_name_or_path", "m"]
    assert "captioning of tempcompass need a model as judge" in refused(run, *flags, "--subsets", "captioning")
    assert "Left out: captioning, which needs a model as judge" in run(*flags)
    printed = run(*flags, "--judge_model", "marker", "--judge_base_url", judge.url)
    assert len(model.bodies) == 5 and "judge marker-1: 1 verdicts, failed 0" in printed and "Left out" not in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["tasks"]["captioning"]["value"] == 1.0 and summary["judge"]["markings"] == ["choice"]
    assert (summary["judge"]["model"], summary["judge"]["served_by"]) == ("marker", ["marker-1"])


def test_a_judges_failure_is_printed_and_left_out_of_the_figures(run, tmp_path, serve):
    source = benchmark_files.make("mmvu", tmp_path / "mmvu")
    (source / "videos" / "Chemistry").mkdir()
    tiny.write_mp4(source / "videos" / "Chemistry" / "1.mp4", tiny.colour_frames(1, count=8))
    model = serve(lambda body, attempt: completion("<answer>E</answer>"))
    judge = serve(lambda body, attempt: completion("I cannot say."))
    flags = ["--benchmark", "mmvu", "--source", source, "--judge_model", "j", "--judge_base_url", judge.url]
    flags += ["--backend", "server", "--base_url", model.url, "--model_name_or_path", "m"]
    printed = run(*flags)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["questions"] == 2 and summary["judge"]["failures"] == 1
    assert "no verdict: ordered:validation_1: the judge gave no verdict: 'I cannot say.'" in printed


def test_a_server_weighs_options_behind_a_begun_answer_where_it_goes_on_with_it(run, records, tmp_path, serve):
    def answer(body, attempt):
        found = completion("<answer>A</answer>")
        if body.get("logprobs"):
            top = [{"token": letter, "logprob": -1.0} for letter in "AB"]
            found["choices"][0]["logprobs"] = {"content": [{"top_logprobs": top}]}
        return found

    server = serve(answer)
    flags = ["--dataset", records, "--backend", "server", "--base_url", server.url, "--model_name_or_path", "m"]
    printed = run(*flags, "--time_dependence", "true", "--output_dir", tmp_path / "closed")
    assert "not weighed: 0/0: its prompt ends with a turn of the assistant's, which a server closes" in printed
    goes_on = json.dumps({"continue_final_message": True, "add_generation_prompt": False})
    printed = run(*flags, "--time_dependence", "true", "--extra_body", goes_on)
    assert "time dependence: 4 questions, on average 0.000 nats against reversed frames" in printed
    assert "--extra_body ([1]) must be a JSON object" in refused(run, *flags, "--extra_body", "[1]")
    assert "--extra_body goes with --backend server" in refused(run, "--dataset", records, "--extra_body", "{}")
