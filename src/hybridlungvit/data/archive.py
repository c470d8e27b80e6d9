"""From a downloaded archive to the folder layout that the manifest reads.

Images go to ``{train,val,test}/{NORMAL,PNEUMONIA}/``. Of a zip only entries of that form are taken,
and each path is put together anew, so that no entry can lead elsewhere.
"""

import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from hybridlungvit.data.sources import CLASSES, SUFFIXES
from hybridlungvit.errors import StudyError
from hybridlungvit.files import write_text
from hybridlungvit.progress import track

SPLITS = ("train", "val", "test")
MOST_BYTES = 20_000_000_000
"""Unpacked; the Kermany archive has 1.2 GB of JPEG files, which hardly pack."""
MARKER = ".unpacked-from"


def unpack(archive: Path, sha256: str, folder: Path) -> None:
    """Unpack a Kermany zip or a PneumoniaMNIST npz to ``folder``, unless it holds that already.

    The folder appears only when it is complete. Raises ``StudyError`` for a damaged, oversized or
    crafted archive, and for one without these images.
    """
    marker = folder / MARKER
    if marker.is_file() and marker.read_text(encoding="utf-8") == sha256:
        return
    read = _from_npz if archive.suffix == ".npz" else _from_zip
    scratch, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "previous"))
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        _explained(read, archive, scratch)
        write_text(scratch / MARKER, sha256)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        scratch.rename(folder)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _explained(read: Callable[[Path, Path], None], archive: Path, scratch: Path) -> None:
    try:
        read(archive, scratch)
    except StudyError:
        raise
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the archive
            raise
        raise _damaged(archive, error) from None
    except Exception as error:  # zipfile, zlib, struct and numpy share no base class
        raise _damaged(archive, error) from None


def _damaged(archive: Path, reason: object) -> StudyError:
    return StudyError(
        f"{archive}: no readable archive ({reason}). Delete it, and {archive.name}.sha256 if there "
        "is one beside it, and run `download` again."
    )


def _from_zip(archive: Path, scratch: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        if sum(entry.file_size for entry in entries) > MOST_BYTES:
            raise StudyError(f"{archive}: would unpack to more than {MOST_BYTES:,} bytes. Refused.")
        for entry in entries:
            _refuse_crafted(archive, entry)
        places = _places(entries)
        if not places:
            raise StudyError(
                f"{archive}: holds no train/NORMAL, train/PNEUMONIA, test/NORMAL or "
                "test/PNEUMONIA with images."
            )
        for place, entry in track(places.items(), len(places), "unpacking"):
            output = scratch / place
            output.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(entry) as source, output.open("xb") as target:
                shutil.copyfileobj(source, target)


def _refuse_crafted(archive: Path, entry: zipfile.ZipInfo) -> None:
    name = PurePosixPath(entry.filename.replace("\\", "/"))
    reasons = {
        "leads out of its folder": name.is_absolute() or ".." in name.parts or ":" in name.parts[0],
        "is a link": stat.S_ISLNK(entry.external_attr >> 16),
        "is encrypted": entry.flag_bits & 1,
    }
    for reason, true in reasons.items():
        if true:
            raise StudyError(f"{archive}: the entry {entry.filename!r} {reason}. Refused.")


def _places(entries: list[zipfile.ZipInfo]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Where each image goes; of several copies of the data set in one zip, the outermost."""
    found: dict[int, dict[PurePosixPath, zipfile.ZipInfo]] = {}
    for entry in entries:
        *above, split, label, name = ("", "", "", *PurePosixPath(entry.filename).parts)
        if split not in SPLITS or label not in CLASSES or "__MACOSX" in above:
            continue
        if not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES:
            found.setdefault(len(above), {})[PurePosixPath(split, label, name)] = entry
    return found[min(found)] if found else {}


def _from_npz(archive: Path, scratch: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        if sum(entry.file_size for entry in opened.infolist()) > MOST_BYTES:
            raise StudyError(f"{archive}: would unpack to more than {MOST_BYTES:,} bytes. Refused.")
    with np.load(archive, allow_pickle=False) as arrays:
        for split in SPLITS:
            _write_split(arrays, split, scratch)


def _write_split(arrays: Any, split: str, scratch: Path) -> None:
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"].ravel()
    if images.dtype != np.uint8 or images.ndim != 3 or len(images) != len(labels):
        raise ValueError(f"{split}: unexpected shape or type, {images.dtype} {images.shape}")
    for label in CLASSES:
        (scratch / split / label).mkdir(parents=True)
    for row, label in enumerate(track(labels, len(labels), f"unpacking {split}")):
        # The split is part of the name, which counts as the patient: the rows start anew in each.
        output = scratch / split / CLASSES[label] / f"{split}-{row:05d}.png"
        if not cv2.imwrite(str(output), images[row]):
            raise OSError(f"{output}: not written")
