"""Lung masks from elsewhere, such as a segmentation network: one file for each image."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridlungvit.data.decode import MAX_PIXELS, open_image, read_bytes
from hybridlungvit.io import StudyError, files_below

SUFFIXES = (".png", ".npy")
LABELS = 16
"""Masks whose largest value is smaller hold labels of lungs: all but 0 counts."""
MISFIT = 0.05
"""How far the aspect ratio of a mask may be from that of its image, as a share."""


def mask_files(folder: Path, images: Iterable[str]) -> dict[str, list[Path]]:
    """The files that may be an image's mask, by the image's path below the data folder.

    Those at the image's path below ``folder`` with another suffix; else, of an image whose name no
    other image has, those of its name without the suffix anywhere below ``folder``.
    """
    images = list(images)
    try:
        files = [path for path in files_below(folder) if path.suffix.lower() in SUFFIXES]
    except OSError as error:
        raise StudyError(f"data.masks: {folder} cannot be read ({error.strerror}).") from None
    if not files:
        raise StudyError(f"data.masks: {folder} holds no .png and no .npy file.")
    by_place: dict[str, list[Path]] = {}
    by_name: dict[str, list[Path]] = {}
    for file in files:
        place = file.relative_to(folder).with_suffix("").as_posix()
        by_place.setdefault(place, []).append(file)
        by_name.setdefault(file.stem, []).append(file)
    names = Counter(PurePosixPath(image).stem for image in images)
    chosen: dict[str, list[Path]] = {}
    owners: dict[PurePosixPath, str] = {}
    for image in images:
        place = PurePosixPath(image).with_suffix("")
        other = owners.setdefault(place, image)
        if other != image:
            raise StudyError(f"data.masks: {other} and {image} would have one mask. Rename one.")
        elsewhere = by_name.get(place.name, []) if names[place.name] == 1 else []
        chosen[image] = by_place.get(place.as_posix(), elsewhere)
    return chosen


def read_mask(path: Path, content: bytes | None = None) -> NDArray[np.bool_]:
    """A mask file as bool (H, W), True is lung; raises ``StudyError`` for one of no use.

    Grey values from half of the range on are lung, 128 of 256, and 0.5 of the fractions of an npy
    file. Of two values, or of labels (see ``LABELS``), all but 0 are.
    """
    content = read_bytes(path) if content is None else content
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(io.BytesIO(content), allow_pickle=False).squeeze()
        else:
            open_image(content, path)  # refuses what would fill the memory
            values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is not None and values.ndim == 3:  # colours of a palette, not the opacity
            values = values[..., :3].max(axis=2)
        if values is None or values.ndim != 2 or not 0 < values.size <= MAX_PIXELS:
            raise ValueError("no image of one layer")
        if not (np.isfinite(values).all() and values.min() >= 0):
            raise ValueError("values below 0 or none at all")
        lungs = values >= _least_lung(values)
    except StudyError:
        raise
    except Exception as error:  # NumPy and OpenCV promise nothing
        raise StudyError(f"{path}: cannot be read as a mask ({error}).") from None
    if lungs.all() or not lungs.any():
        raise StudyError(f"{path}: {'holds no lung' if not lungs.any() else 'is lung all over'}.")
    return lungs


def _least_lung(values: NDArray) -> float:
    """The smallest value that is lung."""
    largest, positive = values.max(), values[values > 0]
    least = positive.min() if positive.size else 1
    if values.dtype.kind == "f" and largest <= 1:
        return 0.5
    if largest < LABELS or ((values == 0) | (values == largest)).all():
        return least
    bits = 8 if largest < 256 else 16
    return 2 ** (bits - 1)


def check_mask(image: str, files: list[Path], width: int, height: int) -> tuple[str, str] | str:
    """The mask's file and its SHA-256, or what is wrong with it, as a text.

    ``files`` are those that may be it, ``width`` and ``height`` the image's.
    """
    if len(files) != 1:
        several = f"{len(files)} masks, {files[0]} and {files[1]}" if files else "no mask"
        return f"{image}: {several}; one file of its name is needed."
    try:
        content = read_bytes(files[0])
        rows, columns = read_mask(files[0], content).shape
    except StudyError as error:
        return str(error)
    if abs(columns * height / (rows * width) - 1) > MISFIT:
        return (
            f"{files[0]}: {columns} × {rows} px have another aspect ratio than the image, "
            f"{width} × {height} px."
        )
    return str(files[0]), hashlib.sha256(content).hexdigest()
