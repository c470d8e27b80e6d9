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

    def forward(
        self, features: Tensor, cuts: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.interpolate(features)
        sets: tuple[list[Tensor], ...] = ([], [], [])
        for i, cut in enumerate(cuts.tolist()):
            image = fine[i : i + 1]
            parts = image[..., : math.floor(cut + 0.5)], image[..., math.ceil(cut - 0.5) :], image
            for tokens, part in zip(sets, parts, strict=True):
                tokens.append(F.adaptive_avg_pool2d(part, self.grid).flatten(2).transpose(1, 2))
        return tuple(torch.cat(tokens) for tokens in sets)

    def interpolate(self, features: Tensor) -> Tensor:
        """The map at image size: (B, D, h, w) → (B, D, S, S)."""
        for side in (self.map_size, self.image_size):
            features = F.interpolate(features, size=(side, side), mode="bilinear")
        return features

    def lungs(self, features: Tensor, cuts: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Left and right tokens that average the lung in their cells, pixel by pixel."""
        fine, grid, sets = self.interpolate(features), self.grid, ([], [])
        for image, mask, cut in zip(fine, masks, cuts.tolist(), strict=True):
            left, right = math.floor(cut + 0.5), math.ceil(cut - 0.5)
            parts = (image[..., :left], mask[:, :left]), (image[..., right:], mask[:, right:])
            for tokens, (part, lung) in zip(sets, parts, strict=True):
                height, width = lung.shape
                for i in range(grid):
                    rows = slice(i * height // grid, -(-(i + 1) * height // grid))
                    for j in range(grid):
                        columns = slice(j * width // grid, -(-(j + 1) * width // grid))
                        cell, inside = part[:, rows, columns], lung[rows, columns]
                        chosen = inside if inside.any() else torch.ones_like(inside)
                        tokens.append(cell[:, chosen].mean(dim=1))
        return tuple(torch.stack(t).unflatten(0, (len(cuts), grid**2)) for t in sets)
