"""The study object: strict keys, helpful messages, hashes of the right slices."""

import copy
import json
import re
from itertools import pairwise

import pytest
import timm
import yaml
from conftest import REPOSITORY, TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake.utils import update_config

from hybridlungvit.config import (
    NEUTRAL,
    Study,
    Training,
    known_stem,
    load_study,
    read_yaml,
    reference,
    save_resolved,
    say_what_never_acts,
    study_from,
    timm_names,
)
from hybridlungvit.io import StudyError
from hybridlungvit.paths import Layout

CONFIGS = ("demo", "kermany", "kermany-cpu", "kermany-frozen")


@pytest.mark.parametrize("name", CONFIGS)
def test_committed_configs_are_valid(name):
    assert load_study(REPOSITORY / "config" / f"{name}.yaml").study == name


@pytest.mark.parametrize(
    ("name", "overlay"), [("kermany-cpu", "leak"), ("kermany-frozen", "publisher_weights")]
)
def test_committed_overlays_are_valid(name, overlay):
    values, changes = (read_yaml(REPOSITORY / f"config/{file}.yaml") for file in (name, overlay))
    update_config(values, changes)  # as Snakemake lays them over each other
    study = study_from(values, overlay)
    assert study.study.startswith(f"{name}-")
    if overlay == "publisher_weights":
        assert all(study.recipe(v).model.pretrained is True for v in study.variants)


def variant(**changes):
    """Changes of the tiny study's control."""
    return {"variants": {"plain_deit": TINY["variants"]["plain_deit"] | changes}}


def frozen(augmentation=None):
    """Changes to a stem that never learns, whose features are computed once."""
    training = {"freeze_epochs": "all", "frozen_views": 2}
    return {"training": training, "augmentation": augmentation or {}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"training": {"epochs": -1}}, "training.epochs"),
        ({"seeds": [1, 1]}, "repeat"),
        ({"reference": "nobody"}, "nobody"),
        ({"study": "../up"}, "study"),
        ({"model": {"d_model": 10, "heads": 4}}, "multiple of heads"),
        ({"seeds": [True]}, "seeds: Input should be a number, not true or false"),
        ({"training": {"freeze_epochs": True}}, "training.freeze_epochs"),
        ({"augmentation": {"crop_scale": [0.8, True]}}, "crop_scale: Input should be a number"),
        ({"omitted": {"no_tta": "no time"}}, "omitted: no_tta is a variant too"),
        ({"variants": {"bad name": {"label": "x", "description": "y"}}}, "bad name"),
        ({"training": {"lambda_sgg": 1}}, "lambda_sgg: unknown key; did you mean 'lambda_seg'?"),
        (variant(training={"epoch": 3}), "plain_deit: training.epoch: unknown key; did you mean"),
        (
            {"variants": {"label": {"label": "L", "description": "D", "lable": "x"}}},
            "label.lable: unknown key; did you mean",
        ),
        ({"data": {"image_size": 60}}, "data.image_size: 60 is no multiple"),
        ({"model": {"token_grid": 100}}, "model.token_grid: 100 is more than the 4 × 4 patches"),
        ({"model": {"stem_options": {"patch_size": 9}}}, "patch of 9 px; 36 is"),
        ({"model": {"stem": "deit_smal_patch16_224"}}, "deit_smal_patch16_224'; try one of deit"),
        ({"data_root": "images"}, "file.yaml: data_root is set, but data.source is 'phantom'"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate"),
        ({"variants": {"comparisons": {"label": "x", "description": "y"}}}, "comparisons"),
        (variant(training={"lambda_seg": 0.1}), "plain_deit: training.lambda_seg: the linear head"),
        (
            {"training": {"lambda_att": 0.1}, "model": {"cut": "none"}},
            "training.lambda_att: with model.cut none no token has a side",
        ),
        (
            {"model": {"stem_options": {"patch_size": 8, "patch_drop_rate": 0.2}}},
            "no_seg: model.stem_options.patch_drop_rate: the map of patches must be whole",
        ),
        ({"statistics": {"family": ["no_seg"]}}, "not the reference; choose from"),
        ({"statistics": {"family": ["plain_deit"] * 2}}, "must name each variant once"),
        ({"study": "a" * 300}, "study: String should have at most 100 characters"),
        ({"title": "Лёгкие"}, "title: the paper cannot print '\\u041b'"),
        ({"title": "10\u202fepochs"}, "title: the paper cannot print '\\u202f'"),
        ({"omitted": {"x": "gain in $"}}, "omitted.x: the paper cannot print '$'"),
        (variant(label="a|b"), "plain_deit.label: the paper cannot print '|'"),
        ({"title": "\ud800"}, "'\\ud800' holds half a character"),
        ({"seeds": [10**400]}, "seeds.0: Input should be less than 4294967296"),
        ({"compute": {"threads": 10**9}}, "compute.threads: Input should be less than or equal"),
        ({"model": {"stem_options": {"depth": 10**7}}}, "stem_options: depth must be at most"),
        ({"model": {"stem_options": {"checkpoint_path": "x.pth"}}}, "checkpoint_path is none of"),
        ({"data": {"classes": ["a", "A"]}}, "data: classes: two names are needed"),
        ({"data": {"source": "phantom", "classes": ["a", "b"]}}, "classes: source 'phantom'"),
        ({"data": {"patients": "p.*"}}, "data.patients: the regular expression must have one"),
        ({"training": {"sampler": [0, 1]}}, "sampler: the two shares"),
        ({"training": {"sampler": [0.5, 0.6]}}, "sampler: the two shares"),
        ({"data": {"patients": "("}}, "data.patients: neither a .csv file nor a regular"),
        ({"data": {"annotations": "lungs.csv"}}, "data.annotations is set, but phantoms bring"),
        ({"training": {"frozen_views": 2}}, "frozen_views"),
        (frozen(), "seg_0.1: training.frozen_views: training.lambda_seg would need the images"),
        (frozen({"mix": "mixup"}), "no_seg: training.frozen_views: augmentation.mix would need"),
        (frozen({"randaugment": 1}), "training.frozen_views: augmentation.randaugment would need"),
    ],
)
def test_bad_values_are_named_in_one_short_sentence(tiny, change, expected):
    for section, values in change.items():
        tiny[section] = tiny.get(section, {}) | values if isinstance(values, dict) else values
    with pytest.raises(StudyError) as caught:
        study_from(tiny, "file.yaml")
    text = str(caught.value)
    assert expected in text
    assert len(text) < 250
    assert "\n" not in text


