"""Bootstrap intervals: patients are resampled, and seeds with them where several were trained.

A resample is a vector of weights: how often each image counts. All metrics here take such weights,
so that thousands of resamples are a few matrix operations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.errors import StudyError

Array = NDArray[np.float64]
CHUNK = 500  # resamples at a time: bounds the memory at a few MB per hundred images


@dataclass(frozen=True)
class Interval:
    estimate: float
    low: float
    high: float


def patient_weights(
    labels: NDArray[np.int64], clusters: NDArray | None, resamples: int, seed: int
) -> Iterator[Array]:
    """Yield chunks (R, N) of how often each image counts when whole patients are resampled.

    The cluster bootstrap (Field & Welsh 2007), stratified by the classes a patient's images have,
    so that every resample holds both classes in the drawn proportion. ``clusters`` (N,) names each
    image's patient; None makes every image its own.
    """
    names = np.arange(len(labels)) if clusters is None else clusters
    _, member = np.unique(names, return_inverse=True)
    count = member.max() + 1
    positive = np.bincount(member, labels, count) > 0
    negative = np.bincount(member, 1 - labels, count) > 0
    strata = positive * 2 + negative
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - start)
        drawn = np.empty((rows, count))
        for stratum in np.unique(strata):
            patients = np.flatnonzero(strata == stratum)
            equal = np.full(len(patients), 1 / len(patients))
            drawn[:, patients] = rng.multinomial(len(patients), equal, size=rows)
        yield drawn[:, member]  # (R, patients) → (R, N)


def weighted_auc(labels: NDArray[np.int64], scores: Array, weights: Array) -> Array:
    """Area under the ROC curve for each row of ``weights`` (R, N), ties counted half: (R,).

    The Mann–Whitney form: the weighted share of (positive, negative) pairs ranked rightly.
    """
    order = np.argsort(scores, kind="stable")
    ranked, weights = scores[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # first of each tie group
    positive = np.add.reduceat(weights * labels[order], starts, axis=1)  # (R, groups)
    negative = np.add.reduceat(weights * (1 - labels[order]), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2  # negatives below, ties half
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return (positive * below).sum(axis=1) / pairs


def percentile_interval(estimate: float, replicates: Array, level: float) -> Interval:
    """The central ``level`` of the replicates (Efron & Tibshirani 1993, ch. 13)."""
    tail = (1 - level) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return Interval(float(estimate), float(low), float(high))


def auc_interval(
    labels: NDArray[np.int64],
    scores: Array,
    clusters: NDArray | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """AUC of one model with its patient-cluster bootstrap interval.

    ``labels`` (N,) in {0, 1}, ``scores`` (N,), ``clusters`` (N,) patients. The interval covers the
    sampling of patients, not of training seeds. Raises ``StudyError`` for unusable input.
    """
    labels, scores = check_scores(labels, scores)
    chunks = patient_weights(labels, clusters, resamples, seed)
    replicates = np.concatenate([weighted_auc(labels, scores, weights) for weights in chunks])
    estimate = weighted_auc(labels, scores, np.ones((1, len(labels))))[0]
    return percentile_interval(estimate, replicates, level)


def crossed_replicates(
    metric: Callable[[Array, Array], Array],
    labels: NDArray[np.int64],
    scores: Array,
    clusters: NDArray | None,
    resamples: int,
    seed: int,
) -> tuple[Array, Array]:
    """Bootstrap replicates of ``metric(scores (N,), weights (R, N)) → (R, …)`` for K seeds.

    Returns the replicates of each seed under resampled patients, (R, K, …), and those of the mean
    over seeds with patients and seeds resampled at once, (R, …). All seeds see the same patients.
    """
    per_seed = np.concatenate(
        [
            np.stack([metric(row, weights) for row in scores], axis=1)
            for weights in patient_weights(labels, clusters, resamples, seed)
        ]
    )  # (R, K)
    count = len(scores)
    drawn = np.random.default_rng([seed, 1]).integers(count, size=(resamples, count))
    return per_seed, per_seed[np.arange(resamples)[:, None], drawn].mean(axis=1)


def check_scores(labels: NDArray, scores: NDArray) -> tuple[NDArray[np.int64], Array]:
    """Labels as int, scores as float64; raises ``StudyError`` if no AUC can be had from them."""
    labels, scores = np.asarray(labels).astype(np.int64), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise StudyError(f"labels {labels.shape} and scores {scores.shape} must be of one length.")
    if set(np.unique(labels)) != {0, 1}:
        raise StudyError("labels must hold both classes, 0 and 1, for an AUC.")
    if not np.isfinite(scores).all():
        raise StudyError(f"{(~np.isfinite(scores)).sum()} scores are not finite.")
    return labels, scores
