"""The figures of the paper that show no images."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hybridlungvit.config import Study
from hybridlungvit.evaluation.auc import Array
from hybridlungvit.evaluation.paired import POWER, UNDECIDED, components_of
from hybridlungvit.evaluation.power import minimal_detectable_difference
from hybridlungvit.evaluation.predictions import scores_on
from hybridlungvit.evaluation.seeds import crossed_curves
from hybridlungvit.evaluation.temperature import scaled
from hybridlungvit.io import Record
from hybridlungvit.paper.contents import MAKERS, figure
from hybridlungvit.paper.format import (
    POINT_NAMES,
    SHORTCUT_NAMES,
    SIMILARITY_NAMES,
    heading,
    number,
)
from hybridlungvit.paper.results import StudyResults, cut_distances, needs_roc_inset, read_results
from hybridlungvit.paper.style import (
    FULL_WIDTH,
    PALETTE,
    SMALL,
    draw_interval,
    line_of,
    save_figure,
    use_style,
)
from hybridlungvit.paths import Layout

GRID = np.linspace(0, 1, 201)  # of false-positive rates, at which curves are averaged
BAND_RESAMPLES = 1000
POWER_TICKS = (3, 5, 10, 20, 50)
POWER_SEEDS = range(POWER_TICKS[0], POWER_TICKS[-1] + 1)
POINT_MARKERS = {"fixed": "o", "youden": "s", "sensitive": "^"}
MODEL_NAMES = {"logistic": "Pixels,\nlogistic", "neighbours": "Pixels,\nneighbours"}
EVALUATED_ON = {
    "image": ("Validation by image", "o", PALETTE[1]),
    "patient": ("Validation by patient", "D", PALETTE[0]),
    "test": ("Test", "s", PALETTE[6]),
}


def write_figures(study: Study, layout: Layout) -> None:
    """Draw the figures that show no images below ``layout.generated / "figures"``."""
    use_style()
    results = read_results(study, layout)
    for name, draw in MAKERS["figure"].items():
        save_figure(draw(results), layout.generated / "figures" / f"{name}.pdf")


def roc_curves(labels: NDArray[np.int64], scores: Array, weights: Array) -> Array:
    """Sensitivity at the false-positive rates of ``GRID`` for weights (R, N): (R, len(GRID))."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[scores[order][1:] != scores[order][:-1], True])  # of ties
    positives = np.cumsum(weights[:, order] * labels[order], axis=1)[:, ends]
    negatives = np.cumsum(weights[:, order] * (1 - labels[order]), axis=1)[:, ends]
    return np.stack(
        [
            np.interp(GRID, np.r_[0, fp / fp[-1]], np.r_[0, tp / tp[-1]])
            for tp, fp in zip(positives, negatives, strict=True)
        ]
    )


Curves = Callable[[NDArray[np.int64], Array, Array], Array]
"""Of labels (N,), scores (N,) and weights (R, N): curves (R, grid), such as ``roc_curves``."""


def curve_with_band(results: StudyResults, variant: str, curves: Curves) -> tuple[Array, Array]:
    """A variant's mean curve (grid,) over seeds, and its pointwise band (2, grid) over patients and
    seeds."""
    statistics = results.study.statistics
    images, scores = scores_on(results.study, variant, results.layout)
    labels, tail = images.label.to_numpy(), (1 - statistics.level) / 2
    mean, drawn = crossed_curves(
        lambda row, weights: curves(labels, row, weights),
        labels, scores, images.patient.to_numpy(), BAND_RESAMPLES, statistics.seed,
    )  # fmt: skip
    return mean, np.clip(np.quantile(drawn, [tail, 1 - tail], axis=0), 0, 1)


