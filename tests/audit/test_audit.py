"""The data audit: every detector must find what was planted, and nothing where nothing is."""

import itertools
import json
import shutil
from types import SimpleNamespace

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import save_predictions
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from hybridlungvit.audit import classifier, copies, leakage, patients, results, shortcuts, stage
from hybridlungvit.config import Statistics, study_from
from hybridlungvit.data.cache import build_cache
from hybridlungvit.data.manifest import (
    build_manifest,
    read_manifest,
    require_patients_apart,
    split_validation,
)
from hybridlungvit.io import StudyError, file_sha256, read_json
from hybridlungvit.paper.figures import _draw_predictability
from hybridlungvit.paper.macros import audit_macros
from hybridlungvit.paper.results import audit_records
from hybridlungvit.paths import Layout

FEW = Statistics(resamples=200)


@pytest.fixture(scope="module", autouse=True)
def _few_partitions():
    """Two partitions into folds instead of three."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "REPEATS", 2)
        yield


@pytest.fixture(scope="module")
def pictures(phantoms):
    """Phantoms at the size of a study on real images, uint8 (N, 128, 128)."""
    files = sorted(phantoms.rglob("*.jpeg"))[:40]
    images = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
    return np.stack([cv2.resize(i, (128, 128), interpolation=cv2.INTER_AREA) for i in images])


# Perceptual hash


def literal_hash(image):
    """Zauner's hash of one image, spelled out."""
    small = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    block = cv2.dct(small)[1:9, 1:9].ravel()
    return [bool(value > np.median(block)) for value in block]


def as_bits(hashes):
    return np.unpackbits(np.asarray(hashes, np.uint64)[:, None].view(np.uint8), axis=1).astype(bool)


def test_hash_is_the_literal_one(pictures):
    found = as_bits(copies.perceptual_hashes(pictures))
    assert found.tolist() == [literal_hash(image) for image in pictures]


def stored_again(image, quality, shift, scale):
    side = round(len(image) * scale)
    smaller = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    shifted = np.clip(smaller.astype(int) + shift, 0, 255).astype(np.uint8)
    read = cv2.imdecode(
        cv2.imencode(".jpg", shifted, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE
    )
    return cv2.resize(read, image.shape[::-1], interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("mirrored", [False, True])
@given(st.integers(0, 39), st.integers(50, 95), st.integers(-15, 15), st.floats(0.5, 1))
def test_an_image_stored_again_is_found(pictures, mirrored, row, quality, shift, scale):
    image = np.ascontiguousarray(pictures[row][:, ::-1]) if mirrored else pictures[row]
    pair = np.stack([pictures[row], stored_again(image, quality, shift, scale)])
    hashes = copies.perceptual_hashes(pair)
    by_mirror = copies.mirror_pairs(hashes, copies.perceptual_hashes(pair, mirrored=True))
    found, other = copies.near_pairs(hashes), by_mirror
    if mirrored:
        found, other = other, found
    assert found.tolist() == [[0, 1]]
    assert other.tolist() == []
    alike = copies.correlations(pair, found, mirrored)[0]
    assert alike >= copies.COPY
    assert copies.correlations(pair, found, not mirrored)[0] < alike


# Search


def literal_pairs(hashes, radius):
    pairs = itertools.combinations(range(len(hashes)), 2)
    return [[i, j] for i, j in pairs if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= radius]


# A few centres with some bits flipped: many pairs near the radius, on either side of it.
centres = st.sampled_from([0, 2**64 - 1, 0x0123456789ABCDEF])
flipped = st.sets(st.integers(0, 63), max_size=7)
clustered = st.lists(st.tuples(centres, flipped), max_size=25).map(
    lambda rows: np.array([c ^ sum(1 << bit for bit in bits) for c, bits in rows], np.uint64)
)


@given(clustered, st.integers(0, 11))
def test_search_finds_what_a_loop_over_all_pairs_finds(hashes, radius):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "COMPARED", 50)  # from eight images on there are several portions
        assert copies.near_pairs(hashes, radius).tolist() == literal_pairs(hashes, radius)


def test_correlation_is_numpys_and_a_blank_image_has_none(pictures, monkeypatch):
    pairs = np.array([[0, 1], [3, 2], [5, 5], [7, 0]])
    small = [cv2.resize(i, (64, 64), interpolation=cv2.INTER_AREA).ravel() for i in pictures]
    expected = [np.corrcoef(small[i], small[j])[0, 1] for i, j in pairs]
    monkeypatch.setattr(copies, "CHUNK", 3)
    assert np.allclose(copies.correlations(pictures, pairs), expected, atol=1e-12)
    assert copies.correlations(np.zeros((2, 40, 40), np.uint8), pairs[:1]).tolist() == [0]


# Planted copies, through the command


@pytest.fixture
def workplace(tiny, phantoms, tmp_path):
    """A folder study on copies of some phantoms that a test may spoil."""
    tiny["data"].pop("phantom")
    tiny["data"]["source"] = "folder"
    tiny["data_root"] = "images"
    for folder in {file.parent for file in phantoms.rglob("*.jpeg")}:
        copied = tmp_path / "images" / folder.relative_to(phantoms)
        copied.mkdir(parents=True)
        for file in sorted(folder.glob("*.jpeg"))[:8]:
            shutil.copy(file, copied)
    return tmp_path, study_from(tiny, "x"), Layout("tiny", tmp_path / "results", tmp_path / "paper")


def prepare(workplace):
    folder, study, layout = workplace
    build_manifest(folder / "images", study.data, layout.manifest, 1)
    build_cache(folder / "images", layout, study.data.image_size, 1)
    return layout


def plant(folder, how):
    """Put a training image into the test set under a name of its own; their names."""
    source = sorted((folder / "images" / "train" / "NORMAL").iterdir())[3]
    target = folder / "images" / "test" / "NORMAL" / "IM-9999-0001.jpeg"
    if how == "byte-identical":
        shutil.copy(source, target)
    else:
        image = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE)
        image = cv2.flip(image, 1) if how == "one mirrored" else image
        cv2.imwrite(str(target), stored_again(image, 75, 12, 0.7))
    return [f"train/NORMAL/{source.name}", f"test/NORMAL/{target.name}"]


