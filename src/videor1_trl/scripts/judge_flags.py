"""Which model judges open answers: its flags, and the backend that asks it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .messages import expected_errors, stop


if TYPE_CHECKING:  # slow to import, and a wrong flag is to be said at once
    from collections.abc import Sequence

    from videor1_trl.evaluation.judging import Verdicts
    from videor1_trl.evaluation.questions import Question
    from videor1_trl.generation.journal import Journal
    from videor1_trl.generation.requests import Backend


@dataclass
class JudgeArguments:
    """A judge of open answers, any model behind an OpenAI-compatible server; off by default."""

    judge_model: str | None = field(
        default=None,
        metadata={
            "help": "Ask open questions, too (of mmvu; tempcompass's captioning; mlvu-open, which is all open; of records those of "
            "type free-form), and let this model of the judge's server mark the answers. None: no judge."
        },
    )
    judge_base_url: str | None = field(
        default=None, metadata={"help": "The judge's server, such as http://localhost:8001/v1."}
    )
    judge_max_new_tokens: int = field(default=512, metadata={"help": "Most tokens of the judge's text (>= 1)."})
    judge_concurrency: int = field(default=8, metadata={"help": "Answers that the judge marks at a time (>= 1)."})


def check_judge(args: JudgeArguments) -> None:
    """Refuses half a judge."""
    if (args.judge_model is None) != (args.judge_base_url is None):
        missing = "judge_base_url" if args.judge_base_url is None else "judge_model"
        stop(f"--{missing} is not set: a judge needs --judge_model and --judge_base_url.")


def open_judge(args: JudgeArguments) -> Backend:
    """The judge, greedy; its key is the environment's `JUDGE_API_KEY`, else none."""
    from videor1_trl.generation.requests import GenerationSettings
    from videor1_trl.generation.server_backend import ServerBackend

    assert args.judge_model is not None
    with expected_errors():
        return ServerBackend(
            args.judge_base_url,
            args.judge_model,
            GenerationSettings(max_new_tokens=args.judge_max_new_tokens),
            api_key=os.environ.get("JUDGE_API_KEY", ""),
            concurrency=args.judge_concurrency,
        )


def judged(questions: Sequence[Question], answers: Journal, backend: Backend | None, folder: str) -> Verdicts:
    """What the judge says of the answers, those before among it; nothing without a judge."""
    from videor1_trl.evaluation import judging

    if backend is None:
        return judging.Verdicts()
    journal = judging.judge(questions, answers, backend, folder)
    return judging.read_verdicts(questions, answers, journal)
