"""The figures of the paper; those of ROC, forest and training curves are drawn here."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hybridlungvit.config import Study
from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.predictions import scores_on
from hybridlungvit.paths import Layout
from hybridlungvit.paper.audit_report import audit_records
from hybridlungvit.paper.results import Facts, crowded, gather, heading
from hybridlungvit.paper.record_figures import audit_figure, saliency_figure
from hybridlungvit.paper.statistics_figures import (
    GRID,
    confusion,
    draw_band,
    draw_points,
    legend_below,
    precision_recall,
    reliability,
    seeds,
)
from hybridlungvit.paper.style import (
    COLUMN_WIDTH,
    FULL_WIDTH,
    PALETTE,
    SMALL,
    line_of,
    save_figure,
    use_style,
)


def write_figures(study: Study, layout: Layout) -> None:
    """Draw the figures that show no images below ``layout.generated / "figures"``."""
    use_style()
    facts = gather(study, layout)
    folder = layout.generated / "figures"
    save_figure(roc(facts, layout), folder / "roc.pdf")
    save_figure(precision_recall(facts, layout), folder / "precision_recall.pdf")
    save_figure(forest(facts), folder / "forest.pdf")
    save_figure(seeds(facts), folder / "seeds.pdf")
    save_figure(reliability(facts), folder / "reliability.pdf")
    save_figure(curves(facts), folder / "curves.pdf")
    save_figure(confusion(facts), folder / "confusion.pdf")
    save_figure(saliency_figure(facts), folder / "saliency.pdf")
    save_figure(audit_figure(study, *audit_records(study, layout)), folder / "audit.pdf")


def roc_curves(labels: NDArray[np.int64], scores: Array, weights: Array) -> Array:
    """Sensitivity at the false-positive rates of ``GRID`` for weights (R, N): (R, len(GRID))."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.r_[scores[order][1:] != scores[order][:-1], True])  # ends of ties
    hits = np.cumsum(weights[:, order] * labels[order], axis=1)[:, last]
    alarms = np.cumsum(weights[:, order] * (1 - labels[order]), axis=1)[:, last]
    rows = [
        np.interp(GRID, np.r_[0, a / a[-1]], np.r_[0, h / h[-1]])
        for h, a in zip(hits, alarms, strict=True)
    ]
    return np.stack(rows)


def roc(facts: Facts, layout: Layout) -> Figure:
    """Left: the reference's seeds and their crossed band. Right: each variant's mean curve.

    Where the curves crowd in the upper left corner, that corner is drawn again, enlarged.
    """
    study = facts.study
    figure, panels = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.75), sharex=True, sharey=True)
    insets = [_corner(axes) for axes in panels] if crowded(facts) else []
    lefts, rights = zip(panels, *([insets] if insets else []), strict=True)
    for i, (variant, described) in enumerate(study.variants.items()):
        table, scores = scores_on(study, variant, layout)
        labels = table.label.to_numpy()
        once = np.ones((1, len(labels)))
        curves = np.concatenate([roc_curves(labels, row, once) for row in scores])  # (K, grid)
        main = variant == study.reference
        style = line_of(i) | {"lw": 1.6 if main else 1.0, "label": heading(described.label)}
        for axes in rights:
            axes.plot(GRID, curves.mean(0), **style)
        if main:
            for axes in lefts:
                draw_band(facts, axes, table, scores, roc_curves, PALETTE[i % len(PALETTE)])
                draw_points(facts, axes, "specificity", "sensitivity", flip=True)
            panels[0].set_title(f"{heading(described.label)} (reference)")
    panels[1].set_title("All variants, mean over seeds")
    for axes in panels:
        axes.plot([0, 1], [0, 1], color="0.7", lw=0.6, zorder=0)
        axes.set(xlabel="1 − specificity", aspect="equal", xlim=(0, 1), ylim=(0, 1.005))
        legend_below(axes)
    panels[0].set_ylabel("Sensitivity")
    sns.despine(figure)
    for axes in insets:
        sns.despine(ax=axes, top=False, right=False)
    return figure


def _corner(axes: Axes) -> Axes:
    """An inset that shows the upper left corner of a ROC panel, enlarged."""
    inset = axes.inset_axes((0.4, 0.1, 0.57, 0.57), xlim=(0, 0.3), ylim=(0.7, 1.0))
    inset.set(xticks=(0, 0.1, 0.2, 0.3), yticks=(0.7, 0.8, 0.9, 1.0), facecolor="white")
    inset.tick_params(labelsize=SMALL, length=2)
    axes.indicate_inset_zoom(inset, edgecolor="0.5", lw=0.6, alpha=1)
    return inset


def forest(facts: Facts) -> Figure:
    """AUC of each variant with its seeds, and the paired difference to the reference."""
    study = facts.study
    names = list(study.variants)
    height = 0.75 + 0.27 * len(names)
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, height), sharey=True)
    for y, variant in enumerate(names):
        record, difference = facts.metrics[variant], facts.differences.get(variant)
        colour = PALETTE[0] if variant == study.reference else "0.25"
        _whisker(left, record["headline"]["auc"], y, colour)
        singles = [values["auc"]["estimate"] for values in record["seeds"].values()]
        left.plot(singles, [y + 0.28] * len(singles), "o", ms=2.5, mfc="none", mec=colour, mew=0.6)
        if difference is not None:
            _whisker(right, difference, y, colour)
    right.axvline(0, color="0.7", lw=0.6, zorder=0)
    left.set_yticks(range(len(names)), [heading(study.variants[v].label) for v in names])
    left.invert_yaxis()
    level = f"{100 * study.statistics.level:g}%"
    left.set_xlabel(f"Test AUC ({level} CI; circles: single seeds)")
    right.set_xlabel(f"AUC minus the reference's ({level} CI)")
    right.locator_params(axis="x", nbins=6)
    sns.despine(figure)
    sns.despine(ax=right, left=True)
    right.tick_params(left=False)
    left.tick_params(axis="y", length=0)
    return figure


def _whisker(axes: Axes, interval: dict[str, float], y: float, colour: str) -> None:
    axes.plot([interval["low"], interval["high"]], [y, y], color=colour, lw=1.2)
    axes.plot(interval["estimate"], y, "D", ms=4, color=colour)


def curves(facts: Facts) -> Figure:
    """Training loss above validation AUC by epoch: the mean over seeds, single seeds faint."""
    study = facts.study
    figure, panels = plt.subplots(2, 1, figsize=(COLUMN_WIDTH, 4.1), sharex=True)
    for i, variant in enumerate(study.variants):
        if variant not in study.trained_variants():
            continue
        runs = [facts.histories[variant, seed].set_index("epoch") for seed in study.seeds]
        style = line_of(i)
        for axes, column in zip(panels, ("classification", "val_auc"), strict=True):
            for run in runs:
                axes.plot(run.index, run[column], lw=0.5, alpha=0.35, color=style["color"])
            mean = pd.concat([run[column] for run in runs], axis=1).dropna().mean(axis=1)
            axes.plot(mean.index, mean, label=heading(study.variants[variant].label), **style)
    panels[0].set(ylabel="Training loss")
    panels[1].set(xlabel="Epoch", ylabel="Validation AUC")
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2)
    figure.align_ylabels(panels)
    sns.despine(figure)
    return figure
