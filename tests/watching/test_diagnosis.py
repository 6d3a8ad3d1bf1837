"""The diagnosis: a healthy run has no finding, a run with a fault has that one; two runs of a trainer have what they must."""

import math
import re

import pytest
from helpers import Scripted, refused, row, trainer
from pages import write_log

from videor1_trl import format_reward
from videor1_trl.scripts import view
from videor1_trl.watching import diagnosis
from videor1_trl.watching.diagnosis import CHECKS, diagnose


HEALTHY = {
    "loss": 0.01, "grad_norm": 0.5, "reward": 1.2, "frac_reward_zero_std": 0.3, "completions/clipped_ratio": 0.05,
    "completions/max_length": 200.0, "rewards/accuracy_reward/mean": 0.6, "rewards/format_reward/mean": 0.8,
    "temporal/accuracy": 0.6, "temporal/contrast_accuracy": 0.4, "temporal/gap": 0.2, "temporal/bonus_rate": 0.5,
    "temporal/effect": 0.1, "entropy": 0.8, "kl": 0.05, "video/skipped_rows": 0.0, "vllm/ordered_logp_difference": 1e-4,
    "sampling/sampling_logp_difference/mean": 0.005, "sampling/importance_sampling_ratio/mean": 1.0,
}  # fmt: skip

FAULTS = {  # what goes wrong -> what of the log differs, and what is said
    "cut off": ({"completions/clipped_ratio": 0.4}, "40% of the completions in steps 21 to 40 were cut off (the longest had 200 tokens)"),
    "format never right": ({"rewards/format_reward/mean": 0.01}, "rewards/format_reward/mean never rose above 0.010 in 40 logged steps"),
    "no answer right": ({"temporal/accuracy": 0.0, "temporal/gap": 0.0}, "no answer was right in 40 logged steps"),
    "all groups equal": ({"frac_reward_zero_std": 0.95, "temporal/effect": 0.01}, "in 95% of the groups of steps 21 to 40 all rollouts had the same reward"),
    "bonus without effect": ({"temporal/effect": 0.0}, "50% of the ordered rollouts got the bonus, and it moved the advantages by 0.0000"),
    "order not needed": ({"temporal/gap": 0.0}, "on contrast frames 60% of the answers were right in steps 21 to 40, on ordered ones 60%"),
    "entropy off": ({"entropy": 0.01}, "the entropy fell from 0.01 to 0.010 nats a token"),
    "KL off": ({"kl": 2.0}, "the KL divergence to the reference is 2.00 nats a token in steps 21 to 40"),
    "not finite": ({"grad_norm": math.nan}, "grad_norm was no finite number at 40 of the logged steps, first at step 1"),
    "skipped rows": ({"video/skipped_rows": 4.0}, "4.0 rows of a batch were skipped in the mean, at 40 of 40 logged steps"),
    "sampler unlike learner": ({"vllm/ordered_logp_difference": 0.2}, "differ by 0.200 nats a token (vllm/ordered_logp_difference)"),
}  # fmt: skip


def log(steps=40, **changed):
    return [{"step": step, **HEALTHY, **changed} for step in range(1, steps + 1)]


def test_a_healthy_run_has_no_finding():
    assert diagnose(log()) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_run_with_one_fault_has_that_finding_in_words_with_its_figures(name):
    changed, said = FAULTS[name]
    [finding] = diagnose(log(**changed))
    assert finding.name == name and said in finding.text and finding.text.endswith(".")


def test_every_check_has_a_run_that_it_finds_something_in():
    assert set(FAULTS) == set(CHECKS)


@pytest.mark.parametrize(
    "name, metric, values, said",
    [
        ("entropy off", "entropy", [1.0] * 10 + [0.05] * 30, "the entropy fell from 1.00 to 0.050 nats a token"),
        ("entropy off", "entropy", [0.5] * 10 + [2.0] * 30, "the entropy rose from 0.50 to 2.00 nats a token"),
        ("sampler unlike learner", "sampling/importance_sampling_ratio/mean", [1.3] * 40, "ratio between vLLM and the trained model is 1.30"),
        ("sampler unlike learner", "sampling/sampling_logp_difference/mean", [0.06] * 40, "differ by 0.060 nats a token (sampling/"),
    ],
)  # fmt: skip
def test_what_changes_over_a_run_is_found_too(name, metric, values, said):
    entries = [{**entry, metric: value} for entry, value in zip(log(), values, strict=True)]
    [finding] = diagnose(entries)
    assert finding.name == name and said in finding.text


