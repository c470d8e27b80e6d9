"""The stage `compare`: every variant against the reference, and the errors they share."""

from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.audit.patients import shared_numbers
from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.delong import delong_test
from hybridlungvit.evaluation.paired import decide, difference_record, mcnemar
from hybridlungvit.evaluation.predictions import Thresholds, predictions_sha256, scores_on
from hybridlungvit.evaluation.records import components_record
from hybridlungvit.evaluation.seeds import (
    SeedsDifference,
    auc_difference_over_seeds,
    auc_slope_over_seeds,
)
from hybridlungvit.io import StudyError, write_record
from hybridlungvit.paths import Layout


def compare_variants(study: Study, layout: Layout) -> dict[str, Any]:
    """Compare every variant with the reference, paired, count errors, and write the results.

    The headline is the difference of mean AUCs. Cross-checks on the ensembles of seeds are the
    clustered DeLong test and McNemar's at each operating point. Comparisons outside the declared
    family are exploratory (``decide``); those of the family are repeated on the test images whose
    patient number stands in the test set only (``audit.patients``), if these have both classes.
    """
    statistics, reference = study.statistics, study.reference
    images, _ = scores_on(study, reference, layout)
    labels, patients = images.label.to_numpy(), images.patient.to_numpy()
    scores, ensembles, thresholds, right = {}, {}, {}, {}
    for variant in study.variants:
        table, scores[variant] = scores_on(study, variant, layout)
        if not table.path.equals(images.path):
            raise StudyError(f"{variant}: scored on other images than {reference}.")
        ensembles[variant] = ensemble = scores[variant].mean(axis=0)
        points = {p: float(at[-1]) for p, at in Thresholds(study, variant, layout).points.items()}
        thresholds[variant] = points["fixed"]
        right[variant] = {p: (ensemble >= at) == (labels == 1) for p, at in points.items()}

    def differ(variant: str, chosen: NDArray[np.bool_]) -> SeedsDifference:
        return auc_difference_over_seeds(
            labels[chosen], scores[variant][:, chosen], scores[reference][:, chosen],
            patients[chosen], statistics.margin, statistics.resamples, statistics.level,
            statistics.seed, same_runs=study.trained_as(variant) == study.trained_as(reference),
        )  # fmt: skip

    family = study.comparison_family()
    manifest = read_manifest(layout.manifest)
    clear = ~images.path.isin(manifest.path[shared_numbers(manifest)]).to_numpy()
    apart = not clear.all() and set(labels[clear]) == {0, 1}
    differences = {}
    for variant in study.variants:
        if variant == reference:
            continue
        difference = differ(variant, np.ones_like(clear))
        differences[variant] = difference_record(difference, statistics) | {
            "delong": delong_test(labels, ensembles[variant], ensembles[reference], patients),
            "mcnemar": {
                point: mcnemar(own, right[reference][point], patients)
                for point, own in right[variant].items()
            },
        }
        if apart and variant in family:
            interval = differ(variant, clear).interval
            differences[variant]["without_shared_numbers"] = asdict(interval)
    decide(differences, family, statistics.level)
    errors = count_errors(labels, patients, scores, thresholds, reference)
    result = {
        "reference": reference,
        "family": family,
        **statistics.model_dump(include={"level", "resamples"}),
        "predictions_sha256": predictions_sha256(study, layout),
        "differences": differences,
    }
    result["trend"] = displacement_trend(study, labels, scores, patients)
    return write_record(layout.comparisons, result | {"errors": errors})


def displacement_trend(
    study: Study, labels: NDArray[np.int64], scores: dict[str, Array], patients: NDArray
) -> dict[str, Any] | None:
    """How the AUC changes with the cut's displacement, either way, per 10 % of the width, over the
    variants that differ from the reference in ``cut_shift`` alone; None with fewer than two."""
    reference, statistics = study.recipe(study.reference), study.statistics
    shifts = {study.reference: 0.0}
    for variant in study.trained_variants():
        recipe = study.recipe(variant)
        model = recipe.model.model_copy(update={"cut_shift": reference.model.cut_shift})
        if recipe.model_copy(update={"model": model}) == reference:
            shifts[variant] = 10 * abs(recipe.model.cut_shift - reference.model.cut_shift)
    if len(shifts) < 3:
        return None
    slope = auc_slope_over_seeds(
        labels, np.stack([scores[v] for v in shifts]), np.array([*shifts.values()]), patients,
        statistics.resamples, statistics.level, statistics.seed,
    )  # fmt: skip
    names = ("estimate", "low", "high", "p_value")
    return {
        "variants": list(shifts),
        **{name: getattr(slope, name) for name in names},
        **components_record(slope.components),
    }


def count_errors(
    labels: NDArray[np.int64], patients: NDArray, scores: dict[str, Array],
    thresholds: dict[str, float], reference: str,
) -> dict[str, Any]:  # fmt: skip
    """Count the errors of each variant's ensemble at its threshold, and how many are shared.

    ``labels`` (N,), ``patients`` (N,) and the seeds' probabilities (K, N) of each variant belong to
    the same images; one whose probability reaches the threshold is called pneumonia. The counts
    describe these images: they estimate nothing beyond them and have no interval.
    """
    truth = labels == 1
    wrong = {v: (rows.mean(axis=0) >= thresholds[v]) != truth for v, rows in scores.items()}
    by_variant = {}
    for variant, rows in scores.items():
        missed = wrong[variant]
        by_seed = (rows >= thresholds[variant]) != truth  # (K, N)
        differing = [int((a != b).sum()) for a, b in combinations(by_seed, 2)]
        by_variant[variant] = {
            "threshold": thresholds[variant],
            "images": int(missed.sum()),
            "false_positives": int((missed & ~truth).sum()),
            "false_negatives": int((missed & truth).sum()),
            "patients": len(np.unique(patients[missed])),
            "with_reference": int((missed & wrong[reference]).sum()),
            "every_seed": int(by_seed.all(axis=0).sum()),
            "some_seed": int(by_seed.any(axis=0).sum()),
            "between_seeds": [min(differing), max(differing)] if differing else None,
        }
    together = np.stack(list(wrong.values()))  # (variants, N)
    everywhere = together.all(axis=0)
    return {
        "variants": by_variant,
        "every_variant": int(everywhere.sum()),
        "every_variant_false_positives": int((everywhere & ~truth).sum()),
        "some_variant": int(together.any(axis=0).sum()),
    }
