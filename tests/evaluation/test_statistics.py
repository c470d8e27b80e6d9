"""Bootstrap intervals, paired comparisons and metrics against literal versions and scikit-learn."""

import itertools
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import SEEDS, save_predictions, scored_images, two_models, weighted_images
from scipy import stats
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar

from hybridlungvit.companions.cite import citation
from hybridlungvit.config import study_from
from hybridlungvit.evaluation import compare, subgroups
from hybridlungvit.evaluation.auc import weighted_auc
from hybridlungvit.evaluation.bootstrap import (
    PatientClusters,
    auc_metric,
    patient_weights,
    replicate,
)
from hybridlungvit.evaluation.compare import compare_variants, count_errors
from hybridlungvit.evaluation.delong import variance_freedom
from hybridlungvit.evaluation.evaluate import evaluate_variant
from hybridlungvit.evaluation.metrics import METRICS, call_metrics, net_benefit, ranking_metrics
from hybridlungvit.evaluation.paired import NEITHER, UNDECIDED, decide, holm, mcnemar, place
from hybridlungvit.evaluation.predictions import (
    read_predictions,
    scores_on,
    sensitive_threshold,
    youden_threshold,
)
from hybridlungvit.evaluation.records import basis, headline_record
from hybridlungvit.evaluation.seeds import (
    auc_difference_over_seeds,
    auc_interval,
    auc_over_seeds,
    crossed_curves,
)
from hybridlungvit.evaluation.subgroups import QUALITIES, subgroup_records
from hybridlungvit.evaluation.subgroups import groups as groups_of
from hybridlungvit.io import StudyError, file_sha256, write_json
from hybridlungvit.paths import Layout


@given(weighted_images(), st.floats(0.05, 0.95))
def test_metrics_are_scikit_learns(data, threshold):
    labels, scores, member, drawn = data
    images, called = PatientClusters.of(labels, member), scores >= threshold
    weight = {"sample_weight": (weights := drawn[member])}
    kept = np.clip(scores, 5e-10, 1 - 5e-10)
    expected = {
        "auc": sk.roc_auc_score(labels, scores, **weight),
        "average_precision": sk.average_precision_score(labels, scores, **weight),
        "brier": sk.brier_score_loss(labels, scores, **weight),
        "log_loss": sk.log_loss(labels, kept, labels=[0, 1], **weight),
        "accuracy": sk.accuracy_score(labels, called, **weight),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, called, **weight),
        "sensitivity": sk.recall_score(labels, called, **weight),
        "specificity": sk.recall_score(labels, called, pos_label=0, **weight),
        "ppv": sk.precision_score(labels, called, zero_division=np.nan, **weight),
        "npv": sk.precision_score(labels, called, pos_label=0, zero_division=np.nan, **weight),
        "f1": sk.f1_score(labels, called, **weight),
        "mcc": sk.matthews_corrcoef(labels, called, **weight),
    }
    if not 0 < called @ weights < weights.sum():
        expected["mcc"] = math.nan  # scikit-learn says 0 where it is 0 / 0
    assert tuple(expected) == METRICS
    once = drawn[None]
    found = ranking_metrics(images, scores[None])(once) | call_metrics(images, called[None])(once)
    for name, value in expected.items():
        assert found[name][0].tolist() == pytest.approx([value], abs=1e-12, nan_ok=True), name


@given(weighted_images(), st.floats(0.05, 0.95))
def test_net_benefit_is_that_of_a_literal_count(data, threshold):
    labels, scores, member, drawn = data
    tp = fp = total = positives = 0
    for label, score, patient in zip(labels, scores, member, strict=True):
        total += drawn[patient]
        positives += drawn[patient] * label
        if score >= threshold:
            tp, fp = tp + drawn[patient] * label, fp + drawn[patient] * (1 - label)
    odds = threshold / (1 - threshold)
    model = tp / total - fp / total * odds
    everyone = positives / total - (1 - positives / total) * odds
    images = PatientClusters.of(labels, member)
    called, at = (scores >= threshold)[None], np.array([threshold])
    found = net_benefit(images, called, at)(drawn[None])
    assert [float(value[0, 0]) for value in found.values()] == pytest.approx(
        [model, everyone, model - everyone]
    )


