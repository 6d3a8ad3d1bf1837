"""The recipes that come with the package, `configs/*.yaml`, by name."""

from __future__ import annotations

from pathlib import Path

import yaml

from .messages import did_you_mean


FOLDER = Path(__file__).parent / "configs"


def recipe_names() -> list[str]:
    """Of all recipes, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """
    The YAML file behind `--config`: the file of that path, else the package's recipe of that name, with or without `.yaml`.

    Raises:
        `ValueError`: there is neither; the message lists the recipes.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = recipe_names()
    asked = name.removesuffix(".yaml")
    if asked in known:
        return FOLDER / f"{asked}.yaml"
    nearest = did_you_mean(Path(asked).name, known)
    raise ValueError(f"--config ({name}): there is no such file or recipe.{nearest} The recipes: {', '.join(known)}.")


def split_config(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """
    The recipe of a command line, `--config NAME` or `--config=NAME`, and the other arguments. Of several the last counts.

    Raises:
        `ValueError`: there is nothing behind `--config`, or no such recipe.
    """
    recipe, others, rest = None, [], iter(arguments)
    for argument in rest:
        flag, _, name = argument.partition("=")
        if flag != "--config":
            others.append(argument)
            continue
        name = name or next(rest, "")
        if not name or name.startswith("--"):
            raise ValueError(f"--config needs a YAML file or the name of a recipe: {', '.join(recipe_names())}.")
        recipe = find_recipe(name)
    return recipe, others


def read_recipe(path: Path) -> dict[str, object]:
    """
    The keys and values of a recipe.

    Raises:
        `ValueError`: it is no YAML, or no mapping.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"--config ({path}){place}: {getattr(error, 'problem', None) or error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"--config ({path}) must contain a YAML mapping.")
    return found
