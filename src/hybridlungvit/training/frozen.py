"""Features of a stem that never learns: computed once for each image and view, kept on disk.

An epoch then costs what the head costs. Stored are, in half precision, what the stem makes of a
fixed number of augmented views of each training image, and of every other image and its mirror. The
rows of an array are written in order, and ``progress.json`` says how many there are, so that an
interrupted computation goes on where it stopped.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hybridlungvit.config import Recipe, Study
from hybridlungvit.data.augment import apply_views, derive_seed, draw_views, move_masks, to_input
from hybridlungvit.data.cache import Cache, open_cache, unpack_masks
from hybridlungvit.data.manifest import read_manifest
from hybridlungvit.io import StudyError, file_sha256, read_json, telling, write_json
from hybridlungvit.model.inference import probability_of
from hybridlungvit.model.stem import Features, Stem
from hybridlungvit.paths import Layout
from hybridlungvit.provenance import code_sha256, environment_record
from hybridlungvit.runtime import device_name, prepare_device, track
from hybridlungvit.training.record import weights_sha256

CHUNK = 16  # images at a time, each with all its views
NAMES = ("still", "moved", "affine")  # the files, and the first fields of FeatureStore


@dataclass(frozen=True)
class FeatureStore:
    """Read-only view of the stored features of N images, M of them for training.

    T is 1 + h·w: the vector that timm's classifier reads, then the patch tokens.
    """

    still: np.ndarray
    """float16 (N − M, 2, T, C): each image that is not for training, and its mirror image."""
    moved: np.ndarray
    """float16 (M, V, T, C): the augmented views of the training images."""
    affine: np.ndarray
    """float32 (M, V, 2, 3): see ``Views.affine``."""
    places: np.ndarray
    """int64 (N,): where an image of the manifest stands among those for training, or the others."""

    def probabilities(
        self, model: nn.Module, cache: Cache, rows: np.ndarray, tta: bool, device: torch.device
    ) -> np.ndarray:
        """Probability of pneumonia of some rows (R,), float64: as ``pneumonia_probability``.

        None of the rows may be for training.
        """
        scores = []
        with torch.inference_mode():
            for part in np.array_split(rows, -(-len(rows) // 64)):
                masks = torch.from_numpy(cache.masks(part)).to(device)
                still = self.still[self.places[part]]  # (B, 2, T, C)
                score = probability_of(model.read(_features(still[:, 0], device), masks))
                if tta:
                    mirror = _features(still[:, 1], device)
                    score = (score + probability_of(model.read(mirror, masks.flip(2)))) / 2
                scores.append(score.cpu().numpy())
        return np.concatenate(scores)


class PooledViews:
    """What a head pools from the stored views by the lung masks, kept in memory.

    Neither features nor masks change while the head learns; an epoch so reads far fewer numbers.
    All is computed at the start and in one order: a resumed training gets the same bits. ``masks``
    says whether the loss wants the moved masks as well.
    """

    def __init__(
        self, store: FeatureStore, cache: Cache, rows: np.ndarray, model: nn.Module, masks: bool,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.places, self.count, self.device = store.places, store.moved.shape[1], device
        self.side = cache.images.shape[1]
        pooled, bits = [], []
        starts = range(0, len(rows), CHUNK)
        for start in track(starts, len(starts), "pooling of the stored views"):
            part = rows[start : start + CHUNK].repeat(self.count)  # (CHUNK·V,)
            each = store.places[part], np.arange(len(part)) % self.count
            affine = torch.from_numpy(store.affine[each]).to(device)
            moved = move_masks(torch.from_numpy(cache.masks(part)).to(device), affine)
            with torch.no_grad():
                tokens = model.pool(_features(store.moved[each], device), moved)
            pooled.append(tokens)  # (CHUNK·V, …)
            if masks:
                bits.append(np.packbits(moved.flatten(1).cpu().numpy(), axis=1))
        self.pooled = torch.cat(pooled)
        """The model's pooled features on the device, float32 (M·V, …)."""
        self.packed = np.concatenate(bits) if masks else None  # (M·V, …)

    def index(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Where the view of each training image stands: two int (B,) -> int64 (B,)."""
        return self.places[rows] * self.count + views

    def masks(self, index: np.ndarray) -> Tensor | None:
        """The moved masks of some views on the device, bool (B, S, S), if wanted."""
        if self.packed is None:
            return None
        masks = torch.from_numpy(unpack_masks(self.packed[index], self.side))
        return masks.to(self.device, non_blocking=True)


def _features(stored: np.ndarray, device: torch.device) -> Features:
    """Stored tokens (B, T, C) as float32 features on the device."""
    tokens = torch.from_numpy(stored).to(device).float()
    return Features(tokens[:, 0], tokens[:, 1:])


def open_store(
    study: Study, variant: str, layout: Layout, recipe: Recipe, weights: str | None = None
) -> FeatureStore | None:
    """The features a variant trains on, or None where its stem runs in every step.

    ``weights`` is the hash of the stem's weights where the stem is at hand: a model hub may give
    others than it gave before. Raises ``StudyError`` when the features are missing, or of another
    stem, data or augmentation.
    """
    if not recipe.training.frozen_views:
        return None
    folder = layout.features(study.features_as(variant))
    record = read_json(folder / "features.json")
    weights, file = weights or record["weights_sha256"], recipe.model.pretrained
    if isinstance(file, str) and Path(file).is_file():  # scoring needs it no more
        weights = file_sha256(Path(file))
    if record != _identity(recipe, layout, weights):
        raise StudyError(f"{folder}: of another stem, data or augmentation. Run `features` again.")
    manifest = read_manifest(layout.manifest)
    try:
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES]
    except (OSError, ValueError) as error:
        raise StudyError(f"{folder}: damaged ({error}). Delete it and run `features`.") from None
    return FeatureStore(*arrays, _places((manifest.split == "train").to_numpy()))


def _places(trained: np.ndarray) -> np.ndarray:
    """Of each image, how many before it are of its kind: bool (N,) → int64 (N,)."""
    return np.where(trained, np.cumsum(trained), np.cumsum(~trained)) - 1


def _identity(recipe: Recipe, layout: Layout, weights: str | None) -> dict[str, Any]:
    return {
        "identity": recipe.feature_identity(),
        "manifest_sha256": file_sha256(layout.manifest),
        "weights_sha256": weights,
    }


def build_features(study: Study, variant: str, layout: Layout, threads: int) -> None:
    """Compute the features of a variant's frozen stem, resuming where an earlier call stopped.

    Raises ``StudyError`` when the config asks for none, or for those of a random stem.
    """
    recipe = study.recipe(variant)
    if not recipe.training.frozen_views:
        raise StudyError(f"variants.{variant}: training.frozen_views is 0; nothing to compute.")
    if not recipe.model.pretrained:
        raise StudyError(
            f"variants.{variant}: training.frozen_views: with model.pretrained false each training "
            "draws a stem of its own, none of them that of the features. Name weights, or set it "
            "to 0."
        )
    device = prepare_device(recipe.compute)
    torch.set_num_threads(threads)
    model, data = recipe.model, recipe.data
    stem = Stem(model.stem, data.image_size, model.pretrained, model.stem_options).to(device).eval()
    manifest = read_manifest(layout.manifest)
    cache = open_cache(layout, manifest, data.image_size)
    trained = (manifest.split == "train").to_numpy()
    places, views = _places(trained), recipe.training.frozen_views
    record = _identity(recipe, layout, weights_sha256(recipe, stem))
    # Rows of other code, libraries or devices would be mixed into one array.
    maker = [code_sha256("features"), device_name(device), environment_record()]
    folder = layout.features(variant)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.json").unlink(missing_ok=True)  # it says that the arrays are whole
    progress = folder / "progress.json"
    known = read_json(progress) if progress.is_file() else {}
    begun = (known.get("record"), known.get("maker")) == (record, maker)
    if not begun:  # it would vouch for rows that are overwritten now
        progress.unlink(missing_ok=True)
    tokens = 1 + stem.grid[0] * stem.grid[1], stem.dim
    shapes = (
        (int((~trained).sum()), 2, *tokens),
        (int(trained.sum()), views, *tokens),
        (int(trained.sum()), views, 2, 3),
    )
    still, moved, affine = arrays = [
        np.lib.format.open_memmap(folder / f"{name}.npy", "r+" if begun else "w+", dtype, shape)
        for name, dtype, shape in zip(NAMES, ("f2", "f2", "f4"), shapes, strict=True)
    ]
    if hasattr(os, "posix_fallocate"):  # a map that outgrows the disk would kill us with no word
        for name in NAMES:
            path = folder / f"{name}.npy"
            with telling(path, "written"), path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    starts = range(known["done"] if begun else 0, len(manifest), CHUNK)
    for start in track(starts, len(starts), f"features of {variant}"):
        rows = np.arange(start, min(start + CHUNK, len(manifest)))
        drawn, others = rows[trained[rows]], rows[~trained[rows]]
        if len(others):
            pixels = torch.from_numpy(cache.images[others]).to(device)
            still[places[others], 0] = _encode(stem, pixels)
            still[places[others], 1] = _encode(stem, pixels.flip(2))
        if len(drawn):
            pixels = torch.from_numpy(cache.images[drawn]).to(device)
            masks = torch.zeros_like(pixels, dtype=torch.bool)  # moved when a batch is made
            for view in range(views):
                generator = torch.Generator().manual_seed(derive_seed("views", start, view))
                chosen = draw_views(recipe.augmentation, len(drawn), generator)
                images, _ = apply_views(pixels, masks, chosen)
                moved[places[drawn], view] = _encode(stem, images)
                affine[places[drawn], view] = chosen.affine.numpy()
        for array in arrays:
            array.flush()
        write_json(progress, {"record": record, "maker": maker, "done": int(rows[-1]) + 1})
    write_json(folder / "features.json", record)
    progress.unlink()


@torch.inference_mode()
def _encode(stem: Stem, images: Tensor) -> np.ndarray:
    """Images (B, S, S), uint8 or in [0, 1] → stored tokens, float16 (B, T, C)."""
    features = stem(to_input(images, stem.mean, stem.std))
    tokens = torch.cat([features.pooled.unsqueeze(1), features.patches], dim=1)
    return tokens.half().cpu().numpy()
