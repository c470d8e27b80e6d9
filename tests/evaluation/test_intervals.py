"""Intervals and tests of the AUC against R's pROC, scipy, literal versions and simulation."""

import itertools
import math
import subprocess
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from conftest import benchmark, has_proc
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from hybridlungvit.evaluation.bootstrap import auc_interval
from hybridlungvit.evaluation.delong import DeLongTest, auc_variance, delong_interval, delong_test
from hybridlungvit.evaluation.intervals import (
    SCALES,
    normal_interval,
    separated_interval,
    wilson_interval,
)
from hybridlungvit.evaluation.seeds import VarianceComponents, auc_over_seeds

coverage, speed = benchmark("coverage"), benchmark("bootstrap")
METHODS = [lambda *data: auc_interval(*data, 1000), delong_interval]
methods = pytest.mark.parametrize("method", METHODS, ids=["bootstrap", "DeLong"])


@st.composite
def clustered_scores(draw):
    """Labels of both classes, two tied scores and patients, some with images of both classes."""
    row = st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(0, 9), st.integers(0, 12))
    labels, a, b, patients = np.array(draw(st.lists(row, min_size=8, max_size=40))).T
    for label in (0, 1):
        assume(len(np.unique(patients[labels == label])) >= 2)
    return labels, a / 9, b / 9, patients


def literal_obuchowski(labels, rows, patients):
    """Obuchowski (1997), eq. by eq., for two models: AUCs and their covariance matrix."""
    m, n = (labels == 1).sum(), (labels == 0).sum()
    high, low = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    names = np.unique(patients)
    first, second, aucs = [], [], []
    for scores in rows:
        psi = {
            (i, j): (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
            for i, j in itertools.product(high, low)
        }
        auc = sum(psi.values()) / (m * n)
        x = {i: sum(psi[i, j] for j in low) / n for i in high}
        y = {j: sum(psi[i, j] for i in high) / m for j in low}
        own_x = [[x[i] for i in high if patients[i] == c] for c in names]
        own_y = [[y[j] for j in low if patients[j] == c] for c in names]
        first.append([sum(v) - len(v) * auc for v in own_x])
        second.append([sum(v) - len(v) * auc for v in own_y])
        aucs.append(auc)
    with_x, with_y = (sum(map(bool, own)) for own in (own_x, own_y))
    count = len(names)
    result = np.empty((2, 2))
    for r, s in itertools.product(range(2), repeat=2):
        ten = with_x / ((with_x - 1) * m) * np.dot(first[r], first[s])
        one = with_y / ((with_y - 1) * n) * np.dot(second[r], second[s])
        eleven = [count / (count - 1) * np.dot(first[u], second[v]) for u, v in ((r, s), (s, r))]
        result[r, s] = ten / m + one / n + sum(eleven) / (m * n)
    return aucs, result


@given(clustered_scores())
def test_the_clustered_variance_is_obuchowskis(data):
    labels, a, b, patients = data
    aucs, expected = literal_obuchowski(labels, (a, b), patients)
    for scores, auc, variance in zip((a, b), aucs, np.diag(expected), strict=True):
        assert auc_variance(labels, scores, patients) == pytest.approx((auc, variance), abs=1e-12)
    found = delong_test(labels, a, b, patients)
    gap = expected[0, 0] + expected[1, 1] - 2 * expected[0, 1]
    assert found.estimate == pytest.approx(aucs[0] - aucs[1], abs=1e-12)
    assert found.error**2 == pytest.approx(max(gap, 0), abs=1e-10)
    if found.error:
        p_value = 2 * stats.norm.sf(abs(found.estimate) / found.error)
        assert found.p_value == pytest.approx(p_value, rel=1e-12)


@given(clustered_scores())
def test_the_variance_is_exact_and_rounded_once(data):
    """Obuchowski's equations in fractions; one rounding, whatever machine adds up."""
    labels, scores, _, patients = data
    high, low = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    psi = {
        (i, j): Fraction(int(scores[i] > scores[j]) + int(scores[i] >= scores[j]), 2)
        for i, j in itertools.product(high, low)
    }
    m, n = len(high), len(low)
    auc = sum(psi.values()) / (m * n)
    above, below, names = {}, {}, set(patients.tolist())
    for i in high:
        value = sum(psi[i, j] for j in low) / n - auc
        above[patients[i]] = above.get(patients[i], 0) + value / m
    for j in low:
        value = sum(psi[i, j] for i in high) / m - auc
        below[patients[j]] = below.get(patients[j], 0) + value / n
    p, q, every = Fraction(len(above)), Fraction(len(below)), Fraction(len(names))
    variance = (
        p / (p - 1) * sum(value**2 for value in above.values())
        + q / (q - 1) * sum(value**2 for value in below.values())
        + 2 * every / (every - 1) * sum(above[c] * below[c] for c in above.keys() & below.keys())
    )
    assert auc_variance(labels, scores, patients) == (float(auc), float(variance))


def test_delong_of_a_single_patient_of_a_class_knows_nothing():
    labels, patients = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])
    better, worse = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.3, 0.1, 0.2, 0.4])
    assert math.isnan(auc_variance(labels, worse, patients)[1])
    assert delong_test(labels, better, worse, patients).p_value == 1
    assert delong_test(labels, better, worse).p_value < 1


