"""Two nodes train as one process, and a rank that stands still ends the run with its name."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch


pytestmark = pytest.mark.engines
FOLDER = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def files(models, media, tmp_path_factory):
    """Model and media as the scripts here take them."""
    path = tmp_path_factory.mktemp("nodes") / "media.json"
    path.write_text(json.dumps({"videos": [str(each) for each in media["videos"]], "image": media["image"]}))
    return models().path, str(path)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def finish(processes, timeout):
    """What processes say, once all have ended; a process that waits for ever fails."""
    ends = time.monotonic() + timeout
    try:
        said = [process.communicate(timeout=max(1, ends - time.monotonic()))[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def test_two_nodes_give_the_weights_of_one_process(files, tmp_path):
    """Each with a launcher of its own, as on a cluster; the second node has text only, and then a part of the first one's group."""
    scenarios = ["mixed", "spanning"]
    model, media = files
    one, two = tmp_path / "one", tmp_path / "two"
    alone = [sys.executable, FOLDER / "run.py", "none", model, media, one, *scenarios]
    done = subprocess.run(alone, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    port = free_port()
    nodes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(node), "--nproc_per_node", "1",
                "--master_addr", "127.0.0.1", "--master_port", str(port), FOLDER / "run.py", "ddp", model, media, two, *scenarios,
            ],
            env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        )
        for node in range(2)
    ]  # fmt: skip
    codes, said = finish(nodes, timeout=300)
    assert codes == [0, 0], said[0][-3000:] + said[1][-3000:]
    for name in scenarios:
        expected, found = (torch.load(folder / f"{name}.pt") for folder in (one, two))
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6, msg=f"{name}, {key}")
        assert (two / f"{name}.1.json").exists(), "the second node had no rank"


def launch(files, out, place, seconds=12):
    """The exit code and the errors of two ranks of which the last stands still there."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*start, FOLDER / "hang.py", *files, out, str(seconds), place]
    return finish([subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)], timeout=150)


@pytest.mark.parametrize(
    "place, phase",
    [
        ("rollouts", "rollouts"),
        ("rewards", "rewards"),
        ("loss", "loss"),
        ("step", "the rest of the step"),
    ],
)
def test_a_rank_that_stands_still_ends_the_run_with_its_name_and_phase(files, tmp_path, place, phase):
    [code], [said] = launch(files, tmp_path, place)
    assert code == 1
    [line] = re.findall(
        r"^rank 1 has been in (.*) for (\d+) s: stand_still, .*hang\.py, line \d+\.$", said, re.MULTILINE
    )
    assert (
        line[0] == phase and 10 <= int(line[1]) < 40
    )  # 0.9 of 12 seconds, and what it takes to say so on a busy machine
    assert re.search(r"^rank 0 has been in .* It waits for other ranks\.$", said, re.MULTILINE), said[-3000:]
    assert "rank 1 stands in:" in said and "rank 0 stands in:" not in said


def test_a_rank_that_lets_no_thread_run_is_named_by_the_others(files, tmp_path):
    [code], [said] = launch(files, tmp_path, "silent")
    assert code == 1
    assert re.search(r"^rank 1 is silent .*; it was in rewards: its beginning\.$", said, re.MULTILINE), said[-3000:]


def test_ranks_that_go_on_are_left_alone(files, tmp_path):
    [code], [said] = launch(files, tmp_path, "no", seconds=60)
    assert code == 0, said[-3000:]
    assert "no progress" not in said
