"""The intervals over patients and seeds: literal versions, closed forms, simulation."""

import json
import math

import numpy as np
import pytest
from conftest import benchmark
from hypothesis import given
from hypothesis import strategies as st
from made_up import SEEDS, two_models
from scipy import special, stats

from hybridlungvit.config import Statistics, study_from
from hybridlungvit.evaluation import auc_difference_over_seeds, auc_interval, auc_over_seeds
from hybridlungvit.evaluation.bootstrap import PatientClusters, auc_metric, replicate
from hybridlungvit.evaluation.compare import displacement_trend
from hybridlungvit.evaluation.delong import LEAST_FREEDOM, variance_freedom
from hybridlungvit.evaluation.paired import components_of, difference_record
from hybridlungvit.evaluation.power import (
    _below,
    difference_power,
    equivalence_power,
    minimal_detectable_difference,
)
from hybridlungvit.evaluation.seeds import (
    VarianceComponents,
    auc_slope_over_seeds,
    variance_components,
)
from hybridlungvit.io import StudyError

coverage = benchmark("coverage")


def literal(values, replicates):
    """Components of a sum of means in loops: patients, seeds, interaction, freedom, variance."""
    models, count = len(values), len(values[0])
    sums = [sum(np.mean(draw[g]) for g in range(models)) for draw in replicates]
    fixed = np.var(sums, ddof=1)
    interaction, squares = 0.0, []
    for g in range(models):
        squares.append(np.var(values[g], ddof=1))
        for k in range(count):
            off = [draw[g][k] - np.mean(draw[g]) for draw in replicates]
            interaction += np.var(off, ddof=1) / (count - 1)
    between = max(sum(squares), interaction)
    patients = max(0, fixed - interaction / count)
    variance = patients + between / count
    welch = sum(squares) ** 2 / sum(s**2 / (count - 1) for s in squares)
    freedom = welch * (variance / (between / count)) ** 2
    return patients, between - interaction, interaction, freedom, variance


@given(st.integers(0, 999), st.sampled_from([0.01, 1.0]), st.integers(2, 5), st.integers(1, 2))
def test_components_are_those_of_a_literal_computation(seed, spread, count, models):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, spread, (models, count))
    shared = rng.normal(size=(40, 1, 1))
    replicates = values + shared + rng.normal(0, 0.3, (40, models, count))
    found = variance_components(values, replicates)
    patients, seeds, interaction, freedom, variance = literal(values, replicates)
    assert found.patients == pytest.approx(patients)
    assert found.seeds == pytest.approx(seeds, abs=1e-12)
    assert found.interaction == pytest.approx(interaction)
    assert found.degrees_of_freedom == pytest.approx(freedom)
    assert found.variance == pytest.approx(variance)
    assert ("seeds" in found.at_bound) == (found.seeds == 0)
    assert ("patients" in found.at_bound) == (found.patients == 0)
    # Never surer than patients alone, nor than the seeds' number allows.
    fixed = replicates.mean(axis=2).sum(axis=1).var(ddof=1)
    assert found.variance >= fixed * (1 - 1e-12)
    assert found.degrees_of_freedom >= (count - 1) * (1 - 1e-12)


