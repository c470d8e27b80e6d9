"""The figures of results: curves, forest, seeds, reliability and confusion matrices."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.paired import POWER, components_of
from hybridlungvit.evaluation.power import minimal_detectable_difference
from hybridlungvit.evaluation.predictions import scores_on
from hybridlungvit.evaluation.seeds import crossed_curves
from hybridlungvit.paper.contents import figure
from hybridlungvit.paper.format import POINT_NAMES, heading, number
from hybridlungvit.paper.results import StudyResults, needs_roc_inset
from hybridlungvit.paper.style import (
    COLUMN_WIDTH,
    FULL_WIDTH,
    PALETTE,
    SMALL,
    draw_interval,
    line_of,
)

Curves = Callable[[NDArray[np.int64], Array, Array], Array]
GRID = np.linspace(0, 1, 201)  # of false-positive rates or recalls, at which curves are averaged
BAND_RESAMPLES = 1000
POWER_TICKS = (3, 5, 10, 20, 50)
POWER_SEEDS = range(POWER_TICKS[0], POWER_TICKS[-1] + 1)
POINT_MARKERS = {"fixed": "o", "youden": "s", "sensitive": "^"}


def _calls(labels: NDArray[np.int64], scores: Array, weights: Array) -> tuple[Array, Array]:
    """True and false positives at every threshold, from the highest on: (R, thresholds) each."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[scores[order][1:] != scores[order][:-1], True])  # of ties
    positives = np.cumsum(weights[:, order] * labels[order], axis=1)[:, ends]
    negatives = np.cumsum(weights[:, order] * (1 - labels[order]), axis=1)[:, ends]
    return positives, negatives


def roc_curves(labels: NDArray[np.int64], scores: Array, weights: Array) -> Array:
    """Sensitivity at the false-positive rates of ``GRID`` for weights (R, N): (R, len(GRID))."""
    rows = zip(*_calls(labels, scores, weights), strict=True)
    return np.stack(
        [np.interp(GRID, np.r_[0, fp / fp[-1]], np.r_[0, tp / tp[-1]]) for tp, fp in rows]
    )


def precision_curves(labels: NDArray[np.int64], scores: Array, weights: Array) -> Array:
    """Precision at the recalls of ``GRID`` for weights (R, N): (R, len(GRID)).

    At each recall the precision of the highest threshold that reaches it, without interpolation;
    at zero that of the highest score.
    """
    rows = []
    for tp, fp in zip(*_calls(labels, scores, weights), strict=True):
        drawn = tp + fp > 0
        recall, precision = tp[drawn] / tp[-1], tp[drawn] / (tp + fp)[drawn]
        rows.append(precision[np.searchsorted(recall, GRID - 1e-12)])
    return np.stack(rows)


@figure
def roc(results: StudyResults) -> Figure:
    """ROC curves on the test set: single seeds of the reference, their mean and its band over
    patients and seeds; beside them the mean of every variant. Marks are the operating points.

    Where the curves crowd in the upper left corner, that corner is drawn again, enlarged.
    """
    drawing, panels = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.75), sharex=True, sharey=True)
    insets = [_corner(axes) for axes in panels] if needs_roc_inset(results) else []
    lefts, rights = zip(panels, *([insets] if insets else []), strict=True)
    _draw_variants(results, roc_curves, lefts, rights, ("specificity", "sensitivity"))
    for axes in panels:
        axes.plot([0, 1], [0, 1], color="0.7", lw=0.6, zorder=0)
        axes.set(xlabel="1 − specificity", aspect="equal", xlim=(0, 1), ylim=(0, 1.005))
        _legend_below(axes)
    panels[0].set_ylabel("Sensitivity")
    sns.despine(drawing)
    for axes in insets:
        sns.despine(ax=axes, top=False, right=False)
    return drawing


def _corner(axes: Axes) -> Axes:
    """An inset that shows the upper left corner of a ROC panel, enlarged."""
    inset = axes.inset_axes((0.4, 0.1, 0.57, 0.57), xlim=(0, 0.3), ylim=(0.7, 1.0))
    inset.set(xticks=(0, 0.1, 0.2, 0.3), yticks=(0.7, 0.8, 0.9, 1.0), facecolor="white")
    inset.tick_params(labelsize=SMALL, length=2)
    axes.indicate_inset_zoom(inset, edgecolor="0.5", lw=0.6, alpha=1)
    return inset


@figure
def precision_recall(results: StudyResults) -> Figure:
    """Precision and recall of the reference on the test set, with the band over patients and
    seeds; beside it the mean of every variant."""
    drawing, panels = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.3), sharex=True, sharey=True)
    left, right = panels
    _draw_variants(results, precision_curves, (left,), (right,), ("sensitivity", "ppv"))
    images, _ = scores_on(results.study, results.study.reference, results.layout)
    for axes in panels:
        axes.axhline(images.label.mean(), color="0.7", lw=0.6, zorder=0)
        axes.set(xlabel="Recall (sensitivity)", xlim=(0, 1.01), ylim=(None, 1.005))
        _legend_below(axes)
    left.set_ylabel("Precision (PPV)")
    sns.despine(drawing)
    return drawing


