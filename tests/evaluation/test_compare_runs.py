"""Runs side by side: paired differences by hand, what differs in their settings, and what cannot be compared."""

import json

import pytest
from test_grouped import answers, quadruples, question

from videor1_trl.evaluation.compare import as_latex, as_markdown, compare, differing_settings, left_out, read_run
from videor1_trl.evaluation.run import write_results


def written(folder, asked, texts, **settings):
    sessions = [{"identity": {"model": folder.name, "settings": settings}, "notes": {}}]
    folder.mkdir()
    write_results(folder, asked, {"ordered": answers(asked, texts)}, {"benchmark": "b", "sessions": sessions})
    return read_run(folder)


def test_differences_are_paired_question_by_question(tmp_path):
    """a: A A B B, b: A A A B: 50 against 75 %; of the first task 1 against 1, of the second 0 against 0.5."""
    asked = [question(f"q{n}", f"v{n}", task=f"t{n // 2}") for n in range(4)]
    runs = [written(tmp_path / "a", asked, "AABB"), written(tmp_path / "b", asked, "AAAB")]
    rows = {row.name: row for row in compare(runs)}
    assert list(rows) == ["score", "t0", "t1"]
    assert [each.value for each in rows["score"].values] == [0.5, 0.75]
    assert [row.differences[0].value for row in rows.values()] == [0.25, 0.0, 0.5]
    gap = rows["score"].differences[0]
    assert gap.low < 0 < gap.high and (gap.questions, gap.videos) == (4, 4)
    assert rows["t0"].differences[0].low < 0 < rows["t0"].differences[0].high  # none among two videos says little


def test_only_questions_that_all_answered_count(tmp_path):
    asked = [question(f"q{n}", f"v{n}") for n in range(4)]
    runs = [written(tmp_path / "a", asked, "ABBB"), written(tmp_path / "b", asked[:2], "AA")]
    (row,) = compare(runs)
    assert (row.values[0].questions, row.values[0].value, row.differences[0].value) == (2, 0.5, 0.5)
    with pytest.raises(ValueError, match="a, c have no question in common"):
        compare([runs[0], written(tmp_path / "c", [question("z", "z")], "A")])


def test_whole_sets_are_compared_as_such(tmp_path):
    asked = quadruples(2)
    runs = [written(tmp_path / "a", asked, "AAAAAAAB"), written(tmp_path / "b", asked, "AAAAAAAA")]
    rows = {row.name: row for row in compare(runs)}
    assert [each.value for each in rows["I (whole sets)"].values] == [0.5, 1.0]
    assert rows["I (whole sets)"].differences[0].value == 0.5 and rows["Q (whole sets)"].differences[0].value == 0.25


def test_a_set_that_one_run_lacks_a_question_of_is_not_taken_for_a_smaller_one(tmp_path):
    """b has not answered the last question of instance 1, which a has wrong: its three others are no instance."""
    asked = quadruples(2)
    runs = [written(tmp_path / "a", asked, "AAAAAAAB"), written(tmp_path / "b", asked[:7], "AAABAAA")]
    rows = {row.name: row for row in compare(runs)}
    whole = rows["I (whole sets)"]
    assert [(each.value, each.questions) for each in whole.values] == [(1.0, 1), (0.0, 1)]
    assert rows["Q (whole sets)"].values[0].questions == rows["V (whole sets)"].values[0].questions == 3
    assert left_out(runs) == {"a": 1} and left_out(runs[:1]) == {}


def test_two_lines_of_one_question_are_refused(tmp_path):
    asked = [question("q", "v")]
    written(tmp_path / "a", asked, "A")
    path = tmp_path / "a" / "results.jsonl"
    path.write_text(path.read_text() * 2)
    with pytest.raises(ValueError, match="has two lines of the question 'q'"):
        read_run(tmp_path / "a")


def test_marks_of_markdown_and_latex_mean_nothing_in_names(tmp_path):
    task = "a_b% & \\c{d}~^#$ <e> *f* |g|\nh"
    asked = [question(f"q{n}", f"v{n}", task=task if n else "_t_") for n in range(2)]
    runs = [written(tmp_path / "x&y", asked, "AB"), written(tmp_path / "b", asked, "AA")]
    markdown, latex = (write(runs, compare(runs)).splitlines() for write in (as_markdown, as_latex))
    assert all(line.replace("\\|", "").count("|") == 6 for line in markdown) and len(markdown) == 5
    assert markdown[3].startswith("| \\_t\\_ |")
    assert markdown[4].startswith("| a\\_b% \\& \\\\c{d}~^#$ \\<e> \\*f\\* \\|g\\| h |")
    assert latex[2] == r" & n & x\&y & b & b - x\&y \\"
    assert latex[6].startswith(
        r"a\_b\% \& \textbackslash{}c\{d\}\textasciitilde{}\textasciicircum{}\#\$ \textless{}e\textgreater{} *f* |g| h &"
    )


def test_settings_that_differ_are_named(tmp_path):
    asked = [question("q", "v")]
    runs = [written(tmp_path / name, asked, "A", frames=frames, seed=0) for name, frames in (("a", 16), ("b", 32))]
    assert differing_settings(runs) == {"model": ["a", "b"], "settings.frames": [16, 32]}


def test_tables_for_papers(tmp_path):
    asked = [question(f"q{n}", "v", task="50%_x" if n else "t|u") for n in range(2)]
    runs = [written(tmp_path / "run_a", asked, "AB"), written(tmp_path / "b", asked, "AA")]
    rows = compare(runs)
    assert as_markdown(runs, rows).splitlines() == [
        "|  | n | run\\_a | b | b - run\\_a |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| score | 2 | 50.0 | 100.0 | +50.0 |",
        "| 50%\\_x | 1 | 0.0 | 100.0 | +100.0 |",
        "| t\\|u | 1 | 100.0 | 100.0 | +0.0 |",
    ]
    lines = as_latex(runs, rows).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrr}" and lines[2] == r" & n & run\_a & b & b - run\_a \\"
    assert lines[5] == r"50\%\_x & 1 & 0.0 & 100.0 & +100.0 \\"


def test_what_cannot_be_compared_is_refused(tmp_path):
    asked = [question("q", "v")]
    run = written(tmp_path / "a", asked, "A")
    with pytest.raises(ValueError, match="runs: 1 given. Name two folders"):
        compare([run])
    other = written(tmp_path / "b", [question("q", "v", options=3)], "A")
    with pytest.raises(ValueError, match="a and b ask different questions as 'q'"):
        compare([run, other])
    with pytest.raises(FileNotFoundError, match="is no folder of an evaluation that came to its end"):
        read_run(tmp_path)
    (tmp_path / "a" / "results.jsonl").write_text(json.dumps({"key": "q", "ordered": {"score": 1.0}}) + "\n")
    with pytest.raises(ValueError, match="was written by an earlier version. Start that evaluation again"):
        read_run(tmp_path / "a")
