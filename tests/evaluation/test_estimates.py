"""Means and intervals: by hand, against the textbook where questions are independent, and against resampled videos."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.evaluation.estimates import difference, mean


Z_95 = NormalDist().inv_cdf(0.975)
# Student's 97.5 % quantiles, from a table, by degrees of freedom
T = {3: 3.1824, 4: 2.7764, 9: 2.2622, 39: 2.0227}


def wilson(p, n, z=Z_95):
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return centre - half, centre + half


def test_with_one_question_a_video_it_is_wilsons_interval():
    """The unbiased variance of 30 ones and 10 zeros is 0.75 * 0.25 * 40 / 39, of their mean a fortieth: worth 39 questions."""
    found = mean([1.0] * 30 + [0.0] * 10, [str(video) for video in range(40)])
    assert found.value == 0.75 and (found.questions, found.videos) == (40, 40)
    assert (found.low, found.high) == pytest.approx(wilson(0.75, 39, T[39]), abs=1e-5)


def test_questions_on_one_video_that_agree_are_worth_one():
    """Ten videos of four questions with one answer each: as ten questions, by their number less one: nine."""
    scores = [float(video < 6) for video in range(10) for _ in range(4)]
    clusters = [str(video) for video in range(10) for _ in range(4)]
    found = mean(scores, clusters)
    assert (found.low, found.high) == pytest.approx(wilson(0.6, 9, T[9]), abs=1e-5)
    independent = mean(scores, [str(place) for place in range(40)])
    assert independent.low > found.low and independent.high < found.high


def test_all_right_is_not_certain():
    found = mean([1.0] * 12, [str(place // 3) for place in range(12)])
    assert found.value == 1.0 and found.high == 1.0
    assert found.low == pytest.approx(wilson(1.0, 4)[0])  # four videos


def test_a_single_video_has_no_interval():
    assert (mean([1.0, 0.0], ["a", "a"]).low, difference([1.0], [0.0], ["a"]).high) == (None, None)


def test_weights_give_each_stratum_its_part():
    """A: 1 of 1 right, B: 1 of 4: unweighted mean of the two 0.625."""
    weights = [("A", 0.5)] + [("B", 0.125)] * 4
    found = mean([1.0, 1.0, 0.0, 0.0, 0.0], list("abcde"), weights)
    assert found.value == 0.625
    """
    Left out one by one, half of how A or B moves: A is all gone, and as the others then: 0.25 - 1; B's right one: 0 - 0.25;
    B's wrong ones: 1/3 - 1/4, three times. The jackknife's variance is 4/5 of the squares' sum.
    """
    variance = 4 / 5 * (0.375**2 + 0.125**2 + 3 * (1 / 24) ** 2)
    assert (found.low, found.high) == pytest.approx(wilson(0.625, 0.625 * 0.375 / variance, T[4]), abs=1e-4)


def test_a_difference_is_paired():
    """Gaps 0.5, 0, 0, -0.5: mean 0, sum of squares 0.5, variance of the mean 4 / 3 * 0.5 / 16."""
    found = difference([0.5, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.5], list("abcd"))
    assert (found.value, found.high) == (0.0, pytest.approx(T[3] * math.sqrt(4 / 3 * 0.5 / 16), abs=1e-4))
    """Both scores vary with the question, their difference less: 0.5, 0.5, 0.5, 0.4."""
    found = difference([1.0, 0.5, 1.0, 0.4], [0.5, 0.0, 0.5, 0.0], list("abcd"))
    assert (found.value, found.high - found.low) == (
        pytest.approx(0.475),
        pytest.approx(2 * T[3] * 0.05 / math.sqrt(4), abs=1e-4),
    )


def test_differences_that_are_all_alike_are_not_certain():
    """Four videos, none of which differs: of all that are alike, a share up to Wilson's 0.49 may be at -1 or 1."""
    unseen = Z_95**2 / (4 + Z_95**2)
    found = difference([1.0, 0.5, 1.0, 0.5], [0.5, 0.0, 0.5, 0.0], list("abcd"))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - 1.5 * unseen, 0.5 + 0.5 * unseen))
    found = difference([1.0] * 4, [0.0] * 4, list("abcd"))
    assert (found.low, found.high) == (pytest.approx(1 - 2 * unseen), 1.0)


@pytest.mark.parametrize("videos, each, strata", [(2, 10, 1), (5, 10, 1), (40, 1, 1), (20, 1, 8), (30, 2, 8)])
def test_few_videos_and_small_strata_are_covered(videos, each, strata):
    """Of 400 draws of fair coins, the 95 % interval holds one half at least 93 % of the times (95 less two deviations)."""
    rng = np.random.default_rng(videos)
    held = 0
    for _ in range(400):
        clusters = np.repeat(np.arange(videos), each).astype(str)
        parts = rng.integers(0, strata, len(clusters)).astype(str)
        names, counts = np.unique(parts, return_counts=True)
        weight = {name: 1 / len(names) / count for name, count in zip(names, counts, strict=True)}
        scores = (rng.random(len(clusters)) < 0.5).astype(float)
        found = mean(list(scores), list(clusters), [(part, weight[part]) for part in parts])
        held += found.low <= 0.5 <= found.high
    assert held >= 372


def test_few_videos_are_never_worth_more_than_their_questions():
    """Two videos that agree by chance, 5 and 6 right of 10, say no more than 20 questions do."""
    scores, clusters = [1.0] * 5 + [0.0] * 5 + [1.0] * 6 + [0.0] * 4, ["a"] * 10 + ["b"] * 10
    found, independent = mean(scores, clusters), mean(scores, [str(place) for place in range(20)])
    assert found.low <= independent.low and found.high >= independent.high


def test_the_interval_is_as_wide_as_videos_drawn_anew_say():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 120)
    rates = rng.beta(2, 2, 120)
    by_video = [(rng.random(size) < rate).astype(float) for size, rate in zip(sizes, rates, strict=True)]
    scores = np.concatenate(by_video)
    clusters = np.repeat(np.arange(120), sizes).astype(str)
    found = mean(list(scores), list(clusters))
    drawn = [np.concatenate([by_video[i] for i in rng.integers(0, 120, 120)]).mean() for _ in range(4000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.07)  # 4,000 draws: 3 %
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcde")), min_size=1, max_size=30))
def test_an_interval_lies_around_its_mean_and_within_bounds(rows):
    scores, clusters = [score for score, _ in rows], [cluster for _, cluster in rows]
    found = mean(scores, clusters)
    assert -1e-9 <= found.value <= 1 + 1e-9
    if found.low is None:
        assert len(set(clusters)) == 1
    else:
        assert 0 <= found.low <= found.value + 1e-9 and found.value - 1e-9 <= found.high <= 1
    gap = difference(scores, scores[::-1], clusters)
    assert -1 <= gap.value <= 1 and (gap.low is None or -1 <= gap.low <= gap.value <= gap.high <= 1)
