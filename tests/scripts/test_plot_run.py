"""The plots of runs: which log is read, what is smoothed how, what is left out and what the legend says."""

import doctest
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from videor1_trl.scripts import plot_run
from videor1_trl.scripts.plot_run import Panel, Smoothing


def entries(steps, **metrics):
    return [{"step": step, **{name: values[i] for name, values in metrics.items()}} for i, step in enumerate(steps)]


def full_log(steps, accuracy="accuracy_reward", temporal=True):
    log = []
    for step in steps:
        entry = {"step": step, f"rewards/{accuracy}/mean": step / 10, "completions/mean_length": 100 + step}
        if temporal:
            entry |= {"rewards/temporal_reward/mean": 0.1, "temporal/gap": step / 100}
        log.append(entry)
    return log


def write_state(path, log, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"log_history": log, **more}))
    return path


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["plot_run.py", *map(str, arguments)])
    plot_run.main()


@pytest.fixture
def drawn(monkeypatch):
    """Keeps the figures that are saved, instead of closing them."""
    import matplotlib.pyplot as plt

    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    yield figures
    monkeypatch.undo()
    plt.close("all")


# Smoothing


def test_the_exponential_average_starts_at_the_first_value_without_bias():
    # weights 1, 0.5, 0.25 backwards: 4; (0.5 * 4 + 1) / 1.5 = 2; (0.25 * 4 + 0.5 * 1 + 5.5) / 1.75 = 4
    assert Smoothing("ema", ema_weight=0.5)([4.0, 1.0, 5.5]) == pytest.approx([4.0, 2.0, 4.0])


def test_the_centred_mean_takes_the_points_there_are_at_the_ends():
    # (1+2)/2, (1+2+6)/3, (2+6+4)/3, (6+4)/2
    assert Smoothing("mean", window=3)([1.0, 2.0, 6.0, 4.0]) == [1.5, 3.0, 4.0, 5.0]


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(plot_run) == (0, 2)


def test_no_smoothing_leaves_the_values_as_they_are():
    assert Smoothing("none")([3.0, 1.0]) == [3.0, 1.0]


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40),
    st.sampled_from([Smoothing("ema", ema_weight=w) for w in (0.0, 0.5, 0.99)] + [Smoothing("mean", window=5)]),
)
def test_smoothed_values_lie_between_the_smallest_and_the_largest(values, smoothing):
    smoothed = smoothing(values)
    assert len(smoothed) == len(values)
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= min(smoothed) and max(smoothed) <= max(values) + slack


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"kind": "median"}, "smoothing ('median')"),
        ({"ema_weight": 1.0}, "ema_weight (1.0)"),
        ({"window": 4}, "window (4)"),
        ({"window": 0}, "window (0)"),
    ],
)
def test_smoothing_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError) as error:
        Smoothing(**settings)
    assert message in str(error.value)


# Reading


def test_the_checkpoint_that_got_furthest_is_read_whatever_its_name_sorts_like(tmp_path):
    for step in (20, 100):
        write_state(tmp_path / f"checkpoint-{step}" / "trainer_state.json", full_log([step]), global_step=step)
    assert [entry["step"] for entry in plot_run.read_log(tmp_path)] == [100]
    write_state(tmp_path / "trainer_state.json", full_log([120]), global_step=120)
    assert [entry["step"] for entry in plot_run.read_log(tmp_path)] == [120]


def test_a_list_of_entries_and_json_lines_are_logs_too(tmp_path):
    log = full_log([1, 2, 3])
    (tmp_path / "log.json").write_text(json.dumps(log))
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, log)) + "\n\n")
    assert plot_run.read_log(tmp_path / "log.json") == plot_run.read_log(tmp_path / "log.jsonl") == log


def test_what_a_resumed_run_logged_again_replaces_the_first_attempt(tmp_path):
    # the first attempt died at 5, the second went on behind step 2 and has come to 4: step 5 is of lost weights
    log = entries([1, 2, 3, 4, 5, 3, 4], reward=[0.1, 0.2, 0.3, 0.4, 0.5, 1.3, 1.4])
    (tmp_path / "log.json").write_text(json.dumps(log))
    steps, values = plot_run.series(plot_run.read_log(tmp_path / "log.json"), "reward")
    assert steps == [1, 2, 3, 4] and values == [0.1, 0.2, 1.3, 1.4]


def test_evaluations_at_the_step_of_a_log_do_not_drop_it():
    log = [{"step": 1, "reward": 1.0}, {"step": 1, "eval_reward": 2.0}, {"step": 2, "reward": 3.0}]
    assert plot_run.series(log, "reward") == ([1, 2], [1.0, 3.0])
    assert plot_run.series(log, "eval_reward") == ([1], [2.0])


