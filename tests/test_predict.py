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
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import ones

from hybridlungvit.companions.cite import citation
from hybridlungvit.companions.export import export_run
from hybridlungvit.config import study_from
from hybridlungvit.data.cache import open_cache, prepare_image
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.data.statistics import image_statistics, outside, training_ranges
from hybridlungvit.evaluation.evaluate import evaluate_variant
from hybridlungvit.evaluation.score import score
from hybridlungvit.evaluation.temperature import fit_temperature, scaled
from hybridlungvit.explain.overlay import draw_overlay
from hybridlungvit.io import StudyError
from hybridlungvit.model import HybridLungViT
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


@pytest.fixture
def exported(trained, tmp_path):
    """The trained run as a folder in the layout of the model hub."""
    study, layout = trained
    layout.companions.mkdir(parents=True)
    (layout.companions / "model_card.md").write_text("The card of the tiny study.\n")
    export_run(study, "no_tta", 0, layout, tmp_path / "exported", half=True)
    return tmp_path / "exported"


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


def test_calls_are_the_studys_classes_and_foreign_masks_are_marked(described, phantoms, tmp_path):
    metadata = read_metadata(described)
    description = json.loads(metadata["hybridlungvit"])
    data = {"source": "folder", "classes": ["healthy", "TB"], "masks": "masks"}
    description["recipe"]["data"] |= data
    other = tmp_path / "other.safetensors"
    save_file(load_file(described), other, metadata | {"hybridlungvit": json.dumps(description)})
    predict_images([phantoms / "test"], other, None, tmp_path / "table.csv")
    table = table_of(tmp_path / "table.csv")
    assert (table.call == np.where(table.probability >= 0.5, "TB", "healthy")).all()
    assert table.warning.str.contains("trained with masks from files").all()


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


def test_a_run_and_an_export_of_it_predict_and_name_themselves(
    exported, trained, phantoms, tmp_path
):
    _, layout = trained
    run, image = layout.run("no_seg", 0), next((phantoms / "test" / "NORMAL").iterdir())
    predict([image], run, None, tmp_path / "run.csv")
    predict([image], exported, None, tmp_path / "hub.csv")
    ours, theirs = table_of(tmp_path / "run.csv"), table_of(tmp_path / "hub.csv")
    loaded = load_checkpoint(run)
    grey, mask, *_ = prepare_image(image.read_bytes(), image, 32)
    pixels, masks = torch.from_numpy(grey)[None], torch.from_numpy(mask)[None]
    mirrored, single = (
        pneumonia_probability(loaded.model, pixels, masks, t) for t in (True, False)
    )
    assert ours.probability[0] == pytest.approx(float(mirrored), abs=2e-6)
    assert theirs.probability[0] == pytest.approx(float(single), abs=1e-3)  # half, and no_tta
    assert ours.study[0] == theirs.study[0] == "tiny"
    assert (ours.checkpoint[0], theirs.checkpoint[0]) == (str(run), str(exported))
    assert (theirs.threshold == 0.5).all()
    model = HybridLungViT.from_pretrained(exported)
    weights = load_file(run / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, weights[name].half().float())


def test_an_export_holds_config_weights_and_card(exported):
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md", "config.json", "model.safetensors"
    ]  # fmt: skip
    config = json.loads((exported / "config.json").read_text())
    assert config["d_model"] == 16
    told = config[KEY]
    assert (told["study"], told["variant"], told["seed"]) == ("tiny", "no_tta", 0)
    assert told["recipe"]["evaluation"]["tta"] is False  # the variant's, not that of its run
    card = ModelCard.load(exported / "README.md")
    assert card.data.license == "mit" and "synthetic" in card.data.tags
    assert "The card of the tiny study" in card.text


