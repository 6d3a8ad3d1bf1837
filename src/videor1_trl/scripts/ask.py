"""Asks a video-language model one question about a video or images, and prints its answer as it comes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..media.addresses import is_remote, split_member, without_secrets
from .command_line import CommandParser
from .messages import expected_errors, run_command, stop
from .model_flags import BackendArguments, check_backend, open_backend
from .record_flags import WordingArguments, check_wording, name_store


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from PIL.Image import Image as Picture

    from videor1_trl.contrast import Contrast
    from videor1_trl.generation.media import LoadedRequest
    from videor1_trl.generation.requests import Backend, GeneratedCompletion, GenerationRequest, GenerationSettings
    from videor1_trl.models.encoding import EncodedPrompt

    Tile = tuple[Picture, str]  # and its caption


COLUMNS = 8  # frames in a line of the picture
TILE = 112  # pixels that a frame of the picture is wide at least: smaller ones are enlarged by whole factors


@dataclass
class ScriptArguments(WordingArguments):
    """What the model is asked; how it answers is in GenerationSettings."""

    question: str | None = field(default=None, metadata={"help": "What is asked."})
    video: str | None = field(
        default=None,
        metadata={
            "help": "A video file, a member of an archive (clips.zip::a.mp4), or the address of either in a store."
        },
    )
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


def make_parser() -> CommandParser:
    from videor1_trl.generation.requests import GenerationSettings

    groups = {
        "what is asked": ScriptArguments,
        "the model that answers": BackendArguments,
        "how it answers, videos and images": GenerationSettings,
    }
    return CommandParser(__doc__, groups)


def check(args: ScriptArguments, backend_args: BackendArguments, settings: GenerationSettings) -> None:
    """Refuses what does not fit before the model is loaded."""
    from videor1_trl.text.prompts import PROBLEM_TYPES

    check_wording(args)
    check_backend(backend_args)
    if not args.question:
        stop("--question is not set.")
    if args.problem_type not in (None, "none", *PROBLEM_TYPES):
        stop(f"--problem_type ({args.problem_type!r}) must be one of {', '.join(PROBLEM_TYPES)}, or none.")
    if args.options and args.problem_type not in (None, "multiple choice"):
        stop(f"--options are for --problem_type 'multiple choice', not {args.problem_type!r}.")
    if args.video is None and (args.contrast or args.start is not None or args.end is not None):
        stop("--contrast, --start and --end need a --video.")
    if args.show_frames and not (args.video or args.image):
        stop("--show_frames needs a --video or an --image.")
    if args.show_frames and backend_args.backend == "server":
        stop("--show_frames does not go with --backend server, which resizes the frames that it gets. Leave one out.")
    for path in [*([args.video] if args.video else []), *args.image]:
        with expected_errors(f"{without_secrets(path)}: "):
            name_store(settings, path)
        if not is_remote(path) and not Path(split_member(path)[0]).is_file():
            stop(f"{path} is no file.")


def make_request(args: ScriptArguments, settings: GenerationSettings, contrast: str | None) -> GenerationRequest:
    from videor1_trl import freeze_frame, make_prompt, reverse_frames, shuffle_frames
    from videor1_trl.generation.requests import GenerationRequest
    from videor1_trl.text.prompts import load_prompt_template

    assert args.question is not None  # see `check`
    contrasts: dict[str, Contrast] = {"shuffled": shuffle_frames, "reversed": reverse_frames, "frozen": freeze_frame}
    problem_type = args.problem_type or ("multiple choice" if args.options else "free-form")
    prompt = [{"role": "user", "content": args.question}]
    if problem_type != "none":
        template = None if args.prompt_template is None else load_prompt_template(args.prompt_template)
        prompt = make_prompt(args.question, problem_type, args.options, template)
    return GenerationRequest(
        key="question",  # also on contrast frames: sampled tokens then differ by the frames alone
        prompt=prompt,
        videos=[{"path": args.video, "start": args.start, "end": args.end}] if args.video else [],
        images=args.image,
        contrast=contrasts[contrast] if contrast else None,
        seed=settings.seed,
    )


@dataclass
class Asked:
    """A request; where the model runs here, also what it reads of it, and the media."""

    request: GenerationRequest
    encoded: EncodedPrompt | None = None
    loaded: LoadedRequest | None = None


def ask_for(backend: Backend, request: GenerationRequest) -> Asked:
    """The request, encoded where its completion can then be had of the same."""
    if not hasattr(backend, "encode"):  # a server encodes by itself
        return Asked(request)
    here: Any = backend
    return Asked(request, *here.encode(request))


def completed(backend: Backend, name: str, asked: Asked) -> GeneratedCompletion:
    """The completion, printed: piece by piece where transformers makes it, else when it is there."""
    if asked.encoded is None:
        [completion] = backend.generate([asked.request])
        print(f"[{name}, {completion.num_prompt_tokens} prompt tokens]\n{completion.text or ''}")
        return completion
    here: Any = backend
    print(f"[{name}, {len(asked.encoded.input_ids)} prompt tokens]")
    found: GeneratedCompletion = here.complete(
        "question", asked.encoded, on_text=lambda piece: print(piece, end="", flush=True)
    )
    print()
    return found


def answer(backend: Backend, name: str, asked: Asked, verbatim: bool) -> str:
    """Prints the completion; the line that says what it answers."""
    from videor1_trl import extract_answer

    completion = completed(backend, name, asked)
    if completion.error is not None:
        stop(completion.error)
    if not completion.finished:
        print(f"(cut off after max_new_tokens, {backend.settings.max_new_tokens})")
    text = completion.text or ""
    found = text.strip() if verbatim else extract_answer(text)
    return "none, the completion has no <answer>...</answer>" if found is None else found


def captioned(backend: Any, asked: Asked) -> list[Tile]:
    """The pictures of one prompt, each with its caption."""
    from torchvision.transforms.functional import to_pil_image

    from videor1_trl.models.seen import seen_media

    encoded, loaded = asked.encoded, asked.loaded
    assert encoded is not None and loaded is not None  # see `check`
    media = seen_media(backend.processor, encoded)
    tiles = []
    for (_, metadata), frames in zip(loaded.videos, media, strict=False):
        seconds = metadata.timestamps
        tiles += [(to_pil_image(f), f"{second:.2f} s") for f, second in zip(frames, seconds, strict=False)]
    for place, frames in enumerate(media[len(loaded.videos) :], start=1):
        tiles.append((to_pil_image(frames[0]), f"image {place}"))
    return tiles


def draw_frames(path: str, lines: dict[str, list[Tile]]) -> None:
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


def main() -> None:
    args, backend_args, settings = make_parser().parse()
    check(args, backend_args, settings)

    import torch

    from videor1_trl.generation.server_faults import ServerError

    backend = open_backend(backend_args, settings)
    shown = "frames in order" if args.video else "images" if args.image else "text only"
    kinds = {shown: None, **({f"{args.contrast} frames": args.contrast} if args.contrast else {})}
    with expected_errors():
        asked = {name: ask_for(backend, make_request(args, settings, contrast)) for name, contrast in kinds.items()}
        if args.show_frames:
            draw_frames(args.show_frames, {name: captioned(backend, each) for name, each in asked.items()})
            print(f"Saved {args.show_frames}.")
    try:
        answers = {name: answer(backend, name, each, args.problem_type == "none") for name, each in asked.items()}
    except (torch.OutOfMemoryError, ServerError) as error:
        stop(str(error))
    for name, found in answers.items():
        print(f"answer{f', {name}' if len(answers) > 1 else ''}: {found}")


if __name__ == "__main__":
    run_command(main)
