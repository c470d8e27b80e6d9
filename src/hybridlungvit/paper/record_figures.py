"""The figures of the audit and of the checks of the heat maps, apart from what only writes text."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hybridlungvit.config import Study
from hybridlungvit.paper.audit_report import (
    MODEL_NAMES,
    SHIFT_NAMES,
    SHORTCUT_NAMES,
    WAYS,
    Record,
)
from hybridlungvit.paper.explanation import SIMILARITIES, Interval
from hybridlungvit.paper.results import Facts
from hybridlungvit.paper.style import FULL_WIDTH, PALETTE, SMALL

MARKS = dict(zip(WAYS, (("o", PALETTE[1]), ("D", PALETTE[0]), ("s", PALETTE[6])), strict=True))
OF_GRADCAM, OF_CHANCE = PALETTE[2], PALETTE[6]


def saliency_figure(facts: Facts) -> Figure:
    """Left: similarity under cascading randomisation. Right: log-odds as the hottest pixels go."""
    record = facts.saliency
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(FULL_WIDTH, 3.1), width_ratios=[1.5, 1], layout="constrained"
    )
    _sanity(left, record["sanity"])
    _faithfulness(right, record["faithfulness"])
    sns.despine(figure)
    return figure


def _sanity(axes: Axes, sanity: dict[str, Any]) -> None:
    names = ["trained", *(stage["name"] for stage in sanity["stages"])]
    places = range(len(names))
    equal = {"estimate": 1.0, "low": 1.0, "high": 1.0}  # a map and itself
    for (key, label), colour in zip(SIMILARITIES.items(), PALETTE, strict=False):
        values = [equal, *(stage[key] for stage in sanity["stages"])]
        marker = {"rank": "o", "ssim": "s"}[key]
        _band(axes, places, values, colour, label, marker)
        others = sanity["others"][key]["estimate"]
        axes.axhline(others, color=colour, lw=1.4, ls=":")
    axes.plot([], [], color="0.3", lw=1.4, ls=":", label="Two patients' maps, trained")
    axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor", fontsize=SMALL)
    axes.set(ylabel="Similarity to the trained map", xlabel="Randomised down to")
    axes.set_ylim(top=1.04)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def _faithfulness(axes: Axes, record: dict[str, Any]) -> None:
    shares = [0.0, *(100 * share for share in record["removed"])]
    zero = {"estimate": 0.0, "low": 0.0, "high": 0.0}  # nothing removed, nothing changed
    curves = (("gradcam", "Grad-CAM", OF_GRADCAM, "o"), ("random", "Random map", OF_CHANCE, "s"))
    for key, label, colour, marker in curves:
        _band(axes, shares, [zero, *record[key]], colour, label, marker)
    axes.axhline(0, color="0.7", lw=0.6, zorder=0)
    axes.set(xlabel="Hottest pixels removed (%)", ylabel="Change of the log-odds\nof pneumonia")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def _band(axes: Axes, x: Any, values: list[Interval], colour: str, label: str, marker: str) -> None:
    middle, low, high = (
        np.array([value[key] for value in values], float) for key in ("estimate", "low", "high")
    )
    axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(x, middle, marker=marker, ms=3, lw=1.2, color=colour, label=label)


def audit_figure(study: Study, audit: Record, results: Record) -> Figure:
    """Left: what tells class and test set apart. Right: validation by image, by patient, test."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(FULL_WIDTH, 3.1), gridspec_kw={"width_ratios": [1, 1.05]}
    )
    level = f"{100 * study.statistics.level:g}%"
    _predictability(left, audit)
    left.set_xlabel(f"AUC without lungs ({level} CI)")
    _leakage(right, study, audit, results)
    right.set_xlabel(f"AUC ({level} CI)")
    sns.despine(figure)
    return figure


def _predictability(axes: Axes, audit: Record) -> None:
    blocks = (
        ("Class, from", "shortcuts", SHORTCUT_NAMES, PALETTE[2], "v"),
        ("Test set, among", "shift", SHIFT_NAMES, PALETTE[3], "^"),
    )
    ticks, y = [], 0.0
    for title, group, names, colour, marker in blocks:
        ticks.append((y, title, True))
        for key, name in names.items():
            y += 1
            ticks.append((y, name, False))
            if audit[group][key] is not None:
                _whisker(axes, audit[group][key], y, marker, colour)
        y += 1.4
    axes.axvline(0.5, color="0.7", lw=0.6, zorder=0)
    axes.set_yticks([at for at, _, _ in ticks], [text for _, text, _ in ticks])
    for label, (_, _, heading) in zip(axes.get_yticklabels(), ticks, strict=True):
        label.set_fontweight("bold" if heading else "normal")
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()


def _leakage(axes: Axes, study: Study, audit: Record, results: Record) -> None:
    own = study.data.validation_split
    rows = [(name, audit["leakage"][model]) for model, name in MODEL_NAMES.items()]
    reference = {own: results["validation"]["auc"], "test": results["test"]["auc"]}
    rows.append(("Reference\n(trained)", reference))
    for i, (_, values) in enumerate(rows):
        for k, (way, (marker, colour)) in enumerate(MARKS.items()):
            if values.get(way) is not None:
                _whisker(axes, values[way], i + (k - 1) * 0.22, marker, colour)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    names = {"image": "Validation by image", "patient": "Validation by patient", "test": "Test"}
    handles = [
        Line2D([], [], marker=marker, color=colour, ms=4, lw=1.2, label=names[way])
        for way, (marker, colour) in MARKS.items()
    ]
    axes.figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False)


def _whisker(axes: Axes, value: dict[str, float], y: float, marker: str, colour: str) -> None:
    axes.plot([value["low"], value["high"]], [y, y], color=colour, lw=1.2)
    axes.plot(value["estimate"], y, marker, ms=4, color=colour)
