"""Open answers through a judge: a model behind any OpenAI-compatible server marks them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..generation.journal import Journal
from ..generation.requests import Backend, GeneratedCompletion, GenerationRequest, identity_and_notes
from .markings import MARKINGS, prompts_fingerprint
from .questions import Question
from .run import CONTROLS, work_off
from .scoring import answer_of
from .summary import ORDERED


_LONGEST_ANSWER = 4_000  # characters that a judge is shown of an answer


@dataclass
class Verdicts:
    """
    What a judge said.

    Args:
        scores (`dict[str, float]`): by the key of the answer, `CONDITION:KEY`, in [0, 1]; of an empty answer 0, and no judge is
            asked.
        failures (`dict[str, str]`): of those that the judge could not be asked or understood about, why; another run asks again.
        missing (`int`): answers that it was not asked about yet.
        served_by (`list[str]`): what the server calls the models that answered.
    """

    scores: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    served_by: list[str] = field(default_factory=list)


def judge(
    questions: Sequence[Question],
    answers: Journal,
    backend: Backend,
    folder: str | Path,
    *,
    progress: bool = True,
) -> Journal:
    """
    Ask the judge about every answer to a question of the metric `"judged"` that it has not settled yet, those that failed among
    them.

    Args:
        questions (`Sequence[Question]`): of the run. answers (`Journal`): of it, as from [`~run.ask`].
        backend ([`Backend`]): that judges: a [`ServerBackend`].
        folder (`str` or `Path`): of the verdicts; another call goes on there.

    Returns:
        The journal of the verdicts: `text` is what the judge said, `error` why it said nothing that counts.

    Raises:
        `ValueError`: the folder has verdicts of another judge. What the backend raises where it breaks as a whole.
    """
    settled, notes = identity_and_notes(backend.describe())
    settled["prompt"] = prompts_fingerprint(markings_of(questions))
    with Journal(folder, settled, notes, rank=answers.rank, world_size=answers.world_size) as journal:
        asked = {_key(key, question, text): question for key, question, text in _judged(questions, answers)}

        def line(said: GeneratedCompletion) -> dict[str, object]:
            question, error = asked[said.key], said.error
            marking = MARKINGS[question.marking]
            if error is None and marking.read(question, said.text or "") is None:
                error = f"the judge gave no {marking.missing}: {(said.text or '')[-200:]!r}"
            return {"key": said.key, "text": said.text, "error": error, "served_by": said.served_by}

        requests = _requests(questions, answers)
        work_off(journal, requests, backend.generate, "judged", line, retry_errors=True, progress=progress)
    return journal


def read_verdicts(questions: Sequence[Question], answers: Journal, journal: Journal) -> Verdicts:
    """What the judge has said about these answers."""
    found = Verdicts()
    entries = journal.entries()
    for key, question, text in _judged(questions, answers):
        if not answer_of(text):
            found.scores[key] = 0.0
            continue
        entry = entries.get(_key(key, question, text))
        if entry is None:
            found.missing += 1
        elif entry["error"] is not None:
            found.failures[key] = entry["error"]
        else:
            score = MARKINGS[question.marking].read(question, entry["text"])
            assert score is not None  # else it is an error
            found.scores[key] = score
            if entry["served_by"] is not None and entry["served_by"] not in found.served_by:
                found.served_by.append(entry["served_by"])
    return found


def markings_of(questions: Sequence[Question]) -> set[str]:
    """The ways in which a judge marks these questions."""
    return {question.marking for question in questions if question.metric == "judged"}


def about_judge(backend: Backend, verdicts: Verdicts, questions: Sequence[Question]) -> dict[str, object]:
    """The judge, how it marked these questions and how it did, for the summary."""
    described: Mapping[str, object] = backend.describe()
    return {
        **{name: described.get(name) for name in ("model", "base_url", "versions", "settings")},
        "served_by": verdicts.served_by,
        "prompt": prompts_fingerprint(markings_of(questions)),
        "markings": sorted(markings_of(questions)),
        "verdicts": len(verdicts.scores),
        "failures": len(verdicts.failures),
        "first_failures": [f"{key}: {reason}" for key, reason in list(verdicts.failures.items())[:10]],
        "missing": verdicts.missing,
    }


def _judged(questions: Sequence[Question], answers: Journal) -> Iterator[tuple[str, Question, str]]:
    """Key, question and text of every answer that a judge is to mark."""
    entries = answers.entries()
    for question in questions:
        for condition in (ORDERED, *CONTROLS) if question.metric == "judged" else ():
            key = f"{condition}:{question.key}"
            if key in entries and entries[key]["text"] is not None:
                yield key, question, entries[key]["text"]


def _requests(questions: Sequence[Question], answers: Journal) -> Iterator[GenerationRequest]:
    for key, question, text in _judged(questions, answers):
        answer = answer_of(text)
        if not answer or not answers.mine(key):
            continue
        parts = {"question": question.problem, "gold": question.gold, "rubric": question.rubric}
        asked = MARKINGS[question.marking].prompt.format(answer=answer[:_LONGEST_ANSWER], **parts)
        yield GenerationRequest(_key(key, question, text), [{"role": "user", "content": asked}])


def _key(key: str, question: Question, text: str) -> str:
    """Of a verdict: with a checksum of what was judged, and by what, so that another answer is judged anew."""
    parts = [question.problem, question.gold, text, *([question.rubric] if question.rubric else [])]
    return f"{key}#{zlib.crc32(chr(0).join(parts).encode('utf-8', 'replace')):08x}"
