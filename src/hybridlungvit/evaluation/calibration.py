"""Do probabilities mean what they say: calibration before and after temperature scaling."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.bootstrap import Counts, Metrics, PatientClusters, replicate
from hybridlungvit.evaluation.metrics import proper_scores, ratio, together
from hybridlungvit.evaluation.records import Record, headline_record, interval_record
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
    clusters: PatientClusters, rows: Array, bins: NDArray[np.int64]
) -> tuple[Array, Metrics]:
    """Mean probability in each bin, (BINS, M), and how often it came true, for M models.

    The metrics are the share of pneumonia in each bin ("bin.0" and so on) and the expected
    calibration error over bins of equal mass ("ece"). That is biased upwards (an empty difference
    is noise, not zero), the more so the fewer images a bin has. ``rows`` are the probabilities
    (M, N), and ``bins`` (M, N) those of the sample.
    """
    parts = [
        [clusters.sums((bins == b) * value) for value in (1, clusters.labels, rows)]
        for b in range(BINS)
    ]  # images, observed and predicted pneumonia of each bin, (P, M)

    def metrics(drawn: Counts) -> dict[str, Array]:
        shares = {f"bin.{b}": ratio(drawn @ o, drawn @ n) for b, (n, o, _) in enumerate(parts)}
        gaps = sum(np.abs(drawn @ (observed - predicted)) for _, observed, predicted in parts)
        images = sum(drawn @ n for n, _, _ in parts)
        return {"ece": ratio(gaps, images)} | shares

    return ratio(*(np.stack([part[i].sum(axis=0) for part in parts]) for i in (2, 0))), metrics


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
    # Beyond a few hundred images the gradient vanishes before the slope has run away.
    drawn = [np.where((weights > 0) & (labels == k), values, np.nan) for k in (0, 1)]  # (R, N)
    (low, high), (least, most) = ((np.nanmin(v, axis=1), np.nanmax(v, axis=1)) for v in drawn)
    slope[(high <= least) | (most <= low)] = np.nan
    intercept = _newton(labels, np.ones((1, len(values))), values, weights)[:, 0]
    return slope, intercept


def _newton(
    labels: NDArray, design: Array, offset: Array, weights: Array, start: Array | None = None
) -> Array:
    """Weighted logistic regression on ``design`` (D, N), for each row of weights: (R, D).

    Without a ``start`` (D,) it is the fit of the unweighted images, which is near. NaN where the
    classes are separated.
    """
    size, moving = len(design), np.arange(len(weights))
    if start is None:
        once = np.ones((1, len(labels)))
        start = np.nan_to_num(_newton(labels, design, offset, once, np.zeros(size))[0])
    beta = np.tile(start, (len(weights), 1))
    products = np.einsum("dn,en->den", design, design).reshape(size**2, -1)  # (D D, N)
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
        curvature[singular], gradient[singular] = np.eye(size), 0
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        beta[moving] += np.clip(step, -2, 2)  # a plain step can overshoot far from the solution
    beta[moving] = np.nan
    beta[np.abs(beta).max(axis=1) > 100] = np.nan  # running away
    return beta


def _recalibrations(clusters: PatientClusters, rows: Array) -> Metrics:
    def metrics(drawn: Counts) -> dict[str, Array]:
        weights = drawn[:, clusters.member]
        found = [recalibration(clusters.labels, row, weights) for row in rows]
        slopes, intercepts = (np.stack(part, axis=1) for part in zip(*found, strict=True))
        return {"slope": slopes, "intercept": intercepts}

    return metrics


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
    bins = np.stack([mass_bins(row) for row in rows])
    # Where a bin holds one class only, its units are its patients, in the seed with the fewest.
    held = [[np.unique(clusters.member[row == b]).size for row in bins[:-1]] for b in range(BINS)]
    states = {"before": rows, "after": np.stack(list(map(scaled, rows, temperatures)))}
    record: Record = {
        "resamples": size,
        "temperatures": dict(zip(map(str, seeds), temperatures, strict=False)),
        "ensemble_temperature": temperatures[-1],
    }
    for state, probabilities in states.items():
        predicted, curve = reliability(clusters, probabilities, bins)
        metrics = together(
            curve, _recalibrations(clusters, probabilities), proper_scores(clusters, probabilities)
        )
        values = replicate(metrics, clusters, size, seed)
        record[state] = {
            "headline": {n: headline_record(n, values[n][:, :-1], level) for n in MEASURES},
            "ensemble": {n: interval_record(n, values[n][:, -1:], level) for n in MEASURES},
            "bins": [
                {"predicted": None if np.isnan(mean) else float(mean)}
                | interval_record(f"bin.{b}", values[f"bin.{b}"][:, :-1], level, (min(held[b]),))
                for b, mean in enumerate(predicted[:, :-1].mean(axis=1))
            ],
        }
    return record
