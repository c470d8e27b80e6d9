"""From a downloaded archive to the folder layout that the manifest reads.

Images go to ``{train,val,test}/{NORMAL,PNEUMONIA}/``. Of a zip only entries of that form are taken,
and each path is put together anew, so that no entry can lead elsewhere.
"""

import re
import shutil
import stat
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from hybridlungvit.data.sources import CLASSES, SPLITS, is_image
from hybridlungvit.io import StudyError, write_text
from hybridlungvit.runtime import track

MOST_BYTES = 20_000_000_000  # unpacked; the JPEG files of the Kermany archive have 1.2 GB


def unpack(archive: Path, sha256: str, folder: Path) -> None:
    """Unpack a Kermany zip or a PneumoniaMNIST npz to ``folder``, unless it holds that already.

    The folder appears only when it is complete. Raises ``StudyError`` for a damaged, oversized or
    crafted archive, and for one without these images; ``OSError`` when the disk refuses.
    """
    marker = folder / ".unpacked-from"
    if marker.is_file() and marker.read_text(encoding="utf-8") == sha256:
        return
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as opened:  # an npz is a zip, too
            _refuse_crafted(archive, opened.infolist())
            if archive.suffix == ".zip":
                _extract_images(archive, opened, scratch)
        if archive.suffix == ".npz":
            with np.load(archive, allow_pickle=False) as arrays:
                for split in SPLITS:
                    _write_split(arrays, split, scratch)
        write_text(scratch / marker.name, sha256)
        marker.unlink(missing_ok=True)  # first: from here on the old folder is no longer whole
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    except StudyError:
        raise
    except Exception as error:  # zipfile, zlib, struct and numpy share no base class
        if getattr(error, "errno", None) is not None:  # of the disk, not of the archive
            raise
        raise StudyError(
            f"{archive}: no readable archive ({error}). Delete it, and {archive.name}.sha256 if "
            "there is one beside it, and run `download` again."
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refuse_crafted(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    # zipfile reads no more of an entry than the size that is told here.
    if sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise StudyError(f"{archive}: would unpack to more than {MOST_BYTES:,} bytes. Refused.")
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise StudyError(f"{archive}: holds {twice} twice. Refused.")
    for entry in entries:
        first, *others = re.split(r"[/\\]", entry.filename)
        if first == "" or ":" in first or ".." in (first, *others):
            raise StudyError(f"{archive}: {entry.filename!r} leads out of its folder. Refused.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise StudyError(f"{archive}: {entry.filename!r} is a link. Refused.")


def _extract_images(archive: Path, opened: zipfile.ZipFile, scratch: Path) -> None:
    """Extract the images; of several copies of the data set in one zip, the outermost."""
    copies: dict[int, list[zipfile.ZipInfo]] = {}
    for entry in opened.infolist():
        *above, split, label, name = ("", "", "", *PurePosixPath(entry.filename).parts)
        if is_image(PurePosixPath(name)) and split in SPLITS and label in CLASSES:
            entry.filename = f"{split}/{label}/{name}"
            copies.setdefault(len(above), []).append(entry)
    if not copies:
        raise StudyError(
            f"{archive}: holds no train/NORMAL, train/PNEUMONIA, test/NORMAL or test/PNEUMONIA "
            "with images."
        )
    entries = copies[min(copies)]
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise StudyError(f"{archive}: holds {twice} twice. Refused.")
    for entry in track(entries, len(entries), "unpacking"):
        opened.extract(entry, scratch)


def _write_split(arrays: Any, split: str, scratch: Path) -> None:
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"].ravel()
    if images.dtype != np.uint8 or images.ndim != 3 or len(images) != len(labels):
        raise ValueError(f"{split}: unexpected shape or type, {images.dtype} {images.shape}")
    if not set(labels.tolist()) <= {0, 1}:
        raise ValueError(f"{split}: labels {sorted(set(labels.tolist()))[:5]}, expected 0 and 1")
    for label in CLASSES:
        (scratch / split / label).mkdir(parents=True)
    for row, label in enumerate(track(labels, len(labels), f"unpacking {split}")):
        # The split is part of the name, which counts as the patient: the rows start anew in each.
        output = scratch / split / CLASSES[label] / f"{split}-{row:05d}.png"
        if not cv2.imwrite(str(output), images[row]):
            raise OSError(f"{output}: not written")
