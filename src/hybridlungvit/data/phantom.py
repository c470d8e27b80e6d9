"""Synthetic pediatric chest X-rays with known lungs, in the folder layout of the Kermany data.

They stand in for the real data, which cannot be shipped, in the demonstration and in tests.
"""

import csv
import logging
import multiprocessing
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from hybridlungvit.data.phantom_anatomy import Child, Frame, Pose
from hybridlungvit.data.phantom_xray import expose, opacity, project

Subtype = Literal["normal", "bacteria", "virus"]
log = logging.getLogger(__name__)

JPEG_QUALITY = 90
IMAGES_PER_PATIENT = (0.72, 0.18, 0.07, 0.03)  # of one to four images
LAYOUT = {"train", "test", "lungs", "lungs.csv"}
SNAKEMAKE = {".snakemake_timestamp"}  # left in an output folder between runs


@dataclass(frozen=True)
class Phantom:
    """A synthetic X-ray: `image` uint8 (H, W), and the known `lungs` bool (H, W)."""

    image: NDArray[np.uint8]
    lungs: NDArray[np.bool_]


def render(
    patient_seed: int, image_seed: int, subtype: Subtype, *, contrast: float, median_width: int
) -> Phantom:
    """Render one X-ray of one child.

    The anatomy follows `patient_seed`; size, pose, exposure, noise and opacities follow both
    seeds. Neither `subtype` nor `contrast` changes anything but the opacities in the lungs.

    Args:
        patient_seed: non-negative seed of the child.
        image_seed: non-negative seed of the image of that child.
        subtype: "normal", "bacteria" (focal consolidation) or "virus" (diffuse haze).
        contrast: mean strength of the opacities; 0 shows none, 1 replaces 63 % of the air.
        median_width: median of the images' widths in pixels.

    Raises:
        ValueError: for a negative seed or contrast, an unknown subtype, or a width below 64.
    """
    if subtype not in get_args(Subtype):
        raise ValueError(f"subtype must be one of {get_args(Subtype)}, not {subtype!r}")
    if min(patient_seed, image_seed) < 0:
        raise ValueError(f"seeds must not be negative: {patient_seed}, {image_seed}")
    _check_appearance(contrast, median_width)
    child = Child.draw(np.random.default_rng(SeedSequence([patient_seed])))
    # One stream per purpose, so that an opacity does not change the noise.
    streams = SeedSequence([patient_seed, image_seed]).spawn(4)
    posing, tissue, disease, detector = (np.random.default_rng(stream) for stream in streams)
    pose = Pose.draw(posing)
    frame = _frame(child, median_width, posing)
    fluid = opacity(child, frame, subtype, contrast, disease)
    density, mask = project(child, pose, frame, fluid, tissue)
    return Phantom(expose(density, frame, detector), mask)


def _check_appearance(contrast: float, median_width: int) -> None:
    if not (np.isfinite(contrast) and contrast >= 0):
        raise ValueError(f"contrast must be finite and not negative, not {contrast}")
    if median_width < 64:
        raise ValueError(f"median_width must be at least 64 pixels, not {median_width}")


def _frame(child: Child, median_width: int, rng: Generator) -> Frame:
    """Size, crop and position; the limits are those of the real images."""
    cols = round(median_width * float(np.clip(np.exp(rng.normal(0, 0.25)), 0.4, 2.2)))
    rows = round(cols / float(np.clip(1.4 * np.exp(rng.normal(0, 0.13)), 1.08, 1.85)))
    by_height = rows * rng.uniform(0.58, 0.76)
    by_width = cols * rng.uniform(0.68, 0.92) / (2 * child.chest)
    return Frame(
        rows=rows,
        cols=cols,
        scale=min(by_height, by_width),
        angle=float(np.deg2rad(rng.normal(0, 2))),
        centre=(rng.normal(0, 0.05), rng.normal(0.47, 0.035)),
    )


@dataclass(frozen=True)
class _Order:
    """One image to be made; `name` is without suffix, `folder` is split/class."""

    folder: str
    name: str
    subtype: Subtype
    patient_seed: int
    image_seed: int


