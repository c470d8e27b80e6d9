"""Training: the run of epochs, resumed where it was interrupted."""

import logging
import shutil
import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save

from hybridlungvit.config import Study, Training
from hybridlungvit.data.augment import derive_seed
from hybridlungvit.data.batches import open_images
from hybridlungvit.data.statistics import training_ranges
from hybridlungvit.evaluation.temperature import fit_temperature
from hybridlungvit.io import StudyError, file_sha256, replacing, write_record, write_table
from hybridlungvit.model import build_model
from hybridlungvit.paths import Layout
from hybridlungvit.provenance import code_commit, code_sha256, environment_record
from hybridlungvit.runtime import device_name, flushing_subnormals, peak_memory_mb, prepare_device
from hybridlungvit.training.checkpoint import load_checkpoint, save_checkpoint, sole_owner
from hybridlungvit.training.frozen import open_store
from hybridlungvit.training.record import KEY, Description, portable, run_key, weights_sha256
from hybridlungvit.training.trainer import Trainer

log = logging.getLogger(__name__)


def train(study: Study, variant: str, seed: int, layout: Layout) -> None:
    """Train one variant with one seed, resuming where an earlier call was interrupted.

    Writes model.safetensors (the epoch of best validation AUC), history.csv, timing.csv and
    run.json below ``layout.run(variant, seed)``. Raises ``StudyError`` for unusable data, weights
    or disk, for a loss that is not finite, for a checkpoint of another config, code, machine or
    the like, and when another process trains the same run.
    """
    recipe = study.recipe(variant)
    training = recipe.training
    device = prepare_device(recipe.compute)
    manifest, cache = open_images(recipe, layout)
    rows = {name: np.flatnonzero(manifest.split == name) for name in ("train", "val")}
    labels = {name: manifest.label.to_numpy()[index] for name, index in rows.items()}
    for name, values in labels.items():
        if set(values) != {0, 1}:
            raise StudyError(f"{layout.manifest}: split {name} lacks one of the two classes.")

    torch.manual_seed(derive_seed(seed))
    model = build_model(recipe, pretrained=True).to(device)
    origin = {
        "manifest_sha256": file_sha256(layout.manifest),
        "weights_sha256": weights_sha256(recipe, model.stem),
    }
    store = open_store(study, variant, layout, recipe, origin["weights_sha256"])
    trainer = Trainer(recipe, seed, device, model, cache, rows, labels, store)
    key = run_key(recipe, seed, origin, device)
    if recipe.data.masks is not None:
        key["masks"] = file_sha256(layout.mask_table)  # fitted ones follow from code and manifest
    work = layout.work(variant, seed)
    checkpoint = work / "checkpoint.pt"
    resumed = ("model", "optimizer", "scheduler", "scaler")
    parts = {name: getattr(trainer, name) for name in resumed}
    with sole_owner(work), flushing_subnormals():
        # The commit that began it: another may be checked out before it ends.
        state: dict[str, Any] = {"key": key, "history": [], "timing": [], "commit": code_commit()}
        state = load_checkpoint(checkpoint, key, parts) or state
        history, timing = state["history"], state["timing"]
        if history:
            log.info("resuming %s, seed %d, after epoch %d", variant, seed, len(history))
        while not _finished(history, training):
            epoch, start = len(history), time.monotonic()
            losses = trainer.run_epoch(epoch)
            rate, values = trainer.rate, trainer.validate(epoch)
            trainer.watch(epoch, values["val_auc"])
            history.append({"epoch": epoch + 1, "learning_rate": rate, **losses, **values})
            if _best(history) == epoch:
                weights = model.state_dict()
                state["best"] = {name: value.cpu().clone() for name, value in weights.items()}
            seconds = time.monotonic() - start
            speed, peak = len(rows["train"]) / seconds, peak_memory_mb(device)
            taken = {"seconds": seconds, "images_per_second": speed, "peak_memory_mb": peak}
            timing.append({"epoch": epoch + 1, **taken})
            save_checkpoint(checkpoint, state, parts)
            log.info(
                "%s, seed %d, epoch %d of %d: loss %.4f, validation AUC %.4f, %.0f images/s, "
                "at most %.0f s left", variant, seed, epoch + 1, training.epochs,
                sum(losses.values()), values["val_auc"], speed,
                seconds * (training.epochs - epoch - 1),
            )  # fmt: skip
        if len(history) < training.epochs:
            log.info(
                "stopped after epoch %d: no better validation AUC for %d epochs",
                len(history), training.patience,
            )  # fmt: skip
        kept = history[_best(history)]
        log.info("kept epoch %d, validation AUC %.4f", kept["epoch"], kept["val_auc"])
        model.load_state_dict(state["best"])
        probabilities = trainer.predict("val", recipe.evaluation.tta)[:, 0]
        description = Description(
            recipe=portable(recipe),
            ranges=training_ranges(cache, rows["train"]),
            temperature=fit_temperature(labels["val"], probabilities),
        )
        origin["code_commit"] = state["commit"]
        write_run(study, variant, layout, origin, trainer, description, kept, history, timing)
        shutil.rmtree(work, ignore_errors=True)


