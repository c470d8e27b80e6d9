"""The words and numbers of the text."""

import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import REPOSITORY
from explained import explained, group, interval

from hybridlungvit.config import study_from
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.evaluation.paired import LOWER, UNDECIDED
from hybridlungvit.explain.cases import RULES
from hybridlungvit.paper.macros import (
    _comparison_macros,
    _cut_macros,
    _method_macros,
    data_macros,
    focus_macros,
    saliency_macros,
)
from hybridlungvit.paper.manuscript import used_keys
from hybridlungvit.paper.results import needs_roc_inset
from hybridlungvit.paths import Layout


def explanation_macros(results):
    return {**dict(focus_macros(results)), **dict(saliency_macros(results))}


def test_words_follow_the_numbers(study):
    macros = explanation_macros(explained(study))
    expected = {
        "focus.own.focus": r"1.50 (95\,\%~CI 1.40 to~1.60)",
        "focus.own.focus.verdict": "above",
        "focus.own.over_shuffled": r"$+0.300$ (95\,\%~CI $+0.200$ to~$+0.400$)",
        "focus.own.over_box.verdict": "not distinguishable from",
        "focus.own.undefined": "2",
        "focus.plain.focus.verdict": "below",
        "focus.plain.name": "plain DeiT",
        "gradcam.threshold": "0.4",
        "gradcam.attention": "shown",
        "faithfulness.removed": "10, 25 and 50",
        "faithfulness.verdict": "below",
        "faithfulness.most": "50",  # of the largest share alone
        "faithfulness.gradcam": r"$-0.30$ (95\,\%~CI $-0.40$ to~$-0.20$)",
        "faithfulness.random.verdict": "not distinguishable from",
        "stability.radius": "2",
    }
    assert {key: macros[key] for key in expected} == expected
    assert macros["focus.own.over_box"].startswith("$+0.000$")  # no minus before a zero
    assert all(rule in macros["gradcam.rules"] for rule in RULES)
    # Of the values that exist.
    assert "focus.plain.lowest_row" not in macros
    assert not any(key.startswith("focus.own.normal") for key in macros)


def test_a_class_has_words_of_its_own(study):
    results = explained(study)
    normal = group(0.8, -0.1, "normal") | {"focus_box": interval(1.0), "over_box": interval(-0.2)}
    results.focus["no_seg"]["groups"].insert(1, normal)
    macros = explanation_macros(results)
    assert macros["focus.own.normal.focus"].startswith("0.80")
    assert macros["focus.own.normal.focus_box"].startswith("1.00")
    assert macros["focus.own.normal.over_box"].startswith("$-0.200$")
    assert macros["focus.own.normal.over_box.verdict"] == "below"
    assert macros["focus.own.over_box.verdict"] == "not distinguishable from"


def test_one_seed_or_no_plain_control_leave_their_words_out(study, tiny):
    macros = explanation_macros(explained(study, agreement=False))
    assert not any(key.startswith("agreement") for key in macros)
    alone = explained(study)
    alone.focus.pop("plain_deit")
    assert not any(key.startswith("focus.plain") for key in explanation_macros(alone))
    tiny["reference"] = "plain_deit"
    plain = explained(study_from(tiny, "tiny"))
    assert "gradcam.attention" not in explanation_macros(plain)


def test_the_distance_of_the_cut_is_that_of_the_test_images(study):
    manifest = pd.DataFrame({"path": ["a", "b", "c"], "split": ["test", "train", "test"]})
    masks = pd.DataFrame({"path": ["c", "b", "a"], "cut": [0.53, 0.9, 0.49]})
    macros = dict(_cut_macros(SimpleNamespace(study=study, manifest=manifest, masks=masks)))
    assert macros["mask.cut_mad"] == "2.0"
    # A side is half of the width and holds as many cells as the grid has columns.
    cell = 100 * 0.5 / study.model.token_grid
    assert macros["mask.cut_cells"] == f"{2.0 / cell:.2f}"


def compared(study, detectable, **verdicts):
    """Comparisons with these outcomes, and AUCs whose seeds have deviations of 0.004 and more."""
    components = {"patients": 4e-5, "seeds": 1e-5, "interaction": 1e-5, "count": 1}
    varied = {"degrees_of_freedom": 9.0, "at_bound": []}
    differences = {
        v: {"verdict": w, "detectable": detectable, "components": components.copy()} | varied
        for v, w in verdicts.items()
    }
    deviations = [0.004 + 0.001 * i for i in range(len(study.variants))]
    headlines = [{"headline": {"auc": {"sd": detectable and sd}}} for sd in deviations]
    return SimpleNamespace(
        study=study,
        differences=differences,
        trend=None,
        reference={"headline": {"auc": {"estimate": 0.96}}},
        metrics=dict(zip(study.variants, headlines, strict=True)),
        manifest=pd.DataFrame({"path": ["a"], "split": ["test"]}),
        masks=pd.DataFrame({"path": ["a"], "cut": [0.5]}),
    )


