"""Three layers of uncertainty: patients, training seeds, and both at once.

The value of a variant is the mean over its K seeds. With theta_k the value of seed k on the test
set, three variances make up what it could have been: patients (shared by all seeds), seeds, and the
interaction, that another seed errs on other patients. The patient bootstrap of the mean holds the
first and a K-th of the third; the variance S^2 between the theta_k holds the second and the third.

Two known errors of resampling both at once are thereby avoided. K seeds drawn out of K understate
the variance between them by (K - 1) / K, a half for two seeds. And seeds that are drawn within a
resample of patients count the interaction three times (Owen 2007). With K of 2 to 5 a bootstrap of
seeds has no more to give than S^2, so its part is computed, not drawn, and Student's quantile, with
the degrees of freedom of Satterthwaite (1946), answers for S^2 being known from K values only.
In ``benchmarks/coverage.py`` (1,000 test sets a cell; AUC 0.80 to 0.99; 2, 3 or 5 seeds) the
interval covers in 93.4 to 95.4 %, patients alone in 92.5 to 94.7 %. Where seeds dominate and there
are only two, it covers less: two values say little of a variance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from hybridlungvit.evaluation.auc import Array, check_scores
from hybridlungvit.evaluation.bootstrap import auc_replicates, patient_weights
from hybridlungvit.evaluation.delong import separated
from hybridlungvit.evaluation.intervals import Interval, normal_interval


@dataclass(frozen=True)
class VarianceComponents:
    """Variance of a mean over seeds: its parts, and Satterthwaite's degrees of freedom."""

    patients: float
    seeds: float
    freedom: float

    @property
    def error(self) -> float:
        """The standard error for patients and seeds together."""
        return math.sqrt(self.patients + self.seeds)

    def quantile(self, level: float) -> float:
        """Student's quantile for an interval of this level."""
        return float(stdtrit(self.freedom, (1 + level) / 2))

    def p_value(self, difference: float, resamples: int) -> float:
        """Two-sided, of a difference from zero; no smaller than the resamples can resolve."""
        least = 2 / (resamples + 1)
        if self.error == 0:
            return 1.0 if difference == 0 else least
        return max(least, float(2 * stdtr(self.freedom, -abs(difference) / self.error)))


def variance_components(estimates: Array, replicates: Array) -> VarianceComponents:
    """The split for K seeds' ``estimates`` (K,) and patient ``replicates`` (R, K).

    All seeds must have seen the same resampled patients. The seeds' part is what S^2 exceeds the
    interaction by, and at least zero.
    """
    count = len(estimates)
    mean = replicates.mean(axis=1)  # (R,)
    patients = float(mean.var(ddof=1))
    if count == 1:
        return VarianceComponents(patients, 0.0, math.inf)
    within = float((replicates - mean[:, None]).var(axis=0, ddof=1).sum()) / (count - 1)
    between = float(estimates.var(ddof=1))
    seeds = max(0.0, between - within) / count
    total = patients + seeds
    share = between / count / total if total else 0.0  # what is known from K values only
    freedom = (count - 1) / min(share, 1.0) ** 2 if share else math.inf
    return VarianceComponents(patients, seeds, freedom)


@dataclass(frozen=True)
class OverSeeds:
    """The mean over seeds: its crossed interval, that of patients alone, and the split."""

    interval: Interval
    patients: Interval
    split: VarianceComponents


def auc_over_seeds(
    labels: NDArray[np.int64], scores: Array, clusters: NDArray | None = None,
    resamples: int = 10_000, level: float = 0.95, seed: int = 0,
) -> OverSeeds:  # fmt: skip
    """Mean AUC of K models, ``scores`` (K, N), with the crossed interval on the logit scale.

    For one seed this is ``auc_interval``. Raises ``StudyError`` for unusable input.
    """
    for row in scores:
        labels, _ = check_scores(labels, row)
    estimates, replicates = auc_replicates(labels, scores, clusters, resamples, seed)
    split = variance_components(estimates, replicates)
    alone = VarianceComponents(split.patients, 0.0, math.inf)
    mean = float(estimates.mean())
    found = [
        normal_interval(mean, part.error, part.quantile(level))
        or separated(float(estimates[0]), labels, clusters, level)
        for part in (split, alone)
    ]
    return OverSeeds(*found, split)


def crossed_curves(
    curves: Callable[[Array, Array], Array], labels: NDArray[np.int64], scores: Array,
    clusters: NDArray | None, resamples: int, seed: int,
) -> tuple[Array, Array]:  # fmt: skip
    """The mean of ``curves(scores (N,), weights (R, N)) → (R, G)`` over seeds, for a band.

    Returns the mean curve (G,) and replicates (R, G) in which patients and seeds are drawn at
    once. The seeds' deviations are those of the sample, so that no interaction is counted twice,
    and stretched by sqrt(K / (K - 1)) for the variance that drawing K of K lacks.
    """
    count, once = len(scores), np.ones((1, len(labels)), np.int32)
    own = np.concatenate([curves(row, once) for row in scores])  # (K, G)
    means = np.concatenate(
        [
            np.mean([curves(row, weights) for row in scores], axis=0)
            for weights in patient_weights(labels, clusters, resamples, seed)
        ]
    )  # (R, G)
    if count == 1:
        return own[0], means
    drawn = np.random.default_rng([seed, 1]).integers(count, size=(resamples, count))
    stretch = math.sqrt(count / (count - 1))
    return own.mean(axis=0), means + stretch * (own[drawn].mean(axis=1) - own.mean(axis=0))
