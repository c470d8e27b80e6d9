"""The cross-attention of the hybrid painted back on the image, at the model's own cut."""

import numpy as np
from numpy.typing import NDArray


def paint_attention(attention: NDArray, cuts: NDArray, side: int) -> NDArray[np.float64]:
    """Attention (B, 2·g²) over left and right tokens as maps (B, S, S), S = ``side``.

    A token's weight is spread evenly over its cell: the left tokens' cells divide the image left of
    the cut into g×g equal parts, the right tokens' what lies right of it. Pixels on a border share
    in both cells by area, so that a map sums to what its attention sums to, and equal weights give
    an even map on each side. ``cuts`` (B,) are in pixels, inside the image.
    """
    grid = round((attention.shape[1] // 2) ** 0.5)
    tokens = attention.astype(np.float64).reshape(-1, 2, grid, grid)  # (B, 2·g²) → (B, 2, g, g)
    rows = cell_coverage(0, side, grid, side)  # (g, S)
    maps = []
    for (left, right), cut in zip(tokens, cuts, strict=True):
        across = cell_coverage(0, cut, grid, side), cell_coverage(cut, side, grid, side)
        maps.append(rows.T @ (left @ across[0] + right @ across[1]))  # (S, S)
    return np.stack(maps)


def cell_coverage(start: float, stop: float, grid: int, side: int) -> NDArray[np.float64]:
    """How ``grid`` equal cells from ``start`` to ``stop`` lie on ``side`` pixels: (grid, side).

    Each row holds the share of a cell in each pixel and sums to 1.
    """
    edges = np.linspace(start, stop, grid + 1)
    pixels = np.arange(side)
    upper = np.minimum(edges[1:, None], pixels + 1)  # (g, S)
    lower = np.maximum(edges[:-1, None], pixels)  # (g, S)
    return np.clip(upper - lower, 0, None) * grid / (stop - start)