def test_a_fault_that_a_run_has_overcome_is_none():
    """Cut off in the first half, none right at the start: what counts is how it goes at the end."""
    early = log(
        20, **{"completions/clipped_ratio": 0.9, "temporal/accuracy": 0.0, "frac_reward_zero_std": 1.0, "kl": 3.0}
    )
    late = [{**entry, "step": entry["step"] + 20} for entry in log(20)]
    assert diagnose(early + late) == []


def test_equal_rewards_are_no_fault_where_the_bonus_moves_the_advantages():
    """As with temporal_bonus="advantage": TRL counts groups by their rewards, in which the bonus is not."""
    assert diagnose(log(**{"frac_reward_zero_std": 0.95, "temporal/effect": 0.27})) == []


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_said_of_a_start_or_of_what_was_not_logged(name):
    assert diagnose(log(4, **FAULTS[name][0])) == []
    assert diagnose([{"step": step, "reward": 1.0} for step in range(40)]) == []


def test_the_manual_has_every_threshold():
    page = (view.Path(__file__).parents[2] / "docs" / "watching.md").read_text().split("## What goes wrong")[1]
    rows = dict(re.findall(r"^\| ([\w ]+) \| (.*?) \|", page, re.MULTILINE))
    assert {name for name in rows if name in CHECKS} == set(CHECKS)
    shown = {
        "cut off": [diagnosis.CUT_OFF], "format never right": [diagnosis.FORMAT], "all groups equal": [diagnosis.EQUAL_GROUPS, diagnosis.MOVED],
        "bonus without effect": [diagnosis.BONUS_RATE, diagnosis.EFFECT], "order not needed": [diagnosis.GAP, diagnosis.RIGHT],
        "entropy off": [diagnosis.ENTROPY_LOW, diagnosis.ENTROPY_FALL, diagnosis.ENTROPY_RISE], "KL off": [diagnosis.KL],
        "sampler unlike learner": [diagnosis.SAMPLER, diagnosis.RATIO],
    }  # fmt: skip
    for name, figures in shown.items():
        assert all(f"{figure:g}" in rows[name] for figure in figures), name


@pytest.fixture
def run(models, media, tmp_path, caplog):
    """Trains six steps; gives the names of what was said at its end."""

    def trains(*rewards, **settings):
        rows = [row(f"which way, {index}?", video=media["videos"][0]) for index in range(6)]
        folder = tmp_path / "run"
        trainer(models(), rows, folder, list(rewards), max_steps=6, log_rollouts_steps=3, **settings).train()
        return folder, [record.message for record in caplog.records if "What goes wrong" in record.message]

    return trains


def test_a_trained_run_says_at_its_end_what_its_random_model_does_wrong(run, monkeypatch, capsys):
    """Six tokens of random weights: cut off, without format; accuracies 1, 0, 1, 0 on both kinds of frames."""
    folder, said = run(Scripted(*[[1, 0, 1, 0], [1, 0]] * 6), format_reward)
    assert [re.search(r"goes wrong: ([\w ]+):", each)[1] for each in said] == [
        "cut off", "format never right", "bonus without effect", "order not needed"
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["videor1 view", str(folder), "--check"])
    with pytest.raises(SystemExit) as stopped:
        view.main()
    assert stopped.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith(f"{folder}: ")]
    assert len(shown) == 4
    assert re.search(
        r"run: cut off: \d+% of the completions in steps 1 to 6 were cut off \(the longest had 6 tokens\)", shown[0]
    )


def test_a_trained_run_in_which_order_helps_says_only_that_its_completions_are_cut_off(run):
    """Accuracies 1, 0, 1, 0 against 0, 0, and another reward differs in the group, so that the bonus does not cancel."""

    def varied(completions, **kwargs):
        return [0.0, 1.0, 0.5, 0.25]

    folder, said = run(Scripted(*[[1, 0, 1, 0], [0, 0]] * 6), varied)
    assert [re.search(r"goes wrong: ([\w ]+):", each)[1] for each in said] == [
        "cut off"
    ]  # its random weights never end


def test_check_says_that_a_run_is_well_and_that_one_is_too_short(tmp_path, monkeypatch, capsys):
    for name, number in (("well", 40), ("short", 4)):
        (tmp_path / name).mkdir()
        write_log(tmp_path / name, log(number))
    monkeypatch.setattr("sys.argv", ["videor1 view", str(tmp_path / "well"), str(tmp_path / "short"), "--check"])
    with pytest.raises(SystemExit) as stopped:
        view.main()
    assert stopped.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/well: none of what usually goes wrong was found in 40 logged steps.",
        f"{tmp_path}/short: 4 logged steps of training are too few to say anything (5 are needed).",
    ]
    monkeypatch.setattr("sys.argv", ["videor1 view", str(tmp_path), "--check"])
    assert "has no trainer_state.json" in refused(view.main)
