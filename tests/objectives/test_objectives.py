"""Each objective by its paper's formula, with numbers worked out by hand."""

import pickle
import re
from types import SimpleNamespace

import pytest
import torch
from helpers import config

from videor1_trl.objectives.chosen import OBJECTIVES, objective_of
from videor1_trl.objectives.dynamics import Router, same_answer
from videor1_trl.objectives.gap import get_gap_reward
from videor1_trl.objectives.log_prob_drop import get_log_prob_drop_reward
from videor1_trl.objectives.mirrored_interval import get_mirrored_interval_reward
from videor1_trl.objectives.objective import Needs, TrainsContrast
from videor1_trl.objectives.relation import get_crpo_reward, get_relation_reward
from videor1_trl.objectives.temporal import temporal_reward
from videor1_trl.text.prompts import PROBLEM_TYPES


def said(answers):
    """Completions that answer so, one letter each; "-" answers nothing."""
    texts = ["no tag" if each == "-" else f"<think>so</think><answer>{each}</answer>" for each in answers]
    return [[{"role": "assistant", "content": text}] for text in texts]


def choice(ordered, contrast, **columns):
    group = {
        "problem_type": "multiple choice",
        "options": ["A. up", "B. down", "C. left"],
        "solution": "<answer>A</answer>",
    }
    return {**group, "completions": said(ordered), "contrast_completions": said(contrast), **columns}


def right(answers):
    return [float(each == "A") for each in answers]


RELATIONS = {  # ordered, contrast, about, bonuses: the share of answering contrast rollouts that behave, if right
    "half of them changed": ("AABA", "ABAB", "dynamic", [0.5, 0.5, 0.0, 0.5]),
    "none changed": ("AB", "AA", "dynamic", [0.0, 0.0]),
    "static wants the same": ("AB", "AAAB", "static", [0.75, 0.0]),
    "no answer is never different": ("A", "-B--", "dynamic", [1.0]),
    "nor the same": ("A", "-A-B", "static", [0.5]),
    "nobody answers": ("A", "--", "dynamic", [0.0]),
    "no label, no bonus": ("AB", "BB", None, [None, None]),
    "true is dynamic": ("A", "BB", True, [1.0]),
}


@pytest.mark.parametrize("ordered, contrast, about, bonuses", RELATIONS.values(), ids=RELATIONS)
def test_relation_of_right_rollouts_to_the_contrast_rollouts(ordered, contrast, about, bonuses):
    relation = get_relation_reward(router="labels", column="about")
    found = relation(right(ordered), right(contrast), **choice(ordered, contrast, about=about))
    assert found == pytest.approx(bonuses)


def test_relation_compares_answers_by_the_rule_of_their_problem_type():
    group = choice("A", [])
    group["contrast_completions"] = said(["A.", "(a)", "up", "B"])
    assert get_relation_reward()([1.0], [1.0, 1.0, 1.0, 0.0], **group) == [0.25]
    words = {"completions": said(["to the left"]), "contrast_completions": said(["to the  left", "right"])}
    assert get_relation_reward(weight=0.4)([1.0], [1.0, 0.0], **words) == [
        0.2
    ]  # without a problem type: the same words


def test_the_same_words_are_never_another_answer_even_where_they_answer_nothing():
    group = {"problem_type": "temporal grounding", "solution": "1 - 2"}
    group |= {"completions": said(["never"]), "contrast_completions": said(["never", "3 - 4"])}
    assert get_relation_reward()([1.0], [0.0, 0.0], **group) == [0.5]


def test_without_a_known_problem_type_case_and_marks_around_an_answer_make_no_other():
    for kind in ({}, {"problem_type": None}, {"problem_type": "my kind"}, {"problem_type": "temporal grounding"}):
        same = [("A.", "A"), ("left", "Left"), ("**up**", "Up!"), ("never", "Never.")]
        assert all(same_answer(one, other, kind) for one, other in same), kind
        assert not any(same_answer(one, other, kind) for one, other in (("-5", "5"), ("up", "down"))), kind
    assert not same_answer("exit now", "EXIT NOW", {"problem_type": "OCR"}), "where a type's rule can tell, it does"


@pytest.mark.parametrize("nothing", ["I cannot tell", "None", "?", "-", "A or B", "", "..."])
def test_what_names_no_option_is_no_answer_and_earns_nothing(nothing):
    """It was another answer than A: relation paid for it, and crpo trained contrast rollouts to say it."""
    group = choice("A", [])
    group["contrast_completions"] = said([nothing, "B", "A"])
    assert get_relation_reward()([1.0], [0.0, 0.0, 1.0], **group) == [0.5]
    assert get_crpo_reward(router="none").contrast_rewards([1.0], [0.0, 0.0, 1.0], **group) == [0.0, 2.0, 0.0]