def test_delong_of_a_certain_difference_leaves_no_doubt():
    labels = np.array([0, 0, 1, 1])
    assert delong_test(labels, labels, 1 - labels) == DeLongTest(1.0, 0.0, 0.0)
    assert delong_test(labels, labels, labels) == DeLongTest(0.0, 0.0, 1.0)


PROC = """
suppressMessages(library(pROC)); d <- read.csv(commandArgs(TRUE)[1])
for (k in unique(d$set)) {{
  s <- d[d$set == k, ]
  a <- roc(s$y, s$a, quiet=TRUE, direction="<", levels=c(0, 1))
  b <- roc(s$y, s$b, quiet=TRUE, direction="<", levels=c(0, 1))
  t <- roc.test(a, b, method="delong", paired=TRUE)
  cat(sprintf("%.15g %.15g %.15g %.15g\\n", auc(a), var(a, method="delong"), auc(b), t$p.value))
}}
""".replace("{{", "{").replace("}}", "}")


def test_delong_agrees_with_r_proc(tmp_path):
    if not has_proc():
        pytest.skip("needs R with the package pROC: apt-get install r-cran-proc")
    sets = []
    for k, digits in enumerate((1, 2, 6)):  # many ties, some, none
        labels, scores, _ = coverage.one_model(np.random.default_rng(k), 0.9)
        other = scores + np.random.default_rng(k + 9).normal(0, 0.6, len(scores))
        sets.append(
            pd.DataFrame({"set": k, "y": labels, "a": scores.round(digits), "b": other.round(2)})
        )
    table = pd.concat(sets)
    table.to_csv(tmp_path / "data.csv", index=False)
    (tmp_path / "proc.R").write_text(PROC)
    command = ["Rscript", str(tmp_path / "proc.R"), str(tmp_path / "data.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [list(map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(lines) == len(sets)
    for part, (auc, variance, other, p_value) in zip(sets, lines, strict=True):
        labels, a, b = (part[name].to_numpy() for name in ("y", "a", "b"))
        own_auc, own_variance = auc_variance(labels, a)
        assert own_auc == pytest.approx(auc, abs=1e-12)
        assert own_variance == pytest.approx(variance, rel=1e-10)
        found = delong_test(labels, a, b)
        assert found.estimate == pytest.approx(auc - other, abs=1e-12)
        assert found.p_value == pytest.approx(p_value, rel=1e-8)


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
def test_wilson_is_scipys(trials, data, level):
    successes = data.draw(st.integers(0, trials))
    found = wilson_interval(successes, trials, level)
    expected = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
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


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_a_proportion_at_its_edge_has_no_normal_interval(edge):
    assert normal_interval(edge, 0.1, 2) is None


# The edge of the AUC


def separated(images=600, patients=430):
    labels, scores, clusters = coverage.one_model(np.random.default_rng(0), 0.9)
    return labels, scores + 100 * labels, clusters


@methods
@pytest.mark.parametrize("sign", [1, -1])
def test_separated_classes_get_an_honest_interval(method, sign):
    labels, scores, clusters = separated()
    found = method(labels, sign * scores, clusters)
    inner, outer = (found.low, found.high) if sign == 1 else (1 - found.high, 1 - found.low)
    assert found.estimate == outer == ((sign == 1 and 1.0) or 0.0) or outer == 1
    assert 0.97 < inner < 0.995


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


# Coverage


def test_an_unpaired_comparison_would_be_far_too_wide():
    labels, common, patients = coverage.one_model(np.random.default_rng(1), 0.9)
    a, b = common + 0.2 * np.random.default_rng(2).normal(size=(2, len(common)))
    paired = delong_test(labels, a, b, patients).error
    alone = [auc_variance(labels, row, patients)[1] for row in (a, b)]
    assert paired < 0.6 * math.sqrt(sum(alone))


def test_delong_interval_is_symmetric_on_the_logit_scale():
    labels, scores, patients = coverage.one_model(np.random.default_rng(3), 0.95)
    found = delong_interval(labels, scores, patients)
    low, mid, high = (math.log(x / (1 - x)) for x in (found.low, found.estimate, found.high))
    assert high - mid == pytest.approx(mid - low)


# Speed


def test_the_bootstrap_is_fast_and_exact():
    record = speed.measure(resamples=2000, looped=40, repeats=3)
    assert record["difference"] < 1e-12
    assert record["ratio"] > 100
    assert record["megabytes"] < 500


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


def test_tied_scores_over_seeds_have_an_auc_of_a_half():
    labels, patients = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 3])
    found = auc_over_seeds(labels, np.full((3, 6), 0.3), patients, 200)
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)