def _legend_below(axes: Axes) -> None:
    """A legend in two columns below the axis, where no curve runs."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _draw_variants(
    results: StudyResults, curves: Curves, lefts: tuple[Axes, ...], rights: tuple[Axes, ...],
    measures: tuple[str, str],
) -> None:  # fmt: skip
    """Left: the reference's band and operating points, by two measures. Right: mean curves."""
    study = results.study
    for i, (variant, described) in enumerate(study.variants.items()):
        images, scores = scores_on(study, variant, results.layout)
        labels, once = images.label.to_numpy(), np.ones((1, len(images)))
        singles = np.concatenate([curves(labels, row, once) for row in scores])  # (K, grid)
        is_reference = variant == study.reference
        style = line_of(i) | {"lw": 1.6 if is_reference else 1.0}
        for axes in rights:
            axes.plot(GRID, singles.mean(0), label=heading(described.label), **style)
        if is_reference:
            patients = images.patient.to_numpy()
            mean, drawn = crossed_curves(
                lambda row, weights, labels=labels: curves(labels, row, weights),
                labels, scores, patients, BAND_RESAMPLES, study.statistics.seed,
            )  # fmt: skip
            tail = (1 - study.statistics.level) / 2
            band = np.clip(np.quantile(drawn, [tail, 1 - tail], axis=0), 0, 1)
            for axes in lefts:
                _draw_band(axes, mean, band, singles, f"{results.level}%", style["color"])
                _draw_points(results, axes, *measures)
            lefts[0].set_title(f"{heading(described.label)} (reference)")
    rights[0].set_title("All variants, mean over seeds")


def _draw_band(
    axes: Axes, mean: Array, band: Array, singles: Array, level: str, colour: str
) -> None:
    """A mean curve over seeds with its pointwise band (2, grid) and the seeds' curves (K, grid)."""
    axes.fill_between(GRID, *band, color=colour, alpha=0.2, lw=0, label=f"{level} band")
    for k, single in enumerate(singles):
        axes.plot(GRID, single, color=colour, lw=0.6, alpha=0.7,
                  label="Single seeds" if k == 0 else None)  # fmt: skip
    axes.plot(GRID, mean, color=colour, lw=1.6, label="Mean over seeds")


def _draw_points(results: StudyResults, axes: Axes, x: str, y: str) -> None:
    """The reference's operating points, mean over seeds; specificity as its complement."""
    for point, values in results.reference["points"].items():
        a, b = values[x]["estimate"], values[y]["estimate"]
        if a is None or b is None:  # a predictive value without calls
            continue
        axes.plot(1 - a if x == "specificity" else a, b, POINT_MARKERS[point], ms=5, mfc="white",
                  mec="0.1", mew=1, label=POINT_NAMES[point], ls="none", zorder=5)  # fmt: skip


@figure
def forest(results: StudyResults) -> Figure:
    """AUC of every variant with its interval, and the paired difference to the reference. An
    interval that crosses zero does not distinguish the two."""
    study = results.study
    height = 0.75 + 0.27 * len(study.variants)
    drawing, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, height), sharey=True)
    for y, (variant, record) in enumerate(results.metrics.items()):
        colour = PALETTE[0] if variant == study.reference else "0.25"
        draw_interval(left, record["headline"]["auc"], y, colour)
        singles = [values["auc"]["estimate"] for values in record["seeds"].values()]
        left.plot(singles, [y + 0.28] * len(singles), "o", ms=2.5, mfc="none", mec=colour, mew=0.6)
        if variant in results.differences:
            draw_interval(right, results.differences[variant], y, colour)
    right.axvline(0, color="0.7", lw=0.6, zorder=0)
    _name_rows(results, left)
    left.set_xlabel(f"Test AUC ({results.level}% CI; circles: single seeds)")
    right.set_xlabel(f"AUC minus the reference's ({results.level}% CI)")
    right.locator_params(axis="x", nbins=6)
    sns.despine(drawing)
    sns.despine(ax=right, left=True)
    right.tick_params(left=False)
    left.tick_params(axis="y", length=0)
    return drawing


def _name_rows(results: StudyResults, axes: Axes) -> None:
    """The variants' names on the vertical axis, from above."""
    names = [heading(variant.label) for variant in results.study.variants.values()]
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


