"""The private methods of TRL and transformers that the trainer overrides still look as they did."""

import inspect
import re

import pytest
import trl
from trl import GRPOTrainer

from videor1_trl import TGRPOTrainer
from videor1_trl.checks import HOOKS, check_parent


@pytest.mark.parametrize("name, expected", HOOKS.items())
def test_parent_hook_keeps_its_signature(name, expected):
    found = " ".join(inspect.signature(getattr(GRPOTrainer, name)).parameters)
    assert found == expected, f"TRL {trl.__version__} changed GRPOTrainer.{name}: reread it, then fix the override."


def test_every_override_has_a_canary():
    overrides = {n for n, v in vars(TGRPOTrainer).items() if inspect.isfunction(v) and hasattr(GRPOTrainer, n)}
    assert overrides - {"__init__"} == set(HOOKS)


def test_every_override_says_why_in_the_class_docstring():
    reasons = re.findall(r"^    - (`.*?):", TGRPOTrainer.__doc__.split("Example:")[0], re.MULTILINE)
    listed = {name for names in reasons for name in re.findall(r"`(\w+)`", names)}
    assert listed == set(HOOKS)


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
