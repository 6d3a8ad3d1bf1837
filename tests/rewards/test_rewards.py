"""The rewards as TRL calls them: rows and columns, format, length, the temporal bonus, and completions of a megabyte."""

import copy
import math
import multiprocessing
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.objectives.temporal import get_temporal_reward, temporal_reward
from videor1_trl.rewards.accuracy import accuracy_reward, get_accuracy_reward
from videor1_trl.rewards.format import format_reward, get_format_reward
from videor1_trl.rewards.length import get_length_reward, length_reward
from videor1_trl.text.prompts import VIDEO_R1_TYPES


strict_accuracy_reward = get_accuracy_reward(strict=True)
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]


# --- accuracy: rows and columns ----------------------------------------------------------------------------------


def test_each_row_is_scored_by_its_own_type():
    texts = ["<answer>3.0</answer>"] * 5
    golds = ["3"] * 5
    # as a choice and as text "3.0" is not "3"
    assert accuracy_reward(texts, golds, list(VIDEO_R1_TYPES)) == [0.0, 1.0, 0.0, 0.0, 1.0]
    # the released ROUGE sees "3 0": 2 * 1 / (2 + 1) for words and subsequence, no pairs
    golds = ["<answer>3</answer>"] * 5
    assert strict_accuracy_reward(texts, golds, list(VIDEO_R1_TYPES))[3] == pytest.approx(4 / 9)


@pytest.mark.parametrize("problem_type", VIDEO_R1_TYPES)
@pytest.mark.parametrize("completion", ["", "5", "<answer>5", "<answer></answer>", [], [{"role": "assistant"}]])
def test_a_completion_without_an_answer_is_wrong(problem_type, completion):
    assert accuracy_reward([completion], ["5"], [problem_type]) == [0.0]


def test_both_shapes_of_completions_are_read():
    text = "<answer>B</answer>"
    parts = [{"type": "text", "text": "<answer>"}, {"type": "text", "text": "B</answer>"}]
    completions = [text, [{"role": "assistant", "content": text}], [{"role": "assistant", "content": parts}]]
    assert accuracy_reward(completions, ["B"] * 3, ["multiple choice"] * 3) == [1.0] * 3


@pytest.mark.parametrize("reward", [accuracy_reward, strict_accuracy_reward])
def test_an_unknown_type_is_named_with_its_record(reward):
    message = "problem_type ('ocr') is not one of 'multiple choice', 'numerical', 'OCR', 'free-form', 'regression', "
    message += "'temporal grounding', 'permutation', 'bounding box', "
    with pytest.raises(ValueError, match=re.escape(message + "in row 1 (problem_id 17).")):
        reward(["a", "b"], ["a", "b"], ["OCR", "ocr"], problem_id=[16, 17])


@pytest.mark.parametrize("missing", ["solution", "problem_type"])
@pytest.mark.parametrize("reward", [accuracy_reward, strict_accuracy_reward, length_reward])
def test_a_missing_column_is_named(reward, missing):
    columns = {"solution": ["a"], "problem_type": ["OCR"]}
    del columns[missing]
    with pytest.raises(ValueError, match=f"without the column '{missing}'"):
        reward(completions=["a"], completion_ids=[[1]], **columns)


def test_a_column_of_another_length_is_named():
    with pytest.raises(ValueError, match=re.escape("the column 'solution' has 1 values for 2 completions")):
        accuracy_reward(["a", "b"], ["a"], ["OCR", "OCR"])


# --- format ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        ("<think>a\n</think>\n \t<answer>\nb</answer>", 1.0),
        ("<think></think><answer></answer>", 1.0),
        ("", 0.0),
        ("<answer>b</answer>", 0.0),
        ("<think>a</think>", 0.0),
        ("<think>a</think>so<answer>b</answer>", 0.0),
        (" <think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer>\n", 0.0),
        ("<think>a<answer>b</answer></think>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think>a<answer>c</answer></think><answer>b</answer>", 0.0),
        ("<think><think>a</think><answer>b</answer>", 0.0),
        ("<think>a<answer></think>b</answer>", 0.0),
    ],
)
def test_format_is_the_whole_completion_with_each_tag_once(text, expected):
    assert format_reward(completions=[text, [{"role": "assistant", "content": text}]]) == [expected] * 2


@given(st.lists(st.one_of(st.sampled_from(TAGS), st.sampled_from([" ", "\n", "a"])), max_size=7).map("".join))
def test_format_agrees_with_the_plain_pattern(text):
    once = all(text.count(tag) == 1 for tag in TAGS)
    matches = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.DOTALL)
    assert format_reward([text]) == [float(once and matches is not None)]


@given(st.lists(st.one_of(st.sampled_from(TAGS), st.sampled_from([" ", "\n", "a"])), max_size=9).map("".join))
def test_strict_format_agrees_with_the_released_pattern(text):
    matches = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.DOTALL)
    assert get_format_reward(strict=True)([text]) == [float(matches is not None)]


