"""Does the model need what its maps mark? Removing the hottest pixels (ROAD, Rong et al. 2022)."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.metrics.road import ROADMostRelevantFirst
from torch import Tensor, nn

from hybridlungvit.config import Study
from hybridlungvit.evaluation.bootstrap import Array
from hybridlungvit.evaluation.paired import place
from hybridlungvit.explain.gradcam import TestImages
from hybridlungvit.explain.similarity import mean_intervals
from hybridlungvit.model.inference import output_of
from hybridlungvit.runtime import track


def random_heat(count: int, grid: tuple[int, int], side: int, seed: int) -> NDArray[np.float32]:
    """Maps (N, S, S) that know nothing: uniform values on the feature map's grid, interpolated.

    As coarse as Grad-CAM's own, so that both remove patches of the same size.
    """
    coarse = np.random.default_rng([seed, 2]).random((count, *grid), np.float32)
    return np.stack([cv2.resize(values, (side, side)) for values in coarse])


def removal_order(heat: NDArray, ties: NDArray) -> Array:
    """Each map's pixels as distinct ranks in [0, 1), hottest last; equal heat follows ``ties``.

    Without it the cold half of a map, all zeros, would be removed at once and not by shares.
    """
    count, size = len(heat), heat[0].size
    flat, second = heat.reshape(count, size), ties.reshape(count, size)  # (N, H·W)
    order = np.lexsort((second, flat), axis=1)
    ranks = np.empty((count, size))
    np.put_along_axis(ranks, order, np.arange(size) / size, axis=1)
    return ranks.reshape(heat.shape)


def margin_changes(
    model: nn.Module, tests: TestImages, order: Array, removed: list[float], study: Study
) -> Array:
    """Change of the log-odds of pneumonia after removing each share of the pixels: (N, R).

    ``order`` (N, S, S) as from :func:`removal_order`. Removed pixels are filled in from their
    neighbours with a little noise, seeded, as ROAD does.
    """
    size, rows = study.explanation.batch_size, []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(study.explanation.seed)
        batches, total = tests.batches(size, model), -(-len(order) // size)
        for batch, (images, masks) in enumerate(track(batches, total, "removing pixels")):
            part = order[batch * size : (batch + 1) * size]
            grey = images.unsqueeze(1).float() / 255  # (B, 1, S, S)
            targets = [lambda logits: logits[1] - logits[0]] * len(part)

            def logits_of(grey: Tensor, masks: Tensor = masks) -> Tensor:
                return output_of(model, grey[:, 0], masks).logits

            columns = [
                ROADMostRelevantFirst(100 * (1 - share))(grey, part, targets, logits_of)
                for share in removed
            ]
            rows.append(np.stack(columns, axis=1))
    return np.concatenate(rows).astype(np.float64)


def check_faithfulness(
    study: Study, model: nn.Module, tests: TestImages, heat: NDArray
) -> dict[str, object]:
    """Fall of the log-odds when the hottest pixels go, beside random maps' on the same images.

    ``difference`` is Grad-CAM's change minus the random maps', ``overall`` its mean over the
    shares, ``verdict`` how that lies to 0: below means that the marked pixels carry the call.
    """
    options = study.explanation
    side, seed = tests.images.shape[-1], options.seed
    chance = random_heat(len(heat), model.stem.grid, side, seed)
    orders = removal_order(heat, chance), removal_order(chance, chance)
    marked, control = (margin_changes(model, tests, o, options.removed, study) for o in orders)
    difference = marked - control
    overall = difference.mean(axis=1, keepdims=True)  # (N, 1)
    values = np.concatenate([marked, control, difference, overall], axis=1)  # (N, 3·R + 1)
    intervals = mean_intervals(values, tests.table, study.statistics)
    count = len(options.removed)
    return {
        "removed": options.removed,
        "gradcam": intervals[:count],
        "random": intervals[count : 2 * count],
        "difference": intervals[2 * count : 3 * count],
        "overall": intervals[-1],
        "verdict": place(intervals[-1]),
    }
