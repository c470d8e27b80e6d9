"""Predictions for a user's images, and the sentence to cite."""

import functools
import io
import json
import os
import shutil
from dataclasses import replace as altered
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, adopt, no_permission, no_space, opened
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from hybridlungvit.companions.cite import citation
from hybridlungvit.companions.export import export_run
from hybridlungvit.data.cache import prepare_image
from hybridlungvit.data.statistics import image_statistics, outside, training_ranges
from hybridlungvit.evaluation.evaluate import evaluate_variant
from hybridlungvit.evaluation.predictions import read_predictions
from hybridlungvit.evaluation.score import score
from hybridlungvit.evaluation.temperature import fit_temperature, scaled
from hybridlungvit.explain.overlay import draw_overlay
from hybridlungvit.io import StudyError
from hybridlungvit.model import HybridLungViT
from hybridlungvit.model.inference import pneumonia_probability
from hybridlungvit.predict import (
    COLUMNS,
    find_files,
    harmless,
    load_checkpoint,
    overlay_names,
    predict_images,
    published_checkpoint,
)
from hybridlungvit.training.record import KEY

predict = functools.partial(predict_images, phantoms=True)


@pytest.fixture
def image(phantoms, tmp_path):
    (tmp_path / "own").mkdir()
    original = next((phantoms / "test" / "NORMAL").iterdir())
    return Path(shutil.copy(original, tmp_path / "own" / "a.jpeg"))


@pytest.fixture
def described(trained, tmp_path):
    """A copy of the trained checkpoint, for tests to alter what travels with it."""
    _, layout = trained
    path = tmp_path / "described.safetensors"
    return Path(shutil.copy(layout.run("no_seg", 0) / "model.safetensors", path))


def describe(path, section=(), **values):
    """Alter the description in a safetensors file."""
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()[KEY])
    functools.reduce(dict.__getitem__, section, told).update(values)
    save_file(load_file(path), path, {KEY: json.dumps(told)})


def table_of(path):
    return pd.read_csv(path, na_filter=False)


# Rows and pictures


def test_predictions_equal_those_of_the_workflow(trained, phantoms, capsys, tmp_path):
    study, layout = trained
    scored = score(study, "no_seg", 0, layout)
    rows = scored[scored.split == "test"].head(3)
    capsys.readouterr()
    checkpoint = layout.run("no_seg", 0) / "model.safetensors"
    predict([phantoms / path for path in rows.path], checkpoint, tmp_path / "cam")
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert tuple(table.columns) == COLUMNS
    assert table.probability.to_numpy() == pytest.approx(rows.probability.to_numpy(), abs=2e-6)
    assert (table.call == np.where(table.probability >= 0.5, "pneumonia", "normal")).all()
    assert len(list((tmp_path / "cam").glob("*.png"))) == 3


def test_every_kind_of_file_and_folder_is_predicted(described, phantoms, tmp_path):
    folder = tmp_path / "my images ä"
    (folder / "deeper").mkdir(parents=True)
    originals = sorted((phantoms / "test" / "NORMAL").iterdir())[:3]
    shutil.copy(originals[0], folder / "SCAN.JPG")
    grey = cv2.imread(str(originals[1]), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(folder / "deeper" / "SCAN.png"), grey.astype(np.uint16) * 200)
    shutil.copy(originals[2], folder / ".hidden.jpeg")
    single = Path(shutil.copy(originals[2], tmp_path / "single.jpeg"))
    out, cam = tmp_path / "out" / "table.csv", tmp_path / "cam"
    predict([folder, single], described, cam, out)
    table = table_of(out)
    names = [folder / "SCAN.JPG", folder / "deeper/SCAN.png", single]
    assert table.image.tolist() == [str(name) for name in names]
    assert {path.name for path in cam.iterdir()} == {"SCAN.png", "SCAN-2.png", "single.png"}
    temperature = load_checkpoint(described).description.temperature
    expected = scaled(table.probability.to_numpy(), temperature)
    assert table.calibrated.astype(float).to_numpy() == pytest.approx(expected, abs=2e-6)
    assert not np.allclose(table.calibrated, table.probability, atol=1e-3)


