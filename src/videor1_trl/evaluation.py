"""Asks a benchmark's questions, on the frames in order and on controls that spoil it, and says what the answers are worth."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .benchmarks import Question, fingerprint
from .contrast import freeze_frame, reverse_frames, shuffle_frames
from .estimates import Estimate, difference, mean
from .generation_requests import Backend, GenerationRequest, identity_and_notes
from .journal import Journal, draw_keys, write_lines, write_whole
from .scoring import NOTHING, Score, score


ORDERED = "ordered"
# What a control shows in the place of the frames in order; single-frame: one of them, drawn at random, in the place of all
CONTROLS: dict[str, Callable | None] = {
    "shuffled": shuffle_frames,
    "reversed": reverse_frames,
    "single-frame": freeze_frame,
    "text-only": None,
}
_DIRECTIONS = "object_rel_direction"
VSI_CHOICES = ("obj_appearance_order", "object_rel_distance", "route_planning", _DIRECTIONS)
VSI_NUMBERS = ("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation")


@dataclasses.dataclass(frozen=True)
class Answered:
    """A completion with its score; `entry` is its line of the journal."""

    entry: dict[str, Any]
    score: Score


def sample_questions(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """
    At most `limit` of the questions, in their order: the same ones at every call, and those of a smaller limit among them.

    Raises:
        `ValueError`: a limit below 1.
    """
    keys = set(draw_keys([question.key for question in questions], limit))
    return [question for question in questions if question.key in keys]


def check_controls(controls: Sequence[str]) -> None:
    """
    Raises:
        `ValueError`: a control that is none of `CONTROLS`.
    """
    for control in controls:
        if control not in CONTROLS:
            raise ValueError(f"control ({control!r}) must be one of {', '.join(CONTROLS)}.")


def make_requests(
    questions: Sequence[Question], backend: Backend, controls: Sequence[str] = ()
) -> Iterator[GenerationRequest]:
    """
    One request per question, and one more per control for those with a video; keys are `CONDITION:KEY`.

    All that is asked on one video comes together, so that it is decoded once. The contrast's draw follows from the settings'
    seed and the question's key.
    """
    check_controls(controls)
    by_video: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_video[question.cluster].append(question)
    for question in (each for cluster in by_video.values() for each in cluster):
        videos = [] if question.video is None else [question.video]
        images = [] if question.image is None else [question.image]
        yield GenerationRequest(f"{ORDERED}:{question.key}", question.prompt, videos, images)
        for control in controls if videos else ():
            shown = (videos, images) if CONTROLS[control] is not None else ([], [])
            seed = backend.settings.sampling_seed(f"frames:{question.key}")
            yield GenerationRequest(f"{control}:{question.key}", question.prompt, *shown, CONTROLS[control], seed)


def ask(
    questions: Sequence[Question],
    backend: Backend,
    folder: str | Path,
    *,
    controls: Sequence[str] = (),
    identity: dict[str, Any] | None = None,
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
        identity (`dict`, *optional*): what, beside model and settings, may not change within the run, such as the
            fingerprint of all the benchmark's questions. `None`: the [`fingerprint`] of these.
        retry_errors (`bool`, defaults to `False`): ask those again that ended in an error.
        progress (`bool`, defaults to `True`): show a progress bar.

    Raises:
        `ValueError`: a folder of another run, with what differs.
        What the backend raises where it breaks as a whole; what was completed until then is in the journal.
    """
    settled, notes = identity_and_notes(backend.describe())
    settled |= {"questions": fingerprint(questions)} if identity is None else identity
    with Journal(folder, settled, notes) as journal:
        requests = {request.key: request for request in make_requests(questions, backend, controls)}
        pending = journal.pending(requests, retry_errors=retry_errors)
        mine = sum(map(journal.mine, requests))
        with tqdm(total=mine, initial=mine - len(pending), desc="questions", disable=not progress) as bar:
            for completion in backend.generate(requests[key] for key in pending):
                journal.append(dataclasses.asdict(completion))
                bar.update()
    return journal


def read_answers(
    questions: Sequence[Question], journal: Journal, controls: Sequence[str] = ()
) -> tuple[dict[str, dict[str, Answered]], int]:
    """
    The scored answers, from the whole journal.

    Returns:
        Condition (`"ordered"` or a control) -> key -> [`Answered`], and how many answers are still missing.
    """
    entries = journal.entries()
    answers: dict[str, dict[str, Answered]] = {condition: {} for condition in (ORDERED, *controls)}
    for question in questions:
        for condition in _conditions(question, controls):
            entry = entries.get(f"{condition}:{question.key}")
            if entry is not None:
                found = NOTHING if entry["text"] is None else score(question, entry["text"])
                answers[condition][question.key] = Answered(entry, found)
    return answers, count_missing(questions, answers, controls)


