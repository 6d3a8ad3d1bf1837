"""Rewards of time, space and order, by hand; and how intervals are read."""

import json
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videor1_trl import accuracy_reward, get_accuracy_reward, load_video_r1
from videor1_trl.objectives.mirrored_interval import get_mirrored_interval_reward
from videor1_trl.rewards.grounding import (
    box_iou_reward,
    get_temporal_iou_reward,
    permutation_reward,
    temporal_iou_reward,
)
from videor1_trl.rewards.length import length_reward
from videor1_trl.text.intervals import boundary_iou, merged, read_intervals, temporal_iou
from videor1_trl.text.places import read_box


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
    "1,5 - 20,1": [(1.5, 20.1)],
    "1,2 - 5,7 s.": [(1.2, 5.7)],
    "[1,2] - [5,7]": [(1.0, 2.0), (5.0, 7.0)],
    "-3 - 7": [],
    "(-3, 7)": [],
    "- 3 - 7": [(3.0, 7.0)],  # an item of a list
    "2 to 3 minutes": [(120.0, 180.0)],  # a unit behind the second holds for the first
    "2 - 3 min": [(120.0, 180.0)],
    "1 - 2 hours": [(3600.0, 7200.0)],
    "500 - 1500 ms": [(0.5, 1.5)],
    "3 - 12.5min": [(180.0, 750.0)],
    "2 - 3, 5 - 7 minutes": [(120.0, 180.0), (300.0, 420.0)],
    "[2, 3], [5, 7] min": [(120.0, 180.0), (300.0, 420.0)],
    "minutes 2 - 3": [(120.0, 180.0)],
    "30 s - 2 min": [(30.0, 120.0)],
    "1:05 min - 1:20 min": [(65.0, 80.0)],
    "1h2m3s - 1 h 2 min 10 s": [(3723.0, 3730.0)],
    "1 min - 75": [],  # of what?
    "5 to 10 frames": [],
    "frames 5 - 10": [],
    "10% - 20%": [],
    "3 - 7 percent": [],
    "3 - 12.5x": [],  # never 12
    "3½ - 7": [],
    "1/2 - 3": [],
    "1,5 - 20,1; 30,5 - 40,2": [(1.5, 20.1), (30.5, 40.2)],
    "1,5-20,1, 30,5-40,2": [(1.5, 20.1), (30.5, 40.2)],
    "from 1,5 to 20,1": [(1.5, 20.1)],
    "12,5 seconds to 20,1 seconds": [(12.5, 20.1)],
    "1,000 - 1,005": [],  # a thousand, or one?
    "1,000.5 - 1,010.5": [(1000.5, 1010.5)],
    "0,500 - 0,750": [(0.5, 0.75)],
    "1-2,3-4": [(1.0, 2.0), (3.0, 4.0)],
    "[100,200]": [(100.0, 200.0)],
    **dict.fromkeys(
        [f"12.5{space}{dash}{space}20.1" for dash in "‐‑‒–—―−－～〜→⇒" for space in ("", " ")], [(12.5, 20.1)]
    ),
    "12.5 -- 20.1": [(12.5, 20.1)],
    "12.5 => 20.1": [(12.5, 20.1)],
    "１２.５ － ２０.１": [(12.5, 20.1)],
    "from second 12.5 to second 20.1": [(12.5, 20.1)],
    "t=12.5 to t=20.1": [(12.5, 20.1)],
    "12.5 sec. to 20.1 sec.": [(12.5, 20.1)],
    '["12.5", "20.1"]': [(12.5, 20.1)],
    "~12.5 - ~20.1": [(12.5, 20.1)],
    "30 seconds, 12.5 - 20.1": [(12.5, 20.1)],
    "clip 3, 12.5 - 20.1": [(12.5, 20.1)],
    "scene 3, 5 - 9": [(5.0, 9.0)],
    "3 and 5 - 9": [(5.0, 9.0)],
    "30, 12.5, 20.1": [(12.5, 20.1)],  # the first two run backwards
    "2024-05-06": [],
}


@pytest.mark.parametrize("text, intervals", READ.items(), ids=READ)
def test_intervals_are_read_in_several_notations(text, intervals):
    assert read_intervals(text) == intervals


@given(st.text(max_size=200))
def test_any_text_can_be_read(text):
    assert all(start <= end for start, end in read_intervals(text))


WHOLE = st.tuples(st.integers(0, 30), st.integers(1, 9)).map(lambda pair: (pair[0], pair[0] + pair[1]))
UNION = st.lists(WHOLE, min_size=1, max_size=4)
SAID = [
    lambda start, end: f"{start} - {end}",
    lambda start, end: f"from {start}s to {end}s",
    lambda start, end: f"0:{start:02d} --> 0:{end:02d}",
    lambda start, end: f"[{start}.0, {end}.00]",
]


