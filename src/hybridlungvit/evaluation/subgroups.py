"""Performance within groups of test images: kinds, file series, and quartiles of image quality."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.bootstrap import PatientClusters, auc_metric, replicate
from hybridlungvit.evaluation.calibration import mass_bins
from hybridlungvit.evaluation.metrics import call_metrics, together
from hybridlungvit.evaluation.records import INTERVAL, LAYERS, basis, headline_record
from hybridlungvit.io import StudyError

RATES = ("sensitivity", "specificity")
QUARTERS = 4
LEAST_PATIENTS = 10  # of a class, for a metric that rests on it
NEEDED = {"auc": (0, 1), "sensitivity": (1,), "specificity": (0,)}
"""The classes whose patients a metric of a subgroup rests on."""
SECOND_SERIES = "NORMAL2-"
"""How names of the second of the two series begin that Kermany's normal images come in."""
QUALITIES = {
    "pixels": "Size of the original (megapixels)",
    "bytes_per_pixel": "Bytes per pixel of the original",
    "mask_confidence": "Confidence of the lung mask",
}
"""What stands for image quality: each is known before any model sees the image."""


def quality_table(manifest: pd.DataFrame, masks: pd.DataFrame, paths: pd.Series) -> pd.DataFrame:
    """The columns of ``QUALITIES`` for the images ``paths``, in their order.

    Raises ``StudyError`` when manifest or mask table lack an image.
    """
    for name, known in (("manifest", manifest), ("mask table", masks)):
        absent = paths[~paths.isin(known.path)]
        if len(absent):
            raise StudyError(
                f"the {name} lacks {len(absent)} scored images, such as {absent.iloc[0]}. "
                "Predictions and images are of two states: run the workflow again."
            )
    rows = manifest.set_index("path").loc[paths]
    pixels = rows.width * rows.height
    return pd.DataFrame(
        {
            "pixels": pixels / 1e6,
            "bytes_per_pixel": rows.bytes / pixels,
            "mask_confidence": masks.set_index("path").confidence.loc[paths],
        }
    ).reset_index(drop=True)


def groups(table: pd.DataFrame, quality: pd.DataFrame) -> Iterator[tuple[str, str, NDArray]]:
    """Yield (by, name, images (N,) bool) for every subgroup of the test images.

    A kind of pneumonia stands with all normal images, so that it has an AUC, and a series of normal
    images with all others. Quarters are those of all test images, by rank; equal values are never
    parted, hence quarters can differ in size, and what is the same in all images has none.
    """
    normal = (table.label == 0).to_numpy()
    kinds = {"bacteria": "Bacterial", "virus": "Viral"}
    for subtype, name in kinds.items() if table.subtype.isin(kinds).any() else ():
        yield "subtype", name, normal | (table.subtype == subtype).to_numpy()
    second = table.patient.str.startswith(SECOND_SERIES).to_numpy()
    if 0 < (normal & second).sum() < normal.sum():
        yield "series", "IM", ~(normal & second)
        yield "series", "NORMAL2-IM", ~normal | second
    for column in QUALITIES:
        values = quality[column].to_numpy(float)
        quarter = mass_bins(values, QUARTERS)
        if len(np.unique(quarter)) == 1:  # all images are alike in it
            continue
        for index in range(QUARTERS):
            chosen = quarter == index
            if chosen.any():
                low, high = values[chosen].min(), values[chosen].max()
                yield column, f"{low:.3g} to {high:.3g}", chosen


def subgroup_records(
    table: pd.DataFrame, quality: pd.DataFrame, scores: Array, threshold: float,
    resamples: int, level: float, seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """AUC, sensitivity and specificity of each subgroup, mean over seeds, crossed intervals.

    ``scores`` (K, N). Patients are resampled within the subgroup. What would rest on fewer than
    ``LEAST_PATIENTS`` patients of a class is null.
    """
    records = []
    for by, name, chosen in groups(table, quality):
        part, rows = table[chosen], scores[:, chosen]
        clusters = PatientClusters.of(part.label.to_numpy(), part.patient.to_numpy())
        called = rows >= threshold
        metrics = together(auc_metric(clusters, rows), call_metrics(clusters, called))
        values = replicate(metrics, clusters, resamples, seed)
        record: dict[str, Any] = {
            "by": by,
            "group": name,
            "images": len(part),
            "pneumonia": int(part.label.sum()),
            "patients": int(part.patient.nunique()),
        }
        for metric, needed in NEEDED.items():
            if min(clusters.by_class[not label] for label in needed) < LEAST_PATIENTS:
                record[metric] = dict.fromkeys(INTERVAL + LAYERS)
                continue
            known = basis(metric, clusters, rows, called)
            record[metric] = headline_record(metric, values[metric], level, *known)
        records.append(record)
    return records
