"""Radiographs with lungs drawn by a reader, and how well masks agree with them."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlungvit.data.cache import MASK_DETAIL
from hybridlungvit.data.decode import read_grey
from hybridlungvit.data.sources import CLASSES, read_patient
from hybridlungvit.io import StudyError, read_table
from hybridlungvit.masks.fit import LungMask, lung_mask_with_confidence, mean_x
from hybridlungvit.runtime import track

Half = Literal["reporting", "development", "all"]
COLUMNS = ["image", "class", "mask"]
LUNG, IGNORE = 255, 127  # values of an annotation besides 0, the background
DEVELOPMENT = {"images": 148, "patients": 116}  # the half the generator's constants were chosen on
PRINT_WIDTH = 224  # errors of the cut are given in pixels of an image of this width


@dataclass(frozen=True)
class Case:
    """An annotated radiograph."""

    image: Path
    label: int
    patient: str
    half: str
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

    ``annotations`` has the columns image (file name below ``root/{train,test}/<class>``), class and
    mask (path below the folder named like the CSV, or beside it). Raises ``StudyError`` for a
    missing column or file, an unknown class, or a half without both classes.
    """
    mend = f"Give a CSV with the columns {', '.join(COLUMNS)}."
    table = read_table(annotations, COLUMNS, dict.fromkeys(COLUMNS, str), mend)[COLUMNS]
    empty = (table == "").any(axis=1).to_numpy()
    if empty.any():
        line = int(empty.argmax()) + 2
        raise StudyError(f"{annotations}: line {line} has an empty field; fill or remove it.")
    cases = [_case(root, annotations, classes, *row) for row in table.itertuples(index=False)]
    chosen = [case for case in cases if half in ("all", case.half)]
    if {case.label for case in chosen} != {0, 1}:
        raise StudyError(
            f"{annotations}: the {half} half must hold images of {' and '.join(classes)}; "
            f"it has {len(chosen)} of {len(cases)} images. Add annotations or take --half all."
        )
    return chosen


def _case(
    root: Path, annotations: Path, classes: tuple[str, str], image: str, name: str, mask: str
) -> Case:
    if name not in classes:
        raise StudyError(
            f"{annotations}: {image}: class {name!r}; expected {' or '.join(classes)}."
        )
    label = classes.index(name)
    patient, _ = read_patient(str(image), label)
    places = [root / side / name / image for side in ("train", "test")]
    path = _first_file(places, f"{annotations}: image {image}", "the data folder, --data")
    places = [annotations.with_suffix("") / mask, annotations.parent / mask]
    lungs = _first_file(places, f"{annotations}: mask {mask}", "the annotations")
    return Case(path, label, patient, half_of(patient), lungs)


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

    Columns: image, class, label, patient, half, dice, cut_error (|Δ mean x| in px of 224),
    confidence, area (share of the image), cut (mean x, share of the width), one_sided (bool: empty,
    or without lung on one side of the image's centre), and area and cut of the annotation as
    known_area and known_cut.
    """
    rows = [_measure(case, segment) for case in track(cases, len(cases), "measuring masks")]
    return pd.DataFrame(rows)


def _measure(case: Case, segment: Segment) -> dict[str, object]:
    image = read_image(case)
    lungs, ignored = read_lungs(case.lungs)
    result = segment(image, case)
    height, width = lungs.shape
    mask = result.mask
    if mask.shape != lungs.shape:
        sized = cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        mask = sized.astype(bool)
    half = result.mask.shape[1] // 2
    return {
        "image": case.image.name,
        "class": CLASSES[case.label],
        "label": case.label,
        "patient": case.patient,
        "half": case.half,
        "dice": dice(mask & ~ignored, lungs),
        "cut_error": PRINT_WIDTH * abs(mean_x(mask) - mean_x(lungs)),
        "confidence": result.confidence,
        "area": result.mask.mean(),
        "cut": mean_x(result.mask),
        "known_area": lungs.mean(),
        "known_cut": mean_x(lungs),
        "one_sided": not (result.mask[:, :half].any() and result.mask[:, -half:].any()),
    }


def measure_mirror(cases: list[Case], segment: Segment = generator) -> pd.DataFrame:
    """The mirrored image's mask, mirrored back, against the image's own, one row for each case.

    Columns: mirror_dice and mirror_shift (of the cut, px of 224).
    """
    rows = []
    for case in track(cases, len(cases), "mirroring"):
        image = read_image(case)
        mask = segment(image, case).mask
        back = segment(np.ascontiguousarray(image[:, ::-1]), case).mask[:, ::-1]
        shift = PRINT_WIDTH * abs(mean_x(mask) - mean_x(back))
        rows.append({"mirror_dice": dice(mask, back), "mirror_shift": shift})
    return pd.DataFrame(rows)


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Overlap of two masks of one shape (Dice 1945), in [0, 1]; 1 if both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def read_image(case: Case) -> NDArray[np.uint8]:
    """The radiograph as grey uint8 (H, W), decoded as for the masks of a study."""
    return read_grey(case.image, MASK_DETAIL)


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
