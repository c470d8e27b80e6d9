"""Paired comparisons of two models on the same patients."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hybridlungvit.config import Statistics
from hybridlungvit.evaluation.auc import Array, check_scores, members
from hybridlungvit.evaluation.bootstrap import auc_replicates
from hybridlungvit.evaluation.delong import delong_test
from hybridlungvit.evaluation.seeds import VarianceComponents, variance_components

NEITHER = "not distinguishable from"
PLACE = ("above", "below")
DIFFERENCE = ("higher than", "lower than")


@dataclass(frozen=True)
class Comparison:
    estimate: float
    low: float
    high: float
    p_value: float


def paired_split(
    labels: NDArray[np.int64], scores_a: Array, scores_b: Array, clusters: NDArray | None,
    resamples: int, seed: int,
) -> tuple[float, VarianceComponents]:  # fmt: skip
    """Mean over seeds of AUC of a minus AUC of b, and its variance by patients and seeds."""
    pairs = np.stack([np.atleast_2d(scores_a), np.atleast_2d(scores_b)])  # (2, K, N)
    for row in pairs.reshape(-1, pairs.shape[2]):
        labels, _ = check_scores(labels, row)
    count = pairs.shape[1]
    rows = pairs.reshape(2 * count, -1)  # (2K, N): the seeds of a, then those of b
    values, drawn = auc_replicates(labels, rows, clusters, resamples, seed)
    estimates = values[:count] - values[count:]
    split = variance_components(estimates, drawn[:, :count] - drawn[:, count:])
    return float(np.mean(estimates)), split


def auc_difference_over_seeds(
    labels: NDArray[np.int64],
    scores_a: Array,
    scores_b: Array,
    clusters: NDArray | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """AUC of a minus AUC of b, with interval and two-sided p-value.

    Scores are (N,) for one model each, or (K, N) for K training seeds, paired by row; then the mean
    over seeds is compared and the seeds' variance counts with that of the patients. Both models
    see the same resampled patients. Interval and p-value come from the same standard error and
    Student distribution (``seeds.variance_components``), hence never contradict each other. Raises
    ``StudyError`` for unusable input.

    For equal models p falls below 0.05 in 5.1 to 5.2 % of simulated test sets without seeds, where
    p is uniform (``benchmarks/coverage.py``). With seeds it is not quite: 7.2 % for two seeds and
    5.1 % for three at an AUC of 0.80, 3.4 to 5.3 % at 0.95, and 1.5 to 2.9 % at 0.99.
    """
    estimate, split = paired_split(labels, scores_a, scores_b, clusters, resamples, seed)
    return _comparison(estimate, split, level, resamples)


def _comparison(
    estimate: float, split: VarianceComponents, level: float, resamples: int
) -> Comparison:
    half = split.quantile(level) * split.error if split.error else 0.0
    low, high = max(-1.0, estimate - half), min(1.0, estimate + half)
    return Comparison(estimate, low, high, split.p_value(estimate, resamples))


@dataclass(frozen=True)
class McNemar:
    """How two models' calls differ: images only a and only b has right, and two p-values."""

    only_a: int
    only_b: int
    p_exact: float
    p_clustered: float


def mcnemar(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], clusters: NDArray) -> McNemar:
    """Whether two models are right equally often on the same images, (N,) each.

    ``p_exact`` is the exact binomial form of McNemar's test (1947), for which images are
    independent; ``p_clustered`` is that of Durkalski et al. (2003), for which patients are.
    """
    from scipy.stats import binomtest  # takes long to import

    member = members(clusters, len(right_a))
    gained = (right_a & ~right_b).astype(float)
    lost = (right_b & ~right_a).astype(float)
    b, c = int(gained.sum()), int(lost.sum())
    exact = binomtest(b, b + c).pvalue if b + c else 1.0
    shares = np.bincount(member, gained - lost) / np.bincount(member)  # (patients,)
    spread = float((shares**2).sum())
    clustered = 2 * ndtr(-abs(shares.sum()) / np.sqrt(spread)) if spread else 1.0
    return McNemar(b, c, float(exact), float(clustered))


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment (1979) of a family of p-values, by name."""
    from statsmodels.stats.multitest import multipletests  # takes long to import, as scipy.stats

    if not p_values:
        return {}
    adjusted = multipletests(list(p_values.values()), method="holm")[1]
    return dict(zip(p_values, adjusted.tolist(), strict=True))


def verdict(
    interval: dict[str, Any],
    value: float = 0.0,
    words: tuple[str, str] = PLACE,
    p_value: float = 0.0,
    level: float = 0.95,
) -> str:
    """The words an interval supports: wholly above ``value``, wholly below it, or ``NEITHER``.

    An interval without bounds supports neither. Where there is an adjusted ``p_value``, it must
    agree with the interval of this ``level``.
    """
    if interval["low"] is None or p_value > 1 - level:
        return NEITHER
    if interval["low"] > value:
        return words[0]
    return words[1] if interval["high"] < value else NEITHER


def compare_pair(
    labels: NDArray[np.int64], scores_a: Array, scores_b: Array, clusters: NDArray,
    thresholds: tuple[dict[str, float], dict[str, float]], statistics: Statistics,
) -> dict[str, Any]:  # fmt: skip
    """All that is said of two variants, a minus b, whose seeds' scores are (K, N) each.

    The headline is the paired difference of mean AUCs; cross-checks on the ensembles of seeds are
    the clustered DeLong test and McNemar's at each operating point of ``thresholds``.
    """
    size = (statistics.resamples, statistics.seed)
    estimate, split = paired_split(labels, scores_a, scores_b, clusters, *size)
    headline = _comparison(estimate, split, statistics.level, statistics.resamples)
    ensembles = scores_a.mean(axis=0), scores_b.mean(axis=0)
    tests = {}
    for point in thresholds[0]:
        right = [
            (scores >= own[point]) == (labels == 1)
            for scores, own in zip(ensembles, thresholds, strict=True)
        ]
        tests[point] = asdict(mcnemar(*right, clusters))
    return asdict(headline) | {
        "se_patients": float(np.sqrt(split.patients)),
        "se_seeds": float(np.sqrt(split.seeds)),
        "delong": asdict(delong_test(labels, *ensembles, clusters)),
        "mcnemar": tests,
    }
