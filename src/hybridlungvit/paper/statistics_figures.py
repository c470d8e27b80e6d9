"""Figures of results beyond the ROC: precision–recall, seeds, reliability, confusion matrices."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.predictions import scores_on
from hybridlungvit.evaluation.seeds import crossed_curves
from hybridlungvit.paths import Layout
from hybridlungvit.paper.results import Facts, heading, number
from hybridlungvit.paper.statistics_tables import POINTS
from hybridlungvit.paper.style import COLUMN_WIDTH, FULL_WIDTH, PALETTE, SMALL, line_of

GRID = np.linspace(0, 1, 201)  # recalls at which curves are averaged
BAND_RESAMPLES = 1000
MARKERS = {"fixed": "o", "youden": "s", "sensitive": "^"}


def precision_curves(labels: NDArray[np.int64], scores: Array, weights: Array) -> Array:
    """Precision at the recalls of ``GRID`` for weights (R, N): (R, len(GRID)).

    At each recall the precision of the highest threshold that reaches it, without interpolation;
    at zero that of the highest score.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.r_[scores[order][1:] != scores[order][:-1], True])  # ends of ties
    hits = np.cumsum(weights[:, order] * labels[order], axis=1)[:, last]
    called = np.cumsum(weights[:, order], axis=1)[:, last]
    rows = []
    for h, c in zip(hits, called, strict=True):
        drawn = c > 0
        recall, precision = h[drawn] / h[-1], h[drawn] / c[drawn]
        rows.append(precision[np.searchsorted(recall, GRID - 1e-12)])
    return np.stack(rows)


def precision_recall(facts: Facts, layout: Layout) -> Figure:
    """Left: the reference's band and operating points. Right: each variant's mean curve."""
    study = facts.study
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.3), sharex=True, sharey=True)
    for i, (variant, described) in enumerate(study.variants.items()):
        table, scores = scores_on(study, variant, layout)
        labels, once = table.label.to_numpy(), np.ones((1, len(table)))
        mean = np.mean([precision_curves(labels, row, once)[0] for row in scores], axis=0)
        main = variant == study.reference
        style = line_of(i) | {"lw": 1.6 if main else 1.0, "label": heading(described.label)}
        right.plot(GRID, mean, **style)
        if main:
            draw_band(facts, left, table, scores, precision_curves, PALETTE[i % len(PALETTE)])
            draw_points(facts, left, "sensitivity", "ppv")
            left.set_title(f"{heading(described.label)} (reference)")
            share = labels.mean()
    for axes in (left, right):
        axes.axhline(share, color="0.7", lw=0.6, zorder=0)
        axes.set(xlabel="Recall (sensitivity)", xlim=(0, 1.01), ylim=(None, 1.005))
        legend_below(axes)
    left.set_ylabel("Precision (PPV)")
    right.set_title("All variants, mean over seeds")
    sns.despine(figure)
    return figure


def legend_below(axes: Axes) -> None:
    """A legend in two columns below the axis, where no curve runs."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def draw_band(facts: Facts, axes: Axes, table, scores: Array, curves, colour: str) -> None:
    """A mean curve over seeds with its pointwise band over patients and seeds."""
    statistics = facts.study.statistics
    labels = table.label.to_numpy()
    mean, drawn = crossed_curves(
        lambda row, weights: curves(labels, row, weights),
        labels, scores, table.patient.to_numpy(), BAND_RESAMPLES, statistics.seed,
    )  # fmt: skip
    tail = (1 - statistics.level) / 2
    low, high = np.clip(np.quantile(drawn, [tail, 1 - tail], axis=0), 0, 1)
    label = f"{100 * statistics.level:g}% band"
    axes.fill_between(GRID, low, high, color=colour, alpha=0.2, lw=0, label=label)
    once = np.ones((1, len(labels)))
    for k, row in enumerate(scores):
        single = curves(labels, row, once)[0]
        axes.plot(GRID, single, color=colour, lw=0.6, alpha=0.7,
                  label="Single seeds" if k == 0 else None)  # fmt: skip
    axes.plot(GRID, mean, color=colour, lw=1.6, label="Mean over seeds")


def draw_points(facts: Facts, axes: Axes, x: str, y: str, flip: bool = False) -> None:
    """The reference's operating points, mean over seeds; ``flip`` plots 1 − x."""
    for point, found in facts.metrics[facts.study.reference]["points"].items():
        a, b = found[x]["estimate"], found[y]["estimate"]
        if a is None or b is None:  # a predictive value without calls
            continue
        axes.plot(1 - a if flip else a, b, MARKERS[point], ms=5, mfc="white", mec="0.1", mew=1,
                  label=POINTS[point], ls="none", zorder=5)  # fmt: skip


