"""Plain statistics of images: whether one looks like those a model was trained on."""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridlungvit.data.cache import Cache

QUANTILES = {"dark": 0.05, "median": 0.5, "bright": 0.95}
TAIL = 0.001
"""Share of the training images beyond either end of a range: a few odd ones do not widen it."""
MARGIN = 0.1
"""A range's width by which either end is moved out: new images vary more than known ones."""
CHUNK = 512  # images at a time

Ranges = dict[str, tuple[float, float]]


def image_statistics(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Statistics of grey images (N, S, S), each (N,): brightness, contrast and sharpness.

    mean, sd and the 5, 50 and 95 % quantiles ("dark", "median", "bright") in grey values, and
    sharpness, the mean absolute Laplacian over the standard deviation.
    """
    flat = images.reshape(len(images), -1)  # (N, S·S)
    mean, sd = flat.mean(axis=1), flat.std(axis=1)
    levels = np.quantile(flat, list(QUANTILES.values()), axis=1)  # (3, N)
    edges = [np.abs(cv2.Laplacian(image, cv2.CV_32F)).mean() for image in images]
    sharpness = np.array(edges, float) / np.maximum(sd, 1)
    return {"mean": mean, "sd": sd, **dict(zip(QUANTILES, levels, strict=True)),
            "sharpness": sharpness}  # fmt: skip


def training_ranges(cache: Cache, rows: NDArray[np.int64]) -> Ranges:
    """From where to where each statistic goes in some rows of the cache, the training images.

    The central 99.8 % and a margin of a tenth of their width on either side; see ``TAIL``. Plain
    numbers, ready for JSON.
    """
    parts = [
        image_statistics(np.asarray(cache.images[rows[start : start + CHUNK]]))
        for start in range(0, len(rows), CHUNK)
    ]
    ranges = {}
    for name in parts[0]:
        low, high = np.quantile(np.concatenate([part[name] for part in parts]), [TAIL, 1 - TAIL])
        margin = MARGIN * (high - low)
        ranges[name] = (round(float(low - margin), 4), round(float(high + margin), 4))
    return ranges


def outside(
    statistics: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Names of an image's statistics that leave their range; those without a range are let pass."""
    return [
        name
        for name, value in statistics.items()
        if name in ranges and not ranges[name][0] <= value <= ranges[name][1]
    ]
