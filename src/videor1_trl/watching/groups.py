"""What the page shows, read from the folders of runs: groups of rollouts, of training, of evaluations and of rationales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..generation.journal import read_lines
from ..text.messages import Named
from ..text.prompts import extract_answer, extract_thought
from .store import read_rollouts, rollout_files


@dataclass
class Group:
    """
    The rollouts of one prompt that belong together.

    Args:
        source (`str`): of what run and part: `"train"`, `"eval"`, or the name of an evaluation's or rationales' folder.
        step (`int`, *optional*): of training.
        name (`str`): what tells it from others beside the step.
        folder (`Path`): that the paths of frames start at.
        rollouts (`list[Named]`): fields as of a record: `kind`, `place`, `contrast`, `completion`, `accuracy` ...
        frames, contrast_frames (`list[str]`): pictures in the order in which they were seen.
        controls (`dict[str, list[str]]`): of an evaluation the pictures under each control.
    """

    source: str
    step: int | None
    name: str
    folder: Path
    prompt: str = ""
    gold: str = ""
    problem_type: str = ""
    data_source: str = ""
    taught: bool | None = None
    accuracy: float | None = None
    contrast_accuracy: float | None = None
    error: str = ""
    rollouts: list[Named] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    contrast_frames: list[str] = field(default_factory=list)
    controls: dict[str, list[str]] = field(default_factory=dict)
    seconds: list[float | None] = field(default_factory=list)


def read_groups(folder: Path) -> list[Group]:
    """
    All groups of a folder, in the order of their steps.

    Raises:
        `FileNotFoundError`: no such folder, or nothing in it that could be shown. `ValueError`: a file with other lines.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder. Give the output_dir of a run.")
    if rollout_files(folder):
        return _of_training(folder)
    if (folder / "results.jsonl").is_file():
        return list(_of_evaluation(folder))
    if list(folder.glob("completions*.jsonl")):
        return _of_journal(folder)
    raise FileNotFoundError(
        f"{folder} has neither rollouts.jsonl (set log_rollouts_steps), nor results.jsonl or completions.jsonl of an evaluation or of "
        "rationales: there is nothing to show."
    )


def _of_training(folder: Path) -> list[Group]:
    found: dict[tuple[object, ...], Group] = {}
    for line in read_rollouts(folder):
        key = line["step"], line["mode"] != "train", line["generation"], line["group"]
        group = found.get(key)
        if group is None:
            id_ = line["problem_id"]
            name = f"group {line['group'] + 1}" + (f" of batch {line['generation'] + 1}" if line["generation"] else "")
            group = found[key] = Group(line["mode"], line["step"], name + (f", id {id_}" if id_ else ""), folder)
            for attribute in ("prompt", "gold", "problem_type", "data_source", "error"):
                setattr(group, attribute, line[attribute])
            group.taught, group.accuracy = line["group_taught"], line["group_accuracy"]
            group.contrast_accuracy = line["group_contrast_accuracy"]
        if line["kind"] == "ordered":
            group.frames, group.seconds = line["frames"], line["frame_seconds"]
        else:
            group.contrast_frames = line["frames"]
        group.rollouts.append(line)
    for group in found.values():
        group.rollouts.sort(key=lambda line: (line["place"], line["kind"] == "contrast"))
    return [found[key] for key in sorted(found)]


