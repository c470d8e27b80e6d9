"""Pairs by sorted scores, for many images, against the table of pairs, and their memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from hybridlungvit.evaluation import bootstrap, pairs
from hybridlungvit.evaluation.bootstrap import auc_interval, draw_patients, patient_strata
from hybridlungvit.evaluation.compare import paired_auc_difference
from hybridlungvit.evaluation.delong import delong_test, members
from hybridlungvit.evaluation.pairs import Counted, Ranked, count_pairs


@st.composite
def scored_patients(draw):
    """Labels, tied scores and patients, of whom some have images of both classes."""
    row = st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 9))
    labels, scores, patients = np.array(draw(st.lists(row, min_size=2, max_size=40))).T
    assume(0 < labels.sum() < len(labels) and len(set(patients)) > 1)
    return labels, scores / 6, members(patients, len(labels))


def both_ways(labels, scores, member):
    counted = count_pairs(labels, scores, member)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "MOST_PAIRS", 0)
        ranked = count_pairs(labels, scores, member)
    assert isinstance(counted, Counted)
    assert isinstance(ranked, Ranked)
    return counted, ranked


@settings(max_examples=200)
@given(scored_patients(), st.integers(0, 99))
def test_sorted_scores_give_what_the_table_gives(data, seed):
    labels, scores, member = data
    counted, ranked = both_ways(labels, scores, member)
    strata = patient_strata(labels, member)
    (drawn,) = draw_patients(strata, len(labels), 7, seed)
    same = {"abs": 1e-12, "rel": 0, "nan_ok": True}
    assert ranked.auc == pytest.approx(counted.auc, **same)
    assert ranked.auc == pytest.approx(roc_auc_score(labels, scores), **same)
    assert ranked.limit == counted.limit
    assert ranked.resampled(drawn) == pytest.approx(counted.resampled(drawn), **same)
    for one, other in zip(ranked.placements(drawn), counted.placements(drawn), strict=True):
        assert one == pytest.approx(other, **same)
    for times in (None, drawn):
        for one, other in zip(ranked.variance(times), counted.variance(times), strict=True):
            assert one == pytest.approx(other, **same)
    left_out = (table.without_each_patient(len(strata)) for table in (ranked, counted))
    assert next(left_out) == pytest.approx(next(left_out), **same)


@pytest.mark.parametrize("method", ["logit", "percentile", "bca", "studentized", "delong"])
def test_intervals_and_comparisons_do_not_depend_on_the_way(monkeypatch, method):
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 50, 200)
    labels = (patients + rng.integers(0, 2, 200) * (patients % 5 == 0)) % 2
    scores = (labels + rng.normal(size=(2, 200))).round(1)
    arguments = (labels, scores[0], patients, 300)

    def results():
        return [
            auc_interval(*arguments, method=method),
            paired_auc_difference(labels, *scores, patients, 300),
            delong_test(labels, *scores, patients),
        ]

    before = results()
    monkeypatch.setattr(pairs, "MOST_PAIRS", 0)
    for one, other in zip(before, results(), strict=True):
        assert vars(one) == pytest.approx(vars(other), abs=1e-12, rel=0)


def test_a_large_test_set_is_drawn_in_small_parts():
    chunks = list(draw_patients(np.ones(60_000, np.int64), 100_000, 120, 0))
    assert [len(chunk) for chunk in chunks] == [50, 50, 20]
    assert all((chunk.sum(axis=1) == 60_000).all() for chunk in chunks)


def test_the_interval_of_forty_thousand_images_stays_small():
    """Their table of pairs would take 2 GB."""
    rng = np.random.default_rng(0)
    patients = np.arange(40_000) * 2 // 3
    labels = (patients % 4 > 0).astype(np.int64)
    scores = labels + rng.normal(size=40_000)
    assert labels.sum() * (1 - labels).sum() > 20 * pairs.MOST_PAIRS
    tracemalloc.start()
    interval = auc_interval(labels, scores, patients, 150)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert interval.low < roc_auc_score(labels, scores) < interval.high
    assert peak < 8 * 8 * bootstrap.CELLS  # eight arrays of a chunk