def test_stems_known_to_the_config_are_the_transformers_known_to_timm(monkeypatch):
    modules = ("deit", "vision_transformer", "vision_transformer_hybrid")
    names = [n for m in modules for n in timm.list_models(module=m, pretrained=True)]
    names += [n for m in modules for n in timm.list_models(module=m)]
    for name in [*names, "vit_base_patch16_224_dino"]:
        assert known_stem(name) == name
    others = ["resnet18", "swin_tiny_patch4_window7_224", "deit_tiny_patch16_224.nonsense", "url"]
    others += ["ViT_base_patch16_224", "num_classes", "register_model"]
    for name in others:
        with pytest.raises(ValueError, match="timm has no vision transformer"):
            known_stem(name)
    monkeypatch.setattr("hybridlungvit.config.find_spec", lambda name: None)
    timm_names.cache_clear()
    assert known_stem("anything") == "anything"
    timm_names.cache_clear()


def test_a_key_given_twice_is_an_error(tiny, tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text(yaml.safe_dump(tiny) + "title: again\n")
    with pytest.raises(StudyError, match=r"twice\.yaml: .*'title' is given twice"):
        load_study(path)
    path.write_text("base: &base {a: 1}\nother: {<<: *base, a: 2, a: 3}")
    with pytest.raises(StudyError, match="'a' is given twice"):
        read_yaml(path)
    path.write_text("base: &base {a: 1}\nother: {<<: *base, a: 2}")
    assert read_yaml(path)["other"] == {"a": 2}


@pytest.mark.parametrize(
    ("section", "key", "written", "value"),
    [
        ("training", "learning_rate", "5e-5", 5e-5),
        ("training", "epochs", "010", 10),
        ("training", "freeze_epochs", "all", "all"),
        ("training", "amp", "false", False),
        ("training", "amp", "yes", True),  # as YAML 1.1 reads it without quotes
        ("augmentation", "crop_scale", ["0.5", "1"], (0.5, 1.0)),
    ],
)
def test_numbers_and_truth_values_may_be_text(tiny, section, key, written, value):
    tiny[section] = tiny.get(section, {}) | {key: written}
    read = getattr(getattr(study_from(tiny, "x"), section), key)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("number", ["010", "-010", "0_7", "1:30", "1:30.5"])
def test_numbers_that_yaml_reads_to_another_base_are_refused(tmp_path, number):
    path = tmp_path / "study.yaml"
    path.write_text(f"seeds:\n- {number}\n")
    with pytest.raises(StudyError, match=rf"study\.yaml: .*{re.escape(number)} in line 2"):
        read_yaml(path)
    path.write_text(f"title: '{number}'\nseeds: [0, 10, 0.5, 0x1F]\n")
    assert read_yaml(path) == {"title": number, "seeds": [0, 10, 0.5, 31]}


def test_paths_know_the_home_folder_and_truth_values_may_be_text(tiny, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    tiny["data"] = {"source": "folder", "image_size": 32}
    for text, value in (("true", True), ("False", False), ("~/w.pth", "/home/someone/w.pth")):
        study = study_from(tiny | {"data_root": "~/x", "weights": text}, "x")
        assert study.data_root == "/home/someone/x"
        assert study.recipe("no_seg").model.pretrained == value


def test_a_study_named_like_a_file_is_an_error(tiny, tmp_path):
    (tmp_path / "README.md").write_text("no study")
    study = study_from(tiny | {"study": "README.md"}, "x")
    with pytest.raises(StudyError, match=r"README\.md: is a file"):
        save_resolved(study, Layout(study.study, results=tmp_path))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150)
@given(st.data())
def test_any_value_is_accepted_or_explained(data):
    values = copy.deepcopy(TINY)
    section = data.draw(st.sampled_from(list(values)))
    if isinstance(values[section], dict) and data.draw(st.booleans()):
        keys = ["a", *getattr(Study.model_fields[section].annotation, "model_fields", ())]
        values[section][data.draw(st.sampled_from(keys) | st.text())] = data.draw(anything)
    else:
        values[section] = data.draw(anything)
    try:
        study = study_from(values, "file.yaml")
    except StudyError as error:
        assert str(error).startswith("file.yaml: ")
    else:
        again = study_from(json.loads(json.dumps(study.model_dump(mode="json"))), "json")
        assert again == study


@settings(max_examples=200)
@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_file_is_accepted_or_explained(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content)
    with pytest.raises(StudyError, match="fuzz"):
        load_study(path)


@pytest.mark.parametrize("text", [None, "a: [1,", "!!python/object/apply:os.system [echo]", "[]"])
def test_a_missing_file_and_one_that_is_no_mapping_are_named(tmp_path, text):
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_text(text)
    expected = r"bad\.yaml: (cannot be read|not valid YAML|expected a mapping)"
    with pytest.raises(StudyError, match=expected):
        load_study(path)


def test_hashes_follow_their_slice_only(tiny):
    tiny["data"] = {"source": "folder", "image_size": 32}
    base = study_from(tiny, "x")
    tiny["statistics"] = {"resamples": 500}
    tiny["explanation"] = {"subsample": 4, "seed": 9}
    tiny["data_root"] = "/somewhere"
    tiny["compute"]["loader_workers"] = 2
    same = study_from(tiny, "x")
    assert same.training_hash("no_seg") == base.training_hash("no_seg")
    assert same.prediction_hash("no_seg") == base.prediction_hash("no_seg")
    assert base.prediction_hash("no_tta") != base.prediction_hash("no_seg")
    tiny["training"]["learning_rate"] = 2e-3
    changed = study_from(tiny, "x")
    assert changed.training_hash("no_seg") != base.training_hash("no_seg")


def test_variants_from_two_files_of_weights_are_two_trainings(tiny):
    tiny["model"]["pretrained"] = "a.safetensors"
    tiny["variants"]["elsewhere"] = {
        "label": "b", "description": "b", "model": {"pretrained": "b.safetensors"}
    }  # fmt: skip
    study = study_from(tiny, "x")
    assert study.trained_as("elsewhere") == study.features_as("elsewhere") == "elsewhere"
    assert study.trained_as("no_tta") == "no_seg"
    tiny["model"]["pretrained"] = "moved/a.safetensors"
    assert study_from(tiny, "x").training_hash("no_seg") == study.training_hash("no_seg")


def test_weights_shorthand_replaces_the_base_models_and_spares_overrides(tiny):
    tiny["weights"] = "some.safetensors"
    tiny["variants"]["plain_deit"]["model"]["pretrained"] = False
    study = study_from(tiny, "x")
    assert study.recipe("no_seg").model.pretrained == "some.safetensors"
    assert study.recipe("plain_deit").model.pretrained is False


def test_options_of_the_stem_may_be_numbers_as_text(tiny):
    options = {"init_values": "1e-5", "drop_path_rate": "2.5E-1", "class_token": "1e", "depth": 2}
    tiny["model"]["stem_options"] = options
    read = study_from(tiny, "x").model.stem_options
    assert read == {"init_values": 1e-5, "drop_path_rate": 0.25, "class_token": "1e", "depth": 2}


def test_a_study_survives_the_way_to_the_jobs(tiny, tmp_path):
    tiny["training"]["learning_rate"] = 5e-5  # JSON writes 5e-05, which YAML 1.1 takes for text
    study = study_from(tiny, "tiny")
    again = load_study(save_resolved(study, Layout("tiny", results=tmp_path)))
    assert again == study
    assert list(again.variants) == list(study.variants)
    turned = study_from(tiny | {"variants": dict(reversed(tiny["variants"].items()))}, "tiny")
    again = load_study(save_resolved(turned, Layout("tiny", results=tmp_path)))
    assert list(again.variants) == list(study.variants)[::-1]


@pytest.mark.parametrize(("resamples", "hopeless"), [(119, True), (120, False)])
def test_too_few_resamples_to_decide_anything_are_said_to_be_so(tiny, caplog, resamples, hopeless):
    assert len(tiny["variants"]) == 4  # hence three comparisons, each at a third of 5 %
    tiny["statistics"] = {"resamples": resamples}
    say_what_never_acts(study_from(tiny, "x.yaml"), "x.yaml")
    assert ("x.yaml: statistics.resamples" in caplog.text) == hopeless


@pytest.mark.parametrize(
    ("epochs", "patience", "plateau", "never"),
    [(3, 3, 2, True), (4, 3, 2, True), (5, 3, 2, False), (6, 5, 2, False), (6, 2, 5, False)],
)
def test_a_training_in_which_neither_schedule_can_act_is_said_to_be_so(
    tiny, caplog, epochs, patience, plateau, never
):
    tiny["training"] |= {"epochs": epochs, "patience": patience, "plateau_patience": plateau}
    say_what_never_acts(study_from(tiny, "x.yaml"), "x.yaml")
    assert ("keys without effect" in caplog.text) == never


def test_keys_that_came_later_give_no_finished_run_another_name(tiny):
    tiny["training"]["unfreeze_lowers"] = "stem"
    before = study_from(tiny, "x")
    neutral = {section: dict(values) for section, values in NEUTRAL.items()}
    for section, values in neutral.items():
        tiny[section] |= values
    after = study_from(tiny, "x")
    assert after.training_hash("no_seg") == before.training_hash("no_seg")
    assert after.values_sha256() == before.values_sha256()
    for section, values in neutral.items():
        assert not set(values) & set(before.recipe("no_seg").training_identity()[section])
    for section, key, value in (
        ("model", "fusion_layers", 2), ("model", "pooling", "lung"), ("model", "cut_shift", 0.1),
        ("model", "mask", "other"), ("training", "unfreeze_lowers", "all"),
    ):  # fmt: skip
        other = copy.deepcopy(tiny)
        other[section][key] = value
        assert study_from(other, "x").training_hash("no_seg") != before.training_hash("no_seg")


def test_the_reference_of_keys_is_current_and_has_the_originals_defaults():
    text = (REPOSITORY / "docs" / "config.md").read_text()
    assert text == reference(), "run `hybridlungvit keys > docs/config.md`"
    originals = {
        "learning_rate": 5e-05, "weight_decay": 0.0001, "batch_size": 16, "epochs": 20,
        "patience": 5, "label_smoothing": 0.1, "freeze_epochs": 3, "unfreeze_factor": 0.2,
        "unfreeze_lowers": "all", "lambda_att": 0.0, "class_weights": True, "sampler": True,
    }  # fmt: skip
    assert originals.items() <= Training().model_dump().items()


def test_titles_in_latin_script_are_printable(tiny):
    for title in ("Größe, façade, Ørsted: “œuvre” – 5 µm × 3 €…", "Żółć\nščř ıİğ Ĳ ŋ"):
        assert study_from(tiny | {"title": title}, "x").title == title


def test_an_alias_bomb_is_refused_in_a_sentence(tiny, tmp_path):
    text = yaml.safe_dump(tiny) + "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for old, new in pairwise("abcdefghi"):
        text += f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    path = tmp_path / "bomb.yaml"
    for content in (text, yaml.safe_dump(tiny) + "a: &a [*a]\n"):
        path.write_text(content)
        with pytest.raises(StudyError, match="holds more than 100,000 values") as caught:
            load_study(path)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["kermany-cpu", "kermany-frozen"])
