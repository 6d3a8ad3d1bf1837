"""The rules of each problem type: hand-computed values, properties of any answers, the released rule as an oracle."""

import math
import re
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from videor1_trl.rewards.accuracy import accuracy_reward, get_accuracy_reward
from videor1_trl.text import answers
from videor1_trl.text.prompts import PROBLEM_TYPES, VIDEO_R1_TYPES, extract_answer
from videor1_trl.text.words import EMPTY_WORDS, words_of


strict_accuracy_reward = get_accuracy_reward(strict=True)
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
words = st.sampled_from(
    ["the", "cats", "cat", "running", "run", "gas", "ga", "left", "A", "B.", "é", "1", "2.5", "\n", "\t", " "]
)
numbers = st.one_of(
    st.floats().map(str),
    st.integers(-2000, 2000).map(str),
    st.decimals(-9, 9, places=3).map(str),
    st.sampled_from(
        ["1,000", "1000", "1,000.00", "3.", ".5", "nan", "-inf", "1e999", "1_0", "٣", "5%", "$5", "", "x"]
    ),
)
texts = st.one_of(
    st.text(),
    numbers,
    st.lists(words, max_size=8).map(" ".join),
    st.lists(st.one_of(words, st.sampled_from(TAGS)), max_size=12).map("".join),
)
tagged = st.one_of(texts, texts.map(lambda text: f"<think>a</think> <answer>{text}</answer>"))
rows = st.lists(
    st.tuples(tagged, st.one_of(tagged, st.none()), st.sampled_from(PROBLEM_TYPES)), min_size=1, max_size=6
)


def accuracy(problem_type: str, gold, answer: str, reward=accuracy_reward):
    return reward([f"<answer>{answer}</answer>"], [gold], [problem_type])[0]


# --- by hand -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", ["B", "b", " B ", "B.", "(B)", "B)", "B:", "B. left", "B.left", "(b) Left", "B. A man"]
)
@pytest.mark.parametrize("gold", ["<answer>B</answer>", "B", " B\n", "(B)", "B. left"])
def test_ways_to_name_an_option_are_right(gold, answer):
    assert accuracy("multiple choice", gold, answer) == 1.0


WRONG = ["", "A", "left", "AB", "BB", "Bob", "(B", "B?", "B/A", "not B"]
HEDGED = ["A or B", "B or A", "A and B", "A, B", "A. B", "B. A", "A.B", "(B)(A)", "B. left or A", "B. A or C"]
HEDGED += ["A. left B. right", "a. left b. right", "B. left\nA. right"]


@pytest.mark.parametrize("answer", WRONG + HEDGED)
def test_a_wrong_or_hedged_option_is_wrong(answer):
    assert accuracy("multiple choice", "<answer>B</answer>", answer) == 0.0


def test_an_answer_may_repeat_the_text_of_its_option():
    options = [["A. Vitamin A", "B. Vitamin C"]]
    for answer, right in (("B. Vitamin C", 1.0), ("b) vitamin c", 1.0), ("B. Vitamin A", 0.0), ("B or A", 0.0)):
        text = [f"<answer>{answer}</answer>"]
        assert accuracy_reward(text, ["<answer>B</answer>"], ["multiple choice"], options=options) == [right], answer
        assert accuracy_reward(text, ["<answer>B</answer>"], ["multiple choice"], options=[None]) == [0.0]
    strict = get_accuracy_reward(strict=True)
    assert strict(["<answer>B. Vitamin C</answer>"], ["<answer>B</answer>"], ["multiple choice"], options=options) == [
        0.0
    ]


def test_a_choice_without_letters_is_compared_as_text():
    assert accuracy("multiple choice", "Left  side", "left side") == 1.0
    assert accuracy("multiple choice", "left", "right") == 0.0