@figure
def roc(results: StudyResults) -> Figure:
    """ROC curves on the test set: single seeds of the reference, their mean and its band over
    patients and seeds; beside them the mean of every variant. Marks are the operating points.

    Where the curves crowd in the upper left corner, that corner is drawn again, enlarged.
    """
    study = results.study
    drawing, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.9), sharex=True, sharey=True)
    drawing.get_layout_engine().set(wspace=0.06)  # the ticks at the ends stay apart
    insets = [_corner(axes) for axes in (left, right)] if needs_roc_inset(results) else []
    for i, (variant, described) in enumerate(study.variants.items()):
        images, scores = scores_on(study, variant, results.layout)
        labels, once = images.label.to_numpy(), np.ones((1, len(images)))
        singles = np.concatenate([roc_curves(labels, row, once) for row in scores])  # (K, grid)
        style = line_of(i) | {"lw": 1.6 if variant == study.reference else 1.0}
        for axes in (right, *insets[1:]):
            axes.plot(GRID, singles.mean(0), label=heading(described.label), **style)
        if variant == study.reference:
            curve = curve_with_band(results, variant, roc_curves)
            for axes in (left, *insets[:1]):
                _draw_reference(results, axes, singles, *curve, style["color"])
            left.set_title(f"{heading(described.label)} (reference)")
    right.set_title("All variants, mean over seeds")
    for axes in (left, right):
        axes.plot([0, 1], [0, 1], color="0.7", lw=0.6, zorder=0)
        axes.set(xlabel="1 − specificity", aspect="equal", xlim=(0, 1), ylim=(0, 1.005))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    left.set_ylabel("Sensitivity")
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


def _draw_reference(
    results: StudyResults, axes: Axes, singles: Array, mean: Array, band: Array, colour: str
) -> None:
    """The reference's curves (K, grid), their mean and band, and the operating points."""
    axes.fill_between(GRID, *band, color=colour, alpha=0.2, lw=0, label=f"{results.level}% band")
    for k, single in enumerate(singles):
        axes.plot(GRID, single, color=colour, lw=0.6, alpha=0.7,
                  label="Single seeds" if k == 0 else None)  # fmt: skip
    axes.plot(GRID, mean, color=colour, lw=1.6, label="Mean over seeds")
    for point, values in results.reference["points"].items():
        specificity, sensitivity = (values[m]["estimate"] for m in ("specificity", "sensitivity"))
        axes.plot(1 - specificity, sensitivity, POINT_MARKERS[point], ms=5, mfc="white", mec="0.1",
                  mew=1, label=POINT_NAMES[point], ls="none", zorder=5)  # fmt: skip


@figure
def forest(results: StudyResults) -> Figure:
    """AUC of every variant with its interval, and the difference from the reference. An interval
    that crosses zero does not distinguish the two; grey: the margin of equivalence."""
    study = results.study
    height = 0.75 + 0.23 * len(study.variants)
    drawing, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, height), sharey=True)
    for y, (variant, record) in enumerate(results.metrics.items()):
        colour = PALETTE[0] if variant == study.reference else "0.25"
        draw_interval(left, record["headline"]["auc"], y, colour)
        singles = [values["auc"]["estimate"] for values in record["seeds"].values()]
        left.plot(singles, [y + 0.28] * len(singles), "o", ms=2.5, mfc="none", mec=colour, mew=0.6)
        if variant in results.differences:
            draw_interval(right, results.differences[variant], y, colour)
    margin = study.statistics.margin
    right.axvspan(-margin, margin, color="0.92", lw=0, zorder=0)
    right.axvline(0, color="0.7", lw=0.6, zorder=1)
    labels = [heading(variant.label) for variant in study.variants.values()]
    left.set_yticks(range(len(labels)), labels)
    left.invert_yaxis()
    left.set_xlabel(f"Test AUC ({results.level}% CI; circles: single seeds)")
    right.set_xlabel(f"AUC minus the reference's ({results.level}% CI)")
    right.locator_params(axis="x", nbins=6)
    sns.despine(drawing)
    sns.despine(ax=right, left=True)
    right.tick_params(left=False)
    left.tick_params(axis="y", length=0)
    return drawing


