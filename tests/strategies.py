"""Data that several tests draw: scored images of patients, with ties, and how often each counts."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from hybridlungvit.evaluation.auc import members


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
    member = members(patients, len(labels))
    size = int(member.max()) + 1
    drawn = np.array(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    assume(0 < (drawn[member] * labels).sum() < drawn[member].sum())
    return labels, scores, member, drawn
