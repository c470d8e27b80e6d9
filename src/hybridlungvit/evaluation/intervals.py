"""Confidence intervals from bootstrap replicates, and what to say at the edge of the scale."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm

Array = NDArray[np.float64]
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


def bca_interval(
    estimate: float, replicates: Array, left_out: Array, strata: NDArray, level: float
) -> Interval:
    """Bias-corrected and accelerated percentiles (Efron 1987).

    ``left_out`` (patients,) are the estimates without each patient and ``strata`` (patients,) the
    groups within which patients were drawn; the acceleration is that of several samples. Ties of
    replicate and estimate count half.
    """
    below = (replicates < estimate).mean() + (replicates == estimate).mean() / 2
    cubes = squares = 0.0
    for stratum in np.unique(strata):
        values = left_out[strata == stratum]
        influence = (len(values) - 1) * (values.mean() - values)
        cubes += float((influence**3).sum() / len(values) ** 3)
        squares += float((influence**2).sum() / len(values) ** 2)
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    bias = norm.ppf(below)
    z = bias + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(replicates, norm.cdf(bias + z / (1 - acceleration * z)))
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


def studentized_interval(
    estimate: float, variance: float, replicates: Array, variances: Array, limit: float,
    level: float,
) -> Interval | None:  # fmt: skip
    """The bootstrap-t interval on the logit scale (Efron & Tibshirani 1993, § 12.5).

    ``variance`` and ``variances`` (R,) are those of the estimate and of each replicate, on the
    scale of the AUC. A replicate at the edge, without a variance, counts as infinitely far out;
    None where there are so many of them that a limit is infinite.
    """
    kept = np.clip(replicates, limit, 1 - limit)
    shift = logit(kept) - logit(estimate)
    with np.errstate(divide="ignore"):
        t = shift * kept * (1 - kept) / np.sqrt(variances)
    t[(variances <= 0) | (kept != replicates)] = math.inf
    t = np.where(np.isinf(t), np.copysign(math.inf, shift), t)
    tail = (1 - level) / 2
    method = "inverted_cdf"  # no interpolation between a number and infinity
    lower, upper = np.quantile(t, [tail, 1 - tail], method=method)
    if not np.isfinite([lower, upper]).all():
        return None
    error = math.sqrt(variance) / (estimate * (1 - estimate))
    low, high = expit([logit(estimate) - upper * error, logit(estimate) - lower * error])
    return Interval(float(estimate), float(low), float(high))


def separated_interval(estimate: float, positives: int, negatives: int, level: float) -> Interval:
    """Interval for an AUC of exactly 1 or 0, where no resample ever differs.

    Newcombe's score-like interval (2006, part 2, method 5), with patients for images: all AUCs
    whose modelled standard error, with exponential scores, does not rule out the estimate.
    """
    z = norm.ppf((1 + level) / 2)
    mean = (positives + negatives) / 2

    def excess(auc: float) -> float:
        spread = 1 + (mean - 1) * ((1 - auc) / (2 - auc) + auc / (1 + auc))
        return (1 - auc) ** 2 - z**2 * auc * (1 - auc) * spread / (positives * negatives)

    low = brentq(excess, 1e-12, 1 - 1e-12)
    return Interval(1.0, low, 1.0) if estimate > 0.5 else Interval(0.0, 0.0, 1 - low)


def wilson_interval(successes: float, trials: float, level: float) -> Interval:
    """Wilson's score interval of a proportion (1927); ``trials`` > 0 count as independent."""
    z, share = norm.ppf((1 + level) / 2), successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = (
        z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    )
    # At no or all successes the bound is the estimate itself, up to rounding.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(float(share), float(low), float(high))
