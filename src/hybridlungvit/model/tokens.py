"""Left, right and global tokens: the feature map pooled on either side of the cut.

The definition interpolates the map to image size, splits it at the cut and average-pools each part
to g×g. Every step is linear and separable, so the steps multiply out to two small matrices a side
and the image-sized map need never exist: left = (P(S)·U) F (P(c)·U[:c])ᵀ, where U (S×h) is the
composed interpolation and P(n) (g×n) one-dimensional adaptive average pooling.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cut_positions(masks: Tensor) -> Tensor:
    """Where to part left from right: the mean x of each lung mask, float (B,), in pixels.

    ``masks`` is bool (B, S, S). x runs from 0 at the image's left edge to S at its right edge, so
    that mirroring the mask turns x into S − x exactly. The mean is rounded to whole pixels, exact
    ties to the half; an empty mask gives the centre S/2. Integer arithmetic: no rounding error may
    break a tie differently in the mirror.
    """
    side = masks.shape[-1]
    counts = masks.sum(dim=1)  # (B, S) pixels per column
    doubled = torch.arange(1, 2 * side, 2, device=masks.device)  # twice the column centres
    total = counts.sum(dim=1)  # (B,)
    moment = (counts * doubled).sum(dim=1)  # (B,) is 2·total·mean
    moment = torch.where(total > 0, moment, side)
    total = total.clamp(min=1)
    below = torch.div(moment + total, 2 * total, rounding_mode="floor")  # floor(mean + 1/2)
    above = -torch.div(total - moment, 2 * total, rounding_mode="floor")  # ceil(mean - 1/2)
    return (below + above) / 2


def interpolation_matrix(size: int, target: int) -> Tensor:
    """Bilinear interpolation along one axis as a float64 matrix (target, size)."""
    identity = torch.eye(size, dtype=torch.float64)[None]  # (1, size, size)
    return F.interpolate(identity, size=target, mode="linear", align_corners=False)[0].T


def pooling_matrix(size: int, grid: int) -> Tensor:
    """Adaptive average pooling along one axis as a float64 matrix (grid, size)."""
    matrix = torch.zeros(grid, size, dtype=torch.float64)
    for cell in range(grid):
        start, stop = cell * size // grid, -(-(cell + 1) * size // grid)
        matrix[cell, start:stop] = 1 / (stop - start)
    return matrix


class LungTokens(nn.Module):
    """Pools a feature map to left, right and global token grids.

    Parameters
    ----------
    feature_size : (h, w) of the incoming map.
    map_size : side of the intermediate map the definition interpolates to first.
    image_size : side S of the image, in whose pixels cuts are given.
    grid : g, tokens along each axis of a set.
    """

    def __init__(
        self, feature_size: tuple[int, int], map_size: int, image_size: int, grid: int
    ) -> None:
        super().__init__()
        self.image_size = image_size
        rows = interpolation_matrix(map_size, image_size) @ interpolation_matrix(
            feature_size[0], map_size
        )  # (S, h)
        columns = interpolation_matrix(map_size, image_size) @ interpolation_matrix(
            feature_size[1], map_size
        )  # (S, w)
        columns = (columns + columns.flip(0, 1)) / 2  # symmetric to the last bit
        whole = pooling_matrix(image_size, grid)
        left = torch.stack(
            [pooling_matrix(cut, grid) @ columns[:cut] for cut in range(1, image_size + 1)]
        )  # (S, g, w): entry c − 1 pools the c columns left of a cut at c
        across = (whole @ columns + (whole @ columns).flip(0, 1)) / 2
        self.register_buffer("rows", (whole @ rows).float(), persistent=False)  # (g, h)
        self.register_buffer("across", across.float(), persistent=False)  # (g, w)
        self.register_buffer("left", left.float(), persistent=False)

    def forward(self, features: Tensor, cuts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, D, h, w) and cuts (B,) in pixels → left, right, global, each (B, g², D).

        A cut at c gives the left side the columns before floor(c + 1/2) and the right side those
        from ceil(c − 1/2): mirroring map and cut swaps the sides exactly, and a column cut in the
        middle belongs to both. Each side keeps at least one column.
        """
        widest = self.image_size
        left_width = torch.floor(cuts + 0.5).long().clamp(1, widest)  # (B,)
        right_width = (widest - torch.ceil(cuts - 0.5)).long().clamp(1, widest)
        left = self.left[left_width - 1]  # (B, g, w)
        right = self.left[right_width - 1].flip(1, 2)  # the mirrored side, mirrored back
        across = self.across.expand_as(left)
        sides = torch.stack([left, right, across], dim=1)  # (B, 3, g, w)
        # Rows and columns together in one small matrix a sample: a single product then reads the
        # map as the stem left it, tokens first, without a copy.
        pooling = torch.einsum("gh,bskw->bsgkhw", self.rows, sides)  # (B, 3, g, g, h, w)
        pooling = pooling.flatten(4).flatten(1, 3)  # (B, 3·g², h·w)
        tokens = pooling @ features.flatten(2).transpose(1, 2)  # (B, 3·g², D)
        return tokens.chunk(3, dim=1)
