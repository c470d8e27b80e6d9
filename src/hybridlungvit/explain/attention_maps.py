"""The cross-attention of the hybrid painted back on the image, at the model's own cut."""

import torch
from torch import Tensor

from hybridlungvit.model.tokens import pooling_matrix


def paint_attention(attention: Tensor, cuts: Tensor, side: int) -> Tensor:
    """Attention (B, 2·g²) over left and right tokens as maps float64 (B, S, S), S = ``side``.

    Painting is the transpose of the pooling that made the tokens: a token's weight is spread
    evenly over the pixels of its cell, left tokens on the columns left of the cut, right tokens on
    those from it on. Hence a map sums to what its attention sums to. ``cuts`` is float (B,).
    """
    grid = round((attention.shape[1] // 2) ** 0.5)
    tokens = attention.double().cpu().unflatten(1, (2, grid, grid))  # (B, 2, g, g)
    rows = pooling_matrix(side, grid)  # (g, S)
    maps = torch.zeros(len(attention), side, side, dtype=torch.float64)
    for image, (left, right), cut in zip(maps, tokens, cuts.cpu(), strict=True):
        # The same columns as LungTokens: a column cut in its middle belongs to both sides.
        stop = int(torch.floor(cut + 0.5).clamp(1, side))
        start = side - int((side - torch.ceil(cut - 0.5)).clamp(1, side))
        image[:, :stop] += rows.T @ left @ pooling_matrix(stop, grid)
        image[:, start:] += rows.T @ right @ pooling_matrix(side - start, grid)
    return maps
