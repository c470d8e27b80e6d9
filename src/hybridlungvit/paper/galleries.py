"""The figures of the paper that show images: lung masks and Grad-CAM."""

import zlib
from pathlib import Path
from textwrap import fill
from zipfile import BadZipFile

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hybridlungvit.config import Study
from hybridlungvit.explain.cases import other_variants
from hybridlungvit.io import StudyError
from hybridlungvit.paper.contents import MAKERS, gallery
from hybridlungvit.paper.format import heading
from hybridlungvit.paper.style import FULL_WIDTH, SMALL, save_figure, use_style
from hybridlungvit.paths import Layout

OUTLINE = "#56B4E9"
CUT = "#E69F00"


def write_galleries(study: Study, layout: Layout) -> None:
    """Draw the figures that show images below ``layout.generated / "figures"``."""
    use_style()
    for name, draw in MAKERS["gallery"].items():
        save_figure(draw(study, layout), layout.generated / "figures" / f"{name}.pdf")


def read_cases(path: Path) -> dict[str, NDArray]:
    """Load an npz of images and their annotations, arrays only."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise StudyError(f"{path}: cannot be read ({error}). Run its stage again.") from error


@gallery
def gradcam(study: Study, layout: Layout) -> Figure:
    """Grad-CAM of the reference and of the other trained variants, and the reference's attention
    where it has one, for test images chosen by a fixed rule. The maps illustrate; the manuscript
    tests what they are worth."""
    cases = read_cases(layout.gradcam(study.reference))
    layers = {"Grad-CAM": cases["heat"].astype(float)}
    if "attention" in cases:
        peak = cases["attention"].max(axis=(1, 2), keepdims=True)
        layers["Attention"] = cases["attention"] / peak
    for other in other_variants(study, study.reference):
        layers[heading(study.variants[other].label)] = cases[f"heat of {other}"].astype(float)
    words = study.data.class_words
    count, rows = len(cases["rule"]), 1 + len(layers)
    # Inches: beside the panels stand names and the colour bar, and a page has room for no more.
    side = min((FULL_WIDTH - 1.4) / count, 7.5 / rows)
    size = (FULL_WIDTH, rows * side + 0.55)
    figure, panels = plt.subplots(rows, count, figsize=size, squeeze=False)
    for i, column in enumerate(panels.T):
        _show(column[0], cases["images"][i], cases["masks"][i], cases["cuts"][i])
        name = heading(words[cases["label"][i]])
        probability = f"P = {cases['probability'][i]:.2f}"
        rule = fill(str(cases["rule"][i]), 13)
        column[0].set_title(f"{name}:\n{rule}\n{probability}", fontsize=SMALL)
        for axes, heat in zip(column[1:], layers.values(), strict=True):
            shown = _overlay(axes, cases["images"][i], heat[i])
    bar = figure.colorbar(shown, ax=panels, fraction=0.02, pad=0.01, ticks=(0, 0.5, 1))
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label("Share of the map's peak", fontsize=SMALL)
    for axes, name in zip(panels[:, 0], ("Image, mask", *layers), strict=True):
        axes.text(-0.06, 0.5, name, ha="right", va="center", fontsize=SMALL,
                  transform=axes.transAxes)  # fmt: skip
    if "attention" in cases:
        for axes, cut in zip(panels[2], cases["cuts"], strict=True):
            axes.axvline(cut, color=CUT, lw=0.8, ls="--")
    return figure


@gallery
def masks(study: Study, layout: Layout) -> Figure:
    """Lung masks of training images at the lowest, median and highest mask confidence of each
    class. Dashed: the cut."""
    cases = read_cases(layout.mask_examples)
    count = len(cases["rule"])
    figure, panels = plt.subplots(1, count, figsize=(FULL_WIDTH, FULL_WIDTH / count + 0.45))
    for i, axes in enumerate(panels):
        _show(axes, cases["images"][i], cases["masks"][i], cases["cuts"][i])
        name = heading(study.data.class_words[cases["label"][i]])
        sure = f" ({cases['confidence'][i]:.2f})" if study.data.masks is None else ""
        axes.set_title(f"{name}\n{cases['rule'][i]}{sure}", fontsize=SMALL)
    return figure


@gallery
def mask_steps(study: Study, layout: Layout) -> Figure:
    """The steps from an image to its lung mask and its cut."""
    cases = read_cases(layout.mask_examples)
    figure, panels = plt.subplots(1, 5, figsize=(FULL_WIDTH, FULL_WIDTH / 5 + 0.4))
    image = cases["steps_image"]
    pictures = (image, cases["steps_working"], cases["steps_edges"], cases["steps_working"], image)
    titles = ("Image", "Working image", "Edge strength", "Start, final outline", "Mask and cut")
    for axes, picture, title in zip(panels, pictures, titles, strict=True):
        axes.imshow(picture, cmap="gray", extent=(0, 1, 1, 0), aspect="auto")
        axes.set_box_aspect(1)  # the working image is square, whatever the image
        axes.set_title(title, fontsize=SMALL)
        axes.set_axis_off()
    for name, colour, dashes in (("start", CUT, "--"), ("fitted", OUTLINE, "-")):
        for lung in cases[f"steps_{name}"]:
            panels[3].plot(*np.vstack([lung, lung[:1]]).T, dashes, color=colour, lw=0.8)
    _contour(panels[4], cases["steps_mask"], OUTLINE)
    panels[4].axvline(float(cases["steps_cut"]), color=CUT, lw=0.8, ls="--")
    return figure


def _overlay(axes: Axes, image: NDArray, heat: NDArray) -> ScalarMappable:
    """Heat in [0, 1] over its image; its opacity follows it, so that cold places show unchanged.

    Returns the scale of the colours.
    """
    extent = (0, len(image), len(image), 0)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent)
    axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.7 * heat, extent=extent)
    axes.set_axis_off()
    return ScalarMappable(Normalize(0, 1), "inferno")


def _show(axes: Axes, image: NDArray, mask: NDArray, cut: float) -> None:
    """Image with the lung outline and the cut; coordinates run from 0 to the side in pixels."""
    side = len(image)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(0, side, side, 0))
    if mask.any() and not mask.all():
        _contour(axes, mask, OUTLINE, side)
    axes.axvline(cut, color=CUT, lw=0.8, ls="--")
    axes.set_axis_off()


def _contour(axes: Axes, mask: NDArray, colour: str, length: float = 1) -> None:
    """Outline of a mask (H, W) on axes that run from 0 to a length."""
    y, x = ((np.arange(side) + 0.5) / side * length for side in mask.shape)
    axes.contour(x, y, mask.astype(float), [0.5], colors=colour, linewidths=0.8)
