"""Quality control of a study's lung masks: confidence, geometry, and what they say of the label.

A mask that differed between the classes would hand the label to the model by its shape alone, and
no annotation is needed to see that: the shortcut check classifies by mask area and cut only.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hybridlungvit.config import Statistics, Study
from hybridlungvit.data.manifest import SPLITS, read_masks
from hybridlungvit.data.sources import CLASSES
from hybridlungvit.evaluation.seeds import auc_interval
from hybridlungvit.io import StudyError, file_sha256, write_record
from hybridlungvit.masks import fit, template
from hybridlungvit.masks.agreement import mean_of, patient_interval, quantile_of
from hybridlungvit.masks.annotated import (
    DEVELOPMENT,
    PRINT_WIDTH,
    Case,
    Half,
    generator,
    measure,
    read_cases,
)
from hybridlungvit.masks.files import mask_files, read_mask
from hybridlungvit.masks.fit import LungMask
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)
SHORTCUT_FOLDS = 5
FEATURES = ("area", "cut", "|cut - 0.5|")


def write_quality(root: Path, study: Study, layout: Layout) -> dict[str, Any]:
    """Check the masks of a study and write ``layout.mask_quality``.

    ``root`` is the folder with the images. Raises ``StudyError`` when masks and manifest differ or
    the annotations are unusable.
    """
    record = quality_record(study, layout)
    record["annotated"] = compare_with_annotations(root, study, read_masks(layout))
    record = write_record(layout.mask_quality, record)
    auc = record["shortcut"]["auc"]
    log.info("mask area and cut alone reach an AUC of %.3f (%.3f to %.3f)", *auc.values())
    return record


def quality_record(study: Study, layout: Layout) -> dict[str, Any]:
    """What the table of masks tells without any image, for the record and for checking it."""
    table = read_masks(layout)
    seed = study.data.split_seed
    return {
        "manifest_sha256": file_sha256(layout.manifest),
        "masks_sha256": file_sha256(layout.mask_table),
        "method": method_constants(),
        "groups": list(describe_groups(table)),
        "shortcut": shortcut_check(table[table.split != "test"], study.statistics, seed),
    }


def method_constants() -> dict[str, int | float]:
    """The constants of the mask generator that the paper states, by name."""
    return {
        "working_size": fit.WORKING_SIZE,
        "clahe_clip": fit.CLAHE_CLIP,
        "clahe_tiles": fit.CLAHE_TILES[0],
        "morphology_size": fit.MORPHOLOGY_SIZE,
        "coarse_sigma": fit.COARSE_SIGMA,
        "fine_sigma": fit.FINE_SIGMA,
        "control_points": sum(len(part) for _, part in template.OUTLINE.values()),
        "edge_points": template.OUTLINE_POINTS,
        "frame_numbers": len(template.FRAME_PRIOR),
        "frame_limit": template.FRAME_LIMIT,
        "starts": len(fit.START_FRAMES),
        "rounds": fit.SEARCH_ROUNDS,
        "agreement_none": fit.CONFIDENCE_RANGE[0],
        "agreement_full": fit.CONFIDENCE_RANGE[1],
        "threshold": fit.LOW_CONFIDENCE,
        "development_images": DEVELOPMENT["images"],
        "development_patients": DEVELOPMENT["patients"],
        "print_width": PRINT_WIDTH,
    }


def describe_groups(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One record for each split (and all) and class (and all) that has images."""
    for split in ("all", *SPLITS):
        part = table if split == "all" else table[table.split == split]
        for name in (*CLASSES, "all"):
            group = part if name == "all" else part[part.label == CLASSES.index(name)]
            if len(group):
                yield {"split": split, "class": name} | _describe(group)


def _describe(group: pd.DataFrame) -> dict[str, Any]:
    return {
        "images": len(group),
        "low_confidence": float((group.confidence < fit.LOW_CONFIDENCE).mean()),
        "confidence": float(group.confidence.mean()),
        "area": float(group.area.mean()),
        "cut_mean": float(group.cut.mean()),
        "cut_sd": float(group.cut.std(ddof=0)),
    }


def shortcut_check(table: pd.DataFrame, statistics: Statistics, seed: int) -> dict[str, Any]:
    """How well area and cut alone tell the label: AUC of out-of-fold predictions.

    Logistic regression on ``FEATURES``; folds are stratified and keep a patient's images together.
    ``table`` has the columns label, patient, area and cut.
    """
    labels, patients = table.label.to_numpy(), table.patient.to_numpy()
    features = np.column_stack([table.area, table.cut, (table.cut - 0.5).abs()]).astype(float)
    scores = out_of_fold(features, labels, patients, seed)
    auc = auc_interval(
        labels, scores, patients, statistics.resamples, statistics.level, statistics.seed
    )
    return {
        "features": list(FEATURES),
        "folds": _folds(labels, patients),
        "images": len(table),
        "patients": int(table.patient.nunique()),
        "auc": asdict(auc),
    }


