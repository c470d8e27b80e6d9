"""Intervals over patients and training seeds, for the mean of K seeds and for a difference of two.

With theta_k the value of seed k on the test set, three variances make up what their mean could have
been: that of patients, shared by all seeds; that of seeds; and their interaction, that another seed
errs on other patients. The bootstrap of patients measures the first and, by how differently the
seeds react to the same resample, the third. The variance S^2 between the theta_k measures the
second and the third. Resampling seeds as well would understate the variance between them by
(K - 1) / K and count the interaction three times (Owen 2007).

The rule. Per seed, with V the bootstrap variance of the mean and W the interaction,

    between = max(S^2, W),   variance = max(0, V - W / K) + between / K.

Two models are trained apart: S^2 and W are the sums over both, whatever the numbers of their seeds
(pairing by seed number gains nothing and costs half the degrees of freedom), while V is that of the
difference on the same resamples. Degrees of freedom are Satterthwaite's (1946), Welch's for the two
variances between seeds: K - 1 to 2 (K - 1) in the seeds' share of the variance. That share is
``between``, never the S^2 that fell below W by chance: such an S^2 must not buy freedom. For a mean
AUC the patients' share has degrees of freedom too (``delong.variance_freedom``).

In ``benchmarks/coverage.py``, on the clusters of the committed test set, with 5 to 20 seeds and
AUCs of 0.90 and 0.97, intervals cover in 94.0 to 96.7 % (a mean) and 93.1 to 97.0 % (a difference),
and equal models are told apart at 5 % in 2.4 to 5.3 %. ``benchmarks/README.md`` has the rest.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from hybridlungvit.evaluation.auc import Array, check_scores
from hybridlungvit.evaluation.bootstrap import (
    PatientClusters,
    auc_metric,
    patient_weights,
    replicate,
)
from hybridlungvit.evaluation.delong import separated, variance_freedom
from hybridlungvit.evaluation.intervals import ROUNDING, Interval, normal_interval
from hybridlungvit.io import StudyError


@dataclass(frozen=True)
class VarianceComponents:
    """What the variance of a mean over K seeds, or of a difference of two, is made of.

    ``seeds`` and ``interaction`` are those of one seed, for a difference of one seed of each model;
    a component that came out negative is zero and named in ``at_bound``.
    """

    patients: float
    seeds: float
    interaction: float
    count: int
    """K, the seeds of each model."""
    degrees_of_freedom: float
    """Of the variance; infinite where nothing limits it."""
    at_bound: tuple[str, ...] = ()

    @property
    def variance(self) -> float:
        return self.patients + (self.seeds + self.interaction) / self.count

    @property
    def error(self) -> float:
        """The standard error over patients and seeds."""
        return math.sqrt(self.variance)

    @property
    def patients_error(self) -> float:
        """The standard error if these very networks met other patients."""
        return math.sqrt(self.patients + self.interaction / self.count)

    @property
    def seeds_error(self) -> float:
        """The standard error if other networks met all patients there are."""
        return math.sqrt(self.seeds / self.count)

    def quantile(self, level: float) -> float:
        """Student's quantile for an interval of this level."""
        return float(stdtrit(self.degrees_of_freedom, (1 + level) / 2))

    def tail(self, distance: float) -> float:
        """Probability that an estimate exceeds its expectation by ``distance``."""
        if not self.error > ROUNDING:
            return 0.5 * (1 - float(np.sign(distance)))
        return float(stdtr(self.degrees_of_freedom, -distance / self.error))


def variance_components(
    values: Array, replicates: Array, patients_freedom: float = math.inf
) -> VarianceComponents:
    """Components of the mean over K seeds of one model, or of the sum of G such means.

    ``values`` (K,) or (G, K) and patient ``replicates`` (R, K) or (R, G, K), all on the same
    resampled patients; for a difference the second model's are negative. ``patients_freedom`` is
    how many degrees of freedom the patients' variance has. The rule is in the module's docstring.
    """
    values = np.atleast_2d(values)
    models, count = values.shape
    replicates = replicates.reshape(-1, models, count)
    mean = replicates.mean(axis=2, keepdims=True)  # (R, G, 1)
    total = float(mean.sum(axis=1).var(ddof=1))
    if count == 1:
        return VarianceComponents(total, 0.0, 0.0, 1, patients_freedom)
    interaction = float((replicates - mean).var(axis=0, ddof=1).sum()) / (count - 1)
    interaction = interaction if interaction > ROUNDING * total else 0.0
    squares = values.var(axis=1, ddof=1)  # (G,)
    seeds = _remainder(float(squares.sum()), interaction)
    patients = _remainder(total, interaction / count)
    bounds = {"patients": patients == 0, "seeds": seeds == 0}
    part = (seeds + interaction) / count
    share = total**2 / patients_freedom
    if squares.any():
        share += part**2 * float((squares**2).sum() / squares.sum() ** 2) / (count - 1)
    elif part:
        share += part**2 / (models * (count - 1))
    freedom = (patients + part) ** 2 / share if share else math.inf
    at_bound = tuple(name for name, reached in bounds.items() if reached)
    return VarianceComponents(patients, seeds, interaction, count, freedom, at_bound)


