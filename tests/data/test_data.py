"""Sources, manifest and cache."""

import logging
import os
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import opened, replace
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlungvit.config import Data
from hybridlungvit.data.cache import build_cache, open_cache
from hybridlungvit.data.decode import inspect_image, read_grey
from hybridlungvit.data.manifest import (
    build_manifest,
    keep_whole_patients,
    read_manifest,
    split_validation,
)
from hybridlungvit.data.sources import find_images, read_patient
from hybridlungvit.io import StudyError, read_table
from hybridlungvit.paths import Layout


@pytest.mark.parametrize(
    ("stem", "label", "expected"),
    [
        ("person12_bacteria_34", 1, ("person12_bacteria", "bacteria")),
        ("person12_virus_34", 1, ("person12_virus", "virus")),
        ("person1_virus_6_2", 1, ("person1_virus", "virus")),
        ("IM-0115-0001", 0, ("IM-0115", "normal")),
        ("IM-0011-0001-0002", 0, ("IM-0011", "normal")),
        ("NORMAL2-IM-0927-0001", 0, ("NORMAL2-IM-0927", "normal")),
        ("scan7", 1, ("image:scan7", "unknown")),
        ("scan7", 0, ("image:scan7", "normal")),
        ("person12_bacteria_34", 0, ("person12_bacteria", "normal")),  # bacteria against virus
        ("IM-0115-0001", 1, ("IM-0115", "unknown")),
    ],
)
def test_patients_are_read_from_names(stem, label, expected):
    assert read_patient(stem, label) == expected


@pytest.mark.parametrize("part", ["", "test/PNEUMONIA"])
def test_missing_folder_is_named(folder, part):
    shutil.rmtree(folder / part)
    with pytest.raises(StudyError, match=str(folder / part)):
        find_images(folder)


@pytest.mark.parametrize(
    ("suffix", "reason"), [(None, "Unpack the data set again"), (".dcm", "One is a DICOM file")]
)
def test_class_folder_without_images_is_named(folder, suffix, reason):
    for file in (folder / "test" / "NORMAL").iterdir():
        file.rename(file.with_suffix(suffix)) if suffix else file.unlink()
    with pytest.raises(StudyError, match=f"test/NORMAL: holds no image; .*{reason}"):
        find_images(folder)


def test_val_folder_is_reported_and_unused(folder, caplog):
    shutil.copytree(folder / "test", folder / "val")
    with caplog.at_level(logging.WARNING):
        table = find_images(folder)
    assert "30 images and is left unused" in caplog.text
    assert not table.path.str.startswith("val").any()


def test_unnamed_images_are_counted_and_stand_alone(folder, caplog):
    for place in ("train/NORMAL", "train/PNEUMONIA", "test/NORMAL"):
        file = next((folder / place).iterdir())
        file.rename(file.with_name("scan é.JPEG"))
    with caplog.at_level(logging.WARNING):
        table = find_images(folder)
    assert "3 of 90 file names tell no patient" in caplog.text
    unnamed = table.patient[table.path.str.endswith("/scan é.JPEG")]
    assert unnamed.str.startswith("image:").all() and unnamed.nunique() == 3


def test_manifest_lists_facts_and_no_patient_in_two_splits(cached, phantoms):
    table = read_manifest(cached.manifest)
    assert len(table) == 90
    for row in table.sample(5, random_state=0).itertuples():
        image = cv2.imread(str(phantoms / row.path))
        assert image.shape[:2] == (row.height, row.width)
        assert (phantoms / row.path).stat().st_size == row.bytes
    assert inspect_image(phantoms / table.path[0])[0] == table.sha256[0]
    assert table.groupby("patient").split.nunique().max() == 1
    assert set(table.split) == {"train", "val", "test"}
    assert (table.split == "test").equals(table.path.str.startswith("test/"))


patients = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 5)), min_size=30, max_size=60
).filter(lambda rows: 10 <= sum(label for label, _ in rows) <= len(rows) - 10)


