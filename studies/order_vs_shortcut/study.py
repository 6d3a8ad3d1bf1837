"""
Which objective teaches the order of time where a shortcut is as good? `python studies/order_vs_shortcut/study.py`

Makes the runs that are not yet in results.jsonl, beside this file, by their importance, then the table and the picture.
See README.md beside it for the world, and world.py, study_runs.py and report.py for each part.

    python studies/order_vs_shortcut/study.py                                         # all; seven to forty seconds a run and core
    python studies/order_vs_shortcut/study.py --objectives grpo crpo_labels --q 1.0 --seeds 0 1
    python studies/order_vs_shortcut/study.py --table                                 # of the runs so far, and no more runs
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from report import picture, table
from study_runs import CLAIMS, OBJECTIVES, Run, Study


HERE = Path(__file__).parent
FIRST = ("grpo", "crpo_labels", "crpo_wrong_labels", "crpo_all", "tgrpo", "crpo_explores", "crpo_gap_explores")
ALL = (*OBJECTIVES, *CLAIMS)
STARTS = {110: (27, 1e-3), 70: (150, 5e-4)}  # steps of the cold start: steps of the training, and its learning rate
CLAIM_SEEDS = 5  # the first of --seeds
SMALL: dict[str, Any] = {"sizes": {"cold": 16, "train": 8, "lies": 12, "truth": 4}, "rows": 16, "check_every": 1}


def plan(args: argparse.Namespace) -> Iterator[Run]:
    """
    All runs that are asked for, the important ones first: for each ability and q the objectives of FIRST with all seeds, then
    the others; the claims once, for the first ability and q.
    """
    first = [name for name in args.objectives if name in FIRST]
    others = [name for name in args.objectives if name in OBJECTIVES and name not in FIRST]
    claims = [name for name in args.objectives if name in CLAIMS]
    for cold, steps, rate in zip(args.cold_steps, args.steps, args.learning_rate, strict=True):
        for q in args.q:
            for names, seeds in ((first, args.seeds), (others, args.seeds), (claims, args.seeds[:CLAIM_SEEDS])):
                for seed in seeds:
                    yield from (Run(name, q, seed, cold, steps, rate) for name in names)
            claims = []


def read(file: Path) -> list[dict[str, Any]]:
    """The runs in the file, by objective, each once: several processes may have made the same one."""
    lines = file.read_text().splitlines() if file.exists() else []
    runs = [{**Run._field_defaults, **json.loads(line)} for line in lines]
    once = {tuple(each[key] for key in Run._fields): each for each in runs}.values()
    order = {name: place for place, name in enumerate(ALL)}
    return sorted(once, key=lambda each: order.get(each["objective"], len(ALL)))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="+", default=ALL, choices=ALL)
    parser.add_argument(
        "--q", nargs="+", type=float, default=[1.0, 0.95, 0.8], help="shares of marks that tell the truth"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(8)))
    parser.add_argument("--cold_steps", nargs="+", type=int, default=list(STARTS), help="two abilities at the start")
    parser.add_argument("--steps", nargs="+", type=int, help="of the training, for each of --cold_steps")
    parser.add_argument(
        "--learning_rate",
        nargs="+",
        type=float,
        help="of the training, for each of --cold_steps; 5e-4 for 70, else 1e-3",
    )
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/order_vs_shortcut"), help="of videos and cold starts"
    )
    parser.add_argument("--picture", type=Path, help="where it goes; beside the results, unless it is given")
    parser.add_argument("--small", action="store_true", help="few videos and rollouts: seconds, to see that it works")
    parser.add_argument("--table", action="store_true", help="table and picture of the runs so far, and no more runs")
    args = parser.parse_args(argv)
    usual = [STARTS.get(cold, (0, 1e-3)) for cold in args.cold_steps]
    if args.steps is None and any(steps == 0 for steps, _ in usual):
        parser.error(f"--steps must be given for --cold_steps other than {', '.join(map(str, STARTS))}.")
    args.steps = args.steps or [steps for steps, _ in usual]
    args.learning_rate = args.learning_rate or [rate for _, rate in usual]
    for name in ("steps", "learning_rate"):
        if len(getattr(args, name)) != len(args.cold_steps):
            given = f"--{name} has {len(getattr(args, name))} numbers and --cold_steps {len(args.cold_steps)}"
            parser.error(f"{given}. Give one of each.")
    if not args.table:
        torch.set_num_threads(1)
        args.folder.mkdir(parents=True, exist_ok=True)
        study = Study(args.folder, **(SMALL if args.small else {}))
        for run in plan(args):
            if not any(all(each[key] == value for key, value in run._asdict().items()) for each in read(args.results)):
                line = json.dumps(study.train(run, tuple(args.cold_steps)))
                with args.results.open("a") as target:
                    target.write(line + "\n")
    results = read(args.results)
    sys.stdout.write(table(results) + "\n")
    picture(results, args.picture or args.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
