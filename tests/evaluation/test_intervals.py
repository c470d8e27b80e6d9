"""Intervals and tests of the AUC against R's pROC, scipy, literal versions and simulation."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from conftest import benchmark, proc
from hypothesis import assume, given
from hypothesis import strategies as st
from made_up import scored_images
from scipy import stats
from scipy.special import logit
from statsmodels.stats.proportion import proportion_confint

from hybridlungvit.evaluation.delong import auc_variance, delong_interval, delong_test
from hybridlungvit.evaluation.intervals import (
    SCALES,
    normal_interval,
    separated_interval,
    wilson_interval,
)
from hybridlungvit.evaluation.seeds import VarianceComponents, auc_interval, auc_over_seeds

coverage, speed = benchmark("coverage"), benchmark("bootstrap")


def over_seeds(labels, scores, patients):
    return auc_over_seeds(labels, np.stack([scores] * 3), patients, 200)


METHODS = {
    "bootstrap": lambda *data: auc_interval(*data, 1000),
    "DeLong": delong_interval,
    "seeds": over_seeds,
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@st.composite
def clustered_scores(draw):
    """Labels, tied scores of two models and patients, at least two with images of each class."""
    labels, a, b, patients = draw(scored_images(models=2, min_size=8))
    for label in (0, 1):
        assume(len(np.unique(patients[labels == label])) >= 2)
    return labels, a, b, patients


def literal_obuchowski(labels, rows, patients):
    """Obuchowski (1997), eq. by eq., in fractions: AUCs of the rows, and their covariances."""
    high, low = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    m, n, count = len(high), len(low), len(set(patients.tolist()))
    aucs, above, below = [], [], []
    for scores in rows:
        psi = {
            (i, j): Fraction(int(scores[i] > scores[j]) + int(scores[i] >= scores[j]), 2)
            for i, j in itertools.product(high, low)
        }
        auc = sum(psi.values()) / (m * n)
        x, y = {}, {}
        for i in high:
            value = sum(psi[i, j] for j in low) / n - auc
            x[patients[i]] = x.get(patients[i], 0) + value / m
        for j in low:
            value = sum(psi[i, j] for i in high) / m - auc
            y[patients[j]] = y.get(patients[j], 0) + value / n
        aucs.append(auc)
        above.append(x)
        below.append(y)

    def covariance(r, s):
        p, q = len(above[0]), len(below[0])
        ten = Fraction(p, p - 1) * sum(above[r][c] * above[s][c] for c in above[0])
        one = Fraction(q, q - 1) * sum(below[r][c] * below[s][c] for c in below[0])
        eleven = [
            sum(above[u][c] * below[v][c] for c in above[0].keys() & below[0].keys())
            for u, v in ((r, s), (s, r))
        ]
        return ten + one + Fraction(count, count - 1) * sum(eleven)

    return aucs, covariance


@given(clustered_scores())
def test_the_clustered_variance_is_obuchowskis_exact_and_rounded_once(data):
    labels, a, b, patients = data
    aucs, covariance = literal_obuchowski(labels, (a, b), patients)
    for i, scores in enumerate((a, b)):
        expected = float(aucs[i]), float(covariance(i, i))
        assert auc_variance(labels, scores, patients) == expected
    estimate, error, p_value = delong_test(labels, a, b, patients).values()
    gap = covariance(0, 0) + covariance(1, 1) - 2 * covariance(0, 1)
    assert estimate == float(aucs[0] - aucs[1])
    assert error == math.sqrt(float(gap))
    if error:
        assert p_value == pytest.approx(2 * stats.norm.sf(abs(estimate) / error), rel=1e-12)


def test_delong_of_one_patient_knows_nothing_and_of_a_certain_difference_everything():
    labels, patients = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])
    better, worse = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.3, 0.1, 0.2, 0.4])
    assert math.isnan(auc_variance(labels, worse, patients)[1])
    assert delong_test(labels, better, worse, patients)["p_value"] == 1
    assert delong_test(labels, better, worse)["p_value"] < 1
    assert [*delong_test(labels, labels, 1 - labels).values()] == [1, 0, 0]
    assert [*delong_test(labels, labels, labels).values()] == [0, 0, 1]


PROC = r"""
for (k in unique(d$set)) {
  s <- d[d$set == k, ]
  a <- roc(s$y, s$a, quiet=TRUE, direction="<", levels=c(0, 1))
  b <- roc(s$y, s$b, quiet=TRUE, direction="<", levels=c(0, 1))
  t <- roc.test(a, b, method="delong", paired=TRUE)
  cat(sprintf("%.15g %.15g %.15g %.15g\n", auc(a), var(a, method="delong"), auc(b), t$p.value))
}
"""


def test_delong_agrees_with_r_proc(tmp_path):
    sets = []
    for k, digits in enumerate((1, 2, 6)):  # many ties, some, none
        labels, scores, _ = coverage.one_model(np.random.default_rng(k), 0.9)
        other = scores + np.random.default_rng(k + 9).normal(0, 0.6, len(scores))
        sets.append(
            pd.DataFrame({"set": k, "y": labels, "a": scores.round(digits), "b": other.round(2)})
        )
    lines = proc(pd.concat(sets), PROC, tmp_path)
    for part, (auc, variance, other, p_value) in zip(sets, lines, strict=True):
        labels, a, b = (part[name].to_numpy() for name in ("y", "a", "b"))
        own_auc, own_variance = auc_variance(labels, a)
        assert own_auc == pytest.approx(auc, abs=1e-12)
        assert own_variance == pytest.approx(variance, rel=1e-10)
        found = delong_test(labels, a, b)
        assert found["estimate"] == pytest.approx(auc - other, abs=1e-12)
        assert found["p_value"] == pytest.approx(p_value, rel=1e-8)


# Forms


@given(st.floats(0.5, 0.999), st.floats(0, 20), st.one_of(st.floats(1, 1e6), st.just(math.inf)))
def test_quantiles_and_tails_are_those_of_scipys_distributions(level, ratio, freedom):
    components = VarianceComponents(0.75, 0.375, 0.125, 2, freedom)  # a standard error of 1
    quantile = components.quantile(level)
    assert quantile == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-12)
    assert components.tail(ratio) == pytest.approx(stats.t.sf(ratio, freedom), rel=1e-12)
    found = normal_interval(0.0, 1.0, quantile, "any")
    assert (found.low, found.high) == (-quantile, quantile)


@given(st.integers(1, 500), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_statsmodels(trials, data, level):
    successes = data.draw(st.integers(0, trials))
    found = wilson_interval(successes, trials, level)
    expected = proportion_confint(successes, trials, 1 - level, "wilson")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
    assert 0 <= found.low <= found.estimate <= found.high <= 1


@pytest.mark.parametrize(("scale", "estimate"), [("unit", 0.3), ("positive", 2), ("signed", -0.4)])
def test_intervals_respect_the_range_of_their_scale(scale, estimate):
    there, back, rate = SCALES[scale]
    step = 1e-6
    slope = (there(estimate + step) - there(estimate - step)) / (2 * step)
    assert 1 / rate(estimate) == pytest.approx(slope, rel=1e-6)
    assert back(there(estimate)) == pytest.approx(estimate)
    narrow = normal_interval(estimate, 1e-4, 2, scale)
    assert (narrow.low, narrow.high) == pytest.approx((estimate - 2e-4, estimate + 2e-4), abs=1e-6)
    wide = normal_interval(estimate, 5.0, 2, scale)
    assert {"unit": 0, "positive": 0, "signed": -1}[scale] <= wide.low < wide.high
    assert normal_interval(estimate, 0.0, 2, scale) is None
    assert normal_interval({"signed": -1.0}.get(scale, 0.0), 0.1, 2, scale) is None


# The edge of the AUC


def separated():
    labels, scores, clusters = coverage.one_model(np.random.default_rng(0), 0.9)
    return labels, scores + 100 * labels, clusters


@methods
@pytest.mark.parametrize("sign", [1, -1])
def test_separated_classes_get_an_honest_interval(method, sign):
    labels, scores, clusters = separated()
    found = method(labels, sign * scores, clusters)
    assert found.estimate == (sign == 1)
    inner, outer = (found.low, found.high) if sign == 1 else (1 - found.high, 1 - found.low)
    assert 0.97 < inner < 0.995 and outer == 1


@methods
def test_one_wrong_image_from_separation_is_sane(method):
    labels, scores, clusters = separated()
    scores[np.flatnonzero(labels == 0)[0]] = np.median(scores[labels == 1])
    found = method(labels, scores, clusters)
    assert np.isfinite([found.low, found.high]).all()
    assert 0.95 < found.low < found.estimate < 1
    assert found.estimate < found.high <= 1


def test_the_separated_interval_solves_newcombes_equation():
    found = separated_interval(1.0, 30, 50, 0.95)
    auc, mean = found.low, 40
    spread = 1 + (mean - 1) * ((1 - auc) / (2 - auc) + auc / (1 + auc))
    error = math.sqrt(auc * (1 - auc) * spread / (30 * 50))
    assert (1 - auc) / error == pytest.approx(stats.norm.ppf(0.975))
    assert separated_interval(1.0, 300, 500, 0.95).low > found.low
    assert separated_interval(0.0, 30, 50, 0.95).high == pytest.approx(1 - found.low)


def test_the_delong_interval_is_symmetric_on_the_logit_scale():
    labels, scores, patients = coverage.one_model(np.random.default_rng(3), 0.95)
    found = delong_interval(labels, scores, patients)
    low, mid, high = logit([found.low, found.estimate, found.high])
    assert high - mid == pytest.approx(mid - low)
    error = math.sqrt(auc_variance(labels, scores, patients)[1])
    rate = found.estimate * (1 - found.estimate)
    assert high - mid == pytest.approx(stats.norm.ppf(0.975) * error / rate)


def test_the_bootstrap_is_exact_and_stays_small():
    ratio, memory = speed.measure(resamples=1000, looped=10, repeats=1)
    assert float(ratio.note.split("by ")[1].split(";")[0]) < 1e-12
    assert memory.value < 500


@methods
def test_scores_that_all_tie_have_an_auc_of_a_half(method):
    labels, patients = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 3])
    found = method(labels, np.full(6, 0.3), patients)
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)


@methods
def test_one_patient_of_each_class_leaves_everything_open(method):
    labels, scores = np.array([0, 1, 1]), np.array([0.5, 0.1, 0.9])
    found = method(labels, scores, np.array([0, 1, 1]))
    assert found.estimate == 0.5
    assert (found.low, found.high) == (0, 1)
