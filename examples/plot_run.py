"""
Draws the paper's curves (accuracy reward, temporal reward, completion length, gap) of one or several runs as a PNG.

    # a folder that a run wrote (its newest checkpoint is read), a trainer_state.json, or a log_history as JSON (Lines)
    python examples/plot_run.py --runs runs/video_r1_7b
    python examples/plot_run.py --runs runs/tgrpo runs/grpo --labels T-GRPO GRPO --output curves.png

    # a centred mean over 21 logged points instead of the exponential average; other metrics, one panel each
    python examples/plot_run.py --runs runs/tgrpo --smoothing mean --window 21 --metrics reward kl temporal/effect

One CPU core, seconds. A run leaves its log in its checkpoints (`save_strategy`). Metrics that no run has logged are left
out, and said to be. The last line says where the picture is: `Saved to curves.png.`
"""

# /// script
# dependencies = ["videor1_trl[examples]"]
# ///

import json
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path


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
    output: str = field(default="curves.png", metadata={"help": "The picture, PNG; its folder is made."})
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
        default="accuracy_reward", metadata={"help": "Name of the reward function drawn as the accuracy reward."}
    )
    temporal_reward_name: str = field(
        default="temporal_reward", metadata={"help": "Name of the temporal reward function."}
    )
    metrics: list[str] | None = field(
        default=None, metadata={"help": "Metrics to draw instead of the paper's four, one panel each, as logged."}
    )


@dataclass(frozen=True)
class Panel:
    """One of the picture's axes: its title, and the metrics on it with what tells them apart (empty for one alone)."""

    title: str
    metrics: dict[str, str]


@dataclass(frozen=True)
class Smoothing:
    """How the thick lines come about; `str` of it is what the legend says."""

    kind: str = "ema"
    ema_weight: float = 0.9
    window: int = 11

    def __post_init__(self):
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
    return [
        Panel("accuracy reward", {f"rewards/{accuracy}/mean": ""}),
        Panel("temporal reward", {f"rewards/{temporal}/mean": ""}),
        Panel("completion length in tokens", {"completions/mean_length": ""}),
        Panel("gap: accuracy on ordered less on contrast frames", {"temporal/gap": ""}),
    ]


# ------------------------------------------------------------------------------------------------------------ reading


def find_log(run: str | Path) -> Path:
    """
    The file of a run's log: itself, or of a folder the `trainer_state.json` in it or in its checkpoints that got
    furthest.

    Raises:
        `FileNotFoundError`: nothing there.
    """
    path = Path(run)
    if path.is_file():
        return path
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    found = [path / "trainer_state.json", *path.glob("checkpoint-*/trainer_state.json")]
    found = [file for file in found if file.is_file()]
    if not found:
        raise FileNotFoundError(
            f"{path} has no trainer_state.json, and no checkpoint-*/ with one. Runs write them with their checkpoints: "
            "set save_strategy and save_steps, or pass a file of log entries."
        )
    return max(found, key=_progress)


def _progress(file: Path) -> float:
    state = _parsed(file)
    return state.get("global_step", -1) if isinstance(state, dict) else -1


def read_log(run: str | Path) -> list[dict]:
    """
    The log entries of a run in the order of their steps.

    Where a log goes back to an earlier step (a resumed run that appended to the log of the first attempt), what the
    first attempt logged from that step on is dropped: those weights are gone.

    Raises:
        `ValueError`: a file that holds no log entries. `FileNotFoundError`: as [`find_log`].
    """
    file = find_log(run)
    entries = _parsed(file)
    if isinstance(entries, dict):
        entries = entries.get("log_history")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{file} holds no log: neither a trainer's state with log_history nor a list of entries.")
    kept: list[dict] = []
    for index, entry in enumerate(entries):
        if not isinstance(entry.get("step"), (int, float)):
            raise ValueError(f"{file}, entry {index}: has no step.")
        if kept and entry["step"] < kept[-1]["step"]:
            kept = [earlier for earlier in kept if earlier["step"] < entry["step"]]
        kept.append(entry)
    if not kept:
        raise ValueError(f"{file} holds an empty log: the run had logged nothing when it was written.")
    return kept


def _parsed(file: Path):
    """A JSON file's value, or the list of a JSON Lines file's."""
    text = file.read_text(encoding="utf-8-sig")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise ValueError(f"{file}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}.") from error
    values = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            values += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {number}, column {error.colno}: not JSON: {error.msg}.") from error
    return values


