"""The scored images as the bootstrap sees them: labels, patients, and sums by patient."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array, members
from hybridlungvit.evaluation.bootstrap import Counts, draw_patients, patient_strata


@dataclass(frozen=True)
class Sample:
    """N images of P patients."""

    labels: NDArray[np.int64]  # (N,)
    member: NDArray[np.int64]  # (N,), the index of each image's patient
    strata: NDArray[np.int64]  # (P,)

    @classmethod
    def of(cls, labels: NDArray[np.int64], patients: NDArray | None) -> "Sample":
        """From ``labels`` (N,) and patient names (N,); None makes every image its own patient."""
        labels = np.asarray(labels).astype(np.int64)
        member = members(patients, len(labels))
        return cls(labels, member, patient_strata(labels, member))

    @property
    def once(self) -> Counts:
        """The draw that takes every patient once: (1, P)."""
        return np.ones((1, len(self.strata)), np.int32)

    def draws(self, resamples: int, seed: int) -> Iterator[Counts]:
        """Chunks (R, P) of how often each patient is drawn; the same for every caller."""
        return draw_patients(self.strata, len(self.labels), resamples, seed)

    def sums(self, values: Array) -> Array:
        """Sum of ``values`` (N,) over each patient's images: (P,)."""
        return np.bincount(self.member, values, len(self.strata))

    def counts(self, images: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many of these images, (N,), each patient has: (P,)."""
        return np.bincount(self.member[images], minlength=len(self.strata))

    def patients_with(self, images: NDArray[np.bool_]) -> int:
        """How many patients have at least one of these images, (N,)."""
        return len(np.unique(self.member[images]))
