"""The stage `compare`: every variant against the reference, and the errors they share."""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.config import Study
from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.paired import compare_pair, decide
from hybridlungvit.evaluation.predictions import Thresholds, scores_on
from hybridlungvit.io import StudyError, write_record
from hybridlungvit.paths import Layout


def compare_variants(study: Study, layout: Layout) -> dict[str, Any]:
    """Compare every variant with the reference, paired, count errors, and write the results.

    Comparisons outside the declared family are exploratory (``decide``).
    """
    statistics, thresholds = study.statistics, {}
    tests = {v: scores_on(study, v, layout) for v in study.variants}
    reference, reference_scores = tests[study.reference]
    for variant, (table, _) in tests.items():
        if not table.path.equals(reference.path):
            raise StudyError(f"{variant}: scored on other images than {study.reference}.")
        thresholds[variant] = Thresholds(study, variant, layout).rows[-1]
    family = study.comparison_family()
    differences = {}
    for variant, (table, scores) in tests.items():
        if variant != study.reference:
            differences[variant] = compare_pair(
                table.label.to_numpy(),
                scores,
                reference_scores,
                table.patient.to_numpy(),
                (thresholds[variant], thresholds[study.reference]),
                statistics,
                study.trained_as(variant) == study.trained_as(study.reference),
            )
    decide(differences, family, statistics.level)
    errors = count_errors(
        reference.label.to_numpy(),
        reference.patient.to_numpy(),
        {variant: scores for variant, (_, scores) in tests.items()},
        {variant: by_point["fixed"] for variant, by_point in thresholds.items()},
        study.reference,
    )
    result = {"reference": study.reference, "family": family, "differences": differences}
    result["errors"] = errors
    return write_record(layout.comparisons, result)


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
