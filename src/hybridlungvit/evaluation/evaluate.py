"""The stage `metrics`: every number of a variant, each with its interval."""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.data.sources import CLASSES
from hybridlungvit.evaluation.auc import check_scores
from hybridlungvit.evaluation.bootstrap import Array
from hybridlungvit.evaluation.calibration import calibration_records
from hybridlungvit.evaluation.delong import delong_interval, variance_freedom
from hybridlungvit.evaluation.metrics import (
    CALLS,
    RANKING,
    Metrics,
    at_prevalence,
    call_metrics,
    confusion,
    ranking_metrics,
)
from hybridlungvit.evaluation.predictions import Thresholds, scores_on, with_ensemble
from hybridlungvit.evaluation.records import (
    Edge,
    Record,
    auc_edge,
    headline_record,
    interval_record,
    proportion_edge,
    replicate,
    wilson_records,
)
from hybridlungvit.evaluation.sample import Sample
from hybridlungvit.evaluation.subgroups import quality_table, subgroup_records
from hybridlungvit.io import file_sha256, read_table, write_record
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)


def evaluate_variant(study: Study, variant: str, layout: Layout) -> Record:
    """Compute and write all metrics of a variant on the test set.

    Needs the predictions of all seeds, the manifest and the mask table; raises ``StudyError`` when
    they do not belong together.
    """
    statistics = study.statistics
    table, scores = scores_on(study, variant, layout)
    labels, _ = check_scores(table.label.to_numpy(), scores[0])
    sample, rows = Sample.of(labels, table.patient.to_numpy()), with_ensemble(scores)
    chosen = Thresholds(study, variant, layout)
    record: Record = {
        "variant": variant,
        "images": len(table),
        "patients": int(table.patient.nunique()),
        "threshold": study.recipe(variant).evaluation.threshold,
        **statistics.model_dump(include={"resamples", "level", "sensitivity_target"}),
        "predictions_sha256": {
            str(seed): file_sha256(layout.predictions(variant, seed)) for seed in study.seeds
        },
    }
    record |= metric_records(study, sample, rows, chosen)
    masks = read_table(layout.mask_table, ("path", "confidence"))
    quality = quality_table(read_manifest(layout.manifest), masks, table.path)
    size = (statistics.resamples, statistics.level, statistics.seed)
    record["calibration"] = calibration_records(
        sample, rows, chosen.labels, chosen.scores, study.seeds, *size
    )
    record["subgroups"] = subgroup_records(table, quality, scores, record["threshold"], *size)
    record = write_record(layout.metrics(variant), record)
    auc = record["headline"]["auc"]
    log.info("%s: test AUC %.4f (%.4f to %.4f)", variant, auc["estimate"], auc["low"], auc["high"])
    return record


