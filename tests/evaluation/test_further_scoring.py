"""Scores of the benchmarks of order, length, reasoning and grounding against lmms-eval's own functions, form of answer by form."""

import types

import pytest
import test_scoring
from hypothesis import given
from hypothesis import strategies as st
from test_scoring import NUMBERS, TEXTS, answered, both_ways, forms, lmms

from videor1_trl.evaluation.benchmarks.benchmark import letter_of
from videor1_trl.evaluation.benchmarks.named_option import by_named_option
from videor1_trl.evaluation.questions import Question
from videor1_trl.evaluation.scoring import answer_of, by_rule, score


stripped, lmms_package = test_scoring.stripped, test_scoring.lmms_package  # fixtures

MORE_TEXTS = (*TEXTS, "Apples. Both kinds.", "in a car")
GUESS = "guess"

MORE = (
    "Therefore, the final answer is: (X)",
    "Option: X, or the answer is Y",
    "The best option is X",
    "The correct option is X",
    "Best answer: X",
    "BEST ANSWER: X",
    "[X] TEXT",
    "X or Y",
    "(X), perhaps (Y)",
    "(Y), perhaps (X)",
    "I see that TEXT; that much I know",
    "Because X",
    "Cannot be told",
    "everything is decided by the deed",
    "so it moves on until it rests, slowly, slowly and more slowly",
    "?!",
    "food. Then bread)",
)


def further_forms(letters, texts):
    """The forms of the other benchmarks, and those that the scripts here look for."""
    yield from forms(letters, texts)
    for form in MORE:
        for place, (letter, text) in enumerate(zip(letters, texts, strict=True)):
            filled = form.replace("TEXT", text)
            yield filled.replace("X", letter).replace("Y", letters[place - 1])


def asked(name, gold, letters):
    options = tuple(f"{letter}. {text}" for letter, text in zip(letters, MORE_TEXTS, strict=False))
    return Question("1", "t", "?", "multiple choice", gold, options, benchmark=name)


@pytest.fixture
def module(lmms_package, monkeypatch):
    """`module(task)`: the task's functions; a random choice of theirs is `GUESS`."""
    utils = types.ModuleType("lmms_eval.utils")
    utils.eval_logger = types.SimpleNamespace(info=lambda *_: None, warning=lambda *_: None)
    decord = types.ModuleType("decord")
    decord.VideoReader = decord.cpu = None
    monkeypatch.setitem(test_scoring.sys.modules, "lmms_eval.utils", utils)
    test_scoring.sys.modules["lmms_eval"].utils = utils
    monkeypatch.setitem(test_scoring.sys.modules, "decord", decord)

    def load(task):
        found = lmms(f"tasks/{task}/utils.py")
        if hasattr(found, "random"):
            found.random = types.SimpleNamespace(choice=lambda choices: GUESS)
        return found

    return load


def tvbench(module, gold, texts, text):
    doc = {"candidates": texts, "answer": texts["ABCDE".index(gold)]}
    return module.tvbench_process_results(doc, [text])["tvbench_acc"]


def tomato(module, gold, texts, text):
    """An A that it falls back to is told from one that it reads: it reads nothing if it takes another default, too."""
    letters = list("ABCDE"[: len(texts)])
    index2ans = dict(zip(letters, texts, strict=True))
    bare = text
    for mark in ",.!?;:'":
        bare = bare.strip(mark)
    nothing = not any(letter in bare for letter in letters) and (
        len(bare.split()) <= 5 or not any(each.lower() in bare.lower() for each in texts)
    )
    found = module.parse_multi_choice_response(text, letters, index2ans)
    assert not nothing or found == "A"
    doc = {"question": "?", "options": texts, "answer": letters.index(gold)}
    doc |= {"reason_type": "", "demonstration_type": "", "id": "1"}
    return GUESS if nothing else module.tomato_process_results(doc, [text])["tomato_score"]["score"]


