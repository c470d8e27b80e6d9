"""A picture of one prediction: lungs and cut on the image, and Grad-CAM's heat beside it."""

import textwrap

import cv2
import numpy as np
from numpy.typing import NDArray

SMALLEST = 256
"""Pixels of an image's shorter side, at least: smaller ones are enlarged by a whole number."""
OUTLINE, CUT, INK = (80, 220, 80), (255, 170, 60), (235, 235, 235)  # blue, green, red
ALARM = (60, 190, 255)
LETTERS = 58
"""Letters in a line, at most; above the smallest picture there is no room for more."""
STRENGTH = 0.7
"""Share of the colour where the heat is 1; it falls with the heat, so that cold parts stay grey."""


def draw_overlay(
    grey: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    cut: float | None,
    heat: NDArray[np.float32],
    title: str,
    warning: str = "",
    dashed: bool = False,
) -> NDArray[np.uint8]:
    """The image twice at its own size, left with the lungs' outline and the cut, right with heat.

    ``grey`` (H, W); ``mask`` (S, S) and ``heat`` (S, S), in [0, 1], are stretched over it; ``cut``
    is a share of the width, None where the model parts nothing. An uncertain outline is
    ``dashed``. Above are title and warning, at the right a bar of the heat's colours. Returns
    (H', W', 3) uint8 in OpenCV's order of colours.
    """
    enlarged = max(1, -(-SMALLEST // min(grey.shape)))
    height, width = (enlarged * side for side in grey.shape)
    grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_CUBIC)  # (H, W)
    unit = max(2 * width, 640) / 100  # pixels: all else is sized by it, so that it stays readable
    left = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)  # (H, W, 3)
    smooth = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1)  # without the steps of S pixels
    lungs = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR)
    outlines, _ = cv2.findContours(
        (lungs > 0.5).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    line = max(1, round(unit / 4))
    for outline in outlines:  # (points, 1, 2)
        count, step = len(outline), 3 * round(unit)
        parts = [range(k, min(k + step // 2, count)) for k in range(0, count, step)]
        for part in parts if dashed else [range(count)]:
            cv2.polylines(left, [outline[part]], not dashed, OUTLINE, line, cv2.LINE_AA)
    if cut is not None:
        x = round(cut * width)
        cv2.line(left, (x, 0), (x, height), CUT, line)
    warmth = np.clip(cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
    weight = STRENGTH * warmth[..., None]  # (H, W, 1)
    right = (1 - weight) * grey[..., None] + weight * _colours(warmth)  # (H, W, 3)
    return _framed(left, right.astype(np.uint8), unit, title, warning)


def _framed(
    left: NDArray, right: NDArray, unit: float, title: str, warning: str
) -> NDArray[np.uint8]:
    """Both pictures on one page, with the text above and the bar beside them."""
    lines = [
        (title, INK),
        ("left: lungs, cut   right: heat (Grad-CAM)   not a medical device", INK),
    ]
    lines += [(line, ALARM) for line in textwrap.wrap(warning, LETTERS)]
    height, width = left.shape[:2]
    gap, head, side = round(unit), round((1.4 + 3.8 * len(lines)) * unit), round(12 * unit)
    page_width = max(2 * width + 2 * gap + side, round(100 * unit))
    page = np.full((height + head + 2 * gap, page_width, 3), 24, np.uint8)
    page[head : head + height, gap : gap + width] = left
    page[head : head + height, 2 * gap + width : 2 * gap + 2 * width] = right
    for row, (text, colour) in enumerate(lines, start=1):
        _write(page, text, (gap, round(3.8 * row * unit)), unit, colour)
    bar = min(height, round(40 * unit))
    start = 3 * gap + 2 * width
    scale = np.linspace(1, 0, bar, dtype=np.float32)[:, None]  # (bar, 1)
    page[head : head + bar, start : start + 3 * gap] = _colours(scale)
    for value in (1, 0.5, 0):  # the text's lower edge; at the ends it stays beside the bar
        low = head + round((1 - value) * (bar - 1.8 * unit) + 1.8 * unit)
        _write(page, f"{value:g}", (start + 4 * gap, low), unit, INK)
    return page


def _colours(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Values in [0, 1], (H, W), as colours (H, W, 3)."""
    return cv2.applyColorMap((255 * values).astype(np.uint8), cv2.COLORMAP_INFERNO)


def _write(
    page: NDArray[np.uint8], text: str, where: tuple[int, int], unit: float, colour: tuple
) -> None:
    """Letters about two and a half units high, their lower left corner at ``where``."""
    scale, thick = 2.4 * unit / 30, max(1, round(unit / 5))
    cv2.putText(page, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thick, cv2.LINE_AA)
