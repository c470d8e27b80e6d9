"""HybridLungViT and its plain control."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridlungvit.config import Recipe
from hybridlungvit.data.augment import derive_seed
from hybridlungvit.model.fusion import LungFusion
from hybridlungvit.model.hub import HubModel
from hybridlungvit.model.stem import Features, Projection, Stem
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


class HybridLungViT(HubModel):
    """A vision-transformer stem whose feature map is read lung by lung.

    Parameters
    ----------
    stem, image_size, pretrained, stem_options : see :class:`~hybridlungvit.model.stem.Stem`.
    d_model : width D of the tokens.
    token_grid : g; the left, right and global sets have g² tokens each.
    map_size : side of the map between stem and image resolution.
    encoder_layers, heads, dropout : of the three token encoders and the cross-attention.
    fusion_layers : how often the class token queries left and right.
    pooling : "side" averages left and right tokens over their cells, "lung" over the lung in them.
    cut : "mask" parts left from right at the lung mask's mean x, "midline" at the centre; with
        "none" both sets read the whole image.
    cut_shift : added to the cut, as a share of the width.
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
        fusion_layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
        pooling: Literal["side", "lung"] = "side",
        cut: Literal["mask", "midline", "none"] = "mask",
        cut_shift: float = 0.0,
        segmentation: bool = False,
    ) -> None:
        super().__init__()
        base = int(torch.randint(2**62, ()))
        with _stream(base, "stem"):
            self.stem = Stem(stem, image_size, pretrained, stem_options)
        with _stream(base, "project"):
            self.project = Projection(self.stem.dim, d_model)
        self.tokens = LungTokens(self.stem.grid, map_size, image_size, token_grid, pooling)
        with _stream(base, "fusion"):
            self.fusion = LungFusion(
                d_model, token_grid**2, heads, encoder_layers, dropout, fusion_layers
            )
        with _stream(base, "classify"):
            self.classify = nn.Linear(d_model, 2)
        with _stream(base, "segment"):
            self.segment = SegmentationHead(d_model, map_size, image_size) if segmentation else None
        self.cut, self.shift = cut, cut_shift * image_size

    def forward(self, images: Tensor, masks: Tensor, segment: bool = True) -> ModelOutput:
        """Normalised images (B, 3, S, S) and lung masks bool (B, S, S) → :class:`ModelOutput`.

        Without ``segment`` the segmentation head, which the classification never reads, rests.
        """
        return self.read(self.stem(images), masks, segment)

    def read(self, features: Features, masks: Tensor, segment: bool = True) -> ModelOutput:
        """What ``forward`` makes of the stem's features of the images."""
        explained = torch.is_grad_enabled() and not self.training
        if self.segment is None and not explained:
            return self.read_pooled(self.pool(features, masks), masks)
        # The projected map is what Grad-CAM and the segmentation head read.
        projected = self.project(features.map(self.stem.grid))  # (B, D, h, w)
        cuts = self._cuts(masks)  # (B,)
        logits, attention = self._decide(*self.tokens(projected, cuts, masks))
        segmentation = self.segment(projected) if segment and self.segment is not None else None
        return ModelOutput(logits, attention, segmentation, cuts)

    def pool(self, features: Features, masks: Tensor) -> Tensor:
        """Left, right and global tokens of the stem's features, not projected yet: (B, 3·g², C)."""
        map_ = features.map(self.stem.grid)  # (B, C, h, w)
        return torch.cat(self.tokens(map_, self._cuts(masks), masks), dim=1)

    def read_pooled(self, pooled: Tensor, masks: Tensor | None) -> ModelOutput:
        """What ``read`` makes of pooled tokens (B, 3·g², C); without ``masks``, no cuts.

        Pooling and projecting are linear and a token's weights add up to 1, so their order is free;
        few tokens are sooner projected than many patches.
        """
        tokens = nn.Linear.forward(self.project, pooled)  # (B, 3·g², D)
        logits, attention = self._decide(*tokens.chunk(3, dim=1))
        return ModelOutput(logits, attention, None, None if masks is None else self._cuts(masks))

    def _decide(self, left: Tensor, right: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Three token sets (B, g², D) → logits (B, 2), attention (B, 2·g²)."""
        sides = (whole, whole) if self.cut == "none" else (left, right)
        embedding, attention = self.fusion(*sides, whole)
        return self.classify(embedding), attention

    def _cuts(self, masks: Tensor) -> Tensor:
        """Where to part left from right, float (B,), in pixels."""
        side = masks.shape[-1]
        if self.cut == "mask":
            return (cut_positions(masks) + self.shift).clamp(0, side)
        return torch.full((len(masks),), side / 2 + self.shift, device=masks.device)


class PlainViT(HubModel):
    """The control: the same stem with a linear layer on the vector timm's classifier reads.

    With ``readout="class_and_mean"`` it reads the mean patch token beside that vector.
    """

    def __init__(
        self,
        stem: str,
        image_size: int,
        pretrained: bool | str | Path = False,
        stem_options: dict[str, bool | int | float | str] | None = None,
        readout: Literal["timm", "class_and_mean"] = "timm",
    ) -> None:
        super().__init__()
        base = int(torch.randint(2**62, ()))
        with _stream(base, "stem"):
            self.stem = Stem(stem, image_size, pretrained, stem_options)
        self.readout = readout
        with _stream(base, "classify"):
            self.classify = nn.Linear(self.stem.dim * (1 + (readout != "timm")), 2)

    def forward(self, images: Tensor, masks: Tensor, segment: bool = True) -> ModelOutput:
        """Normalised images (B, 3, S, S); ``masks`` and ``segment`` are ignored."""
        return self.read(self.stem(images), masks)

    def read(self, features: Features, masks: Tensor, segment: bool = True) -> ModelOutput:
        """What ``forward`` makes of the stem's features of the images."""
        return self.read_pooled(self.pool(features, masks), masks)

    def pool(self, features: Features, masks: Tensor) -> Tensor:
        """The vector that the linear layer reads: (B, C) or (B, 2·C); ``masks`` are ignored."""
        if self.readout == "timm":
            return features.pooled  # (B, C)
        return torch.cat([features.pooled, features.patches.mean(dim=1)], dim=1)  # (B, 2·C)

    def read_pooled(self, pooled: Tensor, masks: Tensor | None) -> ModelOutput:
        """What ``read`` makes of pooled vectors; ``masks`` are ignored."""
        return ModelOutput(self.classify(pooled), None, None)


@contextmanager
def _stream(base: int, part: str) -> Iterator[None]:
    """A random stream of its own for a part of a model, from the ``base`` that all parts share.

    Models that differ in one part so begin with the same weights in all others.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(base, part))
        yield


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
        return PlainViT(**stem, readout=model.readout)
    others = model.model_dump(exclude={"head", "readout", "mask", *stem})
    return HybridLungViT(**stem, **others, segmentation=recipe.training.lambda_seg > 0)


class SegmentationHead(nn.Module):
    """Feature map (B, D, h, w) → lung logits (B, S, S).

    Works on the map interpolated to ``map_size``. The first, 1×1 convolution commutes with that
    interpolation and is done before it, on far fewer pixels.
    """

    def __init__(self, d_model: int, map_size: int, image_size: int) -> None:
        super().__init__()
        self.map_size, self.image_size = map_size, image_size
        self.reduce = Projection(d_model, 32)
        self.smooth = nn.Conv2d(32, 32, 3, padding=1)
        self.predict = nn.Conv2d(32, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D, h, w) → logits (B, S, S)."""
        reduced = _resize(self.reduce(features), self.map_size)  # (B, 32, m, m)
        logits = self.predict(F.gelu(self.smooth(F.gelu(reduced))))  # (B, 1, m, m)
        return _resize(logits, self.image_size).squeeze(1)  # (B, S, S)


def _resize(maps: Tensor, side: int) -> Tensor:
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)
