"""Writes the page of a run: one HTML file that needs no server and no network, and in which nothing of model or data is code."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from ..generation.journal import write_whole
from ..text.messages import Named
from .curves import HEIGHT, LEFT, WIDTH, log_of_groups, panels_of
from .diagnosis import FEWEST, Finding, diagnose
from .groups import Group, order_mattered, spread
from .logs import Entry


@dataclass
class Page:
    """
    What a page shows.

    Args:
        title (`str`): of the page, such as the run's folder.
        groups (`list[Group]`): as read by [`read_groups`].
        log (`list[Entry]`): of the run; without one the curves are those of the records.
        most (`int`): rollouts that are shown; of more, groups spread over the run.
    """

    title: str
    groups: list[Group]
    log: list[Entry] = field(default_factory=list)
    most: int = 5000

    def write(self, path: Path) -> int:
        """Writes the file at once; gives the number of rollouts in it."""
        shown = spread(self.groups, self.most)
        frames = _Frames()
        data = {"groups": [_group(group, frames) for group in shown], "rewards": _reward_names(shown)}
        findings = diagnose(self.log)
        number = sum(len(group.rollouts) for group in shown)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, [self._html(data, frames, findings, number)])
        return number

    def _html(self, data: Named, frames: _Frames, findings: Sequence[Finding], number: int) -> str:
        environment = Environment(
            loader=PackageLoader("videor1_trl.watching", "page"), autoescape=True, undefined=StrictUndefined
        )
        script = environment.loader.get_source(environment, "page.js")[0]  # type: ignore[union-attr]
        style = environment.loader.get_source(environment, "page.css")[0]  # type: ignore[union-attr]
        curves = panels_of(self.log or log_of_groups(self.groups))
        total = sum(len(group.rollouts) for group in self.groups)
        logged = [entry for entry in self.log if "reward" in entry]
        return environment.get_template("page.html").render(
            title=self.title,
            data=htmlsafe_json_dumps(data),  # no <, > or & stands in it, so nothing in it ends the element
            frames=htmlsafe_json_dumps(frames.pictures),
            script=Markup(script),
            style=Markup(style),
            # only this script may run, and nothing may be loaded: what escaping might miss has no effect
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            curves=curves,
            curve={"width": WIDTH, "height": HEIGHT, "left": LEFT},
            from_log=bool(self.log),
            findings=findings,
            healthy=not findings and len(logged) >= FEWEST,
            num_logged=len(logged),
            number=number,
            total=total,
            num_groups=len(data["groups"]),
            sources=sorted({group.source for group in self.groups}),
            problem_types=sorted({group.problem_type or group.data_source for group in self.groups} - {""}),
        )


class _Frames:
    """The pictures of a page, each once."""

    def __init__(self) -> None:
        self.pictures: list[str] = []  # base64 of a JPEG
        self._places: dict[Path, int] = {}

    def place(self, path: Path) -> int | None:
        """Where a picture stands among all of them; `None` of one that is gone."""
        if path not in self._places:
            try:
                content = path.read_bytes()
            except OSError:
                return None
            self._places[path] = len(self.pictures)
            self.pictures.append(base64.b64encode(content).decode())
        return self._places[path]


def _group(group: Group, frames: _Frames) -> Named:
    """A group as the script reads it."""
    ordered = [frames.place(group.folder / name) for name in group.frames]
    contrast = [frames.place(group.folder / name) for name in group.contrast_frames]
    names = {name: place for place, name in reversed(list(enumerate(group.frames)))}
    return {
        "source": group.source,
        "step": group.step,
        "name": group.name,
        "prompt": group.prompt,
        "gold": group.gold,
        "type": group.problem_type or group.data_source,
        "taught": group.taught,
        "accuracy": group.accuracy,
        "contrastAccuracy": group.contrast_accuracy,
        "orderMattered": order_mattered(group),
        "error": group.error,
        "frames": ordered,
        "contrastFrames": contrast,
        "contrastOrder": [names.get(name) for name in group.contrast_frames],  # which ordered frame each one is
        "controls": [
            {
                "name": control,
                "frames": [frames.place(group.folder / name) for name in pictures],
                "order": [names.get(name) for name in pictures],
            }
            for control, pictures in group.controls.items()
        ],
        "seconds": group.seconds,
        "rollouts": [_rollout(each) for each in group.rollouts],
    }


def _rollout(line: Named) -> Named:
    names = "kind contrast place completion answer answered accuracy rewards reward bonus advantage".split()
    found = {name: line[name] for name in names}
    rewards = {name: value for name, value in line["rewards"].items() if value is not None}
    more = {name: line[name] for name in ("error", "kept") if line.get(name)}
    return {**found, "rewards": rewards, "tokens": line["num_tokens"], "cutOff": line["cut_off"], **more}


def _reward_names(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for each in group.rollouts for name in each["rewards"]))
