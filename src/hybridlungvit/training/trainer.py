"""One epoch of training: batches on the device, steps, and the validation after them."""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
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
from hybridlungvit.data.batches import CachedBatches, class_shares, draw_order, load_batches
from hybridlungvit.data.cache import Cache
from hybridlungvit.evaluation.auc import weighted_auc
from hybridlungvit.evaluation.temperature import clipped
from hybridlungvit.io import StudyError
from hybridlungvit.model.inference import output_of, pneumonia_probability, probability_of
from hybridlungvit.runtime import autocast, mixed_dtype, track
from hybridlungvit.training.frozen import FeatureStore, PooledViews
from hybridlungvit.training.losses import class_weights, loss_parts, lung_dice, segmentation_losses

log = logging.getLogger(__name__)
DIVERGED = "Lower training.learning_rate; the last good checkpoint is kept."
SKIPPED = 10  # steps in a row whose loss is not finite
MIXERS = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


class Batch(NamedTuple):
    """What a step needs, on the device."""

    inputs: Tensor
    """Normalised images, float32 (B, 3, S, S), or what the head pools of stored features."""
    masks: Tensor | None
    """(B, S, S): bool, or in [0, 1] where images were mixed; None where no loss wants them."""
    targets: Tensor
    """Class probabilities (B, 2)."""


