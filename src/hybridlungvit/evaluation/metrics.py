"""The metrics of M models, each for many resamples at once; pneumonia is the positive class.

A metric is NaN where it is undefined, such as the predictive value of a call nobody got.
"""

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.bootstrap import Counts, Metrics, PatientClusters, auc_metric
from hybridlungvit.evaluation.temperature import clipped

RANKING = ("auc", "average_precision", "brier", "log_loss")
CALLS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "mcc")
METRICS = RANKING + CALLS
BENEFIT = ("net_benefit", "net_benefit_all", "net_benefit_over_all")
SCALE = {
    "log_loss": "positive",
    "loss": "positive",
    "mcc": "signed",
    "slope": "any",
    "intercept": "any",
    **dict.fromkeys(BENEFIT, "any"),
}
"""Where a metric's range is not 0 to 1; see ``intervals.SCALES``."""


def ratio(above: Array, below: Array) -> Array:
    """above / below, NaN where below is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below == 0, np.nan, above / below)


def totals(drawn: Counts, sums: Array) -> Array:
    """Patients' ``sums`` (P, M) added up over those drawn: (R, M), with R contiguous in memory."""
    return (sums.T @ drawn.T).T


def together(*parts: Metrics) -> Metrics:
    """All metrics of the ``parts``."""
    return lambda drawn: {name: value for part in parts for name, value in part(drawn).items()}


def means(clusters: PatientClusters, **values: Array) -> Metrics:
    """The mean over images of each of the ``values`` (M, N)."""
    images = np.ones_like(next(iter(values.values())))
    sums = np.hstack([clusters.sums(rows) for rows in (images, *values.values())])

    def metrics(drawn: Counts) -> dict[str, Array]:
        count, *parts = np.split(totals(drawn, sums), 1 + len(values), axis=1)
        return {name: ratio(part, count) for name, part in zip(values, parts, strict=True)}

    return metrics


def proper_scores(clusters: PatientClusters, scores: Array) -> Metrics:
    """Brier score and log loss of the probabilities ``scores`` (M, N)."""
    kept = clipped(scores)
    losses = -np.where(clusters.labels == 1, np.log(kept), np.log1p(-kept))
    return means(clusters, brier=(scores - clusters.labels) ** 2, log_loss=losses)


def ranking_metrics(clusters: PatientClusters, scores: Array) -> Metrics:
    """Metrics of the probabilities ``scores`` (M, N) themselves."""

    def precision(drawn: Counts) -> dict[str, Array]:
        weights = drawn[:, clusters.member]
        values = [average_precision(clusters.labels, row, weights) for row in scores]
        return {"average_precision": np.stack(values, axis=1)}

    return together(auc_metric(clusters, scores), precision, proper_scores(clusters, scores))


def average_precision(labels: NDArray[np.int64], scores: Array, weights: Counts) -> Array:
    """Mean precision over the positives, by rank, for each row of ``weights`` (R, N): (R,).

    The step sum without interpolation; tied scores are called together.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, weights = scores[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # first of each tie group
    hits = np.add.reduceat(weights * labels[order], starts, axis=1)  # (R, groups)
    called = np.cumsum(np.add.reduceat(weights, starts, axis=1), axis=1)
    precision = np.cumsum(hits, axis=1) / np.maximum(called, 1)
    return ratio((hits * precision).sum(axis=1), hits.sum(axis=1))


def confusion(clusters: PatientClusters, called: NDArray[np.bool_]) -> list[Array]:
    """True and false negatives and positives (tn, fp, fn, tp) of each patient: (P, M) each."""
    truth = clusters.labels == 1
    return [clusters.sums((truth == sick) & (called == call))
            for sick in (False, True) for call in (False, True)]  # fmt: skip


def call_metrics(clusters: PatientClusters, called: NDArray[np.bool_]) -> Metrics:
    """Metrics of the calls ``called`` (M, N), from whole numbers of images."""
    cells = np.hstack(confusion(clusters, called))

    def metrics(drawn: Counts) -> dict[str, Array]:
        tn, fp, fn, tp = np.split(totals(drawn, cells), 4, axis=1)
        sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
        margins = np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn))
        return {
            "accuracy": ratio(tn + tp, tn + fp + fn + tp),
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "ppv": ratio(tp, tp + fp),
            "npv": ratio(tn, tn + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "mcc": ratio(tp * tn - fp * fn, margins),
        }

    return metrics


def net_benefit(clusters: PatientClusters, called: NDArray[np.bool_], thresholds: Array) -> Metrics:
    """Net benefit (Vickers & Elkin 2006) of the calls (M, N), of calling all, and between the two.

    True positives less false positives at the odds of each model's threshold, (M,), the probability
    of pneumonia from which an image is called, by image. Undefined for a threshold of 1.
    """
    odds = ratio(thresholds, 1 - thresholds)[:, None]
    worth = np.where(clusters.labels == 1, 1.0, -odds)  # (M, N)
    values = worth * called, worth, worth * called - worth
    return means(clusters, **dict(zip(BENEFIT, values, strict=True)))


def at_prevalence(sensitivity: Array, specificity: Array, prevalence: float) -> dict[str, Array]:
    """Predictive values where ``prevalence`` of the images show pneumonia (Bayes' rule)."""
    hit, alarm = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    missed, cleared = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return {"ppv": ratio(hit, hit + alarm), "npv": ratio(cleared, cleared + missed)}


def point_metrics(
    clusters: PatientClusters, called: NDArray[np.bool_], thresholds: Array,
    prevalences: list[float],
) -> Metrics:  # fmt: skip
    """All metrics of the calls (M, N) at ``thresholds`` (M,), in the sample and elsewhere.

    Predictive values and net benefit at another prevalence, which follow from the rates, are named
    prevalence.metric.
    """
    described = together(call_metrics(clusters, called), net_benefit(clusters, called, thresholds))
    odds = ratio(thresholds, 1 - thresholds)

    def metrics(drawn: Counts) -> dict[str, Array]:
        values = described(drawn)
        rates = values["sensitivity"], values["specificity"]
        for prevalence in prevalences:
            there = at_prevalence(*rates, prevalence)
            lost = odds * (1 - prevalence) * (1 - rates[1])
            there["net_benefit"] = prevalence * rates[0] - lost
            values |= {f"{prevalence:g}.{name}": value for name, value in there.items()}
        return values

    return metrics
