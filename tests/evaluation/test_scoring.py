"""Scores of answers: by hand, over random numbers, and against lmms-eval's own scoring functions on our outputs."""

import dataclasses
import functools
import importlib.util
import json
import math
import re
import shlex
import string
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.evaluation.benchmarks.letters import letter_in_text
from videor1_trl.evaluation.benchmarks.vsibench import mean_relative_accuracy
from videor1_trl.evaluation.questions import Question
from videor1_trl.evaluation.scoring import by_rule, score


OPTIONS = ("A. left", "B. right", "C. up")


def choice(gold="B", options=OPTIONS):
    return Question("1", "t", "Which way?", "multiple choice", gold, options)


def number(gold, benchmark=""):
    return Question("1", "t", "How many?", "regression", gold, metric="mra", benchmark=benchmark)


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
        assert score(number("4", "vsibench"), answered(answer)).score == expected, answer
    assert score(number("1200"), answered("about 1200 mm")).score == 1.0
    assert score(number("1200"), answered("about 1,200 mm")).score == 0.0  # its script reads the 1
    assert score(number("321"), answered("three hundred and twenty-one")).score == 1.0


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("four", 1.0),
        ("4 chairs", 1.0),
        ("There are four chairs and 1 sofa.", 1.0),
        ("twenty-one", 0.0),
        ("about 4 m", 1.0),
    ]
    + [
        (several, 0.0)
        for several in ("4-5", "3 to 4", "3 or 4", "between 4 and 9", "4, 5, 6", "4/5", "four or five", "4 – 5 m")
    ],
)
def test_a_range_is_no_number_of_a_record(answer, expected):
    found = score(number("4"), answered(answer))
    assert found.score == expected and found.names_one == (expected == 1.0 or answer == "twenty-one")


def test_a_number_of_thousands_of_words_is_none_that_there_is():
    """Each "hundred" multiplied an integer, whose digits grew without end, and no float holds it."""
    for benchmark in ("", "vsibench"):
        for word in ("hundred ", "hundred and ", "thousand "):
            assert score(number("4", benchmark), answered(word * 50_000)).score == 0.0


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


def test_open_answers_have_the_golds_number_or_hold_its_text():
    assert score(open_question("0.5"), answered("0.500")).score == 1.0
    assert score(open_question("0.5"), answered("about 0.5")).score == 1.0
    assert score(open_question("0.5"), answered("x = 0.5")).score == 1.0
    assert score(open_question("Giant Panda"), answered("It is a giant panda.")).score == 1.0
    assert score(open_question("Panda"), answered("The answer is a bear.")).score == 0.0
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


def lmms_folder():
    for entry in map(Path, sys.path):
        if (entry / "lmms_eval" / "__init__.py").exists():
            return entry / "lmms_eval"
    pytest.fail("lmms-eval is missing: make install brings it")


