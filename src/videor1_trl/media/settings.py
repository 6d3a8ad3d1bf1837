"""The settings of videos and images that every trainer of this package has."""

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, TypedDict, cast

from .addresses import checked_store
from .frame_cache import FrameCache
from .isolation import Isolation
from .limits import Limits
from .video import Sampling, leaves_an_even_count


class Bounds(TypedDict, total=False):
    """What reading a file may take and where it is read, as keywords of [`load_video`] and [`load_image`]."""

    limits: Limits
    isolation: Isolation


class Pixels(TypedDict):
    """How frames and images are resized, as keywords of `families.encode_prompt`."""

    video_max_pixels: int | None
    video_min_pixels: int | None
    image_max_pixels: int | None


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, which YAML and Python may give where a field counts: 2.0, "2" and True are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_whole(name: str, value: Any, lowest: int | None = None, further: str = "") -> None:
    """
    Refuse a value of a field that counts something, unless it is a whole number, of at least `lowest` where that is given.

    >>> check_whole("video_num_frames", 2.5, 1, ", or unset")
    Traceback (most recent call last):
    ...
    ValueError: video_num_frames (2.5) must be a whole number of at least 1, or unset.
    """
    if not is_whole(value):
        least = "" if lowest is None else f" of at least {lowest}"
        raise ValueError(f"{name} ({value!r}) must be a whole number{least}{further}.")
    if lowest is not None and value < lowest:
        raise ValueError(f"{name} ({value}) must be at least {lowest}{further}.")


class DefaultPixels(int):
    """A budget that nobody chose: it is kept where the processor can, else the processor decides, and the log says so."""


@dataclass
class FrameSettings:
    r"""
    The fields for frames and pixels that [`VideoArguments`] and [`~requests.GenerationSettings`] have alike.

    Parameters:
        video_fps (`float`, *optional*, defaults to `2.0`):
            Frames sampled per second of video (> 0).
        video_min_frames (`int`, *optional*, defaults to `4`):
            Fewest frames sampled from a video (>= 1).
        video_max_frames (`int`, *optional*, defaults to `16`):
            Most frames sampled from a video (>= `video_min_frames`).
        video_num_frames (`int`, *optional*):
            Exact number of frames of every video, instead of the three fields above. `None`: they decide.
        video_max_pixels (`int`, *optional*, defaults to `100352`):
            Most pixels of one frame after resizing (paper: 128 * 28 * 28). `None`: the processor decides; a processor with a fixed
            resolution does where this is left at its default, and refuses another that it cannot keep.
        video_min_pixels (`int`, *optional*):
            Fewest pixels of one frame after resizing. `None`: the processor decides.
        image_max_pixels (`int`, *optional*):
            Most pixels of an image after resizing. `None`: the processor decides.
        max_prompt_length (`int`, *optional*, defaults to `16384`):
            Most tokens of a prompt, media included. A longer prompt is an error, it is never truncated. `None`: no
            limit.
        decode_seconds (`float`, *optional*, defaults to `600.0`):
            Seconds that reading one video or image may take (> 0); a file beyond them cannot be read.
        decode_isolation (`str`, *optional*, defaults to `"thread"`):
            Where `load_video` and `load_image` decode: `"thread"`, in this process, or `"process"`, in processes of their own: a decoder that
            hangs within itself is then ended, and one that crashes costs its file. A `video_loader` of one's own is told of
            neither field unless they are changed; it then has to take `limits` and `isolation`.
        media_stores (`list[str]`, *optional*):
            Addresses of stores, or of folders in them, such as `s3://bucket/videos`, under which media may be read, as fsspec reads them;
            names and keys are taken from the environment. An address elsewhere is refused, whatever the data say. `None`: none.
        media_cache_dir (`str`, *optional*):
            Folder in which the frames that `load_video` gives are kept, sampled and resized, for later epochs, other ranks and other
            runs, which then read no video; `videor1 cache` fills it ahead. `None`: none.
        media_cache_gb (`float`, *optional*, defaults to `50.0`):
            Most GiB of files in `media_cache_dir` (> 0); those not used for the longest time leave first.
    """

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
        default=DefaultPixels(128 * 28 * 28),
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
    max_prompt_length: int | None = field(
        default=16384,
        metadata={
            "help": "Most tokens of a prompt, media included (paper: 16384). A longer prompt is an error, it is never "
            "truncated. None: no limit."
        },
    )

    decode_seconds: float = field(
        default=600.0,
        metadata={
            "help": "Seconds that reading one video or image may take (> 0); a file beyond them cannot be read."
        },
    )
    decode_isolation: str = field(
        default="thread",
        metadata={
            "help": "Where load_video and load_image decode: 'thread', in this process, or 'process', in processes of their own: a decoder "
            "that hangs within itself is then ended, and one that crashes costs its file.",
            "choices": ["thread", "process"],
        },
    )

    media_stores: list[str] | None = field(
        default=None,
        metadata={
            "help": "Addresses of stores, or of folders in them, such as s3://bucket/videos, under which media may be read; one "
            "given as the data's root is among them. None: none."
        },
    )
    media_cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder in which sampled and resized frames are kept for later epochs, other ranks and other runs, which "
            "then read no video; videor1 cache fills it ahead. None: none."
        },
    )
    media_cache_gb: float = field(
        default=50.0,
        metadata={
            "help": "Most GiB of files in media_cache_dir (> 0); those not used for the longest time leave first."
        },
    )

    def check_frames(self) -> None:
        """Raises a `ValueError` that names the field where a value is out of its range."""
        if not 0 < self.video_fps < float("inf"):
            raise ValueError(f"video_fps ({self.video_fps}) must be above 0.")
        for name in ("video_min_frames", "video_max_frames") if self.video_num_frames is None else ():
            check_whole(name, getattr(self, name))
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
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1, ", or unset")
        if not self.media_cache_gb > 0:
            raise ValueError(f"media_cache_gb ({self.media_cache_gb}) must be above 0.")
        if not 0 < self.decode_seconds < float("inf"):
            raise ValueError(f"decode_seconds ({self.decode_seconds}) must be above 0.")
        for store in self.media_stores or ():
            try:
                checked_store(store)
            except ValueError as error:
                raise ValueError(f"media_stores: {error}") from None
        if self.decode_isolation not in ("thread", "process"):
            raise ValueError(f"decode_isolation ({self.decode_isolation!r}) must be 'thread' or 'process'.")
        if self.video_max_pixels and self.video_min_pixels and self.video_min_pixels > self.video_max_pixels:
            raise ValueError(
                f"video_min_pixels ({self.video_min_pixels}) must be at most video_max_pixels ({self.video_max_pixels})."
            )

    @property
    def video_settings(self) -> Sampling:
        """How frames are sampled, as keywords of [`load_video`], and within which bounds where these are other than its own."""
        sampling: Sampling = {
            "fps": self.video_fps,
            "min_frames": self.video_min_frames,
            "max_frames": self.video_max_frames,
            "num_frames": self.video_num_frames,
        }
        bounds: Bounds = {}  # not in the type: a loader of one's own need not know them
        if self.limits != Limits():
            bounds["limits"] = self.limits
        if self.decode_isolation != "thread":
            bounds["isolation"] = cast(Isolation, self.decode_isolation)
        return cast(Sampling, {**sampling, **bounds})

    @property
    def limits(self) -> Limits:
        """What reading one file may take, and in which stores."""
        return Limits(seconds=self.decode_seconds, stores=tuple(self.media_stores or ()))

    @staticmethod
    def bounds_of(video_settings: Sampling) -> Bounds:
        """Those of [`video_settings`] that [`load_image`] takes too."""
        return cast(Bounds, {name: value for name, value in video_settings.items() if name in Bounds.__annotations__})

    def frame_cache(self) -> FrameCache | None:
        """Where frames are kept on disk, if they are."""
        return (
            None
            if self.media_cache_dir is None
            else FrameCache(self.media_cache_dir, int(self.media_cache_gb * 2**30))
        )

    @property
    def pixel_settings(self) -> Pixels:
        """How frames and images are resized, as keywords of `encoding.encode_prompt`."""
        return {
            "video_max_pixels": self.video_max_pixels,
            "video_min_pixels": self.video_min_pixels,
            "image_max_pixels": self.image_max_pixels,
        }


