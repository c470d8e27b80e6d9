"""The public sources that need no login: where they are, and what is known of their files."""

import logging
from dataclasses import dataclass
from pathlib import Path

from hybridlungvit.config import Data, Study
from hybridlungvit.data.archive import SPLITS, unpack
from hybridlungvit.data.download import fetch
from hybridlungvit.data.sources import SUFFIXES
from hybridlungvit.files import write_json
from hybridlungvit.paths import Layout

log = logging.getLogger(__name__)
REMOTE = ("mendeley", "pneumoniamnist")


@dataclass(frozen=True)
class RemoteFile:
    name: str
    url: str
    size: int | None
    """Bytes, if known."""
    checksum: str | None
    """As the publisher tells it (MD5), or None."""
    doi: str
    unit: str
    """What a file name tells: the "patient", or nothing but the "image"."""


# ChestXRay2017.zip of Kermany, Zhang, Goldbaum, "Labeled Optical Coherence Tomography (OCT) and
# Chest X-Ray Images for Classification", Mendeley Data, version 2, CC BY 4.0. The address stands in
# many public scripts, which say that it redirects to the store; the size stands in two of them.
# Neither was tried from here, and no published checksum was found: trust on first use.
MENDELEY = RemoteFile(
    name="ChestXRay2017.zip",
    url="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
    "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
    size=1_235_512_464,
    checksum=None,
    doi="10.17632/rscbjbr9sj.2",
    unit="patient",
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
    return RemoteFile(
        name=name,
        url=f"https://zenodo.org/records/10519652/files/{name}?download=1",
        size=None,
        checksum=MNIST_MD5[side],
        doi="10.5281/zenodo.10519652",
        unit="image",
    )


def image_folder(data: Data, layout: Layout) -> Path:
    """Where the images of a downloaded source are unpacked: the same for all studies."""
    return layout.downloads / data.source / Path(remote_file(data).name).stem


def download_source(study: Study, layout: Layout) -> None:
    """Fetch, check and unpack a study's source, and record what it was in ``download.json``."""
    data, file = study.data, remote_file(study.data)
    folder, url = image_folder(data, layout), data.url or file.url
    archive = folder.with_name(file.name)
    checksum = data.checksum or file.checksum
    log.info("%s from %s", archive, url)
    sha256 = fetch(url, archive, size=None if data.checksum else file.size, checksum=checksum)
    unpack(archive, sha256, folder)
    counts = {
        split: sum(1 for path in (folder / split).glob("*/*") if path.suffix.lower() in SUFFIXES)
        for split in SPLITS
    }
    write_json(
        layout.download,
        {
            "source": data.source,
            "doi": file.doi,
            "url": url,
            "file": file.name,
            "bytes": archive.stat().st_size,
            "sha256": sha256,
            "checked": _checked(data, file),
            "unit": file.unit,
            "images": counts,
        },
    )


def _checked(data: Data, file: RemoteFile) -> str:
    if data.checksum:
        return "against data.checksum"
    return "against the publisher's MD5" if file.checksum else "against the first download here"