def metric_records(study: Study, sample: Sample, rows: Array, chosen: Thresholds) -> Record:
    """The layers of every metric: the headline over seeds, single seeds, and the ensemble.

    ``rows`` (K + 1, N) are the seeds' probabilities and the ensemble's.
    """
    statistics = study.statistics
    level = statistics.level
    calls = {
        point: [row >= own[point] for row, own in zip(rows, chosen.rows, strict=True)]
        for point in chosen.points
    }
    functions = [
        _metrics_of(sample, row, {point: calls[point][i] for point in calls},
                    statistics.prevalences)
        for i, row in enumerate(rows)
    ]  # fmt: skip
    estimates, replicates = replicate(functions, sample, statistics.resamples, statistics.seed)

    def edge(name: str, picked: slice) -> Edge:
        if name == "auc":
            return auc_edge(sample, level)
        point, *metric = name.split(".")
        return proportion_edge(".".join(metric), sample, calls.get(point, [])[picked], level)

    def arguments(name: str, picked: slice) -> tuple[str, Array, Array, float, Edge, float]:
        freedom = (
            variance_freedom(sample.labels, rows[picked], sample.member)
            if name == "auc"
            else math.inf
        )
        values, drawn = estimates[name][picked], replicates[name][:, picked]
        return name, values, drawn, level, edge(name, picked), freedom

    def headline(name: str) -> Record:
        return headline_record(*arguments(name, slice(0, -1)))

    def single(name: str, i: int) -> Record:
        return interval_record(*arguments(name, slice(i, i + 1)))[0]

    def layers(wrap: Callable[[str], Record]) -> Record:
        ranking = {name: wrap(name) for name in RANKING}
        return ranking | {name: wrap(f"fixed.{name}") for name in CALLS}

    def model(i: int) -> Record:
        points = {
            point: {
                "threshold": chosen.rows[i][point],
                "confusion": _cells(sample, calls[point][i]),
            }
            | {name: single(f"{point}.{name}", i) for name in CALLS}
            for point in calls
        }
        return layers(lambda name: single(name, i)) | {
            "points": points,
            "wilson": wilson_records(sample, calls["fixed"][i], level),
            "delong": asdict(delong_interval(sample.labels, rows[i], sample.member, level)),
            "delong_images": asdict(delong_interval(sample.labels, rows[i], None, level)),
        }

    seeds = {str(seed): model(i) for i, seed in enumerate(study.seeds)}
    for i, found in enumerate(seeds.values()):
        found |= _report(sample, calls["fixed"][i])
    return {
        "headline": layers(headline),
        "points": {
            point: {name: headline(f"{point}.{name}") for name in CALLS}
            | {
                "prevalences": [
                    {"prevalence": value}
                    | {name: headline(f"{point}.{value:g}.{name}") for name in ("ppv", "npv")}
                    for value in statistics.prevalences
                ]
            }
            for point in calls
        },
        "seeds": seeds,
        "ensemble": model(len(rows) - 1),
    }


def _metrics_of(
    sample: Sample, scores: Array, calls: dict[str, NDArray[np.bool_]], prevalences: list[float]
) -> Metrics:
    """All metrics of one row; those of calls are named point.metric or point.prevalence.metric."""
    ranking = ranking_metrics(sample, scores)
    by_point = {point: call_metrics(sample, called) for point, called in calls.items()}

    def metrics(drawn: Array) -> dict[str, Array]:
        values = ranking(drawn)
        for point, function in by_point.items():
            found = function(drawn)
            values |= {f"{point}.{name}": value for name, value in found.items()}
            for prevalence in prevalences:
                shifted = at_prevalence(found["sensitivity"], found["specificity"], prevalence)
                values |= {f"{point}.{prevalence:g}.{n}": v for n, v in shifted.items()}
        return values

    return metrics


def _cells(sample: Sample, called: NDArray[np.bool_]) -> dict[str, int]:
    cells = confusion(sample, called).sum(axis=0)
    return {name: int(n) for name, n in zip(("tn", "fp", "fn", "tp"), cells, strict=True)}


def _report(sample: Sample, called: NDArray[np.bool_]) -> dict[str, Any]:
    cells = _cells(sample, called)
    return {"confusion": cells, "report": classification_report(**cells)}


def classification_report(tn: int, fp: int, fn: int, tp: int) -> dict[str, Any]:
    """scikit-learn's report of the same name, which takes long to import, from four counts.

    Precision, recall, F1 and support of each class, their plain and weighted means, and accuracy;
    0 where a share is undefined.
    """

    def share(part: int, whole: int) -> float:
        return part / whole if whole else 0.0

    report: dict[str, Any] = {
        name: {
            "precision": share(right, right + wrong),
            "recall": share(right, right + missed),
            "f1-score": share(2 * right, 2 * right + wrong + missed),
            "support": float(right + missed),
        }
        for name, right, wrong, missed in zip(CLASSES, (tn, tp), (fn, fp), (fp, fn), strict=True)
    }
    rows = [list(report[name].values()) for name in CLASSES]
    support = np.array([row[-1] for row in rows])
    means = {"macro avg": None, "weighted avg": support}
    report["accuracy"] = share(tn + tp, tn + fp + fn + tp)
    for name, weights in means.items():
        mean = np.average(np.array(rows)[:, :-1], axis=0, weights=weights)
        values = [*map(float, mean), float(support.sum())]
        report[name] = dict(zip(report[CLASSES[0]], values, strict=True))
    return report