def test_what_cannot_be_exported_leaves_nothing(trained, exported, tmp_path):
    study, layout = trained
    before = (exported / "config.json").read_bytes()
    with pytest.raises(StudyError, match="exists already"):
        export_run(study, "no_seg", 0, layout, exported, half=False)
    assert (exported / "config.json").read_bytes() == before
    with pytest.raises(StudyError, match="plain_deit"):
        export_run(study, "plain_deit", 0, layout, tmp_path / "new", half=False)
    (layout.companions / "model_card.md").unlink()
    with pytest.raises(StudyError, match=r"model_card\.md: not found"):
        export_run(study, "no_seg", 0, layout, tmp_path / "new", half=False)
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".export-*"))


def test_a_checkpoint_of_phantoms_refuses_real_images(described, phantoms, capsys):
    with pytest.raises(StudyError, match=r"synthetic images.*--phantoms"):
        predict_images([phantoms / "test"], described)
    assert capsys.readouterr().out == ""
    altered = json.loads(read_metadata(described)[KEY])
    altered["recipe"]["data"]["source"] = "folder"
    save_file(load_file(described), described, {KEY: json.dumps(altered)})
    predict_images([next((phantoms / "test" / "NORMAL").iterdir())], described)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_without_a_checkpoint_the_published_one_is_used(
    exported, phantoms, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hybridlungvit.predict.PUBLISHED", Path("results/tiny/model"))
    image = next((phantoms / "test" / "NORMAL").iterdir())
    with pytest.raises(StudyError, match="no --checkpoint given, and results/tiny/model holds"):
        predict([image])
    Path("results/tiny").mkdir(parents=True, exist_ok=True)
    shutil.copytree(exported, "results/tiny/model")
    predict([image])
    assert ",tiny,results/tiny/model,0.5" in capsys.readouterr().out


@pytest.mark.parametrize("sign", list("=+-@\t"))
def test_no_name_is_a_formula_in_a_spreadsheet(described, phantoms, tmp_path, monkeypatch, sign):
    monkeypatch.chdir(tmp_path)
    name = f'{sign}cmd,"a"\nb.png'
    shutil.copy(next((phantoms / "test" / "NORMAL").iterdir()), name)
    predict([Path(name)], described, Path("cam"), Path("table.csv"))
    assert table_of("table.csv").image[0] == f"'{name}"
    assert [path.name for path in Path("cam").iterdir()] == [name]


@pytest.fixture
def image(phantoms, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    return Path(shutil.copy(next((phantoms / "test" / "NORMAL").iterdir()), folder / "a.jpeg"))


@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["itself", "symlink", "hard"])
@pytest.mark.parametrize("kind", ["image", "checkpoint", "config"])
def test_no_output_replaces_an_input_whatever_it_is_called(exported, image, tmp_path, link, kind):
    source = {"image": image, "checkpoint": exported / "model.safetensors",
              "config": exported / "config.json"}[kind]  # fmt: skip
    output = source
    if link is not None:
        output = tmp_path / "other.csv"
        link(source, output)
    before = source.read_bytes()
    with pytest.raises(StudyError, match="would be replaced"):
        predict([image], exported, None, output)
    cam = tmp_path / "cam"
    cam.mkdir()
    (link or os.symlink)(source, cam / "a.png")
    with pytest.raises(StudyError, match="would be replaced"):
        predict([image], exported, cam)
    assert source.read_bytes() == before


def test_outputs_spare_each_other_and_what_is_no_file(described, image, tmp_path):
    cam = tmp_path / "cam"
    with pytest.raises(StudyError, match="of the overlays"):
        predict([image], described, cam, cam / "a.png")
    with pytest.raises(StudyError, match="is no regular file"):
        predict([image], described, None, tmp_path)
    with pytest.raises(StudyError, match="is no folder"):
        predict([image], described, image)
    cam.mkdir()
    os.mkfifo(cam / "a.png")
    with pytest.raises(StudyError, match=r"a\.png: is no regular file"):
        predict([image], described, cam)
    assert image.is_file() and (cam / "a.png").is_fifo()


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


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("model", {"stem_options": {"depth": 10**7}}),
        ("model", {"encoder_layers": 10**7}),
        ("model", {"fusion_layers": 10**7}),
        ("model", {"d_model": 10**9, "heads": 1}),
        ("model", {"map_size": 10**6}),
        ("data", {"image_size": 8 * 10**6}),
    ],
)
def test_a_recipe_too_large_to_build_is_refused_at_once(described, exported, section, values):
    path = exported / "config.json"
    config = json.loads(path.read_text())
    config[KEY]["recipe"][section] |= values
    path.write_text(json.dumps(config))
    message = r"does not fit this version.*(is|at) mo(re than|st)"
    with pytest.raises(StudyError, match=message):
        load_checkpoint(exported)
    altered = json.loads(read_metadata(described)[KEY])
    altered["recipe"][section] |= values
    save_file(load_file(described), described, {KEY: json.dumps(altered)})
    with pytest.raises(
        StudyError, match=r"does not fit this version.*(is|at) mo(re than|st)"
    ) as refused:
        load_checkpoint(described)
    assert "\n" not in str(refused.value)


