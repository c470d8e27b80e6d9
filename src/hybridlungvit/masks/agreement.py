"""Radiographs with lungs drawn by a reader, and how well masks agree with them.

Estimates come with patient-bootstrap intervals.
"""

import logging
import zlib
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlungvit.data.cache import MASK_DETAIL
from hybridlungvit.data.decode import read_grey
from hybridlungvit.data.sources import CLASSES, read_patient
from hybridlungvit.evaluation.bootstrap import patient_weights
from hybridlungvit.evaluation.intervals import Array, Interval, percentile_interval
from hybridlungvit.io import StudyError, read_table, write_table
from hybridlungvit.masks.fit import LungMask, lung_mask_with_confidence, mean_x
from hybridlungvit.runtime import track

log = logging.getLogger(__name__)
Half = Literal["reporting", "development", "all"]
COLUMNS = ["image", "class", "mask"]
LUNG, IGNORE = 255, 127  # values of an annotation besides 0, the background
DEVELOPMENT = {"images": 148, "patients": 116}  # the half the generator's constants were chosen on
PRINT_WIDTH = 224  # errors of the cut are given in pixels of an image of this width
RESAMPLES, LEVEL, SEED = 2000, 0.95, 0


@dataclass(frozen=True)
class Case:
    """An annotated radiograph."""

    image: Path
    label: int
    patient: str
    lungs: Path
    """PNG: 255 lung, 0 background, 127 neither counts nor harms."""


Segment = Callable[[NDArray[np.uint8], Case], LungMask]


def half_of(patient: str) -> str:
    """The half a patient belongs to, "development" or "reporting".

    The parity of the CRC-32 of the patient's key without underscores: the same on every machine,
    whatever other patients there are, and all images of a patient on one side. The constants of the
    mask generator were chosen on the development half.
    """
    odd = zlib.crc32(patient.replace("_", "").encode()) % 2
    return "reporting" if odd else "development"


def read_cases(
    root: Path, annotations: Path, half: Half = "all", classes: tuple[str, str] = CLASSES
) -> list[Case]:
    """The annotated radiographs of one half, in the order of the CSV.

    ``annotations`` has the columns image (file name below ``root/{train,test}/<class>``, or path
    below ``root``), class and mask (path below the folder named like the CSV, or beside it). Raises
    ``StudyError`` for a missing column or file, an image named twice or found twice, an unknown
    class, or a half without both classes.
    """
    mend = f"Give a CSV with the columns {', '.join(COLUMNS)}."
    table = read_table(annotations, COLUMNS, dict.fromkeys(COLUMNS, str), mend)[COLUMNS]
    cases, named = [], set()
    for image, name, mask in table.itertuples(index=False):
        if name not in classes:
            expected = " or ".join(classes)
            raise StudyError(f"{annotations}: {image}: class {name!r}; expected {expected}.")
        label = classes.index(name)
        places = [root / side / name / image for side in ("train", "test")] + [root / image]
        path = _first_file(places, f"{annotations}: image {image}", "the data folder, --data")
        if places[0].is_file() and places[1].is_file():
            raise StudyError(
                f"{annotations}: image {image} is in train/ and in test/. "
                f"Give its path below {root}."
            )
        if path in named:
            raise StudyError(f"{annotations}: image {image} stands there twice. Remove a row.")
        named.add(path)
        places = [annotations.with_suffix("") / mask, annotations.parent / mask]
        lungs = _first_file(places, f"{annotations}: mask {mask}", "the annotations")
        cases.append(Case(path, label, read_patient(image, label)[0], lungs))
    chosen = [case for case in cases if half in ("all", half_of(case.patient))]
    for label, name in enumerate(classes):
        if label not in {case.label for case in chosen}:
            part, more = ("", "") if half == "all" else (f" in the {half} half", ", or --half all")
            raise StudyError(f"{annotations}: no image of {name}{part}. Add annotations{more}.")
    return chosen


def cases_in(manifest: pd.DataFrame, root: Path, annotations: Path, half: Half,
             classes: tuple[str, str] = CLASSES) -> list[Case]:  # fmt: skip
    """Those annotated images that a manifest lists, with its patients; otherwise ``read_cases``."""
    patients = dict(zip(manifest.path, manifest.patient, strict=True))
    cases = [
        replace(case, patient=patients[path])
        for case in read_cases(root, annotations, half, classes)
        if (path := case.image.relative_to(root).as_posix()) in patients
    ]
    if {case.label for case in cases} != {0, 1}:
        raise StudyError(
            f"{annotations}: of the study's images, {len(cases)} of the {half} half are annotated, "
            "not of both classes. Add annotations or remove data.annotations."
        )
    return cases


def _first_file(places: list[Path], what: str, mend: str) -> Path:
    for path in places:
        if path.is_file():
            return path
    tried = " and ".join(str(path) for path in places)
    raise StudyError(f"{what}: no such file; looked for {tried}. Correct the CSV or {mend}.")


def generator(image: NDArray[np.uint8], case: Case) -> LungMask:
    """The mask generator as a ``Segment``."""
    return lung_mask_with_confidence(image)


