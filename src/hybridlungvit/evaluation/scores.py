"""A variant's probabilities by split, its ensemble, and its operating points."""

import numpy as np
import pandas as pd

from hybridlungvit.config import Study
from hybridlungvit.errors import StudyError
from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.predictions import read_predictions
from hybridlungvit.evaluation.thresholds import choose_thresholds
from hybridlungvit.paths import Layout


def scores_on(
    study: Study, variant: str, layout: Layout, split: str = "test"
) -> tuple[pd.DataFrame, Array]:
    """The images of a split in a variant's predictions, and its seeds' probabilities, (K, N)."""
    tables = [read_predictions(study, variant, seed, layout) for seed in study.seeds]
    parts = [table[table.split == split].reset_index(drop=True) for table in tables]
    for seed, part in zip(study.seeds, parts, strict=True):
        if not part.path.equals(parts[0].path):
            raise StudyError(
                f"{layout.predictions(variant, seed)}: other images than those of seed "
                f"{study.seeds[0]}. Score both again."
            )
    return parts[0], np.stack([part.probability.to_numpy() for part in parts])


def with_ensemble(scores: Array) -> Array:
    """The seeds' probabilities and, as a last row, their mean: (K, N) → (K + 1, N)."""
    return np.concatenate([scores, scores.mean(axis=0, keepdims=True)])


class Thresholds:
    """The operating points of each row of scores: chosen on validation, frozen for the test."""

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
        self.rows = [choose_thresholds(self.labels, row, fixed, target) for row in self.scores]
        self.points = list(self.rows[0])
