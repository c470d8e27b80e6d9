"""Anatomy of a synthetic child in projection, as layers of radiographic density.

Body coordinates (u, v) have the lung height (apex to costophrenic angle) as their unit: u runs to
the right of the image from the midline, v downwards from the lung apices. A side is -1 for the
patient's right (left in the image) and +1 for the left. Layers are float32 (H, W).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Layer = NDArray[np.float32]
SIDES = (-1, 1)


@dataclass(frozen=True)
class Child:
    """Proportions of one patient; lengths in lung heights."""

    chest: float  # half-width of the rib cage inside
    wall: float  # thickness of the lateral chest wall
    asymmetry: float  # excess of the left lung's width
    shoulder: float  # how far the roundness of the lung roof departs from an ellipse
    medial: float  # distance of the medial lung border from the midline
    domes: tuple[float, float]  # tops of the right and left diaphragm
    heart: float  # size of the heart relative to the mean
    thymus: float  # half-width of the upper mediastinum
    rib_pitch: float
    rib_radius: float
    rib_drop: float
    vertebra: float  # pitch of the vertebrae
    bone: float  # mineral density relative to the mean
    vessels: int  # seed of the vascular tree

    @classmethod
    def draw(cls, rng: Generator) -> "Child":
        """Infants (age near 0) have the wider chests, larger hearts and thymi."""
        age = rng.uniform()
        right_dome = 0.84 + rng.normal(0, 0.02)
        return cls(
            chest=0.80 - 0.20 * age + rng.normal(0, 0.03),
            wall=rng.uniform(0.07, 0.15),
            asymmetry=rng.normal(0, 0.02),
            shoulder=rng.uniform(-0.15, 0.35),
            medial=rng.uniform(0.10, 0.135),
            domes=(right_dome, right_dome + rng.uniform(-0.01, 0.06)),
            heart=1.12 - 0.22 * age + rng.normal(0, 0.07),
            thymus=0.19 - 0.06 * age + rng.normal(0, 0.02),
            rib_pitch=rng.uniform(0.105, 0.125),
            rib_radius=rng.uniform(0.016, 0.021),
            rib_drop=rng.uniform(0.50, 0.72),
            vertebra=rng.uniform(0.085, 0.1),
            bone=0.8 + 0.35 * age + rng.normal(0, 0.1),
            vessels=int(rng.integers(2**31)),
        )


@dataclass(frozen=True)
class Pose:
    """How the child lay: `turn` about its long axis, `breath` (less is deeper), arms' angle."""

    turn: float
    breath: float
    arms: tuple[float, float]  # radians above the horizontal
    head: float  # v of the chin

    @classmethod
    def draw(cls, rng: Generator) -> "Pose":
        raised = rng.uniform() < 0.6
        arms = rng.normal(0.9 if raised else -1.0, 0.25, 2)
        return cls(
            turn=rng.normal(0, 0.025),
            breath=rng.normal(0, 0.025),
            arms=(float(arms[0]), float(arms[1])),
            head=rng.uniform(-0.55, -0.27),
        )