@pytest.mark.parametrize("sd", [0.0, 1.0])
@pytest.mark.parametrize("signs", [[1], [1, -1]], ids=["mean", "difference"])
def test_the_benchmark_and_the_package_follow_one_rule(sd, signs):
    """The rule that was simulated is the rule that is shipped, on the benchmark's moments."""
    rng, sign = np.random.default_rng(3), np.array(signs)[:, None]
    drawn = coverage.separation(0.95, 0)[0] + sd * rng.normal(size=(2, 4))
    labels, scores, patients = coverage.simulate(rng, drawn)
    aucs, errors = coverage.influence(labels, scores, patients)
    classes = labels[np.flatnonzero(np.diff(patients, prepend=-1))]
    picked, parts = aucs[: len(sign)] * sign, errors[: len(sign)] * sign[..., None]
    moments = coverage.moments(picked, parts, classes)
    # Replicates whose covariance is exactly that of the influences.
    draws = np.moveaxis(parts, 2, 0)
    draws = np.concatenate([draws, -draws]) * math.sqrt(len(draws) - 0.5)
    freedom = moments["fixed_freedom"] if signs == [1] else math.inf
    components = variance_components(picked, draws, freedom)
    arrays = {key: np.array([value]) for key, value in moments.items()}
    for gap in (0.001, 0.01, 0.03):
        expected = coverage.chosen(np.array([gap]), arrays)[0]
        assert 2 * components.tail(gap) == pytest.approx(expected, rel=1e-6)
    if signs == [1]:  # the benchmark's influences have the factors 225 / 224 and 203 / 202
        found = variance_freedom(PatientClusters.of(labels, patients), scores[0])
        assert found == pytest.approx(moments["fixed_freedom"], rel=0.01)


def test_components_are_those_of_an_analysis_of_variance():
    """Two crossed factors, balanced; a metric that is the mean over patients."""
    rng = np.random.default_rng(1)
    people, count = 60, 5
    table = (
        rng.normal(size=(people, 1)) + rng.normal(0, 0.5, count) + rng.normal(size=(people, count))
    )
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0)
    residual = ((table - rows - columns + table.mean()) ** 2).sum() / (people - 1) / (count - 1)
    # One draw a patient, with the exact variance of the bootstrap.
    found = variance_components(columns, (table - columns) / math.sqrt(people))
    assert found.at_bound == ()
    assert found.interaction * people == pytest.approx(residual)
    assert found.patients * people == pytest.approx(rows.var(ddof=1) - residual / count)
    assert found.seeds == pytest.approx(columns.var(ddof=1) - residual / people)


def replicates_of(labels, scores, clusters):
    """AUCs of models (M, N), and those for each resample of patients."""
    images = PatientClusters.of(labels, clusters)
    values = replicate(auc_metric(images, scores), images, 500, 0)["auc"]
    return values[0], values[1:]


def test_the_components_of_a_mean_are_those_of_all_its_seeds():
    labels, scores, _, clusters = two_models()
    found = auc_over_seeds(labels, scores, clusters, 500)
    values, replicates = replicates_of(labels, scores, clusters)
    freedom = variance_freedom(PatientClusters.of(labels, clusters), scores)
    assert found.components == variance_components(values, replicates, freedom)
    assert found.estimate == pytest.approx(values.mean())


def test_a_variance_that_one_image_carries_keeps_the_least_degrees_of_freedom():
    labels = np.tile([0, 1], 50)
    scores = np.arange(100.0) + 1000 * labels
    scores[0] = 1e6  # a normal image above all others, which are separated
    assert variance_freedom(PatientClusters.of(labels, None), scores[None]) == LEAST_FREEDOM


def test_a_difference_is_students_and_its_p_value_agrees():
    labels, a, b, clusters = two_models(gap=0.5)
    found = auc_difference_over_seeds(labels, a, b, clusters, resamples=500, level=0.9)
    values, drawn = replicates_of(labels, np.concatenate([a, b]), clusters)
    sign = np.array([[1], [-1]])
    components = variance_components(
        values.reshape(2, SEEDS) * sign, np.reshape(drawn, (-1, 2, SEEDS)) * sign
    )
    assert found.components == components
    assert found.estimate == pytest.approx(values[:SEEDS].mean() - values[SEEDS:].mean())
    distribution = stats.t(components.degrees_of_freedom, found.estimate, components.error)
    assert (found.low, found.high) == pytest.approx(distribution.interval(0.9))
    ratio = abs(found.estimate) / components.error
    assert found.p_value == pytest.approx(2 * stats.t.sf(ratio, components.degrees_of_freedom))


