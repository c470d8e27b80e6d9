"""Training batches: which images an epoch draws, in what order, read from the cache."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from hybridlungvit.data.augment import derive_seed
from hybridlungvit.data.cache import Cache


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
