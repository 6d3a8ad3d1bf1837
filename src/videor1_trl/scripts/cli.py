"""`videor1`: the package's commands by one name; each is a module of this folder, imported once it is asked for."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass

import videor1_trl

from .messages import KEPT, did_you_mean, expected_errors, run_command, stop
from .recipes import split_config


@dataclass(frozen=True)
class Command:
    """The module of a command, what it does, and what it says is kept where it is interrupted."""

    module: str
    does: str
    kept: str = ""


COMMANDS = {
    "train": Command(
        "train_tgrpo", "Train with T-GRPO, or with plain GRPO (--config toy: a model and videos made on the spot)."
    ),
    "sft": Command("train_sft", "Train on rationales and answers: the supervised cold start."),
    "cot": Command("generate_cot", "Let a model write the rationales of a cold start.", KEPT),
    "order": Command("order_tasks", "Make questions about the order of time from any videos, with known answers."),
    "eval": Command("evaluate", "Evaluate on a benchmark, also on frames whose order is spoiled.", KEPT),
    "ask": Command("ask", "Ask one question about a video or images."),
    "compare": Command("compare", "Compare evaluations of one benchmark: paired differences, with intervals."),
    "view": Command(
        "view", "Show the rollouts of a run with their frames in a page, or say what goes wrong (--check)."
    ),
    "plot": Command("plot_run", "Draw the curves of one or several runs."),
    "cache": Command(
        "cache_media", "Read the videos of a training ahead, and keep their frames in media_cache_dir.", KEPT
    ),
    "plan": Command("plan", "Say what a training run will do and need, and what would stop it, before it starts."),
}
USAGE = """usage: videor1 COMMAND [--config RECIPE] [--FLAG VALUE ...]

T-GRPO for video on TRL: reinforcement learning that rewards using the order of the frames.

commands:
{commands}

`videor1 COMMAND --help` lists a command's flags, `--help-all` those of TRL and transformers too; `videor1 --version`.
On several GPUs: accelerate launch -m videor1_trl.scripts.{modules} ..."""


def usage() -> str:
    """What `videor1 --help` prints."""
    lines = [f"  {name:<8} {command.does}" for name, command in COMMANDS.items()]
    modules = "|".join(COMMANDS[name].module for name in ("train", "sft", "cot", "eval"))
    return USAGE.format(commands="\n".join(lines), modules=f"{{{modules}}}")


def main() -> None:
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    sys.argv[0] = "videor1"
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name == "--version":
        print(f"videor1 {videor1_trl.__version__}")
    elif name not in COMMANDS:
        stop(f"unknown command {name!r}.{did_you_mean(name, list(COMMANDS))} There are {', '.join(COMMANDS)}.")
    else:
        sys.argv[:] = [f"videor1 {name}", *arguments]
        with expected_errors():
            split_config(arguments)  # a wrong name of a recipe is said before anything slow is imported
        command = COMMANDS[name]
        run_command(lambda: importlib.import_module(f".{command.module}", __package__).main(), command.kept)


if __name__ == "__main__":
    main()
