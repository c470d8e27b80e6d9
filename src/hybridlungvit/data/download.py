"""The public sources that need no login: fetched, checked, unpacked and recorded.

Images are unpacked to ``{train,val,test}/{NORMAL,PNEUMONIA}/``. Of a zip only entries of that form
are taken, and each path is put together anew, so that no entry can lead elsewhere.
"""

import itertools
import logging
import shutil
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np
import pooch
from filelock import FileLock

from hybridlungvit.config import Data, Study
from hybridlungvit.data.sources import CLASSES, SPLITS, is_image
from hybridlungvit.io import StudyError, file_sha256, value_sha256, write_json, write_text
from hybridlungvit.paths import Layout
from hybridlungvit.runtime import track

log = logging.getLogger(__name__)
REMOTE = ("mendeley", "pneumoniamnist")
RETRIES = 3
TIMEOUT = (20, 60)  # seconds to wait for a connection, and for each block
BLOCK = 1 << 20
MOST_BYTES = 20_000_000_000  # unpacked; the JPEG files of the Kermany archive have 1.2 GB


class RemoteFile(NamedTuple):
    name: str
    url: str
    checksum: str | None
    """As the publisher tells it (MD5), or None."""
    doi: str


# Kermany, Zhang, Goldbaum, "Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for
# Classification", Mendeley Data, version 2, CC BY 4.0. The address stands in many public scripts,
# which say that it redirects to the store; it was not tried from here. No checksum is published.
MENDELEY = RemoteFile(
    name="ChestXRay2017.zip",
    url="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
    "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
    checksum=None,
    doi="10.17632/rscbjbr9sj.2",
)

# PneumoniaMNIST of MedMNIST+ (Yang et al., Sci. Data 10, 2023): addresses and MD5 are those of
# INFO["pneumoniamnist"] in the package medmnist 3.0.2. Its images are the Kermany ones, cropped to
# squares and split anew; they carry no patient.
MNIST_MD5 = {
    28: "28209eda62fecd6e6a2d98b1501bb15f",
    64: "8f4eceb4ccffa70c672198ea285246c6",
    128: "05b46931834c231683c68f40c47b2971",
    224: "d6a3c71de1b945ea11211b03746c1fe1",
}


def remote_file(data: Data) -> RemoteFile:
    """The file of a source in ``REMOTE``; of PneumoniaMNIST the size asked for or large enough."""
    if data.source == "mendeley":
        return MENDELEY
    enough = (side for side in MNIST_MD5 if side >= data.image_size)
    side = data.mnist_size or next(enough, max(MNIST_MD5))
    name = "pneumoniamnist.npz" if side == 28 else f"pneumoniamnist_{side}.npz"
    url = f"https://zenodo.org/records/10519652/files/{name}?download=1"
    return RemoteFile(name, url, MNIST_MD5[side], "10.5281/zenodo.10519652")


def image_folder(data: Data, layout: Layout) -> Path:
    """Where the images of a downloaded source are unpacked: the same for all studies.

    Those of an address of the user's own lie apart: no other study takes them for the publisher's.
    """
    name = Path(remote_file(data).name).stem
    own = f"-{value_sha256(data.url)[:8]}" if data.url else ""
    return layout.downloads / data.source / f"{name}{own}"


def download_source(study: Study, layout: Layout) -> None:
    """Fetch, check and unpack a study's source, and record what it was in ``download.json``.

    Raises ``StudyError`` for a file that does not come, is not the one expected or cannot be
    unpacked, and for a folder that cannot be written.
    """
    data, file = study.data, remote_file(study.data)
    folder, url = image_folder(data, layout), data.url or file.url
    archive = folder.with_name(folder.name + Path(file.name).suffix)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(".lock")):  # another study may want the same images
            sha256 = fetch(url, archive, data.checksum or file.checksum)
            unpack(archive, sha256, folder)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written ({error.strerror or error}).") from error
    checked = "the publisher's MD5" if file.checksum else "the first download here"
    record = {
        "source": data.source,
        "doi": file.doi,
        "url": url,
        "file": file.name,
        "bytes": archive.stat().st_size,
        "sha256": sha256,
        "checked": f"against {'data.checksum' if data.checksum else checked}",
        "images": {split: sum(map(is_image, (folder / split).glob("*/*"))) for split in SPLITS},
    }
    write_json(layout.download, record)


