"""Prompts that are encoded already as vLLM's engine takes them, past its own processor, so that it sees the learner's tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature, PreTrainedConfig

from ..models.encoding import EncodedPrompt
from .vllm import check_family


TILED = ("internvl", "smolvlm")  # frames, and the tiles of an image, are images to the tower, each read alone
# vLLM numbers frames in float64, transformers in float32: 0.7 * 2 * 5 is 6.99... in the one and 7 in the other
ROUNDED = 1 + 1.2e-7
Features = dict[str, torch.Tensor]
Places = dict[str, list[Any]]  # vLLM's `PlaceholderRange` of each medium, by kind


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
            check_family(config)

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

        Raises:
            `ValueError`: its placeholders are not as many as its features ask for.
        """
        from vllm.inputs.engine import mm_input, tokens_input

        if not prompt.features:
            return tokens_input(list(prompt.input_ids))
        assert self._processor is not None  # a model that takes no media has no features
        features, places = self._media(prompt.input_ids, dict(prompt.features))
        items = self._items(features)
        names = {kind: [salt + _name(item) for item in of_kind] for kind, of_kind in items.items()}
        return mm_input(list(prompt.input_ids), items, names, places)

    def _media(self, ids: Sequence[int], features: Features) -> tuple[Features, Places]:
        """The features under vLLM's names, and where each medium stands."""
        if self._config.model_type in TILED:
            return self._by_tile(ids, features)
        places = {}
        for kind in ("image", "video"):
            if f"{kind}_grid_thw" in features:
                places[kind] = self._places(ids, kind, self._merged(features[f"{kind}_grid_thw"]))
        if self._frames_apart and any(place.is_embed is not None for place in places.get("video", [])):
            return self._by_frame(ids, features, places)
        return features, places

    def _items(self, features: Features) -> Any:
        """The features medium by medium, as vLLM's processor would give them: `{kind: [item, ...]}`."""
        from vllm.multimodal.inputs import MultiModalKwargsItems

        found = BatchFeature(features)
        if "second_per_grid_ts" in found:
            found["second_per_grid_ts"] = found["second_per_grid_ts"].double() * ROUNDED
        return MultiModalKwargsItems.from_hf_inputs(found, self._processor._get_mm_fields_config(found, {}))

    def _merged(self, grids: torch.Tensor) -> list[int]:
        """The tokens of each medium."""
        merged = self._config.vision_config.spatial_merge_size**2
        return [count // merged for count in grids.prod(dim=-1).tolist()]

    def _places(self, ids: Sequence[int], kind: str, counts: list[int]) -> list[Any]:
        """Where each medium of a kind stands among the tokens, `counts` of them each."""
        from vllm.multimodal.inputs import PlaceholderRange

        token = getattr(self._config, f"{kind}_token_id")
        places = [place for place, each in enumerate(ids) if each == token]
        if len(places) != sum(counts):
            raise ValueError(f"its prompt has {len(places)} {kind} tokens, and its {kind}s have {sum(counts)}.")
        found, start = [], 0
        for count in counts:
            found.append(PlaceholderRange(*_range(places[start : start + count])))
            start += count
        return found

    def _by_tile(self, ids: Sequence[int], features: Features) -> tuple[Features, Places]:
        """Features and places with an image for each tile of an image and each frame of a video."""
        config, pixels = self._config, features["pixel_values"]
        if config.model_type == "internvl":
            tiles, count = torch.ones(len(pixels), dtype=torch.long), config.image_seq_length
            token = torch.tensor(config.image_token_id)
            found = {"pixel_values": pixels, "image_num_patches": tiles, "image_token_id": token}
        else:  # SmolVLM: a row for each video, filled up with zeros, which its model leaves out
            pixels, mask = pixels.flatten(0, 1), features["pixel_attention_mask"].flatten(0, 1)
            real = pixels.flatten(1).any(dim=1)
            tiles = torch.ones(int(real.sum()), dtype=torch.long)
            found = {"pixel_values": pixels[real], "pixel_attention_mask": mask[real], "num_patches": tiles}
            count = (config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor) ** 2
        return found, {"image": self._places(ids, "image", [count] * len(tiles))}

    def _by_frame(self, ids: Sequence[int], features: Features, places: Places) -> tuple[Features, Places]:
        """Features and places with an image for each frame (of two, as the tower takes them together) of each video."""
        videos = features["video_grid_thw"]
        frames = torch.cat([grid.new_tensor([[1, *grid[1:].tolist()]] * int(grid[0])) for grid in videos])
        found = {"pixel_values": features["pixel_values_videos"], "image_grid_thw": frames}
        for name in found:
            if name in features:
                found[name] = torch.cat([features[name], found[name]])
        return found, {"image": [*places.get("image", []), *self._places(ids, "video", self._merged(frames))]}


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
