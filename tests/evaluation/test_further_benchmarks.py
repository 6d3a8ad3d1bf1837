"""The questions of the benchmarks of order, length, reasoning and grounding, read from small copies of their files."""

import json
import re

import further_benchmark_files as files
import pytest

from videor1_trl.evaluation.benchmarks import BENCHMARKS, load_benchmark
from videor1_trl.evaluation.benchmarks.options_in_text import split_options
from videor1_trl.evaluation.scoring import score


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`load(name, **options)`: the questions of a benchmark's small copy, by key, and the copy's folder."""
    made = {}

    def call(name, **options):
        if name not in made:
            made[name] = files.make(name, tmp_path_factory.mktemp("benchmarks") / name)
        options = {"configs": files.CONFIGS.get(name), "source": made[name], **options}
        return {question.key: question for question in load_benchmark(name, **options)}, made[name]

    return call


HUB = {
    "tvbench": "FunAILab/TVBench",
    "tomato": "yale-nlp/TOMATO",
    "aotbench": "sherryxzh/AoTBench",
    "dybench": "ddz16/DyBench",
    "timeblind": "BaiqiL/TimeBlind",
    "vinoground": "HanSolo9682/Vinoground",
    "motionbench": "zai-org/MotionBench",
    "longvideobench": "longvideobench/LongVideoBench",
    "mlvu": "MLVU/MVLU",
    "mlvu-test": "sy1998/MLVU_Test",
    "lvbench": "zai-org/LVBench",
    "videomathqa": "MBZUAI/VideoMathQA",
    "minerva": "lmms-lab-eval/minerva",
    "charades-sta": "lmms-eval/charades_sta",
    "timelens-bench": "kcz358/timelens",
}


def test_every_benchmark_names_its_hub_dataset_and_has_a_copy_here():
    assert {name: BENCHMARKS[name].hub_id for name in HUB} == HUB and set(files.MAKERS) == set(HUB)


@pytest.mark.parametrize("name", HUB)
def test_every_question_can_be_asked_and_its_gold_is_right(load, name):
    questions, folder = load(name)
    assert questions
    for question in questions.values():
        assert question.benchmark == name and question.prompt[0]["content"].startswith(question.problem)
        assert score(question, f"<answer>{question.gold}</answer>").score == 1.0
        assert score(question, "<answer>?!</answer>").names_one is False
        if name != "motionbench":  # whose script takes a C out of "cannot"
            assert score(question, "<answer>I cannot tell.</answer>").names_one is False
        path = question.video["path"] if isinstance(question.video, dict) else question.video
        assert path.startswith(str(folder)) and question.cluster


def test_tvbench_has_bounded_clips_and_videos_of_one_name(load):
    questions, folder = load("tvbench")
    clip, way = questions.values()
    assert clip.video == {"path": str(folder / "video/action_sequence/a.mp4"), "start": 0.5, "end": 1.5}
    assert (clip.gold, clip.options, way.gold, way.chance) == ("B", ("A. He sat.", "B. He stood."), "C", 1 / 3)
    assert way.video == str(folder / "video/moving_direction/a.mp4") and way.cluster != clip.cluster


def test_tomatos_keys_count_from_zero_and_go_up_to_six_options(load):
    questions, folder = load("tomato")
    assert (questions["count/0"].gold, questions["direction/0"].gold) == ("F", "A")
    assert questions["count/0"].video == str(folder / "videos/human/0001-1.mp4")
    assert questions["count/0"].groups == {"demonstration": "human", "motion": "rotation"}


def test_aotbenchs_options_come_out_of_the_text_and_clips_side_by_side_have_no_controls(load):
    questions, folder = load("aotbench")
    side, asked = questions["ReverseFilm/0"], questions["AoTBench_QA/7"]
    assert (side.problem, side.options) == ("Which half is played forward?", ("A. the first", "B. the second"))
    assert (asked.problem, asked.options[2], asked.gold) == ("What does he do?", "C. both", "C")
    assert set(side.unfit_controls) == {"shuffled", "reversed"} and not asked.unfit_controls
    assert side.video == str(folder / "videos/v1.mp4")


def test_dybenchs_pairs_go_together_and_unknown_columns_are_named(load, tmp_path):
    questions, folder = load("dybench")
    first, second = questions.values()
    assert first.together == second.together == {"P-Acc": "moving_direction/3"} and first.cluster != second.cluster
    assert (first.gold, second.gold, first.chance) == ("A", "B", 0.25)
    assert first.video == str(folder / "videos/moving_direction/a.mp4")
    path = files.make("dybench", tmp_path / "other") / "json" / "moving_direction.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**{k: v for k, v in row.items() if k != "pair_id"}, "twin": 3} for row in rows]))
    message = (
        r"moving_direction, row 0: it has no field 'pair_id' or 'pair' .*Its fields: question, candidates, .*twin\."
    )
    with pytest.raises(ValueError, match=message):
        load_benchmark("dybench", source=tmp_path / "other", configs=["moving_direction"])
    path.write_text(json.dumps([{**row, "video": "a.mp4"} for row in rows]))
    with pytest.raises(ValueError, match=r"dybench: the pair moving_direction/3 has one video, a\.mp4\."):
        load_benchmark("dybench", source=tmp_path / "other", configs=["moving_direction"])


def test_timeblinds_rows_are_quadruples_by_their_index_and_are_checked(load, tmp_path):
    questions, _ = load("timeblind")
    assert questions["5"].together == {"Q_Acc": "1/q0", "V_Acc": "1/v1", "I_Acc": "1"}
    assert (questions["0"].options, questions["0"].gold, questions["1"].gold) == (("A. Yes", "B. No"), "A", "B")
    assert (questions["2"].options, questions["2"].gold) == (("A. first", "B. last"), "B")
    path = files.make("timeblind", tmp_path / "other") / "data.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["question"] = "Another?"
    files.write(path, rows, lines=True)
    with pytest.raises(
        ValueError, match=r"rows of instance 0 that should share a question have \['Another\?', 'Does it"
    ):
        load_benchmark("timeblind", source=tmp_path / "other")


def test_a_set_that_lacks_a_question_is_refused_or_counts_no_more(tmp_path):
    path = files.make("timeblind", tmp_path) / "data.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    files.write(path, rows[:-1], lines=True)
    with pytest.raises(
        ValueError, match=r"timeblind: the set '1' of I_Acc holds 3 questions, not 4\. The files are not"
    ):
        load_benchmark("timeblind", source=tmp_path)
    files.write(path, [*rows[:-1], {**rows[-1], "type": "open"}], lines=True)
    with pytest.raises(ValueError, match="row 7: the type 'open' is neither 'yes_no' nor 'multiple_choice'"):
        load_benchmark("timeblind", source=tmp_path)
    dropped = []
    questions = load_benchmark("timeblind", source=tmp_path, on_bad_record="drop", dropped=dropped)
    assert len(questions) == 7 and len(dropped) == 1
    assert questions[0].together["I_Acc"] == "0" and questions[4].together == {"Q_Acc": "1/q0", "V_Acc": "1/v0"}
    assert questions[5].together == {"Q_Acc": "1/q0"} and questions[6].together == {"V_Acc": "1/v0"}


def test_vinogrounds_text_and_video_questions_count_alone_and_together(load):
    questions, folder = load("vinoground")
    assert questions["text/0_pos"].together == {"text score": "0", "group score": "0"}
    assert questions["video/1_neg"].together == {"video score": "1", "group score": "1"}
    assert questions["text/0_pos"].problem == "Which caption is it?" and len(questions) == 8
    assert questions["text/0_pos"].video == str(folder / "vinoground_videos/0_pos.mp4")
    assert set(questions["video/0_pos"].unfit_controls) == {"shuffled", "reversed"}
    assert not questions["text/0_pos"].unfit_controls
    alone, _ = load("vinoground", configs=["text"])
    assert alone["text/0_pos"].together == {"text score": "0"}  # no group of four without the other part


def test_motionbench_asks_what_has_a_key_and_a_choice(load):
    questions, folder = load("motionbench")
    assert list(questions) == ["u1"]
    found = questions["u1"]
    assert (found.problem, found.options, found.gold) == ("Where does it turn?", ("A. left", "B. right", "C. up"), "C")
    assert (found.task, found.video) == ("Camera Motion", str(folder / "public-dataset/k1.mp4"))


def test_longvideobenchs_empty_options_are_none(load):
    (question,) = load("longvideobench")[0].values()
    assert (question.options, question.gold) == (("A. a door", "B. a car", "C. a dog"), "C")
    assert (question.task, question.groups) == ("T2E", {"duration group": "600"})
    row = {f"option{place}": text for place, text in enumerate(("a", "N/A", "c", "N/A", "N/A"))}
    with pytest.raises(ValueError, match=r"an option that is 'N/A' stands before others: \['a', 'N/A'\]"):
        BENCHMARKS["longvideobench"].question({**row, "correct_choice": 1}, "default", 0, files.Path())


def test_mlvu_reads_texts_in_the_dev_set_and_six_letters_in_the_test_set(load):
    questions, folder = load("mlvu")
    assert list(questions) == ["4_count/0", "4_count/1", "5_order/0"] and questions["4_count/0"].gold == "B"
    assert questions["4_count/0"].video == str(folder / "MLVU/video/4_count/a.mp4")
    assert {question.task for question in questions.values()} == {"count", "order"}
    last, first = load("mlvu-test")[0].values()
    assert (last.gold, last.options[5], last.problem, first.gold) == ("F", "F. f", "Which one?", "A")
    assert score(last, "<answer>(F) f</answer>").score == 1.0


def test_lvbenchs_questions_are_of_several_types(load):
    questions, folder = load("lvbench")
    (question,) = questions.values()
    assert (question.problem, question.gold, question.task) == ("Who?", "D", "cartoon")
    assert question.groups == {"question type": ("entity recognition", "reasoning")}
    assert question.video == str(folder / "Cm73ma6Ibcs.mkv")


def test_videomathqas_two_settings_are_not_pooled(load):
    (five,) = load("videomathqa")[0].values()
    assert (five.gold, five.chance, five.together) == ("E", 0.2, {})
    binary, folder = load("videomathqa", configs=["multi_binary"])
    assert len(binary) == 4 and {each.together["MBin"] for each in binary.values()} == {"9"}
    assert {each.video for each in binary.values()} == {str(folder / "videos/v.MP4")}
    with pytest.raises(ValueError, match="mcq, multi_binary of videomathqa ask the same in other forms"):
        load("videomathqa", configs=["mcq", "multi_binary"])


def test_minerva_has_its_options_in_columns(load):
    questions, folder = load("minerva")
    question = questions["k:0"]
    assert (question.options[4], question.gold, question.task) == ("E. e", "E", "Causal")
    assert (question.groups, question.video) == ({"split": "short", "category": "film"}, str(folder / "y1.webm"))


def test_grounding_asks_when_and_keeps_questions_of_one_sentence_apart(load):
    questions, folder = load("charades-sta")
    assert len(questions) == 2 and questions["0"].gold == "24.3 - 30.4"
    assert questions["0"].problem.startswith("When in the video does this happen: person turns a light on.\n")
    assert questions["0"].video == str(folder / "Charades_v1_480/3MSZA.mp4")
    ours = load("timelens-bench")[0]
    assert [question.gold for question in ours.values()] == ["5.0 - 9.0", "1.0 - 2.5"]
    ask = BENCHMARKS["charades-sta"].question
    row = {"video_file": "a.mp4", "query": "he sits", "duration": 31.0, "relevant_windows": [[20, 40]]}
    assert ask(row, "default", 0, folder).gold == "20.0 - 31.0"  # an end beyond the video
    with pytest.raises(
        ValueError, match=re.escape("the span [[20, 40]] holds no interval of seconds within 15.0 seconds")
    ):
        ask({**row, "duration": 15.0}, "default", 0, folder)


def test_an_interval_is_worth_its_overlap(load):
    """5 to 9 against 7 to 13: 2 seconds of 8."""
    question = next(iter(load("timelens-bench")[0].values()))
    for answer, worth in (
        ("7 - 13", 0.25),
        ("from 5 to 9 seconds", 1.0),
        ("0:05 - 0:09", 1.0),
        ("at 5", 0.0),
        ("9 - 12", 0.0),
    ):
        found = score(question, f"<answer>{answer}</answer>")
        assert (found.score, found.released, found.names_one) == (worth, worth, answer != "at 5"), answer


def test_options_in_a_text_are_read_in_their_forms_or_refused():
    assert split_options("A ball?\nA. A cat.\nB. B flat\nC. c") == ("A ball?", ["A cat.", "B flat", "c"])
    assert split_options("Who?\n(A) he,\nthe man\n(B) she\n\nOnly give the letter.") == (
        "Who?",
        ["he, the man", "she"],
    )
    assert split_options("Is plan A. good? A) yes B) no") == ("Is plan A. good?", ["yes", "no"])
    for text in ("Which way?", "Which?\nA. left", "Which?\nB. left\nC. right"):
        with pytest.raises(ValueError, match="the question holds no options such as"):
            split_options(text)
