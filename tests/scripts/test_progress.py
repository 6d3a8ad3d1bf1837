"""What a run prints: one short line per logging step, on the main process, whatever the output goes to."""

import doctest
import io
import re
import sys
import warnings

import pandas
import pytest
from helpers import parity, row, trainer
from transformers import PrinterCallback, ProgressCallback, TrainerControl, TrainerState, TrainingArguments

from videor1_trl import TGRPOTrainer
from videor1_trl.scripts import progress


TGRPO = progress.grpo_columns("accuracy_reward")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def console(monkeypatch):
    """`console(terminal=False)`: what is written to stdout and to stderr from here on."""

    def make(terminal=False):
        out, errors = (Terminal() if terminal else io.StringIO() for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", errors)
        return out, errors

    return make


@pytest.fixture(autouse=True)
def bars():
    """The libraries' bars as they were."""
    import datasets
    from transformers.utils import logging

    with warnings.catch_warnings():
        yield
    datasets.enable_progress_bars()
    logging.enable_progress_bar()


@pytest.fixture
def state():
    return TrainerState(global_step=7, max_steps=150, is_world_process_zero=True)


@pytest.fixture
def log(tmp_path, state, console):
    """`log(entry, columns)`: what is printed of it."""
    args = TrainingArguments(str(tmp_path), use_cpu=True)

    def call(entry, columns=TGRPO):
        out, _ = console()
        progress.ConsoleLog(columns).on_log(args, state, TrainerControl(), logs=entry)
        return out.getvalue()

    return call


STEP = {
    "loss": 0.01234,
    "grad_norm": 3.2,
    "learning_rate": 2.9e-4,
    "num_tokens": 12000.0,
    "completions/mean_length": 9.56,
    "rewards/accuracy_reward/mean": 0.781,
    "rewards/format_reward/mean": 0.99,
    "reward": 1.654,
    "temporal/accuracy": 0.75,
    "temporal/contrast_accuracy": 0.4,
    "temporal/gap": 0.35,
    "temporal/effect": 0.213,
    "epoch": 0.1,
}


# Lines


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(progress) == (0, 2)


def test_a_step_is_a_line_of_chosen_figures(log):
    assert log(STEP) == (
        "step   7/150  loss  0.0123  reward  1.65  accuracy 0.78  contrast 0.40  gap +0.35  effect 0.213  "
        "length   9.6  lr 2.9e-04\n"
    )


def test_figures_that_a_step_lacks_are_dashes_as_wide_and_rows_skipped_are_named_only_where_there_are_any(log):
    images = {name: value for name, value in STEP.items() if not name.startswith("temporal/")}
    line = log({**images, "reward": float("nan"), "video/skipped_rows": 2.0})
    assert "reward     -  accuracy 0.78  contrast    -  gap     -  effect     -  length" in line
    assert line.endswith("lr 2.9e-04  skipped 2\n")
    assert len(log(images)) == len(log(STEP)) and "skipped" not in log({**STEP, "video/skipped_rows": 0.0})


def test_an_evaluation_has_a_line_too_whatever_it_is_called(log):
    entry = {f"eval_{name}": value for name, value in STEP.items() if name not in ("learning_rate", "loss", "epoch")}
    rest = "reward  1.65  accuracy 0.78  contrast 0.40  gap +0.35  effect 0.213  length   9.6  12.3 s\n"
    assert log({**entry, "eval_loss": 0.5, "eval_runtime": 12.34}) == f"eval   7/150  loss  0.5000  {rest}"
    named = {**entry, "eval_held_out_loss": 0.5, "eval_held_out_runtime": 12.34}
    assert log(named) == f"eval_held_out   7/150  loss  0.5000  {rest}"


def test_supervised_training_shows_loss_and_token_accuracy(log):
    entry = {"loss": 1.5, "mean_token_accuracy": 0.6666, "learning_rate": 1e-6, "entropy": 1.0}
    assert log(entry, progress.SFT) == "step   7/150  loss 1.5000  token accuracy 0.667  lr 1.0e-06\n"


def test_what_is_logged_by_hand_is_printed_as_it_is(log):
    assert log({"mine": 3, "epoch": 0.1}) == "step   7/150  mine 3\n"


def test_the_end_says_how_long_it_took(log):
    assert log({"train_runtime": 61.7, "train_loss": 0.1, "epoch": 1.0}) == "trained 7 steps in 62 s\n"


def test_other_processes_print_nothing(log, state):
    state.is_world_process_zero = False
    assert log(STEP) == ""


def test_seconds_are_those_of_a_step_without_evaluation_and_saving(tmp_path, state, console, monkeypatch):
    out, _ = console()
    args, control, now = TrainingArguments(str(tmp_path), use_cpu=True), TrainerControl(), [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    shown = progress.ConsoleLog(progress.SFT)

    def call(name, seconds, **more):
        now[0] += seconds
        getattr(shown, name)(args, state, control, **more)

    call("on_train_begin", 50)
    call("on_step_end", 2)
    call("on_evaluate", 30)
    call("on_save", 10)
    call("on_step_end", 4)
    call("on_log", 0, logs={"loss": 1.0})
    call("on_step_end", 1.5)
    call("on_log", 0, logs={"loss": 1.0})
    # (2 + 4) / 2 steps, then 1.5 / 1
    assert [line.split("  ")[-1] for line in out.getvalue().splitlines()] == ["3.00 s", "1.50 s"]


# Runs


def test_a_run_prints_a_line_per_step_and_evaluation_and_logs_everything(models, media, tmp_path, console):
    rows = [row(video=media["videos"][0]), row(video=media["videos"][0]), row()]
    tgrpo = trainer(models(), rows, tmp_path, eval_rows=rows[:1], max_steps=2, eval_strategy="steps", eval_steps=2)
    for _ in range(2):  # a second time changes nothing
        progress.show(tgrpo)
    kinds = [type(each) for each in tgrpo.callback_handler.callbacks]
    assert kinds.count(progress.ConsoleLog) == 1 and not {PrinterCallback, ProgressCallback} & set(kinds)
    out, errors = console()
    tgrpo.train()
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines[:-1]] == ["step 1/2", "step 2/2", "eval 2/2"]
    assert lines[-1].startswith("trained 2 steps in")
    assert re.fullmatch(
        r"step 1/2  loss +\S+  reward +\S+  accuracy +\S+  contrast +\S+  gap +\S+  effect +\S+  length +\S+  lr \S+  "
        r"\S+ s",
        lines[0],
    )
    assert "\r" not in out.getvalue() + errors.getvalue() and "it/s" not in errors.getvalue()
    assert len(tgrpo.state.log_history[0]) > 20


@pytest.mark.skipif("log" not in vars(TGRPOTrainer), reason="the trainer prints TRL's table")
def test_completions_are_printed_readably_and_written_whole(models, media, tmp_path, console):
    rows = [row("first?", video=media["videos"][0]), row("second?", video=media["videos"][1])]
    settings = {"log_completions": True, "num_completions_to_print": 3, "per_device_train_batch_size": 8}
    tgrpo = trainer(models(), rows, tmp_path, **settings)
    out, _ = console()
    tgrpo.train()
    printed = out.getvalue()
    assert printed.count("completions at step 1") == 1  # and not once more at the end
    assert {"[video] first?", "[video] second?"} >= set(re.findall(r"^\[video\].*\?", printed, re.M)) != set()
    assert "USER" not in printed and "Step 1" not in printed  # TRL's table
    assert len(re.findall(r"^ .*[01]\.00 +\S+ +-?\d\.\d\d *$", printed, re.M)) == 3
    written = pandas.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert len(written) == 8 and written["prompt"][0][0]["role"] == "user"
    assert tgrpo.num_completions_to_print == 3


def test_on_a_terminal_there_is_a_bar_too_unless_it_is_not_wanted(models, media, tmp_path, console):
    for wanted in (True, False):
        tgrpo = trainer(models(), [row(video=media["videos"][0])] * 2, tmp_path, max_steps=1, disable_tqdm=not wanted)
        out, errors = console(terminal=True)
        progress.show(tgrpo)
        tgrpo.train()
        assert ("training" in errors.getvalue()) == wanted
        assert [line.split("  ")[0] for line in out.getvalue().splitlines()][0].endswith("step 1/1")


def test_plain_grpo_and_supervised_training_show_their_own_figures(models, media, tmp_path):
    tgrpo = trainer(models(), [row(video=media["videos"][0])] * 2, tmp_path, options={"temporal_reward_func": None})
    assert [each.name for each in progress.columns_of(tgrpo)] == [
        "loss",
        "reward",
        "accuracy",
        "length",
        "lr",
        "skipped",
    ]
    assert progress.columns_of(tgrpo)[2].metric == f"rewards/{parity.__name__}/mean"


def test_only_on_a_terminal_libraries_draw_bars(console):
    from datasets.utils import are_progress_bars_disabled
    from transformers.utils.logging import is_progress_bar_enabled

    console(terminal=True)
    progress.begin()
    assert is_progress_bar_enabled() and not are_progress_bars_disabled()
    console()
    progress.begin()
    assert not is_progress_bar_enabled() and are_progress_bars_disabled()


def test_one_deprecation_is_not_shown_and_others_are(models):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        progress.begin()
        models().model.is_gradient_checkpointing  # noqa: B018
        warnings.warn("`other` is deprecated", FutureWarning)
    assert [str(each.message) for each in seen] == ["`other` is deprecated"]
