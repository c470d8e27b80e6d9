"""DeLong's variance of an AUC and of a difference of two, with patients as clusters."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from hybridlungvit.evaluation.intervals import Interval, normal_interval, separated_interval
from hybridlungvit.evaluation.pairs import Array, Pairs, check_scores, count_pairs, covariance


def members(clusters: NDArray | None, images: int) -> NDArray[np.int64]:
    """The index of each image's patient, (N,); without ``clusters`` every image has its own."""
    if clusters is None:
        return np.arange(images)
    return np.unique(np.asarray(clusters), return_inverse=True)[1]


def delong_interval(
    labels: NDArray[np.int64], scores: Array, clusters: NDArray | None = None, level: float = 0.95
) -> Interval:
    """AUC with the interval of its asymptotic variance, symmetric on the logit scale.

    DeLong et al. (1988); with ``clusters`` (N,) the variance of Obuchowski (1997). An AUC of
    exactly 1 or 0 has no such variance and gets ``separated_interval``. Raises ``StudyError`` for
    unusable input.
    """
    labels, scores = check_scores(labels, scores)
    pairs = count_pairs(labels, scores, members(clusters, len(labels)))
    (auc,), (variance,) = pairs.variance()
    found = normal_interval(float(auc), math.sqrt(variance), norm.ppf((1 + level) / 2))
    return found or separated(pairs, level)


def separated(pairs: Pairs, level: float) -> Interval:
    """The interval where no resample differs from the sample.

    At the edge, on the numbers of patients behind the table. Inside, scores that tie tell nothing
    in any sample, and one patient of a class tells nothing of others.
    """
    auc = pairs.auc
    if not 0 < auc < 1:
        return separated_interval(auc, len(pairs.positives), len(pairs.negatives), level)
    alone = min(len(pairs.positives), len(pairs.negatives)) == 1
    return Interval(auc, 0.0, 1.0) if alone else Interval(auc, auc, auc)


@dataclass(frozen=True)
class DeLongTest:
    """AUC of a minus AUC of b, its standard error and the two-sided p-value."""

    estimate: float
    error: float
    p_value: float


def delong_test(
    labels: NDArray[np.int64], scores_a: Array, scores_b: Array, clusters: NDArray | None = None
) -> DeLongTest:
    """Paired comparison of two AUCs on the same images (DeLong 1988; clusters: Obuchowski 1997)."""
    placements, pairs = [], None
    for scores in (scores_a, scores_b):
        labels, scores = check_scores(labels, scores)
        member = members(clusters, len(labels))
        pairs = count_pairs(labels, scores, member)
        once = np.ones((1, member.max() + 1))
        placements.append(pairs.placements(once))
    (auc_a, *a), (auc_b, *b) = placements
    difference = float(auc_a[0] - auc_b[0])
    gap = (a[0] - b[0], a[1] - b[1])  # the variance of a difference is that of its placements
    error = math.sqrt(max(0.0, covariance(pairs, once, gap, gap)[0]))
    if error == 0:
        return DeLongTest(difference, 0.0, 1.0 if difference == 0 else 0.0)
    return DeLongTest(difference, error, float(2 * norm.sf(abs(difference) / error)))
