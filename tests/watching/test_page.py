"""The page as it is written: what is read of which folder, what stands in the file, and that nothing in it is code."""

import json
import re

import pytest
from helpers import refused
from pages import pictures, record, write_log, write_page, write_run

from videor1_trl.scripts import view
from videor1_trl.watching.groups import read_groups
from videor1_trl.watching.page import Page
from videor1_trl.watching.store import frame_name


HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>&amp;\u2028\u2029 \ud83d \x00"
)


def embedded(path, name="data"):
    """What stands in one of the page's blocks of JSON."""
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', path.read_text())[1])


def test_everything_that_comes_from_model_or_data_is_escaped(tmp_path):
    fields = dict.fromkeys(("prompt", "gold", "completion", "answer", "problem_type", "problem_id", "error"), HOSTILE)
    folder = write_run(tmp_path / "<b>run", [record(**fields, rewards={HOSTILE: 1.0})])
    text = write_page(folder).read_text()
    assert text.count("<script") == text.count("</script") == 3
    assert "\u2028" not in text[text.index('id="data"') :]  # which ends a line of a script
    assert "<img" not in text and "onerror='" not in text and "<b>run" not in text and "&lt;b&gt;run" in text
    [group] = embedded(folder / "view.html")["groups"]
    assert group["rollouts"][0]["completion"].startswith(HOSTILE[:70]) and group["prompt"].startswith(HOSTILE[:70])


def test_nothing_is_loaded_and_no_other_script_runs(tmp_path):
    text = write_page(write_run(tmp_path, [record()], pictures(1))).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:;") and "script-src 'sha256-" in policy
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text) and "url(" not in text and "http" not in policy


def test_a_picture_is_embedded_once_and_one_that_is_gone_is_none(tmp_path):
    shown = pictures(3)
    names = [frame_name(each, 0) for each in shown]
    records = [
        record(
            group=group, kind=kind, frames=names if kind == "ordered" else names[::-1], frame_seconds=[0.0, 0.5, 1.0]
        )
        for group in range(2)
        for kind in ("ordered", "contrast")
    ]
    folder = write_run(tmp_path, records, shown)
    (folder / names[1]).unlink()
    path = write_page(folder)
    assert len(embedded(path, "frames")) == 2
    groups = embedded(path)["groups"]
    assert [group["frames"] for group in groups] == [[0, None, 1]] * 2
    assert groups[0]["contrastFrames"] == [1, None, 0] and groups[0]["contrastOrder"] == [2, 1, 0]


def test_groups_stand_in_the_order_of_their_steps_with_what_tells_them_apart(tmp_path):
    records = [
        record(step=3, group=1, problem_id="x"),
        record(step=3, group=0, generation=1),
        record(step=1, group_contrast_accuracy=1.0),
        record(step=3, mode="eval"),
    ]
    groups = read_groups(write_run(tmp_path, records))
    assert [(group.source, group.step, group.name) for group in groups] == [
        ("train", 1, "group 1"), ("train", 3, "group 2, id x"), ("train", 3, "group 1 of batch 2"), ("eval", 3, "group 1")
    ]  # fmt: skip
    data = embedded(write_page(tmp_path))["groups"]
    assert [group["orderMattered"] for group in data] == [False, True, True, True]


def test_curves_are_those_of_the_log_or_else_of_the_records(tmp_path):
    folder = write_run(tmp_path, [record(step=step, reward=step / 4) for step in (1, 2)])
    text = write_page(folder).read_text()
    assert "of the recorded rollouts" in text and 'aria-label="reward, steps 1 to 2; last: reward 0.5"' in text
    log = [{"step": step, "reward": step / 10, "entropy": 1.0, "kl": 0.1} for step in range(1, 11)]
    write_log(folder, log)
    view.write_page([folder], folder / "view.html")
    text = (folder / "view.html").read_text()
    assert "of the recorded rollouts" not in text
    assert 'aria-label="reward, steps 1 to 10; last: reward 1"' in text
    assert 'aria-label="nats a token, steps 1 to 10; last: entropy 1, KL 0.1"' in text
    assert "None of what usually goes wrong was found in 10 logged steps." in text


def test_what_goes_wrong_stands_on_top(tmp_path):
    folder = write_run(tmp_path, [record()])
    log = [{"step": step, "reward": 1.0, "completions/clipped_ratio": 0.5} for step in range(1, 11)]
    text = write_page(folder, log=log).read_text()
    assert "<strong>cut off:</strong> 50% of the completions in steps 1 to 10 were cut off" in text


