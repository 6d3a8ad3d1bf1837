"""The commands' flags: TRL's parser of dataclasses and YAML, with recipes by name, a help in groups, and the nearest known flag."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from argparse import SUPPRESS, Action, ArgumentDefaultsHelpFormatter, ArgumentParser, HelpFormatter, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast, get_args, get_type_hints

from trl import TrlParser

from .messages import did_you_mean, expected_errors, make_flags_known, program, stop
from .recipes import read_recipe, recipe_names, split_config


# Of the flags of TRL and transformers those that `--help` shows, in its order
MOST_USED = (
    "model_name_or_path dtype attn_implementation output_dir per_device_train_batch_size gradient_accumulation_steps "
    "num_generations learning_rate max_steps num_train_epochs bf16 use_cpu seed eval_strategy logging_steps report_to "
    "save_steps resume_from_checkpoint use_peft lora_r lora_target_modules use_vllm"
).split()


class FlagsFormatter(ArgumentDefaultsHelpFormatter):
    """One spelling of each flag, where argparse also has the one with hyphens, its kind of value, and what it is without it."""

    def _format_action_invocation(self, action: Action) -> str:
        [flag, *_] = [each for each in action.option_strings if each.startswith("--")]
        if action.const is True:
            return f"{flag} [true|false]"
        return f"{flag} {self._format_args(action, 'TEXT')}".rstrip()

    def _get_help_string(self, action: Action) -> str | None:
        if action.default in (None, []):  # its help says what that means
            return action.help
        return super()._get_help_string(action)


class CommandParser(TrlParser):
    """
    Args:
        description (`str`): the docstring of a command's module, of which the first paragraph is printed.
        groups: heading in the help -> the dataclass whose fields are the flags below it.
    """

    def __init__(self, description: str | None, groups: Mapping[str, type]):
        first = (description or "").strip().partition("\n\n")[0]
        super().__init__(
            cast("Any", list(groups.values())),  # which is what TRL calls their type
            prog=program(),
            usage="%(prog)s [--config RECIPE] [--FLAG VALUE ...]",
            description=first,
            formatter_class=FlagsFormatter,
            add_help=False,
            allow_abbrev=False,  # what is nearly a flag is none, and is said
        )
        self._headings = groups
        self._shows_all = False
        kinds = {name: _kind(hint) for each in groups.values() for name, hint in get_type_hints(each).items()}
        for action in self._actions:
            if action.choices is None:
                action.metavar = kinds.get(action.dest)
        self.add_argument(
            "-h", "--help", action=_Help, help="Show the flags of this package and the most used of others."
        )
        self.add_argument("--help-all", "--help_all", action=_Help, help="Show every flag.")

    def error(self, message: str) -> NoReturn:
        """Without the usage, which is hundreds of lines."""
        stop(message)

    # --- what was typed

    def parse(self) -> tuple[Any, ...]:
        """An object of each dataclass as the command line says; ends in one line where that does not fit."""
        with expected_errors():
            return self.parse_args_and_config()

    def parse_args_and_config(self, args: Iterable[str] | None = None, *rest: Any, **options: Any) -> tuple[Any, ...]:
        """As of the parent; the file behind `--config` may be the name of a recipe."""
        make_flags_known(self)
        recipe, arguments = split_config(sys.argv[1:] if args is None else list(args))
        if recipe is not None:
            found = self.unknown_keys(read_recipe(recipe))
            if found:
                raise ValueError(f"{recipe}: " + _unknown("key", found, [action.dest for action in self._actions]))
            arguments = ["--config", str(recipe), *arguments]
        return super().parse_args_and_config(arguments, *rest, **options)

    def parse_args_into_dataclasses(self, args: Any = None, *rest: Any, **options: Any) -> tuple[Any, ...]:
        """As of the parent, but unknown flags are said before values are checked, with the nearest that is known."""
        args = sys.argv[1:] if args is None else list(args)
        unknown = self.unknown_flags(args)
        if unknown:
            raise ValueError(_unknown("flag", unknown, list(self._option_string_actions)))
        return super().parse_args_into_dataclasses(args, *rest, **options)

    def unknown_keys(self, recipe: Mapping[str, object]) -> list[str]:
        """Those keys of a recipe that are no flags; `env` sets variables of the environment."""
        known = {action.dest for action in self._actions}
        return [str(key) for key in recipe if key not in known and key != "env"]

    def unknown_flags(self, arguments: Sequence[str]) -> list[str]:
        """Those arguments that are no flags of this command, without their values; words where nothing takes them."""
        left = self.parse_known_args(list(arguments))[1]
        flags = [each.partition("=")[0] for each in left if each.startswith("--")]
        return flags or left

    # --- the help

    def format_help(self) -> str:
        """The fields of this package in groups, then the most used of TRL's and transformers', or all of them."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, [])
        formatter.add_text(self.description)
        for heading, actions in self._sections():
            _add_section(formatter, heading, actions)
        hidden = len(self._others().keys() - set(MOST_USED))
        if hidden and not self._shows_all:
            formatter.add_text(f"--help-all shows the other {hidden} flags, those of TRL and transformers.")
        return formatter.format_help()

    def show_help(self, everything: bool) -> NoReturn:
        """Prints the help, in full or not, and ends."""
        self._shows_all = everything
        self.print_help()
        raise SystemExit(0)

    def _sections(self) -> Iterator[tuple[str, list[Action]]]:
        yield "recipe", [_config_action(), *(each for each in self._actions if isinstance(each, _Help))]
        actions = _by_name(self._actions)
        for heading, dataclass in self._headings.items():
            yield heading, [actions[name] for name in own_fields(dataclass)]
        others = self._others()
        if self._shows_all:
            yield "of TRL and transformers", list(others.values())
        else:
            yield "of TRL and transformers, the most used", [others[name] for name in MOST_USED if name in others]

    def _others(self) -> dict[str, Action]:
        own = {name for dataclass in self._headings.values() for name in own_fields(dataclass)}
        return _by_name(each for each in self._actions if each.dest not in own and not isinstance(each, _Help))


