"""Lung masks from files: what is read, how it enters the cache, and what is refused."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import interrupted, opened
from PIL import Image

from hybridlungvit.config import study_from
from hybridlungvit.data.cache import build_cache
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.io import StudyError, folder_sha256, read_json
from hybridlungvit.masks.files import mask_files, read_mask
from hybridlungvit.masks.quality import write_examples, write_quality
from hybridlungvit.paths import Layout
from hybridlungvit.training.loop import train

LUNGS = np.zeros((40, 50), bool)
LUNGS[10:30, 5:20] = LUNGS[10:30, 30:45] = True


@pytest.fixture
def own(cached, tmp_path):
    """A results folder with the shared manifest and no cache."""
    layout = Layout("own", results=tmp_path / "results")
    layout.root.mkdir(parents=True)
    shutil.copy(cached.manifest, layout.manifest)
    return layout


@pytest.fixture
def masks(phantoms, tmp_path):
    """A copy of the phantoms' own lungs that a test may break."""
    return shutil.copytree(phantoms / "lungs", tmp_path / "masks")


def soft(lungs):
    """A network's answer: blurred, with values on both sides of the middle."""
    return cv2.GaussianBlur(lungs.astype(np.float32), (0, 0), 0.8)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("m.png", LUNGS * np.uint8(255)),
        ("m.PNG", LUNGS * np.uint16(1)),
        ("m.png", np.where(LUNGS, 40000, 20000).astype(np.uint16)),
        ("m.png", np.dstack([LUNGS * np.uint8(200)] * 3)),
        ("m.png", np.dstack([LUNGS * np.uint8(90)] * 3 + [np.full_like(LUNGS, 255, np.uint8)])),
        ("m.png", LUNGS * (1 + (np.arange(50) > 25)).astype(np.uint8)),
        ("m.png", np.where(LUNGS, 128, 127).astype(np.uint8)),
        ("m.png", np.where(LUNGS, 200, np.arange(50) * 2).astype(np.uint8)),
        ("m.npy", LUNGS),
        ("m.npy", LUNGS.astype(np.int64)),
        ("m.npy", soft(LUNGS)),
        ("m.npy", soft(LUNGS).astype(np.float16)[..., None]),
    ],
)
def test_masks_of_every_kind_are_the_same_lungs(tmp_path, name, values):
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, values)
    else:
        path.write_bytes(cv2.imencode(".png", values)[1].tobytes())
    assert np.array_equal(read_mask(path), LUNGS)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((9, 9), np.uint8), "holds no lung"),
        (np.full((9, 9), 0.3), "holds no lung"),
        (np.ones((9, 9), bool), "is lung all over"),
        (np.full((9, 9), np.nan), "cannot be read as a mask"),
        (np.eye(9) - 1, "cannot be read as a mask"),
        (np.zeros((9, 9, 9), bool), "cannot be read as a mask|holds no lung"),
        (np.zeros(0), "cannot be read as a mask"),
        (np.array(["text"]), "cannot be read as a mask"),
        (np.array([[{}]], dtype=object), "cannot be read as a mask"),
    ],
)
def test_masks_of_no_use_are_named(tmp_path, values, reason):
    np.save(tmp_path / "m.npy", values, allow_pickle=True)
    with pytest.raises(StudyError, match=rf"m\.npy: ({reason})"):
        read_mask(tmp_path / "m.npy")


def test_a_mask_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    Image.new("1", (16_384, 16_384)).save(tmp_path / "m.png")
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(StudyError, match=r"m\.png: has far more than 50,000,000 pixels"):
        read_mask(tmp_path / "m.png")


def test_a_mask_is_found_by_its_place_or_by_a_name_that_no_other_image_has(tmp_path):
    masks, linked = tmp_path / "masks", tmp_path / "elsewhere"
    for file in (
        masks / "train" / "A" / "1.png", linked / "1.npy", masks / "deep" / "er" / "2.png",
        masks / "3.png", masks / "x" / "3.png",
    ):  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (masks / "train" / "B").symlink_to(linked)
    expected = {
        "train/A/1.jpeg": ["train/A/1.png"], "train/B/1.jpeg": ["train/B/1.npy"],
        "test/A/1.jpeg": [], "train/A/2.jpeg": ["deep/er/2.png"],
        "test/B/3.jpg": ["3.png", "x/3.png"],
    }  # fmt: skip
    with pytest.raises(StudyError, match=r"A/1.jpeg and train/A/1.png would have one mask"):
        mask_files(masks, [*expected, "train/A/1.png"])
    found = mask_files(masks, expected)
    assert found == {image: [masks / name for name in expected[image]] for image in expected}