def test_an_image_unlike_the_training_images_is_marked(described, phantoms, tmp_path, caplog):
    known = sorted((phantoms / "train" / "NORMAL").iterdir())[0]
    grey = cv2.imread(str(known), cv2.IMREAD_GRAYSCALE)
    noise = np.random.default_rng(0).integers(0, 256, grey.shape, np.uint8)
    files = [known]
    for name, pixels in (("a", 255 - grey), ("b", noise), ("c", np.full_like(grey, 40))):
        files.append(tmp_path / f"{name}.png")
        cv2.imwrite(str(files[-1]), pixels)
    predict(files, described, None, tmp_path / "table.csv")
    warnings = table_of(tmp_path / "table.csv").warning
    assert "unlike" not in warnings[0]
    assert all("unlike the training images: " in text for text in warnings[1:])
    assert "sharpness" in warnings[2]
    assert "uncertain lung mask (0.00)" in warnings[3]
    assert "not a medical device" in caplog.text


def test_calls_are_the_studys_classes_and_foreign_masks_are_marked(described, phantoms, tmp_path):
    data = {"source": "folder", "classes": ["healthy", "TB"], "masks": "masks"}
    describe(described, ("recipe", "data"), **data)
    describe(described, ("recipe", "model"), mask="other")
    predict_images([phantoms / "test"], described, None, tmp_path / "table.csv")
    table = table_of(tmp_path / "table.csv")
    assert table.warning.str.contains("trained with other images' as a control").all()
    assert (table.call == np.where(table.probability >= 0.5, "TB", "healthy")).all()
    assert table.warning.str.contains("trained with masks from files").all()


def test_no_name_is_a_formula_in_a_spreadsheet(described, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f'{sign}cmd,"a"\nb.png' for sign in "=+-@\t"]
    for name in names:
        shutil.copy(image, name)
    predict([Path(name) for name in names], described, Path("cam"), Path("table.csv"))
    assert table_of("table.csv").image.tolist() == [f"'{name}" for name in names]
    assert {path.name for path in Path("cam").iterdir()} == set(names)
    assert harmless("a\x1b[2J\u202eb") == "a�[2J�b"  # what a terminal would obey


def test_threads_and_batches_are_not_the_recipes(described, image, capsys):
    describe(described, ("recipe", "compute"), threads=1000)
    describe(described, ("recipe", "evaluation"), batch_size=10**9)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        predict([image], described)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_overlays_of_many_images_of_one_name_are_told_apart_at_once():
    files = [Path(f"{folder}/scan.png") for folder in range(50_000)]
    files += [Path("a.png"), Path("scan-2.jpeg"), Path("b/a.JPG")]
    names = overlay_names(files)
    assert names[:3] == ["scan.png", "scan-2.png", "scan-3.png"]
    assert names[-3:] == ["a.png", "scan-2-2.png", "a-2.png"]
    assert len(set(names)) == len(files)
    assert overlay_names([Path("a/X.png"), Path("b/x.png")]) == ["X.png", "x-2.png"]  # one on a Mac


