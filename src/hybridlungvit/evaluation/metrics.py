"""The metrics, each for many resamples of patients at once; pneumonia is the positive class.

A metric takes ``drawn`` (R, P), how often each patient counts, and gives (R,) values: NaN where it
is undefined, such as the predictive value of a call nobody got.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array, auc_function
from hybridlungvit.evaluation.bootstrap import Counts, PatientClusters
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
Metrics = Callable[[Counts], dict[str, Array]]


def ratio(above: Array, below: Array) -> Array:
    """above / below, NaN where below is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below == 0, np.nan, above / below)


def ranking_metrics(clusters: PatientClusters, scores: Array) -> Metrics:
    """Metrics of the probabilities ``scores`` (N,) themselves."""
    auc = auc_function(clusters.labels, scores, clusters.member)
    kept = clipped(scores)
    squares = clusters.sums((scores - clusters.labels) ** 2)
    losses = -clusters.sums(np.where(clusters.labels == 1, np.log(kept), np.log1p(-kept)))
    images = clusters.counts(np.ones(len(scores), bool))

    def metrics(drawn: Counts) -> dict[str, Array]:
        total = drawn @ images
        return {
            "auc": auc(drawn),
            "average_precision": average_precision(
                clusters.labels, scores, drawn[:, clusters.member]
            ),
            "brier": ratio(drawn @ squares, total),
            "log_loss": ratio(drawn @ losses, total),
        }

    return metrics


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


def confusion(clusters: PatientClusters, called: NDArray[np.bool_]) -> NDArray[np.int64]:
    """True and false negatives and positives (tn, fp, fn, tp) of each patient: (P, 4)."""
    cells = [(clusters.labels == truth) & (called == call) for truth in (0, 1) for call in (0, 1)]
    return np.stack([clusters.counts(cell) for cell in cells], axis=1)


def call_metrics(clusters: PatientClusters, called: NDArray[np.bool_]) -> Metrics:
    """Metrics of the calls ``called`` (N,), from whole numbers of images."""
    cells = confusion(clusters, called)

    def metrics(drawn: Counts) -> dict[str, Array]:
        tn, fp, fn, tp = (drawn @ cells).T
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


def net_benefit(clusters: PatientClusters, called: NDArray[np.bool_], threshold: float) -> Metrics:
    """Net benefit (Vickers & Elkin 2006) of the calls ``called`` (N,), of calling all, and between.

    True positives less false positives at the odds of ``threshold``, the probability of pneumonia
    from which an image is called, by image. Undefined for a threshold of 1.
    """
    odds = threshold / (1 - threshold) if threshold < 1 else np.nan
    worth = np.where(clusters.labels == 1, 1.0, -odds)
    of_calls, of_all = clusters.sums(worth * called), clusters.sums(worth)  # (P,)
    images = clusters.counts(np.ones(len(called), bool))

    def metrics(drawn: Counts) -> dict[str, Array]:
        total = drawn @ images
        calls, everyone = ratio(drawn @ of_calls, total), ratio(drawn @ of_all, total)
        return dict(zip(BENEFIT, (calls, everyone, calls - everyone), strict=True))

    return metrics


def at_prevalence(sensitivity: Array, specificity: Array, prevalence: float) -> dict[str, Array]:
    """Predictive values where ``prevalence`` of the images show pneumonia (Bayes' rule)."""
    hit, alarm = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    missed, cleared = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return {"ppv": ratio(hit, hit + alarm), "npv": ratio(cleared, cleared + missed)}
