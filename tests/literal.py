"""The lung tokens as they are defined, step by step: slow, and the oracle for the fused form."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LiteralTokens(nn.Module):
    """Interpolate to image size, cut each sample, pool each part: (B, D, h, w) → 3 × (B, g², D)."""

    def __init__(self, map_size: int, image_size: int, grid: int) -> None:
        super().__init__()
        self.map_size, self.image_size, self.grid = map_size, image_size, grid

    def forward(self, features: Tensor, cuts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = features
        for side in (self.map_size, self.image_size):
            fine = F.interpolate(fine, size=(side, side), mode="bilinear", align_corners=False)
        sets: tuple[list[Tensor], ...] = ([], [], [])
        for i, cut in enumerate(cuts.tolist()):
            image = fine[i : i + 1]
            parts = image[..., : math.floor(cut + 0.5)], image[..., math.ceil(cut - 0.5) :], image
            for tokens, part in zip(sets, parts, strict=True):
                tokens.append(F.adaptive_avg_pool2d(part, self.grid).flatten(2).transpose(1, 2))
        return tuple(torch.cat(tokens) for tokens in sets)
