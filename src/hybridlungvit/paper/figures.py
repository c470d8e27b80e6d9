"""The figures of training, heat maps and the audit, and the drawing of all figures."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hybridlungvit.config import Study
from hybridlungvit.paper import result_figures  # noqa: F401
from hybridlungvit.paper.contents import MAKERS, figure
from hybridlungvit.paper.format import SHORTCUT_NAMES, SIMILARITY_NAMES, heading
from hybridlungvit.paper.results import StudyResults, read_results
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
    panels[1].set(xlabel="Epoch", ylabel="Validation AUC")
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    handles, names = panels[0].get_legend_handles_labels()
    drawing.legend(handles, names, loc="outside upper center", ncols=4)
    sns.despine(drawing)
    return drawing


@figure
def saliency(results: StudyResults) -> Figure:
    """Whether Grad-CAM depends on the training, and whether the hottest pixels carry the call.

    Left: similarity under cascading randomisation. Right: log-odds as the hottest pixels go.
    """
    drawing, (left, right) = plt.subplots(
        1, 2, figsize=(FULL_WIDTH, 2.9), width_ratios=[1.5, 1], layout="constrained"
    )
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
    drawing, (left, right) = plt.subplots(
        1, 2, figsize=(FULL_WIDTH, 3.1), gridspec_kw={"width_ratios": [1, 1.05]}
    )
    _draw_predictability(left, results)
    left.set_xlabel(f"AUC without lungs ({results.level}% CI)")
    _draw_leakage(right, results)
    right.set_xlabel(f"AUC ({results.level}% CI)")
    for axes in (left, right):
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
