"""The curves on top of the page: small panels of a run's log as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from .groups import Group
from .logs import Entry, series


WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 300, 130, 40, 20, 8
POINTS = 400  # of a line; of more, means of neighbours

# Title of a panel -> metric of the log -> its name in the legend; what was not logged is left out
PANELS = {
    "share of rollouts right": {"temporal/accuracy": "ordered", "temporal/contrast_accuracy": "contrast"},
    "reward": {"reward": "reward"},
    "tokens of a completion": {"completions/mean_length": "mean", "completions/max_length": "longest"},
    "cut off; groups of equal rewards": {
        "completions/clipped_ratio": "cut off",
        "frac_reward_zero_std": "equal rewards",
    },
    "effect of the bonus": {"temporal/effect": "effect"},
    "nats a token": {"entropy": "entropy", "kl": "KL"},
}


@dataclass(frozen=True)
class Line:
    """One line of a panel: its name, its SVG points, its last value, and where its dot sits."""

    name: str
    points: str
    last: float
    dot: tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """A small picture: lines within ticks on both axes."""

    title: str
    lines: list[Line]
    ticks: list[tuple[float, str]]  # height, value
    first_step: float
    last_step: float


def panels_of(log: Sequence[Entry]) -> list[Panel]:
    """The panels that a log has anything for."""
    found = []
    for title, metrics in PANELS.items():
        lines = {name: series(list(log), metric) for metric, name in metrics.items()}
        lines = {name: line for name, line in lines.items() if line[0]}
        if lines:
            found.append(_panel(title, lines))
    return found


def log_of_groups(groups: Sequence[Group]) -> list[Entry]:
    """A log of what was recorded, for a run that left none: accuracies, rewards and lengths of its training rollouts by step."""
    by_step: dict[int, list[Group]] = {}
    for group in groups:
        if group.source == "train" and group.step is not None:
            by_step.setdefault(group.step, []).append(group)
    return [_entry(step, of_step) for step, of_step in sorted(by_step.items())]


def _entry(step: int, groups: Sequence[Group]) -> Entry:
    ordered = [line for group in groups for line in group.rollouts if line["kind"] == "ordered"]
    values = {
        "temporal/accuracy": [line["accuracy"] for line in ordered],
        "temporal/contrast_accuracy": [
            line["accuracy"] for group in groups for line in group.rollouts if line["kind"] == "contrast"
        ],
        "reward": [line["reward"] for line in ordered],
        "completions/mean_length": [line["num_tokens"] for line in ordered],
        "completions/clipped_ratio": [float(line["cut_off"]) for line in ordered],
        "frac_reward_zero_std": [float(not group.taught) for group in groups],
    }
    found = {name: [each for each in of_name if each is not None] for name, of_name in values.items()}
    return {"step": step, **{name: fmean(of_name) for name, of_name in found.items() if of_name}}


def _panel(title: str, lines: dict[str, tuple[list[float], list[float]]]) -> Panel:
    steps = [step for line in lines.values() for step in line[0]]
    values = [value for line in lines.values() for value in line[1]]
    first, last, low, high = min(steps), max(steps), min(0.0, *values), max(values)
    high = high if high > low else low + 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        across = (step - first) / (last - first) if last > first else 0.5
        up = (value - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - 8), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)

    drawn = []
    for name, (xs, ys) in lines.items():
        places = [place(*each) for each in zip(_thinned(xs), _thinned(ys), strict=True)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(Line(name, points, ys[-1], places[-1]))
    ticks = [(place(first, value)[1], f"{value:.3g}") for value in (low, (low + high) / 2, high)]
    return Panel(title, drawn, ticks, first, last)


def _thinned(values: Sequence[float]) -> list[float]:
    """
    >>> from videor1_trl.watching import curves
    >>> curves._thinned([1.0, 3.0]), len(curves._thinned([0.0] * 1000)) <= curves.POINTS
    ([1.0, 3.0], True)
    """
    size = -(-len(values) // POINTS)
    return [fmean(values[start : start + size]) for start in range(0, len(values), size)]
