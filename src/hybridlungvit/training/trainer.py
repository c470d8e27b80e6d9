"""One epoch of training: batches on the device, steps, and the validation after them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from hybridlungvit.config import Recipe
from hybridlungvit.data.augment import (
    ExposureOperations,
    apply_views,
    change_exposure,
    derive_seed,
    draw_views,
    mix_batch,
    to_input,
)
from hybridlungvit.data.batches import CachedBatches, draw_order, load_batches
from hybridlungvit.data.cache import Cache
from hybridlungvit.evaluation.auc import weighted_auc
from hybridlungvit.io import StudyError
from hybridlungvit.model.inference import pneumonia_probability
from hybridlungvit.runtime import autocast, track
from hybridlungvit.training.losses import class_weights, loss_parts

DIVERGED = "Lower training.learning_rate; the last good checkpoint is kept."
MIXERS = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


class Batch(NamedTuple):
    """What a step needs, on the device."""

    inputs: Tensor
    """float32 (B, 3, S, S), normalised."""
    masks: Tensor
    """(B, S, S): bool, or in [0, 1] where images were mixed."""
    targets: Tensor
    """Class probabilities (B, 2)."""


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
    cache: Cache
    rows: dict[str, np.ndarray]
    """Places of the train and val images in the cache."""
    labels: dict[str, np.ndarray]
    """Their classes, int64."""

    @classmethod
    def assemble(
        cls,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        model: nn.Module,
        cache: Cache,
        rows: dict[str, np.ndarray],
        labels: dict[str, np.ndarray],
    ) -> "Trainer":
        """Optimizer, scheduler and scaler for ``model``, the stem in a parameter group of its own.

        AdamW (Loshchilov & Hutter 2019); the rate falls when the validation AUC rests.
        """
        training = recipe.training
        stem = list(model.stem.parameters())
        inside = {id(parameter) for parameter in stem}
        head = [parameter for parameter in model.parameters() if id(parameter) not in inside]
        rate = training.learning_rate
        groups = [
            {"params": head, "lr": rate},
            {"params": stem, "lr": rate * training.unfreeze_factor},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=training.weight_decay, fused=True)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, "max", training.plateau_factor, training.plateau_patience
        )
        scaler = torch.amp.GradScaler(device.type, enabled=training.amp and device.type == "cuda")
        return cls(recipe, seed, device, model, optimizer, scheduler, scaler, cache, rows, labels)

    def start_epoch(self, epoch: int) -> None:
        """Freeze or unfreeze the stem and seed dropout for this epoch, counted from 0."""
        self.model.stem.freeze(self.recipe.training.frozen(epoch))
        self.model.train()
        torch.manual_seed(derive_seed(self.seed, epoch, 2))

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The epoch's augmented batches, in the order of the sampler.

        Bytes travel as uint8 and are augmented where the model is. Draws from torch's global
        generator only for RandAugment, MixUp and CutMix, which know no other.
        """
        training, augmentation = self.recipe.training, self.recipe.augmentation
        labels = torch.from_numpy(self.labels["train"])
        weights = class_weights(labels)[labels] if training.sampler else None
        order = draw_order(weights, len(labels), self.seed, epoch).numpy()
        rows, classes = self.rows["train"][order], self.labels["train"][order]
        stored = CachedBatches(self.cache, rows, classes, training.batch_size)
        pinned = self.device.type == "cuda"
        loader = load_batches(stored, self.recipe.compute.loader_workers, pinned)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, 1))
        exposure = ExposureOperations(augmentation.randaugment, augmentation.randaugment_magnitude)
        for part in loader:
            images, masks, classes = (p.to(self.device, non_blocking=True) for p in part)
            views = draw_views(augmentation, len(images), generator)
            images, masks = apply_views(images, masks, views)
            if augmentation.randaugment:
                images = change_exposure(images, exposure)
            targets = F.one_hot(classes, 2).float()  # (B, 2)
            if augmentation.mix != "none":
                mixer = MIXERS[augmentation.mix](alpha=augmentation.mix_alpha, num_classes=2)
                images, masks, targets = mix_batch(mixer, images, masks, classes)
            yield Batch(to_input(images, self.model.stem.mean, self.model.stem.std), masks, targets)

    def step(self, batch: Batch, weights: Tensor | None) -> dict[str, Tensor]:
        """One optimizer step; the parts of the loss, or ``StudyError`` when it is not finite."""
        training = self.recipe.training
        with autocast(self.device, training.amp):
            # The cut wants lungs or no lungs: a mixed pixel counts for the heavier image.
            output = self.model(batch.inputs, batch.masks >= 0.5)
        parts = loss_parts(output, batch.targets, batch.masks, training, weights)
        loss = sum(parts.values())
        if not torch.isfinite(loss):
            raise StudyError(f"the loss is {loss.item()}. {DIVERGED}")
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {name: value.detach() for name, value in parts.items()}

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; the mean of each loss part over the batches."""
        self.start_epoch(epoch)
        weights = None
        if self.recipe.training.class_weights:
            weights = class_weights(torch.from_numpy(self.labels["train"])).to(self.device)
        count = -(-len(self.rows["train"]) // self.recipe.training.batch_size)
        sums: dict[str, Tensor] = {}
        for step, batch in enumerate(track(self.batches(epoch), count, f"epoch {epoch + 1}")):
            try:
                parts = self.step(batch, weights)
            except StudyError as error:
                raise StudyError(f"epoch {epoch + 1}, step {step + 1}: {error}") from None
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: value.item() / count for name, value in sums.items()}

    def probabilities(self, split: str, tta: bool) -> np.ndarray:
        """Probability of pneumonia of the images of a split, float64 (N,), in the cache's order."""
        self.model.eval()
        size = self.recipe.evaluation.batch_size
        stored = CachedBatches(self.cache, self.rows[split], self.labels[split], size)
        scores = []
        for index in range(len(stored)):
            images, masks, _ = (part.to(self.device) for part in stored[index])
            scores.append(pneumonia_probability(self.model, images, masks, tta).cpu().numpy())
        return np.concatenate(scores)

    def validate(self, epoch: int) -> float:
        """AUC on the validation images, without test-time augmentation."""
        probability = self.probabilities("val", tta=False)
        if not np.isfinite(probability).all():
            raise StudyError(f"epoch {epoch + 1}: the model's output is not finite. {DIVERGED}")
        once = np.ones((1, len(probability)), np.int64)
        return float(weighted_auc(self.labels["val"], probability, once)[0])
