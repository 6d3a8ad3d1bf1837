"""A tiny Qwen2.5-VL, its tokenizer and moving-colour mp4 files with questions, all made on the spot."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm.auto import tqdm
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from ..text.prompts import make_prompt


COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (40, 50, 220),
    "yellow": (230, 220, 40),
    "white": (235, 235, 235),
    "purple": (160, 40, 190),
}
DIRECTIONS = {  # name: the sides that the square shows at the start and at the end
    "left to right": ("left", "right"),
    "right to left": ("right", "left"),
    "top to bottom": ("top", "bottom"),
    "bottom to top": ("bottom", "top"),
}
KINDS = ("order", "direction", "count", "colour", "image colour", "image share")
STEPS = 4  # colours of a video, one after the other
FRAMES_PER_STEP, FPS = 4, 4  # a video lasts 4 s; at 2 frames a second each colour fills one temporal patch
SIZE = 56  # pixels of a side on disk; the processor's budget halves it to one visual token
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")  # one token each, as in Qwen3: completions stay short
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>
{%- else -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""


# Questions


def make_dataset(
    folder: str | Path,
    name: str,
    size: int,
    *,
    seed: int,
    held_out: bool = False,
    order_share: float = 0.5,
    progress: bool = True,
) -> Path:
    """
    Writes `size` questions in Video-R1's record format with their media, and returns the JSON file.

    The media go to `folder/videos` and `folder/images`, the records to `folder/{name}.json`. The same arguments give
    the same records and frames. The colour sequences of held-out order questions never occur elsewhere.

    Args:
        folder (`str` or `Path`): root that the records' `path` is relative to; made where it is missing.
        name (`str`): name of the JSON file, and the beginning of every media file's name.
        size (`int`): number of records, >= 1.
        seed (`int`): different files need different seeds, which also set `problem_id` apart.
        held_out (`bool`, defaults to `False`): draw the order questions' colour sequences from the reserved fifth.
        order_share (`float`, defaults to `0.5`): share of order questions, in [0, 1]; the other kinds divide the rest.
        progress (`bool`, defaults to `True`): show a progress bar.
    """
    folder = Path(folder)
    rng = random.Random(seed)
    num_order = round(order_share * size)
    others = KINDS[1:]
    kinds = ["order"] * num_order + [others[index % len(others)] for index in range(size - num_order)]
    rng.shuffle(kinds)
    records = []
    for index, kind in enumerate(tqdm(kinds, desc=f"toy {name} media", disable=not progress)):
        problem, answer, options, steps, frames = _QUESTIONS[kind](rng, held_out)
        if len(frames) > 1:
            data_type, path = "video", f"./videos/{name}_{index:05d}.mp4"
            write_video(folder / path, frames)
        else:
            data_type, path = "image", f"./images/{name}_{index:05d}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frames[0]).save(folder / path)
        records.append(
            {
                "problem_id": seed * 100_000 + index,
                "problem": problem,
                "data_type": data_type,
                "problem_type": _PROBLEM_TYPES[kind],
                "options": options,
                "process": f"<think>{' '.join(steps)}</think>",
                "solution": f"<answer>{answer}</answer>",
                "path": path,
                "data_source": f"toy/{kind}",
            }
        )
    target = folder / f"{name}.json"
    target.write_text(json.dumps(records, indent=1) + "\n")
    return target


def write_video(path: str | Path, frames: np.ndarray) -> None:
    """Writes uint8 frames (T, H, W, 3) as h264 mp4 at `FPS` frames a second; sides must be even."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:  # no time stamp of its making
        options = {"crf": "18", "preset": "ultrafast", "threads": "1"}  # with other presets the bytes vary
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _paint(rng: random.Random, colours: Sequence[str]) -> np.ndarray:
    """(T, SIZE, SIZE, 3) uint8: each colour of `colours` for one step, in a brightness of its own, with noise."""
    noise = np.random.default_rng(rng.getrandbits(32))
    frames = []
    for colour in colours:
        base = np.array(COLOURS.get(colour, (15, 15, 15))) * rng.uniform(0.75, 1.0)
        frames += [base + noise.normal(0, 4, (SIZE, SIZE, 3)) for _ in range(FRAMES_PER_STEP)]
    return np.stack(frames).clip(0, 255).astype(np.uint8)


Question = tuple[str, str, list[str], list[str], np.ndarray]  # its text, answer, options and thoughts, and the frames


def _options() -> list[str]:
    return [f"{letter}. {name}" for letter, name in zip("ABCDEF", COLOURS, strict=True)]


def _letter(colour: str) -> str:
    return "ABCDEF"[list(COLOURS).index(colour)]