def seconds_of(union):
    return {second for start, end in union for second in range(start, end)}


@settings(max_examples=25)
@given(UNION, UNION, st.sampled_from(SAID))
def test_overlaps_are_those_of_whole_seconds_in_whatever_notation(found, gold, say):
    """Against sets of seconds, from the text on; the same both ways; with the factors of the borders never more."""
    texts = ["; ".join(say(*each) for each in union) for union in (found, gold)]
    assert [read_intervals(text) for text in texts] == [found, gold]
    expected = len(seconds_of(found) & seconds_of(gold)) / len(seconds_of(found) | seconds_of(gold))
    [value] = temporal_iou_reward([f"<answer>{texts[0]}</answer>"], [texts[1]])
    assert value == pytest.approx(expected, abs=1e-9) == temporal_iou(gold, found)
    [with_borders] = get_temporal_iou_reward(boundaries=True)([f"<answer>{texts[0]}</answer>"], [texts[1]], [40])
    assert 0 <= with_borders <= value + 1e-9
    assert temporal_iou(found, found) == 1.0


CORNERS = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=25)
@given(CORNERS, CORNERS)
def test_boxes_overlap_as_their_cells_do(one, other):
    boxes = [(x, y, x + width, y + height) for x, y, width, height in (one, other)]
    cells = [{(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in boxes]
    [value] = box_iou_reward([f"<answer>{list(boxes[0])}</answer>"], [str(boxes[1])])
    assert value == pytest.approx(len(cells[0] & cells[1]) / len(cells[0] | cells[1]), abs=1e-9)


@settings(max_examples=25)
@given(st.permutations("123456"), st.permutations("123456"), st.sampled_from([", ", " ", " > ", ", then clip "]))
def test_orders_score_by_their_places(found, gold, between):
    hits = sum(a == b for a, b in zip(found, gold, strict=True))
    expected = 1.0 if hits == 6 else hits / 6 / 5
    assert permutation_reward([f"<answer>{between.join(found)}</answer>"], ["".join(gold)]) == [
        pytest.approx(expected)
    ]


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="0123456789.,:-–[]()<> eEsm٣²", max_size=60),
    st.sampled_from(["9" * 400, "0 - " + "9" * 400, "0 0 " + "9" * 400 + " " + "9" * 400, "1 " * 3000]),
)


@settings(max_examples=25)
@given(HOSTILE)
def test_whatever_is_answered_is_worth_between_0_and_1(text):
    said = [f"<answer>{text}</answer>", text]
    strict = get_temporal_iou_reward(boundaries=True)
    for values in (
        temporal_iou_reward(said, ["1 - 4"] * 2), strict(said, ["1 - 4"] * 2, [9.0] * 2),
        permutation_reward(said, ["3 1 2"] * 2), box_iou_reward(said, ["0 0 2 2"] * 2),
    ):  # fmt: skip
        assert len(values) == 2 and all(0.0 <= value <= 1.0 for value in values)


@settings(max_examples=25)
@given(HOSTILE)
def test_any_solution_is_one_or_none_or_refused(text):
    right = [f"<answer>{text}</answer>"]
    for reward in (temporal_iou_reward, permutation_reward):
        [value] = reward(right, right)
        assert value in (None, 1.0) or text.count("9") > 300, "what a solution says is right, where anything can be"
    assert box_iou_reward(right, right)[0] in (None, 1.0) or text.count("9") > 150


def test_a_solution_without_a_stretch_of_time_scores_nothing():
    assert temporal_iou_reward(["<answer>4 - 4</answer>"], ["4 - 4"]) == [None]
    assert accuracy_reward(["<answer>4 - 4</answer>"], ["<answer>4 - 4</answer>"], ["temporal grounding"]) == [None]


@pytest.mark.parametrize("duration", [-5.0, "10", True, float("inf")])
def test_a_duration_that_is_no_number_of_seconds_is_named(duration):
    message = re.escape(f"duration ({duration!r}) must be the video's length in seconds")
    with pytest.raises(ValueError, match=message):
        get_temporal_iou_reward(boundaries=True)(["<answer>1 - 3</answer>"], ["0 - 4"], duration=[duration])
    mirrored = get_mirrored_interval_reward()
    group = {"solution": "0 - 4", "contrast_completions": ["<answer>1 - 3</answer>"]}
    with pytest.raises(ValueError, match=message):
        mirrored([1.0], [0.0], duration=duration, **group)
    for unknown in (None, float("nan"), 0):
        assert mirrored([1.0], [0.0], duration=unknown, **group) == [None]


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
    words = [
        "<answer>clip 2, then clip 1, then clip 3</answer>",
        "<answer>2nd, 1st, 3rd</answer>",
        "<answer>٢، ١، ٣</answer>",
    ]
    assert permutation_reward(words, ["2 1 3"] * 3) == [1.0] * 3
    assert permutation_reward(["<answer>1</answer>"] * 3, [None, "1", "1 1"]) == [None, None, None]