def test_new_keys_leave_the_published_runs_their_identity(name):
    study = load_study(REPOSITORY / "config" / f"{name}.yaml")
    for variant in study.variants:
        folder = REPOSITORY / "results" / name / "predictions" / variant
        stored = json.loads((folder / f"seed-{study.seeds[0]}.json").read_text())
        assert study.prediction_hash(variant) == stored["config_sha256"]


def test_files_of_masks_and_patients_count_by_content_not_by_place(tiny):
    tiny["data"] = {"source": "folder", "image_size": 32}
    hashes = {study_from(tiny, "x").training_hash("no_seg")}
    for key, values in (("masks", ["/a", "/b"]), ("patients", ["/a.csv", "/b.csv"])):
        studies = [
            study_from(tiny | {"data": tiny["data"] | {key: value}}, "x") for value in values
        ]
        (training,) = {study.training_hash("no_seg") for study in studies}
        assert len({study.values_sha256() for study in studies}) == 1
        hashes.add(training)
    tiny["data"]["classes"] = ["healthy", "TB"]
    hashes.add(study_from(tiny, "x").training_hash("no_seg"))
    tiny["data"]["patients"] = r"p(\d+)"
    hashes.add(study_from(tiny, "x").training_hash("no_seg"))
    assert len(hashes) == 5
