"""Copies among the images: files of the same bytes, and the same radiograph stored another way,
be it as its own mirror image.

Chest radiographs look alike, so a perceptual hash alone raises many false alarms. It names the
candidates; the correlation of the cached images decides.
"""

from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.fft import dctn

HASH_SIDE = 32  # px; the hash keeps the 8 x 8 lowest frequencies but those along the axes
RADIUS = 6  # differing bits of 64; re-encoding, halving and moderate shifts of grey stay below
COMPARE_SIDE = 64  # px; coarse enough that compression does not lower the correlation
# Different films of the Kermany data whose hashes are this near stay below 0.97; copies that were
# compressed, halved or brightened lie above 0.99. In between a pair is reported and stops nothing.
# The mirror image of another film stays below 0.90.
NEAR = 0.98
COPY = 0.99
CHUNK = 1000  # pairs at a time
COMPARED = 4_000_000  # hashes compared at a time: bounds the memory, whatever the images
PLACES = ("train", "val", "test", "train-val", "development-test")

Pairs = NDArray[np.int64]


def perceptual_hashes(images: NDArray[np.uint8], mirrored: bool = False) -> NDArray[np.uint64]:
    """The 64-bit pHash (Zauner 2010) of grey images, uint8 (N, S, S) → uint64 (N,).

    A bit tells whether one of 64 low frequencies of the cosine transform exceeds their median, so
    the hash does not change with brightness or contrast and little with compression or size. With
    ``mirrored``, the hashes are those of the mirror images: every other frequency changes its sign.
    """
    sign = np.where(np.arange(1, 9) % 2, -1, 1) if mirrored else 1  # (8,), along x
    bits = np.empty((len(images), 64), bool)
    for row, image in zip(bits, images, strict=True):
        low = dctn(_shrink(image, HASH_SIDE), norm="ortho")[1:9, 1:9] * sign
        row[:] = (low > np.median(low)).ravel()
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def near_pairs(hashes: NDArray[np.uint64], radius: int = RADIUS) -> Pairs:
    """All pairs i < j whose hashes differ in at most ``radius`` bits, (P, 2), in order."""
    rows = max(1, COMPARED // max(len(hashes), 1))
    parts = [np.empty((0, 2), np.int64)]
    for start in range(0, len(hashes), rows):
        block = hashes[start : start + rows, None] ^ hashes[start:]
        pairs = np.argwhere(np.bitwise_count(block) <= radius) + start
        parts.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(parts)


def mirror_pairs(hashes: NDArray[np.uint64], mirrored: NDArray[np.uint64]) -> Pairs:
    """All pairs i < j of which one's hash is near that of the other's mirror image, (P, 2)."""
    count = len(hashes)
    pairs = near_pairs(np.concatenate([hashes, mirrored]))
    pairs = pairs[(pairs[:, 0] < count) & (pairs[:, 1] >= count)] - [0, count]
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]  # of an image that is its own mirror image
    return np.unique(np.sort(pairs, axis=1), axis=0)


def correlations(
    images: NDArray[np.uint8], pairs: Pairs, mirrored: bool = False
) -> NDArray[np.float64]:
    """Pearson correlation of the two images of each pair (P, 2), at ``COMPARE_SIDE`` px: (P,).

    With ``mirrored``, of the first with the second's mirror image. A blank image correlates with
    nothing: 0.
    """
    values = np.empty(len(pairs))
    for start in range(0, len(pairs), CHUNK):
        part = pairs[start : start + CHUNK]
        rows, place = np.unique(part, return_inverse=True)
        small = np.stack([_shrink(images[row], COMPARE_SIDE) for row in rows])  # (U, s, s)
        small -= small.mean(axis=(1, 2), keepdims=True)
        norms = np.linalg.norm(small, axis=(1, 2), keepdims=True)
        small /= np.where(norms > 0, norms, 1)
        first, second = place.reshape(part.shape).T
        others = small[second][..., ::-1] if mirrored else small[second]
        values[start : start + CHUNK] = (small[first] * others).sum(axis=(1, 2))
    return values


def _shrink(image: NDArray[np.uint8], most: int) -> NDArray[np.float64]:
    side = min(most, len(image))
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float64)


def find_copies(manifest: pd.DataFrame, images: NDArray[np.uint8]) -> pd.DataFrame:
    """Pairs of images that are or resemble copies, one row each.

    Columns: first and second (paths), identical (same bytes), correlation, mirrored (one resembles
    the other's mirror image), other_patient (the names tell two patients) and place (of
    ``PLACES``). Candidates by hash that the correlation does not confirm stay in the table, as the
    background against which the threshold is judged.
    """
    hashes = perceptual_hashes(images)
    mirrored_too = mirror_pairs(hashes, perceptual_hashes(images, mirrored=True))
    parts = []
    for mirrored, pairs in ((False, near_pairs(hashes)), (True, mirrored_too)):
        part = pd.DataFrame(pairs, columns=["i", "j"])
        alike = correlations(images, pairs, mirrored)
        parts.append(part.assign(correlation=alike, mirrored=mirrored))
    # Of a pair that is near in both ways the better one; near-symmetric images can be.
    near = pd.concat(parts).sort_values("correlation", ascending=False, kind="stable")
    near = near.drop_duplicates(["i", "j"]).sort_values(["i", "j"], ignore_index=True)
    first, second = (manifest.iloc[near[side]].reset_index(drop=True) for side in ("i", "j"))
    return pd.DataFrame(
        {
            "first": first.path,
            "second": second.path,
            "identical": first.sha256 == second.sha256,
            "correlation": near.correlation,
            "mirrored": near.mirrored,
            "other_patient": first.patient != second.patient,
            "place": [place_of({a, b}) for a, b in zip(first.split, second.split, strict=True)],
        }
    )


def place_of(splits: set[str]) -> str:
    """Where the splits of a pair or a group put it: one split, train-val or development-test."""
    if len(splits) == 1:
        return next(iter(splits))
    return "development-test" if "test" in splits else "train-val"


def describe_copies(manifest: pd.DataFrame, copies: pd.DataFrame) -> dict[str, Any]:
    """Counts by place; ``examples`` names the pairs that patients' names do not explain."""
    groups = manifest[manifest.duplicated("sha256", keep=False)].groupby("sha256")
    place = groups.split.agg(lambda splits: place_of(set(splits)))
    several = groups.patient.nunique().gt(1)
    near = copies[~copies.identical & (copies.correlation >= NEAR)]
    others = copies[copies.other_patient & ~copies.identical]
    suspects = copies[copies.other_patient & (copies.identical | (copies.correlation >= NEAR))]
    return {
        "radius": RADIUS,
        "near": NEAR,
        "copy": COPY,
        "candidates": int((~copies.identical).sum()),
        "closest_other": None if others.empty else float(others.correlation.max()),
        "places": [
            {
                "place": name,
                "identical": int((place == name).sum()),
                "identical_other": int(((place == name) & several).sum()),
                "near": int((near.place == name).sum()),
                "near_other": int(((near.place == name) & near.other_patient).sum()),
            }
            for name in PLACES
        ],
        "examples": suspects.drop(columns="other_patient").head(20).to_dict("records"),
    }
