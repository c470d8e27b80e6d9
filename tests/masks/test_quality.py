"""Mask quality: agreement with known lungs, intervals, halves, the shortcut check, and files."""

import re
import shutil
from fractions import Fraction

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import benchmark

from hybridlungvit.config import Statistics, study_from
from hybridlungvit.data.decode import read_grey
from hybridlungvit.data.manifest import read_masks
from hybridlungvit.evaluation.intervals import Interval
from hybridlungvit.io import StudyError, file_sha256, read_json
from hybridlungvit.masks import agreement, mean_x, quality
from hybridlungvit.masks.agreement import (
    Case,
    dice,
    generator,
    half_of,
    measure,
    read_cases,
    read_lungs,
    report_masks,
)
from hybridlungvit.masks.fit import LungMask, lung_mask_steps, lung_mask_with_confidence
from hybridlungvit.paper.format import format_interval

# Agreement of two masks


def block(*columns):
    """A mask of 10 by 20 px with lung in the rows 2 to 7 of some columns."""
    mask = np.zeros((10, 20), bool)
    mask[2:8, list(columns)] = True
    return mask


def test_dice_of_hand_made_masks():
    assert dice(block(2, 3), block(2, 3)) == 1
    assert dice(block(2, 3), block(12, 13)) == 0
    assert dice(block(2, 3), block(3, 4)) == pytest.approx(0.5)
    assert dice(block(), block()) == 1


def test_mean_x_is_the_mean_of_the_centres_of_the_lungs_pixels():
    assert mean_x(block()) == 0.5
    rng = np.random.default_rng(0)
    for width in (1, 7, 160, 224, 1501):
        mask = rng.random((31, width)) < rng.random(width)
        centres = [Fraction(2 * x + 1, 2) for row in mask for x in np.flatnonzero(row).tolist()]
        literal = sum(centres) / len(centres) / width
        assert mean_x(mask) == pytest.approx(float(literal), rel=4e-16)
        assert mean_x(mask[:, ::-1]) == pytest.approx(1 - mean_x(mask), abs=4e-16)


KNOWN = block(2, 3, 4, 14, 15, 16, 17)


@pytest.fixture
def single(tmp_path):
    """One annotated image whose lungs are ``KNOWN``; column 5 is ignored."""
    image, lungs = tmp_path / "image.png", tmp_path / "lungs.png"
    values = KNOWN * np.uint8(255)
    values[:, 5] = 127
    cv2.imwrite(str(lungs), values)
    # Twelve bits in a file of sixteen: OpenCV alone would keep the upper eight, nearly nothing.
    cv2.imwrite(str(image), np.tile(np.arange(40, dtype=np.uint16) * 100, (20, 1)))
    return Case(image, 1, "p", lungs)


def test_masks_are_measured_on_the_radiographs_as_a_study_decodes_them(single):
    def segment(image, case):
        assert np.array_equal(image, read_grey(single.image, 224)) and image.max() > 200
        return LungMask(block(2, 3, 4, 5, 14, 15, 16, 17), 0.5)

    found = measure([single], segment).iloc[0]
    assert found.dice == 1, "what the reader left open does not count"
    assert found.label == 1 and found["class"] == "PNEUMONIA"
    assert found.area == pytest.approx(8 * 6 / 200)
    assert found.known_cut == pytest.approx(mean_x(KNOWN))


def test_cut_error_is_in_pixels_of_an_image_224_wide_at_any_size_of_the_mask(single):
    moved = np.roll(KNOWN, 1, axis=1).repeat(3, axis=0).repeat(3, axis=1)
    found = measure([single], lambda image, case: LungMask(moved, 0.5)).iloc[0]
    # Of the columns moved, 5 is open to the reader and counts on neither side.
    counted = np.mean([3, 4, 15, 16, 17, 18]) - np.mean([2, 3, 4, 14, 15, 16, 17])
    assert found.cut_error == pytest.approx(224 / 20 * counted)
    assert found.dice == pytest.approx(10 / 13)


def test_steps_end_in_the_mask_and_mirror_with_the_image():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (90, 110), np.uint8), (0, 0), 6)
    steps, mirrored = lung_mask_steps(image), lung_mask_steps(image[:, ::-1])
    whole = lung_mask_with_confidence(image)
    assert np.array_equal(steps.result.mask, whole.mask)
    assert steps.result.confidence == whole.confidence
    for name in ("working", "edges"):
        assert np.allclose(getattr(steps, name), getattr(mirrored, name)[:, ::-1], atol=1e-6)
    for name in ("start", "fitted"):
        left, right = getattr(mirrored, name)
        assert getattr(steps, name) == pytest.approx(np.stack([right, left]) * (-1, 1) + (1, 0))


# Intervals


