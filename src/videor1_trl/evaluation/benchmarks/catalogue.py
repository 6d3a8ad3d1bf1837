"""The benchmarks by name, and their questions from their official files."""

from __future__ import annotations

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import datasets

from ...data.records import listed
from ...text.prompts import PromptTemplate, as_template
from ...text.subtitles import Subtitle, read_subtitles
from ..questions import Question, checked_keys
from .aotbench import AOTBENCH
from .benchmark import Benchmark, Fields, LeftOut, Row
from .charades_sta import CHARADES_STA
from .dybench import DYBENCH
from .longvideobench import LONGVIDEOBENCH
from .lvbench import LVBENCH
from .minerva import MINERVA
from .mlvu import MLVU, MLVU_OPEN, MLVU_TEST
from .mmvu import MMVU
from .motionbench import MOTIONBENCH
from .mvbench import MVBENCH
from .tempcompass import TEMPCOMPASS
from .timeblind import TIMEBLIND
from .timelens import TIMELENS_BENCH
from .tomato import TOMATO
from .tvbench import TVBENCH
from .video_holmes import VIDEO_HOLMES
from .videomathqa import VIDEOMATHQA
from .videomme import VIDEOMME
from .videommmu import VIDEOMMMU
from .vinoground import VINOGROUND
from .vsibench import VSIBENCH


logger = logging.getLogger(__name__)

# Each has rows of its own, which only its `question` reads
AnyBenchmarks = tuple[Benchmark[Any], ...]  # each with its own fields of a row
_SEVEN: AnyBenchmarks = (VSIBENCH, VIDEOMMMU, MMVU, MVBENCH, TEMPCOMPASS, VIDEOMME, VIDEO_HOLMES)
_ORDER_OF_TIME = (TVBENCH, TOMATO, AOTBENCH, DYBENCH, TIMEBLIND, VINOGROUND, MOTIONBENCH)
_LONG: AnyBenchmarks = (LONGVIDEOBENCH, MLVU, MLVU_TEST, MLVU_OPEN, LVBENCH)
_REASONING: AnyBenchmarks = (VIDEOMATHQA, MINERVA)
_GROUNDING: AnyBenchmarks = (CHARADES_STA, TIMELENS_BENCH)
_ALL: AnyBenchmarks = (*_SEVEN, *_ORDER_OF_TIME, *_LONG, *_REASONING, *_GROUNDING)
BENCHMARKS = {each.name: each for each in _ALL}