@given(st.integers(0, 99), st.booleans())
def test_the_order_of_independent_seeds_does_not_matter_and_that_of_shared_runs_does(seed, same):
    labels, a, b, clusters = two_models(seed)
    size = {"resamples": 100, "same_runs": same}
    found = auc_difference_over_seeds(labels, a, b, clusters, **size)
    turned = auc_difference_over_seeds(labels, a, b[::-1], clusters, **size)
    assert found.estimate == pytest.approx(turned.estimate, abs=1e-12)
    assert (found.high == pytest.approx(turned.high, abs=1e-12)) == (not same)


def test_a_slope_is_that_of_a_line_through_the_means_on_each_resample():
    labels, a, b, clusters = two_models(gap=0.5)
    scores, doses = np.stack([a, b, a + b, b + 1]), np.array([0.0, 3.0, 0.5, 2.0])
    found = auc_slope_over_seeds(labels, scores, doses, clusters, 500)
    values, drawn = replicates_of(labels, scores.reshape(-1, len(labels)), clusters)

    def slope(aucs):  # (4 · K,)
        return np.polyfit(doses, np.reshape(aucs, (4, SEEDS)).mean(axis=1), 1)[0]

    assert found.estimate == pytest.approx(slope(values))
    of_patients = np.var([slope(draw) for draw in drawn], ddof=1)
    parts = found.components
    assert parts.patients + parts.interaction / SEEDS == pytest.approx(of_patients)
    share = (doses - doses.mean()) / ((doses - doses.mean()) ** 2).sum()
    spread = np.var(values.reshape(4, SEEDS), axis=1, ddof=1)
    assert parts.seeds + parts.interaction == pytest.approx((share**2 * spread).sum())
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


def test_a_slope_over_doses_of_one_and_zero_is_a_difference():
    labels, a, b, clusters = two_models(gap=0.3)
    slope = auc_slope_over_seeds(labels, np.stack([a, b]), np.array([1, 0]), clusters, 300)
    difference = auc_difference_over_seeds(labels, a, b, clusters, resamples=300)
    freedom = difference.components.degrees_of_freedom
    assert slope.components.degrees_of_freedom == pytest.approx(freedom)
    for name in ("estimate", "low", "high", "p_value"):
        assert getattr(slope, name) == pytest.approx(getattr(difference, name))


@pytest.mark.parametrize("doses", [[1, 1], [0, 1, 2]], ids=["all the same", "too many"])
def test_doses_that_do_not_fit_are_refused(doses):
    labels, a, b, clusters = two_models()
    with pytest.raises(StudyError, match=r"doses .* must differ, one for each of 2 models"):
        auc_slope_over_seeds(labels, np.stack([a, b]), np.array(doses), clusters, 10)


@given(st.integers(0, 199), st.floats(0.005, 0.3), st.sampled_from([0.9, 0.95]))
def test_equivalence_is_the_narrower_interval_within_the_margin(seed, margin, level):
    labels, a, b, clusters = two_models(seed, patients=40)
    found = auc_difference_over_seeds(labels, a, b, clusters, margin, 100, level)
    inner = auc_difference_over_seeds(labels, a, b, clusters, None, 100, 2 * level - 1)
    assert found.equivalent == (-margin < inner.low and inner.high < margin)
    assert found.equivalent == (found.p_equivalence < 1 - level)
    assert inner.equivalent is None and inner.p_equivalence is None


