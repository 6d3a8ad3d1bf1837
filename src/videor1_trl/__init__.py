"""T-GRPO for video on TRL: reinforcement learning that rewards using the order of the frames."""

from .config import TGRPOConfig
from .contrast import freeze_frame, reverse_frames, shuffle_frames
from .data import load_video_r1
from .families import correct_positions
from .media import check_media
from .prompts import extract_answer, make_prompt, question_text
from .released_processors import register as _register_released_processors
from .rewards import (
    accuracy_reward,
    format_reward,
    get_accuracy_reward,
    get_length_reward,
    get_temporal_reward,
    length_reward,
    temporal_reward,
)
from .sft import VideoSFTConfig, VideoSFTTrainer
from .trainer import TGRPOTrainer
from .video import ImageError, MediaError, VideoError, load_image, load_video


_register_released_processors()

__version__ = "0.1.0"
