"""Probabilities from a trained model, with or without test-time augmentation."""

import torch
from torch import Tensor, nn

from hybridlungvit.data.augment import to_input
from hybridlungvit.model.hybrid import ModelOutput


@torch.inference_mode()
def pneumonia_probability(model: nn.Module, images: Tensor, masks: Tensor, tta: bool) -> Tensor:
    """Probability of pneumonia, float64 (B,).

    ``images`` uint8 (B, S, S), ``masks`` bool (B, S, S), both on the model's device. With ``tta``
    it is the mean of the probabilities of the image and of its mirror, the mask mirrored too.
    """
    probability = probability_of(output_of(model, images, masks))
    if tta:
        mirrored = output_of(model, images.flip(2), masks.flip(2))
        probability = (probability + probability_of(mirrored)) / 2
    return probability


def output_of(
    model: nn.Module, images: Tensor, masks: Tensor, segment: bool = False
) -> ModelOutput:
    """The model's output for images uint8 (B, S, S) and masks bool (B, S, S)."""
    inputs = to_input(images, model.stem.mean, model.stem.std)
    return model(inputs, masks, segment=segment)


def probability_of(output: ModelOutput) -> Tensor:
    """Probability of pneumonia, float64 (B,)."""
    return output.logits.double().softmax(dim=1)[:, 1]
