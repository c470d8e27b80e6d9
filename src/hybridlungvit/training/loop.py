"""Training: the run of epochs, resumed where it was interrupted."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from hybridlungvit.config import Study, Training
from hybridlungvit.data.augment import derive_seed
from hybridlungvit.data.batches import control_masks
from hybridlungvit.data.cache import open_cache
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.data.statistics import training_ranges
from hybridlungvit.evaluation.temperature import fit_temperature
from hybridlungvit.io import StudyError, file_sha256
from hybridlungvit.model import build_model
from hybridlungvit.paths import Layout
from hybridlungvit.runtime import flushing_subnormals, peak_memory_mb, prepare_device
from hybridlungvit.training.checkpoint import (
    Weights,
    load_checkpoint,
    save_checkpoint,
    sole_owner,
)
from hybridlungvit.training.frozen import open_store
from hybridlungvit.training.record import (
    Description,
    portable,
    run_key,
    weights_sha256,
    write_run,
)
from hybridlungvit.training.trainer import Trainer

log = logging.getLogger(__name__)
RESUMED = ("optimizer", "scheduler", "scaler")


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
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, recipe.data.image_size)
    cache = control_masks(cache, manifest, recipe.model.mask)
    rows = {name: np.flatnonzero(manifest.split == name) for name in ("train", "val")}
    labels = {name: manifest.label.to_numpy()[index] for name, index in rows.items()}
    for name, values in labels.items():
        if set(values) != {0, 1}:
            raise StudyError(f"{layout.manifest}: split {name} lacks one of the two classes.")

    torch.manual_seed(derive_seed(seed))
    model = build_model(recipe, pretrained=True).to(device)
    manifest_hash, weights_hash = file_sha256(layout.manifest), weights_sha256(recipe, model.stem)
    store = open_store(study, variant, layout, recipe)
    trainer = Trainer(recipe, seed, device, model, cache, rows, labels, store)
    key = run_key(recipe, seed, manifest_hash, weights_hash, device)
    if recipe.data.masks is not None:
        key["masks"] = file_sha256(layout.mask_table)  # fitted ones follow from code and manifest
    work = layout.work(variant, seed)
    with sole_owner(work), _interruptible(work), flushing_subnormals():
        history, timing, best = _resume(trainer, work, key)
        if history:
            log.info("resuming %s, seed %d, after epoch %d", variant, seed, len(history))
        while not _finished(history, training):
            epoch, start = len(history), time.monotonic()
            losses = trainer.run_epoch(epoch)
            rate, values = trainer.rate, trainer.validate(epoch)
            auc = values["val_auc"]
            if not history or auc > max(row["val_auc"] for row in history):
                best = _weights(model)
            trainer.watch(epoch, auc)
            history.append({"epoch": epoch + 1, "learning_rate": rate, **losses, **values})
            seconds = time.monotonic() - start
            speed, peak = len(rows["train"]) / seconds, peak_memory_mb(device)
            taken = {"seconds": seconds, "images_per_second": speed, "peak_memory_mb": peak}
            timing.append({"epoch": epoch + 1, **taken})
            state = {"key": key, "epoch": epoch + 1, "history": history, "timing": timing}
            state |= {name: getattr(trainer, name).state_dict() for name in RESUMED}
            save_checkpoint(work, state, _weights(model), best)
            write_events(layout.events(variant, seed), history, timing)
            log.info(
                "%s, seed %d, epoch %d of %d: loss %.4f, validation AUC %.4f, %.0f images/s, "
                "at most %.0f s left", variant, seed, epoch + 1, training.epochs,
                sum(losses.values()), auc, speed, seconds * (training.epochs - epoch - 1),
            )  # fmt: skip
        kept = int(pd.DataFrame(history).val_auc.idxmax())
        if len(history) < training.epochs:
            log.info(
                "stopped after epoch %d: no better validation AUC for %d epochs",
                len(history), training.patience,
            )  # fmt: skip
        log.info("kept epoch %d, validation AUC %.4f", kept + 1, history[kept]["val_auc"])
        model.load_state_dict(best)
        probabilities = trainer.probabilities("val", recipe.evaluation.tta)
        description = Description(
            recipe=portable(recipe),
            ranges=training_ranges(cache, rows["train"]),
            temperature=fit_temperature(labels["val"], probabilities),
        )
        origin = {"manifest_sha256": manifest_hash, "weights_sha256": weights_hash}
        write_run(study, variant, seed, layout, origin, model, description, history, timing, device)
        shutil.rmtree(work, ignore_errors=True)


def _resume(
    trainer: Trainer, work: Path, key: dict[str, str]
) -> tuple[list[dict[str, float]], list[dict[str, float]], Weights]:
    """History, timing and best weights so far; ``trainer`` is brought to the latest checkpoint."""
    resumed = load_checkpoint(work, key)
    if resumed is None:
        return [], [], _weights(trainer.model)
    state, current, best = resumed
    try:
        trainer.model.load_state_dict(current)
        for name in RESUMED:
            getattr(trainer, name).load_state_dict(state[name])
        return state["history"], state["timing"], best
    except (RuntimeError, ValueError, KeyError) as error:
        raise StudyError(
            f"{work}: damaged checkpoint ({error}). Delete this folder to train from the start."
        ) from error


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _finished(history: list[dict[str, float]], training: Training) -> bool:
    """All epochs done, or ``patience`` of the unfrozen ones without a better validation AUC."""
    if not history:
        return False
    best = pd.DataFrame(history).val_auc.idxmax()
    rested = len(history) - max(best + 1, training.first_counted)
    return len(history) >= training.epochs or rested >= training.patience


@contextmanager
def _interruptible(work: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        log.warning("interrupted; run the same command again to resume from %s", work)
        raise


def write_events(
    folder: Path, history: list[dict[str, float]], timing: list[dict[str, float]]
) -> None:
    """Write the last epoch's history and timing as scalars; nothing without tensorboard.

    Events of an epoch that is trained again after an interruption are purged.
    """
    if find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter  # slow to load, and only if it is there

    epoch = len(history)
    with SummaryWriter(str(folder), purge_step=epoch) as writer:
        for group, row in (("history", history[-1]), ("timing", timing[-1])):
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(f"{group}/{name}", value, epoch)