@pytest.mark.parametrize(
    "gold, answer, expected",
    [
        ("1000", "1,000", 1.0),
        ("1,000,000", "1000000", 1.0),
        ("12,34,567", "1234567", 1.0),
        ("3", "3.0", 1.0),
        ("3.14159", "3.14", 1.0),
        ("3.14", "3.15", 0.0),
        ("-5", "−5", 1.0),  # U+2212, the typographic minus
        ("5", "-5", 0.0),
        ("1000", "10,00", 0.0),
        ("1000", "1.000", 0.0),
        ("15", "1,5", 0.0),
        ("1.5", "1,5", 0.0),
        ("2e3", "2000", 1.0),
        ("5", "5.", 1.0),
        ("50%", "50", 1.0),
        ("50 %", "50%", 1.0),
        ("50", "50%", 0.0),
        ("$5", "5", 1.0),
        ("5", "$5", 0.0),
        ("5 cm", "5 cm.", 1.0),
        ("5 cm", "5 m", 0.0),
        ("5 mW", "5 MW", 0.0),
        ("5", "5 km", 0.0),
        ("5 million", "5", 0.0),
        ("5", "5 or 6", 0.0),
        ("5", "5½", 0.0),
        ("5", "five", 0.0),
        ("5", "", 0.0),
    ],
)
def test_numbers_are_compared_after_rounding_to_two_decimals(gold, answer, expected):
    assert accuracy("numerical", gold, answer) == expected


@pytest.mark.parametrize("answer", ["nan", "inf", "-inf", "1e999", "Infinity", "9" * 999])
@pytest.mark.parametrize("gold", ["5", "nan", "inf", "1e999", "0"])
@pytest.mark.parametrize("problem_type", ["numerical", "regression"])
@pytest.mark.parametrize("reward", [accuracy_reward, strict_accuracy_reward])
def test_infinity_and_nan_earn_nothing(reward, problem_type, gold, answer):
    assert accuracy(problem_type, f"<answer>{gold}</answer>", answer, reward) in (0.0, None)


@pytest.mark.parametrize(
    "gold, answer, expected",
    [
        ("the red car", "the red car", 1.0),
        ("the red car", "  the\nred\tcar ", 1.0),
        ("a b c d", "a x c d", 0.75),  # one substitution in four words
        ("a b c d", "a b", 0.5),  # two deletions
        ("a b c d", "a b c d e", 0.75),  # one insertion
        ("a b", "c d e", 0.0),  # three errors in two words: clipped
        ("a b", "a b c d", 0.0),
        ("a b", "", 0.0),
    ],
)
def test_reading_scores_one_minus_the_word_error_rate(gold, answer, expected):
    assert accuracy("OCR", gold, answer) == pytest.approx(expected, rel=0, abs=1e-12)  # floats of a few operations


def test_free_text_scores_the_mean_of_three_rouge_measures():
    # "the cat sat" against "the cat ran": 2 of 3 words, 1 of 2 pairs, a common subsequence of 2 of 3
    expected = (2 / 3 + 1 / 2 + 2 / 3) / 3
    assert accuracy("free-form", "the cat sat", "the cat ran") == pytest.approx(expected, rel=0, abs=1e-12)
    # cats -> cat, running -> run
    assert accuracy("free-form", "cats running", "cat run") == pytest.approx(1.0, rel=0, abs=1e-12)


def test_free_text_equal_to_the_gold_scores_one():
    # ROUGE-2 of a single word is 0, and rouge-score drops every letter outside a-z
    assert accuracy("free-form", "left", "left") == 1.0
    assert accuracy("free-form", "向左", "向左") == 1.0
    assert accuracy("free-form", "<answer>left</answer>", "left", strict_accuracy_reward) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "gold, answer, expected",
    [
        ("4", "4", 1.0),
        ("4", "3", 0.75),
        ("4", "5", 0.75),
        ("-4", "-3", 0.75),
        ("4", "8", 0.0),
        ("4", "-4", 0.0),
        ("4", "100", 0.0),
        ("0", "0", 1.0),
        ("0", "0.1", 0.0),
        ("2,000", "1,500.0", 0.75),
        ("1e308", "-1e308", 0.0),
        ("4", "four", 0.0),
    ],
)
def test_regression_scores_one_minus_the_relative_error(gold, answer, expected):
    # 1e-9 below the fraction moves a result by less than 1e-9
    assert accuracy("regression", gold, answer) == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
@pytest.mark.parametrize("gold", [None, "", "<answer> </answer>"])
def test_a_missing_gold_gives_no_verdict(problem_type, gold):
    assert accuracy(problem_type, gold, "5") is None


@pytest.mark.parametrize("problem_type", ["numerical", "regression"])
def test_a_gold_that_is_no_number_gives_no_verdict(problem_type):
    assert accuracy(problem_type, "a few", "5") is None


