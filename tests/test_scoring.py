"""Scores of answers: by hand, over random numbers, and against lmms-eval's own scoring functions on our outputs."""

import importlib.util
import json
import math
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.benchmarks import Question
from videor1_trl.scoring import mean_relative_accuracy, score


OPTIONS = ("A. left", "B. right", "C. up")


def choice(gold="B", options=OPTIONS):
    return Question("1", "t", "Which way?", "multiple choice", gold, options)


def number(gold):
    return Question("1", "t", "How many?", "regression", gold, metric="mra")


def open_question(gold):
    return Question("1", "t", "What?", "free-form", gold, metric="open")


def answered(answer):
    return f"<think>so it is</think>\n<answer>{answer}</answer>"


def test_choices_are_read_as_in_training_and_the_released_script_takes_the_letter_alone():
    both = [(score(choice(), answered(text)).score, score(choice(), answered(text)).released) for text in "BAb"]
    assert both == [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0)]
    assert score(choice(), answered("B. right")).score == 1.0
    assert score(choice(), answered("A or B")).score == 0.0


def test_without_tags_the_whole_output_is_the_answer():
    found = score(choice(), " B ")
    assert (found.answer, found.tagged, found.score, found.released) == ("B", False, 1.0, 1.0)
    cut_off = score(choice(), "<think>It could be B")
    assert (cut_off.tagged, cut_off.score) == (False, 0.0)
    assert score(choice(), "").score == 0.0


def test_mean_relative_accuracy_by_hand():
    """Of a gold of 10: 10 is right at all ten confidences; 9 is off by 0.1, allowed up to 0.90, the ninth; 5 only at 0.50."""
    assert [mean_relative_accuracy(found, 10.0) for found in (10, 9, 8.7, 5, 4.9, 20)] == [
        1.0,
        0.9,
        0.8,
        0.1,
        0.0,
        0.0,
    ]
    assert mean_relative_accuracy(5.0, 10.0, strict=True) == 0.0
    assert mean_relative_accuracy(-10.0, -10.0) == 1.0
    assert mean_relative_accuracy(0.0, 0.0) == 1.0 and mean_relative_accuracy(0.1, 0.0) == 0.0


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_mean_relative_accuracy_counts_the_confidences_reached(found, gold):
    error = abs(found - gold) / gold
    margin = 1e-6 * (1 + error)  # the released script computes in single precision
    reached = sum(error <= 1 - confidence / 100 + margin for confidence in range(50, 100, 5)) / 10
    least = sum(error <= 1 - confidence / 100 - margin for confidence in range(50, 100, 5)) / 10
    value, strict = mean_relative_accuracy(found, gold), mean_relative_accuracy(found, gold, strict=True)
    assert least - 1e-9 <= strict <= reached + 1e-9 and least - 1e-9 <= value <= reached + 1e-9
    assert abs(value - strict) <= 0.1 + 1e-9  # a bound at most


def test_numbers_may_have_a_unit_except_in_the_released_script():
    found = score(number("20.5"), answered("20.5 square meters"))
    assert (found.score, found.released) == (1.0, 0.0)
    assert score(number("1000"), answered("1,000")).released == 1.0
    assert score(number("4"), answered("four")).released == score(number("4"), answered("none")).score == 0.0


def test_the_benchmarks_rule_takes_the_first_number_that_an_answer_has():
    """3 for a gold of 4: off by a quarter, which six of the ten confidences allow."""
    for answer, expected in (
        ("four", 1.0),
        ("There are four chairs and 1 sofa.", 1.0),
        ("~4", 1.0),
        ("4-5", 1.0),
        ("4 (2 near the sofa, 2 at the desk)", 1.0),
        ("3 or 4", 0.6),
        ("many", 0.0),
    ):
        assert score(number("4"), answered(answer)).score == expected, answer
    assert score(number("1200"), answered("about 1,200 mm")).score == 1.0
    assert score(number("321"), answered("three hundred and twenty-one")).score == 1.0


def test_without_tags_an_answer_is_what_follows_the_thoughts():
    text = "<think>Four? No, five.</think> It is 4."
    assert (score(number("4"), text).answer, score(number("4"), text).score) == ("It is 4.", 1.0)
    cut_off = score(open_question("red"), "<think>maybe red? no, blue")
    assert (cut_off.answer, cut_off.score) == ("", 0.0)
    assert score(number("4"), "<think>Four or 4").score == 0.0


def test_an_answer_may_repeat_its_option_whatever_that_holds():
    options = ("A. Vitamin A", "B. Vitamin C", "C. 3 m or I")
    for gold, answer in (("B", "B. Vitamin C"), ("B", "b) vitamin  c"), ("C", "C. 3 m or I"), ("A", "(A) Vitamin A")):
        assert score(choice(gold, options), answered(answer)).score == 1.0, answer
    assert score(choice("B", options), answered("B. Vitamin A")).score == 0.0  # not that option's text
    assert score(choice("B", options), answered("B or C")).score == 0.0


def test_open_answers_are_equal_numbers_or_hold_the_golds_words():
    assert score(open_question("0.5"), answered("0.500")).score == 1.0
    assert score(open_question("0.5"), answered("about 0.5")).score == 0.0  # no number as a whole
    assert score(open_question("Giant Panda"), answered("It is a giant  panda.")).score == 1.0
    assert score(open_question("Panda"), answered("pandas")).score == 0.0
    assert score(open_question("['1/2', '0.5']"), answered("0.5")).score == 1.0
    assert score(open_question("[unclear"), answered("[unclear")).score == 1.0