def _remainder(whole: float, part: float) -> float:
    """``whole`` − ``part``, or zero where only the rounding of each machine tells them apart."""
    rest = whole - part
    return rest if rest > ROUNDING * whole else 0.0


@dataclass(frozen=True)
class OverSeeds(Interval):
    """The mean over seeds with its interval over patients and seeds, and the components."""

    components: VarianceComponents

    @property
    def interval(self) -> Interval:
        """Estimate and bounds alone."""
        return Interval(self.estimate, self.low, self.high)


def auc_interval(
    labels: NDArray[np.int64], scores: Array, clusters: NDArray | None = None,
    resamples: int = 10_000, level: float = 0.95, seed: int = 0,
) -> Interval:  # fmt: skip
    """AUC of one model, ``scores`` (N,), with an interval over patients, not training seeds.

    With the normal quantile for Student's, intervals on the clusters of the committed test set
    covered a true AUC of 0.99 in 91 to 93 %, with this one in 94 to 95 %
    (``benchmarks/coverage.py``, seeds of SD 0). Otherwise as ``auc_over_seeds``.
    """
    scores = np.asarray(scores)[None]
    return auc_over_seeds(labels, scores, clusters, resamples, level, seed).interval


def auc_over_seeds(
    labels: NDArray[np.int64], scores: Array, clusters: NDArray | None = None,
    resamples: int = 10_000, level: float = 0.95, seed: int = 0,
) -> OverSeeds:  # fmt: skip
    """Mean AUC of K models, ``scores`` (K, N), with an interval over patients and seeds.

    ``labels`` (N,) in {0, 1}, ``clusters`` (N,) patients. The interval is symmetric on the logit
    scale, with the bootstrap's standard error and Student's quantile for the degrees of freedom
    that the patients' variance has (``variance_freedom``). An AUC of exactly 1 or 0 has
    ``separated_interval``. Raises ``StudyError`` for unusable input.
    """
    for row in scores:
        labels, _ = check_scores(labels, row)
    patients = PatientClusters.of(labels, clusters)
    drawn = replicate(auc_metric(patients, scores), patients, resamples, seed)["auc"]
    freedom = variance_freedom(patients, scores)
    components = variance_components(drawn[0], drawn[1:], freedom)
    mean = float(drawn[0].mean())
    alone = min(patients.by_class) == 1  # who tells nothing of others of the class
    found = None if alone else normal_interval(mean, components.error, components.quantile(level))
    found = found or separated(mean, patients, level)
    return OverSeeds(found.estimate, found.low, found.high, components)


@dataclass(frozen=True)
class SeedsDifference(OverSeeds):
    """A difference of two means over seeds; the last two answer for a margin, where there is one.

    ``p_value`` is two-sided, for no difference. ``p_equivalence`` is the larger of two one-sided
    p-values, for a difference of at least the margin either way; ``equivalent`` says whether it is
    below 1 - level, which is to say that the interval of level 2 level - 1 lies within the margin.
    """

    p_value: float
    p_equivalence: float | None = None
    equivalent: bool | None = None


