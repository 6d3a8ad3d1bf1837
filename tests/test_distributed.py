"""Two gloo processes give the numbers of one: a group is a prompt, never a rank."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from videor1_trl.watching.store import read_rollouts


TESTS = Path(__file__).parent


def launch(processes, *arguments, script="distributed_run.py", timeout=240):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS), "ACCELERATE_USE_CPU": "true"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes),
        str(TESTS / script), *map(str, arguments),
    ]  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


def comparable(line):
    """A record without what differs between ranks: who wrote it, and in which folder its frames lie."""
    frames = [Path(name).name for name in line["frames"]]
    rewards = {name: value and round(value, 4) for name, value in line["rewards"].items()}
    figures = {name: line[name] and round(line[name], 4) for name in ("reward", "bonus")}
    return {**line, "rank": 0, "frames": frames, "rewards": rewards, **figures}


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["bonus", "trained"])
def test_two_processes_give_the_rewards_advantages_and_gradients_of_one(
    models, media, tmp_path, monkeypatch, objective
):
    """
    Three prompts of four rows: on two ranks of six rows the second group spans both. `trained`: with contrast rollouts in the
    loss, three on the first rank and one on the second.
    """
    monkeypatch.setenv("OBJECTIVE", objective)
    results = {}
    for processes, per_device in ((1, 12), (2, 6)):
        out = tmp_path / f"result{processes}"
        done = launch(processes, models().path, tmp_path / f"run{processes}", out, per_device, *media["videos"][:2])
        assert done.returncode == 0, done.stderr[-3000:]
        results[processes] = [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(processes)]
    (one,), two = results[1], results[2]
    for rank in two:
        for name, values in one["rewards"].items():
            assert rank["rewards"][name] == pytest.approx(values, abs=1e-6), name
        assert rank["advantages"] == pytest.approx(one["advantages"], abs=1e-5)
        assert rank["embeddings"] == pytest.approx(one["embeddings"], abs=1e-5)
    assert any(value for value in one["rewards"]["spread"] if value)
    assert two[0]["metrics"] == pytest.approx(one["metrics"], rel=1e-4, abs=1e-6)
    assert ("temporal/contrast_reward" in one["metrics"]) == (objective == "trained")
    # each group's temporal reward was computed once, on one rank, from the whole group
    assert sorted(two[0]["seen"] + two[1]["seen"]) == sorted(one["seen"])
    assert [len(rank["seen"]) for rank in two] == [2, 0]
    # the permutation of a prompt is the same on every rank
    assert two[0]["pixel_sums"] + two[1]["pixel_sums"] == pytest.approx(one["pixel_sums"], abs=1e-4)
    assert len(two[1]["pixel_sums"]) > 0, "the second rank owns contrast rows of the spanning group"
    # each rank has recorded the rollouts that it owns, and all of them together are those of one process
    recorded = {processes: list(read_rollouts(tmp_path / f"run{processes}")) for processes in (1, 2)}
    assert [line["rank"] for line in recorded[2]] == sorted(line["rank"] for line in recorded[2])
    assert {line["rank"] for line in recorded[2] if line["group"] == 1} == {0, 1}
    as_one = [comparable(line) for line in recorded[1]]
    assert len(as_one) == 12 + 4
    for line, other in zip(as_one, [comparable(line) for line in recorded[2]], strict=True):
        assert {**line, "advantage": 0} == {**other, "advantage": 0}
        assert line["advantage"] == pytest.approx(other["advantage"], abs=1e-5)


@pytest.mark.slow
def test_a_bad_video_on_one_rank_ends_all_ranks_with_its_name(models, media, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    done = launch(2, models().path, tmp_path / "run", tmp_path / "result", 6, bad, media["videos"][1])
    assert done.returncode != 0
    assert str(bad) in done.stderr and "problem_id 0" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("padding_free", [False, True])
def test_ranks_with_unequal_labels_make_the_supervised_step_of_one_process(models, media, tmp_path, padding_free):
    """Rows of 17 to 90 labels: a mean of the ranks' means would weigh the short ones more."""
    found = []
    for processes, per_device, accumulation in ((1, 4, 1), (2, 1, 2)):
        out = tmp_path / f"weights{processes}.pt"
        done = launch(
            processes, models().path, tmp_path / f"run{processes}", out, per_device, accumulation, padding_free,
            *media["videos"], script="distributed_sft.py",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(out))
    one, two = found
    assert two.pop("loss") == pytest.approx(one.pop("loss"), abs=1e-4)
    start = AutoModelForImageTextToText.from_pretrained(models().path).state_dict()
    largest = max((one[name] - start[name]).abs().max().item() for name in one)
    assert largest > 0.1
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5 * largest, msg=name)
