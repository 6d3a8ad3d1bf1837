"""Means with intervals that know that questions on one video are not independent."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


Z_95 = 1.959964  # of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """
    A mean and its 95 % interval.

    Args:
        value (`float`): the mean; of a difference, in [-1, 1].
        low, high (`float`, *optional*): the interval; `None` with a single video.
        questions, videos (`int`): how many it is of.
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

    How many that is follows from the variance of the mean with whole videos drawn rather than questions (the cluster-robust
    one): as many as would give that variance. Where all scores are alike each video counts as one. So the interval has a
    width even there, and stays in [0, 1].

    Args:
        scores (`Sequence[float]` of length N > 0): in [0, 1].
        clusters (`Sequence[str]` of length N): the video that each is of.
        weights (`Sequence[tuple[str, float]]` of length N, *optional*): a stratum and the weight in the mean of each
            question, the same for all of a stratum; they sum to 1. `None`: one stratum, all alike.

    >>> mean([1.0, 0.0, 1.0, 1.0], ["a", "b", "c", "d"]).value
    0.75
    """
    value, variance = _weighted(scores, clusters, weights)
    videos = len(set(clusters))
    if variance is None:
        return Estimate(value, None, None, len(scores), videos)
    spread = value * (1 - value)
    worth = spread / variance if variance > 1e-12 and spread > 1e-12 else videos
    centre = (value + Z_95**2 / (2 * worth)) / (1 + Z_95**2 / worth)
    half = Z_95 / (1 + Z_95**2 / worth) * math.sqrt(max(0.0, spread / worth + Z_95**2 / (4 * worth**2)))
    low, high = max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half))
    return Estimate(value, low, high, len(scores), videos)


def difference(
    scores: Sequence[float],
    others: Sequence[float],
    clusters: Sequence[str],
    weights: Sequence[tuple[str, float]] | None = None,
) -> Estimate:
    """
    The mean of `scores - others`, question by question, with the normal interval of its cluster-robust variance.

    Args:
        scores, others (`Sequence[float]` of length N > 0): of the same questions.
        clusters, weights: as of [`mean`].

    >>> difference([1.0, 1.0], [0.0, 1.0], ["a", "b"]).value
    0.5
    """
    gaps = [score - other for score, other in zip(scores, others, strict=True)]
    value, variance = _weighted(gaps, clusters, weights)
    videos = len(set(clusters))
    if variance is None:
        return Estimate(value, None, None, len(gaps), videos)
    half = Z_95 * math.sqrt(variance)
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), len(gaps), videos)


def _weighted(
    values: Sequence[float], clusters: Sequence[str], weights: Sequence[tuple[str, float]] | None
) -> tuple[float, float | None]:
    """The weighted mean, and its variance with C / (C - 1) for C clusters; `None` for one cluster."""
    weights = [("", 1 / len(values))] * len(values) if weights is None else weights
    strata: dict[str, list[float]] = defaultdict(list)
    for value, (stratum, _) in zip(values, weights, strict=True):
        strata[stratum].append(value)
    means = {stratum: math.fsum(each) / len(each) for stratum, each in strata.items()}
    value = math.fsum(weight * value for value, (_, weight) in zip(values, weights, strict=True))
    sums: dict[str, float] = defaultdict(float)
    for each, cluster, (stratum, weight) in zip(values, clusters, weights, strict=True):
        sums[cluster] += weight * (each - means[stratum])
    count = len(sums)
    if count < 2:
        return value, None
    return value, count / (count - 1) * math.fsum(each**2 for each in sums.values())
