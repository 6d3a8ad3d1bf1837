"""What vLLM is handed: prompts that are encoded already, past its own processor, so that it sees the learner's tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import torch
from transformers import BatchFeature, PreTrainedConfig

from ..models.encoding import EncodedPrompt
from ..text.messages import Named


TESTED = ("0.30",)  # minor versions of vLLM; its `mm_input` and what stands behind it change between them
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # model types whose rows give the same answers in vLLM
REFUSED = {  # what was tried and does not pass, with vLLM 0.30, transformers 5.23 and TRL 1.16
    "qwen3_vl_moe": "TRL hands vLLM the experts as transformers stacks them, and vLLM loads them the other way round",
    "qwen3_5": "on a CPU vLLM runs its linear attention in bfloat16 only, so that nothing could be compared in float32",
    "glm4v": "vLLM's own processor of it fails with this transformers before anything is asked",
}
# vLLM numbers frames in float64, transformers in float32: 0.7 * 2 * 5 is 6.99... in the one and 7 in the other
ROUNDED = 1 + 1.2e-7


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


def check_family(model_type: str) -> None:
    """Refuse a model with media of a family that was not tested with vLLM."""
    if model_type not in FAMILIES:
        reason = REFUSED.get(model_type, "which was not tried: its sampler might see other than the learner")
        raise NotImplementedError(
            f"vLLM is handed the prompts of {', '.join(FAMILIES)} only, and this model is of the type {model_type}: {reason}. Use "
            "transformers."
        )


def shared_arguments() -> Named:
    """Arguments of the engine that prompts encoded here ask for."""
    return {
        "mm_device_do_normalize": False,  # pixels are normalised already
        "mm_processor_cache_gb": 0,  # nothing is preprocessed there
        "skip_mm_profiling": True,
    }


class EngineInputs:
    """
    Makes vLLM's inputs of encoded prompts: token ids as they are, and for each medium its features, its place among the tokens
    and a name by which vLLM computes it once: a hash of its features.

    Args:
        config (`PreTrainedConfig`): the model's.
        processor (`BaseMultiModalProcessor`, *optional*): vLLM's, which knows the model's features; `None` of a text model.
        frames_apart (`bool`): videos with other tokens between their frames go frame by frame, as images. A server takes
            no place with gaps; of such a model the tower reads a frame alone, wherever it comes from.

    Raises:
        `NotImplementedError`: the model takes media, and is of a family whose places are not known here.
    """

    def __init__(self, config: PreTrainedConfig, processor: Any, frames_apart: bool = False):
        self._config: Any = config
        self._processor, self._frames_apart = processor, frames_apart
        if processor is not None:
            check_family(config.model_type)

    @classmethod
    def of_engine(cls, llm: Any) -> EngineInputs:
        """For a `vllm.LLM`."""
        engine = llm.llm_engine
        config = engine.model_config
        return cls(config.hf_config, engine.renderer.get_mm_processor() if config.is_multimodal_model else None)

    @classmethod
    def of_folder(cls, model: str, **settings: Any) -> EngineInputs:
        """For a server of this model (folder or Hub id); settings of `vllm.config.ModelConfig`."""
        from vllm.config import ModelConfig
        from vllm.multimodal import MULTIMODAL_REGISTRY

        config = ModelConfig(model=model, **settings)
        processor = MULTIMODAL_REGISTRY.create_processor(config) if config.is_multimodal_model else None
        return cls(config.hf_config, processor, frames_apart=True)

    def of(self, prompt: EncodedPrompt, salt: str = "") -> Any:
        """
        The `EngineInput` of one prompt.

        Args:
            salt (`str`): begins the names of its media; what a tower with other weights made is not found again.
        """
        from vllm.inputs.engine import mm_input, tokens_input

        if not prompt.features:
            return tokens_input(list(prompt.input_ids))
        assert self._processor is not None  # a model that takes no media has no features
        features, places = dict(prompt.features), {}
        for kind in ("image", "video"):
            if f"{kind}_grid_thw" in features:
                places[kind] = self._places(prompt.input_ids, kind, features[f"{kind}_grid_thw"])
        if self._frames_apart and any(place.is_embed is not None for place in places.get("video", [])):
            features, places = self._by_frame(prompt.input_ids, features, places)
        items = self._items(features)
        names = {kind: [salt + _name(item) for item in of_kind] for kind, of_kind in items.items()}
        return mm_input(list(prompt.input_ids), items, names, places)

    def _items(self, features: dict[str, torch.Tensor]) -> Any:
        """The features medium by medium, as vLLM's processor would give them: `{kind: [item, ...]}`."""
        from vllm.multimodal.inputs import MultiModalKwargsItems

        found = BatchFeature(features)
        if "second_per_grid_ts" in found:
            found["second_per_grid_ts"] = found["second_per_grid_ts"].double() * ROUNDED
        return MultiModalKwargsItems.from_hf_inputs(found, self._processor._get_mm_fields_config(found, {}))

    def _places(self, ids: Sequence[int], kind: str, grids: torch.Tensor) -> list[Any]:
        """Where each medium of a kind stands among the tokens."""
        from vllm.multimodal.inputs import PlaceholderRange

        merged = self._config.vision_config.spatial_merge_size**2
        counts = [count // merged for count in grids.prod(dim=-1).tolist()]
        token = getattr(self._config, f"{kind}_token_id")
        places = [place for place, each in enumerate(ids) if each == token]
        if len(places) != sum(counts):
            raise ValueError(f"its prompt has {len(places)} {kind} tokens, and its {kind}s have {sum(counts)}.")
        found, start = [], 0
        for count in counts:
            found.append(PlaceholderRange(*_range(places[start : start + count])))
            start += count
        return found

    def _by_frame(
        self, ids: Sequence[int], features: dict[str, torch.Tensor], places: dict[str, list[Any]]
    ) -> tuple[dict[str, torch.Tensor], dict[str, list[Any]]]:
        """Features and places with an image for each frame (of two, as the tower takes them together) of each video."""
        videos = features["video_grid_thw"]
        frames = torch.cat([grid.new_tensor([[1, *grid[1:].tolist()]] * int(grid[0])) for grid in videos])
        found = {"pixel_values": features["pixel_values_videos"], "image_grid_thw": frames}
        for name in found:
            if name in features:
                found[name] = torch.cat([features[name], found[name]])
        return found, {"image": [*places.get("image", []), *self._places(ids, "video", frames)]}


def _range(places: list[int]) -> tuple[int, int, torch.Tensor | None]:
    """Begin, length and, where other tokens stand between (the time stamps of Qwen3-VL), which ones are the medium's."""
    first, last = places[0], places[-1]
    if last - first + 1 == len(places):
        return first, len(places), None
    first -= 1  # the token that opens the first frame, from which vLLM looks for the others
    mask = torch.zeros(last - first + 1, dtype=torch.bool)
    mask[torch.tensor(places) - first] = True
    return first, len(mask), mask


def _name(item: Any) -> str:
    """A hash of one medium's features."""
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(item):
        value = torch.as_tensor(item[key].data).contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def complete(llm: Any, requests: Iterable[tuple[Any, Any]]) -> list[Any]:
    """
    Outputs for pairs of an `EngineInput` and its `SamplingParams`, in their order; in the place of one that vLLM refuses, the
    exception that says why.
    """
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import RequestOutputKind

    engine, found, waiting = llm.llm_engine, [], {}
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
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                found[waiting[output.request_id]] = output
    return found
