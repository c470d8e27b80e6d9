"""Probabilities from a trained model, with or without test-time augmentation."""

import torch
from torch import Tensor, nn

from hybridlungvit.data.augment import to_input


@torch.inference_mode()
def pneumonia_probability(model: nn.Module, images: Tensor, masks: Tensor, tta: bool) -> Tensor:
    """Probability of pneumonia, float64 (B,).

    ``images`` uint8 (B, S, S), ``masks`` bool (B, S, S), both on the model's device. With ``tta``
    it is the mean of the probabilities of the image and of its mirror, the mask mirrored too.
    """
    probability = _probability(model, images, masks)
    if tta:
        probability = (probability + _probability(model, images.flip(2), masks.flip(2))) / 2
    return probability


def _probability(model: nn.Module, images: Tensor, masks: Tensor) -> Tensor:
    inputs = to_input(images, model.stem.mean, model.stem.std)
    return model(inputs, masks).logits.double().softmax(dim=1)[:, 1]
