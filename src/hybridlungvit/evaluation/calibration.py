"""Do probabilities mean what they say: calibration before and after temperature scaling."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.intervals import wilson_interval
from hybridlungvit.evaluation.metrics import Metrics, ranking_metrics, ratio
from hybridlungvit.evaluation.records import (
    Edge,
    Record,
    headline_record,
    interval_record,
    replicate,
)
from hybridlungvit.evaluation.sample import Sample
from hybridlungvit.evaluation.temperature import fit_temperature, logits, scaled

BINS = 10
NEWTON_STEPS = 40
RESAMPLES = 2000  # at most: each fits two regressions to all images


def mass_bins(probabilities: Array, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each image, (N,): ``bins`` groups of equal size by rank, ties never parted.

    Scaled probabilities keep the bins of those they come from, whose order they have: near one,
    scaling rounds neighbours to ties, and not everywhere the same.
    """
    rank = np.searchsorted(np.sort(probabilities), probabilities, side="left")
    return rank * bins // len(probabilities)


def bin_sums(
    sample: Sample, probabilities: Array, bins: NDArray[np.int64]
) -> tuple[Array, Array, Array]:
    """Images, pneumonia and summed probability of each patient in each bin: (P, BINS) each."""
    parts = []
    for values in (np.ones(len(bins)), sample.labels, probabilities):
        parts.append([sample.sums(np.where(bins == b, values, 0.0)) for b in range(BINS)])
    return tuple(np.stack(part, axis=1) for part in parts)


def calibration_error(
    sample: Sample, probabilities: Array, bins: NDArray[np.int64]
) -> Callable[[Array], Array]:
    """Expected calibration error over bins of equal mass, as a metric of ``drawn`` (R, P).

    The ``bins`` (N,) are those of the sample. The estimate is biased upwards (an empty difference
    is noise, not zero), the more so the fewer images a bin has.
    """
    images, observed, predicted = bin_sums(sample, probabilities, bins)

    def metric(drawn: Array) -> Array:
        gaps = np.abs(drawn @ (observed - predicted)).sum(axis=1)  # (R,)
        return ratio(gaps, (drawn @ images).sum(axis=1))

    return metric


def reliability(
    sample: Sample, probabilities: Array, bins: NDArray[np.int64]
) -> tuple[Array, Callable[[Array], Array]]:
    """Mean probability of each bin, (BINS,), and its share of pneumonia by resample: (R, BINS)."""
    images, observed, predicted = bin_sums(sample, probabilities, bins)

    def shares(drawn: Array) -> Array:
        return ratio(drawn @ observed, drawn @ images)

    return ratio(predicted.sum(axis=0), images.sum(axis=0)), shares


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
    start, found = _climb(labels, design, offset, np.ones((1, len(labels))), np.zeros(len(design)))
    first = start[0] if found[0] else np.zeros(len(design))
    beta, done = _climb(labels, design, offset, weights, first)
    flat = np.abs(beta).max(axis=1) > 100  # running away: separated classes
    return np.where((done & ~flat)[:, None], beta, np.nan)


def _climb(
    labels: NDArray, design: Array, offset: Array, weights: Array, start: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Newton's steps from ``start`` (D,): coefficients (R, D), and which rows arrived (R,)."""
    beta = np.tile(start, (len(weights), 1))
    products = np.einsum("dn,en->den", design, design).reshape(-1, design.shape[1])  # (D D, N)
    open_rows = np.arange(len(weights))
    for _ in range(NEWTON_STEPS):
        own = weights[open_rows]
        fitted = expit(beta[open_rows] @ design + offset)  # (R, N)
        gradient = (own * (labels - fitted)) @ design.T  # (R, D)
        left = np.abs(gradient).max(axis=1) >= 1e-8 * own.sum(axis=1)
        open_rows, own, fitted, gradient = (x[left] for x in (open_rows, own, fitted, gradient))
        if not len(open_rows):
            break
        curvature = (own * fitted * (1 - fitted)) @ products.T  # (R, D D)
        curvature = curvature.reshape(len(own), len(design), len(design))
        singular = ~(np.linalg.det(curvature) > 1e-12)
        curvature[singular] = np.eye(len(design))
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        step = np.clip(step, -2, 2)  # a plain Newton step can overshoot far from the solution
        step[singular] = 0
        beta[open_rows] += step
    done = np.ones(len(weights), bool)
    done[open_rows] = False
    return beta, done


def calibration_records(
    sample: Sample, rows: Array, val_labels: NDArray[np.int64], val_rows: Array, seeds: list[int],
    resamples: int, level: float, seed: int,
) -> Record:  # fmt: skip
    """Calibration of the seeds' mean, crossed, and of the ensemble, before and after scaling.

    ``rows`` (K + 1, N) and ``val_rows`` (K + 1, V) are the seeds' probabilities and the ensemble's
    on test and validation images; each has a temperature of its own, fitted on the latter.
    """
    size = min(resamples, RESAMPLES)
    temperatures = [fit_temperature(val_labels, row) for row in val_rows]
    groups = [mass_bins(row) for row in rows]
    states = {"before": rows, "after": np.stack(list(map(scaled, rows, temperatures)))}
    record: Record = {
        "resamples": size,
        "temperatures": dict(zip(map(str, seeds), temperatures, strict=False)),
        "ensemble_temperature": temperatures[-1],
    }
    for state, values in states.items():
        functions = [_metrics(sample, row, bins) for row, bins in zip(values, groups, strict=True)]
        estimates, replicates = replicate(functions, sample, size, seed)
        names = [name for name in estimates if not name.startswith("bin.")]
        found = {
            name: headline_record(name, estimates[name][:-1], replicates[name][:, :-1], level)
            for name in names
        }
        ensemble = {
            name: interval_record(name, estimates[name][-1:], replicates[name][:, -1:], level)[0]
            for name in names
        }
        by_seed = zip(values[:-1], groups[:-1], strict=True)
        predicted = np.mean([reliability(sample, *row)[0] for row in by_seed], axis=0)
        images = sample.labels.size / BINS
        curve = []
        for b, mean in enumerate(predicted):
            name = f"bin.{b}"
            edge = _wilson_edge(int(images), level)
            one = interval_record(
                name, estimates[name][:-1], replicates[name][:, :-1], level, edge
            )[0]
            curve.append({"predicted": None if np.isnan(mean) else float(mean)} | one)
        record[state] = {"headline": found, "ensemble": ensemble, "bins": curve}
    return record


def _wilson_edge(images: int, level: float) -> Edge:
    return lambda value: (
        wilson_interval(value * images, images, level) if value in (0, 1) and images else None
    )


def _metrics(sample: Sample, probabilities: Array, bins: NDArray[np.int64]) -> Metrics:
    error = calibration_error(sample, probabilities, bins)
    ranking = ranking_metrics(sample, probabilities)
    _, shares = reliability(sample, probabilities, bins)

    def metrics(drawn: Array) -> dict[str, Array]:
        slope, intercept = recalibration(sample.labels, probabilities, drawn[:, sample.member])
        proper = ranking(drawn)
        return {
            "ece": error(drawn),
            "slope": slope,
            "intercept": intercept,
            "brier": proper["brier"],
            "log_loss": proper["log_loss"],
        } | {f"bin.{b}": share for b, share in enumerate(shares(drawn).T)}

    return metrics
