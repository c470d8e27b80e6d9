"""Numbers of the text about statistics: layers, operating points, calibration, subgroups."""

from collections.abc import Iterator
from typing import Any

from hybridlungvit.evaluation.subgroups import SECOND_SERIES
from hybridlungvit.paper.results import (
    Facts,
    crowded,
    number,
    p_value,
    settings,
    tex,
    tex_interval,
    tex_signed,
)
from hybridlungvit.paper.statistics_tables import seed_share


def statistics_given(facts: Facts) -> Iterator[tuple[str, str]]:
    """Keys for ``\\given``, on the reference unless they say otherwise."""
    study = facts.study
    record, level = facts.metrics[study.reference], study.statistics.level
    auc = record["headline"]["auc"]
    yield "ensemble.auc", tex_interval(record["ensemble"]["auc"], level)
    if crowded(facts):
        yield "roc.corner", "shown"
    yield "seeds.share", number(seed_share(auc), 0)
    yield "sensitivity.target", f"{100 * study.statistics.sensitivity_target:g}"
    family = study.comparison_family()
    yield "family.size", str(len(family))
    yield "family", ", ".join(tex(study.variants[name].label) for name in family)
    for point, found in record["points"].items():
        chosen = [seed["points"][point]["threshold"] for seed in record["seeds"].values()]
        low, high = number(min(chosen)), number(max(chosen))
        yield f"{point}.threshold", low if low == high else f"{low} to~{high}"
        for name in ("sensitivity", "specificity"):
            yield f"{point}.{name}", tex_interval(found[name], level)
    yield from _calibration(record["calibration"], level)
    for group in record["subgroups"]:
        if group["by"] == "series":
            key = "second" if group["group"].startswith(SECOND_SERIES) else "first"
            yield f"series.{key}", tex_interval(group["specificity"], level)
        if group["by"] == "subtype":
            key = group["group"].lower()
            yield f"{key}.sensitivity", tex_interval(group["sensitivity"], level)
            yield f"{key}.auc", tex_interval(group["auc"], level)
    for variant, found in facts.differences.items():
        yield f"delong.p.{variant}", p_value(found["delong"]["p_value"])
    yield from _errors(facts)


def other_given(facts: Facts) -> Iterator[tuple[str, str]]:
    """The reference in the other study, where there is one."""
    if facts.other is None:
        return
    found, level = facts.other["differences"][facts.study.reference], facts.study.statistics.level
    yield "other.study", tex(facts.other["study"])
    yield "other.settings", settings(facts)
    yield "other.count", str(len(facts.other["differences"]))
    yield "other.auc", tex_interval(found["there"], level)
    yield "other.difference", tex_interval(found, level, show=tex_signed)
    yield "other.verdict", found["verdict"]


def _errors(facts: Facts) -> Iterator[tuple[str, str]]:
    own = facts.errors["variants"][facts.study.reference]
    for key in ("images", "false_positives", "false_negatives", "every_seed", "some_seed"):
        yield f"errors.{key}", f"{own[key]:,}"
    if own["between_seeds"]:
        low, high = own["between_seeds"]
        yield "errors.between", f"{low:,}" if low == high else f"{low:,} to~{high:,}"
    yield "errors.disputed", f"{own['some_seed'] - own['every_seed']:,}"
    for key in ("every_variant", "every_variant_false_positives", "some_variant"):
        yield f"errors.{key}", f"{facts.errors[key]:,}"
    if facts.errors["every_variant"]:
        yield "errors.shared", "some"


def _calibration(record: dict[str, Any], level: float) -> Iterator[tuple[str, str]]:
    values = list(record["temperatures"].values())
    low, high = number(min(values), 2), number(max(values), 2)
    yield "temperature", low if low == high else f"{low} to~{high}"
    yield "calibration.resamples", f"{record['resamples']:,}"
    for state in ("before", "after"):
        for name in ("ece", "slope"):
            yield f"{name}.{state}", tex_interval(record[state]["headline"][name], level)
