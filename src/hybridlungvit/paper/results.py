"""What the paper may say: the study's files gathered into one object, and numbers as text."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from hybridlungvit.config import Study
from hybridlungvit.io import read_table
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.io import StudyError
from hybridlungvit.evaluation.predictions import require_same
from hybridlungvit.explain.cases import read_focus, read_saliency
from hybridlungvit.io import file_sha256, read_json
from hybridlungvit.paths import Layout

Show = Callable[[float, int], str]
"""Prints a number with so many digits."""
SPLIT_NAMES = {"train": "Training", "val": "Validation", "test": "Test"}


@dataclass(frozen=True)
class Facts:
    study: Study
    layout: Layout
    manifest: pd.DataFrame
    masks: pd.DataFrame
    mask_quality: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    differences: dict[str, dict[str, Any]]
    errors: dict[str, Any]
    """Wrong calls on the test images, by variant and shared (``evaluation.errors``)."""
    other: dict[str, Any] | None
    """The same variants in another study, where there is one (``evaluation.other_study``)."""
    runs: dict[tuple[str, int], dict[str, Any]]
    """The run.json of each variant and seed; evaluation-only variants have their parent's."""
    histories: dict[tuple[str, int], pd.DataFrame]
    predictions: dict[tuple[str, int], dict[str, Any]]
    """The record beside each prediction file."""
    focus: dict[str, dict[str, Any]]
    """Lung focus of the reference and of the plain control, by variant."""
    saliency: dict[str, Any]
    """The checks of the reference's heat maps."""


def gather(study: Study, layout: Layout) -> Facts:
    """Read all results of a study; raises ``StudyError`` when metrics and predictions disagree."""
    metrics = {variant: current_metrics(study, variant, layout) for variant in study.variants}
    pairs = [(variant, seed) for variant in study.variants for seed in study.seeds]
    predictions = {
        pair: read_json(layout.predictions(*pair).with_suffix(".json")) for pair in pairs
    }
    comparisons = read_json(layout.comparisons)
    if comparisons["reference"] != study.reference:
        raise StudyError(
            f"{layout.comparisons}: compares with {comparisons['reference']!r}, but the reference "
            f"is {study.reference!r}. Run `compare` again."
        )
    if comparisons["family"] != study.comparison_family():
        raise StudyError(
            f"{layout.comparisons}: adjusted for {comparisons['family']}, but the family is "
            f"{study.comparison_family()}. Run `compare` again."
        )
    owners = {(variant, seed): (study.trained_as(variant), seed) for variant, seed in pairs}
    folders = {pair: layout.run(*owner) for pair, owner in owners.items()}
    return Facts(
        study=study,
        layout=layout,
        manifest=read_manifest(layout.manifest),
        masks=read_table(layout.mask_table, ("path", "confidence", "area", "cut")),
        mask_quality=_quality(layout),
        metrics=metrics,
        differences=comparisons["differences"],
        errors=comparisons["errors"],
        other=comparisons["other_study"],
        runs={pair: read_json(folder / "run.json") for pair, folder in folders.items()},
        histories={
            pair: read_table(folder / "history.csv", ("epoch", "val_auc"))
            for pair, folder in folders.items()
        },
        predictions=predictions,
        focus=read_focus(study, layout),
        saliency=read_saliency(study, layout),
    )


def current_metrics(study: Study, variant: str, layout: Layout) -> dict[str, Any]:
    """A variant's metrics; ``StudyError`` if they belong to other predictions or another config."""
    record = read_json(layout.metrics(variant))
    for seed in study.seeds:
        path = layout.predictions(variant, seed)
        scored = read_json(path.with_suffix(".json"))
        if not path.is_file():
            raise StudyError(f"{path}: not found. Run `score --variant {variant}`.")
        recorded = record["predictions_sha256"].get(str(seed), "none")
        require_same(layout.metrics(variant), f"predictions of seed {seed}", recorded,
                     file_sha256(path))  # fmt: skip
        require_same(path, "config", scored["config_sha256"], study.prediction_hash(variant))
    _require_settings(study, variant, record, layout)
    return record


def _quality(layout: Layout) -> dict[str, Any]:
    record = read_json(layout.mask_quality)
    require_same(layout.mask_quality, "masks", record["masks_sha256"],
                 file_sha256(layout.mask_table))  # fmt: skip
    return record


