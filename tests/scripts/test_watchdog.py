"""What the watchdog knows of a rank, and when it ends the run; `tests/engines/test_nodes.py` has the launches."""

import re
import time
from types import SimpleNamespace

import pytest
from torch import nn

from videor1_trl.scripts import watchdog
from videor1_trl.scripts.watchdog import OTHERWISE, PHASES, Watchdog, watched


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Identity()

    def get_input_embeddings(self):
        return self.tokens


class Trained:
    """A trainer whose methods tell the phase that they are run in."""

    def __init__(self, num_processes=2, seconds=100.0):
        self.accelerator = SimpleNamespace(num_processes=num_processes, process_index=1)
        self.args, self.model = SimpleNamespace(ddp_timeout=seconds), Model()


def phase_of(name, inner=None):
    def method(self, *args):
        return getattr(self, inner)() if inner else DOGS[-1]._state()["phase"]

    return method


for each in PHASES:
    setattr(Trained, each, phase_of(each))
DOGS: list[Watchdog] = []


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher, whose store would be asked; the watchdogs that are made are in DOGS, and the exits in the list."""
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    DOGS.clear()
    made = Watchdog.__init__

    def remembered(self, *args):
        made(self, *args)
        DOGS.append(self)

    exits = []
    monkeypatch.setattr(Watchdog, "__init__", remembered)
    monkeypatch.setattr(watchdog.os, "_exit", exits.append)
    return exits


@pytest.mark.parametrize("method, phase", PHASES.items())
def test_each_part_of_a_step_has_its_phase(method, phase):
    trainer = Trained()
    with watched(trainer):
        assert getattr(trainer, method)() == phase
        assert DOGS[-1]._state()["phase"] == OTHERWISE
    assert method not in vars(trainer), "the trainer is as it was"


def test_rollouts_of_an_evaluation_are_told_from_those_of_training_and_a_save_within_a_save_is_one(monkeypatch):
    monkeypatch.setattr(Trained, "prediction_step", phase_of("prediction_step", inner="_generate_single_turn"))
    monkeypatch.setattr(Trained, "_save_checkpoint", phase_of("_save_checkpoint", inner="save_model"))
    trainer = Trained()
    with watched(trainer):
        assert trainer.prediction_step() == "rollouts in evaluation"
        assert trainer._save_checkpoint() == "saving"


def test_a_phase_that_fails_is_left():
    trainer = Trained()
    trainer.compute_loss = lambda: 1 / 0
    with watched(trainer):
        with pytest.raises(ZeroDivisionError):
            trainer.compute_loss()
        assert DOGS[-1]._state()["phase"] == OTHERWISE


def stand_still(dog, seconds):
    with dog.phase("rewards"):
        time.sleep(seconds)


def test_a_rank_without_progress_ends_the_run_with_its_name_and_where_it_stands(alone, capsys):
    dog = Watchdog(1, 2, 0.3)
    with dog.watching():
        stand_still(dog, 1.5)
    assert alone and set(alone) == {1}
    said = capsys.readouterr().err
    assert re.search(
        r"^rank 1 has been in rewards for \d s: stand_still, .*test_watchdog\.py, line \d+\.$", said, re.MULTILINE
    )
    assert "rank 0 has told nothing." in said and "time.sleep(seconds)" in said


def test_forward_passes_are_progress(alone, capsys):
    """Twelve of them, in three times the time that one phase may take without."""
    trainer = Trained(seconds=2.0 / watchdog.SHARE)
    trainer.compute_loss = lambda: [(time.sleep(0.5), trainer.model.tokens(0)) for _ in range(12)]
    with watched(trainer):
        trainer.compute_loss()
    assert not alone and not capsys.readouterr().err
    assert not trainer.model.tokens._forward_pre_hooks


def test_one_process_alone_is_not_watched():
    trainer = Trained(num_processes=1)
    with watched(trainer):
        assert not set(vars(trainer)) & set(PHASES)
    assert not DOGS
