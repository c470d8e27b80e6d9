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
from hybridlungvit.evaluation.auc import Array, check_scores
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.calibration import calibration_records
from hybridlungvit.evaluation.delong import delong_interval, variance_freedom
from hybridlungvit.evaluation.metrics import (
    BENEFIT,
    CALLS,
    RANKING,
    Metrics,
    at_prevalence,
    call_metrics,
    confusion,
    net_benefit,
    ranking_metrics,
    ratio,
)
from hybridlungvit.evaluation.predictions import (
    Thresholds,
    scores_on,
    segmentations_on,
    with_ensemble,
)
from hybridlungvit.evaluation.records import (
    Record,
    auc_edge,
    headline_record,
    interval_record,
    proportion_edge,
    replicate,
    wilson_records,
)
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
    clusters, rows = PatientClusters.of(labels, table.patient.to_numpy()), with_ensemble(scores)
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
    record |= metric_records(study, clusters, rows, chosen)
    masks = read_table(layout.mask_table, ("path", "confidence"))
    quality = quality_table(read_manifest(layout.manifest), masks, table.path)
    size = (statistics.resamples, statistics.level, statistics.seed)
    record["calibration"] = calibration_records(
        clusters, rows, chosen.labels, chosen.scores, study.seeds, *size
    )
    segmentations = segmentations_on(study, variant, layout)
    if segmentations is not None:
        record["segmentation"] = segmentation_records(clusters, segmentations, *size)
    record["subgroups"] = subgroup_records(table, quality, scores, record["threshold"], *size)
    record = write_record(layout.metrics(variant), record)
    auc = record["headline"]["auc"]
    log.info("%s: test AUC %.4f (%.4f to %.4f)", variant, auc["estimate"], auc["low"], auc["high"])
    return record


def segmentation_records(
    clusters: PatientClusters, values: dict[str, Array], resamples: int, level: float, seed: int
) -> Record:
    """Mean Dice and loss of the segmentation head over images, mean over seeds.

    ``values`` (K, N) of each: against the lung masks that it was trained on, not against readers.
    """
    images = clusters.counts(np.ones(len(clusters.labels), bool))

    def mean_of(row: dict[str, Array]) -> Metrics:
        sums = {name: clusters.sums(value) for name, value in row.items()}  # (P,) each
        return lambda drawn: {name: ratio(drawn @ s, drawn @ images) for name, s in sums.items()}

    seeds = range(len(next(iter(values.values()))))
    rows = [mean_of({name: value[k] for name, value in values.items()}) for k in seeds]
    estimates, replicates = replicate(rows, clusters, resamples, seed)
    return {
        name: headline_record(name, estimates[name], replicates[name], level) for name in estimates
    }


