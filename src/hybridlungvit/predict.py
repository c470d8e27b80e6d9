"""Predictions for a user's own images from a checkpoint. Research software, no medical device."""

import csv
import io
import json
import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from scipy.special import expit, logit
from torch import Tensor, nn

from hybridlungvit.config import Recipe
from hybridlungvit.data.cache import cut_of, prepare_image
from hybridlungvit.data.decode import inspect_image, read_bytes
from hybridlungvit.data.masks import LOW_CONFIDENCE
from hybridlungvit.data.sources import SUFFIXES
from hybridlungvit.data.statistics import Ranges, image_statistics, outside
from hybridlungvit.device import prepare_device
from hybridlungvit.errors import StudyError
from hybridlungvit.explain.gradcam import gradcam_maps
from hybridlungvit.files import replacing, write_text
from hybridlungvit.model import build_model
from hybridlungvit.model.inference import pneumonia_probability
from hybridlungvit.progress import track

log = logging.getLogger(__name__)
COLUMNS = ("image", "probability", "calibrated", "call", "mask_confidence", "cut", "warning")
MESSAGES = 5  # at most, of images that cannot be used


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and what travels with its weights."""

    model: nn.Module
    recipe: Recipe
    ranges: Ranges
    """Statistics of the training images, by name; empty if the file has none."""
    temperature: float | None
    """Divides the logit of a probability to calibrate it; None if the file has none."""


def load_checkpoint(path: Path) -> tuple[nn.Module, Recipe]:
    """Model (evaluation mode, CPU) and recipe of a checkpoint: see :func:`read_checkpoint`."""
    checkpoint = read_checkpoint(path)
    return checkpoint.model, checkpoint.recipe


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a model.safetensors written by training.

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
    try:
        recipe = Recipe.model_validate(json.loads(metadata["recipe"]))
        ranges = TypeAdapter(Ranges).validate_json(metadata.get("ranges", "{}"))
        temperature = float(metadata["temperature"]) if "temperature" in metadata else None
        if temperature is not None and not 0 < temperature < math.inf:
            raise ValueError(f"temperature {temperature}")
        model = build_model(recipe, pretrained=False)
        model.load_state_dict(weights)
    except (ValidationError, ValueError, RuntimeError) as error:
        raise StudyError(
            f"{path}: does not fit this version of the software ({error}). Train again, or use the "
            "version it was trained with."
        ) from error
    return Checkpoint(model.eval(), recipe, ranges, temperature)


def find_files(given: list[Path]) -> list[Path]:
    """The files themselves, and of folders all images in and below them, sorted.

    Raises ``StudyError`` for a folder without images.
    """
    files = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        found = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES]
        found = sorted(file for file in found if not file.name.startswith("."))
        if not found:
            raise StudyError(f"{path}: holds no .jpeg, .jpg or .png file.")
        files += found
    return files


def predict_images(
    images: list[Path], checkpoint: Path, gradcam: Path | None, output: Path | None = None
) -> None:
    """Write one CSV row per image, to ``output`` or the screen: see ``COLUMNS``.

    probability of pneumonia, as the study's evaluation has it; the calibrated one, if the
    checkpoint has a temperature; the call at the study's threshold; the mask's confidence; the cut,
    where left and right part, as a share of the width; and a warning where the image is unlike the
    training images or its mask uncertain. With ``gradcam``, an overlay of each image goes to that
    folder as PNG. Raises ``StudyError`` that names unusable images, before anything is written.
    """
    log.warning("Research software, not a medical device: do not use it for any decision on care.")
    loaded, files = read_checkpoint(checkpoint), find_files(images)
    _require_usable(files)
    if not loaded.ranges:
        log.warning("%s tells no training ranges: unlike images go unnoticed", checkpoint)
    device = prepare_device(loaded.recipe.compute)
    loaded.model.to(device)
    size = loaded.recipe.evaluation.batch_size
    parts = [files[start : start + size] for start in range(0, len(files), size)]
    overlays = iter(_overlay_names(files))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part in track(parts, len(parts), "predicting"):
        pixels, masks, rows = predict_batch(loaded, part, device)
        writer.writerows(rows)
        for row in range(len(part) if gradcam is not None else 0):
            name = gradcam / next(overlays)
            _save_overlay(loaded.model, pixels[row : row + 1], masks[row : row + 1], name)
    if output is None:
        sys.stdout.write(text.getvalue())
    else:
        write_text(output, text.getvalue())


def predict_batch(
    checkpoint: Checkpoint, files: list[Path], device: torch.device
) -> tuple[Tensor, Tensor, list[tuple[str, ...]]]:
    """Images uint8 (B, S, S) and masks bool (B, S, S) on the device, and their rows of the CSV."""
    side, evaluation = checkpoint.recipe.data.image_size, checkpoint.recipe.evaluation
    prepared = [prepare_image(read_bytes(file), file, side) for file in files]
    images = np.stack([image for image, _, _ in prepared])  # (B, S, S)
    masks = np.stack([mask for _, mask, _ in prepared])  # (B, S, S)
    statistics = image_statistics(images)
    pixels, lungs = torch.from_numpy(images).to(device), torch.from_numpy(masks).to(device)
    found = pneumonia_probability(checkpoint.model, pixels, lungs, evaluation.tta).tolist()
    rows = []
    for row, (file, probability) in enumerate(zip(files, found, strict=True)):
        confidence = prepared[row][2]
        calibrated = calibrate(probability, checkpoint.temperature)
        warnings = [f"uncertain lung mask ({confidence:.2f})"] * (confidence < LOW_CONFIDENCE)
        own = {name: float(values[row]) for name, values in statistics.items()}
        strange = outside(own, checkpoint.ranges)
        warnings += [f"unlike the training images: {', '.join(strange)}"] * bool(strange)
        rows.append(
            (
                str(file).encode(errors="replace").decode(),  # a name may be no text
                f"{probability:.6f}",
                "" if calibrated is None else f"{calibrated:.6f}",
                "pneumonia" if probability >= evaluation.threshold else "normal",
                f"{confidence:.3f}",
                f"{cut_of(masks[row]):.4f}",
                "; ".join(warnings),
            )
        )
    return pixels, lungs, rows


def calibrate(probability: float, temperature: float | None) -> float | None:
    """The probability whose logit is that of ``probability`` over the temperature (Guo 2017)."""
    return None if temperature is None else float(expit(logit(probability) / temperature))


def _require_usable(files: list[Path]) -> None:
    bad = []
    for file in track(files, len(files), "checking images"):
        try:
            inspect_image(file)
        except StudyError as error:
            bad.append(str(error))
    if bad:
        more = f"\n… and {len(bad) - MESSAGES} further images." if len(bad) > MESSAGES else ""
        raise StudyError("\n".join(bad[:MESSAGES]) + more)


def _overlay_names(files: list[Path]) -> list[str]:
    """A file name for each overlay; images of one name in several folders get numbers."""
    names: list[str] = []
    for file in files:
        name, number = f"{file.stem}.png", 1
        while name in names:
            number += 1
            name = f"{file.stem}-{number}.png"
        names.append(name)
    return names


def _save_overlay(model: nn.Module, image: Tensor, mask: Tensor, output: Path) -> None:
    heat = gradcam_maps(model, image, mask, target=1)[0]  # (S, S)
    grey = image[0].cpu().numpy()[..., None] / 255  # (S, S, 1)
    colour = plt.get_cmap("inferno")(heat)[..., :3]  # (S, S, 3)
    weight = 0.7 * heat[..., None]
    blended = (255 * ((1 - weight) * grey + weight * colour)).astype(np.uint8)
    with replacing(output) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(blended, cv2.COLOR_RGB2BGR))
