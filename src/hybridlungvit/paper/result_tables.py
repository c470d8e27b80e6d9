"""The tables of results. Every one says in its heading what its intervals cover."""

import re
from typing import Any

import pandas as pd

from hybridlungvit.config import CLASSES
from hybridlungvit.paper.booktabs import Table, label_of, spaced
from hybridlungvit.paper.contents import table
from hybridlungvit.paper.format import (
    POINT_NAMES,
    SUBGROUP_NAMES,
    format_interval,
    format_range,
    math_signed,
    metric_name,
    number,
    p_value,
    short_verdict,
    tex,
)
from hybridlungvit.paper.results import StudyResults


@table
def main(results: StudyResults) -> Table:
    """AUC of every variant with its interval, and the paired difference to the reference.

    Intervals cover patients and seeds; below the reference stands the ensemble of its seeds.
    """
    auc = rf"AUC ({results.level}\,\% CI)"
    rows = []
    for variant, record in results.metrics.items():
        row = {
            "Variant": label_of(results, variant),
            auc: format_interval(record["headline"]["auc"]),
            "Seed SD": number(record["headline"]["auc"]["sd"]),
        }
        rows.append(row | _difference(results, results.differences.get(variant), "AUC is"))
        if variant == results.study.reference and len(results.study.seeds) > 1:
            ensemble = format_interval(record["ensemble"]["auc"])
            rows.append({"Variant": r"\quad ensemble of its seeds", auc: ensemble})
    return pd.DataFrame(rows).fillna(""), "lcccccl", _exploratory(results, 7)


def _difference(
    results: StudyResults, difference: dict[str, Any] | None, verdict: str
) -> dict[str, str]:
    """A paired difference with its adjusted p and its verdict; the reference has none."""
    delta = rf"$\Delta$AUC ({results.level}\,\% CI)"
    if difference is None:
        return {delta: "reference", "$p$ (Holm)": "", "Detectable": "", verdict: ""}
    return {
        delta: format_interval(difference, show=math_signed),
        "$p$ (Holm)": _adjusted(difference),
        "Detectable": number(difference["detectable"]),
        verdict: short_verdict(difference["verdict"]),
    }


@table
def comparisons(results: StudyResults) -> Table:
    """Every comparison with the reference beside its cross-checks by DeLong and McNemar."""
    rows = []
    for variant, difference in results.differences.items():
        delong, calls = difference["delong"], difference["mcnemar"]["fixed"]
        rows.append(
            {
                "Variant": label_of(results, variant),
                "df": _freedom(difference),
                "$p$": p_value(difference["p_value"]),
                "$p$ (Holm)": _adjusted(difference),
                "Equivalence $p$ (Holm)": _adjusted(difference, "p_equivalence"),
                "Ensembles": math_signed(delong["estimate"]),
                "DeLong $p$": p_value(delong["p_value"]),
                "Only right": f"{calls['only_a']} / {calls['only_b']}",
                "Exact $p$": p_value(calls["p_exact"]),
                "Patients $p$": p_value(calls["p_clustered"]),
            }
        )
    notes = _at_bound(list(results.differences.values()), 10)
    return pd.DataFrame(rows), "lccccccccc", (*notes, *_exploratory(results, 10))


def _freedom(value: dict[str, Any]) -> str:
    """Degrees of freedom in print, marked where the seeds' component sits at its bound of zero."""
    if value["at_bound"] is None:  # no interval
        return "--"
    freedom = value["degrees_of_freedom"]
    text = r"$\infty$" if freedom is None else number(freedom, 1)
    return text + r"\rlap{$^0$}" if "seeds" in value["at_bound"] else text


def _at_bound(values: list[dict[str, Any]], columns: int) -> tuple[str, ...]:
    """A footnote where the mark of ``_freedom`` stands."""
    if not any("seeds" in (value["at_bound"] or ()) for value in values):
        return ()
    note = "$^0$ the component of the seeds is estimated as zero"
    return (rf"\multicolumn{{{columns}}}{{l}}{{{note}}}",)


def _adjusted(difference: dict[str, Any], name: str = "p_value") -> str:
    adjusted = difference[f"{name}_adjusted"]
    if adjusted is None:
        return rf"{p_value(difference[name])}\rlap{{$^*$}}"
    return p_value(adjusted)


def _exploratory(results: StudyResults, columns: int) -> tuple[str, ...]:
    """A footnote where comparisons lie outside the declared family."""
    if all(value["p_value_adjusted"] is not None for value in results.differences.values()):
        return ()
    note = "$^*$ exploratory: outside the declared family, not adjusted"
    return (rf"\multicolumn{{{columns}}}{{l}}{{{note}}}",)


@table
def metrics(results: StudyResults) -> Table:
    """All metrics of the reference: mean over seeds, ensemble and closed forms.

    The closed forms are clustered DeLong's (AUC) and Wilson's.
    """
    ensemble = results.reference["ensemble"]
    closed_forms = {"auc": ensemble["delong"], **ensemble["wilson"]}
    rows = []
    for name, value in results.reference["headline"].items():
        closed = closed_forms.get(name)
        rows.append(
            {
                "Metric": metric_name(name),
                "Mean over seeds": format_interval(value),
                "Seed SD": number(value["sd"]),
                "Range": _seed_range(value),
                "Ensemble": format_interval(ensemble[name]),
                "Closed form": "" if closed is None else format_interval(closed),
            }
        )
    return pd.DataFrame(rows), "lccccc"


