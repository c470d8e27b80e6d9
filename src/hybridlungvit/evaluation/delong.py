"""DeLong's variance of an AUC and of a difference of two, with patients as clusters.

All of it is counted in integers and divided once, so that equal models differ by exactly nothing.
"""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from hybridlungvit.evaluation.auc import Array, check_scores, doubled_placements
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.intervals import Interval, normal_interval, separated_interval

LEAST_FREEDOM = 4.0


def _deviations(labels: NDArray[np.int64], scores: Array) -> tuple[Fraction, NDArray[np.int64]]:
    """AUC, and how far each image's placement value lies from it, times 2 m n: (N,).

    m and n are the numbers of positives and negatives.
    """
    twice = doubled_placements(labels, scores)
    m, n = int(labels.sum()), int((1 - labels).sum())
    won = int(twice[labels == 1].sum())
    return Fraction(won, 2 * m * n), twice * np.where(labels == 1, m, n) - won


def _variance(clusters: PatientClusters, deviations: NDArray[np.int64]) -> float:
    """Variance of the AUC, or difference of AUCs, with these ``deviations`` (N,).

    Obuchowski (1997): within patients positives, negatives and both covary. With one image per
    patient this is DeLong's. NaN with a single patient of a class.
    """
    labels, patients = clusters.labels, len(clusters.strata)
    m, n = int(labels.sum()), int((1 - labels).sum())
    p, q = clusters.by_class
    if min(p, q) == 1:
        return math.nan
    sums = np.zeros((2, patients), np.int64)  # of each patient's negatives, and positives
    np.add.at(sums, (labels, clusters.member), deviations)
    below, above = sums.astype(object)  # their squares may exceed 64 bits
    variance = (
        Fraction(p * (above @ above), (p - 1) * m**2)
        + Fraction(q * (below @ below), (q - 1) * n**2)
        + Fraction(2 * patients * (above @ below), (patients - 1) * m * n)
    )
    return float(variance / (2 * m * n) ** 2)


def auc_variance(
    labels: NDArray[np.int64], scores: Array, clusters: NDArray | None = None
) -> tuple[float, float]:
    """AUC of ``scores`` (N,) and its variance (DeLong 1988; clusters (N,): Obuchowski 1997).

    The variance is NaN with a single patient of a class. Raises ``StudyError`` for unusable input.
    """
    labels, scores = check_scores(labels, scores)
    auc, deviations = _deviations(labels, scores)
    return float(auc), _variance(PatientClusters.of(labels, clusters), deviations)


def variance_freedom(clusters: PatientClusters, scores: Array) -> float:
    """Degrees of freedom of the patients' variance of a mean AUC, ``scores`` (K, N).

    The variance is a sum of squares, one a patient, of which few carry most where the AUC is high.
    Satterthwaite (1946) with the variance of that sum from the squares themselves: twice the square
    of the sum over the sum of the squares' squared deviations within each stratum of patients. At
    most the number of patients less that of the strata; at least 4 if there are as many, since
    fewer would leave everything open where a single image is ranked wrongly.
    """
    labels, strata = clusters.labels, clusters.strata
    deviations = sum(_deviations(labels, row)[1] for row in scores)
    # Each image counts by the size of its class; the integers stay exact in Python's.
    sizes = np.where(labels == 1, (1 - labels).sum(), labels.sum())
    influence = np.zeros(len(strata), np.int64)
    np.add.at(influence, clusters.member, deviations * sizes)
    squares = influence.astype(object) ** 2
    spread, most = Fraction(0), 0
    for stratum in np.unique(strata):
        own = squares[strata == stratum]
        spread += int(own @ own) - Fraction(int(own.sum()) ** 2, len(own))
        most += len(own) - 1
    if not most:
        return math.inf
    freedom = float(2 * int(squares.sum()) ** 2 / spread) if spread else math.inf
    return min(max(freedom, LEAST_FREEDOM), float(most))


def delong_interval(
    labels: NDArray[np.int64], scores: Array, clusters: NDArray | None = None, level: float = 0.95
) -> Interval:
    """AUC with the interval of its asymptotic variance, symmetric on the logit scale.

    DeLong et al. (1988); with ``clusters`` (N,) the variance of Obuchowski (1997). An AUC of
    exactly 1 or 0 has no such variance and gets ``separated_interval``. Raises ``StudyError`` for
    unusable input.
    """
    auc, variance = auc_variance(labels, scores, clusters)
    interval = normal_interval(auc, math.sqrt(variance), ndtri((1 + level) / 2))
    return interval or separated(auc, PatientClusters.of(labels, clusters), level)


def separated(auc: float, clusters: PatientClusters, level: float) -> Interval:
    """The interval where no resample differs from the sample.

    At the edge, on the numbers of patients behind the AUC. Inside, scores that tie tell nothing
    in any sample, and one patient of a class tells nothing of others.
    """
    if not 0 < auc < 1:
        return separated_interval(auc, *clusters.by_class, level)
    return Interval(auc, 0.0, 1.0) if min(clusters.by_class) == 1 else Interval(auc, auc, auc)


def delong_test(
    labels: NDArray[np.int64], scores_a: Array, scores_b: Array, clusters: NDArray | None = None
) -> dict[str, float]:
    """Paired comparison of two AUCs on the same images (DeLong 1988; clusters: Obuchowski 1997).

    Returns ``estimate``, the AUC of a minus that of b, its standard ``error`` and the two-sided
    ``p_value``. Raises ``StudyError`` for unusable input.
    """
    labels, scores_a = check_scores(labels, scores_a)
    labels, scores_b = check_scores(labels, scores_b)
    (auc_a, a), (auc_b, b) = (_deviations(labels, scores) for scores in (scores_a, scores_b))
    difference, error = float(auc_a - auc_b), 0.0
    # The variance of a difference is that of its placement values.
    variance = _variance(PatientClusters.of(labels, clusters), a - b)
    p_value = 0.0 if variance == 0 and difference else 1.0
    if variance > 0:  # not NaN: one patient of a class tells nothing of others
        error = math.sqrt(variance)
        p_value = float(2 * ndtr(-abs(difference) / error))
    return {"estimate": difference, "error": error, "p_value": p_value}
