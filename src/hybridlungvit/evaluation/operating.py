"""What another threshold or prevalence would do: the rates of calls, each with its interval."""

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.config import Statistics
from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.metrics import point_metrics
from hybridlungvit.evaluation.records import basis, headline_record
from hybridlungvit.io import rounded

RATES = ("sensitivity", "specificity")
VALUES = ("ppv", "npv", "net_benefit")
BOUNDS = ("estimate", "low", "high")
GRID = np.linspace(0, 1, 201)  # of recalls, at which precision is averaged over seeds


def precision_curves(labels: NDArray[np.int64], scores: Array, weights: NDArray) -> Array:
    """Precision at the recalls of ``GRID`` for weights (R, N) of the images: (R, len(GRID)).

    At each recall the precision of the highest threshold that reaches it, without interpolation;
    at zero that of the highest score.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[scores[order][1:] != scores[order][:-1], True])  # of ties
    hits = np.cumsum(weights[:, order] * labels[order], axis=1)[:, ends]
    called = np.cumsum(weights[:, order], axis=1)[:, ends]
    rows = []
    for row, count in zip(hits, called, strict=True):
        drawn = count > 0
        recall, precision = row[drawn] / row[-1], row[drawn] / count[drawn]
        rows.append(precision[np.searchsorted(recall, GRID - 1e-12)])
    return np.stack(rows)


def sweep_thresholds(
    clusters: PatientClusters, scores: Array, thresholds: Array, prevalences: list[float],
    statistics: Statistics,
) -> tuple[Array, Array]:  # fmt: skip
    """The mean over seeds of every measure at each threshold, with its interval (``BOUNDS``).

    ``scores`` (K, N) are the seeds' probabilities, ``thresholds`` (T,) lie below 1. Returns the
    ``RATES``, (T, 2, 3), and the ``VALUES`` in the test images and at each of the ``prevalences``
    (Q,), (T, 1 + Q, 3, 3); NaN where undefined. The numbers are those of the stage `metrics`, which
    has no net benefit at another prevalence; it follows from the rates (Vickers & Elkin 2006).
    """
    draws = clusters.draws(statistics.resamples, statistics.seed)
    # Whole numbers, (1 + R, P); in this order the sums over few seeds are fastest.
    drawn = np.concatenate([clusters.once, *draws]).astype(float, "F")
    rates, values = [], []
    for threshold in thresholds:
        called, at = scores >= threshold, np.full(len(scores), threshold)  # (K, N), (K,)
        found = point_metrics(clusters, called, at, prevalences)(drawn)

        def bounds(name: str, found=found, called=called) -> list[float | None]:
            known = basis(name, clusters, scores, called)
            record = rounded(headline_record(name, found[name], statistics.level, *known))
            return [record[bound] for bound in BOUNDS]

        rates.append([bounds(name) for name in RATES])
        prefixes = "", *(f"{prevalence:g}." for prevalence in prevalences)
        values.append([[bounds(prefix + name) for name in VALUES] for prefix in prefixes])
    return np.array(rates, float), np.array(values, float)
