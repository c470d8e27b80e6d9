"""The bootstrap of patients; what seeds add to it is computed in ``seeds.py``.

A resample is a vector of weights: how often each patient, hence each image, counts. All metrics
take such weights, so that thousands of resamples are a few matrix operations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array, auc_function

CHUNK = 500  # resamples at a time
CELLS = 5_000_000  # resamples times images at a time, at most: an array takes 20 or 40 MB
Counts = NDArray[np.int32]
Metrics = Callable[[Counts], dict[str, Array]]
"""Metrics of M models by name, (R, M) each, for ``drawn`` (R, P), how often each patient counts."""


@dataclass(frozen=True)
class PatientClusters:
    """N images as the bootstrap sees them: labels, and the P patients they belong to."""

    labels: NDArray[np.int64]  # (N,), 1 pneumonia
    member: NDArray[np.int64]  # (N,), the index of each image's patient
    strata: NDArray[np.int64]  # (P,), the classes of a patient's images: 1 normal, 2 not, 3 both

    @classmethod
    def of(cls, labels: NDArray[np.int64], patients: NDArray | None) -> "PatientClusters":
        """From ``labels`` (N,) and patient names (N,); None makes every image its own patient."""
        labels = np.asarray(labels).astype(np.int64)
        patients = np.arange(len(labels)) if patients is None else np.asarray(patients)
        member = np.unique(patients, return_inverse=True)[1]
        positive, negative = (np.bincount(member, labels == label) > 0 for label in (1, 0))
        return cls(labels, member, positive * 2 + negative)

    @property
    def once(self) -> Counts:
        """The draw that takes every patient once: (1, P)."""
        return np.ones((1, len(self.strata)), np.int32)

    @property
    def by_class(self) -> tuple[int, int]:
        """How many patients have images with pneumonia, and how many normal ones."""
        return int((self.strata >= 2).sum()), int((self.strata % 2).sum())

    def draws(self, resamples: int, seed: int) -> Iterator[Counts]:
        """Yield chunks (R, P) of how often each patient is drawn; the same for every caller.

        The cluster bootstrap (Field & Welsh 2007), stratified: of each stratum as many are drawn,
        with replacement, as it has, so that every resample holds both classes.
        """
        rng = np.random.default_rng(seed)
        groups = [np.flatnonzero(self.strata == stratum) for stratum in np.unique(self.strata)]
        chunk = min(CHUNK, max(1, CELLS // len(self.labels)))
        for start in range(0, resamples, chunk):
            rows = min(chunk, resamples - start)
            drawn = np.empty((rows, len(self.strata)), np.int32)
            for patients in groups:
                count = len(patients)
                picks = rng.integers(count, size=(rows, count))
                picks += count * np.arange(rows)[:, None]  # a range of its own for each resample
                times = np.bincount(picks.ravel(), minlength=rows * count)
                drawn[:, patients] = times.reshape(rows, count)
            yield drawn

    def sums(self, values: NDArray) -> Array:
        """Sums over each patient's images of the ``values`` (M, N) of M models: (P, M)."""
        return np.stack([np.bincount(self.member, row) for row in values], axis=1)

    def patients_with(self, images: NDArray[np.bool_]) -> int:
        """How many patients have at least one of these images, (N,)."""
        return len(np.unique(self.member[images]))


def patient_weights(
    labels: NDArray[np.int64], clusters: NDArray | None, resamples: int, seed: int
) -> Iterator[Counts]:
    """Yield chunks (R, N) of how often each image counts when whole patients are resampled.

    ``clusters`` (N,) names each image's patient; None makes every image its own.
    """
    patients = PatientClusters.of(labels, clusters)
    for drawn in patients.draws(resamples, seed):
        yield drawn[:, patients.member]  # (R, P) → (R, N)


def replicate(
    metrics: Metrics, clusters: PatientClusters, resamples: int, seed: int
) -> dict[str, Array]:
    """Each metric of M models, (1 + R, M): first that of the sample, then those of the resamples.

    All metrics and models see the same resampled patients.
    """
    draws = chain([clusters.once], clusters.draws(resamples, seed))
    chunks = [metrics(drawn) for drawn in draws]
    # In one layout, hence order of sums: it decides whether a component is zero or rounds to it.
    return {
        name: np.ascontiguousarray(np.concatenate([chunk[name] for chunk in chunks]))
        for name in chunks[0]
    }


def auc_metric(clusters: PatientClusters, scores: Array) -> Metrics:
    """The AUC of models with ``scores`` (M, N)."""
    aucs = [auc_function(clusters.labels, row, clusters.member) for row in scores]
    return lambda drawn: {"auc": np.stack([auc(drawn) for auc in aucs], axis=1)}
