"""Paired comparisons of two models on the same patients."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hybridlungvit.config import Statistics
from hybridlungvit.evaluation.auc import Array, members
from hybridlungvit.evaluation.delong import delong_test
from hybridlungvit.evaluation.seeds import auc_difference_over_seeds

NEITHER = "not distinguishable from"
PLACE = ("above", "below")
DIFFERENCE = ("higher than", "lower than")


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
    same_runs: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """All that is said of two variants, a minus b, whose seeds' scores are (K, N) each.

    The headline is the difference of mean AUCs; ``same_runs`` where both variants evaluate the same
    trained networks. Cross-checks on the ensembles of seeds are the clustered DeLong test and
    McNemar's at each operating point of ``thresholds``.
    """
    headline = auc_difference_over_seeds(
        labels, scores_a, scores_b, clusters, None, statistics.resamples, statistics.level,
        statistics.seed, same_runs,
    )  # fmt: skip
    ensembles = scores_a.mean(axis=0), scores_b.mean(axis=0)
    tests = {}
    for point in thresholds[0]:
        right = [
            (scores >= own[point]) == (labels == 1)
            for scores, own in zip(ensembles, thresholds, strict=True)
        ]
        tests[point] = asdict(mcnemar(*right, clusters))
    return {name: getattr(headline, name) for name in ("estimate", "low", "high", "p_value")} | {
        "se_patients": headline.components.patients_error,
        "se_seeds": headline.components.seeds_error,
        "delong": asdict(delong_test(labels, *ensembles, clusters)),
        "mcnemar": tests,
    }
