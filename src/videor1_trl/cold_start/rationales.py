"""Rationales for the cold start: a model thinks about records whose answer is known, and what led it there is kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from datasets import Dataset
from tqdm.auto import tqdm

from ..data.placing import media_list
from ..generation.journal import Journal, draw_keys, write_lines, write_whole
from ..generation.requests import Backend, GenerationRequest, identity_and_notes
from ..media.columns import MEDIA_COLUMNS, VIDEO_COLUMNS
from ..rewards.format import format_reward
from ..text.answers import judge
from ..text.messages import THINK_CLOSE, THINK_OPEN
from ..text.prompts import extract_answer, extract_thought


KEPT, ERROR = "kept", "error"
# Why a completion is rejected, in the order in which it is looked at
REASONS = {
    ERROR: "there is no completion: a video that cannot be read, a prompt that is too long",
    "cut_off": "it did not end within max_new_tokens",
    "no_rationale": "nothing, or another tag, stands in <think>...</think>",
    "format": "it is not <think>...</think> and <answer>...</answer> alone",
    "too_short": "fewer tokens than min_tokens",
    "too_long": "more tokens than max_tokens",
    "repetitive": "its rationale repeats itself more than max_repetition",
    "no_verdict": "a number is asked for, and the record's answer is none",
    "wrong": "its accuracy is not above the threshold",
}
_ORDER = list(REASONS)
_RUN = 4  # words

Entry = Mapping[str, Any]  # a line of the journal: `text`, `num_tokens`, `finished`, `error`, ...


_T = TypeVar("_T")


def _rule(default: _T, text: str) -> _T:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass
class CotRules:
    """
    Which rationales are kept; what each rule means is in its `help`. The defaults are the paper's threshold and the format.

    Source: Video-R1 (arXiv 2503.21776), which keeps where the accuracy reward is above 0.6.

    Raises:
        `ValueError`: a value out of its range.
    """

    threshold: float = _rule(0.6, "Keep where the accuracy reward is above this, in [0, 1) (paper: 0.6).")
    strict: bool = _rule(False, "Judge accuracy by the rules of Video-R1's released code.")
    require_format: bool = _rule(
        True, "Keep only <think>...</think>, <answer>...</answer> and nothing else. False: any text with a rationale."
    )
    min_tokens: int | None = _rule(None, "Fewest tokens of a completion (>= 0). None: no limit.")
    max_tokens: int | None = _rule(None, "Most tokens of a completion (>= min_tokens). None: no limit.")
    max_repetition: float | None = _rule(
        None, "Largest share of a rationale's runs of 4 words that occurred in it before, in [0, 1]. None: no limit."
    )

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(
                f"threshold ({self.threshold}) must be in [0, 1): a rationale needs an accuracy above it."
            )
        if self.min_tokens is not None and self.min_tokens < 0:
            raise ValueError(f"min_tokens ({self.min_tokens}) must be at least 0, or unset.")
        if self.max_tokens is not None and self.max_tokens < (self.min_tokens or 0):
            raise ValueError(
                f"max_tokens ({self.max_tokens}) must be at least min_tokens ({self.min_tokens or 0}), or unset."
            )
        if self.max_repetition is not None and not 0 <= self.max_repetition <= 1:
            raise ValueError(f"max_repetition ({self.max_repetition}) must be in [0, 1], or unset.")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """
    What became of a completion, or of a record.

    Args:
        reason (`str`): `"kept"`, or a key of `REASONS`.
        process (`str`, *optional*): the rationale in its tags, where it is kept.
        accuracy (`float`, *optional*): reward of the answer, in [0, 1]; `None` where there is no text or no verdict.
        pass_rate (`float`, *optional*): of a record, the share of its attempts with a verdict whose accuracy is above the threshold;
            `None` without any.
        attempts (`int`): of a record, those with a verdict.
    """

    reason: str
    process: str | None = None
    accuracy: float | None = None
    pass_rate: float | None = None
    attempts: int = 0


def judge_completion(
    entry: Entry, solution: str, problem_type: str, rules: CotRules, options: Sequence[str] = ()
) -> Verdict:
    """
    Whether a completion is kept, or the first reason in the order of `REASONS` why not.

    Args:
        entry (`dict`): `text`, `num_tokens`, `finished` and `error`, as of a [`GeneratedCompletion`].
        solution (`str`): the record's, in `<answer>` tags.
        problem_type (`str`): the record's, one of `PROBLEM_TYPES`.
        rules ([`CotRules`]): that decide.
        options (`Sequence[str]`, defaults to none): the record's.

    Raises:
        `ValueError`: a rule on tokens, and a server that does not count them.

    >>> entry = {"text": "<think>It goes left.</think> <answer>A</answer>", "num_tokens": 9, "finished": True}
    >>> judge_completion(entry, "<answer>A</answer>", "multiple choice", CotRules()).process
    '<think>It goes left.</think>'
    >>> judge_completion(entry, "<answer>B</answer>", "multiple choice", CotRules()).reason
    'wrong'
    """
    if entry["text"] is None:
        return Verdict(ERROR)
    text = entry["text"].strip()
    accuracy = judge(solution, extract_answer(text), problem_type, strict=rules.strict, options=options)
    found = extract_thought(text)
    failed = {
        "cut_off": entry["finished"] is False,
        "no_rationale": found is None,
        "format": rules.require_format and format_reward([text]) != [1.0],
        "too_short": rules.min_tokens is not None and _num_tokens(entry) < rules.min_tokens,
        "too_long": rules.max_tokens is not None and _num_tokens(entry) > rules.max_tokens,
        "repetitive": rules.max_repetition is not None and repetition(found or "") > rules.max_repetition,
        "no_verdict": accuracy is None,
        "wrong": accuracy is not None and not accuracy > rules.threshold,
    }
    for reason in _ORDER:
        if failed.get(reason):
            return Verdict(reason, accuracy=accuracy)
    return Verdict(KEPT, f"{THINK_OPEN}{found}{THINK_CLOSE}", accuracy)


def repetition(text: str) -> float:
    """
    Share of a text's runs of 4 words that occurred in it before, in [0, 1); 0 for fewer than 5 words.

    >>> repetition("it goes left it goes left it goes left")  # 3 of 6 runs are new
    0.5
    """
    words = text.split()
    runs = [tuple(words[place : place + _RUN]) for place in range(len(words) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def generate_rationales(
    dataset: Dataset,
    backend: Backend,
    folder: str | Path,
    rules: CotRules | None = None,
    *,
    num_samples: int = 1,
    all_samples: bool = False,
    limit: int | None = None,
    retry_errors: bool = False,
    progress: bool = True,
) -> Journal:
    """
    Ask for completions until each record has one that is kept or `num_samples` that are not; each is written to the folder's
    [`Journal`] as it comes.

    Every completion is in the journal as the model gave it, so another call with other rules asks only for what those make
    necessary. Under `accelerate launch` or `torchrun` each process asks for its own records.

    Args:
        dataset (`datasets.Dataset`): rows of [`load_video_r1`].
        backend ([`Backend`]): that answers, its settings included. The paper's: temperature 1, top_p 0.95, 512 new tokens.
        folder (`str` or `Path`): of the run; another call goes on with it.
        rules ([`CotRules`], *optional*): which are kept. `None`: the defaults.
        num_samples (`int`, defaults to `1`): completions of a record at most, >= 1 (paper: 1).
        all_samples (`bool`, defaults to `False`): ask for all of them, also where one is kept: pass rates are then of as many
            attempts each, and not the higher the sooner one was right.
        limit (`int`, *optional*): so many of the records, drawn from all; a larger one later goes on. `None`: all.
        retry_errors (`bool`, defaults to `False`): ask again where there was an error.
        progress (`bool`, defaults to `True`): show a progress bar, of records.

    Raises:
        `ValueError`: an argument out of range, a dataset without what a record has, a folder of another run.
        What the backend raises where it breaks as a whole; what was completed until then is in the journal.
    """
    rules = rules or CotRules()
    records = _Records(dataset, num_samples, limit, all_samples)
    settled, notes = identity_and_notes(backend.describe())
    with Journal(folder, settled | {"records": records_fingerprint(dataset)}, notes) as journal:
        entries = {key: each for key, each in journal.entries().items() if not (retry_errors and each.get("error"))}
        mine = [place for place in records.places if journal.mine(str(place))]
        open_places = [place for place in mine if records.verdict(place, entries, rules) is None]
        with tqdm(total=len(mine), initial=len(mine) - len(open_places), desc="records", disable=not progress) as bar:
            for sample in range(num_samples):
                asked = [place for place in open_places if _key(place, sample) not in entries]
                for completion in backend.generate(records.request(place, sample) for place in asked):
                    entry = dataclasses.asdict(completion)
                    journal.append(entry)
                    entries[completion.key] = entry
                    place = int(completion.key.partition("/")[0])
                    bar.update(records.verdict(place, entries, rules) is not None)
                open_places = [place for place in open_places if records.verdict(place, entries, rules) is None]
    return journal


def drawn(dataset: Dataset, limit: int | None) -> list[int]:
    """
    The rows that [`generate_rationales`] asks for.

    Raises:
        `ValueError`: a limit below 1.
    """
    return [int(key) for key in draw_keys([str(place) for place in range(len(dataset))], limit)]


def read_rationales(
    dataset: Dataset,
    journal: Journal,
    rules: CotRules | None = None,
    *,
    num_samples: int = 1,
    all_samples: bool = False,
    limit: int | None = None,
) -> tuple[dict[int, Verdict], int]:
    """
    What became of every record, from the whole journal; arguments as of [`generate_rationales`].

    The first completion that is kept counts. Where none is, the record has the reason of the one that came furthest.

    Returns:
        Row of the dataset -> [`Verdict`], and how many records have completions still to come.
    """
    records, entries = _Records(dataset, num_samples, limit, all_samples), journal.entries()
    found = {place: records.verdict(place, entries, rules or CotRules()) for place in records.places}
    verdicts = {place: verdict for place, verdict in found.items() if verdict is not None}
    return verdicts, len(found) - len(verdicts)


def write_rationales(
    dataset: Dataset, verdicts: Mapping[int, Verdict], journal: Journal, about: Mapping[str, object]
) -> dict[str, object]:
    """
    Write `records.jsonl`, the kept records with their `process`, `rated.jsonl`, all records with their `pass_rate` and `attempts`
    (the rate is missing where no attempt had a verdict), and `summary.json` into the journal's folder.

    The records are as the dataset holds them, their paths included: their `root` is still the one of the dataset. A
    `completion` that they had is left out: supervised training would take it for what it is to learn.

    Args:
        dataset (`datasets.Dataset`): as given to [`read_rationales`].
        verdicts (`dict`): from there.
        about (`dict`): what stands in the summary beside the figures, such as the rules.

    Returns:
        The summary, JSON-able: `about`, `records`, `kept`, `accuracy` (mean of the records' verdicts), `rejected` (reason ->
        records), the same in `problem_types` for each, `completions`, `mean_tokens`, `first_errors` and `sessions`.
    """
    entries = [each for key, each in journal.entries().items() if int(key.partition("/")[0]) in verdicts]
    tokens = [entry["num_tokens"] for entry in entries if entry["num_tokens"] is not None]
    by_type: dict[str, list[Verdict]] = {}
    for place, problem_type in zip(verdicts, dataset.select(verdicts)["problem_type"], strict=True):
        by_type.setdefault(problem_type, []).append(verdicts[place])
    summary = {
        **about,
        **_figures(list(verdicts.values())),
        "problem_types": {name: _figures(found) for name, found in sorted(by_type.items())},
        "completions": len(entries),
        "mean_tokens": sum(tokens) / len(tokens) if tokens else None,
        "first_errors": [
            f"record {each['key'].partition('/')[0]}: {each['error']}" for each in entries if each["error"]
        ][:10],
        "sessions": journal.sessions(),
    }
    write_lines(journal.folder / "records.jsonl", _kept_records(dataset, verdicts))
    write_lines(
        journal.folder / "rated.jsonl", (_rated(dataset, place, verdicts[place]) for place in sorted(verdicts))
    )
    write_whole(journal.folder / "summary.json", [json.dumps(summary, indent=2, ensure_ascii=False)])
    return summary


def records_fingerprint(dataset: Dataset) -> str:
    """A checksum of all records and of how they are asked. Media are known by the records' `path`: their root may move."""
    digest = hashlib.sha256()
    for row in dataset:
        digest.update(json.dumps([row["prompt"], _record(row)], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


class _Records:
    """The records of a run, and what of the dataset is looked at again and again."""

    def __init__(self, dataset: Dataset, num_samples: int, limit: int | None, all_samples: bool):
        missing = [name for name in ("prompt", "solution", "problem_type") if name not in dataset.column_names]
        if missing:
            raise ValueError(
                f"the dataset has no column {missing[0]!r}, only {', '.join(dataset.column_names)}. Read it with "
                "load_video_r1."
            )
        if num_samples < 1:
            raise ValueError(f"num_samples ({num_samples}) must be at least 1.")
        self.dataset, self.num_samples, self.all_samples = dataset, num_samples, all_samples
        self.solutions, self.problem_types = dataset["solution"][:], dataset["problem_type"][:]
        self.options = dataset["options"][:] if "options" in dataset.column_names else [None] * len(dataset)
        self.places = self._beside_their_video(drawn(dataset, limit))

    def _beside_their_video(self, places: list[int]) -> list[int]:
        """Records of one video one after the other, so that it is decoded once."""
        names = [name for name in VIDEO_COLUMNS if name in self.dataset.column_names]
        columns = [self.dataset[name][:] for name in names]
        first: dict[str, int] = {}

        def order(place: int) -> int:
            shown = next((column[place] for column in columns if column[place]), place)
            return first.setdefault(str(shown), place)

        return sorted(places, key=order)

    def request(self, place: int, sample: int) -> GenerationRequest:
        row = self.dataset[place]
        media = media_list(row, "video"), media_list(row, "image")
        return GenerationRequest(_key(place, sample), row["prompt"], *media)

    def verdict(self, place: int, entries: Mapping[str, Entry], rules: CotRules) -> Verdict | None:
        """Of a record; `None` while it has completions to come."""
        found: list[Verdict] = []
        for sample in range(self.num_samples):
            entry = entries.get(_key(place, sample))
            if entry is None:
                return None
            gold = self.solutions[place], self.problem_types[place]
            found.append(judge_completion(entry, *gold, rules, self.options[place] or ()))
            if found[-1].reason == ERROR or (found[-1].reason == KEPT and not self.all_samples):
                break  # what could not be read once cannot be read twice
        kept = next((verdict for verdict in found if verdict.reason in (KEPT, ERROR)), None)
        best = kept or max(found, key=lambda verdict: (_ORDER.index(verdict.reason), verdict.accuracy or 0.0))
        accuracies = [verdict.accuracy for verdict in found if verdict.accuracy is not None]
        rate = sum(accuracy > rules.threshold for accuracy in accuracies) / len(accuracies) if accuracies else None
        return dataclasses.replace(best, pass_rate=rate, attempts=len(accuracies))


def _key(place: int, sample: int) -> str:
    return f"{place}/{sample}"


def _num_tokens(entry: Entry) -> int:
    if entry["num_tokens"] is None:
        raise ValueError(
            "min_tokens and max_tokens need tokens that are counted, and this server does not: unset them."
        )
    return entry["num_tokens"]


def _figures(verdicts: Sequence[Verdict]) -> dict[str, object]:
    counts = Counter(verdict.reason for verdict in verdicts)
    accuracies = [verdict.accuracy for verdict in verdicts if verdict.accuracy is not None]
    return {
        "records": len(verdicts),
        "kept": counts[KEPT],
        "accuracy": math.fsum(accuracies) / len(accuracies) if accuracies else None,
        "rejected": {reason: counts[reason] for reason in REASONS if counts[reason]},
    }


def _kept_records(dataset: Dataset, verdicts: Mapping[int, Verdict]) -> Iterator[dict[str, object]]:
    for place in sorted(verdicts):
        if verdicts[place].process is not None:
            record = {
                name: value for name, value in _rated(dataset, place, verdicts[place]).items() if name != "completion"
            }
            yield record | {"process": verdicts[place].process}


def _rated(dataset: Dataset, place: int, verdict: Verdict) -> dict[str, object]:
    """A record with how often its answer was right."""
    record = {name: value for name, value in _record(dataset[place]).items() if name not in ("pass_rate", "attempts")}
    rate = {} if verdict.pass_rate is None else {"pass_rate": round(verdict.pass_rate, 6)}
    return record | rate | {"attempts": verdict.attempts}


def _record(row: Mapping[str, object]) -> dict[str, object]:
    """A row as the record that it was read from; what the record did not have is `None` in the row."""
    return {name: value for name, value in row.items() if value is not None and name not in ("prompt", *MEDIA_COLUMNS)}
