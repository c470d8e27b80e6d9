"""The price of leakage: how much a split by image flatters a model, measured with two plain ones.

The same development images are predicted twice out of fold, with folds drawn by image and with
folds drawn by patient; only the first lets a model see other images of the patient it is asked
about. Logistic regression can hardly recognise a child, nearest neighbours do little else.
"""

from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hybridlungvit.audit.classifier import shortcut_folds
from hybridlungvit.config import Statistics
from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.seeds import auc_difference_over_seeds, auc_interval, auc_over_seeds

PIXELS = 16  # side of the reduced image
REPEATS = 3  # partitions into folds
NEIGHBOURS = 5
PENALTY = 0.01  # scikit-learn's C: strong shrinkage for 256 correlated pixels


MODELS: dict[str, ClassifierMixin] = {
    "logistic": make_pipeline(
        StandardScaler(), LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=1000)
    ),
    "neighbours": KNeighborsClassifier(NEIGHBOURS, weights="distance", algorithm="brute"),
}
"""Unfitted; ``clone`` them."""


def pixel_features(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Images uint8 (N, S, S) reduced to ``PIXELS`` squared numbers of mean 0 and SD 1 each: (N, D).

    Standardised by image, so that exposure tells nothing.
    """
    side = (PIXELS, PIXELS)
    small = np.stack([cv2.resize(i, side, interpolation=cv2.INTER_AREA) for i in images])
    flat = small.reshape(len(small), -1).astype(np.float64)  # (N, D)
    flat -= flat.mean(axis=1, keepdims=True)
    deviations = flat.std(axis=1, keepdims=True)
    return flat / np.where(deviations > 0, deviations, 1)


def price_of_leakage(
    manifest: pd.DataFrame, features: NDArray[np.float64], statistics: Statistics, seed: int
) -> dict[str, Any]:
    """For each model the AUC on validation by image, by patient and on test, with intervals.

    ``price`` is by image minus by patient, paired. Its interval and those of the two validation
    AUCs resample patients and partitions; the one of the test AUC resamples patients.
    """
    test = (manifest.split == "test").to_numpy()
    labels, patients = manifest.label.to_numpy(), manifest.patient.to_numpy()
    x, y, clusters = features[~test], labels[~test], patients[~test]
    folds = shortcut_folds(y, clusters)
    size = (statistics.resamples, statistics.level, statistics.seed)
    record: dict[str, Any] = {"pixels": PIXELS, "folds": folds, "repeats": REPEATS}
    record["nearest"] = NEIGHBOURS
    for name, model in MODELS.items():
        repeats = [_both_ways(model, x, y, clusters, folds, seed + k) for k in range(REPEATS)]
        by_image, by_patient = np.stack(repeats, axis=1)  # (K, N) each
        price = auc_difference_over_seeds(y, by_image, by_patient, clusters, None, *size)
        scores = clone(model).fit(x, y).predict_proba(features[test])[:, 1]
        record[name] = {
            "image": asdict(auc_over_seeds(y, by_image, clusters, *size).interval),
            "patient": asdict(auc_over_seeds(y, by_patient, clusters, *size).interval),
            "price": asdict(price.interval),
            "test": asdict(auc_interval(labels[test], scores, patients[test], *size)),
        }
    return record


def _both_ways(
    model: ClassifierMixin, x: Array, y: NDArray, patients: NDArray, folds: int, seed: int
) -> Array:
    """Out-of-fold probabilities with folds by image and by patient, (2, N)."""
    drawn = {"n_splits": folds, "shuffle": True, "random_state": seed}
    by_image = StratifiedKFold(**drawn).split(x, y)
    by_patient = StratifiedGroupKFold(**drawn).split(x, y, patients)
    rows = [
        cross_val_predict(model, x, y, cv=list(folding), method="predict_proba")
        for folding in (by_image, by_patient)
    ]
    return np.stack(rows)[..., 1]
