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
from .benchmark import Benchmark, Row
from .charades_sta import CHARADES_STA
from .dybench import DYBENCH
from .longvideobench import LONGVIDEOBENCH
from .lvbench import LVBENCH
from .minerva import MINERVA
from .mlvu import MLVU, MLVU_TEST
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
_LONG = (LONGVIDEOBENCH, MLVU, MLVU_TEST, LVBENCH)
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
        subtitles (`bool`, defaults to `False`): read the subtitles of its videos, too.
        judged (`bool`, defaults to `False`): ask its open questions, too, whose answers a judge model is to mark.

    Raises:
        `ValueError`: an unknown name or part, no `media_root`, a row without what it must have, two questions of one key.
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
    chosen = _parts(benchmark, configs)
    template = as_template(prompt_template)
    questions: list[Question] = []
    bad: list[str] = []
    count = 0
    read = functools.lru_cache(maxsize=None)(read_subtitles)  # one file for all questions on a video
    for config in chosen:
        for number, row in enumerate(_rows(benchmark, str(source), config, revision)):
            count += 1
            try:
                found = benchmark.question(row, config, number, root)
                if found is None and judged and benchmark.judged is not None:
                    found = benchmark.judged(row, config, number, root)
                shown = _subtitles(benchmark, row, root, read) if subtitles else None
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                what = f"no field {error}" if isinstance(error, KeyError) else str(error)
                fault = f"{name}, {config}, row {number}: {what}. Its fields: {', '.join(row)}."
                if on_bad_record == "raise":
                    raise ValueError(fault) from error
                bad.append(fault)
                continue
            several = () if found is None else (found,) if isinstance(found, Question) else found
            questions += [
                replace(question, benchmark=name, template=template, subtitles=shown) for question in several
            ]
    if bad:
        logger.warning("Dropped %d of %d rows, which cannot be asked:\n  %s", len(bad), count, listed(bad, 10))
        if dropped is not None:
            dropped += bad
    questions = checked_keys(questions, name)
    if benchmark.check is not None:
        benchmark.check(questions)
    return _whole_sets(benchmark, chosen, questions, is_whole=not bad)


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


def _parts(benchmark: Benchmark[Row], configs: Sequence[str] | None) -> tuple[str, ...]:
    chosen = tuple(configs or benchmark.default or benchmark.configs)
    unknown = [config for config in chosen if config not in benchmark.configs]
    if unknown:
        parts = ", ".join(benchmark.configs)
        raise ValueError(f"configs: {benchmark.name} has no part {unknown[0]!r}. Its parts: {parts}.")
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
    table = datasets.load_dataset(
        source,
        config if named else None,
        split=split,
        data_files=None if one_file is None else {split: one_file},
        revision=revision or None,
    )
    for column, feature in table.features.items():
        if isinstance(feature, (datasets.Image, datasets.Video)):
            table = table.remove_columns(column)
    return iter(table)