def test_net_benefit_is_undefined_where_no_false_alarm_is_worth_it():
    images = PatientClusters.of(np.array([0, 1]), None)
    values = net_benefit(images, np.array([[True, True]]), np.array([1.0]))(images.once)
    assert np.isnan(list(values.values())).all()


# Resampling


def all_weights(labels, clusters, resamples, seed=0):
    return np.concatenate(list(patient_weights(labels, clusters, resamples, seed)))


@given(scored_images(), st.integers(0, 99))
def test_images_of_a_patient_share_a_weight_and_strata_keep_their_patients(data, seed):
    labels, _, patients = data
    weights = all_weights(labels, patients, 30, seed)
    assert weights.shape == (30, len(labels))
    strata = {}
    for patient in np.unique(patients):
        own = patients == patient
        assert (weights[:, own][:, 0] == weights[:, own].T).all()
        strata.setdefault(frozenset(labels[own]), []).append(weights[:, own][:, 0])
    for drawn in strata.values():
        assert (np.sum(drawn, axis=0) == len(drawn)).all()


def test_without_clusters_every_image_is_a_patient_drawn_as_in_an_image_bootstrap():
    labels = np.array([0] * 6 + [1] * 4)
    weights = all_weights(labels, None, 20_000)
    assert np.array_equal(weights, all_weights(labels, np.arange(10), 20_000))
    covariance = np.cov(weights.T)
    expected = np.zeros((10, 10))  # of two multinomials, one for each class
    expected[:6, :6], expected[6:, 6:] = -1 / 6, -1 / 4
    expected[np.diag_indices(10)] += 1
    assert np.allclose(weights.mean(0), 1, atol=0.04)
    assert np.allclose(covariance, expected, atol=0.06)


def test_one_patient_of_a_class_leaves_the_auc_open():
    """The other class still varies, but nothing is known of who else might have the disease."""
    labels, patients = np.array([0] * 8 + [1, 1]), np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8])
    scores = np.random.default_rng(0).random((2, 10))
    found = auc_over_seeds(labels, scores, patients, 200)
    assert (found.low, found.high) == (0, 1)
    assert 0 < found.estimate < 1
    clusters = PatientClusters.of(labels, patients)
    values = replicate(auc_metric(clusters, scores), clusters, 200, 0)["auc"]
    record = headline_record("auc", values, 0.95, *basis("auc", clusters, scores, scores > 0.5))
    assert (record["estimate"], record["low"], record["high"]) == (found.estimate, 0, 1)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([1, 1, 1], [0.1, 0.2, 0.3], "both classes"),
        ([0, 1, 2], [0.1, 0.2, 0.3], "both classes"),
        ([0, 0.7, 1.2], [0.1, 0.2, 0.3], "both classes"),
        ([0, 1, 1], [0.1, math.inf, math.nan], "2 scores are not finite"),
        ([0, 1], [0.1, 0.2, 0.3], "one length"),
        ([[0, 1]], [[0.1, 0.2]], "one length"),
    ],
)
def test_unusable_scores_are_refused(labels, scores, expected):
    with pytest.raises(StudyError, match=expected):
        auc_interval(np.array(labels), np.array(scores))
    with pytest.raises(StudyError, match=expected):
        auc_difference_over_seeds(np.array(labels), np.array(scores), np.array(scores))


