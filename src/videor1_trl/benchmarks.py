"""The questions of seven video benchmarks from their official files, and those of any file of Video-R1's records."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets

from .benchmark_media import MVBENCH_MEDIA, VIDEOMMMU_FOLDERS
from .data import load_video_r1
from .media import MEDIA_COLUMNS
from .prompts import extract_answer, make_prompt


VIDEO_SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TEMPCOMPASS_LABEL = re.compile(r"(?:(?:Caption|Sentence|Option)\s+\w+\s*:|[A-Z][.:)])\s*")


@dataclass(frozen=True)
class Question:
    """
    One question of a benchmark.

    Args:
        key (`str`): names it within its benchmark.
        task (`str`): the part of the benchmark that it belongs to.
        problem (`str`): what is asked, without its options.
        problem_type (`str`): one of `PROBLEM_TYPES`; says how the answer should look.
        gold (`str`): the right answer: a letter, a number or a text.
        options (`tuple[str, ...]`): texts such as `"A. left"`.
        metric (`str`): `"accuracy"` (by problem type), `"mra"` (mean relative accuracy) or `"open"` (equal numbers or words).
        video, image (*optional*): sources that [`load_video`] and [`load_image`] take.
        cluster (`str`): the video that it is about: questions on one video are not independent.
        groups (`dict[str, str]`): further parts that figures are given for, such as `{"duration": "short"}`.
    """

    key: str
    task: str
    problem: str
    problem_type: str
    gold: str
    options: tuple[str, ...] = ()
    metric: Literal["accuracy", "mra", "open"] = "accuracy"
    video: Any = None
    image: Any = None
    cluster: str = ""
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def prompt(self) -> list[dict]:
        """The question as in training."""
        return make_prompt(self.problem, self.problem_type, self.options)

    @property
    def chance(self) -> float:
        """Expected score of a guess: one over the number of options, 0 where a number or a text is asked for."""
        return 1 / len(self.options) if self.problem_type == "multiple choice" and self.options else 0.0


@dataclass(frozen=True)
class Benchmark:
    """
    Where a benchmark's files are, and how a row becomes a question.

    Args:
        name (`str`): as in `BENCHMARKS`.
        hub_id (`str`): of its dataset on the Hub.
        configs (`tuple`): all of its parts, which `datasets.load_dataset` knows by name.
        split (`str`): that holds its questions.
        question (`Callable`): `(row, config, number, root) -> Question`.
        default (`tuple`, *optional*): the parts that are asked where none is named; `None`: all.
        data_files (`str`, *optional*): the one file of questions.
        left_out (`str`): questions that are not asked, and why.
    """

    name: str
    hub_id: str
    configs: tuple[str, ...]
    split: str
    question: Callable[[dict[str, Any], str, int, Path], Question | None]
    default: tuple[str, ...] | None = None
    data_files: str | None = None
    left_out: str = ""


def load_benchmark(
    name: str,
    media_root: str | Path | None = None,
    *,
    source: str | Path | None = None,
    configs: Sequence[str] | None = None,
    revision: str | None = None,
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

    Raises:
        `ValueError`: an unknown name or part, no `media_root`, a row without what it must have, two questions of one key.
        `FileNotFoundError`: a dataset that is not there.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark ({name!r}) must be one of {', '.join(BENCHMARKS)}.")
    benchmark = BENCHMARKS[name]
    source = benchmark.hub_id if source is None else source
    local = Path(source).is_dir()
    root = media_root if media_root is not None else source if local else None
    if root is None:
        raise ValueError(
            f"media_root is needed: unpack the archives of videos of {source} and give the folder they are in."
        )
    if not Path(root).is_dir():
        raise ValueError(f"media_root ({root}) is not a folder.")
    chosen = tuple(configs or benchmark.default or benchmark.configs)
    unknown = [config for config in chosen if config not in benchmark.configs]
    if unknown:
        raise ValueError(f"configs: {name} has no part {unknown[0]!r}. Its parts: {', '.join(benchmark.configs)}.")
    questions = []
    for config in chosen:
        for number, row in enumerate(_rows(benchmark, str(source), config, revision)):
            try:
                question = benchmark.question(row, config, number, Path(os.path.abspath(root)))
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                what = f"no field {error}" if isinstance(error, KeyError) else str(error)
                raise ValueError(f"{name}, {config}, row {number}: {what}. Its fields: {', '.join(row)}.") from error
            if question is not None:
                questions.append(question)
    return _checked(questions, name)


def load_record_questions(source: Any, root: str | Path | None = None, **options: Any) -> list[Question]:
    """
    Questions from Video-R1's records, its evaluation files (`eval_mvbench.json`, ...) among them.

    A question's task is its `original_question_type` where it has one, else its `data_source`, else its problem type. Problems
    of type "regression" are scored by mean relative accuracy, others as in training.

    Args:
        source, root, **options: as of [`load_video_r1`].

    Raises:
        What `load_video_r1` raises; `ValueError`: two questions of one key.
    """
    return _checked(
        [_record_question(row, number) for number, row in enumerate(load_video_r1(source, root, **options))], ""
    )


def fingerprint(questions: Sequence[Question]) -> str:
    """A checksum of all that is asked and of all right answers. Videos are known by `cluster`: their folder may move."""
    digest = hashlib.sha256()
    for each in questions:
        clip = [each.video.get("start"), each.video.get("end")] if isinstance(each.video, dict) else []
        asked = [each.key, each.problem, each.problem_type, each.gold, list(each.options), each.metric]
        digest.update(json.dumps([*asked, each.cluster, clip, each.video is None, each.image is None]).encode())
    return digest.hexdigest()[:16]


def _checked(questions: list[Question], name: str) -> list[Question]:
    if not questions:
        raise ValueError(f"{name or 'the file'} holds no question.")
    key, count = Counter(question.key for question in questions).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{name}: {count} questions have the key {key!r}. Correct the file.")
    return questions


def _rows(benchmark: Benchmark, source: str, config: str, revision: str | None) -> Iterator[dict[str, Any]]:
    """The rows of one part; its pictures stay undecoded."""
    options: dict[str, Any] = {"revision": revision} if revision else {}
    if benchmark.data_files is not None:
        options["data_files"] = {benchmark.split: benchmark.data_files}
    elif len(benchmark.configs) > 1 or config != "default":
        options["name"] = config
    table = datasets.load_dataset(source, split=benchmark.split, **options)
    for column, feature in table.features.items():
        if isinstance(feature, (datasets.Image, datasets.Video)):
            table = table.remove_columns(column)
    return iter(table)


def _record_question(row: dict[str, Any], number: int) -> Question:
    problem_type, gold = row["problem_type"], extract_answer(row["solution"])
    assert gold is not None  # load_video_r1 checks it
    media = {name: row[name] for name in MEDIA_COLUMNS if row.get(name) is not None}
    task = row.get("original_question_type") or row.get("data_source") or problem_type
    return Question(
        key=f"{number}/{row['problem_id']}" if row.get("problem_id") is not None else str(number),
        task=str(task),
        problem=row["problem"],
        problem_type=problem_type,
        gold=gold,
        options=tuple(row.get("options") or ()),
        metric="mra" if problem_type == "regression" else "accuracy",
        video=media.get("video"),
        image=media.get("image"),
        cluster=os.path.normpath(row["path"]) if row.get("path") else str(number),
    )


# --- one function per benchmark: (row, config, number, root) -> question --------------------------------------------


def _choice(
    task: str, key: Any, problem: str, options: Sequence[str] | dict[str, str | None], gold: str, **more: Any
) -> Question:
    """A multiple-choice question, whose gold is the letter of an option; a dict has the options' letters as its keys."""
    lines = lettered(options) if not isinstance(options, dict) else _present(options)
    if gold not in [line[0] for line in lines]:
        raise ValueError(f"the answer {gold!r} is the letter of none of the options {lines}")
    return Question(str(key), task, problem, "multiple choice", gold, tuple(lines), **more)


