"""Predictions for a user's own images from a checkpoint. Research software, no medical device."""

import csv
import io
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hybridlungvit.data.cache import prepare_image
from hybridlungvit.data.decode import read_bytes, require_usable, try_inspect
from hybridlungvit.data.sources import is_image
from hybridlungvit.data.statistics import image_statistics, outside
from hybridlungvit.evaluation.temperature import scaled
from hybridlungvit.io import StudyError, replacing, write_text
from hybridlungvit.masks.fit import LOW_CONFIDENCE
from hybridlungvit.model import build_model
from hybridlungvit.model.inference import pneumonia_probability
from hybridlungvit.runtime import prepare_device, track
from hybridlungvit.training.record import KEY, Description

log = logging.getLogger(__name__)
COLUMNS = ("image", "probability", "calibrated", "call", "mask_confidence", "cut", "warning")


def load_checkpoint(path: Path) -> tuple[nn.Module, Description]:
    """Model (evaluation mode, CPU) and description of a model.safetensors written by training.

    Raises ``StudyError`` when the file is missing or was not written by this software.
    """
    if not path.is_file():  # nor a pipe, which would be waited for
        raise StudyError(f"{path}: no such file. Give a model.safetensors of a finished run.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{path}: cannot be read as a checkpoint ({error}).") from error
    if KEY not in metadata:
        raise StudyError(
            f"{path}: holds weights but no recipe; expected a model.safetensors below "
            "results/<study>/runs/, written by `hybridlungvit train`."
        )
    try:
        description = Description.model_validate_json(metadata[KEY])
        with _Uninitialised():
            model = build_model(description.recipe, pretrained=False)
        model.load_state_dict(weights, assign=True)
    except (ValidationError, RuntimeError) as error:
        raise StudyError(
            f"{path}: does not fit this version of the software ({error}). Train again, or use the "
            "version it was trained with."
        ) from error
    return model.eval(), description


