"""Training-free lung masks for paediatric chest radiographs.

A lung outline drawn once by hand is fitted to the edges of the image, as a deformable template
(Yuille, Hallinan and Cohen, Int. J. Comput. Vis. 8, 1992). The order of the module is the order of
the data: orient -> shrink -> CLAHE and morphology -> edge field -> frame -> outline -> mask.
Nothing here is learned: no weights, no atlas, only the constants below. Their values were rounded
from measurements on 148 annotated radiographs of 116 patients, with other patients kept aside to
measure the result.

Coordinates are fractions of the image's width and height with the origin at the top left corner,
so that the centre of pixel i of n lies at (i + 0.5) / n. "Left" and "right" are the image's sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

WORKING_SIZE = 96
"""Side of the square in which everything is computed, px: ribs stay visible, noise does not."""

CLAHE_CLIP, CLAHE_TILES = 2.0, (2, 2)
"""CLAHE (Zuiderveld 1994): clip limit and tiles; a tile holds about half a lung, so that an opaque
lung is stretched as much as a clear one."""

MORPHOLOGY_SIZE = 3
"""Structuring element, working px: opening removes lines and markers, closing small dark gaps."""

COARSE_SIGMA, FINE_SIGMA = 4.5, 2.2
"""Gaussian scales of the edges, working px: about a rib with its gap, and one rib."""

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
FRAME_LIMIT, START_DISTANCE = 4.0, 1.3
"""Standard deviations: no frame leaves the prior by more, which keeps both lungs in every image;
the two frames that the search starts from differ by more in at least one parameter."""

SEARCH_ROUNDS = 10
"""At most, at each of the two scales; more take time and do not change the mean Dice."""

PRIOR_WEIGHT, ASYMMETRY_WEIGHT = 0.025, 0.1
"""Price of leaving the prior, and in it of unlike lungs: an opaque lung follows the clear one."""

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

CONFIDENCE_RANGE = (0.25, 0.4)
"""Edge agreement, in [-1, 1], at which the confidence leaves 0 and reaches 1: three quarters of
the fits to noise stay below the first, and half of the radiographs exceed the second."""


@dataclass(frozen=True)
class LungMask:
    """`mask`: bool (H, W), True is lung; `confidence`: [0, 1], 0 if noise would fit as well.

    Below about 0.3 treat the mask as a fallback: an average lung shape on uncertain evidence.
    """

    mask: np.ndarray
    confidence: float


def lung_mask(image: np.ndarray) -> np.ndarray:
    """Training-free lung mask of a frontal chest radiograph: (H, W) grey -> (H, W) bool.

    See `lung_mask_with_confidence` for the convention and the method.
    """
    return lung_mask_with_confidence(image).mask


def lung_mask_with_confidence(image: np.ndarray) -> LungMask:
    """Training-free lung mask of a frontal chest radiograph, and how far the image supports it.

    image: (H, W) uint8 or uint16, any size, bright bone on dark air. Returns bool (H, W) in which
    both lungs include most of the heart and of the retrocardiac area and end medially in a straight
    line beside the spine. The mask has pixels on both sides of the midline for every image at least
    8 px wide and high, and the mask of the mirrored image is the mirrored mask. An image without
    contrast gets the prior's mask and confidence 0.
    """
    if image.ndim != 2 or image.size == 0 or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"need grey uint8 or uint16 (H, W), got {image.dtype} {image.shape}")
    image = np.ascontiguousarray(image)
    lean = _lean(image)
    frame, agreement = _fit(cv2.flip(image, 1) if lean < 0 else image)
    if lean == 0:  # perhaps a symmetric image: only the mean of both readings is symmetric too
        mirrored, other = _fit(cv2.flip(image, 1))
        frame, agreement = (frame + _mirror(mirrored)) / 2, (agreement + other) / 2
    mask = _render(frame + FRAME_MARGIN, image.shape)
    if lean < 0:
        mask = cv2.flip(mask, 1)
    return LungMask(mask.view(bool), float(np.interp(agreement, CONFIDENCE_RANGE, (0.0, 1.0))))


def _lean(image: np.ndarray) -> float:
    """Mean of the right half minus mean of the left: changes its sign, exactly, with a mirror.

    Every image is read with its brighter half on the right, and the mask is mirrored back.
    That makes the mirror property hold by construction instead of up to rounding.
    """
    half = image.shape[1] // 2
    if half == 0:
        return 0.0
    return cv2.mean(image[:, -half:])[0] - cv2.mean(image[:, :half])[0]


def _mirror(frame: np.ndarray) -> np.ndarray:
    midline, tilt, left_width, right_width, apex, left_base, right_base = frame
    return np.array([1 - midline, -tilt, right_width, left_width, apex, right_base, left_base])


def _fit(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Frame (7,) of `image` and its edge agreement; the prior and -1 without contrast."""
    grey = _shrink(image)
    if grey is None:
        return FRAME_MEAN, -1.0
    clear = _enhance(grey)
    coarse, fine = _edge_field(clear, COARSE_SIGMA), _edge_field(clear, FINE_SIGMA)
    frames = _climb(_starts(coarse), coarse, step=0.5, finest=0.2)
    frames = _climb(frames, fine, step=0.25, finest=0.06)
    frame = frames[[_score(frames, fine).argmax()]]
    return frame[0], float(np.mean([_agreement(frame, field) for field in (coarse, fine)]))