def lettered(options: Sequence[str]) -> list[str]:
    """
    Options with their letters before them.

    >>> lettered(["left", "right"]), lettered(["A. left", "B. right"])
    (['A. left', 'B. right'], ['A. left', 'B. right'])
    """
    if all(re.match(rf"{letter}[.:)]", option) for letter, option in zip(LETTERS, options, strict=False)):
        return list(options)
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def _present(options: dict[str, str | None]) -> list[str]:
    """Options by their letters, without the empty ones; the others keep theirs."""
    return [f"{letter}. {text}" for letter, text in sorted(options.items()) if text not in (None, "")]


def letter_of(answer: str, options: Sequence[str]) -> str:
    """
    The letter of the first option that an answer is the text of.

    Raises:
        `ValueError`: no option is.

    >>> letter_of("right", ["left", "right"])
    'B'
    """
    texts = [option.strip() for option in options]
    if answer.strip() not in texts:
        raise ValueError(f"the answer {answer!r} is none of the options {list(options)}")
    return LETTERS[texts.index(answer.strip())]


def _vsibench(row: dict[str, Any], config: str, number: int, root: Path) -> Question:
    video = f"{row['dataset']}/{row['scene_name']}.mp4"
    more: dict[str, Any] = {"video": str(root / video), "cluster": video, "groups": {"dataset": row["dataset"]}}
    key, task = f"{config}/{row['id']}", row["question_type"]
    gold = str(row["ground_truth"]).strip()
    if row.get("options"):
        return _choice(task, key, row["question"], row["options"], gold, **more)
    return Question(key, task, row["question"], "regression", gold, metric="mra", **more)


