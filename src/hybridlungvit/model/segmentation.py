"""The auxiliary head that predicts the lung mask from the feature map."""

import torch.nn.functional as F
from torch import Tensor, nn

from hybridlungvit.model.stem import Projection


class SegmentationHead(nn.Module):
    """Feature map (B, D, h, w) → lung logits (B, S, S).

    Works on the map interpolated to ``map_size``. The first, 1×1 convolution commutes with that
    interpolation and is done before it, on far fewer pixels.
    """

    def __init__(self, d_model: int, map_size: int, image_size: int, width: int = 32) -> None:
        super().__init__()
        self.map_size, self.image_size = map_size, image_size
        self.reduce = Projection(d_model, width)
        self.smooth = nn.Conv2d(width, width, 3, padding=1)
        self.predict = nn.Conv2d(width, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D, h, w) → logits (B, S, S)."""
        reduced = _resize(self.reduce(features), self.map_size)  # (B, width, m, m)
        logits = self.predict(F.gelu(self.smooth(F.gelu(reduced))))  # (B, 1, m, m)
        return _resize(logits, self.image_size).squeeze(1)  # (B, S, S)


def _resize(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
