"""AUC as a table of won pairs, patient by patient: a resample is then a product of matrices.

Of all (positive, negative) pairs of images, cell (c, d) of the table counts those between patient
c's positives and patient d's negatives that the scores rank rightly, ties half. Drawing patient c
v_c times turns the sum into v' T v. The counts are whole or half numbers, so the sums are exact.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.errors import StudyError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """The won pairs between the P patients with positives and the Q patients with negatives.

    ``positive`` (P,) and ``negative`` (Q,) are the indices of those patients among all of them,
    ``positives`` (P,) and ``negatives`` (Q,) their numbers of such images.
    """

    won: Array  # (P, Q)
    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    positives: Array
    negatives: Array

    @property
    def auc(self) -> float:
        """The area under the ROC curve of the sample itself."""
        return float(self.won.sum() / (self.positives.sum() * self.negatives.sum()))

    @property
    def limit(self) -> float:
        """Half a pair, as a share of all: no AUC but 0 and 1 lies nearer to 0 or 1."""
        return float(0.5 / (self.positives.sum() * self.negatives.sum()))

    def resampled(self, drawn: Array) -> Array:
        """AUC of each resample; ``drawn`` (R, patients) says how often each patient counts: (R,).

        NaN where a resample holds one class only.
        """
        v, w = drawn[:, self.positive], drawn[:, self.negative]  # (R, P), (R, Q)
        with np.errstate(invalid="ignore"):
            total = (v @ self.positives) * (w @ self.negatives)
            return np.einsum("rq,rq->r", v @ self.won, w) / total

    def placements(self, drawn: Array) -> tuple[Array, Array, Array]:
        """AUC and the placement values of each resample's patients (DeLong et al. 1988).

        Returns AUC (R,), the won share of each patient's positives, summed, less its expectation:
        (R, P), and the same of the negatives: (R, Q).
        """
        v, w = drawn[:, self.positive], drawn[:, self.negative]  # (R, P), (R, Q)
        m, n = (v @ self.positives)[:, None], (w @ self.negatives)[:, None]  # (R, 1)
        below, above = w @ self.won.T / n, v @ self.won / m  # (R, P), (R, Q)
        auc = np.einsum("rq,rq->r", above, w) / n[:, 0]
        theta = auc[:, None]
        return auc, below - theta * self.positives, above - theta * self.negatives

    def variance(self, drawn: Array | None = None) -> tuple[Array, Array]:
        """AUC and its clustered DeLong variance (Obuchowski 1997) for each resample, (R,) each.

        None stands for the sample itself. With one image per patient this is DeLong's variance.
        """
        if drawn is None:
            drawn = np.ones((1, 1 + max(self.positive.max(), self.negative.max())))
        auc, first, second = self.placements(drawn)
        return auc, covariance(self, drawn, (first, second), (first, second))

    def without_each_patient(self, patients: int) -> Array:
        """AUC of the sample without patient i, for each i: (patients,)."""
        won, positives, negatives = (np.zeros(patients) for _ in range(3))
        won[self.positive] += self.won.sum(axis=1)
        won[self.negative] += self.won.sum(axis=0)
        both, p, q = np.intersect1d(self.positive, self.negative, return_indices=True)
        won[both] -= self.won[p, q]  # counted from both sides
        positives[self.positive], negatives[self.negative] = self.positives, self.negatives
        left = (positives.sum() - positives) * (negatives.sum() - negatives)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.won.sum() - won) / left


Placements = tuple[Array, Array]


def covariance(pairs: Pairs, drawn: Array, one: Placements, other: Placements) -> Array:
    """Covariance of two models' AUCs on the same patients (Obuchowski 1997), by resample: (R,).

    ``one`` and ``other`` are the last two values of ``placements``; equal models give a variance.
    """
    v, w = drawn[:, pairs.positive], drawn[:, pairs.negative]  # (R, P), (R, Q)
    m, n = v @ pairs.positives, w @ pairs.negatives
    with np.errstate(invalid="ignore", divide="ignore"):
        inflate = [k / (k - 1) for k in (v.sum(axis=1), w.sum(axis=1), drawn.sum(axis=1))]
        above = inflate[0] * np.einsum("rp,rp,rp->r", v, one[0], other[0]) / m**2
        below = inflate[1] * np.einsum("rq,rq,rq->r", w, one[1], other[1]) / n**2
    both, p, q = np.intersect1d(pairs.positive, pairs.negative, return_indices=True)
    if len(both) == 0:
        return above + below
    times = v[:, p]  # (R, patients with both classes)
    crossed = times * (one[0][:, p] * other[1][:, q] + one[1][:, q] * other[0][:, p])
    return above + below + inflate[2] * crossed.sum(axis=1) / (m * n)


def count_pairs(labels: NDArray[np.int64], scores: Array, member: NDArray[np.int64]) -> Pairs:
    """The table for ``labels`` (N,) in {0, 1}, ``scores`` (N,) and patient indices (N,)."""
    sides = []
    for label in (1, 0):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(member[rows], kind="stable")]
        patients, first, count = np.unique(member[rows], return_index=True, return_counts=True)
        sides.append((rows, patients, first, count.astype(float)))
    (high, positive, p_first, positives), (low, negative, q_first, negatives) = sides
    ranked = np.unique(scores, return_inverse=True)[1].astype(np.int32)
    a, b = ranked[high][:, None], ranked[low][None]
    won = (a > b) * np.float32(0.5) + (a >= b) * np.float32(0.5)  # (positives, negatives)
    won = np.add.reduceat(won, q_first, axis=1, dtype=np.float64)
    won = np.add.reduceat(won, p_first, axis=0)
    return Pairs(won, positive, negative, positives, negatives)


def check_scores(labels: NDArray, scores: NDArray) -> tuple[NDArray[np.int64], Array]:
    """Labels as int, scores as float64; raises ``StudyError`` if no AUC can be had from them."""
    labels, scores = np.asarray(labels).astype(np.int64), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise StudyError(f"labels {labels.shape} and scores {scores.shape} must be of one length.")
    if set(np.unique(labels)) != {0, 1}:
        raise StudyError("labels must hold both classes, 0 and 1, for an AUC.")
    if not np.isfinite(scores).all():
        raise StudyError(f"{(~np.isfinite(scores)).sum()} scores are not finite.")
    return labels, scores
