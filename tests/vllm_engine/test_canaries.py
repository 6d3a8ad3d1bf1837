"""What this package takes hold of in TRL and vLLM: a new minor that has it otherwise fails here with a message."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import trl
from datasets import Dataset
from helpers import config, parity, row
from trl import GRPOTrainer
from trl.generation import vllm_client, vllm_generation

from videor1_trl import TGRPOTrainer


THEIRS = (  # of TRL's engine; what is not in here, and not added by `engine_arguments`, is vLLM's default
    "model tensor_parallel_size gpu_memory_utilization max_model_len max_num_seqs enable_sleep_mode model_impl "
    "distributed_executor_backend seed max_num_batched_tokens logprobs_mode quantization trust_remote_code"
)


def test_trl_makes_its_engine_of_a_name_in_its_module_with_the_arguments_known_here():
    source = inspect.getsource(vllm_generation.VLLMGeneration._init_vllm)
    [call] = re.findall(r"self\.llm = LLM\(\n(.*?)\n {12}\)\n", source, re.DOTALL)
    found = re.findall(r"^ {16}(\w+)=", call, re.MULTILINE)
    assert " ".join(found) == THEIRS, (
        f"TRL {trl.__version__} makes its engine otherwise: reread sharing/vllm_rollouts.py."
    )


@pytest.mark.parametrize(
    "method, calls",
    [
        (
            "generate",
            ['{"prompt_token_ids": ids} for ids in all_prompts', "self.llm.generate(vllm_prompts, sampling_params="],
        ),
        ("sync_weights", ["driver_worker.model_runner.model.load_weights", "self.llm.reset_prefix_cache()"]),
    ],
)
def test_trl_hands_its_engine_the_prompts_that_it_got_and_resets_it_behind_new_weights(method, calls):
    source = inspect.getsource(getattr(vllm_generation.VLLMGeneration, method))
    for call in calls:
        assert call in source, (
            f"TRL {trl.__version__} has another VLLMGeneration.{method}: reread sharing/vllm_rollouts.py."
        )


def test_trl_makes_its_client_of_a_name_in_its_module_and_hands_it_all_rows_of_all_ranks():
    source = inspect.getsource(vllm_generation.VLLMGeneration)
    for call in (
        "self.vllm_client = VLLMClient(\n",
        "self.vllm_client.init_communicator(device=accelerator.device)",
        "self.vllm_client.update_named_params(self._weight_metadata, self._iter_named_params())",
        "self.vllm_client.reset_prefix_cache()",
        "all_prompts = gather_object(prompts)",
        "ordered_set_of_prompt_ids = all_prompts[::num_generations]",
        "output = self.vllm_client.generate(\n",
        "prompts=ordered_set_of_prompt_ids, features=features, **sampling_params",
        'output["completion_ids"],\n                        output["logprobs"],',
        "broadcast_object_list(obj_list, from_process=0)",
        "completion_ids = all_completion_ids[process_slice]",
    ):
        assert call in source, (
            f"TRL {trl.__version__} has another VLLMGeneration: reread sharing/vllm_server.py and `as_prompts`."
        )


def test_trls_client_asks_by_the_methods_that_are_overridden():
    changed = f"TRL {trl.__version__} has it otherwise: reread sharing/vllm_server.py."
    signatures = {
        "check_server": "self total_timeout retry_interval",
        "get_server_info": "self",
        "reset_prefix_cache": "self",
        "_get": "self url kwargs",
        "_post": "self url kwargs",
    }
    for name, expected in signatures.items():
        found = " ".join(inspect.signature(getattr(vllm_client.VLLMClient, name)).parameters)
        assert found == expected, f"{name}: {changed}"
    made = inspect.getsource(vllm_client.VLLMClient.__init__)
    assert made.index("self.session = ") < made.index("self.check_server(") < made.index("/v1/models"), changed
    update = inspect.getsource(vllm_client.VLLMClient.update_named_params)
    assert 'self._post, f"{self.base_url}/update_weights"' in update, changed
    logprobs = {"content": [{"token": "token_id:7", "logprob": -0.5, "top_logprobs": []}]}
    assert vllm_client.parse_logprobs([logprobs]) == ([[[-0.5]]], [[[7]]]), changed


def test_trl_takes_one_log_probability_a_token():
    source = inspect.getsource(GRPOTrainer._generate_single_turn)
    assert "logprobs = [[lp[0] for lp in seq] for seq in logprobs]" in source, trl.__version__


@pytest.mark.vllm
def test_vllm_takes_inputs_made_here():
    import vllm
    from vllm.inputs.engine import MultiModalInput, mm_input
    from vllm.multimodal.inputs import MultiModalKwargsItems, PlaceholderRange
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.sample.sampler import Sampler

    changed = f"vLLM {vllm.__version__} has it otherwise: reread sharing/vllm.py and sharing/vllm_rollouts.py."
    assert " ".join(list(inspect.signature(mm_input).parameters)[:4]) == (
        "prompt_token_ids mm_kwargs mm_hashes mm_placeholders"
    ), changed
    assert {"type", "prompt_token_ids", "mm_kwargs", "mm_hashes", "mm_placeholders"} <= set(
        MultiModalInput.__annotations__
    ), changed
    assert list(inspect.signature(MultiModalKwargsItems.from_hf_inputs).parameters) == [
        "hf_inputs",
        "config_by_key",
    ], changed
    assert list(inspect.signature(PlaceholderRange).parameters) == ["offset", "length", "is_embed"], changed
    assert list(inspect.signature(LLMEngine.add_request).parameters)[1:4] == ["request_id", "prompt", "params"], (
        changed
    )
    assert "raw_logprobs = self.compute_logprobs(logits)" in inspect.getsource(Sampler.forward), changed
    for method in ("reset_encoder_cache", "reset_mm_cache", "reset_prefix_cache"):
        assert hasattr(LLMEngine, method), changed


@pytest.mark.vllm
def test_vllms_server_takes_features_and_has_what_is_posted():
    import vllm
    from vllm.config import ModelConfig, ParallelConfig
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.scale_out.token_in_token_out import api_router as generate
    from vllm.entrypoints.scale_out.token_in_token_out.mm_features import extract_mm_features
    from vllm.entrypoints.scale_out.token_in_token_out.protocol import MultiModalFeatures, PlaceholderRangeInfo
    from vllm.entrypoints.serve.dev.cache import api_router as cache
    from vllm.entrypoints.serve.dev.rpc import api_router as rpc
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.v1.engine import parallel_sampling

    changed = f"vLLM {vllm.__version__} has it otherwise: reread sharing/vllm_server.py and vllm_worker.py."
    paths = {route.path for each in (generate, cache, rpc) for route in each.router.routes}
    asked = {"/inference/v1/generate", "/collective_rpc"}
    assert asked | {"/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"} <= paths, changed
    assert set(MultiModalFeatures.model_fields) == {"mm_hashes", "mm_placeholders", "kwargs_data", "mm_metadata"}, (
        changed
    )
    # were there a mask, Qwen3-VL's videos could go as videos
    assert set(PlaceholderRangeInfo.model_fields) == {"offset", "length"}, changed
    assert next(iter(inspect.signature(extract_mm_features).parameters)) == "engine_input", changed
    assert "model_config" in inspect.signature(MULTIMODAL_REGISTRY.create_processor).parameters, changed
    assert {"dtype", "logprobs_mode", "max_model_len"} <= set(ModelConfig.__dataclass_fields__), changed
    assert "worker_extension_cls" in ParallelConfig.__dataclass_fields__, changed
    assert "child_sampling_params.seed = seed + index" in inspect.getsource(parallel_sampling), changed
    assert ServeSubcommand.name == "serve", changed


@pytest.mark.vllm
def test_families_that_vllm_cannot_load_are_refused_for_what_is_still_so():
    import vllm
    from transformers.models.pixtral import modeling_pixtral
    from vllm.model_executor.models.registry import ModelRegistry

    again = f"vLLM {vllm.__version__} knows it now: try it again, and read REFUSED in sharing/vllm.py."
    known = ModelRegistry.get_supported_archs()
    for name in ("Glm46V", "PerceptionLM", "Qwen2_5OmniThinker", "VideoLlama3"):
        assert f"{name}ForConditionalGeneration" not in known, again
    assert not hasattr(modeling_pixtral, "PixtralRotaryEmbedding"), again  # LLaVA-OneVision, LLaVA-NeXT-Video
    file = Path(vllm.__file__).parent / "model_executor/models/pixtral.py"
    assert "PixtralRotaryEmbedding," in file.read_text(), again


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is there")
def test_training_without_vllm_names_the_extra(models, media, tmp_path):
    data = Dataset.from_list([row(video=media["videos"][0])])
    with pytest.raises(ImportError, match=r"vLLM cannot be imported .* pip install '\.\[vllm\]'"):
        TGRPOTrainer(models().path, parity, config(tmp_path, use_vllm=True), data)