@dataclass(frozen=True)
class Frame:
    """The image's pixel grid in body coordinates."""

    rows: int
    cols: int
    scale: float  # pixels per lung height
    angle: float  # radians of in-plane rotation
    centre: tuple[float, float]  # body coordinates of the image centre

    @cached_property
    def rotation(self) -> NDArray[np.float64]:
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]])

    @cached_property
    def grid(self) -> tuple[Layer, Layer]:
        """u and v of every pixel."""
        x = (np.arange(self.cols, dtype=np.float32) - 0.5 * (self.cols - 1)) / self.scale
        y = (np.arange(self.rows, dtype=np.float32)[:, None] - 0.5 * (self.rows - 1)) / self.scale
        (a, b), (c, d) = self.rotation.astype(np.float32)
        u0, v0 = np.float32(self.centre[0]), np.float32(self.centre[1])
        return a * x + c * y + u0, b * x + d * y + v0

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Body coordinates (..., 2) as pixel coordinates x, y."""
        offset = (points - np.asarray(self.centre)) @ self.rotation.T
        return offset * self.scale + 0.5 * np.array([self.cols - 1, self.rows - 1])

    def blur(self, layer: Layer, sigma: float) -> Layer:
        """Gaussian blur, sigma in lung heights."""
        return cv2.GaussianBlur(layer, (0, 0), max(0.35, sigma * self.scale))

    def mottle(self, rng: Generator, cell: float) -> Layer:
        """Smooth random field of about unit variance with grains of `cell` lung heights."""
        rows, cols = (int(np.ceil(n / (cell * self.scale))) + 3 for n in (self.rows, self.cols))
        coarse = rng.standard_normal((rows, cols), dtype=np.float32)
        step = max(1.0, cell * self.scale)
        size = (max(self.cols, int(cols * step)), max(self.rows, int(rows * step)))
        return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[: self.rows, : self.cols]

    def tubes(
        self, paths: NDArray[np.float64], radius: NDArray[np.float64] | float, cortex: float = 0.45
    ) -> Layer:
        """Tubes along paths (n, k, 2), brighter at the edges by the share `cortex`.

        `radius` broadcasts to (n, k).
        """
        along = np.gradient(paths, axis=1)
        across = np.stack([-along[..., 1], along[..., 0]], -1)
        across *= (radius / np.linalg.norm(across, axis=-1))[..., None]
        outlines = np.concatenate([paths + across, (paths - across)[:, ::-1]], axis=1)
        contours = np.rint(self.pixels(outlines) * 16).astype(np.int32)
        filled, edges = np.zeros((2, self.rows, self.cols), np.uint8)
        for contour in contours:
            cv2.fillPoly(filled, [contour], 255, cv2.LINE_AA, 4)
        cv2.polylines(
            edges, list(contours), True, 255, max(1, round(0.006 * self.scale)), cv2.LINE_AA, 4
        )
        inner, outer = (1 - cortex) / 255, cortex / 255
        mixed = cv2.addWeighted(filled, inner, edges, outer, 0, dtype=cv2.CV_32F)
        return self.blur(mixed, 0.005)


def smooth(x: Layer, width: float) -> Layer:
    """Smooth step from 0 to 1 over `width`, one half at x = 0."""
    t = np.clip(x * np.float32(1 / width) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def profile(v: Layer, levels: tuple[float, ...], values: tuple[float, ...]) -> Layer:
    """A rounded outline through `values` at the given levels of v."""
    fine = np.linspace(-0.8, 1.6, 97)
    ends = np.pad(np.interp(fine, levels, values), 5, mode="edge")
    window = np.hanning(13)[1:-1]
    rounded = np.convolve(ends, window / window.sum(), "valid")
    return np.interp(v, fine, rounded).astype(np.float32)


def shoulder_joint(child: Child, pose: Pose, side: int) -> tuple[float, float]:
    """A raised arm draws its joint up and inwards."""
    lift = float(np.sin(pose.arms[side > 0]))
    return side * (child.chest + 0.10 - 0.04 * lift), 0.05 - 0.08 * lift


def elbow(child: Child, pose: Pose, side: int) -> tuple[float, float]:
    x, y = shoulder_joint(child, pose, side)
    arm = pose.arms[side > 0]
    return x + side * 0.75 * float(np.cos(arm)), y - 0.75 * float(np.sin(arm))


def limb(frame: Frame, start: tuple[float, float], end: tuple[float, float], r: float) -> Layer:
    """Squared thickness (1 on the axis) of a limb with round ends."""
    u, v = frame.grid
    u, v, du, dv = u - start[0], v - start[1], end[0] - start[0], end[1] - start[1]
    t = np.clip((u * du + v * dv) * (1 / (du * du + dv * dv)), 0, 1)
    u, v = u - t * du, v - t * dv
    return np.clip(1 - (u * u + v * v) * (1 / (r * r)), 0, None)


def soft_tissue(child: Child, pose: Pose, frame: Frame) -> Layer:
    """Thickness of trunk, neck, head and arms; 1 in the middle of the trunk."""
    u, v = frame.grid
    flank = child.chest + child.wall
    half = profile(
        v,
        (-0.6, -0.3, -0.18, -0.08, 0.08, 0.4, 0.9, 1.5),
        (0.21, 0.25, 0.45, 0.85 * flank, 1.02 * flank, 0.98 * flank, flank, 0.97 * flank),
    )
    u = u / half
    squared = np.clip(1 - u * u, 0, None)
    for side in SIDES:
        x, y = shoulder_joint(child, pose, side)
        arm = limb(frame, (x, y), elbow(child, pose, side), 0.19)
        deltoid = limb(frame, (0.6 * x, y - 0.02), (x, y), 0.19)
        squared += 0.3 * np.maximum(arm, deltoid)
    head = limb(frame, (-0.05, pose.head - 0.36), (0.05, pose.head - 0.36), 0.36)
    return np.sqrt(squared + 0.8 * head)


def coarsely(
    organ: Callable[[Child, Pose, Frame], Layer], child: Child, pose: Pose, frame: Frame
) -> Layer:
    """A layer without fine detail, computed at half the resolution to save time."""
    rows, cols = (frame.rows + 1) // 2, (frame.cols + 1) // 2
    coarse = replace(frame, rows=rows, cols=cols, scale=frame.scale / 2)
    return cv2.resize(organ(child, pose, coarse), (frame.cols, frame.rows))


def lung_roof(child: Child, side: Layer | int) -> tuple[Layer | float, Layer | float]:
    """Lateral reach of a lung and the distance of its apex from the midline."""
    reach = child.chest * (1 + side * child.asymmetry)
    return reach, 0.36 * reach


def lungs(child: Child, pose: Pose, frame: Frame) -> tuple[Layer, NDArray[np.bool_]]:
    """Thickness of air (0..1) and the annotated lungs, which include the heart's shadow."""
    u, v = frame.grid
    side, x = np.sign(u), np.abs(u)
    reach, apex = lung_roof(child, side)
    reach += side * pose.turn
    medial = child.medial + side * pose.turn + 0.02 * (v - 0.5)
    height = np.clip(1 - v, 0, None)
    lateral = np.clip(x - apex, 0, None) / (reach - apex)
    inward = np.clip(apex - x, 0, None) / (apex - child.medial)
    inward *= inward
    roof = height * height * (1 + child.shoulder * height) * (1 / (1 + child.shoulder))
    inside = 1 - lateral * lateral - roof - 0.16 * inward * inward
    right, left = child.domes
    top = 0.5 * (left + right) + pose.breath + 0.5 * (left - right) * side
    slope = np.clip(x - 0.35 * reach, 0, None) / (0.65 * reach)
    sinus = slope * slope * (0.5 + 0.5 * slope)
    floor = top + (1 - top) * sinus + 0.06 * np.clip(0.3 * reach - x, 0, None) - v
    mask = (inside > 0) & (floor > 0) & (x > medial)
    depth = np.sqrt(np.clip(inside, 0, 0.5) * 2)
    # The back of the lung reaches below the dome seen edge-on.
    basal = 0.85 * smooth(floor, 0.025) + 0.15 * smooth(floor + 0.06, 0.12)
    return depth * basal * smooth(x - 0.85 * medial, 0.09), mask