def test_a_model_does_not_differ_from_itself_and_is_equivalent():
    labels, a, _, clusters = two_models()
    found = auc_difference_over_seeds(labels, a, a, clusters, 0.01, 200, same_runs=True)
    assert (found.estimate, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert found.equivalent and found.p_equivalence == pytest.approx(1 / 201)
    # The same scores from other runs leave the question open.
    assert auc_difference_over_seeds(labels, a, a, clusters, resamples=200).high > 0


@pytest.mark.parametrize("same_runs", [True, False])
def test_two_perfect_models_are_as_open_as_one(same_runs):
    """No resample differs, which says little of other patients: the bound is that of one AUC."""
    labels, scores, clusters = np.repeat([0, 1], 20), np.arange(40.0)[None], np.arange(40)
    unseen = 1 - auc_interval(labels, scores[0], clusters, 100).low
    found = auc_difference_over_seeds(
        labels, scores, scores**2, clusters, unseen * 0.99, 100, same_runs=same_runs
    )
    assert (found.estimate, found.p_value, found.equivalent) == (0, 1, False)
    assert (found.low, found.high) == pytest.approx((-unseen, unseen))
    wide = [labels, scores, scores**2, clusters, unseen * 1.01, 100]
    assert auc_difference_over_seeds(*wide).equivalent


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"scores_b": np.ones((3, 6))}, "as many seeds and images"),
        ({"margin": 0.0}, "between 0 and 1"),
        ({"margin": 1.0}, "between 0 and 1"),
    ],
)
def test_unusable_comparisons_are_refused(change, expected):
    given_values = {
        "labels": np.array([0, 1] * 3), "scores_a": np.ones((2, 6)), "scores_b": np.ones((2, 6)),
    }  # fmt: skip
    with pytest.raises(StudyError, match=expected):
        auc_difference_over_seeds(**given_values | change, resamples=10)


# Power


def components(patients=2e-5, seeds=3e-5, interaction=2e-5, count=5, freedom=None):
    part = (seeds + interaction) / count
    if freedom is None:
        freedom = 2 * (count - 1) * ((patients + part) / part) ** 2
    return VarianceComponents(patients, seeds, interaction, count, freedom)


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("size", [0.008, 0.02])
def test_power_is_that_of_the_rule_on_simulated_differences(seeds, size):
    rng, plan, studies = np.random.default_rng(0), components(), 40_000
    squares = 5e-5 * rng.chisquare(seeds - 1, (studies, 2)).sum(axis=1) / (seeds - 1) / 2
    noise = rng.normal(0, math.sqrt(2e-5 + 5e-5 / seeds), studies)
    # The planned degrees of freedom stand for those that each study would estimate.
    error = np.sqrt(2e-5 + squares / seeds)
    freedom = 2 * (seeds - 1) * (error**2 / (squares / seeds)) ** 2
    found = np.abs(size + noise) > stats.t.ppf(0.975, freedom) * error
    assert found.mean() == pytest.approx(difference_power(plan, size, seeds), abs=0.04)
    equal = np.abs(noise) + stats.t.ppf(0.95, freedom) * error < size
    assert equal.mean() == pytest.approx(equivalence_power(plan, size, seeds), abs=0.04)


def test_with_endless_seeds_the_detectable_difference_is_the_normal_one():
    plan, critical = components(), stats.norm.ppf(0.975)
    error = math.sqrt(plan.patients)
    found = minimal_detectable_difference(plan, math.inf)
    assert found == pytest.approx((critical + stats.norm.ppf(0.8)) * error, rel=1e-4)
    assert difference_power(plan, found, math.inf) == pytest.approx(0.8)
    chances = [minimal_detectable_difference(plan, seeds) for seeds in (2, 3, 5, 10, 20, math.inf)]
    assert chances == sorted(chances, reverse=True)
    assert difference_power(plan, 0.0, 5) == pytest.approx(0.05)
    low, high = stats.norm(0.003, error).cdf([-critical * error, critical * error])
    assert difference_power(plan, 0.003, math.inf) == pytest.approx(low + 1 - high)
    margin = 0.02
    expected = 2 * stats.norm.cdf(margin / error - stats.norm.ppf(0.95)) - 1
    assert equivalence_power(plan, margin, math.inf) == pytest.approx(expected)


def test_a_difference_in_a_record_can_be_planned_with():
    labels, a, b, patients = two_models()
    difference = auc_difference_over_seeds(labels, a, b, patients, margin=0.05, resamples=200)
    record = json.loads(json.dumps(difference_record(difference, Statistics(margin=0.05))))
    plan = components_of(record)
    assert plan == difference.components
    found = minimal_detectable_difference(plan, SEEDS)
    assert record["detectable"] == pytest.approx(found)
    assert difference_power(plan, found, SEEDS) == pytest.approx(0.8)