def _videommmu(row: dict[str, Any], config: str, number: int, root: Path) -> Question:
    subject = "_".join(row["id"].split("_")[1:-1])
    folder = VIDEOMMMU_FOLDERS.get(subject)
    if folder is None:
        raise ValueError(f"id {row['id']!r} names no subject of MMMU")
    video = f"{folder}/{row['id']}.mp4"
    more: dict[str, Any] = {"video": str(root / video), "cluster": video, "groups": {"discipline": folder}}
    key, answer = f"{config}/{row['id']}", str(row["answer"]).strip()
    options = row.get("options") or []
    options = ast.literal_eval(options) if isinstance(options, str) else options
    if row["question_type"] == "multiple-choice":
        return _choice(config, key, row["question"], options, answer, **more)
    return Question(key, config, row["question"], "free-form", answer, metric="open", **more)


def _mmvu(row: dict[str, Any], config: str, number: int, root: Path) -> Question | None:
    if row["question_type"] != "multiple-choice":
        return None
    found = re.search(r"videos/.+", row["video"])  # the column may be a URL
    video = found[0] if found else row["video"]
    more = {"video": str(root / video), "cluster": video}
    task, gold = Path(video).parent.name, row["answer"].strip()
    return _choice(task, row["id"], row["question"], row["choices"], gold, **more)


def _mvbench(row: dict[str, Any], config: str, number: int, root: Path) -> Question:
    original, cut = MVBENCH_MEDIA[config]
    name, bounds = row["video"], {}
    if row.get("start") is not None and row.get("end") is not None:
        bounds = {"start": float(row["start"]), "end": float(row["end"])}
    for folder in (f"{original}", f"data0613/{original}"):
        path = root / folder / name
        if path.is_dir():  # TVQA: the frames of a video, 3 a second
            return _mvbench_question(row, config, number, name, {"frames": str(path), "fps": 3.0, **bounds})
        if path.exists():
            return _mvbench_question(row, config, number, name, {"path": str(path), **bounds} if bounds else str(path))
    path = root / cut / name  # of the Hub's branch `video`, whose clips are cut
    missing = root / original / name
    return _mvbench_question(row, config, number, name, str(path if path.exists() else missing))


