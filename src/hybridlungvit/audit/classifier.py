"""The plain classifier by which every shortcut is judged, and what it reads of a file."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from hybridlungvit.io import StudyError

SHORTCUT_FOLDS = 5


def file_features(manifest: pd.DataFrame) -> pd.DataFrame:
    """Logarithms of width, height, aspect ratio and bytes: sizes spread by factors."""
    facts = manifest[["width", "height", "bytes"]].assign(aspect=manifest.width / manifest.height)
    return np.log(facts.clip(lower=1e-3))


def shortcut_model() -> Pipeline:
    """The logistic regression by which every shortcut is judged."""
    return make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
    )


def out_of_fold(
    features: NDArray[np.float64], labels: NDArray[np.int64], patients: NDArray, seed: int
) -> NDArray[np.float64]:
    """Each image's rank within its fold, (N,) in 0 to 1, by a model that has not seen its patient.

    By ``shortcut_model``; ties share their mean rank. Ranks, because the folds' models differ in
    their intercepts: where features tell nothing, pooled log-odds would tell the folds' shares of
    the classes instead, and the wrong way round.
    """
    model = shortcut_model()
    folding = StratifiedGroupKFold(
        shortcut_folds(labels, patients), shuffle=True, random_state=seed
    )
    ranks = np.empty(len(labels))
    for known, held_out in folding.split(features, labels, patients):
        model.fit(features[known], labels[known])
        scores = model.decision_function(features[held_out])
        ranks[held_out] = (rankdata(scores) - 0.5) / len(held_out)
    return ranks


def shortcut_folds(labels: NDArray[np.int64], patients: NDArray) -> int:
    """As many folds as the rarer class has patients, at most ``SHORTCUT_FOLDS``."""
    fewest = min(len(np.unique(patients[labels == label])) for label in (0, 1))
    if fewest < 2:
        raise StudyError("the audit needs at least two patients of each class in train/.")
    return min(SHORTCUT_FOLDS, fewest)
