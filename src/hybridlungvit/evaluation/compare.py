"""The stage `compare`: every variant against the reference."""

from typing import Any

from hybridlungvit.config import Study, load_other
from hybridlungvit.evaluation.misclassified import count_errors
from hybridlungvit.evaluation.other_study import compare_with_other
from hybridlungvit.evaluation.paired import DIFFERENCE, compare_pair, holm, verdict
from hybridlungvit.evaluation.predictions import Thresholds, scores_on
from hybridlungvit.io import StudyError, write_record
from hybridlungvit.paths import Layout


def compare_variants(study: Study, layout: Layout) -> dict[str, Any]:
    """Compare every variant with the reference, paired, count errors, and write the results.

    p-values of the declared family are adjusted by Holm's method; comparisons outside it are
    exploratory and keep their own. Those with another study are a family of their own.
    """
    statistics, thresholds = study.statistics, {}
    tests = {v: scores_on(study, v, layout) for v in study.variants}
    reference, reference_scores = tests[study.reference]
    for variant, (table, _) in tests.items():
        if not table.path.equals(reference.path):
            raise StudyError(f"{variant}: scored on other images than {study.reference}.")
        thresholds[variant] = Thresholds(study, variant, layout).rows[-1]
    family = study.comparison_family()
    found = {}
    for variant, (table, scores) in tests.items():
        if variant != study.reference:
            found[variant] = compare_pair(
                table.label.to_numpy(),
                scores,
                reference_scores,
                table.patient.to_numpy(),
                (thresholds[variant], thresholds[study.reference]),
                statistics,
                study.trained_as(variant) == study.trained_as(study.reference),
            )
    adjusted = holm({variant: found[variant]["p_value"] for variant in family})
    for variant, record in found.items():
        used = adjusted.get(variant, record["p_value"])
        record |= {
            "p_adjusted": adjusted.get(variant),
            "verdict": verdict(record, 0, DIFFERENCE, used, statistics.level),
        }
    errors = count_errors(
        reference.label.to_numpy(),
        reference.patient.to_numpy(),
        {variant: scores for variant, (_, scores) in tests.items()},
        {variant: own["fixed"] for variant, own in thresholds.items()},
        study.reference,
    )
    result = {"reference": study.reference, "family": family, "differences": found}
    result["errors"] = errors
    other = load_other(study)
    result["other_study"] = None if other is None else compare_with_other(study, other, layout)
    return write_record(layout.comparisons, result)
