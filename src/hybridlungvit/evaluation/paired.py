"""Paired comparisons of two models on the same patients."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hybridlungvit.config import Statistics
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.power import minimal_detectable_difference
from hybridlungvit.evaluation.records import components_record
from hybridlungvit.evaluation.seeds import SeedsDifference, VarianceComponents

NEITHER = "not distinguishable from"
PLACE = ("above", "below")
HIGHER, LOWER, EQUIVALENT = "higher than", "lower than", "equivalent to"
UNDECIDED = "neither told apart from nor shown equivalent to"
POWER = 0.8
COMPONENTS = ("patients", "seeds", "interaction", "count")


def mcnemar(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], clusters: NDArray
) -> dict[str, float]:
    """Whether two models are right equally often on the same images, (N,) each.

    Images that ``only_a`` and ``only_b`` have right, and two p-values: ``p_exact`` is the exact
    binomial form of McNemar's test (1947), for which images are independent; ``p_clustered`` is
    that of Durkalski et al. (2003), for which patients are.
    """
    from scipy.stats import binomtest  # takes long to import

    member = PatientClusters.of(right_a, clusters).member
    gained, lost = right_a & ~right_b, right_b & ~right_a
    b, c = int(gained.sum()), int(lost.sum())
    exact = binomtest(b, b + c).pvalue if b + c else 1.0
    shares = np.bincount(member, 1.0 * gained - lost) / np.bincount(member)  # (patients,)
    spread = float((shares**2).sum())
    clustered = 2 * ndtr(-abs(shares.sum()) / np.sqrt(spread)) if spread else 1.0
    return {"only_a": b, "only_b": c, "p_exact": float(exact), "p_clustered": float(clustered)}


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment (1979) of a family of p-values, by name."""
    from statsmodels.stats.multitest import multipletests  # takes long to import, as scipy.stats

    if not p_values:
        return {}
    adjusted = multipletests(list(p_values.values()), method="holm")[1]
    return dict(zip(p_values, adjusted.tolist(), strict=True))


def place(interval: dict[str, Any], value: float = 0.0) -> str:
    """The words an interval supports: wholly above ``value``, wholly below it, or ``NEITHER``.

    An interval without bounds supports neither.
    """
    if interval["low"] is None:
        return NEITHER
    if interval["low"] > value:
        return PLACE[0]
    return PLACE[1] if interval["high"] < value else NEITHER


def decide(differences: dict[str, dict[str, Any]], family: list[str], level: float) -> None:
    """Add the adjusted p-values and the verdict to each ``difference_record``, in place.

    Holm's method runs over the ``family`` once for differences and once for equivalence; a
    comparison outside the family is exploratory: its p-values stay as they are and the adjusted
    ones are null. A difference that is found comes before equivalence, which it can go with.
    """
    for name in ("p_value", "p_equivalence"):
        adjusted = holm({variant: differences[variant][name] for variant in family})
        for variant, record in differences.items():
            record[f"{name}_adjusted"] = adjusted.get(variant)
    for record in differences.values():
        different, equivalent = (
            record[name] if record[f"{name}_adjusted"] is None else record[f"{name}_adjusted"]
            for name in ("p_value", "p_equivalence")
        )
        if different <= 1 - level:
            record["verdict"] = HIGHER if record["estimate"] > 0 else LOWER
        else:
            record["verdict"] = EQUIVALENT if equivalent <= 1 - level else UNDECIDED


def difference_record(difference: SeedsDifference, statistics: Statistics) -> dict[str, Any]:
    """What a result file says of a difference, with what a test of it could have found.

    ``detectable`` is the least true difference that the same design finds with a chance of 80 %,
    null where a single seed tells nothing of others. ``components_of`` reads the components back.
    """
    components = difference.components
    names = ("estimate", "low", "high", "p_value", "p_equivalence")
    detectable = None
    if components.count > 1 and components.variance > 0:
        level = statistics.level
        detectable = minimal_detectable_difference(components, components.count, POWER, level)
    return {name: getattr(difference, name) for name in names} | {
        "margin": statistics.margin,
        "detectable": detectable,
        **components_record(components),
        "components": {name: getattr(components, name) for name in COMPONENTS},
    }


def components_of(record: dict[str, Any]) -> VarianceComponents:
    """The components in a ``difference_record``, to plan other numbers of seeds with."""
    freedom = record["degrees_of_freedom"]
    return VarianceComponents(
        **record["components"],
        degrees_of_freedom=math.inf if freedom is None else freedom,
        at_bound=tuple(record["at_bound"]),
    )