def _order(rng: random.Random, held_out: bool) -> Question:
    names = list(COLOURS)
    while True:
        colours = rng.sample(names, STEPS)
        reserved = sum(place * names.index(colour) for place, colour in enumerate(colours, 1)) % 5 == 0
        if reserved == held_out:
            break
    return "Which colour is first?", _letter(colours[0]), _options(), colours, _paint(rng, colours)


def _direction(rng: random.Random, held_out: bool) -> Question:
    name = rng.choice(list(DIRECTIONS))
    start, end = DIRECTIONS[name]
    frames = _paint(rng, ["black"] * STEPS)
    bar = _paint(rng, [rng.choice(list(COLOURS))] * STEPS)
    half = SIZE // 2
    for index in range(len(frames)):
        way = round(index / (len(frames) - 1) * half)
        offset = way if start in ("left", "top") else half - way
        side = slice(offset, offset + half)
        place = (index, slice(None), side) if start in ("left", "right") else (index, side, slice(None))
        frames[place] = bar[place]
    return "In which direction does the bar move?", name, [], [start, end], frames


def _count(rng: random.Random, held_out: bool) -> Question:
    colour = rng.choice(list(COLOURS))
    number = rng.randint(1, STEPS)
    colours = rng.sample([colour] * number + ["black"] * (STEPS - number), STEPS)
    return f"How many times does {colour} appear?", str(number), [], colours, _paint(rng, colours)


def _colour(rng: random.Random, held_out: bool) -> Question:
    colours = [rng.choice(list(COLOURS))] * STEPS
    return "Which colour is shown?", _letter(colours[0]), _options(), colours, _paint(rng, colours)


def _image_colour(rng: random.Random, held_out: bool) -> Question:
    colour = rng.choice(list(COLOURS))
    return "What is the colour of the image?", colour, [], [colour], _paint(rng, [colour])[:1]


def _image_share(rng: random.Random, held_out: bool) -> Question:
    colour, quarters = rng.choice(list(COLOURS)), rng.randint(1, 4)
    frame, painted = _paint(rng, ["black", colour])[[0, FRAMES_PER_STEP]]
    height = SIZE * quarters // 4
    frame[:height] = painted[:height]
    return f"What percentage of the image is {colour}?", str(25 * quarters), [], [colour], frame[None]


_QUESTIONS: dict[str, Callable[[random.Random, bool], Question]] = dict(
    zip(KINDS, (_order, _direction, _count, _colour, _image_colour, _image_share), strict=True)
)
_PROBLEM_TYPES = dict(
    zip(
        KINDS,
        ("multiple choice", "free-form", "numerical", "multiple choice", "free-form", "regression"),
        strict=True,
    )
)


# Model


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the toy's questions and answers (their words are whole tokens), padding left."""
    rng = random.Random(0)
    texts = []
    for kind in KINDS * 40:
        problem, answer, options, steps, _ = _QUESTIONS[kind](rng, False)
        texts.append(make_prompt(problem, _PROBLEM_TYPES[kind], options)[0]["content"])
        texts += [f"{' '.join(steps)} {answer}", *COLOURS, *DIRECTIONS, "25 50 75 100 system user assistant\n"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL),
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def make_model(
    seed: int = 0, *, width: int = 128, layers: int = 2, vision_depth: int = 1
) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """
    A random Qwen2.5-VL of under two million parameters, and its processor.

    Args:
        seed (`int`, defaults to `0`): sets the weights, without touching torch's global generator.
        width (`int`, defaults to `128`): hidden size, of four heads; a multiple of 64.
        layers (`int`, defaults to `2`): layers of the language model.
        vision_depth (`int`, defaults to `1`): blocks of the vision tower.

    Returns:
        `(Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor)`: float32 on the CPU; the processor resizes every
        frame to 28 x 28 pixels, one visual token per two frames.
    """
    tokenizer = make_tokenizer()
    vocabulary = tokenizer.get_vocab()
    ids = {token: vocabulary[token] for token in SPECIAL}
    half_head = width // 4 // 2  # the three sections of the rotary dimension sum to half a head
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [half_head // 4, 3 * half_head // 8, 3 * half_head // 8],
            },
        },
        vision_config={
            "depth": vision_depth,
            "hidden_size": width // 2,
            "intermediate_size": width,
            "num_heads": 4,
            "out_hidden_size": width,
            "fullatt_block_indexes": [vision_depth - 1],
            "tokens_per_second": 2,  # as the released 7 B model
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=pixels),
        video_processor=Qwen2VLVideoProcessor(size=pixels, cap_pixels_per_frame=False),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor
