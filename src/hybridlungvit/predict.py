"""Predictions for a user's own images from a checkpoint. Research software, no medical device."""

import csv
import io
import json
import logging
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hybridlungvit.data.cache import prepare_image
from hybridlungvit.data.decode import decode_grey, read_bytes, require_usable, try_inspect
from hybridlungvit.data.sources import is_image
from hybridlungvit.data.statistics import image_statistics, outside
from hybridlungvit.evaluation.temperature import scaled
from hybridlungvit.io import StudyError, read_json, telling, write_text
from hybridlungvit.masks.fit import LOW_CONFIDENCE
from hybridlungvit.model import build_model
from hybridlungvit.model.hub import CONFIG, WEIGHTS, fetch, load_model, not_fitting, read_config
from hybridlungvit.model.inference import output_of, pneumonia_probability
from hybridlungvit.runtime import track
from hybridlungvit.training.record import KEY, Description

log = logging.getLogger(__name__)
COLUMNS = (
    "image", "probability", "calibrated", "call", "mask_confidence", "cut", "warning",
    "study", "checkpoint", "threshold",
)  # fmt: skip
UNCERTAIN = "uncertain lung mask"
BATCH = 32
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(?<!\.safetensors)")
PUBLISHED = Path("results/kermany-cpu/model")
"""The checkpoint to use without another, below the current folder or the repository."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the start of a formula."""


class Published(Description):
    """What config.json says beside the model's arguments: the description and the run's name."""

    study: str
    variant: str
    seed: int


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, ready to predict, and what it needs to be told."""

    model: nn.Module
    description: Description
    study: str
    """The study's name; empty for a lone file, which does not tell it."""
    files: tuple[Path, ...]


def load_checkpoint(checkpoint: str | Path) -> Checkpoint:
    """Model (evaluation mode, CPU) and description of a finished or published run.

    ``checkpoint`` is a model.safetensors written by training, the folder of a run, a folder in the
    layout of the model hub, or a name on the hub. Raises ``StudyError`` when there is none or it
    was not written by this software.
    """
    path = Path(checkpoint)
    with telling(path, "read"):  # no permission, a name too long
        if not path.exists() and HUB_NAME.fullmatch(str(checkpoint)):
            path = fetch(checkpoint)
        in_hub_layout = (path / CONFIG).is_file()
        weights = path / WEIGHTS if path.is_dir() else path
        if not in_hub_layout and not weights.is_file():  # nor a pipe, which would be waited for
            raise StudyError(
                f"{weights}: no such file. Give a model.safetensors of a finished run."
            )
        described = path / CONFIG if in_hub_layout else weights
        told = json.dumps(read_config(path).get(KEY)) if in_hub_layout else _metadata(weights)
        try:
            kind = Published if in_hub_layout else Description
            description = kind.model_validate_json(told)
        except ValidationError as error:
            raise not_fitting(described, error) from error
        recipe = description.recipe
        arguments = recipe.model.model_dump() | {"image_size": recipe.data.image_size}
        model = load_model(lambda: build_model(recipe, pretrained=False), arguments, weights)
        if in_hub_layout:
            files = tuple(file for file in path.iterdir() if file.is_file())
            return Checkpoint(model, description, description.study, files)
        record = weights.with_name("run.json")
        study = str(read_json(record)["study"]) if record.is_file() else ""
        return Checkpoint(model, description, study, (weights, record))


def _metadata(weights: Path) -> str:
    """The description in a safetensors file, as JSON."""
    try:
        with safe_open(weights, "pt") as file:
            return (file.metadata() or {})[KEY]
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{weights}: cannot be read as a checkpoint ({error}).") from error
    except KeyError as error:
        raise StudyError(
            f"{weights}: holds weights but no recipe; expected a model.safetensors below "
            "results/<study>/runs/, written by `hybridlungvit train`."
        ) from error


