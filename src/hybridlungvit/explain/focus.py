"""Lung focus: how much of a heat map lies in the lungs, beside what chance would put there."""

import logging
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from hybridlungvit.config import Study
from hybridlungvit.data.sources import CLASSES
from hybridlungvit.evaluation.bootstrap import Array
from hybridlungvit.explain.cases import settings
from hybridlungvit.explain.gradcam import TestImages, attention_of, heat_of
from hybridlungvit.explain.similarity import derangement, mean_intervals
from hybridlungvit.io import file_sha256, write_record, write_text
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)
COLUMNS = ["path", "patient", "label", "probability"]
MEASURES = ("focus", "focus_shuffled", "focus_box")


def heat_share(heat: NDArray, regions: NDArray) -> Array:
    """Share of each map's heat inside its region: (N,); NaN for a map without heat.

    ``heat`` (N, H, W) is not negative; ``regions`` (N, H, W) is bool or a coverage in [0, 1].
    """
    heat = heat.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (heat * regions).sum(axis=(1, 2)) / heat.sum(axis=(1, 2))


def lung_focus(heat: NDArray, regions: NDArray) -> Array:
    """Heat share over area share, (N,): 1 where heat ignores the region, above 1 where it seeks it.

    NaN where there is no heat or no region.
    """
    area = regions.mean(axis=(1, 2), dtype=np.float64)
    return heat_share(heat, regions) / np.where(area > 0, area, np.nan)


def central_boxes(areas: Array, side: int) -> Array:
    """Coverage (N, S, S) of each pixel by a centred square with a share ``areas`` of the image."""
    half = np.sqrt(areas)[:, None] * side / 2  # (N, 1)
    edges = np.arange(side + 1) - side / 2  # (S + 1,)
    inside = np.diff(np.clip(edges, -half, half), axis=1)  # (N, S): how much of each column
    return inside[:, :, None] * inside[:, None, :]


def focus_table(table: pd.DataFrame, heat: NDArray, masks: NDArray, seed: int) -> pd.DataFrame:
    """One row for each image: heat and area share, and the focus on own mask and two controls.

    ``focus_shuffled`` takes the lung mask of another patient's image, ``focus_box`` a central
    square of the own mask's area.
    """
    masks = masks.astype(bool)
    area = masks.mean(axis=(1, 2), dtype=np.float64)
    partner = derangement(table.patient.to_numpy(), seed)
    return table[COLUMNS].assign(
        heat_share=heat_share(heat, masks),
        area_share=area,
        focus=lung_focus(heat, masks),
        focus_shuffled=lung_focus(heat, masks[partner]),
        focus_box=lung_focus(heat, central_boxes(area, masks.shape[1])),
    )


def summarise(table: pd.DataFrame, study: Study, threshold: float) -> list[dict[str, Any]]:
    """Mean focus and its differences to the controls, over all and by class and right or wrong.

    Images without heat or mask count in ``undefined`` and nowhere else. Intervals resample the
    patients of the group; its makeup and the trained weights are held fixed.
    """
    right = (table.probability >= threshold) == (table.label == 1)
    groups = [("all", "all", table)]
    for label, name in enumerate(map(str.lower, CLASSES)):
        for called, members in {"all": True, "right": right, "wrong": ~right}.items():
            groups.append((name, called, table[(table.label == label) & members]))
    records = []
    for name, called, group in groups:
        known = group[group[list(MEASURES)].notna().all(axis=1)]
        values = {key: known[key].to_numpy() for key in MEASURES}
        for control in MEASURES[1:]:
            values[f"over_{control[6:]}"] = values["focus"] - values[control]
        columns = np.stack(list(values.values()), axis=1)  # (n, 5)
        intervals = mean_intervals(columns, known, study.statistics)
        records.append(
            {
                "class": name,
                "called": called,
                "images": len(known),
                "patients": int(known.patient.nunique()),
                "undefined": len(group) - len(known),
                **dict(zip(values, intervals, strict=True)),
            }
        )
    return records


def lowest_row(attention: NDArray) -> NDArray[np.bool_]:
    """Whether the peak of each attention (N, 2·g²) lies in the lowest row of tokens: (N,)."""
    grid = round((attention.shape[1] // 2) ** 0.5)
    return attention.argmax(axis=1) // grid % grid == grid - 1  # a side's tokens run row by row


def write_focus(
    study: Study, variant: str, tests: TestImages, model: nn.Module, layout: Layout
) -> None:
    """Write a variant's lung focus on the whole test set (first seed): rows as CSV, means as JSON.

    The CSV has one row for each test image, in the order of the predictions. Of a hybrid the record
    has how often the cross-attention peaks in the lowest row of tokens, beside a row's share.
    """
    heat = heat_of(model, tests, study.explanation.batch_size)
    table = focus_table(tests.table, heat, tests.masks.numpy(), study.explanation.seed)
    output = layout.focus(variant)
    write_text(output, table.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    given = settings(study, variant)
    record = {
        "variant": variant,
        "seed": study.seeds[0],
        **given,
        "predictions_sha256": file_sha256(layout.predictions(variant, study.seeds[0])),
        "rows_sha256": file_sha256(output),
        "groups": summarise(table, study, given["threshold"]),
    }
    attention = attention_of(model, tests, study.explanation.batch_size)
    if attention is not None:
        lowest = lowest_row(attention)[:, None].astype(np.float64)
        [peaks] = mean_intervals(lowest, tests.table, study.statistics)
        share = 1 / study.recipe(variant).model.token_grid
        record["lowest_row"] = {"peaks": peaks, "share": share}
    write_record(output.with_suffix(".json"), record)
    overall = record["groups"][0]["focus"]["estimate"]
    log.info("%s: lung focus %s", variant, "undefined" if overall is None else f"{overall:.3f}")
