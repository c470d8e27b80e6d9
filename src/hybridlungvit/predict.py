"""Predictions for a user's own images from a checkpoint. Research software, no medical device."""

import csv
import json
import sys
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from hybridlungvit.config import Recipe
from hybridlungvit.data.cache import prepare_image
from hybridlungvit.data.decode import inspect_image, read_bytes
from hybridlungvit.device import prepare_device
from hybridlungvit.errors import StudyError
from hybridlungvit.explain.gradcam import gradcam_maps
from hybridlungvit.files import replacing
from hybridlungvit.model import build_model
from hybridlungvit.model.inference import pneumonia_probability

COLUMNS = ("image", "probability", "call", "mask_confidence", "cut")


def load_checkpoint(path: Path) -> tuple[nn.Module, Recipe]:
    """Model (evaluation mode, CPU) and recipe of a model.safetensors written by training.

    Raises ``StudyError`` when the file is missing or was not written by this software.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{path}: cannot be read as a checkpoint ({error}).") from error
    if "recipe" not in metadata:
        raise StudyError(
            f"{path}: holds weights but no recipe; expected a model.safetensors below "
            "results/<study>/runs/, written by `hybridlungvit train`."
        )
    recipe = Recipe.model_validate(json.loads(metadata["recipe"]))
    model = build_model(recipe, pretrained=False)
    model.load_state_dict(weights)
    return model.eval(), recipe


def predict_images(images: list[Path], checkpoint: Path, gradcam: Path | None) -> None:
    """Print one CSV row per image: probability of pneumonia, call, mask confidence and cut.

    ``cut`` is where left and right part, as a share of the width. With ``gradcam``, an overlay for
    each image goes to that folder as PNG. Raises ``StudyError`` for the first unreadable image,
    before any row is printed.
    """
    model, recipe = load_checkpoint(checkpoint)
    device = prepare_device(recipe.compute)
    side, evaluation = recipe.data.image_size, recipe.evaluation
    prepared = []
    for path in images:
        inspect_image(path)
        prepared.append(prepare_image(read_bytes(path), path, side))
    model.to(device)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for path, (image, mask, confidence) in zip(images, prepared, strict=True):
        batch = torch.from_numpy(image)[None].to(device)  # (1, S, S)
        lungs = torch.from_numpy(mask)[None].to(device)  # (1, S, S)
        probability = float(pneumonia_probability(model, batch, lungs, evaluation.tta))
        call = "pneumonia" if probability >= evaluation.threshold else "normal"
        cut = (np.nonzero(mask)[1].mean() + 0.5) / side
        row = (path, f"{probability:.6f}", call, f"{confidence:.3f}", f"{cut:.4f}")
        writer.writerow(row)
        if gradcam is not None:
            _save_overlay(model, batch, lungs, gradcam / f"{path.stem}.png")


def _save_overlay(model: nn.Module, image: Tensor, mask: Tensor, output: Path) -> None:
    heat = gradcam_maps(model, image, mask, target=1)[0]  # (S, S)
    grey = image[0].cpu().numpy()[..., None] / 255  # (S, S, 1)
    colour = plt.get_cmap("inferno")(heat)[..., :3]  # (S, S, 3)
    weight = 0.7 * heat[..., None]
    blended = (255 * ((1 - weight) * grey + weight * colour)).astype(np.uint8)
    with replacing(output) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(blended, cv2.COLOR_RGB2BGR))
