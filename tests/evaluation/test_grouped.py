"""Sets of questions that count where all are right, means of tasks, intervals found: by hand, and against lmms-eval's functions."""

import math
import sys
import types
from dataclasses import replace

import further_benchmark_files
import numpy as np
import pytest
from test_scoring import lmms

from videor1_trl.evaluation.benchmarks import load_benchmark
from videor1_trl.evaluation.estimates import mean
from videor1_trl.evaluation.grouped import all_right, averages, intervals_found, joined
from videor1_trl.evaluation.questions import Question
from videor1_trl.evaluation.run import check_controls, make_requests, sample_questions
from videor1_trl.evaluation.scoring import score
from videor1_trl.evaluation.summary import Answered, named_weights, summarise


def question(key, cluster, *, options=2, task="t", **changes):
    letters = tuple(f"{letter}. {letter.lower()}" for letter in "ABCDE"[:options])
    return Question(key, task, "?", "multiple choice", "A", letters, cluster=cluster, video=cluster, **changes)


def quadruples(count):
    """As TimeBlind's: instance i has the videos i/0 and i/1."""
    return [
        question(
            f"{i}/{place}",
            f"{i}/{place % 2}",
            together={"Q": f"{i}/q{place // 2}", "V": f"{i}/v{place % 2}", "I": str(i)},
        )
        for i in range(count)
        for place in range(4)
    ]


def answers(questions, texts):
    entry = {"text": "", "error": None, "finished": True, "num_tokens": 1, "num_prompt_tokens": 1}
    return {
        each.key: Answered({**entry, "key": f"ordered:{each.key}"}, score(each, f"<answer>{text}</answer>"))
        for each, text in zip(questions, texts, strict=True)
    }


def test_question_video_and_instance_accuracy_by_hand():
    """
    Of two instances: the first right but for q1v1: questions 1 of 2, videos 1 of 2, no instance; the second all right.
    Chance: two choices of two 1/4, four 1/16.
    """
    asked = quadruples(2)
    scores = dict.fromkeys([each.key for each in asked], 1.0) | {"0/3": 0.0}
    found = all_right(asked, scores)
    assert {name: each.share.value for name, each in found.items()} == {"Q": 0.75, "V": 0.75, "I": 0.5}
    assert {name: each.chance for name, each in found.items()} == {"Q": 0.25, "V": 0.25, "I": 0.0625}
    assert [found[name].share.questions for name in "QVI"] == [4, 4, 2]
    assert [found[name].sizes for name in "QVI"] == [(2,), (2,), (4,)]
    assert all(each.share.videos == 2 for each in found.values())  # an instance is one, whatever counts