@given(
    st.text(), st.sampled_from([choice(), number("4"), open_question("x"), open_question("4"), open_question("[1]")])
)
def test_any_output_has_a_score_between_0_and_1(text, question):
    for completion in (text, answered(text)):
        found = score(question, completion)
        assert 0 <= found.score <= 1 and 0 <= found.released <= 1
        assert not math.isnan(found.score + found.released)


# Against lmms-eval


def lmms(task):
    """The module of a task's functions, without the package around it, whose models need more than is installed."""
    found = importlib.util.find_spec("lmms_eval")
    if found is None:
        pytest.fail("lmms-eval is missing: make install brings it")
    path = Path(found.origin).parent / task
    spec = importlib.util.spec_from_file_location(f"lmms_{path.stem}_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stripped():
    """What lmms-eval hands to its scoring functions with the flags that the README names."""
    strip = lmms("api/reasoning.py").strip_reasoning_tags
    tags = json.loads(readme_flags()["--reasoning_tags"])
    return lambda text: strip(text, tags)


def readme_flags():
    """The flags of the README's lmms-eval command, with their values."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    command = re.search(r"python -m lmms_eval (.*?)\n```", text, re.DOTALL)[1]
    words = shlex.split(command.replace("\\\n", " "))
    names = [place for place, word in enumerate(words) if word.startswith("--")]
    return {words[a]: " ".join(words[a + 1 : b]) for a, b in zip(names, [*names[1:], len(words)], strict=True)}


def test_the_readmes_command_is_one_that_lmms_eval_knows():
    flags = readme_flags()
    package = Path(importlib.util.find_spec("lmms_eval").origin).parent
    known = (package / "__main__.py").read_text()
    assert all(f'"{flag}"' in known for flag in flags)
    model = dict(each.split("=", 1) for each in flags["--model_args"].split(","))
    takes = (package / "models" / "simple" / f"{flags['--model']}.py").read_text()
    assert set(model) > {"max_num_frames", "max_pixels", "reasoning_prompt"}
    assert all(re.search(rf"^        {name}: ", takes, re.MULTILINE) for name in model)
    assert model["reasoning_prompt"].startswith("\\n") and "<answer>" in model["reasoning_prompt"]
    for task in flags["--tasks"].split(","):
        assert (package / "tasks" / task / f"{task}.yaml").exists()


NUMBERS = (
    "4",
    "3.7",
    "5",
    "2",
    "20.5 meters",
    "0",
    "1e9",
    "none",
    "four",
    "~4",
    "4-5",
    "4 chairs and 1 sofa",
    "One or 2.",
)
LETTERS = ("A", "B", "C", "D", "b", "C.", "B. 3 m")


def test_vsibench_scores_are_those_of_lmms_eval(stripped):
    from videor1_trl.evaluation import named_weights

    module = lmms("tasks/vsibench/utils.py")
    kinds = [*module.MCA_QUESTION_TYPES, *module.NA_QUESTION_TYPES]
    questions, ours, theirs = [], [], []
    for place, kind in enumerate(kinds):
        for turn in range(7 + place):  # parts of different sizes
            is_number = kind in module.NA_QUESTION_TYPES
            gold = ("4", "20.5", "5")[turn % 3] if is_number else "ABC"[turn % 3]
            answers = NUMBERS if is_number else LETTERS
            answer = answers[(place + turn) % len(answers)]
            options = ("A. left", "B. 3 m", "C. up")
            question = Question(f"{kind}/{turn}", kind, "?", "multiple choice", gold, options)
            if is_number:
                question = Question(f"{kind}/{turn}", kind, "?", "regression", gold, metric="mra")
            doc = {"question_type": kind, "ground_truth": gold}
            result = module.vsibench_process_results(doc, [stripped(answered(answer))])["vsibench_overall"]
            theirs.append(result)
            ours.append(score(question, answered(answer)).score)
            questions.append(question)
            assert ours[-1] == pytest.approx(result.get("accuracy", result.get("MRA:.5:.95:.05"))), (
                kind,
                answer,
                gold,
            )
    weights = named_weights(questions)["official"]
    total = sum(value * weight for value, (_, weight) in zip(ours, weights, strict=True))
    assert total == pytest.approx(module.vsibench_aggregate_overall(theirs), abs=1e-6)
    assert 0.1 < total < 0.9


@pytest.mark.parametrize("answer", ["B", "A", "F", "B. right", "(B)"])
def test_video_holmes_scores_are_those_of_lmms_eval(stripped, answer):
    module = lmms("tasks/video_holmes/utils.py")
    options = dict(zip("ABCDEF", ("left", "right", "up", "down", "in", "out"), strict=True))
    doc = {"Options": options, "Answer": "B", "Question Type": "SR"}
    result = module.video_holmes_process_results(doc, [stripped(answered(answer))])["video_holmes_accuracy"]
    question = choice("B", tuple(f"{letter}. {text}" for letter, text in options.items()))
    assert score(question, answered(answer)).score == result["score"]


@pytest.mark.parametrize("answer", ["B", "A", "C", "B. He stood.", "(B)", "b"])
def test_mvbench_scores_are_those_of_lmms_eval(stripped, answer):
    module = lmms("tasks/mvbench/utils.py")
    doc = {"candidates": ["He sat.", "He stood.", "He ran."], "answer": "He stood."}
    result = module.mvbench_process_results(doc, [stripped(answered(answer))])["mvbench_accuracy"]
    question = choice("B", ("A. He sat.", "B. He stood.", "C. He ran."))
    assert score(question, answered(answer)).score == result["score"]