# --- properties --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", [accuracy_reward, strict_accuracy_reward])
@given(rows=rows, data=st.data())
def test_any_rows_score_in_range_and_permute(reward, rows, data):
    found = [reward(*map(list, zip(row, strict=True)))[0] for row in rows]
    assert all(value is None or 0.0 <= value <= 1.0 for value in found)
    order = data.draw(st.permutations(range(len(rows))))
    assert reward(*map(list, zip(*(rows[i] for i in order), strict=True))) == [found[i] for i in order]


@given(st.sampled_from(["multiple choice", "free-form"]), texts, texts)
def test_choices_and_free_text_are_symmetric(problem_type, a, b):
    a, b = a.replace("<", " ").strip() or "B", b.replace("<", " ").strip() or "B"
    assume(problem_type != "free-form" or not EMPTY_WORDS & {*words_of(a), *words_of(b)})  # the gold's decide
    assert accuracy(problem_type, a, b) == pytest.approx(accuracy(problem_type, b, a), rel=0, abs=1e-12)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_plain_numbers_are_symmetric(a, b):
    a, b = (0.0 if abs(each) < 0.005 else each for each in (a, b))  # a gold below is compared by its digits
    assert accuracy("numerical", str(a), str(b)) == accuracy("numerical", str(b), str(a))


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
@given(text=texts)
def test_the_gold_itself_is_right(problem_type, text):
    found = accuracy(problem_type, f"<answer>{text}</answer>", text)
    assert found in (1.0, None) or "</answer>" in text or "</think>" in text


@given(st.sampled_from(["multiple choice", "OCR", "free-form", "regression"]), texts, texts)
def test_the_default_is_never_below_the_released_rule_where_both_see_numbers_or_text(problem_type, gold, answer):
    # "10,00" is 1000 to the released rule and no number here, so only plain numbers are compared
    if problem_type == "regression" and not re.fullmatch(r"-?\d+(\.\d+)?", f"{gold}{answer}"):
        return
    # signs, scripts without spaces and decimals are read here and not there
    if problem_type in ("free-form", "OCR") and not re.fullmatch(r"[A-Za-z\s]*", f"{gold}{answer}"):
        return
    if "</think>" in answer:  # the default reads what stands behind the thoughts
        return
    gold = f"<answer>{gold}</answer>"
    default, released = (
        accuracy(problem_type, gold, answer),
        accuracy(problem_type, gold, answer, strict_accuracy_reward),
    )
    assert default is None or default >= released - 1e-9


# --- the released rule -------------------------------------------------------------------------------------------


def word_error_rate(gold: list[str], answer: list[str]) -> float:
    """The textbook table of edit distances, divided by the number of words of the gold."""
    row = list(range(len(answer) + 1))
    for i, word in enumerate(gold, 1):
        previous, row = row, [i]
        for j, other in enumerate(answer, 1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (word != other)))
    return row[-1] / max(1, len(gold))


def released_accuracy(completion: str, solution: str, problem_type: str) -> float:
    """The table of PAPER.md, line by line; a missing answer is the empty string, infinity and NaN are no numbers."""

    def number(text):
        try:
            value = float(text.replace(",", ""))
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    answer, gold = extract_answer(completion, strict=True) or "", extract_answer(solution, strict=True) or ""
    if problem_type == "multiple choice":
        return 1.0 if answer == gold else 0.0
    if problem_type == "OCR":
        return min(1.0, max(0.0, 1 - word_error_rate(gold.split(), answer.split())))
    if problem_type == "free-form":
        scores = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(gold, answer)
        return (scores["rouge1"].fmeasure + scores["rouge2"].fmeasure + scores["rougeL"].fmeasure) / 3
    pred, true = number(answer), number(gold)
    if pred is None or true is None:
        return 0.0
    if problem_type == "numerical":
        if ("." in answer or "," in answer) != ("." in gold or "," in gold):
            return 0.0
        return 1.0 if round(pred, 2) == round(true, 2) else 0.0
    return 1 - min(1, (abs(pred - true) + 1e-9) / (abs(true) + 1e-9))


@settings(max_examples=300)
@pytest.mark.parametrize("problem_type", VIDEO_R1_TYPES)
@given(completion=tagged, solution=tagged)
def test_strict_agrees_with_the_released_rule(problem_type, completion, solution):
    expected = released_accuracy(completion, solution, problem_type)
    found = strict_accuracy_reward([completion], [solution], [problem_type])
    assert found == [pytest.approx(expected, rel=0, abs=1e-12)]  # sums of three floats in another order


