"""Operating points, chosen on validation images only and then frozen."""

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array, check_scores


def rates(labels: NDArray[np.int64], scores: Array) -> tuple[Array, Array, Array]:
    """Candidate thresholds, ascending, with sensitivity and specificity of ``score >= threshold``.

    A candidate lies midway between two neighbouring scores, so that it favours neither; the lowest
    is the lowest score. Raises ``StudyError`` for unusable input.
    """
    labels, scores = check_scores(labels, scores)
    values, group = np.unique(scores, return_inverse=True)
    positive = np.bincount(group, labels)
    negative = np.bincount(group, 1 - labels)
    thresholds = np.r_[values[0], (values[1:] + values[:-1]) / 2]
    sensitivity = positive[::-1].cumsum()[::-1] / positive.sum()
    specificity = np.r_[0, negative.cumsum()[:-1]] / negative.sum()
    return thresholds, sensitivity, specificity


def youden_threshold(labels: NDArray[np.int64], scores: Array) -> float:
    """The threshold of the largest sensitivity + specificity (Youden 1950), lowest of equals."""
    thresholds, sensitivity, specificity = rates(labels, scores)
    index = sensitivity + specificity
    return float(thresholds[np.flatnonzero(index >= index.max() - 1e-12)[0]])


def sensitive_threshold(labels: NDArray[np.int64], scores: Array, target: float) -> float:
    """The highest threshold whose sensitivity is at least ``target``."""
    thresholds, sensitivity, _ = rates(labels, scores)
    return float(thresholds[np.flatnonzero(sensitivity >= target - 1e-12)[-1]])


def choose_thresholds(
    labels: NDArray[np.int64], scores: Array, fixed: float, target: float
) -> dict[str, float]:
    """The threshold of each operating point from validation ``labels`` and ``scores`` (N,)."""
    return {
        "fixed": fixed,
        "youden": youden_threshold(labels, scores),
        "sensitive": sensitive_threshold(labels, scores, target),
    }
