"""Trainers that take their rollouts from vLLM, on rows of every kind."""

from datasets import Dataset
from helpers import config, parity, row

from videor1_trl import TGRPOTrainer


FLOAT32 = 5e-5  # nats a token in the mean; wrong positions or stale weights make 1e-2 and more


def rows_of(media, mixed=True):
    """Six rows; with `mixed` one has two videos and an image, which not every processor takes (SmolVLM), else two videos."""
    videos, image = media["videos"], media["image"]
    rows = [row("which way?", video=videos[0]), row("which way, and which one?", video=videos[1])]
    rows += [row("what?", image=image), row("left or right?"), row("again?", video=videos[0])]
    for each in rows:
        each["videos"] = None
    rows += [{**row("both?", image=image if mixed else None), "videos": videos[2:4]}]
    return rows


def make(model, media, folder, rows=None, rewards=parity, **settings):
    chosen = {
        "use_vllm": True,
        "per_device_train_batch_size": 24,
        "num_generations": 4,
        "max_completion_length": 8,
        "max_prompt_length": 400,
        "max_steps": 3,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "constant",
        "video_max_pixels": 28 * 28 * 4,
        "temperature": 0.7,
        **settings,
    }
    data = Dataset.from_list(rows_of(media) if rows is None else rows)
    return TGRPOTrainer(model.path, rewards, config(folder, **chosen), data)
