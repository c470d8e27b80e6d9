"""Operating points and calibration against literal versions, scikit-learn and statsmodels."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from made_up import scored_images
from scipy.special import expit
from sklearn.metrics import log_loss, roc_curve
from statsmodels.stats.proportion import proportion_confint

from hybridlungvit.evaluation.bootstrap import PatientClusters
from hybridlungvit.evaluation.calibration import (
    BINS,
    calibration_records,
    mass_bins,
    recalibration,
    reliability,
)
from hybridlungvit.evaluation.predictions import rates, sensitive_threshold, youden_threshold
from hybridlungvit.evaluation.temperature import TEMPERATURES, fit_temperature, logits, scaled

# Operating points


@given(scored_images())
def test_rates_are_those_of_the_calls_and_scikit_learns_best_is_found(data):
    labels, scores, _ = data
    for threshold, sensitivity, specificity in zip(*rates(labels, scores), strict=True):
        called = scores >= threshold
        assert sensitivity == pytest.approx(called[labels == 1].mean())
        assert specificity == pytest.approx((~called)[labels == 0].mean())
    false, true, _ = roc_curve(labels, scores)
    called = scores >= youden_threshold(labels, scores)
    found = called[labels == 1].mean() - called[labels == 0].mean()
    # Calling nothing is no operating point: at worst everything is called, with the same sum.
    assert found == pytest.approx((true - false).max())


@given(scored_images(), st.floats(0.05, 1))
def test_the_sensitive_threshold_reaches_its_target_and_the_next_would_not(data, target):
    labels, scores, _ = data
    threshold = sensitive_threshold(labels, scores, target)
    positives = scores[labels == 1]
    assert (positives >= threshold).mean() >= target - 1e-9
    higher = scores[scores >= threshold]
    stricter = higher[higher > higher.min()] if len(higher) else higher
    if len(stricter):
        assert (positives >= stricter.min()).mean() < target


def test_a_threshold_lies_midway_between_separated_classes():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])
    assert youden_threshold(labels, scores) == pytest.approx(0.4)
    assert sensitive_threshold(labels, scores, 0.95) == pytest.approx(0.4)
    assert sensitive_threshold(labels, scores, 0.5) == pytest.approx(0.75)


# Calibration


def simulated(slope=1.0, intercept=0.0, images=400, seed=0):
    """Labels drawn from logit P = intercept + slope · logit p, probabilities, patients."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0.5, 1.5, images)
    labels = (rng.random(images) < expit(intercept + slope * values)).astype(int)
    return labels, expit(values), np.arange(images) // 2


def test_slope_and_intercept_are_statsmodels():
    labels, probabilities, _ = simulated(1.4, -0.7)
    weights = np.random.default_rng(1).integers(0, 4, (5, len(labels))).astype(float)
    slopes, intercepts = recalibration(labels, probabilities, weights)
    values, family = logits(probabilities), sm.families.Binomial()
    for row, slope, intercept in zip(weights, slopes, intercepts, strict=True):
        both = sm.GLM(labels, sm.add_constant(values), family=family, freq_weights=row).fit()
        assert slope == pytest.approx(both.params[1], abs=1e-6)
        ones = np.ones((len(labels), 1))
        one = sm.GLM(labels, ones, family=family, freq_weights=row, offset=values).fit()
        assert intercept == pytest.approx(one.params[0], abs=1e-6)


