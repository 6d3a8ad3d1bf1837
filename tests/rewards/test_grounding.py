"""Rewards of time, space and order, by hand; and how intervals are read."""

import json
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl import accuracy_reward, get_accuracy_reward, load_video_r1
from videor1_trl.rewards.grounding import (
    box_iou_reward,
    get_temporal_iou_reward,
    permutation_reward,
    temporal_iou_reward,
)
from videor1_trl.text.intervals import boundary_iou, merged, read_intervals, temporal_iou


READ = {
    "12.5 - 20.1": [(12.5, 20.1)],
    "12.5-20.1": [(12.5, 20.1)],
    "from 12.5s to 20.1s": [(12.5, 20.1)],
    "between 3 and 7 seconds": [(3.0, 7.0)],
    "12.5 seconds until 20 seconds": [(12.5, 20.0)],
    "0:12 – 1:05": [(12.0, 65.0)],
    "00:00:12.5 to 00:01:05": [(12.5, 65.0)],
    "1:00:00 - 1:00:10": [(3600.0, 3610.0)],
    "[3, 7]": [(3.0, 7.0)],
    "[[1, 2], [5, 7.5]]": [(1.0, 2.0), (5.0, 7.5)],
    "(1, 2), (5, 7)": [(1.0, 2.0), (5.0, 7.0)],
    "1 - 2; 5 - 7": [(1.0, 2.0), (5.0, 7.0)],
    "<think>1 - 2?</think><answer>3 - 4</answer>": [(3.0, 4.0)],
    "9 to 4": [],
    "at 5": [],
    "": [],
    "A - B": [],
    "4-4": [(4.0, 4.0)],
    '{"start": 12.5, "end": 20.1}': [(12.5, 20.1)],
    '[{"start": "0:05", "end": "0:07"}, {"start_time": 9, "end_time": 11}]': [(5.0, 7.0), (9.0, 11.0)],
    "It starts at 3 s and ends at 7.5 seconds.": [(3.0, 7.5)],
    "start = 3, end = 7": [(3.0, 7.0)],
    "1m05s - 1m20s": [(65.0, 80.0)],
    "1 min 5 s to 2 minutes 10 seconds": [(65.0, 130.0)],
    "00:00:01,500 --> 00:00:04,250": [(1.5, 4.25)],
    "frames 3a - 7b": [],
}


@pytest.mark.parametrize("text, intervals", READ.items(), ids=READ)
def test_intervals_are_read_in_several_notations(text, intervals):
    assert read_intervals(text) == intervals


@given(st.text(max_size=200))
def test_any_text_can_be_read(text):
    assert all(start <= end for start, end in read_intervals(text))


def test_unions_count_time_once():
    assert merged([(4, 6), (0, 2), (1, 3), (6, 7)]) == [(0, 3), (4, 7)]
    assert temporal_iou([(0, 3), (2, 4)], [(0, 2), (6, 8)]) == 2 / 6  # 4 s against 4 s, of which 2 are common
    assert temporal_iou([(5, 5)], [(5, 5)]) == 0.0


def test_boundary_factors_by_hand():
    assert boundary_iou((0, 4), (2, 6), 10) == pytest.approx(1 / 3 * 0.8 * 0.8)
    assert boundary_iou((2, 6), (2, 6), 10) == 1.0
    assert boundary_iou((0, 20), (0, 2), 10) == 0.0  # off by more than the video


def test_temporal_iou_of_completions():
    texts = ["<answer>2 - 6</answer>", "<answer>never</answer>", "no tag 0 - 4", "<answer>0 - 4</answer>", ""]
    gold = ["<answer>0 - 4</answer>"] * 5
    assert temporal_iou_reward(texts, gold) == pytest.approx([1 / 3, 0.0, 0.0, 1.0, 0.0])
    assert temporal_iou_reward(texts[:2], [None, "B"]) == [None, None]
    strict = get_temporal_iou_reward(boundaries=True)
    assert strict(texts[:1], gold[:1], duration=[10.0]) == pytest.approx([1 / 3 * 0.8 * 0.8])
    assert strict(texts[:1], gold[:1], duration=[None]) == [None]
    several = strict(["<answer>0 - 2, 6 - 8</answer>"], ["0 - 2, 4 - 8"], duration=[10.0])
    assert several == pytest.approx([4 / 6])  # first start and last end are right
    with pytest.raises(ValueError, match="needs the column 'duration'"):
        strict(texts[:1], gold[:1])
    assert pickle.loads(pickle.dumps(strict)) == strict