@pytest.mark.parametrize(
    "gold", ["left", "The clips", "cut the bread", "cut, then wash", "2, 3", "10, 2, 3", "A, C", "a, the"]
)
def test_words_and_parts_that_are_missing_are_no_order(gold, tmp_path):
    """A word was taken apart into letters: "left" was an order of four."""
    assert permutation_reward([f"<answer>{gold}</answer>"], [gold]) == [None]
    record = {
        "problem": "?",
        "data_type": "text",
        "problem_type": "permutation",
        "solution": f"<answer>{gold}</answer>",
    }
    (tmp_path / "r.json").write_text(json.dumps([record]))
    with pytest.raises(ValueError, match="field 'solution': .* must be an order of two or more parts"):
        load_video_r1(tmp_path / "r.json")


def test_letters_are_read_alone_or_as_one_run():
    said = [
        "B, then A, then C",
        "\\boxed{BAC}",
        "Answer: b, a, c",
        "The order is BAC.",
        "1. B 2. A 3. C",
        "I think B, A, C",
        "**BAC**",
    ]
    wrong = ["B, A", "B, A, C, D", "ABC", "left", "2, 1, 3", ""]
    answers = [f"<answer>{text}</answer>" for text in said + wrong]
    assert permutation_reward(answers, ["BAC"] * len(answers)) == [1.0] * len(said) + [0.0] * len(wrong)
    assert permutation_reward(["<answer>2, 0, 1</answer>"], ["201"]) == [1.0]  # parts may be counted from 0


def test_boxes():
    texts = ["<answer>(1, 0), (3, 2)</answer>", "<answer>3 2 1 0</answer>", "[1, 0, 3, 2]", "<answer>1, 0</answer>"]
    assert box_iou_reward(texts, ["[0, 0, 2, 2]"] * 4) == pytest.approx([1 / 3, 0.0, 0.0, 0.0])
    assert box_iou_reward(texts[:1], ["B"]) == [None]
    named = ['<answer>{"bbox_2d": [1, 0, 3, 2]}</answer>', "<answer>x1=1, y1=0, x2=3, y2=2</answer>"]
    assert box_iou_reward(named, ["[1, 0, 3, 2]"] * 2) == [1.0, 1.0]
    two = ["<answer>[1, 0, 3, 2], [0, 0, 9, 9]</answer>", "<answer>[1, 0, 1, 2]</answer>"]  # two boxes, and none
    assert box_iou_reward(two, ["[1, 0, 3, 2]"] * 2) == [0.0, 0.0]


BOXES = {
    "[10.5px, 20.5px, 110.5px, 220.5px]": (10.5, 20.5, 110.5, 220.5),  # was (10, 20, 110, 220)
    "10px 20px 110px 220px": (10, 20, 110, 220),
    "10, 20, 110, 220 px": (10, 20, 110, 220),
    "10%, 20%, 30%, 40%": (10, 20, 30, 40),
    '{"xmin": 1, "xmax": 3, "ymin": 2, "ymax": 4}': (1, 2, 3, 4),  # by their names
    "top left (10, 20), bottom right (110, 220)": (10, 20, 110, 220),
    "10-20-110-220": (10, 20, 110, 220),
    '{"x":10,"y":20,"width":110,"height":220}': None,
    "x=10 y=20 w=110 h=220": None,
    "xywh: 10, 20, 110, 220": None,
    "cx=50, cy=60, w=70, h=80": None,
    "center (50, 60), 70, 80": None,
    "ymin=1, xmin=2, 3, 4": None,
    "10.5em, 20, 110, 220": None,
    "10%, 20, 30%, 40": None,
    "[10, 20, 110, 220, 3em]": None,
    "1.2.3, 2, 3, 4, 5": None,
}


@pytest.mark.parametrize("text, box", BOXES.items(), ids=BOXES)
def test_boxes_are_read_whole_or_not_at_all(text, box):
    assert read_box(text) == box
    if box is None:
        for reward in (box_iou_reward, accuracy_reward):
            assert reward([f"<answer>{text}</answer>"], [text], problem_type=["bounding box"]) == [None]


