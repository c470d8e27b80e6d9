"""The stage `metrics`: every number of a variant, each with its interval."""

import logging
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.data.sources import CLASSES
from hybridlungvit.evaluation.auc import Array, check_scores
from hybridlungvit.evaluation.bootstrap import Metrics, PatientClusters, replicate
from hybridlungvit.evaluation.calibration import calibration_records
from hybridlungvit.evaluation.delong import delong_interval
from hybridlungvit.evaluation.metrics import (
    BENEFIT,
    CALLS,
    RANKING,
    confusion,
    means,
    point_metrics,
    ranking_metrics,
    together,
)
from hybridlungvit.evaluation.predictions import (
    Thresholds,
    scores_on,
    segmentations_on,
    with_ensemble,
)
from hybridlungvit.evaluation.records import (
    Record,
    basis,
    headline_record,
    interval_record,
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
    bounds = "no interval" if auc["low"] is None else f"{auc['low']:.4f} to {auc['high']:.4f}"
    log.info("%s: test AUC %.4f (%s)", variant, auc["estimate"], bounds)
    return record


def segmentation_records(
    clusters: PatientClusters, values: dict[str, Array], resamples: int, level: float, seed: int
) -> Record:
    """Mean Dice and loss of the segmentation head over images, mean over seeds.

    ``values`` (K, N) of each: against the lung masks that it was trained on, not against readers.
    """
    drawn = replicate(means(clusters, **values), clusters, resamples, seed)
    return {name: headline_record(name, drawn[name], level) for name in drawn}


def metric_records(
    study: Study, clusters: PatientClusters, rows: Array, chosen: Thresholds
) -> Record:
    """The layers of every metric: the headline over seeds, single seeds, and the ensemble.

    ``rows`` (K + 1, N) are the seeds' probabilities and the ensemble's.
    """
    from sklearn.metrics import classification_report  # takes long to import

    statistics, level = study.statistics, study.statistics.level
    calls = {point: rows >= at[:, None] for point, at in chosen.points.items()}

    def at_point(point: str) -> Metrics:
        at = calls[point], chosen.points[point]
        metrics = point_metrics(clusters, *at, statistics.prevalences)
        return lambda drawn: {f"{point}.{name}": v for name, v in metrics(drawn).items()}

    metrics = together(ranking_metrics(clusters, rows), *map(at_point, calls))
    values = replicate(metrics, clusters, statistics.resamples, statistics.seed)

    def record(make: Callable[..., Record], name: str, models: slice) -> Record:
        point, _, metric = name.partition(".")
        called = calls.get(point, rows)[models]
        known = basis(metric or point, clusters, rows[models], called)
        return make(name, values[name][:, models], level, *known)

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
                    "threshold": float(chosen.points[point][i]),
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
    for seed_record, called in zip(seeds.values(), calls["fixed"], strict=False):
        seed_record["confusion"] = seed_record["points"]["fixed"]["confusion"]
        seed_record["report"] = classification_report(
            clusters.labels, called, target_names=CLASSES, output_dict=True, zero_division=0
        )
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


def _cells(clusters: PatientClusters, called: NDArray[np.bool_]) -> dict[str, int]:
    cells = confusion(clusters, called[None])
    return {name: int(n.sum()) for name, n in zip(("tn", "fp", "fn", "tp"), cells, strict=True)}
