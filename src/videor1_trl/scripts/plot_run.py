"""Draws the paper's curves (accuracy reward, temporal reward, completion length, gap) of one or several runs."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..watching.logs import Entry, read_log, series
from .command_line import CommandParser
from .messages import expected_errors, run_command


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

DPI = 200  # of pictures made of pixels


@dataclass
class PlotArguments:
    """What is drawn, and how."""

    runs: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders of runs or of checkpoints, trainer_state.json files, or JSON (Lines) of log entries."
        },
    )
    labels: list[str] | None = field(
        default=None, metadata={"help": "Names of the runs in the legend, in their order. None: their folders' names."}
    )
    output: str = field(
        default="curves.png",
        metadata={"help": "The picture, in the format of its suffix: png, svg, pdf, jpg ...; its folder is made."},
    )
    title: str | None = field(default=None, metadata={"help": "Heading of the picture."})
    smoothing: str = field(
        default="ema",
        metadata={
            "help": "The thick line: 'ema', an exponential moving average that starts without bias, 'mean', a centred "
            "moving mean, or 'none'. What was logged stays behind it, faint.",
            "choices": ["ema", "mean", "none"],
        },
    )
    ema_weight: float = field(
        default=0.9, metadata={"help": "With smoothing=ema: weight of the past at each logged point, in [0, 1)."}
    )
    window: int = field(default=11, metadata={"help": "With smoothing=mean: logged points averaged, odd, >= 1."})
    accuracy_reward_name: str = field(
        default="accuracy_reward",
        metadata={
            "help": "Name of the reward function drawn as the accuracy reward; of runs that did not log it "
            "temporal/accuracy is drawn."
        },
    )
    temporal_reward_name: str = field(
        default="temporal_reward", metadata={"help": "Name of the temporal reward function."}
    )
    metrics: list[str] | None = field(
        default=None, metadata={"help": "Metrics to draw instead of the paper's four, one panel each, as logged."}
    )


@dataclass(frozen=True)
class Panel:
    """
    One of the picture's axes: its title, the metrics on it with what tells them apart (empty for one alone), and the metric
    that is drawn instead of one for runs that did not log it.
    """

    title: str
    metrics: dict[str, str]
    instead: dict[str, str] = field(default_factory=dict)

    def metric_of(self, log: list[Entry], metric: str) -> str:
        """What is drawn of a run for a metric: itself, or else what is drawn instead, where it was logged."""
        other = self.instead.get(metric, metric)
        return other if series(log, other)[0] and not series(log, metric)[0] else metric


@dataclass(frozen=True)
class Smoothing:
    """How the thick lines come about; `str` of it is what the legend says."""

    kind: str = "ema"
    ema_weight: float = 0.9
    window: int = 11

    def __post_init__(self) -> None:
        if self.kind not in ("ema", "mean", "none"):
            raise ValueError(f"smoothing ({self.kind!r}) must be 'ema', 'mean' or 'none'.")
        if not 0 <= self.ema_weight < 1:
            raise ValueError(f"ema_weight ({self.ema_weight}) must be at least 0 and below 1.")
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"window ({self.window}) must be odd and at least 1, so that it has a centre.")

    def __str__(self) -> str:
        if self.kind == "none":
            return "as logged, not smoothed"
        if self.kind == "ema":
            return f"exponential moving average, weight {self.ema_weight:g}; faint: as logged"
        return f"centred mean over {self.window} logged points; faint: as logged"

    def __call__(self, values: list[float]) -> list[float]:
        """
        As many values as were given. At the ends the centred mean is one of the points there are; the exponential
        average divides by the weights so far, so that it starts at the first value.

        >>> Smoothing("mean", window=3)([0.0, 3.0, 6.0, 3.0])
        [1.5, 3.0, 4.0, 4.5]
        >>> Smoothing("ema", ema_weight=0.5)([0.0, 3.0])
        [0.0, 2.0]
        """
        if self.kind == "none":
            return list(values)
        if self.kind == "mean":
            reach = self.window // 2
            return [statistics.fmean(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]
        smoothed, total, weights = [], 0.0, 0.0
        for value in values:
            total = self.ema_weight * total + value
            weights = self.ema_weight * weights + 1
            smoothed.append(total / weights)
        return smoothed


def paper_panels(accuracy: str = "accuracy_reward", temporal: str = "temporal_reward") -> list[Panel]:
    """The curves of Video-R1's figures, and the gap between ordered and contrast frames."""
    accuracy_mean = f"rewards/{accuracy}/mean"
    return [
        Panel("accuracy reward", {accuracy_mean: ""}, instead={accuracy_mean: "temporal/accuracy"}),
        Panel("temporal reward", {f"rewards/{temporal}/mean": ""}),
        Panel("completion length in tokens", {"completions/mean_length": ""}),
        Panel("gap: accuracy on ordered less on contrast frames", {"temporal/gap": ""}),
    ]


# ------------------------------------------------------------------------------------------------------------ drawing


