"""What is looked at before the workflow starts: a failing job would first remove stored results."""

import logging
import os
import re
from collections.abc import Collection
from pathlib import Path

from hybridlungvit.config import Study
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.data.sources import image_root, is_image
from hybridlungvit.evaluation.predictions import require_same, unreported
from hybridlungvit.io import StudyError, read_json
from hybridlungvit.paths import Layout
from hybridlungvit.provenance import code_sha256

log = logging.getLogger(__name__)
PARAMETERS = {
    "tiny": 5.5e6, "small": 22e6, "base": 86e6, "large": 304e6, "huge": 632e6, "giant": 1.1e9,
}  # fmt: skip
SPEED = 60e9  # operations a second of one core, as measured on DeiT-Tiny
DEFAULT_IMAGES = 4_700  # of Kermany's to train on
MUCH = 48  # core-hours worth a warning
SMALLER = "Use a machine with a GPU, or a smaller study such as config/kermany-cpu.yaml."
IMAGES = "Give the one with train/ and test/, such as `--config data_root=PATH`."
LEAVE_OUT = "Give one, or leave the key out."
READ_IMAGES = {"manifest", "cache", "quality", "mask_benchmark"}


def check_start(
    study: Study, layout: Layout, planned: Collection[str], from_predictions: bool = False
) -> None:
    """Check images, weights and stored predictions before any of the planned rules runs.

    ``from_predictions``: the paper is to be made from what is stored, as `make paper` does.

    Raises
    ------
    StudyError : images or weights are missing, or stored predictions belong to another config.
    """
    data = study.data
    folders = {"data_root": study.data_root, "data.masks": data.masks}
    files = {"data.annotations": data.annotations, "data.patients": data.patients_file}
    # Without one of these Snakemake plans nothing that reads it, and takes what was made before.
    wanted = {} if from_predictions else files | {"data.masks": data.masks}
    if READ_IMAGES & set(planned):
        wanted = folders | files
    for key, place in wanted.items():
        kind, there = ("folder", Path.is_dir) if key in folders else ("file", Path.is_file)
        if place is not None and not there(Path(place)):
            advice = IMAGES if key == "data_root" else LEAVE_OUT
            raise StudyError(f"{key}: no {kind} {place}. {advice}")
    if READ_IMAGES & set(planned):
        root = image_root(study, layout)  # before anything is removed to be made anew
        fetched = data.source != "phantom" and study.data_root is None
        if fetched and "download" not in planned and not root.is_dir():
            raise StudyError(
                f"{root}: the downloaded images are gone. Remove {layout.download} to have them "
                "fetched again."
            )
    if not from_predictions and "manifest" not in planned and layout.manifest.is_file():
        _require_same_images(study, layout)
    if "cache" in planned and data.masks is not None and layout.manifest.is_file():
        _require_masks(data.masks, layout)
    if "train" in planned:
        _say_what_it_costs(study, layout)
    if "pdf" not in planned:
        return
    if left := unreported(study, layout):
        omit = "name the variant under `omitted`, with the reason; or "
        raise StudyError(
            f"{left[0]}: the config reports no such seed or variant, of {len(left)} such files. "
            f"Report them; or {omit * (left[0].parent.name not in study.variants)}give the study "
            "another name (`study:`)."
        )
    if not from_predictions:
        _require_weights(study, layout)
    if not any(rule.startswith("score_") for rule in planned):
        _require_current(study, layout)


def _say_what_it_costs(study: Study, layout: Layout) -> None:
    from hybridlungvit.gpus import visible_gpus  # the paper is made where its locks are not there

    if study.compute.device == "cpu" or not visible_gpus():
        hours = core_hours(study, layout)
        if hours > MUCH:
            log.warning(
                "this machine has no GPU: these trainings take about %.0f core-hours. %s",
                hours,
                SMALLER,
            )


