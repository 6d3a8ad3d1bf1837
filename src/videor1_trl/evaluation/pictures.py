"""Small pictures of what some questions showed, kept beside the results, so that the page of a run shows them with the answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ..generation.journal import write_lines
from ..generation.media import LoadedRequest, load_requests
from ..generation.requests import Backend
from ..media.thumbnails import Shown, show
from ..media.video import load_video
from .questions import Question
from .run import CONTROLS, request_of
from .summary import ORDERED, Answers


FRAMES = "frames"  # the folder of the pictures, and, with .jsonl, the file that says what each question showed
SIDE = 160  # pixels of the longer side of a picture


def keep_pictures(
    folder: str | Path, questions: Sequence[Question], answers: Answers, backend: Backend, most: int
) -> int:
    """
    Read the videos of some questions again, as they were asked, and keep small JPEGs of their frames, in order and under each
    control that they were asked under: at most `thumbnails.MAX_FRAMES` of each, in `frames/`, named by what they show, with a
    line for each question in `frames.jsonl`.

    Args:
        questions (`Sequence[Question]`), answers (`dict`): as of [`~run.write_results`].
        backend ([`Backend`]): that answered: its settings say how videos are sampled.
        most (`int`): questions with a video whose frames are kept (>= 1), evenly spread over all.

    Returns:
        `int`: how many questions have pictures; those whose video cannot be read have none.
    """
    folder = Path(folder)
    with_video = [each for each in questions if each.videos and each.key in answers[ORDERED]]
    count = min(most, len(with_video))
    chosen = [with_video[place * len(with_video) // count] for place in range(count)]
    lines = [line for question in chosen if (line := _line(folder, question, answers, backend)) is not None]
    write_lines(folder / f"{FRAMES}.jsonl", (line for line, _ in lines))
    named = {name for _, names in lines for name in names}
    for path in (folder / FRAMES).glob("*"):  # of a start that kept others, or that was ended
        if f"{FRAMES}/{path.name}" not in named:
            path.unlink()
    return len(lines)


def _line(
    folder: Path, question: Question, answers: Answers, backend: Backend
) -> tuple[dict[str, object], set[str]] | None:
    """The line of a question and the pictures that it names, which are written; `None` without any."""
    asked = [name for name, contrast in CONTROLS.items() if contrast and question.key in answers.get(name, {})]
    requests = [request_of(question, condition, backend) for condition in (ORDERED, *asked)]
    loaded = {each.request.key: each for each in load_requests(requests, backend.settings, load_video)}
    if any(each.error is not None for each in loaded.values()):
        return None
    shown = {name: _shown(loaded[request.key]) for name, request in zip((ORDERED, *asked), requests, strict=True)}
    pictures = {name: each.contrast or each.ordered for name, each in shown.items()}
    names = {name: [_kept(folder, picture) for picture in each] for name, each in pictures.items()}
    return {"key": question.key, "seconds": shown[ORDERED].seconds, **names}, {
        name for each in names.values() for name in each
    }


def _shown(loaded: LoadedRequest) -> Shown:
    contrast = [frames for frames, _ in loaded.videos] if loaded.request.contrast is not None else []
    seconds = [[float(second) for second in metadata.timestamps] for _, metadata in loaded.ordered]
    return show([frames for frames, _ in loaded.ordered], contrast, seconds, [], SIDE)


def _kept(folder: Path, picture: bytes) -> str:
    """The name of a picture in the folder, where it is written unless it is there."""
    name = f"{FRAMES}/{hashlib.sha256(picture).hexdigest()[:20]}.jpg"
    path = folder / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(picture)
        unfinished.replace(path)
    return name
