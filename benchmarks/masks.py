"""The lung mask generator beside two baselines, on annotated radiographs.

    python benchmarks/masks.py --data PATH --annotations CSV --table FILE

Both baselines are as simple as they look: a threshold that takes what is dark for lung, and the
constant average shape of the annotations. What the generator gains over them is what it is worth.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlungvit.config import CLASSES
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.io import StudyError, write_text
from hybridlungvit.masks.agreement import (
    RESAMPLES,
    SEED,
    Case,
    Segment,
    cases_in,
    generator,
    measure,
    patient_interval,
    read_cases,
    read_lungs,
)
from hybridlungvit.masks.fit import LungMask
from hybridlungvit.paper.booktabs import tabular
from hybridlungvit.paper.format import format_interval

SIDE = 224  # px: the baselines work on squares of this side
CLAHE_CLIP, CLAHE_TILES = 2.0, (4, 4)
OPENING = 3  # px; with the tiles the best of 12 settings on the development half


def otsu(image: NDArray[np.uint8], case: Case) -> LungMask:
    """CLAHE, Otsu's threshold (1979), opening, and the two largest dark parts off the border."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    clear = cv2.createCLAHE(CLAHE_CLIP, CLAHE_TILES).apply(small)
    _, dark = cv2.threshold(clear, 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (OPENING, OPENING))
    _, parts = cv2.connectedComponents(cv2.morphologyEx(dark, cv2.MORPH_OPEN, kernel))
    sizes = np.bincount(parts.ravel())
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    sizes[0] = 0
    sizes[border] = 0  # the air around the child
    largest = [part for part in np.argsort(-sizes, kind="stable")[:2] if sizes[part]]
    mask = np.isin(parts, largest).astype(np.uint8)
    size = image.shape[::-1]
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    return LungMask(mask.astype(bool), float("nan"))


def average_shape(cases: list[Case]) -> Segment:
    """The same mask for all images: where most annotations of the *other* patients have lung."""
    size = (SIDE, SIDE)
    shapes = np.stack(
        [
            cv2.resize(
                read_lungs(case.lungs)[0].astype(np.float32), size, interpolation=cv2.INTER_AREA
            )
            for case in cases
        ]
    )  # (N, S, S)
    patients = np.array([case.patient for case in cases])
    total = shapes.sum(axis=0)

    def segment(image: NDArray[np.uint8], case: Case) -> LungMask:
        same = patients == case.patient
        mean = (total - shapes[same].sum(axis=0)) / (~same).sum()
        soft = cv2.resize(mean, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
        return LungMask(soft > 0.5, float("nan"))

    return segment


def table_of(
    cases: list[Case], methods: dict[str, Segment], resamples: int, level: float, seed: int
) -> str:
    """Dice and cut error of each method as a booktabs tabular for the paper.

    With a study's resamples, level and seed the generator's intervals are those of its record.
    """
    columns = {
        "Dice, mean": ("dice", None),
        "Dice, 5th percentile": ("dice", 0.05),
        "Cut error, median": ("cut_error", 0.5),
        "Cut error, mean": ("cut_error", None),
    }
    rows = []
    for name, segment in methods.items():
        images = measure(cases, segment)
        row = {"Method": name}
        for title, chosen in columns.items():
            interval = asdict(patient_interval(images, *chosen, resamples, level, seed))
            row[title] = format_interval(interval, 3 if "Dice" in title else 1)
        rows.append(row)
    return tabular(pd.DataFrame(rows), "lcccc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--annotations", type=Path, required=True, help="CSV: image, class, mask")
    parser.add_argument("--classes", nargs=2, default=CLASSES, help="folders of label 0 and 1")
    halves = ("reporting", "development", "all")
    parser.add_argument("--half", choices=halves, default="reporting")
    parser.add_argument("--manifest", type=Path, help="of the study whose images alone count")
    parser.add_argument("--table", type=Path, required=True, help="TeX file for the paper")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=SEED, help="of the bootstrap")
    options = parser.parse_args()
    try:
        chosen = options.data, options.annotations, options.half, tuple(options.classes)
        if options.manifest is None:
            cases = read_cases(*chosen)
        else:
            cases = cases_in(read_manifest(options.manifest), *chosen)
        methods = {
            "Deformable template": generator,
            "CLAHE and Otsu": otsu,
            "Average shape": average_shape(cases),
        }
        size = (options.resamples, options.level, options.seed)
        write_text(options.table, table_of(cases, methods, *size))
    except StudyError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