def test_outcomes_are_counted_beside_what_could_have_been_found(study):
    verdicts = {"seg_0.1": LOWER, "no_tta": UNDECIDED, "plain_deit": UNDECIDED}
    macros = dict(_comparison_macros(compared(study, 0.01, **verdicts)))
    counts = {"lower": "1", "higher": "0", "equivalent": "0", "undecided": "2"}
    assert {name: macros[f"verdicts.{name}"] for name in counts} == counts
    assert macros["comparisons.count"] == "3"
    assert macros["detectable.range"] == macros["detectable.no_tta"] == "0.010"
    assert (macros["seeds.larger"], macros["margin.share"]) == ("0", "25")
    assert macros["sd.range"] == f"0.004 to~{0.004 + 0.001 * (len(study.variants) - 1):.3f}"
    results = compared(study, 0.01, **verdicts)
    results.differences["no_tta"]["detectable"] = 0.001  # of the same weights
    results.differences["seg_0.1"]["components"] |= {"patients": 1e-5, "interaction": 0}
    results.differences["seg_0.1"]["components"]["seeds"] = 1.1e-5
    # Here the interaction makes more than half of the seeds' parts: patients would narrow it.
    results.differences["no_tta"]["components"] |= {"patients": 1e-5, "interaction": 2e-5}
    results.trend = interval(-0.2) | {"p_value": 0.03}
    macros = dict(_comparison_macros(results))
    assert macros["detectable.range"] == "0.010"
    assert macros["seeds.larger"] == "1"
    assert (macros["trend.verdict"], macros["trend.p"]) == ("below", "0.030")
    alone = dict(_comparison_macros(compared(study, None, **verdicts)))  # a single seed
    assert not {"detectable.range", "detectable.no_tta", "sd.range"} & set(alone)


@pytest.mark.parametrize(
    ("model", "expected"), [({"cut_shift": 0.1}, True), ({"cut": "none"}, False)]
)
def test_the_dose_response_is_told_where_a_variant_shifts_the_cut(tiny, model, expected):
    tiny["variants"]["moved"] = {"label": "moved", "description": "moved", "model": model}
    study = study_from(tiny, "tiny")
    macros = dict(_comparison_macros(compared(study, 0.01, moved=UNDECIDED)))
    assert ("dose" in macros) is expected


@pytest.mark.parametrize(
    ("aucs", "expected"), [([0.95, 0.96, 0.7], True), ([0.95, 0.7, 0.74], False), ([0.9], False)]
)
def test_the_roc_is_enlarged_where_most_curves_hug_the_corner(aucs, expected):
    metrics = {str(i): {"headline": {"auc": {"estimate": auc}}} for i, auc in enumerate(aucs)}
    assert needs_roc_inset(SimpleNamespace(metrics=metrics)) is expected


def test_the_flow_prints_numbers_that_add_up(study, cached, tmp_path):
    results = SimpleNamespace(study=study, manifest=read_manifest(cached.manifest))
    macros = dict(data_macros(results))
    (tmp_path / "figures").mkdir()
    shutil.copy(REPOSITORY / "paper" / "figures" / "flow.tex", tmp_path / "figures")
    names = {"unused.folder", "train.limit", "classes", "positiveclass", "negativeclass"}
    assert used_keys(tmp_path) - names <= set(macros)

    def count(part, group):
        return int(macros[f"{part}.{group}"].replace(",", ""))

    for unit in ("images", "patients"):
        assert count("all", unit) == count("development", unit) + count("test", unit)
        assert count("development", unit) == count("train", unit) + count("val", unit)
    for part in ("train", "val", "test"):
        assert count(part, "images") == count(part, "normal") + count(part, "pneumonia")
        assert count(part, "pneumonia") == count(part, "bacteria") + count(part, "virus")
        people = ("normal.patients", "bacteria.patients", "virus.patients")
        assert count(part, "patients") == sum(count(part, group) for group in people)
    assert count("all", "images") == len(results.manifest) == 90


def test_where_no_file_name_tells_a_patient_the_text_says_so(tiny, cached):
    manifest = read_manifest(cached.manifest)
    unnamed = manifest.assign(patient="image:" + manifest.path)

    def told(**given):
        study = study_from(tiny | {"data": tiny["data"] | given}, "x")
        tables = [SimpleNamespace(study=study, manifest=table) for table in (manifest, unnamed)]
        return [dict(data_macros(results)).get("patients.source") for results in tables]

    assert told() == [None, "none"]
    assert told(source="folder", patients="(a)", phantom={}) == ["own", "none"]


def test_patients_that_no_split_can_share_have_no_price_of_sharing(tiny, cached):
    manifest, study = read_manifest(cached.manifest), study_from(tiny, "x")
    single = manifest.drop_duplicates("patient")

    def told(table):
        return "patients.shared" in dict(data_macros(SimpleNamespace(study=study, manifest=table)))

    assert told(manifest) and not told(single)


def test_variants_with_a_learning_rate_of_their_own_are_named(tiny):
    def told(values):
        layout = Layout("tiny", paper=REPOSITORY / "paper")
        results = SimpleNamespace(study=study_from(values, "tiny"), level="95", layout=layout)
        return dict(_method_macros(results)).get("learning_rate.others")

    assert told(tiny) is None
    tiny["variants"]["plain_deit"]["training"] = {"learning_rate": 0.05}
    assert told(tiny) == "plain DeiT: 0.05"