def test_a_band_spreads_by_patients_and_seeds_and_all_seeds_see_the_same_patients():
    labels, scores, _, clusters = two_models()
    scores = scores + labels * np.arange(SEEDS)[:, None]  # seeds of unlike quality

    def auc(row, weights):
        return weighted_auc(labels, row, weights)[:, None]

    mean, drawn = crossed_curves(auc, labels, scores, clusters, 2000, 0)
    weights = all_weights(labels, clusters, 2000)
    estimates = np.array([sk.roc_auc_score(labels, row) for row in scores])
    replicates = np.stack([weighted_auc(labels, row, weights) for row in scores], axis=1)
    assert mean == pytest.approx(estimates.mean())
    expected = replicates.mean(axis=1).var() + estimates.var(ddof=1) / SEEDS
    assert drawn.var() == pytest.approx(expected, rel=0.1)
    alone = crossed_curves(auc, labels, scores[:1], clusters, 2000, 0)[1][:, 0]
    assert np.allclose(alone, replicates[:, 0], atol=1e-12)


# Comparisons


def test_interval_and_difference_of_single_models_are_those_of_a_literal_loop():
    labels, (a,), (b,), clusters = two_models(gap=0.5, seeds=1)
    weights = all_weights(labels, clusters, 150, seed=2)
    aucs = np.array([
        [sk.roc_auc_score(labels, row, sample_weight=w) for row in (a, b)]
        for w in (np.ones(len(labels)), *weights)
    ])  # fmt: skip
    auc, error = aucs[0, 0], aucs[1:, 0].std(ddof=1)
    freedom = variance_freedom(PatientClusters.of(labels, clusters), a[None])
    found = auc_interval(labels, a, clusters, 150, 0.9, seed=2)
    half = stats.t.ppf(0.95, freedom) * error / (auc * (1 - auc))
    expected = [auc, *expit(logit(auc) + np.array([-half, half]))]
    assert [found.estimate, found.low, found.high] == pytest.approx(expected, abs=1e-12)
    gaps = aucs[:, 0] - aucs[:, 1]
    found = auc_difference_over_seeds(labels, a, b, clusters, None, 150, 0.9, seed=2)
    half = norm.ppf(0.95) * gaps[1:].std(ddof=1)
    expected = [gaps[0], gaps[0] - half, gaps[0] + half]
    assert [found.estimate, found.low, found.high] == pytest.approx(expected, abs=1e-12)
    p_value = 2 * norm.sf(abs(gaps[0]) / gaps[1:].std(ddof=1))
    assert found.p_value == pytest.approx(max(2 / 151, p_value))


@given(st.integers(0, 99), st.integers(1, 3))
def test_interval_and_p_value_agree_and_swapping_the_models_swaps_the_sign(seed, count):
    labels, a, b, clusters = two_models(seed, 0.3, count, 30)
    there = auc_difference_over_seeds(labels, a, b, clusters, None, 200, 0.9)
    back = auc_difference_over_seeds(labels, b, a, clusters, None, 200, 0.9)
    assert back.estimate == pytest.approx(-there.estimate, abs=1e-12)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-12)
    assert back.p_value == pytest.approx(there.p_value, rel=1e-9)
    assert (there.low > 0 or there.high < 0) == (there.p_value < 0.1)


def test_p_values_are_never_zero():
    labels, _, _, clusters = two_models()
    found = auc_difference_over_seeds(labels, labels * 1.0, 1.0 - labels, clusters, None, 199)
    assert (found.estimate, found.p_value) == (1, pytest.approx(2 / 200))


def literal_holm(p_values):
    """Step down: at each step the smallest p left, times how many are left, never falling."""
    left, adjusted, floor = dict(p_values), {}, 0.0
    while left:
        name = min(left, key=left.get)
        floor = max(floor, min(1.0, left[name] * len(left)))
        adjusted[name] = floor
        del left[name]
    return adjusted


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1)))
def test_holm_is_the_literal_procedure(p_values):
    found = holm(p_values)
    assert found == pytest.approx(literal_holm(p_values))
    assert list(found) == list(p_values)
    assert all(p_values[name] <= found[name] <= 1 for name in found)


