"""Phantoms must be reproducible, their masks true, and their labels hidden in the lungs only."""

import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import no_space
from sklearn.metrics import roc_auc_score

from hybridlungvit import phantom
from hybridlungvit.config import Phantom as Settings
from hybridlungvit.io import StudyError
from hybridlungvit.masks.agreement import dice
from hybridlungvit.masks.fit import lung_mask
from hybridlungvit.phantom import render, write_dataset

SMALL = {"median_width": 128}
DATASET = Settings(
    train_images=30, test_images=14, pneumonia_fraction=0.7, contrast=0.6, median_width=96, seed=3
)
NAMES = {
    "NORMAL": r"(?P<patient>IM-\d{4})-\d{4}",
    "PNEUMONIA": r"(?P<patient>person\d+)_(?P<subtype>bacteria|virus)_(?P<image>\d+)",
}


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms") / "made"
    write_dataset(root, DATASET, 1)
    return root


@pytest.fixture(scope="module")
def labelled():
    """240 children, half of them with pneumonia."""
    subtypes = ["normal", "bacteria", "normal", "virus"] * 60
    made = [render(i, 0, s, contrast=1.0, **SMALL) for i, s in enumerate(subtypes)]
    return np.array([s != "normal" for s in subtypes]), made


def test_bytes_follow_the_seed_not_the_workers(dataset, tmp_path):
    write_dataset(tmp_path / "parallel", DATASET, 2)
    assert files(tmp_path / "parallel") == files(dataset)
    write_dataset(tmp_path / "other", DATASET.model_copy(update={"seed": 4}), 1)
    first = "train/NORMAL/IM-0001-0001.jpeg"
    assert files(tmp_path / "other")[first] != files(dataset)[first]


@pytest.mark.parametrize(("kind", "train", "test"), [("NORMAL", 9, 4), ("PNEUMONIA", 21, 10)])
def test_counts_proportions_and_names(dataset, kind, train, test):
    names = {
        split: [re.fullmatch(NAMES[kind], path.stem) for path in (dataset / split / kind).iterdir()]
        for split in ("train", "test")
    }
    assert (len(names["train"]), len(names["test"])) == (train, test)
    patients = {split: [match["patient"] for match in names[split]] for split in names}
    assert not set(patients["train"]) & set(patients["test"])
    assert len(set(patients["train"])) < train, "some patients must have several images"
    if kind == "PNEUMONIA":
        people = names["train"] + names["test"]
        assert len({match["image"] for match in people}) == len(people)
        subtypes = {(match["patient"], match["subtype"]) for match in people}
        assert len(subtypes) == len({patient for patient, _ in subtypes})
        assert 11 <= sum(match["subtype"] == "bacteria" for match in names["train"]) <= 17


def test_masks_are_listed_and_fit_their_images(dataset):
    table = pd.read_csv(dataset / "lungs.csv")
    assert table.columns.tolist() == ["image", "class", "mask"]
    assert len(table) == len(list(dataset.rglob("*.jpeg"))) == 44
    for name, kind, place in table.itertuples(index=False):
        split, folder, file = place.split("/")
        assert (folder, Path(file).stem) == (kind, Path(name).stem)
        image = cv2.imread(str(dataset / split / kind / name), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(dataset / "lungs" / place), cv2.IMREAD_UNCHANGED)
        assert image.ndim == 2 and image.shape == mask.shape
        assert set(np.unique(mask)) == {0, 255}


def test_images_of_a_patient_share_the_anatomy_but_not_the_pixels():
    first, second = (
        [render(i, image, "normal", contrast=0, **SMALL) for i in range(40)] for image in (0, 1)
    )
    assert all(not np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    aspects = [
        [np.divide(*np.ptp(np.argwhere(made.lungs), axis=0)) for made in part]
        for part in (first, second)
    ]
    assert np.corrcoef(aspects)[0, 1] > 0.7


@pytest.mark.parametrize("subtype", ["bacteria", "virus"])
def test_opacities_stay_in_the_lungs_and_grow_with_contrast(subtype):
    growth = np.zeros(3)
    for seed in range(20):
        clear, *shown = (render(seed, 5, subtype, contrast=c, **SMALL) for c in (0, 0.3, 0.8, 2.0))
        # The lungs reach behind the diaphragm and the heart, where the mask ends.
        reach = len(clear.lungs) // 10
        near = cv2.dilate(clear.lungs.astype(np.uint8), np.ones((3, 3)), iterations=reach) > 0
        for place, made in enumerate(shown):
            change = made.image.astype(int) - clear.image
            assert np.array_equal(made.lungs, clear.lungs)
            assert not change[~near].any()
            assert change[clear.lungs].sum() >= 0.85 * change.sum()
            growth[place] += change[clear.lungs].mean() / 20
    assert growth[0] > 0.5 and growth[1] > 1.5 * growth[0] and growth[2] > 1.3 * growth[1]


def test_the_mask_generator_fits_them(labelled):
    assert np.mean([dice(lung_mask(made.image), made.lungs) for made in labelled[1][::4]]) > 0.88


def test_normal_children_do_not_depend_on_contrast():
    plain, other = (render(1, 2, "normal", contrast=c, **SMALL).image for c in (0, 2))
    assert np.array_equal(plain, other)


def test_sizes_vary_and_tell_no_label_nor_does_brightness(labelled):
    sick, made = labelled
    rows, cols = np.array([p.image.shape for p in made]).T
    assert np.median(cols) == pytest.approx(128, rel=0.1) and np.ptp(cols) > 64
    assert 1.05 < (cols / rows).min() < 1.25 < 1.6 < (cols / rows).max() < 1.9
    grey = [[p.image.mean() for p in made], [p.image.std() for p in made]]
    for feature in (rows, cols, cols / rows, *grey):
        assert 0.35 < roc_auc_score(sick, feature) < 0.65


def test_an_earlier_data_set_is_replaced_only_by_a_complete_one(tmp_path, monkeypatch):
    root, few = tmp_path / "made", DATASET.model_copy(update={"train_images": 3, "test_images": 2})
    write_dataset(root, few, 1)
    before = files(root)
    with monkeypatch.context() as broken, pytest.raises(OSError, match="No space left"):
        broken.setattr(phantom, "write_text", no_space)
        write_dataset(root, few.model_copy(update={"seed": 9}), 1)
    assert files(root) == before
    (root / "lungs.csv").unlink()  # as Snakemake does before another run
    write_dataset(root, few, 1)
    assert files(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StudyError, match="no folder of phantoms"):
        write_dataset(tmp_path, DATASET, 1)
    assert (tmp_path / "thesis.tex").exists()
