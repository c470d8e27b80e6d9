"""Stored features of a frozen stem: what they are, what is trained on them, and interruptions."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import TINY, beside, opened
from safetensors.torch import save_file

from hybridlungvit.cli import app
from hybridlungvit.config import study_from
from hybridlungvit.data.augment import apply_views, derive_seed, draw_views, to_input
from hybridlungvit.evaluation.score import load_run
from hybridlungvit.io import StudyError
from hybridlungvit.model import build_model
from hybridlungvit.model.inference import pneumonia_probability
from hybridlungvit.training import frozen
from hybridlungvit.training.frozen import PooledViews, build_features, open_store
from hybridlungvit.training.loop import train

HALF = 2e-3  # what rounding features to half precision may change


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """The tiny study with a stem that never learns, two views of each image; do not alter it.

    One stem for all: random weights would differ between the features and the model.
    """
    values = copy.deepcopy(TINY)
    values["training"] |= {"freeze_epochs": "all", "frozen_views": 2}
    values["variants"].pop("seg_0.1")
    values["variants"]["readout"] = {
        "label": "R",
        "description": "R",
        "model": {"head": "linear", "readout": "class_and_mean"},
    }
    torch.manual_seed(1)
    stem = build_model(study_from(values, "x").recipe("no_seg"), pretrained=True).stem
    weights = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(stem.vit.state_dict(), weights)
    return values | {"weights": str(weights)}


@pytest.fixture(scope="module")
def stored(values, cached, tmp_path_factory):
    """The study and a layout with its features; tests must not alter them."""
    study = study_from(values, "x")
    layout = beside(cached, tmp_path_factory.mktemp("stored") / "results")
    build_features(study, "no_seg", layout, threads=1)
    return study, layout


@pytest.fixture(params=["no_seg", "plain_deit", "readout"])
def prepared(request, stored):
    """A variant's recipe, manifest, cache, store and model, as its training has them."""
    study, layout = stored
    recipe, (manifest, cache) = study.recipe(request.param), opened(layout)
    store = open_store(study, request.param, layout, recipe)
    torch.manual_seed(1)
    return recipe, manifest, cache, store, build_model(recipe, pretrained=True).eval()


def test_logits_from_stored_features_are_those_of_the_images(prepared):
    _, manifest, cache, store, model = prepared
    rows = np.flatnonzero(manifest.split != "train")
    images, masks = torch.from_numpy(cache.images[rows]), torch.from_numpy(cache.masks(rows))
    for tta in (False, True):
        expected = pneumonia_probability(model, images, masks, tta).numpy()
        found = store.probabilities(model, cache, rows, tta, torch.device("cpu"))
        error = np.abs(found - expected).max()
        assert error < min(HALF, np.ptp(expected) / 20), "images differ by more than rounding"