@pytest.mark.parametrize(
    ("how", "command"),
    [
        ("byte-identical", "leaks"),
        ("same radiograph", "leaks"),
        ("one mirrored", "leaks"),
        ("byte-identical", "audit"),
    ],
)
def test_a_copy_in_the_test_set_stops_the_study(workplace, how, command, monkeypatch):
    # The manifest refuses identical files itself; the audit must not lean on that.
    monkeypatch.setattr("hybridlungvit.data.manifest.require_distinct_images", lambda _: None)
    folder, study, layout = workplace
    names = plant(folder, how)
    prepare(workplace)
    verdict = getattr(layout, command)
    verdict.write_text("{}")  # an earlier one
    with pytest.raises(StudyError) as caught:
        getattr(stage, f"write_{command}")(study, layout)
    assert all(text in str(caught.value) for text in (how, *names))
    assert not verdict.exists()


def test_a_study_without_leaks_passes(layout, study):
    record = stage.write_leaks(study, layout)
    assert read_json(layout.leaks) == record
    assert record["manifest_sha256"] == file_sha256(layout.manifest)


def test_copies_on_one_side_and_declared_leaks_are_reported_and_do_not_stop(
    workplace, tiny, caplog
):
    folder, honest, layout = workplace
    tests = sorted((folder / "images" / "test" / "NORMAL").iterdir())
    shutil.copy(tests[0], tests[0].with_name("IM-9998-0001.jpeg"))
    tiny["data"]["validation_split"] = "image"
    study = study_from(tiny, "x")
    prepare((folder, study, layout))
    record = stage.write_audit(study, layout)
    places = {place["place"]: place for place in record["copies"]["places"]}
    assert (places["test"]["identical"], places["test"]["identical_other"]) == (1, 1)
    assert sum(place["identical"] for place in places.values()) == 1
    (example,) = [e for e in record["copies"]["examples"] if e["identical"]]
    assert {example["first"], example["second"]} == {
        f"test/NORMAL/{tests[0].name}", "test/NORMAL/IM-9998-0001.jpeg",
    }  # fmt: skip
    assert "IM-9998-0001.jpeg are byte-identical" in caplog.text
    assert copies.place_of({"train", "val"}) == "train-val"
    assert record["validation_split"] == "image"
    assert record["patients"]["validation_shared"] > 0.2
    assert "leaks on purpose" in caplog.text
    with pytest.raises(StudyError, match=r"in (train and val|val and train)"):
        stage.write_audit(honest, layout)


# Patients


