"""The study of objectives: its command, its intervals, and the table and the picture of a file of results."""

import json
import runpy
import sys
from pathlib import Path

import pytest


FOLDER = Path(__file__).parents[2] / "studies" / "order_vs_shortcut"


@pytest.fixture
def study(monkeypatch):
    """The names in study.py, with those of report.py, as its command sees them."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = runpy.run_path(str(FOLDER / "study.py"))
    yield {**names, **vars(sys.modules["report"])}
    for name in ("report", "study_runs", "world"):
        sys.modules.pop(name, None)


def result(objective, seed, lies, half, curve, q=1.0):
    figures = {"order": lies, "says_mark": 0.0, "answers_mark": 0.25, "static": 1.0, "half": half}
    parts = {"lies": figures, "truth": {"order": 1.0}, "shuffled": {"order": 0.25}}
    keys = {"objective": objective, "q": q, "seed": seed, "cold_steps": 70, "steps": 2}
    return {**keys, "before": parts, "after": parts, "curve": curve, "seconds": 9.0, "cpu_seconds": 4.0 + seed}


RESULTS = [
    result("grpo", 0, 0.4, 0.5, [[0, 0.1], [1, 0.3], [2, 0.4]]),
    result("grpo", 1, 0.6, 0.75, [[0, 0.1], [1, 0.4], [2, 0.6]]),
    result("crpo_all", 1, 1.0, 0.5, [[0, 0.1], [1, 0.95], [2, 1.0]]),
    result("crpo_all", 0, 0.8, 0.5, [[0, 0.1], [1, 0.7], [2, 0.8]]),
]


def test_the_interval_is_students_t_over_seeds(study):
    # of 1, 2, 3 and 6: mean 3, standard deviation sqrt((4 + 1 + 0 + 9) / 3) = 2.1602, t(0.975, 3) = 3.1824
    assert study["interval"]([1.0, 2.0, 3.0, 6.0]) == pytest.approx((3.0, 3.1824 * 2.1602 / 2), abs=1e-3)
    assert study["shown"]([0.4, 0.6]) == "0.50 ± 1.27"  # t(0.975, 1) = 12.706; 12.706 * 0.14142 / sqrt(2)
    assert study["shown"]([0.5]) == "0.50"


def test_the_table_has_a_line_for_each_objective_and_compares_the_same_seeds_with_grpo(study):
    lines = study["table"](RESULTS).splitlines()
    assert lines[0] == "q 1, cold start of 70 steps, 2 steps:"
    found = {line.split(" | ")[0].strip("| "): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[4:]}
    # seeds, mark lies, ..., half-known; seeds at 0.95; less GRPO's: mark lies, static, half-known; steps until 0.9; CPU seconds
    assert found["grpo"][:2] == ["2", "0.50 ± 1.27"] and found["grpo"][-2:] == ["none of 2", "4"]
    assert found["crpo_all"][1] == "0.90 ± 1.27"
    assert found["crpo_all"][-6] == "1 of 2"  # 1.0, and not 0.8
    assert found["crpo_all"][-5] == "0.40 ± 0.00"  # mark lies: 0.8 - 0.4 and 1.0 - 0.6
    # half-known 0.5 - 0.5 for seed 0, 0.5 - 0.75 for seed 1
    assert found["crpo_all"][-4:] == ["0.00 ± 0.00", "-0.12 ± 1.59", "1 (1 of 2)", "4"]


def test_runs_of_another_learning_rate_have_a_table_of_their_own(study, tmp_path):
    file = tmp_path / "results.jsonl"
    slower = {**result("grpo", 0, 0.5, 0.5, [[0, 0.1]]), "learning_rate": 5e-4}
    file.write_text("".join(json.dumps(each) + "\n" for each in (RESULTS[0], slower)))
    titles = [line for line in study["table"](study["read"](file)).splitlines() if line.endswith(":")]
    assert titles == [
        "q 1, cold start of 70 steps, 2 steps at a learning rate of 0.0005:",
        "q 1, cold start of 70 steps, 2 steps:",
    ]


def test_a_figure_of_several_panels_comes_from_a_file_of_results_and_a_run_that_is_there_twice_counts_once(
    study, tmp_path, capsys
):
    file = tmp_path / "results.jsonl"
    lines = [*RESULTS, RESULTS[0], result("grpo", 0, 1.0, 1.0, [[0, 0.5], [2, 1.0]], q=0.8)]
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    study["main"](["--table", "--results", str(file)])
    printed = capsys.readouterr().out
    assert "| grpo | 2 | 0.50 ± 1.27 |" in printed and "q 0.8, cold start of 70 steps" in printed
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_runs_are_told_by_objective_and_longer_trainings_first_however_they_came(study, tmp_path):
    file = tmp_path / "results.jsonl"
    longer = {**RESULTS[0], "steps": 9}
    file.write_text("".join(json.dumps(each) + "\n" for each in (RESULTS[2], RESULTS[1], longer)))
    results = study["read"](file)
    assert [each["objective"] for each in results] == ["grpo", "grpo", "crpo_all"]
    titles = [line for line in study["table"](results).splitlines() if line.endswith(":")]
    assert titles == ["q 1, cold start of 70 steps, 9 steps:", "q 1, cold start of 70 steps, 2 steps:"]


def test_the_important_runs_come_first_and_the_claims_once(study, tmp_path):
    args = type("Args", (), {"objectives": study["ALL"], "q": [1.0, 0.8], "seeds": list(range(8)), "cold_steps": [70]})
    args.steps, args.learning_rate = [45], [1e-3]
    runs = list(study["plan"](args))
    first, size = len(study["FIRST"]), len(study["OBJECTIVES"])
    assert {run.objective for run in runs[: 8 * first]} == set(study["FIRST"])
    assert len(runs) == len(set(runs)) == 2 * 8 * size + study["CLAIM_SEEDS"] * len(study["CLAIMS"])
    assert {run.learning_rate for run in runs} == {1e-3}
    assert [run.q for run in runs] == sorted((run.q for run in runs), reverse=True)


def test_steps_without_a_cold_start_of_their_own_are_refused(study, capsys):
    with pytest.raises(SystemExit):
        study["main"](["--steps", "27"])
    assert "--steps has 1 numbers and --cold_steps 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        study["main"](["--cold_steps", "90"])
    assert "--steps must be given for --cold_steps other than 110, 70" in capsys.readouterr().err


def test_the_manual_has_the_tables_of_the_results_that_are_kept(study):
    results = study["read"](FOLDER / "results.jsonl")
    page = (FOLDER.parents[1] / "docs" / "study.md").read_text()
    for lines in study["table"](results).split("\n\n"):
        assert lines in page, "docs/study.md is of other results: paste what study.py --table prints."


@pytest.mark.slow
def test_the_command_trains_measures_and_resumes(study, tmp_path, capsys):
    file = tmp_path / "results.jsonl"
    asked = ["--small", "--q", "1.0", "--seeds", "0", "--cold_steps", "1", "--steps", "1"]
    asked += ["--folder", str(tmp_path / "runs"), "--results", str(file)]
    study["main"]([*asked, "--objectives", "grpo", "crpo_gap_explores"])
    before = file.read_text()
    study["main"]([*asked, "--objectives", "grpo", "tgrpo_images", "tgrpo_no_cold_start"])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert file.read_text().startswith(before)
    assert [line["objective"] for line in lines] == [
        "grpo",
        "crpo_gap_explores",
        "tgrpo_images",
        "tgrpo_no_cold_start",
    ]
    for line in lines:
        assert set(line["after"]) == {"lies", "truth", "shuffled"}
        assert [step for step, _ in line["curve"]] == [0, 1]
        assert all(0 <= share <= 1 for part in line["after"].values() for share in part.values())
    assert "| grpo | 1 |" in capsys.readouterr().out and file.with_suffix(".png").exists()
