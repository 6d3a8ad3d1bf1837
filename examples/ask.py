"""
Asks a video-language model one question about a video or images, and prints its answer as it comes.

    python examples/ask.py --model_name_or_path Video-R1/Video-R1-7B --video clip.mp4 --question "Which way does it turn?" \
        --options "A. left" "B. right"

    # does the answer need the order of the frames? The same question on shuffled frames, and a picture of both
    python examples/ask.py --model_name_or_path runs/toy --video runs/toy/data/videos/held_out_00001.mp4 \
        --video_max_pixels 784 --question "Which colour is first?" --options "A. red" "B. green" "C. blue" "D. yellow" \
        "E. white" "F. purple" --contrast --show_frames frames.png

One GPU with room for the model (7 B: 20 GB), or a CPU for a small one; seconds. The last line is the extracted answer,
`answer: B`, or one such line for each kind of frames.
"""

# /// script
# dependencies = ["videor1_trl"]
# ///

import math
from dataclasses import dataclass, field
from pathlib import Path

from run_data import expected_errors, stop


COLUMNS = 8  # frames in a line of the picture
TILE = 112  # pixels that a frame of the picture is wide at least: smaller ones are enlarged by whole factors


@dataclass
class ScriptArguments:
    """The model, and what it is asked; how it answers is in GenerationSettings."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Hub id, or a folder with a model and its processor."}
    )
    question: str | None = field(default=None, metadata={"help": "What is asked."})
    video: str | None = field(default=None, metadata={"help": "A video file."})
    image: list[str] = field(default_factory=list, metadata={"help": "One image file or several."})
    start: float | None = field(default=None, metadata={"help": "Second of the video from which on it is shown."})
    end: float | None = field(default=None, metadata={"help": "Second of the video up to which it is shown."})
    problem_type: str | None = field(
        default=None,
        metadata={
            "help": "Kind of answer that is asked for, in <answer> tags after some thought: multiple choice, numerical, "
            "OCR, free-form or regression; 'none' asks the question as it is. None: multiple choice where there are "
            "options, else free-form."
        },
    )
    options: list[str] = field(
        default_factory=list, metadata={"help": "Options of a multiple-choice question, such as 'A. left' 'B. right'."}
    )
    contrast: str | None = field(
        default=None,
        metadata={
            "help": "Answer a second time on these frames: shuffled (also without a value), reversed, or frozen (one "
            "frame in the place of all).",
            "nargs": "?",
            "const": "shuffled",
            "choices": ["shuffled", "reversed", "frozen"],
        },
    )
    show_frames: str | None = field(
        default=None, metadata={"help": "Picture (.png) of the frames and images as the model saw them."}
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    dtype: str = field(default="auto", metadata={"help": "auto, bfloat16, float16 or float32."})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention, such as sdpa or flash_attention_2. None: transformers decides."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})


def make_parser():
    from trl import TrlParser

    from videor1_trl.generation_requests import GenerationSettings

    parser = TrlParser((ScriptArguments, GenerationSettings), description=__doc__.strip().splitlines()[0])
    parser.error = stop
    return parser


def check(args) -> None:
    """Refuses what does not fit before the model is loaded."""
    from videor1_trl.prompts import PROBLEM_TYPES

    for name in ("model_name_or_path", "question"):
        if not getattr(args, name):
            stop(f"{name} is not set.")
    name = args.model_name_or_path
    if not Path(name).is_dir() and (Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1):
        stop(f"model_name_or_path ({name}) is not a folder. Give one with a model and its processor, or a Hub id.")
    if args.problem_type not in (None, "none", *PROBLEM_TYPES):
        stop(f"problem_type ({args.problem_type!r}) must be one of {', '.join(PROBLEM_TYPES)}, or none.")
    if args.options and args.problem_type not in (None, "multiple choice"):
        stop(f"options are for problem_type 'multiple choice', not {args.problem_type!r}.")
    if args.video is None and (args.contrast or args.start is not None or args.end is not None):
        stop("contrast, start and end need a video.")
    if args.show_frames and not (args.video or args.image):
        stop("show_frames needs a video or an image.")
    for path in [*([args.video] if args.video else []), *args.image]:
        if not Path(path).is_file():
            stop(f"{path} is no file.")


def make_request(args, settings, contrast: str | None):
    from videor1_trl import freeze_frame, make_prompt, reverse_frames, shuffle_frames
    from videor1_trl.generation_requests import GenerationRequest

    contrasts = {"shuffled": shuffle_frames, "reversed": reverse_frames, "frozen": freeze_frame}
    problem_type = args.problem_type or ("multiple choice" if args.options else "free-form")
    prompt = [{"role": "user", "content": args.question}]
    if problem_type != "none":
        prompt = make_prompt(args.question, problem_type, args.options)
    return GenerationRequest(
        key="question",  # also on contrast frames: sampled tokens then differ by the frames alone
        prompt=prompt,
        videos=[{"path": args.video, "start": args.start, "end": args.end}] if args.video else [],
        images=args.image,
        contrast=contrasts[contrast] if contrast else None,
        seed=settings.seed,
    )


def answer(backend, name: str, encoded, verbatim: bool) -> str:
    """Prints the completion as it comes; the line that says what it answers."""
    from videor1_trl import extract_answer

    print(f"[{name}, {len(encoded.input_ids)} prompt tokens]")
    completion = backend.complete("question", encoded, on_text=lambda piece: print(piece, end="", flush=True))
    print()
    if not completion.finished:
        print(f"(cut off after max_new_tokens, {backend.settings.max_new_tokens})")
    found = completion.text.strip() if verbatim else extract_answer(completion.text)
    return "none, the completion has no <answer>...</answer>" if found is None else found


def captioned(backend, encoded, loaded) -> list[tuple]:
    """The pictures of one prompt, each with its caption."""
    from torchvision.transforms.functional import to_pil_image

    from videor1_trl.seen import seen_media

    media = seen_media(backend.processor, encoded)
    tiles = []
    for (_, metadata), frames in zip(loaded.videos, media, strict=False):
        seconds = metadata.timestamps
        tiles += [(to_pil_image(f), f"{second:.2f} s") for f, second in zip(frames, seconds, strict=False)]
    for place, frames in enumerate(media[len(loaded.videos) :], start=1):
        tiles.append((to_pil_image(frames[0]), f"image {place}"))
    return tiles


def draw_frames(path: str, lines: dict[str, list[tuple]]) -> None:
    """Saves every picture pixel by pixel, its time below it, one block for each kind of frames."""
    from PIL import Image, ImageDraw, ImageFont

    tiles = [tile for line in lines.values() for tile, _ in line]
    factor = math.ceil(TILE / min(tile.width for tile in tiles))
    width, height = (factor * max(getattr(tile, side) for tile in tiles) for side in ("width", "height"))
    columns = min(COLUMNS, max(map(len, lines.values())))
    heights = [24 + math.ceil(len(line) / columns) * (height + 24) for line in lines.values()]
    picture = Image.new("RGB", (columns * (width + 8) + 8, sum(heights) + 8), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    top = 4
    for (name, line), block in zip(lines.items(), heights, strict=True):
        sizes = " and ".join(sorted({f"{tile.width} x {tile.height}" for tile, _ in line}))
        draw.text((8, top), f"{name}: {len(line)} of {sizes} pixels", "black", font)
        for place, (tile, caption) in enumerate(line):
            x, y = 8 + place % columns * (width + 8), top + 24 + place // columns * (height + 24)
            enlarged = tile.resize((factor * tile.width, factor * tile.height), Image.Resampling.NEAREST)
            picture.paste(enlarged, (x, y))
            draw.text((x, y + height + 2), caption, "black", font)
        top += block
    picture.save(path)


def main():
    parser = make_parser()
    with expected_errors():
        args, settings = parser.parse_args_and_config()
    check(args)

    import torch

    from videor1_trl.generation import make_backend

    with expected_errors(f"model_name_or_path ({args.model_name_or_path}): "):
        backend = make_backend(
            "transformers",
            args.model_name_or_path,
            settings,
            revision=args.model_revision,
            dtype=args.dtype,
            attn_implementation=args.attn_implementation,
            trust_remote_code=args.trust_remote_code,
        )
    shown = "frames in order" if args.video else "images" if args.image else "text only"
    kinds = {shown: None, **({f"{args.contrast} frames": args.contrast} if args.contrast else {})}
    with expected_errors():
        prompts = {name: backend.encode(make_request(args, settings, contrast)) for name, contrast in kinds.items()}
        if args.show_frames:
            draw_frames(args.show_frames, {name: captioned(backend, *prompt) for name, prompt in prompts.items()})
            print(f"Saved {args.show_frames}.")
    try:
        answers = {
            name: answer(backend, name, encoded, args.problem_type == "none") for name, (encoded, _) in prompts.items()
        }
    except torch.OutOfMemoryError as error:
        stop(str(error))
    for name, found in answers.items():
        print(f"answer{f', {name}' if len(answers) > 1 else ''}: {found}")


if __name__ == "__main__":
    main()