def out_of_fold(
    features: NDArray[np.float64], labels: NDArray[np.int64], patients: NDArray, seed: int
) -> NDArray[np.float64]:
    """Each image's rank within its fold, (N,) in 0 to 1, by a model that has not seen its patient.

    A logistic regression; ties share their mean rank. Ranks, because the folds' models differ in
    their intercepts: where features tell nothing, pooled log-odds would tell the folds' shares of
    the classes instead, and the wrong way round.
    """
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
    )
    folding = StratifiedGroupKFold(_folds(labels, patients), shuffle=True, random_state=seed)
    ranks = np.empty(len(labels))
    for known, held_out in folding.split(features, labels, patients):
        model.fit(features[known], labels[known])
        scores = model.decision_function(features[held_out])
        ranks[held_out] = (rankdata(scores) - 0.5) / len(held_out)
    return ranks


def _folds(labels: NDArray[np.int64], patients: NDArray) -> int:
    """As many folds as the rarer class has patients, at most ``SHORTCUT_FOLDS``."""
    fewest = min(len(np.unique(patients[labels == label])) for label in (0, 1))
    if fewest < 2:
        raise StudyError("the shortcut check needs at least two patients of each class in train/.")
    return min(SHORTCUT_FOLDS, fewest)


def compare_with_annotations(
    root: Path, study: Study, table: pd.DataFrame
) -> dict[str, Any] | None:
    """Dice and cut error where a reader's lungs are known; None where they are not.

    Of Kermany's annotations only patients of the reporting half count, because the generator's
    constants were chosen on the others; other images and masks played no part in that.
    """
    files = study.data.masks and mask_files(Path(study.data.masks), table.path)

    def segment(image: NDArray[np.uint8], case: Case) -> LungMask:
        if not files:
            return generator(image, case)
        return LungMask(read_mask(files[case.image.relative_to(root).as_posix()][0]), 1.0)

    elsewhere = files or study.data.classes != CLASSES
    half: Half = "all" if elsewhere else "reporting"
    annotations = study.data.annotations
    if study.data.source == "phantom":
        annotations, half = str(root / "lungs.csv"), "all"
    if annotations is None:
        return None
    patients = dict(zip(table.path, table.patient, strict=True))
    cases = [
        replace(case, patient=patients[path])
        for case in read_cases(root, Path(annotations), half, study.data.classes)
        if (path := case.image.relative_to(root).as_posix()) in patients
    ]
    if {case.label for case in cases} != {0, 1}:
        raise StudyError(
            f"{annotations}: of the study's images, {len(cases)} of the {half} half are annotated, "
            "not of both classes. Add annotations or remove data.annotations."
        )
    images = measure(cases, segment)
    groups = {name: images[images["class"] == name] for name in CLASSES} | {"all": images}
    return {
        "half": half,
        "images": len(images),
        "patients": int(images.patient.nunique()),
        "dice": {name: _interval(group, "dice", study) for name, group in groups.items()},
        "cut_error": {name: _interval(group, "cut_error", study) for name, group in groups.items()},
        "shortcut": _known_shortcut(images, study),
    }


def _known_shortcut(images: pd.DataFrame, study: Study) -> dict[str, Any] | None:
    """The shortcut check on the annotated images, by the masks and by the known lungs themselves.

    What the known lungs tell of the label is in the images; only more than that is of the masks.
    None where a class has too few patients.
    """
    if images.groupby("label").patient.nunique().min() < SHORTCUT_FOLDS:
        return None
    known = images.assign(area=images.known_area, cut=images.known_cut)
    return {
        name: shortcut_check(table, study.statistics, study.data.split_seed)["auc"]
        for name, table in (("masks", images), ("known", known))
    }


def _interval(group: pd.DataFrame, column: str, study: Study) -> dict[str, float]:
    """Mean Dice, or median cut error (px of 224), with its patient-bootstrap interval."""
    statistic = mean_of(column) if column == "dice" else quantile_of(column, 0.5)
    resampling = study.statistics
    return asdict(
        patient_interval(group, statistic, resampling.resamples, resampling.level, resampling.seed)
    )
