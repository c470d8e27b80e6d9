"""The AUC in integers against every pair counted, exact fractions, and its memory."""

import itertools
import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from made_up import weighted_images
from sklearn.metrics import roc_auc_score

import hybridlungvit.evaluation
from hybridlungvit.evaluation import bootstrap, seeds
from hybridlungvit.evaluation.auc import auc_function, weighted_auc
from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.seeds import auc_interval


def literal_auc(labels, scores, weights):
    """Every pair of a positive and a negative, one by one, as an exact fraction."""
    won = pairs = Fraction(0)
    for i, j in itertools.product(np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)):
        pair = int(weights[i]) * int(weights[j])
        won += pair * Fraction(2 * int(scores[i] > scores[j]) + int(scores[i] == scores[j]), 2)
        pairs += pair
    return won / pairs


@given(weighted_images())
def test_the_auc_is_the_exact_share_of_won_pairs_rounded_once(data):
    labels, scores, member, drawn = data
    exact = float(literal_auc(labels, scores, drawn[member]))
    assert auc_function(labels, scores, member)(drawn[None]).tolist() == [exact]
    assert weighted_auc(labels, scores, drawn[member][None]).tolist() == [exact]


def test_one_class_alone_has_no_auc():
    labels, scores = np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3])
    weights = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]])
    assert np.isnan(weighted_auc(labels, scores, weights)).tolist() == [True, True, False, True]
    for label in (0, 1):
        assert np.isnan(weighted_auc(np.full(3, label), scores, weights)).all()


def test_sums_beyond_32_bits_stay_exact():
    """Drawn so often that the pairs, and the images of a class, pass 2^32."""
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.1, 0.2, 0.3])
    weights = np.array([[2_000_000_000, 3, 2_000_000_000, 1]], np.int32)
    expected = [float(literal_auc(labels, scores, weights[0]))]
    assert weighted_auc(labels, scores, weights).tolist() == expected


def test_weights_that_are_no_whole_numbers_are_refused():
    with pytest.raises(TypeError, match="must be integers; they are float64"):
        weighted_auc(np.array([0, 1]), np.array([0.1, 0.2]), np.array([[0.5, 1.0]]))


def test_a_large_test_set_is_drawn_in_small_parts():
    images = PatientClusters.of(np.ones(100_000, np.int64), np.arange(100_000) % 60_000)
    chunks = list(images.draws(60, 0))
    assert [len(chunk) for chunk in chunks] == [50, 10]
    assert not np.array_equal(chunks[0][:10], chunks[1])
    assert all((chunk.sum(axis=1) == 60_000).all() for chunk in chunks)


def test_the_interval_of_forty_thousand_images_stays_small():
    """A table of their pairs would take 2 GB."""
    rng = np.random.default_rng(0)
    patients = np.arange(40_000) * 2 // 3
    labels = (patients % 4 > 0).astype(np.int64)
    scores = labels + rng.normal(size=40_000)
    tracemalloc.start()
    interval = auc_interval(labels, scores, patients, 150)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert interval.low < roc_auc_score(labels, scores) < interval.high
    assert peak < 8 * 8 * bootstrap.CELLS  # eight arrays of a chunk


def test_the_package_names_its_intervals_and_nothing_else():
    for name in ("auc_interval", "auc_over_seeds", "auc_difference_over_seeds"):
        assert getattr(hybridlungvit.evaluation, name) is getattr(seeds, name)
    with pytest.raises(AttributeError, match="no attribute 'auc_intervall'"):
        hybridlungvit.evaluation.auc_intervall  # noqa: B018
    assert math.isclose(hybridlungvit.evaluation.auc_interval([0, 1], [0.1, 0.1]).estimate, 0.5)