def fetch(url: str, target: Path, checksum: str | None = None) -> str:
    """Bring ``url`` to ``target`` unless it is there already; returns its SHA-256.

    ``checksum`` is an MD5 (32 hex digits) or a SHA-256 (64). Without one, the SHA-256 of the first
    file is written to ``NAME.sha256`` and asked of every later one: trust on first use.

    Raises ``StudyError`` for a file that does not come or is not the one expected, ``OSError`` when
    the disk refuses.
    """
    kept, known = target.with_name(f"{target.name}.sha256"), checksum
    if known is None and kept.is_file():
        known = kept.read_text(encoding="utf-8").partition(" ")[0]
    expected = known and f"{'md5' if len(known) == 32 else 'sha256'}:{known}"
    source = pooch.create(
        target.parent, base_url="", registry={target.name: expected}, urls={target.name: url},
        retry_if_failed=RETRIES, allow_updates=False,
    )  # fmt: skip
    transfer = pooch.HTTPDownloader(
        _Progress(), BLOCK, timeout=TIMEOUT, headers={"User-Agent": "hybridlungvit"}
    )
    present = target.is_file()
    try:
        source.fetch(target.name, downloader=transfer)
        if not present:  # pooch's files are for their owner alone; as open as the folder is better
            target.chmod(target.parent.stat().st_mode & 0o666)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk, not of the network
            raise
        if present:
            raise StudyError(
                f"{target}: its checksum is not the {expected} that "
                f"{'data.checksum or the publisher' if checksum else kept} says. Delete the file, "
                "or mend the checksum if that is wrong."
            ) from None
        raise StudyError(
            f"{url}: cannot be downloaded ({error}). Download it with a browser, on another "
            f"machine if this one is offline, and put it at {target.absolute()}; or give another "
            "address as data.url, another checksum as data.checksum."
        ) from None
    digest = file_sha256(target)
    if known is None:
        write_text(kept, f"{digest}  {target.name}\n")
        log.warning(
            "no checksum of %s is published: its SHA-256, %s, is written to %s and asked of every "
            "later download", target.name, digest, kept,
        )  # fmt: skip
    return digest


class _Progress:
    """What pooch asks of a progress bar, shown by ``track`` with the time left."""

    def _start(self, size: int) -> None:
        blocks = -(-size // BLOCK) or 10_000  # if the server does not tell the length
        self._steps = track(itertools.count(), blocks, "downloading")

    total = property(fset=_start)

    def update(self, size: int) -> None:
        next(self._steps)

    def reset(self) -> None:  # one more update follows, with the whole size: the last block's line
        pass

    def close(self) -> None:
        self._steps.close()


def unpack(archive: Path, sha256: str, folder: Path) -> None:
    """Unpack a Kermany zip or a PneumoniaMNIST npz to ``folder``, unless it holds that already.

    The folder appears only when it is complete. Raises ``StudyError`` for a damaged or oversized
    archive, and for one without these images; ``OSError`` when the disk refuses.
    """
    marker = folder / ".unpacked-from"
    if marker.is_file() and marker.read_text(encoding="utf-8") == sha256:
        return
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as opened:  # an npz is a zip, too
            # zipfile reads no more of an entry than the size that is told here.
            if sum(entry.file_size for entry in opened.infolist()) > MOST_BYTES:
                raise ValueError(f"would unpack to more than {MOST_BYTES:,} bytes")
            _refuse_doubles(opened.namelist())
            if archive.suffix == ".zip":
                _extract_images(opened, scratch)
            else:
                with np.load(archive, allow_pickle=False) as arrays:
                    for split in SPLITS:
                        _write_split(arrays, split, scratch)
        write_text(scratch / marker.name, sha256)
        marker.unlink(missing_ok=True)  # first: from here on the old folder is no longer whole
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    except Exception as error:  # zipfile, zlib, struct and numpy share no base class
        if isinstance(error, StudyError) or getattr(error, "errno", None) is not None:
            raise  # of the disk, not of the archive
        raise StudyError(
            f"{archive}: no usable archive ({error}). Delete it, and {archive.name}.sha256 if "
            "there is one beside it, and run `download` again."
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refuse_doubles(names: list[str]) -> None:
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise ValueError(f"holds {name} twice")


def _extract_images(opened: zipfile.ZipFile, scratch: Path) -> None:
    """Extract the images; of several copies of the data set in one zip, the outermost."""
    copies: dict[int, list[zipfile.ZipInfo]] = {}
    for entry in opened.infolist():
        *above, split, label, name = ("", "", "", *PurePosixPath(entry.filename).parts)
        if is_image(PurePosixPath(name)) and split in SPLITS and label in CLASSES:
            entry.filename = f"{split}/{label}/{name}"
            copies.setdefault(len(above), []).append(entry)
    if not copies:
        raise ValueError("holds no train/NORMAL, test/NORMAL and so on with images")
    entries = copies[min(copies)]
    _refuse_doubles([entry.filename for entry in entries])
    for entry in track(entries, len(entries), "unpacking"):
        opened.extract(entry, scratch)


def _write_split(arrays: Any, split: str, scratch: Path) -> None:
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"].ravel()
    if images.dtype != np.uint8 or images.shape[:-2] != labels.shape or set(labels) - {0, 1}:
        raise ValueError(f"{split}: expected grey uint8 images (N, H, W), each labelled 0 or 1")
    for label in CLASSES:
        (scratch / split / label).mkdir(parents=True)
    for row, label in enumerate(track(labels, len(labels), f"unpacking {split}")):
        # The split is part of the name, which counts as the patient: the rows start anew in each.
        output = scratch / split / CLASSES[label] / f"{split}-{row:05d}.png"
        if not cv2.imwrite(str(output), images[row]):
            raise OSError(f"{output}: not written")
