"""Lung masks without training: the fit, how well it agrees with readers, and what it gives away."""

from hybridlungvit.masks.fit import LungMask, lung_mask, mean_x

__all__ = ["LungMask", "lung_mask", "mean_x"]