def table_of(rows):
    """One row an image, for patients given as (label, number of images)."""
    records = [
        (f"p{i}-{k}", label, f"p{i}", "train")
        for i, (label, images) in enumerate(rows)
        for k in range(images)
    ]
    return pd.DataFrame(records, columns=["path", "label", "patient", "side"])


@settings(max_examples=30)
@given(patients, st.integers(0, 99))
def test_validation_split_is_by_patient_with_both_classes(rows, seed):
    table = table_of(rows)
    split = split_validation(table, folds=5, seed=seed)
    assert split.groupby(table.patient).nunique().max() == 1
    assert set(table.label[split == "val"]) == {0, 1}
    assert 0 < (split == "val").mean() < 0.5
    assert split.equals(split_validation(table, folds=5, seed=seed))


@given(patients, st.integers(20, 200), st.integers(0, 99), st.booleans())
def test_limiting_train_keeps_whole_patients_and_the_other_sides(rows, limit, seed, mixed):
    table, other = table_of(rows), table_of([(0, 3), (1, 2)])
    if mixed:  # patients with images of both classes
        table["label"] = np.arange(len(table)) % 2
    other = other.assign(patient=other.patient + "x", side=["val"] * 3 + ["test"] * 2)
    kept = keep_whole_patients(pd.concat([table, other], ignore_index=True), limit, seed)
    assert kept.side.value_counts()[["val", "test"]].tolist() == [3, 2]
    kept = kept[kept.side == "train"]
    assert len(kept) <= limit
    sizes = table[table.patient.isin(kept.patient)].groupby("patient").size()
    assert kept.groupby("patient").size().equals(sizes)


def test_too_few_patients_for_the_folds(phantoms, tmp_path):
    data = Data(source="folder", image_size=32, validation_folds=1000)
    with pytest.raises(StudyError, match="validation_folds"):
        build_manifest(phantoms, data, tmp_path / "m.csv", 1)


def test_cache_holds_the_decoded_images_and_masks(cached, phantoms):
    manifest, cache = opened(cached)
    image = cv2.imread(str(phantoms / manifest.path[7]), cv2.IMREAD_GRAYSCALE)
    expected = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
    assert np.array_equal(cache.images[7], expected)
    masks = cache.masks([7, 3])
    assert masks.shape == (2, 32, 32)
    assert masks.dtype == bool
    table = pd.read_csv(cached.mask_table)
    assert table.area[7] == pytest.approx(masks[0].mean(), abs=1e-6)
    assert table.cut[7] == pytest.approx((np.nonzero(masks[0])[1].mean() + 0.5) / 32, abs=1e-6)


def test_cache_does_not_depend_on_workers(phantoms, cached, tmp_path):
    other = Layout("other", results=tmp_path / "w")
    other.root.mkdir(parents=True)
    shutil.copy(cached.manifest, other.manifest)
    build_cache(phantoms, other, 32, workers=1)
    for name in ("images", "masks", "mask_table"):
        assert getattr(other, name).read_bytes() == getattr(cached, name).read_bytes()


REFUSED = {
    "size": "images and masks of shape .* Run `cache` again",
    "masks": "images and masks of shape .* Run `cache` again",
    "manifest": "cache: made from another manifest than .* Run `cache` again",
    "record": r"record\.json: not found",
    "gone": "no usable cache .* Run `cache`",
}


@pytest.mark.parametrize("damage", REFUSED)
def test_a_cache_made_from_something_else_is_refused_in_a_sentence(cached, tmp_path, damage):
    own = Layout("own", results=tmp_path)
    shutil.copytree(cached.root, own.root)
    manifest = read_manifest(own.manifest)
    if damage == "manifest":  # the same images in another order of splits
        replace(own.manifest, ",val,", ",train,")
    elif damage == "masks":
        np.save(own.masks, np.load(own.masks)[:, :-1])
    elif damage != "size":
        (own.cache_record if damage == "record" else own.images).unlink()
    with pytest.raises(StudyError, match=REFUSED[damage]) as caught:
        open_cache(own, manifest, 64 if damage == "size" else 32)
    assert "\n" not in str(caught.value)


