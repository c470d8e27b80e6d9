"""The cache: every image decoded and every mask computed once, ready to be mapped into memory."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
    """uint8 (M, ceil(S·S / 8)), one bit a pixel."""
    mask_rows: np.ndarray | None = None
    """int64 (N,): which of the masks each image gets; None: that of its own row."""

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
        chosen = rows if self.mask_rows is None else self.mask_rows[rows]
        return unpack_masks(self.packed_masks[chosen], self.images.shape[1])


def unpack_masks(packed: np.ndarray, side: int) -> np.ndarray:
    """Masks of one bit a pixel, uint8 (R, ceil(S·S / 8)) → bool (R, S, S)."""
    bits = np.unpackbits(packed, axis=1, count=side * side)  # (R, S·S)
    return bits.reshape(len(bits), side, side).view(bool)  # (R, S, S)


def _shapes(count: int, side: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the arrays of images and of masks."""
    return (count, side, side), (count, -(-side * side // 8))


def open_cache(layout: Layout, manifest: pd.DataFrame, image_size: int) -> Cache:
    """Map the cache; raises ``StudyError`` when it is missing or was made from something else."""
    folder = layout.images.parent
    try:
        cache = Cache(*(np.load(path, mmap_mode="r") for path in (layout.images, layout.masks)))
    except (OSError, ValueError) as error:
        raise StudyError(f"{folder}: no usable cache ({error}). Run `cache`.") from None
    found = (cache.images.shape, cache.packed_masks.shape)
    if found != _shapes(len(manifest), image_size):
        raise StudyError(
            f"{folder}: images and masks of shape {found[0]} and {found[1]} are not those of "
            f"{len(manifest)} images of {image_size} px. Run `cache` again."
        )
    if read_json(layout.cache_record)["manifest_sha256"] != file_sha256(layout.manifest):
        raise StudyError(
            f"{folder}: made from another manifest than {layout.manifest}. Run `cache` again."
        )
    return cache


def build_cache(
    root: Path, layout: Layout, image_size: int, workers: int, folder: str | None = None
) -> None:
    """Decode all images of the manifest in parallel and write images, masks and mask table.

    With a ``folder`` the masks are its files, else they are fitted. Raises ``StudyError`` for an
    image that is not the one the manifest lists, and for masks of no use, all of them at once.
    """
    manifest = read_manifest(layout.manifest)
    files = pd.DataFrame({"file": None}, manifest.index)
    if folder is not None:
        files = _check_masks(Path(folder), manifest, workers)
    layout.cache_record.unlink(missing_ok=True)
    for path in (layout.images, layout.masks):
        remove_leftovers(path)
    rows = []
    with (
        replacing(layout.images) as images, images.open("wb") as image_stream,
        replacing(layout.masks) as masks, masks.open("wb") as mask_stream,
    ):  # fmt: skip
        streams = (image_stream, mask_stream)
        for stream, shape in zip(streams, _shapes(len(manifest), image_size), strict=True):
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
        work = partial(_prepare_row, root, image_size)
        columns = (manifest.path, manifest.sha256, files.file)
        for image, mask, *row in each_in_processes(
            work, *columns, workers=workers, description="decoding and masking"
        ):
            image_stream.write(image)
            mask_stream.write(mask)
            rows.append(row)
    table = pd.DataFrame(rows, columns=["confidence", "area", "cut"])
    table.insert(0, "path", manifest.path)
    if folder is not None:
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


def _prepare_row(
    root: Path, side: int, path: str, sha256: str, mask: str | None
) -> tuple[np.ndarray, np.ndarray, float, float, float]:
    """Image and packed mask of one row of the cache, and the mask's confidence, area and cut."""
    content = read_bytes(root / path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StudyError(
            f"{root / path}: is not the file the manifest lists (its SHA-256 differs). "
            "Put it back or build the manifest again."
        )
    prepared = prepare_image(content, root / path, side, Path(mask) if mask else None)
    # On the third digit processors agree; they do not on the sixth.
    numbers = round(prepared.confidence, 3), float(prepared.mask.mean()), prepared.cut
    return prepared.image, np.packbits(prepared.mask), *numbers


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
