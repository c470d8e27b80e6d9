"""The cache: every image decoded and every mask computed once, ready to be mapped into memory."""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import pandas as pd

from hybridlungvit.data.decode import decode_grey, read_bytes, require_usable
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.io import (
    StudyError,
    file_sha256,
    read_json,
    remove_leftovers,
    replacing,
    write_json,
    write_table,
)
from hybridlungvit.paths import Layout
from hybridlungvit.runtime import each_in_processes

MASK_DETAIL = 224
"""Pixels a side that a mask is made from, at least: the size its constants were chosen at."""


@dataclass(frozen=True)
class Cache:
    """Read-only view of a study's images and masks, in the order of its manifest."""

    images: np.ndarray
    """uint8 (N, S, S), grey, memory-mapped."""
    packed_masks: np.ndarray
    """uint8 (N, ceil(S·S / 8)), one bit a pixel."""

    def __getstate__(self) -> dict[str, Any]:
        """Mapped files go to another process by name; pickled, they would be copied there."""
        return {
            name: Path(value.filename) if isinstance(value, np.memmap) else value
            for name, value in vars(self).items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            opened = np.load(value, mmap_mode="r") if isinstance(value, Path) else value
            object.__setattr__(self, name, opened)

    def masks(self, rows: np.ndarray | list[int]) -> np.ndarray:
        """The lung masks of some rows, bool (len(rows), S, S)."""
        return unpack_masks(self.packed_masks[rows], self.images.shape[1])


def unpack_masks(packed: np.ndarray, side: int) -> np.ndarray:
    """Masks of one bit a pixel, uint8 (R, ceil(S·S / 8)) → bool (R, S, S)."""
    bits = np.unpackbits(packed, axis=1, count=side * side)  # (R, S·S)
    return bits.reshape(len(bits), side, side).view(bool)  # (R, S, S)


def open_cache(layout: Layout, manifest: pd.DataFrame, image_size: int) -> Cache:
    """Map the cache; raises ``StudyError`` when it is missing or was made from something else."""
    try:
        images = np.load(layout.images, mmap_mode="r")
        masks = np.load(layout.masks, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{layout.images.parent}: no usable cache ({error}). Run `cache`."
        ) from None
    expected = (len(manifest), image_size, image_size)
    shapes = (images.shape, masks.shape)
    if shapes != (expected, (len(manifest), _packed(image_size))):
        raise StudyError(
            f"{layout.images.parent}: images and masks of shape {shapes[0]} and {shapes[1]} are "
            f"not those of {expected} pixels. Run `cache` again."
        )
    if read_json(layout.cache_record)["manifest_sha256"] != file_sha256(layout.manifest):
        raise StudyError(
            f"{layout.images.parent}: made from another manifest than {layout.manifest}. "
            "Run `cache` again."
        )
    return Cache(images, masks)


def _packed(side: int) -> int:
    """Bytes of a mask with one bit a pixel."""
    return -(-side * side // 8)


def build_cache(
    root: Path, layout: Layout, image_size: int, workers: int, folder: str | None = None
) -> None:
    """Decode all images of the manifest in parallel and write images, masks and mask table.

    With a ``folder`` the masks are its files, else they are fitted. Raises ``StudyError`` for an
    image that is not the one the manifest lists, and for masks of no use, all of them at once.
    """
    manifest = read_manifest(layout.manifest)
    files = _check_masks(Path(folder), manifest, workers) if folder is not None else None
    layout.cache_record.unlink(missing_ok=True)
    for path in (layout.images, layout.masks):
        remove_leftovers(path)
    count, packed = len(manifest), _packed(image_size)
    with replacing(layout.images) as images, replacing(layout.masks) as masks:
        _allocate(images, (count, image_size, image_size))
        _allocate(masks, (count, packed))
        # The processes write the pixels themselves: handing them over would cost more.
        work = partial(_store_image, root, images, masks, image_size)
        masked_by = [None] * count if files is None else files.file
        columns = (range(count), manifest.path, manifest.sha256, masked_by)
        rows = list(
            each_in_processes(work, *columns, workers=workers, description="decoding and masking")
        )
    table = pd.DataFrame(rows, columns=["confidence", "area", "cut"])
    table.insert(0, "path", manifest.path)
    if files is not None:
        table["mask_sha256"] = files.sha256
    write_table(layout.mask_table, table, "%.6f")
    write_json(layout.cache_record, {"manifest_sha256": file_sha256(layout.manifest)})


def _check_masks(folder: Path, manifest: pd.DataFrame, workers: int) -> pd.DataFrame:
    """The columns file and sha256 of each image's mask."""
    from hybridlungvit.masks.files import check_mask, mask_files

    candidates = mask_files(folder, manifest.path)
    columns = (manifest.path, candidates.values(), manifest.width, manifest.height)
    results = list(
        each_in_processes(check_mask, *columns, workers=workers, description="checking masks")
    )
    require_usable(results, "masks")
    return pd.DataFrame(results, columns=["file", "sha256"])


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """Make an npy file of uint8 with all its space: a disk that fills up later kills a process."""
    np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def _store_image(
    root: Path, images: Path, masks: Path, side: int,
    row: int, path: str, sha256: str, mask: str | None,
) -> tuple[float, float, float]:  # fmt: skip
    """Write one row of the cache; returns the mask's confidence, area and cut."""
    content = read_bytes(root / path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StudyError(
            f"{root / path}: is not the file the manifest lists (its SHA-256 differs). "
            "Put it back or build the manifest again."
        )
    prepared = prepare_image(content, root / path, side, Path(mask) if mask else None)
    _write_row(images, row, prepared.image)
    _write_row(masks, row, np.packbits(prepared.mask))
    # On the third digit processors agree; they do not on the sixth.
    return round(prepared.confidence, 3), float(prepared.mask.mean()), prepared.cut


def _write_row(path: Path, row: int, values: np.ndarray) -> None:
    """Put a row into an npy file; mapped into memory, all rows written would stay there."""
    stream, start = _opened(path)
    stream.seek(start + row * values.nbytes)
    stream.write(values.tobytes())


@lru_cache(maxsize=2)
def _opened(path: Path) -> tuple[BinaryIO, int]:
    """An npy file, open without a buffer while the process lives, and where its rows begin."""
    stream = path.open("r+b", buffering=0)
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    return stream, stream.tell()


class Prepared(NamedTuple):
    """An image as models take it, with its lung mask."""

    image: np.ndarray
    """uint8 (S, S), grey."""
    mask: np.ndarray
    """bool (S, S), True is lung."""
    confidence: float
    """Of the mask, in [0, 1]."""
    cut: float
    """Mean x of the mask as a share of the width: where left and right part."""


def prepare_image(content: bytes, path: Path, side: int, mask_file: Path | None = None) -> Prepared:
    """Decode an image file's ``content``, compute its mask and shrink both to ``side`` px.

    A ``mask_file`` is taken instead, with confidence 1; see ``masks.files``. ``path`` is for
    messages: raises ``StudyError`` for what cannot be decoded.
    """
    # Takes long to import, for its splines; who only opens a cache needs no mask made.
    from hybridlungvit.masks.files import read_mask
    from hybridlungvit.masks.fit import LungMask, lung_mask_with_confidence, mean_x

    detail = max(side, MASK_DETAIL)
    grey = decode_grey(content, path, detail)
    if min(grey.shape) > detail:
        # The generator works on a square anyway, and its constants were chosen on squares.
        grey = cv2.resize(grey, (detail, detail), interpolation=cv2.INTER_AREA)
    if mask_file is not None:
        lungs = LungMask(read_mask(mask_file), 1.0)
    else:
        lungs = lung_mask_with_confidence(grey)
    image = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    drawn = lungs.mask.view(np.uint8) * 255
    mask = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA) > 127
    if mask_file is not None and not mask.any():
        raise StudyError(f"{mask_file}: holds no lung that would be seen at {side} px.")
    return Prepared(image, mask, lungs.confidence, mean_x(mask))
