"""What the audit's doubts mean for the results: the reference's AUC without doubtful patients."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from hybridlungvit.audit.classifier import file_features, shortcut_model
from hybridlungvit.audit.patients import shared_numbers
from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_masks
from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.predictions import scores_on
from hybridlungvit.evaluation.seeds import auc_over_seeds
from hybridlungvit.io import file_sha256, write_record
from hybridlungvit.paths import Layout


def write_audit_results(study: Study, layout: Layout) -> dict[str, Any]:
    """Write ``layout.audit_results``: AUCs of the reference, mean over seeds, crossed intervals.

    On the validation images, on the test images, and on the test images whose patient number
    stands in the test set only (see ``strict_key``; None where a class is left without images).
    Beside them, how well a low confidence of the lung mask alone tells pneumonia, and how well the
    size of the file tells it on the test images.
    """
    manifest = read_masks(layout)
    test, scores = scores_on(study, study.reference, layout)
    clear = ~test.path.isin(manifest.path[shared_numbers(manifest)]).to_numpy()
    return write_record(layout.audit_results, {
        "reference": study.reference,
        "manifest_sha256": file_sha256(layout.manifest),
        "resamples": study.statistics.resamples,
        "level": study.statistics.level,
        "predictions_sha256": {
            str(seed): file_sha256(layout.predictions(study.reference, seed))
            for seed in study.seeds
        },
        "validation": _auc(study, *scores_on(study, study.reference, layout, "val")),
        "test": _auc(study, test, scores),
        "without_shared_numbers": _auc(study, test[clear], scores[:, clear]),
        "mask_confidence": _confidence_aucs(study, manifest),
        "bytes": _bytes_auc(study, manifest),
    })  # fmt: skip


def _confidence_aucs(study: Study, manifest: pd.DataFrame) -> dict[str, Any]:
    """AUC of a low mask confidence on development and test images, intervals over patients.

    Opaque lungs lend the masks no edge, hence the direction; nothing is fitted.
    """
    is_test = manifest.split == "test"
    parts = {"development": manifest[~is_test], "test": manifest[is_test]}
    return {
        name: _auc(study, part, -part.confidence.to_numpy()[None])["auc"]
        for name, part in parts.items()
    }


def _bytes_auc(study: Study, manifest: pd.DataFrame) -> dict[str, Any]:
    """AUC on test images of a regression on the size of the file, fitted to all others.

    That of ``shortcut_aucs``, which scores the other images; the interval covers test patients.
    """
    is_test = (manifest.split == "test").to_numpy()
    sizes = file_features(manifest)[["bytes"]].to_numpy()  # (N, 1)
    standard = (sizes - sizes[~is_test].mean()) / (sizes[~is_test].std() or 1)
    terms, labels = np.hstack([standard, standard**2]), manifest.label.to_numpy()
    scores = shortcut_model().fit(terms[~is_test], labels[~is_test]).decision_function(terms)
    return _auc(study, manifest[is_test], scores[None, is_test])["auc"]


def _auc(study: Study, table: pd.DataFrame, scores: Array) -> dict[str, Any]:
    """Images and patients of a group, and the mean AUC of (K, N) scores with its interval."""
    labels = table.label.to_numpy()
    counts = {"images": len(table), "patients": int(table.patient.nunique())}
    if set(labels) != {0, 1}:
        return counts | {"auc": None}
    size = (study.statistics.resamples, study.statistics.level, study.statistics.seed)
    over_seeds = auc_over_seeds(labels, scores, table.patient.to_numpy(), *size)
    return counts | {"auc": asdict(over_seeds.interval)}
