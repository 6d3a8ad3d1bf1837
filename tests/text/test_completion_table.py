"""The completions of a step as a table: whose prompt, which rewards, how wide."""

import io
import random

import pytest
from rich.console import Console

from videor1_trl.text.completion_table import WIDTH, print_completions, prompt_text


VIDEO = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Which colour is first?"}]}]
NO_REWARDS = {"accuracy_reward": [1.0, 0.0]}


def completion(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def printed():
    """`printed(*arguments)`: the lines of [`print_completions`]."""

    def call(*arguments, width=WIDTH, **options):
        file = io.StringIO()
        print_completions(*arguments, **options, console=Console(file=file, width=width))
        return [line.rstrip() for line in file.getvalue().splitlines()]

    return call


def test_each_prompt_stands_once_with_its_completions_rewards_and_advantages_below(printed):
    lines = printed(
        7,
        [VIDEO, VIDEO, "Why?"],
        [completion("<answer>A</answer>"), completion("<answer>B</answer>"), "so"],
        {"accuracy_reward": [1.0, 0.0, None], "temporal_reward": [0.3, float("nan"), 0.0]},
        [0.71, -0.71, 0.0],
    )
    assert "completions at step 7" in lines[0]
    assert lines.count("[video] Which colour is first?") == 1 and lines.count("Why?") == 1
    words = [line.split() for line in lines]
    assert words[2] == ["completion", "accuracy", "temporal", "advantage"]
    assert ["<answer>A</answer>", "1.00", "0.30", "0.71"] in words
    assert ["<answer>B</answer>", "0.00", "-", "-0.71"] in words
    assert words[-1] == ["so", "-", "0.00", "0.00"]


def test_media_stand_where_they_are_in_the_prompt():
    content = [
        {"type": "image", "text": None},
        {"type": "text", "text": "before"},
        {"type": "image"},
        {"type": "text", "text": "after"},
    ]
    assert prompt_text([{"role": "user", "content": content}]) == "[image] before [image] after"


def test_no_line_is_wider_than_the_console_and_no_text_is_lost(printed):
    long = "<answer>" + "x" * 500 + "[bold]"  # no markup of the console's
    lines = printed(1, [VIDEO], [completion(long)], {f"reward_{i}": [0.0] for i in range(3)}, [0.0], width=60)
    assert max(map(len, lines)) <= 60
    assert "".join(line.split()[0] for line in lines if "x" in line or "bold" in line).count("x") == 500
    assert "[bold]" in "".join("".join(line.split()[:1]) for line in lines)


def test_what_a_model_writes_does_not_steer_the_terminal(printed):
    lines = printed(1, ["a\x1b[2Jb"], ["c\x1b[31md\x08\x9b"], {"accuracy_reward": [0.0]}, [0.0])
    assert "a\ufffd[2Jb" in lines and any(line.startswith(" c\ufffd[31md\ufffd\ufffd ") for line in lines)


def test_what_reward_functions_log_has_its_columns(printed):
    lines = printed(1, [VIDEO] * 2, [completion("a"), completion("b")], NO_REWARDS, [0.0, 0.0], {"note": ["n", None]})
    assert [line.split()[-1] for line in lines[2:] if line.startswith((" completion", " a ", " b "))] == [
        "note",
        "n",
        "-",
    ]


def test_a_sample_is_that_of_its_step_and_leaves_the_random_state_alone(printed):
    arguments = [[VIDEO] * 2, [completion("first"), completion("second")], NO_REWARDS, [0.0, 0.0]]
    state = random.getstate()
    drawn = [printed(step, *arguments, num_samples=1) for step in range(8)]
    assert random.getstate() == state
    assert [sum("first" in line.split() or "second" in line.split() for line in lines) for lines in drawn] == [1] * 8
    assert any("first" in "".join(lines) for lines in drawn[:8] if "second" not in "".join(lines))
    assert drawn == [printed(step, *arguments, num_samples=1) for step in range(8)]


def test_nothing_is_printed_of_nothing(printed):
    assert printed(1, [], [], {"accuracy_reward": []}, []) == []
    assert printed(1, [VIDEO], [completion("a")], {"accuracy_reward": [1.0]}, [0.0], num_samples=0) == []