class _Uninitialised(TorchFunctionMode):
    """Leaves parameters unset: drawing those that a checkpoint is to replace takes seconds."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        target, name = args[0] if args else kwargs.get("tensor"), function.__name__
        in_place = name.endswith("_") and not name.startswith("__")
        return (
            target if in_place and isinstance(target, nn.Parameter) else function(*args, **kwargs)
        )


def find_files(paths: list[Path]) -> list[Path]:
    """The files themselves, and of folders all images in and below them, sorted.

    Raises ``StudyError`` for a folder without images, or one that cannot be read.
    """
    files = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        walk = os.walk(path, onerror=_refuse_folder)  # follows no links, hence no loops
        inside = (Path(folder, name) for folder, _, names in walk for name in names)
        images = sorted(filter(is_image, inside))
        if not images:
            raise StudyError(f"{path}: holds no .jpeg, .jpg or .png file.")
        files += images
    return files


def _refuse_folder(error: OSError) -> None:
    raise StudyError(f"{error.filename}: cannot be read ({error.strerror}).")


def predict_images(
    images: list[Path], checkpoint: Path, gradcam: Path | None, output: Path | None = None
) -> None:
    """Write one CSV row per image, to ``output`` or the screen: see ``COLUMNS``.

    probability of pneumonia, as the study's evaluation has it; the calibrated one, at the
    temperature fitted on validation; the call at the study's threshold; the mask's confidence; the
    cut, where left and right part, as a share of the width; and a warning where the image is unlike
    the training images or its mask uncertain. Threshold and mirroring are those of the training's
    study. With ``gradcam``, an overlay of each image goes to that folder as PNG. Raises
    ``StudyError`` that names unusable images, before anything is written, and rather than replace
    one of the images.
    """
    log.warning("Research software, not a medical device: do not use it for any decision on care.")
    model, description = load_checkpoint(checkpoint)
    files = find_files(images)
    overlays = [gradcam / name for name in overlay_names(files)] if gradcam is not None else []
    _spare_images(files, [*overlays, *([output] if output is not None else [])])
    require_usable([try_inspect(file) for file in track(files, len(files), "checking images")])
    device = prepare_device(description.recipe.compute)
    model.to(device)
    size = description.recipe.evaluation.batch_size
    parts = [files[start : start + size] for start in range(0, len(files), size)]
    left = iter(overlays)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part in track(parts, len(parts), "predicting"):
        pixels, masks, rows = predict_batch(model, description, part, device)
        writer.writerows(rows)
        for row in range(len(part) if overlays else 0):
            _save_overlay(model, pixels[row : row + 1], masks[row : row + 1], next(left))
    if output is None:
        sys.stdout.write(text.getvalue())
    else:
        write_text(output, text.getvalue())


def predict_batch(
    model: nn.Module, description: Description, files: list[Path], device: torch.device
) -> tuple[Tensor, Tensor, list[tuple[str, ...]]]:
    """Images uint8 (B, S, S) and masks bool (B, S, S) on the device, and their rows of the CSV."""
    side, evaluation = description.recipe.data.image_size, description.recipe.evaluation
    prepared = [prepare_image(read_bytes(file), file, side) for file in files]
    images = torch.from_numpy(np.stack([each.image for each in prepared])).to(device)  # (B, S, S)
    masks = torch.from_numpy(np.stack([each.mask for each in prepared])).to(device)  # (B, S, S)
    probabilities = pneumonia_probability(model, images, masks, evaluation.tta).cpu().numpy()
    if not np.isfinite(probabilities).all():
        first = files[int(np.argmin(np.isfinite(probabilities)))]
        raise StudyError(
            f"{first}: the checkpoint gives no number for it, so it is damaged. Train again."
        )
    calibrated = scaled(probabilities, description.temperature)
    statistics = image_statistics(each.image for each in prepared).to_dict("records")
    rows, words = [], description.recipe.data.class_words
    columns = zip(files, prepared, probabilities, calibrated, statistics, strict=True)
    for file, (_, _, confidence, cut), probability, at_temperature, values in columns:
        warnings = [f"uncertain lung mask ({confidence:.2f})"] * (confidence < LOW_CONFIDENCE)
        # Two kinds of masks part the lungs at two kinds of cuts.
        foreign = description.recipe.data.masks is not None
        warnings += ["fitted mask, but trained with masks from files"] * foreign
        strange = outside(values, description.ranges)
        warnings += [f"unlike the training images: {', '.join(strange)}"] * bool(strange)
        rows.append(
            (
                str(file).encode(errors="replace").decode(),  # a name may be no text
                f"{probability:.6f}",
                f"{at_temperature:.6f}",
                words[int(probability >= evaluation.threshold)],
                f"{confidence:.3f}",
                f"{cut:.4f}",
                "; ".join(warnings),
            )
        )
    return images, masks, rows


def _spare_images(files: list[Path], outputs: list[Path]) -> None:
    images = {file.resolve() for file in files}
    for output in outputs:
        if output.resolve() in images:
            raise StudyError(
                f"{output}: is one of the images, which would be replaced. Choose another place."
            )


def overlay_names(files: list[Path]) -> list[str]:
    """A file name for each overlay; images of one name in several folders get numbers."""
    names: dict[str, None] = {}  # in order; a list would be searched from its start each time
    used: Counter[str] = Counter()
    for file in files:
        name = f"{file.stem}.png"
        while name in names:
            used[file.stem] += 1
            name = f"{file.stem}-{used[file.stem] + 1}.png"
        names[name] = None
    return list(names)


def _save_overlay(model: nn.Module, image: Tensor, mask: Tensor, output: Path) -> None:
    # Both take long to import, and few ask for overlays.
    from matplotlib import colormaps

    from hybridlungvit.explain.gradcam import gradcam_maps

    heat = gradcam_maps(model, image, mask, target=1)[0]  # (S, S)
    grey = image[0].cpu().numpy()[..., None] / 255  # (S, S, 1)
    colour = colormaps["inferno"](heat)[..., :3]  # (S, S, 3)
    weight = 0.7 * heat[..., None]
    blended = (255 * ((1 - weight) * grey + weight * colour)).astype(np.uint8)
    with replacing(output) as temporary:
        if not cv2.imwrite(str(temporary), cv2.cvtColor(blended, cv2.COLOR_RGB2BGR)):
            raise StudyError(f"{output}: cannot be written. Is the disk full?")
