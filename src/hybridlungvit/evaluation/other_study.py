"""The same variants in another study of the same test images: what its settings change."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hybridlungvit.config import Recipe, Study
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.paired import decide, difference_record
from hybridlungvit.evaluation.predictions import scores_on
from hybridlungvit.evaluation.seeds import auc_difference_over_seeds, auc_over_seeds
from hybridlungvit.io import StudyError
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)

IMAGE = ["path", "sha256", "label", "patient"]


def other_files(other: Study, layout: Layout) -> list[Path]:
    """What a comparison reads of another study, or nothing as long as any of it is missing."""
    folder = replace(layout, study=other.study)
    tables = [folder.predictions(v, seed) for v in other.variants for seed in other.seeds]
    files = [folder.manifest, *tables, *(path.with_suffix(".json") for path in tables)]
    return files if all(path.is_file() for path in files) else []


def compare_with_other(study: Study, other: Study, layout: Layout) -> dict[str, Any] | None:
    """AUC of each variant here minus that of its namesake in ``other``, paired.

    Images, patients and seed numbers are the same on both sides (``auc_difference_over_seeds``). A
    namesake counts where its settings differ as those of the reference do. p-values are adjusted by
    Holm's method over these comparisons, a family of their own.

    Returns the other study's name, the settings that differ, and by variant both AUCs and the
    difference; None, with the reason in the log, where the other study has no predictions, other
    test images or other seeds. Raises ``StudyError`` when its predictions were altered or belong
    to another config.
    """
    folder = replace(layout, study=other.study)
    if reason := _incomparable(study, other, layout, folder):
        log.warning("other_study: not compared with %s: %s.", other.study, reason)
        return None
    statistics = study.statistics
    size = (statistics.resamples, statistics.level, statistics.seed)
    changes = _changes(study.recipe(study.reference), other.recipe(study.reference))
    differences = {}
    for variant in study.variants:
        if variant not in other.variants or changes != _changes(
            study.recipe(variant), other.recipe(variant)
        ):
            continue
        table, here = scores_on(study, variant, layout)
        labels, patients = table.label.to_numpy(), table.patient.to_numpy()
        there = _in_order_of(list(table.path), *scores_on(other, variant, folder))
        interval = auc_over_seeds(labels, there, patients, *size).interval
        recipes = study.recipe(variant), other.recipe(variant)
        same_runs = recipes[0].training_identity() == recipes[1].training_identity()
        difference = auc_difference_over_seeds(
            labels, here, there, patients, statistics.margin, *size, same_runs
        )
        record = difference_record(difference, statistics)
        differences[variant] = record | {"there": vars(interval)}
    decide(differences, list(differences), statistics.level)
    return {"study": other.study, "changes": changes, "differences": differences}


def _incomparable(study: Study, other: Study, layout: Layout, folder: Layout) -> str | None:
    """Why two studies cannot be compared, or None."""
    if other.study == study.study:
        raise StudyError(f"other_study: {other.study} is this study itself. Name another's config.")
    if not other_files(other, layout):
        return f"{folder.root} lacks its manifest or predictions"
    if other.seeds != study.seeds:
        return f"its seeds are {other.seeds}, here they are {study.seeds}"
    if study.reference not in other.variants:
        return f"it has no variant {study.reference}"
    images = []
    for results in (layout, folder):
        manifest = read_manifest(results.manifest)
        images.append(manifest[manifest.split == "test"][IMAGE].astype(str).sort_values("path"))
    if not np.array_equal(images[0].to_numpy(), images[1].to_numpy()):
        return "its test images, labels or patients are others"
    return None


def _in_order_of(paths: list[str], table: Any, scores: Any) -> Any:
    """The scores (K, N) of a table with its images in the order of ``paths``."""
    place = {path: i for i, path in enumerate(table.path)}
    return scores[:, [place[path] for path in paths]]


def _changes(here: Recipe, there: Recipe) -> list[dict[str, Any]]:
    """The settings behind predictions that differ between two recipes, each with both values."""
    first, second = (
        pd.json_normalize(recipe.prediction_identity()).to_dict("records")[0]
        for recipe in (here, there)
    )  # nested settings with dotted keys
    return [
        {"key": key, "here": first.get(key), "there": second.get(key)}
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    ]
