"""What another threshold or prevalence would do: the rates of calls, each with its interval."""

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.config import Statistics
from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.metrics import at_prevalence, ratio
from hybridlungvit.evaluation.records import headline_record, proportion_edge
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
    truth = clusters.labels == 1
    chunks = clusters.draws(statistics.resamples, statistics.seed)
    # Whole numbers, (P, 1 + R); the long axis last, on which the sums over few seeds are fastest.
    drawn = np.concatenate([clusters.once, *chunks]).T.astype(float, order="C")
    sick, well = ((clusters.counts(truth == label) @ drawn)[:, None] for label in (True, False))
    rates, values = [], []
    for threshold in thresholds:
        called = scores >= threshold  # (K, N)
        hits, alarms = (
            (np.stack([clusters.counts(row & (truth == label)) for row in called]) @ drawn).T
            for label in (True, False)
        )  # (1 + R, K) each
        odds = threshold / (1 - threshold)
        sensitivity, specificity = ratio(hits, sick), ratio(well - alarms, well)
        here = {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": ratio(hits, hits + alarms),
            "npv": ratio(well - alarms, well - alarms + sick - hits),
            "net_benefit": ratio(hits - odds * alarms, sick + well),
        }
        by_name = {
            name: _interval(name, drawn_values, clusters, called, statistics.level)
            for name, drawn_values in here.items()
        }
        rates.append([by_name[name] for name in RATES])
        rows = [[by_name[name] for name in VALUES]]
        for prevalence in prevalences:
            lost = odds * (1 - prevalence) * (1 - specificity)
            there = at_prevalence(sensitivity, specificity, prevalence)
            there["net_benefit"] = prevalence * sensitivity - lost
            rows.append([_interval(n, there[n], None, called, statistics.level) for n in VALUES])
        values.append(rows)
    return np.array(rates, float), np.array(values, float)


def _interval(
    name: str, drawn: Array, clusters: PatientClusters | None, called: NDArray[np.bool_],
    level: float,
) -> list[float | None]:  # fmt: skip
    """``BOUNDS`` of the mean of ``drawn`` (1 + R, K), whose first row is the sample's.

    Without ``clusters`` nothing is said of an estimate at the edge of its range.
    """
    edges = () if clusters is None else (proportion_edge(name, clusters, called, level),)
    record = rounded(headline_record(name, drawn[0], drawn[1:], level, *edges))
    return [record[bound] for bound in BOUNDS]