def test_the_interval_knows_that_sets_of_an_instance_go_together():
    """Both questions of an instance are right or wrong at once: as many are worth half as many."""
    asked = quadruples(40)
    scores = {each.key: float(int(each.key.split("/")[0]) % 2) for each in asked}
    found = all_right(asked, scores)["Q"].share
    alone = mean([float(i % 2) for i in range(40)], [str(i) for i in range(40)])
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    naive = mean([float(i // 2 % 2) for i in range(80)], [str(i) for i in range(80)])
    assert found.high - found.low > 1.3 * (naive.high - naive.low)


def test_pairs_that_share_a_video_are_one_cluster():
    """The videos 1 and 2 make the first pair, 2 and 3 the second: nothing is independent, and there is no interval."""
    videos = {"a": ("1", "p"), "b": ("2", "p"), "c": ("2", "q"), "d": ("3", "q")}
    asked = [question(key, video, together={"P": pair}) for key, (video, pair) in videos.items()]
    share = all_right(asked, dict.fromkeys(videos, 1.0))["P"].share
    assert (share.value, share.questions, share.videos, share.low) == (1.0, 2, 1, None)


def test_a_set_that_was_not_asked_as_a_whole_is_left_out_and_counted():
    asked = quadruples(2)
    scores = dict.fromkeys([each.key for each in asked], 1.0)
    del scores["0/3"]
    found = all_right(asked, scores)
    assert [(found[name].share.questions, found[name].incomplete) for name in "QVI"] == [(3, 1), (3, 1), (1, 1)]
    assert all_right(asked, {}) == {}
    assert all_right([question("a", "v")], {"a": 1.0}) == {}


def test_sets_join_questions_and_their_videos():
    """a and b share a set, b and c a video, d is alone."""
    asked = [question("a", "1", together={"p": "1"}), question("b", "2", together={"p": "1"}), question("c", "2")]
    asked.append(question("d", "3", together={"p": "2"}))
    by_video, by_set = joined(asked, videos=True), joined(asked, videos=False)
    assert by_video[0] == by_video[1] == by_video[2] != by_video[3]
    assert by_set[0] == by_set[1] and len(set(by_set)) == 3
    assert joined([question("a", "1"), question("b", "1")], videos=True) == ["1", "1"]


def test_intervals_of_unequal_sets_are_those_of_clusters_drawn_anew():
    """60 clusters of 1 to 5 sets of 1 to 4 questions each: the sets of a cluster share its video and its difficulty."""
    rng = np.random.default_rng(7)
    asked, scores, by_cluster = [], {}, []
    for cluster in range(60):
        rate, right = rng.beta(2, 1), []
        for which in range(rng.integers(1, 6)):
            keys = [f"{cluster}/{which}/{place}" for place in range(rng.integers(1, 5))]
            asked += [question(key, f"v{cluster}", together={"set": f"{cluster}/{which}"}) for key in keys]
            scores |= {key: float(rng.random() < rate) for key in keys}
            right.append(all(scores[key] for key in keys))
        by_cluster.append(np.array(right, dtype=float))
    found = all_right(asked, scores)["set"].share
    drawn = [np.concatenate([by_cluster[i] for i in rng.integers(0, 60, 60)]).mean() for _ in range(4000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.value == np.concatenate(by_cluster).mean() and found.videos == 60
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_all_binary_rows_of_a_question_as_lmms_eval_counts_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", types.ModuleType("cv2"))
    module = lmms("tasks/videomathqa/utils.py")
    module.eval_logger = types.SimpleNamespace(info=lambda text: None)
    rows = {"1": "AAAA", "2": "AABA", "3": "A", "4": "B", "5": "AAA"}
    asked = [
        question(f"{key}/{n}", key, together={"MBin": key}) for key, texts in rows.items() for n in range(len(texts))
    ]
    texts = [text for each in rows.values() for text in each]
    theirs = module.videomathqa_multi_binary_aggregate_results(
        [
            {"question_id": each.cluster, "pred_answer": text, "answer": "A", "duration": "short", "category": "Chart"}
            for each, text in zip(asked, texts, strict=True)
        ]
    )
    found = all_right(asked, {each.key: float(text == "A") for each, text in zip(asked, texts, strict=True)})["MBin"]
    assert found.share.value == pytest.approx(theirs / 100) == pytest.approx(3 / 5)
    assert found.chance == pytest.approx((2 * 1 / 16 + 2 * 1 / 2 + 1 / 8) / 5) and found.sizes == (1, 3, 4)


def test_pooled_and_mean_of_tasks_stand_side_by_side():
    """Task a: 1 of 3 right, of two options; task b: 1 of 1, of four. Pooled 2/4, mean (1/3 + 1) / 2."""
    asked = [question(f"a{n}", f"a{n}", task="a") for n in range(3)] + [question("b", "b", task="b", options=4)]
    found = averages(asked, [1.0, 0.0, 0.0, 1.0])
    assert found["pooled"][0].value == 0.5 and found["mean of tasks"][0].value == pytest.approx(2 / 3)
    assert found["pooled"][1] == pytest.approx(1.75 / 4) and found["mean of tasks"][1] == pytest.approx(0.375)
    assert averages(asked[:3], [1.0, 0.0, 0.0]) == {}
    mlvu = [replace(each, benchmark="mlvu") for each in asked]
    assert sum(weight for _, weight in named_weights(mlvu)["official"]) == pytest.approx(1)
    summary = summarise(mlvu, {"ordered": answers(mlvu, "ABBA")})
    assert (
        summary["scores"]["official"]["value"] == summary["averages"]["mean of tasks"]["value"] == pytest.approx(2 / 3)
    )
    assert summary["scores"]["video_r1"]["value"] == 0.5
    assert summary["chance"]["official"] == pytest.approx(0.375)


def interval(key, gold="10.0 - 20.0"):
    return Question(key, "t", "When?", "free-form", gold, metric="overlap", cluster=key)


def test_recall_at_overlaps_by_hand():
    """Overlaps 1, 0.5 and 1/3 and nothing: a bound counts as reached."""
    asked = [interval(key) for key in "abcd"]
    found = answers(asked, ["10 - 20", "10 to 15", "15 - 25", "never"])
    summary = summarise(asked, {"ordered": found})
    shares = {name: each["value"] for name, each in summary["intervals"].items()}
    assert shares == {"R1@0.3": 0.75, "R1@0.5": 0.5, "R1@0.7": 0.25, "mIoU": pytest.approx((1 + 0.5 + 1 / 3) / 4)}
    assert summary["scores"]["official"]["value"] == pytest.approx(shares["mIoU"])
    assert summary["outputs"]["ordered"]["names_none"] == 0.25
    assert intervals_found([question("a", "v")], [1.0]) == {}


def test_overlaps_are_those_of_lmms_eval():
    module = lmms("tasks/timelens/utils.py")
    texts = ["3.5 - 9.25", "The event happens in 4 - 8 seconds", "0 to 5", "0:04 - 0:11", "12.0 - 14.0", "no idea"]
    asked = [interval(f"v{n}", "4.0 - 10.0") for n in range(len(texts))]
    theirs = module._timelens_compute_metrics(
        [{f"{each.key}>>>q>>>[[4.0, 10.0]]": text} for each, text in zip(asked, texts, strict=True)]
    )
    found = intervals_found(asked, [score(each, text).score for each, text in zip(asked, texts, strict=True)])
    assert 100 * found["mIoU"].value == pytest.approx(theirs["mIOU"])
    for bound in (3, 5, 7):
        assert 100 * found[f"R1@0.{bound}"].value == pytest.approx(theirs[f"IOU@{bound}"])


def test_a_question_of_several_types_counts_for_each():
    asked = [question("a", "a", groups={"type": ("x", "y")}), question("b", "b", groups={"type": "y"})]
    found = summarise(asked, {"ordered": answers(asked, "BA")})["groups"]["type"]
    assert {name: (each["questions"], each["value"]) for name, each in found.items()} == {"x": (1, 0.0), "y": (2, 0.5)}


def test_controls_have_their_sets_too():
    asked = quadruples(1)
    found = {"ordered": answers(asked, "AAAA"), "shuffled": answers(asked, "ABAB")}
    summary = summarise(asked, found)
    assert summary["together"]["I"]["value"] == 1.0 and summary["videos"] == 2
    left = summary["controls"]["shuffled"]["together"]
    assert {name: each["value"] for name, each in left.items()} == {"Q": 0.0, "V": 0.5, "I": 0.0}


def test_a_sample_is_of_whole_sets():
    asked = quadruples(10)
    ten, six = sample_questions(asked, 10), sample_questions(asked, 6)
    assert len(ten) == 8 and len(six) == 4 and all(each in ten for each in six)
    assert all(each.incomplete == 0 for each in all_right(ten, {q.key: 1.0 for q in ten}).values())
    assert sample_questions(asked, None) == asked == sample_questions(asked, 40)
    with pytest.raises(ValueError, match=r"limit \(3\) is less than a set of questions that count together"):
        sample_questions(asked, 3)
    with pytest.raises(ValueError, match=r"limit \(0\) must be at least 1"):
        sample_questions(asked, 0)


def test_controls_that_mean_nothing_are_refused_with_the_reason(tmp_path):
    folder = further_benchmark_files.make("aotbench", tmp_path)
    asked = load_benchmark("aotbench", source=folder, configs=["ReverseFilm", "AoTBench_QA"])
    message = r"control \('reversed'\) means nothing for 1 of the 2 questions of aotbench \(the first is ReverseFilm/0\): its"
    with pytest.raises(ValueError, match=message):
        check_controls(["reversed"], asked)
    with pytest.raises(ValueError, match=message):
        list(make_requests(asked, None, ["reversed"]))
    check_controls(["single-frame", "text-only"], asked)
    check_controls(["reversed", "shuffled"], asked[1:])


def test_chances_of_a_set_multiply():
    asked = [question("a", "a", options=4, together={"p": "1"}), question("b", "b", options=3, together={"p": "1"})]
    assert math.isclose(all_right(asked, {"a": 1.0, "b": 1.0})["p"].chance, 1 / 12)
