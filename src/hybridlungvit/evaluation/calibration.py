"""Do probabilities mean what they say: calibration before and after temperature scaling."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.metrics import Metrics, ranking_metrics, ratio
from hybridlungvit.evaluation.records import (
    Record,
    headline_record,
    interval_record,
    replicate,
    wilson_edge,
)
from hybridlungvit.evaluation.temperature import fit_temperature, logits, scaled

BINS = 10
MEASURES = ("ece", "slope", "intercept", "brier", "log_loss")
NEWTON_STEPS = 40
RESAMPLES = 2000  # at most: each fits two regressions to all images


def mass_bins(probabilities: Array, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each image, (N,): ``bins`` groups of equal size by rank, ties never parted.

    Scaled probabilities keep the bins of those they come from, whose order they have: near one,
    scaling rounds neighbours to ties, and not everywhere the same.
    """
    rank = np.searchsorted(np.sort(probabilities), probabilities, side="left")
    return rank * bins // len(probabilities)


def reliability(
    clusters: PatientClusters, probabilities: Array, bins: NDArray[np.int64]
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Mean probability of each bin, (BINS,), and the calibration of resamples ``drawn`` (R, P).

    The latter gives the share of pneumonia in each bin, (R, BINS), and the expected calibration
    error over bins of equal mass, (R,). That is biased upwards (an empty difference is noise, not
    zero), the more so the fewer images a bin has. The ``bins`` (N,) are those of the sample.
    """
    values = np.ones(len(bins)), clusters.labels, probabilities
    images, observed, predicted = (
        np.stack([clusters.sums(np.where(bins == b, v, 0.0)) for b in range(BINS)], axis=1)
        for v in values
    )  # (P, BINS) each

    def calibration(drawn: Array) -> tuple[Array, Array]:
        counts = drawn @ images
        gaps = np.abs(drawn @ (observed - predicted)).sum(axis=1)  # (R,)
        return ratio(drawn @ observed, counts), ratio(gaps, counts.sum(axis=1))

    return ratio(predicted.sum(axis=0), images.sum(axis=0)), calibration


def recalibration(
    labels: NDArray[np.int64], probabilities: Array, weights: Array
) -> tuple[Array, Array]:
    """Calibration slope and intercept for each row of ``weights`` (R, N): (R,) each.

    The slope is b of logit P = a + b · logit p (Cox 1958), ideally 1; below 1 the probabilities are
    too extreme. The intercept is a of the same model with b = 1, ideally 0; above 0 they are too
    low. Both by Newton's method; NaN where the classes are separated and no finite slope fits.
    """
    values = logits(probabilities)
    slope = _newton(labels, np.stack([np.ones_like(values), values]), 0 * values, weights)[:, 1]
    intercept = _newton(labels, np.ones((1, len(values))), values, weights)[:, 0]
    return slope, intercept


def _newton(labels: NDArray, design: Array, offset: Array, weights: Array) -> Array:
    """Weighted logistic regression on ``design`` (D, N), for each row of weights: (R, D).

    All rows start from the fit of the unweighted images, which is near theirs.
    """
    nowhere, once = np.zeros(len(design)), np.ones((1, len(labels)))
    (start,), (arrived,) = _climb(labels, design, offset, once, nowhere)
    beta, done = _climb(labels, design, offset, weights, start if arrived else nowhere)
    running_away = np.abs(beta).max(axis=1) > 100  # separated classes
    return np.where((done & ~running_away)[:, None], beta, np.nan)


def _climb(
    labels: NDArray, design: Array, offset: Array, weights: Array, start: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Newton's steps from ``start`` (D,): coefficients (R, D), and which rows arrived (R,)."""
    size = len(design)
    beta = np.tile(start, (len(weights), 1))
    products = np.einsum("dn,en->den", design, design).reshape(size**2, -1)  # (D D, N)
    moving = np.arange(len(weights))
    for _ in range(NEWTON_STEPS):
        times = weights[moving]
        fitted = expit(beta[moving] @ design + offset)  # (R, N)
        gradient = (times * (labels - fitted)) @ design.T  # (R, D)
        far = np.abs(gradient).max(axis=1) >= 1e-8 * times.sum(axis=1)
        moving, times, fitted, gradient = (x[far] for x in (moving, times, fitted, gradient))
        if not len(moving):
            break
        curvature = (times * fitted * (1 - fitted)) @ products.T  # (R, D D)
        curvature = curvature.reshape(-1, size, size)
        singular = ~(np.linalg.det(curvature) > 1e-12)
        curvature[singular] = np.eye(size)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        step = np.clip(step, -2, 2)  # a plain Newton step can overshoot far from the solution
        step[singular] = 0
        beta[moving] += step
    return beta, ~np.isin(np.arange(len(weights)), moving)


def calibration_records(
    clusters: PatientClusters, rows: Array, val_labels: NDArray[np.int64], val_rows: Array,
    seeds: list[int], resamples: int, level: float, seed: int,
) -> Record:  # fmt: skip
    """Calibration of the seeds' mean, crossed, and of the ensemble, before and after scaling.

    ``rows`` (K + 1, N) and ``val_rows`` (K + 1, V) are the seeds' probabilities and the ensemble's
    on test and validation images; each has a temperature of its own, fitted on the latter.
    """
    size = min(resamples, RESAMPLES)
    temperatures = [fit_temperature(val_labels, row) for row in val_rows]
    bins = [mass_bins(row) for row in rows]
    states = {"before": rows, "after": np.stack(list(map(scaled, rows, temperatures)))}
    edge = wilson_edge(len(clusters.labels) // BINS, level)
    record: Record = {
        "resamples": size,
        "temperatures": dict(zip(map(str, seeds), temperatures, strict=False)),
        "ensemble_temperature": temperatures[-1],
    }
    for state, values in states.items():
        curves = [reliability(clusters, *row) for row in zip(values, bins, strict=True)]
        functions = [
            _metrics(clusters, row, calibration)
            for row, (_, calibration) in zip(values, curves, strict=True)
        ]
        estimates, replicates = replicate(functions, clusters, size, seed)
        predicted = np.mean([mean for mean, _ in curves[:-1]], axis=0)
        headline, ensemble = (
            {
                name: make(name, estimates[name][models], replicates[name][:, models], level)
                for name in MEASURES
            }
            for make, models in (
                (headline_record, slice(0, -1)),
                (interval_record, slice(-1, None)),
            )
        )
        curve = []
        for b, mean in enumerate(predicted):
            name = f"bin.{b}"
            drawn = replicates[name][:, :-1]
            share = interval_record(name, estimates[name][:-1], drawn, level, edge)
            curve.append({"predicted": None if np.isnan(mean) else float(mean)} | share)
        record[state] = {"headline": headline, "ensemble": ensemble, "bins": curve}
    return record


def _metrics(
    clusters: PatientClusters, probabilities: Array, calibration: Callable[..., Any]
) -> Metrics:
    ranking = ranking_metrics(clusters, probabilities)

    def metrics(drawn: Array) -> dict[str, Array]:
        shares, error = calibration(drawn)
        weights, proper = drawn[:, clusters.member], ranking(drawn)
        slope, intercept = recalibration(clusters.labels, probabilities, weights)
        values = (error, slope, intercept, proper["brier"], proper["log_loss"])
        by_bin = {f"bin.{b}": share for b, share in enumerate(shares.T)}
        return dict(zip(MEASURES, values, strict=True)) | by_bin

    return metrics
