"""Video-R1's released checkpoints name their image processor by a class that transformers has dropped: here it is known again."""

from pathlib import Path

from transformers import AutoImageProcessor, AutoProcessor, PreTrainedConfig, Qwen2VLImageProcessor

from .families import Processor


class _ReleasedConfig(PreTrainedConfig):
    """Of no model: transformers registers an image processor for a config."""

    model_type = "videor1_released_qwen2_5_vl"


class Qwen2_5_VLImageProcessor(Qwen2VLImageProcessor):
    """
    The name that Qwen2.5-VL's image processor had in the transformers 4.49 of Video-R1 (its issues 60 and 100); the processor
    is Qwen2-VL's, and is saved under that name.
    """

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        return Qwen2VLImageProcessor.from_pretrained(*args, **kwargs)


def load_processor(source: str | Path, **options: object) -> Processor:
    """`AutoProcessor.from_pretrained`, such checkpoints included."""
    register()
    return AutoProcessor.from_pretrained(source, **options)


def register() -> None:
    """
    Lets `AutoProcessor.from_pretrained` read such checkpoints. Done by whatever loads a processor here; nothing is registered
    when the package is imported.
    """
    classes: dict[str, type] = {"torchvision": Qwen2_5_VLImageProcessor}
    AutoImageProcessor.register(_ReleasedConfig, image_processor_classes=classes, exist_ok=True)