@pytest.mark.parametrize(
    ("estimate", "p", "p_equivalence", "expected"),
    [
        (0.02, 0.01, 0.9, "higher than"),
        (-0.02, 0.01, 0.9, "lower than"),
        (0.002, 0.01, 0.01, "higher than"),  # both: the difference comes first
        (0.002, 0.6, 0.01, "equivalent to"),
        (0.002, 0.6, 0.06, UNDECIDED),
        (0.02, 0.06, 0.9, UNDECIDED),
    ],
)
def test_a_comparison_ends_in_one_of_four(estimate, p, p_equivalence, expected):
    record = {"estimate": estimate, "p_value": p, "p_equivalence": p_equivalence}
    decide(differences := {"a": dict(record)}, ["a"], 0.95)
    assert differences["a"]["verdict"] == expected
    # Outside the family nothing is adjusted; within a larger one Holm's method is stricter.
    decide(alone := {"a": dict(record)}, [], 0.95)
    assert (alone["a"]["p_value_adjusted"], alone["a"]["verdict"]) == (None, expected)
    decide(four := {name: dict(record) for name in "abcd"}, list("abcd"), 0.95)
    strict = {0.01: 0.04, 0.06: 0.24, 0.6: 1, 0.9: 1}
    assert four["a"]["p_value_adjusted"] == pytest.approx(strict[p])
    assert four["a"]["p_equivalence_adjusted"] == pytest.approx(strict[p_equivalence])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.1, 1.3, "above"), (0.2, 0.9, "below"), (0.9, 1.1, NEITHER), (None, None, NEITHER)],
)
def test_a_place_follows_the_interval(low, high, expected):
    assert place({"low": low, "high": high}, 1) == expected


calls = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@given(calls)
def test_mcnemar_is_statsmodels(pairs):
    a, b = np.array(pairs).T
    table = [[int(((a == i) & (b == j)).sum()) for j in (1, 0)] for i in (1, 0)]
    found = mcnemar(a, b, np.arange(len(a)))
    assert (found["only_a"], found["only_b"]) == (table[0][1], table[1][0])
    assert found["p_exact"] == pytest.approx(sm_mcnemar(table, exact=True).pvalue, abs=1e-12)
    if found["only_a"] + found["only_b"]:
        # One image a patient: Durkalski's test is McNemar's without a continuity correction.
        plain = sm_mcnemar(table, exact=False, correction=False).pvalue
        assert found["p_clustered"] == pytest.approx(plain, abs=1e-12)


def test_clustered_mcnemar_takes_a_patients_images_for_one():
    a, b = np.random.default_rng(0).random((2, 40)) < [[0.9], [0.6]]
    once = mcnemar(a, b, np.arange(40))
    many = mcnemar(np.repeat(a, 3), np.repeat(b, 3), np.repeat(np.arange(40), 3))
    assert many["p_clustered"] == pytest.approx(once["p_clustered"])
    assert many["p_exact"] < once["p_exact"]


# Files


def read_table(layout, variant, seed):
    return pd.read_csv(layout.predictions(variant, seed), dtype={"patient": str})


def alter(study, layout, split="test", **columns):
    """Overwrite columns of the reference's predictions, for a split: with values or functions."""
    for seed in study.seeds:
        table = read_table(layout, "no_seg", seed)
        rows = table.split == split
        for name, value in columns.items():
            table.loc[rows, name] = value(table[rows]) if callable(value) else value
        save_predictions(study, "no_seg", seed, layout, table)