def vinoground(module, gold, texts, text):
    """Its score needs an answer that is not empty, and counts pairs: text score is 1 of 500 if both of a pair are right."""
    module.prep_data = lambda: ({f"0_{side}": {"GT": gold} for side in ("pos", "neg")}, {})
    if not text:
        return 0.0
    results = [
        module.vinoground_process_results({"major": "m", "minor": None, "index": f"{n}_{side}_text"}, [text])
        for n, side in ((0, "pos"), (0, "neg"))
    ]
    results = [each["vinoground_score"] for each in results]
    results += [{**results[0], "index": f"{n}_pos", "pred": "?"} for n in range(1, 500)]
    labels = {f"{n}_{side}": {"GT": gold} for n in range(500) for side in ("pos", "neg")}
    module.prep_data = lambda: (labels, {})
    return float(module.vinoground_aggregate_results(results)[0] > 0)


def motionbench(module, gold, texts, text):
    return module.motionbench_process_results({"answer": gold}, [text])["motionbench_acc"]["score"]


def longvideobench(module, gold, texts, text):
    doc = {f"option{n}": each for n, each in enumerate([*texts, *["N/A"] * (5 - len(texts))])}
    doc |= {"id": "1", "duration_group": 60, "question_category": "T2E", "correct_choice": "ABCDE".index(gold)}
    found = module.longvideobench_process_results(doc, [text])["lvb_acc"]
    return GUESS if found["parsed_pred"] == GUESS else float(found["parsed_pred"] == found["answer"])


def mlvu(module, gold, texts, text):
    doc = {"question": "?", "task_type": "count", "answer": gold}
    found = module.mlvu_process_results(doc, [text])["mlvu_percetion_score"]
    return float(found["pred_answer"] == found["answer"])


def lvbench(module, gold, texts, text):
    return float(module.lvbench_process_results({"answer": gold}, [text])["lvbench_score"])


def minerva(module, gold, texts, text):
    doc = {f"answer_choice_{n}": each for n, each in enumerate(texts)} | {"answer_id": "ABCDE".index(gold)}
    found = module.minerva_process_results(doc, [text])["minerva_acc"]
    return GUESS if found["pred_answer"] == GUESS else found["score"]


def videomathqa(module, gold, texts, text):
    doc = {"category": "Chart", "length": "short", "question_id": "1", "answer": gold}
    found = module.videomathqa_process_results(doc, [text])["videomathqa_perception_score"]
    return float(found["pred_answer"] == found["answer"])