def lmms(task):
    """The module of a task's functions, without the package around it, whose models need more than is installed."""
    path = lmms_folder() / task
    spec = importlib.util.spec_from_file_location(f"lmms_{path.stem}_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lmms_package(monkeypatch):
    """lmms-eval's tasks can import one another, without what its packages import for their models and videos."""
    root = lmms_folder()
    for name in ("lmms_eval", "lmms_eval.tasks", "lmms_eval.tasks._task_utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, name, package)
    for name in ("cv2", "decord", "pytz"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setenv("HF_HOME", "/nowhere")


@pytest.fixture(scope="module")
def stripped():
    """What lmms-eval hands to its scoring functions with the flags that the documentation names."""
    strip = lmms("api/reasoning.py").strip_reasoning_tags
    tags = json.loads(documented_flags()["--reasoning_tags"])
    return lambda text: strip(text, tags)


def documented_flags():
    """The flags of the documentation's lmms-eval command, with their values."""
    root = Path(__file__).parents[2]
    text = "\n".join(path.read_text() for path in (root / "README.md", *sorted(root.glob("docs/*.md"))))
    command = re.search(r"python -m lmms_eval (.*?)\n```", text, re.DOTALL)[1]
    words = shlex.split(command.replace("\\\n", " "))
    names = [place for place, word in enumerate(words) if word.startswith("--")]
    return {words[a]: " ".join(words[a + 1 : b]) for a, b in zip(names, [*names[1:], len(words)], strict=True)}


def test_the_documented_command_is_one_that_lmms_eval_knows():
    flags = documented_flags()
    package = lmms_folder()
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
    from videor1_trl.evaluation.summary import named_weights

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
                question = Question(
                    f"{kind}/{turn}", kind, "?", "regression", gold, metric="mra", benchmark="vsibench"
                )
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


# What models answer, with and without tags; X stands for a letter, TEXT for the text of its option
FORMS = (
    "X",
    "x",
    "X.",
    "(X)",
    "X)",
    "X: TEXT",
    "X. TEXT",
    "X TEXT",
    "(X) TEXT",
    "**X**",
    "**X. TEXT**",
    "\\boxed{X}",
    "$\\boxed{X}$",
    "The answer is X",
    "The answer is X.",
    "The correct answer is (X) TEXT.",
    "Answer: X",
    "Final answer: **X**",
    "I choose X because of the way it moves.",
    "TEXT",
    "TEXT.",
    "It is TEXT, as the whole of the video shows.",
    "A or X",
    "X, not A",
    "not X",
    "A B C",
    "A. TEXT",
    "The option X, since A is too slow and C too fast",
    "Caption X",
    "Option X",
    "Sentence X",
    "Yes, it does.",
    "no",
    "yes",
    "x = 5",
    "5",
    "0.50",
    "The result is 0.5 m",
    "so it is 1,200",
    "I cannot tell.",
    "?",
    "TEXT or something else",
    "",
)


def forms(letters, texts):
    """Every form for every option."""
    for form in FORMS:
        for letter, text in zip(letters, texts, strict=True):
            filled = form.replace("TEXT", text)
            yield (
                filled.replace("X", letter).replace("x", letter.lower())
                if form in ("X", "x")
                else re.sub(r"(?<![A-Za-z])X(?![A-Za-z])", letter, filled)
            )


def both_ways(answer):
    """With tags, and as a model answers that was never asked for any."""
    return (answered(answer), answer) if answer.strip() else (answered(answer),)


TEXTS = ("He sat down slowly.", "He stood up.", "He ran a lap")


@pytest.mark.parametrize("gold", "ABC")
def test_mvbench_scores_are_those_of_lmms_eval_form_by_form(stripped, gold):
    module = lmms("tasks/mvbench/utils.py")
    doc = {"candidates": list(TEXTS), "answer": TEXTS["ABC".index(gold)]}
    options = tuple(f"{letter}. {text}" for letter, text in zip("ABC", TEXTS, strict=True))
    question = Question("1", "t", "?", "multiple choice", gold, options, benchmark="mvbench")
    for answer in forms("ABC", TEXTS):
        for text in both_ways(answer):
            theirs = module.mvbench_process_results(doc, [stripped(text)])["mvbench_accuracy"]["score"]
            assert score(question, text).score == theirs, text


@pytest.mark.parametrize("gold", "ABCD")
def test_videomme_scores_are_those_of_lmms_eval_form_by_form(stripped, lmms_package, gold):
    module = lmms("tasks/videomme/utils.py")
    texts = (*TEXTS, "Apples. Both kinds.")
    doc = dict.fromkeys(("question_id", "duration", "domain", "sub_category", "task_type", "videoID"), "")
    doc["answer"] = gold
    options = tuple(f"{letter}. {text}" for letter, text in zip("ABCD", texts, strict=True))
    question = Question("1", "t", "?", "multiple choice", gold, options, benchmark="videomme")
    for answer in forms("ABCD", texts):
        for text in both_ways(answer):
            theirs = module.videomme_process_results(doc, [stripped(text)])["videomme_perception_score"]
            found = score(question, text)
            assert (found.score, found.names_one) == (theirs["score"], bool(theirs["pred_answer"])), text


@pytest.mark.parametrize("gold", "ABC")
def test_videommmu_choices_are_scored_as_in_lmms_eval_form_by_form(stripped, lmms_package, gold):
    module = lmms("tasks/videommmu/utils.py")
    doc = {"id": "validation_Math_3", "options": list(TEXTS), "answer": gold, "question_type": "multiple-choice"}
    options = tuple(f"{letter}. {text}" for letter, text in zip("ABC", TEXTS, strict=True))
    question = Question("1", "t", "?", "multiple choice", gold, options, benchmark="videommmu")
    for answer in forms("ABC", TEXTS):
        for text in both_ways(answer):
            parsed = module.videommmu_process_results(doc, [stripped(text)])["mmmu_acc"]["parsed_pred"]
            assert score(question, text).score == module.eval_multi_choice(gold, parsed), text


@pytest.mark.parametrize("gold", ["0.5", "5", "1200", "1,200", "Giant Panda", "x", "['1/2', '0.5']", "He stood up."])
def test_videommmu_open_questions_are_scored_as_in_lmms_eval_form_by_form(stripped, lmms_package, gold):
    module = lmms("tasks/videommmu/utils.py")
    doc = {"id": "validation_Math_3", "options": [], "answer": gold, "question_type": "open"}
    question = Question("1", "t", "?", "free-form", gold, metric="open", benchmark="videommmu")
    more = (
        "It is a giant panda.",
        "pandas",
        "5e-1",
        "-5",
        "= 5",
        "so x\ny = 5",
        "It has\nthe value is 5 or 6.",
        "about 0.504",
    )
    for answer in (*forms("ABC", TEXTS), *more):
        for text in both_ways(answer):
            parsed = module.videommmu_process_results(doc, [stripped(text)])["mmmu_acc"]["parsed_pred"]
            golds = ["1/2", "0.5"] if gold.startswith("[") else gold
            theirs = parsed != "API Error" and module.eval_open(golds, parsed)
            assert score(question, text).score == theirs, text


@pytest.mark.parametrize("gold", "ABC")
def test_vsibench_choices_are_scored_as_in_lmms_eval_form_by_form(stripped, gold):
    module = lmms("tasks/vsibench/utils.py")
    options = tuple(f"{letter}. {text}" for letter, text in zip("ABC", TEXTS, strict=True))
    question = Question("1", "route_planning", "?", "multiple choice", gold, options, benchmark="vsibench")
    for answer in forms("ABC", TEXTS):
        for text in both_ways(answer):
            doc = {"question_type": "route_planning", "ground_truth": gold}
            theirs = module.vsibench_process_results(doc, [stripped(text)])["vsibench_overall"]["accuracy"]
            assert score(question, text).score == theirs, text


@pytest.mark.parametrize("gold", ["4", "20.5", "1200", "21", "100"])
def test_vsibench_numbers_are_scored_as_in_lmms_eval_form_by_form(stripped, gold):
    module = lmms("tasks/vsibench/utils.py")
    question = Question("1", "object_counting", "?", "regression", gold, metric="mra", benchmark="vsibench")
    more = (
        "twenty-one",
        "a hundred",
        "two thousand and one",
        "one apple, room 2",
        "-3",
        "about 1,200 mm",
        "four hundred",
    )
    for answer in (*forms("ABC", TEXTS), *NUMBERS, *more):
        for text in both_ways(answer):
            doc = {"question_type": "object_counting", "ground_truth": gold}
            theirs = module.vsibench_process_results(doc, [stripped(text)])["vsibench_overall"]["MRA:.5:.95:.05"]
            assert score(question, text).score == pytest.approx(theirs), text


@pytest.mark.parametrize("gold", "ABCD")
def test_mmvu_scores_are_those_of_lmms_eval_form_by_form(stripped, gold):
    source = (lmms_folder() / "tasks/mmvu/utils.py").read_text()
    names = {"re": re, "string": string, "Dict": dict, "Any": object}  # its imports need a judge's client
    begin = source.index("def evaluate_with_rule_based")
    exec(source[begin : source.index("def evaluate_with_llm_judge")], names)
    texts = (*TEXTS, "the law of mass action")
    doc = {"answer": gold, "question_type": "multiple-choice", "choices": dict(zip("ABCD", texts, strict=True))}
    options = tuple(f"{letter}. {text}" for letter, text in zip("ABCD", texts, strict=True))
    question = Question("1", "t", "?", "multiple choice", gold, options, benchmark="mmvu")
    for answer in (*forms("ABCD", texts), "mass", "Dog action"):
        for text in both_ways(answer):
            theirs = names["evaluate_with_rule_based"](doc, stripped(text))
            assert score(question, text).score == theirs, text


def tempcompass_functions():
    """The functions of lmms-eval's task, whose judge is not asked here: it is told apart from a rule's verdict."""
    source = (lmms_folder() / "tasks/tempcompass/utils.py").read_text()
    names = {"re": re, "random": None, "time": None, "requests": None, "json": json}
    begin = (
        source.index("# Process result for multi_choice") if "# Process result for multi_choice" in source else None
    )
    begin = source.index("def tempcompass_process_results_multi_choice") if begin is None else begin
    exec(source[begin:], names)
    names["get_eval_result"] = lambda *arguments, **kwargs: ("asked", None)
    return names


@pytest.mark.parametrize("task", ["multi-choice", "yes_no", "caption_matching"])
def test_tempcompass_scores_are_those_of_lmms_eval_wherever_its_rules_decide(stripped, task):
    functions = tempcompass_functions()
    decided = 0
    kinds = {"multi-choice": ("",), "yes_no": ("",), "caption_matching": ("Caption ", "Sentence ", "Option ")}[task]
    for kind in kinds:
        for gold in range(2 if task == "yes_no" else 3):
            if task == "yes_no":
                doc = {"question": "Does it?", "answer": ("yes", "no")[gold]}
                options, shown = ("A. yes", "B. no"), ()
            else:
                labels = ("1", "2", "3") if kind == "Option " else ("A", "B", "C")
                mark = ". " if task == "multi-choice" else ": "
                shown = tuple(f"{kind}{label}{mark}{text}" for label, text in zip(labels, TEXTS, strict=True))
                doc = {"question": "\n".join(["Which?", *shown]), "answer": shown[gold]}
                options = tuple(f"{letter}. {text}" for letter, text in zip("ABC", TEXTS, strict=True))
            doc |= {"video_id": "1", "dim": "order"}
            question = Question(
                "1", task, "?", "multiple choice", "ABC"[gold], options, benchmark="tempcompass", shown=shown
            )
            function = functions[f"tempcompass_process_results_{task.replace('-', '_')}"]
            for answer in (*forms("ABC", TEXTS), *shown, "1", "2.", "Caption B: He stood up.", "2) He stood up."):
                for text in both_ways(answer):
                    theirs = function(doc, [stripped(text)])["avg_accuracy"]["rating"]
                    if theirs is not None:
                        decided += 1
                        assert score(question, text).score == theirs, (doc, text)
                    else:  # a model judges there, our own reading here
                        assert score(question, text).score in (0.0, 1.0)
    assert decided > 20


@pytest.mark.parametrize("gold", "ABCDEF")
def test_video_holmes_scores_are_those_of_lmms_eval_form_by_form(stripped, monkeypatch, gold):
    """But for its random choice where nothing is found, which is wrong here."""
    module = lmms("tasks/video_holmes/utils.py")
    monkeypatch.setattr(module.random, "choice", lambda choices: "none")
    texts = ("left", "right", "the man in the car", "down", "in", "He lied to her")
    doc = {"Options": dict(zip("ABCDEF", texts, strict=True)), "Answer": gold, "Question Type": "SR"}
    options = tuple(f"{letter}. {text}" for letter, text in zip("ABCDEF", texts, strict=True))
    question = Question("1", "t", "?", "multiple choice", gold, options, benchmark="video-holmes")
    for answer in forms("ABCDEF", texts):
        for text in both_ways(answer):
            theirs = module.video_holmes_process_results(doc, [stripped(text)])["video_holmes_accuracy"]["score"]
            assert score(question, text).score == theirs, text


@given(st.text(alphabet="ABCx ().:,*\n'\"5-", max_size=24))
def test_letters_in_any_text_are_read_as_in_lmms_eval(text):
    theirs = _extract_mcq_answer()(text, choices=["A", "B", "C"])
    assert letter_in_text(text, ["A", "B", "C"]) == theirs


@functools.cache
def _extract_mcq_answer():
    return lmms("tasks/_task_utils/mcq_extract.py").extract_mcq_answer


@given(st.text(alphabet="ABCabc .,()-/\n'\"5;", max_size=24))
def test_any_text_is_scored_by_mvbench_as_in_lmms_eval(text):
    question = Question("1", "t", "?", "multiple choice", "B", ("A. p", "B. q", "C. r"), benchmark="mvbench")
    assert by_rule(question, text).score == _mcq_acc()("B", text)


@functools.cache
def _mcq_acc():
    return lmms("tasks/mvbench/utils.py").mcq_acc


def test_an_answer_says_whether_it_names_an_option_at_all():
    question = Question("1", "t", "?", "multiple choice", "B", OPTIONS)
    for answer, names_one in (("A", True), ("right", True), ("I cannot tell", False), ("A or B", False)):
        assert score(question, answered(answer)).names_one is names_one
    for name in ("videomme", "mvbench", "video-holmes", "vsibench", "mmvu", "tempcompass"):
        of_benchmark = dataclasses.replace(question, benchmark=name)
        assert (
            score(of_benchmark, answered("B")).names_one and not score(of_benchmark, answered("so, well")).names_one
        ), name