def test_the_masks_of_the_user_are_those_of_the_cache(phantoms, masks, own):
    build_cache(phantoms, own, 32, 1, str(masks))
    (manifest, cache), table = opened(own), pd.read_csv(own.mask_table)
    assert (table.confidence == 1).all()
    for row in (0, 20, 70):
        path = (masks / manifest.path[row]).with_suffix(".png")
        drawn = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        expected = cv2.resize(drawn, (32, 32), interpolation=cv2.INTER_AREA) > 127
        assert np.array_equal(cache.masks([row])[0], expected)
        assert table.area[row] == pytest.approx(expected.mean(), abs=1e-6)
    before = folder_sha256(masks), table.mask_sha256[0]
    cv2.imwrite(str((masks / manifest.path[0]).with_suffix(".png")), drawn)
    build_cache(phantoms, own, 32, 1, str(masks))
    assert before[0] != folder_sha256(masks)
    assert before[1] != pd.read_csv(own.mask_table).mask_sha256[0]


def test_all_bad_masks_are_told_at_once_and_nothing_is_written(phantoms, masks, own):
    names = [(masks / path).with_suffix(".png") for path in read_manifest(own.manifest).path[:4]]
    names[0].unlink()
    names[1].write_bytes(b"text")
    cv2.imwrite(str(names[2]), np.zeros((50, 60), np.uint8))
    cv2.imwrite(str(names[3]), np.eye(50, 200, dtype=np.uint8))
    with pytest.raises(StudyError) as caught:
        build_cache(phantoms, own, 32, 2, str(masks))
    lines = str(caught.value).splitlines()
    reasons = ("no mask; one file", "holds no JPEG or PNG", "holds no lung", "aspect ratio")
    assert len(lines) == 4
    for line, name, reason in zip(lines, names, reasons, strict=True):
        assert name.stem in line
        assert reason in line
    assert not own.images.exists()


@pytest.mark.parametrize(
    ("kind", "words"), [("missing", "none cannot be read"), ("empty", r"none holds no \.png")]
)
def test_a_folder_without_masks_is_named(phantoms, own, tmp_path, kind, words):
    folder = tmp_path / "none"
    if kind == "empty":
        folder.mkdir()
    with pytest.raises(StudyError, match=rf"data\.masks: .*{words}"):
        build_cache(phantoms, own, 32, 1, str(folder))


def test_known_lungs_given_as_masks_agree_with_themselves(tiny, phantoms, masks, cached, own):
    tiny["data"]["masks"] = str(masks)
    study = study_from(tiny, "tiny")
    build_cache(phantoms, own, 32, 1, study.data.masks)
    record = write_quality(phantoms, study, own)
    assert record["annotated"]["half"] == "all"
    assert record["annotated"]["dice"]["all"]["estimate"] == 1
    assert record["annotated"]["cut_error"]["all"]["estimate"] == 0
    assert {group["low_confidence"] for group in record["groups"]} == {0}
    assert record["masks_sha256"] != read_json(cached.mask_quality)["masks_sha256"]
    write_examples(phantoms, study, own)
    with np.load(own.mask_examples) as examples:
        assert examples["rule"].tolist() == ["first", "middle", "last"] * 2


def test_a_resumed_training_asks_for_the_same_masks(tiny, phantoms, masks, own):
    tiny["data"]["masks"] = str(masks)
    study = study_from(tiny, "tiny")
    build_cache(phantoms, own, 32, 1, study.data.masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hybridlungvit.training.loop.write_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(study, "no_seg", 0, own)
    path = (masks / read_manifest(own.manifest).path[0]).with_suffix(".png")
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[:, ::-1])
    build_cache(phantoms, own, 32, 1, study.data.masks)
    with pytest.raises(StudyError, match="masks"):
        train(study, "no_seg", 0, own)