def auc_difference_over_seeds(
    labels: NDArray[np.int64], scores_a: Array, scores_b: Array, clusters: NDArray | None = None,
    margin: float | None = None, resamples: int = 10_000, level: float = 0.95, seed: int = 0,
    same_runs: bool = False,
) -> SeedsDifference:  # fmt: skip
    """Mean AUC of model a minus that of b, each over K seeds, with interval and p-values.

    ``scores_a`` and ``scores_b`` are (K, N), or (N,) for one seed. Both models meet the same
    resampled patients. Their seeds are independent, unless ``same_runs``: then row k of both comes
    from one trained network, as with and without test-time augmentation, and rows are subtracted
    before anything else. With a ``margin`` of the AUC, two one-sided tests (Schuirmann 1987) at
    1 - level say whether the models are equivalent. Interval and p-values come from one standard
    error and never contradict each other; none is smaller than the resamples can resolve. Raises
    ``StudyError`` for unusable input.
    """
    pair = [np.atleast_2d(scores_a), np.atleast_2d(scores_b)]
    if pair[0].shape != pair[1].shape:
        raise StudyError(
            f"scores of a {pair[0].shape} and b {pair[1].shape} must have as many seeds and images."
        )
    if margin is not None and not 0 < margin < 1:
        raise StudyError(f"margin {margin} must lie between 0 and 1, a difference of two AUCs.")
    for row in np.concatenate(pair):
        labels, _ = check_scores(labels, row)
    count = len(pair[0])
    patients = PatientClusters.of(labels, clusters)
    drawn = replicate(auc_metric(patients, np.concatenate(pair)), patients, resamples, seed)["auc"]
    drawn = drawn.reshape(-1, 2, count) * np.array([[1], [-1]])
    difference = _contrast(drawn.sum(axis=1) if same_runs else drawn, level)
    at_edge = np.isin(drawn, [-1, 0, 1]).all() and not (same_runs and np.array_equal(*pair))
    # Two models that separate the classes in every sample differ by less than either's interval.
    unseen = 1 - separated(1.0, patients, level).low if at_edge else 0.0
    low = max(-1.0, difference.low - unseen)
    high = min(1.0, difference.high + unseen)
    difference = _unless_alone(replace(difference, low=low, high=high), patients)
    if margin is None:
        return difference
    if min(patients.by_class) == 1:
        return replace(difference, p_equivalence=1.0, equivalent=False)
    tail = difference.components.tail(margin - abs(difference.estimate) - unseen)
    p_equivalence = max(1 / (resamples + 1), tail)
    return replace(difference, p_equivalence=p_equivalence, equivalent=p_equivalence < 1 - level)


def auc_slope_over_seeds(
    labels: NDArray[np.int64], scores: Array, doses: NDArray, clusters: NDArray | None = None,
    resamples: int = 10_000, level: float = 0.95, seed: int = 0,
) -> SeedsDifference:  # fmt: skip
    """Slope of the mean AUC over the ``doses`` (G,) at which G models were trained: a trend test.

    ``scores`` (G, K, N) of K seeds each. The least-squares slope through the G means is a contrast
    of them, with the components and the p-value of ``auc_difference_over_seeds``; it is in AUC per
    unit of dose. Raises ``StudyError`` for unusable input.
    """
    doses = np.asarray(doses, np.float64)
    if len(doses) != len(scores) or len(np.unique(doses)) < 2:
        raise StudyError(
            f"doses {doses.tolist()} must differ, one for each of {len(scores)} models."
        )
    for row in (rows := np.concatenate(scores)):
        labels, _ = check_scores(labels, row)
    patients = PatientClusters.of(labels, clusters)
    drawn = replicate(auc_metric(patients, rows), patients, resamples, seed)["auc"]
    away = doses - doses.mean()
    weights = away / (away**2).sum()
    slope = _contrast(drawn.reshape(-1, len(doses), len(scores[0])) * weights[:, None], level)
    return _unless_alone(slope, patients)


def _unless_alone(found: SeedsDifference, patients: PatientClusters) -> SeedsDifference:
    """What was found; one patient of a class tells nothing of others, so that all is possible."""
    if min(patients.by_class) > 1:
        return found
    return replace(found, low=-1.0, high=1.0, p_value=1.0)


def _contrast(drawn: Array, level: float) -> SeedsDifference:
    """The sum over G weighted models of their means over seeds, from ``drawn`` (1 + R, G, K).

    The first row holds the values on all patients, the others on R resamples; (1 + R, K) where the
    models were summed seed by seed.
    """
    components = variance_components(drawn[0], drawn[1:])
    estimate = float(drawn[0].mean(axis=-1).sum())
    estimate = estimate if abs(estimate) > ROUNDING else 0.0
    half = components.quantile(level) * components.error if components.error > ROUNDING else 0.0
    p_value = max(2 / len(drawn), 2 * components.tail(abs(estimate)))
    return SeedsDifference(estimate, estimate - half, estimate + half, components, p_value)


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
    means = np.concatenate([
        np.mean([curves(row, weights) for row in scores], axis=0)
        for weights in patient_weights(labels, clusters, resamples, seed)
    ])  # (R, G)  # fmt: skip
    if count == 1:
        return own[0], means
    drawn = np.random.default_rng([seed, 1]).integers(count, size=(resamples, count))
    stretch = math.sqrt(count / (count - 1))
    return own.mean(axis=0), means + stretch * (own[drawn].mean(axis=1) - own.mean(axis=0))
