"""Heat maps: Grad-CAM (Selvaraju et al. 2017) on the projected feature map, and the hybrid's
cross-attention painted back on the image, for cases chosen by a rule."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from hybridlungvit.config import Study
from hybridlungvit.data.augment import to_input
from hybridlungvit.data.batches import open_images
from hybridlungvit.evaluation.predictions import read_predictions
from hybridlungvit.evaluation.score import load_run
from hybridlungvit.explain.cases import TARGET, choose_cases, other_variants
from hybridlungvit.io import StudyError, replacing
from hybridlungvit.model import HybridLungViT
from hybridlungvit.model.inference import output_of
from hybridlungvit.model.tokens import cut_positions
from hybridlungvit.paths import Layout
from hybridlungvit.runtime import prepare_device

NO_GRADIENT = "Grad-CAM: no gradient reaches the feature map; are its layers frozen?"


class _Logits(nn.Module):
    """The model as grad-cam wants it, images to logits; the masks enter by closure."""

    def __init__(self, model: nn.Module, masks: Tensor) -> None:
        super().__init__()
        self.model, self.masks = model, masks

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs, self.masks).logits


def _last_input(vit: VisionTransformer) -> nn.Module:
    """The layer whose output the last block reads; parallel and post-norm blocks lack that norm."""
    *before, last = vit.blocks
    return last.norm1 if isinstance(last, Block) or not before else before[-1]


def gradcam_maps(
    model: nn.Module, images: Tensor, masks: Tensor, target: int
) -> NDArray[np.float32]:
    """Heat in [0, 1], float32 (B, S, S), for one class: 0 normal, 1 pneumonia.

    ``images`` (B, S, S), uint8 or float in [0, 1], and ``masks`` bool (B, S, S). The hybrid is read
    at its projected feature map, the plain control at the input of its last block, where patch
    tokens still matter.
    Raises ``StudyError`` when no gradient reaches that layer, which would give an empty map.
    """
    hybrid = isinstance(model, HybridLungViT)
    layer = model.project if hybrid else _last_input(model.stem.vit)
    reshape = None if hybrid else model.stem.feature_map
    if not any(p.requires_grad for p in (*model.stem.parameters(), *layer.parameters())):
        raise StudyError(NO_GRADIENT)  # grad-cam itself would fail without saying why
    inputs = to_input(images, model.stem.mean, model.stem.std)
    targets = [ClassifierOutputTarget(target)] * len(images)
    with GradCAM(_Logits(model, masks), [layer], reshape) as cam:
        heat = cam(inputs, targets)
        flows = any(bool(g.abs().sum() > 0) for g in cam.activations_and_grads.gradients)
    if not flows:
        raise StudyError(NO_GRADIENT)
    return heat


@dataclass(frozen=True)
class TestImages:
    """Test images of a study in the order of a variant's predictions (first seed)."""

    __test__ = False  # no test class, whatever its name

    table: pd.DataFrame
    """path, patient, label, probability and more, N rows, indexed from 0."""
    images: Tensor
    """(N, S, S), uint8 or float in [0, 1]."""
    masks: Tensor
    """bool (N, S, S)."""

    def select(self, rows: NDArray[np.int64]) -> "TestImages":
        """The images at some places, in that order."""
        table = self.table.iloc[rows].reset_index(drop=True)
        return TestImages(table, self.images[rows], self.masks[rows])

    def batches(self, size: int, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and masks, ``size`` at a time, where the model lies."""
        device = next(model.parameters()).device
        for images, masks in zip(self.images.split(size), self.masks.split(size), strict=True):
            yield images.to(device), masks.to(device)


def spare_gradients(model: nn.Module) -> nn.Module:
    """Turn off the gradients that no map needs, those below the layer it is read at; in place."""
    model.stem.requires_grad_(False)
    if isinstance(model, HybridLungViT):
        model.stem.freeze(True)
    else:
        model.stem.vit.blocks[-2:].requires_grad_(True)
    return model


def heat_of(model: nn.Module, tests: TestImages, batch_size: int) -> NDArray[np.float32]:
    """Grad-CAM for pneumonia of all images, in batches: float32 (N, S, S)."""
    batches = tests.batches(batch_size, model)
    return np.concatenate([gradcam_maps(model, *batch, TARGET) for batch in batches])


@torch.inference_mode()
def attention_of(
    model: nn.Module, tests: TestImages, batch_size: int
) -> NDArray[np.float32] | None:
    """Cross-attention to left and right tokens, float32 (N, 2·g²); None for the plain control."""
    parts = [output_of(model, *batch).attention for batch in tests.batches(batch_size, model)]
    return None if parts[0] is None else torch.cat(parts).cpu().numpy()


def load_tests(study: Study, variant: str, layout: Layout) -> TestImages:
    """The test images with a variant's predictions; raises ``StudyError`` when they disagree."""
    predictions = read_predictions(study, variant, study.seeds[0], layout)
    table = predictions[predictions.split == "test"].reset_index(drop=True)
    return read_images(study, variant, table, layout)


def read_images(study: Study, variant: str, table: pd.DataFrame, layout: Layout) -> TestImages:
    """The images of a table's column path, with the masks that a variant is given."""
    manifest, cache = open_images(study.recipe(variant), layout)
    rows = manifest.reset_index().set_index("path").loc[table.path, "index"].to_numpy()
    images, masks = cache.images[rows], cache.masks(rows)
    return TestImages(table, torch.from_numpy(images), torch.from_numpy(masks))


def load_explained(study: Study, variant: str, seed: int, layout: Layout) -> nn.Module:
    """A trained run on the study's device, ready for maps."""
    device = prepare_device(study.recipe(variant).compute)
    return spare_gradients(load_run(study, variant, seed, layout)).to(device)


def paint_attention(attention: NDArray, cuts: NDArray, side: int) -> NDArray[np.float64]:
    """Attention (B, 2·g²) over left and right tokens as maps (B, S, S), S = ``side``.

    A token's weight is spread evenly over its cell: the left tokens' cells divide the image left of
    the cut into g×g equal parts, the right tokens' what lies right of it. Pixels on a border share
    in both cells by area, so that a map sums to what its attention sums to, and equal weights give
    an even map on each side. ``cuts`` (B,) are in pixels, inside the image.
    """
    grid = round((attention.shape[1] // 2) ** 0.5)
    tokens = attention.astype(np.float64).reshape(-1, 2, grid, grid)  # (B, 2·g²) → (B, 2, g, g)
    rows = cell_coverage(0, side, grid, side)  # (g, S)
    maps = []
    for (left, right), cut in zip(tokens, cuts, strict=True):
        across = cell_coverage(0, cut, grid, side), cell_coverage(cut, side, grid, side)
        maps.append(rows.T @ (left @ across[0] + right @ across[1]))  # (S, S)
    return np.stack(maps)


def cell_coverage(start: float, stop: float, grid: int, side: int) -> NDArray[np.float64]:
    """How ``grid`` equal cells from ``start`` to ``stop`` lie on ``side`` pixels: (grid, side).

    Each row holds the share of a cell in each pixel and sums to 1.
    """
    edges = np.linspace(start, stop, grid + 1)
    pixels = np.arange(side)
    upper = np.minimum(edges[1:, None], pixels + 1)  # (g, S)
    lower = np.maximum(edges[:-1, None], pixels)  # (g, S)
    return np.clip(upper - lower, 0, None) * grid / (stop - start)


def write_cases(
    study: Study, variant: str, tests: TestImages, model: nn.Module, layout: Layout
) -> None:
    """Write images, masks, cuts, Grad-CAM and attention of the test cases that the rule chooses.

    With them goes the Grad-CAM of the other trained variants, first seed, on the same images.
    """
    threshold, size = study.recipe(variant).evaluation.threshold, study.explanation.batch_size
    index, rules = zip(*choose_cases(tests.table, threshold), strict=True)
    cases = tests.select(np.array(index))
    arrays = {"heat": heat_of(model, cases, size).astype(np.float16)}
    cuts = cut_positions(cases.masks)
    with torch.inference_mode():
        output = output_of(model, *next(cases.batches(len(index), model)))
    if output.attention is not None and study.recipe(variant).model.cut != "none":
        cuts = output.cuts.cpu()
        attention = output.attention.cpu().numpy()
        painted = paint_attention(attention, cuts.numpy(), cases.images.shape[-1])
        arrays["attention"] = painted.astype(np.float32)
    for other in other_variants(study, variant):
        trained = load_explained(study, other, study.seeds[0], layout)
        seen = read_images(study, other, cases.table, layout)
        arrays[f"heat of {other}"] = heat_of(trained, seen, size).astype(np.float16)
    with replacing(layout.gradcam(variant)) as temporary:
        np.savez_compressed(
            temporary,
            images=cases.images.numpy(),
            masks=cases.masks.numpy(),
            cuts=cuts.numpy(),
            rule=np.array(rules),
            label=cases.table.label.to_numpy(),
            probability=cases.table.probability.to_numpy(),
            path=cases.table.path.to_numpy().astype(str),
            **arrays,
        )
