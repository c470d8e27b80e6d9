"""AUC as a table of won pairs, patient by patient: a resample is then a product of matrices.

Of all (positive, negative) pairs of images, cell (c, d) of the table counts those between patient
c's positives and patient d's negatives that the scores rank rightly, ties half. Drawing patient c
v_c times turns the sum into v' T v. The counts are whole or half numbers, so the sums are exact.

The table grows with the square of the images. Above ``MOST_PAIRS`` it is never made: ``Ranked``
takes the same products from sorted scores and running sums, and they are equal to the last bit.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.errors import StudyError

Array = NDArray[np.float64]


MOST_PAIRS = 10_000_000
"""Of images, for a table: about 300 MB to count. Sorting is faster from about there on, too."""


@dataclass(frozen=True)
class Pairs(ABC):
    """The won pairs between the P patients with positives and the Q patients with negatives.

    ``positive`` (P,) and ``negative`` (Q,) are the indices of those patients among all of them,
    ``positives`` (P,) and ``negatives`` (Q,) their numbers of such images.
    """

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    positives: Array
    negatives: Array

    @abstractmethod
    def won_against(self, v: Array) -> Array:
        """Pairs that each patient's negatives lose to positives counted ``v`` (R, P): (R, Q)."""

    @abstractmethod
    def won_by(self, w: Array) -> Array:
        """Pairs that each patient's positives win of negatives counted ``w`` (R, Q): (R, P)."""

    @abstractmethod
    def won_within(self, p: NDArray[np.int64], q: NDArray[np.int64]) -> Array:
        """The pairs won between places ``p`` and ``q``, (B,) each, of the same patients: (B,)."""

    @cached_property
    def total(self) -> float:
        """All pairs won."""
        return float(self.won_by(np.ones((1, len(self.negatives)))).sum())

    @property
    def auc(self) -> float:
        """The area under the ROC curve of the sample itself."""
        return self.total / float(self.positives.sum() * self.negatives.sum())

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
            return np.einsum("rq,rq->r", self.won_against(v), w) / total

    def placements(self, drawn: Array) -> tuple[Array, Array, Array]:
        """AUC and the placement values of each resample's patients (DeLong et al. 1988).

        Returns AUC (R,), the won share of each patient's positives, summed, less its expectation:
        (R, P), and the same of the negatives: (R, Q).
        """
        v, w = drawn[:, self.positive], drawn[:, self.negative]  # (R, P), (R, Q)
        m, n = (v @ self.positives)[:, None], (w @ self.negatives)[:, None]  # (R, 1)
        below, above = self.won_by(w) / n, self.won_against(v) / m  # (R, P), (R, Q)
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
        won[self.positive] += self.won_by(np.ones((1, len(self.negatives))))[0]
        won[self.negative] += self.won_against(np.ones((1, len(self.positives))))[0]
        both, p, q = np.intersect1d(self.positive, self.negative, return_indices=True)
        won[both] -= self.won_within(p, q)  # counted from both sides
        positives[self.positive], negatives[self.negative] = self.positives, self.negatives
        left = (positives.sum() - positives) * (negatives.sum() - negatives)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.total - won) / left


@dataclass(frozen=True)
class Counted(Pairs):
    """The pairs as a table: for few images, or many resamples of them."""

    won: Array  # (P, Q)

    def won_against(self, v: Array) -> Array:
        return v @ self.won

    def won_by(self, w: Array) -> Array:
        return w @ self.won.T

    def won_within(self, p: NDArray[np.int64], q: NDArray[np.int64]) -> Array:
        return self.won[p, q]


@dataclass(frozen=True)
class Side:
    """The images of one class, patient by patient, and how the other class's compare.

    ``first`` (patients,) is where each patient's images begin. Of the other class's images,
    ``below`` (images,) score lower and ``upto`` (images,) no higher. ``ascending`` (images,) is the
    place among ``first`` of each image's patient, in the order of the scores.
    """

    first: NDArray[np.int64]
    below: NDArray[np.int64]
    upto: NDArray[np.int64]
    ascending: NDArray[np.int64]

    def outscored(self, other: "Side", counted: Array) -> Array:
        """How many of the other class's images each patient's images outscore, ties half.

        The other class's patients count ``counted`` (R, patients) times: (R, patients of this).
        """
        reached = np.zeros((len(counted), len(other.ascending) + 1))
        np.cumsum(counted[:, other.ascending], axis=1, out=reached[:, 1:])
        lower = reached[:, self.below]
        lower += reached[:, self.upto]
        return np.add.reduceat(lower, self.first, axis=1) / 2


@dataclass(frozen=True)
class Ranked(Pairs):
    """The pairs as two sorted lists of scores: memory and time grow with the images."""

    high: Side
    low: Side
    own: Array  # (P,), each patient's positives against its own negatives

    def won_against(self, v: Array) -> Array:
        every = (v @ self.positives)[:, None] * self.negatives
        return every - self.low.outscored(self.high, v)

    def won_by(self, w: Array) -> Array:
        return self.high.outscored(self.low, w)

    def won_within(self, p: NDArray[np.int64], q: NDArray[np.int64]) -> Array:
        return self.own[p]


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
    """The pairs for ``labels`` (N,) in {0, 1}, ``scores`` (N,) and patient indices (N,)."""
    ranked = np.unique(scores, return_inverse=True)[1].astype(np.int32)
    sides, patients = [], []
    for label in (1, 0):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(member[rows], kind="stable")]
        found, first, count = np.unique(member[rows], return_index=True, return_counts=True)
        sides.append((ranked[rows], member[rows], first))
        patients.append((found, count.astype(float)))
    (positive, positives), (negative, negatives) = patients
    common = (positive, negative, positives, negatives)
    if len(sides[0][0]) * len(sides[1][0]) > MOST_PAIRS:
        return Ranked(*common, _side(*sides), _side(*sides[::-1]), _own_pairs(*sides))
    (high, _, p_first), (low, _, q_first) = sides
    a, b = high[:, None], low[None]
    won = (a > b) * np.float32(0.5) + (a >= b) * np.float32(0.5)  # (positives, negatives)
    won = np.add.reduceat(won, q_first, axis=1, dtype=np.float64)
    won = np.add.reduceat(won, p_first, axis=0)
    return Counted(*common, won)


Images = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Of one class, by patient: rank of the score, patient, and where each patient begins."""


def _side(these: Images, those: Images) -> Side:
    ranks, patient, first = these
    other = np.sort(those[0])
    below, upto = (np.searchsorted(other, ranks, end) for end in ("left", "right"))
    place = np.searchsorted(patient[first], patient)
    return Side(first, below, upto, place[np.argsort(ranks, kind="stable")])


def _own_pairs(high: Images, low: Images) -> Array:
    """Pairs won within each patient with positives: (P,).

    With the patient in front of the rank, a positive outscores all negatives of earlier patients,
    which are then taken away, and of its own those that it truly does.
    """
    span = 1 + max(high[0].max(), low[0].max())
    other = np.sort(low[1] * span + low[0])
    keys = high[1] * span + high[0]
    won = sum(np.searchsorted(other, keys, end) for end in ("left", "right")) / 2
    won -= np.searchsorted(low[1], high[1])
    return np.add.reduceat(won, high[2])


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
