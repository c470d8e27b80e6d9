"""Training: one epoch, the run of epochs, and its records."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hybridlungvit.config import Recipe, Study
from hybridlungvit.data.augment import EpochSampler, TrainingSet, derive_seed, random_view, to_input
from hybridlungvit.data.cache import Cache, open_cache
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.device import autocast, prepare_device
from hybridlungvit.errors import StudyError
from hybridlungvit.files import file_sha256
from hybridlungvit.model import build_model
from hybridlungvit.model.inference import pneumonia_probability
from hybridlungvit.paths import Layout
from hybridlungvit.progress import track
from hybridlungvit.training.checkpoint import load_checkpoint, save_checkpoint
from hybridlungvit.training.losses import class_weights, loss_parts
from hybridlungvit.training.record import run_key, write_run

log = logging.getLogger(__name__)
DIVERGED = "Lower training.learning_rate; the last good checkpoint is kept."


@dataclass
class Trainer:
    """What an epoch needs; the random state is derived afresh from (seed, epoch) each time."""

    recipe: Recipe
    seed: int
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.ReduceLROnPlateau
    scaler: torch.amp.GradScaler
    samples: TrainingSet
    weights: Tensor | None

    def batches(self, epoch: int) -> DataLoader:
        """The epoch's augmented batches, in the sampler's order."""
        training = self.recipe.training
        labels = torch.from_numpy(self.samples.labels)
        draw = class_weights(labels)[labels] if training.sampler else None
        self.samples.epoch = epoch
        return DataLoader(
            self.samples,
            training.batch_size,
            sampler=EpochSampler(draw, len(labels), self.seed, epoch),
            num_workers=self.recipe.compute.loader_workers,
            pin_memory=self.device.type == "cuda",
        )

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; the mean of each loss part over the batches."""
        training = self.recipe.training
        self.model.stem.freeze(training.frozen(epoch))
        self.model.train()
        torch.manual_seed(derive_seed(self.seed, epoch, 2))
        sums: dict[str, float] = {}
        loader = self.batches(epoch)
        for step, (images, masks, labels) in enumerate(
            track(loader, len(loader), f"epoch {epoch + 1}")
        ):
            images, masks, labels = (
                part.to(self.device, non_blocking=True) for part in (images, masks, labels)
            )
            inputs = to_input(images, self.model.stem.mean, self.model.stem.std)
            with autocast(self.device, training.amp):
                output = self.model(inputs, masks)
            parts = loss_parts(output, labels, masks, training, self.weights)
            loss = sum(parts.values())
            if not torch.isfinite(loss):
                raise StudyError(
                    f"epoch {epoch + 1}, step {step + 1}: the loss is {loss.item()}. {DIVERGED}"
                )
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value.item()
        return {name: value / len(loader) for name, value in sums.items()}

    def validate(self, epoch: int, cache: Cache, rows: np.ndarray, labels: np.ndarray) -> float:
        """AUC on the validation rows, without test-time augmentation."""
        self.model.eval()
        size = self.recipe.evaluation.batch_size
        scores = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            images = torch.from_numpy(cache.images[part]).to(self.device)
            masks = torch.from_numpy(cache.masks(part)).to(self.device)
            scores.append(pneumonia_probability(self.model, images, masks, tta=False).cpu())
        probability = torch.cat(scores)
        if not probability.isfinite().all():
            raise StudyError(f"epoch {epoch + 1}: the model's output is not finite. {DIVERGED}")
        return float(roc_auc_score(labels, probability))