def test_weighted_quantile_equals_numpys_on_repeated_values():
    rng = np.random.default_rng(1)
    values = rng.normal(size=30)
    weights = rng.integers(0, 4, (20, 30)).astype(float)
    for q in (0, 0.05, 0.5, 0.95, 1):
        expected = [np.quantile(np.repeat(values, row.astype(int)), q) for row in weights]
        assert agreement.weighted_quantile(values, weights, q) == pytest.approx(expected)


def test_interval_is_seeded_and_resamples_patients_not_images():
    """Images whose Dice varies by patient only, four each."""
    values = np.random.default_rng(0).normal(0.9, 0.03, 40).repeat(4)
    patients = np.arange(40).repeat(4)
    table = pd.DataFrame({"patient": patients, "dice": values, "label": patients % 2})
    value = agreement.patient_interval(table, "dice")
    assert value == agreement.patient_interval(table, "dice")
    assert value.estimate == pytest.approx(table.dice.mean())
    assert value.low < value.estimate < value.high
    singles = agreement.patient_interval(table.assign(patient=np.arange(len(table))), "dice")
    assert value.high - value.low > 1.6 * (singles.high - singles.low)  # √4 = 2 in the limit


# Annotated phantoms


def test_half_splits_by_patient(phantoms):
    assert half_of("person12_virus") == half_of("person12virus")
    cases = read_cases(phantoms, phantoms / "lungs.csv")
    parts = [read_cases(phantoms, phantoms / "lungs.csv", h) for h in ("reporting", "development")]
    assert len(cases) == sum(map(len, parts)) == 90
    first, second = ({case.patient for case in part} for part in parts)
    assert first and second and not first & second


def test_report_agrees_with_the_phantoms(phantoms, tmp_path, capsys):
    report_masks(phantoms, phantoms / "lungs.csv", tmp_path, "reporting")
    printed = capsys.readouterr().out
    assert "reporting half" in printed
    assert {p.name for p in tmp_path.iterdir()} == {"table.csv", "images.csv"}
    table, images = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("table", "images"))
    row = table.set_index("measure").loc["Dice, mean"]
    assert row.low < row.estimate < row.high
    assert f"{row.estimate:.3f}" in printed
    assert row.estimate == pytest.approx(images.dice.mean(), abs=1e-5)
    assert images.dice.mean() > 0.8
    assert images.cut_error.median() < 4
    assert set(images.patient.map(half_of)) == {"reporting"}


# Unusable annotations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "not found"),
        ("image,class\na.jpeg,NORMAL\n", "lacks the columns mask; has image, class. Give a CSV"),
        ("image,class,mask\nnone.jpeg,NORMAL,none.png\n", "image none.jpeg: no such file"),
        ("image,class,mask\nIM-0001-0001.jpeg,NORMAL,none.png\n", "mask none.png: no such file"),
        ("image,class,mask\nIM-0001-0001.jpeg,NORMAL,\n", "mask : no such file"),
        ("image,class,mask\nIM-0001-0001.jpeg,HEALTHY,a.png\n", "expected NORMAL or PNEUMONIA"),
        ("image,class,mask\n", "no image of NORMAL. Add"),
    ],
)
def test_unusable_annotations_are_named(phantoms, tmp_path, text, expected):
    path = tmp_path / "lungs.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StudyError, match=rf"lungs\.csv: .*{expected}"):
        read_cases(phantoms, path)


def test_an_annotation_measures_the_image_it_names(phantoms, tmp_path):
    root, path = shutil.copytree(phantoms, tmp_path / "data"), tmp_path / "lungs.csv"
    lungs = pd.read_csv(phantoms / "lungs.csv")
    lungs["mask"] = [str(phantoms / "lungs" / mask) for mask in lungs["mask"]]
    row = lungs[lungs["class"] == "NORMAL"].iloc[0]
    (found,) = root.glob(f"*/NORMAL/{row.image}")
    other = found.parents[2] / ("test" if found.parents[1].name == "train" else "train") / "NORMAL"
    shutil.copy(found, other)
    lungs.to_csv(path, index=False)
    with pytest.raises(StudyError, match=rf"{row.image} is in train/ and in test/"):
        read_cases(root, path)
    named = (other / row.image).relative_to(root).as_posix()
    lungs.replace({"image": {row.image: named}}).to_csv(path, index=False)
    assert other / row.image in [case.image for case in read_cases(root, path)]
    twice = pd.concat([lungs, lungs.tail(1)]).replace({"image": {row.image: named}})
    twice.to_csv(path, index=False)
    with pytest.raises(StudyError, match="stands there twice"):
        read_cases(root, path)


