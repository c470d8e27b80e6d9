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

from hybridlungvit.evaluation.bootstrap import Array
from hybridlungvit.evaluation.intervals import (
    Interval,
    normal_interval,
    separated_interval,
    wilson_interval,
)
from hybridlungvit.evaluation.metrics import SCALE, Metrics, proportion
from hybridlungvit.evaluation.sample import Sample
from hybridlungvit.evaluation.seeds import VarianceComponents, variance_components

Record = dict[str, Any]
Edge = Callable[[float], Interval | None]


def replicate(
    rows: list[Metrics], sample: Sample, resamples: int, seed: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Each metric of M rows of scores: estimates (M,), and replicates (R, M) on the same draws."""

    def values(drawn: Array) -> dict[str, Array]:
        found = [metrics(drawn) for metrics in rows]
        return {name: np.stack([one[name] for one in found], axis=1) for name in found[0]}

    chunks = [values(drawn) for drawn in sample.draws(resamples, seed)]
    estimates = {name: value[0] for name, value in values(sample.once).items()}
    return estimates, {name: np.concatenate([c[name] for c in chunks]) for name in estimates}


def interval_record(
    metric: str, estimates: Array, replicates: Array, level: float,
    edge: Edge = lambda value: None, patients_freedom: float = math.inf,
) -> tuple[Record, VarianceComponents | None]:  # fmt: skip
    """The mean over K seeds with its interval; K = 1: one model, patients alone.

    ``estimates`` (K,) and ``replicates`` (R, K); ``edge`` answers where the estimate is extreme;
    ``patients_freedom`` are the degrees of freedom of an AUC's variance (``variance_freedom``).
    """
    mean = float(np.mean(estimates))
    defined = ~np.isnan(replicates).any(axis=1)
    undefined = float(1 - defined.mean())
    record: Record = {"estimate": None, "low": None, "high": None, "undefined": undefined}
    if np.isnan(mean):
        return record, None
    record["estimate"] = mean
    if undefined > 1 - level or defined.sum() < 2:
        return record, None
    components = variance_components(estimates, replicates[defined], patients_freedom)
    scale = SCALE.get(metric.split(".")[-1], "unit")
    found = normal_interval(mean, components.error, components.quantile(level), scale) or edge(mean)
    if found is not None:
        record |= {"low": found.low, "high": found.high}
    return record, components


def headline_record(
    metric: str, estimates: Array, replicates: Array, level: float,
    edge: Edge = lambda value: None, patients_freedom: float = math.inf,
) -> Record:  # fmt: skip
    """``interval_record`` with the other layers: SD and range of the seeds, and both errors."""
    record, components = interval_record(
        metric, estimates, replicates, level, edge, patients_freedom
    )
    several = len(estimates) > 1 and record["estimate"] is not None
    return record | {
        "sd": float(estimates.std(ddof=1)) if several else None,
        "min": float(estimates.min()) if several else None,
        "max": float(estimates.max()) if several else None,
        "se_patients": None if components is None else components.patients_error,
        "se_seeds": None if components is None else components.seeds_error,
    }


def auc_edge(sample: Sample, level: float) -> Edge:
    """What to say of an AUC of exactly 0 or 1."""
    positives, negatives = (sample.patients_with(sample.labels == label) for label in (1, 0))
    return lambda value: (
        separated_interval(value, positives, negatives, level) if value in (0, 1) else None
    )


def proportion_edge(metric: str, sample: Sample, calls: Iterable[Array], level: float) -> Edge:
    """What to say of a proportion of exactly 0 or 1: Wilson's interval on patients, not images.

    ``calls`` are those of each seed, (N,); the one with the fewest patients counts.
    """
    parts = [proportion(metric, sample.labels, called) for called in calls]
    counts = [sample.patients_with(part[1]) for part in parts if part is not None]
    trials = min(counts, default=0)
    return lambda value: (
        wilson_interval(value * trials, trials, level) if value in (0, 1) and trials else None
    )


def wilson_records(sample: Sample, called: Array, level: float) -> dict[str, Record]:
    """Wilson's interval of each proportion, which takes images for independent."""
    found = {}
    for metric in ("accuracy", "sensitivity", "specificity", "ppv", "npv"):
        successes, trials = proportion(metric, sample.labels, called)
        if trials.any():
            count = float((successes & trials).sum())
            found[metric] = asdict(wilson_interval(count, float(trials.sum()), level))
    return found