def _require_settings(study: Study, variant: str, record: dict[str, Any], layout: Layout) -> None:
    """Raise ``StudyError`` when metrics were computed with other settings than the study's."""
    expected = {
        "level": study.statistics.level,
        "resamples": study.statistics.resamples,
        "sensitivity_target": study.statistics.sensitivity_target,
        "threshold": study.recipe(variant).evaluation.threshold,
    }
    for key, value in expected.items():
        if record[key] != value:
            raise StudyError(
                f"{layout.metrics(variant)}: computed with {key} {record[key]}, the config says "
                f"{value}. Run `metrics --variant {variant}` again."
            )


def settings(facts: Facts) -> str:
    """What sets the other study apart: each setting with both of its values."""
    changes = facts.other["changes"] if facts.other else []
    parts = [
        rf"\texttt{{{tex(one['key'])}}} ({tex(one['there'])} there, {tex(one['here'])} here)"
        for one in changes
    ]
    return ", ".join(parts) if parts else "no setting"


def crowded(facts: Facts) -> bool:
    """Whether ROC curves hug the corner: the median AUC of the variants is above 0.9."""
    aucs = [record["headline"]["auc"]["estimate"] for record in facts.metrics.values()]
    return median(aucs) > 0.9


def number(value: float | None, digits: int = 3) -> str:
    """A number for print; a dash where there is none (no deviation from a single seed)."""
    return "--" if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """A difference for print, always with its sign, in math mode for a true minus."""
    return f"{value:+.{digits}f}"


def format_interval(interval: dict[str, Any], digits: int = 3, show: Show = number) -> str:
    """Estimate (low to high) in plain text or a table; dashes for what is undefined.

    ``show`` prints each of the three numbers, such as ``signed`` those of a difference.
    """
    if interval["estimate"] is None:
        return "--"
    bounds = "--"
    if interval["low"] is not None:
        bounds = f"{show(interval['low'], digits)} to {show(interval['high'], digits)}"
    return f"{show(interval['estimate'], digits)} ({bounds})"


def p_value(value: float) -> str:
    """A p-value with three digits, or the bound below which it lies."""
    return "$<0.001$" if value < 0.001 else f"{value:.3f}"


def tex_number(value: float, digits: int = 3) -> str:
    """A number for a sentence, with a true minus instead of a hyphen."""
    text = number(value, digits)
    return rf"\ensuremath{{{text}}}" if text.startswith("-") else text


def tex_signed(value: float, digits: int = 3) -> str:
    """A difference for a sentence, always with its sign."""
    return rf"\ensuremath{{{signed(value, digits)}}}"


def tex_interval(
    interval: dict[str, Any], level: float, digits: int = 3, show: Show = tex_number
) -> str:
    """An estimate with its interval for a sentence, as ``\\result`` prints those of variants.

    It says so where there is none. ``show`` prints each number, as in ``format_interval``.
    """
    if interval["estimate"] is None:
        return "undefined"
    value = show(interval["estimate"], digits)
    if interval["low"] is None:
        return f"{value} (no interval)"
    low, high = show(interval["low"], digits), show(interval["high"], digits)
    return rf"{value} ({100 * level:g}\,\%~CI {low} to~{high})"


def ended(verdict: str) -> str:
    """A verdict with nothing to follow: "higher" for "higher than"."""
    return verdict.removesuffix(" than").removesuffix(" from")


def tex(text: object) -> str:
    """Plain text made safe for TeX."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {sign: "\\" + sign for sign in "&%$#_{}"}
    return "".join(special.get(sign, sign) for sign in str(text))


def label_of(facts: Facts, variant: str) -> str:
    """A variant's name at the head of a table's row."""
    return tex(heading(facts.study.variants[variant].label))


def heading(label: str) -> str:
    """A name as it stands in a table, on an axis or in a legend: with a capital letter."""
    return label[:1].upper() + label[1:]


def omitted_rows(facts: Facts, columns: int) -> tuple[str, ...]:
    """A line at the foot of a table for each variant that the study leaves out."""
    return tuple(
        rf"\multicolumn{{{columns}}}{{l}}{{\texttt{{{tex(name)}}} left out: {tex(why)}}}"
        for name, why in facts.study.omitted.items()
    )