@dataclass
class VideoArguments(FrameSettings):
    r"""
    What the fields of [`TGRPOConfig`] and [`VideoSFTConfig`] have alike: which frames are seen at how many pixels
    ([`FrameSettings`]), what a bad video does, and what is done with an adapter that is given as the model.

    Parameters:
        adapter (`str`, *optional*, defaults to `"continue"`):
            Where the model is a folder or Hub id of a LoRA adapter: `"continue"` trains it on, its present state being the
            reference; `"merge"` merges it into its base model, written to `merged` in `output_dir`, and trains that,
            whole or with new adapters (`peft_config`).
        on_bad_video (`str`, *optional*, defaults to `"raise"`):
            What a video, image or prompt does that cannot be used: `"raise"` ends the run with an error that names
            it, `"skip"` keeps its rows out of the loss and the rewards, and counts them in `video/skipped_rows`.
        video_num_workers (`int`, *optional*, defaults to `4`):
            Threads that decode a batch's videos, and the next batch's while this step runs (>= 0). `0`: no threads;
            `video_loader` and `contrast` then run in the main thread only.
        video_cache_gb (`float`, *optional*, defaults to `1.0`):
            Decoded frames, in GiB, kept for when their video comes again (>= 0), on each process. `0.0`: none.
    """

    adapter: str = field(
        default="continue",
        metadata={
            "help": "Where the model is a LoRA adapter: 'continue' trains it on, 'merge' merges it into its base model, and "
            "trains that, whole or with new adapters.",
            "choices": ["continue", "merge"],
        },
    )
    on_bad_video: str = field(
        default="raise",
        metadata={
            "help": "What a video, image or prompt does that cannot be used: 'raise' an error that names it, or 'skip' "
            "its rows, which then carry no gradient and are counted in video/skipped_rows.",
            "choices": ["raise", "skip"],
        },
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

    def check_ranges(self) -> None:
        """Raises a `ValueError` that names the field where a value is out of its range."""
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            check_whole(name, getattr(self, name, 1), 1)
        learning_rate = getattr(self, "learning_rate", 0.0)
        if not 0 <= learning_rate < float("inf"):
            raise ValueError(f"learning_rate ({learning_rate}) must be at least 0.")
        if self.adapter not in ("continue", "merge"):
            raise ValueError(f"adapter ({self.adapter!r}) must be 'continue' or 'merge'.")
        if self.on_bad_video not in ("raise", "skip"):
            raise ValueError(f"on_bad_video ({self.on_bad_video!r}) must be 'raise' or 'skip'.")
        check_whole("video_num_workers", self.video_num_workers, 0)
        if not self.video_cache_gb >= 0:
            raise ValueError(f"video_cache_gb ({self.video_cache_gb}) must be at least 0.")
        self.check_frames()