def test_thoughts_that_quote_the_tags():
    text = "<think>I answer between <answer> and </answer>.</think><answer>B</answer>"
    assert (format_reward([text]), get_format_reward(strict=True)([text])) == ([0.0], [1.0])
    columns = {"solution": ["<answer>B</answer>"], "problem_type": ["multiple choice"]}
    assert accuracy_reward([text], **columns) == [1.0]
    assert strict_accuracy_reward([text], **columns) == [0.0], "the released code reads 'and'"
    assert pickle.loads(pickle.dumps(get_format_reward(strict=True)))([text]) == [1.0]


@given(st.lists(st.one_of(st.text(), st.sampled_from(TAGS)), max_size=12).map("".join))
def test_format_is_zero_or_one_whatever_the_completion(text):
    assert format_reward([text])[0] in (0.0, 1.0)


# --- length ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer, num_tokens, expected",
    [("B", 319, 0.0), ("B", 320, 0.2), ("B", 512, 0.2), ("B", 513, 0.0), ("A", 400, 0.0), ("B", 0, 0.0)],
)
def test_length_pays_for_correct_completions_in_the_window(answer, num_tokens, expected):
    columns = {"solution": ["B"], "problem_type": ["multiple choice"]}
    ids = [[0] * num_tokens]
    assert length_reward(completions=[f"<answer>{answer}</answer>"], completion_ids=ids, **columns) == [expected]


def test_length_says_nothing_without_a_gold():
    columns = {"solution": [None], "problem_type": ["OCR"], "prompts": ["?"]}
    assert length_reward(completions=["a"], completion_ids=[[0] * 400], **columns) == [None]


def test_length_follows_its_parameters():
    def constant(completions, **kwargs):
        return [0.5, 0.6, float("nan")]

    reward = get_length_reward(bonus=1.0, min_tokens=1, max_tokens=2, threshold=0.5, accuracy_func=constant)
    assert reward(completions=["a"] * 3, completion_ids=[[0]] * 3) == [0.0, 1.0, None]


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"bonus": -0.1}, "bonus (-0.1)"),
        ({"bonus": math.nan}, "bonus (nan)"),
        ({"min_tokens": 600}, "min_tokens (600) must be between 0 and max_tokens (512)"),
        ({"min_tokens": -1}, "min_tokens (-1)"),
        ({"threshold": 1.0}, "threshold (1.0)"),
    ],
)
def test_length_refuses_parameters_out_of_range(parameters, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        get_length_reward(**parameters)


# --- temporal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accuracies, contrast, expected",
    [
        ([1.0, 0.0], [0.0, 0.0], [0.3, 0.0]),  # p = 1/2 against 0
        ([1.0, 0.0, 0.0, 0.0], [1.0, 0.0], [0.0] * 4),  # 1/4 against 1/2
        ([1.0, 0.0, 1.0, 0.0], [1.0, 0.0], [0.3, 0.0, 0.3, 0.0]),  # a tie at 1/2
        ([0.0, 0.0], [0.0], [0.0, 0.0]),  # nothing to reward
        ([1.0, 1.0], [1.0], [0.3, 0.3]),  # all right, a tie at 1
        ([0.9, 0.5, 0.51], [0.6, 0.2], [0.3, 0.0, 0.3]),  # 2/3 against 1/2; 0.5 is not above the threshold
        ([1.0, None, math.nan], [1.0, 1.0, 0.0], [0.3, 0.0, 0.0]),  # 1/1 against 2/3
        ([1.0, 0.0], [1.0, None], [0.0, 0.0]),  # 1/2 against 1/1
        ([1.0, 1.0], [None, math.nan], [0.0, 0.0]),  # nothing to compare with
        ([None], [0.0], [0.0]),
        ([], [0.0], []),
    ],
)
def test_bonus_goes_to_correct_rollouts_where_order_helped(accuracies, contrast, expected):
    assert temporal_reward(accuracies, contrast) == expected


def test_mu_sets_the_margin_and_a_tie_survives_float_arithmetic():
    ordered, contrast = [1.0] * 3 + [0.0] * 2, [1.0] * 3 + [0.0]  # 0.6 against 0.75; 0.8 * 0.75 > 0.6 in floats
    assert temporal_reward(ordered, contrast) == [0.0] * 5
    assert temporal_reward(ordered, contrast, mu=0.8) == [0.3] * 3 + [0.0] * 2
    assert temporal_reward(ordered, contrast, mu=0.81) == [0.0] * 5


def test_the_released_share_is_the_mean_accuracy():
    released = get_temporal_reward(mu=0.8, threshold=0.1, share="mean")
    # means 0.3 and 0.375: 0.3 >= 0.8 * 0.375 is a tie. Shares would be 1/2 against 1.
    assert released([0.6, 0.0], [0.375, 0.375]) == [0.3, 0.0]
    assert get_temporal_reward(mu=0.8, threshold=0.1)([0.6, 0.0], [0.375, 0.375]) == [0.0, 0.0]


