"""The page of the manual on watching says what the code does."""

import re
from pathlib import Path

from videor1_trl.watching.records import FIELDS


PAGE = (Path(__file__).parents[2] / "docs" / "watching.md").read_text()


def test_the_manual_has_every_field_of_a_record_with_its_meaning():
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.split("## Records")[1], re.MULTILINE)) == FIELDS
