"""Random training views: crop, mirror, turn and exposure of image and mask together.

A whole batch is one affine resampling on the device that trains, each image with its own numbers;
torchvision's own transforms would give every image of a batch the same ones. The numbers are drawn
on the CPU from the epoch's generator, so that neither the device nor the loader changes a view.
"""

import hashlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from hybridlungvit.config import Augmentation


class Views(NamedTuple):
    """The numbers behind a batch of views."""

    affine: Tensor
    """(B, 2, 3): from output to input coordinates, both in [-1, 1] with x first."""
    brightness: Tensor
    """(B,): factor on the grey values."""
    contrast: Tensor
    """(B,): factor on their distance from the image's mean."""


class ExposureOperations(v2.RandAugment):
    """RandAugment (Cubuk et al. 2020) without its geometry, which here moves the mask as well."""

    _AUGMENTATION_SPACE = {
        name: v2.RandAugment._AUGMENTATION_SPACE[name]
        for name in (
            "Identity", "Brightness", "Contrast", "Sharpness", "Posterize", "Solarize",
            "AutoContrast", "Equalize",
        )
    }  # fmt: skip


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from parts such as (seed, epoch, use): distinct parts, distinct streams."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def draw_views(augmentation: Augmentation, count: int, generator: torch.Generator) -> Views:
    """Random views of ``count`` images.

    The crop's share of the area is uniform and its aspect log-uniform, as in torchvision's
    RandomResizedCrop; a side that would exceed the image is the image's.
    """
    draws = torch.rand(count, 8, generator=generator, dtype=torch.float64).T
    area, ratio, right, down, mirror, turn, brightness, contrast = draws
    low, high = augmentation.crop_scale
    area = low + (high - low) * area
    low, high = torch.tensor(augmentation.crop_ratio, dtype=torch.float64).log()
    ratio = (low + (high - low) * ratio).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (1 - width) * (2 * right - 1), (1 - height) * (2 * down - 1)  # the crop's centre
    width = torch.where(mirror < augmentation.flip, -width, width)
    angle = torch.deg2rad(augmentation.rotation * (2 * turn - 1))
    cosine, sine = angle.cos(), angle.sin()
    rows = (width * cosine, -width * sine, x), (height * sine, height * cosine, y)
    affine = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (B, 2, 3)
    return Views(
        affine.float(),
        (1 + augmentation.brightness * (2 * brightness - 1)).float(),
        (1 + augmentation.contrast * (2 * contrast - 1)).float(),
    )


def apply_views(images: Tensor, masks: Tensor, views: Views) -> tuple[Tensor, Tensor]:
    """Images uint8 (B, S, S), masks bool (B, S, S) → images float32 in [0, 1], masks bool.

    One bilinear resampling for crop, mirror and turn together; what lies outside is black.
    """
    affine, brightness, contrast = (part.to(images.device, non_blocking=True) for part in views)
    both = torch.stack([images.float() / 255, masks.float()], dim=1)  # (B, 2, S, S)
    image, mask = _resample(both, affine).unbind(dim=1)  # (B, S, S) each
    image = (image * brightness.view(-1, 1, 1)).clamp(0, 1)
    mean = image.mean(dim=(1, 2), keepdim=True)
    image = (mean + contrast.view(-1, 1, 1) * (image - mean)).clamp(0, 1)
    return image, mask > 0.5


def move_masks(masks: Tensor, affine: Tensor) -> Tensor:
    """Masks bool (B, S, S) in views whose ``affine`` is (B, 2, 3): as ``apply_views`` has them."""
    return _resample(masks.float().unsqueeze(1), affine).squeeze(1) > 0.5


def _resample(layers: Tensor, affine: Tensor) -> Tensor:
    """Layers (B, C, S, S) where ``affine`` (B, 2, 3) looks for each pixel.

    The grid is that of ``F.affine_grid``: the sum of what a column and what a row gives, in a
    quarter of the time.
    """
    side = layers.shape[-1]
    centres = (2 * torch.arange(side, device=affine.device) + 1) / side - 1  # (S,)
    columns = centres.view(1, 1, -1, 1) * affine[:, None, None, :, 0]  # (B, 1, S, 2)
    rows = centres.view(1, -1, 1, 1) * affine[:, None, None, :, 1]  # (B, S, 1, 2)
    grid = columns + (rows + affine[:, None, None, :, 2])  # (B, S, S, 2)
    return F.grid_sample(layers, grid, align_corners=False)


def change_exposure(images: Tensor, operations: ExposureOperations) -> Tensor:
    """Images float in [0, 1] (B, S, S) after RandAugment, each with its own operations.

    Draws from torch's global generator, as all of torchvision does.
    """
    levels = (images * 255).round().to(torch.uint8).unsqueeze(1)  # (B, 1, S, S)
    return torch.stack([operations(image) for image in levels]).squeeze(1).float() / 255


def mix_batch(
    mixer: v2.MixUp | v2.CutMix, images: Tensor, masks: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """MixUp (Zhang et al. 2018) or CutMix (Yun et al. 2019) of a batch, masks mixed alike.

    Images and masks (B, S, S), labels int (B,) → images, masks float in [0, 1] and class
    probabilities (B, 2).
    """
    both, targets = mixer(torch.stack([images, masks.float()], dim=1), labels)  # (B, 2, S, S)
    image, mask = both.unbind(dim=1)
    return image, mask, targets


def to_input(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Grey images (B, S, S), uint8 or float in [0, 1] → float32 (B, 3, S, S) as the stem wants.

    ``mean`` and ``std`` (1, 3, 1, 1) are the stem's, on the device of the images.
    """
    scaled = images / 255 if images.dtype == torch.uint8 else images
    return (scaled.unsqueeze(1) - mean) / std  # (B, 3, S, S) by broadcasting