@pytest.mark.parametrize("kind", [*PROBLEM_TYPES, "my kind", None])
def test_punctuation_alone_answers_nothing_of_any_type(kind):
    group = {"problem_type": kind, "completions": said(["5"]), "contrast_completions": said(["?", "…", "–", "50"])}
    assert get_relation_reward()([1.0], [0.0] * 4, **group) == [1.0]  # one of one that answers
    assert get_crpo_reward(router="none").contrast_rewards([1.0], [0.0] * 4, **group) == [0.0, 0.0, 0.0, 2.0]


def test_crpo_rewards_contrast_rollouts_that_behave_and_more_so_the_better_the_ordered_ones():
    """behave_j + weight * behave_j * p, p = 3/4: 1.75 for an answer that changed; nothing for the key or no answer."""
    crpo = get_crpo_reward(column="about")
    ordered, contrast = "AAAB", "AB-C"
    dynamic = crpo.contrast_rewards(right(ordered), right(contrast), **choice(ordered, contrast, about="dynamic"))
    assert dynamic == [0.0, 1.75, 0.0, 1.75]
    static = crpo.contrast_rewards(right(ordered), right(contrast), **choice(ordered, contrast, about="static"))
    assert static == [1.75, 0.0, 0.0, 0.0]
    assert crpo(right(ordered), right(contrast), **choice(ordered, contrast, about="dynamic")) == pytest.approx(
        [2 / 3, 2 / 3, 2 / 3, 0.0]  # of A, B, C, the answers to the contrast video, two are changed
    )
    group = choice("A", "B", about=None)
    assert crpo([1.0], [0.0], **group) == [None] and crpo.contrast_rewards([1.0], [0.0], **group) == [None]


def test_crpo_leaves_out_contrast_rollouts_without_a_verdict():
    assert get_crpo_reward(router="none").contrast_rewards([1.0], [None, 0.0], **choice("A", "BB")) == [None, 2.0]
    assert get_crpo_reward(router="none").contrast_rewards([None], [0.0], **choice("A", "B")) == [1.0]  # p unknown


def test_the_self_router_follows_what_the_order_is_worth_and_explores_by_the_groups_draw():
    router = Router("self", explore=0.2, margin=0.25)
    assert [router(p, 0.25, {"group_draw": 0.5}) for p in (0.0, 0.5, 0.75)] == [False, False, True]  # ties are static
    assert [router(0.25, 0.25, {"group_draw": draw}) for draw in (0.1, 0.2, 0.9)] == [True, False, False]
    assert router(float("nan"), 0.0, {"group_draw": 0.0}) is None  # nothing is known, so nothing is taken for static


def test_the_gap_router_takes_a_group_as_often_as_its_gap_is_large_and_leaves_the_others_out():
    router = Router("gap", explore=0.125)
    # p - p~ = 0.5: half of all draws; a gap of 0 or below, or none: an eighth, by exploring
    assert [router(0.75, 0.25, {"group_draw": draw}) for draw in (0.0, 0.49, 0.5, 0.9)] == [True, True, None, None]
    for p, contrast_p in ((0.25, 0.25), (0.0, 1.0), (float("nan"), 0.0)):
        assert [router(p, contrast_p, {"group_draw": draw}) for draw in (0.1, 0.13)] == [True, None]
    assert Router("gap")(1.0, 0.0, {}) is None  # without a draw nothing is taken
    crpo = get_crpo_reward(router="gap")
    group = {"group_draw": 0.9, **choice("AB", "AB")}
    assert (
        crpo([1.0, 0.0], [1.0, 0.0], **group) == [None, None] == crpo.contrast_rewards([1.0, 0.0], [1.0, 0.0], **group)
    )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"router": "labels"}, "router='labels' needs a column"),
        ({"router": "llm"}, "router ('llm') must be one of 'labels', 'self', 'gap', 'none'"),
        (
            {"router": "none", "explore": 0.1},
            "explore is that of router='self' and 'gap', margin that of 'self', and it is 'none'",
        ),
        ({"router": "gap", "margin": 0.1}, "margin that of 'self', and it is 'gap'"),
        ({"router": "none", "column": "about"}, "column ('about') is that of router='labels'"),
        ({"router": "self", "column": "about"}, "column ('about') is that of router='labels'"),
        ({"router": "self", "explore": 1.5}, "explore (1.5) must be in [0, 1]"),
        ({"router": "self", "margin": 1.0}, "margin (1.0) must be in [0, 1)"),
        ({"router": "none", "weight": -1.0}, "weight (-1.0) must be a finite number >= 0"),
        ({"router": "none", "threshold": 1.0}, "threshold (1.0) must be in [0, 1)"),
    ],
)
def test_parameters_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        get_crpo_reward(**settings)


