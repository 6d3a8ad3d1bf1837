"""Two gloo processes give the numbers of one: a group is a prompt, never a rank."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


TESTS = Path(__file__).parent


def launch(processes, *arguments, timeout=240):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS), "ACCELERATE_USE_CPU": "true"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes),
        str(TESTS / "distributed_run.py"), *map(str, arguments),
    ]  # fmt: skip
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.mark.slow
def test_two_processes_give_the_rewards_advantages_and_gradients_of_one(models, media, tmp_path):
    """Three prompts of four rows: on two ranks of six rows the second group spans both."""
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
    assert any(value for value in one["rewards"]["spread"] if value)
    assert two[0]["metrics"] == pytest.approx(one["metrics"], rel=1e-4, abs=1e-6)
    # each group's temporal reward was computed once, on one rank, from the whole group
    assert sorted(two[0]["seen"] + two[1]["seen"]) == sorted(one["seen"])
    assert [len(rank["seen"]) for rank in two] == [2, 0]
    # the permutation of a prompt is the same on every rank
    assert two[0]["pixel_sums"] + two[1]["pixel_sums"] == pytest.approx(one["pixel_sums"], abs=1e-4)
    assert len(two[1]["pixel_sums"]) > 0, "the second rank owns contrast rows of the spanning group"


@pytest.mark.slow
def test_a_bad_video_on_one_rank_ends_all_ranks_with_its_name(models, media, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    done = launch(2, models().path, tmp_path / "run", tmp_path / "result", 6, bad, media["videos"][1])
    assert done.returncode != 0
    assert str(bad) in done.stderr and "problem_id 0" in done.stderr