def count_missing(
    questions: Sequence[Question], answers: dict[str, dict[str, Answered]], controls: Sequence[str] = ()
) -> int:
    """How many answers to these questions, on ordered frames and under these controls, are not among those read."""
    return sum(
        question.key not in answers[condition]
        for question in questions
        for condition in _conditions(question, controls)
    )


def _conditions(question: Question, controls: Sequence[str]) -> tuple[str, ...]:
    """What a question is asked under: only one with a video under controls."""
    return (ORDERED, *(controls if question.video is not None else ()))


def summarise(questions: Sequence[Question], answers: dict[str, dict[str, Answered]]) -> dict[str, Any]:
    """
    All figures of a run, JSON-able.

    An answer that could not be had (`error`: a video that cannot be read, a prompt that is too long) counts as wrong.

    Args:
        questions (`Sequence[Question]`): of which those with an answer on ordered frames count.
        answers (`dict`): as from [`read_answers`].

    Returns:
        `dict` with `questions` and `videos` (how many), `chance`, `scores` (`official` and `video_r1`, see
        [`named_weights`]), `tasks` and `groups` (the benchmark's own rule), `outputs` per condition (`errors`, `cut_off`,
        `no_answer`, `mean_tokens`), and `controls`: per control its `scores` on the questions that it was asked, the ordered
        `scores` on the same, their paired `difference`, and the `share_above_chance` of the official score that it takes
        away (`None` at or below chance).
    """
    asked = [question for question in questions if question.key in answers[ORDERED]]
    if not asked:
        raise ValueError("There is no answer yet: nothing to summarise.")
    return {
        "questions": len(asked),
        "videos": len({question.cluster for question in asked if question.video is not None}),
        "chance": _chance(asked),
        "scores": _scores(asked, answers[ORDERED]),
        "tasks": _parts(asked, answers[ORDERED], [question.task for question in asked]),
        "groups": {
            name: _parts(asked, answers[ORDERED], [question.groups.get(name, "none") for question in asked])
            for name in sorted({name for question in asked for name in question.groups})
        },
        "outputs": {condition: _outputs(found.values()) for condition, found in answers.items() if found},
        "controls": {
            control: _control(asked, answers[ORDERED], found)
            for control, found in answers.items()
            if control != ORDERED and found
        },
    }


def write_results(
    folder: str | Path,
    questions: Sequence[Question],
    answers: dict[str, dict[str, Answered]],
    about: dict[str, Any],
) -> dict[str, Any]:
    """
    Write `results.jsonl`, a line per answered question with its answers and scores under every condition, and `summary.json`.

    Args:
        about (`dict`): what stands in the summary beside the figures, such as the benchmark and the journal's sessions.

    Returns:
        The summary.
    """
    summary = {**about, **summarise(questions, answers)}
    write_lines(Path(folder) / "results.jsonl", _result_lines(questions, answers))
    write_whole(Path(folder) / "summary.json", [json.dumps(summary, indent=2, ensure_ascii=False)])
    return summary


def named_weights(questions: Sequence[Question]) -> dict[str, list[tuple[str, float]]]:
    """
    The weight of every question in the two scores that a run is known by, as [`estimates.mean`] takes them.

    - `official`: all questions alike; of VSI-Bench, known by its question types, the unweighted mean of its eight tasks, of
      which `object_rel_direction` is the mean of its parts.
    - `video_r1`: all alike; where some are scored by mean relative accuracy, as in VSI-Bench, the mean of those and of the
      others, each pooled, as Video-R1's script has it.
    """
    kinds = Counter(question.metric == "mra" for question in questions)
    weights = {
        "official": [("", 1 / len(questions))] * len(questions),
        "video_r1": [(str(each.metric == "mra"), 1 / len(kinds) / kinds[each.metric == "mra"]) for each in questions],
    }
    if all(_vsi_task(question.task) for question in questions):
        sizes = Counter(question.task for question in questions)
        parts = Counter(_vsi_task(task) for task in sizes)
        weights["official"] = [
            (each.task, 1 / len(parts) / parts[_vsi_task(each.task)] / sizes[each.task]) for each in questions
        ]
    return weights


def _vsi_task(task: str) -> str | None:
    """The task of VSI-Bench that a question type belongs to."""
    task = _DIRECTIONS if task.startswith(f"{_DIRECTIONS}_") else task
    return task if task in (*VSI_CHOICES, *VSI_NUMBERS) else None


