"""Asks a benchmark's questions, on the frames in order and on controls that spoil it, and writes what the answers are worth."""

from __future__ import annotations

import dataclasses
import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from ..contrast import Contrast, freeze_frame, reverse_frames, shuffle_frames
from ..generation.journal import Journal, draw_keys, write_lines, write_whole
from ..generation.requests import Backend, GenerationRequest, SubtitlesShown, identity_and_notes
from .grouped import joined
from .questions import Question, questions_fingerprint
from .scoring import NOTHING, score
from .summary import ORDERED, Answered, Answers, summarise


Found = TypeVar("Found", bound=Any)

# What a control shows in the place of the frames in order; single-frame: one of them, drawn at random, in the place of all
CONTROLS: dict[str, Contrast | None] = {
    "shuffled": shuffle_frames,
    "reversed": reverse_frames,
    "single-frame": freeze_frame,
    "text-only": None,
}


def sample_questions(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """
    At most `limit` of the questions, in their order: the same ones at every call, and those of a smaller limit among them.

    Questions that count together are drawn together, set by set while there is room, so that most sets are whole.

    Raises:
        `ValueError`: a limit below 1.
    """
    if limit is None or limit < 1 or not any(question.together for question in questions):
        keys = set(draw_keys([question.key for question in questions], limit))
        return [question for question in questions if question.key in keys]
    names = joined(questions, videos=False)
    sizes = Counter(names)
    counts = range(1, len(sizes) + 1)
    fitting = bisect_right(counts, limit, key=lambda count: sum(sizes[name] for name in draw_keys(list(sizes), count)))
    drawn = set(draw_keys(list(sizes), fitting)) if fitting else set()
    if not drawn:
        raise ValueError(
            f"limit ({limit}) is less than a set of questions that count together. Raise it, or leave it unset."
        )
    return [question for question, name in zip(questions, names, strict=True) if name in drawn]


def check_controls(controls: Sequence[str], questions: Sequence[Question] = ()) -> None:
    """
    Raises:
        `ValueError`: a control that is none of `CONTROLS`, or that means nothing for some of the questions.
    """
    for control in controls:
        if control not in CONTROLS:
            raise ValueError(f"control ({control!r}) must be one of {', '.join(CONTROLS)}.")
        unfit = [question for question in questions if control in question.unfit_controls]
        if unfit:
            where = unfit[0].benchmark or "these records"
            raise ValueError(
                f"control ({control!r}) means nothing for {len(unfit):,} of the {len(questions):,} questions of {where} (the first "
                f"is {unfit[0].key}): {unfit[0].unfit_controls[control]}. Leave the control or these parts out."
            )


def make_requests(
    questions: Sequence[Question],
    backend: Backend,
    controls: Sequence[str] = (),
    subtitles: SubtitlesShown | None = None,
) -> Iterator[GenerationRequest]:
    """
    One request per question, and one more per control for those with a video; keys are `CONDITION:KEY`.

    All that is asked on one video comes together, so that it is decoded once. The contrast's draw follows from the settings'
    seed and the question's key. Subtitles are shown wherever the video is.
    """
    check_controls(controls, questions)
    for question in by_video(questions):
        yield request_of(question, ORDERED, backend, subtitles)
        for control in controls if question.videos else ():
            yield request_of(question, control, backend, subtitles)


def by_video(questions: Sequence[Question]) -> Iterator[Question]:
    """The questions, those on one video one after the other."""
    clusters: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        clusters[question.cluster].append(question)
    return (each for cluster in clusters.values() for each in cluster)


def request_of(
    question: Question, condition: str, backend: Backend, subtitles: SubtitlesShown | None = None
) -> GenerationRequest:
    """A question under a condition: on the frames in order, or under one of `CONTROLS`."""
    contrast = CONTROLS.get(condition)
    is_text = condition in CONTROLS and contrast is None
    videos = [] if is_text else question.videos
    return GenerationRequest(
        f"{condition}:{question.key}",
        question.prompt,
        videos,
        [] if question.image is None or is_text else [question.image],
        contrast,
        0 if contrast is None else backend.settings.sampling_seed(f"frames:{question.key}"),
        subtitles=question.subtitles or () if videos else (),
        subtitles_shown=subtitles if videos and question.subtitles is not None else None,
    )


def ask(
    questions: Sequence[Question],
    backend: Backend,
    folder: str | Path,
    *,
    controls: Sequence[str] = (),
    subtitles: SubtitlesShown | None = None,
    identity: Mapping[str, object] | None = None,
    retry_errors: bool = False,
    progress: bool = True,
) -> Journal:
    """
    Ask what has not been asked yet, each completion written to the folder's [`Journal`] as it comes.

    Under `accelerate launch` or `torchrun` each process asks its own part. Nothing is scored here.

    Args:
        questions (`Sequence[Question]`): those to ask now.
        backend ([`Backend`]): that answers, its settings included.
        folder (`str` or `Path`): of the run; another call goes on with it, and may bring more questions or controls.
        controls (`Sequence[str]`): of `CONTROLS`.
        subtitles (`str`, *optional*): `"sampled"` or `"all"`, as in [`GenerationRequest`], of questions that have some.
        identity (`dict`, *optional*): what, beside model and settings, may not change within the run, such as the
            fingerprint of all the benchmark's questions. `None`: the [`questions_fingerprint`] of these.
        retry_errors (`bool`, defaults to `False`): ask those again that ended in an error.
        progress (`bool`, defaults to `True`): show a progress bar.

    Raises:
        `ValueError`: a folder of another run, with what differs.
        What the backend raises where it breaks as a whole; what was completed until then is in the journal.
    """
    settled, notes = run_identity(questions, backend, subtitles, identity)
    requests = make_requests(questions, backend, controls, subtitles)
    with Journal(folder, settled, notes) as journal:
        work_off(journal, requests, backend.generate, "questions", retry_errors=retry_errors, progress=progress)
    return journal


def work_off(
    journal: Journal,
    requests: Iterable[GenerationRequest],
    call: Callable[[Iterator[GenerationRequest]], Iterable[Found]],
    name: str,
    line: Callable[[Found], Mapping[str, object]] = dataclasses.asdict,
    *,
    retry_errors: bool = False,
    progress: bool = True,
) -> None:
    """
    Make those of the requests that an open [`Journal`] has no entry of, this process its own, and write what comes as it comes.

    Args:
        call (`Callable`): what makes them, such as `backend.generate`.
        name (`str`): of the progress bar.
        line (`Callable`): what is found -> its entry; by default the fields of a dataclass.
    """
    by_key = {request.key: request for request in requests}
    pending = journal.pending(by_key, retry_errors=retry_errors)
    mine = sum(map(journal.mine, by_key))
    with tqdm(total=mine, initial=mine - len(pending), desc=name, disable=not progress) as bar:
        for found in call(by_key[key] for key in pending):
            journal.append(line(found))
            bar.update()


def run_identity(
    questions: Sequence[Question],
    backend: Backend,
    subtitles: SubtitlesShown | None,
    identity: Mapping[str, object] | None,
) -> tuple[dict[str, object], dict[str, object]]:
    """What may not change within a run and what may, for its [`Journal`]; arguments as of [`ask`]."""
    settled, notes = identity_and_notes(backend.describe())
    settled |= {"questions": questions_fingerprint(questions)} if identity is None else identity
    if subtitles is not None:
        settled["subtitles"] = subtitles
    return settled, notes


def read_answers(
    questions: Sequence[Question],
    journal: Journal,
    controls: Sequence[str] = (),
    verdicts: Mapping[str, float] | None = None,
) -> tuple[dict[str, dict[str, Answered]], int]:
    """
    The scored answers, from the whole journal.

    Args:
        verdicts (`dict[str, float]`, *optional*): scores of a judge, by the key of the answer, as from [`~judging.read_verdicts`]. A
            question for a judge on whose answer there is none is left out, as one not asked yet.

    Returns:
        Condition (`"ordered"` or a control) -> key -> [`Answered`], and how many answers are still missing.
    """
    entries = journal.entries()
    answers: dict[str, dict[str, Answered]] = {condition: {} for condition in (ORDERED, *controls)}
    for question in questions:
        for condition in _conditions(question, controls):
            entry = entries.get(f"{condition}:{question.key}")
            if entry is None:
                continue
            key, text = entry["key"], entry["text"]
            if question.metric == "judged" and text is not None and key not in (verdicts or {}):
                continue
            found = NOTHING if text is None else score(question, text, (verdicts or {}).get(key))
            answers[condition][question.key] = Answered(entry, found)
    return answers, count_missing(questions, answers, controls)


def count_missing(
    questions: Sequence[Question], answers: Answers, controls: Sequence[str] = (), failed: Container[str] = ()
) -> int:
    """
    How many answers to these questions, on ordered frames and under these controls, are not among those read.

    Args:
        failed (`Container[str]`): keys of answers, such as `"ordered:KEY"`, that are there and that a judge failed on.
    """
    return sum(
        question.key not in answers[condition] and f"{condition}:{question.key}" not in failed
        for question in questions
        for condition in _conditions(question, controls)
    )


def _conditions(question: Question, controls: Sequence[str]) -> tuple[str, ...]:
    """What a question is asked under: only one with a video under controls."""
    return (ORDERED, *(controls if question.videos else ()))


def write_results(
    folder: str | Path,
    questions: Sequence[Question],
    answers: Answers,
    about: Mapping[str, object],
    columns: Mapping[str, Mapping[str, Mapping[str, object]]] | None = None,
) -> dict[str, object]:
    """
    Write `results.jsonl`, a line per answered question with its answers and scores under every condition, and `summary.json`.

    Args:
        about (`dict`): what stands in the summary beside the figures, such as the benchmark and the journal's sessions.
        columns (`dict`, *optional*): what stands in the lines besides: name -> key of the question -> value.

    Returns:
        The summary.
    """
    summary = {**about, **summarise(questions, answers)}
    lines = _result_lines(questions, answers)
    more = columns or {}
    write_lines(
        Path(folder) / "results.jsonl",
        ({**line, **{name: found.get(str(line["key"])) for name, found in more.items()}} for line in lines),
    )
    write_whole(Path(folder) / "summary.json", [json.dumps(summary, indent=2, ensure_ascii=False)])
    return summary


def _result_lines(questions: Sequence[Question], answers: Answers) -> Iterator[dict[str, object]]:
    for question in questions:
        if question.key not in answers[ORDERED]:
            continue
        line: dict[str, object] = {
            "key": question.key,
            "task": question.task,
            "benchmark": question.benchmark,
            "problem": question.problem,
            "problem_type": question.problem_type,
            "metric": question.metric,
            "options": list(question.options),
            "gold": question.gold,
            "cluster": question.cluster,
            "together": dict(question.together),
            "video": question.video,
            **({"clips": list(question.clips)} if question.clips else {}),
            "image": question.image if isinstance(question.image, str) else None,
        }
        for condition, found in answers.items():
            if question.key in found:
                each = found[question.key]
                line[condition] = {
                    "answer": each.score.answer,
                    "score": each.score.score,
                    "video_r1_score": each.score.released,
                    "names_one": each.score.names_one,
                    **{name: value for name, value in each.entry.items() if name != "key"},
                }
        yield line
