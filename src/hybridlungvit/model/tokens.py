"""Left, right and global tokens: the feature map pooled on either side of the cut.

The definition interpolates the map to image size, splits it at the cut and average-pools each part
to g×g. Every step is linear and separable, so the steps multiply out to two small matrices a side
and the image-sized map need never exist: left = (P(S)·U) F (P(c)·U[:c])ᵀ, where U (S×h) is the
composed interpolation and P(n) (g×n) one-dimensional adaptive average pooling.

With ``pooling="lung"`` a left or right token averages the map over those pixels of its cell that
are lung. That is linear in the map too, but no longer separable: each token has a matrix (h×w) of
weights, Σ over lung pixels of U[y]ᵀ U[x], divided by their number. A patch at the border of the
lung so counts by its share in it. A cell without any lung is averaged whole.
"""

from typing import Literal

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
    counts = masks.sum(dim=1, dtype=torch.int32)  # (B, S) pixels per column; int64 would be copied
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
    identity = torch.eye(size, dtype=torch.float64)[None]  # (1, size, size)
    return F.adaptive_avg_pool1d(identity, grid)[0].T.contiguous()


class LungTokens(nn.Module):
    """Pools a feature map to left, right and global token grids.

    Parameters
    ----------
    feature_size : (h, w) of the incoming map.
    map_size : side of the intermediate map the definition interpolates to first.
    image_size : side S of the image, in whose pixels cuts are given.
    grid : g, tokens along each axis of a set.
    pooling : "side" averages a left or right token over its cell, "lung" over the lung in it.
    """

    def __init__(
        self,
        feature_size: tuple[int, int],
        map_size: int,
        image_size: int,
        grid: int,
        pooling: Literal["side", "lung"] = "side",
    ) -> None:
        super().__init__()
        self.image_size, self.grid, self.pooling = image_size, grid, pooling
        rows, columns = (
            interpolation_matrix(map_size, image_size) @ interpolation_matrix(size, map_size)
            for size in feature_size
        )  # (S, h), (S, w)
        columns = (columns + columns.flip(0, 1)) / 2  # symmetric to the last bit
        whole = pooling_matrix(image_size, grid)
        cells = [pooling_matrix(cut, grid) for cut in range(1, image_size + 1)]
        # Entry c − 1 pools the c columns left of a cut at c.
        left = torch.stack([cell @ columns[:cut] for cut, cell in enumerate(cells, 1)])  # (S, g, w)
        across = (whole @ columns + (whole @ columns).flip(0, 1)) / 2
        tables = {"rows": whole @ rows, "across": across, "left": left}  # (g, h), (g, w)
        if pooling == "lung":
            padded = [F.pad(cell > 0, (0, image_size - len(cell.T))) for cell in cells]
            tables["cells"] = torch.stack(padded)  # (S, g, S): which columns a cell holds
            tables["bands"] = (whole > 0).unsqueeze(2) * rows  # (g, S, h)
            tables["columns"] = columns
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def forward(
        self, features: Tensor, cuts: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, D, h, w) and cuts (B,) in pixels → left, right, global, each (B, g², D).

        A cut at c gives the left side the columns before floor(c + 1/2) and the right side those
        from ceil(c − 1/2): mirroring map and cut swaps the sides exactly, and a column cut in the
        middle belongs to both. Each side keeps at least one column. ``masks``, bool (B, S, S), are
        read by ``pooling="lung"`` only.
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
        weights = torch.einsum("gh,bskw->bsgkhw", self.rows, sides)  # (B, 3, g, g, h, w)
        if self.pooling == "lung":
            with torch.autocast(features.device.type, enabled=False):  # pixels are counted
                lungs, areas = self._lung_weights(masks, left_width, right_width)
            lungs = torch.where(areas > 0, lungs / areas.clamp(min=1), weights[:, :2])
            weights = torch.cat([lungs, weights[:, 2:]], dim=1)
        weights = weights.flatten(4).flatten(1, 3)  # (B, 3·g², h·w)
        tokens = weights @ features.flatten(2).transpose(1, 2)  # (B, 3·g², D)
        return tokens.chunk(3, dim=1)

    def _lung_weights(
        self, masks: Tensor, left_width: Tensor, right_width: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Summed weights (B, 2, g, g, h, w) of each cell's lung, and its pixels (B, 2, g, g, 1, 1).

        The right side is read in the mirror, as the cells' table knows left ones.
        """
        both = []
        for flipped, width in ((False, left_width), (True, right_width)):
            lungs = (masks.flip(2) if flipped else masks).float()  # (B, S, S)
            cells = self.cells[width - 1]  # (B, g, S)
            inside = lungs.unsqueeze(1) * cells.unsqueeze(2)  # (B, g, S, S): of each cell's columns
            across = inside @ self.columns  # (B, k, S, w)
            summed = torch.einsum("gyh,bkyw->bgkhw", self.bands, across)  # (B, g, k, h, w)
            # As U's rows add up to 1, a cell's weights add up to the lung pixels in it.
            both.append(summed.flip(2, 4) if flipped else summed)
        weights = torch.stack(both, dim=1)  # (B, 2, g, g, h, w)
        return weights, weights.sum(dim=(4, 5), keepdim=True).round()