@figure
def power(results: StudyResults) -> Figure:
    """What the test set can resolve. Left: the least true difference from the reference that these
    patients would show with good power, by number of seeds; grey: the margin of equivalence. Right:
    where the variance of each difference comes from."""
    study, statistics = results.study, results.study.statistics
    named = {
        variant: results.differences[variant]
        for variant in study.variants
        if results.differences.get(variant, {}).get("detectable") is not None
        and components_of(results.differences[variant]).variance > 0  # in the record's digits
    }
    height = 2.3 + 0.07 * len(named)
    drawing, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, height), width_ratios=[1, 1.1])
    order, family = list(study.variants), study.comparison_family()
    for variant, difference in named.items():
        detectable = [
            minimal_detectable_difference(components_of(difference), k, POWER, statistics.level)
            for k in POWER_SEEDS
        ]
        if variant in family or difference["verdict"] == UNDECIDED:
            label = heading(study.variants[variant].label)
            left.plot(POWER_SEEDS, detectable, label=label, **line_of(order.index(variant)))
        else:
            left.plot(POWER_SEEDS, detectable, color="0.7", lw=0.8, zorder=1)
    left.axhline(statistics.margin, color="0.6", lw=0.8, zorder=0)
    left.set_xscale("log")
    left.set_xticks(POWER_TICKS, [str(k) for k in POWER_TICKS])
    left.minorticks_off()
    left.set(xlabel="Seeds of each model", ylabel="Detectable difference in AUC", ylim=(0, None))
    if named:
        drawing.get_layout_engine().set(h_pad=0.06)  # room between axis and legend
        drawing.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        _draw_shares(right, study, named)
    right.set_visible(bool(named))
    sns.despine(drawing)
    return drawing


def _draw_shares(axes: Axes, study: Study, differences: dict[str, Record]) -> None:
    """The parts of the variance of each difference, in percent, as stacked bars."""
    components = [components_of(difference) for difference in differences.values()]
    parts = {
        "Patients": [c.patients for c in components],
        "Patients × seeds": [c.interaction / c.count for c in components],
        "Seeds": [c.seeds / c.count for c in components],
    }
    shares = 100 * np.array(list(parts.values())) / [c.variance for c in components]
    ends = shares.cumsum(axis=0)
    y = range(len(components))
    for name, share, end, colour in zip(parts, shares, ends, (0, 5, 4), strict=True):
        axes.barh(y, share, left=end - share, height=0.7, color=PALETTE[colour], label=name)
    axes.set_yticks(y, [heading(study.variants[v].label) for v in differences])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set(xlabel="Share of the difference's variance (%)", xlim=(0, 100))
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3, fontsize=SMALL,
                handlelength=1, columnspacing=1)  # fmt: skip


