"""Made-up predictions that several tests need: simulated, drawn by hypothesis, as files."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.predictions import COLUMNS
from hybridlungvit.io import file_sha256, write_json

SEEDS = 4


def two_models(seed=0, gap=0.0, seeds=SEEDS, patients=80):
    """Labels (N,), scores (K, N) of two models, the first better by ``gap``, patients (N,)."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    labels = (clusters % 2).astype(int)
    common = rng.normal(size=patients)[clusters] + rng.normal(size=len(labels))
    quality = rng.normal(1.8, 0.3, (2, seeds, 1)) + np.array([gap, 0])[:, None, None]
    a, b = quality * labels + common + rng.normal(0, 0.6, (2, seeds, len(labels)))
    return labels, a, b, clusters


def save_predictions(study, variant, seed, layout, table):
    """A table of predictions with its record, as ``score`` writes them; returns the CSV's path."""
    path = layout.predictions(variant, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    table[COLUMNS].to_csv(path, index=False, float_format="%.9g")
    record = {
        "config_sha256": study.prediction_hash(variant),
        "predictions_sha256": file_sha256(path),
    }
    write_json(path.with_suffix(".json"), record)
    return path


@st.composite
def scored_images(draw, models=1, min_size=2):
    """Labels of both classes, tied scores of each model in [0, 1], and patients: (N,) each."""
    row = st.tuples(st.integers(0, 1), *[st.integers(0, 6)] * models, st.integers(0, 9))
    labels, *scores, patients = np.array(draw(st.lists(row, min_size=min_size, max_size=40))).T
    assume(0 < labels.sum() < len(labels))
    return labels, *(row / 6 for row in scores), patients


@st.composite
def weighted_images(draw):
    """Labels, scores, each image's patient by index, and the times each patient is drawn.

    Both classes are drawn.
    """
    labels, scores, patients = draw(scored_images())
    member = PatientClusters.of(labels, patients).member
    size = int(member.max()) + 1
    drawn = np.array(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    assume(0 < (drawn[member] * labels).sum() < drawn[member].sum())
    return labels, scores, member, drawn
