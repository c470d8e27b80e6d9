"""What stops the workflow before its first job, and leaves everything in place."""

import json
import shutil

import pytest
import yaml
from conftest import REPOSITORY, TINY, beside, checkout, snakemake

from hybridlungvit.config import load_study, study_from
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.io import StudyError
from hybridlungvit.paths import Layout
from hybridlungvit.preflight import check_start, core_hours
from hybridlungvit.provenance import code_sha256

FOLDER = TINY | {"seeds": [0], "data": {**TINY["data"], "source": "folder"}, "data_root": "gone"}
del FOLDER["data"]["phantom"]


@pytest.fixture
def layout(tmp_path):
    return Layout("tiny", results=tmp_path / "results")


def test_missing_images_stop_what_reads_them_and_nothing_else(layout, tmp_path):
    study = study_from(FOLDER, "x")
    with pytest.raises(StudyError, match="data_root: no folder gone"):
        check_start(study, layout, {"cache", "train", "score_no_seg"})
    check_start(study, layout, {"tables", "pdf"}, from_predictions=True)
    unnamed = study_from({k: v for k, v in FOLDER.items() if k != "data_root"}, "x")
    with pytest.raises(StudyError, match="data_root: missing"):
        check_start(unnamed, layout, {"manifest", "train"})
    check_start(study_from(FOLDER | {"data_root": str(tmp_path)}, "x"), layout, {"cache", "train"})


def test_downloaded_images_that_are_gone_are_told_before_results_are_removed(layout, tmp_path):
    layout = Layout("tiny", results=tmp_path / "results", downloads=tmp_path)
    remote = {k: v for k, v in FOLDER.items() if k != "data_root"}
    study = study_from(remote | {"data": FOLDER["data"] | {"source": "mendeley"}}, "x")
    with pytest.raises(StudyError, match=r"images are gone. Remove \S+download\.json"):
        check_start(study, layout, {"cache"})
    check_start(study, layout, {"download", "manifest", "cache"})


@pytest.mark.parametrize(
    ("key", "name"), [("annotations", "none.csv"), ("patients", "none.csv"), ("masks", "none")]
)
def test_missing_files_of_the_users_own_are_told_before_anything_runs(layout, tmp_path, key, name):
    values = FOLDER | {"data_root": str(tmp_path), "data": FOLDER["data"] | {key: name}}
    study = study_from(values, "x")
    for planned in ({"manifest", "cache", "train"}, {"text", "pdf"}):  # the latter as it is missing
        with pytest.raises(StudyError, match=rf"data\.{key}: no (file|folder) {name}"):
            check_start(study, layout, planned)
    check_start(study, layout, {"pdf"}, from_predictions=True)


