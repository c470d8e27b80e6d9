"""The stage of a variant's heat maps: lung focus and, of the reference, cases and checks."""

from typing import Any

import numpy as np
from torch import nn

from hybridlungvit.config import Study
from hybridlungvit.explain.cases import (
    COMPARED_SEEDS,
    other_variants,
    settings,
    subsample,
)
from hybridlungvit.explain.faithfulness import check_faithfulness
from hybridlungvit.explain.focus import write_focus
from hybridlungvit.explain.gradcam import (
    TestImages,
    heat_of,
    load_explained,
    load_tests,
    write_cases,
)
from hybridlungvit.explain.saliency import check_agreement, check_sanity, check_stability
from hybridlungvit.io import file_sha256, write_record
from hybridlungvit.paths import Layout


def explain(study: Study, variant: str, layout: Layout) -> None:
    """Write what the paper shows of a variant's Grad-CAM: see the functions that it calls."""
    tests = load_tests(study, variant, layout)
    model = load_explained(study, variant, study.seeds[0], layout)
    write_focus(study, variant, tests, model, layout)
    if variant == study.reference:
        write_cases(study, variant, tests, model, layout)
        write_checks(study, variant, tests, model, layout)


def write_checks(
    study: Study, variant: str, tests: TestImages, model: nn.Module, layout: Layout
) -> dict[str, Any]:
    """Write the checks that heat maps can fail, on one subsample of the test set.

    Agreement is that of the first ``COMPARED_SEEDS`` seeds, the other checks are of ``model``, the
    first seed's. All intervals resample the patients of the subsample; the trained weights are held
    fixed.
    """
    tests = tests.select(subsample(study, len(tests.table)))
    size = study.explanation.batch_size
    seeds = study.seeds[:COMPARED_SEEDS]
    models = [model, *(load_explained(study, variant, seed, layout) for seed in seeds[1:])]
    heats = np.stack([heat_of(each, tests, size) for each in models])  # (K, N, S, S)
    runs = {seed: layout.run(study.trained_as(variant), seed) for seed in seeds}
    record = {
        "variant": variant,
        **settings(study, variant),
        "predictions_sha256": file_sha256(layout.predictions(variant, study.seeds[0])),
        "model_sha256": {
            str(seed): file_sha256(run / "model.safetensors") for seed, run in runs.items()
        },
        "compared": other_variants(study, variant),
        "images": len(tests.table),
        "patients": int(tests.table.patient.nunique()),
        "sanity": check_sanity(study, variant, model, tests, heats[0]),
        "faithfulness": check_faithfulness(study, model, tests, heats[0]),
        "agreement": check_agreement(heats, tests, study),
        "stability": check_stability(model, tests, heats[0], study),
    }
    return write_record(layout.saliency(variant), record)