@figure
def dose_response(results: StudyResults) -> Figure:
    """Difference from the reference of the variants that move the cut and change nothing else, by
    how far it moves on test images; grey: the margin of equivalence."""
    study, distances = results.study, cut_distances(results)
    drawing, axes = plt.subplots(figsize=(FULL_WIDTH, 2.4))
    axes.axhspan(-study.statistics.margin, study.statistics.margin, color="0.92", lw=0, zorder=0)
    axes.axhline(0, color="0.7", lw=0.6, zorder=1)
    known = [distance for distance in distances.values() if distance is not None]
    nowhere = 1.25 * max(known, default=1.0)
    shifted = [(0.0, 0.0)]
    markers = cycle("sD^vP")
    for variant, distance in distances.items():
        difference = results.differences[variant]
        x = nowhere if distance is None else distance
        bounds = [difference["low"], difference["high"]]
        if study.recipe(variant).model.cut_shift:
            shifted.append((x, difference["estimate"]))
            axes.plot([x, x], bounds, lw=1.2, color=PALETTE[0])
        else:
            label = heading(study.variants[variant].label)
            axes.plot([x, x], bounds, lw=1.2, color="0.25")
            axes.plot(x, difference["estimate"], next(markers), ms=5, color="0.25", label=label)
    axes.plot(*zip(*sorted(shifted), strict=True), color=PALETTE[0], lw=1, ls="--", marker="o",
              ms=5, label="Cut shifted")  # fmt: skip
    if None in distances.values():
        ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= max(known, default=0)]
        axes.set_xticks([*ticks, nowhere], [*(f"{tick:g}" for tick in ticks), "no cut"])
    axes.set(ylabel="AUC minus the reference's", xlabel="Mean distance of the cut (% of the width)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(drawing)
    return drawing


@figure
def reliability(results: StudyResults) -> Figure:
    """Share with pneumonia in bins of equal mass against the predicted probability, before and
    after temperature scaling; below it how often each probability is predicted, by class."""
    study, record = results.study, results.reference["calibration"]
    images, scores = scores_on(study, study.reference, results.layout)
    temperatures = [record["temperatures"][str(seed)] for seed in study.seeds]
    drawing, panels = plt.subplots(
        2, 2, figsize=(FULL_WIDTH, 3.4), sharex=True, sharey="row", height_ratios=[3, 1]
    )
    for (axes, below), state in zip(panels.T, ("before", "after"), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", lw=0.6, zorder=0)
        bins = [b for b in record[state]["bins"] if b["estimate"] is not None]
        for b in bins:
            if b["low"] is not None:
                axes.plot([b["predicted"]] * 2, [b["low"], b["high"]], color=PALETTE[0], lw=1)
        axes.plot([b["predicted"] for b in bins], [b["estimate"] for b in bins], "o-", ms=3.5,
                  color=PALETTE[0], lw=0.8)  # fmt: skip
        ece, slope = (record[state]["headline"][name]["estimate"] for name in ("ece", "slope"))
        title = f"{heading(state)} scaling: ECE {number(ece)}, slope {number(slope, 2)}"
        axes.set(title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        shown = scores
        if state == "after":
            shown = np.stack([scaled(*pair) for pair in zip(scores, temperatures, strict=True)])
        by_class = [shown[:, images.label.to_numpy() == label].ravel() for label in (0, 1)]
        below.hist(
            by_class, bins=np.linspace(0, 1, 26), stacked=True, color=[PALETTE[5], PALETTE[1]],
            weights=[np.full(part.size, 100 / shown.size) for part in by_class],
            label=[heading(word) for word in study.data.class_words],
        )  # fmt: skip
        below.set(xlabel="Predicted probability")
    panels[0, 0].set_ylabel(f"Share with {study.data.class_words[1]}")
    panels[1, 0].set_ylabel("Images (%)")
    panels[1, 0].legend(loc="upper center")
    drawing.align_ylabels(panels[:, 0])
    sns.despine(drawing)
    return drawing


@figure
def curves(results: StudyResults) -> Figure:
    """Training loss and validation AUC by epoch: the mean over seeds, single seeds faint."""
    study = results.study
    drawing, panels = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.9), sharex=True)
    for i, variant in enumerate(study.variants):
        if variant not in study.trained_variants():
            continue
        runs = [results.histories[variant, seed].set_index("epoch") for seed in study.seeds]
        style = line_of(i)
        for axes, column in zip(panels, ("classification", "val_auc"), strict=True):
            for run in runs:
                axes.plot(run.index, run[column], lw=0.5, alpha=0.35, color=style["color"])
            mean = pd.concat([run[column] for run in runs], axis=1).dropna().mean(axis=1)
            axes.plot(mean.index, mean, label=heading(study.variants[variant].label), **style)
    panels[0].set(xlabel="Epoch", ylabel="Training loss")
    low, high = panels[0].get_ylim()
    if low <= 0 or high > 5 * low:  # one variant's loss would press the others to the bottom
        panels[0].set_yscale("log")
    panels[1].set(xlabel="Epoch", ylabel="Validation AUC")
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    sns.despine(drawing)
    return drawing


@figure
def saliency(results: StudyResults) -> Figure:
    """Whether Grad-CAM depends on the training, and whether the hottest pixels carry the call.

    Left: similarity under cascading randomisation. Right: log-odds as the hottest pixels go.
    """
    drawing, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.9), width_ratios=[1.5, 1])
    _draw_sanity(left, results.saliency["sanity"])
    positive = results.study.data.class_words[1]
    _draw_faithfulness(right, results.saliency["faithfulness"], positive)
    for axes in (left, right):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    sns.despine(drawing)
    return drawing