def test_a_label_that_is_none_and_a_missing_column_are_named():
    relation = get_relation_reward(router="labels", column="about")
    with pytest.raises(ValueError, match=re.escape("about ('yes') must be 'dynamic' or 'static'")):
        relation([1.0], [0.0], **choice("A", "B", about="yes"))
    for label in (["dynamic"], "", 2, torch.ones(2).numpy()):
        with pytest.raises(ValueError, match=re.escape("must be 'dynamic' or 'static', or true or false for dynamic")):
            relation([1.0], [0.0], **choice("A", "B", about=label))
    said_so = {"Dynamic": [1.0], " static\n": [0.0], float("nan"): [None]}
    assert {label: relation([1.0], [0.0], **choice("A", "B", about=label)) for label in said_so} == said_so
    with pytest.raises(ValueError, match=re.escape("The data has no column 'about'")):
        relation([1.0], [0.0], **choice("A", "B"))


def test_log_prob_drop_pays_what_falls_by_more_than_the_mean():
    """Drops 1.5, 0.5, 2.0 and 0.0: the mean is 1."""
    group = {
        "logps": [[-1.0, -1.0], [-2.0], [-1.0, -3.0], [-1.0]],
        "contrast_logps": [[-3.0, -2.0], [-2.5], [-4.0, -4.0], [-1.0]],
    }
    assert get_log_prob_drop_reward()([1.0, 1.0, 0.0, 1.0], [], **group) == [0.3, 0.0, 0.0, 0.0]  # the third is wrong
    assert get_log_prob_drop_reward(margin=0.6)([1.0] * 4, [], **group) == [0.0, 0.0, 0.3, 0.0]
    assert get_log_prob_drop_reward(weight=0.5, fixed=0.4)([1.0] * 4, [], **group) == [0.5, 0.5, 0.5, 0.0]
    # above 0.4 + 0.2, as in the released code
    assert get_log_prob_drop_reward(fixed=0.4, margin=0.2)([1.0] * 4, [], **group) == [0.3, 0.0, 0.3, 0.0]
    for name, value in (("margin", -1.0), ("margin", float("nan")), ("fixed", float("nan")), ("fixed", float("inf"))):
        with pytest.raises(ValueError, match=re.escape(f"{name} ({value}) must be a finite number")):
            get_log_prob_drop_reward(**{name: value})
    assert get_log_prob_drop_reward(threshold=0.7)([0.71, 0.7, 0.9, 1.0], [], **group) == [0.3, 0.0, 0.3, 0.0]
    assert get_log_prob_drop_reward()([1.0], [], logps=[[]], contrast_logps=[[]]) == [0.0]
    alike = {"logps": [[0.0]] * 6, "contrast_logps": [[-0.7]] * 6}  # the mean of six times 0.7 is less by a rounding
    assert get_log_prob_drop_reward()([1.0] * 6, [], **alike) == [0.0] * 6


def test_mirrored_interval_by_hand():
    """
    D = 10, gold 2 to 4, mirrored 6 to 8. Found 5 to 7: IoU 1/3, both borders off by 1 of 10, so b = 1/3 * 0.9 * 0.9 = 0.27; beside
    one without an interval the mean is 0.135.
    """
    group = {"solution": "<answer>2 - 4</answer>", "duration": 10.0, "contrast_completions": said(["5 - 7", "never"])}
    dynamic, static = ({**group, "about": about} for about in ("dynamic", "static"))
    mirrored = get_mirrored_interval_reward(router="labels", column="about")
    assert mirrored([1.0, 0.0], [0.0, 0.0], **dynamic) == pytest.approx([0.5 * (1 - 0.135)] * 2)
    assert mirrored([1.0, 0.0], [0.0, 0.0], **static) == pytest.approx([0.5 * 0.135] * 2)
    silent = {**dynamic, "contrast_completions": said(["5 - 7", "-"])}  # what is not answered is not different
    assert mirrored([1.0], [0.0, 0.0], **silent) == pytest.approx([0.5 * (1 - 0.27)])
    assert mirrored([1.0], [0.0], **{**dynamic, "contrast_completions": said("-")}) == [0.0]
    union = {**dynamic, "solution": "1 - 2, 4 - 6", "contrast_completions": said(["4 - 6, 8 - 9"])}  # mirrored
    assert mirrored([1.0], [0.0], **union) == [0.0]
    assert mirrored([1.0], [0.0], **{**dynamic, "about": None}) == [None]
    assert mirrored([1.0], [0.0], **{**dynamic, "solution": "B"}) == [None]
    for router in ("self", "gap"):
        with pytest.raises(ValueError, match=re.escape(f"router ({router!r}) needs shares of right answers")):
            get_mirrored_interval_reward(router=router)


