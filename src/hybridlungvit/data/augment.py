"""Training samples: random views of image and mask together, seeded by their place in the epoch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from hybridlungvit.config import Augmentation
from hybridlungvit.data.cache import Cache


def random_view(augmentation: Augmentation, image_size: int) -> v2.Transform:
    """The augmentation of one image and its mask: crop, flip, rotation and colour jitter."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                image_size, augmentation.crop_scale, augmentation.crop_ratio, antialias=True
            ),
            v2.RandomHorizontalFlip(augmentation.flip),
            v2.RandomRotation(augmentation.rotation, interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(brightness=augmentation.brightness, contrast=augmentation.contrast),
        ]
    )


def to_input(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 grey (B, S, S) → float32 (B, 3, S, S), normalised as the stem expects."""
    scaled = images.unsqueeze(1).float() / 255  # (B, 1, S, S)
    centre = torch.tensor(mean, device=images.device).view(1, 3, 1, 1)
    scale = torch.tensor(std, device=images.device).view(1, 3, 1, 1)
    return (scaled - centre) / scale  # (B, 3, S, S) by broadcasting


def derive_seed(*parts: int) -> int:
    """A 63-bit seed from integers such as (seed, epoch, place): distinct parts, own streams."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (place in the epoch, row), so that a row drawn twice gets two different views."""

    def __init__(self, weights: Tensor | None, count: int, seed: int, epoch: int) -> None:
        generator = torch.Generator().manual_seed(derive_seed(seed, epoch, 0))
        if weights is None:
            self.rows = torch.randperm(count, generator=generator)
        else:
            self.rows = torch.multinomial(weights, count, replacement=True, generator=generator)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return enumerate(self.rows.tolist())

    def __len__(self) -> int:
        return len(self.rows)


class TrainingSet(Dataset[tuple[Tensor, Tensor, int]]):
    """Augmented (image uint8 (S, S), mask bool (S, S), label) of one epoch.

    Each sample seeds the generator from (seed, epoch, place) alone: the number of loader processes
    and a resumed run change nothing.
    """

    def __init__(
        self, cache: Cache, rows: np.ndarray, labels: np.ndarray, view: v2.Transform, seed: int
    ) -> None:
        self.cache, self.rows, self.labels, self.view = cache, rows, labels, view
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        place, index = item
        row = self.rows[index]
        image = tv_tensors.Image(torch.from_numpy(self.cache.images[row].copy())[None])
        mask = tv_tensors.Mask(torch.from_numpy(self.cache.masks([row]).astype(np.uint8)))
        # The transforms draw from torch's global generator, which is also the model's dropout's:
        # borrow it and give it back. Seeding it alone is far cheaper than torch.manual_seed.
        stream = torch.default_generator.get_state()
        torch.default_generator.manual_seed(derive_seed(self.seed, self.epoch, 1, place))
        image, mask = self.view(image, mask)
        torch.default_generator.set_state(stream)
        return image.as_subclass(Tensor)[0], mask.as_subclass(Tensor)[0] > 0, self.labels[index]