def test_values_that_are_no_finite_numbers_are_passed_over():
    log = entries([1, 2, 3, 4], reward=[1.0, float("nan"), None, 2.0])
    assert plot_run.series(log, "reward") == ([1, 4], [1.0, 2.0])


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "line 1"),
        ('{"step": 1}\n{"step": }', "line 2"),
        ('{"loss": 1}', "holds no log"),
        ("[1, 2]", "holds no log"),
        ("[]", "empty log"),
        ('[{"step": 1}, {"loss": 1}]', "entry 1: has no step"),
    ],
)
def test_a_file_that_holds_no_log_is_named(text, message, tmp_path):
    file = tmp_path / "trainer_state.json"
    file.write_text(text)
    with pytest.raises(ValueError) as error:
        plot_run.read_log(tmp_path)
    assert message in str(error.value) and str(file) in str(error.value)


def test_a_folder_without_a_log_says_how_logs_come_about(tmp_path):
    with pytest.raises(FileNotFoundError, match="save_strategy"):
        plot_run.read_log(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        plot_run.read_log(tmp_path / "nowhere")


# Drawing


def test_each_panel_holds_the_smoothed_line_before_the_faint_one_and_the_legend_names_the_smoothing(tmp_path, drawn):
    logs = {"a": full_log([1, 2, 3]), "b": full_log([2, 4, 6])}
    smoothing = Smoothing("mean", window=3)
    assert plot_run.draw(tmp_path / "new" / "curves.png", logs, plot_run.paper_panels(), smoothing) == []
    (figure,) = drawn
    assert len(figure.axes) == 4
    accuracy = figure.axes[0]
    assert accuracy.get_title() == "accuracy reward"
    faint, thick, _, other = accuracy.lines
    assert faint.get_alpha() < 0.5 and list(faint.get_ydata()) == pytest.approx([0.1, 0.2, 0.3])
    assert list(thick.get_ydata()) == pytest.approx([0.15, 0.2, 0.25])
    assert list(other.get_xdata()) == [2, 4, 6] and other.get_color() != thick.get_color()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert legend.get_title().get_text() == "centred mean over 3 logged points; faint: as logged"
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert picture.format == "PNG" and picture.width > 500


def test_plain_grpo_loses_the_panels_it_has_no_data_for_and_is_drawn_beside_t_grpo(tmp_path, drawn):
    plain = full_log([1, 2], temporal=False)
    notes = plot_run.draw(tmp_path / "a.png", {"plain": plain}, plot_run.paper_panels(), Smoothing())
    assert len([axis for axis in drawn[0].axes if axis.get_visible()]) == 2
    assert [note.split(":")[0] for note in notes] == ["temporal reward", "gap"] and "left out" in notes[0]
    logs = {"plain": plain, "t-grpo": full_log([1, 2])}
    notes = plot_run.draw(tmp_path / "b.png", logs, plot_run.paper_panels(), Smoothing())
    assert len([axis for axis in drawn[1].axes if axis.get_visible()]) == 4
    assert notes[0].endswith("was not logged by plain.")
    gap = drawn[1].axes[3]
    assert {line.get_color() for line in gap.lines} == {"C1"}  # the colour of the second run, as in the other panels


def test_the_legend_names_the_runs_in_their_order_whatever_each_has_logged(tmp_path, drawn):
    # the first run is not in the first panel, where the handles of the others are found
    logs = {"plain": entries([1, 2], kl=[0.1, 0.2]), "t-grpo": full_log([1, 2]), "other": full_log([1, 2])}
    panels = [Panel("accuracy reward", {"rewards/accuracy_reward/mean": ""}), Panel("kl", {"kl": ""})]
    plot_run.draw(tmp_path / "a.png", logs, panels, Smoothing())
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["plain", "t-grpo", "other"]
    assert [handle.get_color() for handle in legend.legend_handles] == ["C0", "C1", "C2"]


def test_runs_without_the_accuracy_reward_are_drawn_with_the_accuracy_on_ordered_frames(tmp_path, drawn):
    logs = {
        "named": full_log([1, 2]),
        "other": entries([1, 2], **{"rewards/mine/mean": [0.0, 0.0], "temporal/accuracy": [0.7, 0.9]}),
    }
    notes = plot_run.draw(tmp_path / "a.png", logs, plot_run.paper_panels(), Smoothing("none"))
    accuracy = drawn[0].axes[0]
    assert accuracy.get_title() == "accuracy reward"
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[0.1, 0.2], [0.7, 0.9]]
    assert notes[0] == (
        "accuracy reward: rewards/accuracy_reward/mean was not logged by other, temporal/accuracy is drawn."
    )