def test_an_evaluation_is_shown_with_its_controls_side_by_side(tmp_path):
    def answer(text, score, finished=True):
        return {"answer": "A", "score": score, "text": text, "num_tokens": 7, "finished": finished, "error": None}

    line = {
        "key": "7", "task": "order", "benchmark": "", "problem": "Which is first?", "problem_type": "multiple choice",
        "options": ["A. red", "B. blue"], "gold": "A", "together": {}, "video": "7.mp4",
        "ordered": answer("<answer>A</answer>", 1.0), "shuffled": answer("<answer>B</answer>", 0.0, False),
        "reversed": answer("none", 1.0),
    }  # fmt: skip
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n")
    [group] = read_groups(tmp_path)
    assert (group.prompt, group.gold, group.source) == ("Which is first?\nA. red\nB. blue", "A", tmp_path.name)
    assert [(each["kind"], each["contrast"], each["accuracy"]) for each in group.rollouts] == [
        ("ordered", "", 1.0), ("contrast", "shuffled", 0.0), ("contrast", "reversed", 1.0)
    ]  # fmt: skip
    assert [each["cut_off"] for each in group.rollouts] == [False, True, False]
    assert [each["answered"] for each in group.rollouts] == [True, True, False]
    assert group.accuracy == 1.0 and group.contrast_accuracy == 0.5


def test_journals_are_shown_too_and_rationales_that_were_kept_with_their_record(tmp_path):
    def line(key, text, **fields):
        return {"key": key, "text": text, "num_tokens": 3, "finished": True, "error": None, **fields}

    journal = tmp_path / "cot"
    journal.mkdir()
    kept = "<think>It goes left.</think>"
    lines = [
        {"session": {}},
        line("0/0", "no"),
        line("0/1", f"{kept}<answer>A</answer>"),
        line("1/0", None, error="bad.mp4"),
    ]
    (journal / "completions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines) + '{"key": "to')
    record_of = {
        "problem": "Which way?",
        "problem_type": "multiple choice",
        "solution": "<answer>A</answer>",
        "process": kept,
    }
    (journal / "records.jsonl").write_text(json.dumps(record_of) + "\n")
    first, second = read_groups(journal)
    assert (first.name, first.prompt, first.gold) == ("record 0", "Which way?", "A")
    assert [(each["place"], each["answered"], each.get("kept")) for each in first.rollouts] == [
        (0, False, None),
        (1, True, True),
    ]
    assert second.rollouts[0]["error"] == "bad.mp4" and second.rollouts[0]["completion"] == ""
    other = {**record_of, "problem": "And here?"}
    (journal / "records.jsonl").write_text(json.dumps(record_of) + "\n" + json.dumps(other) + "\n")
    ambiguous, _ = read_groups(journal)
    assert (ambiguous.prompt, ambiguous.rollouts[1].get("kept")) == ("", True), "not the prompt of another record"
    (journal / "records.jsonl").unlink()
    lines = [{"session": {}}, line("ordered:7", "a"), line("shuffled:7", "b")]
    (journal / "completions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    [group] = read_groups(journal)
    assert [(each["kind"], each["contrast"]) for each in group.rollouts] == [("ordered", ""), ("contrast", "shuffled")]


def test_of_too_many_rollouts_groups_spread_over_the_run_are_shown(tmp_path):
    folder = write_run(tmp_path, [record(step=step, place=place) for step in range(1, 101) for place in range(2)])
    path = tmp_path / "small.html"
    assert Page("run", read_groups(folder), most=40).write(path) == 40
    steps = [group["step"] for group in embedded(path)["groups"]]
    assert (
        len(steps) == 20
        and (steps[0], steps[-1]) == (1, 100)
        and "spread over the 200 that were recorded" in path.read_text()
    )


def test_the_command_takes_folders_as_words_and_names_what_it_cannot_show(tmp_path, monkeypatch, capsys):
    folder = write_run(tmp_path / "run", [record()])

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["videor1 view", *map(str, arguments)])
        view.main()

    run(folder)
    assert (
        folder / "view.html"
    ).is_file() and capsys.readouterr().out == f"1 rollouts. Saved to {folder}/view.html.\n"
    run(folder, folder, "--output", tmp_path / "new" / "both.html")
    assert "2 rollouts" in capsys.readouterr().out and (tmp_path / "new" / "both.html").is_file()
    assert "runs is not set" in refused(run)
    assert "no such folder" in refused(run, tmp_path / "nowhere")
    assert "has neither rollouts.jsonl (set log_rollouts_steps)" in refused(run, tmp_path / "new")
    assert "--most (0) must be at least 1" in refused(run, folder, "--most", 0)
    (folder / "results.jsonl").write_text('{"a": 1}\n')
    (folder / "rollouts.jsonl").unlink()
    assert "holds no results of videor1 eval" in refused(run, folder)


@pytest.mark.parametrize("field", ["rewards", "accuracy"])
def test_figures_that_are_none_stay_none(tmp_path, field):
    fields = {"rewards": {"rewards": {"accuracy_reward": None}}, "accuracy": {"accuracy": None, "reward": None}}[field]
    [group] = embedded(write_page(write_run(tmp_path, [record(**fields)])))["groups"]
    assert group["rollouts"][0][field] in ({}, None)
