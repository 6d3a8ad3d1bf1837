"""The toy's supervised cold start, and greedy answers to its held-out questions, as `train_sft.py` and `evaluate.py` make them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProcessorMixin,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from videor1_trl import VideoSFTConfig, VideoSFTTrainer, accuracy_reward
from videor1_trl.contrast import Contrast
from videor1_trl.data.placing import media_list
from videor1_trl.generation.requests import GeneratedCompletion, GenerationRequest, GenerationSettings
from videor1_trl.generation.transformers_backend import TransformersBackend
from videor1_trl.models.encoding import EncodedPrompt

from .progress import on_terminal


Row = dict[str, Any]  # of `load_video_r1`
SETTINGS = GenerationSettings(max_new_tokens=24, video_max_pixels=784)  # greedy


def requests(rows: Iterable[Row], *, contrast: Contrast | None = None) -> list[GenerationRequest]:
    """
    Rows of `load_video_r1` as requests; the key of each, and the seed of its contrast, is its place.

    Args:
        rows (`Iterable[dict]`): `prompt`, and `video` or `image`.
        contrast (`Callable`, *optional*): `(frames, generator) -> frames`, such as `shuffle_frames`.
    """
    return [
        GenerationRequest(
            str(place), row["prompt"], media_list(row, "video"), media_list(row, "image"), contrast, seed=place
        )
        for place, row in enumerate(rows)
    ]


def greedy_answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rows: Iterable[Row],
    *,
    contrast: Contrast | None = None,
    batch_size: int = 64,
    progress: str | None = None,
) -> list[str]:
    """The model's greedy completion of every row's prompt; `progress` names a bar, drawn on a terminal."""
    backend = TransformersBackend(model, processor, SETTINGS, batch_size=batch_size)
    asked = requests(rows, contrast=contrast)
    found: dict[str, str] = {}
    hidden = progress is None or not on_terminal()
    for completion in tqdm(backend.generate(asked), total=len(asked), desc=progress, disable=hidden, leave=False):
        found[completion.key] = text_of(completion)
    return [found[request.key] for request in asked]


def text_of(completion: GeneratedCompletion) -> str:
    """
    Raises:
        `RuntimeError`: there is none, since its media could not be read.
    """
    if completion.text is None:
        raise RuntimeError(f"question {completion.key}: {completion.error}")
    return completion.text


def right(rows: Iterable[Row], completions: Sequence[str]) -> list[bool]:
    """Whether each completion's answer is wholly right: an accuracy reward of 1."""
    rows = list(rows)
    accuracies = accuracy_reward(
        prompts=[row["prompt"] for row in rows],
        completions=completions,
        solution=[row["solution"] for row in rows],
        problem_type=[row["problem_type"] for row in rows],
    )
    return [accuracy is not None and accuracy > 0.999 for accuracy in accuracies]


class StopAtTarget(TrainerCallback):
    """
    Ends the training as soon as a share of the questions kept aside is right.

    Args:
        processor, rows: of these questions.
        target (`float`), check_every (`int`), max_steps (`int`), progress (`bool`): as of [`cold_start`].
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        rows: Iterable[Row],
        target: float,
        check_every: int,
        max_steps: int,
        progress: bool,
    ):
        self.accuracy = 0.0
        self._target, self._check_every = target, check_every
        self._rows = list(rows)
        self._prompts: list[tuple[str, EncodedPrompt]] = []
        self._processor = processor
        self._bar = tqdm(desc="cold start", total=max_steps, disable=not (progress and on_terminal()), leave=False)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **kwargs: object,
    ) -> None:
        assert model is not None  # the trainer hands it over
        self._bar.update()
        # the last stretch is covered in a dozen steps
        if state.global_step % self._check_every and self.accuracy < self._target / 2:
            return
        self.accuracy = self._share_right(model)
        self._bar.set_postfix(order=f"{self.accuracy:.2f}", target=self._target)
        control.should_training_stop |= self.accuracy >= self._target

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._bar.close()

    def _share_right(self, model: PreTrainedModel) -> float:
        backend = TransformersBackend(model, self._processor, SETTINGS)
        if not self._prompts:
            self._prompts = [(each.key, backend.encode(each)[0]) for each in requests(self._rows)]
        texts = [text_of(completion) for completion in backend.complete_batch(self._prompts)]
        return sum(right(self._rows, texts)) / len(self._rows)


def cold_start(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    dataset: Dataset,
    output_dir: str | Path,
    *,
    seed: int = 0,
    target: float = 0.5,
    num_validation: int = 64,
    learning_rate: float = 6e-4,
    batch_size: int = 32,
    check_every: int = 5,
    max_steps: int = 1000,
    progress: bool = True,
    bf16: bool = False,
    use_cpu: bool = True,
) -> dict[str, float]:
    """
    Supervised training on the records' rationales and answers until a part of the order questions is right, on all
    processes of a run together.

    The first `num_validation` order questions are kept aside; training stops as soon as `target` of them are right.

    Args:
        model, processor: as from `make_model`; the model is trained in place.
        dataset (`datasets.Dataset`): rows of `load_video_r1`, with `process` and `data_source`.
        output_dir (`str` or `Path`): of the trainer, which saves nothing there.
        seed (`int`, defaults to `0`): order of the examples.
        target (`float`, defaults to `0.5`): share of order questions right, in (0, 1], at which to stop.
        num_validation (`int`, defaults to `64`): order questions that decide.
        learning_rate (`float`, defaults to `6e-4`), batch_size (`int`, defaults to `32`, of all processes): of AdamW.
        check_every (`int`, defaults to `5`): steps between two looks at the validation questions; every step counts
            once half the target is reached.
        max_steps (`int`, defaults to `1000`): steps at most.
        progress (`bool`, defaults to `True`): show a progress bar, on a terminal.
        bf16 (`bool`, defaults to `False`), use_cpu (`bool`, defaults to `True`): as of the training that follows.

    Returns:
        `dict` with `steps`, `loss` and `validation_accuracy` at the end.

    Raises:
        `RuntimeError`: where the target is not reached in `max_steps`.
    """
    kept_aside = [i for i, source in enumerate(dataset["data_source"]) if source == "toy/order"][:num_validation]
    args = VideoSFTConfig(
        output_dir=str(output_dir),
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        max_steps=max_steps,
        seed=seed,
        video_max_pixels=SETTINGS.video_max_pixels,
        dataloader_num_workers=0,  # videos this small are decoded once and kept
        activation_checkpointing=False,
        bf16=bf16,
        use_cpu=use_cpu,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    args.per_device_train_batch_size = max(1, batch_size // args.world_size)
    progress = progress and args.process_index == 0
    stopping = StopAtTarget(processor, dataset.select(kept_aside), target, check_every, max_steps, progress)
    trainer = VideoSFTTrainer(
        model,
        args,
        dataset.select(sorted(set(range(len(dataset))) - set(kept_aside))),
        processing_class=processor,
        callbacks=[stopping],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.train()
    steps, loss = trainer.state.global_step, [log["loss"] for log in trainer.state.log_history if "loss" in log][-1]
    if stopping.accuracy < target:
        raise RuntimeError(
            f"the cold start reached {stopping.accuracy:.2f} of the order questions in {max_steps} steps, below its target "
            f"({target}). Give it more steps, or another seed."
        )
    return {"steps": steps, "loss": loss, "validation_accuracy": stopping.accuracy}
