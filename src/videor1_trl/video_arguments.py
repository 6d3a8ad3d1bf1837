"""The settings of videos and images that every trainer of this package has."""

from dataclasses import dataclass, field
from typing import Any

from .video import leaves_an_even_count


class FrameSettings:
    """The fields for frames and pixels that [`VideoArguments`] and [`GenerationSettings`] have alike: their check and their use."""

    video_fps: float
    video_min_frames: int
    video_max_frames: int
    video_num_frames: int | None
    video_max_pixels: int | None
    video_min_pixels: int | None
    image_max_pixels: int | None
    max_prompt_length: int | None

    def check_frames(self) -> None:
        """Raises a `ValueError` that names the field where a value is out of its range."""
        if not 0 < self.video_fps < float("inf"):
            raise ValueError(f"video_fps ({self.video_fps}) must be above 0.")
        bounds = self.video_min_frames, self.video_max_frames
        if self.video_num_frames is None and not (bounds[0] >= 1 and leaves_an_even_count(*bounds)):
            raise ValueError(
                f"video_min_frames ({bounds[0]}) must be at least 1 and at most video_max_frames ({bounds[1]}), with an "
                "even number of at least 2 between them: frames are sampled in pairs. Change them, or set video_num_frames."
            )
        for name in (
            "video_num_frames",
            "video_max_pixels",
            "video_min_pixels",
            "image_max_pixels",
            "max_prompt_length",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1, or unset.")
        if self.video_max_pixels and self.video_min_pixels and self.video_min_pixels > self.video_max_pixels:
            raise ValueError(
                f"video_min_pixels ({self.video_min_pixels}) must be at most video_max_pixels ({self.video_max_pixels})."
            )

    @property
    def video_settings(self) -> dict[str, float | int | None]:
        """How frames are sampled, as keywords of [`load_video`]."""
        return {
            "fps": self.video_fps,
            "min_frames": self.video_min_frames,
            "max_frames": self.video_max_frames,
            "num_frames": self.video_num_frames,
        }

    @property
    def pixel_settings(self) -> dict[str, Any]:
        """How frames and images are resized, as keywords of `families.encode_prompt`."""
        names = ("video_max_pixels", "video_min_pixels", "image_max_pixels")
        return {name: getattr(self, name) for name in names}


@dataclass
class VideoArguments(FrameSettings):
    r"""
    Which frames of a video are seen, at how many pixels, and what a bad one does; the fields of [`TGRPOConfig`] and
    [`VideoSFTConfig`] that concern media.

    Parameters:
        on_bad_video (`str`, *optional*, defaults to `"raise"`):
            What a video, image or prompt does that cannot be used: `"raise"` ends the run with an error that names
            it, `"skip"` keeps its rows out of the loss and the rewards, and counts them in `video/skipped_rows`.
        video_fps (`float`, *optional*, defaults to `2.0`):
            Frames sampled per second of video (> 0).
        video_min_frames (`int`, *optional*, defaults to `4`):
            Fewest frames sampled from a video (>= 1).
        video_max_frames (`int`, *optional*, defaults to `16`):
            Most frames sampled from a video (>= `video_min_frames`).
        video_num_frames (`int`, *optional*):
            Exact number of frames of every video, instead of the three fields above. `None`: they decide.
        video_max_pixels (`int`, *optional*, defaults to `100352`):
            Most pixels of one frame after resizing (paper: 128 * 28 * 28). `None`, or a processor with a fixed
            resolution: the processor decides.
        video_min_pixels (`int`, *optional*):
            Fewest pixels of one frame after resizing. `None`: the processor decides.
        image_max_pixels (`int`, *optional*):
            Most pixels of an image after resizing. `None`: the processor decides.
        video_num_workers (`int`, *optional*, defaults to `4`):
            Threads that decode a batch's videos, and the next batch's while this step runs (>= 0). `0`: no threads;
            `video_loader` and `contrast` then run in the main thread only.
        video_cache_gb (`float`, *optional*, defaults to `1.0`):
            Decoded frames, in GiB, kept for when their video comes again (>= 0), on each process. `0.0`: none.
        max_prompt_length (`int`, *optional*, defaults to `16384`):
            Most tokens of a prompt, media included. A longer prompt is an error, it is never truncated. `None`: no
            limit.
    """

    on_bad_video: str = field(
        default="raise",
        metadata={
            "help": "What a video, image or prompt does that cannot be used: 'raise' an error that names it, or 'skip' "
            "its rows, which then carry no gradient and are counted in video/skipped_rows.",
            "choices": ["raise", "skip"],
        },
    )
    video_fps: float = field(default=2.0, metadata={"help": "Frames sampled per second of video (> 0)."})
    video_min_frames: int = field(default=4, metadata={"help": "Fewest frames sampled from a video (>= 1)."})
    video_max_frames: int = field(
        default=16, metadata={"help": "Most frames sampled from a video (>= video_min_frames)."}
    )
    video_num_frames: int | None = field(
        default=None,
        metadata={
            "help": "Exact number of frames of every video, instead of video_fps, video_min_frames and "
            "video_max_frames. None: they decide."
        },
    )
    video_max_pixels: int | None = field(
        default=128 * 28 * 28,
        metadata={
            "help": "Most pixels of one frame after resizing (paper: 128 * 28 * 28 = 100352). None: the processor "
            "decides."
        },
    )
    video_min_pixels: int | None = field(
        default=None, metadata={"help": "Fewest pixels of one frame after resizing. None: the processor decides."}
    )
    image_max_pixels: int | None = field(
        default=None, metadata={"help": "Most pixels of an image after resizing. None: the processor decides."}
    )
    video_num_workers: int = field(
        default=4,
        metadata={
            "help": "Threads that decode a batch's videos, and the next batch's while this step runs (>= 0). 0: no "
            "threads; video_loader and contrast then run in the main thread only."
        },
    )
    video_cache_gb: float = field(
        default=1.0,
        metadata={
            "help": "Decoded frames, in GiB, kept for when their video comes again (>= 0), on each process. 0.0: none."
        },
    )
    max_prompt_length: int | None = field(
        default=16384,
        metadata={
            "help": "Most tokens of a prompt, media included (paper: 16384). A longer prompt is an error, it is never "
            "truncated. None: no limit."
        },
    )

    def check_media(self) -> None:
        """Raises a `ValueError` that names the field where a value is out of its range."""
        if self.on_bad_video not in ("raise", "skip"):
            raise ValueError(f"on_bad_video ({self.on_bad_video!r}) must be 'raise' or 'skip'.")
        for name in ("video_num_workers", "video_cache_gb"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 0.")
        self.check_frames()
