"""What can be said of rollouts by vLLM without vLLM; the rest is in `tests/vllm_engine`."""

import math
import pickle
from types import SimpleNamespace

import pytest
import torch
from transformers import CONFIG_MAPPING, InternVLConfig, SmolVLMConfig

from videor1_trl.models.encoding import EncodedPrompt
from videor1_trl.sharing.contrast_rows import importance_ratio
from videor1_trl.sharing.vllm import FAMILIES, REFUSED, check_family
from videor1_trl.sharing.vllm_server import Fault
from videor1_trl.sharing.vllm_settings import Prompt
from videor1_trl.sharing.vllm_worker import temper


@pytest.mark.parametrize("family", [*REFUSED, "another"])
def test_other_families_are_refused_with_the_reason(family):
    assert family in CONFIG_MAPPING or family in ("another", "qwen2_5_omni_thinker")
    reason = REFUSED.get(family, "which was not tried")
    with pytest.raises(NotImplementedError, match=f"is of the type {family}: {reason}"):
        check_family(SimpleNamespace(model_type=family))


@pytest.mark.parametrize("family", FAMILIES)
def test_tested_families_are_taken(family):
    check_family(CONFIG_MAPPING[family]())


def test_settings_that_vllm_does_not_read_are_refused():
    with pytest.raises(NotImplementedError, match="one with vision_feature_layer=-1, and this one has -2"):
        check_family(InternVLConfig(vision_feature_layer=-2))
    tied = SmolVLMConfig(tie_word_embeddings=True, text_config={"model_type": "llama", "tie_word_embeddings": False})
    with pytest.raises(NotImplementedError, match=r"vLLM reads of text_config, .* Set it there too"):
        check_family(tied)
    tied.text_config.tie_word_embeddings = True
    check_family(tied)


def test_rows_of_a_group_stay_one_prompt_on_their_way_to_another_rank():
    encoded = EncodedPrompt([5, 6], features={"pixel_values": torch.ones(2)})
    one, other, filled = pickle.loads(pickle.dumps([Prompt(encoded), Prompt(encoded), Prompt(None)]))
    assert one == [5, 6] and one.encoded is other.encoded and filled == [] and filled.encoded is None


def test_what_goes_wrong_at_the_server_is_told_to_the_rank_that_takes_its_rows():
    told = pickle.loads(pickle.dumps(Fault("the server is gone")))
    with pytest.raises(RuntimeError, match="the server is gone"):
        told[2:4]


class Halves(torch.nn.Module):
    def compute_logits(self, hidden):
        return None if hidden is None else hidden / 2


def test_logits_are_divided_by_the_last_temperature_alone():
    model = Halves()
    for temperature, expected in ((0.5, 4.0), (0.25, 8.0), (1.0, 2.0)):  # of 4 / 2
        temper(model, temperature)
        assert model.compute_logits(torch.tensor([4.0])).item() == expected
    temper(model, 0.5)
    assert model.compute_logits(None) is None


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("token_truncate", [math.exp(0.1), 1.2, 0.8, 1.0]),
        ("token_mask", [math.exp(0.1), 0.0, 0.0, 1.0]),
        ("sequence_truncate", [math.exp(0.1)]),  # 0.1 + 0.5 - 0.5
        ("sequence_mask", [math.exp(0.1)]),
    ],
)
def test_importance_ratios_by_hand(mode, expected):
    """Differences 0.1, 0.5, -0.5; the last token is masked, and one without a number counts as 1."""
    settings = SimpleNamespace(
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=0.8,
        vllm_importance_sampling_clip_max=1.2,
    )
    learner, mask = torch.tensor([-1.0, -1.0, -1.0, -1.0]), torch.tensor([1, 1, 1, 0])
    sampler = torch.tensor([-1.1, -1.5, -0.5, -9.0])
    found = importance_ratio(settings, learner, sampler, mask)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)
    assert importance_ratio(settings, learner, torch.full((4,), torch.nan), mask).eq(1).all()