@pytest.mark.parametrize(
    "name, start",
    [
        ("a.png", b"\x89PNG"),
        ("a.jpg", b"\xff\xd8\xff"),
        ("a.JPEG", b"\xff\xd8\xff"),
        ("a.svg", b"<?xml"),
        ("a.pdf", b"%PDF"),
        ("a.webp", b"RIFF"),
    ],
)
def test_a_picture_is_in_the_format_of_its_suffix(name, start, tmp_path):
    plot_run.draw(tmp_path / name, {"a": full_log([1, 2])}, plot_run.paper_panels(), Smoothing())
    assert (tmp_path / name).read_bytes().startswith(start)


def test_pictures_have_200_dots_per_inch(tmp_path):
    plot_run.draw(tmp_path / "a.png", {"a": full_log([1, 2])}, plot_run.paper_panels(), Smoothing())
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 2080 and round(picture.info["dpi"][0]) == 200  # 10.4 inches


def test_two_metrics_of_a_panel_are_told_apart_in_its_own_legend(tmp_path, drawn):
    log = entries([1, 2], right=[0.0, 1.0], wrong=[1.0, 0.0])
    panel = Panel("share", {"right": "ordered", "wrong": "shuffled"})
    plot_run.draw(tmp_path / "a.png", {"a": log}, [panel], Smoothing("none"))
    plot_run.draw(tmp_path / "b.png", {"a": log, "b": log}, [panel], Smoothing("none"))
    for figure, tell in zip(drawn, ("get_color", "get_linestyle"), strict=True):
        legend = figure.axes[0].get_legend()
        assert [text.get_text() for text in legend.get_texts()] == ["ordered", "shuffled"]
        assert len({getattr(line, tell)() for line in legend.get_lines()}) == 2


def test_nothing_to_draw_names_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="there are: completions/mean_length"):
        plot_run.draw(tmp_path / "a.png", {"a": full_log([1])}, [Panel("x", {"nope": ""})], Smoothing())


def test_runs_are_named_by_as_much_of_their_paths_as_tells_them_apart(tmp_path):
    assert plot_run.name_runs(["runs/a", "runs/b"], None) == ["a", "b"]
    assert plot_run.name_runs(["one/run", "two/run/trainer_state.json"], None) == ["one/run", "two/run"]
    assert plot_run.name_runs(["a", "b"], ["x", "y"]) == ["x", "y"]
    for labels, message in ((["x"], "labels (1)"), (["x", "x"], "called alike")):
        with pytest.raises(ValueError) as error:
            plot_run.name_runs(["a", "b"], labels)
        assert message in str(error.value)
    with pytest.raises(ValueError, match="called alike"):
        plot_run.name_runs(["a", "a"], None)


# The script


def test_the_script_draws_runs_and_ends_with_the_place_of_the_picture(tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        log = full_log(range(1, 6), accuracy="my_reward", temporal=name == "a")
        write_state(tmp_path / name / "checkpoint-5" / "trainer_state.json", log, global_step=5)
    output = tmp_path / "out" / "curves.png"
    flags = ["--runs", tmp_path / "a", tmp_path / "b", "--output", output]
    main(monkeypatch, *flags, "--accuracy_reward_name", "my_reward")
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"Saved to {output}." and not any("accuracy" in line.split(":")[0] for line in said)
    assert output.stat().st_size > 1000
    main(monkeypatch, *flags)
    assert "rewards/accuracy_reward/mean was not logged, left out." in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "runs is not set"),
        (["--runs", "nowhere"], "nowhere: no such file"),
        (["--runs", "{run}", "--window", "2"], "window (2)"),
        (["--runs", "{run}", "--metrics", "nope"], "none of nope was logged"),
        (["--runs", "{run}", "--smoothing", "median"], "smoothing"),
        (["--runs", "{run}", "--no_such_flag", "1"], "--no_such_flag"),
        (["--runs", "nowhere", "--output", "a.jgp"], "output (a.jgp): its suffix is none of avif, "),
        (["--runs", "nowhere", "--output", "a"], "jpg, pdf"),
    ],
)
def test_what_does_not_fit_ends_in_one_line(arguments, message, tmp_path, monkeypatch):
    write_state(tmp_path / "run" / "trainer_state.json", full_log([1]))
    with pytest.raises(SystemExit) as ended:
        main(monkeypatch, *(argument.format(run=tmp_path / "run") for argument in arguments))
    assert str(ended.value.code).startswith("plot_run.py: ") and message in str(ended.value.code)
    assert "\n" not in str(ended.value.code)