def _scores(questions: Sequence[Question], answers: dict[str, Answered]) -> dict[str, Any]:
    clusters = [question.cluster for question in questions]
    return {
        name: _as_dict(mean(_values(questions, answers, name), clusters, weights))
        for name, weights in named_weights(questions).items()
    }


def _values(questions: Sequence[Question], answers: dict[str, Answered], name: str) -> list[float]:
    found = [answers[question.key].score for question in questions]
    return [each.released if name == "video_r1" else each.score for each in found]


def _parts(questions: Sequence[Question], answers: dict[str, Answered], parts: Sequence[str]) -> dict[str, Any]:
    """The figures of each part by the benchmark's own rule; `parts` says which part each question belongs to."""
    by_part: dict[str, list[Question]] = defaultdict(list)
    for question, part in zip(questions, parts, strict=True):
        by_part[part].append(question)
    return {
        part: {
            **_as_dict(mean(_values(each, answers, "official"), [question.cluster for question in each])),
            "metric": "/".join(sorted({question.metric for question in each})),
            "chance": sum(question.chance for question in each) / len(each),
        }
        for part, each in sorted(by_part.items())
    }


def _chance(questions: Sequence[Question]) -> dict[str, float]:
    """What guesses would score: 1 over the options of a choice, 0 for a number or a text."""
    return {
        name: sum(question.chance * weight for question, (_, weight) in zip(questions, weights, strict=True))
        for name, weights in named_weights(questions).items()
    }


def _control(asked: Sequence[Question], ordered: dict[str, Answered], control: dict[str, Answered]) -> dict[str, Any]:
    """Ordered and control on the same questions."""
    paired = [question for question in asked if question.key in control]
    clusters = [question.cluster for question in paired]
    differences = {
        name: difference(_values(paired, ordered, name), _values(paired, control, name), clusters, weights)
        for name, weights in named_weights(paired).items()
    }
    before, chance = _scores(paired, ordered), _chance(paired)
    above = before["official"]["value"] - chance["official"]
    return {
        "questions": len(paired),
        "chance": chance,
        "scores": _scores(paired, control),
        "ordered_scores": before,
        "difference": {name: _as_dict(each) for name, each in differences.items()},
        "share_above_chance": differences["official"].value / above if above > 1e-9 else None,
        "tasks": _parts(paired, control, [question.task for question in paired]),
    }


def _outputs(answers: Iterable[Answered]) -> dict[str, Any]:
    """What became of the completions: how many there are, and what is wrong with them."""
    answers = list(answers)
    texts = [each for each in answers if each.entry["text"] is not None]
    finished = [each.entry["finished"] for each in texts if each.entry["finished"] is not None]
    tokens = [each.entry["num_tokens"] for each in texts if each.entry["num_tokens"] is not None]
    prompts = [each.entry["num_prompt_tokens"] for each in texts if each.entry["num_prompt_tokens"] is not None]
    reasons = [f"{_question(each)}: {each.entry['error']}" for each in answers if each.entry["text"] is None]
    return {
        "completions": len(answers),
        "errors": len(reasons),
        "first_errors": reasons[:10],
        "cut_off": finished.count(False) / len(finished) if finished else None,
        "no_answer": sum(not each.score.tagged for each in texts) / len(texts) if texts else None,
        "mean_tokens": sum(tokens) / len(tokens) if tokens else None,
        "mean_prompt_tokens": sum(prompts) / len(prompts) if prompts else None,
    }


def _question(answered: Answered) -> str:
    """The key of the question that an answer is to."""
    return answered.entry["key"].partition(":")[2]


def _result_lines(questions: Sequence[Question], answers: dict[str, dict[str, Answered]]) -> Iterator[dict[str, Any]]:
    for question in questions:
        if question.key not in answers[ORDERED]:
            continue
        line: dict[str, Any] = {
            "key": question.key,
            "task": question.task,
            "problem": question.problem,
            "options": list(question.options),
            "gold": question.gold,
            "video": question.video,
            "image": question.image if isinstance(question.image, str) else None,
        }
        for condition, found in answers.items():
            if question.key in found:
                each = found[question.key]
                line[condition] = {
                    "answer": each.score.answer,
                    "score": each.score.score,
                    "video_r1_score": each.score.released,
                    **{name: value for name, value in each.entry.items() if name != "key"},
                }
        yield line


def _as_dict(estimate: Estimate) -> dict[str, Any]:
    return dataclasses.asdict(estimate)