@pytest.mark.parametrize("upwards", [False, True])
@pytest.mark.parametrize("images", [2, 20, 624])
def test_separated_classes_have_no_slope_however_many_they_are(images, upwards):
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 2
    # With a gap between the classes the gradient vanishes at a slope of 20 to 40.
    probabilities = rng.uniform(0.02, 0.3, images) + 0.68 * (labels == upwards)
    weights = np.ones((2, images))
    weights[1, 2 + rng.integers(0, max(images - 2, 1), (images - 2) // 2)] = 0
    slope, intercept = recalibration(labels, probabilities, weights)
    assert np.isnan(slope).all()
    assert np.isfinite(intercept).all()


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_the_temperature_is_found_and_minimises_the_log_loss(temperature):
    labels, probabilities, _ = simulated(1 / temperature, images=20_000)
    found = fit_temperature(labels, probabilities)
    assert found == pytest.approx(temperature, rel=0.06)
    best = log_loss(labels, scaled(probabilities, found))
    for factor in (0.95, 1.05):
        assert best < log_loss(labels, scaled(probabilities, found * factor))
    slope, _ = recalibration(labels, scaled(probabilities, found), np.ones((1, len(labels))))
    assert slope[0] == pytest.approx(1, abs=0.02)


def test_a_temperature_stays_in_its_bounds_and_certain_probabilities_are_finite():
    labels = np.repeat([0, 1], 10)
    for probabilities in (labels.astype(float), np.where(labels, 0.9, 0.1)):
        assert fit_temperature(labels, probabilities) == TEMPERATURES[0]
        assert np.isfinite(logits(probabilities)).all()
    assert fit_temperature(labels, 1.0 - labels) == TEMPERATURES[1]


def test_equal_probabilities_share_a_bin():
    assert len(np.unique(mass_bins(np.repeat([0.1, 0.9], 50)))) == 2


def test_reliability_and_calibration_error_are_the_literal_ones_for_resamples_too():
    """Images sorted and cut into ten equal parts; all values differ."""
    labels, probabilities, patients = simulated(0.5, images=200)
    images = PatientClusters.of(labels, patients)
    bins = mass_bins(probabilities)
    predicted, calibration = reliability(images, probabilities[None], bins[None])
    parts = np.array_split(np.argsort(probabilities), BINS)
    assert predicted[:, 0] == pytest.approx([probabilities[part].mean() for part in parts])
    for drawn in (images.once, next(images.draws(4, 0))[:1]):
        weights = drawn[0][images.member]
        error, *shares = (value[0, 0] for value in calibration(drawn).values())
        gaps = [(weights[p] * (labels[p] - probabilities[p])).sum() for p in parts]
        assert error == pytest.approx(np.abs(gaps).sum() / weights.sum(), abs=1e-12)
        expected = [np.average(labels[p], weights=weights[p]) for p in parts]
        assert shares == pytest.approx(expected, abs=1e-12)


def test_scaling_repairs_probabilities_that_are_too_extreme():
    """The same overconfidence on validation and test: slope and error improve, ranks stay."""
    labels, probabilities, patients = simulated(0.5, images=1000)
    val_labels, val_probabilities, _ = simulated(0.5, images=1000, seed=9)
    rows, val_rows = (
        np.stack([p, bent := scaled(p, 1 / 1.2), (p + bent) / 2])
        for p in (probabilities, val_probabilities)
    )
    images = PatientClusters.of(labels, patients)
    record = calibration_records(
        images, rows, val_labels, val_rows, [0, 1], resamples=200, level=0.95, seed=0
    )
    before, after = (record[state]["headline"] for state in ("before", "after"))
    assert before["slope"]["high"] < 0.7
    assert after["slope"]["low"] < 1 < after["slope"]["high"]
    assert after["ece"]["estimate"] < 0.5 * before["ece"]["estimate"]
    assert after["log_loss"]["estimate"] < before["log_loss"]["estimate"]
    first, second = record["temperatures"].values()
    assert second == pytest.approx(1.2 * first, rel=1e-3)
    assert len(record["after"]["bins"]) == BINS
    for one in record["after"]["bins"]:
        assert 0 <= one["low"] <= one["estimate"] <= one["high"] <= 1
        assert not math.isnan(one["predicted"])


def test_a_bin_of_one_class_is_as_certain_as_it_has_patients():
    """200 images of 20 patients; the lowest bin holds 20 images, two of each normal one."""
    labels, scores = np.repeat([0, 1], 100), np.linspace(0.01, 0.99, 200)
    patients = np.arange(200) % 10 + 10 * labels
    rows = np.stack([scores, scores])
    images = PatientClusters.of(labels, patients)
    record = calibration_records(images, rows, labels, rows, [0], 200, 0.95, 0)
    lowest = record["before"]["bins"][0]
    assert (lowest["estimate"], lowest["low"]) == (0, 0)
    assert lowest["high"] == pytest.approx(proportion_confint(0, 10, method="wilson")[1])


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.1, 10))
def test_scaling_divides_the_logit(probability, temperature):
    for_, against = (share ** (1 / temperature) for share in (probability, 1 - probability))
    expected = for_ / (for_ + against)
    assert scaled(np.array([probability]), temperature)[0] == pytest.approx(expected, abs=1e-9)