def _seed_range(value: dict[str, Any]) -> str:
    return "--" if value["min"] is None else f"{number(value['min'])} to {number(value['max'])}"


def _intervals(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """Cells of metrics with their intervals, by their headings."""
    return {metric_name(name): format_interval(values[name]) for name in names}


@table
def operating(results: StudyResults) -> Table:
    """Every variant at the fixed threshold, with intervals over patients and seeds."""
    names = ("accuracy", "sensitivity", "specificity", "f1")
    rows = [
        {"Variant": label_of(results, variant)} | _intervals(record["headline"], names)
        for variant, record in results.metrics.items()
    ]
    return pd.DataFrame(rows), "lcccc"


@table
def points(results: StudyResults) -> Table:
    """The reference at each operating point, its thresholds frozen on validation images."""
    names = ("sensitivity", "specificity", "ppv", "npv")
    rows = []
    for point, values in results.reference["points"].items():
        seeds = results.reference["seeds"].values()
        thresholds = format_range(seed["points"][point]["threshold"] for seed in seeds)
        rows.append(
            {"Point": POINT_NAMES[point], "Thresholds": thresholds} | _intervals(values, names)
        )
    return pd.DataFrame(rows), "lccccc"


@table
def net_benefit(results: StudyResults) -> Table:
    """Net benefit of the reference at each operating point, and minus that of calling all."""
    rows = [
        {"Point": POINT_NAMES[point]} | _intervals(values, ("net_benefit", "net_benefit_over_all"))
        for point, values in results.reference["points"].items()
    ]
    return pd.DataFrame(rows), "lcc"


@table
def prevalence(results: StudyResults) -> Table:
    """Predictive values of the reference over a range of prevalences."""
    rows: list[dict[str, str]] = []
    for point, record in results.reference["points"].items():
        for i, values in enumerate(record["prevalences"]):
            row = {
                "Point": "" if i else spaced(rows) + POINT_NAMES[point],
                "Prevalence": rf"{100 * values['prevalence']:g}\,\%",
            }
            rows.append(row | _intervals(values, ("ppv", "npv")))
    return pd.DataFrame(rows), "lrcc"


@table
def calibration(results: StudyResults) -> Table:
    """Calibration of the reference before and after temperature scaling."""
    record = results.reference["calibration"]
    rows = []
    for name in ("ece", "slope", "intercept", "brier", "log_loss"):
        row = {"Measure": metric_name(name)}
        for layer, title in (("headline", "Mean over seeds"), ("ensemble", "Ensemble")):
            for state in ("before", "after"):
                row[f"{title}, {state}"] = format_interval(record[state][layer][name])
        rows.append(row)
    return pd.DataFrame(rows), "lcccc"


@table
def split(results: StudyResults) -> Table:
    """How much of the variance of the mean AUC comes from patients and how much from seeds."""
    rows = []
    for variant, record in results.metrics.items():
        auc, ensemble = record["headline"]["auc"], record["ensemble"]["auc"]
        rows.append(
            {
                "Variant": label_of(results, variant),
                "Mean": number(auc["estimate"]),
                "Seed SD": number(auc["sd"], 4),
                "Range": _seed_range(auc),
                "SE, patients": number(auc["se_patients"], 4),
                "SE, seeds": number(auc["se_seeds"], 4),
                "df": _freedom(auc),
                r"Seeds' share (\%)": number(seed_share(auc), 0),
                rf"Ensemble ({results.level}\,\% CI)": format_interval(ensemble),
            }
        )
    aucs = [record["headline"]["auc"] for record in results.metrics.values()]
    return pd.DataFrame(rows), "lcccccccc", _at_bound(aucs, 9)


def seed_share(auc: dict[str, Any]) -> float | None:
    """Share of the variance of a mean that is due to seeds, in percent."""
    if auc["se_patients"] is None or auc["sd"] is None:
        return None
    of_seeds, of_patients = auc["se_seeds"] ** 2, auc["se_patients"] ** 2
    return 100 * of_seeds / (of_seeds + of_patients) if of_seeds + of_patients else None


@table
def subgroups(results: StudyResults) -> Table:
    """The reference by kind, series of normal images and image quality: described, not compared."""
    rows: list[dict[str, str]] = []
    above, positive = None, "pn." if results.study.data.classes == CLASSES else "pos."
    for group in results.reference["subgroups"]:
        by = group["by"]
        rows.append(
            {
                "By": "" if by == above else spaced(rows) + SUBGROUP_NAMES[by],
                "Group": tex(_three_digits(group["group"])),
                f"Images ({positive})": f"{group['images']:,} ({group['pneumonia']:,})",
                "Patients": f"{group['patients']:,}",
                "AUC": format_interval(group["auc"]),
                # Empty where a group holds the whole class, whose value stands in another table.
                "Sensitivity": "" if by == "series" else format_interval(group["sensitivity"]),
                "Specificity": "" if by == "subtype" else format_interval(group["specificity"]),
            }
        )
        above = by
    return pd.DataFrame(rows), "llrrccc"


def _three_digits(group: str) -> str:
    """The bounds of a quarter with all their digits: "0.15 to 0.167" begins with 0.150."""
    if " to " not in group:
        return group
    return re.sub(r"\d+(?:\.\d+)?", lambda bound: f"{float(bound[0]):#.3g}".rstrip("."), group)