def published_checkpoint() -> Path:
    """Where the published checkpoint is; raises ``StudyError`` where there is none."""
    for root in (Path(), Path(__file__).parents[2]):
        if (root / PUBLISHED / CONFIG).is_file():
            return root / PUBLISHED
    raise StudyError(
        f"no --checkpoint given, and {PUBLISHED} holds none: train one and name its folder "
        "results/<study>/runs/<variant>/seed-<k>, or get one that `hybridlungvit export` wrote."
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


@contextmanager
def keeping_threads() -> Iterator[None]:
    """As many threads of torch afterwards as before, whatever happens between."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@keeping_threads()
def predict_images(
    images: list[Path],
    checkpoint: str | Path | None = None,
    gradcam: Path | None = None,
    output: Path | None = None,
    phantoms: bool = False,
) -> None:
    """Write one CSV row per image, to ``output`` or the screen: see the command's help.

    With ``gradcam``, a picture of each image goes to that folder as PNG: see ``draw_overlay``.
    Without ``checkpoint`` the published one is used. One that was trained on synthetic images is
    refused unless ``phantoms`` says that these are such. Raises ``StudyError`` that names unusable
    images, before anything is written, and rather than replace an image, a file of the checkpoint
    or what is no regular file.
    """
    log.warning("Research software, not a medical device: do not use it for any decision on care.")
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait cost more than they save on one image
    chosen = published_checkpoint() if checkpoint is None else checkpoint
    loaded = load_checkpoint(chosen)
    if loaded.description.recipe.data.source == "phantom" and not phantoms:
        raise StudyError(
            f"{chosen}: was trained on synthetic images and tells nothing about real ones; add "
            "--phantoms if yours are synthetic too."
        )
    files = find_files(images)
    overlays = [gradcam / name for name in overlay_names(files)] if gradcam is not None else []
    _require_outputs([*files, *loaded.files], gradcam, overlays, output)
    require_usable([try_inspect(file) for file in track(files, len(files), "checking images")])
    torch.set_num_threads(min(len(files), torch_threads))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded.model.to(device)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    origin = {"study": harmless(loaded.study), "checkpoint": harmless(str(chosen))}
    drafts = nullcontext("")
    if gradcam is not None:
        with telling(gradcam, "written"):
            gradcam.mkdir(parents=True, exist_ok=True)
            drafts = tempfile.TemporaryDirectory(prefix=".drafts-", dir=gradcam)
    with drafts as folder:  # overlays get their names when all are made; one that fails leaves none
        starts = range(0, len(files), BATCH)
        for start in track(starts, len(starts), "predicting"):
            part = files[start : start + BATCH]
            pixels, masks, rows = predict_batch(loaded.model, loaded.description, part, device)
            writer.writerows(origin | row for row in rows)
            for n, row in enumerate(rows if overlays else []):
                content = _overlay(loaded, part[n], pixels[n : n + 1], masks[n : n + 1], row)
                with telling(overlays[start + n], "written"):
                    Path(folder, str(start + n)).write_bytes(content)
        _write(text.getvalue(), output)
        for number, overlay in enumerate(overlays):
            with telling(overlay, "written"):
                Path(folder, str(number)).replace(overlay)


def predict_batch(
    model: nn.Module, description: Description, files: list[Path], device: torch.device
) -> tuple[Tensor, Tensor, list[dict[str, str]]]:
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
        warnings = [f"{UNCERTAIN} ({confidence:.2f})"] * (confidence < LOW_CONFIDENCE)
        # Two kinds of masks part the lungs at two kinds of cuts.
        foreign = description.recipe.data.masks is not None
        warnings += ["fitted mask, but trained with masks from files"] * foreign
        control = description.recipe.model.mask != "own"
        warnings += ["own mask, but trained with other images' as a control"] * control
        strange = outside(values, description.ranges)
        warnings += [f"unlike the training images: {', '.join(strange)}"] * bool(strange)
        rows.append(
            {
                "image": harmless(str(file)),
                "probability": f"{probability:.6f}",
                "calibrated": f"{at_temperature:.6f}",
                "call": words[int(probability >= evaluation.threshold)],
                "mask_confidence": f"{confidence:.3f}",
                "cut": f"{cut:.4f}",
                "warning": "; ".join(warnings),
                "threshold": f"{evaluation.threshold:g}",
            }
        )
    return images, masks, rows


def harmless(name: str) -> str:
    """A name as printable text that no spreadsheet takes for a formula."""
    text = name.encode(errors="replace").decode()  # a file's name may be no text
    text = "".join(s if s.isprintable() or s in FORMULA else "�" for s in text)  # no escapes
    return f"'{text}" if text.startswith(FORMULA) else text


def _require_outputs(
    inputs: list[Path], gradcam: Path | None, overlays: list[Path], output: Path | None
) -> None:
    """Raise ``StudyError`` where an output would replace an input, another output or a device."""
    if gradcam is not None:
        with telling(gradcam, "written"):  # no permission, or a name longer than any file's
            if gradcam.exists() and not gradcam.is_dir():
                raise StudyError(f"{gradcam}: is no folder. Choose another place for the overlays.")
    taken = {_identity(file) for file in inputs}
    for place in [*overlays, *filter(None, [output])]:
        if _identity(place) in taken:
            raise StudyError(
                f"{place}: is one of the images, of the checkpoint's files or of the overlays, "
                "which would be replaced. Choose another place."
            )
        taken.add(_identity(place))
        with telling(place, "written"):
            if place.is_dir() or (place is not output and place.exists() and not place.is_file()):
                raise StudyError(f"{place}: is no regular file. Choose another place.")


def _identity(path: Path) -> tuple[int, int] | Path:
    """What tells a file from others, whatever it is called: links, hard ones too, lead to one."""
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except OSError:
        return path.resolve()


def _write(text: str, output: Path | None) -> None:
    """To the screen, a regular file, or whatever else takes a stream: a device, a pipe."""
    if output is None:
        sys.stdout.write(text)
    elif not output.exists() or output.is_file():
        write_text(output.resolve(), text)  # links such as /dev/stdout stay links
    else:
        with telling(output, "written"), output.open("w", encoding="utf-8") as stream:
            stream.write(text)


def overlay_names(files: list[Path]) -> list[str]:
    """A file name for each overlay; images of one name in several folders get numbers."""
    names: dict[str, str] = {}
    used: Counter[str] = Counter()
    for file in files:
        name, stem = f"{file.stem}.png", file.stem.casefold()  # disks may not tell X from x
        while name.casefold() in names:
            used[stem] += 1
            name = f"{file.stem}-{used[stem] + 1}.png"
        names[name.casefold()] = name
    return list(names.values())


def _overlay(
    loaded: Checkpoint, file: Path, image: Tensor, mask: Tensor, row: dict[str, str]
) -> bytes:
    """The picture of one image (1, S, S) with its mask (1, S, S), as the content of a PNG file."""
    # grad-cam takes long to import, and few ask for overlays.
    from hybridlungvit.explain.gradcam import gradcam_maps
    from hybridlungvit.explain.overlay import draw_overlay

    heat = gradcam_maps(loaded.model, image, mask, target=1)[0]  # (S, S)
    with torch.inference_mode():
        cuts = output_of(loaded.model, image, mask).cuts  # (1,), in pixels, or None
    recipe = loaded.description.recipe
    parted = cuts is not None and recipe.model.cut != "none"
    cut = float(cuts[0]) / image.shape[-1] if parted else None
    grey = decode_grey(read_bytes(file), file, sys.maxsize)  # (H, W)
    title = (
        f"probability of {recipe.data.class_words[1]} {float(row['probability']):.3f}: "
        f"{row['call']} (threshold {row['threshold']})"
    )
    uncertain = UNCERTAIN in row["warning"]
    picture = draw_overlay(
        grey, mask[0].cpu().numpy(), cut, heat, title, row["warning"], dashed=uncertain
    )
    return cv2.imencode(".png", picture)[1].tobytes()
