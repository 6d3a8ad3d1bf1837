"""DyBench: pairs of videos that differ in what moves how, so that who does not look answers one of both wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...text.choices import LETTERS
from ...text.messages import Columns
from ..questions import Question
from .benchmark import Benchmark, bare_letter, checked_options, choice, first_field, letter_of, video_in
from .named_option import by_named_option
from .options_in_text import split_options


_OPTIONS = {"event_sequence": 2, "moving_direction": 4, "reversible_dynamics": 3}  # as its project page has them


def _question(row: Columns, config: str, number: int, root: Path) -> Question:
    """The columns of these gated files are not published elsewhere: the likely spellings are tried."""
    pair = first_field(row, "pair_id", "pair", "pair_idx", "group_id", "group")
    name = str(first_field(row, "video", "video_path", "video_name"))
    problem, options = str(first_field(row, "question", "problem")), row.get("candidates") or row.get("options")
    answer = str(first_field(row, "answer", "gold"))
    if not options:
        problem, options = split_options(problem)
    asked = choice(config, f"{config}/{number}", problem, options, _gold(answer, options))
    if len(asked.options) != _OPTIONS[config]:
        raise ValueError(f"{config} has {_OPTIONS[config]} options, not {len(asked.options)}: {list(asked.options)}")
    video = video_in(root, ("", "video", "videos", f"video/{config}", f"videos/{config}", config), name)
    return replace(asked, video=str(video), cluster=name, together={"P-Acc": f"{config}/{pair}"})


def _gold(answer: str, options: Sequence[str] | Mapping[str, str]) -> str:
    """The letter of an answer that is a letter, or the text of an option; of one that is both, of two options, nobody knows."""
    texts = list(options.values()) if isinstance(options, Mapping) else checked_options(options)
    letters = list(options) if isinstance(options, Mapping) else list(LETTERS[: len(texts)])
    by_letter = bare_letter(answer) if bare_letter(answer) in letters else None
    by_text = letters[texts.index(answer)] if answer in texts else None
    if by_letter is not None and by_text not in (None, by_letter):
        raise ValueError(f"the answer {answer!r} is the letter of one option and the text of another: {texts}")
    return by_letter or by_text or letter_of(answer, texts)


def _check(questions: Sequence[Question]) -> None:
    """Both of a pair are on videos of their own: else the column that was taken for the pair is another."""
    videos: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        videos[question.together["P-Acc"]].add(question.cluster)
    alone = [pair for pair, found in videos.items() if len(found) == 1]
    if alone:
        raise ValueError(
            f"dybench: the pair {alone[0]} has one video, {videos[alone[0]].pop()}. Its columns mean something else."
        )


DYBENCH = Benchmark(
    "dybench",
    "ddz16/DyBench",
    configs=tuple(_OPTIONS),
    split="test",
    question=_question,
    rule=by_named_option,
    data_files="json/{config}.json",
    together={"P-Acc": 2},
    check=_check,
)