def write_dataset(
    root: Path,
    *,
    train_images: int,
    test_images: int,
    pneumonia_fraction: float = 0.74,
    contrast: float,
    median_width: int,
    seed: int,
    workers: int,
) -> None:
    """Write a data set of phantoms in the layout of the Kermany data.

    Makes `root/{train,test}/{NORMAL,PNEUMONIA}/NAME.jpeg` (grey), the known lungs as
    `root/lungs/{train,test}/{NORMAL,PNEUMONIA}/NAME.png` (uint8, 0 or 255), and `root/lungs.csv`
    with the columns image (file name), class and mask (path below `root/lungs`). No patient is in
    both splits. The bytes depend on the arguments without `workers` only. An earlier data set at
    `root` is replaced once the new one is complete.

    Raises:
        ValueError: for negative counts or seed, a fraction outside 0..1, fewer than one worker,
            an appearance that `render` refuses, or a `root` that holds anything else.
    """
    if min(train_images, test_images, seed) < 0:
        raise ValueError(
            f"train_images, test_images and seed must not be negative: "
            f"{train_images}, {test_images}, {seed}"
        )
    if not 0 <= pneumonia_fraction <= 1:
        raise ValueError(f"pneumonia_fraction must be within 0..1, not {pneumonia_fraction}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    _check_appearance(contrast, median_width)
    root = Path(root).resolve()
    _check_replaceable(root)
    orders = _plan({"train": train_images, "test": test_images}, pneumonia_fraction, seed)
    scratch, previous = (root.with_name(f".{root.name}.{end}") for end in ("partial", "previous"))
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        for base in (scratch, scratch / "lungs"):
            for split in ("train", "test"):
                for kind in ("NORMAL", "PNEUMONIA"):
                    (base / split / kind).mkdir(parents=True)
        make = partial(_write_image, root=scratch, contrast=contrast, median_width=median_width)
        _run(make, orders, workers)
        _write_annotations(scratch / "lungs.csv", orders)
        shutil.rmtree(previous, ignore_errors=True)
        if root.exists():
            root.rename(previous)
        scratch.rename(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(previous, ignore_errors=True)


def _check_replaceable(root: Path) -> None:
    """Refuse to delete a folder that is not a data set, such as a mistyped home folder."""
    if not root.exists():
        return
    if not root.is_dir() or {path.name for path in root.iterdir()} - LAYOUT - SNAKEMAKE:
        raise ValueError(f"{root} exists and is not a folder of phantoms; it is left as it is")


def _plan(images: dict[str, int], pneumonia_fraction: float, seed: int) -> list[_Order]:
    """Patients and images in order; numbers of persons, studies and images never recur."""
    rng = np.random.default_rng(SeedSequence([seed]))
    orders: list[_Order] = []
    person = study = number = 0
    for split, count in images.items():
        left = {"PNEUMONIA": round(count * pneumonia_fraction)}
        left["NORMAL"] = count - left["PNEUMONIA"]
        shown = {"bacteria": 0, "virus": 0}
        for kind in ("NORMAL", "PNEUMONIA"):
            while left[kind]:
                take = 1 + int(rng.choice(len(IMAGES_PER_PATIENT), p=IMAGES_PER_PATIENT))
                take = min(take, left[kind])
                left[kind] -= take
                patient_seed = int(rng.integers(2**62))
                subtype: Subtype = "normal"
                if kind == "NORMAL":
                    study += 1
                    names = [f"IM-{study:04d}-{i:04d}" for i in range(1, take + 1)]
                else:
                    # Twice as many images of bacterial as of viral pneumonia, as in the real data.
                    subtype = "bacteria" if shown["bacteria"] <= 2 * shown["virus"] else "virus"
                    shown[subtype] += take
                    person += 1
                    names = [f"person{person}_{subtype}_{number + i}" for i in range(1, take + 1)]
                    number += take
                folder = f"{split}/{kind}"
                orders += [_Order(folder, n, subtype, patient_seed, i) for i, n in enumerate(names)]
    return orders


def _run(make: Callable[[_Order], None], orders: list[_Order], workers: int) -> None:
    if workers == 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            _follow(map(make, orders), len(orders))
        finally:
            cv2.setNumThreads(threads)
        return
    # A fork would copy the locks of threads that the caller's libraries may have started.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        _follow(pool.map(make, orders, chunksize=8), len(orders))


def _follow(results: Iterable[None], total: int) -> None:
    tenth = max(1, -(-total // 10))
    for done, _ in enumerate(results, 1):
        if done % tenth == 0 or done == total:
            log.info("phantoms: %d of %d images (%d %%)", done, total, 100 * done // total)


def _write_image(order: _Order, *, root: Path, contrast: float, median_width: int) -> None:
    phantom = render(
        order.patient_seed,
        order.image_seed,
        order.subtype,
        contrast=contrast,
        median_width=median_width,
    )
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    jpeg = cv2.imencode(".jpg", phantom.image, quality)[1]
    (root / order.folder / f"{order.name}.jpeg").write_bytes(jpeg.tobytes())
    png = cv2.imencode(".png", phantom.lungs.astype(np.uint8) * 255)[1]
    (root / "lungs" / order.folder / f"{order.name}.png").write_bytes(png.tobytes())


def _write_annotations(path: Path, orders: list[_Order]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("image", "class", "mask"))
        for order in orders:
            kind = order.folder.split("/")[1]
            table.writerow((f"{order.name}.jpeg", kind, f"{order.folder}/{order.name}.png"))
