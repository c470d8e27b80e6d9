"""Metrics of a variant: each seed with patient intervals, and over seeds with crossed ones."""

import logging
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import classification_report

from hybridlungvit.config import Study
from hybridlungvit.data.sources import CLASSES
from hybridlungvit.errors import StudyError
from hybridlungvit.evaluation.bootstrap import (
    Array,
    check_scores,
    crossed_replicates,
    percentile_interval,
    weighted_auc,
)
from hybridlungvit.evaluation.compare import Comparison, holm, paired_auc_difference, verdict
from hybridlungvit.evaluation.predictions import read_predictions
from hybridlungvit.files import file_sha256, write_json
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)
METRICS = ("auc", "accuracy", "sensitivity", "specificity", "f1")


def weighted_confusion(
    labels: NDArray[np.int64], called: NDArray[np.bool_], weights: Array
) -> tuple[Array, Array, Array, Array]:
    """Weighted true and false negatives and positives (tn, fp, fn, tp), each (R,)."""
    cells = [(labels == truth) & (called == call) for truth in (0, 1) for call in (False, True)]
    tn, fp, fn, tp = (weights @ cell.astype(float) for cell in cells)
    return tn, fp, fn, tp


def weighted_metric(
    name: str, labels: NDArray[np.int64], scores: Array, weights: Array, threshold: float
) -> Array:
    """A metric by name for each row of ``weights`` (R, N); pneumonia is the positive class."""
    if name == "auc":
        return weighted_auc(labels, scores, weights)
    tn, fp, fn, tp = weighted_confusion(labels, scores >= threshold, weights)
    ratios = {
        "accuracy": (tn + tp, tn + fp + fn + tp),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "f1": (2 * tp, 2 * tp + fp + fn),
    }
    return ratios[name][0] / ratios[name][1]


def scores_on_test(study: Study, variant: str, layout: Layout) -> tuple[pd.DataFrame, Array]:
    """The test images of a variant's predictions and the probabilities of its seeds, (K, N)."""
    tables = [read_predictions(study, variant, seed, layout) for seed in study.seeds]
    tests = [table[table.split == "test"].reset_index(drop=True) for table in tables]
    for seed, table in zip(study.seeds, tests, strict=True):
        if not table.path.equals(tests[0].path):
            raise StudyError(
                f"{layout.predictions(variant, seed)}: other images than those of seed "
                f"{study.seeds[0]}. Score both again."
            )
    return tests[0], np.stack([table.probability.to_numpy() for table in tests])


def evaluate_variant(study: Study, variant: str, layout: Layout) -> dict[str, Any]:
    """Compute and write all metrics of a variant on the test set."""
    table, scores = scores_on_test(study, variant, layout)
    threshold = study.recipe(variant).evaluation.threshold
    labels, _ = check_scores(table.label.to_numpy(), scores[0])
    record: dict[str, Any] = {
        "variant": variant,
        "images": len(table),
        "patients": int(table.patient.nunique()),
        "threshold": threshold,
        "resamples": study.statistics.resamples,
        "level": study.statistics.level,
        "predictions_sha256": {
            str(seed): file_sha256(layout.predictions(variant, seed)) for seed in study.seeds
        },
        "headline": {},
        "seeds": {str(seed): _counts(labels, row, threshold)
                  for seed, row in zip(study.seeds, scores, strict=True)},
    }  # fmt: skip
    once, level = np.ones((1, len(labels))), study.statistics.level
    for name in METRICS:

        def metric(row: Array, weights: Array, name: str = name) -> Array:
            return weighted_metric(name, labels, row, weights, threshold)

        per_seed, crossed = crossed_replicates(
            metric,
            labels,
            scores,
            table.patient.to_numpy(),
            study.statistics.resamples,
            study.statistics.seed,
        )
        values = np.array([metric(row, once)[0] for row in scores])
        for seed, value, replicates in zip(study.seeds, values, per_seed.T, strict=True):
            interval = percentile_interval(value, replicates, level)
            record["seeds"][str(seed)][name] = asdict(interval)
        headline = asdict(percentile_interval(values.mean(), crossed, level))
        sd = float(values.std(ddof=1)) if len(values) > 1 else None
        record["headline"][name] = headline | {"sd": sd}
    write_json(layout.metrics(variant), record)
    log.info(
        "%s: test AUC %.4f (%.4f to %.4f)", variant, *list(record["headline"]["auc"].values())[:3]
    )
    return record


def _counts(labels: NDArray[np.int64], scores: Array, threshold: float) -> dict[str, Any]:
    called = scores >= threshold
    cells = weighted_confusion(labels, called, np.ones((1, len(labels))))
    report = classification_report(
        labels, called.astype(int), target_names=CLASSES, output_dict=True, zero_division=0
    )
    names = ("tn", "fp", "fn", "tp")
    confusion = {name: int(cell[0]) for name, cell in zip(names, cells, strict=True)}
    return {"confusion": confusion, "report": report}


def compare_variants(study: Study, layout: Layout) -> dict[str, Any]:
    """Compare every variant's AUC with the reference's, paired, and write the results.

    p-values are adjusted by Holm's method over all variants of the config.
    """
    reference, reference_scores = scores_on_test(study, study.reference, layout)
    statistics = study.statistics
    raw: dict[str, Comparison] = {}
    for variant in study.variants:
        if variant == study.reference:
            continue
        table, scores = scores_on_test(study, variant, layout)
        if not table.path.equals(reference.path):
            raise StudyError(f"{variant}: scored on other images than {study.reference}.")
        raw[variant] = paired_auc_difference(
            table.label.to_numpy(),
            scores,
            reference_scores,
            table.patient.to_numpy(),
            statistics.resamples,
            statistics.level,
            statistics.seed,
        )
    adjusted = holm({variant: comparison.p_value for variant, comparison in raw.items()})
    record = {
        "reference": study.reference,
        "differences": {
            variant: asdict(comparison)
            | {
                "p_adjusted": adjusted[variant],
                "verdict": verdict(comparison, adjusted[variant], statistics.level),
            }
            for variant, comparison in raw.items()
        },
    }
    write_json(layout.comparisons, record)
    return record
