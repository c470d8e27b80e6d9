"""Training-free lung masks for paediatric chest radiographs.

A lung outline drawn once by hand is fitted to the edges of the image, as a deformable template
(Yuille, Hallinan and Cohen, Int. J. Comput. Vis. 8, 1992). The order of the module is the order of
the data: orient -> shrink -> CLAHE and morphology -> edge field -> frame -> outline -> mask.
Nothing here is learned: no weights, no atlas, only the constants below and those of the template.
Their values were rounded from measurements on 148 annotated radiographs of 116 patients, with other
patients kept aside to measure the result.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from hybridlungvit.masks.template import (
    FRAME_LIMIT,
    FRAME_MARGIN,
    FRAME_MEAN,
    FRAME_SD,
    WEIGHTED_NORMALS,
    draw,
    mirror,
    place,
)  # fmt: skip

# Side of the square in which everything is computed, px: ribs stay visible, noise does not.
WORKING_SIZE = 96
# CLAHE (Zuiderveld 1994): clip limit and tiles; a tile holds about half a lung, so that an opaque
# lung is stretched as much as a clear one.
CLAHE_CLIP, CLAHE_TILES = 2.0, (2, 2)
# Structuring element, working px: opening removes lines and markers, closing small dark gaps.
MORPHOLOGY_SIZE = 3
# Gaussian scales of the edges, working px: about a rib with its gap, and one rib.
COARSE_SIGMA, FINE_SIGMA = 4.5, 2.2
# SDs of the prior by which the two start frames differ, in at least one parameter, at least.
START_DISTANCE = 1.3
# At most, at each of the two scales; more take time and do not change the mean Dice.
SEARCH_ROUNDS = 10
# Price of leaving the prior, and in it of unlike lungs: an opaque lung follows the clear one.
PRIOR_WEIGHT, ASYMMETRY_WEIGHT = 0.025, 0.1
# Edge agreement, in [-1, 1], at which the confidence leaves 0 and reaches 1: three quarters of
# the fits to noise stay below the first, and half of the radiographs exceed the second.
CONFIDENCE_RANGE = (0.25, 0.4)
# Below it a mask counts as a fallback: an average lung shape on uncertain evidence.
LOW_CONFIDENCE = 0.3


@dataclass(frozen=True)
class LungMask:
    """`mask`: bool (H, W), True is lung; `confidence`: [0, 1], 0 if noise would fit as well."""

    mask: np.ndarray
    confidence: float


@dataclass(frozen=True)
class MaskSteps:
    """How a mask came about, as the image lies; S is `WORKING_SIZE`, P the outline's points."""

    working: np.ndarray
    """float32 (S, S) in 0..255: shrunken, equalised, opened and closed; 0 without contrast."""
    edges: np.ndarray
    """float32 (S, S) in [0, 1): edge strength at the coarse scale."""
    start: np.ndarray
    """float (2, P, 2): outlines (x, y) of both lungs in the best start frame, fractions."""
    fitted: np.ndarray
    """The same in the final frame, before the drawing margin."""
    result: LungMask


def lung_mask(image: np.ndarray) -> np.ndarray:
    """The mask of `lung_mask_with_confidence` alone: (H, W) grey -> (H, W) bool."""
    return lung_mask_with_confidence(image).mask


def lung_mask_with_confidence(image: np.ndarray) -> LungMask:
    """Training-free lung mask of a frontal chest radiograph, and how far the image supports it.

    image: (H, W) uint8 or uint16, any size, bright bone on dark air. Returns bool (H, W) in which
    both lungs include most of the heart and of the retrocardiac area and end medially in a straight
    line beside the spine. The mask has pixels on both sides of the midline for every image at least
    8 px wide and high, and the mask of the mirrored image is the mirrored mask. An image without
    contrast gets the prior's mask and confidence 0.
    """
    return lung_mask_steps(image).result


def lung_mask_steps(image: np.ndarray) -> MaskSteps:
    """The mask of `lung_mask_with_confidence`, for the same images, with its intermediate steps."""
    if image.ndim != 2 or image.size == 0 or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"need grey uint8 or uint16 (H, W), got {image.dtype} {image.shape}")
    image = np.ascontiguousarray(image)
    lean = _lean(image)
    frame, agreement, working, coarse, start = _fit(cv2.flip(image, 1) if lean < 0 else image)
    if lean == 0:  # perhaps a symmetric image: only the mean of both readings is symmetric too
        other, agrees, *_ = _fit(cv2.flip(image, 1))
        frame, agreement = (frame + mirror(other)) / 2, (agreement + agrees) / 2
    mask = draw(frame + FRAME_MARGIN, image.shape)
    pictures = [working, cv2.magnitude(coarse[..., 0], coarse[..., 1])]
    frames = [start, frame]
    if lean < 0:
        mask, *pictures = (cv2.flip(picture, 1) for picture in (mask, *pictures))
        frames = [mirror(each) for each in frames]
    outlines = [np.stack(place(each[None]), axis=-1).reshape(2, -1, 2) for each in frames]
    confidence = float(np.interp(agreement, CONFIDENCE_RANGE, (0.0, 1.0)))
    return MaskSteps(*pictures, *outlines, LungMask(mask.view(bool), confidence))


def mean_x(mask: np.ndarray) -> float:
    """Mean x of a mask (H, W) as a share of the width: the cut; the centre if the mask is empty."""
    columns = mask.sum(axis=0)
    area, centres = columns.sum(), np.arange(len(columns)) + 0.5
    return float(columns @ centres / area / len(columns)) if area else 0.5


def _lean(image: np.ndarray) -> float:
    """Mean of the right half minus mean of the left: changes its sign, exactly, with a mirror.

    Every image is read with its brighter half on the right, and the mask is mirrored back.
    That makes the mirror property hold by construction instead of up to rounding.
    """
    half = image.shape[1] // 2
    return cv2.mean(image[:, -half:])[0] - cv2.mean(image[:, :half])[0] if half else 0.0


def _fit(image: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, np.ndarray]:
    """The frame (7,) fitted to `image`, its edge agreement, working image, edges and start frame.

    Without contrast the frame is the prior's, and the agreement -1.
    """
    grey = _shrink(image)
    if grey is None:
        flat = np.zeros((WORKING_SIZE, WORKING_SIZE), np.float32)
        return FRAME_MEAN, -1.0, flat, np.dstack([flat, flat]), FRAME_MEAN
    clear = _enhance(grey)
    coarse, fine = _edge_field(clear, COARSE_SIGMA), _edge_field(clear, FINE_SIGMA)
    starts = _starts(coarse)
    frames = _climb(starts, coarse, step=0.5, finest=0.2)
    frames = _climb(frames, fine, step=0.25, finest=0.06)
    frame = frames[[_score(frames, fine).argmax()]]
    agreement = float(np.mean([_agreement(frame, field) for field in (coarse, fine)]))
    return frame[0], agreement, clear, coarse, starts[0]


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


def _agreement(frames: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Weighted mean over the outline of the outward edge strength: (F, 7) -> (F,) in [-1, 1]."""
    x, y = (WORKING_SIZE * c - 0.5 for c in place(frames))
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
