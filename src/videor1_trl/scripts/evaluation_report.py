"""The closing tables of an evaluation, and the picture of what its controls leave of the score."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, cast

from videor1_trl.evaluation import summary
from videor1_trl.evaluation.summary import Control, Figures, Outputs, Part
from videor1_trl.text.completion_table import wide_console as wide_console  # of all tables of the scripts

from .plot_run import DPI


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table


class Summary(summary.Summary):
    """What is reported of `summary.json`: the figures, and what the run was about."""

    benchmark: str
    left_out: str
    note: NotRequired[str]
    questions_of_benchmark: int
    dropped_records: NotRequired[int]
    not_asked: NotRequired[dict[str, int]]
    time_dependence: NotRequired[dict[str, Any] | None]
    judge: NotRequired[dict[str, Any] | None]
    subtitles: NotRequired[dict[str, Any]]


NAMES = {"official": "the benchmark's rule", "video_r1": "Video-R1's script"}
ORDERED = "frames in order"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def interval(estimate: Figures) -> str:
    low, high = estimate["low"], estimate["high"]
    return "-" if low is None or high is None else f"{100 * low:.1f}..{100 * high:.1f}"


def print_summary(written: Mapping[str, object]) -> None:
    """Scores, tasks, controls and what is wrong with the outputs, as tables; all figures in percent."""
    summary = cast(Summary, written)  # of our own `summary.json`
    console = wide_console()
    console.print(_scores(summary))
    if summary["averages"] or summary["together"] or summary["intervals"]:
        console.print(_further(summary))
    console.print(_parts("By task", summary["tasks"], summary["controls"]))
    for name, parts in summary["groups"].items():
        console.print(_parts(f"By {name}", parts, {}))
    if summary["controls"]:
        console.print(_controls(summary))
    for condition, outputs in summary["outputs"].items():
        console.print(_line(ORDERED if condition == "ordered" else condition, outputs), soft_wrap=True)
        for error in outputs["first_errors"]:
            console.print(f"  counted as wrong: {error}", soft_wrap=True, markup=False)
    for line in _more_lines(summary):
        console.print(line, soft_wrap=True, markup=False)


def _table(title: str, first: str, *columns: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _scores(summary: Summary) -> Table:
    asked, of, videos = summary["questions"], summary["questions_of_benchmark"], summary["videos"]
    title = f"{summary['benchmark']}: {asked:,}{f' of {of:,}' if of != asked else ''} questions"
    title += f" on {videos:,} videos" if videos else ""
    table = _table(title, "score, %", "", "95 % interval", "chance")
    for name, estimate in summary["scores"].items():
        table.add_row(NAMES[name], percent(estimate["value"]), interval(estimate), percent(summary["chance"][name]))
    notes = [f"Left out: {summary['left_out']}."] if summary["left_out"] else []
    if summary.get("note"):
        notes.append(f"Note: {summary['note']}.")
    if summary.get("dropped_records"):
        notes.append(f"Dropped as malformed: {summary['dropped_records']:,} rows.")
    if not_asked := summary.get("not_asked"):
        notes.append(f"Not asked: {', '.join(f'{count:,} ({reason})' for reason, count in not_asked.items())}.")
    table.caption = " ".join(notes) or None
    return table


def _further(summary: Summary) -> Table:
    """What papers give in other ways: averages, sets that are right as a whole, intervals found."""
    controls = summary["controls"]
    table = _table(
        "Averages, whole sets and intervals (the benchmark's rule, %)",
        "",
        *("n", "score", "95 % interval", "chance"),
        *(each.replace("-", "-\n") for each in controls),
    )
    for name, average in summary["averages"].items():
        table.add_row(name, *_cells(average), percent(average["chance"]), *("-" for _ in controls))
    for name, whole in summary["together"].items():
        size = "/".join(map(str, whole["sizes"]))
        left = [found["together"].get(name) for found in controls.values()]
        shares = [percent(each["value"]) if each else "-" for each in left]
        table.add_row(f"{name}: all {size} right", *_cells(whole), percent(whole["chance"]), *shares)
    for name, found in summary["intervals"].items():
        table.add_row(name, *_cells(found), "-", *("-" for _ in controls))
    lacking = sum(each["incomplete"] for each in summary["together"].values())
    table.caption = f"Sets not asked as a whole, left out: {lacking:,}." if lacking else None
    return table


def _cells(figures: Figures) -> tuple[str, str, str]:
    return f"{figures['questions']:,}", percent(figures["value"]), interval(figures)


def _parts(title: str, parts: dict[str, Part], controls: dict[str, Control]) -> Table:
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


def _controls(summary: Summary) -> Table:
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


def _line(condition: str, outputs: Outputs) -> str:
    tokens = "" if outputs["mean_tokens"] is None else f", {outputs['mean_tokens']:.0f} tokens on average"
    return (
        f"{condition}: {outputs['completions']:,} answers{tokens}; cut off {percent(outputs['cut_off'])} %, without "
        f"<answer> {percent(outputs['no_answer'])} %, naming no option or number {percent(outputs['names_none'])} %, "
        f"unreadable {outputs['errors']}"
    )


def _more_lines(summary: Summary) -> Iterator[str]:
    """On time dependence, the judge and subtitles, where there were some."""
    weighed, judge, shown = summary.get("time_dependence"), summary.get("judge"), summary.get("subtitles")
    if weighed:
        means = ", ".join(f"{value:.3f} nats against {order} frames" for order, value in weighed["mean"].items())
        share = weighed["share_of_0.1_or_more"].get("reversed")
        yield (
            f"time dependence: {weighed['questions']:,} questions, on average {means or '-'}; {percent(share)} % of 0.1 or more; "
            f"the options have {percent(weighed['mean_mass'])} % of the next token; failed {weighed['errors']}"
        )
        yield from (f"  not weighed: {error}" for error in weighed["first_errors"])
    if judge:
        named = ", ".join(judge["served_by"]) or judge["model"]
        yield f"judge {named}: {judge['verdicts']:,} verdicts, failed {judge['failures']} (left out of all figures; start again)"
        yield from (f"  no verdict: {error}" for error in judge["first_failures"])
    if shown and shown["shown"] != "off":
        yield f"subtitles: {shown['shown']}; {shown['videos_with']:,} of {shown['videos']:,} videos have some"


def draw_controls(path: Path, written: Mapping[str, object]) -> None:
    """A bar for the frames in order and one for each control, with intervals, and chance as a line."""
    summary = cast(Summary, written)
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    controls = summary["controls"]
    first = next(iter(controls.values()))
    bars = {ORDERED: first["ordered_scores"]["official"]}
    bars |= {control: found["scores"]["official"] for control, found in controls.items()}
    figure, axis = plt.subplots(figsize=(1.6 + 1.3 * len(bars), 4.2))
    _draw_bars(axis, bars.values())
    chance = 100 * first["chance"]["official"]
    axis.axhline(chance, color="black", linestyle="--", linewidth=1, label=f"chance, {chance:.1f}")
    axis.set_xticks(range(len(bars)), list(bars))
    axis.set_ylim(0, 125)
    axis.set_yticks(range(0, 101, 20))
    axis.set_ylabel("score, %")
    axis.set_title(f"{summary['benchmark']}: {first['questions']:,} questions with a video", fontsize=10)
    axis.legend(title="whiskers: 95 %, by video", loc="upper right", fontsize=8, title_fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _draw_bars(axis: Axes, bars: Collection[Figures]) -> None:
    """The frames in order in blue, the controls grey; whiskers are their intervals."""
    values = [100 * bar["value"] for bar in bars]
    below = [100 * (bar["value"] - (bar["value"] if bar["low"] is None else bar["low"])) for bar in bars]
    above = [100 * ((bar["value"] if bar["high"] is None else bar["high"]) - bar["value"]) for bar in bars]
    colours = ["tab:blue"] + ["tab:gray"] * (len(bars) - 1)
    axis.bar(range(len(bars)), values, yerr=[below, above], capsize=4, color=colours)
    for place, (value, up) in enumerate(zip(values, above, strict=True)):
        axis.text(place, value + up + 2.5, f"{value:.1f}", ha="center", bbox={"color": "white", "pad": 0.5})