def test_what_the_trainer_says_about_the_group_is_accepted():
    said = {"prompt": "?", "completions": ["a"], "contrast_completions": ["b"], "completion_ids": [[1]]}
    said |= {"contrast_completion_ids": [[2]], "solution": "a", "problem_type": "OCR"}
    assert temporal_reward([1.0], [0.0], **said) == [0.3]
    columns_named_like_parameters = {"alpha": 9.0, "mu": "x", "threshold": None, "share": 1}
    assert get_temporal_reward()([1.0], [0.0], **said, **columns_named_like_parameters) == [0.3]


def test_an_empty_contrast_is_refused():
    with pytest.raises(ValueError, match=re.escape("contrast_accuracies ([])")):
        temporal_reward([1.0], [])


@pytest.mark.parametrize(
    "parameters",
    [{"alpha": -1}, {"alpha": math.inf}, {"mu": -0.1}, {"mu": math.nan}, {"threshold": -0.1}, {"threshold": 1}],
)
def test_the_bonus_refuses_parameters_out_of_range(parameters):
    name, value = next(iter(parameters.items()))
    for call in (get_temporal_reward, lambda **kwargs: temporal_reward([1.0], [1.0], **kwargs)):
        with pytest.raises(ValueError, match=re.escape(f"{name} ({value})")):
            call(**parameters)


def test_an_unknown_share_is_refused():
    with pytest.raises(ValueError, match=re.escape("share ('median')")):
        get_temporal_reward(share="median")


accuracies = st.lists(st.one_of(st.none(), st.floats(0, 1), st.just(math.nan)), max_size=8)


@given(
    accuracies,
    accuracies.filter(bool),
    st.floats(0, 2),
    st.floats(0, 2),
    st.sampled_from(["correct", "mean"]),
    st.data(),
)
def test_the_bonus_is_all_or_nothing_for_correct_rollouts(ordered, contrast, alpha, mu, share, data):
    reward = get_temporal_reward(alpha=alpha, mu=mu, share=share)
    found = reward(ordered, contrast)
    correct = [value is not None and value > 0.5 for value in ordered]
    assert found in ([0.0] * len(ordered), [alpha * right for right in correct])
    order = data.draw(st.permutations(range(len(ordered))))
    shuffled = data.draw(st.permutations(contrast))
    assert reward([ordered[i] for i in order], shuffled) == [found[i] for i in order]


# --- as TRL takes them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reward, name",
    [
        (accuracy_reward, "accuracy_reward"),
        (strict_accuracy_reward, "accuracy_reward"),
        (format_reward, "format_reward"),
        (length_reward, "length_reward"),
        (get_length_reward(bonus=0.1), "length_reward"),
        (temporal_reward, "temporal_reward"),
        (get_temporal_reward(mu=0.8), "temporal_reward"),
    ],
)
def test_rewards_have_names_and_survive_pickling_and_copying(reward, name):
    from trl.trainer.utils import get_callable_name  # here: the process of the megabyte test does not need it

    assert reward.__name__ == get_callable_name(reward) == name
    assert pickle.loads(pickle.dumps(reward)) == copy.deepcopy(reward) == copy.copy(reward) == reward


# --- huge completions --------------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
HUGE = {
    "unclosed think": "<think>" * (MEGABYTE // 7),
    "unclosed answer": "<answer>" * (MEGABYTE // 8),
    "nested answers": "<answer>" * (MEGABYTE // 17) + "</answer>" * (MEGABYTE // 17),
    "many answers": "<answer></answer>" * (MEGABYTE // 17),
    "half-way tags": "<think>" + "</think><answer>" * (MEGABYTE // 16) + "</answer>",
    "spaces between tags": "<think></think>" + " " * MEGABYTE + "<answer></answer>",
    "one answer": "<think></think><answer>" + "a " * (MEGABYTE // 2) + "</answer>",
    "digits": "<answer>" + "1,111" * (MEGABYTE // 5) + "x</answer>",
    "letters": "<answer>" + "yyyyyyyy" * (MEGABYTE // 8) + "</answer>",
    "spaces": "<answer>B." + " " * MEGABYTE + "?</answer>",
}


def score_huge_completions() -> None:
    """Every reward on every huge completion. In a process of its own, since a stuck pattern cannot be interrupted."""
    for text in HUGE.values():
        format_reward([text])
        for problem_type in VIDEO_R1_TYPES:
            columns = {
                "completions": [text],
                "solution": ["<answer>12 red cars</answer>"],
                "problem_type": [problem_type],
            }
            accuracy_reward(**columns)
            strict_accuracy_reward(**columns)
            length_reward(**columns, completion_ids=[[0] * 400])


def test_a_megabyte_of_tags_does_not_hang():
    # 10 texts x 16 calls; about 4 s where measured, while one quadratic scan of a megabyte takes many minutes
    process = multiprocessing.get_context("spawn").Process(target=score_huge_completions)
    process.start()
    process.join(timeout=120)
    hung = process.is_alive()
    if hung:
        process.kill()
        process.join()
    assert not hung and process.exitcode == 0
