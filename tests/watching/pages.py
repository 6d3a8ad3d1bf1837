"""Folders of runs and pages for the tests: rollouts with chosen texts and figures, without a model."""

import io
import json

from PIL import Image

from videor1_trl.watching.groups import read_groups
from videor1_trl.watching.page import Page
from videor1_trl.watching.records import FIELDS
from videor1_trl.watching.store import RolloutFile, frame_name


EMPTY = {
    "mode": "train", "generation": 0, "contrast": "", "rank": 0, "problem_id": "", "problem_type": "multiple choice",
    "data_source": "", "prompt": "[video] Which is first?", "gold": "A", "completion": "", "answer": "A", "answered": True,
    "num_tokens": 5, "cut_off": False, "accuracy": 1.0, "rewards": {}, "reward": 1.0, "bonus": 0.0, "advantage": 0.5,
    "group_accuracy": 1.0, "group_contrast_accuracy": 0.0, "group_taught": True, "frames": [], "frame_seconds": [],
    "error": "", "kind": "ordered", "group": 0, "place": 0, "step": 1,
}  # fmt: skip


def record(**fields):
    assert set(fields) <= set(FIELDS)
    if fields.get("kind") == "contrast":
        fields = {"contrast": "shuffle_frames", "reward": None, "bonus": None, "advantage": None, **fields}
    return {name: {**EMPTY, **fields}[name] for name in FIELDS}


def pictures(number, seed=0, size=(32, 18)):
    """JPEGs of one colour each."""
    found = []
    for index in range(number):
        out = io.BytesIO()
        Image.new("RGB", size, ((seed * 53 + index * 29) % 256, (seed * 97) % 256, (index * 67) % 256)).save(
            out, "JPEG"
        )
        found.append(out.getvalue())
    return found


def write_run(folder, records, frames=()):
    """`rollouts.jsonl` of these records, and the pictures that they may name."""
    folder.mkdir(parents=True, exist_ok=True)
    RolloutFile(folder, 0, 10**9).append(records, {frame_name(each, 0): each for each in frames})
    return folder


def write_log(folder, entries):
    (folder / "trainer_state.json").write_text(
        json.dumps({"global_step": entries[-1]["step"], "log_history": entries})
    )


def write_page(folder, path=None, **options):
    path = path or folder / "view.html"
    Page(folder.name, read_groups(folder), **options).write(path)
    return path
