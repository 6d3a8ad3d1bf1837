"""DDP, ZeRO-1 to 3 and FSDP2 on several ranks give the weights of one process, and every rank calls the same modules."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cpu import ENGINES
from transformers import AutoModelForImageTextToText


pytestmark = pytest.mark.engines
FOLDER = Path(__file__).parent
ALL = [
    "mixed", "reference", "videos", "several", "skipped", "row by row", "checkpointing", "accumulation", "spanning", "greedy", "lora",
    "trained contrast", "log-probabilities", "sft", "sft padding-free", "sft skipped", "sft last",
]  # fmt: skip
# Where a rank repeats rows to fill the last batch (accelerate's even_batches), or the tower is frozen and ranks need not
# call it alike: engines that only reduce gradients know no tower then
NOT_AS_ONE_PROCESS = {"sft last"}
CALLS_MAY_DIFFER = {("ddp", "lora"), ("zero1", "lora"), ("zero2", "lora")}
CALLS_MAY_DIFFER |= {
    ("ddp", "log-probabilities"),
    ("zero2", "log-probabilities"),
}  # read without gradients: no tower on a rank of text


def launch(script, ranks, *arguments, timeout=420):
    """A script on so many gloo ranks, under a watchdog."""
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    if ranks > 1:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        command = [sys.executable, *start, *command[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="session")
def media_file(media, tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "media.json"
    path.write_text(json.dumps({"videos": [str(each) for each in media["videos"]], "image": media["image"]}))
    return path


@pytest.fixture(scope="session")
def one_process(models, media_file, tmp_path_factory):
    """The folder of all scenarios in one process."""
    out = tmp_path_factory.mktemp("one")
    done = launch("run.py", 1, "none", models().path, media_file, out, *ALL)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def check(engine, out, one_process, start, names, ranks):
    for name in names:
        calls = [json.loads((out / f"{name}.{rank}.json").read_text()) for rank in range(ranks)]
        if (engine, name) not in CALLS_MAY_DIFFER:
            assert all(each == calls[0] for each in calls), f"{engine}, {name}: ranks called other modules"
        assert calls[0], name
        if name in NOT_AS_ONE_PROCESS:
            continue
        expected, found = (torch.load(folder / f"{name}.pt") for folder in (one_process, out))
        moved = [(expected[key] - start[key]).abs().max().item() for key in expected if key in start]
        assert name == "lora" or max(moved) > 1e-6, f"{name} taught nothing"
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6, msg=f"{engine}, {name}, {key}")


@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_give_the_weights_of_one_process(engine, models, media_file, one_process, tmp_path):
    """
    Mixed media, a rank of text only, a skipped video alone on its rank, several media, a group on two ranks, LoRA, checkpointing,
    accumulation, real generation, rows that end early, supervised rows padded and not: 1e-6 after two steps of SGD.
    """
    if engine.startswith("zero"):
        pytest.importorskip("deepspeed")
    names = ALL if engine != "zero1" else ["mixed", "skipped", "lora", "sft"]  # zero2 does what zero1 does, and more
    done = launch("run.py", 2, engine, models().path, media_file, tmp_path, *names)
    assert done.returncode == 0, done.stderr[-3000:]
    start = AutoModelForImageTextToText.from_pretrained(models().path).state_dict()
    check(engine, tmp_path, one_process, start, names, ranks=2)
    for name in ("mixed", "sft"):
        saved = AutoModelForImageTextToText.from_pretrained(tmp_path / name / "saved").state_dict()
        trained = torch.load(tmp_path / f"{name}.pt")
        assert all(torch.equal(saved[key], value) for key, value in trained.items() if key in saved), (
            f"{engine}: {name}"
        )
    assert (tmp_path / "lora" / "saved" / "adapter_model.safetensors").stat().st_size > 1000


@pytest.mark.parametrize("ranks, names", [(3, ["spanning"]), (4, ["mixed", "skipped", "spanning", "sft"])])
def test_three_and_four_ranks_give_the_weights_of_one_process(ranks, names, models, media_file, one_process, tmp_path):
    done = launch("run.py", ranks, "ddp", models().path, media_file, tmp_path, *names)
    assert done.returncode == 0, done.stderr[-3000:]
    start = AutoModelForImageTextToText.from_pretrained(models().path).state_dict()
    check("ddp", tmp_path, one_process, start, names, ranks)


@pytest.mark.parametrize(
    "engine, ranks, kind, kill",
    [
        ("none", 1, "tgrpo", "evaluation:3"),
        ("none", 1, "sft", "loss:4"),
        ("ddp", 2, "tgrpo", "save:4"),
        ("zero2", 2, "lora", "rollouts:4"),
        ("zero3", 2, "tgrpo", "save:4"),
        ("fsdp2", 2, "tgrpo", "save:4"),
        ("fsdp2", 2, "sft", "loss:4"),
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(engine, ranks, kind, kill, models, media_file, tmp_path):
    """kill -9 in the second epoch, in rollouts, a loss, an evaluation or a save: weights, losses and data of an uninterrupted run."""
    if engine.startswith("zero"):
        pytest.importorskip("deepspeed")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = ranks, engine, models().path, media_file
    done = launch("resume.py", *arguments, whole, kind, "no")
    assert done.returncode == 0, done.stderr[-3000:]
    assert launch("resume.py", *arguments, killed, kind, kill).returncode != 0
    assert not (killed / "weights.pt").exists() and (killed / "checkpoint-2").is_dir()
    done = launch("resume.py", *arguments, killed, kind, "no")
    assert done.returncode == 0, done.stderr[-3000:]
    if kill.startswith("save"):
        assert "checkpoint-4: it has no manifest.json" in done.stderr + done.stdout
    expected, found = (torch.load(folder / "weights.pt") for folder in (whole, killed))
    assert expected.keys() == found.keys() and all(torch.equal(expected[key], found[key]) for key in expected)
    expected, found = (json.loads((folder / "log.json").read_text()) for folder in (whole, killed))
    assert found["log"] == expected["log"]
    assert len(found["seen"]) < len(expected["seen"]) or kind == "sft"
    assert found["seen"] == expected["seen"][len(expected["seen"]) - len(found["seen"]) :]
