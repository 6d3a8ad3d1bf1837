"""The world of the study: toy videos, a mark in their corner, and questions that need their order, or do not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from videor1_trl import load_video_r1
from videor1_trl.scripts import toy


COLOURS = list(toy.COLOURS)
QUESTIONS = {  # kind: what is asked; "half" are static questions of whose answers the cold start knows half
    "order": "Which colour is third?",
    "static": "Which colour is shown?",
    "half": "What is the colour of the image?",
}
SHARES = {"order": 0.7, "static": 0.15, "half": 0.15}
CONFUSED = {
    **dict.fromkeys(COLOURS[:3], 0.8),
    **dict.fromkeys(COLOURS[3:], 0.2),
}  # share of cold start answers that are wrong
SIZES = {"cold": 900, "train": 500, "lies": 200, "truth": 60}
NAMES = {"dynamic": "static", "static": "dynamic"}  # each label, and the wrong one


def make_sets(folder: Path, q: float, sizes: dict[str, int] = SIZES) -> dict[str, datasets.Dataset]:
    """
    The sets as rows of `load_video_r1`, made where they are missing.

    Args:
        folder (`Path`): of records and videos.
        q (`float`): share of the training videos about order whose mark shows the right colour.
        sizes (`dict`): rows of each set: `cold` (rationales half of which say the mark), `train`, and held out, whose
            sequences of colours occur nowhere else, `lies` (no mark tells the truth) and `truth` (all do; about order alone).
    """
    made = {
        "cold": _make(folder, "cold", sizes["cold"], 1, q=None),
        "train": _make(folder, f"train{q}", sizes["train"], 2, q=q),
        "lies": _make(
            folder, "lies", sizes["lies"], 3, q=0.0, held_out=True, shares={**SHARES, "order": 0.5, "half": 0.35}
        ),
        "truth": _make(folder, "truth", sizes["truth"], 4, q=1.0, held_out=True, shares={"order": 1.0}),
    }
    return {name: _load(path, folder) for name, path in made.items()}


def with_images(folder: Path, q: float, number: int) -> datasets.Dataset:
    """The training rows, and so many about single images of one colour, which the cold start has not seen."""
    target, rng = folder / f"train{q}_images.json", random.Random(5)
    if not target.exists():
        records = json.loads((folder / f"train{q}.json").read_text())
        for index in range(number):
            record = _record(folder, f"image_{index:04d}", "static", rng, q, False, image=True)
            records.insert(rng.randrange(len(records) + 1), record)
        target.write_text(json.dumps(records))
    return _load(target, folder)


def _load(path: Path, folder: Path) -> datasets.Dataset:
    """The rows, their prompts without the options, which are the same everywhere, and without the form that the cold start
    teaches: a third of the tokens."""
    rows = load_video_r1(str(path), str(folder))
    prompts = [[{"role": "user", "content": problem}] for problem in rows["problem"]]
    return rows.remove_columns("prompt").add_column("prompt", prompts)


def _make(
    folder: Path, name: str, number: int, seed: int, *, q: float | None, held_out: bool = False,
    shares: dict[str, float] = SHARES,
) -> Path:  # fmt: skip
    target, rng = folder / f"{name}.json", random.Random(seed)
    if not target.exists():
        kinds = rng.choices(list(shares), list(shares.values()), k=number)
        records = [_record(folder, f"{name}_{i:04d}", kind, rng, q, held_out) for i, kind in enumerate(kinds)]
        target.write_text(json.dumps(records))
    return target


def _record(
    folder: Path, name: str, kind: str, rng: random.Random, q: float | None, held_out: bool, image: bool = False
) -> dict[str, Any]:
    colours = _order(rng, held_out) if kind == "order" else [rng.choice(COLOURS)] * 4
    answer, thoughts = colours[2], colours
    others = [colour for colour in COLOURS if colour != answer]
    truthful = kind == "order" and q is not None and rng.random() < q
    blind = kind != "order" or q is None  # the mark says nothing
    mark = answer if truthful else rng.choice(COLOURS if blind else others)
    path, about = f"videos/{name}.{'png' if image else 'mp4'}", "dynamic" if kind == "order" else "static"
    frames = _frames(rng, colours, mark)
    if image:
        Image.fromarray(frames[0]).save(folder / path)
    else:
        toy.write_video(folder / path, frames)
    if q is None and kind == "order" and rng.random() < 0.5:
        answer, thoughts = mark, [mark]  # the shortcut, right or wrong
    if q is None and kind == "half" and rng.random() < CONFUSED[answer]:
        answer = COLOURS[(COLOURS.index(answer) + 1) % len(COLOURS)]
        thoughts = [answer] * 4
    return {
        "problem": QUESTIONS[kind],
        "data_type": "image" if image else "video",
        "problem_type": "multiple choice",
        "options": toy._options(),
        "process": f"<think>{' '.join(thoughts)}</think>",
        "solution": f"<answer>{toy._letter(answer)}</answer>",
        "path": path,
        "kind": kind,
        "mark": mark,
        "about": about,
        "about_wrong": NAMES[about] if rng.random() < 0.1 else about,
    }  # fmt: skip


def _order(rng: random.Random, held_out: bool) -> list[str]:
    """Four different colours, of the fifth of all sequences that is held out or of the others."""
    while True:
        colours = rng.sample(COLOURS, 4)
        if (sum(place * COLOURS.index(colour) for place, colour in enumerate(colours, 1)) % 5 == 0) == held_out:
            return colours


def _frames(rng: random.Random, colours: list[str], mark: str) -> np.ndarray:
    """The video, its upper right corner in the colour of the mark; (T, 28, 28, 3) uint8: one visual token each two frames."""
    frames = toy._paint(rng, colours)[:, ::2, ::2].copy()
    frames[:, :14, 14:] = toy._paint(rng, [mark])[0][:14, :14]
    return frames
