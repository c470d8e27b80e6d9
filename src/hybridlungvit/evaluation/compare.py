"""Paired comparisons of two models on the same patients."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.evaluation.bootstrap import (
    Array,
    check_scores,
    crossed_replicates,
    percentile_interval,
    weighted_auc,
)


@dataclass(frozen=True)
class Comparison:
    estimate: float
    low: float
    high: float
    p_value: float


def paired_auc_difference(
    labels: NDArray[np.int64],
    scores_a: Array,
    scores_b: Array,
    clusters: NDArray | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """AUC of a minus AUC of b, with interval and two-sided p-value.

    Scores are (N,) for one model each, or (K, N) for K training seeds, paired by row; then the mean
    over seeds is compared and seeds are resampled with the patients. Both models see the same
    resampled patients. The p-value is twice the smaller tail of the replicates beyond zero.
    """
    pairs = np.stack([np.atleast_2d(scores_a), np.atleast_2d(scores_b)], axis=1)  # (K, 2, N)
    for row in pairs.reshape(-1, pairs.shape[2]):
        labels, _ = check_scores(labels, row)

    def difference(pair: Array, weights: Array) -> Array:
        return weighted_auc(labels, pair[0], weights) - weighted_auc(labels, pair[1], weights)

    once = np.ones((1, len(labels)))
    estimate = float(np.mean([difference(pair, once)[0] for pair in pairs]))
    _, replicates = crossed_replicates(difference, labels, pairs, clusters, resamples, seed)
    interval = percentile_interval(estimate, replicates, level)
    tail = min((replicates <= 0).sum(), (replicates >= 0).sum())
    p_value = min(1.0, 2 * (tail + 1) / (len(replicates) + 1))
    return Comparison(estimate, interval.low, interval.high, float(p_value))


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment (1979) of a family of p-values, by name."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def verdict(comparison: Comparison, adjusted_p: float, level: float) -> str:
    """The words a comparison supports: both the interval and the adjusted p-value must agree."""
    excludes_zero = comparison.low > 0 or comparison.high < 0
    if not excludes_zero or adjusted_p > 1 - level:
        return "not distinguishable from"
    return "higher than" if comparison.estimate > 0 else "lower than"
