"""The template of the lung masks: an outline drawn once by hand, and the frame that places it.

Coordinates are fractions of the image's width and height with the origin at the top left corner,
so that the centre of pixel i of n lies at (i + 0.5) / n. "Left" and "right" are the image's sides.
"""

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

FRAME_PRIOR = {  # name: (mean, standard deviation)
    "midline": (0.500, 0.022),  # x of the spine at mid-height
    "tilt": (0.000, 0.050),  # slope dx/dy of the spine
    "left_width": (0.385, 0.036),  # midline to the costophrenic angle
    "right_width": (0.385, 0.036),
    "apex": (0.152, 0.069),  # y of both lung apices
    "left_base": (0.875, 0.067),  # y of the costophrenic angles
    "right_base": (0.875, 0.067),
}
FRAME_MEAN, FRAME_SD = np.array(list(FRAME_PRIOR.values()), np.float32).T
FRAME_LIMIT = 4.0
"""Standard deviations: no frame leaves the prior by more, which keeps both lungs in every image."""

FRAME_MARGIN = np.array([0, 0, 0.02, 0.02, -0.03, -0.01, -0.01], np.float32)
"""From the strongest edge to the border a reader draws: outside the ribs and above the clavicle."""

# Outline of one lung: (u, v), u from the midline (0) to the costophrenic angle (1), v from the
# apex (0) to that angle (1). The medial border is straight: the heart counts as lung.
# The numbers are the weights of the parts in the fit. Apex and diaphragm are one clear edge each;
# beside the lungs ribs, scapula, skin and heart offer several, so the sides count half.
OUTLINE = {
    "diaphragm": (1.0, [(0.19, 0.855), (0.50, 0.86), (0.75, 0.895), (0.92, 0.965)]),
    "wall": (
        0.5,
        [(0.985, 0.995), (1.0, 0.92), (0.94, 0.68), (0.84, 0.40), (0.70, 0.20), (0.58, 0.08)],
    ),
    "apex": (1.0, [(0.46, 0.02), (0.35, 0.0), (0.25, 0.01)]),
    "medial": (0.5, [(0.20, 0.04), (0.165, 0.12), (0.16, 0.50), (0.17, 0.84)]),
}
OUTLINE_POINTS = 32
"""Edge samples per lung, evenly along the outline."""


def outline() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (P, 2), outward unit normals (P, 2), weights (P,), evenly along a closed spline."""
    control = np.array([point for _, part in OUTLINE.values() for point in part])
    weight = np.array([weight for weight, part in OUTLINE.values() for _ in part])
    closed = np.vstack([control, control[:1]])
    # Centripetal knots (Lee 1989): no loops where control points are unevenly spaced.
    knots = np.r_[0, np.sqrt(np.hypot(*np.diff(closed, axis=0).T)).cumsum()]
    spline = CubicSpline(knots, closed, bc_type="periodic")
    dense = np.linspace(0, knots[-1], 800)
    arc = np.r_[0, np.hypot(*np.diff(spline(dense), axis=0).T).cumsum()]
    even = np.interp(np.linspace(0, arc[-1], OUTLINE_POINTS, endpoint=False), arc, dense)
    width, height = FRAME_MEAN[2], FRAME_MEAN[5] - FRAME_MEAN[4]
    dx, dy = spline(even, 1).T * [[width], [height]]
    # The control points run from the diaphragm outwards and up, so the outside is at (-dy, dx).
    normal = np.stack([-dy, dx], axis=1) / np.hypot(dx, dy)[:, None]
    nearest = np.abs(even[:, None] - knots[None, :-1]).argmin(axis=1)
    return spline(even), normal, weight[nearest] / weight[nearest].sum()


def _placement() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear maps from a frame (7,) to x and to y of both outlines, left lung first: (7, 2P) each.

    The third array, (2P, 2), is their outward normals times their weights.
    """
    points, normals, weights = outline()
    u, v = points.T
    one, none = np.ones_like(u), np.zeros_like(u)
    left_x, right_x = [one, none, -u, none, none, none, none], [one, none, none, u] + [none] * 3
    left_y, right_y = [none] * 4 + [1 - v, v, none], [none] * 4 + [1 - v, none, v]
    normals = np.concatenate([normals * (-1, 1), normals]) * np.r_[weights, weights][:, None] / 2
    maps = np.hstack([left_x, right_x]), np.hstack([left_y, right_y]), normals
    return tuple(array.astype(np.float32) for array in maps)


FRAME_TO_X, FRAME_TO_Y, WEIGHTED_NORMALS = _placement()


def place(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of both outlines in each frame: (F, 7) -> two arrays (F, 2P), left lung first."""
    y = frames @ FRAME_TO_Y
    return frames @ FRAME_TO_X + frames[:, 1:2] * (y - 0.5), y


def mirror(frame: np.ndarray) -> np.ndarray:
    """The frame (7,) of the mirrored image."""
    midline, tilt, left_width, right_width, apex, left_base, right_base = frame
    return np.array([1 - midline, -tilt, right_width, left_width, apex, right_base, left_base])


def draw(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Fill both outlines at the image's own size: (7,) -> uint8 (H, W), 1 is lung."""
    mask = np.zeros(shape, np.uint8)
    x, y = place(frame[None])
    pixels = np.stack([x[0] * shape[1], y[0] * shape[0]], axis=1) - 0.5
    for lung in np.split(pixels, 2):
        cv2.fillPoly(mask, [np.round(lung * 16).astype(np.int32)], 1, shift=4)  # sixteenths of px
    return mask
