"""The toy's supervised cold start, and greedy answers to its held-out questions, through the trainer's own encoding."""

import random

import torch
from tqdm.auto import tqdm

from videor1_trl import accuracy_reward, correct_positions, load_image, load_video
from videor1_trl.batch import media_list, place_media
from videor1_trl.families import EncodedPrompt, collate_features, collate_token_types, encode_prompt


def contrast_generator(index: int) -> torch.Generator:
    """The generator of a held-out question's contrast: fixed by its place in the file."""
    return torch.Generator().manual_seed(index)


def encode_rows(processor, rows, *, contrast=None, progress: str | None = None) -> list[EncodedPrompt]:
    """
    Loads and encodes the questions as the trainer does.

    Args:
        processor (`ProcessorMixin`): the model's processor.
        rows (`Iterable[dict]`): rows of `load_video_r1`: `prompt`, and `video` or `image`.
        contrast (`Callable`, *optional*): `(frames, generator) -> frames`, such as `shuffle_frames`.
        progress (`str`, *optional*): text of the progress bar; None for no bar.
    """
    encoded = []
    for index, row in enumerate(tqdm(rows, desc=progress, disable=progress is None)):
        messages, videos, images = place_media(row["prompt"], media_list(row, "video"), media_list(row, "image"))
        videos = [load_video(source) for source in videos]
        if contrast is not None:
            generator = contrast_generator(index)
            videos = [(contrast(frames, generator), metadata) for frames, metadata in videos]
        images = [load_image(source) for source in images]
        encoded.append(encode_prompt(processor, messages, videos, images))
    return encoded


def collate(prompts: list[EncodedPrompt], completions: list[list[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """The model's inputs for prompts and completions, padded left; `labels` cover the completions alone."""
    rows = [prompt.input_ids + completion for prompt, completion in zip(prompts, completions, strict=True)]
    length = max(map(len, rows))

    def pad(lists, value):
        return torch.tensor([[value] * (length - len(ids)) + ids for ids in lists])

    token_types = {
        key: pad([types + [0] * len(completion) for types, completion in zip(lists, completions, strict=True)], 0)
        for key, lists in collate_token_types(prompts).items()
    }
    labels = pad([[-100] * len(p.input_ids) + c for p, c in zip(prompts, completions, strict=True)], -100)
    mask = pad([[1] * len(ids) for ids in rows], 0)
    return {
        "input_ids": pad(rows, pad_token_id),
        "attention_mask": mask,
        "labels": labels,
        **token_types,
        **collate_features(prompts),
    }


@torch.no_grad()
def greedy_completions(
    model, processor, prompts: list[EncodedPrompt], *, max_new_tokens: int = 24, batch_size: int = 64, progress=None
) -> list[str]:
    """The model's greedy completion of every prompt, in batches, without special tokens."""
    correct_positions(model)
    tokenizer = processor.tokenizer
    was_training = model.training
    model.eval()
    texts = []
    starts = range(0, len(prompts), batch_size)
    for start in tqdm(starts, desc=progress, disable=progress is None):
        chunk = prompts[start : start + batch_size]
        inputs = collate(chunk, [[]] * len(chunk), tokenizer.pad_token_id)
        del inputs["labels"]
        inputs = {key: value.to(model.device) for key, value in inputs.items()}
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        texts += tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    model.train(was_training)
    return texts


def right(rows, completions: list[str]) -> list[bool]:
    """Whether each completion's answer is wholly right: an accuracy reward of 1."""
    rows = list(rows)
    accuracies = accuracy_reward(
        prompts=[row["prompt"] for row in rows],
        completions=completions,
        solution=[row["solution"] for row in rows],
        problem_type=[row["problem_type"] for row in rows],
    )
    return [accuracy > 0.999 for accuracy in accuracies]


def cold_start(
    model,
    processor,
    dataset,
    *,
    seed: int = 0,
    target: float = 0.5,
    num_validation: int = 64,
    learning_rate: float = 6e-4,
    batch_size: int = 32,
    check_every: int = 5,
    max_steps: int = 1000,
    progress: bool = True,
) -> dict:
    """
    Supervised training on the records' rationales and answers until a part of the order questions is right.

    The first `num_validation` order questions are kept aside; training stops as soon as `target` of them are right.

    Args:
        model, processor: as from `make_model`; the model is trained in place.
        dataset (`datasets.Dataset`): rows of `load_video_r1`, with `process` and `data_source`.
        seed (`int`, defaults to `0`): order of the examples.
        target (`float`, defaults to `0.5`): share of order questions right, in (0, 1], at which to stop.
        num_validation (`int`, defaults to `64`): order questions that decide.
        learning_rate (`float`, defaults to `6e-4`), batch_size (`int`, defaults to `32`): of AdamW.
        check_every (`int`, defaults to `5`): steps between two looks at the validation questions; every step counts
            once half the target is reached.
        max_steps (`int`, defaults to `1000`): steps at most.
        progress (`bool`, defaults to `True`): show progress bars.

    Returns:
        `dict` with `steps`, `loss` and `validation_accuracy` at the end.

    Raises:
        `RuntimeError`: where the target is not reached in `max_steps`.
    """
    correct_positions(model)
    tokenizer = processor.tokenizer
    rows = list(dataset)
    prompts = encode_rows(processor, rows, progress="cold start: videos" if progress else None)
    texts = [f"{row['process']}\n{row['solution']}{tokenizer.eos_token}" for row in rows]
    completions = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    kept_aside = [index for index, row in enumerate(rows) if row["data_source"] == "toy/order"][:num_validation]
    pool = sorted(set(range(len(rows))) - set(kept_aside))
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    accuracy = 0.0
    bar = tqdm(range(1, max_steps + 1), desc="cold start", disable=not progress)
    model.train()
    for step in bar:
        chosen = rng.sample(pool, batch_size)
        batch = collate([prompts[i] for i in chosen], [completions[i] for i in chosen], tokenizer.pad_token_id)
        loss = model(**{key: value.to(model.device) for key, value in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % check_every == 0 or accuracy >= target / 2:  # the last stretch is covered in a dozen steps
            answers = greedy_completions(model, processor, [prompts[i] for i in kept_aside])
            accuracy = sum(right([rows[i] for i in kept_aside], answers)) / len(kept_aside)
            bar.set_postfix(loss=f"{loss.item():.3f}", order=f"{accuracy:.2f}", target=target)
            if accuracy >= target:
                bar.close()
                return {"steps": step, "loss": loss.item(), "validation_accuracy": accuracy}
    raise RuntimeError(
        f"the cold start reached {accuracy:.2f} of the order questions in {max_steps} steps, below its target "
        f"({target}). Give it more steps, or another seed."
    )