@pytest.mark.parametrize("labels", [[1, 1], [0, 1]])
def test_a_single_patient_of_a_class_has_no_interval(labels):
    table = pd.DataFrame({"dice": [0.8, 0.9], "label": labels, "patient": labels})
    assert agreement.patient_interval(table, "dice", resamples=50) == Interval(
        pytest.approx(0.85), None, None
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [(0, "no lung"), (9, r"also the values \[9\]"), ("no image", "cannot be decoded")],
)
def test_bad_annotations_of_lungs_are_named(tmp_path, content, expected):
    path = tmp_path / "mask.png"
    if isinstance(content, str):
        path.write_text(content)
    else:
        cv2.imwrite(str(path), np.full((4, 4), content, np.uint8))
    with pytest.raises(StudyError, match=rf"mask\.png: .*{expected}"):
        read_lungs(path)


# Quality control of a study


def shortcut_table(leak, patients=150, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(patients) % 2, 2)
    count = len(labels)
    return pd.DataFrame(
        {
            "label": labels,
            "patient": np.repeat([f"p{i}" for i in range(patients)], 2),
            "area": rng.normal(0.3, 0.03, count) + leak * labels,
            "cut": rng.normal(0.5, 0.02, count),
        }
    )


def test_shortcut_auc_tells_a_leak_from_chance():
    statistics = Statistics(resamples=200)
    fair = quality.shortcut_check(shortcut_table(0.0), statistics, 0)
    assert abs(fair["auc"]["estimate"] - 0.5) < 0.08
    leaked = quality.shortcut_check(shortcut_table(0.2), statistics, 0)
    assert leaked["auc"]["estimate"] > 0.99
    assert (leaked["images"], leaked["patients"], leaked["folds"]) == (300, 150, 5)
    with pytest.raises(StudyError, match="two patients"):
        quality.shortcut_check(shortcut_table(0.0, patients=2), statistics, 0)


def test_quality_record_of_a_phantom_study(cached, phantoms, study, layout):
    record = read_json(cached.mask_quality)
    layout.mask_quality.unlink()
    assert quality.write_quality(phantoms, study, layout) == record
    assert record["masks_sha256"] == file_sha256(cached.mask_table)
    groups = {(g["split"], g["class"]): g for g in record["groups"]}
    table = read_masks(cached)
    assert groups["all", "all"]["images"] == len(table)
    normal = (table.split == "test") & (table.label == 0)
    assert groups["test", "NORMAL"]["images"] == normal.sum()
    assert groups["all", "all"]["cut_mean"] == pytest.approx(table.cut.mean())
    known = record["annotated"]
    assert (known["half"], known["images"]) == ("all", len(table))
    assert known["dice"]["all"]["low"] < known["dice"]["all"]["estimate"]
    assert set(known["shortcut"]) == {"masks", "known"}
    assert record["shortcut"]["images"] == (table.split != "test").sum()


def test_examples_are_the_extremes_and_the_median_of_each_class(phantoms, study, layout):
    quality.write_examples(phantoms, study, layout)
    table = read_masks(layout)
    with np.load(layout.mask_examples) as examples:
        assert examples["rule"].tolist() == ["least confident", "median", "most confident"] * 2
        assert examples["label"].tolist() == [0, 0, 0, 1, 1, 1]
        for label in (0, 1):
            values = table.confidence[(table.split == "train") & (table.label == label)]
            expected = values.quantile([0, 0.5, 1], interpolation="lower").tolist()
            assert examples["confidence"][examples["label"] == label].tolist() == expected
        assert examples["steps_mask"].shape == examples["steps_image"].shape


def test_the_benchmarks_table_prints_the_intervals_of_the_record(cached, phantoms, study):
    cases = read_cases(phantoms, phantoms / "lungs.csv", "all")
    size = (study.statistics.resamples, study.statistics.level, study.statistics.seed)
    methods = {"Generator": generator}
    (row,) = re.findall("Generator.*", benchmark("masks").table_of(cases, methods, *size))
    known = read_json(cached.mask_quality)["annotated"]
    assert format_interval(known["dice"]["all"]) in row
    assert format_interval(known["cut_error"]["all"], 1) in row


def test_folder_study_without_and_with_annotations(tiny, phantoms, cached):
    tiny["data"].pop("phantom")
    tiny["data"]["source"] = "folder"
    table = read_masks(cached)
    plain = study_from(tiny, "x")
    assert quality.compare_with_annotations(phantoms, plain, table) is None
    assert "annotations" not in plain.recipe("no_seg").data_identity()
    tiny["data"]["annotations"] = str(phantoms / "lungs.csv")
    given = study_from(tiny, "x")
    known = quality.compare_with_annotations(phantoms, given, table)
    assert known is not None and known["half"] == "reporting"
    assert 0 < known["images"] < 90
    with pytest.raises(StudyError, match="not of both classes"):
        quality.compare_with_annotations(phantoms, given, table[table.label == 0])


def test_masks_of_other_images_are_refused(layout):
    table = read_masks(layout)
    layout.mask_table.unlink()
    table[::-1].to_csv(layout.mask_table, index=False)
    with pytest.raises(StudyError, match="other images"):
        read_masks(layout)
