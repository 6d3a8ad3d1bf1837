"""What a benchmark is: where its files are, how a row becomes a question, and its rule for what is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ...text.choices import LETTERS, labelled
from ...text.messages import Columns
from ..questions import Question


VIDEO_SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi")

Row = TypeVar("Row", bound=Mapping[str, object])


class Found(NamedTuple):
    """What a rule says: the score in [0, 1], and whether the answer names an option, a number or a text at all."""

    score: float
    names_one: bool


@dataclass(frozen=True)
class LeftOut:
    """A question that is not asked, and why; the reasons are counted and said."""

    reason: str


class Fields(dict):
    """
    A row of a file. What is read by `[...]` must be there and hold something; `.get` may find nothing.

    Files of JSON give rows that lack a column of others a `None`, which would else be asked as it is.

    >>> Fields({"question": None})["question"]
    Traceback (most recent call last):
    ValueError: its field 'question' is empty
    """

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"its field {name!r} is empty")
        return value


class SubtitleFile(NamedTuple):
    """A file of subtitles, and the second, as its times count, at which the video begins."""

    path: Path
    first_second: float = 0.0


@dataclass(frozen=True)
class Benchmark(Generic[Row]):
    """
    A benchmark, as its official files and its evaluation in lmms-eval 0.7.3 have it.

    Args:
        name (`str`): as in `BENCHMARKS`.
        hub_id (`str`): of its dataset on the Hub.
        configs (`tuple`): all of its parts, which `datasets.load_dataset` knows by name.
        split (`str`): that holds its questions.
            A `{config}` in it stands for the part, which is then no config of the dataset.
        question (`Callable`): `(row, config, number, root) -> Question`, or several of a row; a [`LeftOut`] for one that is not
            asked. The row is the `number`-th of the part `config`; `root` is the folder of the videos. A row that is not as it
            must be raises.
        rule (`Callable`): `(question, answer) -> Found`: whether an answer without its thoughts is right.
        default (`tuple`, *optional*): the parts that are asked where none is named; `None`: all.
        data_files (`str`, *optional*): the one file of questions; with `{config}`, that of each part.
        left_out (`str`): questions that are not asked, and why.
        note (`str`): how its setting differs from the official one.
        average (`str`): `"pooled"`, or `"tasks"` where its score is the unweighted mean of its tasks.
        together (`dict[str, int | None]`): the measures of whole sets of questions, and how large each set is; `None`: as many
            as there are.
        one_part (`bool`): its parts are the same questions in other forms, not to be asked in one run.
        check (`Callable`, *optional*): `(questions) -> None`: raises where its questions do not go together.
        subtitles (`Callable`, *optional*): `(row, root) -> SubtitleFile`, or `None` of a video that has none.
        judged_configs (`tuple`): parts that only a judge can mark, asked where there is one.
        judged (`Callable`, *optional*): as `question`, of the rows that it leaves out: open questions, for a judge.
    """

    name: str
    hub_id: str
    configs: tuple[str, ...]
    split: str
    question: Callable[[Row, str, int, Path], Question | LeftOut | Sequence[Question | LeftOut]]
    rule: Callable[[Question, str], Found]
    default: tuple[str, ...] | None = None
    data_files: str | None = None
    left_out: str = ""
    note: str = ""
    average: Literal["pooled", "tasks"] = "pooled"
    together: Mapping[str, int | None] = field(default_factory=dict)
    one_part: bool = False
    check: Callable[[Sequence[Question]], None] | None = None
    subtitles: Callable[[Row, Path], SubtitleFile | None] | None = None
    judged_configs: tuple[str, ...] = ()
    judged: Callable[[Row, str, int, Path], Question | LeftOut] | None = None


def choice(
    task: str,
    key: str,
    problem: str,
    options: Sequence[str] | Mapping[str, str | None],
    gold: str,
    shown: Sequence[str] = (),
) -> Question:
    """
    A multiple-choice question, its video still to come.

    Args:
        options: texts, some with letters such as "a. left" or "(A) left"; a dict has the letters as its keys, and those
            without a text are left out, while the others keep theirs.
        gold (`str`): the letter of one of them.
        shown (`Sequence[str]`): as in [`Question`].

    Raises:
        `ValueError`: fewer than two options, one that is no text, or a gold that is none of their letters.
    """
    if isinstance(options, Mapping):
        given = {letter: text for letter, text in sorted(options.items()) if text not in (None, "")}
        checked_options(list(given.values()))
        lines = [f"{letter}. {text}" for letter, text in given.items()]
    else:
        lines = [f"{letter}. {text}" for letter, text in labelled(checked_options(options))]
    if gold not in [line[0] for line in lines]:
        raise ValueError(f"the answer {gold!r} is the letter of none of the options {lines}")
    return Question(key, task, problem, "multiple choice", gold, tuple(lines), shown=tuple(shown))


def checked_options(options: Sequence[Any]) -> list[str]:
    """
    The options, if they are what can be chosen from: two texts at least, and no more than there are letters.

    Raises:
        `ValueError`: they are not.
    """
    if isinstance(options, str) or not isinstance(options, Sequence):
        raise ValueError(f"the options {options!r} are no list of texts")
    wrong = next((option for option in options if not isinstance(option, str)), None)
    if wrong is not None or None in options:
        raise ValueError(f"the option {wrong!r} of {list(options)} is no text")
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(
            f"there are {len(options)} options, of which 2 to {len(LETTERS)} can be asked: {list(options)}"
        )
    return list(options)


def letter_of(answer: str, options: Sequence[str]) -> str:
    """
    The letter of the first option that an answer is the text of.

    Raises:
        `ValueError`: no option is.

    >>> letter_of("right", ["left", "right"])
    'B'
    """
    texts = [option.strip() for option in checked_options(options)]
    if answer.strip() not in texts:
        raise ValueError(f"the answer {answer!r} is none of the options {list(options)}")
    return LETTERS[texts.index(answer.strip())]


def first_there(paths: Sequence[Path]) -> Path:
    """The first path that exists, else the first, which the run will count as missing."""
    return next((path for path in paths if path.exists()), paths[0])


def letter_at(place: object, options: Sequence[str]) -> str:
    """
    The letter of the option at a place that is counted from 0, a number or its digits.

    Raises:
        `ValueError`: no option is there.

    >>> letter_at(1, ["left", "right"]), letter_at("0", ["left", "right"])
    ('B', 'A')
    """
    text, options = str(place).strip(), checked_options(options)
    if not text.isdecimal() or int(text) >= len(options):
        raise ValueError(f"the answer {place!r} is no place, counted from 0, among the options {list(options)}")
    return LETTERS[int(text)]


def bare_letter(answer: object) -> str:
    """
    A gold's letter without what it may be set off by.

    >>> bare_letter("(B)"), bare_letter(" C. "), bare_letter("d")
    ('B', 'C', 'D')
    """
    return str(answer).strip().strip("().: ").upper()


def first_field(row: Columns, *names: str) -> Any:
    """
    The value of the first of these fields that a row has: of files whose columns are known in several spellings.

    Raises:
        `ValueError`: it has none of them.
    """
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise ValueError(f"it has no field {' or '.join(map(repr, names))}")


def video_in(root: Path, folders: Sequence[str], name: str, suffixes: Sequence[str] = ("",)) -> Path:
    """The file of a name within the first of these folders of `root` that has it, else within the first."""
    return first_there([root / folder / f"{name}{suffix}" for folder in folders for suffix in suffixes])