def test_orders():
    texts = ["<answer>2, 1, 3, 4, 5</answer>", "<answer>12345</answer>", "<answer>1 2 3 4 4</answer>", "1 2 3 4 5", ""]
    assert permutation_reward(texts, ["1 2 3 4 5"] * 5) == pytest.approx([0.2 * 3 / 5, 1.0, 0.0, 0.0, 0.0])
    assert permutation_reward(["<answer>(B), (A), (C)</answer>"], ["<answer>BAC</answer>"]) == [1.0]
    assert permutation_reward(["<answer>2 1 3</answer>"], ["1 2 3"]) == [0.0]  # K <= 4: all or nothing
    assert permutation_reward(["<answer>1</answer>"] * 3, [None, "1", "1 1"]) == [None, None, None]


def test_boxes():
    texts = ["<answer>(1, 0), (3, 2)</answer>", "<answer>3 2 1 0</answer>", "[1, 0, 3, 2]", "<answer>1, 0</answer>"]
    assert box_iou_reward(texts, ["[0, 0, 2, 2]"] * 4) == pytest.approx([1 / 3, 0.0, 0.0, 0.0])
    assert box_iou_reward(texts[:1], ["B"]) == [None]
    named = ['<answer>{"bbox_2d": [1, 0, 3, 2]}</answer>', "<answer>x1=1, y1=0, x2=3, y2=2</answer>"]
    assert box_iou_reward(named, ["[1, 0, 3, 2]"] * 2) == [1.0, 1.0]
    two = ["<answer>[1, 0, 3, 2], [0, 0, 9, 9]</answer>", "<answer>[1, 0, 1, 2]</answer>"]  # two boxes, and none
    assert box_iou_reward(two, ["[1, 0, 3, 2]"] * 2) == [0.0, 0.0]


@pytest.mark.parametrize("gold", ["[100, 50, 20, 30]", "1, 2, 3", "[0, 0, 2, 2], [4, 4, 5, 5]"])
def test_a_solution_that_may_mean_several_boxes_is_refused(gold):
    with pytest.raises(
        ValueError, match=re.escape(f"cannot tell what box the solution {gold!r} means: it must be x1")
    ):
        box_iou_reward(["<answer>1 2 3 4</answer>"], [gold])


def test_accuracy_scores_times_orders_and_boxes_by_their_problem_type():
    texts = ["<answer>2 - 6</answer>", "<answer>2, 1</answer>", "<answer>0, 0, 2, 2</answer>", "<answer>?</answer>"]
    kinds = ["temporal grounding", "permutation", "bounding box", "temporal grounding"]
    golds = ["<answer>0 - 4</answer>", "<answer>2 1</answer>", "<answer>1, 0, 3, 2</answer>", "<answer>1 - 2</answer>"]
    for reward in (accuracy_reward, get_accuracy_reward(strict=True)):
        assert reward(texts, golds, kinds) == pytest.approx([1 / 3, 1.0, 1 / 3, 0.0])
    assert accuracy_reward(["<answer>1</answer>"] * 3, ["<answer>soon</answer>"] * 3, kinds[:3]) == [None] * 3


@pytest.mark.parametrize(
    "kind, solution, wanted",
    [
        ("temporal grounding", "soon", "one or more intervals"),
        ("permutation", "1, 1", "an order of two or more parts"),
        ("bounding box", "[10, 20, 5, 5]", "one box x1, y1, x2, y2"),
    ],
)
def test_records_whose_time_order_or_box_cannot_be_read_are_named(tmp_path, kind, solution, wanted):
    record = {
        "problem": "When?",
        "data_type": "text",
        "problem_type": kind,
        "solution": f"<answer>{solution}</answer>",
    }
    (tmp_path / "r.json").write_text(json.dumps([record]))
    with pytest.raises(ValueError, match=f"record 0, field 'solution': .* must be {wanted}"):
        load_video_r1(tmp_path / "r.json")
    good = {"temporal grounding": "1:05 - 1:20", "permutation": "2, 1", "bounding box": "1, 2, 3, 4"}[kind]
    (tmp_path / "r.json").write_text(json.dumps([{**record, "solution": f"<answer>{good}</answer>"}]))
    [row] = load_video_r1(tmp_path / "r.json").to_list()
    assert "The answer is" in row["prompt"][0]["content"]
