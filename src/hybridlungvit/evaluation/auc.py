"""The area under the ROC curve, counted in integers: the same to the last bit on every machine.

The AUC is the share of (positive, negative) pairs of images in which the positive scores higher,
ties half (Mann & Whitney 1947). Twice the pairs won is an integer, whatever the ties and weights;
one division at the end rounds it. Up to 2^53 pairs, no integer is rounded before.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.io import StudyError

Array = NDArray[np.float64]


def check_scores(labels: NDArray, scores: NDArray) -> tuple[NDArray[np.int64], Array]:
    """Labels as int, scores as float64; raises ``StudyError`` if no AUC can be had from them."""
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise StudyError(f"labels {labels.shape} and scores {scores.shape} must be of one length.")
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise StudyError("labels must hold both classes, 0 and 1, for an AUC.")
    if not np.isfinite(scores).all():
        raise StudyError(f"{(~np.isfinite(scores)).sum()} scores are not finite.")
    return labels.astype(np.int64), scores


def auc_function(
    labels: NDArray[np.int64], scores: Array, member: NDArray[np.int64]
) -> Callable[[NDArray[np.integer]], Array]:
    """The AUC as a function of how often patients count: integers (R, patients) → (R,).

    ``labels`` (N,) in {0, 1}, ``scores`` (N,), ``member`` (N,) the index of each image's patient.
    NaN where only one class is left. Sorts once; then time and memory grow with R times N.
    """
    positive, negative = (
        rows[np.argsort(scores[rows], kind="stable")]
        for rows in (np.flatnonzero(labels == label) for label in (1, 0))
    )
    lower, upto = (
        np.searchsorted(scores[negative], scores[positive], side) for side in ("left", "right")
    )
    # Positives with the same negatives below them and tied win alike, so they are added up first:
    # the better the model, the fewer such runs.
    runs = np.flatnonzero(np.diff(lower + upto, prepend=-1))
    lower, upto = lower[runs], upto[runs]
    positive, negative = member[positive], member[negative]

    def auc(drawn: NDArray[np.integer]) -> Array:
        if drawn.dtype.kind not in "iu":
            raise TypeError(f"times an image counts must be integers; they are {drawn.dtype}.")
        wins = np.zeros((len(drawn), len(negative) + 1), np.int64)
        np.cumsum(drawn[:, negative], axis=1, out=wins[:, 1:])  # over the lowest k negatives
        negatives = wins[:, -1]
        wins = wins[:, lower] + wins[:, upto]  # (R, runs), twice those of a positive
        times = drawn[:, positive]
        if len(runs):
            times = np.add.reduceat(times, runs, axis=1, dtype=np.int64)
        won, pairs = np.einsum("rk,rk->r", times, wins), times.sum(axis=1) * negatives
        with np.errstate(invalid="ignore"):
            return won / (2 * pairs)

    return auc


def weighted_auc(labels: NDArray[np.int64], scores: Array, weights: NDArray[np.integer]) -> Array:
    """AUC for each row of whole-number ``weights`` (R, N) of the images: (R,), NaN if undefined."""
    return auc_function(labels, scores, np.arange(len(labels)))(weights)


def doubled_placements(labels: NDArray[np.int64], scores: Array) -> NDArray[np.int64]:
    """Twice the number of pairs that each image helps to rank rightly, ties half: (N,).

    Halved and divided by the size of the other class they are the placement values of DeLong et al.
    (1988); over either class they add up to twice all pairs won.
    """
    twice = np.empty(len(scores), np.int64)
    for label, sign in ((1, 1), (0, -1)):  # a negative wins by scoring lower
        own, others = sign * scores[labels == label], np.sort(sign * scores[labels != label])
        twice[labels == label] = sum(
            np.searchsorted(others, own, side) for side in ("left", "right")
        )
    return twice
