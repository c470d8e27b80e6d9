"""Rates and values at other thresholds and prevalences, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_curve

from hybridlungvit.config import Statistics
from hybridlungvit.evaluation.bootstrap import PatientClusters, replicate
from hybridlungvit.evaluation.metrics import point_metrics
from hybridlungvit.evaluation.operating import (
    GRID,
    RATES,
    VALUES,
    precision_curves,
    sweep_thresholds,
)
from hybridlungvit.evaluation.records import basis, headline_record

STATISTICS = Statistics(resamples=300)
THRESHOLDS = np.array([0.05, 0.3, 0.5, 0.9])
PREVALENCES = [0.02, 0.4]


@pytest.fixture(scope="module")
def sample():
    """Labels (N,), probabilities of three seeds (3, N), patients (N,) some of both classes."""
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=90)
    scores = np.clip(0.5 + 0.3 * (labels - 0.5) + rng.normal(0, 0.2, (3, 90)), 0, 1)
    return labels, scores, rng.integers(50, size=90).astype(str)


@pytest.fixture(scope="module")
def swept(sample):
    labels, scores, patients = sample
    clusters = PatientClusters.of(labels, patients)
    return sweep_thresholds(clusters, scores, THRESHOLDS, PREVALENCES, STATISTICS)


def bounds(record):
    return [np.nan if record[key] is None else record[key] for key in ("estimate", "low", "high")]


def test_the_numbers_are_those_of_the_metrics(sample, swept):
    labels, scores, patients = sample
    clusters = PatientClusters.of(labels, patients)
    rates, values = swept
    for t, threshold in enumerate(THRESHOLDS):
        called, at = scores >= threshold, np.full(3, threshold)
        metrics = point_metrics(clusters, called, at, PREVALENCES)
        drawn = replicate(metrics, clusters, 300, STATISTICS.seed)
        parts = dict(zip(RATES, rates[t], strict=True))
        for prefix, row in zip(("", "0.02.", "0.4."), values[t], strict=True):
            parts |= {f"{prefix}{name}": part for name, part in zip(VALUES, row, strict=True)}
        for name, part in parts.items():
            known = basis(name, clusters, scores, called)
            record = headline_record(name, drawn[name], 0.95, *known)
            np.testing.assert_allclose(part, bounds(record), rtol=1e-8, atol=1e-11)


def test_values_at_a_prevalence_are_those_of_images_weighted_to_it(sample, swept):
    labels, scores, _ = sample
    for t, threshold in enumerate(THRESHOLDS):
        for q, prevalence in enumerate(PREVALENCES, 1):
            share = labels.mean()
            weights = np.where(labels == 1, prevalence / share, (1 - prevalence) / (1 - share))
            by_seed = []
            for row in scores:
                cells = confusion_matrix(labels, row >= threshold, sample_weight=weights)
                (tn, fp), (fn, tp) = cells / len(labels)
                odds = threshold / (1 - threshold)
                by_seed.append((tp / (tp + fp), tn / (tn + fn), tp - fp * odds))
            assert swept[1][t, q, :, 0] == pytest.approx(np.mean(by_seed, axis=0))


def test_a_threshold_that_nobody_reaches_leaves_the_positive_predictive_value_undefined(sample):
    labels, scores, patients = sample
    clusters = PatientClusters.of(labels, patients)
    rates, values = sweep_thresholds(clusters, 0.5 * scores, [0.9], PREVALENCES, STATISTICS)
    assert rates[0, :, 0].tolist() == [0, 1]
    assert rates[0, 0, 2] > 0, "an estimate at the edge has an interval of its own"
    assert np.isnan(values[0, :, VALUES.index("ppv")]).all()
    assert values[0, 0, VALUES.index("net_benefit"), 0] == 0
    assert values[0, 1, VALUES.index("npv"), 0] == pytest.approx(1 - PREVALENCES[0])


def test_precision_curves_pass_through_the_points_of_scikit_learn(sample):
    labels, scores, _ = sample
    ties = np.round(scores[0], 1)
    times = np.random.default_rng(0).integers(3, size=(4, len(labels)))
    for weights, curve in zip(times, precision_curves(labels, ties, times), strict=True):
        precision, recall, _ = precision_recall_curve(labels, ties, sample_weight=weights)
        for at, value in zip(GRID[1:], curve[1:], strict=True):
            # scikit-learn lists thresholds upwards; the last that reaches the recall is the highest
            assert value == pytest.approx(precision[np.flatnonzero(recall >= at - 1e-12)[-1]])
