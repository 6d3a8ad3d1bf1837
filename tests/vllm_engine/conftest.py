"""Fixtures of the tests on real vLLM, which are skipped where it is not installed (`make test-vllm` installs it)."""

import importlib.util

import pytest
import small
import torch

from videor1_trl.sharing import vllm_rollouts


collect_ignore_glob = [
    "on_cpu.py",
    "serve_on_cpu.py",
    "two_ranks.py",
    "startup/*",
]  # read by the process before the tests are


def pytest_collection_modifyitems(items):
    for item in items:
        if "vllm" in item.keywords and importlib.util.find_spec("vllm") is None:
            item.add_marker(pytest.mark.skip(reason="needs vLLM: make test-vllm"))


@pytest.fixture(scope="session")
def small_models(tmp_path_factory):
    """`small_models(family)`: a [`tiny.Tiny`] that vLLM takes, built once."""
    built = {}

    def get(family="qwen2_5_vl"):
        if family not in built:
            built[family] = small.build(family, tmp_path_factory.mktemp(family))
        return built[family]

    return get


@pytest.fixture
def compared(monkeypatch):
    """Of each generation how far sampler and learner are apart, checked at every step: `[(ordered, contrast), ...]`."""
    found = []
    learners = vllm_rollouts._learners
    original = vllm_rollouts.check_sampler

    def check(trainer, rows, completion_ids, logps):
        completion_ids, logps = completion_ids[: len(rows)], logps[: len(rows)]
        mine = learners(trainer, rows, completion_ids)
        apart = [(torch.tensor(theirs) - ours).abs() for theirs, ours in zip(logps, mine, strict=True)]
        assert all(each.isfinite().all() for each in apart)
        own = len(trainer._batch.encoded)
        found.append(tuple(torch.cat(part).mean().item() if part else 0.0 for part in (apart[:own], apart[own:])))
        original(trainer, rows, completion_ids, logps)

    monkeypatch.setattr("videor1_trl.trainer.check_sampler", check)
    return found
