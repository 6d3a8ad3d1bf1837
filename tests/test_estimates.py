"""Means and intervals: by hand, against the textbook where questions are independent, and against resampled videos."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videor1_trl.estimates import Z_95, difference, mean


def wilson(p, n):
    centre = (p + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n**2))
    return centre - half, centre + half


def test_with_one_question_a_video_it_is_wilsons_interval():
    """The unbiased variance of 30 ones and 10 zeros is 0.75 * 0.25 * 40 / 39, of their mean a fortieth: worth 39 questions."""
    found = mean([1.0] * 30 + [0.0] * 10, [str(video) for video in range(40)])
    assert found.value == 0.75 and (found.questions, found.videos) == (40, 40)
    assert (found.low, found.high) == pytest.approx(wilson(0.75, 39))


def test_questions_on_one_video_that_agree_are_worth_one():
    """Ten videos of four questions with one answer each: as ten questions, by their number less one: nine."""
    scores = [float(video < 6) for video in range(10) for _ in range(4)]
    clusters = [str(video) for video in range(10) for _ in range(4)]
    found = mean(scores, clusters)
    assert (found.low, found.high) == pytest.approx(wilson(0.6, 9))
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
    """Residuals: A 0; B 0.75, -0.25 x 3, an eighth of each: sum of squares (0.5625 + 0.1875) / 64; 5 clusters: 5 / 4 of it."""
    variance = 5 / 4 * 0.75 / 64
    assert (found.low, found.high) == pytest.approx(wilson(0.625, 0.625 * 0.375 / variance))


def test_a_difference_is_paired():
    """Both scores vary with the question, their difference does not: it is certain."""
    scores, others = [1.0, 0.5, 1.0, 0.5], [0.5, 0.0, 0.5, 0.0]
    found = difference(scores, others, list("abcd"))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    """Gaps 1, 0, 0, -1: mean 0, sum of squares 2, variance of the mean 4 / 3 * 2 / 16."""
    found = difference([1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0], list("abcd"))
    assert (found.value, found.high) == (0.0, pytest.approx(Z_95 * math.sqrt(4 / 3 * 2 / 16)))


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