def test_scaled_decoding_stays_close_to_full_decoding(tmp_path):
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.normal(size=(1200, 1600)).astype(np.float32), (0, 0), 12)
    image = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    path = tmp_path / "big.jpeg"
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    shrunk = read_grey(path, 224)
    assert shrunk.shape == (300, 400)
    whole = cv2.resize(image, (400, 300), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - whole).mean() < 1.0


names = st.text(
    st.characters(min_codepoint=32, exclude_characters="/", exclude_categories=("Cs",)), min_size=1
)


@given(st.sets(names.filter(lambda name: len(name.encode()) < 200), min_size=1, max_size=4))
def test_any_file_name_is_listed_once_or_hidden(tmp_path_factory, given_names):
    root = tmp_path_factory.getbasetemp() / "names"
    shutil.rmtree(root, ignore_errors=True)
    for part in ("train/NORMAL", "train/PNEUMONIA", "test/NORMAL", "test/PNEUMONIA"):
        (root / part).mkdir(parents=True)
        (root / part / f"{part.replace('/', '-')}.png").write_bytes(b"")
    for name in given_names:
        (root / "train" / "NORMAL" / f"{name}.JPEG").write_bytes(b"")
    found = set(find_images(root).path)
    visible = {f"train/NORMAL/{name}.JPEG" for name in given_names if name[0] != "."}
    assert found - {path for path in found if path.endswith(".png")} == visible
    text = pd.DataFrame({"path": sorted(visible)}).to_csv(index=False, lineterminator="\n")
    table = root / "list.csv"
    table.write_text(text, encoding="utf-8", newline="")
    if visible:
        again = read_table(table, ["path"], {"path": str})
        assert again.path.tolist() == sorted(visible)


