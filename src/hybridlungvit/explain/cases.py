"""Which cases and variants are explained, and reading the records back. Needs no torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlungvit.config import Study
from hybridlungvit.evaluation.predictions import require_same
from hybridlungvit.io import StudyError, file_sha256, read_json
from hybridlungvit.paths import Layout

RULES = ("surest right", "surest wrong", "nearest the threshold")
COMPARED_SEEDS = 5  # of the reference, whose maps are compared: ten pairs, and each seed a training
TARGET = 1  # the class whose heat is shown and measured: pneumonia


def choose_cases(table: pd.DataFrame, threshold: float) -> Iterator[tuple[int, str]]:
    """Row index and rule of the cases to show: three for each class, the class's order.

    Surest right and surest wrong: the most extreme probability on that side of the threshold;
    nearest: the smallest distance to it. A rule without a case (no error made) yields nothing.
    """
    for label in (0, 1):
        rows = table[table.label == label]
        toward = rows.probability if label else 1 - rows.probability
        right = (rows.probability >= threshold) == bool(label)
        distance = (rows.probability - threshold).abs()
        candidates = (toward[right], 1 - toward[~right], -distance)
        for rule, values in zip(RULES, candidates, strict=True):
            if len(values):
                yield int(values.idxmax()), rule


def focus_variants(study: Study) -> list[str]:
    """Variants whose lung focus is measured: the reference and the first plain control."""
    plain = [v for v in study.trained_variants() if study.recipe(v).model.head == "linear"]
    return list(dict.fromkeys([study.reference, *plain[:1]]))


def other_variants(study: Study, variant: str) -> list[str]:
    """The other trained variants, whose maps are shown beside those of ``variant``."""
    return [other for other in study.trained_variants() if other != study.trained_as(variant)]


def subsample(study: Study, count: int) -> NDArray[np.int64]:
    """The test images, by row, that the costly checks look at: seeded, in ascending order."""
    rng = np.random.default_rng(study.explanation.seed)
    chosen = rng.choice(count, min(study.explanation.subsample, count), replace=False)
    return np.sort(chosen)


def settings(study: Study, variant: str) -> dict[str, Any]:
    """The values a record was computed with, for the record and for checking it."""
    return {
        "level": study.statistics.level,
        "resamples": study.statistics.resamples,
        "threshold": study.recipe(variant).evaluation.threshold,
        "explanation": study.explanation.model_dump(mode="json"),
    }


def read_focus(study: Study, layout: Layout) -> dict[str, dict[str, Any]]:
    """The lung-focus records of a study, by variant; raises ``StudyError`` if out of date."""
    paths = {v: layout.focus(v).with_suffix(".json") for v in focus_variants(study)}
    return {v: _read(study, v, layout, path) for v, path in paths.items()}


def read_saliency(study: Study, layout: Layout) -> dict[str, Any]:
    """The record of the reference's saliency checks; raises ``StudyError`` if out of date."""
    return _read(study, study.reference, layout, layout.saliency(study.reference))


def _read(study: Study, variant: str, layout: Layout, path: Path) -> dict[str, Any]:
    record = read_json(path)
    predictions = file_sha256(layout.predictions(variant, study.seeds[0]))
    require_same(path, "predictions", record["predictions_sha256"], predictions)
    for key, value in settings(study, variant).items():
        if record[key] != value:
            raise StudyError(
                f"{path}: computed with {key} {record[key]}, the study says {value}. "
                f"Run `explain --variant {variant}` again."
            )
    return record