def measure(cases: list[Case], segment: Segment = generator) -> pd.DataFrame:
    """Agreement of ``segment`` with the annotations, one row for each case.

    Columns: image, class, label, patient, dice, cut_error (|Δ mean x| in px of 224), confidence,
    area (share of the image), cut (mean x, share of the width), and area and cut of the annotation
    as known_area and known_cut.
    """
    rows = [_measure(case, segment) for case in track(cases, len(cases), "measuring masks")]
    return pd.DataFrame(rows)


def _measure(case: Case, segment: Segment) -> dict[str, object]:
    lungs, ignored = read_lungs(case.lungs)
    # Decoded as for the masks of a study.
    result = segment(read_grey(case.image, MASK_DETAIL), case)
    sized = cv2.resize(
        result.mask.view(np.uint8), lungs.shape[::-1], interpolation=cv2.INTER_NEAREST
    )
    mask = sized.astype(bool) & ~ignored
    return {
        "image": case.image.name,
        "class": CLASSES[case.label],
        "label": case.label,
        "patient": case.patient,
        "dice": dice(mask, lungs),
        "cut_error": PRINT_WIDTH * abs(mean_x(mask) - mean_x(lungs)),
        "confidence": result.confidence,
        "area": result.mask.mean(),
        "cut": mean_x(result.mask),
        "known_area": lungs.mean(),
        "known_cut": mean_x(lungs),
    }


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Overlap of two masks of one shape (Dice 1945), in [0, 1]; 1 if both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def read_lungs(path: Path) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Lungs and ignored pixels of an annotation, both bool (H, W)."""
    values = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if values is None:
        raise StudyError(f"{path}: cannot be decoded as an image. Fetch it again.")
    other = sorted(set(np.unique(values).tolist()) - {0, IGNORE, LUNG})
    if other or not (values == LUNG).any():
        held = f"also the values {other[:3]}" if other else "no lung"
        raise StudyError(
            f"{path}: expected {LUNG} for lung, 0 for background and {IGNORE} for pixels to "
            f"ignore; it holds {held}."
        )
    return values == LUNG, values == IGNORE


def weighted_quantile(values: Array, weights: Array, q: float) -> Array:
    """Quantile of ``values`` (N,), each repeated as often as its whole-number weight (R, N): (R,).

    Equal to ``np.quantile`` of the repeated values (linear interpolation, type 7 of Hyndman & Fan
    1996), without repeating them.
    """
    order = np.argsort(values, kind="stable")
    ranked, reached = values[order], np.cumsum(weights[:, order], axis=1)
    position = q * (reached[:, -1] - 1)
    below = np.floor(position)
    low, high = ((reached <= k[:, None]).sum(axis=1) for k in (below, below + 1))
    low, high = ranked[low], ranked[np.minimum(high, len(ranked) - 1)]
    return low + (position - below) * (high - low)


MEASURES: dict[str, tuple[str, float | None]] = {
    "Dice, mean": ("dice", None),
    "Dice, 5th percentile": ("dice", 0.05),
    "cut error, median (px)": ("cut_error", 0.5),
    "cut error, mean (px)": ("cut_error", None),
    "cut error, 95th pct. (px)": ("cut_error", 0.95),
}
"""Name: column of ``measure``, and which of its quantiles; None: its mean."""


def patient_interval(
    table: pd.DataFrame,
    column: str,
    q: float | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = SEED,
) -> Interval:
    """The mean of a column of ``table``, or its quantile ``q``, with its interval.

    Whole patients (column patient) are resampled within their class (label); all columns see the
    same resamples. With a single patient of a class there are no bounds (None).
    """
    values = table[column].to_numpy(float)

    def statistic(weights: Array) -> Array:  # (R, N) → (R,)
        if q is not None:
            return weighted_quantile(values, weights, q)
        return weights @ values / weights.sum(axis=1)

    if table.groupby("label").patient.nunique().min() < 2:
        return Interval(float(statistic(np.ones((1, len(table))))[0]), None, None)
    chunks = patient_weights(table.label.to_numpy(), table.patient.to_numpy(), resamples, seed)
    replicates = np.concatenate([statistic(weights) for weights in chunks])
    return percentile_interval(statistic(np.ones((1, len(table))))[0], replicates, level)


def report_masks(root: Path, annotations: Path, output: Path, half: Half) -> None:
    """Measure the mask generator on annotated radiographs; print and write the results.

    Writes ``table.csv`` (the printed table: ``MEASURES`` and the mean Dice of each class with 95 %
    intervals) and ``images.csv`` (one row per image) below ``output``. Raises ``StudyError`` for
    unusable annotations.
    """
    images = measure(read_cases(root, annotations, half))
    found = {name: patient_interval(images, *chosen) for name, chosen in MEASURES.items()}
    for name, group in images.groupby("class"):
        found[f"Dice of {name}, mean"] = patient_interval(group, "dice")
    rows = [(name, *astuple(interval)) for name, interval in found.items()]
    table = pd.DataFrame(rows, columns=["measure", "estimate", "low", "high"])
    part = "all annotations" if half == "all" else f"{half} half"
    print(f"Lung masks, {part}: {len(images)} images of {images.patient.nunique()} patients")
    print(table.to_string(index=False, float_format="{:.3f}".format))
    write_table(output / "table.csv", table, "%.6f")
    write_table(output / "images.csv", images.drop(columns="label"), "%.6f")
    log.info("%s: table.csv and images.csv written", output)