def small_manifest():
    rows = [
        ("a", "person1_bacteria", "train", 1),
        ("b", "person1_virus", "test", 1),
        ("c", "person1_virus", "test", 1),
        ("d", "IM-0001", "val", 0),
        ("e", "NORMAL2-IM-0001", "test", 0),
        ("f", "IM-0002", "test", 0),
        ("g", "person2_virus", "train", 1),
        ("h", "person2_bacteria", "val", 1),
        ("i", "IM-0003", "train", 0),
        ("j", "image:person3_virus", "test", 1),  # files that name no patient share none
        ("k", "image:person3_bacteria", "train", 1),
    ]
    return pd.DataFrame(rows, columns=["path", "patient", "split", "label"])


def test_numbers_on_both_sides_of_the_test_set_are_counted():
    table = small_manifest()
    assert table.path[patients.shared_numbers(table)].tolist() == ["a", "b", "c", "d", "e"]
    record = patients.describe_patients(table, 2, 0)
    assert record["strict"] == {
        "person": {"numbers": 1, "development_images": 1, "test_images": 2},
        "study": {"numbers": 1, "development_images": 1, "test_images": 1},
        "all": {"numbers": 2, "development_images": 2, "test_images": 3},
    }
    assert record["validation_shared"] == 0


@pytest.mark.parametrize("other", ["test", "val"])
def test_a_patient_on_two_sides_is_a_leak(other):
    table = small_manifest()
    table.loc[len(table)] = "x", "person7_virus", "train", 1
    table.loc[len(table)] = "y", "person7_virus", "train", 1
    require_patients_apart(table, table.split)
    table.loc[len(table)] = "z", "person7_virus", other, 1
    with pytest.raises(StudyError, match=rf"person7_virus is in train and {other} \(x, z\)"):
        require_patients_apart(table, table.split)


def test_share_of_an_image_split_agrees_with_the_split_itself():
    rows = [(f"p{i}", i % 2, f"p{i}-{k}") for i in range(60) for k in range((1, 2, 4)[i % 3])]
    table = pd.DataFrame(rows, columns=["patient", "label", "path"])
    table = table.assign(split="train", side="train")
    assert patients.image_split_shared(table.drop_duplicates("patient"), 5, 0) == 0
    shares = []
    for seed in range(30):
        split = split_validation(table, 5, seed, "image")
        assert (split == "val").mean() == pytest.approx(0.2, abs=0.01)
        assert table.label[split == "val"].mean() == pytest.approx(table.label.mean(), abs=0.03)
        held_out, rest = table[split == "val"].patient, table[split == "train"].patient
        shares.append(np.mean([patient in set(rest) for patient in held_out]))
    assert 0.4 < np.mean(shares) < 0.95
    assert patients.image_split_shared(table, 5, 0) == pytest.approx(np.mean(shares), abs=0.04)
    assert split.equals(split_validation(table, 5, 29, "image"))
    assert not split.equals(split_validation(table, 5, 0, "image"))


# Shortcuts and shift


def stored(patients_count=200, seed=0):
    """A manifest whose file properties tell nothing."""
    rng = np.random.default_rng(seed)
    count = 2 * patients_count
    return pd.DataFrame(
        {
            "patient": np.repeat([f"p{i}" for i in range(patients_count)], 2),
            "label": np.repeat(np.arange(patients_count) % 2, 2),
            "split": np.repeat(np.where(np.arange(patients_count) % 5, "train", "test"), 2),
            "width": rng.integers(900, 1100, count),
            "height": rng.integers(700, 900, count),
            "bytes": rng.lognormal(10, 0.3, count).astype(int),
        }
    )


@pytest.mark.parametrize("factors", [[2], [1 / 8, 8]], ids=["larger", "smaller and larger"])
def test_a_shortcut_in_the_file_size_is_found_there_alone(factors):
    table = stored()
    factor = np.random.default_rng(0).choice(factors, len(table))
    table["bytes"] = np.where(table.label, factor * table["bytes"], table["bytes"])
    found = shortcuts.shortcut_aucs(table, FEW, 0)
    assert found["bytes"]["low"] > 0.85
    assert found["file"]["low"] > 0.85
    assert found["size"]["low"] < 0.5 < found["size"]["high"]


def test_the_shortcuts_model_has_not_seen_the_patients_it_is_asked_about():
    """Features that name the patient tell the class only of patients that were seen."""
    who = np.repeat(np.arange(60), 5)
    features, labels = np.eye(60)[who], who % 2
    by_patient = classifier.out_of_fold(features, labels, who, 0)
    assert roc_auc_score(labels, by_patient) == pytest.approx(0.5, abs=0.2)
    by_image = classifier.out_of_fold(features, labels, np.arange(300), 0)
    assert roc_auc_score(labels, by_image) > 0.95


