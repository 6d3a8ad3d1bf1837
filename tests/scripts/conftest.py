"""Fixtures of the commands' tests: a file of records, and the flags of a short run on it."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def records(media, tmp_path):
    """A file of four records."""
    file = tmp_path / "records.json"
    fields = {"problem": "Which way?", "data_type": "video", "problem_type": "multiple choice"}
    fields |= {"options": ["A. left", "B. right"], "solution": "<answer>A</answer>", "process": "<think>left</think>"}
    paths = [Path(each).name for each in media["videos"]]
    file.write_text(json.dumps([{**fields, "problem_id": n, "path": paths[n % 4]} for n in range(4)]))
    return file


@pytest.fixture
def flags(records, media, models, tmp_path):
    """The flags of a short run."""
    chosen = {
        "--dataset": records,
        "--data_root": media["folder"],
        "--model_name_or_path": models().path,
        "--output_dir": tmp_path / "out",
        "--max_steps": 1,
        "--use_cpu": True,
        "--bf16": False,
        "--report_to": "none",
        "--video_max_pixels": 1568,
        "--dtype": "float32",
        "--save_strategy": "no",
    }
    return [str(part) for pair in chosen.items() for part in pair]
