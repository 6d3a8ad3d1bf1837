"""Dynamic sampling and advantages by task: two ranks do what one process does, and a resumed run goes on the same."""

import json

import pytest
import torch
from test_engines import launch, media_file  # noqa: F401


pytestmark = pytest.mark.engines
# Of the contrast rollouts, which are trained, each task has means of its own
TASKS = {"multiple choice", "regression", "multiple choice (contrast)", "regression (contrast)"}


def of_ranks(folder, kind, ranks):
    return [json.loads((folder / f"{kind}.{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(scope="module")
def ran(models, media_file, tmp_path_factory):  # noqa: F811
    """Folders of the runs of one process and of two ranks."""
    out = {}
    for ranks, name, kinds in (
        (1, "1", ["whole", "spanning"]),
        (2, "2", ["whole", "spanning", "own"]),
        (2, "2", ["resumed"]),
    ):
        out.setdefault(name, tmp_path_factory.mktemp(name))
        done = launch("sampling.py", ranks, models().path, media_file, out[name], *kinds)
        assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("kind", ["whole", "spanning"])
def test_two_ranks_replace_the_groups_that_one_process_replaces(kind, ran):
    """
    Rewards of two spreads, contrast rollouts that are trained, two rounds: prompts, completions, advantages and contrast frames of each row,
    what the loss divides by, running means, gradients and weights.
    """
    (one,), two = of_ranks(ran["1"], kind, 1), of_ranks(ran["2"], kind, 2)
    replaced = [group for groups in one["replaced"] for group in groups]
    assert len(replaced) >= 3 and len(set(replaced)) > 1
    for rank in two:
        assert rank["replaced"] == one["replaced"]
        assert rank["moments"].keys() == one["moments"].keys() == TASKS
        for task, moments in one["moments"].items():
            assert rank["moments"][task] == pytest.approx(moments, abs=1e-7)
        for found, expected in zip(rank["log"], one["log"], strict=True):
            assert found == pytest.approx(expected, abs=1e-5)
    for step, expected in enumerate(one["batches"]):
        parts = [rank["batches"][step] for rank in two]
        for name in ("prompts", "completions", "contrast"):
            assert [each for part in parts for each in part[name]] == expected[name], (step, name)
        for name in ("advantages", "contrast_advantages", "pixels"):
            found = [each for part in parts for each in part[name]]
            assert found == pytest.approx(expected[name], abs=1e-4), (step, name)
        assert all(part["of_all"] == pytest.approx(expected["of_all"], abs=1e-6) for part in parts)
    expected, found = (torch.load(ran[name] / f"{kind}.pt") for name in "12")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=name)


def test_a_resumed_run_of_two_ranks_goes_on_the_same(ran):
    """With the model's own rollouts: draws, replaced groups, running means and weights, bit for bit."""
    for expected, found in zip(of_ranks(ran["2"], "own", 2), of_ranks(ran["2"], "resumed", 2), strict=True):
        assert len(expected["replaced"]) > len(found["replaced"]) > 0
        assert found["replaced"] == expected["replaced"][-len(found["replaced"]) :]
        assert found["batches"] == expected["batches"][-len(found["batches"]) :]
        assert found["moments"] == expected["moments"] and found["log"] == expected["log"]
    expected, found = (torch.load(ran["2"] / f"{kind}.pt") for kind in ("own", "resumed"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