@given(st.floats(1.1, 500), st.floats(-60, 60), st.sampled_from([-4.8, -1.96, 1.65, 4.8]))
def test_a_noncentral_chance_is_the_integral_also_in_far_tails(freedom, shift, quantile):
    """A normal variable over the root of a chi-squared one, averaged over a grid of the latter."""
    grid = (np.arange(20_000) + 0.5) / 20_000
    root = np.sqrt(2 * special.gammaincinv(freedom / 2, grid) / freedom)
    expected = stats.norm.cdf(quantile * root - shift).mean()
    assert _below(quantile, freedom, shift) == pytest.approx(expected, abs=5e-4)


def test_one_patient_of_a_class_decides_nothing():
    labels, clusters = np.array([1] * 10 + [0] * 60), np.r_[[0] * 10, 1:61]
    a, b = np.random.default_rng(0).normal(labels, 1, (2, 3, 70))
    found = auc_difference_over_seeds(labels, a + labels, b, clusters, 0.01, 200)
    assert (found.low, found.high, found.p_value, found.p_equivalence) == (-1, 1, 1, 1)
    assert not found.equivalent
    slope = auc_slope_over_seeds(labels, np.stack([a, b]), np.array([0, 1]), clusters, 200)
    assert (slope.low, slope.high, slope.p_value) == (-1, 1, 1)


def test_models_that_all_separate_the_classes_have_no_trend():
    labels = np.arange(60) % 2
    scores = np.tile(labels + 0.1, (4, 3, 1)).astype(float)
    slope = auc_slope_over_seeds(labels, scores, np.array([0, 0.5, 1, 2]), resamples=100)
    assert (slope.estimate, slope.p_value) == (0, 1)


def test_a_trend_is_over_how_far_a_cut_is_moved_not_whither(tiny):
    shifts = {"left": -0.2, "right": 0.2, "little": 0.1}
    for name, shift in shifts.items():
        words = {"label": name, "description": name, "model": {"cut_shift": shift}}
        tiny["variants"] = {name: words} | tiny["variants"]
    study = study_from(tiny, "x")
    labels, a, b, patients = two_models(gap=0.5, seeds=2)
    scores = {"left": b, "right": b, "little": (a + b) / 2, "no_seg": a}
    trend = displacement_trend(study, labels, scores, patients)
    assert set(trend["variants"]) == set(scores)
    doses = [10 * abs(shifts.get(name, 0)) for name in trend["variants"]]
    means = [auc_over_seeds(labels, scores[v], patients, 2).estimate for v in trend["variants"]]
    assert trend["estimate"] == pytest.approx(np.polyfit(doses, means, 1)[0])
    assert trend["estimate"] < 0


def test_a_design_without_an_answer_is_refused():
    for arguments in ((components(count=1, freedom=math.inf), 5), (components(), 1)):
        with pytest.raises(StudyError, match="at least 2"):
            minimal_detectable_difference(*arguments)
    with pytest.raises(StudyError, match="no variance"):
        minimal_detectable_difference(VarianceComponents(0, 0, 0, 3, math.inf), 5)
    with pytest.raises(StudyError, match="power"):
        minimal_detectable_difference(components(), 5, power=0.04)


@pytest.mark.parametrize("seed", range(20))
def test_a_component_of_zero_is_at_its_bound_whatever_the_rounding(seed):
    # One of three seeds varies with the patients: in theory nothing is left for the patients.
    rng = np.random.default_rng(seed)
    replicates = np.full((200, 3), rng.random())
    replicates[:, seed % 3] = rng.random(200)
    for layout in (replicates, np.asfortranarray(replicates), replicates[::-1]):
        found = variance_components(np.array([0.8, 0.9, 0.9]), layout)
        assert "patients" in found.at_bound
        assert found.patients == 0


@pytest.mark.parametrize("seed", range(20))
def test_seeds_that_agree_on_every_resample_leave_no_interaction(seed):
    drawn = np.random.default_rng(seed).random((200, 1))
    found = variance_components(np.full(7, 0.3), np.repeat(drawn, 7, axis=1))
    assert found.interaction == 0
    assert found.degrees_of_freedom == math.inf
