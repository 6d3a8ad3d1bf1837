"""The closing tables of an evaluation, and the picture of what its controls leave of the score."""

from __future__ import annotations

from pathlib import Path
from typing import Any


NAMES = {"official": "the benchmark's rule", "video_r1": "Video-R1's script"}
ORDERED = "frames in order"
WIDTH = 110  # of the tables in a log file


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def interval(estimate: dict[str, Any]) -> str:
    if estimate["low"] is None:
        return "-"
    return f"{100 * estimate['low']:.1f}..{100 * estimate['high']:.1f}"


def wide_console():
    """For tables: as wide as the terminal, or wide enough for them in a log file."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def print_summary(summary: dict[str, Any]) -> None:
    """Scores, tasks, controls and what is wrong with the outputs, as tables; all figures in percent."""
    console = wide_console()
    console.print(_scores(summary))
    console.print(_parts("By task", summary["tasks"], summary["controls"]))
    for name, parts in summary["groups"].items():
        console.print(_parts(f"By {name}", parts, {}))
    if summary["controls"]:
        console.print(_controls(summary))
    for condition, outputs in summary["outputs"].items():
        console.print(_line(ORDERED if condition == "ordered" else condition, outputs), soft_wrap=True)
        for error in outputs["first_errors"]:
            console.print(f"  counted as wrong: {error}", soft_wrap=True, markup=False)


def _table(title: str, first: str, *columns: str):
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _scores(summary: dict[str, Any]):
    asked, of, videos = (summary[name] for name in ("questions", "questions_of_benchmark", "videos"))
    title = f"{summary['benchmark']}: {asked:,}{f' of {of:,}' if of != asked else ''} questions"
    title += f" on {videos:,} videos" if videos else ""
    table = _table(title, "score, %", "", "95 % interval", "chance")
    for name, estimate in summary["scores"].items():
        table.add_row(NAMES[name], percent(estimate["value"]), interval(estimate), percent(summary["chance"][name]))
    if summary["left_out"]:
        table.caption = f"Left out: {summary['left_out']}."
    return table


def _parts(title: str, parts: dict[str, Any], controls: dict[str, Any]):
    from rich.markup import escape

    table = _table(
        title, "", "n", "score", "95 % interval", "chance", *(each.replace("-", "-\n") for each in controls)
    )
    for part, estimate in parts.items():
        left = [found["tasks"].get(part) for found in controls.values()]
        table.add_row(
            escape(f"{part} (MRA)" if estimate["metric"] == "mra" else part),
            f"{estimate['questions']:,}",
            percent(estimate["value"]),
            interval(estimate),
            percent(estimate["chance"]),
            *("-" if each is None else percent(each["value"]) for each in left),
        )
    return table


def _controls(summary: dict[str, Any]):
    table = _table(
        "What is left of the score (the benchmark's rule, %) on the same questions",
        "shown",
        "n",
        "score",
        "in order",
        "lost",
        "95 % interval",
        "lost of what is above chance",
    )
    for control, found in summary["controls"].items():
        gap, share = found["difference"]["official"], found["share_above_chance"]
        table.add_row(
            control,
            f"{found['questions']:,}",
            percent(found["scores"]["official"]["value"]),
            percent(found["ordered_scores"]["official"]["value"]),
            percent(gap["value"]),
            interval(gap),
            "-" if share is None else f"{share:.0%}",
        )
    return table


def _line(condition: str, outputs: dict[str, Any]) -> str:
    tokens = "" if outputs["mean_tokens"] is None else f", {outputs['mean_tokens']:.0f} tokens on average"
    return (
        f"{condition}: {outputs['completions']:,} answers{tokens}; cut off {percent(outputs['cut_off'])} %, without "
        f"<answer> {percent(outputs['no_answer'])} %, unreadable {outputs['errors']}"
    )


def draw_controls(path: Path, summary: dict[str, Any]) -> None:
    """A bar for the frames in order and one for each control, with intervals, and chance as a line."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    controls = summary["controls"]
    first = next(iter(controls.values()))
    bars = {ORDERED: first["ordered_scores"]["official"]}
    bars |= {control: found["scores"]["official"] for control, found in controls.items()}
    figure, axis = plt.subplots(figsize=(1.6 + 1.3 * len(bars), 4.2))
    values = [100 * bar["value"] for bar in bars.values()]
    below = [100 * (bar["value"] - (bar["value"] if bar["low"] is None else bar["low"])) for bar in bars.values()]
    above = [100 * ((bar["value"] if bar["high"] is None else bar["high"]) - bar["value"]) for bar in bars.values()]
    colours = ["tab:blue"] + ["tab:gray"] * len(controls)
    axis.bar(range(len(bars)), values, yerr=[below, above], capsize=4, color=colours)
    for place, (value, up) in enumerate(zip(values, above, strict=True)):
        axis.text(place, value + up + 2.5, f"{value:.1f}", ha="center", bbox={"color": "white", "pad": 0.5})
    chance = 100 * first["chance"]["official"]
    axis.axhline(chance, color="black", linestyle="--", linewidth=1, label=f"chance, {chance:.1f}")
    axis.set_xticks(range(len(bars)), list(bars))
    axis.set_ylim(0, 125)
    axis.set_yticks(range(0, 101, 20))
    axis.set_ylabel("score, %")
    axis.set_title(f"{summary['benchmark']}: {first['questions']:,} questions with a video", fontsize=10)
    axis.legend(title="whiskers: 95 %, by video", loc="upper right", fontsize=8, title_fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
