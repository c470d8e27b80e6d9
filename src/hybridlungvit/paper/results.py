"""What the paper may say: all files of a study, read and checked against each other."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from hybridlungvit.config import CLASSES, Study
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.predictions import predictions_sha256, require_same
from hybridlungvit.explain.cases import read_focus, read_saliency
from hybridlungvit.io import Record, StudyError, file_sha256, read_json, read_table
from hybridlungvit.paper.format import heading, tex
from hybridlungvit.paths import Layout


@dataclass(frozen=True)
class StudyResults:
    study: Study
    layout: Layout
    manifest: pd.DataFrame
    masks: pd.DataFrame
    mask_quality: Record
    audit: Record
    audit_results: Record
    metrics: dict[str, Record]
    differences: dict[str, dict[str, Any]]
    trend: Record | None
    """How the AUC changes with the displacement of the cut (``evaluation.compare``)."""
    errors: dict[str, Any]
    """Wrong calls on the test images, by variant and shared (``evaluation.compare``)."""
    runs: dict[tuple[str, int], Record]
    """The run.json of each variant and seed; evaluation-only variants have their parent's."""
    histories: dict[tuple[str, int], pd.DataFrame]
    predictions: dict[tuple[str, int], Record]
    """The record beside each prediction file."""
    focus: dict[str, Record]
    """Lung focus of the reference and of the plain control, by variant."""
    saliency: Record
    """The checks of the reference's heat maps."""

    @property
    def reference(self) -> Record:
        """The metrics of the reference."""
        return self.metrics[self.study.reference]

    def class_name(self, name: str) -> str:
        """A class of the records as print calls it, with a capital letter; other words as well."""
        words = dict(zip(CLASSES, self.study.data.class_words, strict=True))
        return heading(tex(words.get(name.upper(), name)))

    @property
    def shift_names(self) -> dict[str, str]:
        """In print, the groups of images among which the test set is told from the rest."""
        return {"all": "All images"} | {n: f"{self.class_name(n)} only" for n in CLASSES}

    @property
    def level(self) -> str:
        """The level of the intervals in per cent, without the sign."""
        return f"{100 * self.study.statistics.level:g}"


def read_results(study: Study, layout: Layout) -> StudyResults:
    """Read all results of a study; raises ``StudyError`` when they do not belong together."""
    metrics = {variant: current_metrics(study, variant, layout) for variant in study.variants}
    comparisons = current_comparisons(study, layout)
    quality = read_json(layout.mask_quality)
    require_same(
        layout.mask_quality, "masks", quality["masks_sha256"], file_sha256(layout.mask_table)
    )
    audit, audit_results = audit_records(study, layout)
    pairs = [(variant, seed) for variant in study.variants for seed in study.seeds]
    folders = {(v, seed): layout.run(study.trained_as(v), seed) for v, seed in pairs}
    return StudyResults(
        study=study,
        layout=layout,
        manifest=read_manifest(layout.manifest),
        masks=read_table(layout.mask_table, ("path", "confidence", "area", "cut")),
        mask_quality=quality,
        audit=audit,
        audit_results=audit_results,
        metrics=metrics,
        differences=comparisons["differences"],
        trend=comparisons["trend"],
        errors=comparisons["errors"],
        runs={pair: read_json(folder / "run.json") for pair, folder in folders.items()},
        histories={
            pair: read_table(folder / "history.csv", ("epoch", "val_auc"))
            for pair, folder in folders.items()
        },
        predictions={p: read_json(layout.predictions(*p).with_suffix(".json")) for p in pairs},
        focus=read_focus(study, layout),
        saliency=read_saliency(study, layout),
    )


def current_metrics(study: Study, variant: str, layout: Layout) -> Record:
    """A variant's metrics; ``StudyError`` if they belong to other predictions or another config."""
    record = read_json(layout.metrics(variant))
    for seed in study.seeds:
        path = layout.predictions(variant, seed)
        scored = read_json(path.with_suffix(".json"))
        if not path.is_file():
            raise StudyError(f"{path}: not found. Run `score --variant {variant}`.")
        _require_predictions(layout.metrics(variant), record, seed, path)
        require_same(path, "config", scored["config_sha256"], study.prediction_hash(variant))
    again = f"`metrics --variant {variant}`"
    if set(record["predictions_sha256"]) != set(map(str, study.seeds)):
        raise StudyError(
            f"{layout.metrics(variant)}: computed over seeds "
            f"{', '.join(record['predictions_sha256'])}, which are not those of the config. "
            f"Run {again} again."
        )
    settings = study.statistics.model_dump(include={"level", "resamples", "sensitivity_target"})
    settings["threshold"] = study.recipe(variant).evaluation.threshold
    _require_settings(layout.metrics(variant), record, settings, again)
    return record