def _of_evaluation(folder: Path) -> Iterator[Group]:
    """Of `results.jsonl`: the question's answers on ordered frames and under each control, with the pictures that were kept."""
    kept = folder / "frames.jsonl"  # of `videor1 eval --view_frames`
    pictures = {line["key"]: line for line in read_lines(kept)} if kept.is_file() else {}
    for line in read_lines(folder / "results.jsonl"):
        if "key" not in line or "ordered" not in line:
            raise ValueError(f"{folder / 'results.jsonl'} holds no results of videor1 eval. Move it away.")
        group = Group(folder.name, None, str(line["key"]), folder)
        options = "".join(f"\n{option}" for option in line.get("options") or [])
        group.prompt, group.gold = f"{line.get('problem', '')}{options}", str(line.get("gold", ""))
        group.problem_type, group.data_source = line.get("problem_type", ""), line.get("task", "")
        controls = [name for name, value in line.items() if isinstance(value, dict) and "score" in value]
        for name in controls:
            each = line[name]
            rollout = _answer(each, contrast="" if name == "ordered" else name)
            group.rollouts.append(rollout | {"accuracy": each["score"], "answer": each.get("answer") or ""})
        shown = pictures.get(line["key"], {})
        group.frames, group.seconds = shown.get("ordered", []), shown.get("seconds", [])
        group.controls = {name: shown[name] for name in controls if name != "ordered" and name in shown}
        group.accuracy = line["ordered"]["score"]
        others = [line[name]["score"] for name in controls if name != "ordered"]
        group.contrast_accuracy = sum(others) / len(others) if others else None
        yield group


def _of_journal(folder: Path) -> list[Group]:
    """Of a journal of completions alone: an evaluation that has not ended, or rationales; of these the kept ones have their record."""
    kept = _kept_records(folder)
    found: dict[str, Group] = {}
    for path in sorted(folder.glob("completions*.jsonl")):
        for line in read_lines(path):
            if "key" not in line:
                continue
            head, separator, rest = line["key"].partition(":")
            name, condition = (rest, head) if separator else (head.partition("/")[0], "ordered")
            group = found.setdefault(name, Group(folder.name, None, name if separator else f"record {name}", folder))
            rollout = _answer(line, contrast="" if condition == "ordered" else condition)
            rollout["place"] = sum(each["kind"] == rollout["kind"] for each in group.rollouts)
            of_thought = kept.get(extract_thought(rollout["completion"]) or "", [])
            if of_thought:
                rollout["kept"] = True
            if len(of_thought) == 1:  # of several records that one rationale was kept for, none is told to be this one
                [record] = of_thought
                group.prompt, group.problem_type = record["problem"], record.get("problem_type", "")
                group.gold = extract_answer(record["solution"]) or record["solution"]
            group.rollouts.append(rollout)
    return list(found.values())


def _kept_records(folder: Path) -> dict[str, list[Named]]:
    """The records whose rationales were kept, by what these hold."""
    path = folder / "records.jsonl"
    found: dict[str, list[Named]] = {}
    for line in read_lines(path) if path.is_file() else ():
        if line.get("process") and "problem" in line:
            found.setdefault(extract_thought(line["process"]) or "", []).append(line)
    found.pop("", None)
    return found


def _answer(entry: Named, contrast: str) -> Named:
    """An entry of a journal as the record of a rollout."""
    text = entry.get("text") or ""
    answer = extract_answer(text)
    return {
        "kind": "contrast" if contrast else "ordered",
        "contrast": contrast,
        "place": 0,
        "completion": text,
        "answer": answer or "",
        "answered": answer is not None,
        "num_tokens": entry.get("num_tokens"),
        "cut_off": entry.get("finished") is False,
        "accuracy": None,
        "rewards": {},
        "reward": None,
        "bonus": None,
        "advantage": None,
        "error": entry.get("error") or "",
    }


def spread(groups: Sequence[Group], most: int) -> list[Group]:
    """
    At most so many rollouts' worth of groups, evenly spread over the run, the first and the last among them.

    >>> [group.name for group in spread([Group("train", 1, str(n), Path(), rollouts=[{}] * 2) for n in range(5)], 6)]
    ['0', '2', '4']
    """
    total = sum(len(group.rollouts) for group in groups)
    if total <= most or not groups:
        return list(groups)
    count = max(2, int(most / (total / len(groups))))
    return [groups[round(place * (len(groups) - 1) / (count - 1))] for place in range(min(count, len(groups)))]


def order_mattered(group: Group) -> bool:
    """Whether the rollouts on ordered frames did better than those on contrast frames."""
    both: tuple[Any, Any] = group.accuracy, group.contrast_accuracy
    return None not in both and both[0] > both[1]