def metric_records(
    study: Study, clusters: PatientClusters, rows: Array, chosen: Thresholds
) -> Record:
    """The layers of every metric: the headline over seeds, single seeds, and the ensemble.

    ``rows`` (K + 1, N) are the seeds' probabilities and the ensemble's.
    """
    statistics, level = study.statistics, study.statistics.level
    calls = {
        point: [row >= at[point] for row, at in zip(rows, chosen.rows, strict=True)]
        for point in chosen.points
    }
    functions = [
        _metrics_of(clusters, row, {p: calls[p][i] for p in calls}, at, statistics.prevalences)
        for i, (row, at) in enumerate(zip(rows, chosen.rows, strict=True))
    ]
    estimates, replicates = replicate(functions, clusters, statistics.resamples, statistics.seed)

    def record(make: Callable[..., Record], name: str, models: slice) -> Record:
        point, *metric = name.split(".")
        if name == "auc":
            edge = auc_edge(clusters, level)
            freedom = variance_freedom(clusters.labels, rows[models], clusters.member)
        else:
            called = calls.get(point, [])[models]
            edge = proportion_edge(".".join(metric), clusters, called, level)
            freedom = math.inf
        drawn = replicates[name][:, models]
        return make(name, estimates[name][models], drawn, level, edge, freedom)

    def headline(name: str) -> Record:
        return record(headline_record, name, slice(0, -1))

    def layers(wrap: Callable[[str], Record]) -> Record:
        ranking = {name: wrap(name) for name in RANKING}
        return ranking | {name: wrap(f"fixed.{name}") for name in CALLS}

    def model(i: int) -> Record:
        def single(name: str) -> Record:
            return record(interval_record, name, slice(i, i + 1))

        return layers(single) | {
            "points": {
                point: {
                    "threshold": chosen.rows[i][point],
                    "confusion": _cells(clusters, called[i]),
                }
                | {name: single(f"{point}.{name}") for name in CALLS}
                for point, called in calls.items()
            },
            "wilson": wilson_records(clusters, calls["fixed"][i], level),
            "delong": asdict(delong_interval(clusters.labels, rows[i], clusters.member, level)),
            "delong_images": asdict(delong_interval(clusters.labels, rows[i], None, level)),
        }

    seeds = {str(seed): model(i) for i, seed in enumerate(study.seeds)}
    for seed_record in seeds.values():
        cells = seed_record["points"]["fixed"]["confusion"]
        seed_record |= {"confusion": cells, "report": classification_report(**cells)}
    return {
        "headline": layers(headline),
        "points": {
            point: {name: headline(f"{point}.{name}") for name in CALLS + BENEFIT}
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
    clusters: PatientClusters,
    scores: Array,
    calls: dict[str, NDArray[np.bool_]],
    thresholds: dict[str, float],
    prevalences: list[float],
) -> Metrics:
    """All metrics of one row; those of calls are named point.metric or point.prevalence.metric."""
    ranking = ranking_metrics(clusters, scores)
    by_point = {point: call_metrics(clusters, called) for point, called in calls.items()}
    benefits = {point: net_benefit(clusters, calls[point], thresholds[point]) for point in calls}

    def metrics(drawn: Array) -> dict[str, Array]:
        values = ranking(drawn)
        for point, function in by_point.items():
            by_call = function(drawn)
            described = by_call | benefits[point](drawn)
            values |= {f"{point}.{name}": value for name, value in described.items()}
            rates = by_call["sensitivity"], by_call["specificity"]
            for prevalence in prevalences:
                shifted = at_prevalence(*rates, prevalence)
                values |= {f"{point}.{prevalence:g}.{n}": v for n, v in shifted.items()}
        return values

    return metrics


def _cells(clusters: PatientClusters, called: NDArray[np.bool_]) -> dict[str, int]:
    cells = confusion(clusters, called).sum(axis=0)
    return {name: int(n) for name, n in zip(("tn", "fp", "fn", "tp"), cells, strict=True)}


def classification_report(tn: int, fp: int, fn: int, tp: int) -> dict[str, Any]:
    """scikit-learn's report of the same name, whose import takes 0.7 s, from four counts.

    Precision, recall, F1 and support of each class, their plain and weighted means, and accuracy;
    0 where a share is undefined.
    """

    def share(part: int, whole: int) -> float:
        return part / whole if whole else 0.0

    columns = ("precision", "recall", "f1-score", "support")
    rows = [
        [share(right, right + wrong), share(right, right + missed),
         share(2 * right, 2 * right + wrong + missed), float(right + missed)]
        for right, wrong, missed in ((tn, fn, fp), (tp, fp, fn))
    ]  # fmt: skip
    support = [row[-1] for row in rows]
    report: dict[str, Any] = {
        name: dict(zip(columns, row, strict=True)) for name, row in zip(CLASSES, rows, strict=True)
    }
    report["accuracy"] = share(tn + tp, tn + fp + fn + tp)
    for name, weights in (("macro avg", None), ("weighted avg", support)):
        means = np.average(rows, axis=0, weights=weights)[:-1].tolist()
        report[name] = dict(zip(columns, [*means, sum(support)], strict=True))
    return report
