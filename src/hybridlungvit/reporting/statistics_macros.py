"""Numbers of the text about statistics: layers, operating points, calibration, subgroups."""

from collections.abc import Iterator
from typing import Any

from hybridlungvit.evaluation.subgroups import SECOND_SERIES
from hybridlungvit.reporting.facts import (
    Facts,
    crowded,
    number,
    p_value,
    settings,
    signed,
    tex,
    with_minus,
)
from hybridlungvit.reporting.facts import spoken as facts_spoken
from hybridlungvit.reporting.statistics_tables import seed_share


def statistics_given(facts: Facts) -> Iterator[tuple[str, str]]:
    """Keys for ``\\given``, on the reference unless they say otherwise."""
    study = facts.study
    record = facts.metrics[study.reference]
    auc = record["headline"]["auc"]
    yield "ensemble.auc", spoken(facts, record["ensemble"]["auc"])
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
            yield f"{point}.{name}", spoken(facts, found[name])
    yield from _calibration(facts, record["calibration"])
    for group in record["subgroups"]:
        if group["by"] == "series":
            key = "second" if group["group"].startswith(SECOND_SERIES) else "first"
            yield f"series.{key}", spoken(facts, group["specificity"])
        if group["by"] == "subtype":
            key = group["group"].lower()
            yield f"{key}.sensitivity", spoken(facts, group["sensitivity"])
            yield f"{key}.auc", spoken(facts, group["auc"])
    for variant, found in facts.differences.items():
        yield f"delong.p.{variant}", p_value(found["delong"]["p_value"])
    yield from _errors(facts)


def other_given(facts: Facts) -> Iterator[tuple[str, str]]:
    """The reference in the other study, where there is one."""
    if facts.other is None:
        return
    found = facts.other["differences"][facts.study.reference]
    yield "other.study", tex(facts.other["study"])
    yield "other.settings", settings(facts)
    yield "other.count", str(len(facts.other["differences"]))
    yield "other.auc", spoken(facts, found["there"])
    value, low, high = (rf"\ensuremath{{{signed(found[k])}}}" for k in ("estimate", "low", "high"))
    level = f"{100 * facts.study.statistics.level:g}"
    yield "other.difference", rf"{value} ({level}\,\%~CI {low} to~{high})"
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


def _calibration(facts: Facts, record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    values = list(record["temperatures"].values())
    low, high = number(min(values), 2), number(max(values), 2)
    yield "temperature", low if low == high else f"{low} to~{high}"
    yield "calibration.resamples", f"{record['resamples']:,}"
    for state in ("before", "after"):
        for name in ("ece", "slope"):
            yield f"{name}.{state}", spoken(facts, record[state]["headline"][name])


def spoken(facts: Facts, interval: dict[str, Any]) -> str:
    """An estimate with its interval for a sentence; an undefined one is said to be so."""
    if interval["estimate"] is None:
        return "undefined"
    if interval["low"] is None:
        return f"{with_minus(number(interval['estimate']))} (no interval)"
    return facts_spoken(interval, facts.study.statistics.level)