def load_benchmark(
    name: str,
    media_root: str | Path | None = None,
    *,
    source: str | Path | None = None,
    configs: Sequence[str] | None = None,
    revision: str | None = None,
    prompt_template: PromptTemplate | str | Path | None = None,
    on_bad_record: Literal["raise", "drop"] = "raise",
    dropped: list[str] | None = None,
    not_asked: dict[str, int] | None = None,
    subtitles: bool = False,
    judged: bool = False,
) -> list[Question]:
    """
    The questions of a benchmark, in the order of its files. No video is opened.

    Args:
        name (`str`): one of `BENCHMARKS`.
        media_root (`str` or `Path`, *optional*): folder in which its archives of videos were unpacked. Defaults to `source`
            where that is a folder.
        source (`str` or `Path`, *optional*): a local copy of its dataset, or another Hub id. `None`: the official one.
        configs (`Sequence[str]`, *optional*): the parts to ask, such as `["debiased"]` of VSI-Bench. `None`: its default.
        revision (`str`, *optional*): branch, tag or commit of a Hub dataset.
        prompt_template ([`PromptTemplate`] or its file, *optional*): another wording of the questions.
        on_bad_record (`str`): `"raise"`, or `"drop"`, which leaves rows that cannot be asked out and logs how many and why.
        dropped (`list`, *optional*): a line for every row left out is appended to it.
        not_asked (`dict`, *optional*): how many questions the benchmark does not ask, by reason, is written into it; it is logged,
            too.
        subtitles (`bool`, defaults to `False`): read the subtitles of its videos, too.
        judged (`bool`, defaults to `False`): ask its open questions, too, whose answers a judge model is to mark.

    Raises:
        `ValueError`: an unknown name or part, no `media_root`, files that hold no rows, a row without what it must have, two
            questions of one key.
        `FileNotFoundError`: a dataset that is not there.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark ({name!r}) must be one of {', '.join(BENCHMARKS)}.")
    benchmark = BENCHMARKS[name]
    if subtitles and benchmark.subtitles is None:
        having = ", ".join(each.name for each in _ALL if each.subtitles is not None)
        raise ValueError(f"subtitles: {name} has none that are read here. These have: {having}.")
    source = benchmark.hub_id if source is None else source
    root = _folder_of_videos(media_root, source)
    chosen = _parts(benchmark, configs, judged)
    template = as_template(prompt_template)
    questions: list[Question] = []
    bad: list[str] = []
    left_out: Counter[str] = Counter()
    count = 0
    read = functools.lru_cache(maxsize=None)(read_subtitles)  # one file for all questions on a video
    for config in chosen:
        for number, row in enumerate(map(Fields, _rows(benchmark, str(source), config, revision))):
            count += 1
            try:
                found = benchmark.question(row, config, number, root)
                if isinstance(found, LeftOut) and judged and benchmark.judged is not None:
                    found = benchmark.judged(row, config, number, root)
                several = [found] if isinstance(found, (Question, LeftOut)) else found
                asked = [_checked(each) for each in several if isinstance(each, Question)]
                shown = _subtitles(benchmark, row, root, read) if subtitles else None
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                fault = f"{name}, {config}, row {number}: {_fault(error, row)}"
                if on_bad_record == "raise":
                    raise ValueError(fault) from error
                bad.append(fault)
                continue
            left_out.update(each.reason for each in several if isinstance(each, LeftOut))
            questions += [replace(question, benchmark=name, template=template, subtitles=shown) for question in asked]
    _say_left_out(name, left_out, len(questions), not_asked)
    if bad:
        logger.warning("Dropped %d of %d rows, which cannot be asked:\n  %s", len(bad), count, listed(bad, 10))
        if dropped is not None:
            dropped += bad
    questions = checked_keys(questions, name)
    _say_twice(name, questions)
    if benchmark.check is not None:
        benchmark.check(questions)
    return _whole_sets(benchmark, chosen, questions, is_whole=not bad)


def _checked(question: Question) -> Question:
    """
    Raises:
        `ValueError`: a question without a text, a task or an answer: a column that means something else.
    """
    for name in ("key", "task", "problem", "gold"):
        value = getattr(question, name)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"its {name} would be {value!r}, which is no text")
    return question


def _fault(error: Exception, row: Fields) -> str:
    """What is wrong with a row, and what it has."""
    if isinstance(error, (TypeError, AttributeError)):
        types = ", ".join(f"{name} ({type(value).__name__})" for name, value in row.items())
        return f"a field is of another type than in the official files ({error}). Its fields: {types}."
    what = f"no field {error}" if isinstance(error, KeyError) else str(error)
    return f"{what}. Its fields: {', '.join(row)}."


def _say_left_out(name: str, left_out: Counter[str], asked: int, not_asked: dict[str, int] | None) -> None:
    if left_out:
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in left_out.most_common())
        logger.warning("%s: asked: %d; not asked: %d (%s).", name, asked, left_out.total(), reasons)
    if not_asked is not None:
        not_asked.update(left_out)


def _say_twice(name: str, questions: Sequence[Question]) -> None:
    """Says where the right option stands twice: who names the other is wrong, as by the benchmarks' own scripts."""
    twice = []
    for question in questions:
        texts = {option[0]: " ".join(option[2:].split()).casefold() for option in question.options}
        if list(texts.values()).count(texts.get(question.gold, "")) > 1:
            twice.append(question.key)
    if twice:
        logger.warning(
            "%s: %d of %d questions have their right option twice, and count one of both (the first is %s).",
            *(name, len(twice), len(questions), twice[0]),
        )