def core_hours(study: Study, layout: Layout) -> float:
    """What the trainings still to be done cost on processors, by the stems' operations.

    A stem whose name tells no size counts for nothing, nor does what the heads cost.
    """
    images = DEFAULT_IMAGES
    if layout.manifest.is_file():
        images = int((read_manifest(layout.manifest).split == "train").sum())
    operations = 0.0
    for variant in study.trained_variants():
        recipe = study.recipe(variant)
        left = sum(not (layout.run(variant, s) / "run.json").is_file() for s in study.seeds)
        patch = re.search(r"patch(\d+)", recipe.model.stem)
        size = next((p for name, p in PARAMETERS.items() if name in recipe.model.stem), 0)
        tokens = (recipe.data.image_size / int(patch[1])) ** 2 if patch else 0
        epochs = range(recipe.training.epochs)
        passes = sum(2 if recipe.training.frozen(epoch) else 6 for epoch in epochs)
        if recipe.training.frozen_views:  # once for all seeds and variants with this stem
            left = int(left > 0 and study.features_as(variant) == variant)
            passes = 2 * recipe.training.frozen_views
        operations += left * images * tokens * size * passes
    return operations / SPEED / 3600


def _require_same_images(study: Study, layout: Layout) -> None:
    """The images are no input of the manifest, so that Snakemake does not see them change."""
    try:
        root = image_root(study, layout)
    except StudyError:
        return  # what needs images says so
    manifest = read_manifest(layout.manifest)
    listed = dict(zip(manifest.path, manifest.bytes, strict=True))
    folders = {root / folder for folder in manifest.path.str.rpartition("/")[0].unique()}
    if not all(folder.is_dir() for folder in folders):
        return
    there = {
        f"{folder.relative_to(root).as_posix()}/{entry.name}": entry.stat().st_size
        for folder in folders
        for entry in os.scandir(folder)
        if is_image(Path(entry.name)) and entry.is_file()
    }
    wrong = [path for path, size in listed.items() if there.get(path) != size]
    if study.data.max_train_images is None:
        wrong += [path for path in there if path not in listed]
    if wrong:
        raise StudyError(
            f"{layout.manifest}: lists other images than {root} holds: {len(wrong)} are new, gone "
            f"or of another size, the first {wrong[0]}. Put them back; or give the study another "
            "name; or remove this manifest, to have all of the study made anew."
        )


def _require_masks(folder: str, layout: Layout) -> None:
    from hybridlungvit.masks.files import mask_files  # with OpenCV, which takes long to import

    found = mask_files(Path(folder), read_manifest(layout.manifest).path)
    wrong = [image for image, files in found.items() if len(files) != 1]
    if wrong:
        raise StudyError(
            f"data.masks: {folder} holds none or several for {len(wrong)} images, the first "
            f"{wrong[0]}. One file of its name is needed."
        )


def _require_weights(study: Study, layout: Layout) -> None:
    """Without them Snakemake plans no training and takes what models or predictions it finds."""
    code = code_sha256("train")
    for variant in study.trained_variants():
        named = study.recipe(variant).model.pretrained
        if not isinstance(named, str) or Path(named).is_file():
            continue
        own = {"code_sha256": code, "config_sha256": study.training_hash(variant)}
        runs = [layout.run(variant, seed) for seed in study.seeds]
        trained = all(
            (run / "model.safetensors").is_file()
            and own.items() <= read_json(run / "run.json").items()
            for run in runs
        )
        if not trained:
            raise no_weights(study, variant)


def no_weights(study: Study, variant: str) -> StudyError:
    """What to say where the file of pretrained weights is missing that a training begins with."""
    return StudyError(
        f"model.pretrained: no file {study.recipe(variant).model.pretrained}, so that {variant} "
        "cannot be trained. Give one, such as `--config weights=PATH`. The paper of stored "
        f"predictions is made by `make paper STUDY={study.study}`."
    )


def _require_current(study: Study, layout: Layout) -> None:
    for variant in study.variants:
        for seed in study.seeds:
            path = layout.predictions(variant, seed)
            record = path.with_suffix(".json")
            if path.is_file() and record.is_file():
                recorded = read_json(record)["config_sha256"]
                require_same(path, "config", recorded, study.prediction_hash(variant))