@pytest.mark.parametrize("gold", ["[100, 50, 20, 30]", "1, 2, 3", "[0, 0, 2, 2], [4, 4, 5, 5]"])
def test_a_solution_that_may_mean_several_boxes_has_no_verdict_and_is_no_record(gold, tmp_path):
    columns = {"solution": [f"<answer>{gold}</answer>"], "problem_type": ["bounding box"]}
    for reward in (box_iou_reward, accuracy_reward):
        assert reward(["<answer>1 2 3 4</answer>"], **columns) == [None]
    record = {"problem": "?", "data_type": "text", **{name: value for name, [value] in columns.items()}}
    (tmp_path / "r.json").write_text(json.dumps([record]))
    with pytest.raises(ValueError, match="field 'solution': .* must be one box x1, y1, x2, y2"):
        load_video_r1(tmp_path / "r.json")


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
        ("temporal grounding", "4 - 4", "one or more intervals"),
        ("permutation", "1, 1", "an order of two or more parts"),
        ("temporal grounding", "1,000 - 1,005", "one or more intervals"),
        ("temporal grounding", "5 to 10 frames", "one or more intervals"),
        ("bounding box", "[10, 20, 5, 5]", "one box x1, y1, x2, y2"),
        ("bounding box", '{"x": 10, "y": 20, "width": 110, "height": 220}', "one box x1, y1, x2, y2"),
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


OWN = {
    "temporal grounding": (temporal_iou_reward, "2 - 4"),
    "permutation": (permutation_reward, "2, 3, 1"),
    "bounding box": (box_iou_reward, "1, 2, 3, 4"),
}


@pytest.mark.parametrize("own", OWN)
def test_rewards_of_one_problem_type_have_no_verdict_on_others(own):
    reward, right = OWN[own]
    kinds = [*OWN, "free-form", "numerical", "multiple choice", None]
    golds = [gold for _, gold in OWN.values()] + ["left", "5", "B", right]
    said = [f"<answer>{gold}</answer>" for gold in golds]
    expected = [1.0 if kind in (own, None) else None for kind in kinds]
    assert reward(said, said, problem_type=kinds) == expected
    assert reward(said[-1:], said[-1:]) == [1.0]  # where no type is given, all rows are its own


def test_a_solution_beyond_the_end_is_cut():
    """As TaRO's iou_timestamp_reward_v2 does: 8 of 8 s are found, not 8 of 10, and the end is right."""
    reward = get_temporal_iou_reward(boundaries=True)
    assert reward(["<answer>0 - 8</answer>"], ["0 - 10"], duration=[8.0]) == [1.0]
    assert reward(["<answer>0 - 8</answer>"], ["9 - 10"], duration=[8.0]) == [None]


def test_solutions_may_be_lists_as_for_accuracy():
    assert permutation_reward(["<answer>2, 1</answer>"] * 2, [[2, 1], 21]) == [1.0, 1.0]
    assert box_iou_reward(["<answer>1 0 3 2</answer>"], [[1, 0, 3, 2]]) == [1.0]
    assert temporal_iou_reward(["<answer>1 - 3</answer>"], [(1, 3)]) == [1.0]


@pytest.mark.parametrize(
    "reward",
    [temporal_iou_reward, permutation_reward, box_iou_reward, accuracy_reward],
    ids=lambda each: each.__name__,
)
def test_missing_columns_and_columns_of_another_length_are_named(reward):
    columns = {"solution": ["2, 1"] * 2, "problem_type": ["permutation"] * 2}
    with pytest.raises(ValueError, match=f"{reward.__name__} was called without the column 'solution'.* Add it to"):
        reward(["<answer>2, 1</answer>"] * 2)
    for name in columns:
        short = {**columns, name: columns[name][:1]}
        with pytest.raises(ValueError, match=f"the column {name!r} has 1 values for 2 completions"):
            reward(["<answer>2, 1</answer>"] * 2, **short)
    with pytest.raises(ValueError, match="the column 'solution' is '2, 1', no list"):
        reward(["<answer>2, 1</answer>"] * 4, **{**columns, "solution": "2, 1"})


def test_a_column_of_durations_of_another_length_and_missing_tokens_are_named():
    with pytest.raises(ValueError, match="the column 'duration' has 2 values for 1 completions"):
        get_temporal_iou_reward(boundaries=True)(["<answer>1 - 2</answer>"], ["1 - 2"], duration=[8.0, 8.0])
    with pytest.raises(ValueError, match="length_reward was called without the column 'completion_ids'"):
        length_reward(["<answer>B</answer>"], solution=["B"], problem_type=["multiple choice"])
    with pytest.raises(ValueError, match="the column 'completion_ids' has 2 values for 1 completions"):
        length_reward(["<answer>B</answer>"], [[1], [2]], solution=["B"], problem_type=["multiple choice"])
