"""`videor1_trl.scripts.compare`: what it prints, writes and refuses."""

import pytest
from helpers import refused
from PIL import Image
from test_compare_runs import written
from test_grouped import question

from videor1_trl.scripts import compare


@pytest.fixture
def runs(tmp_path):
    asked = [question(f"q{n}", f"v{n}", task=f"t{n % 2}") for n in range(6)]
    written(tmp_path / "base", asked, "ABABAB", video_max_frames=16)
    written(tmp_path / "better", asked, "AAAAAB", video_max_frames=32)
    return [str(tmp_path / "base"), str(tmp_path / "better")]


def test_a_table_what_differs_and_files_for_papers(run_script, runs, tmp_path):
    printed = run_script(compare, ["--runs", *runs, "--output_dir", tmp_path / "out"], {})
    assert "| score | 6 | 50.0 | 83.3 | +33.3 (" in printed
    assert "differs: settings.video_max_frames: 16, 32" in printed
    assert printed.splitlines()[-1] == f"Saved to {tmp_path / 'out'}."
    assert (tmp_path / "out" / "comparison.md").read_text() in printed
    assert (tmp_path / "out" / "comparison.tex").read_text().startswith(r"\begin{tabular}{lrrrr}")
    with Image.open(tmp_path / "out" / "comparison.png") as picture:
        assert picture.width > 400 and len(picture.convert("RGB").getcolors(1 << 20)) > 10
    assert "| a | b | b - a |" in run_script(compare, ["--runs", *runs, "--labels", "a", "b"], {})


def test_questions_that_are_not_in_all_runs_are_counted_and_said(run_script, runs, tmp_path):
    written(tmp_path / "short", [question(f"q{n}", f"v{n}", task=f"t{n % 2}") for n in range(4)], "AAAA")
    printed = run_script(compare, ["--runs", *runs, str(tmp_path / "short")], {})
    assert "| score | 4 |" in printed
    assert "left out: 2 questions of base, which are not in all runs" in printed
    assert "left out: 2 questions of better" in printed and "questions of short" not in printed
    assert "left out" not in run_script(compare, ["--runs", *runs], {})


def test_what_does_not_fit_is_refused_in_one_line(run_script, runs, tmp_path):
    def run(*arguments):
        return run_script(compare, arguments, {})

    for arguments, message in (
        (["--runs", runs[0]], "runs: 1 given. Name two folders of evaluations or more."),
        (["--runs", runs[0], str(tmp_path)], "results.jsonl is not there"),
        (["--runs", *runs, "--labels", "a"], "--labels (1) must be as many as --runs (2)."),
    ):
        said = refused(run, *arguments)
        assert said.startswith("compare.py: ") and message in said and "\n" not in said
