"""The losses: classification, lung segmentation and the attention regulariser."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from hybridlungvit.config import Training
from hybridlungvit.model import ModelOutput


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
        # Two logits are one sigmoid of their difference.
        smooth = targets[:, 1] * (1 - smoothing) + smoothing / 2  # (B,)
        margin = logits[:, 1] - logits[:, 0]  # (B,)
        losses = sigmoid_focal_loss(margin, smooth, alpha=-1, gamma=training.focal_gamma)
        return (losses * per_image).sum() / per_image.sum()
    total = F.cross_entropy(logits, targets, weights, label_smoothing=smoothing, reduction="sum")
    return total / per_image.sum()


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """0.5 binary cross-entropy + 0.5 soft Dice loss (Milletari et al. 2016) over images.

    ``logits`` (B, S, S); ``masks`` (B, S, S), bool or in [0, 1]. Dice is taken per image and
    averaged.
    """
    target = masks.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, target)
    probability = logits.sigmoid()
    overlap = (probability * target).sum(dim=(1, 2))  # (B,)
    total = probability.sum(dim=(1, 2)) + target.sum(dim=(1, 2))  # (B,)
    dice = 1 - ((2 * overlap + 1) / (total + 1)).mean()
    return 0.5 * entropy + 0.5 * dice


def lung_shares(masks: Tensor, cuts: Tensor, grid: int) -> Tensor:
    """Each left and right token's share of the lung mask, (B, 2·grid²), rows sum to 1.

    A token's share is the mask's mean in its cell times the cell's width; cells are as in
    :class:`~hybridlungvit.model.tokens.LungTokens`. An empty mask gives equal shares.
    """
    rows = []
    for mask, cut in zip(masks.float(), cuts, strict=True):
        left = mask[None, :, : int(torch.floor(cut + 0.5))]  # (1, S, c)
        right = mask[None, :, int(torch.ceil(cut - 0.5)) :]  # (1, S, S - c)
        sides = [F.adaptive_avg_pool2d(s, grid).flatten() * s.shape[2] for s in (left, right)]
        rows.append(torch.cat(sides))  # (2·g²,)
    shares = torch.stack(rows)
    total = shares.sum(dim=1, keepdim=True)
    return torch.where(total > 0, shares / total.clamp(min=1e-12), 1 / shares.shape[1])


def attention_loss(attention: Tensor, shares: Tensor) -> Tensor:
    """Kullback–Leibler divergence of the attention (B, N) from the lung shares (B, N), mean."""
    return F.kl_div(attention.clamp(min=1e-8).log(), shares, reduction="batchmean")


def loss_parts(
    output: ModelOutput, targets: Tensor, masks: Tensor, training: Training, weights: Tensor | None
) -> dict[str, Tensor]:
    """The weighted parts of the loss by name; their sum is what training minimises.

    ``targets`` class probabilities (B, 2); ``masks`` (B, S, S), bool or in [0, 1].
    """
    parts = {
        "classification": classification_loss(output.logits.float(), targets, training, weights)
    }
    if output.segmentation is not None:
        parts["segmentation"] = training.lambda_seg * segmentation_loss(
            output.segmentation.float(), masks
        )
    if training.lambda_att > 0 and output.attention is not None:
        grid = int((output.attention.shape[1] // 2) ** 0.5)
        shares = lung_shares(masks, output.cuts, grid)
        parts["attention"] = training.lambda_att * attention_loss(output.attention.float(), shares)
    return parts