@pytest.mark.parametrize("name", [b"return\r.png", b"latin-\xe9.png"])
def test_names_that_the_manifest_cannot_hold_are_refused(folder, name):
    (folder / "test" / "NORMAL" / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(StudyError, match=r"test/NORMAL: holds a file named .*Rename it"):
        find_images(folder)


def test_a_class_that_the_limit_removes_is_missed():
    rows = [(f"{i}.png", int(i > 1), f"p{i}", "train") for i in range(100)]
    table = pd.DataFrame(rows, columns=["path", "label", "patient", "side"])
    few = keep_whole_patients(table, 20, 0)
    assert set(few.label) == {1}
    with pytest.raises(StudyError, match=r"only 0 patients .* raise data\.max_train_images"):
        split_validation(few, folds=5, seed=0)


def test_kinds_of_pneumonia_are_no_kinds_of_another_class(phantoms, tmp_path):
    for side in ("train", "test"):
        for name, own in (("NORMAL", "BACTERIA"), ("PNEUMONIA", "VIRUS")):
            shutil.copytree(phantoms / side / name, tmp_path / side / own)
    table = find_images(tmp_path, classes=("BACTERIA", "VIRUS"))
    assert set(table.subtype) == {"normal", "unknown"}


def own_task(phantoms, root):
    """The phantoms as a study of other classes and names, and the patient of each file."""
    table = find_images(phantoms).sample(frac=1, random_state=0)  # names tell no class
    patients = {}
    for row, (path, patient) in enumerate(zip(table.path, table.patient, strict=True)):
        side, name, _ = path.split("/")
        new = root / side / {"NORMAL": "healthy", "PNEUMONIA": "TB"}[name] / f"scan-{row:03d}.jpeg"
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(phantoms / path, new)
        patients[new.relative_to(root).as_posix()] = patient
    return patients


@pytest.mark.parametrize("named_by", ["path", "name"])
def test_own_classes_and_a_table_of_patients_make_a_manifest(phantoms, tmp_path, named_by):
    patients = own_task(phantoms, tmp_path / "data")
    rows = {path if named_by == "path" else path.split("/")[2]: p for path, p in patients.items()}
    table = tmp_path / "patients.csv"
    pd.DataFrame(rows.items(), columns=["image", "patient"]).to_csv(table, index=False)
    data = Data(classes=("healthy", "TB"), patients=str(table), image_size=32, validation_folds=3)
    manifest = build_manifest(tmp_path / "data", data, tmp_path / "manifest.csv", 1)
    assert dict(zip(manifest.path, manifest.patient, strict=True)) == patients
    assert (manifest.label == manifest.path.str.contains("/TB/")).all()
    assert set(manifest.split) == {"train", "val", "test"}


def test_a_space_makes_no_other_patient(phantoms, tmp_path):
    images, table = find_images(phantoms), tmp_path / "patients.csv"
    rows = pd.DataFrame({"image": images.path, "patient": "P1"})
    rows.loc[::2, "patient"] = " P1 "
    rows.to_csv(table, index=False)
    assert set(find_images(phantoms, patients=str(table)).patient) == {"P1"}


def test_patients_by_a_regular_expression(phantoms):
    table = find_images(phantoms, patients=r"(?:person|IM-)(\d+)")
    assert (table.patient == table.path.str.extract(r"(?:person|IM-)(\d+)")[0]).all()
    with pytest.raises(StudyError, match=r"finds no patient in t\S+/NORMAL/.*Widen the expression"):
        find_images(phantoms, patients=r"/person(\d+)")  # one patient might stand on two sides


def test_a_name_that_two_folders_have_tells_no_patient(folder):
    for place in ("train/NORMAL", "train/PNEUMONIA"):
        file = next((folder / place).iterdir())
        file.rename(file.with_name("scan.jpeg"))
    paths = find_images(folder).path
    table = folder / "patients.csv"
    rows = pd.DataFrame({"image": paths.str.rpartition("/")[2], "patient": "P1"})
    rows.drop_duplicates().to_csv(table, index=False)
    with pytest.raises(StudyError, match=r"tells no patient of \S+/scan\.jpeg, .* 2 such images"):
        find_images(folder, patients=str(table))


@pytest.mark.parametrize("name", ["scan.dcm", "scan.TIFF", "P0125"])
def test_images_of_other_formats_and_folders_are_not_left_out_in_silence(folder, name):
    place = folder / "test" / "NORMAL"
    (place / ".hidden.dcm").touch()
    (place / "notes.txt").touch()
    assert len(find_images(folder)) == 90
    (place / name).mkdir() if name == "P0125" else (place / name).touch()
    with pytest.raises(StudyError, match=rf"NORMAL: {name} would be left out"):
        find_images(folder)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("image,who\na,b", "lacks the columns patient"),
        ("image,patient\nx.jpeg,1", "tells no patient of t.*; 90 such images"),
        ("image,patient\nx.jpeg,1\nx.jpeg,2", r"x\.jpeg needs one patient"),
        ("image,patient\nx.jpeg,", r"x\.jpeg needs one patient"),
        (None, "not found"),
    ],
)
def test_unusable_tables_of_patients_are_named(phantoms, tmp_path, rows, reason):
    table = tmp_path / "patients.csv"
    if rows is not None:
        table.write_text(rows)
    with pytest.raises(StudyError, match=rf"patients\.csv: {reason}") as caught:
        find_images(phantoms, patients=str(table))
    assert "\n" not in str(caught.value)


def test_another_layout_is_told_with_what_is_there(folder):
    (folder / "train" / "NORMAL").rename(folder / "train" / "healthy")
    (folder / "train" / "PNEUMONIA").rename(folder / "train" / "sick")
    expected = r"found healthy/, sick/ in .*train\. .*NORMAL and PNEUMONIA, .*data\.classes"
    with pytest.raises(StudyError, match=expected):
        find_images(folder)
    (folder / "test").rename(folder / "holdout")
    with pytest.raises(StudyError, match="found holdout/, lungs/, train/ in"):
        find_images(folder, ("test",))