@settings(max_examples=300)
@pytest.mark.parametrize("problem_type", ["numerical", "regression"])
@given(answer=numbers, gold=numbers)
def test_strict_agrees_with_the_released_rule_on_numbers(problem_type, answer, gold):
    completion, solution = f"<answer>{answer}</answer>", f"<answer>{gold}</answer>"
    expected = released_accuracy(completion, solution, problem_type)
    assert strict_accuracy_reward([completion], [solution], [problem_type]) == [
        pytest.approx(expected, rel=0, abs=1e-12)
    ]


def test_strict_keeps_the_released_oddities():
    assert accuracy("numerical", "<answer>1000</answer>", "1,000", strict_accuracy_reward) == 0.0
    assert accuracy("numerical", "<answer>3</answer>", "3.0", strict_accuracy_reward) == 0.0
    assert accuracy("multiple choice", "<answer>B</answer>", "b", strict_accuracy_reward) == 0.0
    assert accuracy("regression", "<answer>0</answer>", "0", strict_accuracy_reward) == 0.0
    assert accuracy("multiple choice", None, "B", strict_accuracy_reward) is None


@pytest.mark.parametrize("rule", [answers._rouge, answers._released_rouge])
@given(gold=texts, answer=texts)
def test_rouge_of_huge_answers_is_rouge_scores_own(rule, gold, answer):
    expected = rule(gold, answer)
    longest, answers._MAX_ROUGE_CHARS = answers._MAX_ROUGE_CHARS, -1  # every text is a huge one
    try:
        assert rule(gold, answer) == pytest.approx(expected, rel=0, abs=1e-12)
    finally:
        answers._MAX_ROUGE_CHARS = longest


# --- the forms in which people and models answer -----------------------------------------------------------------

OPTIONS = ["A. left", "B. right", "C. up"]


def chosen(answer, gold="<answer>B</answer>", options=OPTIONS):
    return accuracy_reward([f"<answer>{answer}</answer>"], [gold], ["multiple choice"], options=[options])[0]


@pytest.mark.parametrize(
    "answer",
    [
        "B right",
        "**B**",
        "*B*",
        "\\boxed{B}",
        "$\\boxed{B}$",
        "\\boxed{\\text{B}}",
        "The answer is B",
        "The answer is B.",
        "The final answer is: **B**",
        "Answer: B",
        "**Answer:** B. right",
        "So the correct option is (B) right.",
        "I choose B",
        "Option B",
        "Caption B",
        "The answer is B because it moves to that side.",
        "B is correct",
        "B is the right option.",
        "B moves to that side",
        "right",
        "Right.",
        '"right"',
        "The answer is right.",
    ],
)
def test_forms_that_can_be_read_in_one_way_name_their_option(answer):
    assert chosen(answer) == 1.0
    assert chosen(answer, "<answer>A</answer>") == 0.0
    for gold in ("right", "B. right", "(b)", "Right"):
        assert chosen(answer, f"<answer>{gold}</answer>") == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "A or B",
        "A, B, C",
        "A. left B. right C. up",
        "left, right, up",
        "left or right",
        "right, not left",
        "B. left",
        "B, not A",
        "The answer is B or C",
        "The answer is A and B",
        "Answer: A. Answer: B",
        "\\boxed{A} \\boxed{B}",
        "**A** **B**",
        "B left",
        "B or not",
        "B and more",
        "B is not A",
        "not right",
    ],
)
def test_an_answer_that_names_two_options_is_wrong(answer):
    assert [chosen(answer, gold) for gold in "ABC"] == [0.0] * 3


def test_without_options_a_letter_before_a_text_is_read_where_it_is_no_word():
    for answer, right in (("B right", 1.0), ("**B** right", 1.0), ("B or right", 0.0), ("B, A", 0.0), ("B is A", 0.0)):
        assert accuracy("multiple choice", "<answer>B</answer>", answer) == right, answer
    assert accuracy("multiple choice", "<answer>A</answer>", "A man walks") == 0.0
    assert accuracy("multiple choice", "<answer>A</answer>", "A is correct.") == 1.0


