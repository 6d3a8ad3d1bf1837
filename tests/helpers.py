"""How the tests make rows, trainers and rollouts."""

import pytest
from datasets import Dataset

from videor1_trl import TGRPOConfig, TGRPOTrainer, VideoSFTConfig
from videor1_trl.contrast import shuffle_frames
from videor1_trl.data.batch import BatchLoader
from videor1_trl.media.video import load_video


def row(text="which way?", *, video=None, image=None, **columns):
    return {
        "prompt": [{"role": "user", "content": text}],
        "video": video,
        "image": image,
        "solution": "<answer>A</answer>",
        "problem_type": "multiple choice",
        **columns,
    }


def parity(completions, **kwargs):
    """An accuracy that varies by itself: whether the text has an odd number of characters."""
    return [float(len(completion[0]["content"]) % 2) for completion in completions]


def refused(run, *arguments):
    """What a script says that ends at once."""
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    return str(stopped.value)


class Scripted:
    """An accuracy function that returns the given lists, call by call: the ordered rollouts', then the contrast's."""

    __name__ = "scripted"

    def __init__(self, *lists):
        self.lists = list(lists)
        self.calls = []

    def __call__(self, completions, **kwargs):
        self.calls.append({"completions": completions, **kwargs})
        values = self.lists.pop(0)
        assert len(values) == len(completions), f"scripted for {len(values)} completions, got {len(completions)}"
        return values


def config(folder, **overrides):
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 1,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "shuffle_dataset": False,
        "gradient_checkpointing": False,
        "video_max_pixels": 28 * 28 * 2,
        "beta": 0.0,
    }
    return TGRPOConfig(**{**settings, **overrides})


def sft_config(folder, **overrides):
    chosen = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 3,
        "max_steps": 1,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "activation_checkpointing": False,
        "video_max_pixels": 28 * 28 * 2,
    }
    return VideoSFTConfig(**{**chosen, **overrides})


def trainer(tiny_model, rows, folder, reward_funcs=parity, *, model=None, eval_rows=None, options=None, **overrides):
    return TGRPOTrainer(
        model=model or tiny_model.path,
        reward_funcs=reward_funcs,
        args=config(folder, **overrides),
        train_dataset=Dataset.from_list(rows) if isinstance(rows, list) else rows,
        eval_dataset=Dataset.from_list(eval_rows) if eval_rows else None,
        **(options or {}),
    )


def rollouts(tgrpo):
    """One generation batch, scored, without an optimizer step; the first micro-batch of it."""
    tgrpo.model.train()
    return tgrpo._prepare_inputs(next(iter(tgrpo.get_train_dataloader())))


def logged(tgrpo, key):
    """The values of a metric in the order they were logged."""
    return [entry[key] for entry in tgrpo.state.log_history if key in entry]


class CountingLoader:
    def __init__(self):
        self.sources = []

    def __call__(self, source, **settings):
        self.sources.append(source)
        return load_video(source, **settings)


def loader(model, **settings):
    return BatchLoader(
        model.processor,
        **{
            "load_video": load_video,
            "contrast": shuffle_frames,
            "encode_settings": {"video_max_pixels": 1568},
            **settings,
        },
    )
