"""What a processor will make of the size of frames, so that they need never be held larger."""

from __future__ import annotations

import copy
from typing import Any, NoReturn

import numpy as np
import torch
import transformers
from transformers.image_utils import SizeDict
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.video_processing_utils import BaseVideoProcessor

from .families import Processor
from .pixels import pixel_budget


class ProcessorShrink:
    """
    Resizes frames one by one as the video processor of Qwen2-VL, Qwen2.5-VL or Qwen3-VL resizes a whole video: by its own
    methods and arguments, to the last bit. These processors then find nothing left to resize.

    Args:
        processor (`BaseVideoProcessor`): one of `EXACT`.
        max_pixels, min_pixels (`int`, *optional*): as in [`~encoding.encode_prompt`].
    """

    EXACT = (Qwen2VLVideoProcessor, Qwen3VLVideoProcessor)

    def __init__(self, processor: BaseVideoProcessor, max_pixels: int | None, min_pixels: int | None):
        self.by_video = isinstance(processor, Qwen3VLVideoProcessor)  # its budget is that of all frames
        settings = processor.to_json_string()
        self.name = f"{type(processor).__name__} {transformers.__version__} {max_pixels} {min_pixels} {settings}"
        self._processor, self._pixels = processor, (max_pixels, min_pixels)
        self._known: dict[int, dict[str, Any]] = {}

    @classmethod
    def of(cls, processor: Processor, max_pixels: int | None, min_pixels: int | None) -> ProcessorShrink | None:
        """That of a processor whose frames come out the same; `None` for other ones."""
        found: Any = getattr(processor, "video_processor", None)
        found = getattr(found, "uncached", found)
        return cls(found, max_pixels, min_pixels) if type(found) in cls.EXACT and found.do_resize else None

    def size(self, number: int, height: int, width: int) -> tuple[int, int] | None:
        """See [`~media.shrink.Shrink`]."""
        try:
            found = self._resized(number, height, width)
            settled = found == self._resized(number, *found)
        except ValueError:  # the processor's: it says so where it gets the frames
            return None
        return found if settled and found[0] * found[1] < height * width else None

    def resize(self, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """See [`~media.shrink.Shrink`]."""
        frame = torch.from_numpy(np.require(picture, requirements=["C", "W"])).permute(2, 0, 1)[None]
        height, width = size
        resample = self._arguments(2)["resample"]
        found = BaseVideoProcessor.resize(
            self._processor, frame, size=SizeDict(height=height, width=width), resample=resample
        )
        return found[0].permute(1, 2, 0).numpy()

    def _resized(self, number: int, height: int, width: int) -> tuple[int, int]:
        frames = torch.empty(1, number, 3, height, width, dtype=torch.uint8, device="meta")
        found = self._processor.resize(frames, **self._arguments(number))
        return found.shape[-2], found.shape[-1]

    def _arguments(self, number: int) -> dict[str, Any]:
        """With which the processor resizes a video of so many frames: it is asked with a small one."""
        if number not in self._known:
            probe: Any = copy.copy(self._processor)

            def resize(videos: torch.Tensor, **arguments: Any) -> NoReturn:
                raise _Asked(arguments)

            probe.resize = resize
            budget = pixel_budget(self._processor, *self._pixels, number)
            try:
                probe([[torch.zeros(2, 3, 32, 32, dtype=torch.uint8)]], do_sample_frames=False, **budget)
            except _Asked as asked:
                self._known[number] = asked.arguments
        return self._known[number]


class _Asked(Exception):
    """Carries the arguments of a call."""

    def __init__(self, arguments: dict[str, Any]):
        super().__init__()
        self.arguments = arguments