def test_a_brighter_test_set_is_told_apart():
    table = stored(400)
    rng = np.random.default_rng(0)
    images = rng.integers(60, 120, (len(table), 32, 32)).astype(np.uint8)
    fair = shortcuts.shift_aucs(table, images, FEW, 0)
    assert all(value["low"] < 0.5 < value["high"] for value in fair.values())
    images[table.split == "test"] += 20
    found = shortcuts.shift_aucs(table, images, FEW, 0)
    assert all(value["low"] > 0.95 for value in found.values())


def test_too_few_patients_give_no_auc():
    table = stored()
    alone = (table.split == "test") & (table.label == 1) & (table.patient != "p5")
    table = table[~alone].reset_index(drop=True)
    images = np.zeros((len(table), 32, 32), np.uint8)
    found = shortcuts.shift_aucs(table, images, FEW, 0)
    assert found["PNEUMONIA"] is None
    assert found["NORMAL"] is not None


def test_prevalence_has_wilsons_interval():
    table = stored().assign(subtype="virus")
    table.loc[:9, "split"] = "val"
    row = next(r for r in shortcuts.class_balance(table, 0.95) if r["split"] == "test")
    part = table[table.split == "test"]
    n, k = len(part), int(part.label.sum())
    low, high = proportion_confint(k, n, method="wilson")
    assert row["prevalence"] == pytest.approx({"estimate": k / n, "low": low, "high": high})
    assert (row["bacteria"], row["virus"]) == (0, n)


# Price of leakage


def recognisable(images_each, seed=0):
    """Features that name the patient and say nothing of the class."""
    rng = np.random.default_rng(seed)
    count = 80
    who = np.repeat(np.arange(count), images_each)
    features = rng.normal(size=(count, 30))[who] + rng.normal(0, 0.1, (len(who), 30))
    table = pd.DataFrame(
        {
            "patient": [f"p{i}" for i in who],
            "label": rng.permutation(np.arange(count) % 2)[who],
            "split": np.where(who % 4, "train", "test"),
        }
    )
    return table, features


@pytest.mark.slow
def test_a_model_that_recognises_patients_pays_when_the_leak_closes():
    found = leakage.price_of_leakage(*recognisable(4), FEW, 0)["neighbours"]
    assert found["image"]["estimate"] > 0.95
    assert found["patient"]["estimate"] < 0.65
    assert found["price"]["low"] > 0.2
    assert found["price"]["estimate"] == pytest.approx(
        found["image"]["estimate"] - found["patient"]["estimate"]
    )
    assert found["test"]["low"] < 0.5 < found["test"]["high"]
    alone = leakage.price_of_leakage(*recognisable(1), FEW, 0)  # no patient has another image
    for model in leakage.MODELS:
        assert alone[model]["price"]["low"] < 0 < alone[model]["price"]["high"]


