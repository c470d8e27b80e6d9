"""Example images with their masks, chosen by mask confidence, for the figure of the paper."""

from pathlib import Path

import numpy as np
import pandas as pd

from hybridlungvit.config import Study
from hybridlungvit.data.cache import MASK_DETAIL, open_cache
from hybridlungvit.data.decode import read_grey
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.io import read_table, replacing
from hybridlungvit.masks.fit import lung_mask_steps
from hybridlungvit.paths import Layout

QUANTILES = {"least confident": 0.0, "median": 0.5, "most confident": 1.0}
STEPS = 4  # of the six examples, the one whose steps are shown: pneumonia, median confidence


def choose_examples(manifest: pd.DataFrame, masks: pd.DataFrame) -> list[tuple[int, str]]:
    """Rows of training images at the lowest, median and highest mask confidence of each class."""
    chosen = []
    train = (manifest.split == "train").to_numpy()
    for label in (0, 1):
        rows = np.flatnonzero(train & (manifest.label == label).to_numpy())
        ranked = rows[np.argsort(masks.confidence.to_numpy()[rows], kind="stable")]
        chosen += [(int(ranked[int(q * (len(ranked) - 1))]), name) for name, q in QUANTILES.items()]
    return chosen


def write_examples(root: Path, study: Study, layout: Layout) -> None:
    """Write the chosen images, masks and cuts, and the steps to one of the masks, as one npz.

    ``root`` is the folder with the images: the cached ones may be too small to show the steps.
    """
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, study.data.image_size)
    table = read_table(layout.mask_table, ("path", "confidence", "cut"))
    rows, rules = zip(*choose_examples(manifest, table), strict=True)
    index = list(rows)
    shown = manifest.iloc[index[STEPS]]
    with replacing(layout.mask_examples) as temporary:
        np.savez_compressed(
            temporary,
            images=cache.images[index],
            masks=cache.masks(index),
            cuts=table.cut.to_numpy()[index] * study.data.image_size,
            confidence=table.confidence.to_numpy()[index],
            label=manifest.label.to_numpy()[index],
            rule=np.array(rules),
            **mask_steps(root / shown.path, study.data.image_size),
        )


def mask_steps(path: Path, side: int) -> dict[str, np.ndarray]:
    """The image, in its own shape, and each step to its mask, by name: see MaskSteps."""
    image = read_grey(path, max(side, MASK_DETAIL))
    steps = lung_mask_steps(image)
    return {
        "steps_image": image,
        "steps_working": steps.working,
        "steps_edges": steps.edges,
        "steps_start": steps.start,
        "steps_fitted": steps.fitted,
        "steps_mask": steps.result.mask,
    }
