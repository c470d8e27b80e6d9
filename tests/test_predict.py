"""Predictions for a user's images, and the sentence to cite."""

import functools
import io
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import ones

from hybridlungvit.companions.cite import citation
from hybridlungvit.config import study_from
from hybridlungvit.data.cache import open_cache
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.data.statistics import image_statistics, outside, training_ranges
from hybridlungvit.evaluation.evaluate import evaluate_variant
from hybridlungvit.evaluation.score import score
from hybridlungvit.evaluation.temperature import fit_temperature, scaled
from hybridlungvit.io import StudyError
from hybridlungvit.model.inference import pneumonia_probability
from hybridlungvit.predict import (
    COLUMNS,
    find_files,
    load_checkpoint,
    overlay_names,
    predict_images,
)
from hybridlungvit.training.loop import train
from hybridlungvit.training.record import KEY

predict = functools.partial(predict_images, phantoms=True)


@pytest.fixture
def trained(tiny, layout):
    tiny["training"]["epochs"] = 1
    tiny["seeds"] = [0]
    study = study_from(tiny, "tiny")
    train(study, "no_seg", 0, layout)
    return study, layout


def test_predictions_equal_those_of_the_workflow(trained, phantoms, capsys, tmp_path):
    study, layout = trained
    scored = score(study, "no_seg", 0, layout)
    rows = scored[scored.split == "test"].head(3)
    checkpoint = layout.run("no_seg", 0) / "model.safetensors"
    capsys.readouterr()
    predict([phantoms / path for path in rows.path], checkpoint, tmp_path / "cam")
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert tuple(table.columns) == COLUMNS
    assert table.probability.to_numpy() == pytest.approx(rows.probability.to_numpy(), abs=2e-6)
    assert (table.call == np.where(table.probability >= 0.5, "pneumonia", "normal")).all()
    assert len(list((tmp_path / "cam").glob("*.png"))) == 3


def test_an_unreadable_image_prints_no_row(trained, phantoms, capsys, tmp_path):
    _, layout = trained
    bad = tmp_path / "bad.jpeg"
    bad.write_bytes(b"no image")
    good = next((phantoms / "test" / "NORMAL").iterdir())
    checkpoint = layout.run("no_seg", 0) / "model.safetensors"
    capsys.readouterr()
    with pytest.raises(StudyError, match=r"bad\.jpeg"):
        predict([good, bad], checkpoint, None)
    assert capsys.readouterr().out == ""


@pytest.fixture
def described(trained, tmp_path):
    """A copy of the trained checkpoint, for tests to alter what travels with it."""
    _, layout = trained
    path = tmp_path / "described.safetensors"
    return Path(shutil.copy(layout.run("no_seg", 0) / "model.safetensors", path))


def table_of(path):
    return pd.read_csv(path, na_filter=False)


def test_every_kind_of_file_and_folder_is_predicted(described, phantoms, tmp_path):
    folder = tmp_path / "my images ä"
    (folder / "deeper").mkdir(parents=True)
    originals = sorted((phantoms / "test" / "NORMAL").iterdir())[:3]
    shutil.copy(originals[0], folder / "SCAN.JPG")
    grey = cv2.imread(str(originals[1]), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "deeper" / "SCAN.png"), grey.astype(np.uint16) * 200)
    shutil.copy(originals[2], folder / ".hidden.jpeg")
    shutil.copy(originals[2], tmp_path / "single.jpeg")
    out, cam = tmp_path / "out" / "table.csv", tmp_path / "cam"
    predict([folder, tmp_path / "single.jpeg"], described, cam, out)
    table = table_of(out)
    names = [str(p) for p in (folder / "SCAN.JPG", folder / "deeper/SCAN.png")]
    assert table.image.tolist() == [*names, str(tmp_path / "single.jpeg")]
    assert {path.name for path in cam.iterdir()} == {"SCAN.png", "SCAN-2.png", "single.png"}
    temperature = load_checkpoint(described).description.temperature
    expected = scaled(table.probability.to_numpy(), temperature)
    assert table.calibrated.astype(float).to_numpy() == pytest.approx(expected, abs=2e-6)
    assert not np.allclose(table.calibrated, table.probability, atol=1e-3)


