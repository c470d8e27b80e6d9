"""HybridLungViT and its plain control."""

from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridlungvit.config import Recipe
from hybridlungvit.model.fusion import LungFusion
from hybridlungvit.model.stem import Projection, Stem
from hybridlungvit.model.tokens import LungTokens, cut_positions


class ModelOutput(NamedTuple):
    logits: Tensor
    """(B, 2): normal, pneumonia."""
    attention: Tensor | None
    """(B, 2·g²): weight of each left and right token; None for the plain control."""
    segmentation: Tensor | None
    """(B, S, S): lung logits, when the model has a segmentation head."""
    cuts: Tensor | None = None
    """(B,): where left and right were parted, in pixels; None for the plain control."""


class HybridLungViT(nn.Module):
    """A vision-transformer stem whose feature map is read lung by lung.

    Parameters
    ----------
    stem, image_size, pretrained, stem_options : see :class:`~hybridlungvit.model.stem.Stem`.
    d_model : width D of the tokens.
    token_grid : g; the left, right and global sets have g² tokens each.
    map_size : side of the map between stem and image resolution.
    encoder_layers, heads, dropout : of the three token encoders and the cross-attention.
    cut : "mask" parts left from right at the lung mask's mean x, "midline" at the centre.
    segmentation : whether to build the auxiliary lung segmentation head.
    """

    def __init__(
        self,
        stem: str = "deit_base_patch16_224",
        image_size: int = 224,
        pretrained: bool | str | Path = False,
        stem_options: dict[str, bool | int | float | str] | None = None,
        d_model: int = 256,
        token_grid: int = 4,
        map_size: int = 56,
        encoder_layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        cut: Literal["mask", "midline"] = "mask",
        segmentation: bool = False,
    ) -> None:
        super().__init__()
        self.stem = Stem(stem, image_size, pretrained, stem_options)
        self.project = Projection(self.stem.dim, d_model)
        self.tokens = LungTokens(self.stem.grid, map_size, image_size, token_grid)
        self.fusion = LungFusion(d_model, token_grid**2, heads, encoder_layers, dropout)
        self.segment = SegmentationHead(d_model, map_size, image_size) if segmentation else None
        self.classify = nn.Linear(d_model, 2)
        self.cut = cut

    def forward(self, images: Tensor, masks: Tensor) -> ModelOutput:
        """Normalised images (B, 3, S, S) and lung masks bool (B, S, S) → :class:`ModelOutput`."""
        features = self.project(self.stem(images))  # (B, D, h, w)
        if self.cut == "midline":
            cuts = torch.full((len(images),), images.shape[-1] / 2, device=images.device)
        else:
            cuts = cut_positions(masks)
        embedding, attention = self.fusion(*self.tokens(features, cuts))
        segmentation = None if self.segment is None else self.segment(features)
        return ModelOutput(self.classify(embedding), attention, segmentation, cuts)


class PlainViT(nn.Module):
    """The control: the same stem with a linear layer on the vector timm's classifier reads."""

    def __init__(
        self,
        stem: str,
        image_size: int,
        pretrained: bool | str | Path = False,
        stem_options: dict[str, bool | int | float | str] | None = None,
    ) -> None:
        super().__init__()
        self.stem = Stem(stem, image_size, pretrained, stem_options)
        self.classify = nn.Linear(self.stem.dim, 2)

    def forward(self, images: Tensor, masks: Tensor) -> ModelOutput:
        """Normalised images (B, 3, S, S); ``masks`` are ignored."""
        return ModelOutput(self.classify(self.stem.pooled(images)), None, None)


def build_model(recipe: Recipe, pretrained: bool) -> HybridLungViT | PlainViT:
    """The model of a recipe; without ``pretrained`` its stem awaits a checkpoint's weights."""
    model = recipe.model
    stem = {
        "stem": model.stem,
        "image_size": recipe.data.image_size,
        "pretrained": model.pretrained if pretrained else False,
        "stem_options": model.stem_options,
    }
    if model.head == "linear":
        return PlainViT(**stem)
    return HybridLungViT(
        **stem,
        d_model=model.d_model,
        token_grid=model.token_grid,
        map_size=model.map_size,
        encoder_layers=model.encoder_layers,
        heads=model.heads,
        dropout=model.dropout,
        cut=model.cut,
        segmentation=recipe.training.lambda_seg > 0,
    )


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
