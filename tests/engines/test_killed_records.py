"""Records of rollouts after a kill -9: nothing doubled, nothing torn."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from videor1_trl.watching.store import read_rollouts


def records(folder):
    return list(read_rollouts(folder))


@pytest.mark.engines
def test_a_run_that_was_killed_has_the_records_of_one_that_was_not(models, media, tmp_path):
    """Killed with -9 at step 4, the checkpoint is of step 2: of step 3 nothing is doubled, of step 4 nothing torn."""

    def run(folder, kill_at):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
        script = str(Path(__file__).parent / "killed_records.py")
        command = [sys.executable, script, models().path, str(folder), str(kill_at), *media["videos"][:2]]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)

    folder = tmp_path / "killed"
    assert run(folder, 3).returncode == -9
    assert (folder / "rollouts.jsonl").read_text().endswith('"mode": "tr')
    assert {line["step"] for line in records(folder)} == {1, 2, 3}
    done = run(folder, -1)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "records of rollouts behind step 2 are dropped" in done.stderr
    whole = run(tmp_path / "whole", -1)
    assert whole.returncode == 0, whole.stderr[-2000:]
    assert records(folder) == records(tmp_path / "whole")
    assert Counter(line["mode"] for line in records(folder)) == {"train": 36, "eval": 12}
