"""The checks a heat map can fail, on one subsample of the test set."""

from typing import Any

import numpy as np

from hybridlungvit.config import Study
from hybridlungvit.explain.cases import settings, subsample
from hybridlungvit.explain.faithfulness import check_faithfulness
from hybridlungvit.explain.gradcam import heat_of, load_explained, load_tests
from hybridlungvit.explain.sanity import check_agreement, check_sanity
from hybridlungvit.io import file_sha256, write_record
from hybridlungvit.paths import Layout


def check_saliency(study: Study, variant: str, layout: Layout) -> dict[str, Any]:
    """Write sanity, faithfulness (first seed) and agreement between seeds of a variant's maps.

    All intervals resample the patients of the subsample; the trained weights are held fixed.
    """
    tests = load_tests(study, variant, layout)
    tests = tests.select(subsample(study, len(tests.table)))
    size = study.explanation.batch_size
    heats = np.stack(
        [heat_of(load_explained(study, variant, s, layout), tests, size) for s in study.seeds]
    )  # (K, N, S, S)
    model = load_explained(study, variant, study.seeds[0], layout)
    runs = {seed: layout.run(study.trained_as(variant), seed) for seed in study.seeds}
    record = {
        "variant": variant,
        **settings(study, variant),
        "predictions_sha256": file_sha256(layout.predictions(variant, study.seeds[0])),
        "model_sha256": {
            str(seed): file_sha256(run / "model.safetensors") for seed, run in runs.items()
        },
        "images": len(tests.table),
        "patients": int(tests.table.patient.nunique()),
        "sanity": check_sanity(study, variant, model, tests, heats[0]),
        "faithfulness": check_faithfulness(study, model, tests, heats[0]),
        "agreement": check_agreement(heats, tests, study),
    }
    return write_record(layout.saliency(variant), record)
