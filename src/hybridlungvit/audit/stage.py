"""The audit of a study's data: it stops the workflow on a leak, and measures what is none."""

import logging
from typing import Any

import numpy as np
import pandas as pd

from hybridlungvit.audit.copies import COPY, describe_copies, find_copies
from hybridlungvit.audit.leakage import pixel_features, price_of_leakage
from hybridlungvit.audit.patients import describe_patients
from hybridlungvit.audit.shortcuts import class_balance, shift_aucs, shortcut_aucs
from hybridlungvit.config import Study
from hybridlungvit.data.cache import open_cache
from hybridlungvit.data.manifest import read_manifest, require_patients_apart
from hybridlungvit.io import StudyError, file_sha256, write_record
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)


def write_leaks(study: Study, layout: Layout) -> dict[str, Any]:
    """Check a study's manifest and cache for leaks and write ``layout.leaks``, the copies found.

    Raises ``StudyError``, and writes nothing, when a patient or an image stands both in the test
    set and outside it, or a patient in training and validation although the split is by patient.
    """
    layout.leaks.unlink(missing_ok=True)  # an earlier verdict must not outlive a leak
    manifest, _, copies = _checked(study, layout)
    record = _identity(study, layout) | {"copies": describe_copies(manifest, copies)}
    return write_record(layout.leaks, record)


def write_audit(study: Study, layout: Layout) -> dict[str, Any]:
    """Audit a study's manifest and cache and write ``layout.audit``; raises as ``write_leaks``."""
    layout.audit.unlink(missing_ok=True)
    manifest, images, copies = _checked(study, layout)
    data, statistics = study.data, study.statistics
    record = _identity(study, layout) | {
        "resamples": statistics.resamples,
        "level": statistics.level,
        "patients": describe_patients(manifest, data.validation_folds, data.split_seed),
        "copies": describe_copies(manifest, copies),
        "balance": list(class_balance(manifest, statistics.level)),
        "shortcuts": shortcut_aucs(manifest, statistics, data.split_seed),
        "shift": shift_aucs(manifest, images, statistics, data.split_seed),
        "leakage": price_of_leakage(manifest, pixel_features(images), statistics, data.split_seed),
    }
    record = write_record(layout.audit, record)
    _report(record)
    return record


def _checked(study: Study, layout: Layout) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """Manifest, images and pairs of copies of a study without a leak."""
    manifest = read_manifest(layout.manifest)
    by_image = study.data.validation_split == "image"  # then train and val may share patients
    side = manifest.split.replace("val", "train") if by_image else manifest.split
    require_patients_apart(manifest, side)
    images = open_cache(layout, manifest, study.data.image_size).images
    copies = find_copies(manifest, images)
    require_no_copies(copies)
    return manifest, images, copies


def _identity(study: Study, layout: Layout) -> dict[str, Any]:
    split = study.data.validation_split
    return {"manifest_sha256": file_sha256(layout.manifest), "validation_split": split}


def require_no_copies(copies: pd.DataFrame) -> None:
    """Raise ``StudyError`` naming the closest pair of copies in the test set and outside it."""
    leaked = copies[
        (copies.place == "development-test") & (copies.identical | (copies.correlation >= COPY))
    ]
    if len(leaked):
        worst = leaked.sort_values(["identical", "correlation"], ascending=False).iloc[0]
        turned = ", one mirrored" if worst.mirrored else ""
        how = (
            "are byte-identical" if worst.identical
            else f"show the same radiograph{turned} (correlation {worst.correlation:.4f})"
        )  # fmt: skip
        raise StudyError(
            f"leak: {worst['first']} and {worst.second} {how}, one inside and one outside the test "
            f"set; {len(leaked)} such pairs. Remove one image of each pair and run again."
        )


def _report(record: dict[str, Any]) -> None:
    share = record["patients"]["validation_shared"]
    if record["validation_split"] == "image":
        log.warning(
            "this study leaks on purpose: %.1f%% of the validation images have a patient in train",
            100 * share,
        )
    for pair in record["copies"]["examples"]:
        log.warning(
            "%s and %s are %s, but their names tell two patients", pair["first"], pair["second"],
            "byte-identical" if pair["identical"]
            else f"alike{', one mirrored' * pair['mirrored']} ({pair['correlation']:.4f})",
        )  # fmt: skip
    shift = record["shift"]["all"]
    if shift is not None:
        log.info("test is told from train with an AUC of %.3f (%.3f to %.3f)", *shift.values())
