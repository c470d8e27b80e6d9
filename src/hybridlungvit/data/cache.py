"""The cache: every image decoded and every mask computed once, ready to be mapped into memory."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.data.masks import lung_mask_with_confidence
from hybridlungvit.errors import StudyError
from hybridlungvit.files import replacing, write_text
from hybridlungvit.paths import Layout
from hybridlungvit.progress import track

REDUCED = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    1: cv2.IMREAD_GRAYSCALE,
}
# The mask generator's own working size: decoding below it would cost the mask detail.
MASK_DETAIL = 224


@dataclass(frozen=True)
class Cache:
    """Read-only view of a study's images and masks, in the order of its manifest."""

    images: np.ndarray
    """uint8 (N, S, S), grey, memory-mapped."""
    packed_masks: np.ndarray
    """uint8 (N, ceil(S·S / 8)), one bit a pixel."""

    def masks(self, rows: np.ndarray | list[int]) -> np.ndarray:
        """The lung masks of some rows, bool (len(rows), S, S)."""
        side = self.images.shape[1]
        bits = np.unpackbits(self.packed_masks[rows], axis=1, count=side * side)  # (R, S·S)
        return bits.reshape(len(bits), side, side).astype(bool)  # (R, S, S)


def open_cache(layout: Layout, manifest: pd.DataFrame, image_size: int) -> Cache:
    """Map the cache; raises ``StudyError`` when it is missing or belongs to another manifest."""
    try:
        images = np.load(layout.images, mmap_mode="r")
        masks = np.load(layout.masks, mmap_mode="r")
        paths = pd.read_csv(layout.mask_table, usecols=["path"]).path
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{layout.images.parent}: no usable cache ({error}). Run `cache`."
        ) from None
    expected = (len(manifest), image_size, image_size)
    if images.shape != expected or not paths.equals(manifest.path):
        raise StudyError(
            f"{layout.images}: shape {images.shape} or file list differ from the manifest, "
            f"expected {expected}. Run `cache` again."
        )
    return Cache(images, masks)


def build_cache(root: Path, layout: Layout, image_size: int, workers: int) -> None:
    """Decode all images of the manifest in parallel and write images, masks and mask table."""
    manifest = read_manifest(layout.manifest)
    shape = (len(manifest), image_size, image_size)
    packed = np.empty((len(manifest), -(-image_size * image_size // 8)), np.uint8)
    rows = []
    with replacing(layout.images) as temporary:
        images = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        results = _decode_all(root, manifest, image_size, workers)
        for i, (image, mask, confidence) in enumerate(
            track(results, len(manifest), "decoding and masking")
        ):
            images[i] = image
            packed[i] = np.packbits(mask)
            cut = float(np.nonzero(mask)[1].mean() + 0.5) / image_size
            rows.append((manifest.path[i], confidence, float(mask.mean()), cut))
        images.flush()
    with replacing(layout.masks) as temporary, temporary.open("wb") as stream:
        np.save(stream, packed)
    table = pd.DataFrame(rows, columns=["path", "confidence", "area", "cut"])
    text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    write_text(layout.mask_table, text)


def _decode_all(
    root: Path, manifest: pd.DataFrame, image_size: int, workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    work = partial(prepare_image, root)
    # A fork would inherit OpenCV's locks without the threads that hold them.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        columns = (manifest.path, manifest.width, manifest.height, repeat(image_size))
        yield from pool.map(work, *columns, chunksize=16)


def prepare_image(
    root: Path, path: str, width: int, height: int, side: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Image uint8 (side, side), lung mask bool (side, side) and the mask's confidence."""
    grey = decode_grey(root / path, width, height, max(side, MASK_DETAIL))
    lungs = lung_mask_with_confidence(grey)
    image = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(lungs.mask.astype(np.uint8) * 255, (side, side), interpolation=cv2.INTER_AREA)
    return image, soft > 127, lungs.confidence


def decode_grey(path: Path, width: int, height: int, detail: int) -> np.ndarray:
    """Decode to grey uint8, letting libjpeg shrink it while both sides keep ``detail`` pixels."""
    shrink = next(s for s in REDUCED if s == 1 or min(width, height) // s >= detail)
    image = cv2.imread(str(path), REDUCED[shrink])
    if image is None:
        raise StudyError(f"{path}: cannot be decoded. Fetch it again and rebuild the manifest.")
    return image
