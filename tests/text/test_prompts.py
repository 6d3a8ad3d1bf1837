"""The question text, and reading a completion's text and answer."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.text.messages import content, with_opening
from videor1_trl.text.prompts import PROBLEM_TYPES, extract_answer, make_prompt, question_text


pieces = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "B", "<answer", "é"]), max_size=12
).map("".join)


def test_options_stand_one_per_line_below_the_problem():
    lines = question_text("Which way does it move?", "multiple choice", ["A. left", "B. right"]).splitlines()
    assert lines[:4] == ["Which way does it move?", "Options:", "A. left", "B. right"]


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_every_type_asks_for_both_tags_and_says_something_of_its_own(problem_type):
    text = question_text("What?", problem_type)
    assert text.startswith("What?\n")
    assert all(tag in text for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    assert "Options:" not in text
    others = {question_text("What?", other).splitlines()[-1] for other in PROBLEM_TYPES if other != problem_type}
    assert text.splitlines()[-1] not in others


def test_options_of_another_type_are_left_out():
    assert question_text("How many?", "numerical", ["A. 1"]) == question_text("How many?", "numerical")


def test_an_unknown_type_is_named_with_the_known_ones():
    message = (
        "problem_type ('choice') is not one of 'multiple choice', 'numerical', 'OCR', 'free-form', 'regression', "
    )
    message += "'temporal grounding', 'permutation', 'bounding box'."
    with pytest.raises(ValueError, match=re.escape(message)):
        make_prompt("What?", "choice")


def test_the_prompt_is_one_user_message_of_plain_text():
    assert make_prompt("Read it.", "OCR") == [{"role": "user", "content": question_text("Read it.", "OCR")}]


@pytest.mark.parametrize(
    "text, answer",
    [
        ("", None),
        ("B", None),
        ("<answer>B", None),
        ("</answer>B<answer>", None),
        ("<answer></answer>", ""),
        ("<answer>\n B \t</answer>", "B"),
        ("<answer>A</answer><answer>B</answer>", "A"),
        ("</answer><answer>B</answer>", "B"),
        ("<answer>a<answer>B</answer></answer>", "a<answer>B"),
        ("<ANSWER>B</ANSWER>", None),
    ],
)
def test_the_first_answer_is_read(text, answer):
    assert extract_answer(text) == answer


@given(pieces)
def test_the_answer_is_what_the_plain_pattern_finds(text):
    pattern = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
    match = pattern.search(text)
    assert extract_answer(text, strict=True) == (match[1].strip() if match else None)
    match = pattern.search(text.rpartition("</think>")[2])
    if match and "</think>" not in text and "<think>" in text[: match.start()]:
        match = None  # thoughts that do not end hold no answer
    assert extract_answer(text) == (match[1].strip() if match else None)


@pytest.mark.parametrize(
    "text, default, strict",
    [
        ("<think>I answer between <answer> and </answer>.</think><answer>B</answer>", "B", "and"),
        ("<think><answer>A</answer></think>\n<answer>B</answer>", "B", "A"),
        ("<think><answer>A</answer></think>", None, "A"),
        ("<think>a</think><answer>A</answer><think>b</think><answer>B</answer>", "B", "A"),
        ("<think>cut off <answer>A</answer>", None, "A"),
        ("<answer>A</answer><think>cut off", "A", "A"),
    ],
)
def test_the_answer_behind_the_last_thought_counts(text, default, strict):
    assert (extract_answer(text), extract_answer(text, strict=True)) == (default, strict)


def test_a_completion_is_read_with_what_its_template_opened():
    for completion in (
        "left?</think><answer>B</answer>",
        [{"role": "assistant", "content": "left?</think><answer>B</answer>"}],
    ):
        assert content(with_opening(completion, "<think>\n")) == "<think>\nleft?</think><answer>B</answer>"
        assert with_opening(completion, "") is completion
    parsed = [{"role": "assistant", "reasoning_content": "left?", "content": "<answer>B</answer>"}]
    assert with_opening(parsed, "<think>\n") is parsed


@pytest.mark.parametrize(
    "completion, text",
    [
        ("", ""),
        ("a", "a"),
        ([], ""),
        ([{"role": "assistant", "content": "a"}], "a"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant"}], ""),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], "a"),
        ([{"role": "assistant", "content": "calls"}, {"role": "assistant", "content": "replies"}], "replies"),
    ],
)
def test_content_reads_both_shapes(completion, text):
    assert content(completion) == text
