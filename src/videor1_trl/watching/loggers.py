"""Shows rollouts with their frames in TensorBoard, Weights & Biases and trackio, where `report_to` has them."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from ..text.messages import Named


MAX_GROUPS = 8  # of a step, whatever `log_rollouts_groups` is
MAX_CHARS = 4000  # of a text
PER_LINE = 8  # frames
# What a name of `report_to` needs; an extra of this package has the same name
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}


def check_loggers(names: Iterable[str]) -> None:
    """
    Args:
        names (`Iterable[str]`): of `report_to`.

    Raises:
        `ImportError`: one that is not installed, in one line.
    """
    for name in names:
        packages = PACKAGES.get(name, ())
        if packages and not any(importlib.util.find_spec(package) for package in packages):
            raise ImportError(
                f"report_to ({name}): {name} is not installed. pip install {name} (the extra videor1_trl[{name}]), or leave it out."
            )


def show(trainer: Any, records: Sequence[Named], frames: Mapping[str, bytes]) -> None:
    """
    Sends the rollouts that this rank recorded in a step to the loggers that are open, group by group, each with a contact sheet.

    Args:
        trainer (`TGRPOTrainer`): whose callbacks say which loggers there are.
        records (`list`): as of [`records_of`], those of a group beside each other. frames (`dict`): the pictures that they name.
    """
    found = [list(group) for _, group in groupby(records, key=lambda record: record["group"])][:MAX_GROUPS]
    if not found or not trainer.is_world_process_zero():
        return
    sheets = [contact_sheet(group, frames) for group in found]
    name, step = ("rollouts" if found[0][0]["mode"] == "train" else "eval_rollouts"), found[0][0]["step"]
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            for place, (group, sheet) in enumerate(zip(found, sheets, strict=True)):
                callback.tb_writer.add_text(f"{name}/group_{place}", as_markdown(group), step)
                if sheet is not None:
                    callback.tb_writer.add_image(f"{name}/group_{place}", np.asarray(sheet), step, dataformats="HWC")
        elif isinstance(callback, WandbCallback) and callback._wandb is not None and callback._wandb.run is not None:
            library = callback._wandb
            titles = [f"group {group[0]['group'] + 1}: {group[0]['prompt'][:200]}" for group in found]
            images = [
                sheet and library.Image(sheet, caption=title) for sheet, title in zip(sheets, titles, strict=True)
            ]
            columns, rows = table(found, images)
            panel = (
                {f"{name}_frames": [each for each in images if each]} if any(images) else {}
            )  # in view without a click
            library.log({name: library.Table(columns=columns, data=rows), **panel, "train/global_step": step})
        elif isinstance(callback, TrackioCallback) and callback._initialized:
            library = callback._trackio
            columns, rows = table(found, [sheet and library.Image(sheet) for sheet in sheets])
            plain = [[_escaped(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
            library.log({name: library.Table(columns=columns, data=plain)}, step=step)


def table(groups: Sequence[Sequence[Named]], sheets: Sequence[object]) -> tuple[list[str], list[list[Any]]]:
    """
    The rollouts as a table, one a row.

    Returns:
        `(columns, rows)`: the contact sheet in the first row of its group.
    """
    rewards = list(groups[0][0]["rewards"])
    figures = ["reward", "bonus", "advantage", "taught", "cut_off", "answered"]
    columns = ["group", "frames", "prompt", "gold", "kind", "place", "completion", *rewards, *figures]
    rows = []
    for group, sheet in zip(groups, sheets, strict=True):
        for index, each in enumerate(group):
            texts = [each["prompt"][:MAX_CHARS], each["gold"][:MAX_CHARS]]
            rollout = [each["kind"], each["place"], each["completion"][:MAX_CHARS]]
            values = [each["rewards"].get(name) for name in rewards]
            values += [each["reward"], each["bonus"], each["advantage"]]
            flags = [each["group_taught"], each["cut_off"], each["answered"]]
            rows.append([each["group"], None if index else sheet, *texts, *rollout, *values, *flags])
    return columns, rows


def as_markdown(group: Sequence[Named]) -> str:
    """A group as TensorBoard shows text: what model and data say stands indented, as code, in which nothing is markup."""
    first = group[0]
    taught = "it taught something" if first["group_taught"] else "it taught nothing: all rollouts are worth the same"
    shares = (
        f"accuracy {_figure(first['group_accuracy'])} ordered, {_figure(first['group_contrast_accuracy'])} contrast"
    )
    parts = [
        f"**Group {first['group'] + 1}**: {shares}; {taught}.",
        _code(first["prompt"]),
        "Right:",
        _code(first["gold"]),
    ]
    for each in group:
        rewards = [f"{name} {_figure(value)}" for name, value in each["rewards"].items() if value is not None]
        figures = [
            f"{name} {_figure(each[name])}" for name in ("reward", "bonus", "advantage") if each[name] is not None
        ]
        ends = [word for word, is_so in (("cut off", each["cut_off"]), ("no answer", not each["answered"])) if is_so]
        said = ", ".join(_escaped(word) for word in [*rewards, *figures, *ends])
        parts += [f"**{each['kind']} {each['place'] + 1}**: {said}", _code(each["completion"])]
    return "\n\n".join(parts)


def contact_sheet(group: Sequence[Named], frames: Mapping[str, bytes]) -> Image.Image | None:
    """The frames of a group in order, and below them those of the contrast, eight a line; `None` of a group without frames."""
    strips = {each["kind"]: each["frames"] for each in reversed(group) if each["frames"]}
    pictures = {
        kind: [Image.open(io.BytesIO(frames[name])) for name in strips[kind]]
        for kind in ("ordered", "contrast")
        if kind in strips
    }
    if not pictures:
        return None
    sizes = [picture.size for strip in pictures.values() for picture in strip]
    width, height, edge, heading = max(size[0] for size in sizes), max(size[1] for size in sizes), 4, 16
    lines = {kind: -(-len(strip) // PER_LINE) for kind, strip in pictures.items()}
    columns = min(PER_LINE, max(len(strip) for strip in pictures.values()))
    total = sum(heading + count * (height + edge) for count in lines.values()) + edge
    sheet = Image.new("RGB", (columns * (width + edge) + edge, total), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for kind, strip in pictures.items():
        draw.text((edge, top + 2), kind, fill="black")
        for index, picture in enumerate(strip):
            line, column = divmod(index, PER_LINE)
            sheet.paste(picture, (edge + column * (width + edge), top + heading + line * (height + edge)))
        top += heading + lines[kind] * (height + edge)
    return sheet


def _code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text[:MAX_CHARS].splitlines()) or "    (empty)"


def _escaped(text: str) -> str:
    r"""
    A text in which Markdown finds no markup: no link, no picture that is loaded from somewhere.

    >>> _escaped("![x](http://a)")
    '\\!\\[x\\]\\(http\\://a\\)'
    """
    return re.sub(r"([\\`*_{}\[\]()#!|<>~&:])", r"\\\1", text)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