def _subtitles(
    benchmark: Benchmark[Any], row: Any, root: Path, read: Callable[[Path, float], list[Subtitle]]
) -> tuple[Subtitle, ...]:
    """The subtitles of a row's video; none where it has no file of them."""
    assert benchmark.subtitles is not None
    file = benchmark.subtitles(row, root)
    return () if file is None else tuple(read(file.path, file.first_second))


def _whole_sets(
    benchmark: Benchmark[Any], chosen: Sequence[str], questions: list[Question], *, is_whole: bool
) -> list[Question]:
    """
    The questions, each in no set that lacks one: those that lost a row to `on_bad_record="drop"`, or to a part not asked.

    Raises:
        `ValueError`: a set of another size than its benchmark's, though no row was dropped and all parts are asked.
    """
    sizes = Counter((name, which) for question in questions for name, which in question.together.items())
    broken = {(name, which) for (name, which), size in sizes.items() if benchmark.together[name] not in (None, size)}
    if not broken:
        return questions
    if is_whole and set(chosen) == set(benchmark.configs):
        name, which = min(broken)
        raise ValueError(
            f"{benchmark.name}: the set {which!r} of {name} holds {sizes[name, which]} questions, not "
            f"{benchmark.together[name]}. The files are not whole, or their columns mean something else."
        )
    return [
        replace(each, together={name: which for name, which in each.together.items() if (name, which) not in broken})
        for each in questions
    ]


def _folder_of_videos(media_root: str | Path | None, source: str | Path) -> Path:
    root = media_root if media_root is not None else source if Path(source).is_dir() else None
    if root is None:
        raise ValueError(
            f"media_root is needed: unpack the archives of videos of {source} and give the folder they are in."
        )
    if not Path(root).is_dir():
        raise ValueError(f"media_root ({root}) is not a folder.")
    return Path(os.path.abspath(root))


def _parts(benchmark: Benchmark[Row], configs: Sequence[str] | None, judged: bool) -> tuple[str, ...]:
    open_to_all = benchmark.default or benchmark.configs
    chosen = tuple(configs or (*open_to_all, *(benchmark.judged_configs if judged else ())))
    known = (*benchmark.configs, *benchmark.judged_configs)
    unknown = [config for config in chosen if config not in known]
    if unknown:
        raise ValueError(f"configs: {benchmark.name} has no part {unknown[0]!r}. Its parts: {', '.join(known)}.")
    unmarked = [config for config in chosen or benchmark.judged_configs if config in benchmark.judged_configs]
    if unmarked and not judged:
        raise ValueError(
            f"{', '.join(unmarked)} of {benchmark.name} need a model as judge: name one, and its server, with judge_model and "
            "judge_base_url."
        )
    if benchmark.one_part and len(chosen) > 1:
        raise ValueError(
            f"configs: {', '.join(chosen)} of {benchmark.name} ask the same in other forms, and are two figures. Ask one at a "
            "time."
        )
    return chosen


def _rows(benchmark: Benchmark[Row], source: str, config: str, revision: str | None) -> Iterator[Row]:
    """The rows of one part, without their pictures and videos, so that none is decoded."""
    one_file = None if benchmark.data_files is None else benchmark.data_files.format(config=config)
    split = benchmark.split.format(config=config)
    named = one_file is None and split == benchmark.split and (len(benchmark.configs) > 1 or config != "default")
    try:
        table = datasets.load_dataset(
            source,
            config if named else None,
            split=split,
            data_files=None if one_file is None else {split: one_file},
            revision=revision or None,
        )
    except (StopIteration, datasets.exceptions.DatasetGenerationError) as error:
        reason = str(error.__cause__ or "") or "it is empty"
        where = f"{source}, {one_file or config}"
        raise ValueError(f"{benchmark.name}: {where} cannot be read as rows: {reason}. Download it again.") from error
    except ValueError as error:
        if "corresponds to no data" not in str(error):
            raise
        raise ValueError(f"{benchmark.name}: {source}, {one_file or config} holds no rows.") from error
    for column, feature in table.features.items():
        if isinstance(feature, (datasets.Image, datasets.Video)):
            table = table.remove_columns(column)
    return iter(table)