def current_comparisons(study: Study, layout: Layout) -> Record:
    """The comparisons; ``StudyError`` if they belong to other predictions or another config."""
    record = read_json(layout.comparisons)
    for name, stored, expected in (
        ("reference", record["reference"], study.reference),
        ("family", record["family"], study.comparison_family()),
        *(("margin", d["margin"], study.statistics.margin) for d in record["differences"].values()),
    ):
        if stored != expected:
            raise StudyError(
                f"{layout.comparisons}: compared with the {name} {stored!r}, but the {name} is "
                f"{expected!r}. Run `compare` again."
            )
    settings = study.statistics.model_dump(include={"level", "resamples"})
    _require_settings(layout.comparisons, record, settings, "`compare`")
    current = predictions_sha256(study, layout)
    require_same(layout.comparisons, "predictions", record["predictions_sha256"], current)
    return record


def audit_records(study: Study, layout: Layout) -> tuple[Record, Record]:
    """Both records of the audit, after checking that they belong to manifest, masks and config.

    Shortcuts of what is the same in all images, at chance by construction, are left out; those of
    the masks join the others.
    """
    audit, results = read_json(layout.audit), read_json(layout.audit_results)
    quality = read_json(layout.mask_quality)
    manifest = file_sha256(layout.manifest)
    settings = study.statistics.model_dump(include={"level", "resamples"})
    for path, record in ((layout.audit, audit), (layout.audit_results, results)):
        require_same(path, "manifest", record["manifest_sha256"], manifest)
        _require_settings(path, record, settings, "its stage")
    require_same(layout.mask_quality, "manifest", quality["manifest_sha256"], manifest)
    for seed in study.seeds:
        path = layout.predictions(study.reference, seed)
        _require_predictions(layout.audit_results, results, seed, path)
    masks = {
        "masks": quality["shortcut"]["auc"],
        "confidence": results["mask_confidence"]["development"],
    }
    audit["shortcuts"] = {
        name: auc
        for name, auc in (audit["shortcuts"] | masks).items()
        if auc is not None and auc["low"] < auc["high"]
    }
    return audit, results


def _require_predictions(path: Path, record: Record, seed: int, predictions: Path) -> None:
    recorded = record["predictions_sha256"].get(str(seed), "none")
    require_same(path, f"predictions of seed {seed}", recorded, file_sha256(predictions))


def _require_settings(path: Path, record: Record, settings: dict[str, Any], again: str) -> None:
    for key, value in settings.items():
        if record[key] != value:
            raise StudyError(
                f"{path}: computed with {key} {record[key]}, the config says {value}. "
                f"Run {again} again."
            )


def detectable_apart(results: StudyResults) -> list[float]:
    """The minimal detectable differences of models that were trained apart from the reference.

    Two evaluations of the same weights differ less than two trainings.
    """
    study = results.study
    return [
        difference["detectable"]
        for variant, difference in results.differences.items()
        if difference["detectable"]
        and study.trained_as(variant) != study.trained_as(study.reference)
    ]


def needs_roc_inset(results: StudyResults) -> bool:
    """Whether ROC curves hug the corner: the median AUC of the variants is above 0.9."""
    return median(r["headline"]["auc"]["estimate"] for r in results.metrics.values()) > 0.9


CUT_KEYS = ("cut", "cut_shift", "mask")


def cut_distances(results: StudyResults) -> dict[str, float | None]:
    """Mean distance of a variant's cut from the reference's on test images, in % of the width.

    Of the variants that differ from the reference in where the cut lies and in nothing else; None
    where nothing is cut. Another patient's cut is that of any test image, a random one lies
    anywhere in the middle half of the width. Empty where the reference has no cut of its own.
    """
    study = results.study
    reference = study.recipe(study.reference)
    if reference.model.cut == "none" or reference.model.mask != "own":
        return {}
    test = results.manifest.path[results.manifest.split == "test"]
    cuts = results.masks.cut[results.masks.path.isin(test)].to_numpy()
    anywhere = np.linspace(0.25, 0.75, 501)
    own = np.full_like(cuts, 0.5) if reference.model.cut == "midline" else cuts
    own = own + reference.model.cut_shift
    distances: dict[str, float | None] = {}
    for variant in results.differences:
        recipe = study.recipe(variant)
        model = recipe.model
        kept = {key: getattr(reference.model, key) for key in CUT_KEYS}
        if recipe.model_copy(update={"model": model.model_copy(update=kept)}) != reference:
            continue
        if model.cut == "none":
            distances[variant] = None
            continue
        others = {"own": cuts[:, None], "other": cuts[None], "random": anywhere[None]}[model.mask]
        if model.cut == "midline":
            others = np.array([[0.5]])
        moved = np.abs(others + model.cut_shift - own[:, None])
        distances[variant] = 100 * float(moved.mean())
    return distances
