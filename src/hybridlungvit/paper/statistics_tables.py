"""The tables of results. Every one says in its heading what its intervals cover."""

from typing import Any

import pandas as pd

from hybridlungvit.paper.results import (
    Facts,
    ended,
    format_interval,
    label_of,
    number,
    omitted_rows,
    p_value,
    signed,
)

POINTS = {"fixed": "Fixed", "youden": "Youden", "sensitive": "Sensitive"}
NAMES = {
    "auc": "AUC", "average_precision": "Average precision", "brier": "Brier score",
    "log_loss": "Log loss", "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "PPV", "npv": "NPV",
    "f1": "$F_1$", "mcc": "MCC", "ece": "ECE", "slope": "Calibration slope",
    "intercept": "Calibration intercept",
}  # fmt: skip
Table = tuple[pd.DataFrame, str] | tuple[pd.DataFrame, str, tuple[str, ...]]


def main(facts: Facts) -> Table:
    """AUC with the crossed interval, the reference's ensemble, and the paired differences."""
    level = _level(facts)
    auc, delta = f"AUC ({level} CI)", rf"$\Delta$AUC ({level} CI)"
    rows = []
    for variant, record in facts.metrics.items():
        row = {
            "Variant": label_of(facts, variant),
            auc: format_interval(record["headline"]["auc"]),
            "Seed SD": number(record["headline"]["auc"]["sd"]),
            delta: "reference",
            "$p$ (Holm)": "",
            "AUC is": "",
        }
        difference = facts.differences.get(variant)
        if difference is not None:
            row |= {
                delta: difference_text(difference),
                "$p$ (Holm)": _adjusted(difference),
                "AUC is": ended(difference["verdict"]),
            }
        rows.append(row)
        if variant == facts.study.reference and len(facts.study.seeds) > 1:
            ensemble = {"Variant": r"\quad ensemble of its seeds"}
            ensemble[auc] = format_interval(record["ensemble"]["auc"])
            rows.append(dict.fromkeys(row, "") | ensemble)
    return pd.DataFrame(rows), "lccccl", (*omitted_rows(facts, 6), *_outside(facts, 6))


def comparisons(facts: Facts) -> Table:
    """The differences to the reference with their cross-checks on the ensembles."""
    rows = []
    for variant, found in facts.differences.items():
        calls = found["mcnemar"]["fixed"]
        rows.append(
            {
                "Variant": label_of(facts, variant),
                rf"$\Delta$AUC ({_level(facts)} CI)": difference_text(found),
                "$p$": p_value(found["p_value"]),
                "$p$ (Holm)": _adjusted(found),
                r"Ensembles": f"${signed(found['delong']['estimate'])}$",
                "DeLong $p$": p_value(found["delong"]["p_value"]),
                "Only right": f"{calls['only_a']} / {calls['only_b']}",
                "Exact $p$": p_value(calls["p_exact"]),
                "Patients $p$": p_value(calls["p_clustered"]),
            }
        )
    return pd.DataFrame(rows), "lcccccccc", _outside(facts, 9)


def other_study(facts: Facts) -> Table:
    """The AUCs here and in the other study, and their paired differences."""
    if facts.other is None:
        return pd.DataFrame(), "l"
    rows = [
        {
            "Variant": label_of(facts, variant),
            f"AUC here ({_level(facts)} CI)": format_interval(
                facts.metrics[variant]["headline"]["auc"]
            ),
            f"AUC there ({_level(facts)} CI)": format_interval(found["there"]),
            rf"$\Delta$AUC ({_level(facts)} CI)": difference_text(found),
            "$p$ (Holm)": _adjusted(found),
            "AUC here is": ended(found["verdict"]),
        }
        for variant, found in facts.other["differences"].items()
    ]
    return pd.DataFrame(rows), "lccccl"


def metrics(facts: Facts) -> Table:
    """Every metric of the reference; closed forms are clustered DeLong (AUC) and Wilson's."""
    record = facts.metrics[facts.study.reference]
    rows = []
    for name, value in record["headline"].items():
        ensemble = record["ensemble"]
        closed = {"auc": ensemble["delong"], **ensemble["wilson"]}.get(name)
        rows.append(
            {
                "Metric": NAMES[name],
                "Mean over seeds": format_interval(value),
                "Seed SD": number(value["sd"]),
                "Range": _range(value),
                "Ensemble": format_interval(ensemble[name]),
                "Closed form": "" if closed is None else format_interval(closed),
            }
        )
    return pd.DataFrame(rows), "lccccc"


def operating(facts: Facts) -> Table:
    """Metrics of every variant at the fixed threshold, crossed intervals."""
    names = ("accuracy", "sensitivity", "specificity", "f1")
    rows = [
        {"Variant": label_of(facts, variant)}
        | {NAMES[name]: format_interval(record["headline"][name]) for name in names}
        for variant, record in facts.metrics.items()
    ]
    return pd.DataFrame(rows), "lcccc"