class Trainer:
    """What an epoch needs; the random state is derived afresh from (seed, epoch) each time.

    ``rows`` are the places of the train and val images in the cache, ``labels`` their classes,
    int64. ``store`` holds the features of a stem that never learns, where the config wants them
    computed once.
    """

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        model: nn.Module,
        cache: Cache,
        rows: dict[str, np.ndarray],
        labels: dict[str, np.ndarray],
        store: FeatureStore | None = None,
    ) -> None:
        """Optimizer, scheduler and scaler for ``model``, the stem in a parameter group of its own.

        AdamW (Loshchilov & Hutter 2019). The rate falls when the validation AUC rests: any rise,
        however small, is a better epoch here as it is for the model that is kept.
        """
        self.recipe, self.seed, self.device, self.model = recipe, seed, device, model
        self.cache, self.rows, self.labels, self.store = cache, rows, labels, store
        training, self.weights = recipe.training, None
        if training.class_weights:
            self.weights = class_weights(torch.from_numpy(labels["train"])).to(device)
        if store is not None:
            masked = training.lambda_att > 0
            self.views = PooledViews(store, cache, rows["train"], model, masked, device)
        stem = list(model.stem.parameters())
        head = [p for name, p in model.named_parameters() if not name.startswith("stem.")]
        rate = training.learning_rate
        slow = training.unfreeze_factor if training.unfreeze_lowers == "stem" else 1.0
        groups = [{"params": head, "lr": rate}, {"params": stem, "lr": rate * slow}]
        if training.freeze_epochs == "all":
            groups.pop()  # fewer tensors to go through in each step
        self.optimizer = torch.optim.AdamW(groups, weight_decay=training.weight_decay, fused=True)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, "max", training.plateau_factor, training.plateau_patience, threshold=0
        )
        # bfloat16 has float32's range; only float16 needs its losses scaled.
        scaled = training.amp and device.type == "cuda" and mixed_dtype(device) == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    def start_epoch(self, epoch: int) -> None:
        """Freeze or unfreeze the stem and seed dropout for this epoch, counted from 0."""
        training = self.recipe.training
        self.model.stem.freeze(training.frozen(epoch))
        self.model.train()
        if epoch and epoch == training.freeze_epochs:
            if training.unfreeze_lowers == "all":
                lowered = training.learning_rate * training.unfreeze_factor
                for group in self.optimizer.param_groups:
                    group["lr"] = min(group["lr"], lowered)
            log.info("the stem learns from epoch %d on; learning rate %g", epoch + 1, self.rate)
        torch.manual_seed(derive_seed(self.seed, epoch, 2))

    @property
    def rate(self) -> float:
        """The learning rate of the head."""
        return self.optimizer.param_groups[0]["lr"]

    def watch(self, epoch: int, auc: float) -> None:
        """Lower the learning rate if the validation AUC has rested, once the stem is unfrozen."""
        if epoch < self.recipe.training.first_counted:
            self.scheduler.best = max(self.scheduler.best, auc)
            return
        before = self.rate
        self.scheduler.step(auc)
        if self.rate < before:
            log.info("validation AUC rests: learning rate %g from %g on", self.rate, before)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The epoch's augmented batches, in the order of the sampler.

        Bytes travel as uint8 and are augmented where the model is. Draws from torch's global
        generator only for RandAugment, MixUp and CutMix, which know no other.
        """
        training, augmentation = self.recipe.training, self.recipe.augmentation
        labels, shares, weights = torch.from_numpy(self.labels["train"]), training.sampler, None
        if shares:
            weights = class_shares(labels, (0.5, 0.5) if shares is True else shares)
        order = draw_order(weights, len(labels), self.seed, epoch).numpy()
        rows, classes = self.rows["train"][order], self.labels["train"][order]
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch, 1))
        if self.store is not None:
            yield from self._stored_batches(rows, classes, generator)
            return
        stored = CachedBatches(self.cache, rows, classes, training.batch_size)
        pinned = self.device.type == "cuda"
        exposure = ExposureOperations(augmentation.randaugment, augmentation.randaugment_magnitude)
        for part in load_batches(stored, self.recipe.compute.loader_workers, pinned):
            images, masks, classes = (p.to(self.device, non_blocking=True) for p in part)
            views = draw_views(augmentation, len(images), generator)
            images, masks = apply_views(images, masks, views)
            if augmentation.randaugment:
                images = change_exposure(images, exposure)
            targets = torch.eye(2, device=self.device)[classes]  # (B, 2); one_hot waits for the GPU
            if augmentation.mix != "none":
                mixer = MIXERS[augmentation.mix](alpha=augmentation.mix_alpha, num_classes=2)
                images, masks, targets = mix_batch(mixer, images, masks, classes)
            yield Batch(to_input(images, self.model.stem.mean, self.model.stem.std), masks, targets)

    def _stored_batches(
        self, rows: np.ndarray, classes: np.ndarray, generator: torch.Generator
    ) -> Iterator[Batch]:
        """Batches of stored features, of each image one of its views by chance."""
        views = torch.randint(self.views.count, (len(rows),), generator=generator).numpy()
        drawn = self.views.index(rows, views)
        # All of the epoch at once: copied step by step, each would wait for the GPU.
        index = torch.from_numpy(drawn).to(self.device)
        targets = torch.eye(2)[classes].to(self.device)  # (N, 2)
        size = self.recipe.training.batch_size
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            yield Batch(
                self.views.pooled[index[part]], self.views.masks(drawn[part]), targets[part]
            )

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One optimizer step; the parts of the loss, whether finite or not."""
        training = self.recipe.training
        with autocast(self.device, training.amp):
            if self.store is not None:
                output = self.model.read_pooled(batch.inputs, batch.masks)
            else:  # the cut wants lungs or no lungs: a mixed pixel counts for the heavier image
                output = self.model(batch.inputs, batch.masks >= 0.5)
        parts = loss_parts(output, batch.targets, batch.masks, training, self.weights)
        loss = sum(parts.values())
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {name: value.detach() for name, value in parts.items()}

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; the mean of each loss part over the batches where it is finite.

        Raises ``StudyError`` when the loss is not finite. A GPU is asked at the end of the epoch
        only, so that no step waits for it; with a scaled loss it skips such steps by itself, and
        ``SKIPPED`` of them in a row stop the training.
        """
        self.start_epoch(epoch)
        count = -(-len(self.rows["train"]) // self.recipe.training.batch_size)
        sums: dict[str, Tensor] = {}
        bad = longest = good = torch.zeros((), dtype=torch.int64, device=self.device)
        allowed = SKIPPED - 1 if self.scaler.is_enabled() else 0
        steps = 0
        for batch in track(self.batches(epoch), count, f"epoch {epoch + 1}"):
            parts, steps = self.step(batch), steps + 1
            finite = torch.isfinite(sum(parts.values()))
            bad = torch.where(finite, 0, bad + 1)  # in a row
            longest = torch.maximum(longest, bad)
            if self.device.type == "cpu" and longest > allowed:
                break
            good = good + finite
            for name, value in parts.items():
                part = torch.where(finite, value, 0) if allowed else value
                sums[name] = sums.get(name, 0.0) + part
        if longest > allowed:
            raise StudyError(
                f"epoch {epoch + 1}, by step {steps}: the loss is not finite. {DIVERGED}"
            )
        return {name: value.item() / max(good.item(), 1) for name, value in sums.items()}

    def predict(self, split: str, tta: bool) -> np.ndarray:
        """What ``predict`` gives for the images of a split, in order: float64 (N, 1 or 3)."""
        self.model.eval()
        if self.store is not None:
            rows = self.rows[split]
            scores = self.store.probabilities(self.model, self.cache, rows, tta, self.device)
            return scores[:, None]
        size = self.recipe.evaluation.batch_size
        stored = CachedBatches(self.cache, self.rows[split], self.labels[split], size)
        batches = ((part.to(self.device) for part in stored[i][:2]) for i in range(len(stored)))
        return np.concatenate([predict(self.model, *batch, tta) for batch in batches])

    def validate(self, epoch: int) -> dict[str, float]:
        """AUC, accuracy and log loss on the validation images, without test-time augmentation.

        With a segmentation head also its loss, without its weight, and the mean Dice.
        """
        probability, *segmented = self.predict("val", tta=False).T
        if not np.isfinite(probability).all():
            raise StudyError(f"epoch {epoch + 1}: the model's output is not finite. {DIVERGED}")
        once = np.ones((1, len(probability)), np.int64)
        truth = self.labels["val"] == 1
        right = (probability >= self.recipe.evaluation.threshold) == truth
        kept = clipped(np.where(truth, probability, 1 - probability))
        measures = {
            "val_auc": float(weighted_auc(self.labels["val"], probability, once)[0]),
            "val_accuracy": float(right.mean()),
            "val_loss": float(-np.log(kept).mean()),
        }
        if segmented:
            dice, losses = (float(column.mean()) for column in segmented)
            measures |= {"val_segmentation": losses, "val_dice": dice}
        return measures


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, masks: Tensor, tta: bool) -> np.ndarray:
    """Probability of pneumonia; with a segmentation head also its Dice and loss: (B, 1 or 3).

    ``images`` uint8 (B, S, S), ``masks`` bool (B, S, S), both on the model's device. Lungs are
    compared as the image shows them, without its mirror.
    """
    if getattr(model, "segment", None) is None:
        return pneumonia_probability(model, images, masks, tta).unsqueeze(1).cpu().numpy()
    output = output_of(model, images, masks, segment=True)
    probability = probability_of(output)
    if tta:
        mirrored = probability_of(output_of(model, images.flip(2), masks.flip(2)))
        probability = (probability + mirrored) / 2
    dice = lung_dice(output.segmentation, masks)
    losses = segmentation_losses(output.segmentation, masks)
    return torch.stack([probability, dice, losses], dim=1).cpu().numpy()