def _shrink(image: np.ndarray) -> np.ndarray | None:
    """uint8 (S, S) with the grey values stretched to 0..255; None for an image without contrast."""
    size, many = (WORKING_SIZE, WORKING_SIZE), (4 * WORKING_SIZE, 4 * WORKING_SIZE)
    if min(image.shape) > many[0]:  # the mean of 16 samples does, and millions of px take 5 ms
        image = cv2.resize(image, many, interpolation=cv2.INTER_LINEAR)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    ordered = np.sort(small, axis=None)
    tail = len(ordered) // 200
    low, high = ordered[tail], ordered[-1 - tail]
    if high - low < 0.01 * np.iinfo(image.dtype).max:
        return None
    return (np.clip((small - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _enhance(grey: np.ndarray) -> np.ndarray:
    """CLAHE, then opening and closing: uint8 (S, S) -> float32 (S, S)."""
    clear = cv2.createCLAHE(CLAHE_CLIP, CLAHE_TILES).apply(grey)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (MORPHOLOGY_SIZE, MORPHOLOGY_SIZE))
    for operation in (cv2.MORPH_OPEN, cv2.MORPH_CLOSE):
        clear = cv2.morphologyEx(clear, operation, kernel)
    return clear.astype(np.float32)


def _edge_field(clear: np.ndarray, sigma: float) -> np.ndarray:
    """Gradient at scale `sigma` with lengths squashed into [0, 1): float32 (S, S, 2).

    |g| / (|g| + mean |g|) makes a faint border of an opaque lung count nearly as a sharp one.
    """
    smooth = cv2.GaussianBlur(clear, (0, 0), sigma)
    field = cv2.merge([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)])
    length = cv2.magnitude(field[..., 0], field[..., 1])
    return field / (length + length.mean() + 1e-6)[..., None]


def _outline() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    points, normals, weights = _outline()
    u, v = points.T
    one, none = np.ones_like(u), np.zeros_like(u)
    left_x, right_x = [one, none, -u, none, none, none, none], [one, none, none, u] + [none] * 3
    left_y, right_y = [none] * 4 + [1 - v, v, none], [none] * 4 + [1 - v, none, v]
    normals = np.concatenate([normals * (-1, 1), normals]) * np.r_[weights, weights][:, None] / 2
    maps = np.hstack([left_x, right_x]), np.hstack([left_y, right_y]), normals
    return tuple(array.astype(np.float32) for array in maps)


FRAME_TO_X, FRAME_TO_Y, WEIGHTED_NORMALS = _placement()


def _search() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start frames (225, 7), moves (21, 7) and price, a quadratic form (7, 7) of the deviations.

    The moves, one prior SD long: none, each parameter, and three natural pairs of parameters.
    """
    z = [
        (x, 0, width, width, apex, base, base)
        for x in (-1, 0, 1)
        for width in (-1.2, 0, 1.2)
        for apex in (-1.6, -0.8, 0, 0.8, 1.6)
        for base in (-1.4, -0.7, 0, 0.7, 1.4)
    ]
    one = np.eye(7)
    both_widths, both_bases, spine_only = one[2] + one[3], one[5] + one[6], one[0] + one[2] - one[3]
    moves = np.vstack([one, both_widths, both_bases, spine_only])
    unlike = np.vstack([one[2] - one[3], one[5] - one[6]])
    price = PRIOR_WEIGHT * (one / 7 + ASYMMETRY_WEIGHT * unlike.T @ unlike)
    starts, moves = np.array(z) * FRAME_SD, np.vstack([0 * one[:1], moves, -moves]) * FRAME_SD
    return tuple(a.astype(np.float32) for a in (FRAME_MEAN + starts, moves, price))


START_FRAMES, MOVES, PRICE = _search()


def _place(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y of both outlines in each frame: (F, 7) -> two arrays (F, 2P), left lung first."""
    y = frames @ FRAME_TO_Y
    return frames @ FRAME_TO_X + frames[:, 1:2] * (y - 0.5), y


def _agreement(frames: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Weighted mean over the outline of the outward edge strength: (F, 7) -> (F,) in [-1, 1]."""
    x, y = (WORKING_SIZE * c - 0.5 for c in _place(frames))
    edge = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderValue=0)  # (F, 2P, 2)
    return edge.reshape(len(frames), -1) @ WEIGHTED_NORMALS.ravel()


def _score(frames: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Agreement with the edges minus the price of an unusual frame: (F, 7) -> (F,)."""
    z = (frames - FRAME_MEAN) / FRAME_SD
    return _agreement(frames, field) - ((z @ PRICE) * z).sum(axis=1)


def _starts(field: np.ndarray) -> np.ndarray:
    """The best start frame, and the best of those clearly unlike it as a second opinion: (2, 7)."""
    score = _score(START_FRAMES, field)
    first = START_FRAMES[score.argmax()]
    far = (np.abs(START_FRAMES - first) > START_DISTANCE * FRAME_SD).any(axis=1)
    return np.stack([first, START_FRAMES[np.where(far, score, -np.inf).argmax()]])


def _climb(frames: np.ndarray, field: np.ndarray, step: float, finest: float) -> np.ndarray:
    """Compass search (Hooke and Jeeves 1961) from each of (K, 7) frames; steps in prior SDs."""
    low, high = FRAME_MEAN - FRAME_LIMIT * FRAME_SD, FRAME_MEAN + FRAME_LIMIT * FRAME_SD
    steps = np.full((len(frames), 1, 1), step, np.float32)
    for _ in range(SEARCH_ROUNDS):
        trials = np.minimum(np.maximum(frames[:, None] + steps * MOVES, low), high)  # (K, 21, 7)
        best = _score(trials.reshape(-1, 7), field).reshape(len(frames), -1).argmax(axis=1)
        frames = trials[np.arange(len(frames)), best]
        steps[best == 0] /= 2  # the first move is none
        if steps.max() < finest:
            break
    return frames


def _render(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Fill both outlines at the image's own size: (7,) -> uint8 (H, W), 1 is lung."""
    mask = np.zeros(shape, np.uint8)
    x, y = _place(frame[None])
    pixels = np.stack([x[0] * shape[1], y[0] * shape[0]], axis=1) - 0.5
    for lung in np.split(pixels, 2):
        cv2.fillPoly(mask, [np.round(lung * 16).astype(np.int32)], 1, shift=4)  # sixteenths of px
    return mask
