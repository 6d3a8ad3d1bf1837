"""
Says what a training run will do and need, and what would stop it: the training's flags, and nothing is trained.

Which training: the first word says it, `videor1 plan train ...` or `videor1 plan sft ...`. Without it the keys of the recipe and
the flags decide: the training that knows more of them, T-GRPO where both know them all.
"""

from __future__ import annotations

import sys
from types import ModuleType

from . import train_sft, train_tgrpo
from .messages import expected_errors, run_command
from .recipes import read_recipe, split_config


HELP = ("-h", "--help", "--help-all", "--help_all")
TRAININGS = {"train": train_tgrpo, "sft": train_sft}


def choose_training(arguments: list[str]) -> tuple[ModuleType, list[str]]:
    """The training that is planned, and its arguments."""
    if arguments and arguments[0] in TRAININGS:
        return TRAININGS[arguments[0]], arguments[1:]
    recipe, flags = split_config(arguments)
    keys = {} if recipe is None else read_recipe(recipe)

    def unknown(script: ModuleType) -> int:
        parser = script.make_parser()
        return len(parser.unknown_keys(keys)) + len(parser.unknown_flags(flags))

    return min(TRAININGS.values(), key=unknown), arguments


def main() -> None:
    asked = [argument for argument in sys.argv[1:] if argument in HELP]
    with expected_errors():
        script, arguments = choose_training([argument for argument in sys.argv[1:] if argument not in HELP])
    if asked:
        parser = script.make_parser()
        parser.description = __doc__
        parser.parse_known_args(asked)
    sys.argv[1:] = [*arguments, "--dry_run", "true"]
    script.main()


if __name__ == "__main__":
    run_command(main)