@figure
def seeds(results: StudyResults) -> Figure:
    """AUC of every seed with its interval over patients, the mean over seeds, and the ensemble."""
    height = 1.0 + 0.44 * len(results.study.variants)
    drawing, axes = plt.subplots(figsize=(COLUMN_WIDTH, height))
    for y, (variant, record) in enumerate(results.metrics.items()):
        colour = PALETTE[0] if variant == results.study.reference else "0.25"
        count = len(record["seeds"])
        for k, values in enumerate(record["seeds"].values()):
            auc, place = values["auc"], y + (0.5 * (k + 0.5) / count - 0.25)
            axes.plot([auc["low"], auc["high"]], [place, place], color=colour, lw=0.6, alpha=0.6)
            axes.plot(auc["estimate"], place, "o", ms=3, mfc="white", mec=colour, mew=0.8,
                      label="Single seed" if y == k == 0 else None)  # fmt: skip
        mean = record["headline"]["auc"]["estimate"]
        axes.plot([mean, mean], [y - 0.32, y + 0.32], color=colour, lw=1.4,
                  label="Mean over seeds" if y == 0 else None)  # fmt: skip
        axes.plot(record["ensemble"]["auc"]["estimate"], y, "D", ms=4.5, color=PALETTE[1],
                  label="Ensemble" if y == 0 else None, zorder=4)  # fmt: skip
    _name_rows(results, axes)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("Test AUC")
    drawing.legend(loc="outside upper center", ncols=2)
    sns.despine(drawing)
    return drawing


@figure
def power(results: StudyResults) -> Figure:
    """The least true difference to the reference that these test patients would show with good
    power, by number of seeds and variant; grey: the margin of equivalence."""
    drawing, axes = plt.subplots(figsize=(COLUMN_WIDTH, 3.1))
    statistics = results.study.statistics
    for i, (variant, described) in enumerate(results.study.variants.items()):
        difference = results.differences.get(variant)
        if difference is None or difference["detectable"] is None:  # the reference, a single seed
            continue
        components = components_of(difference)
        detectable = [
            minimal_detectable_difference(components, k, POWER, statistics.level)
            for k in POWER_SEEDS
        ]
        axes.plot(POWER_SEEDS, detectable, label=heading(described.label), **line_of(i))
    axes.axhline(statistics.margin, color="0.6", lw=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xticks(POWER_TICKS, [str(k) for k in POWER_TICKS])
    axes.minorticks_off()
    axes.set(xlabel="Seeds of each model", ylabel="Detectable difference in AUC", ylim=(0, None))
    if axes.get_legend_handles_labels()[0]:
        drawing.legend(loc="outside upper center", ncols=2)
    sns.despine(drawing)
    return drawing


@figure
def reliability(results: StudyResults) -> Figure:
    """Share with pneumonia in bins of equal mass against the predicted probability, before and
    after temperature scaling."""
    record = results.reference["calibration"]
    drawing, panels = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.75), sharex=True, sharey=True)
    for axes, state in zip(panels, ("before", "after"), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", lw=0.6, zorder=0)
        bins = [b for b in record[state]["bins"] if b["estimate"] is not None]
        for b in bins:
            if b["low"] is not None:
                axes.plot([b["predicted"]] * 2, [b["low"], b["high"]], color=PALETTE[0], lw=1)
        axes.plot([b["predicted"] for b in bins], [b["estimate"] for b in bins], "o-", ms=3.5,
                  color=PALETTE[0], lw=0.8)  # fmt: skip
        ece, slope = (record[state]["headline"][name]["estimate"] for name in ("ece", "slope"))
        title = f"{heading(state)} scaling: ECE {number(ece)}, slope {number(slope, 2)}"
        limits = (-0.02, 1.02)
        axes.set(title=title, xlabel="Predicted probability", aspect="equal", xlim=limits,
                 ylim=limits)  # fmt: skip
    panels[0].set_ylabel(f"Share with {results.study.data.class_words[1]}")
    sns.despine(drawing)
    return drawing


@figure
def confusion(results: StudyResults) -> Figure:
    """Confusion matrices of the reference: a row for each operating point, a column per seed."""
    points, seeds = list(results.reference["points"]), results.reference["seeds"]
    width = min(FULL_WIDTH, 0.6 + 1.7 * len(seeds))
    drawing, panels = plt.subplots(
        len(points), len(seeds), figsize=(width, 0.3 + 1.15 * len(points)), sharex=True,
        sharey=True, squeeze=False,
    )  # fmt: skip
    words = map(heading, results.study.data.class_words)
    ticks = [word if len(word) <= 6 else f"{word[:5]}." for word in words]
    for row, point in zip(panels, points, strict=True):
        for axes, (seed, values) in zip(row, seeds.items(), strict=True):
            counts = values["points"][point]["confusion"]
            cells = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]])
            shares = cells / cells.sum(axis=1, keepdims=True)
            text = [[f"{n}\n{100 * s:.1f}%" for n, s in zip(*line, strict=True)]
                    for line in zip(cells, shares, strict=True)]  # fmt: skip
            sns.heatmap(shares, annot=text, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False,
                        ax=axes, xticklabels=ticks, yticklabels=ticks, linewidths=0.5,
                        annot_kws={"size": SMALL})  # fmt: skip
            threshold = values["points"][point]["threshold"]
            axes.set_title(f"Seed {seed}, at {number(threshold, 2)}", size=8)
            axes.tick_params(length=0, labelsize=SMALL)
        row[0].set_ylabel(f"{POINT_NAMES[point]}\nTrue", size=8)
    for axes in panels[-1]:
        axes.set_xlabel("Called", size=8)
    return drawing