def picture_format(path: str | Path) -> str:
    """
    The format of a picture by its suffix.

    Raises:
        `ValueError`: one that matplotlib does not write.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in known:
        raise ValueError(f"output ({path}): its suffix is none of {', '.join(known)}.")
    return suffix


def draw(
    path: str | Path,
    logs: dict[str, list[Entry]],
    panels: list[Panel],
    smoothing: Smoothing,
    title: str | None = None,
) -> list[str]:
    """
    Draws each panel's metrics over the steps: a colour for each run, a line style for each metric of a panel; of one
    run alone a colour for each metric.

    Args:
        path: the picture, in the format of its suffix; its folder is made.
        logs: label of a run -> its log entries; the legend names the runs in this order.
        panels: those without any value are left out.

    Returns:
        `list[str]`: what was left out or drawn instead, in words.

    Raises:
        `ValueError`: no run has any of the metrics; a suffix that matplotlib does not know.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    kind = picture_format(path)
    shown, notes = _choose(panels, logs)
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(5.2 * columns, 2.8 * rows + 0.9), squeeze=False, layout="constrained"
    )
    lines: dict[str, Line2D] = {}
    for axis, panel in zip(grid.flat, shown, strict=False):
        lines = _draw_panel(axis, panel, logs, smoothing) | lines
    for axis in grid.flat[len(shown) :]:
        axis.set_visible(False)
    _add_legend(figure, {label: lines[label] for label in logs if label in lines}, str(smoothing))
    if title:
        figure.suptitle(title)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, format=kind)
    plt.close(figure)
    return notes


def _draw_panel(axis: Axes, panel: Panel, logs: dict[str, list[Entry]], smoothing: Smoothing) -> dict[str, Line2D]:
    """One panel; a line of each run that has any in it."""
    lines: dict[str, Line2D] = {}
    for place, (metric, name) in enumerate(panel.metrics.items()):
        style = "-" if len(logs) == 1 else ("-", "--", ":", "-.")[place % 4]
        for index, (label, log) in enumerate(logs.items()):
            colour = f"C{place if len(logs) == 1 else index}"
            line = _draw_line(axis, *series(log, panel.metric_of(log, metric)), smoothing, colour, style)
            if line is not None:
                lines.setdefault(label, line)
        if name:
            axis.plot([], [], color=f"C{place}" if len(logs) == 1 else "0.3", linestyle=style, label=name)
    if any(panel.metrics.values()):
        axis.legend(fontsize=8)
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel("optimizer step")
    axis.grid(alpha=0.3)
    return lines


def _draw_line(
    axis: Axes, steps: list[float], values: list[float], smoothing: Smoothing, colour: str, style: str
) -> Line2D | None:
    """A smoothed line, what was logged faint behind it, and dots for the few points of a short run; `None` of none."""
    if not steps:
        return None
    marker = "." if len(steps) < 3 else None
    if smoothing.kind != "none":
        axis.plot(steps, values, color=colour, linestyle=style, alpha=0.25, linewidth=1)
    (line,) = axis.plot(steps, smoothing(values), color=colour, linestyle=style, linewidth=2, marker=marker)
    return line


def _add_legend(figure: Figure, lines: dict[str, Line2D], title: str) -> None:
    """The runs below the panels, under how their lines were smoothed."""
    legend = figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside lower center",
        ncols=min(4, len(lines)),
        fontsize=9,
        title=title,
        title_fontsize=9,
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(linestyle="-", marker="none")


def _choose(panels: list[Panel], logs: dict[str, list[Entry]]) -> tuple[list[Panel], list[str]]:
    """The panels with anything in them, and a line on each metric that a run, or every run, lacks."""
    shown, notes = [], []
    for panel in panels:
        lacking = {
            metric: [label for label, log in logs.items() if not series(log, panel.metric_of(log, metric))[0]]
            for metric in panel.metrics
        }
        if any(len(labels) < len(logs) for labels in lacking.values()):
            shown.append(panel)
        for metric, other in panel.instead.items():
            labels = [label for label, log in logs.items() if panel.metric_of(log, metric) == other]
            if labels:
                notes.append(f"{panel.title}: {metric} was not logged by {', '.join(labels)}, {other} is drawn.")
        for metric, labels in lacking.items():
            if len(labels) == len(logs):
                notes.append(f"{panel.title}: {metric} was not logged, left out.")
            elif labels:
                notes.append(f"{panel.title}: {metric} was not logged by {', '.join(labels)}.")
    if not shown:
        known = sorted({name for log in logs.values() for entry in log for name in entry} - {"step", "epoch"})
        raise ValueError(
            f"none of {', '.join(metric for panel in panels for metric in panel.metrics)} was logged. Name others with "
            f"--metrics; there are: {', '.join(known)}."
        )
    return shown, notes


def name_runs(runs: list[str], labels: list[str] | None) -> list[str]:
    """One label a run, all different: those given, else as much of the end of each path as tells them apart."""
    if labels is None:
        parts = [Path(run).resolve().parts for run in runs]
        parts = [path[:-1] if path[-1].endswith((".json", ".jsonl")) else path for path in parts]
        depth = next((n for n in range(1, 12) if len({path[-n:] for path in parts}) == len(runs)), 12)
        labels = ["/".join(path[-depth:]) for path in parts]
    if len(labels) != len(runs):
        raise ValueError(f"labels ({len(labels)}) must be as many as runs ({len(runs)}).")
    if len(set(labels)) != len(labels):
        raise ValueError(f"two runs are called alike: {', '.join(labels)}. Name them with --labels.")
    return labels


def make_parser() -> CommandParser:
    return CommandParser(__doc__, {"what is drawn, and how": PlotArguments})


def main() -> None:
    (args,) = make_parser().parse()
    with expected_errors():
        if not args.runs:
            raise ValueError("runs is not set: give the folder of a run.")
        picture_format(args.output)
        smoothing = Smoothing(args.smoothing, args.ema_weight, args.window)
        logs = {label: read_log(run) for label, run in zip(name_runs(args.runs, args.labels), args.runs, strict=True)}
        panels = paper_panels(args.accuracy_reward_name, args.temporal_reward_name)
        if args.metrics:
            panels = [Panel(metric, {metric: ""}) for metric in args.metrics]
        notes = draw(args.output, logs, panels, smoothing, args.title)
    for note in notes:
        print(note)
    print(f"Saved to {args.output}.")


if __name__ == "__main__":
    run_command(main)