def test_mirrored_predictions_are_those_of_the_released_code():
    """
    D = 20, gold 2 to 6, found 14 to 18 backwards. Mirrored predictions: 14 to 18, b = 1; 11 to 17, IoU 3/7, borders off by 3 and 1 of
    20, b = 3/7 * 0.85 * 0.95 = 0.346; 2 to 8, b = 0. Of 0.5 * (1 - b): 0, 0.327 and 0.5.
    """
    group = {"solution": "2 - 6", "duration": 20.0, "contrast_completions": said(["14 - 18"])}
    group["completions"] = said(["2 - 6", "3 - 9", "12 - 18", "never", "-"])
    released = get_mirrored_interval_reward(reference="prediction")
    assert released([1.0] * 5, [1.0], **group) == pytest.approx([0.0, 0.3270, 0.5, 0.0, 0.0], abs=1e-4)
    static = get_mirrored_interval_reward(reference="prediction", router="labels", column="about")
    expected = [0.5, 0.1730, 0.0, 0.0, 0.0]
    assert static([1.0] * 5, [1.0], **group, about="static") == pytest.approx(expected, abs=1e-4)
    assert get_mirrored_interval_reward()([1.0] * 5, [1.0], **group) == [0.0] * 5
    with pytest.raises(ValueError, match=re.escape("reference ('own') must be one of 'gold', 'prediction'")):
        get_mirrored_interval_reward(reference="own")


def test_a_solution_beyond_the_end_of_the_video_is_cut_off_there():
    """Gold 6 to 10 of 8 seconds: 6 to 8, mirrored 0 to 2, which the answer meets."""
    mirrored, said_backwards = get_mirrored_interval_reward(), said(["0 - 2"])
    assert mirrored([1.0], [0.0], solution="6 - 10", duration=8.0, contrast_completions=said_backwards) == [0.0]
    assert mirrored([1.0], [0.0], solution="9 - 10", duration=8.0, contrast_completions=said_backwards) == [None]
    static = get_mirrored_interval_reward(router="labels", column="about")
    group = {"solution": "6 - 10", "contrast_completions": said_backwards, "about": "static"}
    assert static([1.0], [0.0], duration=8.0, **group) == [0.5]


def test_solutions_of_other_problem_types_are_no_times():
    group = {"solution": "2, 3, 1", "duration": 10.0, "contrast_completions": said(["7 - 8"])}
    mirrored = get_mirrored_interval_reward()
    assert mirrored([1.0], [0.0], **group, problem_type="permutation") == [None]
    assert mirrored([1.0], [0.0], **group, problem_type="temporal grounding") == [0.0]  # 2 to 3
    assert mirrored([1.0], [0.0], **group, problem_type=None) == [0.0]


def test_gap_is_what_the_order_was_worth():
    """p = 3/4, p~ = 1/2; with p~ = 1 the bonus is below 0."""
    assert get_gap_reward(weight=2.0)([1.0, 1.0, 0.0, 1.0], [1.0, 0.0]) == [0.5, 0.5, 0.0, 0.5]
    assert get_gap_reward()([1.0, 1.0, 0.0, 1.0], [1.0, 1.0]) == [-0.25, -0.25, 0.0, -0.25]
    assert get_gap_reward()([1.0, None], [None]) == [0.0, 0.0]


# --- by name


