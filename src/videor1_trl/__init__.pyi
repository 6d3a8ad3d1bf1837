"""What `from videor1_trl import ...` gives; see `__init__.py`."""

from .cold_start.config import VideoSFTConfig
from .cold_start.trainer import VideoSFTTrainer
from .config import TGRPOConfig
from .contract.check import check_model
from .contrast import (
    flip_frames,
    freeze_frame,
    get_contrast_by_column,
    get_shuffle_around,
    get_shuffle_clips,
    reverse_frames,
    shuffle_around,
    shuffle_clips,
    shuffle_frames,
)
from .data.order_tasks import make_order_tasks
from .data.records import load_video_r1
from .media.check import check_media
from .media.errors import ImageError, MediaError, VideoError
from .media.images import load_image
from .media.video import load_video
from .models.own_families import register_family, unregister_family
from .models.positions import correct_positions
from .objectives.gap import get_gap_reward
from .objectives.log_prob_drop import get_log_prob_drop_reward
from .objectives.mirrored_interval import get_mirrored_interval_reward
from .objectives.relation import get_crpo_reward, get_relation_reward
from .objectives.temporal import get_temporal_reward, temporal_reward
from .rewards.accuracy import accuracy_reward, get_accuracy_reward
from .rewards.format import format_reward, get_format_reward
from .rewards.grounding import box_iou_reward, get_temporal_iou_reward, permutation_reward, temporal_iou_reward
from .rewards.length import get_length_reward, length_reward
from .text.prompts import PromptTemplate, extract_answer, load_prompt_template, make_prompt, question_text
from .trainer import TGRPOTrainer

__all__ = [
    "ImageError",
    "MediaError",
    "PromptTemplate",
    "TGRPOConfig",
    "TGRPOTrainer",
    "VideoError",
    "VideoSFTConfig",
    "VideoSFTTrainer",
    "accuracy_reward",
    "box_iou_reward",
    "check_media",
    "check_model",
    "correct_positions",
    "extract_answer",
    "flip_frames",
    "format_reward",
    "freeze_frame",
    "get_accuracy_reward",
    "get_contrast_by_column",
    "get_crpo_reward",
    "get_format_reward",
    "get_gap_reward",
    "get_length_reward",
    "get_log_prob_drop_reward",
    "get_mirrored_interval_reward",
    "get_relation_reward",
    "get_shuffle_around",
    "get_shuffle_clips",
    "get_temporal_iou_reward",
    "get_temporal_reward",
    "length_reward",
    "load_image",
    "load_prompt_template",
    "load_video",
    "load_video_r1",
    "make_order_tasks",
    "make_prompt",
    "permutation_reward",
    "question_text",
    "register_family",
    "reverse_frames",
    "shuffle_around",
    "shuffle_clips",
    "shuffle_frames",
    "temporal_iou_reward",
    "temporal_reward",
    "unregister_family",
]

__version__: str