@pytest.fixture(scope="module")
def evaluated(study, tmp_path_factory):
    """60 test images of 20 patients, and some of val: predictions of every variant, plain_deit's
    far worse, and the reference's metrics; tests must not alter them."""
    layout = Layout("tiny", results=tmp_path_factory.mktemp("evaluated") / "results")
    patients, rng = np.arange(60) // 3, np.random.default_rng(0)
    labels = patients % 2
    scores = rng.normal(0, 0.7, 20)[patients] + 1.5 * labels + rng.normal(0, 0.5, 60)
    test = pd.DataFrame({"path": [f"test/{i}.jpeg" for i in range(60)], "label": labels})
    test["patient"], test["split"] = [f"00{patient}" for patient in patients], "test"
    test["subtype"] = np.where(labels, "virus", "normal")
    val = test.head(9).assign(path="train/" + test.path, split="val", probability=0.5)
    rng = np.random.default_rng(0)
    for variant in study.variants:
        for seed in study.seeds:
            quality = -1 if variant == "plain_deit" else 1
            logits = quality * (scores - 0.7) + rng.normal(0, 0.1, 60)
            table = pd.concat([val, test.assign(probability=expit(logits))])
            save_predictions(study, variant, seed, layout, table)
    images = test.assign(sha256="0", width=100 + np.arange(60) // 2, height=100)
    images.assign(bytes=5000, note="").to_csv(layout.manifest, index=False)
    masks = test[["path"]].assign(confidence=np.linspace(0, 1, 60), area=0.3, cut=0.5)
    masks.to_csv(layout.mask_table, index=False)
    return layout, evaluate_variant(study, "no_seg", layout)


@pytest.fixture
def scored(evaluated, tmp_path):
    """The same files, for a test to alter."""
    shutil.copytree(evaluated[0].results, tmp_path / "results")
    return Layout("tiny", results=tmp_path / "results")


def test_every_layer_agrees_with_scikit_learn(study, evaluated):
    layout, record = evaluated
    assert json.loads(layout.metrics("no_seg").read_text()) == record
    assert read_predictions(study, "no_seg", 0, layout).patient.iloc[-1] == "0019", "a text"
    assert (record["images"], record["patients"], record["threshold"]) == (60, 20, 0.5)
    table, scores = scores_on(study, "no_seg", layout)
    layers = [*record["seeds"].values(), record["ensemble"]]
    for found, row in zip(layers, [*scores, scores.mean(axis=0)], strict=True):
        expected = sk.roc_auc_score(table.label, row), sk.f1_score(table.label, row >= 0.5)
        assert [found[name]["estimate"] for name in ("auc", "f1")] == pytest.approx(expected)
        cells = sk.confusion_matrix(table.label, row >= 0.5).ravel().tolist()
        assert list(found["points"]["fixed"]["confusion"].values()) == cells
        alone = auc_interval(table.label, row, table.patient, 200)
        assert (found["auc"]["low"], found["auc"]["high"]) == pytest.approx((alone.low, alone.high))
    for seed, digest in record["predictions_sha256"].items():
        assert digest == file_sha256(layout.predictions("no_seg", int(seed)))
        assert record["seeds"][seed]["report"]["accuracy"] == pytest.approx(
            record["seeds"][seed]["accuracy"]["estimate"]
        )
    assert tuple(record["headline"]) == METRICS
    for name, value in record["headline"].items():
        singles = [seed[name]["estimate"] for seed in record["seeds"].values()]
        assert value["estimate"] == pytest.approx(np.mean(singles)), name
        assert (value["min"], value["max"]) == (min(singles), max(singles))
        assert value["sd"] == pytest.approx(np.std(singles, ddof=1))


def test_every_number_of_a_record_is_finite_or_null_and_inside_its_interval(evaluated):
    shown = []

    def collect(values):
        if values.get("low") is not None:
            shown.append(values["low"] <= values["estimate"] <= values["high"])
        return values

    def refuse(constant):
        raise AssertionError(constant)

    text = evaluated[0].metrics("no_seg").read_text()
    json.loads(text, object_hook=collect, parse_constant=refuse)
    assert len(shown) > 200 and all(shown)


def test_a_single_seed_has_no_deviation(tiny, scored):
    study = study_from(tiny | {"seeds": [1]}, "x")
    auc = evaluate_variant(study, "no_seg", scored)["headline"]["auc"]
    assert (auc["sd"], auc["min"], auc["max"], auc["se_seeds"]) == (None, None, None, 0)


def test_thresholds_come_from_validation_and_the_test_set_chooses_nothing(study, scored):
    """Each seed's thresholds are those of its own validation rows, whatever the test rows say."""
    rng = np.random.default_rng(7)
    alter(study, scored, "val", probability=lambda rows: rng.random(len(rows)).round(3))
    record = evaluate_variant(study, "no_seg", scored)
    for seed in study.seeds:
        table = read_table(scored, "no_seg", seed)
        val, test = (table[table.split == split] for split in ("val", "test"))
        known = val.label.to_numpy(), val.probability.to_numpy()
        youden, sensitive = youden_threshold(*known), sensitive_threshold(*known, 0.95)
        points = record["seeds"][str(seed)]["points"]
        for point, threshold in {"fixed": 0.5, "youden": youden, "sensitive": sensitive}.items():
            assert points[point]["threshold"] == pytest.approx(threshold, rel=1e-9)
            recall = sk.recall_score(test.label, test.probability >= threshold)
            assert points[point]["sensitivity"]["estimate"] == pytest.approx(recall)
    alter(study, scored, "test", probability=lambda rows: 1 - rows.probability)
    after = evaluate_variant(study, "no_seg", scored)
    for seed, values in record["seeds"].items():
        for point, value in values["points"].items():
            assert after["seeds"][seed]["points"][point]["threshold"] == value["threshold"]
    assert after["calibration"]["temperatures"] == record["calibration"]["temperatures"]


def test_validation_images_of_one_class_and_unknown_images_are_refused(study, scored):
    scored.manifest.write_text(scored.manifest.read_text().replace("test/7.jpeg", "test/x.jpeg"))
    with pytest.raises(StudyError, match=r"manifest lacks 1 scored images.*test/7\.jpeg"):
        evaluate_variant(study, "no_seg", scored)
    alter(study, scored, "val", label=1)
    path = scored.predictions("no_seg", 0)
    with pytest.raises(StudyError, match=rf"{path}.*both classes.*validation_folds"):
        evaluate_variant(study, "no_seg", scored)


def test_a_model_that_calls_all_images_alike_has_null_metrics_and_wilsons_interval(study, scored):
    alter(study, scored, probability=0.4)  # no image is called, so that precision is 0 / 0
    found = evaluate_variant(study, "no_seg", scored)["headline"]
    for name in ("ppv", "mcc"):
        assert (found[name]["estimate"], found[name]["low"]) == (None, None)
        assert found[name]["undefined"] == 1
    expected = stats.binomtest(0, 10).proportion_ci(method="wilson")  # 10 patients, not 30 images
    assert found["sensitivity"]["high"] == pytest.approx(expected.high)
    assert (found["sensitivity"]["low"], found["specificity"]["high"]) == (0, 1)
    alter(study, scored, probability=0.5)  # at the threshold, which calls pneumonia
    found = evaluate_variant(study, "no_seg", scored)["headline"]
    assert (found["sensitivity"]["estimate"], found["specificity"]["estimate"]) == (1, 0)
    assert [found["auc"][key] for key in ("estimate", "low", "high")] == [0.5, None, None]
    write_json(scored.comparisons, {"reference": "no_seg", "differences": {}})
    assert "0.500 on 60 synthetic images" in (cited := citation(study, "no_seg", scored))
    assert "(no interval, as no resample differs, over test patients and 2 " in cited


def test_subgroups_are_those_of_a_literal_selection(study, evaluated, monkeypatch):
    layout, record = evaluated
    table, scores = scores_on(study, "no_seg", layout)
    by_name = {(g["by"], g["group"]): g for g in record["subgroups"]}
    viral = by_name["subtype", "Viral"]
    assert (viral["images"], viral["pneumonia"], viral["patients"]) == (60, 30, 20)
    assert viral["auc"]["estimate"] == pytest.approx(record["headline"]["auc"]["estimate"])
    quarters = [g for g in record["subgroups"] if g["by"] == "mask_confidence"]
    assert [g["images"] for g in quarters] == [15] * 4
    assert {g["auc"]["estimate"] for g in quarters} == {None}, "too few patients"
    first = table.label[:15]
    expected = np.mean([sk.roc_auc_score(first, row[:15]) for row in scores])
    monkeypatch.setattr(subgroups, "LEAST_PATIENTS", 1)
    quality = pd.DataFrame(dict.fromkeys(QUALITIES, np.arange(60)))
    found = subgroup_records(table, quality, scores, 0.5, 200, 0.95, 0)
    quarters = [g for g in found if g["by"] == "mask_confidence"]
    assert quarters[0]["auc"]["estimate"] == pytest.approx(expected)
    assert sum(g["images"] for g in record["subgroups"] if g["by"] == "pixels") == 60
    bacterial = by_name["subtype", "Bacterial"]  # none here: no AUC, no sensitivity
    assert (bacterial["auc"]["estimate"], bacterial["sensitivity"]["estimate"]) == (None, None)


def test_series_of_normal_images_stand_with_all_of_pneumonia_and_quarters_need_a_difference():
    patients = ["IM-1", "NORMAL2-IM-1", "NORMAL2-IM-2", "person1_virus", "person2_bacteria"]
    table = pd.DataFrame({"patient": patients, "label": [0, 0, 0, 1, 1]})
    table["subtype"] = ["normal"] * 3 + ["virus", "bacteria"]
    quality = pd.DataFrame(dict.fromkeys(QUALITIES, range(5))).assign(pixels=0.05)
    found = {name: list(chosen) for by, name, chosen in groups_of(table, quality) if by == "series"}
    assert found == {
        "IM": [True, False, False, True, True],
        "NORMAL2-IM": [False, True, True, True, True],
    }
    one_series = table[table.patient != "IM-1"].reset_index(drop=True)
    found = {by for by, *_ in groups_of(one_series, quality[1:])}
    assert found == {"subtype", *QUALITIES} - {"pixels"}, "of one series, all of one size"


def test_errors_are_those_of_a_literal_count():
    rng = np.random.default_rng(0)
    labels, patients = rng.integers(0, 2, 40), rng.integers(0, 25, 40)
    scores = {"a": rng.random((3, 40)) * 0.6 + 0.4 * labels, "b": rng.random((1, 40))}
    found = count_errors(labels, patients, scores, {"a": 0.5, "b": 0.4}, "a")
    by_seed, wrong = {}, {}
    for name, threshold in (("a", 0.5), ("b", 0.4)):
        rows = [*scores[name], sum(scores[name]) / len(scores[name])]
        *by_seed[name], wrong[name] = (
            {i for i, p in enumerate(row) if (p >= threshold) != labels[i]} for row in rows
        )
    for name, one in found["variants"].items():
        differing = [len(x ^ y) for x, y in itertools.combinations(by_seed[name], 2)]
        assert one == {
            "threshold": {"a": 0.5, "b": 0.4}[name],
            "images": len(wrong[name]),
            "false_positives": sum(labels[i] == 0 for i in wrong[name]),
            "false_negatives": sum(labels[i] == 1 for i in wrong[name]),
            "patients": len({patients[i] for i in wrong[name]}),
            "with_reference": len(wrong[name] & wrong["a"]),
            "every_seed": len(set.intersection(*by_seed[name])),
            "some_seed": len(set.union(*by_seed[name])),
            "between_seeds": [min(differing), max(differing)] if differing else None,
        }
    everywhere = wrong["a"] & wrong["b"]
    assert found["every_variant"] == len(everywhere) > 0
    assert found["every_variant_false_positives"] == sum(labels[i] == 0 for i in everywhere)
    assert found["some_variant"] == len(wrong["a"] | wrong["b"])


def mean_auc(study, variant, layout, chosen=slice(None)):
    """By scikit-learn, over the seeds, on the chosen test images."""
    table, scores = scores_on(study, variant, layout)
    return np.mean([sk.roc_auc_score(table.label[chosen], row[chosen]) for row in scores])


def test_comparison_is_paired_adjusted_and_against_the_reference(study, scored, tiny):
    record = compare_variants(study, scored)
    errors = record["errors"]["variants"]
    assert errors["plain_deit"]["images"] > errors["no_seg"]["images"]
    assert json.loads(scored.comparisons.read_text()) == record
    assert record["reference"] == "no_seg"
    assert record["family"] == ["seg_0.1", "no_tta", "plain_deit"]
    differences = record["differences"]
    assert list(differences) == record["family"]
    adjusted = literal_holm({name: value["p_value"] for name, value in differences.items()})
    assert {n: v["p_value_adjusted"] for n, v in differences.items()} == pytest.approx(adjusted)
    assert differences["plain_deit"]["verdict"] == "lower than"
    assert differences["no_tta"]["verdict"] in (UNDECIDED, "equivalent to")
    means = [mean_auc(study, variant, scored) for variant in ("plain_deit", "no_seg")]
    assert differences["plain_deit"]["estimate"] == pytest.approx(means[0] - means[1])
    tiny["statistics"]["family"] = ["plain_deit"]
    found = compare_variants(study_from(tiny, "x"), scored)["differences"]
    assert found["plain_deit"]["p_value_adjusted"] == found["plain_deit"]["p_value"]
    assert found["seg_0.1"]["p_value_adjusted"] is None


def test_the_family_is_compared_without_numbers_on_both_sides(study, scored, tiny, monkeypatch):
    assert "without_shared_numbers" not in compare_variants(study, scored)["differences"]["no_tta"]
    test, _ = scores_on(study, "no_seg", scored)
    doubtful = test.path[::3]
    monkeypatch.setattr(compare, "shared_numbers", lambda manifest: manifest.path.isin(doubtful))
    tiny["statistics"]["family"] = ["plain_deit"]
    record = compare_variants(study_from(tiny, "x"), scored)["differences"]
    assert "without_shared_numbers" not in record["no_tta"]
    keep = ~test.path.isin(doubtful).to_numpy()
    means = [mean_auc(study, variant, scored, keep) for variant in ("plain_deit", "no_seg")]
    found = record["plain_deit"]["without_shared_numbers"]
    assert found["estimate"] == pytest.approx(means[0] - means[1])
    assert found["low"] < found["estimate"] < found["high"]


def test_altered_missing_or_other_predictions_are_refused_by_name(study, scored, tiny):
    path = scored.predictions("no_seg", 1)
    before = file_sha256(path)
    path.write_text(path.read_text().replace("virus", "bacteria"))
    named = rf"{path}.*{before[:12]}.*{file_sha256(path)[:12]}"
    with pytest.raises(StudyError, match=named):
        evaluate_variant(study, "no_seg", scored)
    with pytest.raises(StudyError, match=named):
        compare_variants(study, scored)
    tiny["training"]["learning_rate"] = 2e-3
    other = study_from(tiny, "x")
    hashes = [one.prediction_hash("no_seg")[:12] for one in (study, other)]
    with pytest.raises(StudyError, match=".*".join(hashes)):
        read_predictions(other, "no_seg", 0, scored)
    for missing in (path, path.with_suffix(".json")):
        missing.unlink()
        with pytest.raises(StudyError, match=str(missing)):
            read_predictions(study, "no_seg", 1, scored)


def rename_first_test_image(study, variant, seed, layout):
    table = read_table(layout, variant, seed).replace({"path": {"test/0.jpeg": "test/other.jpeg"}})
    save_predictions(study, variant, seed, layout, table)


def test_seeds_and_variants_scored_on_other_images_are_refused(study, scored):
    rename_first_test_image(study, "seg_0.1", 1, scored)
    with pytest.raises(StudyError, match=r"seg_0.1/seed-1.csv: other images than .* seed 0"):
        evaluate_variant(study, "seg_0.1", scored)
    rename_first_test_image(study, "seg_0.1", 0, scored)
    with pytest.raises(StudyError, match=r"seg_0.1: scored on other images than no_seg"):
        compare_variants(study, scored)
