"""Confidence intervals from bootstrap replicates, and what to say at the edge of the scale."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtri

from hybridlungvit.evaluation.auc import Array

ROUNDING = 1e-12  # a standard error below this comes from the order of sums


@dataclass(frozen=True)
class Interval:
    estimate: float
    low: float
    high: float


def percentile_interval(estimate: float, replicates: Array, level: float) -> Interval:
    """The central ``level`` of the replicates (Efron & Tibshirani 1993, ch. 13)."""
    tail = (1 - level) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(float(estimate), float(low), float(high))


SCALES: dict[str, tuple[Callable, Callable, Callable]] = {
    "unit": (logit, expit, lambda x: x * (1 - x)),  # 0 to 1
    "positive": (np.log, np.exp, lambda x: x),  # 0 and more
    "signed": (np.arctanh, np.tanh, lambda x: 1 - x**2),  # -1 to 1
    "any": (float, np.array, lambda x: 1.0),  # unbounded
}
"""For each range of a metric: the transform, its inverse, and one over its derivative."""


def normal_interval(
    estimate: float, error: float, quantile: float, scale: str = "unit"
) -> Interval | None:
    """The interval transform(estimate) ± quantile · error, put back: it respects the range.

    ``error`` is the standard error on the scale of the estimate and is carried over by the delta
    method, which stays finite where many replicates sit at the edge. None where no such interval
    exists: for an estimate at the edge of its range or an error of zero, up to rounding.
    """
    there, back, rate = SCALES[scale]
    if not rate(estimate) > 0 or not error > ROUNDING:
        return None
    half = quantile * error / rate(estimate)
    low, high = back(there(estimate) + np.array([-half, half]))
    return Interval(float(estimate), float(low), float(high))


def separated_interval(estimate: float, positives: int, negatives: int, level: float) -> Interval:
    """Interval for an AUC of exactly 1 or 0, where no resample ever differs.

    Newcombe's score-like interval (2006, part 2, method 5), with patients for images: all AUCs
    whose modelled standard error, with exponential scores, does not rule out the estimate.
    """
    from scipy.optimize import brentq  # takes long to import and is rarely needed

    z = ndtri((1 + level) / 2)
    mean = (positives + negatives) / 2

    def excess(auc: float) -> float:
        spread = 1 + (mean - 1) * ((1 - auc) / (2 - auc) + auc / (1 + auc))
        return (1 - auc) ** 2 - z**2 * auc * (1 - auc) * spread / (positives * negatives)

    low = brentq(excess, 1e-12, 1 - 1e-12)
    return Interval(1.0, low, 1.0) if estimate > 0.5 else Interval(0.0, 0.0, 1 - low)


def wilson_interval(successes: int, trials: int, level: float) -> Interval:
    """Wilson's score interval of a proportion (1927); ``trials`` > 0 count as independent."""
    from scipy.stats import binomtest  # takes long to import and is rarely needed

    low, high = binomtest(successes, trials).proportion_ci(level, "wilson")
    return Interval(successes / trials, float(low), float(high))
