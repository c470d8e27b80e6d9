"""How images look, in numbers: what the audit tells test from train by, and what marks a user's
image that is unlike those a model was trained on."""

from collections.abc import Iterable, Mapping

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hybridlungvit.data.cache import Cache

QUANTILES = {
    "dark": 0.05, "lower quartile": 0.25, "median": 0.5, "upper quartile": 0.75, "bright": 0.95,
}  # fmt: skip
TAIL = 0.001
"""Share of the training images beyond either end of a range: a few odd ones do not widen it."""
MARGIN = 0.1
"""A range's width by which either end is moved out: new images vary more than known ones."""

Ranges = dict[str, tuple[float, float]]


def image_statistics(images: Iterable[NDArray[np.uint8]]) -> pd.DataFrame:
    """Mean, SD, ``QUANTILES`` and sharpness of N grey images (H, W): N rows, in grey values.

    The sharpness is the logarithm of the Laplacian's variance (Pech-Pacheco et al. 2000).
    """
    rows = []
    for image in images:
        edges = cv2.Laplacian(image, cv2.CV_64F).var()
        levels = np.quantile(image, list(QUANTILES.values()))
        rows.append((image.mean(), image.std(), *levels, np.log(edges + 1e-6)))
    return pd.DataFrame(rows, columns=["mean", "sd", *QUANTILES, "log sharpness"])


def training_ranges(cache: Cache, rows: NDArray[np.int64]) -> Ranges:
    """From where to where each statistic goes in some rows of the cache, the training images.

    The central 99.8 % and a margin of a tenth of their width on either side; see ``TAIL``. Plain
    numbers, ready for JSON.
    """
    statistics = image_statistics(cache.images[row] for row in rows)
    low, high = statistics.quantile(TAIL), statistics.quantile(1 - TAIL)
    margin = MARGIN * (high - low)
    limits = pd.concat([low - margin, high + margin], axis=1).round(4)
    return {name: (float(first), float(last)) for name, first, last in limits.itertuples()}


def outside(
    statistics: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Names of an image's statistics that leave their range; those without a range are let pass."""
    return [
        name
        for name, value in statistics.items()
        if name in ranges and not ranges[name][0] <= value <= ranges[name][1]
    ]
