"""The comparison with another study of the same test images, on made-up predictions."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from made_up import save_predictions
from sklearn.metrics import roc_auc_score

from hybridlungvit.config import load_other, study_from
from hybridlungvit.evaluation.compare import compare_variants
from hybridlungvit.evaluation.other_study import compare_with_other, other_files
from hybridlungvit.evaluation.paired import holm
from hybridlungvit.evaluation.seeds import auc_difference_over_seeds
from hybridlungvit.io import StudyError, rounded, write_json
from hybridlungvit.paper.macros import other_study_macros
from hybridlungvit.paper.result_tables import other_study
from hybridlungvit.paths import Layout

LABELS = np.repeat(np.arange(20) % 2, 3)  # 60 images of 20 patients
PATIENTS = np.repeat([f"p{i:02d}" for i in range(20)], 3)


def large(**changes):
    """The tiny study with larger images, and a variant whose settings differ in more."""
    values = copy.deepcopy(TINY) | {"study": "large"}
    values["data"]["image_size"] = 64
    values["variants"]["plain_deit"]["training"] = {"epochs": 2}
    return study_from(values | changes, "large")


def save(study, layout, strength):
    """Manifest and predictions of a study, whose variants and seeds all differ."""
    paths = [f"test/{i}.jpeg" for i in range(60)]
    table = pd.DataFrame({"path": paths, "patient": PATIENTS, "split": "test", "label": LABELS})
    table["subtype"] = np.where(LABELS, "virus", "normal")
    facts = table.assign(sha256=[f"{i:064x}" for i in range(60)], width=9, height=9, bytes=9)
    layout.root.mkdir(parents=True)
    facts.assign(note="").to_csv(layout.manifest, index=False)
    rng = np.random.default_rng(len(study.study))
    ranked = strength * LABELS + rng.normal(0, 1, 60)
    for variant in study.variants:
        for seed in study.seeds:
            scores = 1 / (1 + np.exp(-(ranked + rng.normal(0, 0.2, 60))))
            both = pd.concat([table.assign(probability=scores, split=s) for s in ("val", "test")])
            save_predictions(study, variant, seed, layout, both)


@pytest.fixture
def there():
    return large()


@pytest.fixture
def layouts(study, there, tmp_path):
    """The folders of the tiny study and of the large one."""
    here = Layout("tiny", results=tmp_path / "results")
    save(study, here, 0.3)
    save(there, replace(here, study="large"), 4.0)
    return here, replace(here, study="large")


def scores_in(layout, variant, seeds=(0, 1)):
    tables = [pd.read_csv(layout.predictions(variant, seed)) for seed in seeds]
    return np.stack([t[t.split == "test"].sort_values("path").probability for t in tables])


def test_differences_are_those_of_both_means_paired_by_image(study, there, layouts):
    found = compare_with_other(study, there, layouts[0])
    assert found["study"] == "large"
    assert found["changes"] == [{"key": "data.image_size", "here": 32, "there": 64}]
    assert list(found["differences"]) == ["no_seg", "seg_0.1", "no_tta"]  # plain_deit differs more
    order = np.argsort([f"test/{i}.jpeg" for i in range(60)])
    labels, patients = LABELS[order], PATIENTS[order]
    for variant, one in found["differences"].items():
        means = []
        for layout in layouts:
            rows = scores_in(layout, variant)
            means.append(np.mean([roc_auc_score(labels, row) for row in rows]))
        assert one["there"]["estimate"] == pytest.approx(means[1])
        assert one["estimate"] == pytest.approx(means[0] - means[1])
        rows = [scores_in(layout, variant) for layout in layouts]
        again = auc_difference_over_seeds(labels, *rows, patients, None, 200, seed=0)
        assert one["p_value"] == pytest.approx(again.p_value, rel=0.5)  # patients in another order
        assert one["low"] < one["estimate"] < one["high"]
    p_values = {variant: one["p_value"] for variant, one in found["differences"].items()}
    adjusted = {variant: one["p_value_adjusted"] for variant, one in found["differences"].items()}
    assert adjusted == holm(p_values)
    assert {one["verdict"] for one in found["differences"].values()} == {"lower than"}


def test_seen_from_the_other_side_the_sign_turns(study, there, layouts):
    one = compare_with_other(study, there, layouts[0])["differences"]["no_seg"]
    two = compare_with_other(there, study, layouts[1])["differences"]["no_seg"]
    turned = [-two["estimate"], -two["high"], -two["low"], two["p_value"]]
    assert [one[key] for key in ("estimate", "low", "high", "p_value")] == pytest.approx(turned)
    assert two["verdict"] == "higher than"


def test_the_order_of_the_other_studys_rows_does_not_matter(study, there, layouts):
    before = compare_with_other(study, there, layouts[0])
    manifest = pd.read_csv(layouts[1].manifest)
    manifest.sample(frac=1, random_state=0).to_csv(layouts[1].manifest, index=False)
    for variant in there.variants:
        for seed in there.seeds:
            table = pd.read_csv(layouts[1].predictions(variant, seed))
            table = table.sample(frac=1, random_state=1)
            save_predictions(there, variant, seed, layouts[1], table)
    assert compare_with_other(study, there, layouts[0]) == before


@pytest.mark.parametrize(
    ("column", "value"), [("sha256", "f" * 64), ("patient", "p99"), ("path", "test/x.jpeg")]
)
def test_other_images_or_patients_are_not_compared(study, there, layouts, caplog, column, value):
    manifest = pd.read_csv(layouts[1].manifest)
    manifest.loc[0, column] = value
    manifest.to_csv(layouts[1].manifest, index=False)
    assert compare_with_other(study, there, layouts[0]) is None
    assert "not compared with large: its test images, labels or patients are others" in caplog.text


def test_other_seeds_and_missing_results_are_told(study, there, layouts, caplog):
    assert compare_with_other(study, large(seeds=[0, 1, 2]), layouts[0]) is None
    assert "lacks its manifest or predictions" in caplog.text  # seed 2 was never scored
    assert compare_with_other(study, large(seeds=[1]), layouts[0]) is None
    assert "its seeds are [1], here they are [0, 1]" in caplog.text
    assert len(other_files(there, layouts[0])) == 1 + 2 * 4 * 2
    layouts[1].predictions("no_tta", 1).with_suffix(".json").unlink()
    assert other_files(there, layouts[0]) == []


def test_a_reference_that_the_other_study_lacks_is_told(study, there, layouts, caplog):
    values = there.model_dump()
    values["variants"].pop("no_tta")
    lacking = study_from(values, "large")
    of_no_tta = study.model_copy(update={"reference": "no_tta"})
    assert compare_with_other(of_no_tta, lacking, layouts[0]) is None
    assert "it has no variant no_tta" in caplog.text


def test_a_study_is_no_other_than_itself(study, layouts):
    with pytest.raises(StudyError, match="other_study: tiny is this study itself"):
        compare_with_other(study, study, layouts[0])


def test_altered_predictions_of_the_other_study_are_refused(study, there, layouts):
    path = layouts[1].predictions("no_seg", 1)
    path.write_text(path.read_text().replace("virus", "bacteria"))
    with pytest.raises(StudyError, match=str(path)):
        compare_with_other(study, there, layouts[0])


def test_the_stage_reads_the_config_it_is_given(study, there, layouts, tmp_path):
    assert compare_variants(study, layouts[0])["other_study"] is None
    config = tmp_path / "large.json"
    write_json(config, there.model_dump(mode="json"))
    named = study.model_copy(update={"other_study": str(config)})
    found = compare_variants(named, layouts[0])["other_study"]
    assert found == rounded(compare_with_other(study, there, layouts[0]))
    assert json.loads(layouts[0].comparisons.read_text())["other_study"] == found
    with pytest.raises(StudyError, match=r"other_study: .*missing\.yaml: cannot be read"):
        load_other(study.model_copy(update={"other_study": "missing.yaml"}))


def test_text_and_table_print_the_reference_and_every_namesake(study, there, layouts):
    found = compare_with_other(study, there, layouts[0])
    shown = {"estimate": 0.7, "low": 0.6, "high": 0.8}
    metrics = {variant: {"headline": {"auc": shown}} for variant in study.variants}
    results = SimpleNamespace(study=study, other=found, metrics=metrics, level="95")
    macros = dict(other_study_macros(results))
    assert macros["other.settings"] == r"\texttt{data.image\_size} (64 there, 32 here)"
    assert macros["other.count"] == "3"
    assert macros["other.verdict"] == "lower than"
    difference = found["differences"]["no_seg"]
    assert rf"\ensuremath{{{difference['estimate']:+.3f}}}" in macros["other.difference"]
    table, *_ = other_study(results)
    assert list(table.Variant) == ["HybridLungViT", "With segmentation", "Without TTA"]
    assert set(table["AUC here is"]) == {"lower"}
    assert f"{difference['there']['estimate']:.3f}" in table.iloc[0, 2]
    results.other = found | {"changes": []}
    assert dict(other_study_macros(results))["other.settings"] == "no setting"
    results.other = None
    assert not dict(other_study_macros(results))
    assert other_study(results)[0].empty