@pytest.mark.parametrize("shape", [(400, 700), (900, 300), (40, 60)])
def test_an_overlay_shows_the_image_at_its_own_shape_beside_the_heat(shape):
    grey = np.random.default_rng(0).integers(40, 200, shape, np.uint8)
    mask, heat = np.zeros((32, 32), bool), np.zeros((32, 32), np.float32)
    mask[8:24, 4:12] = mask[8:24, 20:28] = True
    heat[:, 24:] = 1
    picture = draw_overlay(grey, mask, 0.5, heat, "title")
    times = -(-256 // min(shape)) if min(shape) < 256 else 1
    height, width = shape[0] * times, shape[1] * times
    assert picture.shape[0] > height and picture.shape[1] > 2 * width
    expected = cv2.resize(grey, (width, height), interpolation=cv2.INTER_CUBIC)
    patch = expected[:, : width // 16]  # beyond the lungs and the heat
    places = cv2.matchTemplate(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), patch, cv2.TM_SQDIFF)
    rows, columns = np.nonzero(places < 4 * patch.size)
    assert len(rows) == 2 and rows[0] == rows[1]  # left and right, at one height
    assert columns[1] - columns[0] > width

    def colour(drawn, column=columns[0]):
        """How coloured each pixel is of the image that begins at a column."""
        return np.ptp(drawn[rows[0] :, column:][:height, :width].astype(int), axis=2)

    left, right, middle = colour(picture), colour(picture, columns[1]), round(width / 2)
    assert (left[:, middle] > 50).all()  # the cut
    assert (left[height // 2, : width // 2] > 50).any()
    assert not (left[: height // 8, : width // 3] > 50).any()
    assert right[:, : width // 2].max() == 0
    assert right[:, -width // 8 :].mean() > 20
    beside = picture[:, columns[1] + width :].astype(int)
    assert np.ptp(beside, axis=2).max() > 100, "no colour bar"
    unparted = draw_overlay(grey, mask, None, heat, "title")
    assert colour(unparted)[:, middle].max() == 0
    warned = draw_overlay(grey, mask, None, heat, "title", "uncertain lung mask", dashed=True)
    assert warned.shape[0] > unparted.shape[0]
    dashed = colour(warned[-unparted.shape[0] :])[:, : width // 2] > 50
    solid = colour(unparted)[:, : width // 2] > 50
    assert 0.2 < (dashed & solid).sum() / solid.sum() < 0.8


def test_ranges_hold_the_training_images_and_a_margin(cached):
    _, cache = opened(cached)
    rows = np.arange(0, len(cache.images), 2)
    ranges = training_ranges(cache, rows)
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


# Inputs and outputs


def test_all_unusable_files_are_named_and_nothing_is_written(described, image, tmp_path, capsys):
    (tmp_path / "a.jpeg").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"text")
    with pytest.raises(StudyError, match=r"(?s)a\.jpeg: is empty.*b\.png: holds no JPEG"):
        predict([image, tmp_path], described, tmp_path / "cam")
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "cam").exists()
    (tmp_path / "none").mkdir()
    for name, words in (("none", "none: holds no"), ("gone.png", "gone")):
        with pytest.raises(StudyError, match=words):
            predict([tmp_path / name], described, None)


def test_folders_are_searched_without_following_links_and_locked_ones_named(tmp_path, monkeypatch):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "b" / "deep" / "loop").symlink_to(tmp_path / "b")
    for name in ("b/2.png", "b/deep/1.JPEG", "b/deep/.hidden.png", "b/notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in find_files([tmp_path])] == ["2.png", "1.JPEG"]
    monkeypatch.setattr("os.scandir", no_permission)
    with pytest.raises(StudyError, match=r"b: cannot be read \(Permission denied\)"):
        find_files([tmp_path / "b"])


def test_an_overlay_on_a_full_disk_is_an_error_and_leaves_nothing(
    described, image, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(StudyError, match=r"\.png: cannot be written \(No space left"):
        predict([image], described, tmp_path / "cam")
    assert capsys.readouterr().out == ""
    assert not list((tmp_path / "cam").iterdir())


@pytest.mark.parametrize(
    ("kind", "link"),
    [("image", None), ("model.safetensors", os.symlink), ("config.json", os.link)],
)
def test_no_output_replaces_an_input_whatever_it_is_called(exported, image, tmp_path, kind, link):
    source = image if kind == "image" else exported / kind
    output = source if link is None else tmp_path / "other.csv"
    (tmp_path / "cam").mkdir()
    if link is not None:
        link(source, output)
    (link or os.symlink)(source, tmp_path / "cam" / "a.png")
    before = source.read_bytes()
    for places in ((None, output), (tmp_path / "cam", None)):
        with pytest.raises(StudyError, match="would be replaced"):
            predict([image], exported, *places)
    assert source.read_bytes() == before


def test_outputs_spare_each_other_and_what_is_no_file(described, image, tmp_path):
    cam, odd = tmp_path / "cam", tmp_path / "odd"
    odd.mkdir()
    os.mkfifo(odd / "a.png")
    for places, words in (
        ((cam, cam / "a.png"), "of the overlays"), ((None, tmp_path), "is no regular file"),
        ((image, None), "is no folder"), ((odd, None), r"a\.png: is no regular file"),
    ):  # fmt: skip
        with pytest.raises(StudyError, match=words):
            predict([image], described, *places)
    assert image.is_file() and (odd / "a.png").is_fifo()


def test_names_too_long_for_a_file_are_refused_in_one_sentence(described, image):
    long = Path("x" * 300)
    for arguments in ([long], [described, long], [described, None, long], [described, image / "a"]):
        with pytest.raises(StudyError) as refused:
            predict([image], *arguments)
        assert "\n" not in str(refused.value)


def test_devices_and_pipes_are_written_to_and_stay_what_they_are(described, image, tmp_path):
    with pytest.raises(StudyError, match=r"/dev/full: cannot be written \(No space left"):
        predict([image], described, tmp_path / "cam", Path("/dev/full"))
    assert not list((tmp_path / "cam").iterdir())
    predict([image], described, None, Path("/dev/null"))
    assert Path("/dev/full").is_char_device() and Path("/dev/null").is_char_device()
    read, write = os.pipe()
    predict([image], described, None, Path(f"/proc/self/fd/{write}"))
    assert os.read(read, 100_000).decode().startswith("image,probability")
    os.close(read)
    os.close(write)
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    for _ in range(2):  # a link to nothing, then to a file
        predict([image], described, None, tmp_path / "link.csv")
        assert (tmp_path / "link.csv").is_symlink()
        assert len(table_of(tmp_path / "target.csv")) == 1


# Checkpoints


def test_what_travels_with_the_weights_is_that_of_the_training(trained, described):
    _, layout = trained
    manifest, cache = opened(layout)
    loaded = load_checkpoint(described)
    ranges = training_ranges(cache, np.flatnonzero(manifest.split == "train"))
    assert loaded.description.ranges == ranges
    rows = np.flatnonzero(manifest.split == "val")
    images, masks = torch.from_numpy(cache.images[rows]), torch.from_numpy(cache.masks(rows))
    probability = pneumonia_probability(loaded.model, images, masks, tta=True).numpy()
    expected = fit_temperature(manifest.label.to_numpy()[rows], probability)
    assert loaded.description.temperature == pytest.approx(expected, rel=1e-6)


def test_a_checkpoint_of_phantoms_refuses_real_images(described, image, capsys):
    with pytest.raises(StudyError, match=r"synthetic images.*--phantoms"):
        predict_images([image], described)
    assert capsys.readouterr().out == ""
    describe(described, ("recipe", "data"), source="folder")
    predict_images([image], described)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_checkpoint_that_gives_no_number_makes_no_call(described, image, tmp_path):
    with safe_open(described, "pt") as file:
        metadata = file.metadata()
    weights, damaged = load_file(described), tmp_path / "damaged.safetensors"
    name = next(n for n, values in weights.items() if n.endswith("bias") and values.ndim == 1)
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, damaged, metadata)
    with pytest.raises(StudyError, match="the checkpoint gives no number for it"):
        predict([image], damaged, None, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


def test_what_is_no_checkpoint_is_refused_in_one_sentence(described, image, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # not to be waited for
    torch.save({"a": torch.ones(2)}, tmp_path / "pickle.pt")
    (tmp_path / "short.safetensors").write_bytes(described.read_bytes()[:-1000])
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    for name, words in (
        ("pipe", "no such file"), ("", "no such file"), ("pickle.pt", "cannot be read as a check"),
        ("short.safetensors", "cannot be read as a checkpoint"), ("other.safetensors", "no recipe"),
    ):  # fmt: skip
        with pytest.raises(StudyError, match=words) as refused:
            predict([image], tmp_path / name)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ((), {"recipe": {}}),
        ((), {"ranges": []}),
        ((), {"temperature": -1}),
        ((), {"odd": 1}),
        (("recipe", "model"), {"stem_options": {"depth": 10**7}}),
        (("recipe", "model"), {"fusion_layers": 10**7}),
        (("recipe", "model"), {"map_size": 10**6}),
        (("recipe", "data"), {"image_size": 8 * 10**6}),
    ],
)
def test_a_checkpoint_of_another_version_or_too_large_to_build_is_refused_at_once(
    described, section, values
):
    describe(described, section, **values)
    with pytest.raises(StudyError, match="does not fit this version") as refused:
        load_checkpoint(described)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("values", [{"odd": 1}, {"study": None}])
def test_an_export_of_another_version_is_refused(exported, values):
    path = exported / "config.json"
    config = json.loads(path.read_text())
    config[KEY] |= values
    path.write_text(json.dumps(config))
    with pytest.raises(StudyError, match=r"config\.json: does not fit this version"):
        load_checkpoint(exported)


# Exports


def test_a_run_and_an_export_of_it_predict_and_name_themselves(exported, trained, image, tmp_path):
    _, layout = trained
    run = layout.run("no_seg", 0)
    predict([image], run, None, tmp_path / "run.csv")
    predict([image], exported, None, tmp_path / "hub.csv")
    ours, theirs = table_of(tmp_path / "run.csv"), table_of(tmp_path / "hub.csv")
    grey, mask, *_ = prepare_image(image.read_bytes(), image, 32)
    pixels, masks = torch.from_numpy(grey)[None], torch.from_numpy(mask)[None]
    model = load_checkpoint(run).model
    mirrored, single = (pneumonia_probability(model, pixels, masks, t) for t in (True, False))
    assert ours.probability[0] == pytest.approx(float(mirrored), abs=2e-6)
    assert theirs.probability[0] == pytest.approx(float(single), abs=1e-3)  # half, and no_tta
    assert ours.study[0] == theirs.study[0] == "tiny"
    assert (ours.checkpoint[0], theirs.checkpoint[0]) == (str(run), str(exported))
    assert (theirs.threshold == 0.5).all()
    weights = load_file(run / "model.safetensors")
    for name, tensor in HybridLungViT.from_pretrained(exported).state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, weights[name].half().float())


def test_an_export_holds_config_weights_and_card(trained, exported):
    files = ["README.md", "config.json", "model.safetensors"]
    assert sorted(path.name for path in exported.iterdir()) == files
    config = json.loads((exported / "config.json").read_text())
    assert config["d_model"] == 16
    told = config[KEY]
    assert (told["study"], told["variant"], told["seed"]) == ("tiny", "no_tta", 0)
    assert told["recipe"]["evaluation"]["tta"] is False  # the variant's, not that of its run
    card = ModelCard.load(exported / "README.md")
    assert card.data.license == "mit" and "synthetic" in card.data.tags
    assert "The card of the tiny study" in card.text
    test = read_predictions(trained[0], "no_tta", 0, trained[1]).query("split == 'test'")
    auc = roc_auc_score(test.label, test.probability)
    assert f"`no_tta` (without TTA), seed 0: test AUC {auc:.3f} (" in card.text


def test_a_variant_of_evaluation_is_exported_with_its_own_temperature(
    trained, exported, tmp_path, monkeypatch
):
    study, layout = trained
    # The tiny model's best temperature is the largest allowed, whatever its probabilities.
    module = "hybridlungvit.companions.export.fit_temperature"
    monkeypatch.setattr(module, lambda labels, scores: labels.mean() + scores.mean())
    export_run(study, "no_tta", 0, layout, tmp_path / "again", half=True)
    told = json.loads((tmp_path / "again" / "config.json").read_text())[KEY]
    scored = read_predictions(study, "no_tta", 0, layout).query("split == 'val'")
    assert told["temperature"] == pytest.approx(scored.label.mean() + scored.probability.mean())


def test_what_cannot_be_exported_leaves_nothing(trained, exported, tmp_path):
    study, layout = trained
    new, bare = tmp_path / "new", altered(layout, paper=tmp_path)
    for variant, own, folder, words in (
        ("no_seg", layout, exported, "exists already"), ("plain_deit", layout, new, "plain_deit"),
        ("no_seg", bare, new, r"model_card\.md: not found"),
    ):  # fmt: skip
        before = (exported / "config.json").read_bytes()
        with pytest.raises(StudyError, match=words):
            export_run(study, variant, 0, own, folder, half=False)
        assert (exported / "config.json").read_bytes() == before
        assert not new.exists() and not list(tmp_path.glob(".export-*"))


def test_the_published_checkpoint_is_that_of_its_record():
    folder = published_checkpoint()
    told = json.loads((folder / "config.json").read_text())[KEY]
    pattern = f"**/{told['study']}/runs/{told['variant']}/seed-{told['seed']}/run.json"
    (record,) = (json.loads(path.read_text()) for path in (REPOSITORY / "results").glob(pattern))
    checkpoint = load_checkpoint(folder)
    assert checkpoint.description.temperature == pytest.approx(record["temperature"])
    assert sum(p.numel() for p in checkpoint.model.parameters()) == record["parameters"]
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.float16}
    assert "Not a medical device" in ModelCard.load(folder / "README.md").text


def test_without_a_checkpoint_the_published_one_is_used(
    exported, image, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hybridlungvit.predict.PUBLISHED", Path("results/tiny/model"))
    with pytest.raises(StudyError, match="no --checkpoint given, and results/tiny/model holds"):
        predict([image])
    shutil.copytree(exported, "results/tiny/model")
    predict([image])
    assert ",tiny,results/tiny/model,0.5" in capsys.readouterr().out


# Citations


def test_the_sentence_carries_estimate_interval_and_scope_and_no_stale_result(trained, layout):
    study = adopt(trained, layout)
    with pytest.raises(StudyError, match=r"metrics/no_seg\.json"):
        citation(study, "no_seg", layout)
    score(study, "no_seg", 0, layout)
    auc = evaluate_variant(study, "no_seg", layout)["headline"]["auc"]
    text = citation(study, "no_seg", layout)
    assert f"curve of {auc['estimate']:.3f} on 30 synthetic images of" in text
    assert f"(95% CI {auc['low']:.3f} to {auc['high']:.3f}, over test patients; " in text
    assert "patient bootstrap with 200 resamples" in text
    assert "no clinical result" in text
    assert "@misc{hybridlungvit," in text and "kermany2018data" not in text
    path = layout.predictions("no_seg", 0)
    path.write_text(path.read_text().replace("0.", "0.1", 1))
    with pytest.raises(StudyError, match=r"no_seg\.json: made from predictions of seed 0"):
        citation(study, "no_seg", layout)
