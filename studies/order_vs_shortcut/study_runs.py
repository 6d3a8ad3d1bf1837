"""The runs of the study: one cold start for each seed, objectives trained from it, and what the model does on held-out videos."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import datasets
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, TrainerCallback
from world import SIZES, make_sets, with_images

from videor1_trl import (
    TGRPOConfig,
    TGRPOTrainer,
    VideoSFTConfig,
    VideoSFTTrainer,
    accuracy_reward,
    extract_answer,
    format_reward,
    get_length_reward,
    load_video,
    shuffle_frames,
)
from videor1_trl.generation.requests import GenerationSettings
from videor1_trl.generation.transformers_backend import TransformersBackend
from videor1_trl.models.encoding import EncodedPrompt
from videor1_trl.scripts import toy
from videor1_trl.scripts.toy_cold_start import requests


LABELS = {"objective": "crpo", "objective_column": "about"}
# Fields of TGRPOConfig, and beside them: `temporal` (False is plain GRPO), `more` (times the steps), `cold`, `length`, `images`
OBJECTIVES: dict[str, dict[str, Any]] = {
    "grpo": {"temporal": False},
    "grpo_longer": {"temporal": False, "more": 1.5},  # as many rollouts as those with contrast rollouts
    "tgrpo": {},
    "tgrpo_advantage": {"temporal_bonus": "advantage"},
    "gap_advantage": {"objective": "gap", "temporal_bonus": "advantage"},
    "log_prob_drop": {"objective": "log_prob_drop"},
    "relation": {**LABELS, "objective": "relation"},
    "relation_advantage": {**LABELS, "objective": "relation", "temporal_bonus": "advantage"},
    "crpo_labels": LABELS,
    "crpo_wrong_labels": {**LABELS, "objective_column": "about_wrong"},
    "crpo_self": {"objective": "crpo", "objective_router": "self"},
    "crpo_explores": {"objective": "crpo", "objective_router": "self", "objective_explore": 0.2},
    "crpo_gap": {"objective": "crpo", "objective_router": "gap"},
    "crpo_gap_explores": {"objective": "crpo", "objective_router": "gap", "objective_explore": 0.2},
    "crpo_all": {"objective": "crpo", "objective_router": "none"},
}
CLAIMS: dict[str, dict[str, Any]] = {  # the paper's other claims, to compare with "tgrpo"
    "tgrpo_mu_0.8": {"temporal_mu": 0.8},
    "tgrpo_length": {"length": (9, 11)},  # tokens: of four colours, not of the mark alone
    "tgrpo_images": {"images": True},
    "tgrpo_no_cold_start": {"cold": False},
}
COMMON = {
    "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "activation_checkpointing": False,
    "disable_tqdm": True, "video_max_pixels": 784, "video_num_workers": 0, "dataloader_num_workers": 0, "logging_steps": 1000,
}  # fmt: skip
FIELDS = {**OBJECTIVES, **CLAIMS}
LENGTH = 11  # tokens of a completion: four colours, a letter, tags and end are ten
Figures = dict[str, float]


class Run(NamedTuple):
    """One run, and its key in the file of results."""

    objective: str
    q: float
    seed: int
    cold_steps: int
    steps: int
    learning_rate: float = 1e-3  # of the training, not of the cold start


@functools.cache
def _decoded(source: object, **settings: Any) -> Any:
    return load_video(source, **settings)


def loader(source: object, *, fps: float, min_frames: int, max_frames: int, num_frames: int | None) -> Any:
    """`load_video`, each video once in a process: the runs share them."""
    return _decoded(source, fps=fps, min_frames=min_frames, max_frames=max_frames, num_frames=num_frames)


@dataclass
class Study:
    """
    Where the runs happen, and what they share in memory.

    Args:
        folder (`Path`): of videos, records and cold starts.
        sizes (`dict`): rows of each set, see [`make_sets`]. rows (`int`): rollouts of a step, of groups of 8.
        check_every (`int`): steps between two looks at the held-out questions.
    """

    folder: Path
    sizes: dict[str, int] = field(default_factory=lambda: SIZES)
    rows: int = 64
    check_every: int = 9
    loaded: dict[float, dict[str, datasets.Dataset]] = field(default_factory=dict)
    prompts: dict[tuple[str, bool, bool], list[tuple[str, EncodedPrompt]]] = field(default_factory=dict)
    before: dict[Path, dict[str, Figures]] = field(default_factory=dict)

    def sets(self, q: float) -> dict[str, datasets.Dataset]:
        if q not in self.loaded:
            self.loaded[q] = make_sets(self.folder, q, self.sizes)
        return self.loaded[q]

    def start_of(self, run: Run, all_steps: tuple[int, ...]) -> Path:
        """The folder of the cold start of a seed after so many steps; one training gives those of all of `all_steps`."""
        cold = FIELDS[run.objective].get("cold", True)
        folder = self.folder / f"cold{run.seed}_{run.cold_steps if cold else 0}"
        if not (folder / "processor_config.json").exists():
            model, processor = toy.make_model(run.seed)
            if not cold:
                model.save_pretrained(folder)
                processor.save_pretrained(folder)
                return folder
            args = VideoSFTConfig(
                str(self.folder / f"sft{run.seed}"), learning_rate=1e-3, lr_scheduler_type="constant",
                max_steps=max(all_steps), per_device_train_batch_size=32, seed=run.seed, **COMMON,
            )  # fmt: skip

            def keep(step: int) -> None:
                if step in all_steps:
                    model.save_pretrained(self.folder / f"cold{run.seed}_{step}")
                    processor.save_pretrained(self.folder / f"cold{run.seed}_{step}")

            trainer = VideoSFTTrainer(
                model,
                args,
                self.sets(1.0)["cold"],
                processing_class=processor,
                video_loader=loader,
                callbacks=[AtSteps(keep)],
            )
            trainer.train()
        return folder

    def train(self, run: Run, all_steps: tuple[int, ...]) -> dict[str, Any]:
        """A run: the cold start of its seed trained by its objective; the figures as they go to the file of results."""
        start, sets = self.start_of(run, all_steps), self.sets(run.q)
        processor = AutoProcessor.from_pretrained(start)
        if start not in self.before:
            self.before[start] = self.report(AutoModelForImageTextToText.from_pretrained(start), processor)
        fields = dict(FIELDS[run.objective])
        fields.pop("cold", None)
        rewards: list[Any] = [accuracy_reward, format_reward]
        if tokens := fields.pop("length", None):
            rewards.append(get_length_reward(min_tokens=tokens[0], max_tokens=tokens[1]))
        rows = (
            with_images(self.folder, run.q, len(sets["train"]) // 4) if fields.pop("images", False) else sets["train"]
        )
        options = {} if fields.pop("temporal", True) else {"temporal_reward_func": None}
        steps = round(run.steps * fields.pop("more", 1))
        args = TGRPOConfig(
            str(self.folder / "rl"), per_device_train_batch_size=self.rows, num_generations=8, num_contrast_generations=4,
            max_steps=steps, max_completion_length=LENGTH, temperature=0.9, top_p=1.0,
            learning_rate=run.learning_rate, beta=0.0, seed=run.seed,
            **fields, **COMMON,
        )  # fmt: skip
        curve = [[0, self.before[start]["lies"].get("order", 0.0)]]

        def look(step: int) -> None:
            if step % self.check_every == 0 and step < steps:
                curve.append([step, self.measured(trainer.model, processor, "lies", order_alone=True)["order"]])
                trainer.model.train()

        trainer = TGRPOTrainer(
            str(start), rewards, args, rows, processing_class=processor, video_loader=loader,
            callbacks=[AtSteps(look)], **options,
        )  # fmt: skip
        began, cpu = time.perf_counter(), time.process_time()
        trainer.train()
        cost = {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
        after = self.report(trainer.model, processor)
        curve.append([steps, after["lies"]["order"]])
        return {**run._asdict(), "before": self.before[start], "after": after, "curve": curve, **cost}

    def report(self, model: PreTrainedModel, processor: Any) -> dict[str, Figures]:
        found = {name: self.measured(model, processor, name) for name in ("lies", "truth")}
        return {**found, "shuffled": self.measured(model, processor, "lies", shuffled=True, order_alone=True)}

    def measured(
        self, model: PreTrainedModel, processor: Any, name: str, shuffled: bool = False, order_alone: bool = False
    ) -> Figures:
        """Shares right of each kind of question, greedily; of those about order also the shares of rationales that say the mark alone,
        and of answers that are the mark's."""
        rows, settings = self.sets(1.0)[name], GenerationSettings(max_new_tokens=LENGTH, video_max_pixels=784)
        if order_alone:
            rows = rows.select([place for place, kind in enumerate(rows["kind"]) if kind == "order"])
        backend = TransformersBackend(model, processor, settings, video_loader=loader)
        asked_before = name, shuffled, order_alone
        if asked_before not in self.prompts:
            asked = requests(rows, contrast=shuffle_frames if shuffled else None)
            self.prompts[asked_before] = [(each.key, backend.encode(each)[0]) for each in asked]
        texts = [each.text or "" for each in backend.complete_batch(self.prompts[asked_before])]
        right = accuracy_reward(texts, **{column: rows[column] for column in ("solution", "problem_type", "options")})
        found = defaultdict(list)
        for text, value, kind, mark in zip(texts, right, rows["kind"], rows["mark"], strict=True):
            found[kind].append(value)
            if kind == "order":
                found["says_mark"].append(float(text.split("</think>")[0].replace("<think>", "").strip() == mark))
                found["answers_mark"].append(float(extract_answer(text) == toy._letter(mark)))
        return {kind: round(mean(values), 4) for kind, values in found.items()}


class AtSteps(TrainerCallback):
    """Calls a function with the number of steps done, after each."""

    def __init__(self, function: Callable[[int], None]):
        self._function = function

    def on_step_end(self, args: object, state: Any, control: object, **kwargs: object) -> None:
        self._function(state.global_step)
