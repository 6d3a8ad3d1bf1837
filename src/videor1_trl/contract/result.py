"""What the contract found of a model: a check a line, with its reason in words."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal


if TYPE_CHECKING:
    from rich.table import Table

Outcome = Literal["pass", "fail", "not applicable"]
_COLOURS = {"pass": "green", "fail": "bold red", "not applicable": "dim"}


class NotApplicable(Exception):
    """Raised by a check that says nothing of this model; its text is the reason."""


class Broken(Exception):
    """Raised by a check that fails; its text is the reason."""


@dataclass(frozen=True)
class Check:
    """
    One line of the contract.

    Args:
        name (`str`): what `ContractResult.failed` calls it.
        what (`str`): what must hold.
        outcome (`str`): `"pass"`, `"fail"` or `"not applicable"`.
        reason (`str`): what was measured, or why it failed or does not apply.
        seconds (`float`): that it took.
    """

    name: str
    what: str
    outcome: Outcome
    reason: str
    seconds: float = 0.0


@dataclass
class ContractResult:
    """
    What [`check_model`] found.

    Args:
        model (`str`): the model's class. dtype (`str`): of its weights. versions (`dict[str, str]`): of what it ran on.
        checks (`list[Check]`): in the order in which they were made.
    """

    model: str
    dtype: str
    versions: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [check.name for check in self.checks if check.outcome == "fail"]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def table(self) -> Table:
        """For rich to print: `rich.print(result.table())`."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"Contract: {self.model}, {self.dtype}", title_justify="left", min_width=80)
        for column in ("check", "", "what was found"):
            table.add_column(column, no_wrap=column == "check")
        for check in self.checks:
            colour = _COLOURS[check.outcome]
            found = check.reason if check.outcome == "pass" else f"{check.what}: {check.reason}"
            table.add_row(check.name, f"[{colour}]{check.outcome}[/]", escape(found))
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=119, highlight=False)
        console.print(self.table())
        console.print(self.summary())
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    def summary(self) -> str:
        """One line: whether the contract holds, and what does not."""
        counts = {name: sum(check.outcome == name for check in self.checks) for name in _COLOURS}
        said = f"{counts['pass']} of {len(self.checks)} hold"
        if counts["not applicable"]:
            said += f", {counts['not applicable']} do not apply"
        return f"{said}." if self.ok else f"{said}; FAILED: {', '.join(self.failed)}."

    def to_dict(self) -> dict[str, object]:
        """As JSON takes it."""
        return asdict(self)