def test_pixel_features_ignore_exposure(pictures):
    plain = leakage.pixel_features(pictures)
    assert plain.shape == (40, leakage.PIXELS**2)
    darker = leakage.pixel_features((pictures // 4 * 2).astype(np.uint8))
    assert np.abs(plain - darker).max() < 0.1
    assert np.isfinite(leakage.pixel_features(np.zeros((1, 32, 32), np.uint8))).all()


# Records and report


@pytest.fixture(scope="module")
def audited(cached, study):
    """The audit's record of the shared phantoms, written twice alike."""
    stage.write_audit(study, cached)
    before = cached.audit.read_bytes()
    stage.write_audit(study, cached)
    assert cached.audit.read_bytes() == before
    yield cached.audit
    cached.audit.unlink()


@pytest.fixture
def scored(layout, study, audited):
    """A results folder with audit and made-up predictions of the reference."""
    shutil.copy(audited, layout.audit)
    manifest = read_manifest(layout.manifest)
    part = manifest[manifest.split != "train"]
    for seed in study.seeds:
        noise = np.random.default_rng(seed).normal(0, 0.7, len(part))
        table = part[["path", "patient", "split", "label", "subtype"]]
        table = table.assign(probability=1 / (1 + np.exp(-(part.label + noise))))
        save_predictions(study, "no_seg", seed, layout, table)
    return layout


def test_results_without_doubtful_patients_are_those_of_the_rest(scored, study, monkeypatch):
    test = pd.read_csv(scored.predictions("no_seg", 0)).query("split == 'test'")
    doubtful = set(test.path[::3])

    monkeypatch.setattr(results, "shared_numbers", lambda manifest: manifest.path.isin(doubtful))
    record = results.write_audit_results(study, scored)
    tables = [pd.read_csv(scored.predictions("no_seg", seed)) for seed in study.seeds]
    for name, keep in {
        "validation": tables[0].split == "val",
        "test": tables[0].split == "test",
        "without_shared_numbers": (tables[0].split == "test") & ~tables[0].path.isin(doubtful),
    }.items():
        expected = np.mean([roc_auc_score(t.label[keep], t.probability[keep]) for t in tables])
        value = record[name]["auc"]
        assert value["estimate"] == pytest.approx(expected)
        assert value["low"] < expected < value["high"]
        assert record[name]["images"] == keep.sum()


def test_the_size_of_files_is_judged_on_test_images_too(scored, study):
    manifest = read_manifest(scored.manifest)
    # In training the larger files are normal; in the test set half of the pairs say the contrary.
    test = manifest.split == "test"
    turned = test & (manifest.groupby("split").cumcount() % 4 < 2)
    manifest["bytes"] = np.where((manifest.label == 0) ^ turned, 9000, 5000)
    scored.manifest.unlink()  # a link
    manifest.to_csv(scored.manifest, index=False)
    found = results.write_audit_results(study, scored)["bytes"]
    sizes, labels = -manifest.bytes[test], manifest.label[test]
    assert found["estimate"] == pytest.approx(roc_auc_score(labels, sizes))
    assert found["low"] < found["estimate"] < found["high"]


def test_nothing_left_gives_no_auc_and_no_macro(scored, study, monkeypatch):
    monkeypatch.setattr(results, "shared_numbers", lambda manifest: manifest.split == "test")
    record = results.write_audit_results(study, scored)
    assert record["without_shared_numbers"] == {"images": 0, "patients": 0, "auc": None}
    macros = printed(study, scored)
    assert "without_shared_numbers_auc" not in macros
    assert macros["left_images"] == "0"


def printed(study, layout):
    """What the paper prints of the audit."""
    audit, trained = audit_records(study, layout)
    return dict(audit_macros(SimpleNamespace(study=study, audit=audit, audit_results=trained)))


def test_mask_confidence_is_a_shortcut_and_what_never_varies_is_none(scored, study):
    record = results.write_audit_results(study, scored)
    masks = read_manifest(scored.manifest).merge(pd.read_csv(scored.mask_table), on="path")
    for name, part in (
        ("development", masks[masks.split != "test"]), ("test", masks[masks.split == "test"]),
    ):  # fmt: skip
        expected = roc_auc_score(part.label, 1 - part.confidence)
        assert record["mask_confidence"][name]["estimate"] == pytest.approx(expected)
    audit = read_json(scored.audit)
    audit["shortcuts"]["size"] = {"estimate": 0.5, "low": 0.5, "high": 0.5}
    scored.audit.write_text(json.dumps(audit))
    macros = printed(study, scored)
    assert "shortcuts_bytes" in macros and "shortcuts_size" not in macros
    estimate = record["mask_confidence"]["development"]["estimate"]
    assert macros["shortcuts_confidence"].startswith(f"{estimate:.3f}")
    shown, _ = audit_records(study, scored)
    axes = plt.subplots()[1]
    _draw_predictability(axes, SimpleNamespace(audit=shown, shift_names={"all": "All images"}))
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert "Lung mask confidence" in names and "File size" in names
    assert "Width, height" not in names
    plt.close("all")


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("audit", {"manifest_sha256": "0" * 64}, "manifest 000000000000"),
        ("audit_results", {"level": 0.9}, "level 0.9"),
    ],
)
def test_records_of_other_settings_are_refused(scored, study, name, change, expected):
    results.write_audit_results(study, scored)
    path = getattr(scored, name)
    path.write_text(json.dumps(read_json(path) | change))
    with pytest.raises(StudyError, match=expected):
        audit_records(study, scored)


def test_images_of_one_size_are_at_chance_though_folds_differ(study):
    """Rounding leaves each fold's model an intercept of its own, which tells the fold's shares."""
    rng = np.random.default_rng(0)
    patients = pd.Series(np.repeat(np.arange(150), rng.integers(1, 12, 150)))
    labels = (patients % 4 > 0).astype(int)
    size = np.log([224, 224])
    features = pd.DataFrame(np.tile(size, (len(labels), 1)), columns=["width", "height"])
    found = shortcuts.predictability(features, labels, patients, study.statistics, 0)
    assert found["estimate"] == 0.5
    assert found["low"] <= 0.5 <= found["high"]
