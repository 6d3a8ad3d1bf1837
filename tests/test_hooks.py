"""The private methods of TRL and transformers that the trainers override still look as they did."""

import inspect
import re

import pytest
import trl
from trl import GRPOTrainer, SFTTrainer

from videor1_trl import TGRPOTrainer, VideoSFTTrainer
from videor1_trl.hooks import HOOKS, SFT_HOOKS, check_parent
from videor1_trl.models.saving import WholeCheckpoints


TRAINERS = [(TGRPOTrainer, GRPOTrainer, HOOKS), (VideoSFTTrainer, SFTTrainer, SFT_HOOKS)]


@pytest.mark.parametrize(
    "parent, name, expected",
    [(parent, *hook) for _, parent, hooks in TRAINERS for hook in hooks.items()],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_parent_hook_keeps_its_signature(parent, name, expected):
    found = " ".join(inspect.signature(getattr(parent, name)).parameters)
    changed = f"TRL {trl.__version__} changed {parent.__name__}.{name}"
    assert found == expected, f"{changed}: reread it, then fix the override."


@pytest.mark.parametrize("trainer, parent, hooks", TRAINERS)
def test_every_override_has_a_canary(trainer, parent, hooks):
    ours = {**vars(WholeCheckpoints), **vars(trainer)}
    overrides = {name for name, value in ours.items() if inspect.isfunction(value) and hasattr(parent, name)}
    assert overrides - {"__init__"} == set(hooks)


@pytest.mark.parametrize("trainer, parent, hooks", TRAINERS)
def test_every_override_says_why_in_the_class_docstring(trainer, parent, hooks):
    docstrings = "\n".join([WholeCheckpoints.__doc__, trainer.__doc__.split("Example:")[0]])
    reasons = re.findall(r"^    - (`.*?):", docstrings, re.MULTILINE)
    listed = {name for names in reasons for name in re.findall(r"`(\w+)`", names)}
    assert listed == set(hooks)


def test_another_signature_is_a_clear_error_at_construction(monkeypatch):
    monkeypatch.setattr(GRPOTrainer, "_tokenize_prompts", lambda self, prompts, images: None)
    with pytest.raises(
        ImportError,
        match=r"overrides GRPOTrainer\._tokenize_prompts\(self, prompts\), but TRL .* has self, prompts, images",
    ):
        TGRPOTrainer("no/model", print)


def test_a_removed_method_is_a_clear_error(monkeypatch):
    monkeypatch.delattr(GRPOTrainer, "_tokenize_prompts")
    with pytest.raises(ImportError, match=r"pip install 'trl>=1\.16,<1\.17'"):
        check_parent()


def test_the_supervised_trainer_checks_its_own_parent(monkeypatch):
    monkeypatch.setattr(SFTTrainer, "compute_loss", lambda self, model: None)
    with pytest.raises(ImportError, match=r"overrides SFTTrainer\.compute_loss\(self, model, inputs, "):
        VideoSFTTrainer("no/model")
