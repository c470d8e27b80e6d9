"""Example images with their masks, chosen by mask confidence, for the figure of the paper."""

import numpy as np
import pandas as pd

from hybridlungvit.config import Study
from hybridlungvit.data.cache import open_cache
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.files import replacing
from hybridlungvit.paths import Layout

QUANTILES = {"least confident": 0.0, "median": 0.5, "most confident": 1.0}


def choose_examples(manifest: pd.DataFrame, masks: pd.DataFrame) -> list[tuple[int, str]]:
    """Rows of training images at the lowest, median and highest mask confidence of each class."""
    chosen = []
    train = (manifest.split == "train").to_numpy()
    for label in (0, 1):
        rows = np.flatnonzero(train & (manifest.label == label).to_numpy())
        ranked = rows[np.argsort(masks.confidence.to_numpy()[rows], kind="stable")]
        chosen += [(int(ranked[int(q * (len(ranked) - 1))]), name) for name, q in QUANTILES.items()]
    return chosen


def write_examples(study: Study, layout: Layout) -> None:
    """Write the chosen images, masks and cuts as one npz."""
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, study.data.image_size)
    table = pd.read_csv(layout.mask_table)
    rows, rules = zip(*choose_examples(manifest, table), strict=True)
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
        )
