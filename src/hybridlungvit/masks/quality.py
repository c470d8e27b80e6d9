"""Quality control of a study's lung masks: confidence, geometry, and what they say of the label.

A mask that differed between the classes would hand the label to the model by its shape alone, and
no annotation is needed to see that: the shortcut check classifies by mask area and cut only.
Examples for the figures are chosen by a rule, never by eye.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlungvit.audit.classifier import SHORTCUT_FOLDS, out_of_fold, shortcut_folds
from hybridlungvit.config import Statistics, Study
from hybridlungvit.data.cache import MASK_DETAIL, open_cache
from hybridlungvit.data.decode import read_grey
from hybridlungvit.data.manifest import SPLITS, read_masks
from hybridlungvit.data.sources import CLASSES
from hybridlungvit.evaluation.seeds import auc_interval
from hybridlungvit.io import file_sha256, replacing, write_record
from hybridlungvit.masks import fit, template
from hybridlungvit.masks.agreement import (
    DEVELOPMENT,
    PRINT_WIDTH,
    Case,
    cases_in,
    generator,
    measure,
    patient_interval,
)
from hybridlungvit.masks.files import mask_files, read_mask
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)
FEATURES = ("area", "cut", "|cut - 0.5|")
BY_CONFIDENCE = ("least confident", "median", "most confident")
BY_NAME = ("first", "middle", "last")  # where confidence tells no mask from another
STEPS = 4  # of the six examples, the one whose steps are shown: pneumonia, median confidence


def write_quality(root: Path, study: Study, layout: Layout) -> dict[str, Any]:
    """Check the masks of a study and write ``layout.mask_quality``.

    ``root`` is the folder with the images. Raises ``StudyError`` when masks and manifest differ or
    the annotations are unusable.
    """
    table = read_masks(layout)
    known = table[table.split != "test"]
    record = {
        "manifest_sha256": file_sha256(layout.manifest),
        "masks_sha256": file_sha256(layout.mask_table),
        "method": method_constants(),
        "groups": list(describe_groups(table)),
        "shortcut": shortcut_check(known, study.statistics, study.data.split_seed),
        "annotated": compare_with_annotations(root, study, table),
    }
    record = write_record(layout.mask_quality, record)
    auc = record["shortcut"]["auc"]
    log.info("mask area and cut alone reach an AUC of %.3f (%.3f to %.3f)", *auc.values())
    return record


def write_examples(root: Path, study: Study, layout: Layout) -> None:
    """Write training images with masks and cuts, and the steps to one of the masks, as one npz.

    Of each class the images of lowest, median and highest confidence; ties go to the earlier one.
    ``root`` is the folder with the images: the cached ones may be too small to show the steps.
    """
    table, side = read_masks(layout), study.data.image_size
    cache = open_cache(layout, table, side)
    ranked = table[table.split == "train"].sort_values("confidence", kind="stable")
    index: list[int] = []
    for label in (0, 1):
        rows = ranked.index[ranked.label == label]
        index += [int(rows[int(q * (len(rows) - 1))]) for q in (0, 0.5, 1)]
    image = read_grey(root / table.path[index[STEPS]], max(side, MASK_DETAIL))
    steps = fit.lung_mask_steps(image)
    with replacing(layout.mask_examples) as temporary:
        np.savez_compressed(
            temporary,
            images=cache.images[index],
            masks=cache.masks(index),
            cuts=table.cut.to_numpy()[index] * side,
            confidence=table.confidence.to_numpy()[index],
            label=table.label.to_numpy()[index],
            rule=np.array((BY_CONFIDENCE if study.data.masks is None else BY_NAME) * 2),
            steps_image=image,
            steps_working=steps.working,
            steps_edges=steps.edges,
            steps_start=steps.start,
            steps_fitted=steps.fitted,
            steps_mask=steps.result.mask,
            steps_cut=np.array(fit.mean_x(steps.result.mask)),
        )


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
                yield {
                    "split": split,
                    "class": name,
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
    size = (statistics.resamples, statistics.level, statistics.seed)
    return {
        "features": list(FEATURES),
        "folds": shortcut_folds(labels, patients),
        "images": len(table),
        "patients": int(table.patient.nunique()),
        "auc": asdict(auc_interval(labels, scores, patients, *size)),
    }


def compare_with_annotations(
    root: Path, study: Study, table: pd.DataFrame
) -> dict[str, Any] | None:
    """Dice and cut error where a reader's lungs are known; None where they are not.

    Of Kermany's annotations only patients of the reporting half count, because the generator's
    constants were chosen on the others; other images and masks played no part in that. "shortcut"
    is the check by the masks and by the known lungs themselves: what the latter tell of the label
    is in the images, only more than that is of the masks; None where a class has few patients.
    """
    data, statistics = study.data, study.statistics
    is_phantom = data.source == "phantom"
    annotations = root / "lungs.csv" if is_phantom else data.annotations
    if annotations is None:
        return None
    files = data.masks and mask_files(Path(data.masks), table.path)
    half = "all" if is_phantom or files or data.own_images else "reporting"

    def segment(image: NDArray[np.uint8], case: Case) -> fit.LungMask:
        if not files:
            return generator(image, case)
        return fit.LungMask(read_mask(files[case.image.relative_to(root).as_posix()][0]), 1.0)

    images = measure(cases_in(table, root, Path(annotations), half, data.classes), segment)
    groups = {name: images[images["class"] == name] for name in CLASSES} | {"all": images}
    size = (statistics.resamples, statistics.level, statistics.seed)
    record: dict[str, Any] = {
        "half": half,
        "images": len(images),
        "patients": int(images.patient.nunique()),
    }
    for column, q in (("dice", None), ("cut_error", 0.5)):  # mean Dice; median error in px of 224
        record[column] = {
            name: asdict(patient_interval(group, column, q, *size))
            for name, group in groups.items()
        }
    record["shortcut"] = None
    if images.groupby("label").patient.nunique().min() >= SHORTCUT_FOLDS:
        known = images.assign(area=images.known_area, cut=images.known_cut)
        record["shortcut"] = {
            name: shortcut_check(part, statistics, data.split_seed)["auc"]
            for name, part in (("masks", images), ("known", known))
        }
    return record
