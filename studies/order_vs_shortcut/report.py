"""The study's tables, with intervals over seeds, and its picture, of the runs in the file of results."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from scipy.stats import t as student
from scipy.stats import ttest_1samp


Result = dict[str, Any]  # a line of the file of results
COLUMNS = {  # title: the set and the figure
    "mark lies": ("lies", "order"),
    "mark true": ("truth", "order"),
    "shuffled": ("shuffled", "order"),
    "answers the mark": ("lies", "answers_mark"),
    "says the mark": ("lies", "says_mark"),
    "static": ("lies", "static"),
    "half-known": ("lies", "half"),
}
AGAINST = ("mark lies", "static", "half-known")  # also as differences from GRPO, seed by seed
REACHED = 0.9
WANTED = 0.95
BANDED = ("grpo", "tgrpo", "crpo_labels")  # whose intervals the picture shows: with all of them it shows none
RATE = 1e-3  # learning rate of the runs that say none


def interval(values: list[float]) -> tuple[float, float]:
    """
    Mean, and half the width of its interval of 95 % over seeds, by Student's t; NaN for one seed.

    >>> [round(each, 3) for each in interval([0.4, 0.6])]  # 12.706 * 0.1414 / sqrt(2)
    [0.5, 1.271]
    """
    if len(values) < 2:
        return mean(values), float("nan")
    return mean(values), float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5


def shown(values: list[float]) -> str:
    if not values:
        return ""
    middle, half = interval(values)
    return f"{middle:.2f}" if half != half else f"{middle:.2f} ± {half:.2f}"


def paired(values: list[float]) -> str:
    """
    Differences seed by seed, with the p of a t test that they are 0 on average, from three seeds on.

    >>> paired([0.1, 0.2, 0.3])  # t = 0.2 / (0.1 / sqrt(3)) = 3.464, two degrees of freedom
    '0.20 ± 0.25 (p 0.074)'
    """
    if len(values) < 3 or len(set(values)) == 1:
        return shown(values)
    return f"{shown(values)} (p {ttest_1samp(values, 0.0).pvalue:.2g})"


def grouped(results: list[Result]) -> dict[tuple[float, int, int, float], dict[str, list[Result]]]:
    """Runs by q, cold start, steps and learning rate, and among these by objective, as they came."""
    found: dict[tuple[float, int, int, float], dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for each in results:
        found[each["q"], each["cold_steps"], each["steps"], each.get("learning_rate", RATE)][each["objective"]].append(
            each
        )
    return dict(sorted(found.items(), key=lambda item: (item[0][1], -item[0][2], -item[0][0], item[0][3])))


def figure(result: Result, title: str, when: str = "after") -> float:
    part, key = COLUMNS[title]
    return float(result[when][part][key])


def reached(runs: list[Result]) -> str:
    """The median of the steps until 0.9 of those runs that came there, and how many did."""
    steps = [next((step for step, share in run["curve"] if share >= REACHED), None) for run in runs]
    known = [step for step in steps if step is not None]
    return f"{median(known):g} ({len(known)} of {len(runs)})" if known else f"none of {len(runs)}"


def differences(runs: list[Result], others: list[Result], title: str) -> list[float]:
    """A figure less that of the other objective's run of the same seed."""
    of_seed = {each["seed"]: figure(each, title) for each in others}
    return [figure(each, title) - of_seed[each["seed"]] for each in runs if each["seed"] in of_seed]


def table(results: list[Result]) -> str:
    """A table in Markdown for each q and cold start."""
    parts = []
    for (q, cold, steps, rate), by_objective in grouped(results).items():
        titles = [
            "objective",
            "seeds",
            *COLUMNS,
            f"seeds at {WANTED:g}",
            *(f"{each} less GRPO's" for each in AGAINST),
            "steps until 0.9",
            "CPU s",
        ]
        by_rate = "" if rate == RATE else f" at a learning rate of {rate:g}"
        lines = [f"q {q:g}, cold start of {cold} steps, {steps} steps{by_rate}:", "", "| " + " | ".join(titles) + " |"]
        lines.append("|" + "---|" * len(titles))
        trained = [runs for name, runs in by_objective.items() if name != "tgrpo_no_cold_start"]
        starts = {each["seed"]: each for runs in trained or by_objective.values() for each in runs}
        before = [shown([figure(each, title, "before") for each in starts.values()]) for title in COLUMNS]
        lines.append(f"| (start) | {len(starts)} | {' | '.join(before)} |{' |' * (len(AGAINST) + 3)}")
        for name, runs in by_objective.items():
            cells = [shown([figure(each, title) for each in runs]) for title in COLUMNS]
            cells.append(f"{sum(figure(each, 'mark lies') >= WANTED for each in runs)} of {len(runs)}")
            against = by_objective["grpo"] if name != "grpo" else []
            cells += [paired(differences(runs, against, title)) for title in AGAINST]
            cells += [reached(runs), f"{mean(each['cpu_seconds'] for each in runs):.0f}"]
            lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def picture(results: list[Result], target: Path) -> None:
    """Right where the mark lies, by step: the mean over seeds, and of some its interval, a panel for each q and cold start."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    groups = grouped(results)
    wide = min(len(groups), 3)
    size = (1.5 + 4.5 * wide, 0.3 + 3.9 * -(-len(groups) // wide))
    figure_, grid = plt.subplots(-(-len(groups) // wide), wide, figsize=size, sharey=True, squeeze=False)
    axes = list(grid.flat)
    names = list(dict.fromkeys(each["objective"] for each in results))
    styles = {name: {"color": f"C{i % 10}", "linestyle": "-" if i < 10 else "--"} for i, name in enumerate(names)}
    for axis, ((q, cold, total, _), by_objective) in zip(axes, groups.items(), strict=False):
        for name, runs in by_objective.items():
            steps = [step for step, _ in runs[0]["curve"]]
            found = [interval([run["curve"][place][1] for run in runs]) for place in range(len(steps))]
            middles = [middle for middle, _ in found]
            axis.plot(steps, middles, label=name, **styles[name])
            if name in BANDED and len(runs) > 2:  # the interval of two is wider than the picture
                low, high = ([middle + sign * half for middle, half in found] for sign in (-1, 1))
                axis.fill_between(steps, low, high, alpha=0.1, color=styles[name]["color"], linewidth=0)
        title = f"q {q:g}, cold start of {cold}, {total} steps"
        axis.set(title=title, xlabel="step", ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    for axis in axes[len(groups) :]:
        axis.set_axis_off()
    for axis in grid[:, 0]:
        axis.set_ylabel("right where the mark lies")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure_.legend(handles.values(), handles.keys(), loc="center right", fontsize=8)
    figure_.tight_layout(rect=(0, 0, 1 - 2.0 / size[0], 1))
    figure_.savefig(target, dpi=90)
    plt.close(figure_)
