"""Mask quality on annotated radiographs, for people: a printed table, CSV files and a gallery."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from hybridlungvit.data.sources import CLASSES
from hybridlungvit.io import replacing, write_text
from hybridlungvit.masks.agreement import LEVEL, assess
from hybridlungvit.masks.annotated import (
    Case,
    Half,
    generator,
    read_cases,
    read_image,
    read_lungs,
)
from hybridlungvit.paper.galleries import annotation_gallery
from hybridlungvit.paper.style import save_figure, use_style

log = logging.getLogger(__name__)
RANKS = {"best": 1.0, "median": 0.5, "worst": 0.0}  # quantiles of Dice


def report_masks(root: Path, annotations: Path, output: Path, half: Half) -> pd.DataFrame:
    """Measure the mask generator on annotated radiographs; print and write the results.

    Writes ``table.csv`` (the printed table), ``images.csv`` (one row per image), ``gallery.pdf``
    and ``gallery.png`` below ``output``. Raises ``StudyError`` for unusable annotations.
    """
    cases = read_cases(root, annotations, half)
    summary, images = assess(cases)
    print_summary(summary, title_of(images, half))
    for name, table in (("table", summary), ("images", images.drop(columns="label"))):
        text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_text(output / f"{name}.csv", text)
    _save_gallery(cases, images, output)
    log.info("%s: table.csv, images.csv, gallery.pdf and gallery.png written", output)
    return summary


def title_of(images: pd.DataFrame, half: Half) -> str:
    """How many images and patients a table is about."""
    part = "all annotations" if half == "all" else f"{half} half"
    return f"Lung masks, {part}: {len(images)} images of {images.patient.nunique()} patients"


def print_summary(summary: pd.DataFrame, title: str) -> None:
    """Print a summary as a table on stdout."""
    table = Table(title=title, title_justify="left")
    table.add_column("measure")
    for column in ("estimate", f"{100 * LEVEL:g} % interval"):
        table.add_column(column, justify="right")
    table.add_column("target")
    table.add_column("met")
    for row in summary.itertuples():
        interval = "" if np.isnan(row.low) else f"{row.low:.3f} to {row.high:.3f}"
        table.add_row(row.measure, f"{row.estimate:.3f}", interval, row.target, row.met)
    Console().print(table)


def choose_ranks(images: pd.DataFrame) -> list[tuple[int, str]]:
    """Rows at the highest, median and lowest Dice of each class, with their names."""
    chosen = []
    for label in range(len(CLASSES)):
        rows = np.flatnonzero((images.label == label).to_numpy())
        ranked = rows[np.argsort(images.dice.to_numpy()[rows], kind="stable")]
        chosen += [(int(ranked[int(q * (len(ranked) - 1))]), name) for name, q in RANKS.items()]
    return chosen


def _save_gallery(cases: list[Case], images: pd.DataFrame, output: Path) -> None:
    panels = []
    for row, rank in choose_ranks(images):
        image = read_image(cases[row])
        title = f"{images['class'][row].capitalize()}, {rank}\nDice {images.dice[row]:.3f}"
        masks = (generator(image, cases[row]).mask, read_lungs(cases[row].lungs)[0])
        panels.append((image, *masks, title))
    use_style()
    figure = annotation_gallery(panels)
    with replacing(output / "gallery.png") as temporary:
        figure.savefig(temporary, dpi=200, metadata={"Software": None})
    save_figure(figure, output / "gallery.pdf")