def series(log: list[dict], metric: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric; the last of a step counts, and what is no finite number is passed over."""
    points = {
        entry["step"]: float(entry[metric])
        for entry in log
        if isinstance(entry.get(metric), (int, float)) and math.isfinite(entry[metric])
    }
    return list(points), list(points.values())


# ------------------------------------------------------------------------------------------------------------ drawing


def draw(
    path: str | Path,
    logs: dict[str, list[dict]],
    panels: list[Panel],
    smoothing: Smoothing,
    title: str | None = None,
) -> list[str]:
    """
    Draws each panel's metrics over the steps: a colour for each run, a line style for each metric of a panel; of one
    run alone a colour for each metric.

    Args:
        path: the PNG; its folder is made.
        logs: label of a run -> its log entries.
        panels: those without any value are left out.

    Returns:
        `list[str]`: what was left out, in words.

    Raises:
        `ValueError`: no run has any of the metrics.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown, notes = _choose(panels, logs)
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(5.2 * columns, 2.8 * rows + 0.9), squeeze=False, layout="constrained"
    )
    handles = {}
    for axis, panel in zip(grid.flat, shown, strict=False):
        for place, (metric, name) in enumerate(panel.metrics.items()):
            style = "-" if len(logs) == 1 else ("-", "--", ":", "-.")[place % 4]
            for index, (label, log) in enumerate(logs.items()):
                colour = f"C{place if len(logs) == 1 else index}"
                line = _draw_line(axis, *series(log, metric), smoothing, colour, style)
                if line is not None:
                    handles.setdefault(label, line)
            if name:
                axis.plot([], [], color=f"C{place}" if len(logs) == 1 else "0.3", linestyle=style, label=name)
        if any(panel.metrics.values()):
            axis.legend(fontsize=8)
        axis.set_title(panel.title, fontsize=10)
        axis.set_xlabel("optimizer step")
        axis.grid(alpha=0.3)
    for axis in grid.flat[len(shown) :]:
        axis.set_visible(False)
    legend = figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(4, len(handles)),
        fontsize=9,
        title=str(smoothing),
        title_fontsize=9,
    )
    for handle in legend.legend_handles:
        handle.set(linestyle="-", marker="none")
    if title:
        figure.suptitle(title)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)
    return notes


def _draw_line(axis, steps: list, values: list, smoothing: Smoothing, colour: str, style: str):
    """A smoothed line, what was logged faint behind it, and dots for the few points of a short run; `None` of none."""
    if not steps:
        return None
    marker = "." if len(steps) < 3 else None
    if smoothing.kind != "none":
        axis.plot(steps, values, color=colour, linestyle=style, alpha=0.25, linewidth=1)
    (line,) = axis.plot(steps, smoothing(values), color=colour, linestyle=style, linewidth=2, marker=marker)
    return line


def _choose(panels: list[Panel], logs: dict[str, list[dict]]) -> tuple[list[Panel], list[str]]:
    """The panels with anything in them, and a line on each metric that a run, or every run, lacks."""
    shown, notes = [], []
    for panel in panels:
        lacking = {
            metric: [label for label, log in logs.items() if not series(log, metric)[0]] for metric in panel.metrics
        }
        if any(len(labels) < len(logs) for labels in lacking.values()):
            shown.append(panel)
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


def stop(message: str):
    raise SystemExit(f"plot_run.py: {message}")


def make_parser():
    from trl import TrlParser

    parser = TrlParser(PlotArguments, description=__doc__.strip().splitlines()[0])
    parser.error = stop  # without the usage
    return parser


def main():
    parser = make_parser()
    try:
        (args,) = parser.parse_args_and_config()
        if not args.runs:
            raise ValueError("runs is not set: give the folder of a run.")
        smoothing = Smoothing(args.smoothing, args.ema_weight, args.window)
        logs = {label: read_log(run) for label, run in zip(name_runs(args.runs, args.labels), args.runs, strict=True)}
        panels = paper_panels(args.accuracy_reward_name, args.temporal_reward_name)
        if args.metrics:
            panels = [Panel(metric, {metric: ""}) for metric in args.metrics]
        notes = draw(args.output, logs, panels, smoothing, args.title)
    except (OSError, ValueError) as error:
        stop(str(error))
    for note in notes:
        print(note)
    print(f"Saved to {args.output}.")


if __name__ == "__main__":
    main()
