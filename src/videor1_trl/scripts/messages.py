"""What the commands say where something does not fit: one line, in the words that the user typed, and no traceback."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import NoReturn

import yaml


KEPT = "What was answered so far is kept: start again to go on."

_flags: set[str] = set()  # those of the command that runs
# What messages of the package name that has no flag of its own name
_IN_FLAGS = {
    "pass a peft_config": "give --use_peft",
    "Pass no peft_config (use_peft)": "Give no --use_peft",
    "for no contrast rollouts at all pass temporal_reward_func=None to the trainer": "for no contrast rollouts at all give "
    "--plain_grpo",
    "leave them out with on_bad_record='drop' (--drop_bad_records of the scripts)": "leave them out with --drop_bad_records",
    "mend them, or pass drop=True": "mend them, or give --drop_bad_media",
    "give their folder as root": "give their folder as --data_root",
    "root is needed": "--data_root is needed",
    "root (": "--data_root (",
    "split (": "--dataset_split (",
}


def program() -> str:
    """What was started: `videor1 train`, or the file's name."""
    return Path(sys.argv[0]).name


def make_flags_known(parser: ArgumentParser) -> None:
    """From here on messages name the fields of the parser as the flags that were typed."""
    _flags.clear()
    _flags.update(action.dest for action in parser._actions)


def in_flags(message: str) -> str:
    """
    A message in the words of the command line: fields as flags, `name=value` as `--name value`. Words that are fields too, such
    as "seed", are taken for one before "=", and before a value in brackets.
    """
    for words, flag in _IN_FLAGS.items():
        message = message.replace(words, flag)

    def as_flag(found: re.Match[str]) -> str:
        name, sign = found[1], found[2] or ""
        if name not in _flags or ("_" not in name and not sign):
            return found[0]
        return f"--{name}{' ' if sign == '=' else sign}"

    return re.sub(r"(?<![\w./'\"-])([a-z]\w*)(=(?!=)| \((?=[^)]*\)))?(?![\w.']*[/=])", as_flag, message)


def did_you_mean(name: str, known: list[str], likeness: float = 0.6) -> str:
    """
    ` Did you mean ...?` with the nearest of the known names; nothing where none is near.

    >>> did_you_mean("trian", ["train", "sft"])
    ' Did you mean train?'
    >>> did_you_mean("xyz", ["train", "sft"])
    ''
    """
    nearest = get_close_matches(name, known, n=1, cutoff=likeness)
    return f" Did you mean {nearest[0]}?" if nearest else ""


def stop(message: str) -> NoReturn:
    """Ends the run for what every process finds: one message from the main process, no traceback."""
    if int(os.environ.get("RANK", "0")):
        raise SystemExit(1)
    stop_process(message)


def stop_process(message: str) -> NoReturn:
    """Ends the run for what this process alone may have found: its message, no traceback."""
    raise SystemExit(f"{program()}: {in_flags(message)}")


def check_drawing(what: str) -> None:
    """Refuses what ends in a picture where nothing can draw it, before hours are spent."""
    if importlib.util.find_spec("matplotlib") is None:
        stop(f"{what} draws a picture, and matplotlib is not installed: pip install matplotlib.")


@contextlib.contextmanager
def expected_errors(what: str = "") -> Iterator[None]:
    """Ends the run with the message alone where arguments, data or model do not fit."""
    try:
        yield
    except OSError as error:  # the messages of the Hub's client go on for pages
        stop(what + (str(error).strip().splitlines() or [type(error).__name__])[0])
    except (ImportError, NotImplementedError, TypeError, ValueError, yaml.YAMLError) as error:
        stop(what + str(error))


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Ctrl-C, which also ends what threads read ahead."""
    from videor1_trl.media.limits import end_readings  # of the standard library alone, unlike what reads

    end_readings()
    raise KeyboardInterrupt


def run_command(main: Callable[[], object], kept: str = "") -> None:
    """Runs a command; interrupted it ends in one line, `kept` saying what is left of its work."""
    from videor1_trl.media.limits import begin_readings

    begin_readings()
    before = signal.getsignal(signal.SIGINT)
    is_heard = threading.current_thread() is threading.main_thread() and before is not signal.SIG_IGN
    if is_heard:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        main()
    except KeyboardInterrupt:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"\n{program()}: interrupted. {kept}".rstrip(), file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    finally:
        if is_heard:
            signal.signal(signal.SIGINT, before)