def points(facts: Facts) -> Table:
    """The reference at each operating point, thresholds frozen on validation; crossed intervals."""
    record = facts.metrics[facts.study.reference]
    rows = []
    for point, found in record["points"].items():
        chosen = [seed["points"][point]["threshold"] for seed in record["seeds"].values()]
        low, high = number(min(chosen)), number(max(chosen))
        rows.append(
            {
                "Point": POINTS[point],
                "Thresholds": low if low == high else f"{low} to {high}",
            }
            | {
                NAMES[name]: format_interval(found[name])
                for name in ("sensitivity", "specificity", "ppv", "npv")
            }
        )
    return pd.DataFrame(rows), "lccccc"


def prevalence(facts: Facts) -> Table:
    """Predictive values of the reference over prevalences, crossed intervals."""
    rows = []
    for point, record in facts.metrics[facts.study.reference]["points"].items():
        for value in record["prevalences"]:
            first = value is record["prevalences"][0]
            row = {
                "Point": spaced(rows) + POINTS[point] if first else "",
                "Prevalence": rf"{100 * value['prevalence']:g}\,\%",
            }
            rows.append(
                row | {NAMES[name]: format_interval(value[name]) for name in ("ppv", "npv")}
            )
    return pd.DataFrame(rows), "lrcc"


def calibration(facts: Facts) -> Table:
    """Calibration of the reference before and after temperature scaling."""
    record = facts.metrics[facts.study.reference]["calibration"]
    rows = []
    for name in ("ece", "slope", "intercept", "brier", "log_loss"):
        row = {"Measure": NAMES[name]}
        for layer, title in (("headline", "Mean over seeds"), ("ensemble", "Ensemble")):
            for state in ("before", "after"):
                row[f"{title}, {state}"] = format_interval(record[state][layer][name])
        rows.append(row)
    return pd.DataFrame(rows), "lcccc"


def seeds(facts: Facts) -> Table:
    """AUC of each single model, patients resampled."""
    rows = [
        {"Variant": label_of(facts, variant)}
        | {
            f"Seed {seed}": format_interval(values["auc"])
            for seed, values in record["seeds"].items()
        }
        for variant, record in facts.metrics.items()
    ]
    return pd.DataFrame(rows), "l" + "c" * len(facts.study.seeds)


def split(facts: Facts) -> Table:
    """How the AUC varies with seeds and with patients, and the ensemble's AUC."""
    rows = []
    for variant, record in facts.metrics.items():
        auc = record["headline"]["auc"]
        rows.append(
            {
                "Variant": label_of(facts, variant),
                "Mean": number(auc["estimate"]),
                "Seed SD": number(auc["sd"], 4),
                "Range": _range(auc),
                "SE, patients": number(auc["se_patients"], 4),
                "SE, seeds": number(auc["se_seeds"], 4),
                r"Seeds' share (\%)": number(seed_share(auc), 0),
                f"Ensemble ({_level(facts)} CI)": format_interval(record["ensemble"]["auc"]),
            }
        )
    return pd.DataFrame(rows), "lccccccc"


def seed_share(record: dict[str, Any]) -> float | None:
    """Share of the variance of a mean that is due to seeds, in percent."""
    if record["se_patients"] is None or record["sd"] is None:
        return None
    seeds, patients = record["se_seeds"] ** 2, record["se_patients"] ** 2
    return 100 * seeds / (seeds + patients) if seeds + patients else None


def difference_text(found: dict[str, Any]) -> str:
    """A signed difference with its interval."""
    return format_interval(found, show=lambda value, digits: f"${signed(value, digits)}$")


def spaced(rows: list[dict[str, str]]) -> str:
    """What parts a block of rows from those above."""
    return r"\addlinespace " if rows else ""


def _range(found: dict[str, Any]) -> str:
    return "--" if found["min"] is None else f"{number(found['min'])} to {number(found['max'])}"


def _adjusted(difference: dict[str, Any]) -> str:
    if difference["p_adjusted"] is None:
        return rf"{p_value(difference['p_value'])}\rlap{{$^*$}}"
    return p_value(difference["p_adjusted"])


def _outside(facts: Facts, columns: int) -> tuple[str, ...]:
    """A footnote where comparisons lie outside the declared family."""
    if all(found["p_adjusted"] is not None for found in facts.differences.values()):
        return ()
    note = "$^*$ exploratory: outside the declared family, not adjusted"
    return (rf"\multicolumn{{{columns}}}{{l}}{{{note}}}",)


def _level(facts: Facts) -> str:
    return rf"{100 * facts.study.statistics.level:g}\,\%"
