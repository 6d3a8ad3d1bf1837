"""Two ranks on a CPU: an engine each, and one that is cut over both (tensor parallelism)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small
import tiny
from PIL import Image


pytestmark = pytest.mark.vllm


def run_two_ranks(model, folder, *arguments):
    """What two ranks say that train this model for three steps; `arguments` of the script behind its folder."""
    for index in range(2):
        tiny.write_mp4(folder / f"{index}.mp4", tiny.colour_frames(index))
    Image.fromarray(tiny.colour_frames(9)[0]).save(folder / "image.png")
    script = Path(__file__).with_name("two_ranks.py")
    paths = [str(script.parent), str(script.parent.parent), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        [*command, str(model), str(folder), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("cut_over", [1, 2])
def test_vllm_and_the_learner_agree_on_two_ranks(cut_over, tmp_path):
    small.build("qwen2_5_vl", tmp_path / "model")
    one, other = run_two_ranks(tmp_path / "model", tmp_path, cut_over)
    assert len(one["logged"]) == 3 and one["first"] != other["first"]
    for entry in one["logged"]:
        assert entry["sampling/sampling_logp_difference/mean"] < 5e-5
    assert one["logged"][0]["vllm/contrast_logp_difference"] < 5e-5 > one["logged"][1]["vllm/contrast_logp_difference"]
