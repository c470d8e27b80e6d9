"""The simulation behind the intervals: does it draw what it says, and do its rules differ?"""

import math

import numpy as np
import pytest
from conftest import benchmark
from scipy import stats

from hybridlungvit.evaluation.bootstrap import PatientClusters, auc_metric, replicate
from hybridlungvit.evaluation.delong import auc_variance

coverage = benchmark("coverage")


def test_influences_give_obuchowskis_variance():
    labels, scores, patients = coverage.simulate(np.random.default_rng(4), np.full((1, 3), 4.0))
    aucs, errors = coverage.influence(labels, scores, patients)
    for row, auc, error in zip(scores[0], aucs[0], errors[0], strict=True):
        assert auc_variance(labels, row, patients) == pytest.approx((auc, (error**2).sum()))


def test_clusters_are_those_of_the_committed_test_set():
    normal, pneumonia = coverage.cluster_sizes()
    assert (len(normal), normal.sum(), len(pneumonia), pneumonia.sum()) == (225, 234, 203, 390)
    assert (pneumonia**2).sum() / pneumonia.sum() == pytest.approx(3.1, abs=0.05)


def test_the_bootstrap_approximates_obuchowskis_covariances():
    labels, scores, patients = coverage.simulate(np.random.default_rng(5), np.full((1, 3), 4.0))
    _, errors = coverage.influence(labels, scores, patients)
    clusters = PatientClusters.of(labels, patients)
    replicates = replicate(auc_metric(clusters, scores[0]), clusters, 4000, 0)["auc"][1:]
    mean = errors[0].mean(axis=0)
    assert replicates.mean(axis=1).var() == pytest.approx((mean**2).sum(), rel=0.1)
    within = (replicates - replicates.mean(axis=1, keepdims=True)).var(axis=0).sum()
    assert within == pytest.approx(((errors[0] - mean) ** 2).sum(), rel=0.1)


def test_small_simulation_of_every_rule():
    """Bounds are four standard errors of 400 test sets from what the large run shows."""
    rows = coverage.judge(0.97, coverage.draw(0.97, 0.004, 5, 400))
    assert 0.91 < rows["chosen"]["level"] < 0.99
    assert 0.91 < rows["chosen"]["difference"] < 0.995
    assert rows["chosen"]["rejected"] < 0.08
    assert rows["patients alone"]["rejected"] > rows["chosen"]["rejected"]
    assert rows["unbiased"]["rejected"] >= rows["chosen"]["rejected"]
    assert rows["conservative"]["rejected"] <= rows["chosen"]["rejected"]


@pytest.mark.parametrize(("auc", "sd"), [(0.9, 0.015), (0.97, 0.0), (0.99, 0.004)])
def test_simulated_seeds_have_the_auc_and_the_spread_asked_for(auc, sd):
    mean, spread = coverage.separation(auc, sd)
    z = np.random.default_rng(0).normal(size=400_000)
    aucs = stats.norm.cdf((mean + spread * z) / math.hypot(*coverage.SPREAD))
    assert aucs.mean() == pytest.approx(auc, abs=1e-4)
    assert aucs.std() == pytest.approx(sd, rel=0.02, abs=1e-9)
