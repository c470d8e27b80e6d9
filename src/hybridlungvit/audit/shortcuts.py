"""What can be told without looking at lungs: the class from how a file is stored, and train from
test from how an image looks.

The classifier is the one of the mask's shortcut check: a logistic regression on patients it has not
seen. Squares are added, so that a class with both small and large files is found too; products are
not, since with few patients they fit chance.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.preprocessing import scale

from hybridlungvit.audit.classifier import file_features, out_of_fold
from hybridlungvit.config import Statistics
from hybridlungvit.data.manifest import SPLITS
from hybridlungvit.data.sources import CLASSES
from hybridlungvit.data.statistics import image_statistics
from hybridlungvit.evaluation.intervals import wilson_interval
from hybridlungvit.evaluation.seeds import auc_interval

SHORTCUTS = {
    "size": ("width", "height"),
    "aspect": ("aspect",),
    "bytes": ("bytes",),
    "file": ("width", "height", "aspect", "bytes"),
}


def predictability(
    features: pd.DataFrame, labels: pd.Series, patients: pd.Series, settings: Statistics, seed: int
) -> dict[str, Any] | None:
    """AUC of out-of-fold predictions of ``labels`` (N,) in {0, 1}, with its patient interval.

    The interval holds the fitted folds fixed. None where a label has fewer than two patients.
    """
    if min(patients[labels == value].nunique() for value in (0, 1)) < 2:
        return None
    standard = scale(features)  # (N, F)
    terms = np.hstack([standard, standard**2])  # (N, 2·F)
    y, clusters = labels.to_numpy(), patients.to_numpy()
    scores = out_of_fold(terms, y, clusters, seed)
    size = (settings.resamples, settings.level, settings.seed)
    return asdict(auc_interval(y, scores, clusters, *size))


def shortcut_aucs(manifest: pd.DataFrame, settings: Statistics, seed: int) -> dict[str, Any]:
    """How well each set of file properties tells the class of development images."""
    part = manifest[manifest.split != "test"]
    features = file_features(part)
    return {
        name: predictability(features[list(columns)], part.label, part.patient, settings, seed)
        for name, columns in SHORTCUTS.items()
    }


def shift_aucs(
    manifest: pd.DataFrame, images: NDArray[np.uint8], settings: Statistics, seed: int
) -> dict[str, Any]:
    """How well image and file statistics tell test images from the others: all, and by class.

    Within a class, a difference cannot come from the classes' proportions.
    """
    features = pd.concat([image_statistics(images), file_features(manifest)], axis=1)
    is_test = (manifest.split == "test").astype(int)
    groups = {"all": manifest.index} | {
        name: manifest.index[manifest.label == label] for label, name in enumerate(CLASSES)
    }
    return {
        name: predictability(
            features.loc[rows], is_test[rows], manifest.patient[rows], settings, seed
        )
        for name, rows in groups.items()
    }


def class_balance(manifest: pd.DataFrame, level: float) -> Iterator[dict[str, Any]]:
    """Images, subtypes and the share of pneumonia of each split, with Wilson's interval (1927).

    The interval takes images as independent.
    """
    for split in SPLITS:
        part = manifest[manifest.split == split]
        positive = int(part.label.sum())
        yield {
            "split": split,
            "images": len(part),
            "pneumonia": positive,
            **{name: int((part.subtype == name).sum()) for name in ("bacteria", "virus")},
            "prevalence": asdict(wilson_interval(positive, len(part), level)),
        }
