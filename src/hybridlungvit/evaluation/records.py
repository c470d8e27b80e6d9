"""From metrics and resamples to what a result file says: estimate, interval and what is undefined.

A resample in which a metric is undefined is left out, and their share is recorded. Where it exceeds
one minus the level, or an estimate itself is undefined, there is no interval: null, never NaN. An
estimate at the very edge of its range, from which no resample ever departs, gets Newcombe's
interval (AUC) or Wilson's (proportions), with patients as the independent units; other metrics at
their edge have none.
"""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.delong import variance_freedom
from hybridlungvit.evaluation.intervals import (
    Interval,
    normal_interval,
    separated_interval,
    wilson_interval,
)
from hybridlungvit.evaluation.metrics import SCALE
from hybridlungvit.evaluation.seeds import VarianceComponents, variance_components

Record = dict[str, Any]
INTERVAL = ("estimate", "low", "high", "undefined")
LAYERS = ("sd", "min", "max", "se_patients", "se_seeds", "degrees_of_freedom", "at_bound")
PROPORTIONS = ("accuracy", "sensitivity", "specificity", "ppv", "npv")


def components_record(components: VarianceComponents) -> Record:
    """What a result file says of the variance behind an interval; null for infinite freedom."""
    freedom = components.degrees_of_freedom
    return {
        "se_patients": components.patients_error,
        "se_seeds": components.seeds_error,
        "degrees_of_freedom": None if math.isinf(freedom) else freedom,
        "at_bound": list(components.at_bound),
    }


def headline_record(
    metric: str, values: Array, level: float, units: tuple[int, ...] = (),
    patients_freedom: float = math.inf,
) -> Record:  # fmt: skip
    """The mean over K seeds with its crossed interval, SD and range of the seeds, and its errors.

    ``values`` (1 + R, K) come from ``replicate``. K = 1 is one model, whose interval covers
    patients alone. ``units`` are the independent ones behind an estimate at its edge: of a
    proportion, or of both classes for an AUC. ``patients_freedom`` are the degrees of freedom of an
    AUC's variance over patients (``variance_freedom``).
    """
    estimates, replicates = values[0], values[1:]
    mean, defined = float(np.mean(estimates)), ~np.isnan(replicates).any(axis=1)
    record: Record = dict.fromkeys(INTERVAL + LAYERS)
    record["undefined"] = undefined = float(1 - defined.mean())
    if np.isnan(mean):
        return record
    record["estimate"] = mean
    if len(estimates) > 1:
        spread = estimates.std(ddof=1), estimates.min(), estimates.max()
        record |= dict(zip(("sd", "min", "max"), map(float, spread), strict=True))
    if undefined > 1 - level or defined.sum() < 2:
        return record
    if undefined:
        replicates = replicates[defined]
    components = variance_components(estimates, replicates, patients_freedom)
    record |= components_record(components)
    scale, quantile = SCALE.get(metric.split(".")[-1], "unit"), components.quantile(level)
    alone = len(units) == 2 and min(units) == 1
    interval = None if alone else normal_interval(mean, components.error, quantile, scale)
    interval = interval or _edge_interval(mean, units, level)
    return record if interval is None else record | {"low": interval.low, "high": interval.high}


def _edge_interval(estimate: float, units: tuple[int, ...], level: float) -> Interval | None:
    if len(units) == 2 and min(units) == 1 and 0 < estimate < 1:
        return Interval(estimate, 0.0, 1.0)  # one patient of a class tells nothing of others
    if estimate not in (0, 1) or not units or not min(units):
        return None
    if len(units) == 2:
        return separated_interval(estimate, *units, level)
    return wilson_interval(int(estimate) * units[0], units[0], level)


def interval_record(*arguments: Any) -> Record:
    """``headline_record`` without what it says of seeds: for a single model or the ensemble."""
    record = headline_record(*arguments)
    return {key: record[key] for key in INTERVAL}


def basis(
    metric: str, clusters: PatientClusters, scores: Array, called: NDArray[np.bool_]
) -> tuple[tuple[int, ...], float]:
    """``units`` and ``patients_freedom`` of a metric of K models, for ``headline_record``.

    The units of a proportion of the calls (K, N) are its patients, in the seed with the fewest.
    ``scores`` are (K, N).
    """
    if metric == "auc":
        return clusters.by_class, variance_freedom(clusters, scores)
    if metric not in PROPORTIONS:
        return (), math.inf
    trials = (_trials(metric, clusters.labels, row) for row in called)
    return (min(map(clusters.patients_with, trials)),), math.inf


def _trials(metric: str, labels: NDArray[np.int64], called: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The images (N,) of which a proportion is the share that is called rightly."""
    if metric == "accuracy":
        return np.ones(len(labels), bool)
    decides = labels == 1 if metric in ("sensitivity", "specificity") else called
    return decides if metric in ("sensitivity", "ppv") else ~decides


def wilson_records(
    clusters: PatientClusters, called: NDArray[np.bool_], level: float
) -> dict[str, Record]:
    """Wilson's interval of each proportion, which takes images for independent."""
    right, records = called == (clusters.labels == 1), {}
    for metric in PROPORTIONS:
        trials = _trials(metric, clusters.labels, called)
        if trials.any():
            successes = int((right & trials).sum())
            records[metric] = asdict(wilson_interval(successes, int(trials.sum()), level))
    return records
