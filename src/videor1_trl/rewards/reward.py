"""What a reward is: a plain callable of TRL's form."""

from typing import Any, Protocol

from ..text.messages import Message


Completion = str | list[Message]  # TRL's two shapes: a text, or the assistant's messages


class Reward(Protocol):
    """Scores completions one by one, each by its own columns; runs on plain lists, without a model."""

    def __call__(self, completions: list[Completion], *args: Any, **columns: Any) -> list[float | None]:
        """
        Args:
            completions (`list` of length B): in one of TRL's two shapes.
            *args, **columns: by name, the dataset's columns, lists of length B; beside them `prompts` and `completion_ids`.

        Returns:
            `list[float | None]` of length B; `None`: no verdict, never "wrong".
        """
        ...
