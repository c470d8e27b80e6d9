"""Agreement of masks with readers: estimates with patient-bootstrap intervals, beside targets."""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from hybridlungvit.evaluation.bootstrap import patient_weights
from hybridlungvit.evaluation.intervals import Array, Interval, percentile_interval
from hybridlungvit.io import write_table
from hybridlungvit.masks.annotated import (
    Case,
    Half,
    generator,
    measure,
    measure_mirror,
    read_cases,
    read_image,
)
from hybridlungvit.masks.examples import save_annotation_gallery

log = logging.getLogger(__name__)
RESAMPLES, LEVEL, SEED = 2000, 0.95, 0
TIMED_SIDE = 224  # px
Statistic = Callable[[pd.DataFrame, Array], Array]
"""From a table of N images and weights (R, N) to one value for each row of weights, (R,)."""


def weighted_mean(values: Array, weights: Array) -> Array:
    """Mean of ``values`` (N,) for each row of ``weights`` (R, N): (R,)."""
    return weights @ values / weights.sum(axis=1)


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


def mean_of(column: str) -> Statistic:
    """The mean of a column."""
    return lambda table, weights: weighted_mean(table[column].to_numpy(float), weights)


def quantile_of(column: str, q: float) -> Statistic:
    """A quantile of a column."""
    return lambda table, weights: weighted_quantile(table[column].to_numpy(float), weights, q)


def class_gap(table: pd.DataFrame, weights: Array) -> Array:
    """Mean Dice of NORMAL minus mean Dice of PNEUMONIA."""
    values, normal = table.dice.to_numpy(float), (table.label == 0).to_numpy()
    first, second = (weighted_mean(values[g], weights[:, g]) for g in (normal, ~normal))
    return first - second


# name: (statistic, target in words, whether an estimate meets it)
MEASURES: dict[str, tuple[Statistic, str, Callable[[float], bool]]] = {
    "Dice, mean": (mean_of("dice"), ">= 0.88", lambda x: x >= 0.88),
    "Dice, 5th percentile": (quantile_of("dice", 0.05), ">= 0.75", lambda x: x >= 0.75),
    "cut error, median (px)": (quantile_of("cut_error", 0.5), "<= 2.0", lambda x: x <= 2),
    "cut error, mean (px)": (mean_of("cut_error"), "<= 3.0", lambda x: x <= 3),
    "cut error, 95th pct. (px)": (quantile_of("cut_error", 0.95), "<= 8", lambda x: x <= 8),
    "empty or one-sided": (mean_of("one_sided"), "0", lambda x: x == 0),
    "Dice, NORMAL - PNEUMONIA": (class_gap, "|.| <= 0.05", lambda x: abs(x) <= 0.05),
}


def patient_interval(
    table: pd.DataFrame,
    statistic: Statistic,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = SEED,
) -> Interval:
    """A statistic of ``table`` (columns label and patient, at least) with its interval.

    Whole patients are resampled within their class; all statistics see the same resamples.
    """
    labels = table.label.to_numpy()
    chunks: Iterable[Array] = patient_weights(labels, table.patient.to_numpy(), resamples, seed)
    replicates = np.concatenate([statistic(table, weights) for weights in chunks])
    estimate = statistic(table, np.ones((1, len(table))))[0]
    return percentile_interval(estimate, replicates, level)


def report_masks(root: Path, annotations: Path, output: Path, half: Half) -> pd.DataFrame:
    """Measure the mask generator on annotated radiographs; print and write the results.

    Writes ``table.csv`` (the printed table), ``images.csv`` (one row per image), ``gallery.pdf``
    and ``gallery.png`` below ``output``. Raises ``StudyError`` for unusable annotations.
    """
    cases = read_cases(root, annotations, half)
    images = pd.concat([measure(cases), measure_mirror(cases)], axis=1)
    summary = summarise(cases, images)
    part = "all annotations" if half == "all" else f"{half} half"
    count = f"{len(images)} images of {images.patient.nunique()} patients"
    print_summary(summary, f"Lung masks, {part}: {count}")
    write_table(output / "table.csv", summary, "%.6f")
    write_table(output / "images.csv", images.drop(columns="label"), "%.6f")
    save_annotation_gallery(cases, images, output)
    log.info("%s: table.csv, images.csv, gallery.pdf and gallery.png written", output)
    return summary


def summarise(cases: list[Case], images: pd.DataFrame) -> pd.DataFrame:
    """The columns measure, estimate, low, high, target and met, of the generator on ``cases``.

    ``images`` are their rows by ``measure`` and ``measure_mirror``; low and high are NaN where no
    interval is due.
    """
    rows: list[tuple[Any, ...]] = []
    for name, (statistic, target, meets) in MEASURES.items():
        value = patient_interval(images, statistic)
        met = "yes" if meets(value.estimate) else "no"
        rows.append((name, value.estimate, value.low, value.high, target, met))
    # Extremes and times describe these images and this machine; no interval belongs to them.
    lowest, largest = images.mirror_dice.min(), images.mirror_shift.max()
    for name, value, target, meets in (
        ("mirror, smallest Dice", lowest, ">= 0.995", lowest >= 0.995),
        ("mirror, largest shift (px)", largest, "<= 1", largest <= 1),
    ):
        rows.append((name, value, np.nan, np.nan, target, "yes" if meets else "no"))
    speed = f"time at {TIMED_SIDE} px, median (ms)"
    rows.append((speed, time_masks(cases), np.nan, np.nan, "", ""))
    return pd.DataFrame(rows, columns=["measure", "estimate", "low", "high", "target", "met"])


def time_masks(cases: list[Case]) -> float:
    """Median milliseconds of the generator for an image of 224 by 224 px, on one thread."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    side = (TIMED_SIDE, TIMED_SIDE)
    times = []
    try:
        for case in cases:
            image = cv2.resize(read_image(case), side, interpolation=cv2.INTER_AREA)
            start = time.perf_counter()
            generator(image, case)
            times.append(time.perf_counter() - start)
    finally:
        cv2.setNumThreads(threads)
    return 1000 * float(np.median(times))


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
