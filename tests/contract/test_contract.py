"""Every family held to the contract, and the manual's table, which is written from what it found."""

import pytest
import torch
import transformers
from hybrids import HYBRIDS
from more_families import MORE_FAMILIES
from test_manual import tool
from tiny import FAMILIES

from videor1_trl import check_model
from videor1_trl.contract.check import CHECKS


ALL = (*FAMILIES, *HYBRIDS, *MORE_FAMILIES)
page = tool("families")  # writes the manual's table; its stored results say what is known not to pass


def stored(family):
    """What the manual says of a family with the installed transformers, or with the newest that it knows."""
    results = page.read()
    return results.get(transformers.__version__, results[max(results)])[family]


@pytest.mark.parametrize(
    "family", [pytest.param(each, marks=[] if each in FAMILIES else [pytest.mark.slow]) for each in ALL]
)
def test_the_contract_holds(family, tmp_path):
    """But for what the manual says: where that has changed, `python docs/tools/families.py` says it anew."""
    built = page.built(family, tmp_path)
    result = check_model(built.model, built.processor)
    assert [check.name for check in result.checks] == list(CHECKS)
    expected = {name: outcome for name, (outcome, _) in stored(family).items()}
    assert {check.name: check.outcome for check in result.checks if check.outcome != "pass"} == expected, str(result)


def test_the_manual_has_the_table_of_what_was_found():
    results = page.read()
    assert page.table(results) in page.PAGE.read_text(), "python docs/tools/families.py --write"
    assert all(list(families) == page.all_families() for families in results.values())
    assert {name for checks in page.COLUMNS.values() for name in checks} == set(CHECKS)
    assert all(f"`{name}`" in page.PAGE.read_text().split("## The contract")[1] for name in CHECKS)


def test_the_table_says_what_fails_and_what_does_not_apply():
    refused = ["not applicable", "such a prompt is refused: one"]
    found = {"packed": ["fail", "they differ | by <0.5"], "two_videos": refused}
    lines = page.table({"1.0": {"a": {}, "b": found}, "2.0": {"a": {}, "b": {}}}).splitlines()
    none = {
        "supported": ["fail", "cannot be read"],
        **{name: ["not applicable", "the model"] for name in CHECKS if name != "supported"},
    }
    assert "| c | refused | – | – | – | – | – | – | – |" in page.table({"1.0": {"c": none}})
    assert page.table({"1.0": {"c": none}}).splitlines()[-1] == "- c, `supported`: cannot be read"
    assert "| a | yes | yes | yes | yes | yes | yes | yes | yes |" in lines
    assert "| b (1.0) | yes | yes | yes; – `two_videos` | yes | **no** | yes | yes | yes |" in lines
    assert "| b (2.0) | yes | yes | yes | yes | yes | yes | yes | yes |" in lines
    assert "- b (1.0), `packed`: they differ \\| by &lt;0.5" in lines
    assert "- b (1.0), `two_videos`: refused: one" in lines


@pytest.mark.slow
def test_the_contract_holds_in_half_precision(models):
    """As large models are checked: tolerances are wider."""
    path = models("qwen3_vl").path
    model = type(models("qwen3_vl").model).from_pretrained(path, dtype=torch.bfloat16)
    names = ["rows_alone", "rollouts", "packed", "cold_start", "one_step", "save_load"]
    result = check_model(model, models("qwen3_vl").processor, checks=names)
    assert result.ok and result.dtype == "bfloat16", str(result)