def test_an_image_unlike_the_training_images_is_marked(described, phantoms, tmp_path, caplog):
    known = sorted((phantoms / "train" / "NORMAL").iterdir())[0]
    grey = cv2.imread(str(known), cv2.IMREAD_GRAYSCALE)
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "inverse.png"), 255 - grey)
    cv2.imwrite(str(tmp_path / "noise.png"), rng.integers(0, 256, grey.shape, np.uint8))
    cv2.imwrite(str(tmp_path / "blank.png"), np.full_like(grey, 40))
    names = ("inverse", "noise", "blank")
    files = [known, *(tmp_path / f"{name}.png" for name in names)]
    predict(files, described, None, tmp_path / "table.csv")
    warnings = table_of(tmp_path / "table.csv").warning
    assert "unlike" not in warnings[0]
    assert all("unlike the training images: " in text for text in warnings[1:])
    assert "sharpness" in warnings[2]
    assert "uncertain lung mask (0.00)" in warnings[3]
    assert "not a medical device" in caplog.text


def test_all_unusable_files_are_named_and_nothing_is_written(described, tmp_path):
    (tmp_path / "a.jpeg").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"text")
    with pytest.raises(StudyError, match=r"(?s)a\.jpeg: is empty.*b\.png: holds no JPEG"):
        predict([tmp_path], described, tmp_path / "cam", tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()
    assert not (tmp_path / "cam").exists()
    (tmp_path / "none").mkdir()
    with pytest.raises(StudyError, match="none: holds no"):
        predict([tmp_path / "none"], described, None)
    with pytest.raises(StudyError, match="gone"):
        predict([tmp_path / "gone.png"], described, None)


def test_overlays_of_many_images_of_one_name_are_told_apart_at_once():
    files = [Path(f"{folder}/scan.png") for folder in range(50_000)]
    files += [Path("a.png"), Path("scan-2.jpeg"), Path("b/a.JPG")]
    names = overlay_names(files)
    assert names[:3] == ["scan.png", "scan-2.png", "scan-3.png"]
    assert names[-3:] == ["a.png", "scan-2-2.png", "a-2.png"]
    assert len(set(names)) == len(files)


def test_folders_are_searched_without_following_links_and_locked_ones_named(tmp_path, monkeypatch):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "b" / "deep" / "loop").symlink_to(tmp_path / "b")
    for name in ("b/2.png", "b/deep/1.JPEG", "b/deep/.hidden.png", "b/notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in find_files([tmp_path])] == ["2.png", "1.JPEG"]

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(StudyError, match=r"b: cannot be read \(Permission denied\)"):
        find_files([tmp_path / "b"])


def test_no_output_replaces_one_of_the_images(described, phantoms, tmp_path):
    image = tmp_path / "own" / "a.png"
    image.parent.mkdir()
    cv2.imwrite(str(image), cv2.imread(str(next((phantoms / "test" / "NORMAL").iterdir()))))
    before = image.read_bytes()
    for where in ({"gradcam": image.parent}, {"gradcam": None, "output": image}):
        with pytest.raises(StudyError, match=r"a\.png: is one of the images"):
            predict([image], described, **where)
    assert image.read_bytes() == before
    assert list(image.parent.iterdir()) == [image]


def test_a_checkpoint_that_gives_no_number_makes_no_call(described, phantoms, tmp_path):
    weights, damaged = load_file(described), tmp_path / "damaged.safetensors"
    name = next(n for n, values in weights.items() if n.endswith("bias") and values.ndim == 1)
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, damaged, read_metadata(described))
    with pytest.raises(StudyError, match="the checkpoint gives no number for it"):
        predict([phantoms / "test"], damaged, None, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


def test_a_checkpoint_must_be_a_file_and_a_pipe_is_not_waited_for(phantoms, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(StudyError, match="no such file"):
            predict([phantoms / "test"], path, None)


def test_an_overlay_on_a_full_disk_is_an_error_and_leaves_nothing(
    described, phantoms, tmp_path, monkeypatch, capsys
):
    def fail(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    image = next((phantoms / "test" / "NORMAL").iterdir())
    with pytest.raises(StudyError, match=r"\.png: cannot be written \(No space left"):
        predict([image], described, tmp_path / "cam")
    assert capsys.readouterr().out == ""
    assert not list((tmp_path / "cam").iterdir())


@pytest.mark.parametrize(
    "change", [{"recipe": {}}, {"recipe": None}, {"ranges": []}, {"temperature": -1}, {"odd": 1}]
)
def test_a_checkpoint_of_another_version_is_refused(described, tmp_path, change):
    path = tmp_path / "odd.safetensors"
    altered = json.loads(read_metadata(described)[KEY]) | change
    save_file(load_file(described), path, {KEY: json.dumps(altered)})
    with pytest.raises(StudyError, match=r"odd\.safetensors: does not fit this version"):
        load_checkpoint(path)


def test_what_travels_with_the_weights_is_that_of_the_training(trained, described):
    study, layout = trained
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, study.data.image_size)
    loaded = load_checkpoint(described)
    model, description = loaded.model, loaded.description
    ranges = training_ranges(cache, np.flatnonzero(manifest.split == "train"))
    assert description.ranges == ranges
    rows = np.flatnonzero(manifest.split == "val")
    images, masks = torch.from_numpy(cache.images[rows]), torch.from_numpy(cache.masks(rows))
    probability = pneumonia_probability(model, images, masks, tta=True).numpy()
    expected = fit_temperature(manifest.label.to_numpy()[rows], probability)
    assert description.temperature == pytest.approx(expected, rel=1e-6)


def read_metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_ranges_hold_the_training_images_and_a_margin(cached):
    cache = open_cache(cached, read_manifest(cached.manifest), 32)
    rows = np.arange(0, len(cache.images), 2)
    ranges = training_ranges(cache, rows)
    assert ranges == json.loads(json.dumps(ranges), object_hook=lambda d: {
        key: tuple(value) for key, value in d.items()
    })  # fmt: skip
    means = [float(image.mean()) for image in cache.images[rows]]
    low, high = np.quantile(means, [0.001, 0.999])
    width = high - low
    assert ranges["mean"] == pytest.approx((low - 0.1 * width, high + 0.1 * width), abs=1e-3)
    image = cache.images[3]
    own = {name: values[0] for name, values in image_statistics(image[None]).items()}
    assert own["sd"] == pytest.approx(image.std())
    assert own["bright"] == pytest.approx(np.quantile(image, 0.95))
    blurred = cv2.GaussianBlur(image, (0, 0), 2)[None]
    assert image_statistics(blurred)["log sharpness"][0] < own["log sharpness"] - 0.7
    assert outside({"mean": low - width, "new": 0}, ranges) == ["mean"]


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"weight": ones(2)}, other)
    with pytest.raises(StudyError, match="no recipe"):
        load_checkpoint(other)
    with pytest.raises(StudyError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


def test_the_checkpoint_names_no_folder(tiny, layout, tmp_path):
    weights = tmp_path / "secret folder" / "stem.pth"
    tiny["training"]["epochs"] = 1
    tiny["seeds"] = [0]
    study = study_from(tiny, "tiny")
    train(study, "no_seg", 0, layout)
    first = load_checkpoint(layout.run("no_seg", 0)).model
    weights.parent.mkdir()
    save_file(first.stem.vit.state_dict(), weights.with_suffix(".safetensors"))
    tiny["weights"] = str(weights.with_suffix(".safetensors"))
    study = study_from(tiny, "tiny")
    train(study, "no_seg", 0, layout)
    content = (layout.run("no_seg", 0) / "model.safetensors").read_bytes()
    assert b"stem.safetensors" in content
    assert b"secret folder" not in content


def test_the_sentence_carries_estimate_interval_and_scope(trained):
    study, layout = trained
    score(study, "no_seg", 0, layout)
    auc = evaluate_variant(study, "no_seg", layout)["headline"]["auc"]
    text = citation(study, "no_seg", layout)
    assert f"curve of {auc['estimate']:.3f} on 30 synthetic images of" in text
    assert f"(95% CI {auc['low']:.3f} to {auc['high']:.3f}, over test patients; " in text
    assert "patient bootstrap with 200 resamples" in text
    assert "no clinical result" in text
    assert "@software" in text


def test_a_stale_result_is_not_cited(trained):
    study, layout = trained
    score(study, "no_seg", 0, layout)
    evaluate_variant(study, "no_seg", layout)
    path = layout.predictions("no_seg", 0)
    path.write_text(path.read_text().replace("0.", "0.1", 1))
    with pytest.raises(StudyError, match=r"no_seg\.json: made from predictions of seed 0"):
        citation(study, "no_seg", layout)


def test_citing_an_unknown_result_says_where_it_should_be(study, layout):
    with pytest.raises(StudyError, match=r"metrics/no_seg\.json"):
        citation(study, "no_seg", layout)