def _mvbench_question(row: dict[str, Any], config: str, number: int, name: str, video: Any) -> Question:
    cluster = f"{MVBENCH_MEDIA[config][0]}/{name}"  # two folders share base names
    key = f"{config}/{number}"
    gold = letter_of(row["answer"], row["candidates"])
    return _choice(config, key, row["question"], row["candidates"], gold, video=video, cluster=cluster)


def _tempcompass(row: dict[str, Any], config: str, number: int, root: Path) -> Question:
    video = f"videos/{row['video_id']}.mp4"
    more: dict[str, Any] = {"video": str(root / video), "cluster": video, "groups": {"dimension": row["dim"]}}
    key, answer = f"{config}/{number}", row["answer"].strip()
    if config == "yes_no":
        options = ["yes", "no"]
        return _choice(config, key, row["question"], options, letter_of(answer.lower(), options), **more)
    lines = [line.strip() for line in row["question"].strip().split("\n") if line.strip()]
    labelled = [line for line in lines if _TEMPCOMPASS_LABEL.match(line)]
    problem = "\n".join(line for line in lines if line not in labelled)
    texts = [_TEMPCOMPASS_LABEL.sub("", line) for line in labelled]
    return _choice(config, key, problem, texts, letter_of(answer, labelled), **more)


def _videomme(row: dict[str, Any], config: str, number: int, root: Path) -> Question:
    folder = root / "data" if (root / "data").is_dir() else root
    video = str(_first([folder / f"{row['videoID']}{suffix}" for suffix in VIDEO_SUFFIXES]))
    groups = {"duration": row["duration"], "domain": row["domain"]}
    more = {"video": video, "cluster": row["videoID"], "groups": groups}
    return _choice(
        row["task_type"], row["question_id"], row["question"], row["options"], row["answer"].strip(), **more
    )


def _video_holmes(row: dict[str, Any], config: str, number: int, root: Path) -> Question:
    name = str(row["video ID"])
    names = [f"{folder}{name}{suffix}" for folder in ("videos_cropped/", "videos/", "") for suffix in VIDEO_SUFFIXES]
    video = _first([*(root / each for each in names), *(root / "Benchmark" / each for each in names)])
    key, more = f"{name}/{row['Question ID']}", {"video": str(video), "cluster": name}
    return _choice(row["Question Type"], key, row["Question"], row["Options"], row["Answer"].strip(), **more)


def _first(paths: list[Path]) -> Path:
    """The first that is there, else the first, which the run will count as missing."""
    return next((path for path in paths if path.exists()), paths[0])


BENCHMARKS = {
    each.name: each
    for each in (
        Benchmark(
            "vsibench", "nyu-visionx/VSI-Bench", ("full", "debiased", "pruned"), "test", _vsibench, default=("full",)
        ),
        Benchmark(
            "videommmu", "lmms-lab/VideoMMMU", ("Perception", "Comprehension", "Adaptation"), "test", _videommmu
        ),
        Benchmark(
            "mmvu",
            "yale-nlp/MMVU",
            ("default",),
            "validation",
            _mmvu,
            left_out="open-ended questions, which need a model as judge",
        ),
        Benchmark("mvbench", "OpenGVLab/MVBench", tuple(MVBENCH_MEDIA), "train", _mvbench),
        Benchmark(
            "tempcompass",
            "lmms-lab/TempCompass",
            ("multi-choice", "yes_no", "caption_matching"),
            "test",
            _tempcompass,
            left_out="captioning, which needs a model as judge",
        ),
        Benchmark("videomme", "lmms-lab/Video-MME", ("videomme",), "test", _videomme, left_out="subtitles"),
        Benchmark(
            "video-holmes",
            "TencentARC/Video-Holmes",
            ("default",),
            "test",
            _video_holmes,
            data_files="test_Video-Holmes.json",
        ),
    )
}
