"""Means with intervals that know that questions on one video are not independent."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import norm, t


Z_95 = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Estimate:
    """
    A mean and its 95 % interval.

    Args:
        value (`float`): the mean; of a difference, in [-1, 1].
        low, high (`float`, *optional*): the interval; `None` with a single video.
        questions, videos (`int`): how many it is of; videos whose questions count together are one.
    """

    value: float
    low: float | None
    high: float | None
    questions: int
    videos: int


def mean(
    scores: Sequence[float], clusters: Sequence[str], weights: Sequence[tuple[str, float]] | None = None
) -> Estimate:
    """
    The mean of scores in [0, 1], with Wilson's interval for as many independent questions as are worth these.

    How many that is follows from the variance of the mean when whole videos are left out one by one (the jackknife, which is
    robust to dependence within a video): as many as would give that variance. The fewer videos, the wider (Student's t).
    Where all scores are alike each video counts as one. So the interval has a width even there, and stays in [0, 1].

    Args:
        scores (`Sequence[float]` of length N > 0): in [0, 1].
        clusters (`Sequence[str]` of length N): the video that each is of.
        weights (`Sequence[tuple[str, float]]` of length N, *optional*): a stratum and the weight in the mean of each
            question, the same for all of a stratum; they sum to 1. `None`: one stratum, all alike.

    >>> mean([1.0, 0.0, 1.0, 1.0], ["a", "b", "c", "d"]).value
    0.75
    """
    value, variance = _jackknife(scores, clusters, weights)
    videos = len(set(clusters))
    if variance is None:
        return Estimate(value, None, None, len(scores), videos)
    spread = value * (1 - value)
    known = variance > 1e-12 and spread > 1e-12
    quantile, worth = (_quantile(videos), spread / variance) if known else (Z_95, videos)
    low, high = _wilson(value, worth, quantile)
    return Estimate(value, min(value, low), max(value, high), len(scores), videos)


def difference(
    scores: Sequence[float],
    others: Sequence[float],
    clusters: Sequence[str],
    weights: Sequence[tuple[str, float]] | None = None,
) -> Estimate:
    """
    The mean of `scores - others`, question by question, with the interval of its variance as of [`mean`], within [-1, 1].

    Where all differences are alike the interval allows for as large a share of other ones as none among so many videos does
    (Wilson), each as far off as can be.

    Args:
        scores, others (`Sequence[float]` of length N > 0): of the same questions.
        clusters, weights: as of [`mean`].

    >>> difference([1.0, 1.0], [0.0, 1.0], ["a", "b"]).value
    0.5
    """
    gaps = [score - other for score, other in zip(scores, others, strict=True)]
    value, variance = _jackknife(gaps, clusters, weights)
    videos = len(set(clusters))
    if variance is None:
        return Estimate(value, None, None, len(gaps), videos)
    if variance > 1e-12:
        below = above = _quantile(videos) * math.sqrt(variance)
    else:
        unseen = _wilson(0.0, videos, Z_95)[1]
        below, above = unseen * (1 + value), unseen * (1 - value)
    return Estimate(value, max(-1.0, value - below), min(1.0, value + above), len(gaps), videos)


def _wilson(value: float, worth: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval of a share of `worth` independent questions, within [0, 1]."""
    squared = quantile**2
    centre = (value + squared / (2 * worth)) / (1 + squared / worth)
    spread = max(0.0, value * (1 - value) / worth + squared / (4 * worth**2))
    half = quantile / (1 + squared / worth) * math.sqrt(spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def _quantile(videos: int) -> float:
    """Student's, for an interval of 95 % from a variance that so many videos gave."""
    return float(t.ppf(0.975, videos - 1))


def _jackknife(
    values: Sequence[float], clusters: Sequence[str], weights: Sequence[tuple[str, float]] | None
) -> tuple[float, float | None]:
    """
    The weighted mean, and its variance, by videos or by questions, whichever is larger; `None` for one video.

    A stratum that a left-out video holds all of is taken to be as the others are.
    """
    weights = [("", 1 / len(values))] * len(values) if weights is None else weights
    value = math.fsum(weight * value for value, (_, weight) in zip(values, weights, strict=True))
    if len(set(clusters)) < 2:
        return value, None
    strata = [stratum for stratum, _ in weights]
    shares: dict[str, float] = defaultdict(float)
    for stratum, weight in weights:
        shares[stratum] += weight
    each = [str(place) for place in range(len(values))]
    return value, max(_left_out(values, groups, strata, shares) for groups in (clusters, each))


def _left_out(
    values: Sequence[float], groups: Sequence[str], strata: Sequence[str], shares: dict[str, float]
) -> float:
    """The jackknife's variance of a mean of strata with such shares, groups of questions left out one by one."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    parts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each, group, stratum in zip(values, groups, strata, strict=True):
        sums[stratum] += each
        counts[stratum] += 1
        parts[group][stratum].append(each)
    total, number = math.fsum(sums.values()), len(values)
    deviations = []
    for part in parts.values():
        gone = [each for several in part.values() for each in several]
        others = (total - math.fsum(gone)) / (number - len(gone))
        deviation = 0.0
        for stratum, several in part.items():
            left = counts[stratum] - len(several)
            remaining = (sums[stratum] - math.fsum(several)) / left if left else others
            deviation += shares[stratum] * (remaining - sums[stratum] / counts[stratum])
        deviations.append(deviation)
    return (len(deviations) - 1) / len(deviations) * math.fsum(each**2 for each in deviations)