@pytest.mark.parametrize("answer, gold", [("yes", "A"), ("Yes, it does.", "A"), ("No. It stays.", "B"), ("no", "B")])
def test_yes_and_no_are_options_of_that_text(answer, gold):
    for options in (["A. yes", "B. no"], ["Yes", "No"]):
        assert [chosen(answer, letter, options) for letter in "AB"] == [float(letter == gold) for letter in "AB"]
    assert chosen("yes, no", gold, ["A. yes", "B. no"]) == 0.0


@pytest.mark.parametrize(
    "answer", ["x = 5", "5", "The answer is 5", "Answer: 5.", "\\boxed{5}", "$5$", "**5.0**", "$x = 5$", "n=5"]
)
@pytest.mark.parametrize("problem_type", ["numerical", "regression"])
def test_forms_that_state_a_number_are_numbers(problem_type, answer):
    assert accuracy(problem_type, "5", answer) == 1.0
    assert accuracy(problem_type, "5", "5 or 6") == 0.0
    assert accuracy(problem_type, "5", "x = y = 5") == 0.0


# --- scripts without spaces, and signs ---------------------------------------------------------------------------


def test_free_text_is_compared_in_any_script_and_with_its_signs():
    # 向 左 移 动 3 次 against 向 右 移 动 3 次: 5 of 6 characters, pairs 3 of 5, subsequence 5 of 6
    expected = (5 / 6 + 3 / 5 + 5 / 6) / 3
    assert accuracy("free-form", "向左移动3次", "向右移动3次") == pytest.approx(expected, rel=0, abs=1e-12)
    assert accuracy("free-form", "汽车有3个轮子", "猫坐在3上") < 0.2  # one digit in common
    assert accuracy("free-form", "向左移动", "向左移动。") == 1.0
    assert accuracy("free-form", "ไปทางซ้าย", "ไปทางขวา") < accuracy("free-form", "ไปทางซ้าย", "ไปทางซ้าย ") == 1.0
    assert accuracy("free-form", "x > 0", "x < 0") < 0.7
    assert accuracy("free-form", "x > 0", "x>0.") == 1.0
    assert accuracy("free-form", "-5 degrees", "5 degrees") < 0.8
    assert accuracy("free-form", "The cat sat.", "the cat sat") == 1.0
    # the released rule keeps its own reading
    assert accuracy("free-form", "<answer>x > 0</answer>", "x < 0", strict_accuracy_reward) == 1.0


def test_reading_counts_characters_where_a_script_sets_no_spaces():
    assert accuracy("OCR", "出口在左边", "出口在右边") == pytest.approx(0.8)  # one of five
    assert accuracy("OCR", "Exit 出口", "Exit 入口") == pytest.approx(2 / 3)
    assert accuracy("OCR", "<answer>出口在左边</answer>", "出口在右边", strict_accuracy_reward) == 0.0


def test_a_huge_free_text_is_cut_off_at_eight_times_the_gold():
    gold = "red blue " * 500  # 4,500 characters
    assert accuracy("free-form", gold, "red blue " * 3900) > 0.2  # 35,100; 2 * 1000 / 8800 in each measure
    assert accuracy("free-form", gold, "red blue " * 4100) == 0.0  # 36,900 > 8 * 4,499


# --- huge answers ------------------------------------------------------------------------------------------------


