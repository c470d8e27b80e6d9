"""Phantoms must be reproducible, their masks true, and their labels hidden in the lungs only."""

import csv
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hybridlungvit import phantom
from hybridlungvit.io import StudyError
from hybridlungvit.masks.fit import lung_mask
from hybridlungvit.phantom import Phantom, render, write_dataset

SMALL = {"median_width": 128}
DATASET = {
    "train_images": 30,
    "test_images": 14,
    "pneumonia_fraction": 0.7,
    "contrast": 0.6,
    "median_width": 96,
    "seed": 3,
}
NAMES = {
    "NORMAL": re.compile(r"(?P<patient>IM-\d{4})-\d{4}"),
    "PNEUMONIA": re.compile(r"(?P<patient>person\d+)_(?P<subtype>bacteria|virus)_(?P<image>\d+)"),
}


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms") / "made"
    write_dataset(root, **DATASET, workers=1)
    return root


@pytest.fixture(scope="module")
def labelled() -> tuple[np.ndarray, list[Phantom]]:
    """240 children, half of them with pneumonia."""
    subtypes = ["normal", "bacteria", "normal", "virus"] * 60
    made = [render(i, 0, s, contrast=1.0, **SMALL) for i, s in enumerate(subtypes)]
    return np.array([s != "normal" for s in subtypes]), made


def patients(root: Path, split: str, kind: str) -> list[str]:
    matches = [NAMES[kind].fullmatch(p.stem) for p in (root / split / kind).glob("*.jpeg")]
    assert all(matches)
    return [match["patient"] for match in matches]


def test_bytes_follow_the_seed_not_the_workers(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "parallel", **DATASET, workers=2)
    assert files(tmp_path / "parallel") == files(dataset)
    write_dataset(tmp_path / "other", **{**DATASET, "seed": 4}, workers=1)
    first = "train/NORMAL/IM-0001-0001.jpeg"
    assert files(tmp_path / "other")[first] != files(dataset)[first]


def test_counts_and_proportions(dataset: Path) -> None:
    counts = {
        (split, kind): len(patients(dataset, split, kind))
        for split in ("train", "test")
        for kind in NAMES
    }
    assert counts == {
        ("train", "NORMAL"): 9,
        ("train", "PNEUMONIA"): 21,
        ("test", "NORMAL"): 4,
        ("test", "PNEUMONIA"): 10,
    }
    bacteria = len(list((dataset / "train").rglob("*_bacteria_*")))
    assert 11 <= bacteria <= 17


