"""Which test images are called wrongly: by one variant, by its every seed, by all variants."""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridlungvit.evaluation.auc import Array


def _between(by_seed: NDArray[np.bool_]) -> list[int] | None:
    """The fewest and the most images that two seeds, of (K, N), call differently; None for one."""
    counts = [int((a != b).sum()) for a, b in combinations(by_seed, 2)]
    return [min(counts), max(counts)] if counts else None


def count_errors(
    labels: NDArray[np.int64], patients: NDArray, scores: dict[str, Array],
    thresholds: dict[str, float], reference: str,
) -> dict[str, Any]:  # fmt: skip
    """Count the errors of each variant's ensemble at its threshold, and how many are shared.

    ``labels`` (N,), ``patients`` (N,) and the seeds' probabilities (K, N) of each variant belong to
    the same images; one whose probability reaches the threshold is called pneumonia. The counts
    describe these images: they estimate nothing beyond them and have no interval.
    """
    truth = labels == 1
    wrong = {v: (own.mean(axis=0) >= thresholds[v]) != truth for v, own in scores.items()}
    by_variant = {}
    for variant, own in scores.items():
        missed = wrong[variant]
        by_seed = (own >= thresholds[variant]) != truth  # (K, N)
        by_variant[variant] = {
            "threshold": thresholds[variant],
            "images": int(missed.sum()),
            "false_positives": int((missed & ~truth).sum()),
            "false_negatives": int((missed & truth).sum()),
            "patients": len(np.unique(patients[missed])),
            "with_reference": int((missed & wrong[reference]).sum()),
            "every_seed": int(by_seed.all(axis=0).sum()),
            "some_seed": int(by_seed.any(axis=0).sum()),
            "between_seeds": _between(by_seed),
        }
    together = np.stack(list(wrong.values()))  # (variants, N)
    everywhere = together.all(axis=0)
    return {
        "variants": by_variant,
        "every_variant": int(everywhere.sum()),
        "every_variant_false_positives": int((everywhere & ~truth).sum()),
        "some_variant": int(together.any(axis=0).sum()),
    }