def seeds(facts: Facts) -> Figure:
    """AUC of every seed with its patient interval, the mean over seeds, and the ensemble."""
    study = facts.study
    height = 1.0 + 0.44 * len(study.variants)
    figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, height))
    for y, (variant, record) in enumerate(facts.metrics.items()):
        colour = PALETTE[0] if variant == study.reference else "0.25"
        count = len(record["seeds"])
        for k, found in enumerate(record["seeds"].values()):
            auc, place = found["auc"], y + (0.5 * (k + 0.5) / count - 0.25)
            axes.plot([auc["low"], auc["high"]], [place, place], color=colour, lw=0.6, alpha=0.6)
            axes.plot(auc["estimate"], place, "o", ms=3, mfc="white", mec=colour, mew=0.8,
                      label="Single seed" if y == k == 0 else None)  # fmt: skip
        mean = record["headline"]["auc"]["estimate"]
        axes.plot([mean, mean], [y - 0.32, y + 0.32], color=colour, lw=1.4,
                  label="Mean over seeds" if y == 0 else None)  # fmt: skip
        axes.plot(record["ensemble"]["auc"]["estimate"], y, "D", ms=4.5, color=PALETTE[1],
                  label="Ensemble" if y == 0 else None, zorder=4)  # fmt: skip
    labels = [heading(v.label) for v in study.variants.values()]
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("Test AUC")
    figure.legend(loc="outside upper center", ncols=2)
    sns.despine(figure)
    return figure


def reliability(facts: Facts) -> Figure:
    """Observed share of pneumonia by predicted probability, before and after scaling."""
    record = facts.metrics[facts.study.reference]["calibration"]
    figure, panels = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.75), sharex=True, sharey=True)
    titles = {"before": "Before scaling", "after": "After scaling"}
    for axes, (state, title) in zip(panels, titles.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", lw=0.6, zorder=0)
        bins = [b for b in record[state]["bins"] if b["estimate"] is not None]
        for one in bins:
            if one["low"] is not None:
                axes.plot([one["predicted"]] * 2, [one["low"], one["high"]], color=PALETTE[0], lw=1)
        axes.plot([b["predicted"] for b in bins], [b["estimate"] for b in bins], "o-", ms=3.5,
                  color=PALETTE[0], lw=0.8)  # fmt: skip
        found = record[state]["headline"]
        error = number(found["ece"]["estimate"])
        axes.set(title=f"{title}: ECE {error}, slope {number(found['slope']['estimate'], 2)}",
                 xlabel="Predicted probability", aspect="equal", xlim=(-0.02, 1.02),
                 ylim=(-0.02, 1.02))  # fmt: skip
    panels[0].set_ylabel("Share with pneumonia")
    sns.despine(figure)
    return figure


def confusion(facts: Facts) -> Figure:
    """Confusion matrices of the reference: a row for each operating point, a column per seed."""
    record = facts.metrics[facts.study.reference]
    found, names = record["seeds"], list(record["points"])
    width = min(FULL_WIDTH, 0.6 + 1.7 * len(found))
    figure, panels = plt.subplots(
        len(names), len(found), figsize=(width, 0.3 + 1.15 * len(names)), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for row, point in zip(panels, names, strict=True):
        for axes, (seed, values) in zip(row, found.items(), strict=True):
            here = values["points"][point]
            c = here["confusion"]
            cells = np.array([[c["tn"], c["fp"]], [c["fn"], c["tp"]]])
            shares = cells / cells.sum(axis=1, keepdims=True)
            text = [[f"{n}\n{100 * s:.1f}%" for n, s in zip(*line, strict=True)]
                    for line in zip(cells, shares, strict=True)]  # fmt: skip
            ticks = ["Normal", "Pneum."]
            sns.heatmap(shares, annot=text, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False,
                        ax=axes, xticklabels=ticks, yticklabels=ticks, linewidths=0.5,
                        annot_kws={"size": SMALL})  # fmt: skip
            axes.set_title(f"Seed {seed}, at {number(here['threshold'], 2)}", size=8)
            axes.tick_params(length=0, labelsize=SMALL)
        row[0].set_ylabel(f"{POINTS[point]}\nTrue", size=8)
    for axes in panels[-1]:
        axes.set_xlabel("Called", size=8)
    return figure