def train(study: Study, variant: str, seed: int, layout: Layout) -> None:
    """Train one variant with one seed, resuming where an earlier call was interrupted.

    Writes model.safetensors (the epoch of best validation AUC), history.csv, timing.csv and
    run.json below ``layout.run(variant, seed)``. Raises ``StudyError`` for unusable data, weights
    or disk, and for a loss that is not finite.
    """
    recipe = study.recipe(variant)
    training = recipe.training
    device = prepare_device(recipe.compute)
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, recipe.data.image_size)
    rows = {name: np.flatnonzero(manifest.split == name) for name in ("train", "val")}
    labels = {name: manifest.label.to_numpy()[index] for name, index in rows.items()}
    for name, values in labels.items():
        if set(values) != {0, 1}:
            raise StudyError(f"{layout.manifest}: split {name} lacks one of the two classes.")

    torch.manual_seed(derive_seed(seed))
    model = build_model(recipe, pretrained=True).to(device)
    trainer = _assemble(recipe, seed, device, model, cache, rows["train"], labels["train"])
    key = run_key(recipe, seed, file_sha256(layout.manifest))
    work = layout.work(variant, seed) / key[:16]
    history: list[dict[str, float]] = []
    timing: list[dict[str, float]] = []
    best = _weights(model)
    resumed = load_checkpoint(work)
    if resumed is not None:
        state, current, best = resumed
        model.load_state_dict(current)
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.scheduler.load_state_dict(state["scheduler"])
        trainer.scaler.load_state_dict(state["scaler"])
        history, timing = state["history"], state["timing"]
        log.info("resuming %s, seed %d, after epoch %d", variant, seed, len(history))

    with _interruptible(work):
        while not _finished(history, training.epochs, training.patience):
            epoch, start = len(history), time.monotonic()
            losses = trainer.run_epoch(epoch)
            auc = trainer.validate(epoch, cache, rows["val"], labels["val"])
            rate = trainer.optimizer.param_groups[0]["lr"]
            if not history or auc > max(row["val_auc"] for row in history):
                best = _weights(model)
            trainer.scheduler.step(auc)
            history.append({"epoch": epoch + 1, "learning_rate": rate, **losses, "val_auc": auc})
            seconds = time.monotonic() - start
            speed = len(rows["train"]) / seconds
            timing.append({"epoch": epoch + 1, "seconds": seconds, "images_per_second": speed})
            state = {"epoch": epoch + 1, "history": history, "timing": timing}
            for name in ("optimizer", "scheduler", "scaler"):
                state[name] = getattr(trainer, name).state_dict()
            save_checkpoint(work, state, _weights(model), best)
            log.info(
                "%s, seed %d, epoch %d of %d: loss %.4f, validation AUC %.4f, %.0f images/s, "
                "at most %.0f s left", variant, seed, epoch + 1, training.epochs,
                sum(losses.values()), auc, speed, seconds * (training.epochs - epoch - 1),
            )  # fmt: skip
    write_run(study, variant, seed, layout, model, best, history, timing, device)


def _assemble(
    recipe: Recipe,
    seed: int,
    device: torch.device,
    model: nn.Module,
    cache: Cache,
    rows: np.ndarray,
    labels: np.ndarray,
) -> Trainer:
    training = recipe.training
    stem = list(model.stem.parameters())
    inside = {id(parameter) for parameter in stem}
    head = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    rate = training.learning_rate
    groups = [{"params": head, "lr": rate}, {"params": stem, "lr": rate * training.unfreeze_factor}]
    optimizer = torch.optim.AdamW(groups, weight_decay=training.weight_decay)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", training.plateau_factor, training.plateau_patience
    )
    scaler = torch.amp.GradScaler(device.type, enabled=training.amp and device.type == "cuda")
    view = random_view(recipe.augmentation, recipe.data.image_size)
    samples = TrainingSet(cache, rows, labels, view, seed)
    weights = class_weights(torch.from_numpy(labels)).to(device) if training.class_weights else None
    return Trainer(recipe, seed, device, model, optimizer, scheduler, scaler, samples, weights)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _finished(history: list[dict[str, float]], epochs: int, patience: int) -> bool:
    """All epochs done, or ``patience`` of them without a better validation AUC."""
    if not history:
        return False
    best = pd.DataFrame(history).val_auc.idxmax()
    return len(history) >= epochs or len(history) - 1 - best >= patience


@contextmanager
def _interruptible(work: object) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        log.warning("interrupted; run the same command again to resume from %s", work)
        raise
