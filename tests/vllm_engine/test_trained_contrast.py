"""Contrast rollouts that are trained, sampled by vLLM: they are weighted as TRL weights the ordered ones."""

import pytest
import torch
from helpers import row
from runs import make

from videor1_trl.rollouts import Rollouts
from videor1_trl.sharing.contrast_rows import importance_ratio


pytestmark = pytest.mark.vllm
MODES = ("sequence_mask", "token_mask", "sequence_truncate", "token_truncate")


def test_contrast_rollouts_have_the_importance_ratio_that_trl_gives_the_ordered_ones(
    small_models, media, tmp_path, monkeypatch
):
    """The learner moves away from what the sampler keeps, so that ratios differ from 1, and some are beyond the bounds."""
    rows = [row(video=video) for video in media["videos"][:2]]
    settings = {
        "objective": "crpo",
        "objective_router": "none",
        "per_device_train_batch_size": 8,
        "num_contrast_generations": 4,
        "max_steps": 4,
    }
    settings |= {"vllm_max_logp_difference": 9.0, "vllm_importance_sampling_clip_min": 0.97, "learning_rate": 2e-3}
    settings |= {"vllm_importance_sampling_clip_max": 1.03}
    trainer = make(small_models(), media, tmp_path, rows, **settings)
    trainer.vllm_generation.sync_weights = lambda: None
    with torch.no_grad():
        trainer.model.get_input_embeddings().weight.mul_(1.05)
    seen = []
    join = Rollouts.join_contrast

    def joined(self, output, trainer):
        found = join(self, output, trainer)
        theirs, mask = output["importance_sampling_ratio"], output["completion_mask"]
        pairs = zip(output["old_per_token_logps"], output["sampling_per_token_logps"], mask, strict=True)
        mine = torch.stack([importance_ratio(trainer, *each) for each in pairs])
        seen.append((theirs, mine, [each for each in output["contrast"] if each is not None]))
        return found

    original = trainer._generate_and_score_completions

    def generate(inputs):
        trainer.vllm_importance_sampling_mode = MODES[trainer.state.global_step]
        return original(inputs)

    monkeypatch.setattr(Rollouts, "join_contrast", joined)
    trainer._generate_and_score_completions = generate
    trainer.train()
    assert len(seen) == 4
    for mode, (theirs, mine, contrast) in zip(MODES, seen, strict=True):
        assert torch.equal(theirs, mine) and (theirs != 1).any(), mode
        assert len(contrast) == 8
        for each in contrast:
            ratio, sampled = each.logps["importance_sampling_ratio"], each.logps["sampling_per_token_logps"]
            assert sampled.shape == each.ids.shape and (sampled < 0).all()
            assert ratio.shape == ((1,) if mode.startswith("sequence") else each.ids.shape)
            expected = (each.logps["old_per_token_logps"] - sampled).exp()  # by hand: no token is masked here
            expected = expected.prod(dim=0, keepdim=True) if mode.startswith("sequence") else expected
            if mode.endswith("mask"):
                expected[(expected < 0.97) | (expected > 1.03)] = 0
            torch.testing.assert_close(
                ratio, expected.clamp(0.97, 1.03) if mode.endswith("truncate") else expected, atol=1e-5, rtol=0
            )
    kept = torch.cat([each.logps["importance_sampling_ratio"] for each in seen[1][2]])
    assert 0 < (kept == 0).float().mean() < 1  # some tokens are left out, and not all
    assert all(entry["grad_norm"] > 0 for entry in trainer.state.log_history if "grad_norm" in entry)
