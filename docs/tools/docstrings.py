"""Docstrings as the API reference shows them: sections as lists, doctests as code, [`Name`] as a link to its description."""

import logging
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import griffe


logger = logging.getLogger("mkdocs.plugins.docstrings")  # of mkdocs' family: a warning fails the strict build
_LISTS, _TEXTS = ("Args", "Parameters", "Raises"), ("Returns", "Yields")
_FOREIGN = ("accelerate.", "datasets.", "peft.", "torch.", "transformers.", "trl.")
_REFERENCE = re.compile(r"\[`(~?)([\w.]+)`\](?![\[(])")
_ENTRY = re.compile(r"(?P<names>[*\w]+(?:, [*\w]+)*)(?P<kind> \(.*?\))?:\s+(?P<text>.*)", re.DOTALL)


class Docstrings(griffe.Extension):
    """Rewrites the docstrings of a package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Every object's docstring becomes Markdown."""
        if pkg.name != "videor1_trl":
            return
        described = list(_objects(pkg))
        places: dict[str, list[str]] = {}
        for each in described:
            if not each.is_module and not any(part.startswith("_") for part in each.path.split(".")[1:]):
                places.setdefault(each.name, []).append(each.path)
        for each in described:
            if each.docstring:
                each.docstring.value = as_markdown(each.docstring.value, _resolver(each, places))


def _objects(parent: griffe.Object) -> Iterator[griffe.Object]:
    yield parent
    for member in parent.members.values():
        if not isinstance(member, griffe.Alias):
            yield from _objects(member)


def _resolver(owner: griffe.Object, places: dict[str, list[str]]) -> Callable[[str], str | None]:
    """`name -> full name` as seen from an object: of several of a name the one that is nearest to it."""

    def resolve(name: str) -> str | None:
        if name.startswith(_FOREIGN) or name in owner.module.imports and name not in places:
            return None
        found = places.get(name.split(".")[-1], [])
        found = [path for path in found if path.endswith(f".{name}")] or found
        if not found:
            logger.warning("The docstring of %s names [`%s`], which is nowhere described.", owner.path, name)
            return None
        around = [path for path in found if f"{owner.path}.".startswith(path.rsplit(".", 1)[0] + ".")]
        within = [path for path in found if path.startswith(f"{owner.path}.")]
        if around or within:
            return max(within or around, key=lambda path: path.count("."))
        return min(found, key=lambda path: path.count("."))

    return resolve


def as_markdown(text: str, resolve: Callable[[str], str | None] = lambda name: None) -> str:
    """
    A docstring in the style of Hugging Face's libraries as Markdown.

    >>> print(as_markdown("Adds.\\n\\nArgs:\\n    a (`int`, *optional*): the first,\\n        at least 1."))
    Adds.
    <BLANKLINE>
    **Args**
    <BLANKLINE>
    - **`a`** (`int`, *optional*): the first,
        at least 1.
    """
    parts = []
    for block in _blocks(text):
        title, _, body = block.partition(":\n")
        if title in (*_LISTS, *_TEXTS) and body:
            body = textwrap.dedent(body)
            parts.append(f"**{title}**\n\n{_entries(body) if title in _LISTS else body}")
        elif block.startswith("```"):
            parts.append(block)
        elif block.startswith(">>>"):
            parts.append(f"```pycon\n{block}\n```")
        else:
            parts.append(block)
    return _REFERENCE.sub(lambda found: _link(found, resolve), "\n\n".join(parts))


def _link(found: re.Match, resolve: Callable[[str], str | None]) -> str:
    short, name = found.groups()
    path = resolve(name)
    shown = name.split(".")[-1] if short and path else name
    return f"[`{shown}`][{path}]" if path else f"`{shown}`"


def _blocks(text: str) -> list[str]:
    """A text cut at its empty lines, but for those in indented or fenced parts and in the output of doctests."""
    blocks: list[list[str]] = [[]]
    fenced = False
    for line in text.strip().splitlines():
        empty = not line.strip()
        goes_on = fenced or (blocks[-1] and line.startswith(" "))
        if empty and not fenced:
            blocks[-1].append("")
            continue
        if (
            blocks[-1]
            and not goes_on
            and (blocks[-1][-1] == "" or line.startswith(">>>") and ">>>" not in blocks[-1][0])
        ):
            blocks.append([])
        blocks[-1].append(line)
        fenced = fenced != line.strip().startswith("```")
    return ["\n".join(block).rstrip() for block in blocks]


def _entries(body: str) -> str:
    """The entries of a section, which begin at the margin, as a list."""
    lines = []
    for entry in re.split(r"\n(?=\S)", body.strip("\n")):
        entry = entry.strip()
        if entry.startswith(">"):  # a heading among the parameters
            lines.append(f"\n*{entry.lstrip('> ')}*\n")
            continue
        found = _ENTRY.fullmatch(re.sub(r"\n\s+", "\n    ", entry))
        if found:
            names = ", ".join(f"`{name}`" for name in found["names"].split(", "))
            lines.append(f"- **{names}**{found['kind'] or ''}: {found['text'].strip()}")
        else:
            lines.append("- " + re.sub(r"\n\s+", "\n    ", entry))
    return "\n".join(lines).strip("\n")
