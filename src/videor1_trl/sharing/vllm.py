"""vLLM itself: which versions and families were tested with it, and requests to an engine in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from transformers import PreTrainedConfig

from ..text.messages import Named


TESTED = ("0.30",)  # minor versions of vLLM; its `mm_input` and what stands behind it change between them
# model types whose rows give the same answers in vLLM
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm")
REFUSED = {  # what was tried and does not pass, with vLLM 0.30, transformers 5.23 and TRL 1.16
    "qwen3_vl_moe": "TRL hands vLLM the experts as transformers stacks them, and vLLM loads them the other way round",
    "qwen3_5": "on a CPU vLLM runs its linear attention in bfloat16 only, so that nothing could be compared in float32",
    "qwen3_5_moe": "on a CPU vLLM runs its linear attention in bfloat16 only, so that nothing could be compared in float32",
    "glm4v": "vLLM's own processor of it fails with this transformers before anything is asked",
    "glm46v": "vLLM has no model of this architecture",
    "llava_onevision": "vLLM's model of it imports PixtralRotaryEmbedding, which this transformers has no more",
    "llava_next_video": "vLLM's model of it imports PixtralRotaryEmbedding, which this transformers has no more",
    "qwen2_5_omni_thinker": "vLLM knows Omni's thinker only inside of the whole model, and none that is saved by itself",
    "video_llama_3": "vLLM has no model of this architecture",
    "perception_lm": "vLLM has no model of this architecture",
}
READ_AS = {  # settings that vLLM does not ask for
    "internvl": {"vision_feature_layer": -1, "vision_feature_select_strategy": "default"},
}
FINISHED = ("stop", "length")  # what else ends a request is a fault


def import_vllm() -> ModuleType:
    """
    vLLM, of a version that was tested.

    Raises:
        `ImportError`: it is not installed, or of another version.
    """
    extra = "Install it with the extra of that name (in a clone: pip install '.[vllm]')"
    try:
        import vllm
    except ImportError as error:
        raise ImportError(f"vLLM cannot be imported ({error}). {extra}, or use transformers.") from error
    version = str(vllm.__version__)
    if not is_tested(version):
        raise ImportError(
            f"vLLM {version} is installed, and what this package hands to vLLM was tested with {', '.join(TESTED)} only: with "
            f"others videos may be placed wrongly, without a word. {extra}, or use transformers."
        )
    return vllm


def is_tested(version: str) -> bool:
    """Whether a version of vLLM, such as `0.30.0+cpu`, is of a minor that was tested."""
    return ".".join(version.split(".")[:2]) in TESTED


def takes_media(config: PreTrainedConfig) -> bool:
    """Whether a model has a tower: whether its family matters."""
    return any(hasattr(config, name) for name in ("vision_config", "thinker_config"))


def check_family(config: PreTrainedConfig) -> None:
    """
    Refuse a model with media of a family that was not tested with vLLM, or settings of one that vLLM does not read.

    Raises:
        `NotImplementedError`: with what vLLM makes of it.
    """
    family = config.model_type
    if family not in FAMILIES:
        reason = REFUSED.get(family, "which was not tried: its sampler might see other than the learner")
        raise NotImplementedError(
            f"vLLM is handed the prompts of {', '.join(FAMILIES)} only, and this model is of the type {family}: {reason}. Use "
            "transformers."
        )
    for name, value in READ_AS.get(family, {}).items():
        if (found := getattr(config, name, value)) != value:
            raise NotImplementedError(
                f"vLLM reads every model of the type {family} as one with {name}={value!r}, and this one has {found!r}: its "
                "sampler would see other than the learner. Use transformers."
            )
    tied = [getattr(each, "tie_word_embeddings", False) for each in (config, config.get_text_config())]
    if family == "smolvlm" and tied == [True, False]:
        raise NotImplementedError(
            "this smolvlm ties its embeddings by tie_word_embeddings, which vLLM reads of text_config, where it is False: its output "
            "layer would hold what happens to be in memory. Set it there too, in the model's config.json, or use transformers."
        )


def shared_arguments() -> Named:
    """Arguments of the engine that prompts encoded here ask for."""
    return {
        "mm_device_do_normalize": False,  # pixels are normalised already
        "mm_processor_cache_gb": 0,  # nothing is preprocessed there
        "skip_mm_profiling": True,
    }


def complete(llm: Any, requests: Iterable[tuple[Any, Any]]) -> list[Any]:
    """
    Outputs for pairs of an `EngineInput` and its `SamplingParams`, in their order; in the place of one that vLLM refuses, or ends
    without an answer, the exception that says why.

    Raises:
        `RuntimeError`: the engine itself fails. Whatever ends this, no request stays in the engine, to be answered in a later call.
    """
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import RequestOutputKind

    engine, found, waiting = llm.llm_engine, [], {}
    try:
        for prompt, sampling in requests:
            name = f"videor1-{next(llm.request_counter)}"
            sampling.output_kind = RequestOutputKind.FINAL_ONLY
            try:
                engine.add_request(name, prompt, sampling)
            except (VLLMClientError, ValueError) as error:
                found.append(error)
            else:
                waiting[name] = len(found)
                found.append(None)
        while waiting:
            for output in _step(engine, len(waiting)):
                if output.finished:
                    found[waiting.pop(output.request_id)] = _answer(output)
    finally:
        if waiting:
            with contextlib.suppress(Exception):  # of an engine that is dead
                engine.abort_request(list(waiting))
    return found


def _step(engine: Any, number: int) -> list[Any]:
    """What the engine has finished in its next step."""
    from vllm.exceptions import VLLMError

    try:
        if not engine.has_unfinished_requests():
            raise RuntimeError("it has lost them")
        return list(engine.step())
    except (RuntimeError, ValueError, AssertionError, VLLMError) as error:  # torch's of memory are RuntimeErrors
        raise RuntimeError(
            f"vLLM's engine failed with {number} requests in it ({type(error).__name__}: {error}). Where memory is short, lower "
            "vllm_gpu_memory_utilization (of an evaluation gpu_memory_utilization), max_prompt_length or the number of rollouts at a "
            "time. Else its log above says why."
        ) from error


def _answer(output: Any) -> Any:
    """The output of a finished request, or why there is none."""
    reason = str(output.outputs[0].finish_reason)
    return output if reason in FINISHED else RuntimeError(f"vLLM ended it with {reason!r}, without an answer.")