def count_lines(function) -> int:
    """How many lines of Python run: a clock that load does not move."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("reward", [accuracy_reward, strict_accuracy_reward])
@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
@pytest.mark.parametrize("gold_grows", [False, True])
def test_work_grows_no_faster_than_the_texts(gold_grows, reward, problem_type):
    def work(num_words):
        answer = " ".join(f"w{i % 50}" for i in range(num_words))
        gold = " ".join(f"w{i % 7}" for i in range(num_words if gold_grows else 5))
        return count_lines(lambda: accuracy(problem_type, f"<answer>{gold}</answer>", answer, reward))

    work(700)  # fills the cache of stems
    assert work(2_800) <= 4.1 * work(700) + 100


# --- options whose texts look like letters, other scripts, answers that take themselves back ----------------------


@pytest.mark.parametrize(
    ("options", "gold", "answer", "right"),
    [
        (["A. C major", "B. D major", "C. E major"], "A", "C major", 1.0),
        (["A. C major", "B. D major", "C. E major"], "C", "C major", 0.0),
        (["A. C. elegans", "B. E. coli", "C. yeast"], "A", "C. elegans", 1.0),
        (["A. C. elegans", "B. E. coli", "C. yeast"], "B", "E. coli", 1.0),
        (["U turn", "left turn"], "A", "U turn", 1.0),
        (["E", "W", "N", "S"], "B", "W", 1.0),
        (["E", "W", "N", "S"], "B", "B", 1.0),
        (["X", "Y", "Z"], "Y", "B", 1.0),
        (["(i) and (ii)", "(i) only"], "A", "(i) and (ii)", 1.0),
        (["I. left", "II. right"], "A", "I. left", 1.0),
        (["A. left", "B. left, then right"], "B", "left, then right", 1.0),
        (["A. left", "B. left, then right"], "A", "left, then right", 0.0),
        (["A. 1, 2", "B. 1", "C. 2"], "A", "1, 2", 1.0),
        (["A. .5", "B. 5"], "A", ".5", 1.0),
        (["A. .5", "B. 5"], "B", ".5", 0.0),
        (["A. 向左", "B. 向右"], "B", "向右。", 1.0),
        (["A. 向左", "B. 向右"], "B", "(B)", 1.0),
        (["A. 向左", "B. 向右"], "B", "\uff08B\uff09", 1.0),
        (["A. 向左", "B. 向右"], "B", "答案是B", 1.0),
        (["A. 向左", "B. 向右"], "B", "选B", 1.0),
        (["A. 向左", "B. 向右"], "B", "\uff22", 1.0),
        (["A. 向左", "B. 向右"], "B", "B. 向右或者向左", 0.0),
        (["A. 向左", "B. 向右"], "B", "B. 不是向左", 0.0),
        (["A. 向左", "B. 向右"], "B", "向右, 或者向左", 0.0),
        (["A、向左", "B、向右"], "B", "B", 1.0),
        (["A. left", "B. right"], "B", "B is wrong", 0.0),
        (["A. left", "B. right"], "B", "right, but maybe not", 0.0),
        (["A. left", "B. right"], "B", "B. none of these", 0.0),
        (["A. left", "B. right"], "B", "The answer is B because it does not stop", 1.0),
        (["A. left", "B. right"], "B", "The answer is B because it is not A", 0.0),
        (["A. left", "B. right"], "B", "The answer is B because it is not left", 0.0),
        (["A. left", "B. right"], "B", "The answer is B, or not", 0.0),
        (["A. moving", "B. not there"], "B", "B. The car is not there", 1.0),
        (["A. up", "B. not there"], "B", "B. The car is there or not there", 0.0),
        (["A. left", "B. right"], "B", "B, right", 1.0),
        (["A. left", "B. right"], "B", "right (B)", 1.0),
        (["A. left", "B. right"], "B", "[B]", 1.0),
        (["A. x", "B. X"], "B", "X", 1.0),
        (["A. x", "B. X"], "A", "X", 0.0),
    ],
)
def test_an_option_is_read_where_its_text_or_its_script_is_unusual(options, gold, answer, right):
    given = accuracy_reward([f"<answer>{answer}</answer>"], [gold], ["multiple choice"], options=[options])
    assert given == [right]


@pytest.mark.parametrize("options", [["x", None], [1, 2], [], None])
def test_options_of_any_kind_are_read_as_texts(options):
    assert accuracy_reward(["<answer>A</answer>"], ["A"], ["multiple choice"], options=[options]) == [1.0]


@pytest.mark.parametrize(
    ("problem_type", "gold", "answer", "right"),
    [
        ("numerical", "5", "x = $5$", 1.0),
        ("numerical", "5", "x_1 = 5", 1.0),
        ("numerical", "5", "(5)", 1.0),
        ("numerical", "1000", "1{,}000", 1.0),
        ("numerical", "50%", "50\\%", 1.0),
        ("numerical", "-5", "–5", 1.0),
        ("numerical", "5", "–5", 0.0),
    ],
)
def test_a_number_is_read_in_what_it_is_set_in(problem_type, gold, answer, right):
    assert accuracy(problem_type, gold, answer) == right


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("x²", "x2"), ("x >= 0", "x <= 0"), ("x ≤ 0", "x ≥ 0"), ("5", "–5"), ("✓", "✗")],
)
def test_a_sign_makes_another_text(gold, answer):
    assert accuracy("free-form", gold, answer) < 1.0
    assert accuracy("free-form", gold, f"{gold}.") == 1.0
