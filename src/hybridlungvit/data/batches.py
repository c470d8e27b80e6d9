"""Training batches: which images an epoch draws, in what order, read from the cache."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from hybridlungvit.config import Recipe
from hybridlungvit.data.augment import derive_seed
from hybridlungvit.data.cache import Cache, open_cache
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.paths import Layout


def open_images(recipe: Recipe, layout: Layout) -> tuple[pd.DataFrame, Cache]:
    """Manifest and cache of a study, with the masks that the recipe's model is given."""
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, recipe.data.image_size)
    return manifest, control_masks(cache, manifest, recipe.model.mask)


def control_masks(cache: Cache, manifest: pd.DataFrame, mask: str) -> Cache:
    """The cache as ``model.mask`` wants it: with its own masks, or with those of the control.

    "other": the mask of another patient, dealt out within a split, in a circle of patients in
    random order. "random": one column of the middle half, which knows nothing of the image.
    """
    rng = np.random.default_rng(0)
    if mask == "own":
        return cache
    if mask == "random":
        side = cache.images.shape[1]
        columns = np.broadcast_to(np.eye(side, dtype=bool)[:, None], (side,) * 3)  # (S, S, S)
        packed = np.packbits(columns.reshape(side, -1), axis=1)
        rows = rng.integers(side // 4, side - side // 4, len(manifest))
        return Cache(cache.images, packed, rows)
    sources = np.arange(len(manifest))
    for split in manifest.split.unique():
        part = manifest[manifest.split == split]
        groups = [part.index[places] for places in part.groupby("patient").indices.values()]
        order = rng.permutation(len(groups))
        for here, there in zip(order, np.roll(order, 1), strict=True):
            sources[groups[here]] = np.resize(groups[there], len(groups[here]))
    return Cache(cache.images, cache.packed_masks, sources)


def class_shares(labels: Tensor, shares: tuple[float, float]) -> Tensor:
    """How likely each image is drawn, float (N,): the classes by ``shares``, images of one alike.

    ``labels`` int64 (N,) in {0, 1}. The weights of equal shares are those of ``class_weights``.
    """
    counts = torch.bincount(labels, minlength=2).float()
    return (len(labels) * torch.tensor(shares) / counts)[labels]


def draw_order(weights: Tensor | None, count: int, seed: int, epoch: int) -> Tensor:
    """The samples of an epoch in order, int64 (count,).

    With ``weights`` (count,) drawn in proportion to them, with replacement; else a permutation.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch, 0))
    if weights is None:
        return torch.randperm(count, generator=generator)
    return torch.tensor(list(WeightedRandomSampler(weights.tolist(), count, generator=generator)))


class CachedBatches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Batches of (images uint8 (B, S, S), masks bool (B, S, S), labels int64 (B,)), in order.

    ``rows`` (N,) are places in the cache and ``labels`` (N,) their classes; the last batch may be
    smaller.
    """

    def __init__(self, cache: Cache, rows: np.ndarray, labels: np.ndarray, size: int) -> None:
        self.cache, self.rows, self.labels, self.size = cache, rows, labels, size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        part = slice(index * self.size, (index + 1) * self.size)
        rows = self.rows[part]
        return (
            torch.from_numpy(self.cache.images[rows]),
            torch.from_numpy(self.cache.masks(rows)),
            torch.from_numpy(self.labels[part]),
        )


def load_batches(batches: CachedBatches, workers: int, pinned: bool) -> DataLoader:
    """Read ``batches`` one after the other, ahead of their use when there are ``workers``."""
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        pin_memory=pinned,
        # A generator of its own: the global one is the model's dropout's.
        generator=torch.Generator(),
    )