def _best(history: list[dict[str, float]]) -> int:
    """The first epoch, from 0, of the highest validation AUC."""
    aucs = [row["val_auc"] for row in history]
    return aucs.index(max(aucs))


def _finished(history: list[dict[str, float]], training: Training) -> bool:
    """All epochs done, or ``patience`` of the unfrozen ones without a better validation AUC."""
    if not history:
        return False
    rested = len(history) - max(_best(history) + 1, training.first_counted)
    return len(history) >= training.epochs or rested >= training.patience


def write_run(
    study: Study, variant: str, layout: Layout, origin: dict[str, str | None], trainer: Trainer,
    description: Description, kept: dict[str, float], history: list[dict[str, float]],
    timing: list[dict[str, float]],
) -> None:  # fmt: skip
    """Write model.safetensors, history.csv, timing.csv and run.json of a finished training.

    ``origin`` has the hashes of manifest and pretrained weights and the commit it began with, the
    model of ``trainer`` the best weights, those of the epoch ``kept``; ``description`` travels with
    them.
    """
    model, device, seed = trainer.model, trainer.device, trainer.seed
    pretrained, run = trainer.recipe.model.pretrained, layout.run(variant, seed)
    with replacing(run / "model.safetensors") as temporary:
        weights = {name: value.cpu() for name, value in model.state_dict().items()}
        temporary.write_bytes(save(weights, {KEY: description.model_dump_json()}))
    write_table(run / "history.csv", pd.DataFrame(history))
    write_table(run / "timing.csv", pd.DataFrame(timing))
    record = {
        "study": study.study,
        "variant": variant,
        "seed": seed,
        "config_sha256": study.training_hash(variant),
        "manifest_sha256": origin["manifest_sha256"],
        "code_sha256": code_sha256("train"),
        "code_commit": origin["code_commit"],
        "pretrained": "file" if isinstance(pretrained, str) else pretrained,
        "weights_sha256": origin["weights_sha256"],
        "model_sha256": file_sha256(run / "model.safetensors"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "stem_parameters": sum(p.numel() for p in model.stem.parameters()),
        "stem": {"patch": model.stem.patch, "dim": model.stem.dim},
        "best_epoch": kept["epoch"],
        "epochs_run": len(history),
        "best_val_auc": kept["val_auc"],
        "temperature": description.temperature,
        "wall_seconds": sum(row["seconds"] for row in timing),
        "device": device_name(device),
        "device_kind": device.type,
        "torch_build": torch.__version__,
        "threads": trainer.recipe.compute.threads,
        **environment_record(),
    }
    write_record(run / "run.json", record)