def _draw_sanity(axes: Axes, sanity: dict[str, Any]) -> None:
    names = ["trained", *(stage["name"] for stage in sanity["stages"])]
    markers = {"rank": "o", "ssim": "s"}
    for (key, label), colour in zip(SIMILARITY_NAMES.items(), PALETTE, strict=False):
        # A map equals itself.
        values = [_exactly(1), *(stage[key] for stage in sanity["stages"])]
        _draw_band(axes, range(len(names)), values, colour, label, markers[key])
        axes.axhline(sanity["others"][key]["estimate"], color=colour, lw=1.4, ls=":")
    axes.plot([], [], color="0.3", lw=1.4, ls=":", label="Two patients' maps, trained")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=SMALL)
    axes.set(ylabel="Similarity to the trained map", xlabel="Randomised down to")
    axes.set_ylim(top=1.04)


def _draw_faithfulness(axes: Axes, record: dict[str, Any], positive: str) -> None:
    shares = [0.0, *(100 * share for share in record["removed"])]
    for key, label, colour, marker in (
        ("gradcam", "Grad-CAM", PALETTE[2], "o"), ("random", "Random map", PALETTE[6], "s"),
    ):  # fmt: skip
        # Where nothing is removed, nothing changes.
        _draw_band(axes, shares, [_exactly(0), *record[key]], colour, label, marker)
    axes.axhline(0, color="0.7", lw=0.6, zorder=0)
    axes.set(xlabel="Hottest pixels removed (%)", ylabel=f"Change of the log-odds\nof {positive}")


def _exactly(value: float) -> dict[str, Any]:
    return dict.fromkeys(("estimate", "low", "high"), value)


def _draw_band(
    axes: Axes, x: Any, values: list[dict[str, Any]], colour: str, label: str, marker: str
) -> None:
    middle, low, high = (
        np.array([value[key] for value in values], float) for key in ("estimate", "low", "high")
    )
    axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(x, middle, marker=marker, ms=3, lw=1.2, color=colour, label=label)


@figure
def audit(results: StudyResults) -> Figure:
    """What tells class and test set apart without a look into the lungs, and what validation by
    image would flatter."""
    drawing, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.7), width_ratios=[1, 1.05])
    _draw_predictability(left, results)
    _draw_leakage(right, results)
    for axes in (left, right):
        axes.set_xlabel(f"AUC ({results.level}% CI)")
        axes.tick_params(axis="y", length=0)
    sns.despine(drawing)
    return drawing


def _draw_predictability(axes: Axes, results: StudyResults) -> None:
    record, ticks, y = results.audit, [], 0.0
    for title, group, names, colour, marker in (
        ("Class, from", "shortcuts", SHORTCUT_NAMES, PALETTE[2], "v"),
        ("Test set, among", "shift", results.shift_names, PALETTE[3], "^"),
    ):
        ticks.append((y, title, "bold"))
        for key, name in names.items():
            alone = key == "file" and not {"size", "aspect"} & set(record["shortcuts"])
            if record[group].get(key) is not None and not alone:
                y += 1
                ticks.append((y, name, "normal"))
                draw_interval(axes, record[group][key], y, colour, marker)
        y += 1.4
    axes.axvline(0.5, color="0.7", lw=0.6, zorder=0)
    axes.set_yticks([at for at, _, _ in ticks], [text for _, text, _ in ticks])
    for label, (_, _, weight) in zip(axes.get_yticklabels(), ticks, strict=True):
        label.set_fontweight(weight)
    axes.invert_yaxis()


def _draw_leakage(axes: Axes, results: StudyResults) -> None:
    rows = [(name, results.audit["leakage"][model]) for model, name in MODEL_NAMES.items()]
    trained = {"test": results.audit_results["test"]["auc"]}
    trained[results.study.data.validation_split] = results.audit_results["validation"]["auc"]
    rows.append(("Reference\n(trained)", trained))
    for i, (_, values) in enumerate(rows):
        for k, (way, (_, marker, colour)) in enumerate(EVALUATED_ON.items()):
            if values.get(way) is not None:
                draw_interval(axes, values[way], i + (k - 1) * 0.22, colour, marker)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    handles = [
        Line2D([], [], marker=marker, color=colour, ms=4, lw=1.2, label=label)
        for label, marker, colour in EVALUATED_ON.values()
    ]
    axes.figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False)
