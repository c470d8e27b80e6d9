"""From metrics and resamples to what a result file says: estimate, interval and what is undefined.

A resample in which a metric is undefined is left out, and their share is recorded. Where it exceeds
one minus the level, or an estimate itself is undefined, there is no interval: null, never NaN. An
estimate at the very edge of its range, from which no resample ever departs, gets Newcombe's
interval (AUC) or Wilson's (proportions), with patients as the independent units; other metrics at
their edge have none.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.bootstrap import Counts, PatientClusters
from hybridlungvit.evaluation.intervals import (
    Interval,
    normal_interval,
    separated_interval,
    wilson_interval,
)
from hybridlungvit.evaluation.metrics import SCALE, Metrics
from hybridlungvit.evaluation.seeds import VarianceComponents, variance_components

Record = dict[str, Any]
Edge = Callable[[float], Interval | None]
INTERVAL = ("estimate", "low", "high", "undefined")
LAYERS = ("sd", "min", "max", "se_patients", "se_seeds", "degrees_of_freedom", "at_bound")
PROPORTIONS = ("accuracy", "sensitivity", "specificity", "ppv", "npv")


def replicate(
    rows: list[Metrics], clusters: PatientClusters, resamples: int, seed: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Each metric of M rows of scores: estimates (M,), and replicates (R, M) on the same draws."""

    def values(drawn: Counts) -> dict[str, Array]:
        by_row = [metrics(drawn) for metrics in rows]
        return {name: np.stack([row[name] for row in by_row], axis=1) for name in by_row[0]}

    chunks = [values(drawn) for drawn in clusters.draws(resamples, seed)]
    estimates = {name: value[0] for name, value in values(clusters.once).items()}
    return estimates, {name: np.concatenate([c[name] for c in chunks]) for name in estimates}


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
    metric: str, estimates: Array, replicates: Array, level: float,
    edge: Edge = lambda value: None, patients_freedom: float = math.inf,
) -> Record:  # fmt: skip
    """The mean over K seeds with its crossed interval, SD and range of the seeds, and its errors.

    ``estimates`` (K,) and ``replicates`` (R, K); ``edge`` answers where the estimate is extreme.
    K = 1 is one model, whose interval covers patients alone. ``patients_freedom`` are the degrees
    of freedom of an AUC's variance over patients (``variance_freedom``).
    """
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
    interval = normal_interval(mean, components.error, quantile, scale) or edge(mean)
    return record if interval is None else record | {"low": interval.low, "high": interval.high}


def interval_record(*arguments: Any) -> Record:
    """``headline_record`` without what it says of seeds: for a single model or the ensemble."""
    record = headline_record(*arguments)
    return {key: record[key] for key in INTERVAL}


def auc_edge(clusters: PatientClusters, level: float) -> Edge:
    """What to say of an AUC of exactly 0 or 1."""
    patients = [clusters.patients_with(clusters.labels == label) for label in (1, 0)]
    return lambda value: separated_interval(value, *patients, level) if value in (0, 1) else None


def wilson_edge(trials: int, level: float) -> Edge:
    """What to say of a proportion of exactly 0 or 1 of so many independent trials."""
    return lambda value: (
        wilson_interval(value * trials, trials, level) if value in (0, 1) and trials else None
    )


def proportion_edge(
    metric: str, clusters: PatientClusters, calls: Iterable[NDArray[np.bool_]], level: float
) -> Edge:
    """``wilson_edge`` on patients, not images; without an answer where no proportion.

    ``calls`` are those of each seed, (N,); the one with the fewest patients counts.
    """
    if metric not in PROPORTIONS:
        return lambda value: None
    counts = [clusters.patients_with(_trials(metric, clusters.labels, c)) for c in calls]
    return wilson_edge(min(counts, default=0), level)


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
            successes = float((right & trials).sum())
            records[metric] = asdict(wilson_interval(successes, float(trials.sum()), level))
    return records