def test_a_missing_table_of_patients_is_told_in_a_plan(tmp_path):
    study = FOLDER | {"data_root": ".", "data": FOLDER["data"] | {"patients": "none.csv"}}
    folder = checkout(tmp_path)
    (folder / "own.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    done = snakemake(folder, "-n", "--configfile", "own.yaml")
    assert done.stderr.splitlines()[-1].startswith("data.patients: no file none.csv. Give one")


def test_predictions_that_would_go_unreported_are_told_before_anything_is_trained(layout):
    study = study_from(FOLDER | {"data_root": str(layout.root)}, "x")
    left = layout.predictions("no_seg", 7)
    left.parent.mkdir(parents=True)
    left.touch()
    with pytest.raises(StudyError, match=r"seed-7\.csv: .* Report them; or give"):
        check_start(study, layout, {"train", "pdf"})
    left.parent.rename(left.parent.with_name("gone"))
    with pytest.raises(StudyError, match=r"seed-7\.csv: .*; or name the variant under `omitted`"):
        check_start(study, layout, {"train", "pdf"})


def test_masks_that_are_missing_are_told_before_results_are_removed(cached, tmp_path):
    layout = beside(cached, tmp_path / "results")
    manifest = read_manifest(layout.manifest)
    for path in manifest.path:
        file = (tmp_path / "masks" / path).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    data = FOLDER["data"] | {"masks": str(tmp_path / "masks")}
    study = study_from(FOLDER | {"data_root": str(tmp_path), "data": data}, "x")
    check_start(study, layout, {"cache"})
    file.unlink()
    with pytest.raises(StudyError, match=rf"for 1 images, the first {manifest.path.iloc[-1]}"):
        check_start(study, layout, {"cache"})


def test_missing_weights_are_told_before_stored_predictions_are_taken(layout, tmp_path):
    study = study_from(FOLDER | {"data_root": str(tmp_path), "weights": "none.safetensors"}, "x")
    with pytest.raises(StudyError, match=r"model\.pretrained: no file none\.safetensors, so that"):
        check_start(study, layout, {"cache", "pdf"})
    check_start(study, layout, {"cache"})
    check_start(study, layout, {"cache", "pdf"}, from_predictions=True)
    code = code_sha256("train")
    for variant in study.trained_variants():
        file = layout.run(variant, 0) / "model.safetensors"
        file.parent.mkdir(parents=True)
        file.touch()
        hashes = {"code_sha256": code, "config_sha256": study.training_hash(variant)}
        (file.parent / "run.json").write_text(json.dumps(hashes))
    check_start(study, layout, {"cache", "pdf"})
    (file.parent / "run.json").write_text(json.dumps(hashes | {"code_sha256": "0"}))
    with pytest.raises(StudyError, match=r"none\.safetensors, so that"):
        check_start(study, layout, {"cache", "train", "pdf"})


def test_images_that_are_not_those_of_the_manifest_stop_everything(phantoms, cached, tmp_path):
    root = shutil.copytree(phantoms, tmp_path / "images")
    layout = beside(cached, tmp_path / "results")
    study = study_from(FOLDER | {"data_root": str(root)}, "x")
    check_start(study, layout, {"train", "pdf"})
    file = next((root / "train" / "NORMAL").iterdir())
    (root / "train" / "NORMAL" / "notes.txt").touch()
    check_start(study, layout, {"train", "pdf"})
    for change in ("another.jpeg", None):
        other = file.rename(file.with_name(change)) if change else file
        if change is None:
            file.write_bytes(file.read_bytes() + b"0")
        with pytest.raises(StudyError, match=r"manifest.csv: lists other images .* [12] are new"):
            check_start(study, layout, {"train", "pdf"})
        check_start(study, layout, {"manifest", "train", "pdf"})
        check_start(study, layout, {"pdf"}, from_predictions=True)
        other.rename(file)


def test_predictions_of_another_config_stop_a_paper_but_no_scoring(layout):
    study = study_from(FOLDER, "x")
    path = layout.predictions("no_seg", 0)
    path.parent.mkdir(parents=True)
    path.touch()
    record = path.with_suffix(".json")
    record.write_text(json.dumps({"config_sha256": study.prediction_hash("no_seg")}))
    check_start(study, layout, {"pdf"}, from_predictions=True)
    record.write_text(json.dumps({"config_sha256": "0" * 64}))
    with pytest.raises(StudyError, match="made from config 000000000000, but the current config"):
        check_start(study, layout, {"pdf"}, from_predictions=True)
    check_start(study, layout, {"score_no_seg", "pdf"})
    check_start(study, layout, {"train"})  # one training of the new config, and nothing more


def test_a_mistyped_folder_removes_no_stored_result(tmp_path):
    folder = checkout(tmp_path)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(FOLDER, sort_keys=False))
    stored = folder / "results" / "tiny" / "manifest.csv"
    stored.parent.mkdir(parents=True)
    stored.write_text("kept")
    done = snakemake(folder, str(stored.relative_to(folder)), "-F", "--configfile", "tiny.yaml")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("data_root: no folder gone")
    assert stored.read_text() == "kept"


def test_a_folder_of_masks_that_is_gone_is_told_in_one_line(tmp_path):
    folder = checkout(tmp_path)
    study = FOLDER | {"data_root": ".", "data": FOLDER["data"] | {"masks": "gone"}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    done = snakemake(folder, "--configfile", "tiny.yaml")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("data.masks: no folder gone")


def test_stored_features_cost_their_stem_once(tmp_path):
    frozen = load_study(REPOSITORY / "config" / "kermany-frozen.yaml")
    # Two operations for each parameter, patch and view, of ViT-S/14 and of DeiT-Tiny.
    work = 4_700 * 2 * 4 * (256 * 21.7e6 + 196 * 5.5e6)
    hours = core_hours(frozen, Layout("kermany-frozen", results=tmp_path))
    assert hours == pytest.approx(work / 60e9 / 3600, rel=0.03)


def test_a_large_study_without_a_gpu_says_what_it_costs_before_it_begins(tmp_path, caplog):
    full = load_study(REPOSITORY / "config" / "kermany.yaml")
    layout = Layout("kermany", results=tmp_path)
    on_cpu = full.model_copy(update={"compute": full.compute.model_copy(update={"device": "cpu"})})
    check_start(on_cpu, layout, {"train"})
    # 30 trainings of DeiT-Base and 5 of DeiT-Tiny: 17 epochs of 6 operations for each of 86 million
    # parameters, 196 patches and 4,700 images, and 3 of 2; those of the frozen stem only 2.
    work = 196 * 4_700 * 5 * (86e6 * (5 * (17 * 6 + 3 * 2) + 20 * 2) + 5.5e6 * (17 * 6 + 3 * 2))
    assert core_hours(on_cpu, layout) == pytest.approx(work / 60e9 / 3600)
    assert f"about {work / 60e9 / 3600:.0f} core-hours" in caplog.text
    caplog.clear()
    check_start(on_cpu, layout, {"text"})
    demo = load_study(REPOSITORY / "config" / "demo.yaml")
    check_start(demo, Layout("demo", tmp_path), {"train"})
    assert not caplog.records
