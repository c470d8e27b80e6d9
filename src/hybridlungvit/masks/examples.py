"""Example images with their masks for figures: chosen by a rule, never by eye."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlungvit.config import Study
from hybridlungvit.data.cache import MASK_DETAIL, open_cache
from hybridlungvit.data.decode import read_grey
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.io import read_table, replacing
from hybridlungvit.masks.annotated import Case, generator, read_image, read_lungs
from hybridlungvit.masks.fit import lung_mask_steps, mean_x
from hybridlungvit.paths import Layout

BY_CONFIDENCE = {"least confident": 0.0, "median": 0.5, "most confident": 1.0}
BY_NAME = {"first": 0.0, "middle": 0.5, "last": 1.0}  # where confidence tells no mask from another
BY_DICE = {"best": 1.0, "median": 0.5, "worst": 0.0}
STEPS = 4  # of the six examples, the one whose steps are shown: pneumonia, median confidence


def at_quantiles(
    values: pd.Series, labels: pd.Series, quantiles: dict[str, float]
) -> list[tuple[int, str]]:
    """For each class, the image at each quantile of ``values``: (index label, quantile's name).

    Ties go to the earlier image.
    """
    chosen = []
    for label in (0, 1):
        ranked = values[labels[values.index] == label].sort_values(kind="stable").index
        chosen += [(int(ranked[int(q * (len(ranked) - 1))]), name) for name, q in quantiles.items()]
    return chosen


def write_examples(root: Path, study: Study, layout: Layout) -> None:
    """Write training images with masks and cuts, and the steps to one of the masks, as one npz.

    ``root`` is the folder with the images: the cached ones may be too small to show the steps.
    """
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, study.data.image_size)
    table = read_table(layout.mask_table, ("path", "confidence", "cut"))
    confidence = table.confidence[manifest.split == "train"]
    places = BY_CONFIDENCE if study.data.masks is None else BY_NAME
    rows, rules = zip(*at_quantiles(confidence, manifest.label, places), strict=True)
    index = list(rows)
    with replacing(layout.mask_examples) as temporary:
        np.savez_compressed(
            temporary,
            images=cache.images[index],
            masks=cache.masks(index),
            cuts=table.cut.to_numpy()[index] * study.data.image_size,
            confidence=table.confidence.to_numpy()[index],
            label=manifest.label.to_numpy()[index],
            rule=np.array(rules),
            **mask_steps(root / manifest.path[index[STEPS]], study.data.image_size),
        )


def mask_steps(path: Path, side: int) -> dict[str, NDArray]:
    """The image, in its own shape, each step to its mask by name (see MaskSteps), and the cut."""
    image = read_grey(path, max(side, MASK_DETAIL))
    steps = lung_mask_steps(image)
    return {
        "steps_image": image,
        "steps_working": steps.working,
        "steps_edges": steps.edges,
        "steps_start": steps.start,
        "steps_fitted": steps.fitted,
        "steps_mask": steps.result.mask,
        "steps_cut": np.array(mean_x(steps.result.mask)),
    }


def save_annotation_gallery(cases: list[Case], images: pd.DataFrame, output: Path) -> None:
    """Draw the cases of best, median and worst Dice to gallery.pdf and gallery.png in ``output``.

    ``images`` are the rows of ``measure`` for ``cases``.
    """
    from hybridlungvit.paper.galleries import annotation_gallery  # Matplotlib takes long to import
    from hybridlungvit.paper.style import save_figure, use_style

    panels = []
    for row, rank in at_quantiles(images.dice, images.label, BY_DICE):
        image = read_image(cases[row])
        title = f"{images['class'][row].capitalize()}, {rank}\nDice {images.dice[row]:.3f}"
        masks = (generator(image, cases[row]).mask, read_lungs(cases[row].lungs)[0])
        panels.append((image, *masks, title))
    use_style()
    figure = annotation_gallery(panels)
    with replacing(output / "gallery.png") as temporary:
        figure.savefig(temporary, dpi=200, metadata={"Software": None})
    save_figure(figure, output / "gallery.pdf")
