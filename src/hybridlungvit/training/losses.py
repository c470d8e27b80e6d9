"""The losses: classification, lung segmentation and the attention regulariser."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridlungvit.config import Training
from hybridlungvit.model import ModelOutput
from hybridlungvit.model.tokens import pooling_matrix


def class_weights(labels: Tensor) -> Tensor:
    """Weights inverse to class frequency, N / (2·N_c), float (2,); labels int (N,) in {0, 1}."""
    counts = torch.bincount(labels, minlength=2)
    return len(labels) / (2 * counts.float())


def classification_loss(
    logits: Tensor, targets: Tensor, training: Training, weights: Tensor | None
) -> Tensor:
    """Label-smoothed cross-entropy or focal loss (Lin et al. 2017), the weighted mean over images.

    ``logits`` (B, 2), ``targets`` class probabilities (B, 2), ``weights`` (2,) of the classes. The
    weights divide out, as in torch: a batch of one class costs the same with and without them.
    """
    if weights is None:
        weights = logits.new_ones(2)
    per_image = targets @ weights  # (B,)
    smoothing = training.label_smoothing
    if training.loss == "focal":
        from torchvision.ops import sigmoid_focal_loss  # takes seconds to import

        # Two logits are one sigmoid of their difference.
        smooth = targets[:, 1] * (1 - smoothing) + smoothing / 2  # (B,)
        margin = logits[:, 1] - logits[:, 0]  # (B,)
        losses = sigmoid_focal_loss(margin, smooth, alpha=-1, gamma=training.focal_gamma)
        return (losses * per_image).sum() / per_image.sum()
    total = F.cross_entropy(logits, targets, weights, label_smoothing=smoothing, reduction="sum")
    return total / per_image.sum()


def segmentation_losses(logits: Tensor, masks: Tensor) -> Tensor:
    """0.5 binary cross-entropy + 0.5 soft Dice loss (Milletari et al. 2016) of each image, (B,).

    ``logits`` (B, S, S); ``masks`` (B, S, S), bool or in [0, 1].
    """
    target = masks.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2))
    probability = logits.sigmoid()
    overlap = (probability * target).sum(dim=(1, 2))  # (B,)
    total = probability.sum(dim=(1, 2)) + target.sum(dim=(1, 2))  # (B,)
    return 0.5 * entropy + 0.5 * (1 - (2 * overlap + 1) / (total + 1))


def lung_dice(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice overlap of the lungs found, those of probability one half and more, with the mask: (B,).

    ``logits`` (B, S, S), ``masks`` bool (B, S, S). Both empty: 1.
    """
    lungs = logits >= 0
    total = lungs.sum(dim=(1, 2)) + masks.sum(dim=(1, 2))  # (B,)
    overlap = (lungs & masks).sum(dim=(1, 2))
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), 1.0)


def lung_shares(masks: Tensor, cuts: Tensor, grid: int) -> Tensor:
    """Each left and right token's share of the lung mask, (B, 2·grid²), rows sum to 1.

    A token's share is the mask's mean in its cell times the cell's width; cells are as in
    :class:`~hybridlungvit.model.tokens.LungTokens`. An empty mask gives equal shares.
    """
    side = masks.shape[-1]
    cells = _cells(side, grid, masks.device)
    sums = []
    for flipped, cut in ((False, cuts), (True, side - cuts)):  # the right side in the mirror
        width = torch.floor(cut + 0.5).long().clamp(1, side)  # (B,)
        columns = cells[width - 1] * width.view(-1, 1, 1)  # (B, g, S)
        lungs = (masks.flip(2) if flipped else masks).float()  # (B, S, S)
        share = torch.einsum("gy,byx,bkx->bgk", cells[-1], lungs, columns)
        sums.append(share.flip(2) if flipped else share)
    shares = torch.stack(sums, dim=1).flatten(1)  # (B, 2, g, g) → (B, 2·g²)
    total = shares.sum(dim=1, keepdim=True)
    return torch.where(total > 0, shares / total.clamp(min=1e-12), 1 / shares.shape[1])


@lru_cache
def _cells(side: int, grid: int, device: torch.device) -> Tensor:
    """Entry c − 1 averages the first c of ``side`` columns in g cells: (S, g, S)."""
    cells = [pooling_matrix(width, grid) for width in range(1, side + 1)]
    return torch.stack([F.pad(c, (0, side - len(c.T))) for c in cells]).float().to(device)


def attention_loss(attention: Tensor, shares: Tensor) -> Tensor:
    """Kullback–Leibler divergence of the attention (B, N) from the lung shares (B, N), mean."""
    return F.kl_div(attention.clamp(min=1e-8).log(), shares, reduction="batchmean")


def loss_parts(
    output: ModelOutput,
    targets: Tensor,
    masks: Tensor | None,
    training: Training,
    weights: Tensor | None,
) -> dict[str, Tensor]:
    """The weighted parts of the loss by name; their sum is what training minimises.

    ``targets`` class probabilities (B, 2); ``masks`` (B, S, S), bool or in [0, 1], or None
    where neither segmentation nor attention has a weight.
    """
    parts = {
        "classification": classification_loss(output.logits.float(), targets, training, weights)
    }
    if output.segmentation is not None:
        losses = segmentation_losses(output.segmentation.float(), masks)
        parts["segmentation"] = training.lambda_seg * losses.mean()
    if training.lambda_att > 0 and output.attention is not None:
        grid = int((output.attention.shape[1] // 2) ** 0.5)
        shares = lung_shares(masks, output.cuts, grid)
        parts["attention"] = training.lambda_att * attention_loss(output.attention.float(), shares)
    return parts
