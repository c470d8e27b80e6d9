"""The study object: strict keys, helpful messages, hashes of the right slices."""

import json

import jsonschema
import pytest
import yaml
from conftest import REPOSITORY

from hybridlungvit.configfile import load_study, schema_text, study_from, study_schema
from hybridlungvit.errors import StudyError

CONFIGS = ("demo", "kermany", "kermany-cpu")


@pytest.mark.parametrize("name", CONFIGS)
def test_committed_configs_pass_models_and_schema(name):
    path = REPOSITORY / "config" / f"{name}.yaml"
    assert load_study(path).study == name
    jsonschema.validate(yaml.safe_load(path.read_text()), study_schema())


def test_committed_schema_is_the_generated_one():
    assert (REPOSITORY / "config" / "schema.json").read_text() == schema_text()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("training", "lambda_sgg", 1), ("model", "stemm", "x"), ("data", "image_sise", 64)],
)
def test_schema_and_models_refuse_the_same_unknown_keys(tiny, section, key, value):
    tiny[section][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tiny, study_schema())
    with pytest.raises(StudyError, match="unknown key"):
        study_from(tiny, "file.yaml")


def message(values):
    with pytest.raises(StudyError) as caught:
        study_from(values, "file.yaml")
    return str(caught.value)


def test_unknown_key_names_file_key_and_nearest_valid_key(tiny):
    tiny["training"]["lambda_sgg"] = 1
    text = message(tiny)
    assert text == "file.yaml: training.lambda_sgg: unknown key; did you mean 'lambda_seg'?"


def test_unknown_key_in_a_variant_is_found(tiny):
    tiny["variants"]["seg_0.1"]["training"] = {"epoch": 3}
    text = message(tiny)
    assert "variants.seg_0.1" in text
    assert "did you mean 'epochs'?" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"training": {"epochs": -1}}, "training.epochs"),
        ({"training": {"learning_rate": "fast"}}, "training.learning_rate"),
        ({"seeds": [1, 1]}, "repeat"),
        ({"seeds": []}, "seeds"),
        ({"reference": "nobody"}, "nobody"),
        ({"study": "../up"}, "study"),
        ({"model": {"d_model": 10, "heads": 4}}, "multiple of heads"),
        ({"variants": {"bad name": {"label": "x", "description": "y"}}}, "bad name"),
    ],
)
def test_bad_values_are_named(tiny, change, expected):
    assert expected in message(tiny | change)


def test_missing_file_and_bad_yaml(tmp_path):
    with pytest.raises(StudyError, match="nowhere"):
        load_study(tmp_path / "nowhere.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1,")
    with pytest.raises(StudyError, match="not valid YAML"):
        load_study(bad)
    bad.write_text("!!python/object/apply:os.system [echo]")
    with pytest.raises(StudyError, match="not valid YAML"):
        load_study(bad)


def test_study_is_frozen(study):
    with pytest.raises(Exception, match="frozen"):
        study.study = "other"


def test_evaluation_only_variants_share_checkpoints(study):
    assert study.trained_as("no_tta") == "no_seg"
    assert study.trained_variants() == ["no_seg", "seg_0.1", "plain_deit"]


def test_resolved_json_keeps_values_and_order(study):
    again = study_from(json.loads(json.dumps(study.model_dump(mode="json"))), "json")
    assert again == study
    assert list(again.variants) == list(study.variants)


def test_hashes_follow_their_slice_only(tiny):
    base = study_from(tiny, "x")
    tiny["statistics"] = {"resamples": 500}
    tiny["data_root"] = "/somewhere"
    tiny["compute"]["loader_workers"] = 2
    same = study_from(tiny, "x")
    assert same.training_hash("no_seg") == base.training_hash("no_seg")
    assert base.prediction_hash("no_tta") != base.prediction_hash("no_seg")
    tiny["training"]["learning_rate"] = 2e-3
    changed = study_from(tiny, "x")
    assert changed.training_hash("no_seg") != base.training_hash("no_seg")


def test_weights_shorthand_replaces_the_base_models_and_spares_overrides(tiny):
    tiny["weights"] = "some.safetensors"
    tiny["variants"]["plain_deit"]["model"]["pretrained"] = False
    study = study_from(tiny, "x")
    assert study.recipe("no_seg").model.pretrained == "some.safetensors"
    assert study.recipe("plain_deit").model.pretrained is False
    moved = study_from(tiny | {"weights": "elsewhere.safetensors"}, "x")
    assert moved.training_hash("no_seg") == study.training_hash("no_seg")