def test_names_give_the_objectives_with_the_fields_of_the_config(tmp_path):
    group = choice("A", "BB", about="dynamic")
    values = {
        "tgrpo": ({"temporal_alpha": 0.7}, 0.7),
        "relation": ({"objective_column": "about", "objective_weight": 0.4}, 0.4),
        "crpo": ({"objective_router": "none"}, 1.0),
        "gap": ({"objective_weight": 0.5}, 0.5),
    }
    for name, (settings, bonus) in values.items():
        found = objective_of(name, config(tmp_path, objective=name, **settings))
        assert found([1.0], [0.0, 0.0], **group) == pytest.approx([bonus]), name
    drop = objective_of("log_prob_drop", config(tmp_path, objective="log_prob_drop", objective_margin=0.5))
    assert drop([1.0], [], logps=[[-1.0]], contrast_logps=[[-3.0]]) == [0.0]


def test_what_each_objective_needs():
    found = {}
    for name, (make, _) in OBJECTIVES.items():
        found[name] = Needs.of(make(router="none") if name in ("relation", "crpo", "mirrored_interval") else make())
    assert {name for name, needs in found.items() if not needs.contrast_rollouts} == {"log_prob_drop"}
    assert {name for name, needs in found.items() if needs.logps} == {"log_prob_drop"}
    assert {name for name, needs in found.items() if needs.trains_contrast} == {"crpo"}
    assert Needs.of(temporal_reward) == Needs(contrast_rollouts=True)
    assert Needs.of(None) == Needs()
    assert isinstance(get_crpo_reward(router="none"), TrainsContrast)


def test_objectives_can_be_pickled_and_have_names():
    for make in (get_relation_reward, get_gap_reward, get_log_prob_drop_reward, get_mirrored_interval_reward):
        again = pickle.loads(pickle.dumps(make()))
        assert again == make() and again.__name__.endswith("_reward")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"objective": "grpo2"}, "objective ('grpo2') must be one of 'tgrpo', 'relation', 'crpo'"),
        (
            {"objective_weight": 0.5},
            "objective_weight has no effect on objective='tgrpo': it is a parameter of relation, ",
        ),
        ({"objective": "gap", "objective_column": "about"}, "objective_column has no effect on objective='gap'"),
        ({"objective": "gap", "objective_router": "none"}, "objective_router has no effect on objective='gap'"),
        ({"objective": "crpo"}, "router='labels' needs a column"),
        ({"objective": "mirrored_interval", "objective_router": "none"}, "Set temporal_bonus='advantage'"),
        ({"objective": "gap", "objective_weight": -1.0}, "objective_weight (-1.0) must be a finite number >= 0"),
        (
            {"objective": "gap", "temporal_alpha": 9.0},
            "temporal_alpha has no effect on objective='gap': it is a parameter of tgrpo.",
        ),
        (
            {"objective": "crpo", "objective_router": "none", "temporal_mu": 0.8},
            "temporal_mu has no effect on objective='crpo'",
        ),
        (
            {"objective": "mirrored_interval", "temporal_threshold": 0.9},
            "temporal_threshold has no effect on objective='mirrored",
        ),
        ({"objective_reference": "prediction"}, "objective_reference has no effect on objective='tgrpo'"),
        (
            {"objective": "crpo", "objective_router": "none", "objective_column": "about"},
            "objective_column ('about') is that of router=",
        ),
        (
            {"objective": "log_prob_drop", "objective_margin": -1.0},
            "objective_margin (-1.0) must be a finite number >= 0",
        ),
        (
            {"objective": "log_prob_drop", "objective_margin": float("nan")},
            "objective_margin (nan) must be a finite number",
        ),
        (
            {"objective": "log_prob_drop", "num_contrast_generations": 3},
            "num_contrast_generations (3) has no effect on objective=",
        ),
        (
            {"objective": "mirrored_interval", "objective_router": "none", "objective_reference": "own"},
            "objective_reference ('own') must be one of 'gold', 'prediction'",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_refused_by_the_config(tmp_path, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config(tmp_path, **settings)


def test_fields_at_their_defaults_and_mirrored_predictions_in_the_reward_are_not_refused(tmp_path):
    """As recipes have them: written out, but as they are without it."""
    defaults = {"temporal_alpha": 0.3, "temporal_mu": 1.0, "temporal_threshold": 0.5, "num_contrast_generations": 2}
    for name in ("log_prob_drop", "gap"):
        assert config(tmp_path, objective=name, **defaults).objective == name
    mirrored = {"objective": "mirrored_interval", "objective_router": "none", "objective_reference": "prediction"}
    assert config(tmp_path, **mirrored).temporal_bonus == "reward"


def test_an_objective_may_be_any_callable():
    plain = SimpleNamespace(needs_logps=True)
    assert Needs.of(plain) == Needs(contrast_rollouts=True, logps=True)