class _Help(Action):
    """Prints the help and ends; `--help-all` prints every flag."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None):
        super().__init__(option_strings, SUPPRESS, nargs=0, default=SUPPRESS, help=help)

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        assert isinstance(parser, CommandParser)
        parser.show_help(everything=self.option_strings[0] != "-h")


def own_fields(dataclass: type) -> list[str]:
    """Those fields of a dataclass that this package adds, or gives another default than TRL does; its own before its bases'."""
    ours = [each for each in dataclass.__mro__ if each.__module__.partition(".")[0] not in ("trl", "transformers")]
    named = dict.fromkeys(name for each in ours for name in inspect.get_annotations(each))
    fields = {field.name for field in dataclasses.fields(dataclass)}
    return [name for name in named if name in fields]


def _kind(hint: object) -> str | None:
    """What the help calls a value of that type."""
    types = {hint, *get_args(hint)}
    return "true|false" if bool in types else "N" if int in types else "X" if float in types else None


def _by_name(actions: Iterable[Action]) -> dict[str, Action]:
    """The flags by what they set; of `--x` and `--no_x` the first."""
    found: dict[str, Action] = {}
    for action in actions:
        found.setdefault(action.dest, action)
    return found


def _config_action() -> Action:
    """`--config`, which TRL's parser reads by itself, for the help."""
    text = (
        f"A YAML file whose keys are flags, or the name of a recipe: {', '.join(recipe_names())}. Flags win over it."
    )
    return ArgumentParser(add_help=False).add_argument("--config", metavar="RECIPE", help=text)


def _add_section(formatter: HelpFormatter, heading: str, actions: list[Action]) -> None:
    if actions:
        formatter.start_section(heading)
        formatter.add_arguments(actions)
        formatter.end_section()


def _unknown(kind: str, names: list[str], known: list[str]) -> str:
    """One line on the names that nothing knows, each with the nearest known one; in quotes they stay as they were typed."""
    quoted = [repr(each) for each in known]
    said = []
    for name in names:
        is_word = kind == "flag" and not name.startswith("-")  # a value without a flag
        nearest = did_you_mean(repr(name), quoted, likeness=0.7)
        said.append(f"{name!r} belongs to no flag." if is_word else f"unknown {kind} {name!r}.{nearest}")
    return " ".join(said) + ("" if "Did you mean" in said[-1] else " --help-all shows all that there are.")