CHOICES = {
    "tvbench": (tvbench, "ABCD"),
    "tomato": (tomato, "ABCDE"),
    "vinoground": (vinoground, "AB"),
    "motionbench": (motionbench, "ABCD"),
    "longvideobench": (longvideobench, "ABCDE"),
    "mlvu": (mlvu, "ABCD"),
    "mlvu-test": (mlvu, "ABCD"),
    "lvbench": (lvbench, "ABCD"),
    "minerva": (minerva, "ABCDE"),
    "videomathqa": (videomathqa, "ABCDE"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_scored_as_in_lmms_eval_form_by_form(module, stripped, name):
    """But for guesses, where what an answer names in one way counts, and nothing else."""
    theirs_of, letters = CHOICES[name]
    functions = module(name.partition("-")[0])
    texts = list(MORE_TEXTS[: len(letters)])
    read, guessed = 0, 0
    for gold in letters:
        question = asked(name, gold, letters)
        for answer in further_forms(letters, texts):
            for text in both_ways(answer):
                theirs = theirs_of(functions, gold, texts, stripped(text))
                found = score(question, text)
                if theirs == GUESS:
                    assert (found.score, found.names_one) == by_named_option(question, answer_of(text)), text
                    guessed += 1
                else:
                    assert found.score == theirs, (gold, text)
                    read += 1
    assert read > 100 and (guessed > 20) == (name in ("tomato", "longvideobench", "minerva"))


@pytest.mark.parametrize("name", ["tvbench", "tomato", "motionbench", "longvideobench", "minerva", "videomathqa"])
def test_any_text_is_scored_as_in_lmms_eval(module, name):
    theirs_of, letters = CHOICES[name]
    functions, question = module(name), asked(name, "B", letters)
    texts = list(MORE_TEXTS[: len(letters)])

    @given(
        st.lists(st.sampled_from(["B", "C", "(B)", "(A)", "b.", "answer is", "Option:", "so", " ", "He stood up."]))
    )
    def check(words):
        text = " ".join(words).strip()
        theirs = theirs_of(functions, "B", texts, text)
        found = by_rule(question, text)
        assert found == by_named_option(question, text) if theirs == GUESS else found.score == theirs

    check()


INTERVALS = (
    "3.5 - 9.25",
    "3.5–9.25",
    "[3.5, 9.25]",
    "3.5 to 9.25",
    "from 5s to 9s",
    "3.5s - 9.25s",
    "between 3 and 9 seconds",
    "The event happens in 4 - 8 seconds.",
    "A specific example is : 20.8 - 30.0 seconds. It is 5 - 9",
    "It starts at 5.0 and ends at 9.0.",
    "Starting time: 5.5 seconds\nEnding time: 8 seconds",
    "the start is 3\nthe end is 9",
    "0:04 - 0:11",
    "0:04 to 0:11",
    "00:00:04 - 00:00:11",
    "00:04.5 - 00:11.5",
    "1:5:30 - 1:6:00",
    "starts at 0:05 and ends at 0:09",
    "The man comes at 0:05",
    "9 - 4",
    "9 to 4",
    "12.0 - 14.0",
    "5 - 5",
    "at 5",
    "6",
    "1. 4 - 8\n2. 6 - 9",
    "Frames 1 - 3.\nIt happens in 5 - 9",
    "Answer 1: from 5 to 9 seconds",
    "no idea",
    "4 8",
    "start: 4, end: 8",
    '{"start": 4, "end": 8}',
    "?",
)


def charades(module, text):
    return module._temporal_grounding_compute_metrics([{"v>>>q>>>[4.0, 10.0]": text}])["mIOU"] / 100


def timelens(module, text):
    return module._timelens_compute_metrics([{"v>>>q>>>[[4.0, 10.0]]": text}])["mIOU"] / 100


GROUNDING = {
    "charades-sta": ("charades_sta", charades),
    "timelens-bench": ("timelens", timelens),
}


def when(name):
    return Question("1", "t", "When?", "free-form", "4.0 - 10.0", metric="overlap", benchmark=name)


@pytest.mark.parametrize("name", GROUNDING)
def test_intervals_are_scored_as_in_lmms_eval_form_by_form(module, stripped, name):
    task, theirs_of = GROUNDING[name]
    functions, values = module(task), []
    for answer in (*INTERVALS, *NUMBERS, *forms("ABC", TEXTS)):
        for text in both_ways(answer):
            theirs = theirs_of(functions, stripped(text))
            assert score(when(name), text).score == pytest.approx(theirs), text
            values.append(theirs)
    assert sum(value > 0 for value in values) > 20 and sum(value == 0 for value in values) > 20


@pytest.mark.parametrize("name", GROUNDING)
def test_any_text_of_times_is_scored_as_in_lmms_eval(module, name):
    task, theirs_of = GROUNDING[name]
    functions = module(task)

    @given(
        st.lists(st.sampled_from(["5", "9.5", "0:05", "0:09", "1:00:08", "-", "to", "s", " ", "\n", "ends", ".", ","]))
    )
    def check(parts):
        text = "".join(parts)
        assert by_rule(when(name), text.strip()).score == pytest.approx(theirs_of(functions, text.strip()))

    check()


def test_an_answer_says_whether_a_script_of_these_reads_anything():
    for name, (_, letters) in CHOICES.items():
        question = asked(name, "B", letters)
        assert score(question, answered("B")).names_one and not score(question, answered("?!")).names_one, name
    for name in GROUNDING:
        assert score(when(name), answered("9 - 4")).names_one and not score(when(name), answered("no")).names_one


def test_a_count_of_tvbench_is_no_place_among_its_options(module):
    """lmms-eval takes the answer "2" of these candidates for the third of them; here it is the text of the second."""
    doc = {"candidates": ["3", "2", "4"], "answer": "2"}
    assert module("tvbench").tvbench_doc_to_target(doc) == "C"
    assert letter_of(doc["answer"], doc["candidates"]) == "B"