def test_masks_are_listed_and_fit_their_images(dataset: Path) -> None:
    with (dataset / "lungs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "class", "mask"]
    assert len(rows) == len(list(dataset.rglob("*.jpeg"))) == 44
    for row in rows:
        split, kind, name = row["mask"].split("/")
        assert (kind, Path(name).stem) == (row["class"], Path(row["image"]).stem)
        image = cv2.imread(str(dataset / split / kind / row["image"]), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(dataset / "lungs" / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert image.ndim == 2
        assert image.shape == mask.shape
        assert set(np.unique(mask)) == {0, 255}


def test_no_patient_in_both_splits_and_numbers_unique(dataset: Path) -> None:
    for kind in NAMES:
        train, test = (patients(dataset, split, kind) for split in ("train", "test"))
        assert not set(train) & set(test)
        assert len(set(train)) < len(train), "some patients must have several images"
    people = [NAMES["PNEUMONIA"].fullmatch(p.stem) for p in dataset.glob("t*/PNEUMONIA/*")]
    assert len({m["image"] for m in people}) == len(people)
    prefixes = {(m["patient"], m["subtype"]) for m in people}
    assert len(prefixes) == len({m["patient"] for m in people})


def test_images_of_a_patient_share_the_anatomy_but_not_the_pixels() -> None:
    first, second = (
        [render(i, image, "normal", contrast=0, **SMALL) for i in range(40)] for image in (0, 1)
    )
    assert all(not np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))

    def proportions(made: list[Phantom]) -> list[float]:
        extents = (np.ptp(np.argwhere(p.lungs), axis=0) for p in made)
        return [width / height for height, width in extents]

    assert np.corrcoef(proportions(first), proportions(second))[0, 1] > 0.7


def test_masks_have_two_sides_parted_by_the_spine(labelled) -> None:
    for made in labelled[1]:
        count, _, stats, centres = cv2.connectedComponentsWithStats(made.lungs.astype(np.uint8))
        assert count == 3, "background and two lungs"
        areas = stats[1:, cv2.CC_STAT_AREA] / made.lungs.size
        assert areas.min() > 0.05
        assert areas.sum() < 0.6
        assert areas.max() < 2 * areas.min()
        left, right = sorted(centres[1:, 0])
        spine = made.image[:, int((left + right) / 2)]
        # The spine between the lungs is the brighter part.
        rows = np.flatnonzero(made.lungs.any(axis=1))
        assert spine[rows].mean() > made.image[made.lungs].mean() + 20


@pytest.mark.parametrize("subtype", ["bacteria", "virus"])
def test_opacities_stay_in_the_lungs_and_grow_with_contrast(subtype) -> None:
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
    assert growth[0] > 0.5
    assert growth[1] > 1.5 * growth[0]
    assert growth[2] > 1.3 * growth[1]


def test_the_mask_generator_fits_them(labelled) -> None:
    dice = []
    for made in labelled[1][::4]:
        fitted = lung_mask(made.image)
        dice.append(2 * (fitted & made.lungs).sum() / (fitted.sum() + made.lungs.sum()))
    assert np.mean(dice) > 0.88


def test_contrast_decides_how_well_the_classes_part() -> None:
    """Mean grey of the lungs against the spine between them, as the simplest of classifiers."""

    def whiteness(made: Phantom) -> float:
        columns = np.flatnonzero(made.lungs.any(axis=0))
        middle = made.image[:, int(columns.mean())]
        return made.image[made.lungs].mean() / middle[made.lungs.any(axis=1)].mean()

    subtypes = ["normal", "virus"] * 60
    sick = [subtype == "virus" for subtype in subtypes]
    auc = []
    for contrast in (0, 0.5, 4):
        made = [render(i, 0, s, contrast=contrast, **SMALL) for i, s in enumerate(subtypes)]
        auc.append(roc_auc_score(sick, [whiteness(p) for p in made]))
    assert 0.35 < auc[0] < 0.65
    assert auc[0] < auc[1] < auc[2]
    assert 0.75 < auc[2] < 0.999


def test_normal_children_do_not_depend_on_contrast() -> None:
    plain, other = (render(1, 2, "normal", contrast=c, **SMALL).image for c in (0, 2))
    assert np.array_equal(plain, other)
    assert not np.array_equal(plain, render(1, 2, "virus", contrast=2, **SMALL).image)


def test_label_is_not_readable_from_size_or_brightness(labelled) -> None:
    sick, made = labelled
    for feature in (
        lambda image: image.shape[0],
        lambda image: image.shape[1],
        lambda image: image.shape[1] / image.shape[0],
        np.mean,
        np.std,
    ):
        assert 0.35 < roc_auc_score(sick, [feature(p.image) for p in made]) < 0.65


def test_sizes_vary_about_the_median(labelled) -> None:
    shapes = np.array([p.image.shape for p in labelled[1]])
    assert np.median(shapes[:, 1]) == pytest.approx(128, rel=0.1)
    assert np.ptp(shapes[:, 1]) > 64
    aspect = shapes[:, 1] / shapes[:, 0]
    assert 1.05 < aspect.min() < 1.25 < 1.6 < aspect.max() < 1.9


def disk_full(*_) -> None:
    raise OSError("disk full")


def test_an_earlier_data_set_is_replaced_only_by_a_complete_one(tmp_path, monkeypatch) -> None:
    root = tmp_path / "made"
    few = {**DATASET, "train_images": 3, "test_images": 2, "workers": 1}
    write_dataset(root, **few)
    before = files(root)
    with monkeypatch.context() as broken:
        broken.setattr(phantom, "write_text", disk_full)
        with pytest.raises(OSError, match="disk full"):
            write_dataset(root, **{**few, "seed": 9})
    assert files(root) == before
    write_dataset(root, **{**few, "train_images": 2})
    assert len(list(root.rglob("*.jpeg"))) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StudyError, match="no folder of phantoms"):
        write_dataset(tmp_path, **DATASET, workers=1)
    assert (tmp_path / "thesis.tex").exists()


def test_an_empty_folder_and_one_that_lost_its_table_are_filled(tmp_path: Path) -> None:
    few = {**DATASET, "train_images": 2, "test_images": 1, "workers": 1}
    write_dataset(tmp_path, **few)
    before = files(tmp_path)
    (tmp_path / "lungs.csv").unlink()
    write_dataset(tmp_path, **few)
    assert files(tmp_path) == before


def test_unknown_subtype() -> None:
    with pytest.raises(ValueError, match="fungus"):
        render(1, 1, "fungus", contrast=0.5, median_width=96)
