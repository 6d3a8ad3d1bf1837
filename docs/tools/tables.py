"""Tables of the manual that are made of the code, so that they cannot go stale: settings with their defaults, public names."""

import ast
import dataclasses
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Any


PACKAGE = Path(__file__).parents[2] / "src" / "videor1_trl"
_MARKER = re.compile(r"^<!-- (fields|changed|names|modules): ?(.*?) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """
    What mkdocs calls for each page: puts tables in the place of the markers.

    `<!-- fields: NAME -->` are the fields that a settings class adds to those of TRL, `<!-- changed: NAME -->` those of TRL whose
    default it changes, `<!-- names: -->` what `from videor1_trl import ...` gives, and `<!-- modules: NAME ... -->` the descriptions of all modules
    that stand in no folder, the named ones first.
    """

    def table(found: re.Match) -> str:
        kind, name = found.groups()
        if kind == "names":
            return names_table()
        if kind == "modules":
            return "\n\n".join(f"::: videor1_trl.{each}" for each in top_modules(first=name.split()))
        return fields_table(settings_class(name), changed=kind == "changed")

    return _MARKER.sub(table, markdown)


def settings_class(name: str) -> type:
    """
    A dataclass of the package by its name.

    Raises:
        `ValueError`: there is none of that name.
    """
    import videor1_trl
    from videor1_trl.cold_start.rationales import CotRules
    from videor1_trl.generation.requests import GenerationSettings
    from videor1_trl.media.settings import VideoArguments

    known = {
        "TGRPOConfig": videor1_trl.TGRPOConfig,
        "VideoSFTConfig": videor1_trl.VideoSFTConfig,
        "VideoArguments": VideoArguments,
        "GenerationSettings": GenerationSettings,
        "CotRules": CotRules,
    }
    if name not in known:
        raise ValueError(f"settings class ({name}) must be one of {', '.join(known)}.")
    return known[name]


def fields_table(settings: type, *, changed: bool = False) -> str:
    """The fields of a settings class as a Markdown table: those it adds, or those whose default it changes."""
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for each in own_fields(settings, changed=changed):
        text = each.metadata["help"].replace("%%", "%").replace("|", "\\|")
        lines.append(f"| `{each.name}` | {type_name(each.type)} | {default_of(each)} | {text} |")
    return "\n".join(lines)


def own_fields(settings: type, *, changed: bool = False) -> list[dataclasses.Field]:
    """
    The fields that this package's classes give a settings class, those of [`VideoArguments`] left to its own table; with `changed`
    those of them that its foreign parents have too, else the others.

    Raises:
        `ValueError`: a field without help.
    """
    from videor1_trl.media.settings import VideoArguments

    ours = [parent for parent in settings.__mro__ if parent.__module__.startswith("videor1_trl")]
    inherited = {name for parent in settings.__mro__ if parent not in ours for name in _fields(parent)}
    shared = _fields(VideoArguments) if settings is not VideoArguments and issubclass(settings, VideoArguments) else {}
    names = dict.fromkeys(name for parent in ours for name in inspect.get_annotations(parent))
    own = [field for name in names if (field := _fields(settings).get(name)) is not None and name not in shared]
    found = [each for each in own if (each.name in inherited) == changed]
    for each in found:
        if not each.metadata.get("help"):
            raise ValueError(f"{settings.__name__}.{each.name} has no help.")
    return found


def _fields(kind: type) -> dict[str, dataclasses.Field]:
    return getattr(kind, "__dataclass_fields__", {})


def type_name(kind: Any) -> str:
    """
    A type in words.

    >>> type_name(int | None)
    '`int` or `None`'
    >>> type_name(typing.Literal["raise", "skip"] | None)
    "`'raise'` or `'skip'` or `None`"
    """
    if isinstance(kind, str):
        return " or ".join(f"`{part}`" for part in kind.split(" | "))
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " or ".join(type_name(each) for each in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(f"`{each!r}`" for each in typing.get_args(kind))
    if kind is types.NoneType:
        return "`None`"
    return f"`{kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else kind}`"


def default_of(field: dataclasses.Field) -> str:
    """A field's default as it is written in Python."""
    value = field.default_factory() if field.default is dataclasses.MISSING else field.default  # type: ignore[misc]
    return f"`{value!r}`"


def public_names() -> dict[str, str]:
    """Name -> full name, of all that `from videor1_trl import ...` gives."""
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    return {
        alias.name: f"videor1_trl.{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def top_modules(first: list[str]) -> list[str]:
    """The modules that stand in no folder, `first` of them first."""
    found = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
    return sorted(found, key=lambda name: first.index(name) if name in first else len(first))


def names_table() -> str:
    """The public names, each with a link to its description and the first sentence of it."""
    import videor1_trl

    lines = ["| name | what it is |", "|---|---|"]
    for name, path in sorted(public_names().items(), key=lambda item: item[0].lower()):
        text = " ".join((getattr(videor1_trl, name).__doc__ or "").strip().split("\n\n")[0].split())
        text = re.sub(r"\[`~?([\w.]+)`\]", r"`\1`", text).replace("|", "\\|")
        lines.append(f"| [`{name}`][{path}] | {text} |")
    return "\n".join(lines)
