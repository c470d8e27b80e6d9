"""How alike two heat maps are, and the mean of a measure over images with its interval."""

from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlungvit.config import Statistics
from hybridlungvit.evaluation.bootstrap import Array, patient_weights
from hybridlungvit.evaluation.intervals import percentile_interval

SIGMA, RADIUS = 1.5, 5  # the Gaussian window of Wang et al. 2004, 11 × 11 pixels
C1, C2 = 0.01**2, 0.03**2  # their constants for values in [0, 1]


def ssim(first: NDArray, second: NDArray) -> float:
    """Structural similarity (Wang et al. 2004) of two maps (H, W) with values in [0, 1].

    The mean over all windows that lie wholly inside; 1 for equal maps. That of scikit-image, with
    Gaussian weights, is the same mean and brings three more packages.
    """
    from scipy.ndimage import gaussian_filter  # takes long to import, as does scipy.stats

    def smooth(values: Array) -> Array:
        whole = gaussian_filter(values, SIGMA, radius=RADIUS)
        return whole[RADIUS:-RADIUS, RADIUS:-RADIUS]

    a, b = first.astype(np.float64), second.astype(np.float64)
    mean_a, mean_b = smooth(a), smooth(b)
    variances = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return float((luminance * (2 * covariance + C2) / (variances + C2)).mean())


def rank_correlation(first: NDArray, second: NDArray) -> float:
    """Spearman's rank correlation of two maps (H, W); 0 where a map is constant.

    A map without variation ranks nothing, and so agrees with no other.
    """
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second, axis=None).statistic)


def similarities(first: NDArray, second: NDArray) -> Array:
    """SSIM and rank correlation of N pairs of maps (N, H, W): (N, 2)."""
    pairs = zip(first, second, strict=True)
    return np.array([(ssim(a, b), rank_correlation(a, b)) for a, b in pairs])


def derangement(patients: NDArray, seed: int) -> NDArray[np.int64]:
    """For each of N ≥ 2 images another one, each used once: (N,) indices, seeded.

    No image meets one of its own patient, unless a patient has more than half of all images: the
    images are put in a random order of patients and moved on by the largest patient's count.
    """
    rng = np.random.default_rng([seed, 1])
    _, member, counts = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.argsort(rng.permutation(len(counts))[member], kind="stable")
    partner = np.empty(len(patients), np.int64)
    partner[order] = np.roll(order, min(counts.max(), len(patients) // 2))
    return partner


def mean_intervals(
    values: Array, table: pd.DataFrame, statistics: Statistics
) -> list[dict[str, float | None]]:
    """Mean of each column of ``values`` (N, M) over images, patients resampled: M intervals.

    ``table`` holds patient and label of the N images. A single patient of a class cannot be
    resampled: if no class has two, low and high are None. So is all without images.
    """
    if not len(values):
        return [{"estimate": None, "low": None, "high": None}] * values.shape[1]
    means = values.mean(axis=0)
    if table.groupby("label").patient.nunique().max() < 2:
        return [{"estimate": float(mean), "low": None, "high": None} for mean in means]
    labels, patients = table.label.to_numpy(), table.patient.to_numpy()
    chunks = patient_weights(labels, patients, statistics.resamples, statistics.seed)
    replicates = np.concatenate([w @ values / w.sum(axis=1, keepdims=True) for w in chunks])
    columns = zip(means, replicates.T, strict=True)
    return [asdict(percentile_interval(mean, column, statistics.level)) for mean, column in columns]
