"""Prediction files, read back only if they belong to the config, and what follows from them.

A variant's probabilities by split, its ensemble, and its operating points.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlungvit.config import Study
from hybridlungvit.evaluation.auc import Array, check_scores
from hybridlungvit.io import StudyError, file_sha256, read_json, read_table, value_sha256
from hybridlungvit.paths import Layout

COLUMNS = ["path", "patient", "split", "label", "subtype", "probability"]
SEGMENTED = {"dice": "lung_dice", "loss": "lung_loss"}
"""Columns of a variant with a segmentation head, by the name of their metric."""


def require_same(where: object, what: str, recorded: str, current: str) -> None:
    """Raise ``StudyError`` naming both hashes when a result belongs to another input."""
    if recorded != current:
        # Commands that take a study's name read its file alone.
        whole = ", with `weights` in it if the run was called with it," if what == "config" else ""
        raise StudyError(
            f"{where}: made from {what} {str(recorded)[:12]}, but the current {what} is "
            f"{current[:12]}. Restore that one{whole} or run this stage again."
        )


def evaluated_from(study: Study, owner: str) -> list[str]:
    """The variants that share the checkpoints of a trained one: itself and evaluation-only ones."""
    return [variant for variant in study.variants if study.trained_as(variant) == owner]


def read_predictions(study: Study, variant: str, seed: int, layout: Layout) -> pd.DataFrame:
    """Read predictions after checking that they belong to the current config and are unaltered."""
    path = layout.predictions(variant, seed)
    record = read_json(path.with_suffix(".json"))
    require_same(path, "config", record["config_sha256"], study.prediction_hash(variant))
    types = dict.fromkeys(COLUMNS, str) | {"label": int, "probability": float}
    table = read_table(path, COLUMNS, types)
    require_same(path, "file", record["predictions_sha256"], file_sha256(path))
    return table


def _tables_on(study: Study, variant: str, layout: Layout, split: str) -> list[pd.DataFrame]:
    """A variant's predictions for a split, by seed, all of the same images."""
    parts = []
    for seed in study.seeds:
        table = read_predictions(study, variant, seed, layout)
        parts.append(table[table.split == split].reset_index(drop=True))
        if not parts[-1].path.equals(parts[0].path):
            raise StudyError(
                f"{layout.predictions(variant, seed)}: other images than those of seed "
                f"{study.seeds[0]}. Score both again."
            )
    return parts


def segmentations_on(study: Study, variant: str, layout: Layout) -> dict[str, Array] | None:
    """Dice and loss of the segmentation head on the test images, (K, N) each, by name.

    In the order of ``scores_on``. None where the variant has no such head, or was scored by a
    version that did not evaluate it.
    """
    if study.recipe(variant).training.lambda_seg == 0:
        return None
    parts = _tables_on(study, variant, layout, "test")
    if any(column not in part for part in parts for column in SEGMENTED.values()):
        return None
    return {
        name: np.stack([part[column].to_numpy(float) for part in parts])
        for name, column in SEGMENTED.items()
    }


def scores_on(
    study: Study, variant: str, layout: Layout, split: str = "test"
) -> tuple[pd.DataFrame, Array]:
    """The images of a split in a variant's predictions, and its seeds' probabilities, (K, N)."""
    parts = _tables_on(study, variant, layout, split)
    return parts[0], np.stack([part.probability.to_numpy() for part in parts])


def unreported(study: Study, layout: Layout) -> list[Path]:
    """Stored predictions of seeds and variants that the config neither reports nor omits."""
    reported = {layout.predictions(v, seed) for v in study.variants for seed in study.seeds}
    stored = {*layout.root.glob("predictions/*/seed-*.csv")} - reported
    return sorted(path for path in stored if path.parent.name not in study.omitted)


def predictions_sha256(study: Study, layout: Layout) -> str:
    """One hash over all prediction files of a study."""
    pairs = [(variant, seed) for variant in study.variants for seed in study.seeds]
    return value_sha256([file_sha256(layout.predictions(*pair)) for pair in pairs])


def with_ensemble(scores: Array) -> Array:
    """The seeds' probabilities and, as a last row, their mean: (K, N) → (K + 1, N)."""
    return np.concatenate([scores, scores.mean(axis=0, keepdims=True)])


def rates(labels: NDArray[np.int64], scores: Array) -> tuple[Array, Array, Array]:
    """Candidate thresholds, ascending, with sensitivity and specificity of ``score >= threshold``.

    A candidate lies midway between two neighbouring scores, so that it favours neither; the lowest
    is the lowest score. Raises ``StudyError`` for unusable input.
    """
    labels, scores = check_scores(labels, scores)
    values, group = np.unique(scores, return_inverse=True)
    positive = np.bincount(group, labels)
    negative = np.bincount(group, 1 - labels)
    thresholds = np.r_[values[0], (values[1:] + values[:-1]) / 2]
    sensitivity = positive[::-1].cumsum()[::-1] / positive.sum()
    specificity = np.r_[0, negative.cumsum()[:-1]] / negative.sum()
    return thresholds, sensitivity, specificity


def youden_threshold(labels: NDArray[np.int64], scores: Array) -> float:
    """The threshold of the largest sensitivity + specificity (Youden 1950), lowest of equals."""
    thresholds, sensitivity, specificity = rates(labels, scores)
    index = sensitivity + specificity
    return float(thresholds[np.flatnonzero(index >= index.max() - 1e-12)[0]])


def sensitive_threshold(labels: NDArray[np.int64], scores: Array, target: float) -> float:
    """The highest threshold whose sensitivity is at least ``target``."""
    thresholds, sensitivity, _ = rates(labels, scores)
    return float(thresholds[np.flatnonzero(sensitivity >= target - 1e-12)[-1]])


class Thresholds:
    """The operating points, chosen on validation and frozen for the test.

    ``points`` holds the thresholds (K + 1,) of each by name; ``scores`` (K + 1, V) and ``labels``
    (V,) are the seeds' probabilities and the ensemble's on validation images, and their classes.
    """

    def __init__(self, study: Study, variant: str, layout: Layout) -> None:
        table, scores = scores_on(study, variant, layout, "val")
        fixed = study.recipe(variant).evaluation.threshold
        target = study.statistics.sensitivity_target
        self.labels, self.scores = table.label.to_numpy(), with_ensemble(scores)
        if set(self.labels) != {0, 1}:
            raise StudyError(
                f"{layout.predictions(variant, study.seeds[0])}: the validation images must hold "
                "both classes to choose a threshold on. Lower data.validation_folds."
            )
        by_row = {
            "fixed": [fixed for _ in self.scores],
            "youden": [youden_threshold(self.labels, row) for row in self.scores],
            "sensitive": [sensitive_threshold(self.labels, row, target) for row in self.scores],
        }
        self.points = {point: np.array(thresholds) for point, thresholds in by_row.items()}