def test_threads_and_batches_are_not_the_recipes(described, image, capsys):
    altered = json.loads(read_metadata(described)[KEY])
    altered["recipe"]["compute"]["threads"] = 1000
    altered["recipe"]["evaluation"]["batch_size"] = 10**9
    save_file(load_file(described), described, {KEY: json.dumps(altered)})
    threads = torch.get_num_threads()
    predict([image], described)
    assert torch.get_num_threads() <= threads
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("change", [{}, {"temperature": "warm"}, {"seed": -1, "extra": 1}])
def test_an_export_with_a_wrong_config_is_refused_in_one_sentence(exported, image, change):
    path = exported / "config.json"
    config = json.loads(path.read_text())
    config[KEY] = config[KEY] | change if change else "nothing"
    path.write_text(json.dumps(config))
    with pytest.raises(StudyError, match=r"config\.json: does not fit") as refused:
        predict([image], exported)
    assert "\n" not in str(refused.value)


def test_pickles_and_truncated_files_are_refused_in_one_sentence(described, image, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pickle.pt")
    (tmp_path / "short.safetensors").write_bytes(described.read_bytes()[:-1000])
    for name in ("pickle.pt", "short.safetensors"):
        with pytest.raises(StudyError, match="cannot be read as a checkpoint") as refused:
            predict([image], tmp_path / name)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("shape", [(400, 700), (900, 300), (40, 60)])
def test_an_overlay_shows_the_image_at_its_own_shape_beside_the_heat(shape):
    rng = np.random.default_rng(0)
    grey = rng.integers(40, 200, shape, np.uint8)
    mask = np.zeros((32, 32), bool)
    mask[8:24, 4:12] = mask[8:24, 20:28] = True
    heat = np.zeros((32, 32), np.float32)
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
    left = picture[rows[0] :, columns[0] :][:height, :width].astype(int)
    right = picture[rows[0] :, columns[1] :][:height, :width].astype(int)
    coloured = np.ptp(left, axis=2) > 50
    assert coloured[:, round(width / 2)].all()  # the cut
    assert (
        coloured[height // 2, : width // 2].any()
        and not coloured[: height // 8, : width // 3].any()
    )
    assert np.ptp(right, axis=2)[:, : width // 2].max() == 0
    assert np.ptp(right, axis=2)[:, -width // 8 :].mean() > 20
    unparted = draw_overlay(grey, mask, None, heat, "title")
    middle = unparted[rows[0] :, columns[0] :][:height, round(width / 2)].astype(int)
    assert np.ptp(middle, axis=1).max() == 0
    warned = draw_overlay(grey, mask, None, heat, "title", "uncertain lung mask", dashed=True)
    assert warned.shape[0] > unparted.shape[0]
    dashed = np.ptp(warned[-unparted.shape[0] :].astype(int), axis=2) > 50
    solid = np.ptp(unparted.astype(int), axis=2) > 50
    assert 0.2 < (dashed & solid)[:, : width // 2].sum() / solid[:, : width // 2].sum() < 0.8


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
    assert "@misc{hybridlungvit," in text and "kermany2018data" not in text


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
