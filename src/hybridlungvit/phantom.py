"""Synthetic radiographs of children with known lungs, in the folder layout of the Kermany data.

They stand in for images that cannot be shipped, in the demonstration and in tests. A chest is a sum
of smooth layers of radiographic density, float32 (H, W): trunk, air, heart, bones. Each is a closed
form of the body coordinates u and v, whose unit is the height of a lung: u runs to the right of the
image from the midline, v down from the apices.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from hybridlungvit.config import Phantom as Settings
from hybridlungvit.io import StudyError, write_text
from hybridlungvit.runtime import each_in_processes

Subtype = Literal["normal", "bacteria", "virus"]
Layer = NDArray[np.float32]

LAYOUT = {"train", "test", "lungs", "lungs.csv"}
JPEG_QUALITY = 90
IMAGES_PER_PATIENT = (0.72, 0.18, 0.07, 0.03)  # of one to four images


class Phantom(NamedTuple):
    """A synthetic radiograph."""

    image: NDArray[np.uint8]
    """(H, W), bright bone on dark air."""
    lungs: NDArray[np.bool_]
    """(H, W), known exactly; what the heart hides counts as lung, as a reader would draw it."""


class Child:
    """Proportions of one patient; lengths in lung heights.

    Infants (age near 0) have the wider chests, larger hearts and softer bones.
    """

    def __init__(self, rng: Generator) -> None:
        age, dome = rng.uniform(), rng.normal(0.84, 0.02)
        # From the midline to the lateral lung border, and the share by which the image's right lung
        # is wider; from the midline to the medial border; the thickness of the lateral chest wall.
        self.chest = 0.80 - 0.20 * age + rng.normal(0, 0.03)
        self.asymmetry = rng.normal(0, 0.02)
        self.medial = rng.uniform(0.10, 0.135)
        self.wall = rng.uniform(0.07, 0.15)
        self.domes = (dome, dome + rng.uniform(-0.01, 0.06))  # v of the diaphragm, left and right
        self.heart = 1.12 - 0.22 * age + rng.normal(0, 0.07)  # width relative to the mean
        self.ribs = rng.uniform(0.10, 0.13)  # distance of one rib to the next
        self.bone = 0.8 + 0.35 * age + rng.normal(0, 0.1)  # mineral density relative to the mean


class Grid:
    """Body coordinates u and v of every pixel, and the pixels per lung height.

    Size, crop, position and tilt of an image are random; sizes spread as those of the real ones.
    """

    def __init__(self, child: Child, median_width: int, rng: Generator) -> None:
        cols = round(median_width * float(np.clip(np.exp(rng.normal(0, 0.25)), 0.4, 2.2)))
        rows = round(cols / float(np.clip(1.4 * np.exp(rng.normal(0, 0.13)), 1.08, 1.85)))
        by_height = rows * rng.uniform(0.58, 0.76)
        by_width = cols * rng.uniform(0.68, 0.92) / (2 * child.chest)
        self.scale, tilt = min(by_height, by_width), np.deg2rad(rng.normal(0, 2))
        y, x = np.mgrid[:rows, :cols].astype(np.float32)
        x, y = (x - 0.5 * (cols - 1)) / self.scale, (y - 0.5 * (rows - 1)) / self.scale
        u = np.cos(tilt) * x + np.sin(tilt) * y + rng.normal(0, 0.05)
        v = np.cos(tilt) * y - np.sin(tilt) * x + rng.normal(0.47, 0.035)
        self.u, self.v = u.astype(np.float32), v.astype(np.float32)

    def mottle(self, rng: Generator, grain: float) -> Layer:
        """Smooth random field of about unit variance with grains of `grain` lung heights."""
        rows, cols = (2 + int(side / (grain * self.scale)) for side in self.u.shape)
        coarse = rng.standard_normal((rows, cols), dtype=np.float32)
        return cv2.resize(coarse, self.u.shape[::-1], interpolation=cv2.INTER_CUBIC)


def blob(u: Layer, v: Layer, centre: tuple[float, float], radii: tuple[float, float]) -> Layer:
    """Squared distance from a point in units of the radii along u and v."""
    return np.square((u - centre[0]) / radii[0]) + np.square((v - centre[1]) / radii[1])


def step(x: Layer, width: float) -> Layer:
    """Smooth step from 0 to 1 over `width`, one half at x = 0."""
    t = np.clip(x / width + 0.5, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def profile(v: Layer, *points: tuple[float, float]) -> Layer:
    """Piecewise linear function of v through points (v, value)."""
    return np.interp(v, *zip(*points, strict=True)).astype(np.float32)


def render(
    patient_seed: int, image_seed: int, subtype: Subtype, *, contrast: float, median_width: int
) -> Phantom:
    """Render one radiograph of one child.

    The anatomy follows `patient_seed`; size, position, exposure, noise and opacities follow both
    seeds. Neither `subtype`, where "bacteria" is lobar consolidation and "virus" diffuse haze, nor
    `contrast` changes anything but the opacities in the lungs; a `contrast` of 1 replaces 63 % of
    the air.
    """
    child = Child(np.random.default_rng([patient_seed]))
    # One stream per purpose, so that an opacity does not change the noise.
    streams = SeedSequence([patient_seed, image_seed]).spawn(4)
    posing, tissue, disease, detector = (np.random.default_rng(stream) for stream in streams)
    grid = Grid(child, median_width, posing)
    air, lungs = draw_lungs(child, grid)
    air *= 1 - opacity(child, grid, subtype, contrast, disease)
    return Phantom(expose(project(child, grid, air, tissue), grid, detector), lungs)


def draw_lungs(child: Child, grid: Grid) -> tuple[Layer, NDArray[np.bool_]]:
    """Thickness of air (0..1), and the lungs: an arched roof above the dome of the diaphragm."""
    u, v = grid.u, grid.v
    x, side = np.abs(u), np.sign(u)
    reach = child.chest * (1 + side * child.asymmetry)
    apex = 0.36 * reach
    lateral = np.clip(x - apex, 0, None) / (reach - apex)
    inward = np.clip(apex - x, 0, None) / (apex - child.medial)
    inside = 1 - lateral**2 - np.clip(1 - v, 0, None) ** 2 - 0.16 * inward**2
    dome = np.where(side < 0, *child.domes)
    # Laterally the lung reaches down into the costophrenic angle.
    angle = np.clip(x / reach - 0.35, 0, None) / 0.65
    floor = dome + (1 - dome) * angle**2 * (0.5 + 0.5 * angle) - v
    lungs = (inside > 0) & (floor > 0) & (x > child.medial)
    depth = np.sqrt(np.clip(2 * inside, 0, 1)) * step(x - 0.85 * child.medial, 0.09)
    # The back of the lung reaches below the dome seen edge-on.
    return depth * (0.85 * step(floor, 0.025) + 0.15 * step(floor + 0.06, 0.12)), lungs


def opacity(child: Child, grid: Grid, subtype: Subtype, contrast: float, rng: Generator) -> Layer:
    """Share (0..1) of the air that fluid replaces, before it is confined to the lungs."""
    if subtype == "normal":
        return np.zeros_like(grid.u)
    # A wide spread: some pneumonias are hard to see whatever the mean.
    strength = contrast * rng.gamma(2.5, 1 / 2.5)
    pattern = consolidation(child, grid, rng) if subtype == "bacteria" else haze(grid, rng)
    return 1 - np.exp(-strength * pattern)


def consolidation(child: Child, grid: Grid, rng: Generator) -> Layer:
    """One or two lobar patches with ragged edges."""
    ragged = 0.35 * grid.mottle(rng, 0.09) + 0.2 * grid.mottle(rng, 0.035)
    pattern = np.zeros_like(grid.u)
    for _ in range(1 + (rng.uniform() < 0.3)):
        level = rng.choice((0.28, 0.52, 0.74)) + rng.normal(0, 0.04)
        reach = child.chest * (1 - (1 - level) ** 2) ** 0.5
        x, radius = rng.choice((-1, 1)) * rng.uniform(0.3, 0.78) * reach, rng.uniform(0.11, 0.24)
        radii = (radius * rng.uniform(0.8, 1.3), radius)
        distance = blob(grid.u, grid.v, (x, level), radii)
        pattern = np.maximum(pattern, step(0.8 - distance + ragged, 1.6))
    return pattern


def haze(grid: Grid, rng: Generator) -> Layer:
    """Haze on both sides around the hila, patchy and streaky."""
    patchy = np.clip(0.55 + 0.45 * grid.mottle(rng, 0.12), 0, None)
    streaky = np.clip(0.5 + 0.5 * grid.mottle(rng, 0.03), 0, None)
    spread, uneven = rng.uniform(0.18, 0.34), 1 + rng.normal(0, 0.25) * np.sign(grid.u)
    hila = np.exp(-blob(np.abs(grid.u), grid.v, (0.26, 0.55), (spread, 1.3 * spread)))
    return 0.75 * np.clip(uneven, 0, None) * hila * (0.6 * patchy + 0.4 * streaky)


def project(child: Child, grid: Grid, air: Layer, rng: Generator) -> Layer:
    """Sum of the layers, about 0 outside the body and 1 behind the spine.

    Healthy chests differ in what a model could take for disease: in aeration, from side to side and
    top to bottom, in their hila, and by a fold of skin or cloth upon the chest.
    """
    u, v = grid.u, grid.v
    flank = child.chest + child.wall
    neck = (-0.6, 0.21), (-0.3, 0.25)
    half = profile(v, *neck, (-0.12, flank), (0.02, 1.25 * flank), (0.4, flank), (1.5, flank))
    trunk = np.sqrt(np.clip(1 - (u / half) ** 2, 0, None))
    inside = np.minimum(2 * trunk, 1)
    vessels, size = [(0, 0.16), (0.3, 0.16)], child.heart
    left = profile(v, *vessels, (0.5, 0.17 * size), (0.75, 0.22 * size), (1, 0.15 * size))
    right = profile(v, *vessels, (0.55, 0.33 * size), (0.75, 0.45 * size), (1, 0.35 * size))
    heart = step(np.minimum(u + left, right - u), 0.055)
    heart *= 0.55 + 0.45 * step(v - 0.25, 0.4)  # the great vessels fade out towards the neck
    hila = blob(np.abs(u), v, (0.2, 0.47), (0.12, 0.17))
    air = air * (rng.uniform(0.8, 1.1) + rng.normal(0, 0.12) * u + rng.normal(0, 0.15) * (v - 0.5))
    air *= (1 + 0.06 * grid.mottle(rng, 0.25)) * (1 - 0.75 * heart)
    markings = np.exp(-hila) + 0.15 * np.abs(grid.mottle(rng, 0.03))
    air *= 1 - 0.3 * rng.gamma(9, 1 / 9) * markings
    abdomen = step(v - 0.95, 0.5)
    vertebrae = 0.8 + 0.15 * np.cos(v * (2 * np.pi / 0.09))  # with their discs
    spine = step(0.08 - np.abs(u), 0.02) * vertebrae
    bones = 0.15 * draw_ribs(child, grid) * (1 - 0.5 * abdomen) + 0.16 * spine
    density = 0.70 * trunk - 0.42 * air
    density += inside * (0.05 * heart + 0.08 * abdomen + child.bone * bones)
    density += inside * 0.012 * grid.mottle(rng, 0.06)
    place = (rng.uniform(-1, 1) * child.chest, rng.uniform())
    fold = blob(u, v, place, rng.uniform(0.1, 0.3, 2))
    density += inside * rng.uniform(0, 0.09) * (rng.uniform() < 0.5) * step(1 - fold, 1.0)
    return np.clip(density, 0, None)


def draw_ribs(child: Child, grid: Grid) -> Layer:
    """Ribs that fall laterally as they come round, and the clavicles above them."""
    x = np.abs(grid.u) / child.chest
    phase = (grid.v - 0.18 * x**2) / child.ribs
    cage = step(1.05 - x, 0.06) * step(x - 0.1, 0.05) * step(grid.v + 0.05, 0.1)
    # The X-rays pass along the ribs where they turn at the flank.
    ribs = cage * step(np.cos(2 * np.pi * phase) - 0.3, 1.0) * (0.6 + 0.6 * x**4)
    clavicles = np.exp(-(((grid.v - 0.06 + 0.12 * x) / 0.022) ** 2)) * step(x - 0.15, 0.1)
    return ribs + clavicles


def expose(density: Layer, grid: Grid, rng: Generator) -> NDArray[np.uint8]:
    """Detector and display: uneven beam, blur, noise, tone curve and the side marker."""
    beam = 1 + rng.normal(0, 0.05) * grid.u + rng.normal(0, 0.06) * (grid.v - 0.5)
    cols = density.shape[1]
    lit = cv2.GaussianBlur(density * beam, (0, 0), 0.2 + rng.uniform(0.2, 0.7) * cols / 320)
    grain = cv2.GaussianBlur(rng.standard_normal(lit.shape, dtype=np.float32), (0, 0), 0.5)
    # Fewer photons arrive behind the denser parts.
    lit += grain * (rng.uniform(0.006, 0.03) * np.clip(lit, 0, 1.2) + rng.uniform(0.001, 0.006))
    gain, gamma, fog = rng.uniform(0.95, 1.3), np.exp(rng.normal(0, 0.16)), rng.uniform(0, 0.03)
    shown = fog + (1 - fog) * np.tanh(gain * np.clip(lit, 0, None) ** gamma)
    image = np.clip(shown * (255 / 0.88), 0, 255).astype(np.uint8)
    place = (int(cols * rng.uniform(0.02, 0.09)), int(len(image) * rng.uniform(0.1, 0.5)))
    size = len(image) / 330
    cv2.putText(image, "R", place, 0, size, 230, max(1, round(2 * size)), cv2.LINE_AA)
    return image


class Order(NamedTuple):
    """One image to be made."""

    folder: str  # split/class
    name: str  # without suffix
    subtype: Subtype
    patient_seed: int
    image_seed: int


def write_dataset(root: Path, settings: Settings, workers: int) -> None:
    """Write a data set of phantoms in the layout of the Kermany data.

    Makes `root/{train,test}/{NORMAL,PNEUMONIA}/NAME.jpeg` (grey), the known lungs as
    `root/lungs/{train,test}/{NORMAL,PNEUMONIA}/NAME.png` (uint8, 0 or 255), and `root/lungs.csv`
    with the columns image (file name), class and mask (path below `root/lungs`). No patient is in
    both splits. The bytes depend on the `settings` only. An earlier data set at `root` is replaced
    once the new one is complete. Raises `StudyError` where `root` holds anything but phantoms.
    """
    # Snakemake makes the folder of an output, and removes the table before another run.
    if root.exists() and not {path.name for path in root.iterdir()} - {".DS_Store"} <= LAYOUT:
        raise StudyError(f"{root}: exists, and is no folder of phantoms. Move it away.")
    orders = plan_images(settings, np.random.default_rng(settings.seed))
    scratch = root.with_name(f".{root.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        for order in orders:
            for base in (scratch, scratch / "lungs"):
                (base / order.folder).mkdir(parents=True, exist_ok=True)
        work = partial(_write_image, root=scratch, settings=settings)
        for _ in each_in_processes(work, orders, workers=workers, description="phantoms"):
            pass
        lines = [f"{o.name}.jpeg,{o.folder.split('/')[1]},{o.folder}/{o.name}.png" for o in orders]
        write_text(scratch / "lungs.csv", "\n".join(["image,class,mask", *lines, ""]))
        shutil.rmtree(root, ignore_errors=True)
        scratch.rename(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def plan_images(settings: Settings, rng: Generator) -> list[Order]:
    """Patients and images in order; numbers of persons, studies and images never recur."""
    orders: list[Order] = []
    study = person = number = 0
    for split, count in (("train", settings.train_images), ("test", settings.test_images)):
        sick = round(count * settings.pneumonia_fraction)
        shown = {"bacteria": 0, "virus": 0}
        for kind, left in (("NORMAL", count - sick), ("PNEUMONIA", sick)):
            while left:
                take = 1 + int(rng.choice(len(IMAGES_PER_PATIENT), p=IMAGES_PER_PATIENT))
                take = min(take, left)
                left -= take
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
                patient = int(rng.integers(2**62))
                folder = f"{split}/{kind}"
                orders += [Order(folder, n, subtype, patient, i) for i, n in enumerate(names)]
    return orders


def _write_image(order: Order, *, root: Path, settings: Settings) -> None:
    drawn_as = settings.model_dump(include={"contrast", "median_width"})
    image, lungs = render(order.patient_seed, order.image_seed, order.subtype, **drawn_as)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    (root / order.folder / f"{order.name}.jpeg").write_bytes(jpeg.tobytes())
    png = cv2.imencode(".png", lungs.astype(np.uint8) * 255)[1]
    (root / "lungs" / order.folder / f"{order.name}.png").write_bytes(png.tobytes())
