"""Training batches: which images an epoch draws, in what order, read from the cache."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from hybridlungvit.data.augment import derive_seed
from hybridlungvit.data.cache import Cache


@dataclass(frozen=True)
class OtherMasks(Cache):
    """A cache that gives each image the mask of another patient, of the same split."""

    sources: np.ndarray
    """int64 (N,): whose mask each image gets."""

    def masks(self, rows: np.ndarray | list[int]) -> np.ndarray:
        """Lung masks of other patients, bool (len(rows), S, S)."""
        return super().masks(self.sources[rows])


@dataclass(frozen=True)
class RandomColumns(Cache):
    """A cache whose masks are one column each, whose place has nothing to do with the image."""

    columns: np.ndarray
    """int64 (N,)."""

    def masks(self, rows: np.ndarray | list[int]) -> np.ndarray:
        """One column of each mask is lung, bool (len(rows), S, S)."""
        side = self.images.shape[1]
        chosen = np.arange(side) == self.columns[rows, None]  # (R, S)
        return np.repeat(chosen[:, None], side, axis=1)  # (R, S, S)


def control_masks(cache: Cache, manifest: pd.DataFrame, mask: str) -> Cache:
    """The cache as ``model.mask`` wants it: its own, or with masks that are the control's.

    Other patients' masks are dealt out within a split, in a circle of patients in random order.
    """
    rng = np.random.default_rng(0)
    if mask == "own":
        return cache
    if mask == "random":
        side = cache.images.shape[1]
        columns = rng.integers(side // 4, side - side // 4, len(manifest))
        return RandomColumns(cache.images, cache.packed_masks, columns)
    sources = np.arange(len(manifest))
    for split in manifest.split.unique():
        part = manifest[manifest.split == split]
        groups = list(part.groupby("patient").indices.values())  # places within the part
        order = rng.permutation(len(groups))
        for here, there in zip(order, np.roll(order, 1), strict=True):
            rows = part.index.to_numpy()[groups[here]]
            sources[rows] = part.index.to_numpy()[np.resize(groups[there], len(rows))]
    return OtherMasks(cache.images, cache.packed_masks, sources)


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
