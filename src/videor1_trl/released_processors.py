"""Video-R1's released checkpoints name their image processor by a class that transformers has dropped: here it is known again."""

from typing import Any

from transformers import AutoImageProcessor, PreTrainedConfig, Qwen2VLImageProcessor


class _ReleasedConfig(PreTrainedConfig):
    """Of no model: transformers registers an image processor for a config."""

    model_type = "videor1_released_qwen2_5_vl"


class Qwen2_5_VLImageProcessor(Qwen2VLImageProcessor):
    """
    The name that Qwen2.5-VL's image processor had in the transformers 4.49 of Video-R1 (its issues 60 and 100); the processor
    is Qwen2-VL's, and is saved under that name.
    """

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        return Qwen2VLImageProcessor.from_pretrained(*args, **kwargs)


def register() -> None:
    """Lets `AutoProcessor.from_pretrained` read such checkpoints; done when `videor1_trl` is imported."""
    classes: dict[str, type] = {"torchvision": Qwen2_5_VLImageProcessor}
    AutoImageProcessor.register(_ReleasedConfig, image_processor_classes=classes, exist_ok=True)
