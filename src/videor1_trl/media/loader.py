"""What a video loader is: the form of `load_video`, which any callable may take the place of."""

from typing import Protocol

import torch
from transformers.video_utils import VideoMetadata


Video = tuple[torch.Tensor, VideoMetadata]  # frames (T, C, H, W) uint8, and where in their video they are from


class VideoLoader(Protocol):
    """Gives the sampled frames of one video. Called from several threads where `video_num_workers` is above 0."""

    def __call__(
        self, source: object, *, fps: float, min_frames: int, max_frames: int, num_frames: int | None
    ) -> Video:
        """
        Args:
            source: as it stands in the column `video` or `videos`: whatever the loader takes.
            fps (`float`), min_frames (`int`), max_frames (`int`), num_frames (`int`, *optional*): as in [`load_video`].

        Returns:
            uint8 frames (T, 3, H, W), and a [`~transformers.video_utils.VideoMetadata`] whose `frames_indices` are T numbers.

        Raises:
            `VideoError`: the video cannot be read; subject to `on_bad_video`. Whatever else is raised ends the run.
        """
        ...