def test_augmented_views_are_those_an_image_and_its_mask_would_get(prepared):
    recipe, manifest, cache, store, model = prepared
    start = frozen.CHUNK  # the second chunk
    trained = np.flatnonzero(manifest.split == "train")
    rows = trained[trained // frozen.CHUNK == 1]
    images, masks = torch.from_numpy(cache.images[rows]), torch.from_numpy(cache.masks(rows))
    device = torch.device("cpu")
    pooled_views = PooledViews(store, cache, trained, model, masks=True, device=device)
    for view in range(2):
        generator = torch.Generator().manual_seed(derive_seed("views", start, view))
        views = draw_views(recipe.augmentation, len(rows), generator)
        moved, moved_masks = apply_views(images, masks, views)
        with torch.inference_mode():
            features = model.stem(to_input(moved, model.stem.mean, model.stem.std))
            expected = model.pool(features, moved_masks)
        index = pooled_views.index(rows, np.full(len(rows), view))
        assert (pooled_views.pooled[index] - expected).abs().max() < HALF * expected.abs().max()
        assert torch.equal(pooled_views.masks(index), moved_masks)


def test_a_head_trains_on_stored_features_and_repeats(stored, tmp_path):
    study, layout = stored
    folders = [beside(layout, tmp_path / name) for name in ("first", "second")]
    for folder in folders:
        (folder.root / "features").symlink_to(layout.root / "features")
        train(study, "no_seg", 0, folder)
    first, second = (folder.run("no_seg", 0) for folder in folders)
    name = "model.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()
    history = pd.read_csv(first / "history.csv")
    assert history.classification.iloc[-1] < history.classification.iloc[0]
    trained = load_run(study, "no_seg", 0, folders[0]).stem.state_dict()
    fresh = build_model(study.recipe("no_seg"), pretrained=True).stem.state_dict()
    assert all(torch.equal(trained[part], value) for part, value in fresh.items())


def interrupt_at(call, monkeypatch, study, layout):
    """Compute features until the stem is called that often."""
    encode, left = frozen._encode, [call]

    def interrupted(*arguments):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return encode(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(frozen, "_encode", interrupted)
        build_features(study, "no_seg", layout, 1)


def test_an_interrupted_computation_goes_on_to_the_same_bytes(
    values, layout, tmp_path, monkeypatch
):
    study = study_from(values, "x")
    encode = frozen._encode
    interrupt_at(12, monkeypatch, study, layout)
    folder = layout.features("no_seg")
    assert 0 < json.loads((folder / "progress.json").read_text())["done"] < 90
    with pytest.raises(StudyError, match=r"features\.json: not found"):
        open_store(study, "no_seg", layout, study.recipe("no_seg"))
    with monkeypatch.context() as patch:  # another library may give other bits: all anew
        calls = []
        patch.setattr(frozen, "environment_record", lambda: {"packages": {"torch": "0.1"}})
        patch.setattr(frozen, "_encode", lambda *given: calls.append(1) or encode(*given))
        build_features(study, "no_seg", layout, 1)
    trained = opened(layout)[0].split == "train"
    kinds = trained.groupby(np.arange(len(trained)) // frozen.CHUNK).nunique()
    assert len(calls) == 2 * kinds.sum()  # two views, or an image and its mirror image
    interrupt_at(12, monkeypatch, study, layout)
    with pytest.raises(StudyError, match=r"features\.json: not found"):
        open_store(study, "no_seg", layout, study.recipe("no_seg"))
    build_features(study, "no_seg", layout, 1)
    resumed = {file: file.read_bytes() for file in folder.glob("*.npy")}
    (folder / "features.json").unlink()
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(values))
    app(["features", "--config", "tiny.yaml", "--variant", "no_seg"], standalone_mode=False)
    assert {file: file.read_bytes() for file in folder.glob("*.npy")} == resumed
    assert len(resumed) == 3


def test_features_of_another_augmentation_or_other_weights_are_refused(stored, values, tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"another file")
    for change in ({"augmentation": {"flip": 0.25}}, {"weights": str(file)}):
        study = study_from(values | change, "x")
        with pytest.raises(StudyError, match="another stem, data or augmentation"):
            open_store(study, "no_seg", stored[1], study.recipe("no_seg"))


def test_other_weights_of_the_hub_are_refused(stored, values, layout):
    shutil.copytree(stored[1].features("no_seg"), layout.features("no_seg"))
    study = study_from(values | {"weights": True}, "x")
    recipe = study.recipe("no_seg")
    record = frozen._identity(recipe, layout, "a" * 64)
    (layout.features("no_seg") / "features.json").write_text(json.dumps(record))
    assert open_store(study, "no_seg", layout, recipe, "a" * 64) is not None
    with pytest.raises(StudyError, match="another stem, data or augmentation"):
        open_store(study, "no_seg", layout, recipe, "b" * 64)


def test_features_of_a_random_stem_are_refused(values, layout):
    study = study_from(values | {"weights": False}, "x")
    with pytest.raises(StudyError, match=r"no_seg: training\.frozen_views: with model\.pretrained"):
        build_features(study, "no_seg", layout, 1)


def test_a_stopped_attempt_of_another_kind_vouches_for_nothing(values, stored, layout, monkeypatch):
    study, whole = stored
    other = study_from(values | {"augmentation": {"flip": 0.25}}, "x")
    for given, calls in ((study, 12), (other, 1)):
        interrupt_at(calls, monkeypatch, given, layout)
    build_features(study, "no_seg", layout, 1)
    for name in frozen.NAMES:
        files = (at.features("no_seg") / f"{name}.npy" for at in (layout, whole))
        assert len({file.read_bytes() for file in files}) == 1


def test_variants_share_the_features_of_one_stem(values):
    deeper = {
        "label": "D", "description": "D", "model": {"stem_options": {"depth": 2, "patch_size": 8}},
    }  # fmt: skip
    variants = values["variants"] | {"deeper": deeper}
    study = study_from(values | {"variants": variants}, "x")
    owners = {variant: study.features_as(variant) for variant in study.variants}
    assert owners.pop("deeper") == "deeper"
    assert set(owners.values()) == {"no_seg"}
